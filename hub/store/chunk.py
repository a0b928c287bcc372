"""Readings of one series ↔ bytes: a time axis, which several series may share, and a column of values.

Owns: the two layouts below, the codecs, the summary of a chunk. Place: first of the store's parts. Pure.
Round trips are exact to the bit: -0.0, infinities, a NaN's payload, integers to 2**63, empty strings.

Both, little-endian: u8 version | u8 codec | u32 n | u32 CRC-32 of all but itself | parts
    axis:   u32 bytes, times (i64 ns) | received (u32: whole seconds since 1970, 0 = not known)
    values: u8 columns | if more than one: u32 bytes, which column (u8) each reading is in | each column, in the order
            its readings come: u8 kind, u32 n, u32 bytes, packed values
    kinds:  1 f64 | 2 i64 | 3 bool, 8 a byte | 4 text: u32 bytes, lengths in bytes (u32), then UTF-8
A decoder believes no size: what it allocates is bounded by `MAX_READINGS` and `MAX_TEXT_BYTES`, and the checksum is
looked at first. Figures are in ``docs/decisions/0017-column-chunks.md``.
"""

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_sdk.reading import Value
from hub.errors import StoreError

try:
    from pcodec import ChunkConfig, standalone
except ImportError:  # where there is no wheel, e.g. on musl: a third larger, and readable everywhere
    _HAS_PCO = False
else:
    _HAS_PCO = True
    # Level 8, its default, takes twice the time for 1 % less.
    _PCO_CONFIG = ChunkConfig(compression_level=4)

VERSION = 1
# Readings of one chunk: sealing cuts at 4,096 at most; a write that is logged may hold more.
MAX_READINGS = 2**20
# Text of one chunk: 4,096 strings of the longest kind (1,024 characters) are 16 MiB.
MAX_TEXT_BYTES = 64 * 1024 * 1024
_ZLIB_LEVEL = 6
_HEAD = struct.Struct("<BBI")
_SIZE = struct.Struct("<I")
_COLUMN = struct.Struct("<BII")

Times = NDArray[np.int64]
Received = NDArray[np.uint32]
# float64, int64, bool, or object: then Python's own values, of one type or of several.
Values = NDArray[Any]


class ForeignChunkError(StoreError):
    """A chunk that is whole and cannot be read here: of a newer hub, or packed by what is not installed."""

    reason = "foreign_chunk"


class Codec(IntEnum):
    """How numbers are packed. `RAW` is for what lives minutes."""

    RAW = 0
    ZLIB = 1
    PCO = 2


class Kind(IntEnum):
    """What a chunk holds; MIXED: columns of several kinds."""

    FLOAT = 1
    INT = 2
    BOOL = 3
    STR = 4
    MIXED = 5


BEST_CODEC = Codec.PCO if _HAS_PCO else Codec.ZLIB
_DTYPES: dict[Kind, np.dtype[Any]] = {Kind.FLOAT: np.dtype("<f8"), Kind.INT: np.dtype("<i8")}
_KINDS = {float: Kind.FLOAT, int: Kind.INT, bool: Kind.BOOL, str: Kind.STR}
_LENGTH = np.dtype("<u4")


class Readings(NamedTuple):
    """Readings of one series: ``values[i]`` at ``times[i]`` (ns), received in the second ``received[i]``."""

    times: Times
    received: Received
    values: Values

    def part(self, chosen: Any) -> "Readings":
        """Return the readings of a slice, a mask or indices."""
        return Readings(self.times[chosen], self.received[chosen], self.values[chosen])


class Summary(NamedTuple):
    """What is known of a chunk without decoding it.

    ``vmin``, ``vmax``, ``vsum``: None unless all values are numbers or bools (which count as 0 or 1), none of them NaN.
    """

    t0: int
    t1: int
    n: int
    kind: Kind
    vmin: float | int | None
    vmax: float | int | None
    vsum: float | None
    vlast: Value


def to_values(values: Sequence[Value]) -> Values:
    """Return the values as an array that keeps each one's type."""
    kinds = set(map(type, values))
    kind = _KINDS[kinds.pop()] if len(kinds) == 1 else Kind.MIXED
    if kind in _DTYPES:
        return np.array(values, _DTYPES[kind])
    if kind is Kind.BOOL:
        return np.array(values, np.bool_)
    return to_objects(values)


def to_objects(values: Sequence[Value]) -> Values:
    """Return an array of Python's own values; said this way, for an array of equal strings would become text."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


def kind_of(values: Values) -> Kind:
    """Return what an array holds."""
    kind = values.dtype.kind
    if kind == "O":
        kinds = set(map(type, values.tolist()))
        return _KINDS[kinds.pop()] if len(kinds) == 1 else Kind.MIXED
    return {"f": Kind.FLOAT, "i": Kind.INT}.get(kind, Kind.BOOL)


def summarise(readings: Readings) -> Summary:
    """Return the summary of readings that ascend by time; there must be one."""
    times, values = readings.times, readings.values
    kind = kind_of(values)
    vmin: float | int | None = None
    vmax: float | int | None = None
    vsum: float | None = None
    if kind in (Kind.FLOAT, Kind.INT, Kind.BOOL):
        numbers = numbers_of(values)
        total = float(numbers.sum(dtype=np.float64))
        if total == total:
            vmin, vmax, vsum = numbers.min().item(), numbers.max().item(), total
    return Summary(int(times[0]), int(times[-1]), len(times), kind, vmin, vmax, vsum, values.tolist()[-1])


def numbers_of(values: Values) -> NDArray[Any]:
    """Return the array with bools as 0 and 1; text must be left out before. Of mixed ones each keeps its type."""
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    if values.dtype.kind == "O":
        plain = [int(v) if isinstance(v, bool) else v for v in values.tolist()]
        return to_values(plain) if plain else np.empty(0, np.float64)
    return values


def encode_axis(times: Times, received: Received, codec: Codec = BEST_CODEC) -> bytes:
    """Return the bytes of a time axis."""
    packed = _pack(times, codec)
    return _seal(codec, len(times), _SIZE.pack(len(packed)) + packed + _pack(received, codec))


def decode_axis(body: bytes) -> tuple[Times, Received]:
    """Return times and receive times.

    Raises:
        ForeignChunkError: the bytes are of a newer hub, or packed by a codec that is not installed.
        StoreError: they are damaged.
    """
    reader, codec, n = _open(body)
    times = _unpack(reader.sized(), codec, _DTYPES[Kind.INT], n)
    return times, _unpack(reader.rest(), codec, _LENGTH, n)


def encode_values(values: Values, codec: Codec = BEST_CODEC) -> bytes:
    """Return the bytes of a column of values."""
    if values.dtype.kind != "O":
        return _seal(codec, len(values), b"\x01" + _encode_column(kind_of(values), values, codec))
    plain = values.tolist()
    kinds = [_KINDS[type(value)] for value in plain]
    columns = sorted(set(kinds))
    parts = [bytes((len(columns),))]
    if len(columns) > 1:
        which = zlib.compress(bytes(columns.index(kind) for kind in kinds), _ZLIB_LEVEL)
        parts += (_SIZE.pack(len(which)), which)
    for kind in columns:
        column = to_values([value for value, found in zip(plain, kinds, strict=True) if found is kind])
        parts.append(_encode_column(kind, column, codec))
    return _seal(codec, len(plain), b"".join(parts))


def decode_values(body: bytes) -> Values:
    """Return the values; raises as `decode_axis`."""
    reader, codec, n = _open(body)
    (columns,) = reader.take(1)
    if columns == 1:
        _, values = _decode_column(reader, codec)
        _check(len(values) == n, "the column has another length")
        return values
    _check(2 <= columns <= len(_KINDS), f"{columns} columns")
    which = np.frombuffer(_inflate(reader.sized(), n), np.uint8)
    mixed = np.empty(n, object)
    for number in range(columns):
        _, values = _decode_column(reader, codec)
        mask = which == number
        _check(int(mask.sum()) == len(values), "a column has another length")
        mixed[mask] = to_objects(values.tolist())
    _check(int(which.max(initial=0)) < columns, "a reading in no column")
    return mixed


def refuse_foreign(body: bytes) -> None:
    """Raise `ForeignChunkError` if a body is whole and cannot be read here."""
    try:
        _open(body)
    except ForeignChunkError:
        raise
    except StoreError:
        return


def _encode_column(kind: Kind, values: Values, codec: Codec) -> bytes:
    if kind is Kind.BOOL:
        packed = _deflate(np.packbits(values.astype(np.bool_)).tobytes(), codec)
    elif kind is Kind.STR:
        texts = [text.encode("utf-8", "surrogatepass") for text in values.tolist()]
        lengths = _pack(np.array([len(text) for text in texts], _LENGTH), codec)
        packed = _SIZE.pack(len(lengths)) + lengths + _deflate(b"".join(texts), codec)
    else:
        packed = _pack(values, codec)
    return _COLUMN.pack(kind, len(values), len(packed)) + packed


def _decode_column(reader: "_Reader", codec: Codec) -> tuple[int, Values]:
    kind, n, size = _COLUMN.unpack(reader.take(_COLUMN.size))
    _check(n <= MAX_READINGS, f"{n} readings")
    packed = reader.take(size)
    if kind in _DTYPES:
        return kind, _unpack(packed, codec, _DTYPES[kind], n)
    if kind == Kind.BOOL:
        bits = np.frombuffer(_restore(packed, (n + 7) // 8, codec), np.uint8)
        return kind, np.unpackbits(bits, count=n).astype(np.bool_)
    _check(kind == Kind.STR, f"kind {kind}")
    return kind, to_objects(_texts(_Reader(packed), codec, n))


def _texts(reader: "_Reader", codec: Codec, n: int) -> list[str]:
    lengths = _unpack(reader.sized(), codec, _LENGTH, n)
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    size = ends[-1] if ends else 0
    _check(size <= MAX_TEXT_BYTES, f"{size} bytes of text")
    text = _restore(reader.rest(), size, codec)
    try:
        return [
            text[end - length : end].decode("utf-8", "surrogatepass") for length, end in zip(lengths, ends, strict=True)
        ]
    except UnicodeDecodeError as error:
        raise StoreError(f"a chunk is damaged: {error}") from error


def _pack(numbers: NDArray[Any], codec: Codec) -> bytes:
    if codec is Codec.PCO and _HAS_PCO:
        return bytes(standalone.simple_compress(np.ascontiguousarray(numbers), _PCO_CONFIG))
    if codec is Codec.RAW:
        return numbers.tobytes()
    # Neighbours share their highest bytes; times differ by much the same.
    bits = numbers.view(f"<u{numbers.itemsize}")
    if numbers.dtype.kind != "f":
        bits = np.diff(bits, prepend=bits.dtype.type(0))
    return zlib.compress(
        np.ascontiguousarray(bits).view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes(), _ZLIB_LEVEL
    )


def _unpack(packed: bytes, codec: Codec, dtype: np.dtype[Any], n: int) -> NDArray[Any]:
    if codec is Codec.PCO:
        return _unpack_pco(packed, dtype, n)
    plain = _restore(packed, n * dtype.itemsize, codec)
    if codec is Codec.RAW:
        return np.frombuffer(plain, dtype)
    planes = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, n)
    bits = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{dtype.itemsize}")
    if dtype.kind != "f":
        bits = np.cumsum(bits, dtype=bits.dtype)
    return bits.view(dtype)


def _unpack_pco(packed: bytes, dtype: np.dtype[Any], n: int) -> NDArray[Any]:
    numbers = np.empty(n, dtype)
    try:
        progress = standalone.simple_decompress_into(packed, numbers)
    except (RuntimeError, TypeError) as error:
        raise StoreError(f"a chunk is damaged: {error}") from error
    _check(progress.n_processed == n and progress.finished, "packed numbers of another length")
    return numbers


def _deflate(plain: bytes, codec: Codec) -> bytes:
    return plain if codec is Codec.RAW else zlib.compress(plain, _ZLIB_LEVEL)


def _restore(packed: bytes, size: int, codec: Codec) -> bytes:
    if codec is not Codec.RAW:
        return _inflate(packed, size)
    _check(len(packed) == size, f"{len(packed)} bytes instead of {size}")
    return packed


def _inflate(packed: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        # One byte more than there may be: so that the end of the stream is seen, and nothing longer is made.
        plain = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise StoreError(f"a chunk is damaged: {error}") from error
    _check(len(plain) == size and inflater.eof, f"{len(plain)} bytes instead of {size}")
    return plain


def _seal(codec: Codec, n: int, rest: bytes) -> bytes:
    assert n <= MAX_READINGS, "sealing and logging cut before"
    head = _HEAD.pack(VERSION, codec, n)
    return head + _SIZE.pack(zlib.crc32(rest, zlib.crc32(head))) + rest


def _open(body: bytes) -> tuple["_Reader", Codec, int]:
    reader = _Reader(body)
    head = reader.take(_HEAD.size)
    version, codec, n = _HEAD.unpack(head)
    (checksum,) = _SIZE.unpack(reader.take(_SIZE.size))
    rest = reader.rest()
    _check(zlib.crc32(rest, zlib.crc32(head)) == checksum, "its checksum is wrong")
    if version > VERSION or codec > max(Codec):
        raise ForeignChunkError(f"a chunk of version {version}, codec {codec} is of a newer hub: upgrade the hub")
    if codec == Codec.PCO and not _HAS_PCO:
        raise ForeignChunkError("a chunk is packed by pcodec, which is not installed here: pip install pcodec")
    _check(n <= MAX_READINGS, f"{n} readings")
    return _Reader(rest), Codec(codec), n


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise StoreError(f"a chunk is damaged: {what}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        _check(len(found) == size, "it ends early")
        self._at += size
        return found

    def sized(self) -> bytes:
        (size,) = _SIZE.unpack(self.take(_SIZE.size))
        return self.take(size)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)
