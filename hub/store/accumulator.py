"""Aggregates and parts by buckets of time, from pages of rows: for a store whose engine cannot compute them.

Owns: what `AGGREGATES` and `PARTS` mean, said plainly; `store.buckets` computes the same from whole columns. Place:
after `store.base`. Pure, and without numpy. Memory: one page of rows and the buckets of the answer.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.store.base import AGGREGATES, PARTS, Bucket, Row

# Buckets of one answer, over all series: about 400 B each in memory, and half a second of the hub's time to write out.
MAX_ANSWER_BUCKETS = 500_000
# Rows of one page: about 2 MB in memory.
_PAGE_ROWS = 10_000


class Reads(Protocol):
    """The part of a `Store` that is needed here."""

    def read(self, series: Sequence[int], start_ns: int, end_ns: int, limit: int, /) -> list[Row]: ...


class Accumulator:
    """Adds up the numbers of one series in one bucket, in their order."""

    __slots__ = ("area", "count", "first", "first_ns", "last", "last_ns", "m2", "max", "mean", "min", "rise", "sum")

    def __init__(self, time_ns: int, value: float) -> None:
        self.first_ns = self.last_ns = time_ns
        self.first = self.last = self.min = self.max = value
        self.mean = self.sum = float(value)
        self.count = 1
        self.m2 = self.rise = self.area = 0.0

    def add(self, time_ns: int, value: float) -> None:
        """Add the next reading."""
        self.rise += rise_between(self.last, value)
        self.area += area_between(self.last_ns, self.last, time_ns, value)
        self.count += 1
        self.sum += value
        # Welford: the mean moves, and the squares with it; a difference of large sums would lose all digits.
        deviation = value - self.mean
        self.mean += deviation / self.count
        self.m2 += deviation * (value - self.mean)
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        self.last_ns, self.last = time_ns, value

    def values(self, functions: Sequence[str]) -> tuple[float | int, ...]:
        """Return what was asked for, in that order."""
        return tuple(self.sum / self.count if name == "avg" else getattr(self, name) for name in functions)


def aggregate_rows(
    store: Reads,
    series: Sequence[int],
    start_ns: int,
    end_ns: int,
    step_ns: int,
    functions: Sequence[str],
    *,
    origin_ns: int = 0,
    max_buckets: int = MAX_ANSWER_BUCKETS,
    is_one_by_one: bool = False,
) -> list[Bucket]:
    """Answer `Store.aggregate` from pages of `Store.read`.

    Args:
        is_one_by_one: read series by series: where asking costs less than putting the rows of all in order.
    """
    check_aggregate(functions, step_ns)
    found: dict[tuple[int, int], Accumulator] = {}
    for group in [[number] for number in sorted(set(series))] if is_one_by_one else [series]:
        for row in _rows(store, group, start_ns, end_ns):
            value = number_of(row.value)
            if value is None:
                continue
            key = ((row.time_ns - origin_ns) // step_ns, row.series)
            known = found.get(key)
            if known is not None:
                known.add(row.time_ns, value)
                continue
            found[key] = Accumulator(row.time_ns, value)
            check_buckets(len(found), max_buckets)
    return [
        Bucket(number, origin_ns + bucket * step_ns, found[bucket, number].values(functions))
        for bucket, number in sorted(found)
    ]


def _rows(store: Reads, series: Sequence[int], start_ns: int, end_ns: int) -> Iterator[Row]:
    limit = max(_PAGE_ROWS, 4 * len(series))
    while page := store.read(series, start_ns, end_ns, limit):
        yield from page
        if len(page) < limit:
            return
        start_ns = page[-1].time_ns + 1


def number_of(value: Value) -> float | int | None:
    """Return the value as a number: bools as 0 and 1, None for text."""
    if isinstance(value, str):
        return None
    return int(value) if isinstance(value, bool) else value


def rise_between(before: float, value: float) -> float:
    """Return by how much a counter rose: where it fell it began again at 0."""
    return float(value - before) if value >= before else max(float(value), 0.0)


def area_between(before_ns: int, before: float, time_ns: int, value: float) -> float:
    """Return the integral of the straight line between two readings, in value * seconds."""
    return (before + value) / 2 * ((time_ns - before_ns) / 1e9)


def check_aggregate(functions: Sequence[str], step_ns: int) -> None:
    """Raise `BadRequestError` when no store can answer this."""
    if not functions or step_ns < 1 or not set(functions).issubset((*AGGREGATES, *PARTS)):
        raise BadRequestError(
            f"aggregates {list(functions)} by {step_ns} ns: use {', '.join((*AGGREGATES, *PARTS))}, from 1 ns"
        )


def check_buckets(count: int, most: int) -> None:
    """Raise `BadRequestError` when an answer holds more than it may."""
    if count > most:
        raise BadRequestError(f"more than {most} buckets: use a larger bucket, a shorter range or fewer series")
