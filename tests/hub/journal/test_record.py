"""A record holds a frame; a row holds records; damage is an error, never a wrong frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import JournalError
from hub.journal import record
from hub.model import Frame, Kind, Series, SeriesKey, StreamKey
from tests.support.frames import T0, FrameMaker


def no_series(key: SeriesKey) -> Series | None:
    """Find nothing."""
    return None


KEY = StreamKey("default", "pump", "9f3a000000000001")


def test_layout_is_fixed() -> None:
    """The layout on disk is what the docstring says; a change here needs a new schema version."""
    frame = Frame(KEY, 7, Kind.GAP, 5, b'{"op":"gap"}', bytes(range(16)), dropped=70, reason="spool_full")

    encoded = record.encode(frame, 3)

    assert encoded.hex() == (
        "0c000000" "02" "00" "0a00" "03000000" "00000000" "0700000000000000" "0500000000000000"
        "0000000000000000" "4600000000000000" "000102030405060708090a0b0c0d0e0f"
        + b'spool_full{"op":"gap"}'.hex()
    )  # fmt: skip
    assert record.HEAD_BYTES == 64
    frame.late = ((0, 7), (199, -2))
    late = record.encode(frame, 3)
    assert late == encoded[:5] + b"\x02" + encoded[6:74] + bytes.fromhex(
        "00" "0700000000000000" "c7" "feffffffffffffff"
    ) + encoded[74:]  # fmt: skip
    (entry,) = record.records(late)
    back = record.decode(entry, late, 1, KEY, no_series)
    assert (back.late, back.reason, back.body) == (frame.late, frame.reason, frame.body)


@given(
    st.lists(
        st.builds(
            Frame,
            key=st.just(KEY),
            seq=st.integers(1, 2**63 - 1),
            kind=st.sampled_from([Kind.GAP, Kind.QUARANTINE]),
            received_ns=st.integers(0, 2**63 - 1),
            body=st.binary(max_size=200),
            chain=st.binary(min_size=16, max_size=16),
            rejected_count=st.integers(0, 2**63 - 1),
            dropped=st.integers(0, 2**63 - 1),
            reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
        ),
        max_size=5,
    )
)
def test_row_of_records_comes_back(frames: list[Frame]) -> None:
    """Any frames in a row come back equal and in order."""
    row = b"".join(record.encode(frame, 9) for frame in frames)

    entries = list(record.records(row))

    assert all(entry.stream == 9 for entry in entries)
    assert [record.decode(entry, row, 0, KEY, no_series) for entry in entries] == frames


def test_decode_finds_series_by_name() -> None:
    """A batch's columns refer to the series of the stream's namespace and device and the column's channel."""
    maker = FrameMaker("acme")
    frame = maker.batch("pump", [("t", T0, 1.5), ("open", T0, True)])
    row = record.encode(frame, 1)

    (entry,) = record.records(row)

    assert record.decode(entry, row, 0, frame.key, maker.series.get) == frame
    with pytest.raises(JournalError, match="offset 4: no series for pump/t"):
        record.decode(entry, row, 4, frame.key, no_series)


@pytest.mark.parametrize("cut", [1, 63, 64, 70])
def test_truncated_row_is_an_error(cut: int) -> None:
    """A row that ends inside a record is damage and says so."""
    row = record.encode(FrameMaker().one("pump", 1.0), 1)

    with pytest.raises(JournalError, match="ends inside a record"):
        list(record.records(row + row[:cut]))


def test_damaged_body_is_an_error() -> None:
    """A batch body that is none any more is reported with its offset."""
    maker = FrameMaker()
    frame = maker.one("pump", 1.0)
    frame.body = b"{broken"
    row = record.encode(frame, 1)

    (entry,) = record.records(row)

    with pytest.raises(JournalError, match="offset 12: the body is damaged"):
        record.decode(entry, row, 12, frame.key, maker.series.get)


def test_long_reason_is_cut() -> None:
    """A reason longer than a sentence is cut; the body behind it stays whole."""
    frame = FrameMaker().gap("pump", 1, "x" * 100_000)
    row = record.encode(frame, 1)

    (entry,) = record.records(row)
    found = record.decode(entry, row, 0, frame.key, no_series)

    assert (len(found.reason), found.body) == (1000, frame.body)
