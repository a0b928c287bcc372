"""Readings of a VictoriaMetrics and of the file beside it, merged and in order.

Owns: pages and counts. Place: between `store.victoria` and what it stands on. Must not: write.

The server exports a range series by series and as a whole, however much it is. So a page is read in windows of time,
each counted first: a window that holds too much is made smaller, one that holds little makes the next larger.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from hub.errors import StoreError
from hub.store.accumulator import check_buckets
from hub.store.base import AGGREGATES, Bucket, Row
from hub.store.victoria_client import Server, TooMuchError
from hub.store.victoria_file import Ledger, VictoriaFile
from hub.store.victoria_wire import (
    FIRST_MS,
    MS,
    count_form,
    export_form,
    parse_counts,
    parse_export,
    parse_ranges,
    range_form,
    selectors,
    typed,
)

_WINDOW_MS = 3_600_000
_GROWTH = 8
# Rows that one export may hold at least: about 4 MB in memory.
_LEAST_ROWS = 20_000
# Times that are looked up together are at most this far apart.
_LOOKUP_MS = 600_000
# Points of a series that the server gives in one answer: it refuses above 30,000.
_POINTS_PER_QUERY = 10_000
# Empty points cost the server as full ones: with more, rows are cheaper.
_MOST_POINTS = 200_000
_OF_THE_SERIES = frozenset({"min", "max", "first", "last"})
_FLOAT = 2
# Begin in ms, series.
_Bucket = tuple[int, int]


class _Part(NamedTuple):
    """Buckets of one width; each begins so long before its end, also if less of it is in the range."""

    ends: range
    window_ms: int
    begins_before_ms: int


_by_time = attrgetter("time_ns", "series")


class VictoriaReader:
    """Any thread. ``is_flushed``: set it to False after a write, so that the next question sees it."""

    def __init__(self, server: Server, file: VictoriaFile) -> None:
        self._server = server
        self._file = file
        self.is_flushed = False
        self._flushing = threading.Lock()

    def read(self, series: Sequence[int], start_ns: int, end_ns: int, limit: int, *, descending: bool) -> list[Row]:
        """Return rows of [start_ns, end_ns), at least ``limit`` if there are, up to a time border."""
        ledgers = {number: one for number, one in self._file.ledgers(series).items() if one.newest_ms is not None}
        if not ledgers:
            return []
        # The first and last whole millisecond in the range, and none where there are no readings.
        low = max(-(-start_ns // MS), min(one.oldest_ms or 0 for one in ledgers.values()))
        high = min(-(-end_ns // MS) - 1, max(one.newest_ms or 0 for one in ledgers.values()))
        found: list[Row] = []
        width = _WINDOW_MS
        while low <= high and len(found) <= limit:
            width = self._fitting(ledgers, low, high, width, limit, descending)
            first, last = (max(low, high - width + 1), high) if descending else (low, min(high, low + width - 1))
            rows = self._window(ledgers, first, last)
            rows.sort(key=_by_time, reverse=descending)
            found += rows
            low, high = (low, first - 1) if descending else (last + 1, high)
            if len(rows) < limit:
                width *= _GROWTH
        border = next((i for i in range(limit, len(found)) if found[i].time_ns != found[i - 1].time_ns), len(found))
        return found[:border]

    def buckets(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        step_ns: int,
        functions: Sequence[str],
        *,
        origin_ns: int,
        max_buckets: int,
    ) -> list[Bucket] | None:
        """Return buckets as the server aggregates them; None: it cannot.

        It can where they begin at whole milliseconds and no reading in the range is kept beside.
        """
        if not set(functions).issubset(AGGREGATES) or step_ns % MS or origin_ns % MS:
            return None
        ledgers = {number: one for number, one in self._file.ledgers(series).items() if one.newest_ms is not None}
        if not ledgers:
            return []
        start = max(-(-start_ns // MS), min(one.oldest_ms or 0 for one in ledgers.values()))
        end = min(-(-end_ns // MS), max(one.newest_ms or 0 for one in ledgers.values()) + 1)
        if start >= end:
            return []
        step = step_ns // MS
        if start < FIRST_MS or (end - start) // step > _MOST_POINTS:
            return None
        if self._file.count_beside(list(ledgers), start, end - 1):
            return None
        self._flush()
        found: dict[_Bucket, list[float | int]] = {}
        try:
            for part in _parts(start, end, step, origin_ns // MS):
                for function in functions:
                    for bucket, value in self._aggregated(ledgers, function, part):
                        found.setdefault(bucket, []).append(value)
                    check_buckets(len(found), max_buckets)
        except TooMuchError:
            # One bucket alone is too much.
            return None
        return [Bucket(number, begin * MS, tuple(values)) for (begin, number), values in sorted(found.items())]

    def _aggregated(
        self, ledgers: Mapping[int, Ledger], function: str, part: "_Part"
    ) -> Iterator[tuple[_Bucket, float | int]]:
        for selector in selectors(self._file.hub, ledgers):
            for at in range(0, len(part.ends), _POINTS_PER_QUERY):
                some = part.ends[at : at + _POINTS_PER_QUERY]
                for number, values in self._ranges(selector, function, some, part.window_ms):
                    is_whole = function == "count" or (function in _OF_THE_SERIES and ledgers[number].kind < _FLOAT)
                    for end, value in values:
                        yield (end - part.begins_before_ms, number), int(value) if is_whole else value

    def _ranges(
        self, selector: str, function: str, ends: range, window_ms: int
    ) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Yield what the server says of each series, asked for fewer buckets at a time if it must be."""
        form = range_form(selector, function, ends[0], ends[-1], window_ms)
        try:
            body = self._server.ask("/api/v1/query_range", form)
        except TooMuchError:
            if len(ends) == 1:
                raise
            half = len(ends) // 2
            yield from self._ranges(selector, function, ends[:half], window_ms)
            yield from self._ranges(selector, function, ends[half:], window_ms)
        else:
            yield from parse_ranges(body).items()

    def count(self, ledgers: Mapping[int, Ledger]) -> dict[int, int]:
        """Return series → rows, as they are now."""
        found = dict.fromkeys(ledgers, 0)
        times = [one.newest_ms for one in ledgers.values() if one.newest_ms is not None]
        if times:
            found.update(self._counts(list(ledgers), FIRST_MS, max(times)))
        for number, count in self._file.count_alone(list(ledgers)).items():
            found[number] = found.get(number, 0) + count
        return found

    def numbers(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Return (series, time in ms) → what the server has there, where it has something."""
        # By time: neighbours are in one window.
        wanted = sorted((time_ms, number) for number, time_ms in keys if time_ms >= FIRST_MS)
        found: dict[tuple[int, int], float] = {}
        at = 0
        while at < len(wanted):
            end = bisect_right(wanted, wanted[at][0] + _LOOKUP_MS, key=itemgetter(0))
            self._look_up(found, wanted[at:end])
            at = end
        return found

    def _look_up(self, found: dict[tuple[int, int], float], wanted: list[tuple[int, int]]) -> None:
        """Add what the server has at the (time, series), without fetching much that lies between."""
        first, last = wanted[0][0], wanted[-1][0]
        series = sorted({number for _, number in wanted})
        if first < last and sum(self._counts(series, first, last).values()) > _LEAST_ROWS:
            half = len(wanted) // 2
            self._look_up(found, wanted[:half])
            self._look_up(found, wanted[half:])
            return
        keys = set(wanted)
        for number, times, numbers in self._export(series, first, last):
            found.update(
                ((number, ms), value) for ms, value in zip(times, numbers, strict=True) if (ms, number) in keys
            )

    def _fitting(
        self, ledgers: Mapping[int, Ledger], low: int, high: int, width: int, limit: int, descending: bool
    ) -> int:
        """Return a width of which a window at one end holds not too much."""
        most = max(_LEAST_ROWS, 2 * limit)
        width = min(width, high - low + 1)
        while width > 1:
            first, last = (high - width + 1, high) if descending else (low, low + width - 1)
            count = sum(self._counts(list(ledgers), first, last).values())
            count += self._file.count_beside(list(ledgers), first, last)
            if count <= most:
                break
            width = max(1, width // (count // most + 1))
        return width

    def _window(self, ledgers: Mapping[int, Ledger], first_ms: int, last_ms: int) -> list[Row]:
        found: dict[tuple[int, int], Row] = {}
        for number, times, numbers in self._export(ledgers, first_ms, last_ms):
            for ms, value in zip(times, typed(ledgers[number].kind, numbers), strict=True):
                found[number, ms] = Row(number, ms * MS, value)
        for one in self._file.beside(list(ledgers), first_ms, last_ms):
            found[one.series, one.time_ms] = Row(one.series, one.time_ms * MS, one.value)
        return list(found.values())

    def _export(
        self, series: Iterable[int], first_ms: int, last_ms: int
    ) -> Iterable[tuple[int, list[int], list[float]]]:
        if last_ms < FIRST_MS:
            return
        self._flush()
        for selector in selectors(self._file.hub, series):
            yield from parse_export(
                self._server.ask("/api/v1/export", export_form(selector, max(first_ms, FIRST_MS), last_ms))
            )

    def _counts(self, series: Sequence[int], first_ms: int, last_ms: int) -> dict[int, int]:
        found: dict[int, int] = {}
        if last_ms < FIRST_MS:
            return found
        self._flush()
        for selector in selectors(self._file.hub, series):
            for number, count in self._counted(selector, max(first_ms, FIRST_MS), last_ms):
                found[number] = found.get(number, 0) + count
        return found

    def _counted(self, selector: str, first_ms: int, last_ms: int) -> Iterator[tuple[int, int]]:
        """Yield (series, readings) of parts of the range that are small enough for the server."""
        try:
            body = self._server.ask("/api/v1/query", count_form(selector, first_ms, last_ms))
        except TooMuchError:
            # It looks at 30 million readings of a series: one a second for a year.
            if first_ms == last_ms:
                raise
            middle_ms = (first_ms + last_ms) // 2
            yield from self._counted(selector, first_ms, middle_ms)
            yield from self._counted(selector, middle_ms + 1, last_ms)
        else:
            yield from parse_counts(body).items()

    def _flush(self) -> None:
        """Make what was written before visible; the server does so by itself after a second."""
        # Who comes while another one is about it waits, or its answer would lack that second.
        with self._flushing:
            if self.is_flushed:
                return
            # Set first: what is written meanwhile sets it back.
            self.is_flushed = True
            try:
                self._server.get("/internal/force_flush")
            except StoreError:
                self.is_flushed = False
                raise


def _parts(start: int, end: int, step: int, origin: int) -> Iterator[_Part]:
    """Yield the buckets of [start, end): the one cut at its begin, the whole ones, the one cut at its end."""
    first = -((origin - start) // step) * step + origin
    last = (end - origin) // step * step + origin
    if first > last:
        # All of it is inside one bucket.
        yield _Part(range(end, end + 1), end - start, end - last)
        return
    if start < first:
        yield _Part(range(first, first + 1), first - start, step)
    if first < last:
        yield _Part(range(first + step, last + 1, step), step, step)
    if last < end:
        yield _Part(range(end, end + 1), end - last, end - last)
