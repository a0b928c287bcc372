"""Readings/s made durable and acked: journal alone, journal with the store behind it, and one row a reading.

``python -m tests.bench.bench_journal`` prints a Markdown table. Closed loop: each device has a window of frames
between submit and ack. The loop decodes each body as a hub does, so it competes for the interpreter lock with the
writer and the consumer as in life. "Rows" is the same writer thread over one INSERT a reading, `synchronous=FULL`.
The ack's delay is from submit to the callback on the loop.
"""

import argparse
import asyncio
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_sdk.columns import decode_batch, encode_batch, to_columns
from device_sdk.reading import Reading, ValueType
from device_sdk.wire import CHAIN_START
from hub.journal.base import Journal
from hub.journal.sqlite import SqliteJournal
from hub.journal.writer import JournalWriter
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.consumer import StoreConsumer
from hub.store.embedded import EmbeddedStore

CHANNELS = 4
T0 = 1_795_376_000_000_000_000


class Rows(SqliteJournal):
    """The plain alternative: every reading a row of an indexed table, committed in the same groups."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = sqlite3.connect(f"{path}-rows", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=FULL")
        self._rows.execute("PRAGMA wal_autocheckpoint=4000")
        self._rows.execute("CREATE TABLE reading(series INT, time_ns INT, value, PRIMARY KEY(series, time_ns))")

    def append(self, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        """Insert each reading and commit."""
        self._rows.execute("BEGIN")
        self._rows.executemany(
            "INSERT OR REPLACE INTO reading VALUES (?,?,?)",
            ((s.id, time_ns, value) for frame in frames for s, time_ns, value in frame.rows()),
        )
        self._rows.execute("COMMIT")

    def close(self) -> None:
        """Close both files."""
        self._rows.close()
        super().close()


@dataclass
class Load:
    """What the devices send: bodies by device, and the closed loop over a writer."""

    devices: int
    frames: int
    readings: int
    window: int
    bodies: list[list[bytes]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = random.Random(1)
        self.series = [
            [Series(d * CHANNELS + c + 1, "default", f"device-{d}", f"c{c}", ValueType.FLOAT) for c in range(CHANNELS)]
            for d in range(self.devices)
        ]
        self.bodies = [[self._body(f, source) for f in range(self.frames)] for _ in range(self.devices)]

    def _body(self, frame: int, source: random.Random) -> bytes:
        each = self.readings // CHANNELS
        readings = [
            Reading(f"c{c}", T0 + (frame * each + i) * 1_000_000, source.uniform(-40, 85))
            for c in range(CHANNELS)
            for i in range(each)
        ]
        return encode_batch(to_columns(frame + 1, readings))

    def frame(self, device: int, index: int) -> Frame:
        """Decode a body as the hub does on its way in."""
        body = self.bodies[device][index]
        batch = decode_batch(body)
        columns = tuple(SeriesColumn(s, c) for s, c in zip(self.series[device], batch.columns, strict=True))
        key = StreamKey("default", f"device-{device}", "0" * 16)
        return Frame(
            key, index + 1, Kind.BATCH, time.time_ns(), body, CHAIN_START, batch.t0, batch.tick, columns, batch.count
        )


class ClosedLoop:
    """All devices of a load over one writer: each ack lets its device send again."""

    def __init__(self, load: Load, journal: Journal, consumer: StoreConsumer | None) -> None:
        self._load = load
        self._consumer = consumer
        self._loop = asyncio.get_running_loop()
        self._writer = JournalWriter(journal, self._loop, self._committed, _fail, _refused)
        self._done = asyncio.Event()
        self._next = [0] * load.devices
        self._sent_at: dict[tuple[StreamKey, int], float] = {}
        self._left = load.devices * load.frames

    async def run(self) -> tuple[float, float]:
        """Send everything; return seconds until the last ack and until the store had it all (the same without)."""
        self._writer.start()
        began = time.perf_counter()
        for device in range(self._load.devices):
            self._send(device, self._load.window)
        await self._done.wait()
        acked_s = time.perf_counter() - began
        if self._consumer is not None:
            is_stored = await self._consumer.applied(self._load.devices * self._load.frames, 600)
            assert is_stored, "the store did not catch up"
        stored_s = time.perf_counter() - began
        await asyncio.to_thread(self._writer.stop)
        return acked_s, stored_s

    def _committed(self, frames: list[Frame]) -> None:
        now = time.perf_counter()
        self._left -= len(frames)
        if self._consumer is not None:
            self._consumer.wake(frames)
        for frame in frames:
            self._load.delays.append(now - self._sent_at.pop((frame.key, frame.seq)))
        for device, count in Counter(int(frame.key.device.removeprefix("device-")) for frame in frames).items():
            self._loop.call_soon(self._send, device, count)
        if not self._left:
            self._done.set()

    def _send(self, device: int, count: int) -> None:
        first = self._next[device]
        self._next[device] = min(first + count, self._load.frames)
        frames = [self._load.frame(device, index) for index in range(first, self._next[device])]
        now = time.perf_counter()
        for frame in frames:
            self._sent_at[(frame.key, frame.seq)] = now
        if frames:
            self._writer.submit(frames, self._load.series[device] if first == 0 else ())


def main() -> None:
    """Measure every way in a new directory each and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--readings", type=int, default=1_000_000, help="in all, per line of the table")
    parser.add_argument("--switch-ms", type=float, default=sys.getswitchinterval() * 1000)
    options = parser.parse_args()
    sys.setswitchinterval(options.switch_ms / 1000)
    print(f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version},")
    print(f"{os.cpu_count()} cores, {options.devices} devices, window {options.window},", end=" ")
    print(f"switch interval {options.switch_ms:g} ms\n")
    print("| way | batch | readings/s acked | ack p50/p99/max ms | readings/s stored | CPU µs each | frames a commit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for readings in (100, 1000):
        frames = max(options.readings // (options.devices * readings), 4 * options.window)
        load = Load(options.devices, frames, readings, options.window)
        for way in ("journal", "journal + store", "rows, FULL"):
            load.delays.clear()
            with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
                print(asyncio.run(_line(way, load, Path(folder))), flush=True)


async def _line(way: str, load: Load, folder: Path) -> str:
    journal = Rows(folder / "journal") if way == "rows, FULL" else SqliteJournal(folder / "journal")
    store, consumer = EmbeddedStore(folder / "readings"), None
    if way == "journal + store":
        consumer = StoreConsumer(store, journal)
        consumer.start()
    cpu_s = time.process_time()
    acked_s, stored_s = await ClosedLoop(load, journal, consumer).run()
    cpu_s = time.process_time() - cpu_s
    commits = journal.statistics().commits
    if consumer is not None:
        await asyncio.to_thread(consumer.stop)
    journal.close()
    store.close()
    delays = sorted(load.delays)
    count = len(delays) * load.readings
    p50, p99 = (delays[int(len(delays) * q)] * 1000 for q in (0.5, 0.99))
    stored = f"{count / stored_s:,.0f}" if way != "journal" else "–"
    group = f"{len(delays) / commits:.0f}" if commits else "–"
    return (
        f"| {way} | {load.readings:,} | {count / acked_s:,.0f} | "
        f"{p50:.1f}/{p99:.1f}/{delays[-1] * 1000:.0f} | {stored} | {cpu_s / count * 1e6:.2f} | {group} |"
    )


def _fail(error: Exception) -> None:
    raise error


def _refused(frames: list[Frame]) -> None:
    raise AssertionError(f"the disk is full: {len(frames)} frames refused")


if __name__ == "__main__":
    main()
