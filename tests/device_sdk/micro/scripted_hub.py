"""The other end of a connection, in the device's own process: one turn at a time, and only as a test says.

For MicroPython too, so without what that lacks: no dataclass, no typing, no thread.
"""

import json
import os
import socket

try:  # noqa: SIM105 - MicroPython has no contextlib either
    from typing import Any
except ImportError:
    pass  # MicroPython, which does not look at annotations

_IPPROTO_TCP, _TCP_NODELAY = 6, 1
PUBLISH, PUBACK, CONNECT, SUBSCRIBE, PING = 3, 4, 1, 8, 12


class Publication:
    """What the device published: ``flags`` of its first byte (DUP 8, QoS 1 2, retain 1)."""

    def __init__(self, flags: int, topic: str, packet_id: bytes, payload: bytes) -> None:
        self.flags, self.topic, self.packet_id, self.payload = flags, topic, packet_id, payload

    @property
    def message(self) -> Any:
        """The payload, read as JSON."""
        return json.loads(self.payload)


class ScriptedHub:
    """Listens on a free port; answers as its switches say, and remembers what came.

    ``connack``: the return code; None: silence. ``takes``: sends PUBACK. ``greets``: answers a hello with what it
    holds of that stream. ``acks``: acks numbered frames that come in their order.
    """

    def __init__(self) -> None:
        self.connack, self.takes, self.greets, self.acks = 0, True, True, True
        self.name = "greenhouse-7"
        self.time_ns = 1_795_376_000_000_000_000
        self.connects: list[bytes] = []
        self.subscribed: list[bytes] = []
        self.got: list[Publication] = []
        self.answered = 0
        self.stored: dict[str, int] = {}
        self.frames: dict[Any, bytes] = {}
        self.pings = 0
        self._stream, self._rx = "", b""
        self._line: Any = None
        self._tx: bytes | None = None
        self._server, self.port = _listen()

    def turn(self) -> None:
        """Take a connection, and all that has come on it; the newest connection is the one that counts.

        Answers go together, as the hub's do: small ones apart would wait for each other (Nagle's algorithm).
        """
        try:
            line = self._server.accept()[0]
            line.setblocking(False)
            send_at_once(line)
            self.cut()
            self._line = line
        except OSError:
            pass
        while self._line is not None:
            try:
                data = self._line.recv(2048)
            except OSError:
                return
            if not data:
                self.cut()
                return
            self._rx += data
            self._tx = b""
            self._read()
            answers, self._tx = self._tx, None
            if answers and self._line is not None:
                self._line.send(answers)

    @property
    def sockets(self) -> list[Any]:
        """What to wait for before the next turn."""
        return [self._server] if self._line is None else [self._server, self._line]

    def cut(self) -> None:
        """End the connection."""
        if self._line is not None:
            self._line.close()
        self._line, self._rx = None, b""

    def close(self) -> None:
        """End everything."""
        self.cut()
        self._server.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self._tx is not None:
            self._tx += data
            return
        assert self._line is not None
        self._line.send(data)

    def say(self, **message: object) -> None:
        """Publish to the device's `down`, QoS 1."""
        self.publish(json.dumps(message).encode())

    def publish(self, payload: bytes) -> None:
        """Publish this payload to the device's `down`, QoS 1."""
        self.send(down(payload, f"hub/v1/{self.name}/down".encode()))

    def _read(self) -> None:
        while len(self._rx) > 1:
            size, at, shift = 0, 1, 0
            while True:
                if at == len(self._rx):
                    return
                size |= (self._rx[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if self._rx[at - 1] < 128:
                    break
            if len(self._rx) < at + size:
                return
            head, body, self._rx = self._rx[0], self._rx[at : at + size], self._rx[at + size :]
            self._take(head, body)

    def _take(self, head: int, body: bytes) -> None:
        kind = head >> 4
        if kind == CONNECT:
            self.connects.append(body)
            if self.connack is not None:
                self.send(bytes((0x20, 2, 0, self.connack)))
        elif kind == SUBSCRIBE:
            self.subscribed.append(body)
            self.send(b"\x90\x03" + body[:2] + b"\x01")
        elif kind == PUBACK:
            self.answered += 1
        elif kind == PING:
            self.pings += 1
            self.send(b"\xd0\x00")
        elif kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            self._publication(Publication(head & 15, body[2:end].decode(), body[end : end + 2], body[end + 2 :]))
        else:
            raise AssertionError(f"unexpected packet {kind}")

    def _publication(self, came: Publication) -> None:
        self.got.append(came)
        if self.takes:
            self.send(b"\x40\x02" + came.packet_id)
        if not came.topic.endswith("/up"):
            return
        message = came.message
        if message.get("op") == "hello":
            self._stream = message["stream"]
            if self.greets:
                self.welcome()
            return
        seq = message.get("q", message.get("seq"))
        if seq is not None and self.acks:
            stored = self.stored.get(self._stream, 0)
            if seq == stored + 1:
                self.stored[self._stream] = seq
                self.frames[(self._stream, seq)] = came.payload
            elif seq <= stored:
                assert self.frames[(self._stream, seq)] == came.payload, "a frame came again, otherwise"
            self.ack()

    def welcome(self) -> None:
        """Say what is stored of the stream that the last hello named."""
        stored = self.stored.get(self._stream, 0)
        self.say(op="welcome", stored=stored, chain="00", pos=f"a.{stored}", time_ns=str(self.time_ns), window=32)

    def ack(self) -> None:
        """Ack what is stored."""
        stored = self.stored.get(self._stream, 0)
        self.say(op="ack", stored=stored, chain="00", pos=f"a.{stored}")


def down(payload: bytes, topic: bytes = b"hub/v1/greenhouse-7/down", packet_id: int = 7) -> bytes:
    """Return a PUBLISH of QoS 1 to the device."""
    body = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big") + payload
    size, head = len(body), b"\x32"
    while size > 127:
        head += bytes((size & 127 | 128,))
        size >>= 7
    return head + bytes((size,)) + body


def _listen() -> tuple[Any, int]:
    # MicroPython cannot be asked which port the kernel chose.
    for _ in range(50):
        port = 20_000 + int.from_bytes(os.urandom(2), "big") % 20_000
        server = socket.socket()
        try:
            server.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
        except OSError:
            server.close()
            continue
        server.listen(5)
        server.setblocking(False)
        return server, port
    raise OSError("no free port")


def send_at_once(line: Any) -> None:
    """Switch Nagle's algorithm off: it holds the second of two messages until the other end has answered the first."""
    if line is not None:
        line.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
