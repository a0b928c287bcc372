"""A store whose readings are on another server: written from the journal, asked over the network.

Owns: what every such store does alike; an `Engine` is one server's way of being written to and asked. Place: after
`store.sidecar`. Must not: wait for a server longer than its time-out, or give up: what fails is tried again by
`store.consumer`, for ever, and the journal keeps it meanwhile.

Theory of operation. A write sends the lines of some frames in one request and then notes the new position in the
sidecar. The same frames again overwrite themselves. A line that the server refuses is found by halving the request; it
is kept in the sidecar with what the server said, and the others are stored. Newest values are in the sidecar, so a hub
starts while its server is away; history then answers an error that says so. Rows are counted between writes: while one
is being repeated, the server may hold what the ledger does not know yet, and an account is an error.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Protocol

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import LATE_TOLERANCE_NS, Frame, Series
from hub.store.accumulator import MAX_ANSWER_BUCKETS, aggregate_rows, check_aggregate, check_buckets
from hub.store.base import (
    AGGREGATES,
    UNKNOWN_REVISION,
    Bucket,
    Refused,
    Revision,
    Row,
    SeriesCounters,
    StoreAccount,
    StoreStatistics,
)
from hub.store.line_protocol import FLOAT, SeriesName, body, kind_of, line, prefix_of
from hub.store.sidecar import Entry, Sidecar

_log = logging.getLogger("hub.store.remote")

# Rows of a page of `dump`: about 2 MB in memory.
_DUMP_ROWS = 10_000
# Rows that a read takes from one series at a time at least: a request costs as much as some hundred rows.
_LEAST_ROWS = 256
# Unless this is more for all series together, 25 MB: then it begins with fewer of each.
_MOST_ROWS = 100_000
# Late readings so far apart are looked up apart, or one of last year would fetch the year.
_APART_NS = 3600 * 10**9
# 73 years. Longer windows of InfluxDB 1.6 overflow 64 bits and come back cut in two or under another start.
_LONGEST_STEP_NS = 2**61

Rows = list[tuple[int, Value]]
# (Series, time) and value.
_Item = tuple[tuple[int, int], Value]


class RefusedLinesError(StoreError):
    """The server refused a request for what is in it: some of its lines may be stored.

    ``dropped``: how many of them it did not store; None: it does not say.
    """

    reason = "refused_lines"

    def __init__(self, message: str, dropped: int | None = None) -> None:
        super().__init__(message)
        self.dropped = dropped


class Engine(Protocol):
    """One server. Blocking; a write from one thread, questions from any. Raises `StoreError` when it cannot be had."""

    def write(self, lines: bytes) -> None:
        """Store lines, durably as the server sees it; raise `RefusedLinesError` for what is in them."""

    def read(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, limit: int, *, descending: bool = False
    ) -> list[Rows]:
        """Return of each series its first ``limit`` rows of [start_ns, end_ns), in order."""

    def buckets(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, step_ns: int, origin_ns: int,
        functions: Sequence[str],
    ) -> list[list[tuple[int, tuple[float | int, ...]]]]:  # fmt: skip
        """Return of each series, which has floats alone, its non-empty buckets: start and values."""

    def count(self, names: Sequence[SeriesName]) -> list[int]:
        """Return how many rows each series has."""

    def delete(self, name: SeriesName) -> None:
        """Delete a series."""

    def durable(self, offset: int) -> int:
        """Return up to which offset, at most ``offset``, what was written would survive the server's death now."""

    def close(self) -> None:
        """Let go of connections."""


class RemoteStore:
    """A `Store` on an engine.

    Args:
        engine: the server.
        sidecar: position and ledger; closed with the store.
        max_buckets: of one answer of `aggregate`.
    """

    def __init__(self, engine: Engine, sidecar: Sidecar, *, max_buckets: int = MAX_ANSWER_BUCKETS) -> None:
        self._engine = engine
        self._sidecar = sidecar
        self._max_buckets = max_buckets
        self._prefixes: dict[int, str] = {}
        # Held by whoever changes the server's rows or compares them with the ledger.
        self._lock = threading.Lock()
        self._is_torn = False

    @property
    def applied(self) -> int:
        """The offset of the last frame that is stored."""
        return self._sidecar.applied

    def write(self, frames: Sequence[Frame]) -> None:
        """Store the readings of frames behind ``applied``; see `Store.write`.

        Raises:
            StoreError: the server did not take them; the same call again is right.
        """
        with self._lock:
            self._end_erasures()
            fresh = [frame for frame in frames if frame.offset > self.applied]
            if not fresh:
                return
            batch = _Batch(self._sidecar)
            for frame in fresh:
                batch.add(frame)
            upto = fresh[-1].offset
            self._look_up(batch, upto)
            self._is_torn = True
            refused: list[Refused] = []
            items = list(batch.values.items())
            while items:
                again = self._send(items, [line(self._prefix(batch.changed[k[0]]), k[1], value) for k, value in items])
                items = batch.refuse(again)
                refused += again
            written = batch.written() if self._sidecar.notes_beyond(upto) else {}
            self._sidecar.apply(upto, batch.changed, refused, written)
            self._is_torn = False
        for one in refused[:1]:
            _log.error(
                "readings refused count=%d the first: series=%d time=%d reason=%s",
                len(refused), one.series, one.time_ns, one.reason,
            )  # fmt: skip

    def sync(self) -> int:
        """Return the offset up to which everything is durable here and on the server."""
        return self._engine.durable(self._sidecar.sync())

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``."""
        with self._lock:
            self._sidecar.rewind(offset)

    def refusals(self) -> list[Refused]:
        """Return the newest readings that the server refused, the last first."""
        return self._sidecar.refusals()

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading by event time of each series that has one; asks no server."""
        entries = self._sidecar.entries
        found = (entries.get(number) for number in series)
        return [Row(e.id, e.newest_ns, e.newest) for e in found if e is not None and e.newest_ns is not None]

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

        When they were received is not kept.
        """
        entries = self._named(series) if start_ns < end_ns else []
        count = max(len(entries), 1)
        at_once = max(limit // count + 1, min(_LEAST_ROWS, _MOST_ROWS // count))
        first = self._engine.read([e.name for e in entries], start_ns, end_ns, at_once, descending=descending)
        sources = [
            self._walk(entry, rows, start_ns, end_ns, at_once, descending)
            for entry, rows in zip(entries, first, strict=True)
        ]
        if len(sources) == 1:
            return list(islice(sources[0], limit))
        found: list[Row] = []
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
        """Return buckets by (start, series): by the server where it says the same as we do, from pages of rows else."""
        check_aggregate(functions, step_ns)
        entries = self._named(series) if start_ns < end_ns else []
        is_ours = step_ns > _LONGEST_STEP_NS or not set(functions).issubset(AGGREGATES)
        if is_ours or any(entry.kinds != 1 << FLOAT for entry in entries):
            return aggregate_rows(
                self, [entry.id for entry in entries], start_ns, end_ns, step_ns, functions, origin_ns=origin_ns,
                max_buckets=self._max_buckets,
            )  # fmt: skip
        answers = self._engine.buckets(
            [entry.name for entry in entries], start_ns, end_ns, step_ns, origin_ns, functions
        )
        check_buckets(sum(map(len, answers)), self._max_buckets)
        found = [
            Bucket(entry.id, begin, values)
            for entry, of_series in zip(entries, answers, strict=True)
            for begin, values in of_series
        ]
        found.sort(key=_by_start)
        return found

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series); readings written meanwhile may or may not be in it."""
        while page := self.read(series, start_ns, end_ns, max(_DUMP_ROWS, 4 * len(series)), received=received):
            yield page
            start_ns = page[-1].time_ns + 1

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading; ``rows`` are counted on the server."""
        return self.account(series).series

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters and the position they are of; waits for the write at hand.

        Raises:
            StoreError: the server does not answer, or a write that was cut off must be repeated first.
        """
        with self._lock:
            self._check_whole()
            applied, entries = self.applied, self._named(series)
            counts = self._engine.count([entry.name for entry in entries])
        return StoreAccount(
            applied,
            [
                SeriesCounters(e.id, e.accepted, e.superseded, rows, e.erased, e.late, refused=e.refused)
                for e, rows in zip(entries, counts, strict=True)
            ],
        )

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series; asks no server."""
        entries = self._sidecar.entries
        found = [entries.get(number) for number in series]
        return [
            UNKNOWN_REVISION if e is None else (e.accepted, e.superseded, e.erased + e.refused, e.late, 0)
            for e in found
        ]

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading."""
        return max(self._sidecar.entries, default=0)

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series, between writes; return how many there were.

        Raises:
            StoreError: the server does not answer; what was begun is ended before the next write.
        """
        erased = 0
        with self._lock:
            self._check_whole()
            self._end_erasures()
            for entry in self._named(series):
                (count,) = self._engine.count([entry.name])
                if count:
                    self._sidecar.begin_erasure(entry.id, count)
                    self._end_erasures()
                    erased += count
        return erased

    def statistics(self) -> StoreStatistics:
        """Return the figures of now by the ledger; ``bytes`` are the server's business: 0."""
        rows = sum(e.accepted - e.superseded - e.refused - e.erased for e in self._sidecar.entries.values())
        return StoreStatistics(self.applied, rows, 0)

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        self._engine.close()
        self._sidecar.close()

    def _check_whole(self) -> None:
        if self._is_torn:
            raise StoreError("the last write to the store's server was cut off and is being repeated; ask again")

    def _end_erasures(self) -> None:
        for number in list(self._sidecar.erasures):
            self._engine.delete(self._sidecar.entries[number].name)
            self._sidecar.end_erasure(number)

    def _named(self, series: Sequence[int]) -> list[Entry]:
        entries = self._sidecar.entries
        return [entries[number] for number in sorted(set(series)) if number in entries]

    def _prefix(self, entry: Entry) -> str:
        found = self._prefixes.get(entry.id)
        if found is None:
            found = self._prefixes[entry.id] = prefix_of(entry.name)
        return found

    def _look_up(self, batch: "_Batch", upto: int) -> None:
        """Find out which readings replace an older one, and note it before anything is written."""
        notes = []
        for number, times in batch.uncertain.items():
            known = self._sidecar.known(number, times)
            unknown = sorted(time_ns for time_ns in times if time_ns not in known)
            there = self._existing(batch.changed[number].name, unknown)
            # Known ones again: their notes must outlive this write, too.
            notes += [(number, time_ns, time_ns in there) for time_ns in unknown]
            notes += [(number, time_ns, was_there) for time_ns, was_there in known.items()]
            there |= {time_ns for time_ns, was_there in known.items() if was_there}
            batch.changed[number].superseded += len(there)
            batch.replaced |= {(number, time_ns) for time_ns in there}
        # Of these one value is sent: if the write is repeated in other slices, and the first of them is refused then,
        # the next would find its own first time there.
        notes += [(number, time_ns, False) for number, time_ns in batch.doubled]
        self._sidecar.note(upto, notes)

    def _existing(self, name: SeriesName, times: Sequence[int]) -> set[int]:
        """Return those of the times, which ascend, at which the series has a reading."""
        found: set[int] = set()
        begin = 0
        for place, time_ns in enumerate(times):
            is_last = place + 1 == len(times)
            if is_last or times[place + 1] - time_ns > _APART_NS:
                wanted = set(times[begin : place + 1])
                start_ns = times[begin]
                while rows := self._engine.read([name], start_ns, time_ns + 1, _DUMP_ROWS)[0]:
                    found |= wanted.intersection(at for at, _ in rows)
                    start_ns = rows[-1][0] + 1
                begin = place + 1
        return found

    def _send(self, items: list[_Item], lines: list[str]) -> list[Refused]:
        """Write lines; return the readings that the server refuses whatever is beside them."""
        if not lines:
            return []
        try:
            self._engine.write(body(lines))
        except RefusedLinesError as error:
            # All of a fleet's floats may be wrong, after somebody wrote text to their field: not one by one then.
            if len(lines) > 1 and error.dropped != len(lines):
                half = len(lines) // 2
                return self._send(items[:half], lines[:half]) + self._send(items[half:], lines[half:])
            return [Refused(number, time_ns, value, str(error)) for (number, time_ns), value in items]
        return []

    def _walk(
        self, entry: Entry, rows: Rows, start_ns: int, end_ns: int, at_once: int, descending: bool
    ) -> Iterator[Row]:
        while True:
            for time_ns, value in rows:
                yield Row(entry.id, time_ns, value)
            if len(rows) < at_once:
                return
            start_ns, end_ns = (start_ns, rows[-1][0]) if descending else (rows[-1][0] + 1, end_ns)
            # This series has more than the others: not row by row.
            at_once = max(at_once, min(2 * at_once, _LEAST_ROWS))
            (rows,) = self._engine.read([entry.name], start_ns, end_ns, at_once, descending=descending)


class _Batch:
    """The readings of one write: of each instant the last, what they do to the ledger, and which may be corrections."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self.values: dict[tuple[int, int], Value] = {}
        # Of those with several in one write, the ones before the last.
        self._earlier: dict[tuple[int, int], list[Value]] = {}
        self.changed: dict[int, Entry] = {}
        self.uncertain: dict[int, set[int]] = {}
        self.replaced: set[tuple[int, int]] = set()
        # New instants that came more than once.
        self.doubled: set[tuple[int, int]] = set()

    def add(self, frame: Frame) -> None:
        """Take the readings of the next frame."""
        for series_column in frame.columns:
            entry, column = self._entry(series_column.series), series_column.column
            before_ns = entry.newest_ns
            for dt, value in zip(column.dt, column.values, strict=True):
                self._add(entry, before_ns, frame.t0 + dt * frame.tick, value)

    def written(self) -> dict[int, list[int]]:
        """Return series → times of what is stored."""
        found: dict[int, list[int]] = {}
        for number, time_ns in self.values:
            found.setdefault(number, []).append(time_ns)
        return found

    def refuse(self, refused: Sequence[Refused]) -> list[_Item]:
        """Count readings as refused; none of them is the newest of its series. Return what is to be stored instead."""
        instead: list[_Item] = []
        for one in refused:
            key, entry = (one.series, one.time_ns), self.changed[one.series]
            entry.refused += 1
            if earlier := self._earlier.get(key):
                # It was to be replaced by what is refused, and is not.
                self.values[key] = earlier.pop()
                entry.superseded -= 1
                instead.append((key, self.values[key]))
            else:
                del self.values[key]
                # What it was to replace is still there.
                entry.superseded -= key in self.replaced
        for number in {one.series for one in refused}:
            entry, before = self.changed[number], self._sidecar.entries.get(number)
            entry.newest_ns, entry.newest = (None, 0) if before is None else (before.newest_ns, before.newest)
            for (of, time_ns), value in self.values.items():
                if of == number and (entry.newest_ns is None or time_ns >= entry.newest_ns):
                    entry.newest_ns, entry.newest = time_ns, value
        return instead

    def _add(self, entry: Entry, before_ns: int | None, time_ns: int, value: Value) -> None:
        entry.accepted += 1
        entry.kinds |= 1 << kind_of(value)
        key = (entry.id, time_ns)
        if before_ns is not None and time_ns < before_ns - LATE_TOLERANCE_NS:
            entry.late += 1
        if key in self.values:
            entry.superseded += 1
            self._earlier.setdefault(key, []).append(self.values[key])
            if time_ns not in self.uncertain.get(entry.id, ()):
                self.doubled.add(key)
        elif entry.newest_ns is not None and time_ns <= entry.newest_ns:
            self.uncertain.setdefault(entry.id, set()).add(time_ns)
        self.values[key] = value
        if entry.newest_ns is None or time_ns >= entry.newest_ns:
            entry.newest_ns, entry.newest = time_ns, value

    def _entry(self, series: Series) -> Entry:
        found = self.changed.get(series.id)
        if found is None:
            known = self._sidecar.entries.get(series.id)
            name = SeriesName(series.namespace, series.device, series.channel)
            found = Entry(series.id, name) if known is None else known.copy()
            self.changed[series.id] = found
        return found


def _by_time(row: Row) -> tuple[int, int]:
    return (row.time_ns, row.series)


def _by_start(bucket: Bucket) -> tuple[int, int]:
    return (bucket.start_ns, bucket.series)
