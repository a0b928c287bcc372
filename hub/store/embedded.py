"""The embedded store in its first form: one plain row a reading, in one SQLite file.

Owns: the file ``readings.sqlite3``. Place: after `store.base`. Kept for ever as
the oracle of faster forms. Must not: know the journal, or wait for one.

Values keep their type exactly: INTEGER = int, REAL = float, TEXT = str, a BLOB
of one byte = bool; the column has no affinity, so 1.0 stays a float and -0.0
keeps its sign.

When readings were received: a ``receipt`` holds for the readings of its series from its time on, up to the next
one; an ``older_receipt`` for one reading that came out of order. Rows before the first are older than schema 2.

Durability. ``synchronous=NORMAL``: a commit survives a kill at once and a power
cut after the next `sync` or checkpoint. That is enough, because ``applied`` is
written in the transaction of the rows: after a power cut both fall back
together and the journal, which is durable, is read again from there. The
journal keeps every frame above what `sync` returned.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from pathlib import Path
from typing import Any

from hub.database import NORMAL, ReadPool, give_back, is_disk_failure, open_database, roll_back, used_bytes, wipe_beside
from hub.errors import DiskFailedError, StoreError
from hub.model import Frame
from hub.renewal import mark_suspect
from hub.store.accumulator import MAX_ANSWER_BUCKETS, aggregate_rows, check_aggregate, check_buckets
from hub.store.base import UNKNOWN_REVISION, Bucket, Revision, Row, SeriesCounters, StoreAccount, StoreStatistics
from hub.store.batch import Batch, plain_value
from hub.store.rollup import NEEDED
from hub.store.rollup_table import (
    COUNTER_COLUMNS,
    DROPPED_AT_ONCE,
    KEEPS_ALL,
    UPGRADE,
    add_dropped,
    day_of_sums,
    delete_blocks,
    delete_old_blocks,
    drop_border,
    dropped_in,
    keeps_all,
    raw_from,
)
from hub.store.rollup_table import SCHEMA as ROLLUPS
from hub.store.row_removal import drop_oldest, droppable, erase_oldest, oldest

SCHEMA_VERSION = 3
_RECEIPTS = """
CREATE TABLE receipt(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID;
CREATE TABLE older_receipt(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID
"""
_SCHEMA = f"""
CREATE TABLE reading(series INTEGER NOT NULL, time_ns INTEGER NOT NULL, value NOT NULL,
    PRIMARY KEY(series, time_ns)) WITHOUT ROWID;
CREATE TABLE counter(series INTEGER PRIMARY KEY, accepted INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0, erased INTEGER NOT NULL DEFAULT 0, late INTEGER NOT NULL DEFAULT 0,
    {COUNTER_COLUMNS});
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL, {KEEPS_ALL});
INSERT INTO progress(id, applied) VALUES (1, 0);
{_RECEIPTS};
{ROLLUPS}
"""  # noqa: S608
_UPGRADES = {1: f"ALTER TABLE counter ADD COLUMN late INTEGER NOT NULL DEFAULT 0; {_RECEIPTS}", 2: UPGRADE}
_RECEIVED = """coalesce(
    (SELECT o.received_ns FROM older_receipt o WHERE o.series = reading.series AND o.time_ns = reading.time_ns),
    (SELECT p.received_ns FROM receipt p WHERE p.series = reading.series AND p.time_ns <= reading.time_ns
        ORDER BY p.time_ns DESC LIMIT 1))"""
# Rows of a page of `dump`: about 2 MB in memory.
_DUMP_ROWS = 10_000
# Rows that a read takes from one series at a time at least; fewer make many small statements.
_LEAST_ROWS = 16

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
    "first_ns": "min(time_ns)",
    "last_ns": "max(time_ns)",
}


class EmbeddedStore:
    """A `Store` in one file: one writer thread, any reader threads.

    Args:
        path: the file; made when absent, its directory must exist.
        max_bytes: the file may not grow beyond (then writes fail); None = the disk decides.
        max_buckets: of one answer of `aggregate`.
        trace: told each statement of the writer before it runs; for tests of kills between them.

    Raises:
        StoreError: the file cannot be opened, is damaged or of a newer hub.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int | None = None,
        max_buckets: int = MAX_ANSWER_BUCKETS,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._max_buckets = max_buckets
        self._connection = open_database(
            self.path, _SCHEMA, SCHEMA_VERSION, synchronous=NORMAL, error=StoreError, max_bytes=max_bytes,
            upgrades=_UPGRADES,
        )  # fmt: skip
        self._connection.set_trace_callback(trace)
        self._readers = ReadPool(self.path)
        self._write_lock = threading.Lock()
        self._failed: DiskFailedError | None = None
        # Newest time of each series written since start: a later reading is certainly new and needs no look-up.
        self._newest: dict[int, int] = {}
        # Receive time of the newest receipt of each series written since start.
        self._opened: dict[int, int] = {}
        # From when readings of a series are there, of which some were dropped.
        self._raw_from = raw_from(self._connection)
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
            with self._transaction("a write failed and was undone"):
                batch = Batch(self._connection, self._newest, self._opened, self._raw_from)
                for frame in fresh:
                    batch.add(frame)
                batch.write()
                self._connection.execute("UPDATE progress SET applied = ?", (fresh[-1].offset,))
            self._newest.update(batch.newest)
            self._opened.update(batch.opened)
            self.applied = fresh[-1].offset

    def sync(self) -> int:
        """Make all that was written durable with one fsync; return ``applied``."""
        with self._write_lock:
            self._check_usable()
            try:
                # One commit with FULL fsyncs the whole write-ahead log, earlier commits included.
                self._connection.execute("PRAGMA synchronous=FULL")
                with self._transaction("cannot make it durable"):
                    # Written twice, for SQLite leaves a page alone that would not change, and then fsyncs nothing.
                    self._connection.execute("UPDATE progress SET applied = -1")
                    self._connection.execute("UPDATE progress SET applied = ?", (self.applied,))
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
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool = False,
        received: bool = False,
    ) -> list[Row]:
        """Return rows of [start_ns, end_ns), at least ``limit`` if there are, up to a time border; see `Store.read`.

        Merges the series' own orders and takes from each only what is needed, so a page of a long range costs
        what the page holds.
        """
        found: list[Row] = []
        with self._readers.connection() as connection:
            at_once = max(limit // max(len(series), 1) + 1, _LEAST_ROWS)
            walk = _Walk(connection, start_ns, end_ns, at_once, descending, received)
            sources = [walk.rows(s) for s in sorted(set(series))]
            for row in merge(*sources, key=_by_time, reverse=descending):
                if len(found) >= limit and row.time_ns != found[-1].time_ns:
                    break
                found.append(row)
        return found

    def aggregate(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        step_ns: int,
        functions: Sequence[str],
        *,
        origin_ns: int = 0,
    ) -> list[Bucket]:
        """Return buckets by (start, series); see `Store.aggregate`."""
        check_aggregate(functions, step_ns)
        if not _EXPRESSIONS.keys() >= set(functions):
            return self._aggregate_rows(series, start_ns, end_ns, step_ns, functions, origin_ns)
        with self._readers.connection() as connection:
            dropped = dropped_in(connection, series, start_ns, step_ns, origin_ns, functions)
            asked = NEEDED if dropped else functions
            found = self._raw_buckets(connection, series, start_ns, end_ns, step_ns, asked, origin_ns)
            if not dropped:
                return found
            return add_dropped(
                connection, found, dropped, start_ns, end_ns, step_ns, origin_ns, functions, self._max_buckets
            )

    def _aggregate_rows(
        self, series: Sequence[int], start_ns: int, end_ns: int, step_ns: int, functions: Sequence[str], origin_ns: int
    ) -> list[Bucket]:
        def check() -> None:
            with self._readers.connection() as connection:
                dropped_in(connection, series, start_ns, step_ns, origin_ns, functions)

        check()
        found = aggregate_rows(
            self, series, start_ns, end_ns, step_ns, functions, origin_ns=origin_ns, max_buckets=self._max_buckets,
            is_one_by_one=True,
        )  # fmt: skip
        # Each page is of its own state: what was dropped meanwhile is missing.
        check()
        return found

    def _raw_buckets(
        self, connection: sqlite3.Connection, series: Sequence[int], start_ns: int, end_ns: int, step_ns: int,
        functions: Sequence[str], origin_ns: int,
    ) -> list[Bucket]:  # fmt: skip
        columns = ", ".join(f"{_EXPRESSIONS[f]} AS c{i}" for i, f in enumerate(functions))
        answers = ", ".join(_value_at(f"c{i}") if f in ("first", "last") else f"c{i}" for i, f in enumerate(functions))
        # SQLite divides towards zero; before 1970 the quotient is one less. The origin is not taken off the time, for
        # the difference may be beyond 64 bits.
        shift_ns = origin_ns % step_ns
        quotient = "time_ns / ?4 - (time_ns % ?4 < 0)"
        bucket = f"{quotient} - (time_ns % ?4 + iif(time_ns % ?4 < 0, ?4, 0) < {shift_ns})" if shift_ns else quotient
        statement = f"""
            SELECT series, bucket, {answers} FROM (
                SELECT series, {bucket} AS bucket, {columns} FROM (
                    SELECT series, time_ns, {_NUMBER} AS number FROM reading
                    WHERE series IN {_IDS} AND time_ns >= ?2 AND time_ns < ?3 AND typeof(value) <> 'text')
                GROUP BY series, bucket) AS b
            ORDER BY bucket, series LIMIT ?5"""  # noqa: S608
        values = (json.dumps(list(series)), start_ns, end_ns, step_ns, self._max_buckets + 1)
        found = connection.execute(statement, values).fetchall()
        check_buckets(len(found), self._max_buckets)
        return [Bucket(row[0], shift_ns + row[1] * step_ns, row[2:]) for row in found]

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series); readings written meanwhile may or may not be in it."""
        while page := self.read(series, start_ns, end_ns, max(_DUMP_ROWS, 4 * len(series)), received=received):
            yield page
            start_ns = page[-1].time_ns + 1

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading; ``rows`` are counted in the table."""
        return self.account(series).series

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series; see `Store.revisions`."""
        with self._readers.connection() as connection:
            rows = connection.execute(
                f"SELECT series, accepted, superseded, erased, late, expired FROM counter WHERE series IN {_IDS}",  # noqa: S608
                (json.dumps(list(series)),),
            )
            known = {number: (a, s, e, late, expired) for number, a, s, e, late, expired in rows}
        return [known.get(number, UNKNOWN_REVISION) for number in series]

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters and the position they are of, from one state of the file."""
        with self._readers.connection() as connection:
            applied = connection.execute("SELECT applied FROM progress").fetchone()[0]
            rows = connection.execute(
                f"""SELECT series, accepted, superseded,
                (SELECT count(*) FROM reading r WHERE r.series = c.series), erased, late, expired, merged
                FROM counter c WHERE series IN {_IDS} ORDER BY series""",  # noqa: S608
                (json.dumps(list(series)),),
            )
            return StoreAccount(applied, [SeriesCounters(*row) for row in rows])

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading."""
        with self._readers.connection() as connection:
            return int(connection.execute("SELECT coalesce(max(series), 0) FROM counter").fetchone()[0])

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series, in slices between which writes go on; return how many."""
        erased = 0
        for number in series:
            while (rows := self._erase_slice(number)) is not None:
                erased += rows
        # Also when nothing was left: a kill may have come behind the last slice.
        self._wipe()
        return erased

    def drop_before(self, series: Sequence[int], before_ns: int) -> int:
        """Drop the oldest readings, a slice in one transaction with their sums; see `RetainingStore.drop_before`."""
        border_ns = drop_border(before_ns)
        with self._readers.connection() as connection:
            due = droppable(connection, series, border_ns)
        if not due:
            return 0
        with self._write_lock:
            dropped, left = 0, DROPPED_AT_ONCE
            with self._transaction("cannot drop readings"):
                for number in due:
                    count, cost = drop_oldest(self._connection, number, border_ns, left)
                    dropped, left = dropped + count, left - cost
                    if left <= 0:
                        break
                found = raw_from(self._connection, due)
            self._raw_from.update(found)
        return dropped

    def drop_rollups_before(self, series: Sequence[int], before_ns: int) -> int:
        """Delete some of the sums that end before a time; see `RetainingStore.drop_rollups_before`."""
        with self._write_lock, self._transaction("cannot drop sums"):
            return delete_old_blocks(self._connection, series, before_ns)

    def give_back(self, keep_bytes: int) -> int:
        """Give free pages back to the disk; see `RetainingStore.give_back`."""
        with self._write_lock:
            self._check_usable()
            try:
                return give_back(self._connection, keep_bytes)
            except sqlite3.Error as error:
                raise self._failure("cannot give back space", error) from error

    def seal(self) -> None:
        """Nothing waits: a reading is a row at once."""

    def oldest(self, series: Sequence[int]) -> int | None:
        """Return the time of the oldest reading that may be dropped."""
        with self._readers.connection() as connection:
            return oldest(connection, series)

    def used_bytes(self) -> int:
        """Return the bytes of pages in use."""
        with self._readers.connection() as connection:
            return used_bytes(connection)

    @property
    def keeps_all(self) -> bool:
        """Whether an older hub made the file, which dropped nothing."""
        with self._readers.connection() as connection:
            return keeps_all(connection)

    def day_of_sums(self, series: Sequence[int], start_ns: int, end_ns: int, *, descending: bool = False) -> int | None:
        """Return a day that has sums; see `RetainingStore.day_of_sums`."""
        with self._readers.connection() as connection:
            return day_of_sums(connection, series, start_ns, end_ns, descending)

    def raw_from(self, series: Sequence[int]) -> dict[int, int]:
        """Return series → from when its readings are there, of those of which some were dropped."""
        with self._readers.connection() as connection:
            return raw_from(connection, series)

    def statistics(self) -> StoreStatistics:
        """Return the figures of now; ``bytes`` are the file's pages in use."""
        with self._readers.connection() as connection:
            rows = connection.execute(
                "SELECT coalesce(sum(accepted - superseded - erased - expired), 0) FROM counter"
            ).fetchone()
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
            return StoreError(f"{self.path}: {what}: {error}")
        mark_suspect(self.path)
        self._failed = DiskFailedError(f"{self.path}: {what}: {error}; start the hub again")
        return self._failed

    def _wipe(self) -> None:
        while self.give_back(0):
            pass
        try:
            is_done = wipe_beside(self._connection, self._write_lock)
        except sqlite3.Error as error:
            raise self._failure("cannot take out what was erased", error) from error
        if not is_done:
            raise StoreError(f"{self.path}: something reads the log, which still says what was erased: erase it again")

    def _erase_slice(self, series: int) -> int | None:
        """Erase some sums or some rows; return how many rows, None when there was neither."""
        with self._write_lock:
            with self._transaction("cannot erase"):
                # Rows go only where no sums are: a drop between two slices makes new ones.
                blocks = delete_blocks(self._connection, series)
                rows = 0 if blocks else erase_oldest(self._connection, series)
            if not blocks:
                for known in (self._raw_from, self._newest, self._opened):
                    known.pop(series, None)
            return rows if rows or blocks else None

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """Run a block in one transaction; the caller holds the lock."""
        self._check_usable()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._failure(what, error) from error
        except Exception:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            roll_back(self._connection)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: a rollback failed: {error}") from error


class _Walk:
    """Yields rows of one series in order, ``at_once`` by a statement, so that no cursor stays open."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        start_ns: int,
        end_ns: int,
        at_once: int,
        descending: bool,
        received: bool,
    ) -> None:
        self._connection = connection
        self._range = (start_ns, end_ns)
        self._at_once = at_once
        self._descending = descending
        columns = f"series, time_ns, value, {_RECEIVED}" if received else "series, time_ns, value"
        self._statement = f"""SELECT {columns} FROM reading
            WHERE series = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns {"DESC" if descending else "ASC"}
            LIMIT ?"""  # noqa: S608

    def rows(self, series: int) -> Iterator[Row]:
        start_ns, end_ns = self._range
        while True:
            rows = self._connection.execute(self._statement, (series, start_ns, end_ns, self._at_once)).fetchall()
            yield from _rows(rows)
            if len(rows) < self._at_once:
                return
            start_ns, end_ns = (start_ns, rows[-1][1]) if self._descending else (rows[-1][1] + 1, end_ns)


def _by_time(row: Row) -> tuple[int, int]:
    return (row.time_ns, row.series)


def _rows(rows: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    for series, time_ns, value, *received_ns in rows:
        yield Row(series, time_ns, plain_value(value), *received_ns)


def _value_at(column: str) -> str:
    return f"(SELECT {_NUMBER} FROM reading r WHERE r.series = b.series AND r.time_ns = b.{column})"  # noqa: S608
