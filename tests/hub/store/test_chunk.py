"""A column chunk gives back every bit it was given, and tells a damaged one from a right one."""

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import INT_MAX, INT_MIN, Value
from hub.errors import StoreError
from hub.store.chunk import (
    BEST_CODEC,
    MAX_READINGS,
    Codec,
    ForeignChunkError,
    Kind,
    Readings,
    decode_axis,
    decode_values,
    encode_axis,
    encode_values,
    refuse_foreign,
    summarise,
    to_objects,
    to_values,
)

CODECS = list(Codec)
INTS = st.integers(INT_MIN, INT_MAX)
TEXTS = st.text(max_size=20)
COLUMNS = st.one_of(
    st.lists(st.floats(width=64), min_size=1, max_size=60),
    st.lists(INTS, min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.lists(TEXTS, min_size=1, max_size=60),
    st.lists(st.one_of(st.floats(), INTS, st.booleans(), TEXTS), min_size=1, max_size=60),
)


def bits(values: list[Value]) -> list[tuple[type, object]]:
    """Return what makes a value what it is: its type, and of a float all of its bits."""
    return [(type(v), struct.pack("<d", v) if isinstance(v, float) else v) for v in values]


@pytest.mark.parametrize("codec", CODECS)
@given(values=COLUMNS)
def test_values_come_back_to_the_bit(codec: Codec, values: list[Value]) -> None:
    """Whatever types a column holds, alone or mixed: NaN, infinities and -0.0 included."""
    assert bits(decode_values(encode_values(to_values(values), codec)).tolist()) == bits(values)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([math.nan, struct.unpack("<d", b"\xef\xbe\0\0\0\0\xf8\x7f")[0], -0.0, 5e-324, -math.inf], id="f"),
        pytest.param([2**53 + 1, INT_MIN, INT_MAX, -1, 0], id="int"),
        pytest.param(["", "läuft", "a\x00b", "", "\ud800"], id="text"),
        pytest.param([1, 1.0, True, "1"], id="equal but not the same"),
    ],
)
def test_values_on_the_edge(codec: Codec, values: list[Value]) -> None:
    """A NaN's payload, integers that floats lack, empty strings, and four values that Python calls equal or alike."""
    assert bits(decode_values(encode_values(to_values(values), codec)).tolist()) == bits(values)


@pytest.mark.parametrize("codec", CODECS)
@given(pairs=st.lists(st.tuples(INTS, st.integers(0, 2**32 - 1)), max_size=60))
def test_axis_comes_back(codec: Codec, pairs: list[tuple[int, int]]) -> None:
    """Any times and receive times, in any order, none at all too."""
    times = np.array([t for t, _ in pairs], np.int64)
    received = np.array([r for _, r in pairs], np.uint32)

    found = decode_axis(encode_axis(times, received, codec))

    assert [a.tolist() for a in found] == [times.tolist(), received.tolist()]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        pytest.param([2.5, -1.0, 4.0], Kind.FLOAT, (-1.0, 4.0, 5.5, 4.0), id="float"),
        pytest.param([2**62, 2**62, 2**62], Kind.INT, (2**62, 2**62, 3.0 * 2**62, 2**62), id="int"),
        pytest.param([True, False, True], Kind.BOOL, (0, 1, 2.0, True), id="bool"),
        pytest.param(["a", "", "b"], Kind.STR, (None, None, None, "b"), id="text"),
        pytest.param([1, 2.5, True], Kind.MIXED, (None, None, None, True), id="mixed"),
        pytest.param([1.0, math.nan, 2.0], Kind.FLOAT, (None, None, None, 2.0), id="with NaN"),
    ],
)
def test_summary(values: list[Value], kind: Kind, expected: tuple[object, ...]) -> None:
    """First and last time, count, kind, least, greatest, sum and last value; of what has no sum only the last."""
    times = np.array([5, 6, 9], np.int64)

    found = summarise(Readings(times, np.zeros(3, np.uint32), to_values(values)))

    assert found[:4] == (5, 9, 3, kind)
    assert bits(list(found[4:])) == bits(list(expected))  # type: ignore[arg-type]


def test_objects_of_one_type_are_a_plain_column() -> None:
    """A column that was mixed before its corrections came is stored as what it is now."""
    assert encode_values(to_objects([1.5, 2.5])) == encode_values(to_values([1.5, 2.5]))


@pytest.mark.parametrize("codec", CODECS)
@given(values=COLUMNS, at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damage_is_an_error(codec: Codec, values: list[Value], at: float, flip: int) -> None:
    """One changed byte anywhere, a missing end, or bytes behind it: an error that says so, never other values."""
    body = encode_values(to_values(values), codec)
    place = int(at * len(body))
    damaged = bytearray(body)
    damaged[place] ^= flip
    for bad in (bytes(damaged), body[:place], body + b"\0"):
        with pytest.raises(StoreError, match="damaged"):
            decode_values(bad)


def sealed(codec: int, n: int, rest: bytes) -> bytes:
    """Return a body whose checksum is right, whatever it says."""
    head = struct.pack("<BBI", 1, codec, n)
    return head + struct.pack("<I", zlib.crc32(head + rest)) + rest


BOMB = zlib.compress(bytes(1_000_000))
LIES = {
    "too many readings": sealed(1, MAX_READINGS + 1, b"\x01" + struct.pack("<BII", 1, 1, 0)),
    "a column too long": sealed(1, 1, b"\x01" + struct.pack("<BII", 1, 2**32 - 1, 0)),
    "more than it says": sealed(1, 1, b"\x01" + struct.pack("<BII", 1, 1, len(BOMB)) + BOMB),
    "text without end": sealed(
        0, 2, b"\x01" + struct.pack("<BII", 4, 2, 12) + struct.pack("<III", 8, 2**32 - 1, 2**32 - 1)
    ),
    "no text": sealed(0, 1, b"\x01" + struct.pack("<BII", 4, 1, 9) + struct.pack("<II", 4, 1) + b"\xff"),
    "columns of nothing": sealed(0, 1, b"\x09"),
    "readings in no column": sealed(
        0, 1,
        b"\x02" + struct.pack("<I", len(zlib.compress(b"\x07"))) + zlib.compress(b"\x07")
        + 2 * struct.pack("<BII", 1, 0, 0),
    ),
    "an unknown kind": sealed(0, 1, b"\x01" + struct.pack("<BII", 9, 1, 0)),
    "no packed numbers": sealed(2, 1, b"\x01" + struct.pack("<BII", 1, 1, 4) + b"pco?"),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("lie", list(LIES))
def test_sizes_are_not_believed(lie: str) -> None:
    """Bytes that lie with a right checksum are an error, and no size in them makes anything large."""
    with pytest.raises(StoreError, match="damaged"):
        decode_values(LIES[lie])


def test_chunk_of_a_newer_hub_is_told_from_a_damaged_one() -> None:
    """A version or codec that is not known says what to do, if the checksum is right; else it is damage."""
    for place in (0, 1):
        newer = bytearray(encode_values(to_values([1.0])))
        newer[place] = 9
        refuse_foreign(bytes(newer))
        newer[6:10] = struct.pack("<I", zlib.crc32(newer[10:], zlib.crc32(newer[:6])))
        for look in (decode_values, refuse_foreign):
            with pytest.raises(ForeignChunkError, match="newer hub"):
                look(bytes(newer))


def test_pcodec_is_what_is_written_here() -> None:
    """Where its wheel is installed, and here it must be, chunks are packed by pcodec."""
    assert BEST_CODEC is Codec.PCO
