"""Foreign times → nanoseconds since 1970: by their size, as ISO 8601 says, or not at all.

Owns: which times are plausible. Place: before the decoders. Pure. A time that is not plausible is none: the clock of
many devices says 1970 until it is set, and the receive time is nearer to the truth.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal

from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A plausible second, millisecond, microsecond and nanosecond are never the same number.
_UNITS_NS = (10**9, 10**6, 10**3, 1)
# How far ahead of the hub a clock may be that was set; a wrong zone is at least half an hour.
MAX_AHEAD_NS = 300 * 10**9


def since_epoch_ns(number: int | float, unit_ns: int | None = None) -> int | None:
    """Return the time of a number of seconds, milli-, micro- or nanoseconds; None when it is not plausible.

    Args:
        unit_ns: what it counts; None takes the one that gives a time between 2000 and 2100.
    """
    for unit in _UNITS_NS if unit_ns is None else (unit_ns,):
        if MIN_TIME_NS <= number * unit < MAX_TIME_NS:
            # Exactly the decimal number that was sent: the same reading sent again has the same time.
            return number * unit if isinstance(number, int) else int(Decimal(repr(number)) * unit)
    return None


def iso_ns(text: str, zone: tzinfo | None) -> int | None:
    """Return the time of ``2018-01-17T18:59:50Z``; None when it is none, not plausible, or of no known zone."""
    if not 10 < len(text) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        if zone is None:
            return None
        moment = moment.replace(tzinfo=zone)
    try:
        time_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (OverflowError, ValueError):
        return None
    return time_ns if MIN_TIME_NS <= time_ns < MAX_TIME_NS else None


def time_ns_of(value: object, zone: tzinfo | None = None) -> int | None:
    """Return the time of a JSON value of either kind; None when it is none."""
    if isinstance(value, str):
        return iso_ns(value, zone)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return since_epoch_ns(value)


def near_ns(value: object, zone: tzinfo | None, received_ns: int) -> int | None:
    """Return the time of a reading that has just come; None when it is none, or ahead of the hub.

    Args:
        zone: as for `iso_ns`. Of the two times that an hour has which comes twice in autumn, the nearer one is taken.
    """
    time_ns = time_ns_of(value, zone)
    if time_ns is None:
        return None
    if isinstance(value, str) and zone is not None:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            later_ns = (moment.replace(tzinfo=zone, fold=1) - _EPOCH) // timedelta(microseconds=1) * 1000
            time_ns = min(time_ns, later_ns, key=lambda at: abs(at - received_ns))
    return time_ns if time_ns <= received_ns + MAX_AHEAD_NS else None
