"""What is said to VictoriaMetrics is what it understands, and its answers are read or refused."""

import pytest

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import Series
from hub.store.victoria_wire import (
    AHEAD_MS,
    FIRST_MS,
    SERIES_PER_QUERY,
    check_flags,
    count_form,
    export_form,
    is_kept,
    is_rounded,
    line,
    line_prefix,
    parse_counts,
    parse_export,
    parse_metrics,
    parse_ranges,
    range_form,
    retention_ms,
    selectors,
    typed,
)

NOW_MS = 1_795_376_000_000
METRICS = b"""# a comment
vm_app_start_timestamp 1795730470
vm_rows_ignored_total{reason="big_timestamp"} 2
vm_rows_ignored_total{reason="small_timestamp"} 1
vm_rows_inserted_total{type="influx"} 6
vm_rows_invalid_total{type="influx"} 4
"""


@pytest.mark.parametrize(
    ("time_ms", "value", "kept"),
    [
        pytest.param(NOW_MS, 21.5, True, id="float"),
        pytest.param(NOW_MS, True, True, id="bool"),
        pytest.param(NOW_MS, -(2**53), True, id="largest int"),
        pytest.param(NOW_MS, 2**53 + 1, False, id="int of more digits"),
        pytest.param(NOW_MS, 1e300, False, id="float that takes its neighbours' digits"),
        pytest.param(NOW_MS, float("inf"), False, id="infinite"),
        pytest.param(NOW_MS, "on", False, id="text"),
        pytest.param(FIRST_MS, 1.0, True, id="first time"),
        pytest.param(FIRST_MS - 1, 1.0, False, id="too early"),
        pytest.param(0, 1.0, False, id="now, it would say"),
        pytest.param(NOW_MS + AHEAD_MS, 1.0, True, id="last time"),
        pytest.param(NOW_MS + AHEAD_MS + 1, 1.0, False, id="too late"),
    ],
)
def test_is_kept(time_ms: int, value: Value, kept: bool) -> None:
    """Only what the server keeps goes there."""
    assert is_kept(time_ms, value, NOW_MS) is kept


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(21.5, False), (0.1 + 0.2, True), (-0.0, True), (0.0, False), (12345678901.0, False), (7, False), ("x", False)],
)
def test_is_rounded(value: Value, rounded: bool) -> None:
    """A float of more than 11 digits, or a negative zero, may come back otherwise."""
    assert is_rounded(value) is rounded


def test_lines() -> None:
    """A line has the labels that find it and those for people; what would end a label is escaped."""
    prefix = line_prefix("ab12", Series(7, "default", "pump, the=old\\one", "t"))

    assert line(prefix, NOW_MS, True) == (
        "hub,hub=ab12,series=7,namespace=default,device=pump\\,\\ the\\=old\\\\one,channel=t value=1.0 1795376000000\n"
    )


def test_selectors_are_short_enough() -> None:
    """Many series are asked for in several queries, each below the server's limit of 16 KiB."""
    found = list(selectors("ab12", range(2**60, 2**60 + SERIES_PER_QUERY + 1)))

    assert len(found) == 2
    assert max(map(len, found)) < 16_384 - 200
    assert found[1] == f'{{__name__="hub_value",hub="ab12",series=~"{2**60 + SERIES_PER_QUERY}"}}'


def test_ranges() -> None:
    """An export holds both ends; the window of a count holds its end only, so it begins one earlier."""
    assert export_form("{}", 1_500, 2_007) == {"match[]": "{}", "start": "1.500", "end": "2.007"}
    assert count_form("{}", 1_500, 2_007) == {"query": "count_over_time({}[508ms])", "time": "2.007", "nocache": "1"}


def test_buckets() -> None:
    """A bucket is a window that ends at its last millisecond."""
    assert range_form("{}", "min", 2_000, 4_000, 1_000) == {
        "query": "min_over_time({}[1000ms])", "start": "1.999", "end": "3.999", "step": "1.000", "nocache": "1",
    }  # fmt: skip
    body = b'{"data":{"result":[{"metric":{"series":"2"},"values":[[1.999,"4.5"],[3.999,"7"]]}]}}'
    assert parse_ranges(body) == {2: [(2_000, 4.5), (4_000, 7.0)]}


def test_answers_are_read() -> None:
    """Exports, counts, figures."""
    export = b'{"metric":{"series":"2"},"values":[1.5,2],"timestamps":[7,8]}\n'
    counts = b'{"data":{"result":[{"metric":{"series":"2"},"value":[1.0,"43"]}]}}'

    assert list(parse_export(export)) == [(2, [7, 8], [1.5, 2])]
    assert parse_counts(counts) == {2: 43}
    figures = parse_metrics(METRICS)
    assert (figures.started, figures.stored, figures.refused, figures.ignored) == ("1795730470", 6, 4, 3)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"metric":{"series":"x"}}', b'{"data":{"result":[7]}}'])
def test_other_answers_are_refused(body: bytes) -> None:
    """What another server says is an error of the store, not a failure of the hub."""
    with pytest.raises(StoreError):
        list(parse_export(body))
    with pytest.raises(StoreError):
        parse_counts(body)
    with pytest.raises(StoreError):
        parse_metrics(body)


@pytest.mark.parametrize(
    "flags",
    [
        b"",
        b'-dedup.minScrapeInterval="0s"\n-search.latencyOffset="0s"',
        b'-dedup.minScrapeInterval="10s"\n-search.latencyOffset="0s"',
        b'-dedup.minScrapeInterval="1ms"\n-search.latencyOffset="30s"',
    ],
)
def test_flags_that_double_or_lose(flags: bytes) -> None:
    """Without deduplication a reading is kept twice, with a longer one some are left out; an offset spoils buckets."""
    check_flags(b'-x="y"\n-dedup.minScrapeInterval="1ms"\n-search.latencyOffset="0s"\n')
    with pytest.raises(StoreError, match="start VictoriaMetrics with"):
        check_flags(flags)


@pytest.mark.parametrize(
    "flag",
    [
        '-influxTrimTimestamp="1s"', '-influxSkipMeasurement="true"', '-influxSkipSingleField="true"',
        '-influxMeasurementFieldSeparator="."', '-inmemoryDataFlushInterval="1m"',
    ],
)  # fmt: skip
def test_flags_that_hide_readings(flag: str) -> None:
    """Some make another metric or another time of a line, one has the server keep in memory for longer than we wait."""
    usual = '-dedup.minScrapeInterval="1ms"\n-search.latencyOffset="0s"\n'
    check_flags(f'{usual}-influxMeasurementFieldSeparator="_"\n-influxSkipSingleField="false"'.encode())

    with pytest.raises(StoreError, match=f"start VictoriaMetrics without {flag.partition('=')[0]}"):
        check_flags(f"{usual}{flag}".encode())


@pytest.mark.parametrize(
    ("flags", "days"),
    [("", 31), ('-retentionPeriod="1"', 31), ('-retentionPeriod="100y"', 36_500), ('-retentionPeriod="1.5d"', 1.5),
     ('-retentionPeriod="2w"', 14), ('-retentionPeriod="36h"', 1.5)],
)  # fmt: skip
def test_retention(flags: str, days: float) -> None:
    """A number alone is months, and so is the default."""
    assert retention_ms(flags.encode()) == days * 86_400_000


def test_retention_that_cannot_be_read() -> None:
    """Readings that are older than it would be lost, so it must be known."""
    with pytest.raises(StoreError, match="retentionPeriod"):
        retention_ms(b'-retentionPeriod="ages"')


def test_typed() -> None:
    """A series' numbers come back as its type."""
    assert list(map(repr, typed(0, [0, 1]))) == ["False", "True"]
    assert list(map(repr, typed(1, [7.0, 8]))) == ["7", "8"]
    assert list(map(repr, typed(2, [7, 8.5]))) == ["7.0", "8.5"]
