"""Readings of many series in a few flat arrays, series by series: what is written and not sealed yet.

Owns: `Block`, how blocks are joined and taken apart, the layout below. Place: after `store.chunk`. Pure.
A block is made of whole arrays, so a write costs the same for many series as for one; nothing is done for each of them.

Log row, in the machine's byte order: u8 version | u32 runs | u32 floats | u32 ints | u32 CRC-32 of all but itself
    | per run: i64 series | per run: u32 readings | per run: u32 late | per run: u8 kind
    | i64 times | u32 received | f64 floats | i64 ints | other values, as `store.chunk` has them
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.store.chunk import Codec, Readings, Values, decode_values, encode_values, to_objects, to_values

_VERSION = 1
_HEAD = struct.Struct("=BIII")
_CHECKSUM = struct.Struct("=I")

Ints = NDArray[np.int64]


class RunKind(IntEnum):
    """What the values of a run are: all floats, all integers, or anything."""

    FLOAT = 1
    INT = 2
    OTHER = 3


# Of an enumeration each look costs more than what is done with it.
_FLOAT, _INT = int(RunKind.FLOAT), int(RunKind.INT)


class Runs(NamedTuple):
    """Readings of series one behind the other, in the order they came; a series may have several runs.

    ``series``, ``counts``, ``late`` and ``kinds`` are by run, ``times`` (ns), ``received`` (whole seconds) and ``bits``
    by reading. ``bits``: a float's, an integer itself, or which of ``others`` it is.
    """

    series: Ints
    counts: Ints
    late: Ints
    kinds: NDArray[np.uint8]
    times: Ints
    received: NDArray[np.uint32]
    bits: Ints
    others: Sequence[Value]


class Block:
    """One run of each series, ascending by series; never changed."""

    def __init__(self, runs: Runs, ends: Ints | None = None, span: tuple[int, int] | None = None) -> None:
        self.runs = runs
        # Where the readings of each run end.
        self._ends: Ints = np.cumsum(runs.counts) if ends is None else ends
        self._span = span

    def __len__(self) -> int:
        return len(self.runs.times)

    def is_near(self, start_ns: int, end_ns: int) -> bool:
        """Return whether there may be a reading of [start_ns, end_ns): no for certain, yes perhaps."""
        if self._span is None:
            self._span = int(self.runs.times.min()), int(self.runs.times.max())
        # Of a part it is the whole's: parts are made with every slice that is sealed.
        return self._span[0] < end_ns and start_ns <= self._span[1]

    @property
    def series(self) -> Ints:
        """The series that have readings here, ascending."""
        return self.runs.series

    def between(self, first: int, behind: int) -> "Block | None":
        """Return the part of the series with ``first`` <= id < ``behind``; None when there is none."""
        begin, end = np.searchsorted(self.runs.series, (first, behind)).tolist()
        if begin == end:
            return None
        return self if (begin, end) == (0, len(self.runs.series)) else self._slice(begin, end)

    def select(self, wanted: NDArray[np.bool_]) -> "Block | None":
        """Return the part of the runs that a mask chooses; None when there is none."""
        runs = self.runs
        if not wanted.any():
            return None
        if wanted.all():
            return self
        chosen = np.repeat(wanted, runs.counts)
        return Block(
            Runs(
                runs.series[wanted], runs.counts[wanted], runs.late[wanted], runs.kinds[wanted],
                runs.times[chosen], runs.received[chosen], runs.bits[chosen], runs.others,
            )
        )  # fmt: skip

    def holds(self, series: Ints) -> NDArray[np.bool_]:
        """Return for each run whether it is of one of some series, which ascend; there must be one."""
        at = np.searchsorted(series, self.runs.series)
        found: NDArray[np.bool_] = series[np.minimum(at, len(series) - 1)] == self.runs.series
        return found

    def find(self, series: int) -> tuple[Readings, int] | None:
        """Return a series' readings in the order they came, and how many are late; None when it has none here."""
        runs = self.runs
        at = int(np.searchsorted(runs.series, series))
        if at == len(runs.series) or runs.series[at] != series:
            return None
        return self._readings(at), int(runs.late[at])

    def by_series(self) -> Iterable[tuple[int, tuple[Readings, int]]]:
        """Yield (series, what `find` returns of it)."""
        for at, (series, late) in enumerate(zip(self.runs.series.tolist(), self.runs.late.tolist(), strict=True)):
            yield series, (self._readings(at), late)

    @cached_property
    def greatest(self) -> Ints:
        """The greatest time of each run."""
        found: Ints = np.maximum.reduceat(self.runs.times, self._ends - self.runs.counts)
        return found

    def newest(self, chosen: Ints) -> list[tuple[int, int, Value]]:
        """Return (series, greatest time, value there) of some runs; of one instant the last value that came."""
        runs, greatest = self.runs, self.greatest[chosen]
        places = self._ends[chosen] - 1
        for at in np.flatnonzero(runs.times[places] != greatest).tolist():
            end = int(places[at]) + 1
            times = runs.times[end - int(runs.counts[chosen[at]]) : end]
            places[at] = end - 1 - int((times[::-1] == greatest[at]).argmax())
        bits, kinds = runs.bits[places], runs.kinds[chosen].tolist()
        values: list[Value] = [
            real if kind == _FLOAT else whole if kind == _INT else runs.others[whole]
            for kind, real, whole in zip(kinds, bits.view(np.float64).tolist(), bits.tolist(), strict=True)
        ]
        return list(zip(runs.series[chosen].tolist(), greatest.tolist(), values, strict=True))

    def least(self) -> Ints:
        """Return the least time of each run."""
        found: Ints = np.minimum.reduceat(self.runs.times, self._ends - self.runs.counts)
        return found

    def _readings(self, at: int) -> Readings:
        runs, end = self.runs, int(self._ends[at])
        begin = end - int(runs.counts[at])
        return Readings(runs.times[begin:end], runs.received[begin:end], self._values(at, begin, end))

    def _values(self, at: int, begin: int, end: int) -> Values:
        bits = self.runs.bits[begin:end]
        kind = self.runs.kinds[at]
        if kind == RunKind.OTHER:
            return to_values([self.runs.others[place] for place in bits.tolist()])
        return bits.view(np.float64) if kind == RunKind.FLOAT else bits

    def _slice(self, begin: int, end: int) -> "Block":
        runs = self.runs
        first = int(self._ends[begin] - runs.counts[begin])
        chosen = slice(first, int(self._ends[end - 1]))
        return Block(
            Runs(
                runs.series[begin:end], runs.counts[begin:end], runs.late[begin:end], runs.kinds[begin:end],
                runs.times[chosen], runs.received[chosen], runs.bits[chosen], runs.others,
            ),
            self._ends[begin:end] - first,
            self._span,
        )  # fmt: skip


def to_block(runs: Runs) -> Block:
    """Return runs in any order as a block: those of a series follow one another as they came. There must be one."""
    series, counts = runs.series, runs.counts
    if bool((series[1:] > series[:-1]).all()):
        return Block(runs)
    order = np.argsort(series, kind="stable")
    begins, sizes = (np.cumsum(counts) - counts)[order], counts[order]
    # Reading i of what is made is reading place[i] of what was.
    place = np.arange(len(runs.times)) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    by_series = series[order]
    firsts = np.flatnonzero(np.append(True, by_series[1:] != by_series[:-1]))
    bits, kinds, others = runs.bits[place], runs.kinds[order], runs.others
    if len(kinds) and bool((kinds != kinds[0]).any()):
        bits, kinds, others = _one_kind_each(bits, kinds, sizes, firsts, others)
    return Block(
        Runs(
            by_series[firsts], np.add.reduceat(sizes, firsts), np.add.reduceat(runs.late[order], firsts), kinds[firsts],
            runs.times[place], runs.received[place], bits, others,
        )
    )  # fmt: skip


def as_one(blocks: Sequence[Block]) -> Block:
    """Return blocks that came one behind the other as one; there must be one."""
    if len(blocks) == 1:
        return blocks[0]
    others: list[Value] = []
    bits = []
    for block in blocks:
        runs = block.runs
        is_moved = len(others) and len(runs.others)
        bits.append(_moved(runs, len(others)) if is_moved else runs.bits)
        others += runs.others
    each = [block.runs for block in blocks]
    return to_block(
        Runs(
            np.concatenate([runs.series for runs in each]), np.concatenate([runs.counts for runs in each]),
            np.concatenate([runs.late for runs in each]), np.concatenate([runs.kinds for runs in each]),
            np.concatenate([runs.times for runs in each]), np.concatenate([runs.received for runs in each]),
            np.concatenate(bits), others,
        )
    )  # fmt: skip


def encode(block: Block) -> bytes:
    """Return a log row."""
    runs = block.runs
    of_reading = np.repeat(runs.kinds, runs.counts)
    floats = runs.bits[of_reading == RunKind.FLOAT]
    ints = runs.bits[of_reading == RunKind.INT]
    others = [runs.others[place] for place in runs.bits[of_reading == RunKind.OTHER].tolist()]
    rest = b"".join((
        runs.series.tobytes(), runs.counts.astype(np.uint32).tobytes(), runs.late.astype(np.uint32).tobytes(),
        runs.kinds.tobytes(), runs.times.tobytes(), runs.received.tobytes(), floats.tobytes(), ints.tobytes(),
        encode_values(to_objects(others), Codec.RAW) if others else b"",
    ))  # fmt: skip
    head = _HEAD.pack(_VERSION, len(runs.series), len(floats), len(ints))
    return head + _CHECKSUM.pack(zlib.crc32(rest, zlib.crc32(head))) + rest


def decode(row: bytes) -> Block:
    """Return the block of a log row.

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

    def take(dtype: Any, count: int) -> NDArray[Any]:
        nonlocal at
        # A copy: where a row's parts begin they are not aligned.
        found = np.frombuffer(rest, dtype, count, at).copy()
        at += found.nbytes
        return found

    series, counts, late, kinds = take(np.int64, n), take(np.uint32, n), take(np.uint32, n), take(np.uint8, n)
    counts = counts.astype(np.int64)
    total = int(counts.sum())
    times, received = take(np.int64, total), take(np.uint32, total)
    floats, ints = take(np.int64, n_floats), take(np.int64, n_ints)
    others = decode_values(rest[at:]).tolist() if at < len(rest) else []
    of_reading = np.repeat(kinds, counts)
    bits = np.empty(total, np.int64)
    for kind, found in ((RunKind.FLOAT, floats), (RunKind.INT, ints), (RunKind.OTHER, np.arange(len(others)))):
        bits[of_reading == kind] = found
    return to_block(Runs(series, counts, late.astype(np.int64), kinds, times, received, bits, others))


def _moved(runs: Runs, by: int) -> Ints:
    """Return the bits of runs whose other values stand ``by`` places further on."""
    found: Ints = runs.bits + np.repeat(np.where(runs.kinds == RunKind.OTHER, by, 0), runs.counts)
    return found


def _one_kind_each(
    bits: Ints, kinds: NDArray[np.uint8], sizes: Ints, firsts: Ints, others: Sequence[Value]
) -> tuple[Ints, NDArray[np.uint8], Sequence[Value]]:
    """Make runs of a series that are not of one kind into others, each value as it is."""
    greatest = np.maximum.reduceat(kinds, firsts)
    is_mixed = np.repeat(greatest != np.minimum.reduceat(kinds, firsts), np.diff(firsts, append=len(kinds)))
    changed = np.flatnonzero(is_mixed & (kinds != RunKind.OTHER))
    if not len(changed):
        return bits, kinds, others
    found, ends = list(others), np.cumsum(sizes)
    kinds = kinds.copy()
    for run in changed.tolist():
        part = slice(int(ends[run] - sizes[run]), int(ends[run]))
        plain = (bits[part].view(np.float64) if kinds[run] == RunKind.FLOAT else bits[part]).tolist()
        bits[part] = np.arange(len(found), len(found) + len(plain))
        found += plain
        kinds[run] = RunKind.OTHER
    return bits, kinds, found
