"""The file beside a VictoriaMetrics: the ledger, how far the server is, and readings that it cannot hold.

Owns: ``readings.sqlite3`` where readings are in VictoriaMetrics. Place: below `store.victoria`. Must not: know the
network.

``sent``: the last frame that was counted here and handed to the server. ``kept``: the last that the server has on its
disk for certain, the ``applied`` of a backup; above it frames are sent again after a restart, uncounted. A reading in
``beside`` stands for its millisecond, whatever the server says; ``is_alone``: the server has none there.
"""

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_sdk.reading import Value
from hub.database import NORMAL, ReadPool, insert_rows, open_database, transaction, used_bytes
from hub.errors import StoreError
from hub.store.base import Row
from hub.store.batch import FALSE, TRUE

# A file of plain rows, which has the same name, says 1 and more, one of column chunks 100, another server's 1000.
SCHEMA_VERSION = 2000
_SCHEMA = """
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), hub TEXT NOT NULL, sent INTEGER NOT NULL,
    applied INTEGER NOT NULL);
CREATE TABLE series(series INTEGER PRIMARY KEY, kind INTEGER NOT NULL, accepted INTEGER NOT NULL,
    superseded INTEGER NOT NULL, erased INTEGER NOT NULL, late INTEGER NOT NULL, rounded INTEGER NOT NULL,
    erased_at INTEGER NOT NULL, oldest_ms INTEGER, newest_ns INTEGER, newest_value);
CREATE TABLE beside(series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value NOT NULL, is_alone INTEGER NOT NULL,
    PRIMARY KEY(series, time_ms)) WITHOUT ROWID;
CREATE TABLE erasing(series INTEGER PRIMARY KEY);
"""
_IDS = "(SELECT value FROM json_each(?1))"
_MS = 10**6


@dataclass(slots=True)
class Ledger:
    """What is kept of one series. ``kind``: 0 bool, 1 int, 2 float: what its numbers are given back as.

    ``erased_at``: frames up to it no longer count. ``oldest_ms``, ``newest_ns``: the range of its readings.
    """

    series: int
    kind: int = 0
    accepted: int = 0
    superseded: int = 0
    erased: int = 0
    late: int = 0
    rounded: int = 0
    erased_at: int = 0
    oldest_ms: int | None = None
    newest_ns: int | None = None
    newest_value: Value | None = None

    @property
    def newest_ms(self) -> int | None:
        """Return the newest time in whole milliseconds."""
        return None if self.newest_ns is None else self.newest_ns // _MS


@dataclass(frozen=True, slots=True)
class Beside:
    """A reading that is kept here."""

    series: int
    time_ms: int
    value: Value
    is_alone: bool


class VictoriaFile:
    """One writer thread, any reader threads.

    Raises:
        StoreError: the file cannot be opened, is damaged or of a newer hub.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, _SCHEMA, SCHEMA_VERSION, synchronous=NORMAL, error=StoreError)
        self._connection.execute("INSERT OR IGNORE INTO progress VALUES (1, ?, 0, 0)", (secrets.token_hex(8),))
        self._readers = ReadPool(path)
        self._lock = threading.Lock()
        self.hub: str
        self.sent: int
        self.kept: int
        self.hub, self.sent, self.kept = self._connection.execute("SELECT hub, sent, applied FROM progress").fetchone()

    def commit(self, sent: int, ledgers: Sequence[Ledger], beside: Sequence[Beside]) -> None:
        """Count frames up to ``sent`` in one transaction."""
        fields = [field for ledger in ledgers for field in _ledger_fields(ledger)]
        rows: list[Any] = []
        for one in beside:
            rows += (one.series, one.time_ms, _to_sql(one.value), one.is_alone)
        with self._transaction() as connection:
            insert_rows(connection, "INSERT OR REPLACE INTO series", 11, fields)
            insert_rows(connection, "INSERT OR REPLACE INTO beside", 4, rows)
            connection.execute("UPDATE progress SET sent = ?", (sent,))
        self.sent = sent

    def keep(self, kept: int) -> None:
        """Note that the server has every frame up to ``kept`` on its disk."""
        with self._transaction() as connection:
            connection.execute("UPDATE progress SET applied = ?", (kept,))
        self.kept = kept

    def rewind(self, offset: int) -> None:
        """Count frames again from ``offset`` on, which are other frames now."""
        with self._transaction() as connection:
            connection.execute("UPDATE progress SET sent = ?1, applied = min(applied, ?1)", (offset,))
            connection.execute("UPDATE series SET erased_at = min(erased_at, ?)", (offset,))
        self.sent, self.kept = offset, min(self.kept, offset)

    def erase(self, rows: dict[int, int]) -> None:
        """Forget the readings of series and count them (series → rows); the server must forget them, too."""
        with self._transaction() as connection:
            for series, count in rows.items():
                connection.execute(
                    """UPDATE series SET erased = erased + ?, erased_at = ?, oldest_ms = NULL, newest_ns = NULL,
                    newest_value = NULL WHERE series = ?""",
                    (count, self.sent, series),
                )
                connection.execute("DELETE FROM beside WHERE series = ?", (series,))
                connection.execute("INSERT OR IGNORE INTO erasing VALUES (?)", (series,))

    def erasing(self) -> list[int]:
        """Return the series that the server may not have forgotten on its disk."""
        with self._lock:
            return [row[0] for row in self._connection.execute("SELECT series FROM erasing ORDER BY series")]

    def erased(self, series: Sequence[int]) -> None:
        """Note that the server has forgotten them for certain."""
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM erasing WHERE series IN {_IDS}", (json.dumps(list(series)),))  # noqa: S608

    def ledgers(self, series: Sequence[int]) -> dict[int, Ledger]:
        """Return what is kept of each series that ever had a reading, in the order of their ids."""
        return self.account(series)[1]

    def account(self, series: Sequence[int]) -> tuple[int, dict[int, Ledger]]:
        """Return ``sent`` and the ledgers of that moment."""
        with self._readers.connection() as connection:
            sent: int = connection.execute("SELECT sent FROM progress").fetchone()[0]
            rows = connection.execute(
                f"SELECT * FROM series WHERE series IN {_IDS} ORDER BY series",  # noqa: S608
                (json.dumps(list(series)),),
            )
            return sent, {row[0]: _ledger(*row) for row in rows}

    def beside(self, series: Sequence[int], first_ms: int, last_ms: int) -> Iterator[Beside]:
        """Yield what is kept here with first <= time <= last."""
        with self._readers.connection() as connection:
            for number, time_ms, value, is_alone in connection.execute(
                f"SELECT * FROM beside WHERE series IN {_IDS} AND time_ms BETWEEN ?2 AND ?3",  # noqa: S608
                (json.dumps(list(series)), first_ms, last_ms),
            ):
                yield Beside(number, time_ms, _from_sql(value), bool(is_alone))

    def count_beside(self, series: Sequence[int], first_ms: int, last_ms: int) -> int:
        """Return how many `beside` yields."""
        with self._readers.connection() as connection:
            found: int = connection.execute(
                f"SELECT count(*) FROM beside WHERE series IN {_IDS} AND time_ms BETWEEN ?2 AND ?3",  # noqa: S608
                (json.dumps(list(series)), first_ms, last_ms),
            ).fetchone()[0]
            return found

    def count_alone(self, series: Sequence[int]) -> dict[int, int]:
        """Return series → readings that only this file has."""
        with self._readers.connection() as connection:
            return dict(
                connection.execute(
                    f"SELECT series, count(*) FROM beside WHERE series IN {_IDS} AND is_alone GROUP BY series",  # noqa: S608
                    (json.dumps(list(series)),),
                )
            )

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading of each series that has one."""
        found = self.ledgers(series).values()
        return [
            Row(one.series, one.newest_ms * _MS, one.newest_value)
            for one in found
            if one.newest_ms is not None and one.newest_value is not None
        ]

    def largest_series(self) -> int:
        """Return the largest id that ever had a reading."""
        with self._readers.connection() as connection:
            return int(connection.execute("SELECT coalesce(max(series), 0) FROM series").fetchone()[0])

    def totals(self) -> tuple[int, int]:
        """Return readings of all series as counted, and bytes of the file."""
        with self._readers.connection() as connection:
            rows = connection.execute("SELECT coalesce(sum(accepted - superseded - erased), 0) FROM series").fetchone()
            return rows[0], used_bytes(connection)

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        with self._lock:
            self._readers.close()
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with transaction(self._connection, self._path):
                    yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: a write failed and was undone: {error}") from error


def _ledger(*fields: Any) -> Ledger:
    return replace(Ledger(*fields), newest_value=_from_sql(fields[-1]))


def _ledger_fields(ledger: Ledger) -> tuple[Any, ...]:
    return (
        ledger.series, ledger.kind, ledger.accepted, ledger.superseded, ledger.erased, ledger.late, ledger.rounded,
        ledger.erased_at, ledger.oldest_ms, ledger.newest_ns, _to_sql(ledger.newest_value),
    )  # fmt: skip


def _to_sql(value: Value | None) -> Any:
    return (TRUE if value else FALSE) if isinstance(value, bool) else value


def _from_sql(value: Any) -> Any:
    return value == TRUE if isinstance(value, bytes) else value
