"""Aggregates of one series by buckets of time, from runs of readings and from summaries of chunks.

Owns: what each function means. Place: after `store.walk`. Pure. Runs come in order, so of two that share a bucket the
second continues it. Bools count as 0 and 1, text is left out; least, greatest, first and last keep an int an int.
`store.accumulator` says the same reading by reading.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hub.store.accumulator import area_between, rise_between
from hub.store.base import PARTS, Bucket
from hub.store.chunk import Kind, Readings, Times, Values, numbers_of, to_objects
from hub.store.rollup import MINUTE_NS, Sums
from hub.store.sealing import ChunkRow, from_sql

_WITHOUT_FIRST = (Kind.FLOAT, Kind.INT, Kind.BOOL)
_INT_MAX = 2**63 - 1
# What no summary holds: each reading must be looked at.
_INNER = frozenset({"m2", "rise", "area"})
# Where each stands in a bucket; the average is put at its end.
_PLACES = {name: place for place, name in enumerate(("count", "sum", "min", "max", "first", "last", *PARTS), 1)}


class Buckets:
    """Adds up one series.

    Args:
        step_ns: buckets are [origin_ns + k * step_ns, origin_ns + (k + 1) * step_ns).
    """

    def __init__(self, series: int, step_ns: int, functions: Sequence[str], *, origin_ns: int = 0) -> None:
        self._series = series
        self._step_ns = step_ns
        self._origin_ns = origin_ns % step_ns
        self._functions = functions
        self._has_inner = not _INNER.isdisjoint(functions)
        self._needs_first = self._has_inner or "first" in functions
        # Two further columns for a fleet of single buckets are left out where nobody asks for them.
        self._has_times = self._has_inner or not {"first_ns", "last_ns"}.isdisjoint(functions)
        # Per bucket its number, then as `_PLACES` says, as far as it is asked for.
        self._found: list[list[Any]] = []

    def __len__(self) -> int:
        return len(self._found)

    def is_enough(self, row: ChunkRow) -> bool:
        """Tell whether a chunk's summary says all there is to say: it lies in one bucket."""
        return (
            not self._needs_first
            and row.vsum is not None
            and row.kind in _WITHOUT_FIRST
            and self._number(row.t0) == self._number(row.t1)
        )

    def add_chunk(self, row: ChunkRow) -> None:
        """Add a chunk of which `is_enough` is true."""
        last = from_sql(row.vlast)
        plain = int(last) if isinstance(last, bool) else last
        self._add([self._number(row.t0), row.n, row.vsum, row.vmin, row.vmax, None, plain, row.t0, row.t1])

    def add_run(self, run: Readings) -> None:
        """Add readings."""
        times, values = run.times, run.values
        if values.dtype.kind == "O":
            is_number = np.array([not isinstance(value, str) for value in values.tolist()], np.bool_)
            times, values = times[is_number], to_objects(values[is_number].tolist())
        if not len(times):
            return
        numbers = numbers_of(values)
        buckets = self._numbers(times)
        begins = np.concatenate(([0], np.flatnonzero(buckets[1:] != buckets[:-1]) + 1))
        ends = np.append(begins[1:], len(times))
        columns = [
            buckets[begins], ends - begins, np.add.reduceat(numbers.astype(np.float64), begins),
            np.minimum.reduceat(numbers, begins), np.maximum.reduceat(numbers, begins), numbers[begins],
            numbers[ends - 1],
        ]  # fmt: skip
        if self._has_times:
            columns += (times[begins], times[ends - 1])
        if self._has_inner:
            columns += _inner(times, numbers, begins)
        for bucket in zip(*(column.tolist() for column in columns), strict=True):
            self._add(list(bucket))

    def answer(self) -> Iterator[Bucket]:
        """Yield the buckets in order; call it once."""
        places = [_PLACES.get(name, -1) for name in self._functions]
        for bucket in self._found:
            bucket.append(bucket[2] / bucket[1])
            start_ns = self._origin_ns + bucket[0] * self._step_ns
            yield Bucket(self._series, start_ns, tuple([bucket[place] for place in places]))

    def _number(self, time_ns: int) -> int:
        return (time_ns - self._origin_ns) // self._step_ns

    def _numbers(self, times: Times) -> Times:
        step_ns = min(self._step_ns, _INT_MAX)
        numbers = times // step_ns
        if self._origin_ns:
            # The origin is not taken off the times, for the difference may be beyond 64 bits.
            numbers -= np.remainder(times, step_ns) < self._origin_ns
        return numbers

    def _add(self, bucket: list[Any]) -> None:
        if not self._found or self._found[-1][0] != bucket[0]:
            self._found.append(bucket)
            return
        known = self._found[-1]
        if self._has_inner:
            _join(known, bucket)
        known[1] += bucket[1]
        known[2] += bucket[2]
        known[3] = min(known[3], bucket[3])
        known[4] = max(known[4], bucket[4])
        known[6] = bucket[6]
        if self._has_times:
            known[8] = bucket[8]


def minutes_of(run: Readings) -> list[Sums]:
    """Return the sums of readings by minute."""
    buckets = Buckets(0, MINUTE_NS, ("count", "sum", "min", "max", "last_ns", "last"))
    buckets.add_run(run)
    return [Sums(bucket.start_ns, *bucket.values) for bucket in buckets.answer()]  # type: ignore[arg-type]


def _inner(times: Times, numbers: Values, begins: NDArray[np.intp]) -> tuple[NDArray[np.float64], ...]:
    """Return m2, rise and area within each bucket of a run."""
    values = numbers.astype(np.float64)
    counts = np.diff(np.append(begins, len(values)))
    steps = _steps(numbers) if numbers.dtype.kind == "i" else np.diff(values)
    # Ascending times: their difference is right without a sign, however far they are apart.
    seconds = np.diff(times.view(np.uint64)) / 1e9
    rise, area = np.zeros_like(values), np.zeros_like(values)
    # An infinite reading makes what it touches infinite or no number, and is no reason to warn.
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = values - np.repeat(np.add.reduceat(values, begins) / counts, counts)
        rise[1:] = np.where(values[1:] >= values[:-1], steps, np.maximum(values[1:], 0))
        area[1:] = (values[1:] + values[:-1]) / 2 * seconds
        # What leads into a bucket is not within it.
        rise[begins] = area[begins] = 0
        found = (deviations * deviations, rise, area)
        return tuple(np.add.reduceat(column, begins) for column in found)


def _steps(numbers: Values) -> NDArray[np.float64]:
    """Return how far each int is above the one before; of one that is below, nothing that means anything."""
    return np.diff(numbers.view(np.uint64)).astype(np.float64)


def _join(known: list[Any], bucket: list[Any]) -> None:
    """Add to a bucket what is inside of its continuation, and what lies between; both as they were."""
    _, count, total, _, _, _, last, _, last_ns, m2, rise, area = known
    _, more, more_total, _, _, first, _, first_ns, _, more_m2, more_rise, more_area = bucket
    deviation = more_total / more - total / count
    known[9] = m2 + more_m2 + deviation * deviation * (count * more / (count + more))
    known[10] = rise + more_rise + rise_between(last, first)
    known[11] = area + more_area + area_between(last_ns, last, first_ns, first)
