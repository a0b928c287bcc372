"""How each server of `bench_fanout` is spoken to: the bytes of watchers and publisher, and how readings are counted.

A reading is ``greenhouse-1/temperature``, a time and a value. To ours it is a batch with one reading (or a hundred), as
the SDK cuts it. To the others it is a message of their own with the same facts in JSON, the time in milliseconds: less
than ours keeps. MQTT and NATS have the device and the channel in their topic. No server is asked for compression.
Frames of clients have a mask of zeros, which every server still applies.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_sdk.columns import Batch, Column, encode_batch, encode_json
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, DEVICE_PATH, WATCH_PATH, Hello, Schema, encode
from hub.gateway.frames import FINAL_BINARY, FINAL_TEXT

DEVICE, CHANNEL = "greenhouse-1", "temperature"
START_MS = 1_795_376_000_000
# Readings of one message are a millisecond apart, messages this far.
MESSAGE_MS = 100
# Of a hub to its clients, and what a client says to it.
PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)


@dataclass(frozen=True, slots=True)
class Step:
    """Part of a greeting: what is said, what the answer holds, and how it ends."""

    send: bytes
    expect: bytes
    end: bytes = b""


class Dialect(Protocol):
    """One server's language; ``tells_acks``: its publisher hears what is stored."""

    tells_acks: bool

    def watcher(self, number: int) -> Sequence[Step]:
        """The greeting of a watcher: when it is done, all that is published comes."""

    def publisher(self) -> Sequence[Step]:
        """The greeting of the publisher."""

    def message(self, seq: int, readings: int) -> bytes:
        """The seq-th message of the publisher, from 1."""

    def count(self, data: bytes, readings: int) -> tuple[int, int, int]:
        """Return the readings and pings in what a watcher received, and how many bytes of it are whole messages.

        ``readings``: how many each message has, for those who count messages.
        """

    def acked(self, data: bytes) -> int:
        """Return up to which message the publisher heard that all is stored; 0: it is not told."""


def values(seq: int, readings: int) -> list[float]:
    """Return values that all have five characters."""
    return [round(20.05 + (seq * 7 + i) % 99 / 10, 2) for i in range(readings)]


def frame(payload: bytes, first: int = FINAL_TEXT) -> bytes:
    """Return a client's frame."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2)
    return bytes((first,)) + length + bytes(4) + payload


def upgrade(path: str, protocol: str = "", token: str = "") -> bytes:
    """Return the request for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
        *([f"Authorization: Bearer {token}"] if token else []),
    ]  # fmt: skip
    return "\r\n".join((*lines, "", "")).encode()


class Ours:
    """The hub: a device's stream in, ``watch.v1`` out; counted are the rows of its data messages.

    Args:
        device, watcher: their tokens.
        has_own_patterns: each watcher has patterns of its own, all of which hold the same readings.
    """

    tells_acks = True

    def __init__(self, device: str, watcher: str, *, has_own_patterns: bool = False) -> None:
        self._device, self._watcher, self._has_own = device, watcher, has_own_patterns

    def watcher(self, number: int) -> Sequence[Step]:
        """Upgrade, then subscribe: `live` says that all from now on comes."""
        match = [f"{DEVICE}/{CHANNEL}", *([f"other-{number}/{CHANNEL}"] if self._has_own else [])]
        sub = json.dumps({"id": 1, "op": "sub", "sub": "s1", "match": match, "mode": "lossless"}).encode()
        return (
            Step(upgrade(WATCH_PATH, "watch.v1", self._watcher), b" 101 ", b"\r\n\r\n"),
            Step(frame(sub), b'"op":"live"', b"}"),
        )

    def publisher(self) -> Sequence[Step]:
        """Hello of a new stream and the schema, which has no answer."""
        stream = os.urandom(8).hex()
        hello = Hello(DEVICE, stream, "0" * 16, stream, 0, 1, CHAIN_START.hex())
        schema = Schema((Channel(CHANNEL, "Cel", ValueType.FLOAT),))
        return (
            Step(upgrade(DEVICE_PATH, "telemetry.v1", self._device), b" 101 ", b"\r\n\r\n"),
            Step(frame(encode(hello)) + frame(encode(schema)), b'"welcome"', b"}"),
        )

    def message(self, seq: int, readings: int) -> bytes:
        """A batch as the SDK cuts it."""
        column = Column(CHANNEL, list(range(readings)), values(seq, readings))
        batch = Batch(seq, readings, (START_MS + seq * MESSAGE_MS) * 10**6, 10**6, (column,))
        body = encode_json(batch) if readings == 1 else encode_batch(batch)
        return frame(body, FINAL_TEXT if body[0] == ord("{") else FINAL_BINARY)

    def count(self, data: bytes, readings: int) -> tuple[int, int, int]:
        """Cut frames; a row is a bracket behind ``u``."""
        at = found = pings = 0
        while len(data) - at >= 4 or data[at : at + 2] == PING:
            size, begin = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(data) < begin + width:
                    break
                size, begin = int.from_bytes(data[begin : begin + width]), begin + width
            stop = begin + size
            if stop > len(data):
                break
            if data.startswith(b'{"op":"data"', begin):
                found += data.count(b"[", data.index(b'"u":[', begin, stop) + 5, stop)
            elif data[at] == 0x89:
                pings += 1
            at = stop
        return found, pings, at

    def acked(self, data: bytes) -> int:
        """The last number that is whole; acks are cumulative."""
        at = data.rfind(b'"stored":')
        digits = data[at + 9 : at + 22].partition(b",")[0].partition(b"}")[0]
        return int(digits) if at >= 0 and digits.isdigit() else 0


class Plain:
    """Those whose every message has one opening brace, and nothing else they say has one."""

    tells_acks = False

    def count(self, data: bytes, readings: int) -> tuple[int, int, int]:
        """Count braces."""
        return data.count(b"{") * readings, 0, len(data)

    def acked(self, data: bytes) -> int:
        """Nobody tells."""
        return 0


def payload(seq: int, readings: int, head: str = "") -> bytes:
    """Return a message's facts as an application writes them: one reading, or a list of pairs."""
    start = START_MS + seq * MESSAGE_MS
    numbers = values(seq, readings)
    if readings == 1:
        return f'{{{head}"t":{start},"v":{numbers[0]:.2f}}}'.encode()
    pairs = ",".join(f"[{start + i},{value:.2f}]" for i, value in enumerate(numbers))
    return f'{{{head}"u":[{pairs}]}}'.encode()


_NAMED = f'"d":"{DEVICE}","c":"{CHANNEL}",'


class WebSocket(Plain):
    """Node ws and ``websockets.broadcast``: what the publisher says goes to all others."""

    def watcher(self, number: int) -> Sequence[Step]:
        """Connect; the server says when it counts this one in."""
        return (Step(upgrade("/watch"), b"ready", b"ready"),)

    def publisher(self) -> Sequence[Step]:
        """Connect elsewhere."""
        return (Step(upgrade("/publish"), b"ready", b"ready"),)

    def message(self, seq: int, readings: int) -> bytes:
        """JSON."""
        return frame(payload(seq, readings, _NAMED))


class SocketIo(Plain):
    """Socket.IO 4 over WebSocket, in Node and in Python: watchers are in a room."""

    def watcher(self, number: int) -> Sequence[Step]:
        """Open, connect to the namespace, join."""
        return (*self.publisher(), Step(frame(b'42["sub","all"]'), b'42["ready"]', b"]"))

    def publisher(self) -> Sequence[Step]:
        """Open and connect to the namespace."""
        return (
            Step(upgrade("/socket.io/?EIO=4&transport=websocket"), b'0{"sid"', b"}"),
            Step(frame(b"40"), b'40{"sid"', b"}"),
        )

    def message(self, seq: int, readings: int) -> bytes:
        """An event without an ack."""
        return frame(b'42["r",' + payload(seq, readings, _NAMED) + b"]")


class Mqtt(Plain):
    """MQTT 3.1.1 over WebSocket, QoS 0."""

    def watcher(self, number: int) -> Sequence[Step]:
        """Connect and subscribe."""
        topic = f"{DEVICE}/+".encode()
        subscribe = b"\x00\x01" + len(topic).to_bytes(2) + topic + b"\x00"
        return (*self._greeting(f"w{number}-{os.urandom(4).hex()}"), Step(self._packet(0x82, subscribe), b"\x90\x03"))

    def publisher(self) -> Sequence[Step]:
        """Connect."""
        return self._greeting("publisher")

    def message(self, seq: int, readings: int) -> bytes:
        """PUBLISH."""
        topic = f"{DEVICE}/{CHANNEL}".encode()
        return self._packet(0x30, len(topic).to_bytes(2) + topic + payload(seq, readings))

    def _greeting(self, name: str) -> Sequence[Step]:
        connect = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2) + name.encode()
        return (
            Step(upgrade("/mqtt", "mqtt"), b" 101 ", b"\r\n\r\n"),
            Step(self._packet(0x10, connect), b"\x20\x02\x00\x00"),
        )

    @staticmethod
    def _packet(first: int, body: bytes) -> bytes:
        size = len(body)
        length = bytes((size,)) if size < 128 else bytes((0x80 | size & 0x7F, size >> 7))
        return frame(bytes((first,)) + length + body, FINAL_BINARY)


class Nats(Plain):
    """nats-server's own protocol over TCP."""

    def watcher(self, number: int) -> Sequence[Step]:
        """Connect and subscribe; PONG says that all before it is done."""
        return self._greeting(f"SUB {DEVICE}.> 1\r\n")

    def publisher(self) -> Sequence[Step]:
        """Connect."""
        return self._greeting("")

    def message(self, seq: int, readings: int) -> bytes:
        """PUB."""
        body = payload(seq, readings)
        return f"PUB {DEVICE}.{CHANNEL} {len(body)}\r\n".encode() + body + b"\r\n"

    @staticmethod
    def _greeting(more: str) -> Sequence[Step]:
        connect = 'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1"}\r\n'
        return (Step(b"", b"INFO ", b"\r\n"), Step(f"{connect}{more}PING\r\n".encode(), b"PONG\r\n"))


class Bare(Plain):
    """The server that only writes: a byte of the publisher becomes a prebuilt message for each watcher."""

    def watcher(self, number: int) -> Sequence[Step]:
        """Say who it is."""
        return (Step(b"W", b"ready"),)

    def publisher(self) -> Sequence[Step]:
        """Say who it is."""
        return (Step(b"P", b"ready"),)

    def message(self, seq: int, readings: int) -> bytes:
        """A byte."""
        return b"."
