"""What is written and not sealed yet, in memory, by series: small enough to be looked through at each question.

Owns: unsealed readings, their age and order, and which series are due. Place: after `store.arrivals`. Pure.
The log in the store's file holds the same; `Heads` is filled from it at start.
"""

from array import array
from collections.abc import Collection, Iterator

import numpy as np

from device_sdk.reading import Value
from hub.store.arrivals import Numbers, Piece
from hub.store.chunk import Readings, Values, to_values
from hub.store.merge import FULL


class Head:
    """Unsealed readings of one series, in the order they came.

    ``first``: the log row where they begin; ``since_s``: when, by the clock of whoever adds.
    """

    __slots__ = ("first", "late", "newest_ns", "newest_value", "oldest_ns", "received", "since_s", "times", "values")

    def __init__(self, first: int, since_s: float) -> None:
        self.first = first
        self.since_s = since_s
        self.times = array("q")
        self.received = array("I")
        self.values: Numbers = []
        self.late = 0
        self.oldest_ns = self.newest_ns = 0
        self.newest_value: Value = 0

    def __len__(self) -> int:
        return len(self.times)

    def add(self, piece: Piece) -> None:
        """Take further readings; the piece is the head's from then on."""
        if not self.times:
            self.times, self.received, self.values = piece.times, piece.received, piece.values
            self.oldest_ns, self.newest_ns = piece.oldest_ns, piece.newest_ns
        else:
            self.times.extend(piece.times)
            self.received.extend(piece.received)
            if _code(self.values) != _code(piece.values):
                self.values = list(self.values)
            self.values.extend(piece.values)
            self.oldest_ns = min(self.oldest_ns, piece.oldest_ns)
        if piece.newest_ns >= self.newest_ns:
            self.newest_ns, self.newest_value = piece.newest_ns, _value_at(piece, piece.newest_ns)
        self.late += piece.late

    def readings(self) -> Readings:
        """Return a copy of all, in the order they came."""
        return Readings(np.array(self.times, np.int64), np.array(self.received, np.uint32), _array(self.values))


class Heads:
    """The heads of all series; those whose readings have waited longest come first.

    Args:
        full: readings of a series that are due at once: a chunk's worth, which then need not be merged again.
    """

    def __init__(self, full: int = FULL) -> None:
        self._due_readings = full
        self._heads: dict[int, Head] = {}
        self._full: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[int]:
        return iter(self._heads)

    def get(self, series: int) -> Head | None:
        """Return the head of a series, None when all of it is sealed."""
        return self._heads.get(series)

    def add(self, row: int, series: int, piece: Piece, now_s: float) -> None:
        """Take the readings of a series that log row ``row`` holds."""
        head = self._heads.get(series)
        if head is None:
            head = self._heads[series] = Head(row, now_s)
        head.add(piece)
        if len(head) >= self._due_readings:
            self._full[series] = None

    def remove(self, series: int) -> None:
        """Forget what is sealed or erased."""
        self._heads.pop(series, None)
        self._full.pop(series, None)

    def first_row(self, otherwise: int, without: Collection[int]) -> int:
        """Return the first log row that is needed by others than some series; ``otherwise``: when none is."""
        # They begin in the order of their rows: the first of the dictionary is the oldest.
        return next((head.first for series, head in self._heads.items() if series not in without), otherwise)

    def due(self, most: int, since_s: float, before_row: int) -> list[int]:
        """Return at most ``most`` series to seal: full ones, then those since ``since_s`` or from rows before a row."""
        found = list(self._full)[:most]
        for series, head in self._heads.items():
            if len(found) >= most or (head.since_s > since_s and head.first >= before_row):
                break
            if series not in self._full:
                found.append(series)
        return found


def _code(values: Numbers) -> str:
    return "" if isinstance(values, list) else values.typecode


def _array(values: Numbers) -> Values:
    return to_values(values) if isinstance(values, list) else np.array(values)


def _value_at(piece: Piece, time_ns: int) -> Value:
    found: Value = piece.values[-1]
    if piece.times[-1] != time_ns:
        found = next(v for t, v in zip(reversed(piece.times), reversed(piece.values), strict=True) if t == time_ns)
    return found
