"""What only the embedded store has: its file, its position in it, kill -9, failures."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import BadRequestError, DiskFailedError, StoreError
from hub.renewal import renew_if_suspect
from hub.store.base import Row, SeriesCounters
from hub.store.embedded import SCHEMA_VERSION, EmbeddedStore
from tests.support.failing_disk import failing_disk
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

FILE = "readings.sqlite3"


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Position, rows and counters are in the file; late and doubled readings are known after a restart, too."""
    maker = FrameMaker()
    frames = numbered([maker.one("pump", float(i), T0 + i) for i in (5, 7, 5, 9, 1)])
    for at in range(5):
        store = EmbeddedStore(tmp_path / FILE)
        assert store.applied == at
        store.write(frames[: at + 1])
        store.close()

    store = EmbeddedStore(tmp_path / FILE)

    assert store.latest([1]) == [Row(1, T0 + 9, 9.0)]
    assert store.counters([1]) == [SeriesCounters(1, 5, 1, 4)]
    store.close()


def test_newer_file_is_refused(tmp_path: Path) -> None:
    """A store of a newer hub is refused with a clear message."""
    EmbeddedStore(tmp_path / FILE).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(StoreError, match="newer hub"):
        EmbeddedStore(tmp_path / FILE)


SCHEMA_1 = """
CREATE TABLE reading(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, value NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID;
CREATE TABLE counter(series INTEGER PRIMARY KEY, accepted INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0, erased INTEGER NOT NULL DEFAULT 0);
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL);
INSERT INTO progress VALUES (1, 1);
"""


def test_file_of_schema_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """Readings of the first schema stay, when they were received is not known, and new ones go on behind them."""
    connection = sqlite3.connect(tmp_path / FILE)
    connection.executescript(SCHEMA_1)
    connection.executemany("INSERT INTO reading VALUES (1, ?, ?)", [(T0 + n, float(n)) for n in range(5)])
    connection.execute("INSERT INTO counter VALUES (1, 5, 0, 0)")
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    store, maker = EmbeddedStore(tmp_path / FILE), FrameMaker()

    store.write(numbered([maker.one("pump", 9.0, T0 + 9)], 2))

    assert store.counters([1]) == [SeriesCounters(1, 6, 0, 6)]
    assert [row.received_ns for row in store.read([1], 0, 2**62, 10, received=True)] == [*[None] * 5, T0]
    assert store.keeps_all
    assert store.drop_before([1], T0 + 3600 * 10**9) == 5
    store.close()


def test_a_new_file_was_promised_nothing(tmp_path: Path) -> None:
    """Only one that an older hub made says that it keeps all."""
    for _ in range(2):
        with closing(EmbeddedStore(tmp_path / FILE)) as store:
            assert not store.keeps_all


def test_space_is_given_back_in_slices(tmp_path: Path) -> None:
    """Of what was dropped the file keeps what it is told to, and the rest is the disk's again."""
    maker = FrameMaker()
    with closing(EmbeddedStore(tmp_path / FILE)) as store:
        store.write(numbered(maker.many(1, 40, 5000)))
        size = store.statistics().bytes
        while store.drop_before([1], T0 + 10**13):
            pass
        given_back = []
        while slice_of := store.give_back(100_000):
            given_back.append(slice_of)

    assert len(given_back) > 1
    assert sum(given_back) > size - 200_000
    assert (tmp_path / FILE).stat().st_size < 300_000


def test_failed_write_undoes_all(tmp_path: Path) -> None:
    """On a full disk nothing of the call is stored, in the file or in memory; the same call succeeds later."""
    store, maker = EmbeddedStore(tmp_path / FILE, max_bytes=64 * 1024), FrameMaker()
    frames = numbered(maker.many(2, 20, 500))
    store.write(frames[:1])

    with pytest.raises(StoreError, match="was undone"):
        store.write(frames)

    assert (store.applied, store.statistics().rows) == (1, 500)
    store.close()
    store = EmbeddedStore(tmp_path / FILE)
    store.write(frames)
    assert store.counters([1, 2]) == [SeriesCounters(1, 10_000, 0, 10_000), SeriesCounters(2, 10_000, 0, 10_000)]
    store.close()


def test_readers_see_whole_writes(tmp_path: Path) -> None:
    """A reader beside the writer sees all of a write or nothing of it."""
    store, maker = EmbeddedStore(tmp_path / FILE), FrameMaker()
    frames = numbered([maker.batch("pump", [(c, T0 + i, float(i)) for c in "abcd"]) for i in range(200)])
    counts: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            counts.add(len(store.read([1, 2, 3, 4], T0, T0 + 200, 10_000)))

    thread = threading.Thread(target=look)
    thread.start()
    for frame in frames:
        store.write([frame])
    done.set()
    thread.join()

    assert all(count % 4 == 0 for count in counts)
    assert store.statistics().rows == 800
    store.close()


def test_large_series_is_erased_in_slices(tmp_path: Path) -> None:
    """Erasing more than one slice deletes every row and nothing of other series."""
    store, maker = EmbeddedStore(tmp_path / FILE), FrameMaker()
    store.write(numbered(maker.many(2, 5, 9000)))

    assert store.erase([1]) == 45_000

    assert store.counters([1, 2]) == [SeriesCounters(1, 45_000, 0, 0, 45_000), SeriesCounters(2, 45_000, 0, 45_000)]
    store.close()


WRITER = """
import sys
from pathlib import Path
from hub.store.embedded import EmbeddedStore
from tests.support.failing_disk import failing_disk
from tests.support.frames import FrameMaker, numbered

store = EmbeddedStore(Path(sys.argv[1]))
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


def test_kill_keeps_position_and_rows_together(tmp_path: Path) -> None:
    """kill -9 while writing: rows and counters are exactly those of the frames up to ``applied``."""
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

        store, oracle = EmbeddedStore(tmp_path / FILE), MemoryStore()
        oracle.write(expected[: store.applied])
        assert int(reported) <= store.applied <= len(expected)
        assert store.read([1, 2, 3], 0, 2**62, 10**6) == oracle.read([1, 2, 3], 0, 2**62, 10**6)
        assert store.counters([1, 2, 3]) == oracle.counters([1, 2, 3])
        store.close()


def test_aggregate_refuses_more_buckets_than_one_answer_may_hold(tmp_path: Path) -> None:
    """However many series and buckets are asked for, memory is bounded; the asker hears what to change."""
    maker = FrameMaker()
    store = EmbeddedStore(tmp_path / FILE, max_buckets=4)
    store.write(numbered([maker.one(device, 1.0, T0 + i) for device in ("a", "b") for i in (0, 1, 2)]))

    assert len(store.aggregate([1, 2], T0, T0 + 2, 1, ["avg"])) == 4
    with pytest.raises(BadRequestError, match="fewer series"):
        store.aggregate([1, 2], T0, T0 + 3, 1, ["avg"])
    store.close()


def test_sync_writes_a_commit_each_time(tmp_path: Path) -> None:
    """Only a commit that writes a page is fsynced: `sync` makes one also when its position has not moved."""
    store = EmbeddedStore(tmp_path / FILE)
    log = tmp_path / f"{FILE}-wal"
    store.write(numbered([FrameMaker().one("pump", 1.0)]))

    sizes = [log.stat().st_size]
    for _ in range(2):
        assert store.sync() == 1
        sizes.append(log.stat().st_size)

    assert sizes[0] < sizes[1] < sizes[2]
    store.close()


@pytest.mark.parametrize("work", ["write", "sync", "erase"])
def test_failed_write_ends_the_store_until_its_file_is_renewed(tmp_path: Path, work: str) -> None:
    """Nothing more is taken, and nothing called durable, until a fresh copy was made; then it goes on where it was."""
    maker = FrameMaker()
    frames = numbered([maker.one("pump", float(i), T0 + i) for i in range(2)])
    store = EmbeddedStore(tmp_path / FILE)
    store.write(frames[:1])
    do: dict[str, Callable[[], object]] = {
        "write": lambda: store.write(frames), "sync": store.sync, "erase": lambda: store.erase([1])
    }  # fmt: skip

    with failing_disk(tmp_path / f"{FILE}-wal"), pytest.raises(DiskFailedError):
        do[work]()
    for refused in do.values():
        with pytest.raises(DiskFailedError, match="start the hub again"):
            refused()
    store.close()
    assert renew_if_suspect(tmp_path / FILE)

    store = EmbeddedStore(tmp_path / FILE)
    assert store.applied == 1
    store.write(frames)
    assert len(store.read([1], 0, 2**62, 10)) == 2
    store.close()
