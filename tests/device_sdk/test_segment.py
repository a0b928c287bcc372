"""The record format: exact bytes, and reading on behind damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import INT_MAX, INT_MIN, Value
from device_sdk.segment import (
    MARK,
    ReadingDecoder,
    Scan,
    encode_header,
    encode_reading,
    encode_record,
    seed_of,
)
from device_sdk.uptime import UPTIME

SEED = seed_of(7)


def payloads(data: bytes, seed: int = SEED) -> list[bytes]:
    return [payload for payload, _ in Scan(data, seed)]


def test_record_is_these_bytes() -> None:
    """The format on disk does not change by accident: mark, length, crc, payload, little-endian."""
    assert encode_record(seed_of(0), b"abc").hex() == "a51e030000006597a4a3616263"


def test_reading_is_these_bytes() -> None:
    """Kind, time, value, name."""
    record = encode_reading(seed_of(0), b"t", 1, 1.5)

    assert record[10:].hex() == "01" + "0100000000000000" + "000000000000f83f" + "74"


@pytest.mark.parametrize("is_future", [False, True])
@pytest.mark.parametrize("value", [0.1, -0.0, 7, INT_MIN, INT_MAX, True, False, "", "öpen", "x" * 1024])
def test_reading_round_trips(value: Value, is_future: bool) -> None:
    """Every value comes back equal and of the same type."""
    (payload,) = payloads(encode_reading(SEED, b"channel-1", -5, value, is_future))

    entry = ReadingDecoder().decode(payload)

    assert entry == ("channel-1", -5, value)
    assert type(entry[2]) is type(value)


def test_decoder_knows_the_last_instant_that_was_not_in_the_future() -> None:
    """A header and readings of the past count; a time in the future does not, nor does it when it is a string."""
    decoder = ReadingDecoder()
    data = encode_header(SEED, 50) + encode_reading(SEED, b"t", 40, 1.0)
    data += encode_reading(SEED, b"t", 60, 1) + encode_reading(SEED, b"t", 99, "x", True)

    entries = [decoder.decode(payload) for payload in payloads(data)]

    assert entries == [None, ("t", 40, 1.0), ("t", 60, 1), ("t", 99, "x")]
    assert decoder.last_ns == 60


@pytest.mark.parametrize("value", [0.1, 7, True, "öpen"])
def test_reading_of_an_unset_clock_round_trips_and_is_no_last_instant(value: Value) -> None:
    """Its time is a position on the line of uptime; it must not make later real times wait behind it."""
    (payload,) = payloads(encode_reading(SEED, b"t", UPTIME + 5, value, True))
    decoder = ReadingDecoder()

    entry = decoder.decode(payload)

    assert entry == ("t", UPTIME + 5, value)
    assert type(entry[2]) is type(value)
    assert (decoder.last_ns, decoder.last_uptime) == (0, 5)


def test_decoder_passes_over_kinds_it_does_not_know() -> None:
    """A record of a later version is no reading and no error."""
    decoder = ReadingDecoder()

    assert [decoder.decode(payload) for payload in (b"", b"\x0drest", b"\xff")] == [None, None, None]


def test_record_of_another_file_is_damage() -> None:
    """Bytes of a deleted file, shown again by a damaged disk, are not believed."""
    scan = Scan(encode_record(seed_of(1), b"old"), seed_of(2))

    assert (list(scan), scan.damaged) == ([], 1)


@pytest.mark.parametrize(
    ("length", "limit"), [(0xFFFFFFFF, 4096), (5000, 4096), (60, 4096)], ids=["huge", "over the limit", "past the end"]
)
def test_length_that_lies_is_damage(length: int, limit: int) -> None:
    """A damaged length neither reads past the end nor hides the records behind it."""
    data = MARK + length.to_bytes(4, "little") + bytes(4) + encode_record(SEED, b"good")
    scan = Scan(data, SEED, max_bytes=limit)

    assert [payload for payload, _ in scan] == [b"good"]
    assert scan.damaged == 1


@given(
    st.lists(st.binary(max_size=40) | st.just(MARK * 3), min_size=1, max_size=8),
    st.data(),
)
def test_damage_costs_only_the_records_it_touches(contents: list[bytes], data: st.DataObject) -> None:
    """Any run of bytes overwritten with anything: every record outside it is read, in order."""
    records = [encode_record(SEED, content) for content in contents]
    stream = b"".join(records)
    start = data.draw(st.integers(0, len(stream) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=len(stream) - start))
    damaged = stream[:start] + garbage + stream[start + len(garbage) :]
    untouched, at = [], 0
    for content, record in zip(contents, records, strict=True):
        if at + len(record) <= start or at >= start + len(garbage):
            untouched.append(content)
        at += len(record)

    scan = Scan(damaged, SEED)
    found = [payload for payload, _ in scan]

    if damaged == stream:
        assert (found, scan.damaged) == (contents, 0)
    else:
        assert _is_subsequence(untouched, found)
        assert scan.damaged == 1


@given(st.binary(max_size=300))
def test_scan_of_anything_ends(data: bytes) -> None:
    """No bytes make the reader raise or loop."""
    scan = Scan(data, SEED)

    assert list(scan) == []
    assert scan.damaged == (1 if data else 0)


def _is_subsequence(part: list[bytes], whole: list[bytes]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)
