"""What hooks cost: the hub without one beside hubs with sync and async ones, in the same run, in turns.

``python -m tests.bench.bench_hooks [seconds] [turns]`` prints three Markdown tables. The way alone: CPU of session,
validation and hooks in this process, without network and journal, 50 devices with a frame each at a time. Ingest: acked
frames of 50 devices (`tests.bench.load`), with the journal's fsync before each ack. Authorize: ``GET /v1/latest`` over
one connection. Each cell is the best of the turns, as a ratio to that without a hook; in brackets µs of CPU.
"""

import asyncio
import http.client
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START, Hello, Schema, encode
from hub.auth import Identities
from hub.devices import Registry
from hub.hooks.ingest import Ingest, IngestHook
from hub.hooks.loading import load
from hub.hooks.runner import Runner
from hub.journal.base import Run
from hub.model import Frame
from hub.roles import Role
from hub.session import DeviceSession
from hub.streams import Streams
from tests.bench.bench_frames import CONNECTIONS, measure
from tests.bench.load import Load
from tests.support.hub_process import HubProcess

RUNS = ((1, 1), (1, 16), (100, 16))
INGEST = {
    "no hook": (),
    "sync, accepts": ("ingest",),
    "sync, changes every value": ("Change",),
    "async, accepts": ("later.ingest",),
    "async, waits 1 ms": ("look_up.ingest",),
    "four sync ones": ("ingest",) * 4,
}
AUTHORIZE = {"no hook": (), "sync, allows": ("authorize",), "async, allows": ("later.authorize",)}
REQUESTS = 1000
ROUNDS = 100


def main() -> None:
    """Measure all and print the tables."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print("| the way alone, CPU a frame | single | × 100 |\n| --- | --- | --- |")
    ways: dict[str, list[float]] = {}
    for _ in range(turns):
        for name, hooks in INGEST.items():
            ways[name] = [min(a, b) for a, b in zip(ways.get(name, [9e9] * 2), way_of(hooks), strict=True)]
    for name, row in ways.items():
        cells = [f"{us / base:.2f} ({us:.0f} µs)" for us, base in zip(row, ways["no hook"], strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if not seconds:
        return
    print()
    with tempfile.TemporaryDirectory(prefix="bench-hooks-") as folder:
        frames: dict[str, list[tuple[float, float]]] = {}
        requests: dict[str, list[tuple[float, float]]] = {}
        for turn in range(turns):
            for name, hooks in INGEST.items():
                found = frames_of(Path(folder) / f"{turn}-{len(frames)}-{name[:5]}-{hooks}", hooks, seconds)
                frames[name] = [best(a, b) for a, b in zip(frames.get(name, found), found, strict=True)]
            for name, hooks in AUTHORIZE.items():
                found = [requests_of(Path(folder) / f"{turn}-rest-{hooks}", hooks)]
                requests[name] = [best(a, b) for a, b in zip(requests.get(name, found), found, strict=True)]
    print("| ingest | single, W=1 | single, W=16 | × 100, W=16 |\n| --- | --- | --- | --- |")
    table(frames)
    print("\n| authorize | GET /v1/latest |\n| --- | --- |")
    table(requests)


def best(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the most per second and the least CPU."""
    return max(one[0], other[0]), min(one[1], other[1])


def table(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print rows as ratios to the first."""
    base = next(iter(found.values()))
    for name, row in found.items():
        if row is base:
            cells = [f"1 = {rate:,.0f}/s ({us:.0f} µs)" for rate, us in row]
        else:
            cells = [f"{rate / b:.2f} (+{us - bus:.0f} µs)" for (rate, us), (b, bus) in zip(row, base, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def options(hooks: Sequence[str]) -> list[str]:
    """Return the command line's part."""
    return [word for name in hooks for word in ("--hook", f"tests.bench.hooks:{name}")]


def way_of(hooks: Sequence[str]) -> list[float]:
    """Return µs of CPU a frame, of frames with one reading and with a hundred."""
    loaded = load([f"tests.bench.hooks:{name}" for name in hooks]).ingest
    return [asyncio.run(_way(loaded, readings)) for readings in (1, 100)]


async def _way(hooks: Sequence[IngestHook], readings: int) -> float:
    streams, registry, runner = (
        Streams([Run("1", 1)], 0, lambda keys: {}),
        Registry(()),
        Runner(asyncio.get_running_loop()),
    )
    submitted: list[Frame] = []
    done = asyncio.Event()

    def submit(frames: list[Frame]) -> None:
        submitted.extend(frames)
        if len(submitted) == CONNECTIONS:
            done.set()

    ingest = Ingest(hooks, runner.call, streams, registry, submit)
    sessions = []
    for number in range(CONNECTIONS):
        name = f"bench-{number}"
        session = DeviceSession("default", name, streams, registry, has_hooks=bool(hooks))
        for greeting in (Hello(name, "9f3a0000000000aa", "b", "r", 0, 1, CHAIN_START.hex()), Schema((Channel("x"),))):
            session.receive(encode(greeting), True, 1)
        sessions.append(session)
    column = Column("x", [1000 * n for n in range(readings)], [21.5 + n / 7 for n in range(readings)])
    used = 0.0
    for seq in range(1, ROUNDS + 1):
        body = encode_json(Batch(seq, readings, 1_795_376_000_000_000_000, 10**6, (column,)))
        began = time.process_time()
        for session in sessions:
            session.receive(body, True, 1)
            frames, session.frames = session.frames, []
            ingest.take(frames)
        await done.wait()
        used += time.process_time() - began
        streams.committed(submitted)
        submitted.clear()
        done.clear()
    runner.stop()
    return used / ROUNDS / CONNECTIONS * 1e6


def frames_of(data: Path, hooks: Sequence[str], seconds: float) -> list[tuple[float, float]]:
    """Return (frames acked a second, µs of CPU a frame) of each run."""
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    tokens = tuple(identities.add_devices([f"bench-{i}" for i in range(CONNECTIONS)]).values())
    identities.close()
    hub = HubProcess(data, *options(hooks)).start()
    try:
        found = []
        for readings, window in RUNS:
            load = Load(hub.port, hub.pid, "telemetry", window, readings, CONNECTIONS, seconds, tokens)
            result = measure(load)
            found.append((result.frames_per_s, result.server_us))
        return found
    finally:
        hub.stop()


def requests_of(data: Path, hooks: Sequence[str]) -> tuple[float, float]:
    """Return (requests a second, µs of CPU a request)."""
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    headers = {"Authorization": f"Bearer {identities.add_token(Role.WATCHER)[1]}"}
    identities.close()
    hub = HubProcess(data, *options(hooks)).start()
    try:
        connection, process = http.client.HTTPConnection("127.0.0.1", hub.port), psutil.Process(hub.pid)
        cpu, began = 0.0, 0.0
        for number in range(REQUESTS + 100):
            if number == 100:
                cpu, began = sum(process.cpu_times()[:2]), time.perf_counter()
            connection.request("GET", "/v1/latest", headers=headers)
            assert connection.getresponse().read().startswith(b'{"readings"'), "an answer"
        took, used = time.perf_counter() - began, sum(process.cpu_times()[:2]) - cpu
        connection.close()
        return REQUESTS / took, used / REQUESTS * 1e6
    finally:
        hub.stop()


if __name__ == "__main__":
    main()
