"""Time cut into buckets: steps of UTC, and days, weeks, months, hours by the clocks of a place.

Owns: what ``bucket=1d`` with ``tz=Europe/Brussels`` means. Place: below `bucket_page`, which asks a store run by run.
Pure but for the zone's rules, which Python reads from the system. A year of local days is five runs of equal steps.

Rules. A bucket begins where the wall clock shows a multiple of its length: counted from 1970-01-01 00:00 local time,
weeks from a Monday, months and years by the calendar. Where clocks go forward, a multiple that is left out is the
instant of the change; where they go back, one that is shown twice counts the first time. So days have 23, 24 or 25
hours. Only when the change is a multiple of the step itself (an hour of 1h, 15m) nothing happens: hours stay hours.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hub.errors import BadRequestError

UNIT_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}
MONTHS = {"mo": 1, "y": 12}
# The shortest a clock of a hub tells apart with sense; below, raw readings say more.
MIN_STEP_NS = 10**6
# 64 bits of nanoseconds reach 292 years to each side of 1970.
MAX_STEP_NS = 2**63 - 1
MAX_MONTHS = 292 * 12
MAX_ZONE_CHARS = 64
_BUCKET = re.compile(r"(\d+(?:\.\d+)?)(ms|s|mo|m|h|d|w|y)")
_SECOND_NS, _DAY_S = 10**9, 86400
# 1970-01-05: weeks begin on Mondays, as ISO 8601 has them.
_MONDAY_NS = 4 * _DAY_S * _SECOND_NS
_FIRST_YEAR, _LAST_YEAR = 1678, 2261
# Before and after all times of 64 bits.
_NEVER_NS = 2**70
_MAX_YEARS_KNOWN = 2048
_UTC_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class Run(NamedTuple):
    """``size`` buckets of equal length, one behind the other."""

    start_ns: int
    step_ns: int
    size: int

    @property
    def end_ns(self) -> int:
        """Return where the last one ends."""
        return self.start_ns + self.step_ns * self.size


class _Stretch(NamedTuple):
    """[start_ns, end_ns) in which clocks are ``offset_ns`` ahead of UTC."""

    start_ns: int
    end_ns: int
    offset_ns: int


class Grid:
    """The buckets that hold anything of a range, numbered from 0; they follow each other without a gap."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = [run for run in runs if run.size > 0]
        self._starts = [run.start_ns for run in self._runs]
        self._firsts = [0, *accumulate(run.size for run in self._runs)]

    @property
    def count(self) -> int:
        """Return the number of buckets."""
        return self._firsts[-1]

    def edge(self, number: int) -> int:
        """Return where a bucket begins; of ``count``: where the last one ends."""
        if number >= self.count:
            return self._runs[-1].end_ns
        place = bisect_right(self._firsts, number) - 1
        run = self._runs[place]
        return run.start_ns + (number - self._firsts[place]) * run.step_ns

    def number(self, time_ns: int) -> int:
        """Return the bucket that holds a time; the first or last for times outside."""
        place = max(bisect_right(self._starts, time_ns) - 1, 0)
        run = self._runs[place]
        within = min(max((time_ns - run.start_ns) // run.step_ns, 0), run.size - 1)
        return self._firsts[place] + within

    def part(self, first: int, end: int) -> Iterator[Run]:
        """Yield the buckets [first, end) as runs."""
        place = max(bisect_right(self._firsts, first) - 1, 0)
        while first < end:
            run = self._runs[place]
            count = min(end, self._firsts[place + 1]) - first
            yield Run(run.start_ns + (first - self._firsts[place]) * run.step_ns, run.step_ns, count)
            first += count
            place += 1

    def edges(self, first: int, end: int) -> list[int]:
        """Return where the buckets [first, end) begin, and where the last one ends."""
        found = [run.start_ns + at * run.step_ns for run in self.part(first, end) for at in range(run.size)]
        return [*found, self.edge(end)]


def grid_of(bucket: str, tz: str | None, start_ns: int, end_ns: int) -> Grid:
    """Return the grid of a range that is not empty.

    Args:
        bucket: a number with ms, s, m, h, d or w (Mondays), or a whole number of mo or y.
        tz: a name of the IANA data base; None = UTC.

    Raises:
        BadRequestError: no such bucket or zone; the message says what may be used.
    """
    match = _BUCKET.fullmatch(bucket)
    if match is None:
        raise BadRequestError(
            f"bucket {bucket[:40]!r}: use a number with ms, s, m, h, d, w, mo or y, e.g. 15m, 1d, 1mo"
        )
    zone = None if tz is None else _zone(tz)
    number, unit = match[1], match[2]
    if unit in MONTHS:
        return Grid(
            _clipped(_runs(_month_edges(zone, _months(bucket, number, unit), start_ns, end_ns)), start_ns, end_ns)
        )
    step_ns = length_ns(number, unit)
    if step_ns < MIN_STEP_NS:
        raise BadRequestError(f"bucket {bucket[:40]}: it must be at least 1 ms, e.g. 10s, 1m, 1h")
    if step_ns > MAX_STEP_NS:
        raise BadRequestError(f"bucket {bucket[:40]} is longer than 292 years: use a shorter one, e.g. 10s, 1m, 1h")
    phase_ns = _MONDAY_NS if unit == "w" else 0
    return Grid(_clipped(_runs(_step_edges(zone, step_ns, phase_ns, start_ns, end_ns)), start_ns, end_ns))


def length_ns(number: str, unit: str) -> int:
    """Return how many nanoseconds a decimal number of a unit of fixed length is: exact, for 2.3h are whole minutes."""
    return int(Fraction(number) * UNIT_NS[unit])


def even_grid(origin_ns: int, step_ns: int, start_ns: int, end_ns: int) -> Grid:
    """Return the grid of a range by buckets that begin at origin + k * step."""
    first, end = (start_ns - origin_ns) // step_ns, -((origin_ns - end_ns) // step_ns)
    return Grid([Run(origin_ns + first * step_ns, step_ns, end - first)])


def _months(bucket: str, number: str, unit: str) -> int:
    months = int(number) * MONTHS[unit] if number.isdigit() else 0
    if not 1 <= months <= MAX_MONTHS:
        raise BadRequestError(f"bucket {bucket[:40]}: use a whole number from 1mo to 292y")
    return months


def _zone(tz: str) -> ZoneInfo:
    try:
        if len(tz) > MAX_ZONE_CHARS:
            raise ValueError(tz)
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError) as error:
        raise BadRequestError(
            f"tz {tz[:40]!r} is no time zone that this hub knows: use a name such as Europe/Brussels or UTC; "
            "names come from the hub's system, on Debian its package tzdata"
        ) from error


def _step_edges(zone: ZoneInfo | None, step_ns: int, phase_ns: int, start_ns: int, end_ns: int) -> Iterator[Run]:
    """Yield edges of equal distance: each run's starts are edges; what its last one reaches to is the next run's."""
    before = 0
    for stretch in _joined(_stretches(zone, start_ns - step_ns, end_ns + step_ns), step_ns):
        offset = stretch.offset_ns
        first_wall = _up(stretch.start_ns + before, step_ns, phase_ns)
        if first_wall < stretch.start_ns + offset:
            # Clocks went forward over it.
            yield Run(stretch.start_ns, step_ns, 1)
        first_wall = _up(stretch.start_ns + max(before, offset), step_ns, phase_ns)
        count = -((first_wall - stretch.end_ns - offset) // step_ns)
        yield Run(first_wall - offset, step_ns, count)
        before = offset


def _month_edges(zone: ZoneInfo | None, months: int, start_ns: int, end_ns: int) -> Iterator[Run]:
    """Yield the edges that a range may need, as runs of one."""
    first, last = (max(_FIRST_YEAR - 1, min(_year(t) + d, _LAST_YEAR + 2)) for t, d in ((start_ns, -1), (end_ns, 2)))
    # The one that holds the first may begin years before.
    begin = first * 12 // months * months
    reach_ns = (months + 36) * 31 * _DAY_S * _SECOND_NS
    stretches = _stretches(zone, start_ns - reach_ns, end_ns + reach_ns)
    known = None
    for month in range(begin, last * 12 + months + 1, months):
        if month < 12:
            continue
        wall = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) - _UTC_1970
        edge = _instant(stretches, (wall.days * _DAY_S + wall.seconds) * _SECOND_NS)
        if edge != known:
            yield Run(edge, 1, 1)
        known = edge


def _instant(stretches: list[_Stretch], wall_ns: int) -> int:
    """Return when clocks show a time first; of one they leave out: when they do."""
    for stretch in stretches:
        if wall_ns - stretch.offset_ns < stretch.end_ns:
            return max(wall_ns - stretch.offset_ns, stretch.start_ns)
    raise AssertionError("the last stretch never ends")


def _runs(edges: Iterable[Run]) -> Iterator[Run]:
    """Yield buckets from edge to edge, those of equal length together."""
    known: Run | None = None
    for run, following in pairwise(run for run in edges if run.size > 0):
        last_ns = run.start_ns + (run.size - 1) * run.step_ns
        for found in (Run(run.start_ns, run.step_ns, run.size - 1), Run(last_ns, following.start_ns - last_ns, 1)):
            if known is not None and known.step_ns == found.step_ns:
                known = known._replace(size=known.size + found.size)
            elif found.size and found.step_ns:
                if known is not None:
                    yield known
                known = found
    if known is not None:
        yield known


def _clipped(runs: Iterable[Run], start_ns: int, end_ns: int) -> Iterator[Run]:
    """Yield only the buckets that hold anything of the range."""
    for run in runs:
        first = max((start_ns - run.start_ns) // run.step_ns, 0)
        end = min(-((run.start_ns - end_ns) // run.step_ns), run.size)
        if first < end:
            yield Run(run.start_ns + first * run.step_ns, run.step_ns, end - first)


def _stretches(zone: ZoneInfo | None, start_ns: int, end_ns: int) -> list[_Stretch]:
    """Return all time; changes of the zone's clocks are known about in the range, to a day."""
    found: list[_Stretch] = []
    begin_ns, offset_s = -_NEVER_NS, 0
    if zone is not None:
        years = range(max(_year(start_ns) - 1, _FIRST_YEAR), min(_year(end_ns) + 1, _LAST_YEAR) + 1)
        offset_s = _offset_s(zone, _year_begins(years[0]))
        for year in years:
            for at_s, new_s in _changes(zone, year):
                found.append(_Stretch(begin_ns, at_s * _SECOND_NS, offset_s * _SECOND_NS))
                begin_ns, offset_s = at_s * _SECOND_NS, new_s
    return [*found, _Stretch(begin_ns, _NEVER_NS, offset_s * _SECOND_NS)]


def _joined(stretches: list[_Stretch], step_ns: int) -> Iterator[_Stretch]:
    """Yield stretches, those together between which the grid goes on; then end with one that closes the last."""
    known = stretches[0]
    for stretch in stretches[1:]:
        if (stretch.offset_ns - known.offset_ns) % step_ns == 0:
            known = known._replace(end_ns=stretch.end_ns)
            continue
        yield known
        known = stretch
    yield known
    yield _Stretch(_NEVER_NS, 2 * _NEVER_NS, known.offset_ns)


@lru_cache(maxsize=_MAX_YEARS_KNOWN)
def _changes(zone: ZoneInfo, year: int) -> tuple[tuple[int, int], ...]:
    """Return (s since 1970, new offset) of each change in a UTC year; two within one day and back are not seen."""
    found = []
    begin = _year_begins(year)
    known = _offset_s(zone, begin)
    for low in range(begin, _year_begins(year + 1), _DAY_S):
        high = low + _DAY_S
        new = _offset_s(zone, high)
        if new == known:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _offset_s(zone, middle) == new else (middle, high)
        found.append((high, new))
        known = new
    return tuple(found)


def _offset_s(zone: ZoneInfo, second: int) -> int:
    offset = (_UTC_1970 + timedelta(seconds=second)).astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset at any time"
    return round(offset.total_seconds())


def _year_begins(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _UTC_1970).days * _DAY_S


def _year(time_ns: int) -> int:
    day = max(-200_000, min(time_ns // (_DAY_S * _SECOND_NS), 200_000))
    return (_UTC_1970 + timedelta(days=day)).year


def _up(time_ns: int, step_ns: int, phase_ns: int) -> int:
    """Return the first phase + k * step at or after a time."""
    return -((phase_ns - time_ns) // step_ns) * step_ns + phase_ns
