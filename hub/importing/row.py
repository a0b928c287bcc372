"""What is read from a file of history: readings, and what of it is none.

Owns: the records that readers hand on, and the names and values they may hold. Place: before the readers. Pure.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from device_sdk.reading import INT_MAX, INT_MIN, MAX_STRING_BYTES, Value, is_channel_name, is_device_name
from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS

# Of what is refused, so much is quoted: enough to find it with a search.
_QUOTED_CHARS = 80
# What a channel may declare.
_UNIT_CHARS = 32


class Row(NamedTuple):
    """One reading and where it stands: ``line`` counts from 1, the header included."""

    line: int
    device: str
    channel: str
    time_ns: int
    value: Value
    unit: str | None = None


class Refused(NamedTuple):
    """What is not imported, and why; ``text``: the beginning of it."""

    line: int
    reason: str
    text: str = ""


class Blank(NamedTuple):
    """A place for a reading that holds none: an empty cell, null, NaN."""

    line: int


Item = Row | Refused | Blank
Items = Iterator[Item]


class RowError(ValueError):
    """It cannot be a reading; the message says why."""


def checked(line: int, device: str, channel: str, time_ns: int, value: Value | None, unit: str | None = None) -> Item:
    """Return the reading, or what it is instead.

    Raises:
        RowError: a name, time or value that no hub takes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Blank(line)
    if not is_device_name(device):
        raise RowError(f"{device[:_QUOTED_CHARS]!r} is no name of a device: letters, digits, '_', '.', '-', at most 64")
    if not is_channel_name(channel):
        raise RowError(f"{channel[:_QUOTED_CHARS]!r} is no name of a channel: letters, digits, '_', '.', '-'")
    if not MIN_TIME_NS <= time_ns < MAX_TIME_NS:
        raise RowError("its time is not between the years 2000 and 2100")
    if unit is not None and len(unit) > _UNIT_CHARS:
        raise RowError(f"{unit[:_QUOTED_CHARS]!r} is no unit: at most {_UNIT_CHARS} characters")
    _check_value(value)
    return Row(line, device, channel, time_ns, value, unit or None)


def quoted(text: str) -> str:
    """Return the beginning of a text that is refused."""
    text = text.rstrip("\r\n")
    return text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]}…"


def _check_value(value: Value) -> None:
    if isinstance(value, float):
        if math.isinf(value):
            raise RowError("an infinite value")
    elif isinstance(value, str):
        if len(value.encode("utf-8", "surrogatepass")) > MAX_STRING_BYTES:
            raise RowError(f"a text of more than {MAX_STRING_BYTES} bytes")
    elif not INT_MIN <= value <= INT_MAX:
        raise RowError("an integer that 64 bits cannot hold")
