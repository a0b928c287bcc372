"""WebSocket connections on uvicorn's port, without a task, future or queue per connection.

Owns: the seam between bytes and conversations (`Connection`, `Handler`,
`Upgrade`), the handshake, backpressure, closing. Place: uvicorn's ``ws=`` class,
above `hub.gateway.frames`; handlers are the sessions' shells. Must not: know
any message.

Everything happens inside the callbacks of the transport: a read is delivered
to the handler frame by frame, and what the handler and the library answer
leaves in one write. uvicorn's constructor contract for ``ws=`` is not a
documented API: its minor version is pinned and a test holds the contract.
"""

import asyncio
import email.utils
import http
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast
from urllib.parse import parse_qsl, unquote

import orjson
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from device_sdk.wire import MAX_FRAME_BYTES, PING_S, Close
from hub.certificate import Certificate
from hub.errors import BadRequestError, HubError
from hub.gateway.frames import PING_FRAME, FrameReader, binary_frame, ping_frame, text_frame
from hub.gateway.origin import is_loopback_address
from hub.gateway.peer import address_of, certificate_of
from hub.gateway.sweep import Sweep

_log = logging.getLogger("hub.gateway")
# The library logs two INFO lines per connection, which a fleet would turn into the whole log.
_library_log = logging.getLogger("hub.gateway.library")
_library_log.setLevel(logging.WARNING)

# A ping not answered (by anything) for this long means the peer is gone.
PONG_S = 10
# What a probe says: too much to guess, little to send.
PROBE_BYTES = 8
# A peer that does not finish the closing handshake in this time is cut off.
CLOSE_S = 2
# At the hub's stop all are cut off after this, so that Ctrl-C ends in ≤ 2 s (uvicorn itself waits 0.2 s).
SHUTDOWN_S = 0.8
# After a read of so many bytes a connection waits for its next turn. uvloop takes up to 32 reads of 256 KiB from one
# socket before it looks at the next: measured, 400 schemas in a row held every other device's ack for 3.5 s.
TURN_BYTES = 64 * 1024
# Written and not yet taken by the kernel: above it reading pauses and lossless watchers wait for `writable`,
# which comes when three quarters of it are gone.
HIGH_WATER_BYTES = 256 * 1024
# A handler that writes on regardless of `writable` loses its connection here (4008), not the hub its memory.
MAX_BUFFER_BYTES = 4 * 1024 * 1024


class Connection(Protocol):
    """What a handler may do with its connection; all of it from the event loop, none of it waits."""

    @property
    def peer(self) -> str:
        """Return ``address:port`` of the other end, for logs."""

    @property
    def buffered_bytes(self) -> int:
        """Return the bytes written and not yet taken by the kernel."""

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        """Send one message; text must be valid UTF-8. After the end it is dropped."""

    def send_raw(self, frame: bytes) -> None:
        """Send frames made by `text_frame` or `binary_frame`, one or several joined."""

    def expect_drain(self, high_bytes: int) -> None:
        """Take more than ``high_bytes`` unsent as full this time: `Handler.writable` comes at a quarter of it."""

    def keep_alive(self, ping_s: int) -> None:
        """Probe a quiet line each ``ping_s`` seconds from now on."""

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping now, and call when the other end has answered this very ping; nothing while one is unanswered."""

    def hold(self, is_held: bool) -> None:
        """Read no more of the other end until it is let go again; what was read already is still delivered."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin closing; no message follows, `Handler.closed` does, later."""


class Handler(Protocol):
    """One conversation; all calls come from the event loop."""

    def opened(self, connection: Connection) -> None:
        """Take the connection: the handshake is done. The first call."""

    def message(self, data: bytes, is_text: bool) -> None:
        """Take one whole message of at most `MAX_FRAME_BYTES`; text is valid UTF-8."""

    def writable(self) -> None:
        """Go on writing: the buffer has drained after more than `HIGH_WATER_BYTES` were in it, or than was expected."""

    def closed(self, code: int, reason: str) -> None:
        """Let go: the connection has ended. The last call, exactly once; 1006 = without a close frame."""


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What a client asked for. Header names are lower case; repeated headers are joined by a comma.

    ``certificate`` is the client's own, verified by TLS; None where it showed none or was not asked for one.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer: str
    is_tls: bool
    subprotocols: tuple[str, ...] = ()
    certificate: Certificate | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether the peer is this machine."""
        return is_loopback_address(self.address)

    @property
    def address(self) -> str:
        """The peer without its port."""
        return self.peer.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the connection; ``subprotocol`` must be one of those offered, or None."""

    handler: Handler
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an HTTP error before any WebSocket state exists."""

    status: int
    reason: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


Upgrade = Callable[[UpgradeRequest], Accept | Refuse]
Goodbye = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all connections of one gateway have in common."""

    upgrade: Upgrade
    goodbye: Goodbye | None
    sweep: Sweep


def make_protocol(
    upgrade: Upgrade, *, goodbye: Goodbye | None = None, sweep: Sweep | None = None
) -> "type[WebSocketConnection]":
    """Return the class for uvicorn's ``ws=``.

    Args:
        upgrade: decides over each handshake; a `HubError` it raises becomes the refusal.
        goodbye: makes the text message that each connection gets when the hub stops, before close code 4000.
        sweep: the timer that all connections share; tests pass one with a short interval.
    """
    shared = _Shared(upgrade, goodbye, Sweep() if sweep is None else sweep)
    members = {"__slots__": (), "_shared": shared}
    return cast("type[WebSocketConnection]", type("HubWebSocket", (WebSocketConnection,), members))


class WebSocketConnection(asyncio.Protocol):
    """One connection from handshake to end; used once."""

    __slots__ = ("_buffered_before", "_cut_off", "_handler", "_has_ended", "_high", "_is_closing", "_is_corked",
                 "_is_full", "_is_held", "_output", "_ping_s", "_probe", "_protocol", "_quiet", "_reader", "_state",
                 "_transport", "peer")  # fmt: skip
    _shared: ClassVar[_Shared]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._state = server_state
        self._protocol = ServerProtocol(max_size=MAX_FRAME_BYTES, logger=_library_log)
        self._reader: FrameReader | None = None
        self._handler: Handler | None = None
        self._output: list[bytes] = []
        self._is_corked = False
        self._is_full = False
        self._is_held = False
        self._is_closing = False
        self._has_ended = False
        # Sweeps since the last sign of life; sweeps left before the transport is cut off.
        self._quiet = 0
        self._ping_s = PING_S
        self._probe: tuple[bytes, Callable[[], None]] | None = None
        self._buffered_before = 0
        self._cut_off = CLOSE_S

    # --- what handlers use ---------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Return the bytes written and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._output))

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        """Send one message; see `Connection`."""
        self.send_raw(binary_frame(payload) if binary else text_frame(payload))

    def send_raw(self, frame: bytes) -> None:
        """Send prebuilt frames; see `Connection`."""
        if self._is_closing:
            return
        if self._is_corked:
            self._output.append(frame)
            return
        self._transport.write(frame)
        if self._is_full and self._transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
            _log.warning("too slow peer=%s buffered=%d", self.peer, self._transport.get_write_buffer_size())
            self._fail(Close.TOO_SLOW, "too slow")

    def expect_drain(self, high_bytes: int) -> None:
        """Say `writable` sooner; see `Connection`."""
        if self._high != high_bytes and not self._transport.is_closing():
            self._limit(high_bytes)

    def keep_alive(self, ping_s: int) -> None:
        """Probe less often, or more; see `Connection`."""
        self._ping_s = ping_s

    def probe(self, answered: Callable[[], None]) -> None:
        """Ask for a sign of life; see `Connection`."""
        if self._reader is None or self._probe is not None:
            return
        # Nobody can answer before it was asked.
        payload = secrets.token_bytes(PROBE_BYTES)
        self._probe = (payload, answered)
        self._reader.on_pong = self._pong
        self.send_raw(ping_frame(payload))

    def hold(self, is_held: bool) -> None:
        """Stop reading, or go on; see `Connection`."""
        self._is_held = is_held
        if not is_held:
            self._read_on()
        elif not self._transport.is_closing():
            self._transport.pause_reading()

    def close(self, code: int, reason: str = "") -> None:
        """Begin closing; see `Connection`."""
        if self._is_closing or self._reader is None:
            return
        self._reader.close(code, reason)
        self._is_closing = True
        if not self._is_corked:
            self._flush()

    # --- what uvicorn and the transport call -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport from uvicorn's HTTP protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._limit(HIGH_WATER_BYTES)
        self.peer = address_of(transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._shared.sweep.add(self)

    def data_received(self, data: bytes) -> None:
        """Deliver what arrived; answers leave in one write."""
        self._quiet = 0
        self._is_corked = True
        try:
            if self._reader is not None:
                self._reader.feed(data)
            elif not self._is_closing:
                self._handshake(data)
        except Exception:
            self._crash()
        self._is_corked = False
        self._flush()
        if len(data) >= TURN_BYTES and not self._is_full and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def eof_received(self) -> bool:
        """Let the transport close itself; `connection_lost` follows."""
        if self._reader is not None:
            self._reader.feed_end()
        return False

    def pause_writing(self) -> None:
        """Stop reading too: a peer that does not take its answers gets no further ones made."""
        self._is_full = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again and tell the handler."""
        self._is_full = False
        if self._transport.is_closing():
            return
        self._read_on()
        if self._high != HIGH_WATER_BYTES:
            self._limit(HIGH_WATER_BYTES)
        if self._handler is not None and not self._is_closing:
            self._guarded(self._handler.writable)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the handler once, with the code of whoever closed first."""
        self._is_closing = self._has_ended = True
        self._state.connections.discard(self)
        self._shared.sweep.discard(self)
        if self._reader is not None:
            self._reader.feed_end()
        self._output.clear()
        handler, self._handler = self._handler, None
        if handler is not None:
            code, reason = self._close_code()
            self._guarded(lambda: handler.closed(code, reason))

    def shutdown(self) -> None:
        """End for uvicorn's stop: goodbye, close with 4000; cut off whoever does not answer in `SHUTDOWN_S`."""
        if self._reader is None:
            self._transport.close()
            return
        if self._shared.goodbye is not None:
            self.send(self._shared.goodbye())
        self.close(Close.GOING_AWAY, "the hub stops")
        asyncio.get_running_loop().call_later(SHUTDOWN_S, self._transport.abort)

    def sweep(self) -> None:
        """Ping after as many quiet sweeps as `keep_alive` says, close `PONG_S` later; a draining buffer is life.

        Who is not read cannot be heard.
        """
        if self._is_closing:
            self._cut_off -= 1
            if self._cut_off < 0:
                self._transport.abort()
            return
        buffered = self._transport.get_write_buffer_size()
        self._quiet = 0 if buffered < self._buffered_before or self._is_held else self._quiet + 1
        self._buffered_before = buffered
        if self._quiet == self._ping_s and self._reader is not None:
            self._transport.write(PING_FRAME)
        elif self._quiet >= self._ping_s + PONG_S:
            self._fail(Close.NO_PONG, "no pong")

    # --- inside ----------------------------------------------------------------------------------------

    def _limit(self, high_bytes: int) -> None:
        self._high = high_bytes
        self._transport.set_write_buffer_limits(high=high_bytes, low=high_bytes // 4)

    def _read_on(self) -> None:
        """Read again after the others had their turn; a full connection does so when it has drained."""
        if not (self._is_full or self._is_held or self._transport.is_closing()):
            self._transport.resume_reading()

    def _pong(self, payload: bytes) -> None:
        if self._probe is not None and payload == self._probe[0]:
            _, answered = self._probe
            self._probe = None
            answered()

    def _handshake(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
        self._output += [data for data in protocol.data_to_send() if data]
        if self._handler is not None:
            # The one that read the handshake holds the request for ever, in its parser: 2 KB of each connection.
            protocol.parser.close()
            self._protocol = protocol = ServerProtocol(state=OPEN, max_size=MAX_FRAME_BYTES, logger=_library_log)
            self._reader = FrameReader(protocol, self._handler.message, MAX_FRAME_BYTES, self._output)
            self._handler.opened(self)
        elif protocol.eof_sent:
            self._is_closing = True

    def _answer(self, request: Request) -> None:
        response = self._protocol.accept(request)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            answer = self._decide(request)
            if isinstance(answer, Refuse):
                response = _refusal(answer)
            else:
                self._handler = answer.handler
                if answer.subprotocol is not None:
                    response.headers["Sec-WebSocket-Protocol"] = answer.subprotocol
        self._protocol.send_response(response)

    def _decide(self, request: Request) -> Accept | Refuse:
        try:
            asked = self._upgrade_request(request)
        except ValueError as error:
            return Refuse(400, BadRequestError.reason, f"the query cannot be read: {error}")
        try:
            return self._shared.upgrade(asked)
        except HubError as error:
            return Refuse(error.status, error.reason, str(error))
        except Exception:
            _log.exception("upgrade failed path=%s peer=%s", asked.path, self.peer)
            return Refuse(500, HubError.reason, "the hub failed; its log says why")

    def _upgrade_request(self, request: Request) -> UpgradeRequest:
        path, _, query = request.path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.raw_items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        offered = headers.get("sec-websocket-protocol", "")
        return UpgradeRequest(
            unquote(path), dict(parse_qsl(query, max_num_fields=100)), headers, self.peer,
            self._transport.get_extra_info("sslcontext") is not None,
            tuple(name.strip() for name in offered.split(",") if name.strip()),
            certificate_of(self._transport),
        )  # fmt: skip

    def _flush(self) -> None:
        output = self._output
        if output:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))
            output.clear()
        if self._is_closing or (self._reader is not None and self._reader.is_ended):
            self._end()

    def _end(self) -> None:
        """Close after what was written, when this side has said all; until then the peer's close frame is awaited."""
        self._is_closing = True
        if self._has_ended or not (self._reader is None or self._reader.is_ended):
            return
        self._has_ended = True
        if self._transport.can_write_eof() and not self._transport.is_closing():
            # Half-close: closing with unread input would send a reset, which can overtake the close frame.
            self._transport.write_eof()
        else:
            self._transport.close()

    def _fail(self, code: int, reason: str) -> None:
        self._is_closing = True
        if self._reader is not None:
            self._reader.fail(code, reason)
        if not self._is_corked:
            self._flush()

    def _crash(self) -> None:
        _log.exception("handler failed peer=%s", self.peer)
        self._fail(Close.INTERNAL, "internal error")

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            self._crash()

    def _close_code(self) -> tuple[int, str]:
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        first = received if received is not None and (sent is None or self._protocol.close_rcvd_then_sent) else sent
        return (CloseCode.ABNORMAL_CLOSURE, "") if first is None else (int(first.code), first.reason)


def _refusal(refuse: Refuse) -> Response:
    status = http.HTTPStatus(refuse.status)
    body = orjson.dumps({"error": {"reason": refuse.reason, "message": refuse.message}})
    headers = Headers(
        {
            "Date": email.utils.formatdate(usegmt=True),
            "Connection": "close",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **refuse.headers,
        }
    )
    return Response(status.value, status.phrase, headers, body)
