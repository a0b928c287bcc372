"""The readings of a series in order, from its chunks and from what is not sealed: one state of the store.

Owns: which chunks a range needs, and putting unsealed readings between them. Place: after `store.sealing`. Chunks do
not overlap, so only the unsealed readings are merged. No cursor stays open between two steps.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat

import numpy as np

from hub.store.base import Row
from hub.store.chunk import Readings
from hub.store.merge import NOTHING, merged, ordered, within
from hub.store.sealing import COLUMNS, ChunkRow, Parts

# Rows of the chunk table that are asked for at a time, at first and at most: a page needs one or two. Bodies come with
# them where they are needed, for beside a busy writer each statement may wait 5 ms for the interpreter lock.
_FIRST, _MOST = 4, 64
_BODIES = ", (SELECT body FROM part WHERE id = axis), (SELECT p.body FROM part p WHERE p.id = chunk.body)"
_INT_MAX, _INT_MIN = 2**63 - 1, -(2**63)


class Walk:
    """Walks over series of one state: ``connection`` is inside a read transaction, ``unsealed`` is of that state.

    Args:
        unsealed: by series, in the order they came.
    """

    def __init__(self, connection: sqlite3.Connection, unsealed: Mapping[int, Readings]) -> None:
        self._connection = connection
        self._unsealed = {series: ordered(readings) for series, readings in unsealed.items()}
        self._parts = Parts(connection)

    def runs(
        self,
        series: int,
        start_ns: int,
        end_ns: int,
        *,
        descending: bool = False,
        is_enough: Callable[[ChunkRow], bool] | None = None,
    ) -> Iterator[Readings | ChunkRow]:
        """Yield the readings of [start_ns, end_ns) as runs that each ascend, one behind the other, or before it.

        ``is_enough``: says that of a chunk its row is all that is needed; it is yielded then, if all of it counts.
        """
        rest = self._waiting(series, start_ns, end_ns)
        for row in self._chunks(series, start_ns, end_ns, descending, is_enough is None):
            if descending:
                rest, mine = _parted(rest, int(np.searchsorted(rest.times, row.t0)))
            else:
                mine, rest = _parted(rest, int(np.searchsorted(rest.times, row.t1, "right")))
            is_whole = not len(mine.times) and start_ns <= row.t0 and row.t1 < end_ns
            if is_enough is not None and is_whole and is_enough(row):
                yield row
                continue
            run = merged(within(self._parts.readings(row), start_ns, end_ns), mine)
            if len(run.times):
                yield run
        if len(rest.times):
            yield rest

    def rows(
        self, series: int, start_ns: int, end_ns: int, at_once: int, *, descending: bool, received: bool
    ) -> Iterator[Row]:
        """Yield the rows of the range; no more than ``at_once`` are held, and no chunk longer than to take those."""
        while True:
            found: list[Row] = []
            for run in self.runs(series, start_ns, end_ns, descending=descending):
                assert not isinstance(run, ChunkRow), "every chunk is decoded here"
                most = at_once - len(found)
                # A slice to -1 from 0 down would be empty: the order is turned afterwards.
                taken = run.part(slice(-most, None) if descending else slice(most))
                found += to_rows(series, taken.part(slice(None, None, -1)) if descending else taken, received)
                if len(found) >= at_once:
                    break
            yield from found
            if len(found) < at_once:
                return
            if descending:
                end_ns = found[-1].time_ns
            else:
                start_ns = found[-1].time_ns + 1

    def gained(self, series: int) -> int:
        """Return how many readings of a series are in no chunk: what sealing would add."""
        times = self._waiting(series, _INT_MIN, _INT_MAX + 1).times
        if not len(times):
            return 0
        chunks = self._chunks(series, int(times[0]), int(times[-1]) + 1, False)
        return len(times) - sum(int(np.isin(times, self._parts.axis(row)[0]).sum()) for row in chunks)

    def _waiting(self, series: int, start_ns: int, end_ns: int) -> Readings:
        found = self._unsealed.get(series)
        return NOTHING if found is None else within(found, start_ns, end_ns)

    def _chunks(
        self, series: int, start_ns: int, end_ns: int, descending: bool, are_decoded: bool = False
    ) -> Iterator[ChunkRow]:
        """Yield the rows of the chunks that may hold anything of the range; ``are_decoded``: nearly all of them."""
        low, high = max(start_ns, _INT_MIN), min(end_ns - 1, _INT_MAX)
        if low > high:
            return
        # The first may begin before the range.
        begin = "coalesce((SELECT max(t0) FROM chunk WHERE series = ?1 AND t0 <= ?2), ?2)"
        at_once = _FIRST
        while True:
            statement = f"""SELECT {COLUMNS} {_BODIES if are_decoded else ""} FROM chunk
                WHERE series = ?1 AND t0 >= {begin} AND t0 <= ?3 ORDER BY t0 {"DESC" if descending else "ASC"}
                LIMIT ?4"""  # noqa: S608
            rows = []
            for found in self._connection.execute(statement, (series, low, high, at_once)).fetchall():
                row = ChunkRow(*found[: len(ChunkRow._fields)])
                rows.append(row)
                if are_decoded:
                    self._parts.offer(row, *found[len(ChunkRow._fields) :])
            yield from (row for row in rows if row.t1 >= start_ns)
            if len(rows) < at_once or rows[-1].t0 in (_INT_MIN, _INT_MAX):
                return
            if descending:
                high = rows[-1].t0 - 1
            else:
                low, begin = rows[-1].t0 + 1, "?2"
            at_once = min(at_once * 4, _MOST)


def _parted(readings: Readings, at: int) -> tuple[Readings, Readings]:
    return readings.part(slice(at)), readings.part(slice(at, None))


def to_rows(series: int, readings: Readings, received: bool) -> Iterator[Row]:
    """Return the readings as rows, in their order."""
    times, values = readings.times.tolist(), readings.values.tolist()
    seconds = (second * 10**9 or None for second in readings.received.tolist()) if received else repeat(None)
    return map(Row._make, zip(repeat(series), times, values, seconds, strict=False))
