"""Declared losses are told once each, over kills and restored journals; time is virtual."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk.wire import Rejection
from hub.errors import UnavailableError
from hub.event_log import EVENTS, Event, EventLog, Note
from hub.journal.sqlite import SqliteJournal
from hub.losses import CHANNELS_EACH, EACH, GAPS, PER_LOOK, REFUSED_EVERY_S, LossTeller
from hub.model import Frame
from tests.support.frames import STREAM, T0, FrameMaker


class Moody(EventLog):
    """A file that fails when it is told to."""

    failures = 0

    def write(self, channel: str, events: Sequence[Event], notes: Sequence[Note] = ()) -> None:
        """Fail, or write."""
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the disk is full")
        super().write(channel, events, notes)


class World:
    """Journal and events of a hub that is killed and started at will."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.folder = folder
        self.maker = FrameMaker()
        self.log = Moody(folder / EVENTS)
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.start()

    def start(self) -> None:
        """Begin, as at a start of the hub."""
        self.teller = LossTeller(self.log, self.journal, ticks=lambda: self.now_s)
        self.teller.begin()

    def commit(self, *frames: Frame) -> None:
        """Take frames."""
        self.journal.append(frames, self.maker.all_series())

    def look(self) -> None:
        """Tell what is due, as `LossTeller.run` does until nothing is."""
        self.now_s += REFUSED_EVERY_S
        while self.teller.is_due():
            self.teller.tell()

    def told(self, namespace: str = "default") -> list[dict[str, Any]]:
        """Return the entries, with their times."""
        entries = self.log.numbered(GAPS, namespace, 0, 10**6)
        return [json.loads(entry.text) | {"time_ns": entry.time_ns} for entry in entries]

    def close(self) -> None:
        """Close the files."""
        self.journal.close()
        self.log.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty hub."""
    with closing(World(tmp_path)) as world:
        yield world


def refused(maker: FrameMaker, device: str, channel: str, reason: str, count: int = 1) -> Frame:
    """Return a frame of which readings were refused."""
    return maker.batch(device, [("t", T0, 1.0)], rejected=(Rejection(1, channel, 0, reason),) * count)


def test_gap_is_an_entry_with_all_that_is_known(world: World) -> None:
    """Device, stream, channel, count, range and reason; unknown counts are null; frames of readings are nothing."""
    world.commit(world.maker.one("pump", 1.0), world.maker.gap("pump", 7), world.maker.gap("tank", None, "thinned"))

    world.look()
    world.look()

    pump, tank = world.told()
    assert pump == {
        "device": "pump", "stream": STREAM, "channel": "t", "count": 7, "reason": "spool_full", "first_ns": str(T0),
        "last_ns": str(T0 + 1), "gaps": 1, "time_ns": T0,
    }  # fmt: skip
    assert (tank["device"], tank["count"], tank["reason"], tank["time_ns"]) == ("tank", None, "thinned", T0 + 1)


def test_readings_alone_make_nothing_due(world: World) -> None:
    """Where nothing is lost nothing is read."""
    world.look()
    world.commit(*world.maker.many(3, 5, 4))

    assert not world.teller.is_due()
    world.commit(world.maker.gap("pump", 1))
    assert world.teller.is_due()


def test_refused_readings_are_told_by_what_their_sums_grew(world: World) -> None:
    """By channel and reason, one entry for all within the interval; a quarantined frame counts with its readings."""
    world.commit(refused(world.maker, "pump", "t", "bad_type", 2), refused(world.maker, "pump", "t", "bad_type", 3))
    world.look()
    world.commit(refused(world.maker, "pump", "t", "bad_type"), world.maker.quarantined("pump", b"{", 4))
    world.teller.tell()
    early = len(world.told())
    world.look()

    found = [(e["device"], e["channel"], e["reason"], e["count"]) for e in world.told()]
    assert early == 1
    assert found == [("pump", "t", "bad_type", 5), ("pump", "", "malformed", 4), ("pump", "t", "bad_type", 1)]


def test_kill_anywhere_tells_each_once(world: World) -> None:
    """Before the write, or with the write done and nothing remembered of it."""
    for number in range(6):
        world.commit(world.maker.gap("pump", number + 1), refused(world.maker, "pump", "t", "bad_type", 2))
        if number % 2:
            world.log.failures = number % 3
            with suppress(UnavailableError):
                world.look()
            world.log.failures = 0
        world.start()
    world.look()
    world.start()
    world.look()

    assert [e["count"] for e in world.told() if e["gaps"]] == [1, 2, 3, 4, 5, 6]
    assert sum(e["count"] for e in world.told() if not e["gaps"]) == 12


def test_write_that_failed_is_tried_again(world: World) -> None:
    """Nothing is skipped: neither gaps nor sums."""
    world.commit(world.maker.gap("pump", 3), refused(world.maker, "pump", "t", "bad_type"))
    world.log.failures = 1
    with pytest.raises(UnavailableError):
        world.look()
    world.log.failures = 1
    with pytest.raises(UnavailableError):
        world.look()
    assert world.teller.is_due()

    world.look()

    assert [(e["gaps"], e["count"]) for e in world.told()] == [(1, 3), (0, 1)]


def test_flood_of_gaps_is_told_together(world: World) -> None:
    """More than a few hundred in one look: one entry a device, stream and reason, that says how many and how much."""
    world.commit(*(world.maker.gap("pump", 2) for _ in range(EACH + 10)), world.maker.gap("tank", None))
    world.look()

    assert [(e["device"], e["gaps"], e["count"]) for e in world.told()] == [
        ("pump", EACH + 10, 2 * (EACH + 10)), ("tank", 1, None),
    ]  # fmt: skip


def test_many_pages_are_read_to_the_end(world: World) -> None:
    """One look reads a bounded number; the next ones go on."""
    world.commit(*(world.maker.gap("pump", 1) for _ in range(PER_LOOK + 5)))
    world.teller.tell()
    first = sum(e["gaps"] for e in world.told())
    world.look()

    assert first == PER_LOOK
    assert sum(e["count"] for e in world.told()) == PER_LOOK + 5


def test_device_that_invents_channels_and_reasons_is_a_few_entries(world: World) -> None:
    """By reason where channels are many; one entry where reasons are many as well. All are counted."""
    many = 3 * CHANNELS_EACH
    world.commit(*(refused(world.maker, "pump", f"c{n}", "bad_type") for n in range(many)))
    world.look()
    world.commit(*(refused(world.maker, "tank", f"c{n}", f"reason {n}") for n in range(many)))
    world.look()

    assert [(e["device"], e["channel"], e["reason"], e["count"]) for e in world.told()] == [
        ("pump", "", "bad_type", many), ("tank", "", "many", many),
    ]  # fmt: skip


def test_restored_journal_is_followed_from_where_it_is(tmp_path: Path) -> None:
    """Older than what was told: what it gets again, and what is new, is told."""
    with closing(World(tmp_path)) as world:
        world.commit(world.maker.gap("pump", 1))
        world.look()
    shutil.copy(tmp_path / "journal.sqlite3", tmp_path / "old")
    with closing(World(tmp_path)) as world:
        world.maker.gap("pump", 1)
        world.commit(world.maker.gap("pump", 2), refused(world.maker, "pump", "t", "bad_type", 5))
        world.look()
    shutil.copy(tmp_path / "old", tmp_path / "journal.sqlite3")
    with closing(World(tmp_path)) as world:
        world.look()
        world.maker.gap("pump", 1)
        world.commit(world.maker.gap("pump", 3), refused(world.maker, "pump", "t", "bad_type", 4))
        world.look()

        assert [(e["gaps"], e["count"]) for e in world.told()] == [(1, 1), (1, 2), (0, 5), (1, 3), (0, 4)]


@pytest.mark.asyncio
async def test_run_tells_and_goes_on_after_failures(tmp_path: Path) -> None:
    """Without being asked."""
    with closing(World(tmp_path)) as world:
        running = asyncio.create_task(world.teller.run())
        world.commit(world.maker.gap("pump", 1))
        async with asyncio.timeout(10):
            while not world.told():  # noqa: ASYNC110 - written in a thread
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert len(world.told()) == 1
