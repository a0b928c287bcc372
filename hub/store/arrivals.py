"""The readings of one write as a block, and what the store must know of them.

Owns: frames → block, which readings are late, which come when their time was dropped. Place: after `store.block`. Pure.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_sdk.reading import Value
from hub.model import LATE_TOLERANCE_NS, Frame, SeriesColumn
from hub.store.block import Block, Ints, RunKind, Runs, to_block
from hub.store.rollup import Overdue

# Receive times are whole seconds in 32 bits, which end in 2106; 0 = not known.
_MAX_SECOND = 2**32 - 1


class Arrivals(NamedTuple):
    """What came in one write.

    ``block``: None when all of it is overdue. ``newest``: the greatest time of each series in it, earlier writes
    included. ``overdue``: readings that come when their time was dropped; they are in no block.
    """

    block: Block | None
    newest: dict[int, int]
    overdue: dict[int, Overdue]


def gather(
    frames: Sequence[Frame],
    known: Callable[[Collection[int]], dict[int, int | None]],
    raw_from: Mapping[int, int] | None = None,
) -> Arrivals:
    """Return what frames bring, in their order.

    Args:
        known: returns the greatest time of each series before this write, None when it has no reading.
        raw_from: series → from when its readings are there, of those of which some were dropped.
    """
    columns = [column for frame in frames for column in frame.columns]
    if not columns:
        return Arrivals(None, {}, {})
    runs = _runs(frames, columns)
    late, newest, is_overdue = _placed(runs, known(set(runs.series.tolist())), raw_from or {})
    runs = runs._replace(late=late)
    if not is_overdue:
        return Arrivals(to_block(runs), newest, {})
    rest, overdue = _without_overdue(runs, columns, is_overdue)
    return Arrivals(to_block(rest) if len(rest.times) else None, newest, overdue)


def to_second(received_ns: int) -> int:
    """Return a receive time as it is kept."""
    return min(max(received_ns // 10**9, 0), _MAX_SECOND)


def _runs(frames: Sequence[Frame], columns: Sequence[SeriesColumn]) -> Runs:
    plain = [column.column for column in columns]
    counts = np.array([len(column.values) for column in plain], np.int64)
    a_frame = [len(frame.columns) for frame in frames]
    t0 = np.repeat(np.array([frame.t0 for frame in frames], np.int64), a_frame)
    tick = np.repeat(np.array([frame.tick for frame in frames], np.int64), a_frame)
    second = np.repeat(np.array([to_second(frame.received_ns) for frame in frames], np.uint32), a_frame)
    dt = np.array(list(chain.from_iterable(column.dt for column in plain)), np.int64)
    kinds, bits, others = _values([column.values for column in plain], counts)
    return Runs(
        np.array([column.series.id for column in columns], np.int64), counts, np.zeros(len(columns), np.int64), kinds,
        np.repeat(t0, counts) + dt * np.repeat(tick, counts), np.repeat(second, counts), bits, others,
    )  # fmt: skip


def _values(columns: Sequence[Sequence[Value]], counts: Ints) -> tuple[NDArray[np.uint8], Ints, Sequence[Value]]:
    """Return the kinds of columns, the bits of their readings, and what is neither float nor integer."""
    values = list(chain.from_iterable(columns))
    kind = _kind(values)
    if kind is RunKind.FLOAT:
        return np.full(len(columns), kind, np.uint8), np.array(values, np.float64).view(np.int64), ()
    if kind is RunKind.INT:
        return np.full(len(columns), kind, np.uint8), np.array(values, np.int64), ()
    kinds = np.array([_kind(column) for column in columns], np.uint8)
    of_reading = np.repeat(kinds, counts)
    bits = np.empty(len(values), np.int64)

    def those(kind: RunKind) -> list[Value]:
        chosen = (column for column, found in zip(columns, kinds.tolist(), strict=True) if found == kind)
        return list(chain.from_iterable(chosen))

    bits[of_reading == RunKind.FLOAT] = np.array(those(RunKind.FLOAT), np.float64).view(np.int64)
    bits[of_reading == RunKind.INT] = np.array(those(RunKind.INT), np.int64)
    others = those(RunKind.OTHER)
    bits[of_reading == RunKind.OTHER] = np.arange(len(others))
    return kinds, bits, others


def _kind(values: Sequence[Value]) -> RunKind:
    kinds = set(map(type, values))
    if kinds == {float}:
        return RunKind.FLOAT
    return RunKind.INT if kinds == {int} else RunKind.OTHER


def _placed(
    runs: Runs, newest: dict[int, int | None], raw_from: Mapping[int, int]
) -> tuple[Ints, dict[int, int], dict[int, int]]:
    """Return how many readings of each run are late, the newest time by series, and run → before when it is overdue."""
    begins = np.cumsum(runs.counts) - runs.counts
    firsts = np.minimum.reduceat(runs.times, begins).tolist()
    lasts = np.maximum.reduceat(runs.times, begins).tolist()
    late = np.zeros(len(begins), np.int64)
    is_overdue: dict[int, int] = {}
    for run, (series, first_ns, last_ns) in enumerate(zip(runs.series.tolist(), firsts, lasts, strict=True)):
        if raw_from and first_ns < raw_from.get(series, first_ns):
            is_overdue[run] = raw_from[series]
        before = newest[series]
        if before is None or last_ns > before:
            newest[series] = last_ns
        if before is not None and first_ns < before - LATE_TOLERANCE_NS:
            times = runs.times[begins[run] : begins[run] + runs.counts[run]]
            late[run] = np.count_nonzero(times < before - LATE_TOLERANCE_NS)
    return late, {series: time_ns for series, time_ns in newest.items() if time_ns is not None}, is_overdue


def _without_overdue(
    runs: Runs, columns: Sequence[SeriesColumn], is_overdue: Mapping[int, int]
) -> tuple[Runs, dict[int, Overdue]]:
    """Set aside what comes when its time was dropped. All that is late of such a run is counted with it."""
    begins = np.cumsum(runs.counts) - runs.counts
    stays = np.ones(len(runs.times), np.bool_)
    counts, late = runs.counts.copy(), runs.late.copy()
    found: dict[int, Overdue] = {}
    for run, raw_from_ns in is_overdue.items():
        part = slice(int(begins[run]), int(begins[run] + counts[run]))
        stays[part] = runs.times[part] >= raw_from_ns
        overdue = found.setdefault(int(runs.series[run]), Overdue([]))
        overdue.late += int(late[run])
        late[run], counts[run] = 0, np.count_nonzero(stays[part])
        times, values = runs.times[part].tolist(), columns[run].column.values
        overdue.readings += [pair for pair in zip(times, values, strict=True) if pair[0] < raw_from_ns]
    some = counts > 0
    rest = Runs(
        runs.series[some], counts[some], late[some], runs.kinds[some],
        runs.times[stays], runs.received[stays], runs.bits[stays], runs.others,
    )  # fmt: skip
    return rest, found
