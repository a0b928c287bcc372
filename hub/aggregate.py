"""What each aggregate of a bucket says, made of what stores give of it.

Owns: `FUNCTIONS` and their definitions, across the borders of buckets, in the unit that is shown. Place: below
`bucket_page`, after `store.base`. Pure.

Between two readings a value is taken to change along a straight line; the borders of buckets cut that line. A counter's
rise since the reading before belongs to the bucket in which the later one arrived. So what adds up adds up: the
`increase` and the `integral` of a day are the sums of those of its hours, wherever a range or a page begins.

* ``mean`` (``avg``), ``min``, ``max``, ``count``, ``sum``, ``first``, ``last``: of the bucket's readings
* ``std``: their sample standard deviation (n - 1); null of a single one
* ``increase``: by how much a counter rose since the last reading before the bucket; where it falls it began at 0
* ``rate``: a second, since the last reading before the bucket: of channels whose kind is ``counter`` the increase, of
  others the difference; null when there is no other reading
* ``integral``: value * seconds (``integral_h``: value * hours: W become Wh) of the time between its readings and to
  those before and after; also in buckets that hold none but lie between two
* ``twa``: the time-weighted mean: the integral by the time that it covers
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hub.description import Scaling
from hub.errors import BadRequestError
from hub.store.accumulator import area_between, rise_between

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "min": ("min", "max"),
    "max": ("min", "max"),
    "mean": ("avg",),
    "avg": ("avg",),
    "count": ("count",),
    "sum": ("sum", "count"),
    "first": ("first",),
    "last": ("last",),
    "std": ("m2", "count"),
    "rate": ("first", "last", "first_ns", "last_ns", "rise"),
    "increase": ("first", "last", "first_ns", "last_ns", "rise"),
    "integral": ("first", "last", "first_ns", "last_ns", "area"),
    "integral_h": ("first", "last", "first_ns", "last_ns", "area"),
    "twa": ("first", "last", "first_ns", "last_ns", "area", "avg"),
}
FUNCTIONS = tuple(_NEEDS)
# What of the store is shown as it is, where nothing is scaled.
PLAIN = {"avg": "avg", "mean": "avg", **{name: name for name in ("min", "max", "count", "sum", "first", "last")}}
# What a reading before the bucket has a part in; and one after it.
LOOKS_BACK = frozenset({"rate", "increase", "integral", "integral_h", "twa"})
DRAWS_LINES = frozenset({"integral", "integral_h", "twa"})
_HOUR_S = 3600

Number = float | int


class Point(NamedTuple):
    """One reading that is a number, as it is stored."""

    time_ns: int
    value: Number


class Finished(NamedTuple):
    """A bucket's values in the order asked for; ``has_readings``: not only a line goes through it."""

    start_ns: int
    has_readings: bool
    values: tuple[Number | None, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one series is like beside its buckets.

    ``before``, ``after``: the nearest readings outside of [start_ns, end_ns), which holds all of them.
    """

    start_ns: int
    end_ns: int
    before: Point | None = None
    after: Point | None = None
    is_counter: bool = False
    scaling: Scaling | None = None


def check_functions(functions: Sequence[str]) -> None:
    """Raise `BadRequestError` when one is not known, or none is given."""
    unknown = [name for name in functions if name not in _NEEDS]
    if unknown or not functions:
        raise BadRequestError(f"agg {unknown[0][:40] if unknown else ''!r}: use {', '.join(FUNCTIONS)}")


def needs(functions: Sequence[str]) -> tuple[str, ...]:
    """Return what a store must be asked for, each once."""
    return tuple(dict.fromkeys(part for name in functions for part in _NEEDS[name]))


def finish(
    edges: Sequence[int],
    found: Mapping[int, Mapping[str, Number]],
    functions: Sequence[str],
    around: Surroundings,
) -> Iterator[Finished]:
    """Yield the buckets of one series that have anything to say, in order.

    Args:
        edges: where each bucket begins, and where the last one ends; only lines need them.
        found: what the store gave of those that hold readings, by where they begin; has all of `needs`.
    """
    lines = _lines(edges, found, around) if not DRAWS_LINES.isdisjoint(functions) else {}
    before = around.before
    for start_ns in sorted({*found, *lines}):
        parts = found.get(start_ns)
        line = lines.get(start_ns)
        if parts is not None:
            of = _Bucket(parts, before, line, around)
            yield Finished(start_ns, True, tuple(_DEFINITIONS[name](of) for name in functions))
            if "last_ns" in parts:
                before = Point(int(parts["last_ns"]), parts["last"])
        else:
            of = _Bucket({}, before, line, around)
            yield Finished(start_ns, False, tuple(_of_empty(name, of) for name in functions))


class _Line(NamedTuple):
    """The integral of the lines in a bucket, in value * seconds, and over how many seconds they go."""

    area: float
    seconds: float


class _Bucket(NamedTuple):
    parts: Mapping[str, Any]
    before: Point | None
    line: _Line | None
    around: Surroundings


def _lines(edges: Sequence[int], found: Mapping[int, Mapping[str, Number]], around: Surroundings) -> dict[int, _Line]:
    """Return by bucket the lines within and those between buckets, cut at the edges."""
    areas: dict[int, tuple[float, int]] = {}

    def add(start_ns: int, area: float, length_ns: int) -> None:
        known = areas.get(start_ns, (0.0, 0))
        areas[start_ns] = (known[0] + area, known[1] + length_ns)

    before = around.before
    for start_ns in sorted(found):
        parts = found[start_ns]
        first = Point(int(parts["first_ns"]), parts["first"])
        for piece in _cut(before, first, edges, around):
            add(*piece)
        before = Point(int(parts["last_ns"]), parts["last"])
        if before.time_ns > first.time_ns:
            add(start_ns, float(parts["area"]), before.time_ns - first.time_ns)
    for piece in _cut(before, around.after, edges, around):
        add(*piece)
    return {start_ns: _Line(area, length_ns / 1e9) for start_ns, (area, length_ns) in areas.items()}


def _cut(
    begin: Point | None, end: Point | None, edges: Sequence[int], around: Surroundings
) -> Iterator[tuple[int, float, int]]:
    """Yield (bucket, area, length in ns) of the line from one reading to the next, as far as it is in the range."""
    if begin is None or end is None:
        return
    low, high = max(begin.time_ns, around.start_ns), min(end.time_ns, around.end_ns)
    place = max(bisect_right(edges, low) - 1, 0)
    while low < high:
        upto = min(high, edges[place + 1])
        area = area_between(low, _value_at(begin, end, low), upto, _value_at(begin, end, upto))
        yield edges[place], area, upto - low
        low = upto
        place += 1


def _value_at(begin: Point, end: Point, time_ns: int) -> float:
    share = (time_ns - begin.time_ns) / (end.time_ns - begin.time_ns)
    # Not begin + share * difference: at the ends it is exactly the reading.
    return begin.value * (1 - share) + end.value * share


def _of_empty(name: str, of: _Bucket) -> Number | None:
    if name == "count":
        return 0
    return _DEFINITIONS[name](of) if name in DRAWS_LINES else None


def _shown(of: _Bucket, value: Number) -> Number:
    return value if of.around.scaling is None else of.around.scaling.value(value)


def _change(of: _Bucket, difference: float) -> float:
    return difference if of.around.scaling is None else of.around.scaling.difference(difference)


def _plain(name: str) -> Any:
    return lambda of: _shown(of, of.parts[name])


def _least(of: _Bucket) -> Number:
    # A negative scale makes the greatest stored value the least shown.
    return min(_shown(of, of.parts["min"]), _shown(of, of.parts["max"]))


def _greatest(of: _Bucket) -> Number:
    return max(_shown(of, of.parts["min"]), _shown(of, of.parts["max"]))


def _count(of: _Bucket) -> Number:
    return int(of.parts["count"])


def _sum(of: _Bucket) -> Number:
    scaling = of.around.scaling
    total: float = of.parts["sum"]
    return total if scaling is None else scaling.value(total) + scaling.offset * (of.parts["count"] - 1)


def _std(of: _Bucket) -> float | None:
    count = of.parts["count"]
    return abs(_change(of, math.sqrt(of.parts["m2"] / (count - 1)))) if count > 1 else None


def _increase(of: _Bucket) -> float:
    return _change(of, _risen(of))


def _risen(of: _Bucket) -> float:
    into = 0.0 if of.before is None else rise_between(of.before.value, of.parts["first"])
    return float(into + of.parts["rise"])


def _rate(of: _Bucket) -> float | None:
    parts = of.parts
    since = of.before or Point(parts["first_ns"], parts["first"])
    seconds = (parts["last_ns"] - since.time_ns) / 1e9
    if seconds <= 0:
        return None
    return _change(of, (_risen(of) if of.around.is_counter else parts["last"] - since.value) / seconds)


def _integral(of: _Bucket) -> float | None:
    if of.line is None:
        return None
    scaling = of.around.scaling
    return _change(of, of.line.area) + (0.0 if scaling is None else scaling.offset * of.line.seconds)


def _integral_h(of: _Bucket) -> float | None:
    found = _integral(of)
    return None if found is None else found / _HOUR_S


def _twa(of: _Bucket) -> Number:
    # A reading that no other is near of says all there is to say.
    return _shown(of, of.parts["avg"] if of.line is None else of.line.area / of.line.seconds)


_DEFINITIONS: Mapping[str, Any] = {
    "min": _least, "max": _greatest, "mean": _plain("avg"), "avg": _plain("avg"), "count": _count, "sum": _sum,
    "first": _plain("first"), "last": _plain("last"), "std": _std, "rate": _rate, "increase": _increase,
    "integral": _integral, "integral_h": _integral_h, "twa": _twa,
}  # fmt: skip
