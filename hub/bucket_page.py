"""Buckets of several series, a page at a time, in bounded memory: which questions to a store a page takes.

Owns: cutting a range into calls of the store, the readings beside a range, `fill`. Place: above `aggregate` and `grid`,
below `query`. An answer does not depend on where its range or its pages begin: what lies before is looked up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from device_sdk.reading import Value, ValueType
from hub.aggregate import DRAWS_LINES, LOOKS_BACK, PLAIN, Finished, Number, Point, Surroundings, finish, needs
from hub.description import Nature
from hub.errors import BadRequestError
from hub.fill import Fill, filled
from hub.grid import Grid
from hub.model import Series
from hub.store.accumulator import MAX_ANSWER_BUCKETS, number_of
from hub.store.base import Bucket, RetainingStore, Store

_BEGIN_NS, _END_NS = -(2**63), 2**63 - 1
# Rows of a page where text is passed over to find the number beside a range.
_TEXT_ROWS = 1000
_MINUTE_NS, _DAY_NS = 60 * 10**9, 86400 * 10**9

Cut = Callable[[int, int], Grid]
Rows = list[tuple[Value | None, ...]]
_Around = dict[int, Point | None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of [start_ns, end_ns): buckets as ``cut`` makes them, of each the functions.

    ``fill``: None, or what stands in buckets without a reading. ``raw``: values as they are stored.
    """

    series: Sequence[Series]
    start_ns: int
    end_ns: int
    cut: Cut
    functions: Sequence[str]
    fill: Fill | None = None
    raw: bool = False


class BucketPages:
    """One question, answered page by page; use one for each page.

    Args:
        retaining: the store, if it keeps sums of readings that it dropped.
    """

    def __init__(self, store: Store, question: Question, retaining: RetainingStore | None = None) -> None:
        self._store = store
        self._retaining = retaining
        self._of = question
        self._grid = question.cut(question.start_ns, question.end_ns)
        self._index = {s.id: i for i, s in enumerate(question.series)}
        self._by_id = {s.id: s for s in question.series}
        self._ids = list(self._index)
        asked = set(question.functions)
        self._needs = needs(question.functions)
        self._looks_back, self._draws_lines = not LOOKS_BACK.isdisjoint(asked), not DRAWS_LINES.isdisjoint(asked)
        scaled = not question.raw and any(s.scaling is not None for s in question.series)
        self._is_plain = question.fill is None and not scaled and PLAIN.keys() >= asked
        # The last numbers before a bucket, as far as they are known from the buckets before it.
        self._before: tuple[int, _Around] = (-1, {})

    def page(self, limit: int, edge_ns: int | None, *, descending: bool) -> tuple[Rows, str | None]:
        """Return rows (time_ns, index of series, values…) by time and series, and where the next page begins.

        ``edge_ns``: what the page before said; None = the first page.

        At least ``limit`` if there are, up to where a bucket ends; descending is the exact reverse.
        """
        rows: Rows = []
        low, high = 0, self._grid.count
        if edge_ns is not None:
            low, high = (low, self._upto(edge_ns)) if descending else (self._upto(edge_ns), high)
        most = max(MAX_ANSWER_BUCKETS // max(len(self._ids), 1), 1)
        width = min(-(-limit // max(len(self._ids), 1)), most)
        found: Rows | None = None
        while low < high and len(rows) < limit:
            if found == []:
                # After empty buckets there may be many more: looking for a reading costs more where readings are.
                low, high = self._without_nothing(low, high, descending)
            first, end = (max(high - width, low), high) if descending else (low, min(low + width, high))
            found = self._rows(first, end) if first < end else []
            rows += reversed(found) if descending else found
            low, high = (low, first) if descending else (end, high)
            if 2 * len(found) < limit:
                width = min(2 * width, most)
        border = next((i for i in range(limit, len(rows)) if rows[i][0] != rows[i - 1][0]), None)
        if border is not None:
            return rows[:border], str(rows[border - 1 if descending else border][0])
        if low < high:
            return rows, str(self._grid.edge(high if descending else low))
        return rows, None

    def _upto(self, edge_ns: int) -> int:
        """Return how many buckets begin before an edge."""
        count = self._grid.count
        return count if edge_ns >= self._grid.edge(count) else self._grid.number(edge_ns)

    def _without_nothing(self, low: int, high: int, descending: bool) -> tuple[int, int]:
        """Leave out the empty buckets that come next, if none has anything to say."""
        if self._of.fill is not None or self._is_on_a_line(high if descending else low):
            return low, high
        start_ns, end_ns = self._span(low, high)
        rows = self._store.read(self._ids, start_ns, end_ns, 1, descending=descending)
        times = [row.time_ns for row in rows[:1]]
        day_ns = None
        if self._retaining is not None:
            day_ns = self._retaining.day_of_sums(self._ids, start_ns, end_ns, descending=descending)
        if day_ns is not None:
            times.append(min(day_ns + _DAY_NS, end_ns) - 1 if descending else max(day_ns, start_ns))
        if not times:
            return high, high
        number = self._grid.number(max(times) if descending else min(times))
        return (low, number + 1) if descending else (number, high)

    def _is_on_a_line(self, number: int) -> bool:
        """Tell whether a line that is asked for goes over the edge before a bucket."""
        if not self._draws_lines:
            return False
        edge_ns = max(self._of.start_ns, min(self._grid.edge(number), self._of.end_ns))
        near = (self._last_before(self._ids, edge_ns), self._first_from(self._ids, edge_ns))
        return any(None not in (near[0][series], near[1][series]) for series in self._ids)

    def _span(self, first: int, end: int) -> tuple[int, int]:
        """Return the time of buckets as far as it is in the range."""
        return max(self._grid.edge(first), self._of.start_ns), min(self._grid.edge(end), self._of.end_ns)

    def _rows(self, first: int, end: int) -> Rows:
        if self._is_plain:
            functions = [PLAIN[name] for name in self._of.functions]
            found = self._asked(self._ids, first, end, functions)
            return [(bucket.start_ns, self._index[bucket.series], *bucket.values) for bucket in found]
        before = self._before[1] if self._before[0] == first else None
        series = self._finished(self._ids, first, end, before)
        if self._of.fill is not None:
            edges = self._grid.edges(first, end)
            series = {number: self._filled(number, done, edges) for number, done in series.items()}
        rows = [(done.start_ns, number, done.values) for number in sorted(series) for done in series[number]]
        # By time alone, which takes a third of the time: series are in order already, and sorting keeps that.
        rows.sort(key=itemgetter(0))
        return [(start, self._index[number], *values) for start, number, values in rows]

    def _asked(self, ids: Sequence[int], first: int, end: int, functions: Sequence[str]) -> list[Bucket]:
        """Return what the store says of buckets, with one call for each run of equal ones."""
        found: list[Bucket] = []
        for run in self._grid.part(first, end) if ids else ():
            low, high = max(run.start_ns, self._of.start_ns), min(run.end_ns, self._of.end_ns)
            found += self._store.aggregate(ids, low, high, run.step_ns, functions, origin_ns=run.start_ns)
        return found

    def _finished(self, ids: Sequence[int], first: int, end: int, before: _Around | None) -> dict[int, list[Finished]]:
        """Return the buckets of each series, made of what the store says of them and of what lies beside."""
        by_series: dict[int, dict[int, Mapping[str, Number]]] = {number: {} for number in ids}
        for bucket in self._asked(ids, first, end, self._needs):
            parts = dict(zip(self._needs, bucket.values, strict=True))
            by_series[bucket.series][bucket.start_ns] = parts
        # Of half a million buckets that are nearly all empty only lines need to know them all.
        edges = self._grid.edges(first, end) if self._draws_lines else ()
        start_ns, end_ns = self._span(first, end)
        after: _Around = {}
        if self._looks_back:
            before = self._last_before(ids, start_ns) if before is None else before
            after = self._first_from(ids, end_ns) if self._draws_lines else {}
            self._before = (end, {number: _last_of(by_series[number]) or before[number] for number in ids})
        return {
            number: list(
                finish(edges, found, self._of.functions, self._around(number, start_ns, end_ns, before, after))
            )
            for number, found in by_series.items()
        }

    def _around(self, number: int, start_ns: int, end_ns: int, before: _Around | None, after: _Around) -> Surroundings:
        series = self._by_id[number]
        return Surroundings(
            start_ns,
            end_ns,
            (before or {}).get(number),
            after.get(number),
            is_counter=series.described.kind == Nature.COUNTER,
            scaling=None if self._of.raw else series.scaling,
        )

    def _filled(self, number: int, done: list[Finished], edges: list[int]) -> list[Finished]:
        fill, previous, following = self._of.fill, None, None
        assert fill is not None, "asked only then"
        has = {bucket.start_ns for bucket in done if bucket.has_readings}
        if fill in ("previous", "linear") and edges[0] not in has:
            previous = self._neighbour(number, _BEGIN_NS, max(edges[0], self._of.start_ns), descending=True)
        if fill == "linear" and edges[-2] not in has:
            following = self._neighbour(number, min(edges[-1], self._of.end_ns), _END_NS, descending=False)
        return list(filled(done, edges, self._of.functions, fill, previous=previous, following=following))

    def _neighbour(self, number: int, start_ns: int, end_ns: int, *, descending: bool) -> Finished | None:
        """Return the first bucket of a range beside what is looked at, or its last, that holds a number."""
        point = self._nearest(number, start_ns, end_ns, descending=descending)
        time_ns = None if point is None else point.time_ns
        if self._retaining is not None and (time_ns is None or not descending):
            # Sums are of before all readings.
            minute_ns = self._minute_of_sums(number, start_ns, end_ns, descending=descending)
            time_ns = time_ns if minute_ns is None else minute_ns
        if time_ns is None:
            return None
        try:
            return self._bucket_beside(number, time_ns)
        except BadRequestError:
            # Of dropped readings what is asked for is not known.
            return None

    def _minute_of_sums(self, number: int, start_ns: int, end_ns: int, *, descending: bool) -> int | None:
        """Return when the first minute of a range begins that has sums, or its last."""
        assert self._retaining is not None, "asked only then"
        while True:
            day_ns = self._retaining.day_of_sums([number], start_ns, end_ns, descending=descending)
            if day_ns is None:
                return None
            low_ns, high_ns = max(day_ns, start_ns), min(day_ns + _DAY_NS, end_ns)
            found = self._store.aggregate([number], low_ns, high_ns, _MINUTE_NS, ("count",))
            if found:
                return found[-1 if descending else 0].start_ns
            start_ns, end_ns = (start_ns, low_ns) if descending else (high_ns, end_ns)

    def _bucket_beside(self, number: int, time_ns: int) -> Finished | None:
        """Return the bucket of a reading outside of what is looked at; what the range cuts apart stays apart."""
        of = self._of
        low = _BEGIN_NS if time_ns < of.start_ns else of.start_ns if time_ns < of.end_ns else of.end_ns
        high = of.start_ns if time_ns < of.start_ns else of.end_ns if time_ns < of.end_ns else _END_NS
        bucket = of.cut(time_ns, time_ns + 1)
        low, high = max(low, bucket.edge(0)), min(high, bucket.edge(1))
        alone = BucketPages(
            self._store, replace(of, series=[self._by_id[number]], start_ns=low, end_ns=high, fill=None)
        )
        found = alone._finished([number], 0, 1, None)[number]
        return found[-1] if found else None

    def _last_before(self, ids: Sequence[int], time_ns: int) -> _Around:
        return {number: self._last_number_before(number, time_ns) for number in ids}

    def _last_number_before(self, number: int, time_ns: int) -> Point | None:
        """Return the last reading before a time that is a number; of dropped ones sums know the last."""
        point = self._nearest(number, _BEGIN_NS, time_ns, descending=True)
        if point is not None or self._retaining is None:
            return point
        minute_ns = self._minute_of_sums(number, _BEGIN_NS, time_ns, descending=True)
        if minute_ns is None:
            return None
        known = ("last_ns", "last")
        for bucket in self._store.aggregate([number], minute_ns, minute_ns + 1, _MINUTE_NS, known):
            last_ns, last = bucket.values
            return Point(int(last_ns), last)
        return None

    def _first_from(self, ids: Sequence[int], time_ns: int) -> _Around:
        return {number: self._nearest(number, time_ns, _END_NS, descending=False) for number in ids}

    def _nearest(self, number: int, start_ns: int, end_ns: int, *, descending: bool) -> Point | None:
        """Return the first reading of a range, or its last, that is a number."""
        if self._by_id[number].type is ValueType.STR:
            # Years of text would be read to find that none is.
            return None
        limit = 1
        while start_ns < end_ns:
            rows = self._store.read([number], start_ns, end_ns, limit, descending=descending)
            for row in rows:
                value = number_of(row.value)
                if value is not None:
                    return Point(row.time_ns, value)
            if len(rows) < limit:
                return None
            start_ns, end_ns = (start_ns, rows[-1].time_ns) if descending else (rows[-1].time_ns + 1, end_ns)
            limit = _TEXT_ROWS
        return None


def _last_of(found: Mapping[int, Mapping[str, Number]]) -> Point | None:
    if not found:
        return None
    parts = found[max(found)]
    return Point(int(parts["last_ns"]), parts["last"])
