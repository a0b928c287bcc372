"""The stores side by side: readings/s, bytes a reading, questions, a question beside full ingest, memory, kill -9.

``python -m tests.bench.bench_store`` prints a Markdown table, one line a store, each in a process of its own.
The load: devices with four channels, a reading a second with some ms of jitter, in frames of ten; temperatures and the
like with two decimals that wander. One frame in twenty comes some minutes late, one in a hundred comes twice. Frames
are made between the writes and are not counted; a write is 10,000 readings, which a hub's consumer halves.
"""

import argparse
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
from pathlib import Path

import psutil

from device_sdk.columns import Column
from device_sdk.reading import ValueType
from device_sdk.wire import CHAIN_START
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.base import Store
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore

STORES: dict[str, Callable[[Path], Store]] = {"columns": ColumnStore, "rows": EmbeddedStore}
CHANNELS = 4
T0 = 1_795_392_000_000_000_000
SECOND_NS = 10**9
_A_FRAME = 10
_WRITE_READINGS = 10_000
_DEVICES_A_WRITE = _WRITE_READINGS // (CHANNELS * _A_FRAME)
_LATE, _DOUBLED = 0.05, 0.01
_LATE_WRITES = 40


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
    """Fill a store and ask it; return its line."""
    process = psutil.Process()
    path = folder / "readings.sqlite3"
    store = STORES[name](path)
    taken, beside, readings, is_done = [], [], 0, threading.Event()
    newest_ns = [T0]

    def ask_on() -> None:
        while not is_done.wait(0.02):
            began = time.perf_counter()
            store.read([1], newest_ns[0] - 600 * SECOND_NS, newest_ns[0], 1000)
            beside.append(time.perf_counter() - began)

    asker = threading.Thread(target=ask_on)
    asker.start()
    before = process.memory_info().rss
    peak = before
    for frames in Load(devices, seconds).writes():
        if not frames:
            continue
        began = time.perf_counter()
        store.write(frames)
        taken.append(time.perf_counter() - began)
        readings += sum(frame.readings for frame in frames)
        newest_ns[0] = max(frame.t0 for frame in frames)
        peak = max(peak, process.memory_info().rss) if len(taken) % 20 == 0 else peak
    is_done.set()
    asker.join()
    began = time.perf_counter()
    if isinstance(store, ColumnStore):
        store.seal()
    taken.append(time.perf_counter() - began)
    store.sync()
    rows = store.statistics().rows
    size = store.statistics().bytes
    numbers = list(range(1, devices * CHANNELS + 1))
    end = T0 + seconds * SECOND_NS
    hour = max(T0, end - 3600 * SECOND_NS)
    figures = [
        timed(lambda: store.latest(numbers[:1000])),
        timed(lambda: store.read([7], hour, end, 5000)),
        timed(lambda: store.aggregate([7], T0, end, 60 * SECOND_NS, ["avg", "min", "max"])),
        timed(lambda: store.aggregate(numbers, T0, end, 3600 * SECOND_NS, ["avg"]), 3),
    ]
    store.close()
    began = time.perf_counter()
    STORES[name](path).close()
    start_ms = (time.perf_counter() - began) * 1000
    return (
        f"| {name} | {readings / sum(taken):,.0f} | {percentile(taken, 0.5):.1f} / {percentile(taken, 0.99):.1f} | "
        f"{size / rows:.2f} | {' / '.join(f'{ms:.2f}' for ms in figures)} | {percentile(beside, 0.5):.1f} / "
        f"{percentile(beside, 0.99):.1f} | {(peak - before) / 1e6:.0f} | {start_ms:.0f} |"
    )


def killed(name: str, devices: int, folder: Path, kills: int) -> str:
    """Kill a process that writes, some times; return what is missing or doubled then."""
    path = folder / "killed.sqlite3"
    choice = random.Random(3)
    for _ in range(kills):
        command = [
            sys.executable,
            "-m",
            "tests.bench.bench_store",
            "--write",
            name,
            str(path),
            "--devices",
            str(devices),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(choice.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
    store = STORES[name](path)
    numbers = list(range(1, devices * CHANNELS + 1))
    found = store.account(numbers)
    expected: dict[int, set[int]] = {number: set() for number in numbers}
    for frames in Load(devices, 600).writes():
        for frame in frames:
            if frame.offset <= found.applied:
                for series, time_ns, _ in frame.rows():
                    expected[series.id].add(time_ns)
    lost = sum(len(expected[c.series]) for c in found.series) - sum(c.rows for c in found.series)
    store.close()
    return f"{lost} of {sum(map(len, expected.values())):,}"


def write_on(name: str, path: Path, devices: int) -> None:
    """Write until killed."""
    store = STORES[name](path)
    print("begun", flush=True)
    for frames in Load(devices, 600).writes():
        store.write(frames)


def main() -> None:
    """Measure each store in a process of its own and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=250)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=list(STORES))
    parser.add_argument("--write", nargs=2, metavar=("STORE", "FILE"))
    options = parser.parse_args()
    if options.write:
        write_on(options.write[0], Path(options.write[1]), options.devices)
    elif options.only:
        with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
            line = measure(options.only, options.devices, options.seconds, Path(folder))
            print(line, killed(options.only, options.devices, Path(folder), options.kills), "|", flush=True)
    else:
        print(f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version},")
        print(f"{os.cpu_count()} cores, {options.devices * CHANNELS} series, {options.seconds} s at 1 Hz\n")
        print("| store | readings/s | write p50 / p99 ms | B/reading | latest of 1,000 / raw hour / minutes / hours of "
              "all, ms | beside ingest p50 / p99 ms | MB more | start ms | lost or doubled by kills |")  # fmt: skip
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for name in STORES:
            arguments = ["--only", name, "--devices", str(options.devices), "--seconds", str(options.seconds)]
            arguments += ["--kills", str(options.kills)]
            subprocess.run([sys.executable, "-m", "tests.bench.bench_store", *arguments], check=True)


if __name__ == "__main__":
    main()
