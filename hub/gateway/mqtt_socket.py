"""The MQTT endpoint's sockets: TCP, TLS, and WebSocket, without a task, future, queue or timer per connection.

Owns: the pairing of a connection with a `Conversation`, when it is read and written, and how it is cut off. Place:
gateway; decides nothing of the protocol. What a handler makes of messages is not known here.

The acks of one commit leave in one write for each connection: a conversation that has something to say is put down, and
all of them are written at the end of the loop's turn.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from device_sdk.wire import Close
from hub.certificate import Certificate
from hub.gateway.peer import address_of, certificate_of
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import CLOSE_S, SHUTDOWN_S, TURN_BYTES, Accept, Connection, Refuse, UpgradeRequest
from hub.mqtt.conversation import IDLE_LIMIT_S, Conversation
from hub.mqtt.handler import Code, Handler
from hub.mqtt.recent import Recent

_log = logging.getLogger("hub.gateway")

# MQTT-6.0.0-3 and -4: a client must offer it, and be given it.
SUBPROTOCOL = "mqtt"
# Written and not yet taken by the kernel: above it the client is not read.
HIGH_WATER_BYTES = 64 * 1024
# What the hub says on beyond that (commands) is bounded by the conversation for QoS 1; for anything else it is here.
MAX_BUFFER_BYTES = 1024 * 1024
# Sweeps (seconds) in which nothing of a full buffer was taken: the client has stopped reading.
STALL_S = 30
_STOPPING = "the hub stops"


class MqttPeer(NamedTuple):
    """Who connects, as far as the socket can tell; ``certificate`` is one that TLS has verified."""

    address: str
    is_tls: bool
    certificate: Certificate | None


MakeHandler = Callable[[MqttPeer], Handler]


class MqttEndpoint:
    """All MQTT connections of a hub.

    `tcp` is the factory for ``loop.create_server``, with ``ssl`` or without; `web_socket` answers an upgrade.

    Args:
        make_handler: called once for each connection.
        sweep: the timer that all connections share; tests pass one that they run themselves.
        idle_limit_s: how long a client may be silent that says keep alive 0.
        clock: monotonic time in s.
    """

    def __init__(
        self,
        make_handler: MakeHandler,
        *,
        sweep: Sweep | None = None,
        idle_limit_s: int = IDLE_LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._make_handler = make_handler
        self._idle_limit_s = idle_limit_s
        self._recent = Recent()
        self._sweep = Sweep() if sweep is None else sweep
        self._links: set[_Link] = set()
        self._to_flush: list[_Link] = []

    def __len__(self) -> int:
        return len(self._links)

    def tcp(self) -> asyncio.Protocol:
        """Return the protocol of a new TCP connection."""
        return MqttConnection(self)

    def web_socket(self, request: UpgradeRequest) -> Accept | Refuse:
        """Answer an upgrade on the path of MQTT."""
        if SUBPROTOCOL not in request.subprotocols:
            return Refuse(400, "bad_request", f"MQTT over WebSocket needs the subprotocol {SUBPROTOCOL!r}")
        peer = MqttPeer(request.peer, request.is_tls, request.certificate)
        return Accept(MqttWebSocket(self, peer), SUBPROTOCOL)

    def stop(self) -> None:
        """End all connections; MQTT 5 hears why. Who does not take that is cut off soon."""
        for link in tuple(self._links):
            link.conversation.end(Code.SERVER_SHUTTING_DOWN, _STOPPING)
        self._flush()
        if self._links:
            asyncio.get_running_loop().call_later(SHUTDOWN_S, self._cut_off)

    # --- what connections use ------------------------------------------------------------------------------

    def open(self, link: "_Link", peer: MqttPeer) -> Conversation:
        """Return the conversation of a new connection."""
        conversation = Conversation(
            self._make_handler(peer),
            self._recent,
            new_client_id=_new_client_id,
            now=self.clock(),
            idle_limit_s=self._idle_limit_s,
        )
        conversation.flush = link.flush_later
        self._links.add(link)
        self._sweep.add(link)
        return conversation

    def close(self, link: "_Link") -> None:
        """Forget a connection."""
        self._links.discard(link)
        self._sweep.discard(link)

    def flush_later(self, link: "_Link") -> None:
        """Write what a conversation says at the end of this turn of the loop."""
        if not self._to_flush:
            asyncio.get_running_loop().call_soon(self._flush)
        self._to_flush.append(link)

    def _flush(self) -> None:
        links, self._to_flush = self._to_flush, []
        now, now_ns = self.clock(), time.time_ns()
        for link in dict.fromkeys(links):  # once each: whoever was held has a whole turn by it
            link.go_on(now, now_ns)

    def _cut_off(self) -> None:
        for link in tuple(self._links):
            link.abort()


class _Link:
    """What both kinds of connection do with their conversation; a fault of its handler ends that connection alone."""

    __slots__ = ("_endpoint", "conversation", "peer")
    _endpoint: MqttEndpoint
    conversation: Conversation
    peer: str

    def receive(self, data: bytes) -> None:
        """Feed bytes, and write what is answered."""
        try:
            self.conversation.receive(data, self._endpoint.clock(), time.time_ns())
        except Exception:
            self._crash()
        self.write_out()

    def flush_later(self) -> None:
        """Called by the conversation when something else than bytes made it speak."""
        self._endpoint.flush_later(self)

    def go_on(self, now: float, now_ns: int) -> None:
        """Take what was held where there is room now, and write."""
        try:
            self.conversation.resume(now, now_ns)
        except Exception:
            self._crash()
        self.write_out()

    def pass_time(self) -> None:
        """Let the conversation look at the clock, and write."""
        now = self._endpoint.clock()
        conversation = self.conversation
        if conversation.wants_read and now < conversation.deadline:
            return
        try:
            conversation.tick(now, time.time_ns())
        except Exception:
            self._crash()
        self.write_out()

    def lost(self, why: str) -> None:
        """Tell the handler that the connection is gone."""
        self._endpoint.close(self)
        _log.debug("mqtt connection ended peer=%s reason=%s", self.peer, self.conversation.why or why)
        # Its handler may keep the conversation for longer; nobody is left to write what it says.
        self.conversation.flush = _nothing
        try:
            self.conversation.lost(why)
        except Exception:
            _log.exception("handler failed peer=%s", self.peer)

    def sweep(self) -> None:
        """A second has passed."""
        raise NotImplementedError

    def write_out(self) -> None:
        """Write the output, close if the conversation is over, read or not as it wants."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the connection off."""
        raise NotImplementedError

    def _crash(self) -> None:
        _log.exception("handler failed peer=%s", self.peer)
        self.conversation.end(Code.UNSPECIFIED, "the hub failed; its log says why")


class MqttConnection(_Link, asyncio.Protocol):
    """One TCP or TLS connection; used once."""

    __slots__ = ("_buffered_before", "_cut_off", "_has_turn", "_is_closing", "_is_full", "_is_reading", "_stalled",
                 "_transport")  # fmt: skip

    def __init__(self, endpoint: MqttEndpoint) -> None:
        self._endpoint = endpoint
        self._is_full = False
        self._is_reading = True
        self._is_closing = False
        self._has_turn = True
        # Sweeps since the last progress of a full buffer; sweeps left before the transport is cut off.
        self._stalled = 0
        self._buffered_before = 0
        self._cut_off = CLOSE_S

    # --- what the transport calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the conversation."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        is_tls = transport.get_extra_info("sslcontext") is not None
        self.peer = address_of(transport)
        self.conversation = self._endpoint.open(self, MqttPeer(self.peer, is_tls, certificate_of(transport)))

    def data_received(self, data: bytes) -> None:
        """Deliver what arrived; answers leave in one write."""
        if len(data) >= TURN_BYTES:
            # The others have their turn before more is read of this one; see `TURN_BYTES`.
            self._has_turn = False
            asyncio.get_running_loop().call_soon(self._next_turn)
        self.receive(data)

    def eof_received(self) -> bool:
        """Let the transport close itself; `connection_lost` follows."""
        return False

    def pause_writing(self) -> None:
        """Stop reading: a client that does not take its answers gets no further ones made."""
        self._is_full = True
        self._stalled = 0
        self._steer()

    def resume_writing(self) -> None:
        """Read again."""
        self._is_full = False
        self._steer()

    def connection_lost(self, error: Exception | None) -> None:
        """End the conversation."""
        self._is_closing = True
        self.lost("the client closed the connection" if error is None else f"connection lost: {error}")

    def sweep(self) -> None:
        """A second has passed: what is overdue ends, what does not end is cut off, also who takes nothing."""
        if self._is_closing:
            self._cut_off -= 1
            if self._cut_off < 0:
                self.abort()
            return
        if self._is_full:
            buffered = self._transport.get_write_buffer_size()
            self._stalled = 0 if buffered < self._buffered_before else self._stalled + 1
            self._buffered_before = buffered
            if self._stalled > STALL_S:
                self.abort()
            # Its pings are not read, so it is not overdue.
            return
        self.pass_time()

    # --- inside ---------------------------------------------------------------------------------------------

    def write_out(self) -> None:
        """Write, close, steer; see `_Link`."""
        if self._is_closing:
            self.conversation.take_output()
            return
        data = self.conversation.take_output()
        if data:
            self._transport.write(data)
            if self._is_full and self._transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
                _log.warning("too slow mqtt peer=%s", self.peer)
                self.abort()
                return
        if self.conversation.is_closed:
            self._end(has_said=bool(data))
        else:
            self._steer()

    def abort(self) -> None:
        """Cut off; see `_Link`."""
        self._is_closing = True
        self._transport.abort()

    def _end(self, *, has_said: bool) -> None:
        self._is_closing = True
        if has_said and self._transport.can_write_eof() and not self._transport.is_closing():
            # Half-close: closing with unread input would send a reset, which can overtake what was said.
            self._transport.write_eof()
            self._steer()
        else:
            self._transport.close()

    def _next_turn(self) -> None:
        self._has_turn = True
        self._steer()

    def _steer(self) -> None:
        wanted = self._has_turn and not self._is_full and self.conversation.wants_read
        if wanted != self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


class MqttWebSocket(_Link):
    """Handler of one WebSocket: packets may lie in its binary messages as they like (MQTT-6.0.0-2)."""

    __slots__ = ("_connection", "_is_held", "_who")

    def __init__(self, endpoint: MqttEndpoint, peer: MqttPeer) -> None:
        self._endpoint = endpoint
        self._who: MqttPeer | None = peer
        self.peer = peer.address
        self._is_held = False
        self._connection: Connection | None = None

    def opened(self, connection: Connection) -> None:
        """Begin the conversation."""
        self._connection = connection
        assert self._who is not None, "it is opened once"
        self.conversation = self._endpoint.open(self, self._who)
        self._who = None

    def message(self, data: bytes, is_text: bool) -> None:
        """Take bytes; text ends the connection (MQTT-6.0.0-1)."""
        if is_text:
            self.conversation.end(Code.PROTOCOL_ERROR, "MQTT comes in binary messages")
            self.write_out()
            return
        self.receive(data)

    def writable(self) -> None:
        """Nothing waits here: the connection reads no more until then."""

    def closed(self, code: int, reason: str) -> None:
        """End the conversation."""
        self._connection = None
        self.lost(reason or f"connection lost ({code})")

    def sweep(self) -> None:
        """A second has passed; who takes nothing is cut off by the connection itself."""
        self.pass_time()

    def write_out(self) -> None:
        """Write, close, steer; see `_Link`."""
        data, connection = self.conversation.take_output(), self._connection
        if connection is None:
            return
        if data:
            connection.send(data, binary=True)
        if self.conversation.is_closed:
            self._connection = None
            connection.close(1000)
        elif self._is_held == self.conversation.wants_read:
            self._is_held = not self._is_held
            connection.hold(self._is_held)

    def abort(self) -> None:
        """End; the connection's own time limit cuts it off."""
        if self._connection is not None:
            self._connection.close(Close.GOING_AWAY, _STOPPING)


def _new_client_id() -> str:
    return f"hub-{secrets.token_hex(8)}"


def _nothing() -> None:
    """A connection that is gone writes nothing."""
