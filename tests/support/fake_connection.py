"""A WebSocket connection without a socket: records what was sent, and can be stalled like a client that hangs."""

import struct
from collections.abc import Callable
from typing import Any

import orjson

from hub.gateway.frames import binary_frame, text_frame


class FakeConnection:
    """Takes frames; while ``is_stalled`` they count as buffered and are not received. ``on_send``: called each time."""

    def __init__(self, peer: str = "127.0.0.1:1") -> None:
        self._peer = peer
        self.is_stalled = False
        self.is_held = False
        self.closed_with: tuple[int, str] | None = None
        self.received: list[bytes] = []
        self.peak_bytes = 0
        self.on_send: Callable[[], None] | None = None
        self.answered: Callable[[], None] | None = None
        self._buffer: list[bytes] = []
        self._buffered = 0

    @property
    def peer(self) -> str:
        """Who it is."""
        return self._peer

    @property
    def buffered_bytes(self) -> int:
        """What a stalled client has not taken."""
        return self._buffered

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        """Send one message."""
        self.send_raw(binary_frame(payload) if binary else text_frame(payload))

    def send_raw(self, frame: bytes) -> None:
        """Send frames."""
        if self.closed_with is not None:
            return
        if self.on_send is not None:
            self.on_send()
        if self.is_stalled:
            self._buffer.append(frame)
            self._buffered += len(frame)
            self.peak_bytes = max(self.peak_bytes, self._buffered)
        else:
            self.received.append(frame)

    def expect_drain(self, high_bytes: int) -> None:
        """Nothing: the test says when it has drained."""

    def keep_alive(self, ping_s: int) -> None:
        """Remember how often the line is to be probed."""
        self.ping_s = ping_s

    def probe(self, answered: Callable[[], None]) -> None:
        """Remember whom to tell when the client answers."""
        self.answered = answered

    def hold(self, is_held: bool) -> None:
        """Remember whether the client is read."""
        self.is_held = is_held

    def close(self, code: int, reason: str = "") -> None:
        """Remember the first close."""
        if self.closed_with is None:
            self.closed_with = (code, reason)

    def drain(self) -> None:
        """The client reads again: everything buffered arrives (the caller then calls ``writable``)."""
        self.is_stalled = False
        self.received += self._buffer
        self._buffer.clear()
        self._buffered = 0

    def take(self) -> list[dict[str, Any]]:
        """Return and forget the messages received so far, parsed."""
        data, self.received = b"".join(self.received), []
        return [orjson.loads(payload) for payload in split_frames(data)]


def split_frames(data: bytes) -> list[bytes]:
    """Return the payloads of unmasked, unfragmented frames."""
    payloads, at = [], 0
    while at < len(data):
        size, at = data[at + 1], at + 2
        if size == 126:
            (size,) = struct.unpack_from(">H", data, at)
            at += 2
        elif size == 127:
            (size,) = struct.unpack_from(">Q", data, at)
            at += 8
        payloads.append(data[at : at + size])
        at += size
    return payloads
