"""One generator for all MQTT servers: raw, prebuilt QoS 1 publications from one asyncio process.

Used by `bench_mqtt` as ``python -m tests.bench.mqtt_load`` with the load as JSON on stdin; prints one JSON line. It
parses nothing but PUBACKs, and for the hub's own devices the ``down`` messages, so that the server under test is the
limit, and reads the server's CPU time around the run.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import cast

import psutil
import uvloop

from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, Hello, Schema, encode

PUBACK = b"\x40\x02"
CONNECT_LIMIT_S = 30.0
# Of one batch; the readings of a connection are 1 ms apart.
BATCH = 50
CONNECT_AT_ONCE = 50


@dataclass(frozen=True)
class Load:
    """What to send: ``connections`` × ``window`` publications in flight for ``seconds``.

    ``is_native``: batches of 50 in the hub's own protocol, on ``up``; else one number on ``bench/temperature``.
    ``idle_s``: instead of sending, connect and stay; the process's memory is read before and after.
    """

    port: int
    pid: int
    connections: int
    window: int
    seconds: float = 3.0
    is_native: bool = False
    idle_s: float = 0.0
    # Device names and tokens of the hub; others take anybody.
    users: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Result:
    """Acked publications a second, CPU of server and generator in µs each; of an idle run, bytes a connection."""

    per_s: float = 0.0
    server_us: float = 0.0
    generator_us: float = 0.0
    idle_bytes: float = 0.0


class Publisher(asyncio.Protocol):
    """One connection that keeps ``window`` publications in flight."""

    def __init__(self, load: Load, index: int, ready: Callable[[], None]) -> None:
        self.acked = 0
        self.is_running = False
        self._load = load
        self._ready = ready
        self._name, self._token = load.users[index % len(load.users)] if load.users else (f"bench-{index}", "")
        self._id = index
        self._packet_id = self._seq = 0
        self._buffer = b""
        topic = f"hub/v1/{self._name}/up" if load.is_native else "bench/temperature"
        self._topic = _text(topic)
        self._start_ns = time.time_ns()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who is here."""
        self._transport = cast("asyncio.Transport", transport)
        flags, user = 0x02, b""
        if self._token:
            flags, user = 0xC2, _text(self._name) + _text(self._token)
        body = _text("MQTT") + bytes((4, flags)) + struct.pack(">H", 600) + _text(f"c{self._id}") + user
        self._transport.write(b"\x10" + _size(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        """Count PUBACKs; send as many more."""
        if self.is_running and len(data) % 4 == 0 and data.count(PUBACK) == len(data) // 4:
            self._more(len(data) // 4)
            return
        self._buffer += data
        acks = 0
        while len(self._buffer) >= 2:
            size, at = _read_size(self._buffer)
            if len(self._buffer) < at + size:
                break
            packet, self._buffer = self._buffer[: at + size], self._buffer[at + size :]
            acks += self._take(packet[0], packet[at:])
        if acks:
            self._more(acks)

    def begin(self) -> None:
        """Fill the window."""
        self.is_running = True
        self._transport.write(b"".join([self._next() for _ in range(self._load.window)]))

    def stop(self) -> None:
        """Send no more."""
        self.is_running = False

    def close(self) -> None:
        """Leave."""
        self._transport.abort()

    def _take(self, kind: int, body: bytes) -> int:
        if kind >> 4 == 2:
            if body[1]:
                raise SystemExit(f"the server refused the connection: {body[1]:#x}")
            if self._load.is_native:
                down = struct.pack(">H", 1) + _text(f"hub/v1/{self._name}/down") + b"\x01"
                self._transport.write(b"\x82" + _size(len(down)) + down)
            else:
                self._ready()
        elif kind >> 4 == 9:
            stream = os.urandom(8).hex()
            hello = Hello(self._name, stream, "0" * 16, stream, 0, 1, CHAIN_START.hex())
            schema = Schema((Channel("temperature", "Cel", ValueType.FLOAT),))
            self._transport.write(self._publish(encode(hello)) + self._publish(encode(schema)))
        elif kind >> 4 == 3:
            size = int.from_bytes(body[:2], "big")
            if kind & 6:
                self._transport.write(PUBACK + body[2 + size : 4 + size])
            if b'"op":"welcome"' in body:
                self._ready()
        elif kind >> 4 == 4 and self.is_running:
            return 1
        return 0

    def _more(self, count: int) -> None:
        self.acked += count
        if self.is_running:
            self._transport.write(b"".join([self._next() for _ in range(count)]))

    def _next(self) -> bytes:
        self._seq += 1
        if not self._load.is_native:
            return self._publish(b"%d.5" % (20 + self._seq % 7))
        column = Column("temperature", list(range(BATCH)), [20 + (self._seq * 7 + i) % 50 / 10 for i in range(BATCH)])
        start_ns = self._start_ns + self._seq * BATCH * 10**6
        return self._publish(encode_json(Batch(self._seq, BATCH, start_ns, 10**6, (column,))))

    def _publish(self, payload: bytes) -> bytes:
        self._packet_id = self._packet_id % 65535 + 1
        body = self._topic + self._packet_id.to_bytes(2, "big") + payload
        return b"\x32" + _size(len(body)) + body


async def run(load: Load) -> Result:
    """Connect all, send, and count."""
    process, loop = psutil.Process(load.pid), asyncio.get_running_loop()
    before = process.memory_info().rss
    publishers: list[Publisher] = []
    async with asyncio.timeout(CONNECT_LIMIT_S):
        for first in range(0, load.connections, CONNECT_AT_ONCE):
            waiting = []
            for index in range(first, min(first + CONNECT_AT_ONCE, load.connections)):
                is_ready = asyncio.Event()
                waiting.append(is_ready.wait())
                make = partial(Publisher, load, index, is_ready.set)
                _, publisher = await loop.create_connection(make, "127.0.0.1", load.port)
                publishers.append(publisher)
            await asyncio.gather(*waiting)
    if load.idle_s:
        await asyncio.sleep(load.idle_s)
        grown = process.memory_info().rss - before
        for publisher in publishers:
            publisher.close()
        return Result(idle_bytes=grown / load.connections)
    for publisher in publishers:
        publisher.begin()
    # What is only warm after a while is not what is asked about.
    await asyncio.sleep(min(load.seconds / 4, 0.5))
    counted, server, own, begun = _counted(publishers), _cpu(process), time.process_time(), time.monotonic()
    await asyncio.sleep(load.seconds)
    messages = max(_counted(publishers) - counted, 1)
    took, server, own = time.monotonic() - begun, _cpu(process) - server, time.process_time() - own
    for publisher in publishers:
        publisher.stop()
    await asyncio.sleep(0.2)
    for publisher in publishers:
        publisher.close()
    return Result(messages / took, server / messages * 1e6, own / messages * 1e6)


def _counted(publishers: list[Publisher]) -> int:
    return sum(publisher.acked for publisher in publishers)


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _size(count: int) -> bytes:
    found = bytearray()
    while True:
        count, digit = divmod(count, 128)
        found.append(digit | (0x80 if count else 0))
        if not count:
            return bytes(found)


def _read_size(data: bytes) -> tuple[int, int]:
    """Return the remaining length and where it ends; what is not there yet counts as more than there is."""
    size = shift = 0
    for at in range(1, min(5, len(data))):
        size |= (data[at] & 0x7F) << shift
        shift += 7
        if not data[at] & 0x80:
            return size, at + 1
    return len(data), 5


def main() -> None:
    """Read the load from stdin, print the result."""
    given = json.loads(sys.stdin.read())
    load = Load(**{**given, "users": tuple(map(tuple, given["users"]))})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(run(load)))))


if __name__ == "__main__":
    main()
