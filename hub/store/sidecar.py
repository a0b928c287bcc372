"""What a hub keeps of a store whose readings are on another server: position, ledger, names, newest values.

Owns: ``readings.sqlite3`` where readings are elsewhere. Place: after `store.base`, used by `store.remote`. Must not:
know a server.

A write is on the server first and then here, in one transaction: after a crash between the two the same frames are
written again, which changes nothing there. Whether a reading replaced an older one is asked of the server before it is
written, and noted here before, or the second time its own first time would be taken for the older one. Such a note is
fsynced, so that it holds at a power cut too; a position is not: it falls back together with the ledger. An erasure is
noted with its number of rows before it begins, and ended later if need be.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from device_sdk.reading import Value
from hub.database import FULL, NORMAL, is_disk_failure, open_database, transaction
from hub.errors import DiskFailedError, StoreError
from hub.store.base import Refused
from hub.store.line_protocol import SeriesName

# A file of plain rows, which has the same name, says 1 and more, one of column chunks 100 and more.
SCHEMA_VERSION = 1000
_SCHEMA = """
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL, known_upto INTEGER NOT NULL);
INSERT INTO progress VALUES (1, 0, 0);
CREATE TABLE series(id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, channel TEXT NOT NULL,
    kinds INTEGER NOT NULL, accepted INTEGER NOT NULL, superseded INTEGER NOT NULL, refused INTEGER NOT NULL,
    erased INTEGER NOT NULL, late INTEGER NOT NULL, newest_ns INTEGER, newest NOT NULL);
CREATE TABLE known(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, was_there INTEGER NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID;
CREATE TABLE erasure(series INTEGER PRIMARY KEY, rows INTEGER NOT NULL);
CREATE TABLE refused(id INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL, time_ns INTEGER NOT NULL,
    value NOT NULL, reason TEXT NOT NULL)
"""
# Readings that the server refused, the newest ones; beyond it they are counted alone. 10 MB with long texts.
MAX_REFUSED = 10_000
_MAX_REASON = 300
_REPLACE = "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TRUE, _FALSE = b"\x01", b"\x00"
_NOTHING: Mapping[int, Iterable[int]] = MappingProxyType({})


@dataclass(slots=True)
class Entry:
    """One series: its name, the kinds of values it ever had (bits), its ledger, its newest reading by event time."""

    id: int
    name: SeriesName
    kinds: int = 0
    accepted: int = 0
    superseded: int = 0
    refused: int = 0
    erased: int = 0
    late: int = 0
    newest_ns: int | None = None
    newest: Value = 0

    def copy(self) -> "Entry":
        """Return one that may be changed."""
        return Entry(
            self.id, self.name, self.kinds, self.accepted, self.superseded, self.refused, self.erased, self.late,
            self.newest_ns, self.newest,
        )  # fmt: skip


class Sidecar:
    """The file and its copy in memory (about 500 B a series). One writer thread; reading is from any.

    Raises:
        StoreError: the file cannot be opened, or a write of it failed and was undone.
    """

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, _SCHEMA, SCHEMA_VERSION, synchronous=NORMAL, error=StoreError)
        self._path = path
        self._lock = threading.Lock()
        self.applied: int
        self._known_upto: int
        self.applied, self._known_upto = self._database.execute("SELECT applied, known_upto FROM progress").fetchone()
        rows = self._database.execute("SELECT * FROM series").fetchall()
        self.entries: Mapping[int, Entry] = {row[0]: _entry(*row) for row in rows}
        #: Series whose deletion was begun, and how many rows they had then.
        self.erasures: dict[int, int] = dict(self._database.execute("SELECT series, rows FROM erasure").fetchall())

    def known(self, series: int, times: Iterable[int]) -> dict[int, bool]:
        """Return of those times that were noted before an unfinished write whether a reading was there."""
        if self._known_upto <= self.applied:
            return {}
        with self._lock:
            rows = self._database.execute(
                "SELECT time_ns, was_there FROM known WHERE series = ? AND time_ns IN (SELECT value FROM json_each(?))",
                (series, json.dumps(list(times))),
            ).fetchall()
        return {time_ns: bool(was_there) for time_ns, was_there in rows}

    def note(self, upto: int, found: Sequence[tuple[int, int, bool]]) -> None:
        """Note (series, time, whether a reading was there) before the frames up to ``upto`` are written."""
        if not found:
            return
        with self._changing(is_durable=True) as database:
            database.executemany("INSERT OR IGNORE INTO known VALUES (?, ?, ?)", found)
            database.execute("UPDATE progress SET known_upto = max(known_upto, ?)", (upto,))
        self._known_upto = max(self._known_upto, upto)

    def notes_beyond(self, offset: int) -> bool:
        """Tell whether there are notes of frames behind ``offset``, whose write was cut off."""
        return self._known_upto > offset

    def apply(
        self,
        applied: int,
        changed: Mapping[int, Entry],
        refused: Sequence[Refused] = (),
        written: Mapping[int, Iterable[int]] = _NOTHING,
    ) -> None:
        """Take over what a write came to; the times that were ``written`` have a reading now, if there are notes."""
        with self._changing() as database:
            database.executemany(_REPLACE, map(_row, changed.values()))
            if refused:
                database.executemany(
                    "INSERT INTO refused(series, time_ns, value, reason) VALUES (?, ?, ?, ?)",
                    [(r.series, r.time_ns, _to_sql(r.value), r.reason[:_MAX_REASON]) for r in refused],
                )
                database.execute("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?", (MAX_REFUSED,))
            if self._known_upto and applied >= self._known_upto:
                database.execute("DELETE FROM known")
                database.execute("UPDATE progress SET known_upto = 0")
            elif self._known_upto:
                database.executemany(
                    "UPDATE known SET was_there = 1 WHERE series = ? AND time_ns = ?",
                    [(series, time_ns) for series, times in written.items() for time_ns in times],
                )
            database.execute("UPDATE progress SET applied = ?", (applied,))
        if applied >= self._known_upto:
            self._known_upto = 0
        self.applied = applied
        self.entries = {**self.entries, **changed}

    def begin_erasure(self, series: int, rows: int) -> None:
        """Note how many rows a series has that is about to be deleted."""
        with self._changing(is_durable=True) as database:
            database.execute("INSERT OR REPLACE INTO erasure VALUES (?, ?)", (series, rows))
        self.erasures[series] = rows

    def end_erasure(self, series: int) -> None:
        """Count the rows of a deleted series as erased; it begins anew."""
        gone = self.entries[series].copy()
        gone.erased, gone.newest_ns, gone.newest = gone.erased + self.erasures[series], None, 0
        with self._changing() as database:
            database.execute(_REPLACE, _row(gone))
            database.execute("DELETE FROM erasure WHERE series = ?", (series,))
        self.entries = {**self.entries, series: gone}
        del self.erasures[series]

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back."""
        with self._changing() as database:
            database.execute("UPDATE progress SET applied = ?", (offset,))
        self.applied = offset

    def refusals(self) -> list[Refused]:
        """Return the newest refused readings, the last first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT series, time_ns, value, reason FROM refused ORDER BY id DESC"
            ).fetchall()
        return [Refused(series, time_ns, _from_sql(value), reason) for series, time_ns, value, reason in rows]

    def sync(self) -> int:
        """Make it durable with one fsync; return ``applied``."""
        with self._changing(is_durable=True) as database:
            # Written twice, for SQLite leaves a page alone that would not change, and then fsyncs nothing.
            database.execute("UPDATE progress SET applied = -1")
            database.execute("UPDATE progress SET applied = ?", (self.applied,))
        return self.applied

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _changing(self, *, is_durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Give one transaction; ``is_durable``: it and all before it are fsynced."""
        with self._lock:
            try:
                if is_durable:
                    self._database.execute(f"PRAGMA synchronous={FULL}")
                with transaction(self._database, self._path):
                    yield self._database
            except sqlite3.Error as error:
                if is_disk_failure(error):
                    raise DiskFailedError(f"{self._path}: {error}; start the hub again") from error
                raise StoreError(f"{self._path}: a write failed and was undone: {error}") from error
            finally:
                if is_durable:
                    self._database.execute(f"PRAGMA synchronous={NORMAL}")


def _entry(number: int, namespace: str, device: str, channel: str, *rest: Any) -> Entry:
    kinds, accepted, superseded, refused, erased, late, newest_ns, newest = rest
    name = SeriesName(namespace, device, channel)
    return Entry(number, name, kinds, accepted, superseded, refused, erased, late, newest_ns, _from_sql(newest))


def _row(entry: Entry) -> tuple[object, ...]:
    return (
        entry.id, *entry.name, entry.kinds, entry.accepted, entry.superseded, entry.refused, entry.erased, entry.late,
        entry.newest_ns, _to_sql(entry.newest),
    )  # fmt: skip


def _to_sql(value: Value) -> object:
    return (_TRUE if value else _FALSE) if isinstance(value, bool) else value


def _from_sql(value: object) -> Value:
    found: Value = value == _TRUE if isinstance(value, bytes) else value  # type: ignore[assignment]
    return found
