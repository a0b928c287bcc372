"""All channels of ``$sys`` of a running hub: what it notices of devices is in the journal, and the ledgers balance."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.reading import Channel
from hub.alerts import ALERTS
from hub.app import Hub
from hub.audit import audit_object, take_books
from hub.backup import STATES
from hub.change_log import CHANGES, ChangeLog
from hub.config import Config
from hub.devices import Registry
from hub.downlink import Downlink
from hub.errors import UnavailableError
from hub.event_log import EVENTS, Event, EventLog, Note
from hub.journal.sqlite import SqliteJournal
from hub.metadata import Edit
from hub.model import Kind, SeriesKey, StreamKey
from hub.presence import PRESENCE
from hub.session import DeviceSession
from hub.streams import Streams
from hub.system_feed import SystemFeed
from hub.system_readings import CHANNELS, SystemReadings

# Not a day of the past: the journal keeps one day.
T0 = time.time_ns()


def greeted(hub: Hub, device: str) -> DeviceSession:
    """Return a session of the hub that was welcomed."""
    session = DeviceSession("default", device, hub.streams, hub.registry, downlink=hub.downlink)
    mark = hub.streams.get(StreamKey("default", device, "00000000000000aa")).mark
    hello = wire.Hello(device, mark.key.stream, "0" * 16, "1" * 16, mark.stored, mark.stored + 1, mark.last_chain.hex())
    session.receive(wire.encode(hello), True, T0)
    return session


def told(hub: Hub) -> dict[str, list[dict[str, Any]]]:
    """Return the readings of each channel that the journal holds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for frame in hub.journal.read(0, 10**8) if hub.journal.head else []:
        for series, _, value in frame.rows():
            if series.device == "$sys":
                found.setdefault(series.channel, []).append(json.loads(str(value)))
    return found


async def until(is_so: Callable[[], bool]) -> None:
    """Wait: commits come from another thread."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_devices_and_losses_are_readings_over_restarts(tmp_path: Path) -> None:
    """A device comes, declares a loss, stays until the hub stops; the next start says so; nothing is told twice."""
    async with Hub(Config(data=tmp_path)) as hub:
        session = greeted(hub, "pump")
        session.receive(wire.encode(wire.Schema((Channel("t"),))), True, T0)
        gap = wire.Gap(1, 12, "spool_full", {"t": (T0, T0 + 5)})
        session.receive(wire.encode(gap), True, T0)
        assert [frame.kind for frame in session.frames] == [Kind.GAP]
        hub.submit(session.frames)
        await until(lambda: {"presence", "gaps"} <= told(hub).keys())
    async with Hub(Config(data=tmp_path)) as hub:
        await until(lambda: len(told(hub)["presence"]) == 2)
        session = greeted(hub, "pump")
        session.closed("connection lost (1006)")
        session = greeted(hub, "tank")
        await until(lambda: len(told(hub)["presence"]) == 4)
        session.closed("no pong")
        await until(lambda: len(told(hub)["presence"]) == 5)
        assert await hub.consumer.applied(hub.journal.head, 10)
        series = [series.id for series in hub.registry.by_id.values()]
        books = take_books(lambda after: hub.journal.account("default", None, after), hub.store.account, series)
        found = told(hub)

    states = [(entry["device"], entry["state"], entry["why"], entry["changes"]) for entry in found["presence"]]
    assert states == [
        ("pump", "online", "connected", 1), ("pump", "offline", "hub_stopped", 1),
        ("pump", "offline", "connection lost (1006)", 2), ("tank", "online", "connected", 1),
        ("tank", "offline", "no pong", 1),
    ]  # fmt: skip
    assert [(gap["device"], gap["count"], gap["first_ns"]) for gap in found["gaps"]] == [("pump", 12, str(T0))]
    account = audit_object(books, lambda *_: True)
    assert account["balanced"], account


class Moody(EventLog):
    """A file that fails when it is told to."""

    failures = 0

    def write(self, channel: str, events: Sequence[Event], notes: Sequence[Note] = ()) -> None:
        """Fail, or write."""
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the disk is full")
        super().write(channel, events, notes)


@pytest.mark.asyncio
async def test_file_that_takes_nothing_keeps_no_hub_from_starting(tmp_path: Path) -> None:
    """With room again it says first what became of who was there before, then who came meanwhile."""
    with (
        closing(Moody(tmp_path / EVENTS)) as log,
        closing(SqliteJournal(tmp_path / "journal.sqlite3")) as journal,
        closing(ChangeLog(tmp_path / CHANGES)) as changes,
    ):
        log.write(PRESENCE, [], [Note("default", "pump", T0 - 10**9)])
        log.failures = 3
        streams = Streams(journal.runs(), journal.head, journal.find_marks)
        feed = partial(
            SystemFeed, streams=streams, registry=Registry(()), submit=print, can_submit=lambda: False,
            clock=time.time_ns,
        )  # fmt: skip
        downlink = Downlink()
        readings = SystemReadings(feed, changes, log, journal, downlink, (), again_s=0.01)
        running = asyncio.create_task(readings.run())
        downlink.entered(DeviceSession("default", "pump", streams, Registry(()), downlink=downlink))
        await until(lambda: len(log.numbered(PRESENCE, "default", 0, 9)) == 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        entries = log.numbered(PRESENCE, "default", 0, 9)

    assert [json.loads(entry.text)["state"] for entry in entries] == ["offline", "online"]
    assert entries[0].time_ns < entries[1].time_ns


@pytest.mark.asyncio
async def test_clock_that_leaps_cuts_nothing(tmp_path: Path) -> None:
    """What is too old is said by the clock by which readings are dropped: it believes no time server for a day."""
    async with Hub(Config(data=tmp_path)) as hub:
        assert hub.system._events._clock is hub.clock


def deciding() -> list[str]:
    """Return the threads that decide over alerts."""
    return [thread.name for thread in threading.enumerate() if ALERTS in thread.name]


@pytest.mark.asyncio
async def test_hub_that_does_not_get_far_leaves_no_thread(tmp_path: Path) -> None:
    """Where limits are set: it ends before its tasks have begun, or cannot open a file; its process must end too."""
    async with Hub(Config(data=tmp_path)) as hub:
        hub.metadata.change(Edit(SeriesKey("default", "pump", "t"), {"high": 5.0}), "tests")
        session = greeted(hub, "pump")
        session.receive(wire.encode(wire.Schema((Channel("t"),))), True, T0)
        session.receive(wire.encode(wire.Gap(1, 12, "spool_full", {"t": (T0, T0 + 5)})), True, T0)
        hub.submit(session.frames)
        await until(lambda: bool(hub.journal.series()))
    async with Hub(Config(data=tmp_path)):
        begun = deciding()
    ended = deciding()
    (tmp_path / STATES).write_bytes(b"no database" * 1000)
    with pytest.raises(UnavailableError, match=STATES):
        async with Hub(Config(data=tmp_path)):
            pass

    assert (len(begun), ended, deciding()) == (1, [], [])


def test_channels_have_names_and_labels() -> None:
    """As devices' channels have: lists show what each is."""
    assert all(channel.label and channel.name for channel in CHANNELS)
