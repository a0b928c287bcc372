"""What may be a reading is known before a hub is asked."""

import pytest

from device_sdk.reading import Value
from hub.importing.row import Blank, Row, RowError, checked, quoted

T0 = 1_700_000_000 * 10**9


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_value_is_a_blank(value: Value | None) -> None:
    """An empty cell or NaN is no reading and no fault, whatever stands beside it."""
    assert checked(7, "", "", 0, value) == Blank(7)


@pytest.mark.parametrize("value", [1.5, -(2**63), True, "x" * 1024, ""])
def test_what_a_hub_takes_is_taken(value: Value) -> None:
    """To the limits of the wire; an empty unit is none."""
    assert checked(7, "d", "c", T0, value, "") == Row(7, "d", "c", T0, value, None)


@pytest.mark.parametrize(
    ("device", "channel", "time_ns", "value", "unit", "word"),
    [
        ("a b", "c", T0, 1.0, None, "device"), ("d", "", T0, 1.0, None, "channel"), ("d", "c", 5, 1.0, None, "2000"),
        ("d", "c", T0, float("inf"), None, "infinite"), ("d", "c", T0, 2**63, None, "64 bits"),
        ("d", "c", T0, "é" * 513, None, "1024"), ("d", "c", T0, 1.0, "u" * 33, "unit"),
    ],
)  # fmt: skip
def test_what_no_hub_takes_is_said(
    device: str, channel: str, time_ns: int, value: Value, unit: str | None, word: str
) -> None:
    """The reason names what is wrong."""
    with pytest.raises(RowError, match=word):
        checked(7, device, channel, time_ns, value, unit)


def test_quotation_is_short() -> None:
    """Of a long line its beginning, without its end."""
    assert quoted("short\r\n") == "short"
    assert len(quoted("x" * 500)) == 81
