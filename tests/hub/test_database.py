"""SQLite files are opened with checked settings, versioned, written in bulk and read by many threads."""

import sqlite3
import threading
from pathlib import Path

import pytest

from hub.database import FULL, NORMAL, ReadPool, insert_rows, open_database, roll_back, transaction, used_bytes
from hub.errors import JournalError, StoreError
from hub.renewal import renew_if_suspect
from tests.support.failing_disk import failing_disk

SCHEMA = "CREATE TABLE item(a INTEGER PRIMARY KEY, b TEXT)"


def opened(path: Path, version: int = 1, synchronous: int = FULL, max_bytes: int | None = None) -> sqlite3.Connection:
    """Open a small database."""
    return open_database(path, SCHEMA, version, synchronous=synchronous, error=JournalError, max_bytes=max_bytes)


@pytest.mark.parametrize("synchronous", [FULL, NORMAL])
def test_open_sets_and_keeps_pragmas(tmp_path: Path, synchronous: int) -> None:
    """WAL, the durability asked for and incremental vacuum are in force, in a new file and in an old one."""
    for _ in range(2):
        connection = opened(tmp_path / "a.sqlite3", synchronous=synchronous)
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "auto_vacuum", "wal_autocheckpoint", "user_version")
        ]
        connection.close()

        assert found == ["wal", synchronous, 2, 4000, 1]


def test_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A new one and one of an earlier hub, with what SQLite puts beside it: the log of changes is in several files."""
    paths = tmp_path / "new.sqlite3", tmp_path / "old.sqlite3"
    left = sqlite3.connect(paths[1])
    left.execute("PRAGMA journal_mode=WAL")
    left.execute("CREATE TABLE t (x)")
    for path in paths:
        opened = open_database(path, "CREATE TABLE u (x);", 1, synchronous=FULL, error=JournalError)
        opened.execute("INSERT INTO u VALUES (1)")
        opened.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    left.close()

    assert {"old.sqlite3-wal", "new.sqlite3"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_open_refuses_a_newer_file(tmp_path: Path) -> None:
    """A file of a newer hub is refused with both versions and what to do, and left as it was."""
    opened(tmp_path / "a.sqlite3", version=3).close()

    with pytest.raises(JournalError, match=r"newer hub \(schema 3, this one knows 1\): upgrade"):
        opened(tmp_path / "a.sqlite3")

    opened(tmp_path / "a.sqlite3", version=3).close()


def test_open_upgrades_an_older_file(tmp_path: Path) -> None:
    """Each version's step runs once, in order, and what was stored stays; a new file gets the schema alone."""
    steps = {1: "ALTER TABLE item ADD COLUMN c", 2: "ALTER TABLE item ADD COLUMN d"}
    old = opened(tmp_path / "a.sqlite3")
    old.execute("INSERT INTO item VALUES (1, 'kept')")
    old.close()

    for path, found in ((tmp_path / "a.sqlite3", [(1, "kept", None, None)]), (tmp_path / "b.sqlite3", [])):
        for _ in range(2):
            connection = open_database(
                path, "CREATE TABLE item(a, b, c, d)", 3, synchronous=FULL, error=JournalError, upgrades=steps
            )
            assert connection.execute("SELECT * FROM item").fetchall() == found
            connection.close()


def test_open_brings_an_older_file_up_to_date(tmp_path: Path) -> None:
    """Each step from the file's version to this one is taken once, in order, and what is in the file stays."""
    path = tmp_path / "a.sqlite3"
    connection = opened(path)
    connection.execute("INSERT INTO item VALUES (1, 'kept')")
    connection.close()
    upgrades = {1: "ALTER TABLE item ADD COLUMN c", 2: "UPDATE item SET c = b; ALTER TABLE item ADD COLUMN d"}

    for _ in range(2):
        connection = open_database(path, "no schema", 3, synchronous=FULL, error=JournalError, upgrades=upgrades)
        assert connection.execute("SELECT * FROM item").fetchall() == [(1, "kept", "kept", None)]
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 3
        connection.close()


def test_open_refuses_an_older_file_it_cannot_upgrade(tmp_path: Path) -> None:
    """A step that is not known is said with what to do, and the file is left as it was."""
    opened(tmp_path / "a.sqlite3").close()

    with pytest.raises(JournalError, match=r"older hub \(schema 1\), which this one \(schema 3\)"):
        open_database(tmp_path / "a.sqlite3", SCHEMA, 3, synchronous=FULL, error=JournalError, upgrades={2: "SELECT 1"})

    opened(tmp_path / "a.sqlite3").close()


def test_open_refuses_what_is_no_database(tmp_path: Path) -> None:
    """A file of something else, and a directory that is not there, are clear errors of the caller's kind."""
    (tmp_path / "a.sqlite3").write_bytes(b"not a database" * 100)

    with pytest.raises(JournalError, match="cannot use"):
        opened(tmp_path / "a.sqlite3")
    with pytest.raises(StoreError, match="check the directory"):
        open_database(tmp_path / "no" / "a", SCHEMA, 1, synchronous=FULL, error=StoreError)


@pytest.mark.parametrize("count", [0, 1, 2, 511, 512, 513, 1500])
def test_insert_rows_writes_each_row_once(tmp_path: Path, count: int) -> None:
    """Any number of rows arrives once and in order, whatever statements carry it."""
    connection = opened(tmp_path / "a.sqlite3")
    flat = [value for i in range(count) for value in (i, f"row {i}")]

    answers = insert_rows(connection, "INSERT INTO item", 2, flat, "RETURNING a")

    assert answers == [(i,) for i in range(count)]
    assert connection.execute("SELECT * FROM item ORDER BY a").fetchall() == [(i, f"row {i}") for i in range(count)]
    connection.close()


def test_max_bytes_fills_like_a_disk(tmp_path: Path) -> None:
    """Beyond ``max_bytes`` a write fails as on a full disk; after a rollback the file works on."""
    connection = opened(tmp_path / "a.sqlite3", max_bytes=64 * 1024)

    connection.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError) as caught:
        insert_rows(connection, "INSERT INTO item", 2, [v for i in range(500) for v in (i, "x" * 500)])
    roll_back(connection)
    roll_back(connection)

    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_FULL
    connection.execute("INSERT INTO item VALUES (1, 'small')")
    assert 0 < used_bytes(connection) <= 64 * 1024
    connection.close()


def test_pool_lends_one_snapshot(tmp_path: Path) -> None:
    """A lent connection sees one state, whatever is committed meanwhile, and cannot write."""
    connection = opened(tmp_path / "a.sqlite3")
    pool = ReadPool(tmp_path / "a.sqlite3")

    with pool.connection() as reader:
        before = reader.execute("SELECT count(*) FROM item").fetchone()
        connection.execute("INSERT INTO item VALUES (1, 'x')")
        after = reader.execute("SELECT count(*) FROM item").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM item")
    with pool.connection() as reader:
        later = reader.execute("SELECT count(*) FROM item").fetchone()

    assert (before, after, later) == ((0,), (0,), (1,))
    pool.close()
    connection.close()


def test_pool_serves_threads_at_once(tmp_path: Path) -> None:
    """Threads that read at the same time have connections of their own, and few stay open afterwards."""
    connection = opened(tmp_path / "a.sqlite3")
    pool, barrier, seen = ReadPool(tmp_path / "a.sqlite3"), threading.Barrier(12), set()

    def read() -> None:
        with pool.connection() as reader:
            barrier.wait(10)
            seen.add(id(reader))
            barrier.wait(10)

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 12
    pool.close()
    pool.close()
    connection.close()


def test_closed_pool_refuses(tmp_path: Path) -> None:
    """After close nothing is lent; what was lent is closed when it comes back."""
    connection = opened(tmp_path / "a.sqlite3")
    pool = ReadPool(tmp_path / "a.sqlite3")

    with pool.connection() as reader:
        pool.close()
        assert reader.execute("SELECT 1").fetchone() == (1,)

    with pytest.raises(sqlite3.ProgrammingError):
        reader.execute("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), pool.connection():
        pass
    connection.close()


def test_a_transaction_is_durable_or_undone(tmp_path: Path) -> None:
    """An error in the block, a trial and a COMMIT that the disk fails leave nothing; the next one is not in the way.

    Only the disk makes the file suspect: its next start gives it a fresh copy.
    """
    path = tmp_path / "a.sqlite3"
    connection = opened(path)
    with transaction(connection, path):
        connection.execute("INSERT INTO item VALUES (1, 'kept')")
    with transaction(connection, path, is_trial=True):
        connection.execute("INSERT INTO item VALUES (2, 'trial')")
    with pytest.raises(ValueError, match="text"), transaction(connection, path):
        connection.execute("INSERT INTO item VALUES (3, ?)", [int("text")])
    with pytest.raises(sqlite3.IntegrityError), transaction(connection, path):
        connection.execute("INSERT INTO item VALUES (1, 'twice')")
    assert not renew_if_suspect(path)

    with (
        failing_disk(tmp_path / "a.sqlite3-wal"),
        pytest.raises(sqlite3.OperationalError, match="disk I/O"),
        transaction(connection, path),
    ):
        connection.execute("INSERT INTO item VALUES (4, 'failed')")

    assert connection.execute("SELECT * FROM item").fetchall() == [(1, "kept")]
    with transaction(connection, path):
        connection.execute("INSERT INTO item VALUES (5, 'after')")
    connection.close()
    assert renew_if_suspect(path)
    assert opened(path).execute("SELECT * FROM item").fetchall() == [(1, "kept"), (5, "after")]
