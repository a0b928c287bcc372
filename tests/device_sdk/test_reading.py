"""Names, values and times: what is accepted, what is skipped, what is refused and how it says so."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.errors import MisuseError
from device_sdk.reading import (
    INT_MAX,
    INT_MIN,
    Value,
    ValueType,
    check_channel_name,
    check_device_name,
    check_value,
    to_time_ns,
    type_of,
)


class _Scalar:
    """What numpy gives: a value inside an object with ``item()``."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


class _Celsius(float):
    """A float subclass of a sensor library."""


@pytest.mark.parametrize("name", ["a", "A", "0", "greenhouse-7", "a.b_c-d", "x" * 64])
def test_device_name_is_accepted(name: str) -> None:
    """Letters, digits, '_', '.', '-', beginning with a letter or digit."""
    assert check_device_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a b", "a/b", "a\n", "é", "x" * 65, None, 5])
def test_device_name_is_refused(name: str) -> None:
    """The message shows the name and the rule."""
    with pytest.raises(MisuseError, match=r"device name .* is not valid: 1 to 64"):
        check_device_name(name)


def test_channel_name_may_be_longer() -> None:
    """128 characters, the same grammar."""
    assert check_channel_name("x" * 128) == "x" * 128
    with pytest.raises(MisuseError, match=r"channel name .* is not valid: 1 to 128"):
        check_channel_name("x" * 129)


@pytest.mark.parametrize(
    ("given_value", "stored", "kind"),
    [
        (1.5, 1.5, ValueType.FLOAT),
        (-0.0, -0.0, ValueType.FLOAT),
        (7, 7, ValueType.INT),
        (INT_MIN, INT_MIN, ValueType.INT),
        (INT_MAX, INT_MAX, ValueType.INT),
        (True, True, ValueType.BOOL),
        ("öpen", "öpen", ValueType.STR),
        ("x" * 1024, "x" * 1024, ValueType.STR),
        (_Celsius(3.5), 3.5, ValueType.FLOAT),
        (_Scalar(2.5), 2.5, ValueType.FLOAT),
        (_Scalar(True), True, ValueType.BOOL),
    ],
)
def test_value_is_stored_as_its_plain_type(given_value: object, stored: Value, kind: ValueType) -> None:
    """Subclasses and scalars of other libraries become float, int, bool or str."""
    value = check_value("t", given_value)

    assert value == stored
    assert type(value) is type(stored)
    assert value is not None
    assert type_of(value) is kind


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, _Celsius("nan"), _Scalar(math.nan)])
def test_no_value_is_no_error(value: object) -> None:
    """A sensor that failed to read must not stop its loop."""
    assert check_value("t", value) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (INT_MAX + 1, "does not fit 64 bits"),
        (INT_MIN - 1, "does not fit 64 bits"),
        ("x" * 1025, "1025 bytes; the limit is 1024"),
        ("é" * 513, "1026 bytes"),
        ("\ud800", "lone surrogate"),
        (b"bytes", "cannot record a bytes"),
        ([1.0], "cannot record a list"),
        (1j, "cannot record a complex"),
    ],
)
def test_value_is_refused(value: object, says: str) -> None:
    """The message names the channel, the value's fault and the limit."""
    with pytest.raises(MisuseError, match=f"'t': .*{says}"):
        check_value("t", value)


@pytest.mark.parametrize(
    ("time", "time_ns"),
    [
        (0, 0),
        (-5, -5),
        (INT_MAX, INT_MAX),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2016, 1, 11, 17, tzinfo=timezone(timedelta(hours=1))), 1_452_528_000_000_000_000),
        (datetime(2026, 11, 22, 1, 2, 3, 456_789, tzinfo=UTC), 1_795_309_323_456_789_000),
    ],
)
def test_time_becomes_epoch_nanoseconds(time: datetime | int, time_ns: int) -> None:
    """Exact to the microsecond that a datetime carries."""
    assert to_time_ns(time) == time_ns


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_datetime_is_exact(time: datetime) -> None:
    """No float in between: the microseconds come back."""
    back = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=to_time_ns(time) // 1000)

    assert back == time


@pytest.mark.parametrize(
    ("time", "says"),
    [
        (datetime(2026, 1, 1), "has no zone"),  # noqa: DTZ001
        (INT_MAX + 1, "does not fit 64 bits"),
        (1.5, "not float"),
        (True, "not bool"),
        ("2026-01-01", "not str"),
    ],
)
def test_time_is_refused(time: datetime | int, says: str) -> None:
    """A guess at a zone or a unit would be wrong in silence."""
    with pytest.raises(MisuseError, match=says):
        to_time_ns(time)
