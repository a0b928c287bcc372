"""Fan-out: readings delivered to 100 and 1,000 watchers, in process and over real sockets, and their latency.

``python -m tests.bench.bench_live`` prints a Markdown table. A delivery is
one reading to one watcher. In process: the live core with connections that
only take bytes. Sockets: uvicorn with our protocol here, all watchers in a
child process that looks at each message's cursor; CPU is this process's.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hub.gateway.watch_socket import WatchSocket
from hub.gateway.websocket import Accept, Refuse, UpgradeRequest, make_protocol
from hub.model import Frame
from hub.roles import Identity, Role, scopes_of
from tests.support.fake_connection import FakeConnection
from tests.support.gateway import serving
from tests.support.live_world import NOW_NS, StoreInStep, World

WATCHERS = (100, 1000)
READINGS_PER_FRAME = 100
# Deliveries of one run: a few seconds on a small machine, and more per watcher than the kernel buffers.
DELIVERIES = {100: 20_000_000, 1000: 50_000_000}
LATENCY_READINGS = 300
# Pause between readings of the latency phase, per 100 watchers.
PAUSE_S = 0.01
IDENTITY = Identity("bench", "bench", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
REQUEST = b"GET /v1/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n" \
    b"Sec-WebSocket-Protocol: watch.v1\r\n\r\n"  # fmt: skip
SUBSCRIBE = b'{"op":"sub","sub":"s1","match":["**"]}'


class Sink(FakeConnection):
    """A connection that counts bytes and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def send_raw(self, frame: bytes) -> None:
        """Count."""
        self.bytes += len(frame)


def main() -> None:
    """Measure everything, or be the watchers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", nargs=3, type=int, metavar=("PORT", "COUNT", "FRAMES"))
    as_watchers = parser.parse_args().watchers
    if as_watchers is not None:
        asyncio.run(watch_many(*as_watchers))
        return
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores\n")
    print("| watchers | where | deliveries/s | deliveries per hub CPU s | bytes/reading | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in WATCHERS:
        asyncio.run(measure_in_process(count))
        asyncio.run(measure_sockets(count))


async def measure_in_process(count: int) -> None:
    """Publish frames to watchers whose connections cost nothing: the live core alone."""
    world = _world()
    sinks = [Sink() for _ in range(count)]
    sockets = [WatchSocket(world.live, world.store, StoreInStep(), IDENTITY) for _ in sinks]
    for socket, sink in zip(sockets, sinks, strict=True):
        socket.opened(sink)
        socket.message(SUBSCRIBE, True)
    while world.live.statistics().behind:  # noqa: ASYNC110
        await asyncio.sleep(0)
    frames = _frames(world, DELIVERIES[count] // count // READINGS_PER_FRAME)
    before = sum(sink.bytes for sink in sinks)

    with _timed() as took:
        for frame in frames:
            world.journal.append([frame], [])
            world.live.publish([frame])
            await asyncio.sleep(0)
        world.live.flush()

    readings = len(frames) * READINGS_PER_FRAME
    sent = sum(sink.bytes for sink in sinks) - before
    _row(count, "in process", readings * count, took, sent / readings / count, [])
    for socket in sockets:
        socket.closed(1000, "")


async def measure_sockets(count: int) -> None:
    """Publish to real connections: as fast as they are taken, then 100 readings/s for the latency."""
    world = _world()
    frames = _frames(world, DELIVERIES[count] // count // READINGS_PER_FRAME)
    protocol = make_protocol(_Door(world))
    async with serving(ws=protocol) as port:
        arguments = [sys.executable, "-m", "tests.bench.bench_live", "--watchers", str(port), str(count)]
        child = await asyncio.create_subprocess_exec(*arguments, str(len(frames)), stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None, "it is a pipe"
        while world.live.statistics().listeners < count or world.live.statistics().behind:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with _timed() as took:
            for frame in frames:
                world.journal.append([frame], [])
                world.live.publish([frame])
                await asyncio.sleep(0)
                while world.live.statistics().behind > count // 10:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            await child.stdout.readline()
        for _ in range(LATENCY_READINGS):
            frame = world.frame({1: [(NOW_NS, time.monotonic_ns())]})
            world.journal.append([frame], [])
            world.live.publish([frame])
            await asyncio.sleep(PAUSE_S * count / 100)
        found = json.loads(await child.stdout.readline())
        await child.wait()
    readings = len(frames) * READINGS_PER_FRAME
    _row(count, "sockets", readings * count, took, found["bytes"] / count / (readings + 1), found["latency_ms"])


async def watch_many(port: int, count: int, frames: int) -> None:
    """Be all watchers: say when each has seen all frames, then print bytes and latencies of the paced readings."""
    loop = asyncio.get_running_loop()
    marks = (frames, frames + LATENCY_READINGS)
    watchers = [RawWatcher([(offset, loop.create_future()) for offset in marks]) for _ in range(count)]
    for watcher in watchers:
        await loop.create_connection(lambda watcher=watcher: watcher, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(watcher.marks[0][1] for watcher in watchers))
    print("all frames", flush=True)
    await asyncio.gather(*(watcher.marks[1][1] for watcher in watchers))
    latency = sorted(ms for watcher in watchers for ms in watcher.latency_ms)
    sample = [latency[len(latency) * k // 1000] for k in range(1000)]
    print(json.dumps({"bytes": sum(w.bytes for w in watchers), "latency_ms": sample}), flush=True)


class RawWatcher(asyncio.Protocol):
    """One watcher: cuts frames, reads their cursor, and the value of messages that hold one reading."""

    def __init__(self, marks: "list[tuple[int, asyncio.Future[None]]]") -> None:
        self.marks = marks
        self.bytes = 0
        self.latency_ms: list[float] = []
        self._buffer = bytearray()
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport), "TCP"
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Subscribe after the handshake, then take frames apart; answer pings (they are empty)."""
        now = time.monotonic_ns()
        buffer = self._buffer
        buffer += data
        if not self._is_open:
            head = buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            del buffer[: head + 4]
            self._is_open = True
            self._transport.write(b"\x81" + bytes((0x80 | len(SUBSCRIBE),)) + bytes(4) + SUBSCRIBE)
        at = 0
        while len(buffer) - at >= 2:
            if buffer[at] == 0x89:
                self._transport.write(b"\x8a\x80" + bytes(4))
                at += 2
                continue
            if len(buffer) - at < 10:
                break
            size, begin = buffer[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, begin = int.from_bytes(buffer[begin : begin + width]), begin + width
            if begin + size > len(buffer):
                break
            self._message(bytes(buffer[begin : begin + size]), now)
            at = begin + size
        del buffer[:at]

    def _message(self, message: bytes, now: int) -> None:
        if message.startswith(b'{"op":"data"'):
            self.bytes += len(message)
            if len(message) < 200:
                self.latency_ms.append((now - int(json.loads(message)["u"][0][2])) / 1e6)
            offset = int(message[message.index(b".") + 1 : message.index(b'","t0"')])
            for mark, reached in self.marks:
                if offset >= mark and not reached.done():
                    reached.set_result(None)


class _Door:
    """Lets every connection in as a watcher of the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, request: UpgradeRequest) -> Accept | Refuse:
        """Accept."""
        world = self._world
        return Accept(WatchSocket(world.live, world.store, StoreInStep(), IDENTITY), "watch.v1")


class _Took:
    """Wall and CPU seconds of a block."""

    wall_s = cpu_s = 0.0


@contextmanager
def _timed() -> Iterator[_Took]:
    took, begin, before = _Took(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    yield took
    after = resource.getrusage(resource.RUSAGE_SELF)
    took.wall_s = time.perf_counter() - begin
    took.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _world() -> World:
    world = World(loop=asyncio.get_running_loop())
    for k in range(10):
        world.add(f"d{k}", "x")
    return world


def _frames(world: World, count: int) -> list[Frame]:
    base = NOW_NS // 10**6 * 10**6
    return [
        world.frame(
            {
                k % 10 + 1: [
                    (base + (k * READINGS_PER_FRAME + j) * 10**6, 20 + j / 100) for j in range(READINGS_PER_FRAME)
                ]
            }
        )
        for k in range(count)
    ]


def _row(count: int, where: str, deliveries: int, took: _Took, size: float, latency_ms: list[float]) -> None:
    p50, p99 = (f"{statistics.median(latency_ms):.2f}", f"{latency_ms[989]:.2f}") if latency_ms else ("", "")
    print(
        f"| {count} | {where} | {deliveries / took.wall_s:,.0f} | {deliveries / took.cpu_s:,.0f} "
        f"| {size:.1f} | {p50} | {p99} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
