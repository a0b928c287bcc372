"""One MQTT connection: which packet may come when, what is answered, and when it ends. Pure.

Owns: per connection the states below, keep-alive, the order of PUBACKs, what may be on its way without one. Place:
between a socket's shell, which hands bytes in and writes `take_output`, and a `Handler`, which knows devices.

Theory of operation. A PUBLISH of QoS 1 becomes an entry behind those that came before it, and goes to the handler with
that entry as its ``done``. Whenever the first entry is done, it and those done behind it leave, each with its PUBACK:
**in the order in which the publications came** (MQTT-4.6.0-2), and none before the handler said so.

Backpressure. Where the handler takes nothing, or where as many publications or bytes are on their way as may be, the
next PUBLISH is held, and nothing behind it is read: `wants_read` is False. Until then pings are answered. MQTT 5 knows
the number as Receive Maximum and ends a client that goes beyond it. Nobody times out whose pings are not read. After
`MAX_TURN` packets the next one is held too, until the shell resumes.

Sessions. The hub keeps none: "session present" is always 0, a Session Expiry Interval is answered by 0. What a client
sends again after its connection was lost is told by `hub.mqtt.recent`.
"""

import math
from collections.abc import Callable
from enum import Enum

from hub.mqtt import answer
from hub.mqtt.alias import Aliases
from hub.mqtt.field import Fields, Properties, Property, WrongPacketError, text_of
from hub.mqtt.handler import Code, Connect, Handler, Received
from hub.mqtt.opening import MAX_UNACKED, outgoing_of, refusal_of, terms_of
from hub.mqtt.outgoing import Outgoing
from hub.mqtt.packet import (
    DUP,
    MAX_CONNECT_BYTES,
    PUBLISH,
    QOS,
    QOS_2,
    RETAIN,
    V5,
    V311,
    Kind,
    PacketReader,
    read_connect,
    read_disconnect,
    read_nothing,
    read_protocol,
    read_puback,
    read_publish,
    read_subscribe,
    read_unsubscribe,
)
from hub.mqtt.recent import Memory, Recent, mark_of

# A connected socket that says nothing costs a descriptor; every client says CONNECT at once.
FIRST_PACKET_S = 5.0
# MQTT-3.1.2-22: one and a half times what the client said.
KEEP_ALIVE_FACTOR = 1.5
# A client that says keep alive 0 may be silent for this long; MQTT 5 is told.
IDLE_LIMIT_S = 3600
# Of bodies of those: large messages fill the hub's memory sooner than many.
MAX_UNACKED_BYTES = 1024 * 1024
# Packets of one connection in a turn of the loop, then the others have theirs: a read of 256 KiB holds 37,000
# publications of seven bytes, which would hold everybody else's acks for a fifth of a second. 64 bytes count as one.
MAX_TURN = 500
# What was read and waits behind a held PUBLISH: a shell that cannot stop reading ends the client here.
MAX_BEHIND_BYTES = 1024 * 1024
_MAX_WHY_CHARS = 200
_FAILED = 0x80
# Where 3.1.1 has the connection end without a word.
_WORDLESS = frozenset({Code.MALFORMED, Code.PROTOCOL_ERROR, Code.PACKET_TOO_LARGE, Code.KEEP_ALIVE_TIMEOUT})


class State(Enum):
    """Where a connection is."""

    AWAIT_CONNECT = "await_connect"
    RUNNING = "running"
    CLOSED = "closed"


# Packet of the client → states in which it is allowed; anything else ends the connection.
ALLOWED: dict[Kind, frozenset[State]] = {
    Kind.CONNECT: frozenset({State.AWAIT_CONNECT}),
    Kind.PUBLISH: frozenset({State.RUNNING}),
    Kind.PUBACK: frozenset({State.RUNNING}),
    Kind.SUBSCRIBE: frozenset({State.RUNNING}),
    Kind.UNSUBSCRIBE: frozenset({State.RUNNING}),
    Kind.PINGREQ: frozenset({State.RUNNING}),
    Kind.DISCONNECT: frozenset({State.RUNNING}),
    # Of QoS 2, and of authentication in several steps: neither is ever begun here.
    Kind.PUBREC: frozenset(),
    Kind.PUBREL: frozenset(),
    Kind.PUBCOMP: frozenset(),
    Kind.AUTH: frozenset(),
}


class _Taken:
    """A publication of QoS 1 on its way to the journal; called with the code once it is dealt with."""

    __slots__ = ("code", "conversation", "mark", "packet_id", "size")

    def __init__(self, conversation: "Conversation", packet_id: bytes, mark: int, size: int) -> None:
        self.conversation = conversation
        self.packet_id = packet_id
        self.mark = mark
        self.size = size
        self.code: Code | None = None

    def __call__(self, code: Code) -> None:
        if self.code is None:
            self.code = code
            self.conversation.settle(self)


class Conversation:
    """One connection of a client. Feed `receive` and `tick`; then write `take_output`, and close when ``is_closed``.

    Args:
        handler: what becomes of what the client says.
        recent: of the endpoint, shared by its connections.
        new_client_id: makes a name for a client that has none.
        now: monotonic time in s.
        idle_limit_s: for a client whose keep alive is 0.

    The shell sets ``flush``: it calls `resume` and writes `take_output` when something other than `receive` and `tick`
    made output. It reads while `wants_read`, calls `tick` when `deadline` has come, and `lost` once at the end; ``why``
    then says what ended the connection.
    """

    __slots__ = ("_aliases", "_deferred", "_handler", "_heard", "_held", "_idle_limit_s", "_is_busy", "_is_clean",
                 "_is_known", "_memory", "_new_client_id", "_outgoing", "_output", "_patience_s", "_reader", "_recent",
                 "_unacked", "_unacked_bytes", "_version", "flush", "state", "why")  # fmt: skip

    def __init__(
        self,
        handler: Handler,
        recent: Recent,
        *,
        new_client_id: Callable[[], str],
        now: float,
        idle_limit_s: int = IDLE_LIMIT_S,
    ) -> None:
        self.state = State.AWAIT_CONNECT
        self.flush: Callable[[], None] = _nothing
        self.why = ""
        self._handler = handler
        self._recent = recent
        self._new_client_id = new_client_id
        self._idle_limit_s = idle_limit_s
        self._reader = PacketReader(MAX_CONNECT_BYTES)
        self._output: list[bytes] = []
        # A list: an empty one is 56 bytes for each idle connection, a deque 760; what is moved is 8 KB at most.
        self._unacked: list[_Taken] = []
        self._unacked_bytes = 0
        # 0: not said yet.
        self._version = 0
        self._memory: Memory | None = None
        self._outgoing: Outgoing | None = None
        self._aliases: Aliases | None = None
        # A packet for which there is no room yet, or whose turn has not come.
        self._held: tuple[int, bytes] | None = None
        # What the handler publishes while it is asked something: it follows the answer.
        self._deferred: list[tuple[str, bytes, int]] | None = None
        self._heard = now
        self._patience_s = FIRST_PACKET_S
        self._is_busy = False
        self._is_clean = False
        self._is_known = False

    # --- what the shell uses -----------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the connection is to end once the output is written."""
        return self.state is State.CLOSED

    @property
    def wants_read(self) -> bool:
        """Whether more should be read of the client."""
        return self._held is None

    @property
    def deadline(self) -> float:
        """The monotonic time of the next `tick` that matters; infinity while the client is not read."""
        return self._heard + self._patience_s if self._held is None else math.inf

    def receive(self, data: bytes, now: float, now_ns: int) -> None:
        """Take bytes that came at monotonic time ``now`` and wall time ``now_ns``."""
        if self.state is State.CLOSED:
            return
        self._reader.feed(data)
        self._run(now, now_ns)
        if self._held is not None and self._reader.buffered_bytes > MAX_BEHIND_BYTES:
            self.end(Code.QUOTA_EXCEEDED, "more comes than can be stored")

    def resume(self, now: float, now_ns: int) -> None:
        """Go on with what was held, where there is room now."""
        if self._held is not None:
            self._run(now, now_ns)

    def tick(self, now: float, now_ns: int) -> None:
        """Let time pass: the client may be overdue, the handler may have room again."""
        self.resume(now, now_ns)
        if now >= self.deadline and self.state is not State.CLOSED:
            self.end(Code.KEEP_ALIVE_TIMEOUT, f"nothing was heard for {self._patience_s:g} s")

    def take_output(self) -> bytes:
        """Return and clear the bytes to send."""
        output = self._output
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    def lost(self, why: str) -> None:
        """The connection is gone, for whatever reason: tell the handler, if it ever knew of the client."""
        self._close(why)
        if self._is_known:
            self._is_known = False
            self._handler.closed(self._is_clean, self.why)

    # --- what the handler uses (`handler.Line`) -----------------------------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send a message where the client subscribed to it, never retained; beyond what may wait the line ends."""
        if self._deferred is not None:
            self._deferred.append((topic, payload, qos))
            return
        if self.state is not State.RUNNING:
            return
        packet, is_well = self._out().publish(topic, payload, qos)
        if packet:
            self._say(packet)
        if not is_well:
            self.end(Code.QUOTA_EXCEEDED, "too much waits for this client")

    def end(self, code: Code, why: str) -> None:
        """End the connection; MQTT 5 says why, and so does an answer to CONNECT."""
        if self.state is State.CLOSED:
            return
        before = self.state
        self._close(why)
        said = self._farewell(before, code, why[:_MAX_WHY_CHARS])
        if said:
            self._output.append(said)
        if not self._is_busy:
            self.flush()

    # --- inside: one packet after the other ---------------------------------------------------------------

    def settle(self, taken: _Taken) -> None:
        """A publication was dealt with: acknowledge it, and those behind it that only waited for it."""
        memory, code = self._memory, taken.code
        assert memory is not None, "who published has connected"
        assert code is not None, "it has just been told"
        if code < _FAILED:
            memory.remember(taken.mark, len(self._unacked))
        if self.state is State.CLOSED:
            memory.settle(taken.mark, code)
            return
        unacked = self._unacked
        if unacked[0] is not taken:
            return
        output = self._output
        is_first = not output
        count = 0
        for first in unacked:
            if first.code is None:
                break
            count += 1
            self._unacked_bytes -= first.size
            output.append(answer.puback(self._version, first.packet_id, first.code))
        del unacked[:count]
        if is_first and not self._is_busy:
            self.flush()

    def _run(self, now: float, now_ns: int) -> None:
        self._recent.now = now
        self._is_busy = True
        packet, self._held = self._held, None
        try:
            packet = packet or self._reader.next()
            left = MAX_TURN
            while packet is not None:
                head, body = packet
                is_publish = head & 0xF0 == PUBLISH and self.state is State.RUNNING
                if left <= 0 or (is_publish and not self._has_room(head)):
                    self._held = packet
                    if left <= 0:
                        self.flush()
                    return
                left -= 1 + (len(body) >> 6)
                self._heard = now
                if is_publish:
                    self._take_publish(head, body, now_ns)
                else:
                    self._take(head, body)
                if self.state is State.CLOSED:
                    return
                packet = self._reader.next()
        except WrongPacketError as error:
            self.end(error.code, str(error))
        finally:
            self._is_busy = False

    def _has_room(self, head: int) -> bool:
        if not self._handler.can_take():
            return False
        if not head & QOS:
            return True
        if len(self._unacked) >= MAX_UNACKED:
            if self._version == V5:
                raise WrongPacketError(f"more than {MAX_UNACKED} at once", Code.RECEIVE_MAXIMUM_EXCEEDED)
            return False
        return self._unacked_bytes < MAX_UNACKED_BYTES

    def _take_publish(self, head: int, body: bytes, now_ns: int) -> None:
        if head & QOS_2:
            raise WrongPacketError("QoS 2 is not taken here, 1 is", Code.QOS_NOT_SUPPORTED)
        topic, payload, packet_id, properties = read_publish(head, body, self._version)
        content_type = ""
        if properties:
            if self._aliases is None:
                self._aliases = Aliases()
            topic = self._aliases.topic_of(topic, properties)
            content_type = text_of(properties, Property.CONTENT_TYPE)
        is_retained = head & RETAIN == RETAIN
        if not packet_id:
            self._handler.publish(Received(topic, payload, 0, is_retained, False, content_type), now_ns, _untold)
            return
        taken = _Taken(self, packet_id, mark_of(packet_id, topic, payload), len(body))
        is_again = head & DUP == DUP
        if is_again and self._knows(taken):
            return
        self._unacked.append(taken)
        self._unacked_bytes += taken.size
        self._handler.publish(Received(topic, payload, 1, is_retained, is_again, content_type), now_ns, taken)

    def _knows(self, taken: _Taken) -> bool:
        """Return whether a publication is here already; then it is acknowledged as soon as the first one is."""
        memory = self._memory
        assert memory is not None, "who publishes has connected"
        if any(other.mark == taken.mark for other in self._unacked):
            # Sent again on the same connection: the first one's PUBACK answers both.
            return True
        is_stored = memory.has(taken.mark)
        if not is_stored and not memory.join(taken.mark, taken):
            return False
        self._unacked.append(taken)
        self._unacked_bytes += taken.size
        if is_stored:
            taken(Code.SUCCESS)
        return True

    def _take(self, head: int, body: bytes) -> None:
        kind = Kind(head >> 4)
        if self.state not in ALLOWED[kind]:
            raise WrongPacketError(f"{kind.name} is not allowed in state {self.state.value}", Code.PROTOCOL_ERROR)
        match kind:
            case Kind.CONNECT:
                self._connect(body)
            case Kind.PUBACK:
                self._say(self._out().acknowledge(read_puback(body, self._version)))
            case Kind.SUBSCRIBE:
                self._subscribe(body)
            case Kind.UNSUBSCRIBE:
                packet_id, filters = read_unsubscribe(body, self._version)
                codes = [self._out().unsubscribe(name) for name in filters]
                self._say(answer.unsuback(self._version, packet_id, codes))
            case Kind.PINGREQ:
                read_nothing(body)
                self._say(answer.PINGRESP)
            case Kind.DISCONNECT:
                self._is_clean = read_disconnect(body, self._version) == 0
                self._close("the client has gone" if self._is_clean else "the client went, its will is to be said")
            case _:
                raise AssertionError("the table above lets no other packet through")

    # --- inside: the beginning ----------------------------------------------------------------------------

    def _connect(self, body: bytes) -> None:
        fields = Fields(body)
        version = read_protocol(fields)
        if version not in (V311, V5):
            # Whoever speaks an older one knows the answers of 3.1.1, a newer one those of 5.
            self._version = V311 if version < V311 else V5
            self.end(Code.UNSUPPORTED_VERSION, "MQTT 3.1.1 and 5 are spoken here")
            return
        self._version = version
        self._reader.is_strict = version == V5
        connect, properties = read_connect(fields, version)
        refused = refusal_of(connect, properties)
        if refused is not None:
            self.end(*refused)
            return
        if connect.will is not None and connect.will.qos > 1:
            # 3.1.1 has no way to refuse it alone; the hub delivers it to itself once.
            connect = connect._replace(will=connect.will._replace(qos=1))
        assigned = {}
        if not connect.client_id:
            connect = connect._replace(client_id=self._new_client_id())
            assigned = {Property.ASSIGNED_CLIENT_ID: connect.client_id}
        self._ask(connect, properties, assigned)

    def _ask(self, connect: Connect, properties: Properties, assigned: Properties) -> None:
        """Let the handler decide, and answer."""
        self._outgoing = outgoing_of(connect.version, properties)
        self._deferred = []
        refused = self._handler.connect(connect, self)
        if refused is not None:
            self.end(*refused)
        if self.state is State.CLOSED:
            self._deferred = None
            return
        self._is_known = True
        self.state = State.RUNNING
        self._reader.max_bytes = max_bytes = self._handler.max_packet_bytes
        # All that one credential calls nothing have one: with a name for each of them they would push out the others'.
        self._memory = self._recent.of(f"{self._handler.who}\0{'' if assigned else connect.client_id}")
        limit_s, asked_s = self._idle_limit_s, connect.keep_alive_s
        keeps_longer = not asked_s or asked_s > limit_s
        if connect.version == V5 and keeps_longer:
            assigned = {**assigned, Property.SERVER_KEEP_ALIVE: limit_s}
            asked_s = limit_s
        self._patience_s = asked_s * KEEP_ALIVE_FACTOR if asked_s else limit_s
        said = answer.connack(connect.version, Code.SUCCESS, {**terms_of(properties, max_bytes), **assigned})
        if not self._fits(said):
            self._close("the client takes no packet as large as CONNACK")
            return
        self._say(said)
        self._publish_deferred()

    def _subscribe(self, body: bytes) -> None:
        packet_id, wanted, properties = read_subscribe(body, self._version)
        if properties:
            raise WrongPacketError("subscription identifiers are not taken", Code.SUBSCRIPTION_IDS_NOT_SUPPORTED)
        outgoing = self._out()
        codes = outgoing.open_filters(wanted)
        asked = [number for number, code in enumerate(codes) if code < _FAILED]
        self._deferred = []
        answers = self._handler.subscribe([wanted[number].filter for number in asked]) if asked else ()
        for number, code in zip(asked, answers, strict=True):
            if code is Code.SUCCESS:
                outgoing.subscribe(wanted[number].filter, codes[number])
            else:
                codes[number] = code
        if self.state is not State.CLOSED:
            self._say(answer.suback(self._version, packet_id, codes))
        self._publish_deferred()

    def _publish_deferred(self) -> None:
        deferred, self._deferred = self._deferred or (), None
        for message in deferred:
            self.publish(*message)

    # --- inside: the rest ---------------------------------------------------------------------------------

    def _out(self) -> Outgoing:
        assert self._outgoing is not None, "who is asked for anything has connected"
        return self._outgoing

    def _farewell(self, before: State, code: Code, why: str) -> bytes:
        if before is State.AWAIT_CONNECT:
            if self._version != V5 and (not self._version or code in _WORDLESS):
                return b""
            said = answer.connack(self._version, code, {Property.REASON_STRING: why})
            return said if self._fits(said) else answer.connack(self._version, code)
        if self._version != V5:
            return b""
        said = answer.disconnect(code, why)
        return said if self._fits(said) else answer.disconnect(code)

    def _fits(self, packet: bytes) -> bool:
        return self._outgoing is None or len(packet) <= self._outgoing.max_packet_bytes

    def _say(self, packet: bytes) -> None:
        is_first = not self._output
        if packet:
            self._output.append(packet)
            if is_first and not self._is_busy:
                self.flush()

    def _close(self, why: str) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.why = why
        self._held = None
        self._reader.clear()
        if self._memory is not None:
            for taken in self._unacked:
                if taken.code is None:
                    self._memory.leave(taken.mark)
        self._unacked.clear()


def _nothing() -> None:
    """The shell sets what flushes."""


def _untold(code: Code) -> None:
    """Nobody waits for what becomes of QoS 0."""
