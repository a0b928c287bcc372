"""Frames are cut the same each time, and none is more than a hub takes."""

from collections.abc import Iterable

from device_sdk.columns import decode_batch
from device_sdk.reading import ValueType
from device_sdk.wire import MAX_CHANNELS, MAX_FRAME_BYTES
from hub.importing.cutter import BLOCK_READINGS, FRAME_READINGS, Cutter, Piece
from hub.importing.row import Row

T0 = 1_700_000_000 * 10**9


def cut(rows: Iterable[Row]) -> list[Piece]:
    """Cut as an upload does."""
    cutter, pieces = Cutter(), []
    for row in rows:
        cutter.add(row)
        if cutter.is_full:
            pieces += cutter.take()
    return pieces + cutter.take()


def rows(count: int, devices: int) -> list[Row]:
    """Return readings of devices in turn."""
    return [Row(2 + i, f"d{i % devices}", "t", T0 + i, float(i), "Cel") for i in range(count)]


def test_frames_hold_every_reading_in_its_order_with_its_line() -> None:
    """Numbers begin at 1 and have no gap; the channel is declared once; blocks are bounded."""
    given = rows(2 * BLOCK_READINGS + 5, 3)

    pieces = cut(given)

    for device in ("d0", "d1", "d2"):
        own = [piece for piece in pieces if piece.device == device]
        assert [piece.seq for piece in own] == list(range(1, len(own) + 1))
        assert [piece.channels for piece in own] == [{"t": ("Cel", ValueType.FLOAT)}] + [{}] * (len(own) - 1)
        read = [
            Row(line, device, "t", r.time_ns, r.value, "Cel")
            for piece in own
            for r, line in zip(decode_batch(piece.body).readings(), piece.lines["t"], strict=True)
        ]
        assert read == [row for row in given if row.device == device]
    assert max(piece.readings for piece in pieces) == FRAME_READINGS


def test_same_readings_are_the_same_frames() -> None:
    """What is stored of an import is known by number alone."""
    assert cut(rows(5000, 7)) == cut(rows(5000, 7))


def test_frames_of_long_texts_and_many_channels_fit() -> None:
    """Whatever stands in the file: control characters take six bytes each, a channel's name 128."""
    texts = [Row(i, "d", "t", T0 + i, "\x01" * 1000) for i in range(500)]
    wide = [Row(i, "w", f"{i:0128d}", T0, 1.0) for i in range(3000)]

    pieces = cut(texts + wide)

    assert max(len(piece.body) for piece in pieces) <= MAX_FRAME_BYTES
    assert sum(piece.readings for piece in pieces) == 3500
    assert sum(len(piece.channels) for piece in pieces if piece.device == "w") == MAX_CHANNELS


def test_unit_that_changes_is_declared_again() -> None:
    """As a device would."""
    (piece, *_) = cut([Row(1, "d", "t", T0, 1), Row(2, "d", "t", T0 + 1, 2, "Cel"), Row(3, "d", "t", T0 + 2, 3)])

    assert piece.channels == {"t": ("Cel", ValueType.INT)}
