"""`hub.retention`: which readings are dropped when, a slice at a time."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.config import Config
from hub.errors import ConfigError
from hub.retention import Ages, Policies, Retention
from hub.steady_clock import SteadyClock
from hub.store.embedded import EmbeddedStore
from tests.support.frames import FrameMaker, numbered

DAY_NS = 86_400 * 10**9
# Of the wall clock in these tests; a whole day.
NOW_NS = 20_500 * DAY_NS


class Rig:
    """A store with a reading each day of the last hundred, of two channels."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.store = EmbeddedStore(folder / "readings.sqlite3")
        self.maker = FrameMaker()
        for days in range(100, -1, -1):
            time_ns = NOW_NS - days * DAY_NS
            frame = self.maker.batch("pump", [("t", time_ns, 1.0), ("vibration", time_ns, 2.0)])
            self.store.write(numbered([frame], self.store.applied + 1))
        self.now_ns = NOW_NS
        self.retention = Retention(self.store, Policies(config), self.maker.all_series, now_ns=lambda: self.now_ns)

    def days(self, channel: int) -> int:
        """Return how many readings of a channel there are."""
        return len(self.store.read([channel], 0, 2**62, 999))

    def sums(self, channel: int) -> int:
        """Return how many readings are there or in sums."""
        return sum(int(b.values[0]) for b in self.store.aggregate([channel], 0, 2**62, DAY_NS, ["count"]))


def rig(folder: Path, **settings: object) -> Iterator[Rig]:
    """Make one and close it."""
    made = Rig(folder, Config(**settings))  # type: ignore[arg-type]
    with closing(made.store):
        yield made


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        pytest.param({}, (31, 31), id="30 days by default"),
        pytest.param({"keep_raw": "for ever"}, (101, 101), id="for ever"),
        pytest.param({"keep_raw": "1w"}, (8, 8), id="a week"),
        pytest.param({"retention": ["*/vibration 2d"]}, (31, 3), id="a pattern"),
        pytest.param({"retention": ["**/t for ever", "* 2d"]}, (101, 3), id="the first that matches"),
        pytest.param({"retention": [{"match": "other-*", "raw": "1h"}]}, (31, 31), id="of no series here"),
    ],
)
def test_readings_are_kept_as_long_as_said(tmp_path: Path, settings: dict[str, object], kept: tuple[int, int]) -> None:
    """What is older than its policy says goes, its sums stay, and a second pass finds nothing."""
    for made in rig(tmp_path, **settings):
        dropped = sum(made.retention.slices())

        assert (made.days(1), made.days(2)) == kept
        assert (made.sums(1), made.sums(2)) == (101, 101)
        assert dropped == made.retention.figures.dropped == 202 - sum(kept)
        assert sum(made.retention.slices()) == 0
        made.now_ns += DAY_NS
        assert sum(made.retention.slices()) == (kept[0] < 101) + (kept[1] < 101)


def test_sums_go_when_their_time_is_over(tmp_path: Path) -> None:
    """By thirty days, so up to as many days later than said; those of others stay."""
    for made in rig(tmp_path, retention=["*/t 1d 40d"]):
        list(made.retention.slices())

        assert 41 <= made.sums(1) <= 71
        assert made.sums(2) == 101
        assert made.retention.figures.rollups_dropped > 0


def test_a_clock_that_leaps_ahead_drops_nothing(tmp_path: Path) -> None:
    """Fourteen years for a minute, while retention looks: readings and sums are there when the clock is right again."""
    for made in rig(tmp_path, keep_raw="30d", keep_rollups="5y"):
        list(made.retention.slices())
        steady = SteadyClock(now_ns=lambda made=made: made.now_ns, clock=lambda: 0.0)  # type: ignore[misc]
        retention = Retention(made.store, Policies(Config(keep_rollups="5y")), made.maker.all_series, now_ns=steady)
        made.now_ns += 14 * 365 * DAY_NS

        assert sum(retention.slices()) == 0

        assert (made.days(1), made.sums(1)) == (31, 101)


def test_a_store_of_an_older_hub_keeps_all(tmp_path: Path) -> None:
    """Nothing is dropped there by default; a setting that is said holds."""
    series = FrameMaker().find("pump", "t")

    assert Policies(Config(), keeps_all=True).ages(series) == Ages(None, None)
    assert Policies(Config(keep_raw="30d"), keeps_all=True).ages(series) == Ages(30 * DAY_NS, None)
    assert Policies(Config(retention=["** 1d"]), keeps_all=True).ages(series) == Ages(DAY_NS, None)  # type: ignore[list-item]


def test_a_pattern_that_cannot_be_read_is_a_wrong_setting() -> None:
    """It is named before anything is dropped."""
    with pytest.raises(ConfigError, match="retention of 'a//b'"):
        Policies(Config(retention=["a//b 1d"]))  # type: ignore[list-item]


def test_a_hub_that_stops_does_not_wait(tmp_path: Path) -> None:
    """Nothing is dropped before the first interval is over, and cancelling ends the task at once."""

    async def begin_and_stop(made: Rig) -> bool:
        task = asyncio.create_task(made.retention.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    for made in rig(tmp_path):
        assert asyncio.run(begin_and_stop(made))
        assert made.days(1) == 101
