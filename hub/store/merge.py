"""Readings of one series put in order, merged, cut: what keeps chunks ascending, apart and of the right size.

Owns: "the last write wins", day borders, how large a chunk is, which chunk a late reading goes to. Place: after
`store.chunk`. Pure.

Rules. Within a chunk times ascend and none comes twice. Chunks of a series never overlap and never cross a day (UTC),
so a read needs no merge and a day can be dropped whole; where readings are dense they do not cross an hour. A chunk
that is half full is left alone by what comes behind it; what falls inside it, or behind one that has less, is merged
into it, and the result is cut again.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.store.chunk import Readings

DAY_NS = 86_400 * 10**9
# Beyond this bytes hardly fall, and a read of a few readings decodes more. Chunks have from half to twice as many where
# readings come often: to fill each up would be to write it twice.
FULL = 2048
# An hour with this part of `FULL` has chunks of its own: the smallest take a third more bytes a reading.
_LEAST_PART = 8
_HOUR_NS = 3600 * 10**9


NOTHING = Readings(np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.float64))


class Extent(NamedTuple):
    """Where a chunk lies and how many readings it has."""

    t0: int
    t1: int
    n: int


class Landing(NamedTuple):
    """Readings and the chunk that they go into: its index, or None for a chunk of their own."""

    owner: int | None
    readings: Readings


def ordered(readings: Readings) -> Readings:
    """Return the readings by time, of each instant the last one."""
    times = readings.times
    if bool((times[1:] > times[:-1]).all()):
        return readings
    order = np.argsort(times, kind="stable")
    by_time = times[order]
    is_last = np.append(by_time[1:] != by_time[:-1], True)
    return readings.part(order[is_last])


def merged(older: Readings, newer: Readings) -> Readings:
    """Return both in order; at the same instant the newer counts. Both must be `ordered`."""
    if not len(older.times) or not len(newer.times):
        return older if len(older.times) else newer
    return ordered(joined(older, newer))


def joined(*parts: Readings) -> Readings:
    """Return readings one behind the other; each value keeps its type."""
    if len(parts) == 1:
        return parts[0]
    values = [part.values for part in parts]
    if len({found.dtype for found in values}) > 1:
        values = [found.astype(object) for found in values]
    return Readings(
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.received for part in parts]),
        np.concatenate(values),
    )


def within(readings: Readings, start_ns: int, end_ns: int) -> Readings:
    """Return those of ordered readings with start_ns <= time < end_ns."""
    times = readings.times
    if not len(times) or (start_ns <= times[0] and times[-1] < end_ns):
        return readings
    first = np.searchsorted(times, max(start_ns, -(2**63)))
    last = np.searchsorted(times, min(end_ns, 2**63 - 1)) if end_ns < 2**63 else None
    return readings.part(slice(first, last))


def by_day(readings: Readings) -> list[Readings]:
    """Return ordered readings day by day."""
    days = readings.times // DAY_NS
    return _split(readings, np.flatnonzero(days[1:] != days[:-1]) + 1)


def cut(readings: Readings, full: int = FULL) -> list[Readings]:
    """Return ordered readings of one day as chunks: each of less than twice ``full``, and of ``full`` where it can be.

    Where an hour ends a chunk ends, if that hour has many readings: so the mean of an hour, and of a day, is made of
    what is known of whole chunks, without decoding one. Readings that come seldom cross hours.
    """
    hours = readings.times // _HOUR_NS
    ends = np.append(np.flatnonzero(hours[1:] != hours[:-1]) + 1, len(hours))
    is_many = np.diff(ends, prepend=0) >= max(full // _LEAST_PART, 2)
    is_many[-1] = False
    return [piece for part in _split(readings, ends[is_many]) for piece in _evenly(part, full)]


def _evenly(readings: Readings, full: int) -> list[Readings]:
    n = len(readings.times)
    pieces = max(n // full, 1)
    return _split(readings, np.arange(1, pieces) * n // pieces)


def land(readings: Readings, extents: Sequence[Extent], full: int = FULL) -> list[Landing]:
    """Return where ordered readings of one day go.

    Args:
        extents: of that day's chunks, by time: at least those from the last that begins at or before the first of the
            readings, up to the first that begins behind the last of them.
    """
    if not extents:
        return [Landing(None, readings)]
    owners = np.searchsorted([extent.t0 for extent in extents], readings.times, "right") - 1
    landings = []
    for part in _split(readings, np.flatnonzero(owners[1:] != owners[:-1]) + 1):
        owner = int(owners[np.searchsorted(readings.times, part.times[0])])
        extent = extents[max(owner, 0)]
        is_outside = owner < 0 or part.times[0] > extent.t1
        landings.append(Landing(None if is_outside and extent.n >= full // 2 else max(owner, 0), part))
    return _same_owner_once(landings)


def _same_owner_once(landings: list[Landing]) -> list[Landing]:
    # What lies before the first chunk goes into it, and so may what lies inside it.
    if len(landings) > 1 and landings[0].owner == landings[1].owner == 0:
        return [Landing(0, joined(landings[0].readings, landings[1].readings)), *landings[2:]]
    return landings


def _split(readings: Readings, at: NDArray[Any]) -> list[Readings]:
    edges = [0, *at.tolist(), len(readings.times)]
    return [readings.part(slice(first, last)) for first, last in pairwise(edges)]
