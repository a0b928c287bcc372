"""What people say of devices and channels: labels, units, tags, scales. Fields, their bounds, and what they do.

Owns: the fields, the check of each, `Scaling`. Place: after `errors`, before `model`, whose series carry a
`ChannelDescription`; `hub.metadata` keeps them in a file. Pure: a description is a value that is replaced as a whole.

What a device declares is not here: `Series.effective` puts both together, and what a person set wins.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hub.errors import BadRequestError

# What a list or a chart's head has room for; longer text belongs into notes.
MAX_LABEL_CHARS = 100
MAX_PLACE_CHARS = 200
# A page of text: what somebody needs to find the sensor again.
MAX_NOTES_CHARS = 2000
MAX_UNIT_CHARS = 32
MAX_SITE_CHARS = 64
# Tags are for choosing devices: a device in more groups than this is described by something else.
MAX_TAGS = 32
MAX_TAG_CHARS = 32
# A float has 15 to 17 digits; an axis has room for nine behind the point.
MAX_DECIMALS = 9
# From pico to tera; with them and the largest offset a scaled reading of a sensor keeps its digits.
MIN_SCALE, MAX_SCALE = 1e-12, 1e12
MAX_OFFSET = 1e15
MAX_LIMIT = 1e300
# A meter that reports once a year, and the fastest that presence can tell apart.
MIN_EVERY_S, MAX_EVERY_S = 0.001, 366 * 86400.0

_WORD = re.compile(r"[\w.-]+")
_CONTROL = ("Cc", "Cs", "Zl", "Zp")
_LARGEST = 1.7976931348623157e308

# One field's value: text, a number, or (tags) a list of words.
Held = str | int | float | tuple[str, ...]


class Nature(StrEnum):
    """Whether a channel's value goes up and down or only counts."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Scaling:
    """``stored * scale + offset``: what a reading is shown as. Use `scaling_of`."""

    scale: float
    offset: float
    # Where 1/scale is a whole number: 3 / 10 is the nearest float to 0.3, 3 * 0.1 is not.
    divisor: int | None

    def value(self, stored: float) -> float:
        """Return the value shown of a stored int or float; one beyond a float's range becomes its end."""
        return _finite(self._stretched(stored) + self.offset)

    def difference(self, stored: float) -> float:
        """Return what a difference of stored values is between the values shown: the offset is in both."""
        return _finite(self._stretched(stored))

    def values(self, stored: Iterable[Any]) -> list[float]:
        """Return the values shown of a column of numbers."""
        return [self.value(value) for value in stored]

    def _stretched(self, stored: float) -> float:
        return stored * self.scale if self.divisor is None else stored / self.divisor


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """A device as a person described it; ``lat`` and ``lon`` in degrees (WGS 84), both or neither."""

    label: str | None = None
    site: str | None = None
    tags: tuple[str, ...] = ()
    lat: float | None = None
    lon: float | None = None
    place: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelDescription:
    """A channel as a person described it.

    ``unit`` is a UCUM or SenML code, of what is shown. ``low``, ``high``: the normal range of what is shown, each may
    be absent; beyond it is an alert, which ends when a value is back inside by ``hysteresis``. ``every_s``: seconds
    between readings, for presence.
    """

    label: str | None = None
    unit: str | None = None
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    kind: str | None = None
    scale: float | None = None
    offset: float | None = None
    every_s: float | None = None
    hysteresis: float | None = None
    scaling: Scaling | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scaling", scaling_of(self.scale, self.offset))


def scaling_of(scale: float | None, offset: float | None) -> Scaling | None:
    """Return what scale (default 1) and offset (default 0) do; None when they change nothing."""
    scale, offset = 1.0 if scale is None else scale, 0.0 if offset is None else offset
    if scale == 1 and offset == 0:
        return None
    inverse = round(1 / scale) if abs(scale) < 1 else 0
    return Scaling(scale, offset, inverse if inverse and 1 / inverse == scale else None)


def checked(fields: Mapping[str, Callable[[object], Held]], name: str, value: object) -> Held:
    """Return a field's value in its normal form.

    Raises:
        BadRequestError: no such field, or a value it cannot hold; the message names both and the limit.
    """
    check_field(fields, name)
    try:
        return fields[name](value)
    except ValueError as error:
        raise BadRequestError(f"{name}: {error}") from error


def check_field(fields: Mapping[str, object], name: str) -> None:
    """Raise `BadRequestError` when there is no such field."""
    if name not in fields:
        raise BadRequestError(f"no field {name[:40]!r}: use {', '.join(fields)}")


def check_device(held: Mapping[str, Any]) -> DeviceDescription:
    """Return the description of fields that were checked one by one; raise `BadRequestError` when they disagree."""
    if ("lat" in held) != ("lon" in held):
        raise BadRequestError("lat and lon belong together: set both, or unset both")
    return DeviceDescription(**held)


def check_channel(held: Mapping[str, Any]) -> ChannelDescription:
    """Return the description of fields that were checked one by one; raise `BadRequestError` when they disagree."""
    if "low" in held and "high" in held and held["low"] >= held["high"]:
        raise BadRequestError(f"low {held['low']:g} must be below high {held['high']:g}")
    return ChannelDescription(**held)


def _text(most: int, *, lines: bool = False) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("use some text, or null to unset it")
        if len(value) > most:
            raise ValueError(f"{len(value)} characters; the limit is {most}")
        if any(unicodedata.category(c) in _CONTROL and not (lines and c == "\n") for c in value):
            raise ValueError("no control characters" + (" but line ends" if lines else ""))
        return value.strip()

    return check


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.copysign(_LARGEST, value)


def _told(value: object) -> str:
    # Not of a list: Python cannot write one that is nested a thousand times.
    return str(value)[:40] if isinstance(value, str | int | float) else type(value).__name__


def _word(most: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or _WORD.fullmatch(value) is None or len(value) > most:
            raise ValueError(f"{_told(value)!r}: use a word of letters, digits, '_', '.', '-' (at most {most})")
        return value

    return check


_tag = _word(MAX_TAG_CHARS)


def check_tags(value: object) -> tuple[str, ...]:
    """Return tags, each once, in order of the alphabet; raise `ValueError` when there are too many or one is wrong."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('use a list of words, e.g. ["tomatoes"], or null to unset it')
    tags = tuple(sorted({_tag(tag) for tag in value}))
    if len(tags) > MAX_TAGS:
        raise ValueError(f"{len(tags)} tags; the limit is {MAX_TAGS}")
    return tags


def _number(low: float, high: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{_told(value)}: use a number from {low:g} to {high:g}")
        return float(value)

    return check


def _decimals(value: object) -> int:
    number = _number(0, MAX_DECIMALS)(value)
    if not number.is_integer():
        raise ValueError("use a whole number")
    return int(number)


def _scale(value: object) -> float:
    number = _number(-MAX_SCALE, MAX_SCALE)(value)
    if abs(number) < MIN_SCALE:
        raise ValueError(f"{number:g}: its size must be from {MIN_SCALE:g} to {MAX_SCALE:g}")
    return number


def _kind(value: object) -> str:
    if value not in list(Nature):
        raise ValueError(f"{_told(value)!r}: use {' or '.join(Nature)}")
    return str(value)


DEVICE_FIELDS: Mapping[str, Callable[[object], Held]] = {
    "label": _text(MAX_LABEL_CHARS),
    "site": _word(MAX_SITE_CHARS),
    "tags": check_tags,
    "lat": _number(-90, 90),
    "lon": _number(-180, 180),
    "place": _text(MAX_PLACE_CHARS),
    "notes": _text(MAX_NOTES_CHARS, lines=True),
}
CHANNEL_FIELDS: Mapping[str, Callable[[object], Held]] = {
    "label": _text(MAX_LABEL_CHARS),
    "unit": _text(MAX_UNIT_CHARS),
    "decimals": _decimals,
    "low": _number(-MAX_LIMIT, MAX_LIMIT),
    "high": _number(-MAX_LIMIT, MAX_LIMIT),
    "kind": _kind,
    "scale": _scale,
    "offset": _number(-MAX_OFFSET, MAX_OFFSET),
    "every_s": _number(MIN_EVERY_S, MAX_EVERY_S),
    "hysteresis": _number(0, MAX_LIMIT),
}
NUMBERS = frozenset({"lat", "lon", "decimals", "low", "high", "scale", "offset", "every_s", "hysteresis"})
NO_DEVICE_DESCRIPTION = DeviceDescription()
NO_CHANNEL_DESCRIPTION = ChannelDescription()
