"""Large histories that must come back exactly: a day of vibration at 1 kHz, a year of sensors by local days.

    python -m tests.bench.large_history vibration     86,400,000 readings in and out, some minutes
    python -m tests.bench.large_history year          5,256,000 readings of 100 sensors, days of Brussels and Kathmandu

Each prints one line of figures and exits with 0 when every reading came back with its time and every bit, or every day
is what counting it reading by reading gives. They are too long for each change: run before a release.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psutil

from device_sdk.columns import Column
from device_sdk.reading import ValueType
from device_sdk.wire import CHAIN_START
from hub.bucket_page import BucketPages, Question
from hub.grid import grid_of
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.columns import ColumnStore

S = 10**9
DAY_S = 86_400
RATE_HZ = 1000
BEGIN_NS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * S
# Seconds of one write: 10,000 readings, as a hub's consumer hands them over.
_WRITE_S = 10
SENSORS = 100
EVERY_S = 600
_KEY = StreamKey("default", "machine", "0" * 16)


def vibration(seconds: int, folder: Path) -> str:
    """Store ``seconds`` of one channel at 1 kHz and read them back; return the figures, or raise."""
    series = Series(1, "default", "machine", "x", ValueType.FLOAT)
    store = ColumnStore(folder / "readings.sqlite3")
    wrote_s = 0.0
    for first in range(0, seconds, _WRITE_S):
        frames = [_second(series, second) for second in range(first, min(first + _WRITE_S, seconds))]
        begun = time.perf_counter()
        store.write(frames)
        wrote_s += time.perf_counter() - begun
    begun = time.perf_counter()
    store.seal()
    store.sync()
    wrote_s += time.perf_counter() - begun
    begun, at = time.perf_counter(), 0
    expected = _expected(seconds)
    for page in store.dump([1], BEGIN_NS, BEGIN_NS + seconds * S):
        for row in page:
            if (row.time_ns, row.value) != next(expected):
                raise SystemExit(f"reading {at} came back as {row}")
            at += 1
    if at != seconds * RATE_HZ:
        raise SystemExit(f"{at} of {seconds * RATE_HZ} readings came back")
    read_s = time.perf_counter() - begun
    size = store.statistics().bytes
    store.close()
    return (
        f"vibration: {at:,} readings exact, {at / wrote_s:,.0f}/s in, {at / read_s:,.0f}/s out as rows and compared, "
        f"{size / at:.2f} B each, {psutil.Process().memory_info().rss / 1e6:.0f} MB"
    )


def _values(second: int) -> list[float]:
    """Return a second of an accelerometer: two tones and noise, in steps of its converter."""
    t = np.arange(second * RATE_HZ, (second + 1) * RATE_HZ) / RATE_HZ
    noise = np.random.default_rng(second).normal(0, 0.02, RATE_HZ)
    found: list[float] = np.round(np.sin(t * 314.2) + 0.3 * np.sin(t * 1885) + noise, 4).tolist()
    return found


def _second(series: Series, second: int) -> Frame:
    frame = Frame(
        _KEY, second + 1, Kind.BATCH, BEGIN_NS + (second + 1) * S, b"", CHAIN_START, BEGIN_NS + second * S,
        S // RATE_HZ, (SeriesColumn(series, Column("x", range(RATE_HZ), _values(second))),), RATE_HZ,
    )  # fmt: skip
    frame.offset = second + 1
    return frame


def _expected(seconds: int) -> Iterator[tuple[int, float]]:
    for second in range(seconds):
        begin = BEGIN_NS + second * S
        yield from zip(range(begin, begin + S, S // RATE_HZ), _values(second), strict=True)


def year(days: int, folder: Path) -> str:
    """Ask ``days`` of a hundred sensors by local day, and compare with counting; return the figures, or raise."""
    sensors = [Series(n + 1, "default", f"sensor-{n}", "t", ValueType.FLOAT) for n in range(SENSORS)]
    store = ColumnStore(folder / "readings.sqlite3")
    count = days * DAY_S // EVERY_S
    random = np.random.default_rng(1)
    values = np.round(20 + random.normal(0, 0.3, (SENSORS, count)).cumsum(axis=1), 2)
    times = BEGIN_NS + np.arange(count) * EVERY_S * S
    for offset, first in enumerate(range(0, count, _WRITE_S * 10), 1):
        store.write([_rows(sensors, values, first, min(first + _WRITE_S * 10, count), offset)])
    store.seal()
    said = []
    for zone in ("Europe/Brussels", "Asia/Kathmandu"):
        begun = time.perf_counter()
        question = Question(
            sensors, BEGIN_NS, int(times[-1]) + 1, partial(grid_of, "1d", zone), ("count", "min", "max", "mean")
        )
        rows, _ = BucketPages(store, question).page(1_000_000, None, descending=False)
        asked_s = time.perf_counter() - begun
        _compare(rows, times, values, ZoneInfo(zone))
        said.append(f"{zone} {len(rows):,} days in {asked_s:.2f} s")
    size = store.statistics().bytes
    store.close()
    return f"year: {count * SENSORS:,} readings, {size / count / SENSORS:.2f} B each; {'; '.join(said)}, as counted"


def _rows(sensors: list[Series], values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", first: int, end: int,
          offset: int) -> Frame:  # fmt: skip
    dt = range(0, (end - first) * EVERY_S, EVERY_S)
    columns = tuple(
        SeriesColumn(series, Column("t", dt, values[place, first:end].tolist())) for place, series in enumerate(sensors)
    )
    begin = BEGIN_NS + first * EVERY_S * S
    frame = Frame(_KEY, offset, Kind.BATCH, begin, b"", CHAIN_START, begin, S, columns, len(columns) * (end - first))
    frame.offset = offset
    return frame


def _compare(
    rows: Sequence[tuple[Any, ...]],
    times: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
    zone: ZoneInfo,
) -> None:
    found = {(row[0], row[1]): row[2:] for row in rows}
    midnights = [
        datetime.fromtimestamp(t // S, zone).replace(hour=0, minute=0, second=0, microsecond=0) for t in times.tolist()
    ]
    begins = np.array([int(midnight.timestamp()) * S for midnight in midnights])
    edges = [0, *(np.flatnonzero(begins[1:] != begins[:-1]) + 1).tolist(), len(begins)]
    for first, end in pairwise(edges):
        for place in range(SENSORS):
            part = values[place, first:end]
            count, least, most, mean = found.pop((int(begins[first]), place))
            is_right = (count, least, most) == (end - first, part.min(), part.max())
            if not is_right or abs(mean - part.mean()) > 1e-9 * abs(mean):
                raise SystemExit(f"{midnights[first]}, sensor {place}: {count} {least} {most} {mean}")
    if found:
        raise SystemExit(f"{len(found)} days too many, e.g. {next(iter(found))}")


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large_history", description=__doc__)
    parser.add_argument("what", choices=["vibration", "year"])
    parser.add_argument("--days", type=float, default=None, help="default: 1 of vibration, 365 of sensors")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="large-history-") as folder:
        if chosen.what == "vibration":
            print(vibration(int((chosen.days or 1) * DAY_S), Path(folder)))
        else:
            print(year(int(chosen.days or 365), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
