"""The file of identities: an older one is brought up to date with all it holds, a newer one is left alone."""

import hashlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.errors import UnavailableError
from hub.identity_file import SCHEMA_VERSION, open_identity_file

# As hubs of schema 1 made it.
SCHEMA_1 = """
CREATE TABLE device (
    namespace TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL UNIQUE, hash BLOB NOT NULL,
    created_ns INTEGER NOT NULL, rotated_ns INTEGER, PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE token (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, namespace TEXT NOT NULL,
    match TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER, is_session INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
DEVICES = {"d1.aaaa": ("default", "pump-1", 5, None), "d2.bbbb": ("other", "pump-2", 6, 9)}


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A file of schema 1 with two devices and a watcher's token whose scopes are a list of patterns."""
    path = tmp_path / "identities.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(SCHEMA_1)
        for token, (namespace, name, created_ns, rotated_ns) in DEVICES.items():
            row = (namespace, name, token.partition(".")[0], _hash(token), created_ns, rotated_ns)
            database.execute("INSERT INTO device VALUES (?, ?, ?, ?, ?, ?)", row)
        row_of_watcher = ("t1", _hash("t1.cccc"), "watcher", "wall", "default", '["pump-*/**"]', 7, None, False)
        database.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row_of_watcher)
    return path


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def test_a_file_of_schema_1_keeps_everything(old_file: Path) -> None:
    """Every token goes on, times and namespaces stay, and what is new works on the old devices."""
    with closing(Identities(old_file)) as identities:
        (pump1,), (pump2,) = identities.devices(), identities.devices(namespace="other")
        known = [identities.authenticate(token) for token in (*DEVICES, "t1.cccc")]
        identities.rotate_device("pump-1")

        assert [(who.name, who.namespace) for who in known if who is not None] == [
            ("pump-1", "default"),
            ("pump-2", "other"),
            ("wall", "default"),
        ]
        assert (pump1.id, pump1.created_ns, pump1.rotated_ns, pump1.tokens) == ("d1", 5, None, 1)
        assert (pump2.id, pump2.created_ns, pump2.rotated_ns) == ("d2", 6, 9)
        assert identities.authenticate("d1.aaaa") is not None
        assert identities.devices()[0].tokens == 2


def test_a_file_that_was_brought_up_to_date_is_like_a_new_one(old_file: Path, tmp_path: Path) -> None:
    """The same tables and indexes, and no leftovers."""
    open_identity_file(old_file).close()
    open_identity_file(tmp_path / "new.sqlite3").close()

    assert _layout(old_file) == _layout(tmp_path / "new.sqlite3")


def _layout(path: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        rows = database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {(kind, name, " ".join(sql.split())) for kind, name, sql in rows}


def test_processes_that_open_an_old_file_together_all_get_it(old_file: Path) -> None:
    """One brings it up to date, the others find it so: a hub and a command may start at the same time."""
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            open_identity_file(old_file).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failed == []
    with closing(Identities(old_file)) as identities:
        assert identities.authenticate("d1.aaaa") is not None


def test_a_failed_upgrade_leaves_the_old_file(old_file: Path) -> None:
    """All or nothing: what cannot be brought up to date is as it was, and the error names the file."""
    with closing(sqlite3.connect(old_file, isolation_level=None)) as database:
        database.execute("CREATE TABLE claimed (x)")

    with pytest.raises(UnavailableError, match=r"identities\.sqlite3"):
        open_identity_file(old_file)

    with closing(sqlite3.connect(old_file)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM device WHERE id IS NOT NULL").fetchone() == (2,)


def test_a_file_of_a_newer_hub_is_refused(tmp_path: Path) -> None:
    """The error says which schema it has and what to do."""
    path = tmp_path / "identities.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

    with pytest.raises(UnavailableError, match=f"schema {SCHEMA_VERSION + 1}.*upgrade"):
        open_identity_file(path)
