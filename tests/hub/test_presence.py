"""Who came and went is told once each, in bounded number, over kills; time is virtual."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hub.errors import UnavailableError
from hub.event_log import EVENTS, Event, EventLog, Note
from hub.presence import (
    BURST,
    CONNECTED,
    FORGET_S,
    HUB_KILLED,
    HUB_STOPPED,
    MANY_CHANGES,
    PER_WRITE,
    PRESENCE,
    RETRY_S,
    SETTLE_S,
    TELL_EVERY_S,
    PresenceTeller,
)

T0 = 1_790_000_000_000_000_000


class Moody(EventLog):
    """A file that fails when it is told to."""

    failures = 0
    writes = 0

    def write(self, channel: str, events: Sequence[Event], notes: Sequence[Note] = ()) -> None:
        """Fail, or write."""
        self.writes += 1
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the disk is full")
        super().write(channel, events, notes)


class World:
    """A hub's presence, killed and started at will, in a time of its own."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.log = Moody(folder / EVENTS, clock=self.clock)
        self.teller = self.started(0)

    def clock(self) -> int:
        """Wall time."""
        return T0 + round(self.now_s * 1e9)

    def started(self, seen_ns: int) -> PresenceTeller:
        """Begin, as the hub does at its start; the teller before is dead."""
        self.teller = PresenceTeller(self.log, clock=self.clock, ticks=lambda: self.now_s)
        self.teller.begin(seen_ns)
        return self.teller

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and tell what is due, as `PresenceTeller.run` does."""
        self.now_s += seconds
        while changes := self.teller.take():
            self.teller._write(changes)

    def told(self, namespace: str = "default") -> list[dict[str, Any]]:
        """Return the entries, with their times."""
        entries = self.log.numbered(PRESENCE, namespace, 0, 10**6)
        return [json.loads(entry.text) | {"time_ns": entry.time_ns} for entry in entries]

    def states(self) -> list[tuple[str, str]]:
        """Return (state, why) of all entries."""
        return [(entry["state"], entry["why"]) for entry in self.told()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A hub that begins on an empty file."""
    world = World(tmp_path)
    with closing(world.log):
        yield world


def test_each_change_is_an_entry_of_its_time(world: World) -> None:
    """What, since when, why, for one change; the time is that at which the hub saw it, in the device's namespace."""
    world.teller.came("default", "pump")
    world.teller.came("north", "pump")
    world.pass_time(60)
    world.teller.went("default", "pump", "no pong")
    world.pass_time(1)
    world.pass_time(1)

    assert world.told() == [
        {"device": "pump", "state": "online", "why": CONNECTED, "since_ns": str(T0), "changes": 1, "time_ns": T0},
        {
            "device": "pump", "state": "offline", "why": "no pong", "since_ns": str(T0 + 60 * 10**9), "changes": 1,
            "time_ns": T0 + 60 * 10**9,
        },
    ]  # fmt: skip
    assert [entry["state"] for entry in world.told("north")] == ["online"]


def test_takeover_is_no_change_and_is_counted(world: World) -> None:
    """The older connection ends before the newer counts: nobody was away, and the next entry says what it swallowed."""
    world.teller.came("default", "pump")
    world.pass_time(1)
    world.teller.went("default", "pump", "taken over")
    world.teller.came("default", "pump")
    world.pass_time(1)
    assert len(world.told()) == 1

    world.teller.went("default", "pump", "bye")
    world.pass_time(1)

    assert [(entry["state"], entry["changes"]) for entry in world.told()] == [("online", 1), ("offline", 3)]


def test_connections_too_short_to_be_told_are_counted_in_the_end(world: World) -> None:
    """A device that is never there for as long as an entry takes: the first time at once, then with a count."""
    for _ in range(1 + MANY_CHANGES // 2 + 1):
        world.teller.came("default", "pump")
        world.teller.went("default", "pump", "bye")
        world.pass_time(SETTLE_S * 1.1)
    many = [(entry["state"], entry["changes"]) for entry in world.told()]
    world.pass_time(FORGET_S + 1)
    world.pass_time(FORGET_S + 1)

    assert many == [("offline", 2), ("offline", MANY_CHANGES)]
    assert [entry["changes"] for entry in world.told()[2:]] == [2], "what was left, before it is forgotten"
    assert len(world.teller) == 0


def test_flapping_device_is_told_once_a_minute_with_a_count(world: World) -> None:
    """An hour of a change each second: a few entries, each change counted, the last state told in the end."""
    hour = 3600
    for second in range(hour):
        if second % 2:
            world.teller.went("default", "pump", "connection lost (1006)")
        else:
            world.teller.came("default", "pump")
        world.pass_time(1)
    world.teller.came("default", "pump")
    world.pass_time(10 * TELL_EVERY_S)

    entries = world.told()
    assert len(entries) <= BURST + hour / TELL_EVERY_S + 2
    assert sum(entry["changes"] for entry in entries) == hour + 1
    assert entries[-1]["state"] == "online"
    assert len(world.teller._due) < 3 * BURST


def test_herd_is_told_in_slices_and_forgotten(world: World) -> None:
    """10,000 devices that lose their line at once: each once, a bounded number in one transaction, nothing stays."""
    names = [f"device-{number}" for number in range(10_000)]
    for state in ("came", "went"):
        for name in names:
            if state == "came":
                world.teller.came("default", name)
            else:
                world.teller.went("default", name, "bye")
        before = world.log.writes
        world.pass_time(1)
        assert world.log.writes - before == len(names) / PER_WRITE
    assert len(world.teller) == len(names)

    world.pass_time(FORGET_S + 1)

    assert Counter((entry["device"], entry["state"]) for entry in world.told()) == Counter(
        [(name, state) for name in names for state in ("online", "offline")]
    )
    assert (len(world.teller), len(world.teller._due), world.log.notes(PRESENCE)) == (0, 0, {})


def test_kill_takes_devices_offline_at_the_next_start(world: World) -> None:
    """Once, since the last moment at which the hub is known to have run; who comes back is online again."""
    world.teller.came("default", "pump")
    world.teller.came("default", "tank")
    world.pass_time(60)
    world.teller.went("default", "tank", "bye")
    world.pass_time(60)
    seen_ns = world.clock() - 7
    world.now_s += 3600
    world.started(seen_ns)
    world.teller.came("default", "pump")
    world.pass_time(1)
    start_ns = world.clock() - 10**9
    world.now_s += 1
    world.started(0)
    world.started(0)

    pump = [entry for entry in world.told() if entry["device"] == "pump"]
    assert [(e["state"], e["why"]) for e in pump] == [
        ("online", CONNECTED), ("offline", HUB_KILLED), ("online", CONNECTED), ("offline", HUB_KILLED),
    ]  # fmt: skip
    assert (pump[1]["since_ns"], pump[1]["time_ns"]) == (str(seen_ns), start_ns)
    # A hub that knows no later moment: it was online when it was told.
    assert pump[3]["since_ns"] == pump[2]["since_ns"]
    assert [entry["state"] for entry in world.told() if entry["device"] == "tank"] == ["online", "offline"]


def test_kill_at_the_start_tells_each_once_all_the_same(world: World) -> None:
    """The hub is killed between two transactions of its start: the next start goes on with the rest."""
    for number in range(2 * PER_WRITE + 1):
        world.teller.came("default", f"device-{number}")
    world.pass_time(1)

    class Killed(Exception):
        """Nothing comes after it."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    teller = PresenceTeller(world.log, clock=world.clock)
    write, calls = teller._write, 0

    def die_later(*arguments: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            killed()
        write(*arguments, **named)

    teller._write = die_later  # type: ignore[method-assign]
    with pytest.raises(Killed):
        teller.begin(T0)
    world.started(T0)

    assert Counter(entry["device"] for entry in world.told() if entry["state"] == "offline") == Counter(
        f"device-{number}" for number in range(2 * PER_WRITE + 1)
    )
    assert {entry["why"] for entry in world.told() if entry["state"] == "offline"} == {HUB_KILLED}


@pytest.mark.asyncio
async def test_orderly_stop_is_told_as_one(world: World) -> None:
    """What waited is told, who leaves behind it is not: the next start says that all went with the hub, and when."""
    running = asyncio.create_task(world.teller.run())
    await asyncio.sleep(0)
    world.teller.came("default", "pump")
    world.teller.came("default", "tank")
    world.now_s = 60
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.teller.went("default", "tank", "the hub stops")
    world.now_s = 90
    world.started(T0 + 5)

    assert [(e["device"], e["state"], e["why"], int(e["since_ns"]) - T0) for e in world.told()] == [
        ("pump", "online", CONNECTED, 0),
        ("tank", "online", CONNECTED, 0),
        ("pump", "offline", HUB_STOPPED, 60 * 10**9),
        ("tank", "offline", HUB_STOPPED, 60 * 10**9),
    ]
    world.teller.came("default", "pump")
    world.pass_time(1)
    world.started(0)
    assert world.states()[-1] == ("offline", HUB_KILLED), "the stop before does not count for this end"


@pytest.mark.asyncio
async def test_changes_wait_while_the_file_takes_nothing(world: World) -> None:
    """Told later, once, as they are then, for all changes meanwhile."""
    world.log.failures = 1
    world.teller.came("default", "pump")
    world.now_s = 1
    await world.teller._tell(world.teller.take())
    world.teller.went("default", "pump", "bye")
    world.teller.came("default", "pump")
    world.pass_time(RETRY_S + 1)

    assert [(entry["state"], entry["changes"]) for entry in world.told()] == [("online", 3)]


@pytest.mark.asyncio
async def test_device_that_comes_while_the_file_takes_nothing_is_told(world: World) -> None:
    """It was there too short to be told as online, and that could not be written; now it is there to stay."""
    world.teller.came("default", "pump")
    world.teller.went("default", "pump", "bye")
    world.log.failures = 1
    world.now_s = 1
    await world.teller._tell(world.teller.take())
    world.teller.came("default", "pump")
    world.pass_time(RETRY_S + 1)

    assert [(entry["state"], entry["changes"]) for entry in world.told()] == [("online", 3)]


@pytest.mark.asyncio
async def test_run_tells_what_is_due(tmp_path: Path) -> None:
    """In its own time, without being asked; a bug in one turn does not end it."""
    with closing(EventLog(tmp_path / EVENTS)) as log:
        teller = PresenceTeller(log)
        running = asyncio.create_task(teller.run())
        teller.came("default", "pump")
        async with asyncio.timeout(10):
            while not log.notes(PRESENCE):  # noqa: ASYNC110 - written in a thread
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert len(log.numbered(PRESENCE, "default", 0, 9)) == 1
