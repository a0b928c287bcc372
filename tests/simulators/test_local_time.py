"""Written times: every format exactly, and no guess about zones."""

from datetime import UTC, timedelta, timezone

import pytest

from simulators.local_time import TimeError, parse_time, parse_zone


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        pytest.param("2016-01-11 17:30:00", "+01:00", 1_452_529_800_000_000_000, id="fixed offset"),
        pytest.param("2016-01-11 17:30:00", "Europe/Brussels", 1_452_529_800_000_000_000, id="zone in winter"),
        pytest.param("2016-07-11 17:30:00", "Europe/Brussels", 1_468_251_000_000_000_000, id="zone in summer"),
        pytest.param("2016-01-11T17:30:00Z", None, 1_452_533_400_000_000_000, id="ISO, UTC"),
        pytest.param("2016-01-11T17:30:00+01:00", "UTC", 1_452_529_800_000_000_000, id="its own offset wins"),
        pytest.param("2016-01-11T17:30:00.123456789Z", None, 1_452_533_400_123_456_789, id="nanoseconds"),
        pytest.param("2016-01-11 17:30:00,5", "UTC", 1_452_533_400_500_000_000, id="decimal comma"),
        pytest.param(" 2016-01-11 17:30 ", "UTC", 1_452_533_400_000_000_000, id="padding, no seconds"),
        pytest.param("2016-01-11", "UTC", 1_452_470_400_000_000_000, id="a day"),
        pytest.param("1452533400", None, 1_452_533_400_000_000_000, id="epoch s"),
        pytest.param("1452533400.25", None, 1_452_533_400_250_000_000, id="epoch s with fraction"),
        pytest.param("1452533400123", None, 1_452_533_400_123_000_000, id="epoch ms"),
        pytest.param("1452533400123456", None, 1_452_533_400_123_456_000, id="epoch µs"),
        pytest.param("1452533400123456789", None, 1_452_533_400_123_456_789, id="epoch ns"),
    ],
)
def test_time_is_read_exactly(text: str, zone: str | None, expected: int) -> None:
    """Each format gives the same instant to the nanosecond."""
    assert parse_time(text, parse_zone(zone) if zone else None) == expected


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        pytest.param("2016-03-27 02:10:00", "Europe/Brussels", "does not exist", id="clocks went forward"),
        pytest.param("2016-10-30 02:10:00", "Europe/Brussels", "ambiguous", id="clocks went back"),
        pytest.param("2016-01-11 17:30:00", None, "has no zone; say --tz", id="no zone"),
        pytest.param("yesterday", "UTC", "is no time", id="words"),
        pytest.param("2016-13-01", "UTC", "is no time", id="month 13"),
        pytest.param("", "UTC", "is no time", id="blank"),
        pytest.param("20160111", "UTC", "no epoch time between 2000 and 2100", id="compact date"),
        pytest.param("0", None, "no epoch time", id="zero"),
        pytest.param("1452533400.0000000001", None, "finer than a nanosecond", id="too fine"),
    ],
)
def test_doubtful_time_is_refused(text: str, zone: str | None, says: str) -> None:
    """What cannot be known is an error that says so, never a guess."""
    with pytest.raises(TimeError, match=says):
        parse_time(text, parse_zone(zone) if zone else None)


def test_hours_beside_a_change_are_read() -> None:
    """The minute before a gap and the minute after it are one minute apart."""
    zone = parse_zone("Europe/Brussels")

    assert parse_time("2016-03-27 03:00:00", zone) - parse_time("2016-03-27 01:59:00", zone) == 60 * 10**9


def test_offsets_and_names_are_zones() -> None:
    """Fixed offsets come in the usual spellings."""
    assert parse_zone("+01:00") == parse_zone("UTC+1") == parse_zone("+0100") == timezone(timedelta(hours=1))
    assert parse_zone("-03:30") == timezone(-timedelta(hours=3, minutes=30))
    assert parse_zone("utc") is UTC


@pytest.mark.parametrize("text", ["Brussels", "", "../etc/passwd", "/etc/localtime", "+25:00", "+01:75"])
def test_unknown_zone_is_refused(text: str) -> None:
    """What is neither an offset of a day nor a name of the zone database is said to be none."""
    with pytest.raises(TimeError, match=r"is no (zone|offset)"):
        parse_zone(text)
