"""`hub.unit`: codes become what people write."""

import pytest

from hub.unit import unit_shown


@pytest.mark.parametrize(
    ("code", "shown"),
    [("Cel", "°C"), ("%RH", "%"), ("W", "W"), ("Wh", "Wh"), ("hPa", "hPa"), ("lx", "lx"), ("1", ""),
     ("furlong", "furlong"), (None, None)],
    ids=str,
)  # fmt: skip
def test_codes_are_shown_as_people_write_them(code: str | None, shown: str | None) -> None:
    """A known code has its text, an unknown one is its own, none stays none."""
    assert unit_shown(code) == shown
