"""The column store: history as compressed chunks of columns in one SQLite file; questions and their answers.

Owns: what each question needs of the file and of what is not sealed yet. Place: after `store.column_file`;
`store.embedded` answers the same from plain rows and is the oracle of the tests.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any

from hub.database import used_bytes
from hub.model import Frame
from hub.store.accumulator import MAX_ANSWER_BUCKETS, check_aggregate, check_buckets
from hub.store.base import UNKNOWN_REVISION, Bucket, Revision, Row, SeriesCounters, StoreAccount, StoreStatistics
from hub.store.block import Block
from hub.store.buckets import Buckets
from hub.store.chunk import Readings
from hub.store.column_file import MAX_PENDING_BYTES, ColumnFile
from hub.store.head import Waiting, newest, waiting
from hub.store.merge import FULL
from hub.store.rollup import NEEDED
from hub.store.rollup_table import add_dropped, day_of_sums, drop_border, dropped_in, keeps_all, raw_from
from hub.store.sealing import COLUMNS, ChunkRow, Parts, from_sql
from hub.store.walk import Walk

# Rows of a page of `dump`: about 2 MB in memory.
_DUMP_ROWS = 10_000
# Rows that a read takes from one series at a time at least; fewer decode the same chunk again and again.
_LEAST_ROWS = 64
_IDS = "(SELECT value FROM json_each(?1))"


class ColumnStore:
    """A `Store` in one file: one writer thread, any reader threads.

    Args:
        path: the file; made when absent, its directory must exist.
        max_bytes: the file may not grow beyond (then writes fail); None = the disk decides.
        max_buckets: of one answer of `aggregate`.
        max_pending_bytes: of readings that are not sealed yet, in the file and about as much in memory.
        chunk_readings: of a chunk, up to twice as many; fewer only in tests.
        clock: monotonic seconds; says what has waited long.
        trace: told each statement of the writer before it runs; for tests of kills between them.

    Raises:
        StoreError: the file cannot be opened, is damaged, holds plain rows, or is of a newer hub.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int | None = None,
        max_buckets: int = MAX_ANSWER_BUCKETS,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        chunk_readings: int = FULL,
        clock: Callable[[], float] = time.monotonic,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self._max_buckets = max_buckets
        self._file = ColumnFile(
            Path(path),
            clock=clock,
            max_bytes=max_bytes,
            max_pending_bytes=max_pending_bytes,
            chunk_readings=chunk_readings,
            trace=trace,
        )

    @property
    def applied(self) -> int:
        """The offset of the last frame that is stored."""
        return self._file.applied

    def write(self, frames: Sequence[Frame]) -> None:
        """Store the readings of frames behind ``applied`` in one transaction; see `Store.write`.

        Raises:
            DiskFailedError: nothing of this call or a later one is stored; the file must be renewed (`hub.renewal`).
            StoreError: try again later; what is stored already is skipped then.
        """
        self._file.write(frames)

    def seal(self) -> None:
        """Seal everything that is written, as a write does when a series' time has come."""
        self._file.seal()

    def sync(self) -> int:
        """Make all that was written durable with one fsync; return ``applied``."""
        return self._file.sync()

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``."""
        self._file.rewind(offset)

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading by event time of each series that has one."""

        found: dict[int, Row] = {}
        with self._file.snapshot() as (connection, blocks):
            parts = Parts(connection)
            for row in connection.execute(
                f"""SELECT {COLUMNS} FROM json_each(?1) s CROSS JOIN chunk c ON c.series = s.value
                AND c.t0 = (SELECT max(t0) FROM chunk WHERE series = s.value)""",  # noqa: S608
                (json.dumps(list(series)),),
            ).fetchall():
                chunk = ChunkRow(*row)
                value = parts.readings(chunk).values.tolist()[-1] if chunk.vlast is None else from_sql(chunk.vlast)
                found[chunk.series] = Row(chunk.series, chunk.t1, value)
        for number, (time_ns, unsealed) in newest(blocks, series).items():
            if number not in found or time_ns >= found[number].time_ns:
                found[number] = Row(number, time_ns, unsealed)
        return [found[number] for number in series if number in found]

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
        """Return rows of [start_ns, end_ns), at least ``limit`` if there are, up to a time border; see `Store.read`."""
        numbers = sorted(set(series))
        found: list[Row] = []
        with self._file.snapshot() as (connection, blocks):
            walk = Walk(connection, _unsealed(blocks, numbers, start_ns, end_ns))
            at_once = max(limit // max(len(numbers), 1) + 1, _LEAST_ROWS)
            sources = [
                walk.rows(number, start_ns, end_ns, at_once, descending=descending, received=received)
                for number in numbers
            ]
            if len(sources) == 1:
                # Its times differ: any of them is a border.
                return list(islice(sources[0], limit))
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
        numbers = sorted(set(series))
        found: list[Bucket] = []
        with self._file.snapshot() as (connection, blocks):
            dropped = dropped_in(connection, numbers, start_ns, step_ns, origin_ns, functions)
            asked = NEEDED if dropped else functions
            walk = Walk(connection, _unsealed(blocks, numbers, start_ns, end_ns))
            for number in numbers:
                buckets = Buckets(number, step_ns, asked, origin_ns=origin_ns)
                for run in walk.runs(number, start_ns, end_ns, is_enough=buckets.is_enough):
                    buckets.add_chunk(run) if isinstance(run, ChunkRow) else buckets.add_run(run)
                    check_buckets(len(found) + len(buckets), self._max_buckets)
                found += buckets.answer()
            if dropped:
                return add_dropped(
                    connection, found, dropped, start_ns, end_ns, step_ns, origin_ns, functions, self._max_buckets
                )
        found.sort(key=_by_start)
        return found

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series); readings written meanwhile may or may not be in it."""
        while page := self.read(series, start_ns, end_ns, max(_DUMP_ROWS, 4 * len(series)), received=received):
            yield page
            start_ns = page[-1].time_ns + 1

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading; ``rows`` are counted in chunks and heads."""
        return self.account(series).series

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series; see `Store.revisions`."""
        with self._file.snapshot() as (connection, blocks):
            # Rows are not counted: a series' chunks are thousands.
            known = {
                row[0]: SeriesCounters(row[0], row[1], row[2], 0, *row[3:])
                for row in connection.execute(
                    f"SELECT series, accepted, superseded, erased, late, expired FROM counter WHERE series IN {_IDS}",  # noqa: S608
                    (json.dumps(list(series)),),
                )
            }
            _add_waiting(known, connection, waiting(blocks, series))
        found = (known.get(number) for number in series)
        return [
            UNKNOWN_REVISION if c is None else (c.accepted, c.superseded, c.erased, c.late, c.expired) for c in found
        ]

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters and the position they are of, from one state."""
        numbers = sorted(set(series))
        with self._file.snapshot() as (connection, blocks):
            (applied,) = connection.execute("SELECT applied FROM progress").fetchone()
            known = {
                row[0]: SeriesCounters(*row)
                for row in connection.execute(
                    f"""SELECT series, accepted, superseded,
                    (SELECT coalesce(sum(n), 0) FROM chunk k WHERE k.series = c.series), erased, late, expired, merged
                    FROM counter c WHERE series IN {_IDS}""",  # noqa: S608
                    (json.dumps(numbers),),
                )
            }
            _add_waiting(known, connection, waiting(blocks, numbers))
        return StoreAccount(applied, [known[number] for number in numbers if number in known])

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading."""
        with self._file.snapshot() as (connection, blocks):
            (sealed,) = connection.execute("SELECT coalesce(max(series), 0) FROM counter").fetchone()
            return max([int(sealed), *(int(block.series[-1]) for block in blocks)])

    def erase(self, series: Sequence[int]) -> int:
        """Delete all readings of the series, in slices between which writes go on; return how many."""
        erased = sum(self._file.erase(number) for number in series)
        # Also when nothing was left: a kill may have come behind the last slice.
        self._file.wipe()
        return erased

    def drop_before(self, series: Sequence[int], before_ns: int) -> int:
        """Drop the oldest readings, a slice in one transaction with their sums; see `RetainingStore.drop_before`."""
        return self._file.drop(series, drop_border(before_ns))

    def drop_rollups_before(self, series: Sequence[int], before_ns: int) -> int:
        """Delete some of the sums that end before a time; see `RetainingStore.drop_rollups_before`."""
        return self._file.drop_rollups(series, before_ns)

    def give_back(self, keep_bytes: int) -> int:
        """Give free pages back to the disk; see `RetainingStore.give_back`."""
        return self._file.give_back(keep_bytes)

    def oldest(self, series: Sequence[int]) -> int | None:
        """Return the time of the oldest reading that may be dropped."""
        return min((first for first, last in self._file.spans(series).values() if first < last), default=None)

    def used_bytes(self) -> int:
        """Return the bytes of pages in use."""
        with self._file.snapshot() as (connection, _):
            return used_bytes(connection)

    @property
    def keeps_all(self) -> bool:
        """Whether an older hub made the file, which dropped nothing."""
        with self._file.snapshot() as (connection, _):
            return keeps_all(connection)

    def day_of_sums(self, series: Sequence[int], start_ns: int, end_ns: int, *, descending: bool = False) -> int | None:
        """Return a day that has sums; see `RetainingStore.day_of_sums`."""
        with self._file.snapshot() as (connection, _):
            return day_of_sums(connection, series, start_ns, end_ns, descending)

    def raw_from(self, series: Sequence[int]) -> dict[int, int]:
        """Return series → from when its readings are there, of those of which some were dropped."""
        with self._file.snapshot() as (connection, _):
            return raw_from(connection, series)

    def statistics(self) -> StoreStatistics:
        """Return the figures of now; ``bytes`` are the file's pages in use."""
        with self._file.snapshot() as (connection, blocks):
            applied, rows = connection.execute(
                "SELECT applied, (SELECT coalesce(sum(n), 0) FROM chunk) FROM progress"
            ).fetchone()
            unsealed = _unsealed(blocks)
            walk = Walk(connection, unsealed)
            return StoreStatistics(applied, rows + sum(map(walk.gained, unsealed)), used_bytes(connection))

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        self._file.close()


def _unsealed(blocks: Sequence[Block], *where: Any) -> dict[int, Readings]:
    return {number: one.readings for number, one in waiting(blocks, *where).items()}


def _add_waiting(
    known: dict[int, SeriesCounters], connection: sqlite3.Connection, unsealed: Mapping[int, Waiting]
) -> None:
    """Add to the ledger of series what sealing would."""
    walk = Walk(connection, {number: one.readings for number, one in unsealed.items()})
    for number, one in unsealed.items():
        base = known.get(number) or SeriesCounters(number, 0, 0, 0)
        accepted, gained = len(one.readings.times), walk.gained(number)
        known[number] = replace(
            base,
            accepted=base.accepted + accepted,
            superseded=base.superseded + accepted - gained,
            rows=base.rows + gained,
            late=base.late + one.late,
        )


def _by_time(row: Row) -> tuple[int, int]:
    return (row.time_ns, row.series)


def _by_start(bucket: Bucket) -> tuple[int, int]:
    return (bucket.start_ns, bucket.series)
