"""What every store that drops old readings must answer alike: before and after a drop, late and resent ones."""

import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk.reading import Value
from hub.errors import BadRequestError, StoreError
from hub.store.base import PARTS, Bucket, RetainingStore, Row, SeriesCounters
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.store.rollup_table import DROPPED_AT_ONCE
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

S = 10**9
MINUTE, HOUR = 60 * S, 3600 * S
FOREVER = (-(2**62), 2**62)
SAID = ("count", "sum", "min", "max", "last", "last_ns", "avg")
BEGIN = T0 // HOUR * HOUR
FILE = "readings.sqlite3"

ENGINES: dict[str, Callable[[Path], RetainingStore]] = {
    "columns": lambda path: ColumnStore(path / FILE, chunk_readings=64),
    "embedded": lambda path: EmbeddedStore(path / FILE),
    "memory": lambda _: MemoryStore(),
}


@pytest.fixture(params=list(ENGINES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RetainingStore]:
    """An empty store of each engine."""
    store = ENGINES[request.param](tmp_path)
    yield store
    store.close()


def fill(store: RetainingStore, maker: FrameMaker, *readings: tuple[int, Value], channel: str = "t") -> None:
    """Write (seconds behind a whole hour, value) of one channel as one frame."""
    frame = maker.batch("pump", [(channel, BEGIN + at * S, value) for at, value in readings])
    store.write(numbered([frame], store.applied + 1))


def drop(store: RetainingStore, hours: int, series: list[int] | None = None) -> int:
    """Drop all before an hour; return how many."""
    dropped = 0
    while slice_of := store.drop_before(series or [1, 2], BEGIN + hours * HOUR):
        dropped += slice_of
    return dropped


def close_to(buckets: list[Bucket]) -> list[tuple[int, int, Any]]:
    """Return buckets that equal the same but for the rounding of sums."""
    return [(b.series, b.start_ns, pytest.approx(b.values, rel=1e-12)) for b in buckets]


@pytest.mark.parametrize("step", [MINUTE, 5 * MINUTE, 45 * MINUTE, HOUR, 24 * HOUR])
@pytest.mark.parametrize("origin", [0, 7 * MINUTE, -HOUR])
def test_buckets_are_as_before_the_drop(store: RetainingStore, step: int, origin: int) -> None:
    """Whatever was dropped, buckets of whole minutes say the same: of part of a day, and of buckets in both."""
    maker, source = FrameMaker(), random.Random(step)
    choices: list[Value] = [0.1, -7.3, 2.9e-3, 5, True, "x"]
    for channel in ("t", "n"):
        values = [(7 * n, source.choice(choices)) for n in range(1500)]
        fill(store, maker, *values, channel=channel)
    ranges = [FOREVER, (BEGIN + 17 * MINUTE, BEGIN + 2 * HOUR + MINUTE)]
    before = [store.aggregate([1, 2], *r, step, SAID, origin_ns=origin) for r in ranges]

    for hours in (1, 2, 3):
        drop(store, hours)

        after = [store.aggregate([1, 2], *r, step, SAID, origin_ns=origin) for r in ranges]
        assert after == [close_to(found) for found in before]
    assert store.aggregate([1], *FOREVER, 48 * HOUR, ["count"])[0].values < (1500,)
    assert len(store.read([1, 2], *FOREVER, 10**5)) == 2


def test_readings_go_by_whole_hours(store: RetainingStore) -> None:
    """Dropped is what is before the hour of the time given, the ledger balances, and what stays is as it was."""
    maker = FrameMaker()
    fill(store, maker, *((n * 600, float(n)) for n in range(20)))

    assert store.drop_before([1], BEGIN + HOUR - 1) == 0
    assert drop(store, 2, [1]) == 12

    assert store.counters([1]) == [SeriesCounters(1, 20, 0, 8, expired=12)]
    assert store.revisions([1]) == [(20, 0, 0, 0, 12)]
    assert store.read([1], *FOREVER, 99) == [Row(1, BEGIN + n * 600 * S, float(n)) for n in range(12, 20)]
    assert store.raw_from([1, 2]) == {1: BEGIN + 2 * HOUR}
    assert store.statistics().rows == 8
    assert drop(store, 2, [1]) == 0


def test_the_newest_reading_stays(store: RetainingStore) -> None:
    """A series that is silent for longer than its readings are kept still says what it said last."""
    maker = FrameMaker()
    fill(store, maker, (0, 1.0), (5, 2.0), (9, 3.0))

    assert drop(store, 1000, [1]) == 2

    assert store.latest([1]) == [Row(1, BEGIN + 9 * S, 3.0)]
    assert store.raw_from([1]) == {1: BEGIN + 9 * S}
    assert store.aggregate([1], *FOREVER, MINUTE, SAID) == [
        Bucket(1, BEGIN, (3, 6.0, 1.0, 3.0, 3.0, BEGIN + 9 * S, 2.0))
    ]


def test_a_late_reading_is_merged_once(store: RetainingStore) -> None:
    """What comes when its time was dropped is in the sums once, however often its frame is written; and counted."""
    maker = FrameMaker()
    fill(store, maker, (0, 1.0), (61, 2.0), (7300, 3.0))
    drop(store, 2, [1])
    late = maker.batch("pump", [("t", BEGIN + at * S, v) for at, v in [(30, 9.0), (59, -1), (7200, 4.0), (7400, 5.0)]])

    for _ in range(3):
        store.write(numbered([late], 2))

    assert store.aggregate([1], *FOREVER, MINUTE, ["count", "sum", "min", "max", "last"]) == [
        Bucket(1, BEGIN, (3, 9.0, -1, 9.0, -1)),
        Bucket(1, BEGIN + MINUTE, (1, 2.0, 2.0, 2.0, 2.0)),
        Bucket(1, BEGIN + 120 * MINUTE, (1, 4.0, 4.0, 4.0, 4.0)),
        Bucket(1, BEGIN + 121 * MINUTE, (1, 3.0, 3.0, 3.0, 3.0)),
        Bucket(1, BEGIN + 123 * MINUTE, (1, 5.0, 5.0, 5.0, 5.0)),
    ]
    assert store.aggregate([1], *FOREVER, HOUR, ["count"])[0] == Bucket(1, BEGIN, (4,))
    assert store.counters([1]) == [SeriesCounters(1, 7, 0, 3, late=3, expired=4, merged=2)]


def test_late_text_expires_at_once(store: RetainingStore) -> None:
    """Text has no sums: one that comes when its time was dropped is counted, not kept."""
    maker = FrameMaker()
    fill(store, maker, (0, "a"), (5, "b"), (7300, "c"))
    drop(store, 2, [1])

    fill(store, maker, (3, "z"))

    assert store.counters([1]) == [SeriesCounters(1, 4, 0, 1, late=1, expired=3)]
    assert store.aggregate([1], *FOREVER, HOUR, ["count"]) == []


@pytest.mark.parametrize(
    ("step", "origin", "functions"),
    [
        pytest.param(S, 0, ["avg"], id="finer"),
        pytest.param(90 * S, 0, ["avg"], id="no whole minutes"),
        pytest.param(HOUR, 30 * S, ["avg"], id="origin inside a minute"),
        pytest.param(HOUR, 0, ["avg", "first"], id="first"),
        *(pytest.param(HOUR, 0, [name], id=name) for name in PARTS if name != "last_ns"),
    ],
)
def test_what_sums_cannot_say_is_refused(store: RetainingStore, step: int, origin: int, functions: list[str]) -> None:
    """A question that needs dropped readings is an error, and answered from where they are there."""
    maker = FrameMaker()
    fill(store, maker, *((n * 600, float(n)) for n in range(20)))
    drop(store, 2, [1])

    with pytest.raises(BadRequestError):
        store.aggregate([1], BEGIN, 2**62, step, functions, origin_ns=origin)

    assert store.aggregate([1], BEGIN + 2 * HOUR, 2**62, step, functions, origin_ns=origin)


def test_a_minute_counts_where_it_begins(store: RetainingStore) -> None:
    """Ranges that follow each other give each dropped minute once, wherever they meet."""
    maker = FrameMaker()
    fill(store, maker, *((n * 10, 1) for n in range(1000)))
    drop(store, 2, [1])
    for border in (BEGIN + 90 * S, BEGIN + 3601 * S, BEGIN + 7199 * S, BEGIN + 7200 * S, BEGIN + 7300 * S):
        halves = (FOREVER[0], border), (border, FOREVER[1])

        found = [sum(b.values[0] for b in store.aggregate([1], *half, HOUR, ["count"])) for half in halves]

        assert sum(found) == 1000


def test_erasing_takes_the_sums_too(store: RetainingStore) -> None:
    """After an erase there is neither reading nor sum, the ledger balances, and the series begins anew."""
    maker = FrameMaker()
    fill(store, maker, *((n * 600, float(n)) for n in range(20)))
    drop(store, 2, [1])

    assert store.erase([1]) == 8

    assert store.aggregate([1], *FOREVER, HOUR, ["count"]) == []
    assert store.raw_from([1]) == {}
    assert store.counters([1]) == [SeriesCounters(1, 20, 0, 0, erased=8, expired=12)]
    fill(store, maker, (0, 5.0))
    assert store.aggregate([1], *FOREVER, S, ["first"]) == [Bucket(1, BEGIN, (5.0,))]


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_no_byte_of_what_was_erased_is_left(tmp_path: Path, engine: str) -> None:
    """In the file and its log: values, chunks, sums; dropped, corrected, waiting ones, between those of others."""
    maker = FrameMaker()
    with closing(ENGINES[engine](tmp_path)) as store:
        for n in range(30):
            times = [BEGIN + (n * 40 + i) * 60 * S for i in range(40)]
            sent: list[tuple[str, int, Value]] = [(c, t, i * 1.25) for c in "tn" for i, t in enumerate(times)]
            sent += [("text", t, f"diary-{n}-{i}") for i, t in enumerate(times)]
            store.write(numbered([maker.batch("pump", sent)], store.applied + 1))
            again = maker.batch("pump", [("text", times[3], f"diary-again-{n}"), ("t", times[4], 0.5)])
            store.write(numbered([again], store.applied + 1))
            if n == 20 and isinstance(store, ColumnStore):
                store.seal()
            drop(store, n // 3, [1, 3])
        assert b"diary-" in contents(tmp_path)
        theirs = blobs_of(tmp_path / FILE, 1)
        assert theirs
        kept = store.read([2], *FOREVER, 9999)

        store.erase([1, 3])

        left = contents(tmp_path)
        assert b"diary-" not in left
        assert not [blob for blob in theirs if blob in left]
        assert store.read([2], *FOREVER, 9999) == kept


class Turn:
    """A write lock behind whose nth release another thread comes first; here this one does what that would do."""

    def __init__(self, nth: int, then: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._left = nth
        self._then = then

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._left -= 1
        if not self._left:
            self._then()


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_a_drop_amid_an_erasure_leaves_nothing(tmp_path: Path, engine: str, nth: int) -> None:
    """Retention's turn between two slices: no sum of what it dropped stays, and the series can begin anew."""
    maker = FrameMaker()
    with closing(ENGINES[engine](tmp_path)) as store:
        for n in range(6):
            fill(store, maker, *((n * 4000 + i, 1.0) for i in range(4000)))
        drop(store, 1, [1])
        holder: Any = store._file if isinstance(store, ColumnStore) else store
        holder._write_lock = Turn(nth, lambda: store.drop_before([1], BEGIN + 20 * HOUR))

        store.erase([1])

        assert store.aggregate([1], *FOREVER, HOUR, ["count"]) == []
        assert store.raw_from([1]) == {}
        fill(store, maker, (0, 5.0))
        assert store.read([1], *FOREVER, 9) == [Row(1, BEGIN, 5.0)]


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_an_erasure_cut_short_is_finished_by_the_next(tmp_path: Path, engine: str) -> None:
    """A kill at any statement, also of the end, when no reading is left: no byte stays after one more erasure."""
    maker, copies = FrameMaker(), tmp_path / "copies"
    is_copied = False

    def copy(_: str) -> None:
        if is_copied:
            folder = copies / str(len(list(copies.iterdir())))
            folder.mkdir()
            for suffix in ("", "-wal", "-shm"):
                shutil.copyfile(tmp_path / (FILE + suffix), folder / (FILE + suffix))

    copies.mkdir()
    with closing(TRACED[engine](tmp_path, copy)) as store:
        fill(store, maker, *((n * 60, f"diary-{n}-of-a-day") for n in range(300)))
        fill(store, maker, *((n * 60, 1.0) for n in range(300)), channel="n")
        is_copied = True
        store.erase([1])
        is_copied = False

    assert b"diary-" in b"".join(contents(folder) for folder in copies.iterdir())
    for folder in copies.iterdir():
        with closing(ENGINES[engine](folder)) as store:
            store.erase([1])
            assert b"diary-" not in contents(folder)


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_an_erasure_waits_for_readers_and_lets_writes_pass(tmp_path: Path, engine: str) -> None:
    """Somebody reads an older state of the file: the writer's turn comes, and no byte stays once they are done."""
    maker = FrameMaker()
    with (
        closing(ENGINES[engine](tmp_path)) as store,
        closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as beside,
    ):
        fill(store, maker, *((n, f"diary-{n}-of-a-day") for n in range(300)))
        beside.execute("BEGIN")
        assert beside.execute("SELECT count(*) FROM counter").fetchone()
        holder: Any = store._file if isinstance(store, ColumnStore) else store
        tries: list[str] = []

        def trace(statement: str) -> None:
            tries.extend([statement] if "TRUNCATE" in statement else [])

        def turn() -> None:
            if tries:
                beside.execute("ROLLBACK")
            else:
                holder._write_lock = Turn(1, turn)

        holder._connection.set_trace_callback(trace)
        turn()

        store.erase([1])

        assert len(tries) == 2
        assert b"diary-" not in contents(tmp_path)


def contents(folder: Path) -> bytes:
    """Return every byte of the store's file and its log."""
    return b"".join(path.read_bytes() for path in folder.glob(FILE + "*") if not path.name.endswith("-shm"))


def blobs_of(path: Path, series: int) -> list[bytes]:
    """Return the beginnings of what is kept of one series as blobs: its sums, and its chunks where there are any."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT body FROM rollup WHERE series = ?", (series,)).fetchall()
        if connection.execute("PRAGMA user_version").fetchone()[0] >= 100:
            found += connection.execute(
                "SELECT p.body FROM chunk c JOIN part p ON p.id = c.body WHERE c.series = ?", (series,)
            ).fetchall()
    return [body[:48] for (body,) in found]


def test_days_that_have_sums_are_found(store: RetainingStore) -> None:
    """The first and the last of any of the series that a range touches, whatever text and readings lie between."""
    maker, day = FrameMaker(), 24 * HOUR
    fill(store, maker, (-5 * 86_400, 1.0), (-3 * 86_400, 2.0), (0, 3.0))
    fill(store, maker, (-9 * 86_400, "text"), (-4 * 86_400, 1.0), (0, 3.0), channel="n")
    none = store.day_of_sums([1, 2], *FOREVER)
    drop(store, 0)
    first, second, third = ((BEGIN - days * day) // day * day for days in (5, 4, 3))

    assert none is None
    assert [store.day_of_sums([1, 2], *FOREVER, descending=d) for d in (False, True)] == [first, third]
    assert [store.day_of_sums([2], *FOREVER, descending=d) for d in (False, True)] == [second, second]
    assert store.day_of_sums([1, 2], first + day, FOREVER[1]) == second
    assert store.day_of_sums([1, 2], first + day, second + 1, descending=True) == second
    assert store.day_of_sums([1, 2], first + day, second) is None
    assert store.day_of_sums([1, 2], second, second) is None
    assert store.day_of_sums([3], *FOREVER) is None


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_drops_in_slices_between_which_writes_go_on(tmp_path: Path, engine: str) -> None:
    """One call drops about `DROPPED_AT_ONCE`; a restart and a write in between change nothing of the sums."""
    store, maker = ENGINES[engine](tmp_path), FrameMaker()
    for n in range(4):
        fill(store, maker, *((n * 4000 + i, 1.0) for i in range(4000)))
    before = store.aggregate([1], *FOREVER, HOUR, SAID)
    slices = []
    while dropped := store.drop_before([1], BEGIN + 4 * HOUR):
        slices.append(dropped)
        assert store.aggregate([1], *FOREVER, HOUR, SAID) == before
        (counters,) = store.counters([1])
        assert (counters.expired, counters.rows) == (sum(slices), 16_000 - sum(slices))
        store.close()
        store = ENGINES[engine](tmp_path)

    assert sum(slices) == 4 * 3600
    assert max(slices) < DROPPED_AT_ONCE + 128
    store.close()


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_a_slice_takes_few_series_that_have_few_readings(tmp_path: Path, engine: str) -> None:
    """Each series costs as much as many readings: its sums are written anew, and no write is taken meanwhile."""
    with closing(ENGINES[engine](tmp_path)) as store:
        maker = FrameMaker()
        readings = [(f"c{n}", BEGIN + at * S, 1.0) for n in range(500) for at in (0, 60, 7200)]
        store.write(numbered([maker.batch("pump", readings)]))
        numbers, slices = list(range(1, 501)), []
        while dropped := store.drop_before(numbers, BEGIN + 2 * HOUR):
            slices.append(dropped)

    assert sum(slices) == 1000
    assert max(slices) <= 2 * 250


@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_a_drop_that_fails_anywhere_is_done_again(tmp_path: Path, engine: str) -> None:
    """What memory knows of dropped readings is what the file says, whichever step of a drop did not work."""
    with closing(ENGINES[engine](tmp_path)) as store:
        fill(store, FrameMaker(), *((n * 3600, 1.0) for n in range(1000)))
        holder: Any = store._file if isinstance(store, ColumnStore) else store
        statements = [""]
        holder._connection.set_trace_callback(statements.append)
        failed = 0
        for hour in range(2, 999):
            left = 3 * hour

            def is_over() -> bool:
                nonlocal left
                # This way, and no other, a COMMIT may have been done and fail.
                left -= statements[-1] != "COMMIT"
                return left == 0

            holder._connection.set_progress_handler(is_over, 1)
            with suppress(StoreError, sqlite3.Error):
                store.drop_before([1], BEGIN + hour * HOUR)
            holder._connection.set_progress_handler(None, 0)
            if left > 0:
                break
            failed += 1
            drop(store, hour, [1])
            assert holder._raw_from == store.raw_from([1]) == {1: BEGIN + hour * HOUR}

        assert failed > 20
        (counters,) = store.counters([1])
        assert (counters.expired, counters.rows) == (hour, 1000 - hour)


def numbers_in(store: RetainingStore) -> int:
    """Return how many readings there are, in rows and in sums; both ways to add them must say the same."""
    minutes = sum(int(b.values[0]) for b in store.aggregate([1, 2], *FOREVER, MINUTE, ["count"]))
    hours = sum(int(b.values[0]) for b in store.aggregate([1, 2], *FOREVER, HOUR, ["count"]))
    assert minutes == hours
    return minutes


TRACED: dict[str, Callable[[Path, Callable[[str], None]], RetainingStore]] = {
    "columns": lambda path, trace: ColumnStore(path / FILE, chunk_readings=8, trace=trace),
    "embedded": lambda path, trace: EmbeddedStore(path / FILE, trace=trace),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["columns", "embedded"])
def test_kill_at_any_statement_loses_and_doubles_nothing(tmp_path: Path, engine: str) -> None:
    """Drops, late readings and erasures, cut between any two statements: each reading is a row or in the sums, once."""
    copies: list[tuple[Path, int, bool]] = []
    frames = [
        FrameMaker().batch("pump", [(c, BEGIN + at * 300 * S, float(at)) for at in times for c in "tn"])
        for times in (range(20), range(20, 40), (-1, 41), (2, 45), range(50, 60))
    ]
    written, is_erasing = 0, False

    def copy(_: str) -> None:
        folder = tmp_path / f"copy-{len(copies)}"
        folder.mkdir()
        for suffix in ("", "-wal", "-shm"):
            shutil.copyfile(tmp_path / (FILE + suffix), folder / (FILE + suffix))
        copies.append((folder, written, is_erasing))

    with closing(TRACED[engine](tmp_path, copy)) as store:
        for number, frame in enumerate(numbered(frames), 1):
            written = number
            store.write([frame])
            drop(store, number - 1)
        is_erasing = True
        store.erase([1, 2])

    assert len(copies) > 100
    for folder, count, may_be_half in copies:
        with closing(ENGINES[engine](folder)) as store:
            assert store.applied in (count - 1, count)
            store.write(numbered(frames)[:count])
            if not may_be_half:
                assert numbers_in(store) == sum(frame.readings for frame in frames[:count])
                drop(store, len(frames))
                assert numbers_in(store) == sum(frame.readings for frame in frames[:count])
            store.erase([1, 2])
            assert numbers_in(store) == 0
            for c in store.counters([1, 2]):
                assert c.accepted - c.superseded - c.erased - c.expired == c.rows == 0
        shutil.rmtree(folder)
