"""What is said to VictoriaMetrics and how its answers are read.

Owns: line protocol, queries, and which readings the server keeps as they are. Place: after `store.base`, used by
`store.victoria`. Pure: text goes in and out, nothing is sent here.

One metric for all numbers: the labels ``hub`` and ``series`` find them, the others are for people. What server 1.79
was seen to do (`docs/how-to/store-in-victoriametrics.md` says it to people):
- a time is kept in milliseconds, rounded down; 0 means now; before 1970 and beyond two days ahead it is ignored;
- 11 significant digits of a number are kept, unless a far greater one stands near it; whole numbers to 2**53 are exact;
- of two values of one instant any may stay, also when one came much later;
- a bad line is answered 204 like a good one, and counted.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import Series
from hub.store.base import AGGREGATES

MS = 10**6
METRIC = "hub_value"
# A window of a count may not reach back to the beginning of 1970: such a query finds nothing.
FIRST_MS = 86_400_000
# The server's own limit is two days; its clock and ours may differ.
AHEAD_MS = 86_400_000
# Above it neighbours lose digits: numbers of one block share a decimal exponent.
_EXACT_MAX = 2**53
# The server keeps 11 digits at least; more are rounded.
_DIGITS = 11
# A query may be 16 KiB long; an id takes at most 20 digits.
SERIES_PER_QUERY = 500
# What the server says for each aggregate.
_OVER_TIME = {name: f"{name}_over_time" for name in AGGREGATES}
# Flags that make another metric or another time of a line, or keep it in memory for longer, and what they are unless
# they are given. The last one is of later versions.
_DEFAULTS = {
    "-influxTrimTimestamp": "1ms",
    "-influxSkipMeasurement": "false",
    "-influxSkipSingleField": "false",
    "-influxMeasurementFieldSeparator": "_",
    "-inmemoryDataFlushInterval": "5s",
}
_DAY_MS = 86_400_000
_SPANS_MS = {
    "s": 1000, "h": 3_600_000, "d": _DAY_MS, "w": 7 * _DAY_MS, "": 31 * _DAY_MS, "M": 31 * _DAY_MS, "y": 365 * _DAY_MS,
}  # fmt: skip
_ESCAPES = str.maketrans({"\\": "\\\\", " ": "\\ ", ",": "\\,", "=": "\\=", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What a server says of itself: start (epoch seconds), lines it stored, refused and ignored since then."""

    started: str
    stored: int
    refused: int
    ignored: int

    def is_another(self, known: "ServerFigures") -> bool:
        """Tell whether it was started since it said what is ``known``; the start is a whole second."""
        return self.started != known.started or self.stored < known.stored


def is_kept(time_ms: int, value: Value, now_ms: int, first_ms: int = FIRST_MS) -> bool:
    """Tell whether the server keeps such a reading, and harms no other by it; it drops what is before ``first_ms``."""
    if isinstance(value, str) or not first_ms <= time_ms <= now_ms + AHEAD_MS:
        return False
    return math.isfinite(value) and abs(value) <= _EXACT_MAX


def is_rounded(value: Value) -> bool:
    """Tell whether the server may give a reading that it keeps back with another last digit."""
    return isinstance(value, float) and (float(f"{value:.{_DIGITS}g}") != value or math.copysign(1, value) < 0 == value)


def line_prefix(hub: str, series: Series) -> str:
    """Return the part of a line before the number, the same for all readings of a series."""
    labels = (("hub", hub), ("series", str(series.id)), ("namespace", series.namespace), ("device", series.device))
    text = "".join(f",{name}={text.translate(_ESCAPES)}" for name, text in (*labels, ("channel", series.channel)))
    return f"hub{text} value="


def line(prefix: str, time_ms: int, value: Value) -> str:
    """Return one line; the request says ``precision=ms``."""
    return f"{prefix}{float(value)!r} {time_ms}\n"


def selectors(hub: str, series: Iterable[int]) -> Iterator[str]:
    """Yield the selectors that together find the series."""
    ids = list(series)
    for begin in range(0, len(ids), SERIES_PER_QUERY):
        some = "|".join(map(str, ids[begin : begin + SERIES_PER_QUERY]))
        yield f'{{__name__="{METRIC}",hub="{hub}",series=~"{some}"}}'


def export_form(selector: str, first_ms: int, last_ms: int) -> dict[str, str]:
    """Return the form of ``/api/v1/export`` for first <= time <= last."""
    return {"match[]": selector, "start": _seconds(first_ms), "end": _seconds(last_ms)}


def parse_export(body: bytes) -> Iterator[tuple[int, list[int], list[float]]]:
    """Yield (series, times in ms, numbers) of each line of an export.

    Raises:
        StoreError: it is no export.
    """
    try:
        for text in body.splitlines():
            found = json.loads(text)
            yield int(found["metric"]["series"]), found["timestamps"], found["values"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the export of VictoriaMetrics cannot be read: {error}") from error


def count_form(selector: str, first_ms: int, last_ms: int) -> dict[str, str]:
    """Return the form of ``/api/v1/query`` that counts the readings of each series with first <= time <= last."""
    # A window does not hold its beginning, but its end.
    query = f"count_over_time({selector}[{last_ms - first_ms + 1}ms])"
    return {"query": query, "time": _seconds(last_ms), "nocache": "1"}


def parse_counts(body: bytes) -> dict[int, int]:
    """Return series → readings.

    Raises:
        StoreError: it is no answer to a query.
    """
    try:
        found = json.loads(body)["data"]["result"]
        return {int(one["metric"]["series"]): int(one["value"][1]) for one in found}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the answer of VictoriaMetrics cannot be read: {error}") from error


def range_form(selector: str, function: str, first_end_ms: int, last_end_ms: int, step_ms: int) -> dict[str, str]:
    """Return the form of ``/api/v1/query_range`` that aggregates buckets of a step.

    Args:
        first_end_ms, last_end_ms: the first times that no longer belong to the first and to the last bucket.
    """
    # A window does not hold its beginning, but its end: the last millisecond of a bucket.
    return {
        "query": f"{_OVER_TIME[function]}({selector}[{step_ms}ms])",
        "start": _seconds(first_end_ms - 1),
        "end": _seconds(last_end_ms - 1),
        "step": _seconds(step_ms),
        # Else the server moves the buckets so that it can keep the answer.
        "nocache": "1",
    }


def parse_ranges(body: bytes) -> dict[int, list[tuple[int, float]]]:
    """Return series → (first time in ms that is no longer in the bucket, number) of its buckets.

    Raises:
        StoreError: it is no answer to a query.
    """
    try:
        found = json.loads(body)["data"]["result"]
        return {
            int(one["metric"]["series"]): [(round(at * 1000) + 1, float(number)) for at, number in one["values"]]
            for one in found
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the answer of VictoriaMetrics cannot be read: {error}") from error


def parse_metrics(body: bytes) -> ServerFigures:
    """Return what ``/metrics`` says.

    Raises:
        StoreError: it is not VictoriaMetrics that answers.
    """
    found: dict[str, str] = {}
    for text in body.decode(errors="replace").splitlines():
        name, _, value = text.rpartition(" ")
        found[name] = value
    try:
        return ServerFigures(
            found["vm_app_start_timestamp"],
            int(float(found['vm_rows_inserted_total{type="influx"}'])),
            int(float(found['vm_rows_invalid_total{type="influx"}'])),
            _sum(found, "vm_rows_ignored_total"),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"this is no VictoriaMetrics: /metrics does not say {error}") from error


def check_flags(body: bytes) -> None:
    """Raise `StoreError` when the server would keep a reading twice, or not where it is looked for, or too briefly."""
    flags = _flags(body)
    if flags.get("-dedup.minScrapeInterval") != "1ms":
        raise StoreError(
            "start VictoriaMetrics with -dedup.minScrapeInterval=1ms: else a reading sent again is doubled"
        )
    if flags.get("-search.latencyOffset") != "0s":
        raise StoreError("start VictoriaMetrics with -search.latencyOffset=0s: else the newest buckets are wrong")
    for name, default in _DEFAULTS.items():
        if (value := flags.get(name, default)) != default:
            raise StoreError(f"start VictoriaMetrics without {name}={value}: readings would be lost or not found again")


def retention_ms(body: bytes) -> int:
    """Return how long the server keeps readings, of what ``/flags`` says."""
    text = _flags(body).get("-retentionPeriod", "1")
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([shdwMy]?)", text)
    if match is None:
        raise StoreError(f"VictoriaMetrics has -retentionPeriod={text}, which cannot be read: use e.g. 100y")
    return int(float(match[1]) * _SPANS_MS[match[2]])


def _flags(body: bytes) -> dict[str, str]:
    lines = (text.partition("=") for text in body.decode(errors="replace").splitlines())
    return {name: value.strip('"') for name, _, value in lines}


def _sum(found: dict[str, str], family: str) -> int:
    return sum(int(float(value)) for name, value in found.items() if name.startswith(f"{family}{{"))


def _seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03d}"


def typed(kind: int, numbers: Sequence[float]) -> list[Value]:
    """Give numbers back their type: 0 bool, 1 int, 2 float (`store.victoria_file`)."""
    kinds = (bool, int, float)
    return list(map(kinds[kind], numbers))
