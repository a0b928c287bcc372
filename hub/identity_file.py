"""The file of identities: its tables, its mode, and how a file of an older hub is brought up to date.

Owns: ``identities.sqlite3`` as SQLite sees it. Place: after `errors`; `auth` is the one that opens it. Must not: know
what a credential may do.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.errors import UnavailableError

# How long an edit waits for another process's edit; each takes one fsync.
BUSY_TIMEOUT_MS = 5000
SCHEMA_VERSION = 2

# Of `device_token`, `expires_ns` is null for the newest of a device, and the end of its grace for the one before.
# A claim has `device`, or `match` for a group; `used` counts the devices that claimed.
_SINCE_2 = (
    """CREATE TABLE device (
        namespace TEXT NOT NULL, name TEXT NOT NULL, created_ns INTEGER NOT NULL, rotated_ns INTEGER,
        PRIMARY KEY (namespace, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE device_token (
        id TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL,
        created_ns INTEGER NOT NULL, expires_ns INTEGER
    ) WITHOUT ROWID""",
    "CREATE INDEX device_token_of ON device_token (namespace, name)",
    """CREATE TABLE claim (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL, namespace TEXT NOT NULL, device TEXT, match TEXT,
        quota INTEGER NOT NULL, used INTEGER NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX claim_of ON claim (namespace, device)",
    """CREATE TABLE claimed (
        claim TEXT NOT NULL, device TEXT NOT NULL, token TEXT NOT NULL, retry BLOB, PRIMARY KEY (claim, device)
    ) WITHOUT ROWID""",
)
_SCHEMA = (
    """CREATE TABLE token (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, namespace TEXT NOT NULL,
        match TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER, is_session INTEGER NOT NULL
    ) WITHOUT ROWID""",
    *_SINCE_2,
)
# Version → statements that bring a file of that version to the next one. Once a device was one row with its one token.
_UPGRADES = {
    0: _SCHEMA,
    1: (
        "ALTER TABLE device RENAME TO device_1",
        *_SINCE_2,
        "INSERT INTO device SELECT namespace, name, created_ns, rotated_ns FROM device_1",
        "INSERT INTO device_token "
        "SELECT id, namespace, name, hash, coalesce(rotated_ns, created_ns), NULL FROM device_1",
        "DROP TABLE device_1",
    ),
}
# What a file goes through: an empty one is made whole at once.
_NEXT = {0: SCHEMA_VERSION, 1: 2}


def open_identity_file(path: Path) -> sqlite3.Connection:
    """Open or create the file (mode 0600), and bring it up to date; every commit is durable when it returns.

    Raises:
        UnavailableError: it cannot be opened, is damaged, or a newer hub wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with translated(path):
        # SQLite gives its -wal and -shm files the mode of the main file, so this one call covers all three.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into `UnavailableError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(f"identities in {path}: {error}; check the disk, the owner and free space") from error


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise UnavailableError(f"{path}: SQLite cannot use a write-ahead log here; keep the data on a local disk")
    database.execute("PRAGMA synchronous = FULL")
    if _version(database) == SCHEMA_VERSION:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        # Read again inside: another process may have brought the file up to date meanwhile.
        version = _version(database)
        if version > SCHEMA_VERSION:
            raise UnavailableError(f"{path} was written by a newer hub (schema {version}); upgrade this one")
        while version < SCHEMA_VERSION:
            for statement in _UPGRADES[version]:
                database.execute(statement)
            version = _NEXT[version]
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)
