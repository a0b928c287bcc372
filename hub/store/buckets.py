"""Aggregates of one series by buckets of time, from runs of readings and from summaries of chunks.

Owns: what each function means. Place: after `store.walk`. Pure. Runs come in order, so of two that share a bucket the
second continues it. Bools count as 0 and 1, text is left out; least, greatest, first and last keep an int an int.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hub.store.base import Bucket
from hub.store.chunk import Kind, Readings, numbers_of, to_objects
from hub.store.sealing import ChunkRow, from_sql

_WITHOUT_FIRST = (Kind.FLOAT, Kind.INT, Kind.BOOL)
_INT_MAX = 2**63 - 1


class Buckets:
    """Adds up one series.

    Args:
        step_ns: buckets are [k * step_ns, (k + 1) * step_ns).
    """

    def __init__(self, series: int, step_ns: int, functions: Sequence[str]) -> None:
        self._series = series
        self._step_ns = step_ns
        self._functions = functions
        self._needs_first = "first" in functions
        # Per bucket: number, count, sum, least, greatest, first, last.
        self._found: list[list[Any]] = []

    def __len__(self) -> int:
        return len(self._found)

    def is_enough(self, row: ChunkRow) -> bool:
        """Tell whether a chunk's summary says all there is to say: it lies in one bucket."""
        return (
            not self._needs_first
            and row.vsum is not None
            and row.kind in _WITHOUT_FIRST
            and row.t0 // self._step_ns == row.t1 // self._step_ns
        )

    def add_chunk(self, row: ChunkRow) -> None:
        """Add a chunk of which `is_enough` is true."""
        last = from_sql(row.vlast)
        plain = int(last) if isinstance(last, bool) else last
        self._add([row.t0 // self._step_ns, row.n, row.vsum, row.vmin, row.vmax, None, plain])

    def add_run(self, run: Readings) -> None:
        """Add readings."""
        times, values = run.times, run.values
        if values.dtype.kind == "O":
            is_number = np.array([not isinstance(value, str) for value in values.tolist()], np.bool_)
            times, values = times[is_number], to_objects(values[is_number].tolist())
        if not len(times):
            return
        numbers = numbers_of(values)
        buckets = times // min(self._step_ns, _INT_MAX)
        begins = np.concatenate(([0], np.flatnonzero(buckets[1:] != buckets[:-1]) + 1))
        ends = np.append(begins[1:], len(times))
        columns = (
            buckets[begins], ends - begins, np.add.reduceat(numbers.astype(np.float64), begins),
            np.minimum.reduceat(numbers, begins), np.maximum.reduceat(numbers, begins), numbers[begins],
            numbers[ends - 1],
        )  # fmt: skip
        for bucket in zip(*(column.tolist() for column in columns), strict=True):
            self._add(list(bucket))

    def answer(self) -> Iterator[Bucket]:
        """Yield the buckets in order."""
        for number, count, total, least, greatest, first, last in self._found:
            values = {
                "avg": total / count, "min": least, "max": greatest, "count": count, "sum": total, "first": first,
                "last": last,
            }  # fmt: skip
            yield Bucket(self._series, number * self._step_ns, tuple(values[name] for name in self._functions))

    def _add(self, bucket: list[Any]) -> None:
        if not self._found or self._found[-1][0] != bucket[0]:
            self._found.append(bucket)
            return
        known = self._found[-1]
        known[1] += bucket[1]
        known[2] += bucket[2]
        known[3] = min(known[3], bucket[3])
        known[4] = max(known[4], bucket[4])
        known[6] = bucket[6]
