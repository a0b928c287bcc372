"""SQLite files as the hub needs them: opened with checked pragmas, versioned, read by many threads.

Owns: opening, the schema version, bulk statements, a pool of read-only
connections, one durable transaction. Place: after `renewal`, used by everything
that has a file. Must not: know what the tables mean.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hub.errors import HubError
from hub.renewal import mark_suspect

# 4,000 pages of 4 KiB: a checkpoint each 16 MiB; smaller ones cost more fsyncs, larger ones a longer stall.
_WAL_PAGES = 4000
# After a burst the WAL file is cut back to this.
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 16384
_READ_CACHE_KIB = 4096
# A backup tool may hold the lock for a moment; longer than this is a second writer.
_BUSY_TIMEOUT_S = 10.0
# Idle read connections kept open; each holds two file handles and up to its cache.
_IDLE_READERS = 8
# Rows of one statement. CPython releases the interpreter lock once a statement, so `executemany` beside a busy
# event loop waits up to the switch interval (5 ms) at *every* row; beyond 512 rows the speed no longer grows.
_ROWS_PER_STATEMENT = 512

# Free pages given back at a time: each may be a page moved from the end of the file; some 10 ms.
_GIVEN_BACK_PAGES = 512
# How long `wipe_beside` waits for those who read: 10 s.
_WIPE_TRIES, _WIPE_PAUSE_S = 100, 0.1

FULL, NORMAL = 2, 1
# Extended codes keep their kind in the lowest byte.
_IOERR = 10


def open_database(
    path: Path,
    schema: str,
    version: int,
    *,
    synchronous: int,
    error: type[HubError],
    busy_timeout_s: float = _BUSY_TIMEOUT_S,
    max_bytes: int | None = None,
    upgrades: Mapping[int, str] | None = None,
) -> sqlite3.Connection:
    """Open or create the file (mode 0600) for its one writer and check that SQLite took the settings.

    Args:
        path: the file; its directory must exist.
        schema: statements that make every table of an empty file.
        version: of the schema, kept in ``user_version``.
        synchronous: `FULL` (a commit is durable on return) or `NORMAL` (durable at the next checkpoint).
        error: raised for whatever is wrong.
        max_bytes: the file may not grow beyond; then writes fail as on a full disk.
        upgrades: version → statements that bring a file of that version to the next one.

    Raises:
        error: the file cannot be opened, is damaged, is of a newer hub or of one too old, or refuses a setting.
    """
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except (sqlite3.Error, OSError) as cause:
        raise error(f"cannot open {path}: {cause}; check the directory and its owner") from cause
    try:
        _configure(connection, path, synchronous, error, max_bytes)
        _apply_schema(connection, path, schema, version, error, upgrades or {})
    except sqlite3.Error as cause:
        connection.close()
        raise error(f"cannot use {path}: {cause}; restore a backup or use another data directory") from cause
    except HubError:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    # The log of changes is told as readings, and a desired state may hold a password: what one file keeps from the
    # other users of the machine must not be read from the next. New -wal and -shm files get the mode of the main file.
    # A file that is there is not opened: closing it would drop the locks of this process's other connections to it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.chmod(f"{path}{suffix}", 0o600)


def _configure(
    connection: sqlite3.Connection, path: Path, synchronous: int, error: type[HubError], max_bytes: int | None
) -> None:
    # Must come before the first table: it cannot be changed later without rewriting the file.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    # What is deleted inside a page that stays is overwritten; pages that become free are not, see `wipe`.
    connection.execute("PRAGMA secure_delete=FAST")
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    connection.execute(f"PRAGMA synchronous={synchronous}")
    # macOS: without these an fsync does not reach the disk; elsewhere they do nothing.
    connection.execute("PRAGMA fullfsync=1")
    connection.execute("PRAGMA checkpoint_fullfsync=1")
    connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    if max_bytes is not None:
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={max(max_bytes // page_size, 1)}")
    found = connection.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or found != synchronous:
        raise error(
            f"{path}: SQLite answered journal_mode={mode}, synchronous={found} instead of wal, {synchronous}; "
            "the file system must support shared memory and locks (not a network share)"
        )


def _apply_schema(
    connection: sqlite3.Connection,
    path: Path,
    schema: str,
    version: int,
    error: type[HubError],
    upgrades: Mapping[int, str],
) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == version:
        return
    if found > version:
        raise error(
            f"{path} was written by a newer hub (schema {found}, this one knows {version}): "
            "upgrade the hub or use another data directory"
        )
    steps = [schema] if found == 0 else [upgrades.get(old, "") for old in range(found, version)]
    if not all(steps):
        raise error(
            f"{path} was written by an older hub (schema {found}), which this one (schema {version}) cannot bring up "
            "to date: open it with a hub between the two first, or use another data directory"
        )
    # One transaction: a kill in between leaves the file as it was, not half a schema.
    connection.executescript(f"BEGIN IMMEDIATE; {';'.join(steps)}; PRAGMA user_version={version}; COMMIT;")


def insert_rows(
    connection: sqlite3.Connection, head: str, width: int, flat: Sequence[Any], tail: str = ""
) -> list[tuple[Any, ...]]:
    """Run ``head VALUES (?,…),(?,…) tail`` over all rows of ``flat`` in few statements; return what they answer.

    Args:
        head: e.g. ``INSERT INTO reading``.
        width: columns of a row; ``flat`` holds row after row.
        tail: e.g. an ``ON CONFLICT`` clause.
    """
    answers: list[tuple[Any, ...]] = []
    at, left = 0, len(flat) // width
    while left:
        # Powers of two only, so that few texts are prepared and kept.
        rows = min(_ROWS_PER_STATEMENT, 1 << (left.bit_length() - 1))
        statement = _rows_statement(head, width, rows, tail)
        answers += connection.execute(statement, flat[at : at + rows * width]).fetchall()
        at += rows * width
        left -= rows
    return answers


@lru_cache(maxsize=256)
def _rows_statement(head: str, width: int, rows: int, tail: str) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"{head} VALUES {','.join([row] * rows)} {tail}"


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of pages in use (free pages do not count)."""
    pages = (
        connection.execute("PRAGMA page_count").fetchone()[0]
        - connection.execute("PRAGMA freelist_count").fetchone()[0]
    )
    return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])


def give_back(connection: sqlite3.Connection, keep_bytes: int) -> int:
    """Give some free pages back to the file system, outside of transactions; return how many bytes.

    Args:
        keep_bytes: so many free bytes stay, for what is written next.
    """
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    pages = min(free - keep_bytes // page_size, _GIVEN_BACK_PAGES)
    if pages <= 0:
        return 0
    # Not `execute`: of that the first page is freed when its first row is fetched, and no other.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    left = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return int((free - left) * page_size)


def wipe(connection: sqlite3.Connection) -> None:
    """Take out of the file what was deleted, outside of transactions: free pages, and what the log still says.

    While another process or a long question reads, the log keeps it until it is written over from its beginning.
    """
    connection.executescript("PRAGMA incremental_vacuum")
    _empty_log(connection)


def wipe_beside(connection: sqlite3.Connection, write_lock: AbstractContextManager[Any]) -> bool:
    """As `wipe`, of a file that is written meanwhile: wait for those who read, but not with the writer's lock.

    Returns: False when somebody read for longer.
    """
    for _ in range(_WIPE_TRIES):
        with write_lock:
            connection.executescript("PRAGMA incremental_vacuum")
            (usual_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute("PRAGMA busy_timeout=0")
            try:
                if _empty_log(connection):
                    return True
            finally:
                connection.execute(f"PRAGMA busy_timeout={usual_ms}")
        time.sleep(_WIPE_PAUSE_S)
    return False


def _empty_log(connection: sqlite3.Connection) -> bool:
    is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def is_disk_full(error: sqlite3.Error) -> bool:
    """Tell whether there was no room: a later call may succeed."""
    # The second: the log's index could not grow.
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def is_disk_failure(error: sqlite3.Error) -> bool:
    """Tell whether the disk failed a read, a write or an fsync; not that it was full."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF == _IOERR and not is_disk_full(error)


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo the open transaction, if SQLite has not done so already."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path, *, is_trial: bool = False) -> Iterator[None]:
    """Write in one transaction: durable when the block has ended, undone when it or COMMIT fails, or ``is_trial``.

    A disk that failed is noted: the next start of the hub gives the file a fresh copy (`hub.renewal`). Until then the
    file is used on: a write-ahead log writes what failed anew, over the same place, with the next transaction.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK" if is_trial else "COMMIT")
    except sqlite3.Error as error:
        if is_disk_failure(error):
            mark_suspect(path)
        raise
    finally:
        roll_back(connection)


class ReadPool:
    """Read-only connections to one file, one for each thread that reads at the same time."""

    def __init__(self, path: Path) -> None:
        self._uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one read transaction: every statement sees the same state."""
        connection = self._take()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close the idle connections now and lent ones when they come back; safe to call twice."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise sqlite3.ProgrammingError("the database is closed")
            if self._idle:
                return self._idle.pop()
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=1")
        connection.execute(f"PRAGMA cache_size=-{_READ_CACHE_KIB}")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        roll_back(connection)
        with self._lock:
            if not self._is_closed and len(self._idle) < _IDLE_READERS:
                self._idle.append(connection)
                return
        connection.close()
