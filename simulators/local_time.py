"""Written times → epoch nanoseconds, with no guess about zones.

Owns: the formats taken and the two faults of local times. Place: before
`replay`. Pure.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_FRACTION = re.compile(r"^(.*\d{2}:\d{2}:\d{2})[.,](\d{1,9})(.*)$", re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Which unit a bare number is in: 2000-01-01 in s is 9.5e8, in ms 9.5e11, in µs 9.5e14, in ns 9.5e17.
_UNITS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))


class TimeError(ValueError):
    """A time that cannot be read, does not exist in its zone, or exists twice there."""


def parse_zone(text: str) -> tzinfo:
    """Return the zone of an IANA name or a fixed offset such as ``+01:00``.

    Raises:
        TimeError: neither.
    """
    if text.upper() in ("UTC", "Z"):
        return UTC
    match = _OFFSET.fullmatch(text)
    if match is not None:
        sign, hours, minutes = match[1], int(match[2]), int(match[3] or 0)
        offset = timedelta(hours=hours, minutes=minutes)
        if offset >= timedelta(hours=24) or minutes > 59:
            raise TimeError(f"{text!r} is no offset: at most ±23:59")
        return timezone(-offset if sign == "-" else offset)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise TimeError(f"{text!r} is no zone: use an IANA name (Europe/Brussels) or an offset (+01:00)") from error


def parse_time(text: str, zone: tzinfo | None) -> int:
    """Return epoch ns of ISO 8601, ``YYYY-MM-DD hh:mm:ss``, or epoch s, ms, µs or ns (told by size).

    Args:
        text: up to 9 digits of a second are kept exactly.
        zone: for times without an offset; None refuses those.

    Raises:
        TimeError: unreadable, without a zone, or a local time that does not exist or is ambiguous.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _from_number(text)
    nanoseconds = 0
    if (match := _FRACTION.match(text)) is not None:
        nanoseconds = int(match[2].ljust(9, "0"))
        text = match[1] + match[3]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise TimeError(f"{text!r} is no time; use YYYY-MM-DD hh:mm:ss, ISO 8601, or epoch s, ms or ns") from error
    if moment.tzinfo is None:
        if zone is None:
            raise TimeError(f"{text!r} has no zone; say --tz, e.g. --tz Europe/Brussels or --tz +01:00")
        moment = _located(moment, zone)
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9 + nanoseconds


def _located(moment: datetime, zone: tzinfo) -> datetime:
    first, second = moment.replace(tzinfo=zone, fold=0), moment.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first
    back = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if back == moment:
        raise TimeError(f"{moment} is ambiguous in {zone}: clocks went back, it was there twice")
    raise TimeError(f"{moment} does not exist in {zone}: clocks went forward over it")


def _from_number(text: str) -> int:
    whole, _, fraction = text.partition(".")
    unit = next((unit for limit, unit in _UNITS if int(whole) < limit), 1)
    digits = len(str(unit)) - 1
    if len(fraction) > digits and fraction[digits:].strip("0"):
        raise TimeError(f"{text!r} is finer than a nanosecond")
    part = int(fraction[:digits].ljust(digits, "0")) if digits else 0
    value = int(whole) * unit + part
    if not MIN_TIME_NS <= value < MAX_TIME_NS:
        raise TimeError(f"{text!r} is no epoch time between 2000 and 2100 in s, ms, µs or ns")
    return value
