"""One question about history, as a person asks it: which parameters go together, and what each means.

Owns: the parameters of ``/v1/readings`` as text, their defaults and limits. Place: above `query`; REST and the command
line, which reads files too, ask the same here. Blocking, as `query`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from hub.aggregate import DRAWS_LINES, FUNCTIONS, check_functions
from hub.bucket_page import Cut, Question
from hub.errors import BadRequestError
from hub.fill import FILLS, parse_fill
from hub.grid import MAX_STEP_NS, even_grid, grid_of
from hub.model import Series
from hub.query import MAX_LIMIT, Answer, Query, parse_duration, parse_time, time_range
from hub.store.rollup import MINUTE_NS

# Rows of a page of readings unless asked otherwise: about 30 KiB.
USUAL_LIMIT = 1000
# Wider than any screen has pixels.
MAX_POINTS = 10_000
# Clocks of devices are a little ahead of the hub's; one that is years ahead must not stretch everybody's chart.
AHEAD_NS = 60 * 10**9
# A line through first, least, greatest and last of each pixel looks as if all readings were drawn.
POINT_FUNCTIONS = "min,max,first,last"
# What the first was is not known of dropped readings.
DROPPED_POINT_FUNCTIONS = "min,max,last"
BUCKET_FUNCTIONS = "avg"
_END_OF_TIME_NS = 2**63 - 1


class Reach(NamedTuple):
    """Of which time readings can have a part in an answer; ``as_of_ns``: when it was asked, if that changes it too."""

    start_ns: int
    end_ns: int
    as_of_ns: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Parameters as they are given; None = not given. ``descending``: newest first."""

    last: str | None = None
    start: str | None = None
    end: str | None = None
    at: str | None = None
    lookback: str | None = None
    bucket: str | None = None
    tz: str | None = None
    points: int | None = None
    agg: str | None = None
    fill: str | None = None
    limit: int | None = None
    page: str | None = None
    descending: bool = False
    received: bool = False
    raw: bool = False

    def answer(self, query: Query, series: Sequence[Series], now_ns: int) -> Answer:
        """Return what was asked for: readings, buckets, or the readings of one moment.

        Raises:
            BadRequestError: parameters that do not go together, or one out of its limits.
        """
        self._check()
        # A scale that is set meanwhile holds for all of the next answer, and for nothing of this one.
        series = [copy(s) for s in series]
        if self.at is not None:
            lookback_ns = None if self.lookback is None else parse_duration(self.lookback)
            at_ns = parse_time(self.at, now_ns)
            found = query.at(series, at_ns, lookback_ns, received=self.received, raw=self.raw)
            return replace(found, raw_from_ns=query.raw_from_ns(series, at_ns))
        start_ns, end_ns = time_range(self.start, self.end, self.last, now_ns)
        raw_from_ns = query.raw_from_ns(series, start_ns)
        if self.bucket is None and self.points is None:
            found = query.readings(
                series, start_ns, end_ns, USUAL_LIMIT if self.limit is None else self.limit,
                descending=self.descending, page=self.page, received=self.received, raw=self.raw,
            )  # fmt: skip
            return replace(found, raw_from_ns=raw_from_ns)
        functions = self._functions(raw_from_ns is not None)
        fill = parse_fill(self.fill or "none")
        if fill is not None and not self._has_start:
            raise BadRequestError("fill needs where to begin: add last, or from")
        start_ns, end_ns = self._span(query, series, start_ns, end_ns, now_ns)
        is_dropped = query.raw_from_ns(series, start_ns) is not None
        if is_dropped and self.points is not None:
            start_ns = start_ns // MINUTE_NS * MINUTE_NS
        cut = self._cut(start_ns, end_ns, len(series), MINUTE_NS if is_dropped else 1)
        question = Question(series, start_ns, end_ns, cut, functions, fill, self.raw)
        limit = MAX_LIMIT if self.limit is None else self.limit
        found = query.buckets(question, limit, self.page, descending=self.descending)
        return replace(found, raw_from_ns=raw_from_ns)

    def reach(self, now_ns: int) -> Reach:
        """Return of which time new readings can change the answer.

        Raises: as `answer`.
        """
        self._check()
        if self.at is not None:
            at_ns = parse_time(self.at, now_ns)
            return Reach(at_ns, at_ns + 1)
        start_ns, end_ns = time_range(self.start, self.end, self.last, now_ns)
        if self.bucket is None and self.points is None:
            return Reach(start_ns, end_ns)
        if self.fill == "linear" or not DRAWS_LINES.isdisjoint(self._functions(is_dropped=False)):
            # What comes next behind the range has a part in it.
            end_ns = _END_OF_TIME_NS
        # Empty buckets go on until now.
        is_growing = self.end is None and (self.fill is not None or self.points is not None)
        return Reach(start_ns, end_ns, now_ns if is_growing else 0)

    @property
    def _has_start(self) -> bool:
        return self.start is not None or self.last is not None

    def _check(self) -> None:
        """Raise when parameters exclude each other, or miss one."""
        is_cut = self.bucket is not None or self.points is not None
        ranged = ("last", "start", "end", "bucket", "points", "page", "limit")
        if self.at is not None and any(getattr(self, name) is not None for name in ranged):
            raise BadRequestError("at is one moment: leave out last, from, to, bucket, points, page and limit")
        if self.lookback is not None and self.at is None:
            raise BadRequestError("lookback says how old a reading may be at a moment: add at, or leave it out")
        if self.bucket is not None and self.points is not None:
            raise BadRequestError("use either bucket or points, not both")
        if self.tz is not None and self.bucket is None:
            raise BadRequestError("tz is of buckets: add bucket, e.g. 1d, or leave it out")
        if (self.agg is not None or self.fill is not None) and not is_cut:
            raise BadRequestError("agg and fill are of buckets: add bucket or points, or leave them out")
        if self.received and is_cut:
            raise BadRequestError("received is of single readings: leave out bucket and points, or received")
        if self.points is not None and not 1 <= self.points <= MAX_POINTS:
            raise BadRequestError(f"points {self.points}: use 1 to {MAX_POINTS}, about as many as pixels")
        if self.points is not None and (self.page is not None or self.limit is not None):
            raise BadRequestError("points come in one answer: leave out page and limit")

    def _functions(self, is_dropped: bool) -> list[str]:
        usual = BUCKET_FUNCTIONS
        if self.points is not None:
            usual = DROPPED_POINT_FUNCTIONS if is_dropped else POINT_FUNCTIONS
        functions = [name.strip() for name in (usual if self.agg is None else self.agg).split(",")]
        check_functions(functions)
        return functions

    def _span(self, query: Query, series: Sequence[Series], start_ns: int, end_ns: int, now_ns: int) -> tuple[int, int]:
        """Return the range without the time behind it in which there can be nothing, nor anything be filled."""
        newest_ns = query.newest_ns(series)
        is_whole = self.fill not in (None, "none") or (self.points is not None and self._has_start)
        if newest_ns is None and not is_whole:
            return start_ns, start_ns
        past_ns = start_ns if newest_ns is None else newest_ns + 1
        if not is_whole:
            end_ns = min(end_ns, past_ns)
        elif self.end is None:
            end_ns = max(now_ns, min(past_ns, now_ns + AHEAD_NS))
        if self.points is not None and not self._has_start:
            oldest_ns = query.oldest_ns(series, start_ns, end_ns)
            start_ns = end_ns if oldest_ns is None else oldest_ns
        return start_ns, end_ns

    def _cut(self, start_ns: int, end_ns: int, series: int, unit_ns: int) -> Cut:
        if self.points is not None:
            if self.points * series > MAX_LIMIT:
                raise BadRequestError(
                    f"{self.points} points of {series} series: an answer holds {MAX_LIMIT} rows; "
                    "use fewer points, or ask for fewer series at a time"
                )
            # Of dropped readings there are whole minutes. One point of all time is two: a step has 64 bits.
            step_ns = max(-(-(end_ns - start_ns) // (self.points * unit_ns)), 1) * unit_ns
            return partial(even_grid, start_ns, min(step_ns, MAX_STEP_NS // unit_ns * unit_ns))
        cut = partial(grid_of, str(self.bucket), self.tz)
        # So that a mistake is told where there is nothing to cut, too.
        cut(start_ns, start_ns + 1)
        return cut


AGG_HELP = f"With `bucket` or `points`: some of {', '.join(FUNCTIONS)}."
FILL_HELP = f"What stands in buckets without a reading: {', '.join(FILLS)} or a number."
