"""The column store's file: each reading in one place at any instant, whatever is killed, fails, or reads beside it."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.errors import BadRequestError, DiskFailedError, StoreError
from hub.model import Frame
from hub.renewal import renew_if_suspect
from hub.store.base import Row, SeriesCounters
from hub.store.column_file import MAX_AGE_S, SCHEMA_VERSION, SEALED_AT_ONCE
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from tests.support.columns import foreign
from tests.support.failing_disk import failing_disk
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

FILE = "readings.sqlite3"
EVERYTHING = (-(2**63), 2**63 - 1, 10**6)
DAY_NS = 86_400 * 10**9


def count(path: Path, table: str) -> int:
    """Return the rows of a table."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def check_same(store: ColumnStore, oracle: MemoryStore, series: list[int]) -> None:
    """The store answers as the oracle."""
    assert store.read(series, *EVERYTHING, received=True) == oracle.read(series, *EVERYTHING, received=True)
    assert store.counters(series) == oracle.counters(series)
    assert sorted(store.latest(series)) == sorted(oracle.latest(series))


def check_owned(path: Path) -> None:
    """Chunks of a series do not overlap; each part is referred to as often as it says; SQLite finds nothing wrong."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT series, t0, t1, axis, body FROM chunk ORDER BY series, t0").fetchall()
        parts = dict(connection.execute("SELECT id, refs FROM part"))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for before, after in pairwise(rows):
        assert before[0] < after[0] or before[2] < after[1]
    needed: dict[int, int] = {}
    for _, _, _, *numbers in rows:
        for number in numbers:
            needed[number] = needed.get(number, 0) + 1
    assert parts == needed


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Position, readings and counters are in the file, sealed or not."""
    maker = FrameMaker()
    frames = numbered([maker.one("pump", float(i), T0 + i * 10**9) for i in (5, 7, 5, 9, 1)])
    for at in range(5):
        with closing(ColumnStore(tmp_path / FILE)) as store:
            assert store.applied == at
            store.write(frames[: at + 1])
            if at == 2:
                store.seal()

    with closing(ColumnStore(tmp_path / FILE)) as store:
        assert store.latest([1]) == [Row(1, T0 + 9 * 10**9, 9.0)]
        assert store.counters([1]) == [SeriesCounters(1, 5, 1, 4, late=2)]


def test_chunks_worth_is_sealed_at_once(tmp_path: Path) -> None:
    """When series have enough all is sealed, by the write that brought it, and the log is empty behind it."""
    maker = FrameMaker()
    with closing(ColumnStore(tmp_path / FILE, chunk_readings=4)) as store:
        store.write(numbered([maker.one("slow", 1.0, channel="s")]))
        for n in range(23):
            assert (count(tmp_path / FILE, "chunk"), count(tmp_path / FILE, "pending")) == (0, n + 1)
            store.write(numbered([maker.one("pump", 1.0, T0 + n)], n + 2))
        assert (count(tmp_path / FILE, "chunk"), count(tmp_path / FILE, "pending")) == (6, 0)
        assert len(store.read([1, 2], *EVERYTHING)) == 24


def test_nothing_waits_longer_than_its_time(tmp_path: Path) -> None:
    """A lone reading is sealed by the first write after ten minutes, with all that came meanwhile."""
    maker, clock = FrameMaker(), Clock()
    with closing(ColumnStore(tmp_path / FILE, clock=clock)) as store:
        store.write(numbered([maker.one("slow", 1.0)]))
        clock.now_s += MAX_AGE_S - 1
        store.write(numbered([maker.one("pump", 1.0)], 2))
        assert count(tmp_path / FILE, "chunk") == 0
        clock.now_s += 1
        store.write(numbered([maker.one("pump", 2.0, T0 + 1)], 3))
        assert (count(tmp_path / FILE, "chunk"), count(tmp_path / FILE, "pending")) == (2, 0)


def test_writes_go_on_while_a_generation_is_sealed(tmp_path: Path) -> None:
    """What comes behind it is answered with it, survives a restart in the middle, and is sealed after it."""
    maker, oracle, clock = FrameMaker(), MemoryStore(), Clock()
    series = list(range(1, 2 * SEALED_AT_ONCE + 1))
    writes = [
        [maker.batch(f"device-{number}", [("t", T0 + n, float(n)), ("t", T0, float(number))]) for number in series]
        for n in range(4)
    ]
    for n, frames in enumerate(writes):
        oracle.write(numbered(frames, n * len(series) + 1))
    with closing(ColumnStore(tmp_path / FILE, clock=clock)) as store:
        store.write(writes[0])
        clock.now_s += MAX_AGE_S
        store.write(writes[1])
        assert count(tmp_path / FILE, "chunk") == SEALED_AT_ONCE
        store.write(writes[2])
        assert (count(tmp_path / FILE, "chunk"), count(tmp_path / FILE, "pending")) == (len(series), 1)
        clock.now_s += MAX_AGE_S
        store.write(writes[3])
    with closing(ColumnStore(tmp_path / FILE)) as store:
        check_same(store, oracle, series)
        store.seal()
        check_same(store, oracle, series)
    check_owned(tmp_path / FILE)


def test_log_is_bounded(tmp_path: Path) -> None:
    """However many series are slow, log and memory stay at their limit: who is in the way is sealed."""
    maker = FrameMaker()
    limit = 20_000
    with closing(ColumnStore(tmp_path / FILE, max_pending_bytes=limit)) as store:
        for n in range(60):
            store.write(numbered([maker.one(f"device-{d}", 1.0, T0 + n) for d in range(20)], n * 20 + 1))
            with closing(sqlite3.connect(tmp_path / FILE)) as connection:
                held = connection.execute("SELECT coalesce(sum(length(body)), 0) FROM pending").fetchone()[0]
            assert held <= limit
        assert len(store.read(list(range(1, 21)), *EVERYTHING)) == 1200


def random_writes(seed: int) -> list[list[Frame]]:
    """Return writes of late, doubled and typed readings around a border of days."""
    maker = FrameMaker()
    writes, border = [], T0 // DAY_NS * DAY_NS + DAY_NS
    values: list[Value] = [1.5, 2, True, "x", -0.0]
    for n in range(6):
        frames = []
        for device in ("a", "b"):
            at = border + ((n * 7 + seed) % 11 - 5) * 10**9
            times = [at + i * 10**9 for i in range(3)]
            sent = [(channel, t, float(n)) for t in times for channel in ("t", "u")]
            mixed: list[tuple[str, int, Value]] = [("m", times[n % 3], values[(n + seed) % 5])]
            frames.append(maker.batch(device, [*sent, *mixed], received_ns=T0 + n * 10**9))
        writes.append(frames)
    offset = 1
    for frames in writes:
        offset += len(numbered(frames, offset))
    return writes


@pytest.mark.slow
def test_kill_at_any_statement(tmp_path: Path) -> None:
    """What a kill leaves at each statement of each transaction (writes, sealing, erasing, sync) is a whole store.

    The files are copied when the writer is about to run a statement: the kernel keeps just these of a killed process.
    Each copy holds exactly the frames up to its ``applied``, and takes the others afterwards.
    """
    copies: list[Path] = []

    def copy(_: str) -> None:
        folder = tmp_path / f"copy-{len(copies)}"
        folder.mkdir()
        for suffix in ("", "-wal", "-shm"):
            if (tmp_path / (FILE + suffix)).exists():
                shutil.copyfile(tmp_path / (FILE + suffix), folder / (FILE + suffix))
        copies.append(folder)

    writes, series = random_writes(0), list(range(1, 7))
    store = ColumnStore(tmp_path / FILE, chunk_readings=4, max_pending_bytes=1500, trace=copy)
    for frames in writes:
        store.write(frames)
    store.sync()
    store.seal()
    store.close()

    positions = set()
    for folder in copies:
        oracle, path = MemoryStore(), folder / FILE
        with closing(ColumnStore(path, chunk_readings=4)) as store:
            positions.add(store.applied)
            oracle.write([frame for frames in writes for frame in frames if frame.offset <= store.applied])
            check_same(store, oracle, series)
            for frames in writes:
                store.write(frames)
                oracle.write(frames)
            store.seal()
            check_same(store, oracle, series)
        check_owned(path)
        shutil.rmtree(folder)
    assert positions == {0, *(frames[-1].offset for frames in writes)}
    assert len(copies) > 100


def test_a_file_of_schema_100_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its chunks and counters stay, it keeps all, and its readings can be dropped."""
    maker = FrameMaker()
    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(numbered([maker.batch("pump", [("t", T0 + i * 600 * 10**9, float(i)) for i in range(20)])]))
        store.seal()
        expected = store.counters([1])
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        for column in ("expired", "merged", "raw_from_ns"):
            connection.execute(f"ALTER TABLE counter DROP COLUMN {column}")
        connection.execute("ALTER TABLE progress DROP COLUMN keeps_all")
        connection.execute("DROP TABLE rollup")
        connection.execute("PRAGMA user_version=100")

    with closing(ColumnStore(tmp_path / FILE)) as store:
        assert store.counters([1]) == expected
        assert store.keeps_all
        assert store.drop_before([1], T0 + 7200 * 10**9) > 0


def test_kill_at_any_statement_of_an_erasure(tmp_path: Path) -> None:
    """Half erased is whole as well: the ledger balances, and erasing again finishes it."""
    copies: list[Path] = []

    def copy(_: str) -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        copies[-1].mkdir()
        for suffix in ("", "-wal", "-shm"):
            shutil.copyfile(tmp_path / (FILE + suffix), copies[-1] / (FILE + suffix))

    with closing(ColumnStore(tmp_path / FILE, chunk_readings=4)) as store:
        for frames in random_writes(1):
            store.write(frames)
    with closing(ColumnStore(tmp_path / FILE, chunk_readings=4, trace=copy)) as store:
        erased = store.erase([1])

    for folder in copies:
        with closing(ColumnStore(folder / FILE, chunk_readings=4)) as store:
            (found,) = store.counters([1])
            assert found.accepted - found.superseded - found.erased == found.rows == len(store.read([1], *EVERYTHING))
            assert found.erased + store.erase([1]) == erased
            assert store.counters([1])[0].rows == 0
        check_owned(folder / FILE)


class LentLock:
    """A write lock; whenever it is released another thread takes its turn, which this one does."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._turn = turn
        self._is_lent = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if not self._is_lent:
            self._is_lent = True
            self._turn()
            self._is_lent = False


def test_writes_go_on_while_all_is_sealed_to_be_wiped(tmp_path: Path) -> None:
    """Some series at a time; what is written meanwhile is not waited for."""
    maker, written = FrameMaker(), 0

    def turn() -> None:
        nonlocal written
        written += 1
        store.write(numbered([maker.batch("pump", [(f"late-{written}", T0, 1.0)])], store.applied + 1))

    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(numbered([maker.batch("pump", [(f"c{n}", T0, 1.0) for n in range(300)])]))
        store._file._write_lock = LentLock(turn)  # type: ignore[assignment]

        assert store.erase([1]) == 1
        store._file._write_lock = threading.Lock()

        assert written > 300 // SEALED_AT_ONCE
        assert len(store.latest(list(range(1, 301 + written)))) == 299 + written


def test_another_process_reads_what_is_there(tmp_path: Path) -> None:
    """A store opened beside the hub's sees each write and each sealing, and its position with them."""
    oracle, series = MemoryStore(), list(range(1, 7))
    with (
        closing(ColumnStore(tmp_path / FILE, chunk_readings=4)) as store,
        closing(ColumnStore(tmp_path / FILE, chunk_readings=4)) as beside,
    ):
        for at, frames in enumerate(random_writes(2)):
            store.write(frames)
            oracle.write(frames)
            if at % 3 == 2:
                store.seal()
            check_same(beside, oracle, series)
            assert beside.account(series).applied == frames[-1].offset
            assert beside.statistics().rows == oracle.statistics().rows
            assert beside.largest_series() == oracle.largest_series()


def test_readers_see_whole_writes(tmp_path: Path) -> None:
    """A reader beside the writer sees all of a write or nothing of it, and nothing twice, while all of it is sealed."""
    maker = FrameMaker()
    frames = numbered([maker.batch("pump", [(c, T0 + i, float(i)) for c in "abcd"]) for i in range(200)])
    counts: list[int] = []
    done = threading.Event()
    with closing(ColumnStore(tmp_path / FILE, chunk_readings=8)) as store:

        def look() -> None:
            while not done.is_set():
                counts.append(len(store.read([1, 2, 3, 4], T0, T0 + 200, 10_000)))

        thread = threading.Thread(target=look)
        thread.start()
        for frame in frames:
            store.write([frame])
        done.set()
        thread.join()

        assert all(found % 4 == 0 for found in counts)
        assert counts == sorted(counts)
        assert store.statistics().rows == 800


def test_failed_write_undoes_all(tmp_path: Path) -> None:
    """On a full disk nothing of the call is stored, in the file or in memory; the same call succeeds later."""
    maker = FrameMaker()
    frames = numbered(maker.many(2, 20, 500))
    with closing(ColumnStore(tmp_path / FILE, max_bytes=128 * 1024)) as store:
        store.write(frames[:1])
        with pytest.raises(StoreError, match="was undone"):
            store.write(frames)
        assert (store.applied, store.statistics().rows) == (1, 500)

    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(frames)
        assert store.counters([1, 2]) == [SeriesCounters(n, 10_000, 0, 10_000) for n in (1, 2)]


def test_failed_sealing_is_tried_again(tmp_path: Path) -> None:
    """On a full disk what was written stays where it is, and is answered; the next write with space seals it."""
    maker = FrameMaker()
    frames = numbered(maker.many(2, 8, 256))
    # Due with the fifteenth frame, when 3,840 readings of two series wait.
    with closing(ColumnStore(tmp_path / FILE, chunk_readings=640, max_bytes=124 * 1024)) as store:
        for frame in frames[:-2]:
            store.write([frame])
        with pytest.raises(StoreError, match="sealing failed"):
            store.write(frames[:-1])
        applied = store.applied
        assert count(tmp_path / FILE, "chunk") == 0
        assert store.statistics().rows == applied * 256

    with closing(ColumnStore(tmp_path / FILE, chunk_readings=640)) as store:
        store.write(frames)
        assert count(tmp_path / FILE, "chunk") > 2
        assert store.counters([1, 2]) == [SeriesCounters(n, 2048, 0, 2048) for n in (1, 2)]


@pytest.mark.parametrize("work", ["write", "sync", "erase", "seal"])
def test_failed_write_ends_the_store_until_its_file_is_renewed(tmp_path: Path, work: str) -> None:
    """Nothing more is taken, and nothing called durable, until a fresh copy was made; then it goes on where it was."""
    maker = FrameMaker()
    frames = numbered([maker.one("pump", float(i), T0 + i) for i in range(2)])
    store = ColumnStore(tmp_path / FILE)
    store.write(frames[:1])
    do: dict[str, Callable[[], object]] = {
        "write": lambda: store.write(frames), "sync": store.sync, "erase": lambda: store.erase([1]), "seal": store.seal
    }  # fmt: skip

    with failing_disk(tmp_path / f"{FILE}-wal"), pytest.raises(DiskFailedError):
        do[work]()
    for refused in do.values():
        with pytest.raises(DiskFailedError, match="start the hub again"):
            refused()
    store.close()
    assert renew_if_suspect(tmp_path / FILE)

    with closing(ColumnStore(tmp_path / FILE)) as store:
        assert store.applied == 1
        store.write(frames)
        assert len(store.read([1], *EVERYTHING)) == 2


def test_sync_writes_a_commit_each_time(tmp_path: Path) -> None:
    """Only a commit that writes a page is fsynced: `sync` makes one also when its position has not moved."""
    log = tmp_path / f"{FILE}-wal"
    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(numbered([FrameMaker().one("pump", 1.0)]))
        sizes = [log.stat().st_size]
        for _ in range(2):
            assert store.sync() == 1
            sizes.append(log.stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]


def test_write_ahead_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    """It is brought into the file as it grows."""
    maker = FrameMaker()
    with closing(ColumnStore(tmp_path / FILE)) as store:
        for n in range(100):
            texts = [("t", T0 + n * 1000 + i, "x" * 1000) for i in range(400)]
            store.write(numbered([maker.batch("pump", texts)], n + 1))
        assert (tmp_path / f"{FILE}-wal").stat().st_size < 40 * 1024 * 1024


@pytest.mark.parametrize("is_other", [True, False])
def test_file_of_another_kind_is_refused(tmp_path: Path, is_other: bool) -> None:
    """A store of a newer hub, and one of plain rows, are refused with a clear message; each kind by the other."""
    if is_other:
        EmbeddedStore(tmp_path / FILE).close()
        with pytest.raises(StoreError, match="older hub"):
            ColumnStore(tmp_path / FILE)
        return
    ColumnStore(tmp_path / FILE).close()
    with pytest.raises(StoreError, match="newer hub"):
        EmbeddedStore(tmp_path / FILE)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer hub"):
        ColumnStore(tmp_path / FILE)


def test_chunks_of_a_newer_hub_are_told_at_start(tmp_path: Path) -> None:
    """Nothing is taken into a file whose chunks cannot be merged here, e.g. where pcodec has no wheel."""
    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(numbered([FrameMaker().one("pump", 1.0)]))
        store.seal()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        for number, body in connection.execute("SELECT id, body FROM part").fetchall():
            connection.execute("UPDATE part SET body = ? WHERE id = ?", (foreign(body), number))

    with pytest.raises(StoreError, match="newer hub"):
        ColumnStore(tmp_path / FILE)


def test_damaged_log_is_told_at_start(tmp_path: Path) -> None:
    """Readings that cannot be read again are no reason to go on without a word."""
    with closing(ColumnStore(tmp_path / FILE)) as store:
        store.write(numbered([FrameMaker().one("pump", 1.0)]))
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("UPDATE pending SET body = x'00'")

    with pytest.raises(StoreError, match=r"damaged.*restore a backup"):
        ColumnStore(tmp_path / FILE)


def test_aggregate_refuses_more_buckets_than_one_answer_may_hold(tmp_path: Path) -> None:
    """However many series and buckets are asked for, memory is bounded; the asker hears what to change."""
    maker = FrameMaker()
    with closing(ColumnStore(tmp_path / FILE, max_buckets=4)) as store:
        store.write(numbered([maker.one(device, 1.0, T0 + i) for device in ("a", "b") for i in (0, 1, 2)]))

        assert len(store.aggregate([1, 2], T0, T0 + 2, 1, ["avg"])) == 4
        with pytest.raises(BadRequestError, match="fewer series"):
            store.aggregate([1, 2], T0, T0 + 3, 1, ["avg"])


WRITER = """
import sys
from pathlib import Path
from hub.store.columns import ColumnStore
from tests.support.frames import FrameMaker, numbered

store = ColumnStore(Path(sys.argv[1]), chunk_readings=8, max_pending_bytes=2000)
frames = numbered(FrameMaker().many(3, 400, 2))
at = store.applied
while at < len(frames):
    store.write(frames[max(0, at - 2) : at + 5])
    at = store.applied
    sys.stdout.write(f"{at}\\n")
    sys.stdout.flush()
    sys.stdin.read(1)
"""
# What it may commit while it is not killed yet: a test process that was delayed must find it at work.
AHEAD = 20


@pytest.mark.slow
def test_kill_keeps_position_and_readings_together(tmp_path: Path) -> None:
    """kill -9 while writing and sealing: readings and counters are exactly those of the frames up to ``applied``."""
    expected = numbered(FrameMaker().many(3, 400, 2))
    for commits in (3, 17, 40):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / FILE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("." * (commits + AHEAD))
        process.stdin.flush()
        reported = [process.stdout.readline() for _ in range(commits)][-1]
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)

        oracle = MemoryStore()
        with closing(ColumnStore(tmp_path / FILE, chunk_readings=8)) as store:
            oracle.write(expected[: store.applied])
            assert int(reported) <= store.applied <= len(expected)
            check_same(store, oracle, [1, 2, 3])
        check_owned(tmp_path / FILE)
