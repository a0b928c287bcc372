"""Readings of a VictoriaMetrics and of the file beside it, merged and in order.

Owns: pages and counts. Place: between `store.victoria` and what it stands on. Must not: write.

The server exports a range series by series and as a whole, however much it is. So a page is read in windows of time,
each counted first: a window that holds too much is made smaller, one that holds little makes the next larger.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from hub.store.base import Row
from hub.store.victoria_client import Server
from hub.store.victoria_file import Ledger, VictoriaFile
from hub.store.victoria_wire import (
    FIRST_MS,
    MS,
    count_form,
    export_form,
    parse_counts,
    parse_export,
    selectors,
    typed,
)

_WINDOW_MS = 3_600_000
_GROWTH = 8
# Rows that one export may hold at least: about 4 MB in memory.
_LEAST_ROWS = 20_000
# Times of a series that are looked up together, at most this far apart.
_LOOKUP_MS = 600_000
_by_time = attrgetter("time_ns", "series")


class VictoriaReader:
    """Any thread. ``is_flushed``: set it to False after a write, so that the next question sees it."""

    def __init__(self, server: Server, file: VictoriaFile) -> None:
        self._server = server
        self._file = file
        self.is_flushed = False

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
        wanted = set(keys)
        found: dict[tuple[int, int], float] = {}
        times = sorted({time_ms for _, time_ms in wanted if time_ms >= FIRST_MS})
        at = 0
        while at < len(times):
            end = at
            while end + 1 < len(times) and times[end + 1] - times[at] <= _LOOKUP_MS:
                end += 1
            near = {number for number, time_ms in wanted if times[at] <= time_ms <= times[end]}
            for number, some, numbers in self._export(near, times[at], times[end]):
                found.update(
                    ((number, ms), value) for ms, value in zip(some, numbers, strict=True) if (number, ms) in wanted
                )
            at = end + 1
        return found

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
            form = count_form(selector, max(first_ms, FIRST_MS), last_ms)
            found.update(parse_counts(self._server.ask("/api/v1/query", form)))
        return found

    def _flush(self) -> None:
        """Make what was written before visible; the server does so by itself after a second."""
        if not self.is_flushed:
            # Set first: what is written meanwhile sets it back.
            self.is_flushed = True
            self._server.get("/internal/force_flush")
