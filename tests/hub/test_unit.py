"""`hub.unit`: codes become what people write, and back."""

import pytest

from hub.unit import SHOWN, unit_code, unit_shown


@pytest.mark.parametrize(
    ("code", "shown"),
    [("Cel", "°C"), ("%RH", "%"), ("W", "W"), ("Wh", "Wh"), ("hPa", "hPa"), ("lx", "lx"), ("1", ""),
     ("furlong", "furlong"), (None, None)],
    ids=str,
)  # fmt: skip
def test_codes_are_shown_as_people_write_them(code: str | None, shown: str | None) -> None:
    """A known code has its text, an unknown one is its own, none stays none."""
    assert unit_shown(code) == shown


@pytest.mark.parametrize(
    ("shown", "code"),
    [("°C", "Cel"), ("ºC", "Cel"), ("\u03bcg/m³", "ug/m3"), ("\u00b5g/m³", "ug/m3"), (" kWh ", "kW.h"), ("%", "%"),
     ("W", "W"), ("F", "F"), ("furlong", "furlong"), ("", None)],
    ids=str,
)  # fmt: skip
def test_what_people_write_has_a_code(shown: str, code: str | None) -> None:
    """However they write it; what could be several things stays as it is."""
    assert unit_code(shown) == code


def test_code_of_what_is_shown_is_shown_alike() -> None:
    """The way back leads to the same unit."""
    assert [text for text in SHOWN.values() if unit_shown(unit_code(text)) not in (text, None)] == []
