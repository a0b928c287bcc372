"""Connections by WebSocket: `websockets`' sans-I/O client on an asyncio transport.

Owns: TCP, TLS and its pin, the upgrade, pings. Place: behind `transport`, used
by `courier`. The only importer of ``websockets``, `asyncio`'s streams are not
used. Must not: know what the messages mean.

`ClientProtocol` on an `asyncio.Protocol` instead of ``websockets.asyncio``: no
task, queue or future per message. Measured, CPU for a frame and its ack one at a
time on two busy cores: 66 to 81 µs, the library's own client 117 to 121 µs.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from device_sdk.errors import AuthenticationError, ConnectionLostError
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json
from device_sdk.setting import is_address
from device_sdk.transport import Access, LinkError, Receiver
from device_sdk.trust import Trust
from device_sdk.wire import DEVICE_SUBPROTOCOL, MAX_FRAME_BYTES, PING_S, Close

logger = logging.getLogger("device_sdk.websocket")

# TCP, TLS and upgrade together: a Pi Zero needs 2 s for TLS, a bad mobile link a few more.
OPEN_TIMEOUT_S = 15.0
# How long a peer may take to answer our close before the socket is dropped.
CLOSE_TIMEOUT_S = 2.0
# Sweeps without a byte from the peer: one passes, one pings, the third finds no pong. 3 × 15 s = 45 s.
SILENT_SWEEPS = 3
# Two addresses of one name (IPv6 that leads nowhere, IPv4 that works) are tried this far apart. Source: RFC 8305.
HAPPY_EYEBALLS_S = 0.25
_REASON_CHARS = 200


class Target(Frozen):
    """Where a hub listens."""

    host: str
    port: int
    path: str
    is_secure: bool


class WebSocketConnector:
    """Makes WebSocket connections to one hub."""

    def __init__(self, target: Target, access: Access) -> None:
        self._target = target
        self._address = access.connect_to or (target.host, target.port)
        self._token = access.token
        self._trust = Trust(access.ca, access.fingerprint, access.certificate, access.clock)

    async def connect(self, receiver: Receiver) -> WebSocketConnection:
        """Return an open connection; see `transport.Connector`."""
        connection = WebSocketConnection(receiver, self._target, self._token, self._trust)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._open(connection)
        except TimeoutError as error:
            connection.abort()
            raise ConnectionLostError(f"{self._name()} did not answer within {OPEN_TIMEOUT_S:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise self._trust.refusal(self._name(), error) from error
        except (OSError, RuntimeError) as error:
            # RuntimeError: the interpreter is going down and takes no more name look-ups.
            raise ConnectionLostError(f"{self._name()} cannot be reached: {error}") from error
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _open(self, connection: WebSocketConnection) -> None:
        loop, target = asyncio.get_running_loop(), self._target
        await loop.create_connection(
            lambda: connection,
            *self._address,
            ssl=self._trust.context() if target.is_secure else None,
            server_hostname=target.host if target.is_secure else None,
            # An address has none to race with; and a race that is cancelled as it ends leaves a socket behind.
            happy_eyeballs_delay=None if is_address(self._address[0]) else HAPPY_EYEBALLS_S,
        )
        connection.check_certificate()
        try:
            await connection.upgrade()
        except ConnectionLostError as error:
            if not self._trust.is_certified or error.code is not None:
                raise
            # TLS 1.3 judges a client's certificate after the handshake, and servers hang up without a word.
            raise ConnectionLostError(
                f"{error} before the hub answered: it may not trust this device's certificate (authority, dates)"
            ) from error

    def _name(self) -> str:
        return f"hub {self._target.host}:{self._target.port}"


class WebSocketConnection(asyncio.Protocol):
    """One connection, used once: made by `WebSocketConnector.connect`."""

    def __init__(self, receiver: Receiver, target: Target, token: str | None, trust: Trust) -> None:
        self._receiver: Receiver | None = receiver
        self._target = target
        self._token = token
        self._trust = trust
        uri = WebSocketURI(target.is_secure, target.host, target.port, target.path, "", None, None)
        self._protocol = ClientProtocol(
            uri, subprotocols=[Subprotocol(DEVICE_SUBPROTOCOL)], max_size=MAX_FRAME_BYTES, logger=logger
        )
        # The library's DEBUG trace would write the token and whole payloads into the user's log.
        self._protocol.debug = False
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._upgraded: asyncio.Future[None] = self._loop.create_future()
        self._fragments: list[bytes] = []
        self._is_writable = True
        self._sweep: asyncio.TimerHandle | None = None
        self._silent_sweeps = 0
        self._lost: str | None = None

    @property
    def is_writable(self) -> bool:
        """False while the transport's buffer is above its high mark."""
        return self._is_writable

    # --- opening -------------------------------------------------------------------------------

    def check_certificate(self) -> None:
        """Raise `ConnectionLostError` unless the peer's certificate is the pinned one, where one is."""
        assert self._transport is not None, "the connection is made"
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return
        try:
            self._trust.check(self._target.host, tls)
        except ConnectionLostError:
            self.abort()
            raise

    async def upgrade(self) -> None:
        """Send the upgrade request and wait until the hub has agreed."""
        request = self._protocol.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._flush()
        await self._upgraded
        self.keep_alive(PING_S)
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        if tls is not None:
            self._trust.remember(tls)

    # --- Connection ----------------------------------------------------------------------------

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in order, in one write."""
        if self._protocol.state is not State.OPEN:
            return
        for message in messages:
            if message[:1] == b"{":
                self._protocol.send_text(message)
            else:
                self._protocol.send_binary(message)
        self._flush()

    def keep_alive(self, interval_s: float) -> None:
        """Ping a quiet line each ``interval_s``."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._silent_sweeps = 0
        self._sweep = self._loop.call_later(interval_s, self._check_quiet, interval_s)

    def close(self) -> None:
        """Close politely, by force after `CLOSE_TIMEOUT_S`; the receiver hears no more."""
        self._receiver = None
        self._stop_sweep()
        if self._transport is None or self._transport.is_closing():
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()
        self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    async def wait_closed(self) -> None:
        """Wait until the socket is gone; at most `CLOSE_TIMEOUT_S` after `close`."""
        if self._transport is not None:
            await asyncio.shield(self._gone)

    def abort(self) -> None:
        """Drop the socket now; the receiver hears no more."""
        self._receiver = None
        self._stop_sweep()
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; nothing is sent before the pin is checked."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Feed the bytes, hand over whole messages, send what the library answers (pongs, close)."""
        self._silent_sweeps = 0
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
            else:
                self._finish_upgrade(cast(Response, event))
        self._flush()
        if self._protocol.handshake_exc is not None:
            self._fail_upgrade(self._protocol.handshake_exc)

    def eof_received(self) -> None:
        """Tell the library; the transport closes itself."""
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        """Note that the network does not take more."""
        self._is_writable = False

    def resume_writing(self) -> None:
        """Ask for more."""
        self._is_writable = True
        if self._receiver is not None:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say once why the connection is gone."""
        self._stop_sweep()
        self._protocol.receive_eof()
        error = self._why_closed(exc)
        if not self._upgraded.done():
            self._upgraded.set_exception(error)
            self._upgraded.exception()  # marks it as seen: the waiter may have been cancelled
        elif self._receiver is not None:
            self._receiver.closed(error)
        self._receiver = None
        if not self._gone.done():
            self._gone.set_result(None)

    # --- details -------------------------------------------------------------------------------

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or self._receiver is None:
            return
        if frame.fin and not self._fragments:
            self._receiver.message(bytes(frame.data))
            return
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            message, self._fragments = b"".join(self._fragments), []
            self._receiver.message(message)

    def _finish_upgrade(self, response: Response) -> None:
        if self._upgraded.done() or self._protocol.handshake_exc is not None:
            return
        if self._protocol.subprotocol != DEVICE_SUBPROTOCOL:
            self._fail_upgrade(WebSocketException(f"it does not speak {DEVICE_SUBPROTOCOL}: is this URL a hub?"))
        else:
            self._upgraded.set_result(None)

    def _fail_upgrade(self, error: Exception) -> None:
        if not self._upgraded.done():
            self._upgraded.set_exception(self._refusal(error))
            self._upgraded.exception()
        self.abort()

    def _refusal(self, error: Exception) -> LinkError:
        name = f"hub {self._target.host}:{self._target.port}"
        if not isinstance(error, InvalidStatus):
            return ConnectionLostError(f"{name} refused the connection: {error}")
        status, message = error.response.status_code, _message_of(error.response)
        if status in (401, 403):
            return AuthenticationError(f"{name} refused the token: {message}")
        retry_after = error.response.headers.get("Retry-After", "")
        retry_ms = int(retry_after) * 1000 if retry_after.isascii() and retry_after.isdigit() else None
        return ConnectionLostError(f"{name} answered HTTP {status}: {message}", code=status, retry_ms=retry_ms)

    def _why_closed(self, exc: Exception | None) -> LinkError:
        close = self._protocol.close_rcvd
        if close is not None:
            text = f"the hub closed the connection: {close.code} {close.reason[:_REASON_CHARS]}".rstrip()
            if close.code in (Close.UNAUTHENTICATED, Close.FORBIDDEN):
                return AuthenticationError(text)
            return ConnectionLostError(text, code=close.code)
        fault = self._protocol.parser_exc
        if fault is not None and not isinstance(fault, EOFError):
            return ConnectionLostError(f"the hub broke the WebSocket protocol: {fault}")
        return ConnectionLostError(self._lost or f"the connection was lost{f': {exc}' if exc else ''}")

    def _flush(self) -> None:
        """Write what the library has for the network, in one write."""
        if self._transport is None or self._transport.is_closing():
            return
        chunks = self._protocol.data_to_send()
        if not chunks:
            return
        self._transport.write(b"".join(chunks))
        if self._protocol.close_expected():
            # The hub closes TCP first; one that does not is dropped.
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _check_quiet(self, interval_s: float) -> None:
        self._silent_sweeps += 1
        if self._silent_sweeps >= SILENT_SWEEPS:
            self._lost = f"the hub was silent for {SILENT_SWEEPS * interval_s:g} s"
            assert self._transport is not None, "sweeps begin with an open connection"
            self._transport.abort()
            return
        if self._silent_sweeps > 1 and self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()
        self._sweep = self._loop.call_later(interval_s, self._check_quiet, interval_s)

    def _stop_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None


def _message_of(response: Response) -> str:
    """Return the hub's own words, ``{"error":{"message":…}}``, or the reason phrase of whoever answered."""
    try:
        message = from_json(response.body or b"")["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    return str(message)[:_REASON_CHARS]
