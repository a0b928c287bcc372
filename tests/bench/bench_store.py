"""The stores side by side: readings/s, bytes a reading, questions, a question beside full ingest, memory, kill -9.

``python -m tests.bench.bench_store`` prints a Markdown table, one line a store, each in a process of its own;
``--curve`` one of column chunks by number of readings and of series, to 100 million (a quarter of an hour).
The load: devices with four channels, a reading a second with some ms of jitter, in frames of ten; temperatures and the
like with two decimals that wander. One frame in twenty comes some minutes late, one in a hundred comes twice. Frames
are made between the writes and are not counted, nor are the bodies that a server takes; a write is 10,000 readings,
which a hub's consumer halves. What is asked beside ingest is asked by a second thread of the same process.
"""

import argparse
import gc
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import duckdb
import httpx

from device_sdk.columns import Column
from device_sdk.reading import ValueType
from device_sdk.wire import CHAIN_START
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from tests.bench.store_sides import IN_PROCESS, SECOND_NS, SIDES

CHANNELS = 4
T0 = 1_795_392_000_000_000_000
_A_FRAME = 10
_WRITE_READINGS = 10_000
_DEVICES_A_WRITE = _WRITE_READINGS // (CHANNELS * _A_FRAME)
_LATE, _DOUBLED = 0.05, 0.01
_LATE_WRITES = 40
KILL_SECONDS = 3600
# A slice is made before it is written, so that a question beside ingest meets a writer and not the maker of the load.
_WRITES_A_SLICE = 24
_ASKED_EVERY_S = 0.005
HEAD = (
    "| store | readings/s | write p50 / p99 ms | B/reading | latest of 1,000 / raw hour / minutes / hours of all, ms | "
    "beside ingest p50 / p99 ms | MB more | start ms | lost / doubled by kills |"
)
# (devices, seconds) of the cost curve: 1 to 100 million readings of 1,000 series, then four million of 100 to 50,000.
CURVE = ((250, 1000), (250, 10_000), (250, 100_000), (25, 40_000), (2500, 400), (12_500, 80))


class Load:
    """Frames of ``devices``, write by write; the same each time."""

    def __init__(self, devices: int, seconds: int) -> None:
        self._choice = random.Random(7)
        self._seconds = seconds
        self._series = [
            [Series(d * CHANNELS + c + 1, "default", f"device-{d}", f"c{c}", ValueType.FLOAT) for c in range(CHANNELS)]
            for d in range(devices)
        ]
        self._values = [[20.0 + c] * CHANNELS for c in range(devices)]
        self._offset = 0

    def writes(self) -> Iterator[list[Frame]]:
        """Yield the frames of each write."""
        late: deque[list[Frame]] = deque([] for _ in range(_LATE_WRITES))
        for second in range(0, self._seconds, _A_FRAME):
            for first in range(0, len(self._series), _DEVICES_A_WRITE):
                frames = late.popleft()
                later: list[Frame] = []
                for device in range(first, min(first + _DEVICES_A_WRITE, len(self._series))):
                    frame = self._frame(device, second)
                    chance = self._choice.random()
                    (later if chance < _LATE else frames).append(frame)
                    if chance > 1 - _DOUBLED:
                        frames.append(self._numbered(frame))
                late.append(later)
                yield [self._numbered(frame) for frame in frames]
        for frames in late:
            yield [self._numbered(frame) for frame in frames]

    def _frame(self, device: int, second: int) -> Frame:
        choice, values = self._choice, self._values[device]
        dt = [n * 1000 + choice.randrange(4) for n in range(_A_FRAME)]
        columns = []
        for channel, series in enumerate(self._series[device]):
            found = []
            for _ in range(_A_FRAME):
                values[channel] = round(values[channel] + choice.gauss(0, 0.05), 2)
                found.append(values[channel])
            columns.append(SeriesColumn(series, Column(series.channel, dt, found)))
        t0 = T0 + second * SECOND_NS
        key = StreamKey("default", f"device-{device}", "0" * 16)
        return Frame(
            key, second, Kind.BATCH, t0 + _A_FRAME * SECOND_NS, b"", CHAIN_START, t0, 10**6, tuple(columns),
            CHANNELS * _A_FRAME,
        )  # fmt: skip

    def _numbered(self, frame: Frame) -> Frame:
        self._offset += 1
        copy = Frame(
            frame.key, frame.seq, frame.kind, frame.received_ns, b"", frame.chain, frame.t0, frame.tick, frame.columns,
            frame.readings,
        )  # fmt: skip
        copy.offset = self._offset
        return copy


def percentile(times: list[float], part: float) -> float:
    """Return milliseconds."""
    return sorted(times)[min(int(len(times) * part), len(times) - 1)] * 1000


def timed(ask: Callable[[], object], times: int = 20) -> float:
    """Return the milliseconds of the middle one of some runs."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return percentile(taken, 0.5)


def measure(name: str, devices: int, seconds: int, folder: Path) -> str:
    """Fill a side and ask it; return its line."""
    side = SIDES[name](folder, devices * CHANNELS)
    taken, beside, readings, is_done, is_writing = [], [], 0, threading.Event(), threading.Event()
    newest_ns = [T0]

    def ask_on() -> None:
        while not is_done.is_set():
            if is_writing.wait(0.1):
                began = time.perf_counter()
                side.read(1, newest_ns[0] - 600 * SECOND_NS, newest_ns[0])
                beside.append(time.perf_counter() - began)
                time.sleep(_ASKED_EVERY_S)

    asker = threading.Thread(target=ask_on)
    asker.start()
    before = peak = side.memory_bytes()
    writes = (frames for frames in Load(devices, seconds).writes() if frames)
    while slice_of := list(islice(writes, _WRITES_A_SLICE)):
        readings += sum(frame.readings for frames in slice_of for frame in frames)
        prepared = [side.prepare(frames) for frames in slice_of]
        # The load's objects are no garbage; to look through them would be in the side's time.
        gc.freeze()
        is_writing.set()
        for body in prepared:
            began = time.perf_counter()
            side.write(body)
            taken.append(time.perf_counter() - began)
        is_writing.clear()
        newest_ns[0] = max(frame.t0 for frame in slice_of[-1])
        peak = max(peak, side.memory_bytes())
    is_done.set()
    asker.join()
    began = time.perf_counter()
    side.settle()
    settled = time.perf_counter() - began
    rows, size = side.size()
    end = T0 + seconds * SECOND_NS
    figures = [
        timed(lambda: side.latest(range(1, min(devices * CHANNELS, 1000) + 1))),
        timed(lambda: side.read(7, max(T0, end - 3600 * SECOND_NS), end)),
        timed(lambda: side.minutes(7, T0, end)),
        timed(lambda: side.hours(T0, end), 3),
    ]
    side.close()
    began = time.perf_counter()
    side.start()
    start_ms = (time.perf_counter() - began) * 1000
    side.close()
    # The last step of our stores is sealing what waited, which is part of the work; a server's is a restart or a merge.
    busy = sum(taken) + (settled if name in IN_PROCESS else 0)
    return (
        f"| {name} | {readings / busy:,.0f} | {percentile(taken, 0.5):.1f} / {percentile(taken, 0.99):.1f} | "
        f"{size / rows:.2f} | {' / '.join(f'{ms:.2f}' for ms in figures)} | {percentile(beside, 0.5):.1f} / "
        f"{percentile(beside, 0.99):.1f} | {(peak - before) / 1e6:.0f} | {start_ms:.0f} |"
    )


def killed(name: str, devices: int, folder: Path, kills: int) -> str:
    """Kill a side while it writes, some times; return what is missing or doubled then."""
    if not kills:
        return "–"
    written = 0
    choice = random.Random(3)
    for _ in range(kills):
        if name in IN_PROCESS:
            written = _kill_process(name, folder, devices, written, choice.uniform(0, 0.3))
        else:
            written = _kill_server(name, folder, devices, written, choice.uniform(0, 0.3))
    side = SIDES[name](folder, devices * CHANNELS)
    side.settle()
    found, _ = side.size()
    side.close()
    # The write that was killed may be there, in whole or not at all.
    acked, begun = _distinct(devices, written), _distinct(devices, written + 1)
    return f"{max(acked - found, 0)} / {max(found - begun, 0)} of {acked:,}"


def _kill_process(name: str, folder: Path, devices: int, written: int, after_s: float) -> int:
    command = [sys.executable, "-m", "tests.bench.bench_store", "--devices", str(devices), "--skip", str(written)]
    with subprocess.Popen([*command, "--write", name, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        return written + len(child.stdout.readlines())


def _kill_server(name: str, folder: Path, devices: int, written: int, after_s: float) -> int:
    side = SIDES[name](folder, devices * CHANNELS)
    # Bodies before the clock starts: making them is slower than writing.
    bodies = [side.prepare(frames) for frames in _some_writes(devices, written, written + 20)]
    timer = threading.Timer(after_s, side.kill)
    timer.start()
    try:
        for body in bodies:
            side.write(body)
            written += 1
    except (OSError, httpx.HTTPError):
        # It is dead.
        pass
    timer.join()
    return written


def _some_writes(devices: int, first: int, end: int) -> Iterator[list[Frame]]:
    return islice((frames for frames in Load(devices, KILL_SECONDS).writes() if frames), first, end)


def _distinct(devices: int, writes: int) -> int:
    found: dict[int, set[int]] = {}
    for frames in _some_writes(devices, 0, writes):
        for frame in frames:
            for series, time_ns, _ in frame.rows():
                found.setdefault(series.id, set()).add(time_ns)
    return sum(map(len, found.values()))


def write_on(name: str, folder: Path, devices: int, skipped: int) -> None:
    """Write until killed: a line when it is open, and one after each write."""
    side = SIDES[name](folder, devices * CHANNELS)
    for number, frames in enumerate(_some_writes(devices, skipped, skipped + 10_000)):
        prepared = side.prepare(frames)
        if not number:
            print("open", flush=True)
        side.write(prepared)
        print("written", flush=True)


def main() -> None:
    """Measure each side in a process of its own and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=250)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=list(SIDES))
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--write", nargs=2, metavar=("SIDE", "FOLDER"))
    parser.add_argument("--skip", type=int, default=0, help="with --write: so many writes are there already")
    options = parser.parse_args()
    if options.write:
        write_on(options.write[0], Path(options.write[1]), options.devices, options.skip)
    elif options.only:
        with tempfile.TemporaryDirectory(prefix="bench-store-") as folder, tempfile.TemporaryDirectory() as other:
            line = measure(options.only, options.devices, options.seconds, Path(folder))
            print(line, killed(options.only, options.devices, Path(other), options.kills), "|", flush=True)
    else:
        _print_table(options)


def _print_table(options: argparse.Namespace) -> None:
    print(f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
          f"DuckDB {duckdb.__version__}, InfluxDB 1.6.7, VictoriaMetrics 1.79.5, {os.cpu_count()} cores")  # fmt: skip
    runs = [(name, options.devices, options.seconds, options.kills) for name in SIDES]
    if options.curve:
        runs = [("columns", devices, seconds, 0) for devices, seconds in CURVE]
    for number, (name, devices, seconds, kills) in enumerate(runs):
        if options.curve or not number:
            print(f"\n{devices * CHANNELS:,} series, {seconds:,} s at 1 Hz\n")
        if not number:
            print(f"{HEAD}\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        arguments = ["--devices", str(devices), "--seconds", str(seconds), "--kills", str(kills)]
        subprocess.run([sys.executable, "-m", "tests.bench.bench_store", "--only", name, *arguments], check=True)


if __name__ == "__main__":
    main()
