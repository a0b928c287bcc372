"""Questions about history and state, answered the same for REST, command line and page.

Owns: patterns → series, time expressions → ranges, store rows → named columns.
Place: after `devices`, `store` and `live.patterns`, before the gateway.
Blocking: the gateway calls it in a thread.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from device_sdk.reading import Value
from hub.bucket_page import BucketPages, Question
from hub.devices import Registry, natural_key
from hub.errors import BadRequestError
from hub.grid import length_ns
from hub.live.patterns import PatternSet
from hub.model import Series
from hub.store.base import RetainingStore, Row, Store

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_FRACTION = re.compile(r"^(.*?[T ]\d\d:\d\d:\d\d)\.(\d{1,9})(.*)$")
MAX_LIMIT = 100_000
_UTC_1970 = datetime(1970, 1, 1, tzinfo=UTC)
# A store takes 64 bits; what lies outside (the year 9999 does) means "from the first" or "to the last".
_BEGIN_OF_TIME_NS, _END_OF_TIME_NS = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of several series: ``rows[i] = (time_ns, index into series, value…)``; ``next_page`` None at the end.

    A column ``received_ns`` holds ints, or None where it is not known. ``raw_from_ns``: of the range asked for, single
    readings before this were dropped (of some of the series); None: none was.
    """

    series: list[Series]
    columns: tuple[str, ...]
    rows: list[tuple[Value | None, ...]]
    next_page: str | None = None
    raw_from_ns: int | None = None


class Query:
    """Reads over one hub's registry and store.

    Every method takes the caller's namespace and the patterns the caller may see (``granted``).
    """

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store
        self._retaining = store if isinstance(store, RetainingStore) else None

    def series(self, namespace: str, match: Sequence[str], granted: Sequence[str] = ("**",)) -> list[Series]:
        """Return the series that match and are granted, in natural order.

        Raises:
            BadRequestError: a pattern that cannot be read.
        """
        try:
            wanted, allowed = PatternSet(tuple(match) or ("**",)), PatternSet(tuple(granted))
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        found = [
            s
            for s in self._registry.by_id.values()
            if s.namespace == namespace and wanted.matches(s.device, s.channel) and allowed.matches(s.device, s.channel)
        ]
        # Of a fleet each name is that of many series, and a key takes longer to make than to compare.
        keys = {name: natural_key(name) for name in {part for s in found for part in (s.device, s.channel)}}
        return sorted(found, key=lambda s: (keys[s.device], keys[s.channel]))

    def latest(self, series: Sequence[Series], *, raw: bool = False) -> list[tuple[Series, int, Value]]:
        """Return (series, time_ns, value) of the newest reading by event time, where there is one.

        Values are as they are shown, here and below; ``raw``: as they are stored.
        """
        known = self._registry.latest
        found = [(s, known[s.id]) for s in series if s.id in known]
        return [(s, n.time_ns, n.value if raw else shown_value(s, n.value)) for s, n in found]

    def readings(
        self,
        series: Sequence[Series],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool,
        page: str | None,
        received: bool = False,
        raw: bool = False,
    ) -> Answer:
        """Return raw rows of [start_ns, end_ns), a page at a time, by time; ``received``: with receive times."""
        _check_limit(limit)
        if page is not None:
            edge = _page_edge(page)
            start_ns, end_ns = (start_ns, min(end_ns, edge)) if descending else (max(start_ns, edge), end_ns)
        index = {s.id: i for i, s in enumerate(series)}
        rows: list[Row] = []
        if index:
            rows = self._store.read(list(index), start_ns, end_ns, limit, descending=descending, received=received)
        next_page = None
        if len(rows) >= limit:
            last = rows[-1].time_ns
            next_page = str(last if descending else last + 1)
        return _named(series, rows if raw else _shown_rows(rows, series), index, received, next_page)

    def buckets(self, question: Question, limit: int, page: str | None, *, descending: bool) -> Answer:
        """Return one row per bucket and series of what is asked, a page at a time, by time."""
        _check_limit(limit)
        columns = ("time_ns", "series", *question.functions)
        if question.start_ns >= question.end_ns or not question.series:
            return Answer(list(question.series), columns, [])
        edge = None if page is None else _page_edge(page)
        rows, next_page = BucketPages(self._store, question, self._retaining).page(limit, edge, descending=descending)
        return Answer(list(question.series), columns, rows, next_page)

    def at(
        self,
        series: Sequence[Series],
        time_ns: int,
        lookback_ns: int | None = None,
        *,
        received: bool = False,
        raw: bool = False,
    ) -> Answer:
        """Return the last reading of each series at or before a time, with its own time; one row each, in their order.

        Args:
            lookback_ns: how much older than ``time_ns`` a reading may be; None = as old as it is.
        """
        index = {s.id: i for i, s in enumerate(series)}
        begin_ns = _BEGIN_OF_TIME_NS if lookback_ns is None else _clamp(time_ns - lookback_ns)
        end_ns = _clamp(time_ns + 1)
        rows = [
            row
            for s in series
            for row in self._store.read([s.id], begin_ns, end_ns, 1, descending=True, received=received)
        ]
        return _named(series, rows if raw else _shown_rows(rows, series), index, received)

    def newest_ns(self, series: Sequence[Series]) -> int | None:
        """Return the time of the newest reading of any of the series."""
        known = self._registry.latest
        times = [known[s.id].time_ns for s in series if s.id in known]
        # From files, beside no hub, nothing is known of the newest.
        times = times or [row.time_ns for row in self._store.latest([s.id for s in series])]
        return max(times, default=None)

    def raw_from_ns(self, series: Sequence[Series], start_ns: int) -> int | None:
        """Return from when single readings of all the series are there, if of a range from ``start_ns`` on not all."""
        if self._retaining is None:
            return None
        since = max(self._retaining.raw_from([s.id for s in series]).values(), default=start_ns)
        return since if since > start_ns else None

    def oldest_ns(self, series: Sequence[Series], start_ns: int, end_ns: int) -> int | None:
        """Return the time of the oldest reading of any of the series in a range, or of a day of dropped ones."""
        ids = [s.id for s in series]
        times = [row.time_ns for row in self._store.read(ids, start_ns, end_ns, 1)[:1]]
        day_ns = None if self._retaining is None else self._retaining.day_of_sums(ids, start_ns, end_ns)
        return min((max(day_ns, start_ns), *times)) if day_ns is not None else min(times, default=None)

    def dump(
        self, series: Sequence[Series], start_ns: int, end_ns: int, *, received: bool = False, raw: bool = False
    ) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by time, in bounded memory; ``received``: with receive times."""
        pages = self._store.dump([s.id for s in series], start_ns, end_ns, received=received)
        return pages if raw else (_shown_rows(page, series) for page in pages)


def shown_value(series: Series, value: Value) -> Value:
    """Return a stored value as it is shown."""
    scaling = series.scaling
    return value if scaling is None or isinstance(value, str) else scaling.value(value)


def _named(
    series: Sequence[Series], rows: list[Row], index: Mapping[int, int], received: bool, next_page: str | None = None
) -> Answer:
    columns = ("time_ns", "series", "value", "received_ns") if received else ("time_ns", "series", "value")
    width = len(columns)
    named = [(r.time_ns, index[r.series], r.value, r.received_ns)[:width] for r in rows]
    return Answer(list(series), columns, named, next_page)


def _shown_rows(rows: list[Row], series: Sequence[Series]) -> list[Row]:
    scaled = {s.id: s for s in series if s.scaling is not None}
    if not scaled:
        return rows
    return [
        row._replace(value=shown_value(scaled[row.series], row.value)) if row.series in scaled else row for row in rows
    ]


def parse_duration(text: str) -> int:
    """Return nanoseconds of ``90s``, ``1.5h``, ``15m``, ``7d``; a leading ``-`` is ignored.

    Raises:
        BadRequestError: anything else.
    """
    match = _DURATION.fullmatch(text.removeprefix("-"))
    if match is None:
        raise BadRequestError(f"duration {text[:40]!r}: use a number with ms, s, m, h, d or w, e.g. 15m")
    return length_ns(match[1], match[2])


def parse_time(text: str, now_ns: int) -> int:
    """Return epoch nanoseconds of RFC 3339 text (ns kept), an epoch (s, ms, µs, ns by size), ``now``, or ``-15m``.

    Times that 64 bits of nanoseconds cannot hold become the first or the last that they can.

    Raises:
        BadRequestError: anything else, or a time without a zone.
    """
    if text == "now":
        return now_ns
    if text.startswith("-") and not text[1:].isdigit():
        return _clamp(now_ns - parse_duration(text))
    if re.fullmatch(r"-?[0-9]{1,19}", text):
        return _clamp(_epoch(int(text)))
    return _clamp(_rfc3339(text))


def time_range(start: str | None, end: str | None, last: str | None, now_ns: int) -> tuple[int, int]:
    """Return [start, end) in ns: ``last`` alone, or ``start``/``end`` (absent = all)."""
    if last is not None:
        if start is not None or end is not None:
            raise BadRequestError("use either last or from/to, not both")
        return _clamp(now_ns - parse_duration(last)), _END_OF_TIME_NS
    start_ns = parse_time(start, now_ns) if start else 0
    end_ns = parse_time(end, now_ns) if end else _END_OF_TIME_NS
    if start_ns >= end_ns:
        raise BadRequestError("from must be before to")
    return start_ns, end_ns


def iso_time(time_ns: int) -> str:
    """Return RFC 3339 in UTC with as many digits as the time needs (s, ms, µs or ns)."""
    seconds, rest = divmod(time_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if rest % 10**6 == 0:
        return f"{text}.{rest // 10**6:03d}Z" if rest else f"{text}Z"
    return f"{text}.{rest // 1000:06d}Z" if rest % 1000 == 0 else f"{text}.{rest:09d}Z"


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise BadRequestError(f"limit {limit}: use 1 to {MAX_LIMIT}, or export for more")


def _page_edge(page: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,19}", page) is None:
        raise BadRequestError(f"page {page[:40]!r}: use the next of the answer before")
    return _clamp(int(page))


def _clamp(time_ns: int) -> int:
    return max(_BEGIN_OF_TIME_NS, min(time_ns, _END_OF_TIME_NS))


def _epoch(number: int) -> int:
    """Seconds, ms, µs or ns since 1970, told apart by size (seconds reach the year 5138 at 1e11)."""
    size = abs(number)
    for limit, factor in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3)):
        if size < limit:
            return number * factor
    return number


def _rfc3339(text: str) -> int:
    fraction = 0
    match = _FRACTION.match(text)
    plain = text
    if match is not None:
        fraction, plain = int(match[2].ljust(9, "0")), match[1] + match[3]
    try:
        when = datetime.fromisoformat(plain)
    except ValueError as error:
        raise BadRequestError(f"time {text[:40]!r}: use RFC 3339, e.g. 2026-01-31T12:00:00Z, or epoch ns") from error
    if when.tzinfo is None:
        raise BadRequestError(f"time {text[:40]!r} has no zone: add Z or an offset such as +01:00")
    since = when - _UTC_1970
    # Of a decimal comma, or a time without colons, the fraction is still in it.
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000 + fraction
