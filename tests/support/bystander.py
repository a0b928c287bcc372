"""Healthy devices and a healthy watcher in a process of their own, while others misbehave.

Owns: how long their acks and readings take, and the ledger of what they recorded. A process of its own, so that
the load that a test makes does not slow the measurement down. `Bystander` is the test's handle; `python -m
tests.support.bystander` is the process.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from device_sdk import Client
from device_sdk.columns import decode_batch
from hub.cli.check import compare_with_hub
from hub.cli.enrol import enrol_in_folder
from hub.cli.rest import RestClient
from simulators.ledger import Ledger
from simulators.link import Link, drain, open_devices
from simulators.verdict import Verdict
from tests.support.hub_process import ROOT, HubProcess

DEVICES = 8
# Longer than the SDK gathers (50 ms), so each reading is a frame: 16 frames a second and device at most.
PERIOD_S = 0.06
_DRAIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of ``count`` samples; zeros when there was none."""

    count: int
    p50: float
    p99: float
    worst: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} p99 {self.p99:.1f} ms (n={self.count})"


@dataclass(frozen=True, slots=True)
class Measured:
    """From a frame's first transmission to its ack, and to the watcher."""

    ack: Latency
    watch: Latency


def latency(samples_s: list[float]) -> Latency:
    """Return the percentiles of samples in seconds."""
    if not samples_s:
        return Latency(0, 0.0, 0.0, 0.0)
    ms = sorted(sample * 1000 for sample in samples_s)
    return Latency(len(ms), ms[len(ms) // 2], ms[min(len(ms) - 1, int(len(ms) * 0.99))], ms[-1])


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of each frame to its ack, and to the watcher; what was taken in several turns adds up."""

    ack: list[float] = field(default_factory=list)
    watch: list[float] = field(default_factory=list)

    def __add__(self, other: "Samples") -> "Samples":
        return Samples(self.ack + other.ack, self.watch + other.watch)

    @property
    def measured(self) -> Measured:
        """Their percentiles."""
        return Measured(latency(self.ack), latency(self.watch))


class Bystander:
    """Eight real devices that record in turns, and a watcher of them; use as ``with``.

    Args:
        hub: running.
        folder: for their ledger.
    """

    def __init__(self, hub: HubProcess, folder: Path) -> None:
        self._hub = hub
        self._folder = folder
        self._names = [f"healthy-{n}" for n in range(DEVICES)]

    def measure(self, seconds: float) -> Samples:
        """Return what the next ``seconds`` were like."""
        self.reset()
        time.sleep(seconds)
        return self.taken()

    def reset(self) -> None:
        """Forget what was measured so far."""
        self._ask("reset")

    def taken(self) -> Samples:
        """Return what was measured since the last `reset`."""
        return Samples(**self._ask("taken"))

    def finish(self) -> Verdict:
        """Stop recording, wait for the last acks, and compare the ledger with the hub."""
        self._ask("finish")
        return compare_with_hub(RestClient(self._hub.url), self._folder)

    def __enter__(self) -> Self:
        tokens = enrol_in_folder(self._hub.data, self._names)
        options = {"url": self._hub.ws_url, "tokens": tokens, "folder": str(self._folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.bystander", json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: str) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        process.stdin.write(command + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "the bystander died; its own words are above"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Stopwatch(Ledger):
    """A ledger that also takes times. Its lines are written at the end: an fsync here would be part of a latency."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.acks: list[float] = []
        self.watched: list[float] = []
        self._sent: dict[tuple[str, int], float] = {}
        self._sent_reading: dict[tuple[str, int], float] = {}
        self._acked: dict[str, int] = {}
        self._lines_later: list[Callable[[], None]] = []

    def frame_hook(self, device: str) -> Callable[[int, bytes, str], None]:
        """Take the time of a frame and of its readings."""
        witness = super().frame_hook(device)

        def on_frame(seq: int, body: bytes, stream: str) -> None:
            now = time.perf_counter()
            self._sent[stream, seq] = now
            for reading in decode_batch(body).readings():
                self._sent_reading[device, reading.time_ns] = now
            self._lines_later.append(lambda: witness(seq, body, stream))

        return on_frame

    def ack_hook(self, device: str) -> Callable[[int, str], None]:
        """Take the times of the frames that an ack covers."""
        witness = super().ack_hook(device)

        def on_ack(stored: int, stream: str) -> None:
            now = time.perf_counter()
            for seq in range(self._acked.get(stream, 0) + 1, stored + 1):
                self.acks.append(now - self._sent.pop((stream, seq)))
            self._acked[stream] = stored
            self._lines_later.append(lambda: witness(stored, stream))

        return on_ack

    def seen(self, device: str, time_ns: int) -> None:
        """Take the time of a reading that the watcher got."""
        sent = self._sent_reading.pop((device, time_ns), None)
        if sent is not None:
            self.watched.append(time.perf_counter() - sent)

    def close(self) -> None:
        """Write all lines."""
        for write in self._lines_later:
            write()
        super().close()


async def run(url: str, tokens: Mapping[str, str], folder: Path) -> None:
    """Record, watch, and answer commands until the end of stdin."""
    stopwatch = Stopwatch(folder)
    names = list(tokens)
    async with open_devices(Link(url, tokens), names, stopwatch) as links:
        for link in links.values():
            link.record({"value": 0})
        await drain(list(links.values()), _DRAIN_S)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(url, stopwatch), name="watch")
            work = [watching]
            for k, link in enumerate(links.values()):
                pause_s = PERIOD_S * k / len(links)
                work.append(tasks.create_task(_record(link.record, pause_s), name=f"record {link.name}"))
            print("ready", flush=True)
            while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
                if command == "reset":
                    stopwatch.acks.clear()
                    stopwatch.watched.clear()
                elif command == "finish":
                    for task in work[1:]:
                        task.cancel()
                    await drain(list(links.values()), _DRAIN_S)
                    stopwatch.close()
                print(json.dumps(asdict(Samples(stopwatch.acks, stopwatch.watched))), flush=True)
            for task in work:
                task.cancel()


async def _record(record: Callable[[Mapping[str, float]], None], pause_s: float) -> None:
    await asyncio.sleep(pause_s)
    n = 0
    while True:
        n += 1
        record({"value": n})
        await asyncio.sleep(PERIOD_S)


async def _watch(url: str, stopwatch: Stopwatch) -> None:
    async for reading in Client(url).watch("healthy-*/value"):
        stopwatch.seen(reading.device, reading.time_ns)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    asyncio.run(run(options["url"], options["tokens"], Path(options["folder"])))
