"""Bytes that a peer sends by hand: upgrades, WebSocket frames right and wrong, a device that says what it likes.

Owns: nothing of the protocol; the right messages come from `device_sdk.wire`. For tests of what a hub does with
peers that no SDK would be.
"""

import json
import os
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from device_sdk import wire
from device_sdk.reading import Channel
from tests.support.hub_process import HubProcess

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FINAL = 0x80
_ANSWER_S = 20.0
# Nothing is learnt from a random key; the hub only hashes it.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def upgrade(path: str, protocol: str, *, token: str | None = None, headers: Iterable[str] = ()) -> bytes:
    """Return the head of an upgrade request; ``headers`` are further lines."""
    lines = [
        f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket",
        f"Sec-WebSocket-Key: {_KEY}", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {protocol}", *headers,
    ]  # fmt: skip
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes, first: int = FINAL | TEXT, *, is_masked: bool = True, size: int | None = None) -> bytes:
    """Return one frame from a client, with a mask of zeros.

    Args:
        payload: as it travels.
        first: the first byte: FIN, reserved bits, opcode.
        is_masked: False breaks the protocol.
        size: the length that the header claims; None: the true one.
    """
    size = len(payload) if size is None else size
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head = bytes((first, mask_bit | size))
    elif size < 65536:
        head = bytes((first, mask_bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, mask_bit | 127)) + size.to_bytes(8)
    return head + (bytes(4) if is_masked else b"") + payload


def connected(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Return a socket connected to loopback; ``receive_buffer`` bytes are the least the kernel will give."""
    found = socket.socket()
    if receive_buffer is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    found.connect(("127.0.0.1", port))
    return found


class RawDevice:
    """A device spoken by hand, after hello; use as ``with``.

    Args:
        hub: running.
        name, token: as enrolled.
    """

    def __init__(self, hub: HubProcess, name: str, token: str) -> None:
        self.seq = self.rejected = 0
        self._hub, self._name, self._token = hub, name, token

    def send(self, message: bytes) -> None:
        """Send one message: JSON as text, anything else as binary."""
        self._socket.send(message, text=message[:1] == b"{")

    def declare(self, channels: Iterable[Channel]) -> None:
        """Send a schema; the hub does not answer."""
        self.send(wire.encode(wire.Schema(tuple(channels))))

    def answer(self) -> dict[str, Any]:
        """Return the next message of the hub."""
        found: dict[str, Any] = json.loads(self._socket.recv(_ANSWER_S))
        return found

    def acked(self, seq: int) -> dict[str, Any]:
        """Return the ack that covers ``seq``, reading over those before it."""
        while (found := self.answer())["op"] != "ack" or found["stored"] < seq:
            pass
        return found

    def __enter__(self) -> Self:
        self._opened = connect(
            self._hub.ws_url + wire.DEVICE_PATH, subprotocols=[Subprotocol(wire.DEVICE_SUBPROTOCOL)], compression=None,
            additional_headers={"Authorization": f"Bearer {self._token}"}, max_size=wire.MAX_FRAME_BYTES, proxy=None,
        )  # fmt: skip
        self._socket = self._opened.__enter__()
        stream = os.urandom(8).hex()
        self.send(wire.encode(wire.Hello(self._name, stream, "boot", "run", 0, 1, wire.CHAIN_START.hex())))
        assert self.answer()["op"] == "welcome"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)
