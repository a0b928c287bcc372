"""The readings of one write, by series, and their bytes in the log of what is not sealed yet.

Owns: frames → readings by series, which of them are late, the layout below. Place: after `store.base`. Pure.
It is plain arrays and lists: a frame may hold one reading, and numpy pays from thirty.

Log row, in the machine's byte order: u8 version | u32 series | u32 floats | u32 ints | u32 CRC-32 of all but itself
    | per series: i64 id | per series: u32 readings | per series: u32 late | per series: u8 kind
    | i64 times | u32 received | f64 floats | i64 ints | other values, as `store.chunk` has them
"""

import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import LATE_TOLERANCE_NS, Frame
from hub.store.chunk import Codec, decode_values, encode_values, to_objects
from hub.store.rollup import Overdue

_VERSION = 1
_HEAD = struct.Struct("=BIII")
_CHECKSUM = struct.Struct("=I")
_FLOATS, _INTS, _OTHERS = 1, 2, 3
# Receive times are whole seconds in 32 bits, which end in 2106; 0 = not known.
_MAX_SECOND = 2**32 - 1

Numbers: TypeAlias = "array[Any] | list[Value]"


@dataclass(slots=True)
class Piece:
    """Readings of one series in the order they came, with their least and greatest time; ``late``: how many were."""

    times: "array[int]"
    received: "array[int]"
    values: Numbers
    oldest_ns: int
    newest_ns: int
    late: int = 0


class Arrivals:
    """Collects the frames of one write.

    ``newest``: the greatest time of each series in it, earlier writes included. ``overdue``: those that come when
    their time was dropped; they are in no piece.

    Args:
        known: the greatest time of a series before this write, None when it has no reading.
        raw_from: series → from when its readings are there, of those of which some were dropped.
    """

    def __init__(self, known: Callable[[int], int | None], raw_from: Mapping[int, int] | None = None) -> None:
        self.pieces: dict[int, Piece] = {}
        self.newest: dict[int, int] = {}
        self.overdue: dict[int, Overdue] = {}
        self._known = known
        self._raw_from = raw_from or {}

    def add(self, frame: Frame) -> None:
        """Take the readings of the next frame."""
        t0, tick, second = frame.t0, frame.tick, to_second(frame.received_ns)
        for series_column in frame.columns:
            series, column = series_column.series.id, series_column.column
            dt = column.dt
            if type(dt) is range:
                first_ns, last_ns = t0 + dt[0] * tick, t0 + dt[-1] * tick
                times: Sequence[int] = range(first_ns, last_ns + 1, dt.step * tick)
            else:
                first_ns, last_ns = t0 + min(dt) * tick, t0 + max(dt) * tick
                times = [t0 + d * tick for d in dt]
            late = self._late(series, times, first_ns, last_ns)
            values: Sequence[Value] = column.values
            if first_ns < self._raw_from.get(series, first_ns):
                times, values = self._without_overdue(series, times, values, late)
                if not times:
                    continue
                first_ns, late = min(times), 0
            received = array("I", (second,)) * len(times)
            piece = self.pieces.get(series)
            if piece is None:
                self.pieces[series] = Piece(array("q", times), received, list(values), first_ns, last_ns, late)
                continue
            piece.times.extend(times)
            piece.received.extend(received)
            piece.values.extend(values)
            piece.oldest_ns, piece.newest_ns = min(piece.oldest_ns, first_ns), max(piece.newest_ns, last_ns)
            piece.late += late

    def finish(self) -> dict[int, Piece]:
        """Return the pieces by series; call once, behind the last frame."""
        for piece in self.pieces.values():
            piece.values = _typed(piece.values)
        return self.pieces

    def _without_overdue(
        self, series: int, times: Sequence[int], values: Sequence[Value], late: int
    ) -> tuple[list[int], list[Value]]:
        """Set aside what comes when its time was dropped; return the rest. All that is late is counted with it."""
        raw_from_ns = self._raw_from[series]
        overdue = self.overdue.setdefault(series, Overdue([]))
        overdue.late += late
        rest: tuple[list[int], list[Value]] = ([], [])
        for time_ns, value in zip(times, values, strict=True):
            if time_ns < raw_from_ns:
                overdue.readings.append((time_ns, value))
            else:
                rest[0].append(time_ns)
                rest[1].append(value)
        return rest

    def _late(self, series: int, times: Sequence[int], first_ns: int, last_ns: int) -> int:
        """Return how many readings are late, and take the newest."""
        newest = self.newest.get(series)
        if newest is None:
            newest = self._known(series)
        if newest is None or last_ns > newest:
            self.newest[series] = last_ns
        if newest is None:
            return 0
        edge = newest - LATE_TOLERANCE_NS
        self.newest.setdefault(series, newest)
        return 0 if first_ns >= edge else sum(time_ns < edge for time_ns in times)


def to_second(received_ns: int) -> int:
    """Return a receive time as it is kept."""
    return min(max(received_ns // 10**9, 0), _MAX_SECOND)


def encode(pieces: dict[int, Piece]) -> bytes:
    """Return a log row of finished pieces."""
    ids, counts, late, kinds = array("q"), array("I"), array("I"), bytearray()
    times, received, floats, ints = array("q"), array("I"), array("d"), array("q")
    others: list[Value] = []
    for series, piece in pieces.items():
        ids.append(series)
        counts.append(len(piece.times))
        late.append(piece.late)
        kinds.append(_kind(piece.values))
        times.extend(piece.times)
        received.extend(piece.received)
        target: Any = (floats, ints, others)[kinds[-1] - 1]
        target.extend(piece.values)
    tail = encode_values(to_objects(others), Codec.RAW) if others else b""
    rest = b"".join((*(a.tobytes() for a in (ids, counts, late)), kinds, *(a.tobytes() for a in (times, received)),
                     floats.tobytes(), ints.tobytes(), tail))  # fmt: skip
    head = _HEAD.pack(_VERSION, len(ids), len(floats), len(ints))
    return head + _CHECKSUM.pack(zlib.crc32(rest, zlib.crc32(head))) + rest


def decode(row: bytes) -> Iterator[tuple[int, Piece]]:
    """Yield (series, piece) of a log row.

    Raises:
        StoreError: the row is damaged, or of a newer hub.
    """
    begin = _HEAD.size + _CHECKSUM.size
    if len(row) < begin:
        raise StoreError(f"a log row of {len(row)} bytes is damaged")
    version, n, n_floats, n_ints = _HEAD.unpack_from(row)
    (checksum,) = _CHECKSUM.unpack_from(row, _HEAD.size)
    rest = row[begin:]
    if version != _VERSION or zlib.crc32(rest, zlib.crc32(row[: _HEAD.size])) != checksum:
        raise StoreError(f"a log row of version {version} is damaged, or of a newer hub")
    at = 0

    def take(code: str, count: int) -> "array[Any]":
        nonlocal at
        found: array[Any] = array(code)
        end = at + count * found.itemsize
        found.frombytes(rest[at:end])
        at = end
        return found

    ids, counts, late, kinds = take("q", n), take("I", n), take("I", n), take("B", n)
    total = sum(counts)
    times, received, floats, ints = take("q", total), take("I", total), take("d", n_floats), take("q", n_ints)
    others = decode_values(rest[at:]).tolist() if at < len(rest) else []
    ends, begin = [0, 0, 0], 0
    for series, count, late_count, kind in zip(ids, counts, late, kinds, strict=True):
        first, end = ends[kind - 1], begin + count
        ends[kind - 1] = first + count
        values: Any = (floats, ints, others)[kind - 1][first : first + count]
        of_series = times[begin:end]
        yield (
            series,
            Piece(of_series, received[begin:end], values, min(of_series), max(of_series), late_count),
        )
        begin = end


def _typed(values: Numbers) -> Numbers:
    kinds = set(map(type, values))
    if kinds == {float}:
        return array("d", values)
    return array("q", values) if kinds == {int} else values


def _kind(values: Numbers) -> int:
    return _OTHERS if isinstance(values, list) else {"d": _FLOATS, "q": _INTS}[values.typecode]
