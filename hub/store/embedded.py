"""The embedded store in its first form: one plain row a reading, in one SQLite file.

Owns: the file ``readings.sqlite3``. Place: after `store.base`. Kept for ever as
the oracle of faster forms. Must not: know the journal, or wait for one.

Values keep their type exactly: INTEGER = int, REAL = float, TEXT = str, a BLOB
of one byte = bool; the column has no affinity, so 1.0 stays a float and -0.0
keeps its sign.

Durability. ``synchronous=NORMAL``: a commit survives a kill at once and a power
cut after the next `sync` or checkpoint. That is enough, because ``applied`` is
written in the transaction of the rows: after a power cut both fall back
together and the journal, which is durable, is read again from there. The
journal keeps every frame above what `sync` returned.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import Any

from device_sdk.reading import Value
from hub.database import NORMAL, ReadPool, insert_rows, is_disk_failure, open_database, roll_back, used_bytes
from hub.errors import BadRequestError, DiskFailedError, StoreError
from hub.model import Frame
from hub.renewal import mark_suspect
from hub.store.base import AGGREGATES, Bucket, Row, SeriesCounters, StoreStatistics

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE reading(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, value NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID;
CREATE TABLE counter(series INTEGER PRIMARY KEY, accepted INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0, erased INTEGER NOT NULL DEFAULT 0);
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL);
INSERT INTO progress VALUES (1, 0)
"""
# Rows of a page of `dump`: about 2 MB in memory.
_DUMP_ROWS = 10_000
# Buckets of one answer, over all series: about 400 B each in memory, and half a second of the hub's time to write out.
MAX_ANSWER_BUCKETS = 500_000
# Rows that a read takes from one series at a time at least; fewer make many small statements.
_LEAST_ROWS = 16
_ERASE_ROWS = 20_000

_FALSE, _TRUE = b"\x00", b"\x01"
_NUMBER = "CASE typeof(value) WHEN 'blob' THEN value = x'01' ELSE value END"
_IDS = "(SELECT value FROM json_each(?1))"
_EXPRESSIONS = {
    "avg": "avg(number)",
    "min": "min(number)",
    "max": "max(number)",
    "count": "count(*)",
    # sum() of ints fails beyond 64 bits.
    "sum": "total(number)",
    "first": "min(time_ns)",
    "last": "max(time_ns)",
}


class EmbeddedStore:
    """A `Store` in one file: one writer thread, any reader threads.

    Args:
        path: the file; made when absent, its directory must exist.
        max_bytes: the file may not grow beyond (then writes fail); None = the disk decides.
        max_buckets: of one answer of `aggregate`.

    Raises:
        StoreError: the file cannot be opened, is damaged or of a newer hub.
    """

    def __init__(
        self, path: str | Path, *, max_bytes: int | None = None, max_buckets: int = MAX_ANSWER_BUCKETS
    ) -> None:
        self._path = Path(path)
        self._max_buckets = max_buckets
        self._connection = open_database(
            self._path, _SCHEMA, SCHEMA_VERSION, synchronous=NORMAL, error=StoreError, max_bytes=max_bytes
        )
        self._readers = ReadPool(self._path)
        self._write_lock = threading.Lock()
        self._failed: DiskFailedError | None = None
        # Newest time of each series written since start: a later reading is certainly new and needs no look-up.
        self._newest: dict[int, int] = {}
        self.applied: int = self._connection.execute("SELECT applied FROM progress").fetchone()[0]

    def write(self, frames: Sequence[Frame]) -> None:
        """Store the readings of frames behind ``applied`` in one transaction; see `Store.write`.

        Raises:
            DiskFailedError: nothing of this call or a later one is stored; the file must be renewed (`hub.renewal`).
            StoreError: nothing of this call is stored; try again later.
        """
        with self._write_lock:
            self._check_usable()
            fresh = [frame for frame in frames if frame.offset > self.applied]
            if not fresh:
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                batch = _Batch(self._connection, self._newest)
                for frame in fresh:
                    batch.add(frame)
                batch.write()
                self._connection.execute("UPDATE progress SET applied = ?", (fresh[-1].offset,))
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise self._failure("a write failed and was undone", error) from error
            except Exception:
                self._roll_back()
                raise
            self._newest.update(batch.newest)
            self.applied = fresh[-1].offset

    def sync(self) -> int:
        """Make all that was written durable with one fsync; return ``applied``."""
        with self._write_lock:
            self._check_usable()
            try:
                # One commit with FULL fsyncs the whole write-ahead log, earlier commits included.
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute("BEGIN IMMEDIATE")
                # Written twice, for SQLite leaves a page alone that would not change, and then fsyncs nothing.
                self._connection.execute("UPDATE progress SET applied = -1")
                self._connection.execute("UPDATE progress SET applied = ?", (self.applied,))
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise self._failure("cannot make it durable", error) from error
            finally:
                self._connection.execute("PRAGMA synchronous=NORMAL")
            return self.applied

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``."""
        with self._write_lock:
            self._connection.execute("UPDATE progress SET applied = ?", (offset,))
            self.applied = offset

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading by event time of each series that has one."""
        with self._readers.connection() as connection:
            rows = connection.execute(
                """SELECT r.series, r.time_ns, r.value FROM json_each(?1) s CROSS JOIN reading r ON r.series = s.value
                AND r.time_ns = (SELECT max(time_ns) FROM reading WHERE series = s.value)""",
                (json.dumps(list(series)),),
            )
            return list(_rows(rows))

    def read(
        self, series: Sequence[int], start_ns: int, end_ns: int, limit: int, *, descending: bool = False
    ) -> list[Row]:
        """Return rows of [start_ns, end_ns), at least ``limit`` if there are, up to a time border; see `Store.read`.

        Merges the series' own orders and takes from each only what is needed, so a page of a long range costs
        what the page holds.
        """
        found: list[Row] = []
        with self._readers.connection() as connection:
            at_once = max(limit // max(len(series), 1) + 1, _LEAST_ROWS)
            sources = [_walk(connection, s, start_ns, end_ns, at_once, descending) for s in sorted(set(series))]
            for row in merge(*sources, key=_by_time, reverse=descending):
                if len(found) >= limit and row.time_ns != found[-1].time_ns:
                    break
                found.append(row)
        return found

    def aggregate(
        self, series: Sequence[int], start_ns: int, end_ns: int, step_ns: int, functions: Sequence[str]
    ) -> list[Bucket]:
        """Return buckets by (start, series); see `Store.aggregate`."""
        unknown = [f for f in functions if f not in AGGREGATES]
        if unknown or not functions or step_ns < 1:
            raise BadRequestError(
                f"aggregates {list(functions)} by {step_ns} ns: use {', '.join(AGGREGATES)}, from 1 ns"
            )
        columns = ", ".join(f"{_EXPRESSIONS[f]} AS c{i}" for i, f in enumerate(functions))
        answers = ", ".join(_value_at(f"c{i}") if f in ("first", "last") else f"c{i}" for i, f in enumerate(functions))
        # SQLite divides towards zero; before 1970 the quotient is one less.
        statement = f"""
            SELECT series, bucket * ?4, {answers} FROM (
                SELECT series, time_ns / ?4 - (time_ns % ?4 < 0) AS bucket, {columns} FROM (
                    SELECT series, time_ns, {_NUMBER} AS number FROM reading
                    WHERE series IN {_IDS} AND time_ns >= ?2 AND time_ns < ?3 AND typeof(value) <> 'text')
                GROUP BY series, bucket) AS b
            ORDER BY bucket, series LIMIT ?5"""  # noqa: S608
        values = (json.dumps(list(series)), start_ns, end_ns, step_ns, self._max_buckets + 1)
        with self._readers.connection() as connection:
            buckets = [Bucket(row[0], row[1], row[2:]) for row in connection.execute(statement, values)]
        if len(buckets) > self._max_buckets:
            raise BadRequestError(
                f"more than {self._max_buckets} buckets: use a larger bucket, a shorter range or fewer series"
            )
        return buckets

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series); readings written meanwhile may or may not be in it."""
        while page := self.read(series, start_ns, end_ns, max(_DUMP_ROWS, 4 * len(series))):
            yield page
            start_ns = page[-1].time_ns + 1

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading; ``rows`` are counted in the table."""
        with self._readers.connection() as connection:
            rows = connection.execute(
                f"""SELECT series, accepted, superseded,
                (SELECT count(*) FROM reading r WHERE r.series = c.series), erased
                FROM counter c WHERE series IN {_IDS} ORDER BY series""",  # noqa: S608
                (json.dumps(list(series)),),
            )
            return [SeriesCounters(*row) for row in rows]

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading."""
        with self._readers.connection() as connection:
            return int(connection.execute("SELECT coalesce(max(series), 0) FROM counter").fetchone()[0])

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series, in slices between which writes go on; return how many."""
        erased = 0
        for number in series:
            while rows := self._erase_slice(number):
                erased += rows
        return erased

    def statistics(self) -> StoreStatistics:
        """Return the figures of now; ``bytes`` are the file's pages in use."""
        with self._readers.connection() as connection:
            rows = connection.execute("SELECT coalesce(sum(accepted - superseded - erased), 0) FROM counter").fetchone()
            return StoreStatistics(self.applied, rows[0], used_bytes(connection))

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        with self._write_lock:
            self._readers.close()
            self._connection.close()

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _failure(self, what: str, error: sqlite3.Error) -> StoreError:
        """Return what the caller shall raise; after a failed fsync another one may lie, so nothing more is written."""
        if not is_disk_failure(error):
            return StoreError(f"{self._path}: {what}: {error}")
        mark_suspect(self._path)
        self._failed = DiskFailedError(f"{self._path}: {what}: {error}; start the hub again")
        return self._failed

    def _erase_slice(self, series: int) -> int:
        with self._write_lock:
            self._check_usable()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                deleted = self._connection.execute(
                    """DELETE FROM reading WHERE series = ?1 AND time_ns <= (SELECT max(time_ns) FROM
                    (SELECT time_ns FROM reading WHERE series = ?1 ORDER BY time_ns LIMIT ?2))""",
                    (series, _ERASE_ROWS),
                ).rowcount
                self._connection.execute("UPDATE counter SET erased = erased + ? WHERE series = ?", (deleted, series))
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise self._failure("cannot erase", error) from error
            self._newest.pop(series, None)
            return deleted

    def _roll_back(self) -> None:
        try:
            roll_back(self._connection)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: a rollback failed: {error}") from error


class _Batch:
    """The readings of one `write`, sorted into those that are certainly new and those to look up.

    A reading later than all of its series is new: it is inserted without a look-up. The others ("late") may
    supersede a stored one, or one of this batch that came before them; so they are written after the new ones,
    and among themselves the last wins.
    """

    def __init__(self, connection: sqlite3.Connection, newest: dict[int, int]) -> None:
        self.newest: dict[int, int] = {}
        self._connection = connection
        self._known_newest = newest
        self._new: dict[int, tuple[list[int], list[Any]]] = {}
        self._late: dict[tuple[int, int], Any] = {}
        self._accepted: dict[int, int] = {}
        self._superseded: dict[int, int] = {}

    def add(self, frame: Frame) -> None:
        """Take the readings of the next frame."""
        t0, tick = frame.t0, frame.tick
        for series_column in frame.columns:
            series, column = series_column.series.id, series_column.column
            times = [t0 + dt * tick for dt in column.dt]
            values = _to_sql(column.values)
            self._accepted[series] = self._accepted.get(series, 0) + len(times)
            newest = self._newest_of(series)
            if (newest is None or times[0] > newest) and _ascends(times):
                kept = self._new.setdefault(series, ([], []))
                kept[0].extend(times)
                kept[1].extend(values)
                self.newest[series] = times[-1]
            else:
                self._add_late(series, times, values)

    def write(self) -> None:
        """Write everything inside the open transaction; by series, so that neighbours in the file come together."""
        flat: list[Any] = []
        for series in sorted(self._new):
            times, values = self._new[series]
            flat += chain.from_iterable(zip([series] * len(times), times, values, strict=True))
        insert_rows(self._connection, "INSERT INTO reading", 3, flat)
        if self._late:
            self._write_late()
        counts: list[int] = []
        for series, accepted in self._accepted.items():
            counts += (series, accepted, self._superseded.get(series, 0))
        insert_rows(
            self._connection, "INSERT INTO counter(series, accepted, superseded)", 3, counts,
            """ON CONFLICT DO UPDATE SET accepted = accepted + excluded.accepted,
            superseded = superseded + excluded.superseded""",
        )  # fmt: skip

    def _add_late(self, series: int, times: list[int], values: Sequence[Any]) -> None:
        for time_ns, value in zip(times, values, strict=True):
            key = (series, time_ns)
            if key in self._late:
                self._superseded[series] = self._superseded.get(series, 0) + 1
            self._late[key] = value
        newest = self._newest_of(series)
        self.newest[series] = max(times) if newest is None else max(newest, max(times))

    def _write_late(self) -> None:
        keys = list(chain.from_iterable(sorted(self._late)))
        found = insert_rows(
            self._connection, "WITH k(series, time_ns) AS (", 2, keys,
            """) SELECT r.series, count(*) FROM k CROSS JOIN reading r ON r.series = k.series AND r.time_ns = k.time_ns
            GROUP BY r.series""",
        )  # fmt: skip
        for series, count in found:
            self._superseded[series] = self._superseded.get(series, 0) + count
        flat = [field for key in sorted(self._late) for field in (*key, self._late[key])]
        insert_rows(
            self._connection, "INSERT INTO reading", 3, flat, "ON CONFLICT DO UPDATE SET value = excluded.value"
        )

    def _newest_of(self, series: int) -> int | None:
        newest = self.newest.get(series)
        if newest is None:
            newest = self._known_newest.get(series)
        if newest is None:
            found: int | None = self._connection.execute(
                "SELECT max(time_ns) FROM reading WHERE series = ?", (series,)
            ).fetchone()[0]
            if found is not None:
                newest = self.newest[series] = found
        return newest


def _ascends(times: list[int]) -> bool:
    return all(map(int.__lt__, times, times[1:]))


def _to_sql(values: Sequence[Value]) -> Sequence[Any]:
    if bool not in set(map(type, values)):
        return values
    return [(_TRUE if v else _FALSE) if isinstance(v, bool) else v for v in values]


def _walk(
    connection: sqlite3.Connection, series: int, start_ns: int, end_ns: int, at_once: int, descending: bool
) -> Iterator[Row]:
    """Yield the rows of one series in order, ``at_once`` by a statement, so that no cursor stays open."""
    order = "DESC" if descending else "ASC"
    statement = f"""SELECT series, time_ns, value FROM reading
        WHERE series = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns {order} LIMIT ?"""  # noqa: S608
    while True:
        rows = connection.execute(statement, (series, start_ns, end_ns, at_once)).fetchall()
        yield from _rows(rows)
        if len(rows) < at_once:
            return
        if descending:
            end_ns = rows[-1][1]
        else:
            start_ns = rows[-1][1] + 1


def _by_time(row: Row) -> tuple[int, int]:
    return (row.time_ns, row.series)


def _rows(rows: Sequence[tuple[int, int, Any]] | sqlite3.Cursor) -> Iterator[Row]:
    for series, time_ns, value in rows:
        yield Row(series, time_ns, value == _TRUE if type(value) is bytes else value)


def _value_at(column: str) -> str:
    return f"(SELECT {_NUMBER} FROM reading r WHERE r.series = b.series AND r.time_ns = b.{column})"  # noqa: S608
