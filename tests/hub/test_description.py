"""`hub.description`: every field has its bounds, and a scale does what it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.description import CHANNEL_FIELDS, DEVICE_FIELDS, check_channel, check_device, checked, scaling_of
from hub.errors import BadRequestError


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("label", " North house ", "North house"), ("site", "north", "north"), ("tags", ["b", "a", "b"], ("a", "b")),
     ("lat", 52, 52.0), ("notes", "two\nlines", "two\nlines")],
    ids=str,
)  # fmt: skip
def test_device_fields_are_kept_in_normal_form(name: str, value: object, kept: object) -> None:
    """Space around text goes, tags are a sorted set, numbers are floats."""
    assert checked(DEVICE_FIELDS, name, value) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [("label", ""), ("label", "x" * 101), ("label", "a\x1b[31m"), ("label", "\ud800"), ("label", 7),
     ("site", "two words"), ("tags", []), ("tags", "word"), ("tags", ["a:b"]),
     ("tags", [f"t{n}" for n in range(33)]), ("lat", 91), ("lon", math.nan), ("lat", True), ("notes", "x" * 2001),
     ("colour", "red")],
    ids=str,
)  # fmt: skip
def test_device_field_beyond_its_bounds_is_refused_by_name(name: str, value: object) -> None:
    """The error names the field."""
    with pytest.raises(BadRequestError, match=name):
        checked(DEVICE_FIELDS, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 0), ("scale", 1e13), ("scale", "2"), ("offset", math.inf), ("decimals", 1.5), ("decimals", 10),
     ("kind", "meter"), ("every_s", 0), ("every_s", 4e7), ("unit", "x" * 33), ("low", 10**400)],
    ids=str,
)  # fmt: skip
def test_channel_field_beyond_its_bounds_is_refused_by_name(name: str, value: object) -> None:
    """The error names the field."""
    with pytest.raises(BadRequestError, match=name):
        checked(CHANNEL_FIELDS, name, value)


def test_fields_must_agree() -> None:
    """A place has both coordinates, a range its low end below its high one."""
    with pytest.raises(BadRequestError, match="lon"):
        check_device({"lat": 1.0})
    with pytest.raises(BadRequestError, match="below"):
        check_channel({"low": 2.0, "high": 2.0})


def test_scale_gives_the_nearest_decimal() -> None:
    """Tenths of a degree are what a person would write: 3 · 0.1 is 0.3, and 215 · 0.1 − 40 is −18.5."""
    tenths = scaling_of(0.1, None)
    shifted = scaling_of(0.1, -40.0)

    assert tenths is not None
    assert shifted is not None
    assert (tenths.values([3, 7, 215]), shifted.value(215)) == ([0.3, 0.7, 21.5], -18.5)


def test_scale_of_one_is_none() -> None:
    """What changes nothing costs nothing."""
    assert scaling_of(1.0, 0.0) is None
    assert scaling_of(None, None) is None


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12),
    st.floats(-1e15, 1e15),
)
def test_scaled_values_are_finite_and_near(value: float, scale: float, offset: float) -> None:
    """Whatever the bounds allow, the result is a number JSON has, and that of the formula where that is one."""
    scaling = scaling_of(scale, offset)
    expected = value * scale + offset

    found = value if scaling is None else scaling.value(value)

    assert math.isfinite(found)
    if math.isfinite(expected):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-3)


@pytest.mark.parametrize("name", CHANNEL_FIELDS)
def test_value_nested_too_deep_to_write_is_refused(name: str) -> None:
    """What JSON may nest and Python cannot print is a wrong value like others, not a failure of the hub."""
    value: list[object] = []
    for _ in range(1500):
        value = [value]

    with pytest.raises(BadRequestError):
        checked(CHANNEL_FIELDS, name, value)
