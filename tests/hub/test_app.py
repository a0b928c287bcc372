"""A hub starts from what its files hold, and what it knew before it knows again."""

import asyncio
import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, Close
from hub.app import METADATA_EVERY_S, Hub
from hub.auth import Identities
from hub.config import Config
from hub.errors import DiskFailedError, UnavailableError
from hub.importing.intake import Sent
from hub.journal.sqlite import SqliteJournal
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.room import RoomKey
from hub.metadata import Edit, Metadata
from hub.model import SeriesKey, StreamKey
from hub.renewal import mark_suspect
from hub.retention import Ages
from hub.roles import Identity, Role
from hub.session import DeviceSession
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.streams import MAX_NEW_STREAMS, NEW_STREAMS_NS
from tests.support.frames import FrameMaker

T0 = 1_790_000_000_000_000_000
STREAM = "9f3a0000000000aa"
WAIT_S = 10.0
pytestmark = pytest.mark.asyncio


def speak(hub: Hub, first_seq: int, values: list[float]) -> DeviceSession:
    """Send one frame a value as device d, as its socket would."""
    session = DeviceSession("default", "d", hub.streams, hub.registry)
    ((acked, chain),) = hub.streams.stored([StreamKey("default", "d", STREAM)])
    hello = wire.Hello("d", STREAM, "boot", "run", acked, acked + 1, chain.hex())
    session.receive(wire.encode(hello), True, T0)
    session.receive(wire.encode(wire.Schema((Channel("x", "Cel", ValueType.FLOAT, low=0.0, high=5.0),))), True, T0)
    for seq, value in enumerate(values, first_seq):
        session.receive(encode_json(Batch(seq, 1, T0 + seq, 1, (Column("x", [0], [value]),))), True, time.time_ns())
    hub.submit(session.frames)
    return session


async def stored(hub: Hub, count: int) -> None:
    """Wait until the store holds ``count`` frames."""
    async with asyncio.timeout(10):
        while hub.journal.head < count:  # noqa: ASYNC110 - the commit comes from another thread
            await asyncio.sleep(0.005)
    assert await hub.consumer.applied(count, 10)


async def test_hub_remembers_series_latest_marks_and_runs(tmp_path: Path) -> None:
    """After a restart: the same series, the same latest value, the stream goes on, cursors of the old run are known."""
    async with Hub(Config(data=tmp_path / "data")) as hub:
        speak(hub, 1, [1.5, 9.5])
        await stored(hub, 2)
        first_run = hub.journal.run.id

    async with Hub(Config(data=tmp_path / "data")) as hub:
        (series,) = hub.registry.by_id.values()
        assert (series.device, series.channel, series.unit) == ("d", "x", "Cel")
        assert (hub.registry.latest[series.id].time_ns, hub.registry.latest[series.id].value) == (T0 + 2, 9.5)
        assert hub.registry.is_alert(series)
        assert [run.id for run in hub.journal.runs()] == [first_run, hub.journal.run.id]
        speak(hub, 3, [2.5])
        await stored(hub, 3)
        assert [(m.stored, m.accepted) for m in hub.journal.account("default", None, 0).marks] == [(3, 3)]


async def test_streams_of_the_last_day_count_after_a_restart(tmp_path: Path) -> None:
    """A device that began too many may not begin one more; those of another day do not count."""
    maker, now_ns = FrameMaker(), time.time_ns()
    frames = [
        maker.batch(device, [("t", T0, 1.0)], stream=f"{n:016x}", received_ns=received_ns)
        for device, received_ns in (("long-ago", now_ns - NEW_STREAMS_NS), ("today", now_ns))
        for n in range(1, MAX_NEW_STREAMS + 1)
    ]
    with closing(SqliteJournal(tmp_path / "journal.sqlite3")) as journal:
        journal.append(frames, maker.all_series())

    async with Hub(Config(data=tmp_path)) as hub:
        assert hub.streams.may_begin(StreamKey("default", "long-ago", STREAM), now_ns)
        assert not hub.streams.may_begin(StreamKey("default", "today", STREAM), now_ns)
        assert hub.streams.may_begin(frames[-1].key, now_ns)
        assert len(hub.streams) == 0


async def test_hub_stops_when_its_disk_fails_a_device_that_comes_back(tmp_path: Path) -> None:
    """A mark is read on the loop: a failed read ends the hub as a failed write does, and its file is suspect."""
    asked = asyncio.Event()
    async with Hub(Config(data=tmp_path)) as hub:
        hub.on_failed = asked.set
        speak(hub, 1, [1.5])
        await stored(hub, 1)
        os.truncate(tmp_path / "journal.sqlite3-wal", 0)
        session = DeviceSession("default", "other", hub.streams, hub.registry)
        session.receive(wire.encode(wire.Hello("other", STREAM, "b", "r", 0, 1, CHAIN_START.hex())), True, T0)

        assert isinstance(hub.failed, DiskFailedError)
        assert asked.is_set()
        assert session.closing is not None
        assert session.closing[0] == Close.INTERNAL
    assert (tmp_path / "journal.sqlite3-suspect").exists()


async def test_every_file_whose_disk_failed_is_copied_at_the_start(tmp_path: Path) -> None:
    """Those beside the journal too; a private file stays private."""
    async with Hub(Config(data=tmp_path)):
        files = sorted(tmp_path.glob("*.sqlite3"))
    modes = [file.stat().st_mode for file in files]
    for file in files:
        mark_suspect(file)

    async with Hub(Config(data=tmp_path)):
        assert not list(tmp_path.glob("*-suspect"))
        assert [file.stat().st_mode for file in files] == modes


async def test_hub_takes_over_frames_that_its_store_has_not_seen(tmp_path: Path) -> None:
    """Latest values come from the journal where the store is behind, and the store catches up from its checkpoint."""
    async with Hub(Config(data=tmp_path / "data")) as hub:
        speak(hub, 1, [1.5, 2.5, 3.5])
        await stored(hub, 3)
    for file in (tmp_path / "data").glob("readings.sqlite3*"):
        file.unlink()

    async with Hub(Config(data=tmp_path / "data")) as hub:
        (series,) = hub.registry.by_id
        assert hub.registry.latest[series].value == 3.5
        await stored(hub, 3)
        assert [row.value for row in hub.store.read([series], 0, 2**62, 10)] == [1.5, 2.5, 3.5]


async def test_hub_turns_rows_into_columns(tmp_path: Path) -> None:
    """A folder that holds rows is taken over whole at a start; what comes then is stored behind it."""
    async with Hub(Config(data=tmp_path)) as hub:
        speak(hub, 1, [1.5, 2.5])
        await stored(hub, 2)
        assert isinstance(hub.store, EmbeddedStore)

    async with Hub(Config(data=tmp_path, store="columns")):
        pass

    async with Hub(Config(data=tmp_path)) as hub:
        assert isinstance(hub.store, ColumnStore)
        (series,) = hub.registry.by_id
        assert hub.registry.latest[series].value == 2.5
        assert [row.value for row in hub.store.read([series], 0, 2**62, 10)] == [1.5, 2.5]
        assert hub.store.applied == hub.journal.head


async def test_a_folder_of_an_older_hub_is_kept_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its hub dropped nothing: so does this one, and says so, until it is told how long; a new folder has 30 days."""
    async with Hub(Config(data=tmp_path / "new", port=0)) as hub:
        assert hub.retention is not None
        assert hub.retention.policies.default == Ages(30 * 86_400 * 10**9, None)
    EmbeddedStore(tmp_path / "readings.sqlite3").close()
    with closing(sqlite3.connect(tmp_path / "readings.sqlite3")) as connection, connection:
        connection.execute("UPDATE progress SET keeps_all = 1")

    async with Hub(Config(data=tmp_path, port=0)) as hub:
        assert hub.retention is not None
        assert hub.retention.policies.default == Ages(None, None)

    assert "readings are kept for ever" in caplog.text
    async with Hub(Config(data=tmp_path, port=0, keep_raw="1d")) as hub:
        assert hub.retention is not None
        assert hub.retention.policies.default == Ages(86_400 * 10**9, None)


async def test_a_clock_that_is_years_ahead_deletes_nothing(tmp_path: Path) -> None:
    """What was received last is years ago, as the clock says: readings and frames stay until it has stood for a day."""
    maker, long_ago_ns = FrameMaker(), time.time_ns() - 14 * 365 * 86_400 * 10**9
    frames = [
        maker.batch("pump", [("t", long_ago_ns + n * 7200 * 10**9, 1.0)], received_ns=long_ago_ns + n * 7200 * 10**9)
        for n in range(10)
    ]
    with closing(SqliteJournal(tmp_path / "journal.sqlite3")) as journal:
        for frame in frames:
            journal.append([frame], maker.all_series())
    async with Hub(Config(data=tmp_path, port=0)) as hub:
        await stored(hub, 10)
        assert hub.retention is not None
        assert sum(hub.retention.slices()) == 0

        assert hub.clock() < frames[-1].received_ns + 60 * 10**9
        assert hub.journal.statistics().first_offset == 1


async def test_devices_wait_while_the_disk_budget_is_exceeded(tmp_path: Path) -> None:
    """Nothing is left to drop: they are told, and go on when there is room; so do imports."""
    async with Hub(Config(data=tmp_path, port=0, disk_budget=64 * 1024**2)) as hub:  # type: ignore[arg-type]
        assert hub.disk_budget is not None
        assert hub.config.journal_limit == 32 * 1024**2
        assert hub.can_take()

        hub.disk_budget.is_full = True

        assert not hub.can_take()
        body = encode_json(Batch(1, 1, T0, 1, (Column("x", [0], [1.5]),)))
        with pytest.raises(UnavailableError, match="disk budget is exceeded"):
            await hub.imports.take("default", "f" * 32, [Sent("d", body, (Channel("x", "Cel", ValueType.FLOAT),))])


async def test_settings_of_a_store_on_a_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How long readings are kept is the server's business, which is said; the hub's own files keep to the budget."""
    store = "victoriametrics+http://127.0.0.1:1"
    config = Config(data=tmp_path, port=0, store=store, keep_raw="1d", disk_budget=64 * 1024**2)  # type: ignore[arg-type]
    async with Hub(config) as hub:
        assert hub.retention is None
        assert hub.disk_budget is not None
        hub.disk_budget.is_full = True

        assert not hub.can_take()

    assert "keep_raw set, without effect" in caplog.text


async def test_goodbye_spreads_the_return(tmp_path: Path) -> None:
    """Every connection is told its own moment to come back."""
    async with Hub(Config(data=tmp_path / "data")) as hub:
        told = {hub.goodbye() for _ in range(50)}

    assert len(told) > 10
    assert all(b'"op":"bye"' in message for message in told)


class Watching:
    """A watcher that says when the hub ended it."""

    buffered_bytes = 0

    def __init__(self, identity_id: str) -> None:
        self.identity_id = identity_id
        self.origin = Origin("c-1", Identity(identity_id, "tests", Role.WATCHER), "websocket", "127.0.0.1:5", 0)
        self.is_ended = asyncio.Event()

    def figures(self) -> list[SubscriptionFigures]:
        """No subscription."""
        return []

    def tick(self) -> None:
        """Nothing to tell."""

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Note it."""
        self.is_ended.set()


class LogEvent(logging.Handler):
    """Sets an event at the first record."""

    def __init__(self) -> None:
        super().__init__()
        self.is_logged = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Set it; called on the loop."""
        self.is_logged.set()


@pytest.mark.slow
async def test_revoked_credentials_are_noticed_after_the_file_could_not_be_read(tmp_path: Path) -> None:
    """A fault of the identities' file delays revocation until it is over; it does not end it."""
    log = LogEvent()
    logging.getLogger("hub.app").addHandler(log)
    try:
        async with Hub(Config(data=tmp_path)) as hub:
            id_, _ = hub.identities.add_token(Role.WATCHER)
            watcher = Watching(id_)
            hub.live.enter(watcher)
            path = tmp_path / "identities.sqlite3"
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("ALTER TABLE token RENAME TO away")
                await asyncio.wait_for(log.is_logged.wait(), WAIT_S)
                other.execute("ALTER TABLE away RENAME TO token")
            with closing(Identities(path)) as identities:
                identities.remove_token(id_)

            await asyncio.wait_for(watcher.is_ended.wait(), WAIT_S)
    finally:
        logging.getLogger("hub.app").removeHandler(log)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["users", "revocations"])
async def test_revoked_credentials_end_while_another_file_fails(tmp_path: Path, broken: str) -> None:
    """A token that ends is told of once: a fault of the users' or the certificates' file does not swallow it."""
    async with Hub(Config(data=tmp_path)) as hub:
        id_, _ = hub.identities.add_token(Role.WATCHER)
        watcher = Watching(id_)
        hub.live.enter(watcher)
        getattr(hub, broken).close()

        hub.identities.remove_token(id_)

        await asyncio.wait_for(watcher.is_ended.wait(), WAIT_S)


async def test_metadata_of_another_process_is_seen(tmp_path: Path) -> None:
    """What `hub metadata set --data` writes holds for readings, new series and after a restart; in at most a second."""
    key = SeriesKey("default", "d", "x")
    async with Hub(Config(data=tmp_path / "data")) as hub:
        speak(hub, 1, [1.5])
        await stored(hub, 1)
        with closing(Metadata(tmp_path / "data" / "metadata.sqlite3")) as other:
            other.change(Edit(key, {"scale": 10}), "somebody")
        began = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            while hub.registry.by_key[key].scaling is None:  # noqa: ASYNC110 - another process writes no event
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < METADATA_EVERY_S + WAIT_S / 2
        (series,) = hub.registry.by_id.values()
        assert hub.query.latest([series]) == [(series, T0 + 1, 15.0)]

    async with Hub(Config(data=tmp_path / "data")) as hub:
        assert hub.registry.by_key[key].effective().scale == 10


async def test_tag_of_another_process_moves_a_device_into_a_watch(tmp_path: Path) -> None:
    """A room of a selector has the device from then on, and no more when the tag is taken from it."""
    device, room_key = SeriesKey("default", "d", ""), RoomKey("default", ("*/*",), (), ("*/*",), selector="tag:t")
    async with Hub(Config(data=tmp_path / "data")) as hub:
        speak(hub, 1, [1.5])
        await stored(hub, 1)
        room = hub.live.enter_room(room_key)
        seen = [sorted(room.members)]
        with closing(Metadata(tmp_path / "data" / "metadata.sqlite3")) as other:
            for tags in (["t", "u"], ["u"]):
                other.change(Edit(device, {"tags": tags}), "somebody")
                async with asyncio.timeout(WAIT_S):
                    while sorted(room.members) == seen[-1]:  # noqa: ASYNC110 - another process writes no event
                        await asyncio.sleep(0.02)
                seen.append(sorted(room.members))
        hub.live.leave_room(room)

    assert seen == [[], [1], []]


async def test_a_hub_starts_on_a_store_older_than_its_journal_reaches_back(tmp_path: Path) -> None:
    """A store that was removed or restored gets what the journal still has; the hub starts."""
    maker = FrameMaker()
    with closing(SqliteJournal(tmp_path / "journal.sqlite3", row_bytes=1)) as journal:
        for number in range(4):
            journal.append([maker.one("d-1", float(number), T0 + number)], list(maker.series.values()))
        journal.trim(3)

    async with Hub(Config(data=tmp_path)) as hub:
        assert await hub.consumer.applied(4, WAIT_S)
        assert [row.value for row in hub.store.read([1], 0, 2**62, 10)] == [2.0, 3.0]
        assert [latest.value for latest in hub.registry.latest.values()] == [3.0]


async def test_restored_journal_never_gives_a_series_id_out_again(tmp_path: Path) -> None:
    """A journal put back from before a series was born: the next new series does not inherit that one's rows."""
    data = tmp_path / "data"
    async with Hub(Config(data=data)):
        pass
    copy = (data / "journal.sqlite3").read_bytes()
    async with Hub(Config(data=data)) as hub:
        speak(hub, 1, [42.0])
        await stored(hub, 1)
        (old,) = hub.registry.by_id
    for file in data.glob("journal.sqlite3*"):
        file.unlink()
    (data / "journal.sqlite3").write_bytes(copy)

    async with Hub(Config(data=data)) as hub:
        hub.registry.declare("default", "other", [Channel("x")])
        (new,) = hub.registry.by_id
        assert new > old
