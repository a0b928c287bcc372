"""One generator for all servers: raw, prebuilt, masked WebSocket frames from one asyncio process.

It parses nothing but the acks, so that the server under test is the limit, and
reads the server's CPU time around the run. Used by the benchmarks as
``python -m tests.bench.load`` with the load as JSON on stdin; prints one JSON line.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, cast

import psutil
import uvloop
from websockets.frames import Frame, Opcode

from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, DEVICE_PATH, Hello, Schema, encode


@dataclass(frozen=True)
class Load:
    """What to send: ``connections`` × ``window`` frames of ``readings`` in flight for ``seconds``."""

    port: int
    pid: int
    dialect: str
    window: int
    readings: int
    connections: int = 50
    seconds: float = 3.0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """Acked frames per second, and the CPU of server and generator in µs per frame."""

    frames_per_s: float
    server_us: float
    generator_us: float


class Dialect(Protocol):
    """How one server wants to be spoken to."""

    path: str

    def greetings(self, index: int) -> Sequence[bytes]:
        """Text messages to send first; each waits for the answer to the one before."""

    def frame(self, seq: int) -> bytes:
        """The seq-th message, from 1."""

    def acked(self, before: int, data: bytes) -> int:
        """How many messages are acked, given what arrived."""


class Plain:
    """The bare ack servers: a batch's bytes out, ``"stored":n`` back."""

    path = "/"

    def __init__(self, readings: int) -> None:
        self._readings = readings
        # Each run begins an hour of readings after the run before, so that none writes a reading again.
        self._start_ns = 10**18 + time.time_ns() // 10**9 % 10**5 * 3600 * 10**9

    def greetings(self, index: int) -> Sequence[bytes]:
        """None."""
        return ()

    def frame(self, seq: int) -> bytes:
        """A JSON batch of one channel, readings 1 ms apart."""
        values = [20 + (seq * 7 + i) % 50 / 10 for i in range(self._readings)]
        column = Column("temperature", list(range(self._readings)), values)
        return encode_json(Batch(seq, self._readings, self._start_ns + seq * 10**8, 10**6, (column,)))

    def acked(self, before: int, data: bytes) -> int:
        """Cumulative: the last number that is whole."""
        at = data.rfind(b'"stored":')
        if at < 0:
            return before
        digits = data[at + 9 : at + 22].partition(b",")[0].partition(b"}")[0]
        return max(before, int(digits)) if digits.isdigit() else before


class Telemetry(Plain):
    """The hub itself: hello, schema, then numbered batches."""

    path = DEVICE_PATH

    def greetings(self, index: int) -> Sequence[bytes]:
        """Hello of a new stream, then the schema (which has no answer, so it travels with the first frames)."""
        stream = os.urandom(8).hex()
        hello = Hello(f"bench-{index}", stream, "0" * 16, stream, 0, 1, CHAIN_START.hex())
        return (encode(hello),)

    def schema(self) -> bytes:
        """The one channel."""
        return encode(Schema((Channel("temperature", "Cel", ValueType.FLOAT),)))


class SocketIo(Plain):
    """Socket.IO 4 (Engine.IO 4) over WebSocket: events with acks."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def greetings(self, index: int) -> Sequence[bytes]:
        """Connect to the default namespace."""
        return (b"40",)

    def frame(self, seq: int) -> bytes:
        """An event that carries the batch as a string and asks for an ack."""
        return f"42{seq}".encode() + json.dumps(["m", super().frame(seq).decode()]).encode()

    def acked(self, before: int, data: bytes) -> int:
        """Count ``43<id>[]``."""
        return before + data.count(b"[]")


class Client(asyncio.Protocol):
    """One connection that keeps ``window`` messages in flight."""

    def __init__(
        self, load: Load, dialect: Dialect, index: int, frames: Sequence[bytes], ready: asyncio.Future[None]
    ) -> None:
        self._load, self._dialect, self._index, self._frames, self._ready = load, dialect, index, frames, ready
        self._greetings = [text(greeting) for greeting in dialect.greetings(index)]
        self._is_upgraded = False
        self._tail = b""
        self.sent = self.acked = 0
        self.is_running = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade."""
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = transport = cast(asyncio.Transport, transport)
        token = f"Authorization: Bearer {self._load.tokens[self._index]}\r\n" if self._load.tokens else ""
        protocol = "Sec-WebSocket-Protocol: telemetry.v1\r\n" if self._load.tokens else ""
        transport.write(
            f"GET {self._dialect.path} HTTP/1.1\r\nHost: 127.0.0.1:{self._load.port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"{token}{protocol}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Greet, then answer each ack with the next message."""
        if not self._is_upgraded:
            if b"\r\n\r\n" not in data or b" 101 " not in data:
                raise RuntimeError(f"refused: {data[:300]!r}")
            self._is_upgraded = True
            data = data.partition(b"\r\n\r\n")[2]
            # Socket.IO speaks first; the others answer the greeting.
            if self._load.dialect != "socketio" or data:
                self._greet()
            return
        if not self._ready.done():
            self._greet()
            return
        self.acked = self._dialect.acked(self.acked, self._tail + data)
        self._tail = b"" if self._load.dialect == "socketio" else data[-24:]
        if self.is_running:
            self.fill()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the run when the server hangs up before the greeting is done."""
        if not self._ready.done():
            self._ready.set_exception(ConnectionError("closed during the greeting"))

    def fill(self) -> None:
        """Send until the window is full."""
        stop = min(self.acked + self._load.window, len(self._frames))
        if stop > self.sent:
            self.transport.write(b"".join(self._frames[self.sent : stop]))
            self.sent = stop

    def _greet(self) -> None:
        if self._greetings:
            self.transport.write(self._greetings.pop(0))
        else:
            if isinstance(self._dialect, Telemetry):
                self.transport.write(text(self._dialect.schema()))
            self._ready.set_result(None)


def text(payload: bytes) -> bytes:
    """A masked text frame."""
    return Frame(Opcode.TEXT, payload).serialize(mask=True)


async def run(load: Load) -> Result:
    """Connect all, run for the time asked, and measure what was acked in it."""
    dialects: dict[str, type[Plain]] = {"plain": Plain, "telemetry": Telemetry, "socketio": SocketIo}
    dialect = dialects[load.dialect](load.readings)
    # More than any server here takes, in all.
    count = int((load.seconds + 1) * 700_000 / load.connections)
    frames = [text(dialect.frame(seq)) for seq in range(1, count + 1)]
    loop, clients = asyncio.get_running_loop(), list[Client]()
    for index in range(load.connections):
        ready: asyncio.Future[None] = loop.create_future()
        client = Client(load, dialect, index, frames, ready)
        await loop.create_connection(lambda made=client: made, "127.0.0.1", load.port)  # type: ignore[misc]
        await asyncio.wait_for(ready, 10)
        clients.append(client)
    server, own = psutil.Process(load.pid), psutil.Process()
    for client in clients:
        client.is_running = True
        client.fill()
    await asyncio.sleep(0.5)
    before = sum(client.acked for client in clients), cpu_s(server), cpu_s(own), time.perf_counter()
    await asyncio.sleep(load.seconds)
    after = sum(client.acked for client in clients), cpu_s(server), cpu_s(own), time.perf_counter()
    if any(client.acked == count for client in clients):
        raise RuntimeError(f"the generator ran out of its {count} frames")
    for client in clients:
        client.transport.abort()
    acked = max(1, after[0] - before[0])
    return Result(
        acked / (after[3] - before[3]), (after[1] - before[1]) / acked * 1e6, (after[2] - before[2]) / acked * 1e6
    )


def cpu_s(process: psutil.Process) -> float:
    """User and system time of a process and its threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    options = json.load(sys.stdin)
    options["tokens"] = tuple(options.get("tokens", ()))
    print(json.dumps(asdict(uvloop.run(run(Load(**options))))))
