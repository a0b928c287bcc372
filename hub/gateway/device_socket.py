"""A device's WebSocket: bytes to the session, the session's output to the socket.

Owns: nothing but the pairing of one connection with one `DeviceSession`, or with those of the devices behind a gateway.
Place: gateway; decides nothing. The first frame is due in 5 s.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from device_sdk.wire import PING_S, Close
from hub.gateway.websocket import Connection
from hub.model import Frame
from hub.streams import Owner

# A connected socket that says nothing costs a descriptor; every SDK says hello at once.
FIRST_FRAME_S = 5.0
# A device pings within two intervals of silence. The hub only asks when it does not, or each would be pinged by the
# other: half of the bytes of a quiet line. 2 × 15 + 3 s, and 10 s for the pong: a dead line is noticed within 45 s.
_LATER_S = 3


class Conversation(Protocol):
    """What is paired with a connection: `DeviceSession` or `ChildSessions`."""

    flush: Callable[[], None]
    probe: Callable[[Callable[[], None]], None]
    frames: list[Frame]
    displaced: list[Owner]
    ping_s: int
    closing: tuple[int, str] | None

    def receive(self, data: bytes, is_text: bool, now_ns: int, *, can_accept: bool = True) -> None:
        """Take one complete message."""

    def take_output(self) -> list[bytes]:
        """Return and clear the text messages to send."""

    def closed(self, why: str = "") -> None:
        """The connection ended."""


class DeviceSocket:
    """Handler of one device connection.

    Args:
        session: new, for the identity of the upgrade's credential.
        submit: hands accepted frames to the journal's writer.
        can_accept: whether the writer's queue has room.
        on_closed: called once when the socket is gone.
    """

    def __init__(
        self,
        session: Conversation,
        submit: Callable[[list[Frame]], None],
        can_accept: Callable[[], bool],
        on_closed: "Callable[[DeviceSocket], None]",
    ) -> None:
        self.session = session
        session.flush = self.flush
        session.probe = self.probe
        self._submit = submit
        self._can_accept = can_accept
        self._on_closed = on_closed
        self._connection: Connection | None = None
        self._first_frame: asyncio.TimerHandle | None = None
        self._ping_s = PING_S

    def opened(self, connection: Connection) -> None:
        """Remember the connection and wait for the first frame."""
        self._connection = connection
        connection.keep_alive(2 * PING_S + _LATER_S)
        self._first_frame = asyncio.get_running_loop().call_later(FIRST_FRAME_S, self._no_first_frame)

    def message(self, data: bytes, is_text: bool) -> None:
        """Feed one message; hand on what was accepted; write what is to be said."""
        if self._first_frame is not None:
            self._first_frame.cancel()
            self._first_frame = None
        session = self.session
        session.receive(data, is_text, time.time_ns(), can_accept=self._can_accept())
        if session.ping_s != self._ping_s and self._connection is not None:
            self._ping_s = session.ping_s
            self._connection.keep_alive(2 * self._ping_s + _LATER_S)
        if session.frames:
            frames, session.frames = session.frames, []
            self._submit(frames)
        self.flush()
        while session.displaced:
            session.displaced.pop().flush()

    def flush(self) -> None:
        """Write the session's output and close if it wants to."""
        connection = self._connection
        if connection is None:
            return
        for message in self.session.take_output():
            connection.send(message)
        if self.session.closing is not None:
            code, reason = self.session.closing
            connection.close(code, reason)
            self._connection = None

    def probe(self, answered: Callable[[], None]) -> None:
        """Ask the other end for a sign of life."""
        if self._connection is not None:
            self._connection.probe(answered)

    def writable(self) -> None:
        """Nothing waits here: acks are small and cumulative."""

    def end(self, code: int, reason: str) -> None:
        """Close from the hub's side (revoked credential, shutdown)."""
        if self._connection is not None:
            self._connection.close(code, reason)

    def closed(self, code: int, reason: str) -> None:
        """The socket is gone: the stream may be taken by the next connection."""
        if self._first_frame is not None:
            self._first_frame.cancel()
        self._connection = None
        self.session.closed(reason or f"connection lost ({code})")
        self._on_closed(self)

    def _no_first_frame(self) -> None:
        self._first_frame = None
        self.end(Close.BAD_MESSAGE, f"no message within {FIRST_FRAME_S:g} s: say hello first")
