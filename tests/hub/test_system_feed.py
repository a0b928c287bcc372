"""What the hub tells of itself reaches the journal exactly once, in order, whatever ends in between."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import wire
from hub.app import Hub
from hub.audit import audit_object, take_books
from hub.change_log import CHANGES, KEEP_NS, ChangeLog, Entry
from hub.config import Config
from hub.devices import Registry
from hub.errors import DiskFullError
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Kind, Mark, StreamKey
from hub.roles import SYSTEM_DEVICE
from hub.streams import Streams, StreamState
from hub.system_feed import AUDIT, CUT, ENTRIES_PER_FRAME, SystemFeed, make_frames, told

T0 = 1_790_000_000_000_000_000


class Rig:
    """A feed on files of the test. What it submits is committed at once, unless ``is_full`` or ``is_dead``."""

    def __init__(self, folder: Path, *, offset_ns: int = 0) -> None:
        self.log = ChangeLog(folder / CHANGES, clock=lambda: time.time_ns() + offset_ns)
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.registry = Registry(self.journal.series())
        self.streams = Streams(self.journal.runs(), self.journal.head, self.journal.find_marks)
        self.is_full = self.is_queue_full = self.is_killed_before = self.is_killed_after = False
        self.groups: list[int] = []
        self.feed = SystemFeed(
            self.log, AUDIT, self.streams, self.registry, self.submit, lambda: not self.is_queue_full, time.time_ns
        )

    def submit(self, frames: list[Frame]) -> None:
        """Do what the hub and its writer do."""
        asyncio.get_running_loop().call_soon(self._commit, frames)

    def _commit(self, frames: list[Frame]) -> None:
        if self.is_full:
            self.streams.refused(frames)
            return
        if not self.is_killed_before:
            self.journal.append(frames, self.registry.take_changes())
            self.groups.append(sum(frame.readings for frame in frames))
            if not self.is_killed_after:
                self.streams.committed(frames)

    async def die(self) -> None:
        """Tell, and never hear of the commit."""
        task = asyncio.create_task(self.feed.tell())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.2)

    def close(self) -> None:
        """Close the files."""
        self.journal.close()
        self.log.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """An empty hub."""
    with closing(Rig(tmp_path)) as rig:
        yield rig


def readings(rig: Rig, namespace: str = "default") -> list[str]:
    """Return what was done, as the journal has it, in the order of offsets."""
    frames = rig.journal.read(0, 10**8) if rig.journal.head else []
    return [
        json.loads(str(value))["what"]
        for frame in frames if frame.key.namespace == namespace
        for _, _, value in frame.rows()
    ]  # fmt: skip


def record(log: ChangeLog, *numbers: int, namespace: str = "default") -> None:
    """Write entries that say their numbers."""
    for number in numbers:
        log.record(Entry(f"change {number}", namespace=namespace))


def changes(*numbers: int) -> list[str]:
    """Return what `readings` gives for entries of `record`."""
    return [f"change {number}" for number in numbers]


def test_frames_follow_the_mark_and_stop_at_a_hole(tmp_path: Path) -> None:
    """What is missing before the entries is a gap with its count; entries behind a further hole wait."""
    registry, state = Registry(()), StreamState(Mark(StreamKey("default", SYSTEM_DEVICE, "ab" * 8)))
    with closing(ChangeLog(tmp_path / CHANGES)) as log:
        record(log, *range(1, 8))
        entries = log.numbered("default", 0, 9)

    gap, batch = make_frames(state, [*entries[2:4], *entries[5:]], AUDIT, registry, T0)

    assert (gap.kind, gap.seq, gap.dropped, gap.reason) == (Kind.GAP, 1, 2, CUT)
    assert (batch.kind, batch.seq, batch.readings, state.accepted) == (Kind.BATCH, 2, 2, 2)
    assert [row[1:] for row in batch.rows()] == [(e.time_ns, e.text) for e in entries[2:4]]
    assert batch.chain == wire.next_chain(gap.chain, batch.body)


@pytest.mark.asyncio
async def test_each_entry_is_a_reading_of_its_namespace(rig: Rig) -> None:
    """Its time is the entry's, its value says who did what, to what, from where; once, however often it is looked."""
    entry = rig.log.record(Entry("POST /v1/devices", "pump-1", "ok", "anna", "admin", "t1", "192.0.2.7"))
    record(rig.log, 1, namespace="north")

    await rig.feed.tell()
    await rig.feed.tell()

    found, other = rig.journal.read(0, 10**6)
    assert found.key == StreamKey("default", SYSTEM_DEVICE, rig.log.name)
    assert other.key == StreamKey("north", SYSTEM_DEVICE, rig.log.name)
    ((series, time_ns, value),) = found.rows()
    assert (series.device, series.channel, time_ns) == ("$sys", "audit", entry.time_ns)
    assert value == (
        '{"who":"anna","role":"admin","what":"POST /v1/devices","target":"pump-1","outcome":"ok","peer":"192.0.2.7",'
        '"count":1}'
    )
    assert len(rig.streams) == 2, "at rest, as streams of devices that left"


@pytest.mark.asyncio
async def test_a_fleet_at_once_goes_in_bounded_frames(rig: Rig) -> None:
    """3,000 entries: each once, in order, one frame on its way at a time."""
    rig.log._write([Entry(f"change {number}") for number in range(3000)])

    await rig.feed.tell()

    assert readings(rig) == changes(*range(3000))
    assert max(rig.groups) == ENTRIES_PER_FRAME
    assert max(len(frame.body) for frame in rig.journal.read(0, 10**8)) < wire.MAX_FRAME_BYTES / 2


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["is_killed_before", "is_killed_after"])
async def test_kill_beside_the_commit_loses_and_doubles_nothing(tmp_path: Path, moment: str) -> None:
    """The hub dies with the frame on its way: before the journal has it, or before anybody heard that it has."""
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 0, 1)
        await rig.feed.tell()
        record(rig.log, 2, 3)
        setattr(rig, moment, True)
        await rig.die()
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 4)
        await rig.feed.tell()

        assert readings(rig) == changes(0, 1, 2, 3, 4)


@pytest.mark.asyncio
async def test_entries_wait_while_the_disk_is_full(rig: Rig) -> None:
    """Refused frames are told again when there is room; writing to the log needs no journal."""
    record(rig.log, 0)
    rig.is_full = True
    with pytest.raises(DiskFullError):
        await rig.feed.tell()
    record(rig.log, 1)
    rig.is_full, rig.is_queue_full = False, True
    await rig.feed.tell()
    assert readings(rig) == []

    rig.is_queue_full = False
    await rig.feed.tell()

    assert readings(rig) == changes(0, 1)


@pytest.mark.asyncio
async def test_what_was_cut_first_is_declared(tmp_path: Path) -> None:
    """The log keeps a year: what the journal never got until then is a gap with its count, and the ledger says so."""
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 0)
        await rig.feed.tell()
        record(rig.log, 1, 2)
    with closing(Rig(tmp_path, offset_ns=KEEP_NS + 10**9)) as rig:
        rig.log.flush()
        record(rig.log, 3)
        await rig.feed.tell()

        assert readings(rig) == changes(0, 3)
        ((reason, count),) = [(gap.reason, gap.count) for gap in rig.journal.gaps("default")]
        assert (reason, count) == (CUT, 2)


@pytest.mark.asyncio
async def test_journal_of_an_older_backup_gets_what_it_lacks(tmp_path: Path) -> None:
    """A backup copies the log last: the journal in it may lack entries that the log has, never the other way."""
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 0)
        await rig.feed.tell()
    old = (tmp_path / "journal.sqlite3").read_bytes()
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 1, 2)
        await rig.feed.tell()
    (tmp_path / "journal.sqlite3").write_bytes(old)
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 3)
        await rig.feed.tell()

        assert readings(rig) == changes(0, 1, 2, 3)


@pytest.mark.asyncio
async def test_log_that_begins_anew_is_another_stream(tmp_path: Path) -> None:
    """Its file was deleted: what it holds then is told from its first entry on."""
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 0, 1)
        await rig.feed.tell()
    for path in tmp_path.glob(CHANGES + "*"):
        path.unlink()
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 2)
        await rig.feed.tell()

        assert readings(rig) == changes(0, 1, 2)


@pytest.mark.asyncio
async def test_log_set_back_loses_nothing(tmp_path: Path) -> None:
    """It ends before what was told of it: told again on another stream, as readings of the same times."""
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 0)
        old_name = rig.log.name
    old = (tmp_path / CHANGES).read_bytes()
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 1, 2)
        await rig.feed.tell()
    (tmp_path / CHANGES).write_bytes(old)
    with closing(Rig(tmp_path)) as rig:
        record(rig.log, 3)
        await rig.feed.tell()
        await rig.feed.tell()

        rows = {
            time_ns: json.loads(str(v))["what"] for f in rig.journal.read(0, 10**6) for _, time_ns, v in f.rows()
        }  # fmt: skip
        assert rig.log.name != old_name
        assert sorted(rows.values()) == changes(0, 1, 2, 3)


class Moody(ChangeLog):
    """A log that fails once in a way that nobody thought of."""

    moods = 1

    def newest(self, after: int) -> tuple[dict[str, int], int]:
        """Fail, or answer."""
        if self.moods:
            self.moods -= 1
            raise RuntimeError("a bug")
        return super().newest(after)


@pytest.mark.asyncio
async def test_a_bug_in_one_look_does_not_end_the_telling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said with its traceback, and the next look tells what there is."""
    with closing(Rig(tmp_path)) as rig, closing(Moody(tmp_path / CHANGES)) as log:
        record(rig.log, 0)
        feed = SystemFeed(log, AUDIT, rig.streams, rig.registry, rig.submit, lambda: True, time.time_ns)
        running = asyncio.create_task(feed.run())
        async with asyncio.timeout(10):
            while not rig.journal.head:
                feed.wake()
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert readings(rig) == changes(0)
    assert "RuntimeError: a bug" in caplog.text


@pytest.mark.asyncio
async def test_hub_tells_its_own_entries_and_those_of_other_processes(tmp_path: Path) -> None:
    """At once what it writes itself, within a second what a command beside it writes; the ledgers balance."""
    async with Hub(Config(data=tmp_path)) as hub, asyncio.timeout(10):
        began = time.monotonic()
        hub.change_log.record(Entry("change 0"))
        while hub.journal.head < 1:  # noqa: ASYNC110 - the commit comes from another thread
            await asyncio.sleep(0.005)
        own_s = time.monotonic() - began
        with closing(ChangeLog(tmp_path / CHANGES)) as other:
            began = time.monotonic()
            record(other, 1)
            while hub.journal.head < 2:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
        foreign_s = time.monotonic() - began
        hub.change_log.refused(Entry("sign in", outcome="unauthenticated"))
        assert await hub.consumer.applied(hub.journal.head, 10)
        books = take_books(lambda after: hub.journal.account("default", None, after), hub.store.account, [1])

    account = audit_object(books, lambda *_: True)
    assert own_s < 0.4, "it was woken"
    assert foreign_s < 1.5
    assert account["balanced"], account
    assert [d["summary"] for d in account["devices"]] == ["1 stream, 2 readings, all accounted for"]
    async with Hub(Config(data=tmp_path)) as hub, asyncio.timeout(10):
        # Written while the hub stopped, told when it starts.
        while hub.journal.head < 3:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)


def test_position_is_what_the_mark_counts() -> None:
    """Accepted and dropped together are the number of the last entry."""
    assert told(Mark(StreamKey("default", SYSTEM_DEVICE, "ab" * 8), stored=3, accepted=70, dropped=5)) == 75
