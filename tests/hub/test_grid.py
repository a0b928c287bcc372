"""Buckets begin where the clocks of a place say, on the days on which they are changed too."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequestError
from hub.grid import Grid, Run, even_grid, grid_of

S = 10**9
HOUR = 3600 * S
DAY = 24 * HOUR
FOREVER = (-(2**63), 2**63 - 1)


def ns(text: str, zone: str) -> int:
    """Return the instant of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * S


def local(bucket: str, zone: str, start: str, end: str) -> list[str]:
    """Return where the buckets of a local range begin, as the clocks there show it; and where the last one ends."""
    grid = grid_of(bucket, zone, ns(start, zone), ns(end, zone))
    edges = grid.edges(0, grid.count)
    return [datetime.fromtimestamp(edge / S, ZoneInfo(zone)).isoformat() for edge in edges]


@pytest.mark.parametrize(
    ("bucket", "zone", "start", "end", "edges"),
    [
        pytest.param("1d", "Europe/Brussels", "2026-03-28", "2026-03-31", [
            "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00",
            "2026-03-31T00:00:00+02:00",
        ], id="a day of 23 hours"),
        pytest.param("1d", "Europe/Brussels", "2026-10-24", "2026-10-27", [
            "2026-10-24T00:00:00+02:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00",
            "2026-10-27T00:00:00+01:00",
        ], id="a day of 25 hours"),
        pytest.param("1d", "Asia/Kathmandu", "2026-03-28", "2026-03-29", [
            "2026-03-28T00:00:00+05:45", "2026-03-29T00:00:00+05:45",
        ], id="quarter of an hour"),
        pytest.param("1h", "Asia/Kathmandu", "2026-03-28 09:20", "2026-03-28 10:01", [
            "2026-03-28T09:00:00+05:45", "2026-03-28T10:00:00+05:45", "2026-03-28T11:00:00+05:45",
        ], id="hours of a quarter zone"),
        pytest.param("6h", "Europe/Brussels", "2026-03-29", "2026-03-29 12:00", [
            "2026-03-29T00:00:00+01:00", "2026-03-29T06:00:00+02:00", "2026-03-29T12:00:00+02:00",
        ], id="six hours of which one is left out"),
        pytest.param("2h", "Europe/Brussels", "2026-03-29", "2026-03-29 06:00", [
            "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00",
            "2026-03-29T06:00:00+02:00",
        ], id="an edge that is left out is the change"),
        pytest.param("2h", "Europe/Brussels", "2026-10-25", "2026-10-25 06:00", [
            "2026-10-25T00:00:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T04:00:00+01:00",
            "2026-10-25T06:00:00+01:00",
        ], id="an edge that comes twice is the first"),
        pytest.param("1h", "Europe/Brussels", "2026-10-25 02:00", "2026-10-25 03:00", [
            "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00",
        ], id="an hour that comes twice is two"),
        pytest.param("1d", "America/Havana", "2026-03-07", "2026-03-10", [
            "2026-03-07T00:00:00-05:00", "2026-03-08T01:00:00-04:00", "2026-03-09T00:00:00-04:00",
            "2026-03-10T00:00:00-04:00",
        ], id="no midnight"),
        pytest.param("1d", "America/Havana", "2026-10-31", "2026-11-02", [
            "2026-10-31T00:00:00-04:00", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00",
        ], id="two midnights"),
        pytest.param("1d", "Pacific/Apia", "2011-12-29", "2011-12-31 12:00", [
            "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00",
        ], id="a day that never was"),
        pytest.param("1w", "Europe/Brussels", "2026-03-28", "2026-04-07", [
            "2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-04-06T00:00:00+02:00",
            "2026-04-13T00:00:00+02:00",
        ], id="weeks from Mondays"),
        pytest.param("1mo", "Europe/Brussels", "2028-01-31", "2028-03-31", [
            "2028-01-01T00:00:00+01:00", "2028-02-01T00:00:00+01:00", "2028-03-01T00:00:00+01:00",
            "2028-04-01T00:00:00+02:00",
        ], id="months"),
        pytest.param("3mo", "Europe/Brussels", "2026-05-05", "2026-07-02", [
            "2026-04-01T00:00:00+02:00", "2026-07-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00",
        ], id="quarters"),
        pytest.param("1y", "Asia/Kathmandu", "2026-05-05", "2026-05-06", [
            "2026-01-01T00:00:00+05:45", "2027-01-01T00:00:00+05:45",
        ], id="years"),
    ],
)  # fmt: skip
def test_buckets_of_a_place(bucket: str, zone: str, start: str, end: str, edges: list[str]) -> None:
    """Edges are what a wall clock shows as multiples; across a change buckets are as long as they really were."""
    assert local(bucket, zone, start, end) == edges


def test_a_year_of_days_is_five_runs() -> None:
    """What a store is asked for does not grow with the days, but with the changes of the clocks."""
    grid = grid_of("1d", "Europe/Brussels", ns("2026-01-01", "Europe/Brussels"), ns("2027-01-01", "Europe/Brussels"))

    assert [(run.step_ns // HOUR, run.size) for run in grid.part(0, grid.count)] == [
        (24, 87), (23, 1), (24, 209), (25, 1), (24, 67),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bucket", "start", "first", "step"),
    [
        ("250ms", 10**8, 0, 250 * 10**6), ("90s", 100 * S, 90 * S, 90 * S), ("1.5h", HOUR, 0, HOUR * 3 // 2),
        ("1d", -1, -DAY, DAY), ("1w", 0, -3 * DAY, 7 * DAY), ("7d", 0, 0, 7 * DAY), ("1mo", 0, 0, 31 * DAY),
    ],
)  # fmt: skip
def test_without_a_zone_it_is_utc(bucket: str, start: int, first: int, step: int) -> None:
    """Multiples since 1970, weeks from Mondays (1970 began on a Thursday), months by the calendar."""
    grid = grid_of(bucket, None, start, start + 1)

    assert list(grid.part(0, grid.count)) == [Run(first, step, 1)]


@pytest.mark.parametrize("zone", [None, "Europe/Brussels", "Asia/Kathmandu"])
@pytest.mark.parametrize("bucket", ["1d", "1w", "1mo", "1y", "291y", "2500000h"])
def test_all_time_is_cut(bucket: str, zone: str | None) -> None:
    """From the first to the last instant of 64 bits, long ago and far ahead, without a gap."""
    grid = grid_of(bucket, zone, *FOREVER)
    runs = list(grid.part(0, grid.count))

    assert grid.edge(0) <= FOREVER[0] < grid.edge(1)
    assert grid.edge(grid.count - 1) < FOREVER[1] <= grid.edge(grid.count)
    assert all(run.end_ns == following.start_ns for run, following in pairwise(runs))


@given(
    st.sampled_from(["1h", "3h", "7h", "1d", "5d", "1w", "1mo"]),
    st.sampled_from(
        ["Europe/Brussels", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca"]
    ),
    st.integers(0, 2**31),
    st.integers(1, 500),
)
def test_any_range_is_cut_by_the_same_edges(bucket: str, zone: str, start_s: int, hours: int) -> None:
    """Buckets cover the range, hold each a part of it, and are those of any other range."""
    start, end = start_s * S, start_s * S + hours * HOUR
    grid = grid_of(bucket, zone, start, end)
    edges = grid.edges(0, grid.count)

    assert edges[0] <= start < edges[1]
    assert edges[-2] < end <= edges[-1]
    assert edges == sorted(set(edges))
    for number, (low, high) in enumerate(pairwise(edges)):
        alone = grid_of(bucket, zone, max(low, start), min(high, end))
        assert alone.edges(0, alone.count) == [low, high]
        assert grid.number(low) == grid.number(high - 1) == number
        assert grid.edge(number) == low


def test_parts_of_a_grid() -> None:
    """Any slice of the buckets is runs again; a time outside is in the nearest bucket."""
    grid = Grid([Run(0, 10, 3), Run(30, 5, 1), Run(35, 10, 2)])

    assert list(grid.part(1, 5)) == [Run(10, 10, 2), Run(30, 5, 1), Run(35, 10, 1)]
    assert grid.edges(2, 5) == [20, 30, 35, 45]
    assert [grid.number(t) for t in (-5, 0, 9, 34, 35, 54, 99)] == [0, 0, 0, 3, 4, 5, 5]


def test_even_buckets_begin_where_they_are_told() -> None:
    """Steps from an origin, before it too."""
    grid = even_grid(3, 10, -20, 24)

    assert list(grid.part(0, grid.count)) == [Run(-27, 10, 6)]


@pytest.mark.parametrize(("bucket", "step_ns"), [("4.1s", 4_100_000_000), ("2.3h", 8280 * S), ("0.57d", 49_248 * S)])
def test_a_length_is_exact(bucket: str, step_ns: int) -> None:
    """No nanosecond is lost to a float: sums that are kept by the minute can answer whole minutes only."""
    grid = grid_of(bucket, None, 0, 10 * step_ns)

    assert (grid.count, grid.edge(1)) == (10, step_ns)


@pytest.mark.parametrize(
    ("bucket", "zone", "word"),
    [
        ("1 day", None, "15m"), ("-1h", None, "15m"), ("", None, "15m"), ("0ms", None, "at least 1 ms"),
        ("0.5ms", None, "at least 1 ms"), ("9999999999999999w", None, "292 years"), ("0mo", None, "whole number"),
        ("1.5mo", None, "whole number"), ("293y", None, "whole number"), ("1d", "Europe/Bruxelles", "Europe/Brussels"),
        ("1d", "Europe", "no time zone"), ("1d", "../../etc/passwd", "no time zone"), ("1d", "", "no time zone"),
        ("1d", "x" * 1000, "no time zone"), ("1d", "a\0b", "no time zone"),
    ],
)  # fmt: skip
def test_what_is_no_bucket_or_zone_is_refused(bucket: str, zone: str | None, word: str) -> None:
    """The message says what may be used instead."""
    with pytest.raises(BadRequestError, match=word):
        grid_of(bucket, zone, 0, 1)
