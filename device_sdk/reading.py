"""What a reading is: names, values, times, and the rules they obey.

Owns: the grammar of device and channel names, the four value types and their
limits, time conversion. Place: after `errors`, before `wire`. Pure.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from device_sdk.errors import MisuseError

Value = float | int | bool | str

MAX_DEVICE_NAME = 64
MAX_CHANNEL_NAME = 128
# A string is a state or a label, not a document; 1 KiB keeps 200 of them inside one frame.
MAX_STRING_BYTES = 1024
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

# One pattern for both: compiling it is a part of what `import` costs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ValueType(StrEnum):
    """The type of a channel; `INT` widens to `FLOAT` when a float arrives, nothing else mixes."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STR = "str"


class Reading(NamedTuple):
    """One value of one channel at one instant (``time_ns``: UTC epoch nanoseconds)."""

    channel: str
    time_ns: int
    value: Value


class Channel(NamedTuple):
    """What a device says of a channel.

    Args:
        name: ``[A-Za-z0-9][A-Za-z0-9_.-]{0,127}``.
        unit: UCUM or SenML code, e.g. ``Cel``, ``%RH``, ``W``; None when it has none.
        type: declared value type; None until the first value shows it.
        every_s: expected interval between readings in seconds; presence uses it.
        low, high: the normal range, both or neither; outside it the page shows an alert.
        label: name for people, e.g. ``CO₂``; None shows ``name``.
    """

    name: str
    unit: str | None = None
    type: ValueType | None = None
    every_s: float | None = None
    low: float | None = None
    high: float | None = None
    label: str | None = None


def type_of(value: Value) -> ValueType:
    """Return the value type of an already checked value."""
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        return ValueType.INT
    if isinstance(value, float):
        return ValueType.FLOAT
    return ValueType.STR


def is_device_name(name: str) -> bool:
    """Say whether ``name`` obeys the rules for names of devices."""
    return len(name) <= MAX_DEVICE_NAME and _NAME.fullmatch(name) is not None


def is_channel_name(name: str) -> bool:
    """Say whether ``name`` obeys the rules for names of channels."""
    return len(name) <= MAX_CHANNEL_NAME and _NAME.fullmatch(name) is not None


def check_device_name(name: str) -> str:
    """Return ``name``; raise `MisuseError` unless it is a valid device name."""
    if not isinstance(name, str) or not is_device_name(name):
        raise MisuseError(
            f"device name {str(name)[:80]!r} is not valid: 1 to {MAX_DEVICE_NAME} letters, digits, '_', '.', '-', "
            "beginning with a letter or digit"
        )
    return name


def check_channel_name(name: str) -> str:
    """Return ``name``; raise `MisuseError` unless it is a valid channel name."""
    if not isinstance(name, str) or not is_channel_name(name):
        raise MisuseError(
            f"channel name {str(name)[:140]!r} is not valid: 1 to {MAX_CHANNEL_NAME} letters, digits, '_', '.', '-', "
            "beginning with a letter or digit"
        )
    return name


def check_value(channel: str, value: object) -> Value | None:
    """Return a value that may be stored, or None when there is no value (None, NaN, infinities).

    Sensor libraries answer None or NaN when a read failed; that is no error in
    a sensor loop, so it is skipped and counted by the caller.

    Raises:
        MisuseError: another type, an int beyond 64 bits, a string over 1 KiB.
    """
    if type(value) is float:
        return value if math.isfinite(value) else None
    if value is None:
        return None
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise MisuseError(f"channel {channel!r}: {value} does not fit 64 bits; record it as a float or a string")
        return int(value)
    if isinstance(value, str):
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > MAX_STRING_BYTES:
            raise MisuseError(f"channel {channel!r}: a string of {size} bytes; the limit is {MAX_STRING_BYTES}")
        return _checked_text(channel, value)
    return _from_number(channel, value)


def _checked_text(channel: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MisuseError(f"channel {channel!r}: the string holds a lone surrogate and is not valid UTF-8") from error
    return str(value)


def _from_number(channel: str, value: object) -> Value | None:
    """Accept float subclasses and numpy scalars, whose ``item()`` gives the plain value."""
    item = getattr(value, "item", None)
    if callable(item):
        return check_value(channel, item())
    if isinstance(value, float):
        return check_value(channel, float(value))
    raise MisuseError(f"channel {channel!r}: cannot record a {type(value).__name__}; record a float, int, bool or str")


def to_time_ns(time: datetime | int) -> int:
    """Return UTC epoch nanoseconds, exact to the microsecond a datetime carries.

    Raises:
        MisuseError: a naive datetime (its zone would be a guess), or another type.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None or time.utcoffset() is None:
            raise MisuseError(f"time {time.isoformat()} has no zone; use an aware datetime, e.g. tzinfo=UTC")
        return (time - _EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(time, int) and not isinstance(time, bool):
        if not INT_MIN <= time <= INT_MAX:
            raise MisuseError(f"time {time} does not fit 64 bits of nanoseconds")
        return time
    raise MisuseError(f"time must be an aware datetime or epoch nanoseconds (int), not {type(time).__name__}")
