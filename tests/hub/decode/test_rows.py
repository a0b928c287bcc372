"""What may stand in the readings of a format, and whose it is."""

import pytest

from device_sdk.reading import Channel
from hub.decode.base import DecodeError, ForeignReading
from hub.decode.rows import MAX_ROWS, Rows, parts_of

T0 = 1_700_000_000 * 10**9


def test_readings_are_grouped_by_device() -> None:
    """In the order in which devices are named first, each with the place where it stands; nobody is the sender."""
    rows = Rows()
    for at, device in enumerate(["b", None, "b", "a"], 1):
        rows.add(at, device, "x", at, T0 + at)
    rows.channels["b", "x"] = Channel("x", "Cel")

    parts = parts_of(rows, "own")

    assert [(part.said.device, part.at) for part in parts] == [("b", [1, 3]), ("own", [2]), ("a", [4])]
    assert parts[0].said.readings == (ForeignReading("x", 1, T0 + 1), ForeignReading("x", 3, T0 + 3))
    assert [part.said.channels for part in parts] == [(Channel("x", "Cel"),), (), ()]


@pytest.mark.parametrize(
    ("value", "time_ns", "reason"),
    [
        (2**63, None, "out_of_range"), (float("inf"), None, "not_finite"), ("x" * 1025, None, "too_long"),
        ("é" * 600, None, "too_long"), (1, 5, "time_out_of_range"), (1, 2**70, "time_out_of_range"),
        ("\ud800", None, "malformed"), (b"x", None, "malformed"),
    ],
)  # fmt: skip
def test_what_no_store_holds_is_named(value: object, time_ns: int | None, reason: str) -> None:
    """By its place; it would otherwise take the frame that it is in with it."""
    rows = Rows()
    rows.add(7, "a", "x", value, time_ns)

    assert rows.rows == []
    assert [(fault.at, fault.reason) for fault in rows.faults] == [(7, reason)]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_value_is_no_fault(value: object) -> None:
    """A sensor that read nothing says so."""
    rows = Rows()
    rows.add(1, "a", "x", value, None)

    assert (rows.rows, rows.faults) == ([], [])


def test_rows_are_bounded() -> None:
    """Good ones and bad ones together: each is memory until it is stored or named."""
    rows = Rows()
    for at in range(MAX_ROWS):
        rows.add(at, "a", "x", at if at % 2 else 2**64, None)
    with pytest.raises(DecodeError, match=str(MAX_ROWS)):
        rows.add(1, "a", "x", 1, None)
    with pytest.raises(DecodeError, match=str(MAX_ROWS)):
        rows.fault(1, "malformed", "x")
