"""What stays of readings whose raw form was dropped: sums by minute and by hour, and their bytes.

Owns: what a sum holds, how sums add up, the layout below, which questions they can answer. Place: after
`store.accumulator`. Pure, and without numpy: a hub of plain rows has no other use for it.

Rules. A sum holds exactly what was dropped, raw rows hold exactly what was not: a bucket of both is their addition, and
nothing is ever computed twice. A minute belongs to a range when it begins in it, so ranges that follow each other give
each minute once, wherever they meet.

A block is the sums of one series and step over a day (minutes) or thirty (hours), little-endian: u8 version | u32 n |
u32 CRC-32 of all but itself | zlib of n values each of: place in the block less the one before (i64), count (i64), sum
(f64), time of the last within the step (i64), least, greatest, last (f64 or i64), and for these three which (u8).
Eight-byte values stand byte by byte: first all lowest bytes, then all second ones; so alike they are a third smaller.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import NamedTuple

from device_sdk.reading import Value
from hub.errors import BadRequestError, StoreError
from hub.store.accumulator import check_buckets, number_of
from hub.store.base import Bucket

MINUTE_NS, HOUR_NS = 60 * 10**9, 3600 * 10**9
# What a block of each step spans: so much is packed anew when anything of it changes, and unpacked to be read.
SPANS = {MINUTE_NS: 86_400 * 10**9, HOUR_NS: 30 * 86_400 * 10**9}
# What sums can say of dropped readings, and what must be asked of raw ones to add them. People ask for no ``last_ns``.
ANSWERED = frozenset({"avg", "count", "sum", "min", "max", "last"})
NEEDED = ("count", "sum", "min", "max", "last", "last_ns")

_VERSION = 1
_HEAD = struct.Struct("<BI")
_CHECKSUM = struct.Struct("<I")
# Minutes of a day: more is damage.
_MOST = 1440
_WORD = 8
_WORDS, _VALUES = 7, 3
_LEVEL = 6


class DamagedSumsError(StoreError):
    """Sums of dropped readings whose bytes are not those that were written."""

    reason = "damaged_sums"


class Sums(NamedTuple):
    """Of the dropped readings of one series in one step from ``start_ns``; least, greatest, last keep an int an int."""

    start_ns: int
    readings: int
    total: float
    least: float | int
    greatest: float | int
    last_ns: int
    last: float | int


@dataclass(slots=True)
class Overdue:
    """Readings of one series that came when those of their time were dropped; ``late``: of them, as ever."""

    readings: list[tuple[int, Value]]
    late: int = 0


def by_minute(readings: Iterable[tuple[int, Value]]) -> list[Sums]:
    """Return the minutes of (time, value) in any order; text is left out, of one instant the later one is the last."""
    found: dict[int, Sums] = {}
    for time_ns, value in readings:
        number = number_of(value)
        if number is not None:
            start_ns = time_ns // MINUTE_NS * MINUTE_NS
            one = Sums(start_ns, 1, float(number), number, number, time_ns, number)
            known = found.get(start_ns)
            found[start_ns] = one if known is None else added(known, one)
    return [found[start_ns] for start_ns in sorted(found)]


def added(older: Sums, newer: Sums) -> Sums:
    """Return both together, from where the older begins; ``newer`` came later, which counts at the same instant."""
    last = newer if newer.last_ns >= older.last_ns else older
    return Sums(
        older.start_ns,
        older.readings + newer.readings,
        older.total + newer.total,
        min(older.least, newer.least),
        max(older.greatest, newer.greatest),
        last.last_ns,
        last.last,
    )


def coarser(sums: Iterable[Sums], step_ns: int, origin_ns: int = 0, *, most: int | None = None) -> list[Sums]:
    """Return sums of a longer step; both kinds of borders must meet.

    Raises:
        BadRequestError: more than ``most``.
    """
    found: dict[int, Sums] = {}
    for one in sums:
        start_ns = (one.start_ns - origin_ns) // step_ns * step_ns + origin_ns
        known = found.get(start_ns)
        if known is not None:
            found[start_ns] = added(known, one)
            continue
        found[start_ns] = one._replace(start_ns=start_ns)
        if most is not None:
            check_buckets(len(found), most)
    return [found[start_ns] for start_ns in sorted(found)]


def check_answerable(raw_from_ns: int, step_ns: int, origin_ns: int, functions: Sequence[str]) -> None:
    """Raise `BadRequestError` when dropped readings would be needed; the message says what can be asked instead."""
    beyond = [name for name in functions if name not in ANSWERED and name not in NEEDED]
    if not beyond and step_ns % MINUTE_NS == 0 and origin_ns % MINUTE_NS == 0:
        return
    since = datetime.fromtimestamp(raw_from_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    what = f"{', '.join(beyond)} of them is not known" if beyond else "they are kept by the minute"
    raise BadRequestError(
        f"single readings before {since} were dropped (retention), and {what}: ask from {since} on, or for "
        f"{', '.join(sorted(ANSWERED))} in buckets of whole minutes, e.g. 1m or 1h"
    )


def combined(series: int, dropped: Iterable[Sums], raw: Iterable[Bucket], functions: Sequence[str]) -> list[Bucket]:
    """Return the buckets of one series from sums of its buckets and raw buckets that say `NEEDED`, as asked for."""
    found = {one.start_ns: (one.readings, one.total, one.least, one.greatest, one.last, one.last_ns) for one in dropped}
    for bucket in raw:
        count, total, least, greatest, last, last_ns = bucket.values
        known = found.get(bucket.start_ns)
        if known is not None:
            # Raw readings are behind all that was dropped: the last is theirs.
            count, total = known[0] + int(count), known[1] + total
            least, greatest = min(known[2], least), max(known[3], greatest)
        found[bucket.start_ns] = (int(count), total, least, greatest, last, int(last_ns))
    answer = []
    for start_ns in sorted(found):
        values = dict(zip(NEEDED, found[start_ns], strict=True))
        values["avg"] = values["sum"] / values["count"]
        answer.append(Bucket(series, start_ns, tuple(values[name] for name in functions)))
    return answer


def block_of(time_ns: int, step_ns: int) -> int:
    """Return the number of the block in which a time is."""
    return time_ns // SPANS[step_ns]


def encode(sums: Sequence[Sums], step_ns: int) -> bytes:
    """Return the bytes of a block: sums of one block, ascending, at least one."""
    begin_ns = block_of(sums[0].start_ns, step_ns) * SPANS[step_ns]
    starts, counts, totals, *values, lasts_ns, lasts = zip(*sums, strict=True)
    places = [(start_ns - begin_ns) // step_ns for start_ns in starts]
    steps = [place - before for before, place in zip([0, *places], places, strict=False)]
    within = [last_ns - start_ns for last_ns, start_ns in zip(lasts_ns, starts, strict=True)]
    codes = f"<{len(sums)}q", f"<{len(sums)}d"
    words = [struct.pack(codes[0], *steps), struct.pack(codes[0], *counts), struct.pack(codes[1], *totals)]
    words.append(struct.pack(codes[0], *within))
    kinds = b""
    for column in (*values, lasts):
        are_ints = bytes(isinstance(value, int) for value in column)
        kinds += are_ints
        words.append(struct.pack("<" + "".join("dq"[is_int] for is_int in are_ints), *column))
    body = zlib.compress(b"".join(_scattered(column) for column in words) + kinds, _LEVEL)
    head = _HEAD.pack(_VERSION, len(sums))
    return head + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head))) + body


def decode(body: bytes, block: int, step_ns: int) -> list[Sums]:
    """Return the sums of a block.

    Raises:
        DamagedSumsError: the bytes are damaged.
        StoreError: they are of a newer hub.
    """
    begin = _HEAD.size + _CHECKSUM.size
    if len(body) < begin:
        raise DamagedSumsError(f"a rollup of {len(body)} bytes is damaged")
    version, n = _HEAD.unpack_from(body)
    (checksum,) = _CHECKSUM.unpack_from(body, _HEAD.size)
    if zlib.crc32(body[begin:], zlib.crc32(body[: _HEAD.size])) != checksum:
        raise DamagedSumsError(f"a rollup of {len(body)} bytes is damaged: its checksum is wrong")
    if version != _VERSION or n > _MOST:
        raise StoreError(f"a rollup of version {version} is of a newer hub: upgrade the hub")
    plain = zlib.decompress(body[begin:])
    size = n * _WORD
    columns = [_gathered(plain[at : at + size]) for at in range(0, size * _WORDS, size)]
    steps, counts, within = (struct.unpack(f"<{n}q", columns[place]) for place in (0, 1, 3))
    totals = struct.unpack(f"<{n}d", columns[2])
    kinds = [plain[at : at + n] for at in range(size * _WORDS, size * _WORDS + n * _VALUES, n)]
    values = [
        struct.unpack("<" + "".join("dq"[is_int] for is_int in are_ints), column)
        for column, are_ints in zip(columns[4:], kinds, strict=True)
    ]
    begin_ns = block * SPANS[step_ns]
    starts = [begin_ns + place * step_ns for place in accumulate(steps)]
    lasts_ns = map(int.__add__, starts, within)
    return list(map(Sums._make, zip(starts, counts, totals, values[0], values[1], lasts_ns, values[2], strict=True)))


def _scattered(words: bytes) -> bytes:
    return b"".join(words[at::_WORD] for at in range(_WORD))


def _gathered(scattered: bytes) -> bytes:
    size = len(scattered) // _WORD
    words = bytearray(len(scattered))
    for at in range(_WORD):
        words[at::_WORD] = scattered[at * size : (at + 1) * size]
    return bytes(words)
