"""Alerts are raised and cleared once each, as the journal's order says, over kills."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk.reading import INT_MAX, Value
from hub.alerts import ALERTS, PER_WRITE, AlertTeller, limits_of
from hub.description import ChannelDescription
from hub.errors import UnavailableError
from hub.event_log import EVENTS, Event, EventLog, Note
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Series
from tests.support.frames import T0, FrameMaker

BAND = ChannelDescription(low=10.0, high=20.0, hysteresis=2.0)


class Moody(EventLog):
    """A file that fails when it is told to."""

    failures = 0

    def write(self, channel: str, events: Sequence[Event], notes: Sequence[Note] = ()) -> None:
        """Fail, or write."""
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the disk is full")
        super().write(channel, events, notes)


class Still(AlertTeller):
    """No thread: the test gives it frames."""

    starts = 0

    def _consume(self) -> None:
        self.starts += 1


class World:
    """Journal and events of a hub that is killed and started at will."""

    def __init__(self, folder: Path, described: ChannelDescription = BAND) -> None:
        self.maker = FrameMaker()
        self.log = Moody(folder / EVENTS)
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.series = self.maker.find("pump", "t")
        self.series.described = described
        self.start()

    def start(self) -> None:
        """Begin, as at a start of the hub."""
        self.teller = Still(self.log, self.journal)
        self.teller.begin(self.maker.all_series())

    def commit(self, *values: Value, time_ns: int | None = None) -> Frame:
        """Take a frame with values, a ms apart."""
        first_ns = T0 + self.journal.head * 10**9 if time_ns is None else time_ns
        frame = self.maker.batch("pump", [("t", first_ns + n * 10**6, value) for n, value in enumerate(values)])
        self.journal.append([frame], self.maker.all_series())
        return frame

    def look(self) -> None:
        """Decide over what was committed, as the consumer's thread does, frame by frame."""
        self.journal.find_series = self.maker.series.get
        while self.teller.applied < self.journal.head:
            self.teller.write(self.journal.read(self.teller.applied, 1))

    def told(self) -> list[dict[str, Any]]:
        """Return the entries, with their times."""
        entries = self.log.numbered(ALERTS, "default", 0, 10**6)
        return [json.loads(entry.text) | {"time_ns": entry.time_ns} for entry in entries]

    def states(self) -> list[tuple[str, float]]:
        """Return (state, value) of all entries."""
        return [(entry["state"], entry["value"]) for entry in self.told()]

    def close(self) -> None:
        """Close the files."""
        self.teller.stop()
        self.journal.close()
        self.log.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A hub of one device with limits of 10 and 20, and a hysteresis of 2."""
    with closing(World(tmp_path)) as world:
        yield world


def test_alert_is_raised_and_cleared_once(world: World) -> None:
    """By the first reading beyond, and by the first that is inside by the hysteresis; the time is the reading's."""
    world.commit(15.0, 20.0, 20.5, 99.0, 20.5, 18.5, 20.5, 18.0, 20.0)
    world.look()
    world.commit(9.0, 11.0, 12.0)
    world.look()
    world.look()

    first, second = T0, T0 + 10**9
    assert world.told() == [
        {"device": "pump", "channel": "t", "state": state, "value": value, "side": side, "limit": limit, "changes": 1,
         "time_ns": time_ns}
        for state, value, side, limit, time_ns in [
            ("raised", 20.5, "above", 20.0, first + 2 * 10**6), ("cleared", 18.0, "", None, first + 7 * 10**6),
            ("raised", 9.0, "below", 10.0, second), ("cleared", 12.0, "", None, second + 2 * 10**6),
        ]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("described", "values", "states"),
    [
        pytest.param(ChannelDescription(high=20.0), [21.0, 20.0, 20.1], ["raised", "cleared", "raised"], id="one end"),
        pytest.param(ChannelDescription(low=0.0, hysteresis=1), [-1, 0, 1], ["raised", "cleared"], id="low alone"),
        pytest.param(
            ChannelDescription(low=0.0, high=4.0, hysteresis=100), [5.0, 3.5, 3.0], ["raised", "cleared"],
            id="hysteresis wider than the range is a quarter of it",
        ),
        pytest.param(
            ChannelDescription(high=20.0, scale=0.1), [150, 201, 199], ["raised", "cleared"], id="of what is shown"
        ),
        pytest.param(
            ChannelDescription(high=20.0, scale=-1), [-19.0, -30.0, -21.0], ["raised"], id="turned round by its scale"
        ),
        pytest.param(ChannelDescription(high=20.0), [True, False], [], id="a switch has none"),
        pytest.param(ChannelDescription(high=20.0), ["99"], [], id="a text has none"),
        pytest.param(ChannelDescription(label="x"), [99.0], [], id="no limits"),
    ],
)  # fmt: skip
def test_limits(tmp_path: Path, described: ChannelDescription, values: list[Value], states: list[str]) -> None:
    """What a person set of the channel, either end."""
    with closing(World(tmp_path, described)) as world:
        world.commit(*values)
        world.look()

        assert [entry["state"] for entry in world.told()] == states


def test_late_readings_decide_nothing(world: World) -> None:
    """They say how it was; nor does history from a file."""
    frame = world.commit(99.0, 99.0, 15.0)
    frame.late = ((0, T0 + 2 * 10**6),)
    history = world.commit(99.0)
    history.late = ((0, INT_MAX),)
    world.teller.write([frame, history])

    assert world.told() == []


def test_where_nobody_set_limits_nothing_runs(tmp_path: Path) -> None:
    """It begins with the first limit, over what comes then; a start without limits forgets where it was."""
    with closing(World(tmp_path, ChannelDescription())) as world:
        world.commit(99.0)
        assert world.teller.starts == 0
        world.series.described = BAND
        world.teller.describe([world.series])
        assert world.teller.starts == 1
        world.look()
        world.commit(98.0)
        world.look()
        assert world.states() == [("raised", 98.0)]

        world.commit(15.0)
        world.look()
        world.series.described = ChannelDescription()
        world.start()
        assert (world.teller.starts, world.log.notes(ALERTS)) == (0, {})


def test_limits_that_come_while_the_hub_stops_start_nothing(tmp_path: Path) -> None:
    """Nobody would end that thread: the process would stay for ever."""
    with closing(World(tmp_path, ChannelDescription())) as world:
        world.teller.stop()
        world.series.described = BAND
        world.teller.describe([world.series])

        assert world.teller.starts == 0


def test_alert_ends_with_its_limits(world: World) -> None:
    """Unset while it is raised: said with the next frame of anybody; also when they are unset while there is no hub."""
    world.commit(99.0)
    world.look()
    world.series.described = ChannelDescription()
    world.teller.describe([world.series])
    world.commit(99.0)
    world.look()
    world.series.described = BAND
    world.teller.describe([world.series])
    world.commit(99.0)
    world.look()
    world.series.described = ChannelDescription()
    world.start()
    world.commit(99.0)
    world.look()

    assert [entry["state"] for entry in world.told()] == ["raised", "unset", "raised", "unset"]
    assert {key for key in world.log.notes(ALERTS) if key[0]} == set()


def test_spikes_of_one_write_are_told_up_to_a_number(world: World) -> None:
    """What is beyond it is counted in the last."""
    world.commit(*[15.0, 99.0] * 50)
    world.look()

    assert len(world.told()) == PER_WRITE
    assert sum(entry["changes"] for entry in world.told()) == 99
    assert world.told()[-1]["state"] == "raised"


def test_write_that_failed_is_decided_again(world: World) -> None:
    """From the same states: nothing is lost and nothing double."""
    world.commit(99.0, 15.0, 99.0)
    world.log.failures = 1
    with pytest.raises(UnavailableError):
        world.look()
    world.look()

    assert [state for state, _ in world.states()] == ["raised", "cleared", "raised"]


@pytest.mark.parametrize("seed", range(5))
def test_kills_anywhere_change_nothing(tmp_path: Path, seed: int) -> None:
    """Killed at any moment, with frames of any size: what is told is what one look over all readings would tell."""
    dice = random.Random(seed)
    expected, is_raised = [], False
    with closing(World(tmp_path)) as world:
        for _ in range(60):
            values = [float(dice.choice([5, 11, 13, 15, 17, 19, 25])) for _ in range(dice.randrange(1, 6))]
            world.commit(*values)
            for value in values:
                if is_raised != (not 12 <= value <= 18 if is_raised else not 10 <= value <= 20):
                    is_raised = not is_raised
                    expected.append(("raised" if is_raised else "cleared", value))
            moment = dice.randrange(6)
            if moment < 3:
                world.log.failures = dice.randrange(2)
                with suppress(UnavailableError):
                    world.look()
                world.log.failures = 0
                if moment == 2:
                    world.teller.sync()
                world.start()
        world.look()
        world.start()
        world.look()

        assert world.states() == expected


@pytest.mark.asyncio
async def test_consumer_brings_frames_from_memory_and_journal(tmp_path: Path) -> None:
    """The real thread: from where the last run was, what was committed since, then what is committed now."""
    with closing(World(tmp_path)) as world:
        world.commit(15.0)
        world.look()
        world.teller.sync()
        world.commit(99.0)
        world.journal.find_series = world.maker.series.get
        teller = AlertTeller(world.log, world.journal)
        teller.begin(world.maker.all_series())
        try:
            frame = world.commit(15.0)
            teller.committed([frame])
            limit = time.monotonic() + 10
            while len(world.told()) < 2 and time.monotonic() < limit:  # noqa: ASYNC110 - written in a thread
                await asyncio.sleep(0.01)
        finally:
            teller.stop()

        assert [state for state, _ in world.states()] == ["raised", "cleared"]
        assert world.log.note(ALERTS, "", "offset") == world.journal.head
        assert world.journal.checkpoint(ALERTS) == 0, "alerts hold no frames back"


def test_limits_of_a_person_alone() -> None:
    """A range that the device declared is shown by the page; it is no limit."""
    assert limits_of(Series(1, "default", "pump", "t", low=1.0, high=2.0)) is None
