"""The store as simply as it can be said: a dict. The oracle of every engine.

Owns: `MemoryStore`. It passes the same contract suite as the engines, and
differential tests compare them with it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.model import LATE_TOLERANCE_NS, Frame
from hub.store.base import (
    AGGREGATES,
    PARTS,
    UNKNOWN_REVISION,
    Bucket,
    Revision,
    Row,
    SeriesCounters,
    StoreAccount,
    StoreStatistics,
)

MINUTE_NS, HOUR_NS = 60 * 10**9, 3600 * 10**9


class MemoryStore:
    """A `Store` in memory; nothing survives `close`."""

    def __init__(self) -> None:
        self.applied = 0
        self._values: dict[tuple[int, int], Value] = {}
        self._accepted: dict[int, int] = {}
        self._superseded: dict[int, int] = {}
        self._erased: dict[int, int] = {}
        self._late: dict[int, int] = {}
        self._received: dict[tuple[int, int], int] = {}
        # What was dropped is all still here: (time, series, value), as it came.
        self.dropped: list[tuple[int, int, Value]] = []
        self._raw_from: dict[int, int] = {}
        self._expired: dict[int, int] = {}
        self._merged: dict[int, int] = {}
        # Kept beside the rows: to look it up for each frame would cost a sort of them all.
        self._newest: dict[int, int] = {}

    def write(self, frames: Sequence[Frame]) -> None:
        """Store the readings of frames behind ``applied``."""
        for frame in frames:
            if frame.offset <= self.applied:
                continue
            newest = {c.series.id: self._newest[c.series.id] for c in frame.columns if c.series.id in self._newest}
            for series, time_ns, value in frame.rows():
                if time_ns < newest.get(series.id, time_ns) - LATE_TOLERANCE_NS:
                    self._late[series.id] = self._late.get(series.id, 0) + 1
                if time_ns < self._raw_from.get(series.id, time_ns):
                    self._merge(series.id, time_ns, value)
                    continue
                self._received[(time_ns, series.id)] = frame.received_ns
                self._newest[series.id] = max(time_ns, self._newest.get(series.id, time_ns))
                self._accepted[series.id] = self._accepted.get(series.id, 0) + 1
                if (time_ns, series.id) in self._values:
                    self._superseded[series.id] = self._superseded.get(series.id, 0) + 1
                self._values[(time_ns, series.id)] = value
            self.applied = frame.offset

    def sync(self) -> int:
        """Return ``applied``: memory has no disk to wait for."""
        return self.applied

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back."""
        self.applied = offset

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest row of each series."""
        newest = {row.series: row for row in self._rows(series)}
        return [newest[s] for s in series if s in newest]

    def read(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool = False,
        received: bool = False,
    ) -> list[Row]:
        """Return rows up to the first time border at or behind ``limit``."""
        rows = [row for row in self._rows(series) if start_ns <= row.time_ns < end_ns]
        if received:
            rows = [row._replace(received_ns=self._received[(row.time_ns, row.series)]) for row in rows]
        if descending:
            rows.reverse()
        border = next((i for i in range(limit, len(rows)) if rows[i].time_ns != rows[i - 1].time_ns), len(rows))
        return rows[:border]

    def aggregate(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        step_ns: int,
        functions: Sequence[str],
        *,
        origin_ns: int = 0,
    ) -> list[Bucket]:
        """Return buckets by (start, series)."""
        if not functions or step_ns < 1 or any(f not in (*AGGREGATES, *PARTS) for f in functions):
            raise BadRequestError("unknown aggregate or step")
        buckets: dict[tuple[int, int], list[tuple[int, int | float]]] = {}
        if any(start_ns < since for since in self.raw_from(series).values()):
            beyond = set(functions) - {"avg", "count", "sum", "min", "max", "last", "last_ns"}
            if beyond or step_ns % MINUTE_NS or origin_ns % MINUTE_NS:
                raise BadRequestError("dropped readings are kept by the minute")
        rows = [row[:3] for row in self._rows(series) if start_ns <= row.time_ns < end_ns]
        for time_ns, number, value in self.dropped:
            # A minute counts where it begins.
            if number in series and start_ns <= time_ns // MINUTE_NS * MINUTE_NS < end_ns:
                rows.append((number, time_ns, value))
        for number, time_ns, value in sorted(rows, key=lambda row: row[1]):
            if not isinstance(value, str):
                plain = int(value) if isinstance(value, bool) else value
                start = (time_ns - origin_ns) // step_ns * step_ns + origin_ns
                buckets.setdefault((start, number), []).append((time_ns, plain))
        return [
            Bucket(number, start, tuple(_aggregate(f, *zip(*readings, strict=True)) for f in functions))
            for (start, number), readings in sorted(buckets.items())
        ]

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield everything as one page."""
        rows = self.read(series, start_ns, end_ns, len(self._values) + 1, received=received)
        if rows:
            yield rows

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading."""
        return [
            SeriesCounters(
                s,
                self._accepted[s],
                self._superseded.get(s, 0),
                len(self._rows([s])),
                self._erased.get(s, 0),
                self._late.get(s, 0),
                self._expired.get(s, 0),
                self._merged.get(s, 0),
            )
            for s in sorted(series)
            if s in self._accepted
        ]

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series."""
        known = {c.series: (c.accepted, c.superseded, c.erased, c.late, c.expired) for c in self.counters(series)}
        return [known.get(number, UNKNOWN_REVISION) for number in series]

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters and position."""
        return StoreAccount(self.applied, self.counters(series))

    def largest_series(self) -> int:
        """Return the largest id that was ever accepted."""
        return max(self._accepted, default=0)

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series."""
        gone = self._rows(series)
        for row in gone:
            del self._values[(row.time_ns, row.series)]
            self._erased[row.series] = self._erased.get(row.series, 0) + 1
            self._newest.pop(row.series, None)
        self.dropped = [one for one in self.dropped if one[1] not in series]
        for number in series:
            self._raw_from.pop(number, None)
        return len(gone)

    def drop_before(self, series: Sequence[int], before_ns: int) -> int:
        """Drop all readings before the hour, but not the newest."""
        border_ns = before_ns // HOUR_NS * HOUR_NS
        count = 0
        for number in series:
            rows = self._rows([number])
            edge_ns = min(border_ns, rows[-1].time_ns) if rows else border_ns
            gone = [row for row in rows if row.time_ns < edge_ns]
            for row in gone:
                self.dropped.append((row.time_ns, number, self._values.pop((row.time_ns, number))))
            if gone:
                self._raw_from[number] = edge_ns
                self._expired[number] = self._expired.get(number, 0) + len(gone)
            count += len(gone)
        return count

    def drop_rollups_before(self, series: Sequence[int], before_ns: int) -> int:
        """Forget sums of thirty days."""
        border_ns = before_ns // (720 * HOUR_NS) * 720 * HOUR_NS
        kept = [one for one in self.dropped if one[1] not in series or one[0] >= border_ns]
        gone, self.dropped = len(self.dropped) - len(kept), kept
        return gone

    def give_back(self, keep_bytes: int) -> int:
        """There is nothing to give back."""
        return 0

    def seal(self) -> None:
        """Nothing waits."""

    def oldest(self, series: Sequence[int]) -> int | None:
        """Return the time of the oldest reading that may be dropped."""
        return min((row.time_ns for number in series for row in self._rows([number])[:-1]), default=None)

    def used_bytes(self) -> int:
        """It takes none."""
        return 0

    @property
    def keeps_all(self) -> bool:
        """It is new."""
        return False

    def day_of_sums(self, series: Sequence[int], start_ns: int, end_ns: int, *, descending: bool = False) -> int | None:
        """Return the first or last day of those that the range touches in which a number was dropped."""
        day_ns = 24 * HOUR_NS
        days = {
            time_ns // day_ns for time_ns, number, value in self.dropped
            if number in series and not isinstance(value, str) and start_ns < end_ns
            and start_ns // day_ns <= time_ns // day_ns <= (end_ns - 1) // day_ns
        }  # fmt: skip
        return (max if descending else min)(days) * day_ns if days else None

    def raw_from(self, series: Sequence[int]) -> dict[int, int]:
        """Return from when the readings of series are there."""
        return {number: self._raw_from[number] for number in series if number in self._raw_from}

    def statistics(self) -> StoreStatistics:
        """Return the figures of now."""
        return StoreStatistics(self.applied, len(self._values), 0)

    def close(self) -> None:
        """Forget everything."""
        self._values.clear()

    def _merge(self, series: int, time_ns: int, value: Value) -> None:
        self._accepted[series] += 1
        self._expired[series] = self._expired.get(series, 0) + 1
        self._merged[series] = self._merged.get(series, 0) + (not isinstance(value, str))
        self.dropped.append((time_ns, series, value))

    def _rows(self, series: Sequence[int]) -> list[Row]:
        """Return every row of the series, ordered by (time, series)."""
        wanted = set(series)
        return sorted(
            (Row(number, time_ns, value) for (time_ns, number), value in self._values.items() if number in wanted),
            key=lambda row: (row.time_ns, row.series),
        )


def _aggregate(function: str, times: Sequence[int], values: Sequence[int | float]) -> int | float:
    match function:
        case "avg":
            return sum(map(float, values)) / len(values)
        case "sum":
            return sum(map(float, values))
        case "count":
            return len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case _:
            return _part(function, times, values)


def _part(name: str, times: Sequence[int], values: Sequence[int | float]) -> int | float:
    pairs = list(pairwise(values))
    match name:
        case "first_ns":
            return times[0]
        case "last_ns":
            return times[-1]
        case "m2":
            mean = sum(map(float, values)) / len(values)
            return sum((value - mean) * (value - mean) for value in values)
        case "rise":
            return sum(float(b - a) if b >= a else max(float(b), 0.0) for a, b in pairs)
        case _:
            seconds = [(b - a) / 1e9 for a, b in pairwise(times)]
            return sum((a + b) / 2 * s for (a, b), s in zip(pairs, seconds, strict=True))
