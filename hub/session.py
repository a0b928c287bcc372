"""The hub's side of a device conversation: dedupe, order, acks, takeover. Pure.

Owns: per connection the states below. What is accepted and stored belongs to the
stream (`streams`), not to the connection. Place: after `streams`, `validate` and
`devices`, before the gateway, which hands bytes in and writes ``take_output()`` out.

Theory of operation. A frame is taken when ``seq == accepted + 1``: it is
validated, appended to ``frames`` for the journal's writer, and ``accepted``
advances. Nothing is said to the device. When the journal's commit has
returned, `Streams.committed` advances ``stored`` and the session that owns the
stream acks it: **no ack can leave before the commit**, because only
`committed` writes acks for new frames. A frame ≤ stored is acked again, one
between stored and accepted is ignored (its ack follows its commit), and any
other is ``out_of_order``, said once per ``stored``.

When a key is in two places. A stream has one connection: a newer one takes it over. Where the newer one names
*another* stream, the older is asked by a ping that is sent after the newer was welcomed: **only its answer raises the
alarm** ``cloned_key``. Frames that still arrive on the older prove nothing, they may have been on their way when its
device was killed and began again; a connection that is half-open after a power cut never answers.
"""

import logging
from collections.abc import Callable, Sequence
from enum import Enum

from device_sdk import wire
from device_sdk.columns import Batch, encode_batch
from device_sdk.errors import Reason
from device_sdk.wire import CHAIN_START, Close
from hub.devices import Registry
from hub.downlink import Downlink
from hub.errors import JournalError
from hub.incident import ALARM, CLONED_KEY, TAKEOVER, Incident, Report, both
from hub.model import Draft, Frame, Kind, Mark, StreamKey
from hub.streams import MAX_NEW_STREAMS, Owner, Streams, StreamState
from hub.validate import MalformedError, check_batch, parse_message, unpacked

_log = logging.getLogger("hub.session")

# How replies and reported states begin: they have no seq, and no frame is to blame for them.
_BESIDE = (b'{"op":"reply"', b'{"op":"reported"')

RETRY_BUSY_MS = 1000
RETRY_NEW_STREAM_MS = 600_000
# Of one device: a line a minute says as much as the hundred a second that it could be made to write.
WARN_EVERY_NS = 60 * 10**9


class State(Enum):
    """Where a conversation is."""

    AWAIT_HELLO = "await_hello"
    RUNNING = "running"
    CLOSED = "closed"


# op of the device → states in which it is allowed; anything else closes with 4400 and changes nothing.
ALLOWED: dict[str, frozenset[State]] = {
    "hello": frozenset({State.AWAIT_HELLO, State.RUNNING}),
    "schema": frozenset({State.RUNNING}),
    "batch": frozenset({State.RUNNING}),
    "gap": frozenset({State.RUNNING}),
    "reply": frozenset({State.RUNNING}),
    "reported": frozenset({State.RUNNING}),
    "malformed": frozenset({State.RUNNING}),
    "bye": frozenset({State.AWAIT_HELLO, State.RUNNING}),
}


class DeviceSession:
    """One device connection. Feed `receive`; then take ``frames``, `take_output` and ``closing``.

    Args:
        namespace, device: from the credential, never from the message.
        window: how many cut and unacked frames the device may have.
        downlink: told when the device can be reached, and what it says besides readings.
        peer: address of the other end.
        report: told of takeovers and alarms.
        has_hooks: batches are not checked here: their frames are drafts, which `hub.hooks.ingest` completes.

    The shell sets ``flush``: it writes `take_output` when something other than `receive` made output; and ``probe``: it
    pings the other end and calls what it is given when *that* ping is answered. ``stream``: that it speaks for, or did.
    """

    def __init__(
        self,
        namespace: str,
        device: str,
        streams: Streams,
        registry: Registry,
        *,
        window: int = wire.MAX_WINDOW,
        downlink: Downlink | None = None,
        peer: str = "",
        report: Report | None = None,
        has_hooks: bool = False,
    ) -> None:
        self.namespace = namespace
        self.device = device
        self.peer = peer
        self.state = State.AWAIT_HELLO
        self.frames: list[Frame] = []
        self.flush: Callable[[], None] = _nothing
        self.probe: Callable[[Callable[[], None]], None] = _never
        self.closing: tuple[int, str] | None = None
        self.displaced: list[Owner] = []
        self.ping_s = wire.PING_S
        self.unreadable = 0
        self._streams = streams
        self._registry = registry
        self._window = window
        self._downlink = downlink or Downlink()
        self._report = report
        self._has_hooks = has_hooks
        # Who spoke for the stream before this session.
        self._before = ""
        self._output: list[bytes] = []
        self.stream: StreamState | None = None
        self._complained_at = -1
        self._slow = self._is_small = False  # small: it has no memory for a list in an ack
        # The position that the device showed and this hub never gave out, until it is stored that it was restored.
        self._unknown: str | None = None

    def receive(self, data: bytes, is_text: bool, now_ns: int, *, can_accept: bool = True) -> None:
        """Take one complete message received at wall time ``now_ns``.

        ``can_accept`` is False while the journal's queue is full; the device is then told ``slow``.
        """
        if self.state is State.CLOSED:
            return
        try:
            if data[:1] == wire.DEFLATED:
                data = unpacked(data)
                is_text = data[:1] == b"{"
            message = parse_message(data, is_text)
        except MalformedError as error:
            self._malformed(error, data, now_ns, can_accept)
            return
        if type(message) is Batch and self.state is State.RUNNING:
            # The hot path goes round the look-ups that follow.
            if self._is_next(message.seq, can_accept):
                self._take_batch(message, data, now_ns)
            return
        op = type(message).__name__.lower()
        if self.state not in ALLOWED[op]:
            self.end(Close.BAD_MESSAGE, f"{op} is not allowed in state {self.state.value}: say hello first")
            return
        assert not isinstance(message, Batch), "it is taken above, in the one state in which it is allowed"
        self._take(message, data, now_ns, can_accept)

    def receive_rows(self, read: Callable[[bytes], Batch], data: bytes, now_ns: int, can_accept: bool = True) -> None:
        """Take a batch in a form that is not the wire's: ``read`` makes it, or raises `MalformedError`.

        Its place in the chain is that of ``data`` as it came; what is stored is the batch.
        """
        if self.state is not State.RUNNING:
            self.end(Close.BAD_MESSAGE, f"rows are not allowed in state {self.state.value}: say hello first")
            return
        try:
            batch = read(data)
        except MalformedError as error:
            self._malformed(error, data, now_ns, can_accept)
            return
        if self._is_next(batch.seq, can_accept):
            self._take_batch(batch, data, now_ns, encode_batch(batch))

    def shows_less(self, data: bytes) -> bool:
        """Say whether a hello knows less than is stored of its stream: it is an old one, or of a card written back."""
        return _shows_less(data, self.namespace, self.device, self._streams)

    def take_output(self) -> list[bytes]:
        """Return and clear the text messages to send, in order."""
        output, self._output = self._output, []
        return output

    def ack(self, state: StreamState) -> None:
        """Say that everything ≤ stored is durable. Called only after the commit returned."""
        mark = state.mark
        rejected, state.rejected = () if self._is_small else tuple(state.rejected), []
        position = self._position()
        if mark.rejected or self._unknown is not None:
            self._send(wire.Ack(mark.stored, mark.last_chain.hex(), position, mark.rejected, rejected))
        else:
            # The hot path: one per device and commit; the same bytes `wire.encode` would give.
            chain = mark.last_chain.hex()
            self._output.append(
                b'{"op":"ack","stored":%d,"chain":"%s","pos":"%s"}' % (mark.stored, chain.encode(), position.encode())
            )

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Tell the device to wait; frames that still arrive are dropped and come again."""
        if not self._slow:
            self._send(wire.Slow(why, retry_ms))
        self._slow = True

    def tell(self, message: wire.Command | wire.Desired) -> None:
        """Say something beside the acks; the shell's ``flush`` writes it."""
        self._send(message)

    def ask_if_alive(self, newer: str) -> None:
        """Another connection of the device, from that address, was welcomed on another stream."""
        self.probe(lambda: self._is_alive(newer))

    def closed(self, why: str = "") -> None:
        """The connection ended: give up the stream (frames already accepted are still stored)."""
        if self.stream is not None and self.stream.owner is self:
            self._streams.release(self.stream)
        if self.state is State.RUNNING:
            self._registry.device(self.namespace, self.device).connections -= 1
            self._downlink.left(self, why if self.closing is None else self.closing[1])
        self._set(State.CLOSED)

    def _take(
        self,
        message: wire.Hello | wire.Schema | wire.Gap | wire.Bye | wire.Reply | wire.Reported,
        data: bytes,
        now_ns: int,
        can_accept: bool,
    ) -> None:
        match message:
            case wire.Hello():
                self._hello(message, now_ns)
                if can_accept:
                    self.frames += self._streams.own_frames(self.namespace, self.device, now_ns)
            case wire.Schema():
                self._schema(message, now_ns)
            case wire.Gap():
                if self._is_next(message.seq, can_accept):
                    self._take_gap(message, data, now_ns)
            case wire.Reply() | wire.Reported():
                self._downlink.heard(self, message)
            case wire.Bye():
                self.end(1000, "bye")

    def _hello(self, hello: wire.Hello, now_ns: int) -> None:
        if hello.device != self.device:
            self.end(Close.FORBIDDEN, f"this credential is for device {self.device!r}, not {hello.device[:64]!r}")
            return
        key = StreamKey(self.namespace, self.device, hello.stream)
        if hello.stream == wire.HUB_STREAM:
            self.end(Close.BAD_MESSAGE, f"stream {hello.stream} is the hub's own: begin one with a random name")
            return
        try:
            self._greet(key, hello, now_ns)
        except JournalError as error:
            _log.warning("hello not answered device=%s stream=%s reason=%s", self.device, hello.stream, error)
            self.end(Close.INTERNAL, "the hub could not read what it holds of this device's streams: try again")

    def _greet(self, key: StreamKey, hello: wire.Hello, now_ns: int) -> None:
        if not self._streams.may_begin(key, now_ns):
            _log.warning("slow device=%s reason=more than %d new streams in a day", self.device, MAX_NEW_STREAMS)
            self._send(wire.Slow(Reason.TOO_MANY_STREAMS, RETRY_NEW_STREAM_MS))
            return
        self._check_seen(hello.seen, now_ns)
        self.ping_s = wire.METERED_PING_S if hello.link == "metered" else wire.PING_S
        state = self._streams.get(key)
        # Before the verdict, which looks other streams up: when that fails, `end` gives back what is owned.
        self._take_over(state)
        self._send(self._verdict(state, hello, now_ns))
        self._complained_at, self._slow, self._is_small = -1, False, not hello.chain
        self._registry.device(self.namespace, self.device).skew_ns = hello.wall_ns - now_ns if hello.wall_ns else None
        if self.state is State.AWAIT_HELLO:
            self._registry.device(self.namespace, self.device).arrived()
            self._set(State.RUNNING)
        other = self._downlink.entered(self)
        if isinstance(other, DeviceSession):
            other.ask_if_alive(self.peer)

    def _verdict(self, state: StreamState, hello: wire.Hello, now_ns: int) -> wire.Welcome | wire.NewStream:
        """Detect a reused or forked stream (delivery rule 3): compare what both ends still know."""
        mark, position, last = state.mark, self._position(), hello.next - 1
        known = CHAIN_START if last == 0 else mark.chain(last)
        if mark.stored >= hello.next:
            if known is not None and known.hex() == hello.chain:
                # A frame is on the device's disk before it is sent, so this is never an accident of the line.
                self._alarm(mark, hello, Reason.SEQ_REUSE, now_ns)
                return wire.NewStream(last, hello.chain, Reason.SEQ_REUSE, position)
            return self._conflict(mark, hello, Reason.SEQ_REUSE, now_ns)
        if known is not None and hello.chain and known.hex() != hello.chain:
            return self._conflict(mark, hello, Reason.CHAIN_CONFLICT, now_ns)
        return wire.Welcome(
            mark.stored, mark.last_chain.hex(), position, now_ns, self._window, self.ping_s,
            earlier=self._held([e.stream for e in hello.earlier]),
        )  # fmt: skip

    def _conflict(self, mark: Mark, hello: wire.Hello, why: Reason, now_ns: int) -> wire.NewStream:
        """Refuse a stream that two spools write: nothing of it counts as acked."""
        self._alarm(mark, hello, Reason.CHAIN_CONFLICT, now_ns)
        return wire.NewStream(0, CHAIN_START.hex(), why, self._position())

    def _alarm(self, mark: Mark, hello: wire.Hello, reason: Reason, now_ns: int) -> None:
        """Say that a card was copied, or written back; the ledger keeps it."""
        _log.warning(
            "%s device=%s stream=%s stored=%d next=%d: two spools write it, a copied or written-back card",
            reason, self.device, hello.stream, mark.stored, hello.next,
        )  # fmt: skip
        self._streams.owe(self.namespace, self.device, now_ns, 0, reason)
        self._tell_of(ALARM, reason, both(self.peer, self._before))

    def _is_alive(self, newer: str) -> None:
        if self.state is State.RUNNING:
            _log.warning("%s device=%s peers=%s: two live streams", CLONED_KEY, self.device, both(self.peer, newer))
            self._tell_of(ALARM, CLONED_KEY, both(self.peer, newer))

    def _tell_of(self, what: str, outcome: str, peers: str) -> None:
        if self._report is not None:
            self._report(Incident(self.namespace, self.device, what, outcome, peers))

    def _check_seen(self, seen: str | None, now_ns: int) -> None:
        """Notice that this hub was restored: the device has seen a position that it never gave out."""
        self._unknown = None if seen is None or self._streams.knows(seen) else seen
        if seen is not None and self._streams.was_restored(self.namespace, self.device, seen):
            _log.warning("hub_restored device=%s seen=%s now=%s", self.device, seen[:40], self._streams.position())
            self._streams.owe(self.namespace, self.device, now_ns, None, Reason.HUB_RESTORED)

    def _position(self) -> str:
        """Return what to say as the hub's position.

        A device keeps it instead of the one that shows that this hub was restored. So it is given back its own
        until that is stored: else a kill, or a full disk and a restart, would make the hub forget it.
        """
        if self._unknown is not None and self._streams.has_to_tell(self.namespace, self.device):
            return self._unknown
        self._unknown = None
        return self._streams.position()

    def _held(self, names: Sequence[str]) -> tuple[wire.Earlier, ...]:
        """Return what is stored of the device's streams, without making any."""
        stored = self._streams.stored([StreamKey(self.namespace, self.device, name) for name in names])
        return tuple(
            wire.Earlier(name, seq, seq + 1, chain.hex()) for name, (seq, chain) in zip(names, stored, strict=True)
        )

    def _take_over(self, state: StreamState) -> None:
        """The newest connection of a stream wins at once."""
        if self.stream is not None and self.stream is not state and self.stream.owner is self:
            self._streams.release(self.stream)
        if self.stream is not state:
            self._before, state.peer = state.peer, self.peer
        # Owned before the older is closed: what it gives up would be forgotten.
        older, state.owner, self.stream = state.owner, self, state
        if older is not None and older is not self:
            self._tell_of(TAKEOVER, "ok", both(self.peer, self._before))
            older.end(Close.TAKEN_OVER, "another connection continues this stream")
            self.displaced.append(older)

    def _schema(self, schema: wire.Schema, now_ns: int) -> None:
        refused = self._registry.declare(self.namespace, self.device, schema.channels)
        if refused:
            self._warn(now_ns, "channels refused device=%s count=%d first=%r", len(refused), refused[0][:128])
        if schema.commands is not None:
            self._downlink.heard(self, schema)

    def _is_next(self, seq: int, can_accept: bool) -> bool:
        """Decide the fate of a numbered frame; True only for ``accepted + 1`` while there is room."""
        state = self._running_stream()
        if state.owner is not self:
            return False
        if seq <= state.mark.stored:
            self.ack(state)
            return False
        if seq <= state.accepted:
            return False
        if seq != state.accepted + 1:
            self._out_of_order(state, seq)
            return False
        if not can_accept:
            # Each time: the next frame comes again only when the device has waited, and it would wait for an ack now.
            self._slow = False
            self.say_slow(Reason.STORE_BEHIND, RETRY_BUSY_MS)
            return False
        self._slow = False
        return True

    def _out_of_order(self, state: StreamState, seq: int) -> None:
        stored = state.mark.stored
        if self._slow or self._complained_at == stored:
            return
        self._complained_at = stored
        self._send(
            wire.Error(Reason.OUT_OF_ORDER, stored, f"got {seq}, expected {state.accepted + 1}: send from {stored + 1}")
        )

    def _take_batch(self, batch: Batch, data: bytes, now_ns: int, body: bytes = b"") -> None:
        state, body = self._running_stream(), body or data
        if self._has_hooks:
            # It counts as accepted, by its bytes as they came: so it is taken once, whatever a hook says of it when.
            draft = Draft(batch, state.accepted_chain)
            self._accept(
                state, batch.seq, data, now_ns, Kind.BATCH, body=body, t0=batch.t0, tick=batch.tick, draft=draft
            )
            return
        channels = self._registry.device(self.namespace, self.device).channels
        checked = check_batch(batch, body, channels.get, has_all_channels=len(channels) >= wire.MAX_CHANNELS)
        for series in checked.retyped:
            self._registry.changed(series)
        self._accept(
            state, batch.seq, data, now_ns, Kind.BATCH, body=checked.body, t0=batch.t0, tick=batch.tick,
            columns=checked.columns, readings=checked.readings, rejected=checked.rejected,
            rejected_count=checked.rejected_count, reason=checked.reason,
        )  # fmt: skip

    def _take_gap(self, gap: wire.Gap, data: bytes, now_ns: int) -> None:
        state = self._running_stream()
        self._accept(
            state, gap.seq, data, now_ns, Kind.GAP, body=data, dropped=gap.count or 0, reason=gap.reason
        )  # fmt: skip

    def _accept(self, state: StreamState, seq: int, data: bytes, now_ns: int, kind: Kind, **fields: object) -> None:
        if seq == 1:
            self._streams.begin(state.mark.key, now_ns)
        self.frames.append(state.accept(seq, data, now_ns, kind, **fields))

    def _malformed(self, error: MalformedError, data: bytes, now_ns: int, can_accept: bool) -> None:
        """Quarantine a frame whose seq and count are readable; else say so, and give up after three."""
        if self.state not in ALLOWED["malformed"]:
            self.end(Close.BAD_MESSAGE, str(error))
            return
        state = self._running_stream()
        if data.startswith(_BESIDE):
            # No word of it: a device takes `unreadable` for a verdict on its next frame, and gives that up in the end.
            pass
        elif error.seq is not None:
            if self._is_next(error.seq, can_accept):
                self._warn(now_ns, "quarantine device=%s seq=%d reason=%s", error.seq, error)
                self._accept(
                    state, error.seq, data, now_ns, Kind.QUARANTINE, body=data, rejected_count=error.count,
                    reason=f"{Reason.MALFORMED}: {error}",
                )  # fmt: skip
                return
            if error.seq <= state.accepted + 1:
                return  # it is in quarantine already, on its way there, or comes again after the pause
        else:
            self._send(wire.Error(Reason.UNREADABLE, state.mark.stored, str(error)))
        self.unreadable += 1
        self._warn(now_ns, "unreadable device=%s bytes=%d reason=%s", len(data), error)
        if self.unreadable > 3:
            self.end(Close.BAD_MESSAGE, f"four unreadable messages on one connection; the last: {error}")

    def _warn(self, now_ns: int, text: str, *args: object) -> None:
        """Log what the device sent wrong: the first, then one each `WARN_EVERY_NS`, with how many came between."""
        device = self._registry.device(self.namespace, self.device)
        if 0 <= now_ns - device.warned_ns < WARN_EVERY_NS:
            device.unwarned += 1
            return
        _log.warning(f"{text} left_out=%d", self.device, *args, device.unwarned)
        device.warned_ns, device.unwarned = now_ns, 0

    def _running_stream(self) -> StreamState:
        assert self.stream is not None, "a running session has a stream: hello set it"
        return self.stream

    def _send(self, message: wire.HubMessage) -> None:
        self._output.append(wire.encode(message))

    def end(self, code: int, reason: str) -> None:
        """Close with a code and a reason; ``closing`` tells the shell."""
        if self.state is State.CLOSED:
            return
        self.closing = (code, reason)
        self.closed()

    def _set(self, state: State) -> None:
        if state is not self.state:
            _log.debug("= device=%s %s -> %s", self.device, self.state.value, state.value)
            self.state = state


def _shows_less(data: bytes, namespace: str, device: str, streams: Streams) -> bool:
    try:
        hello = parse_message(data, True)
        if not isinstance(hello, wire.Hello):
            return False
        ((stored, _),) = streams.stored([StreamKey(namespace, device, hello.stream)])
    except (MalformedError, JournalError):
        return False  # who takes it says what is wrong
    return stored >= hello.next


def _nothing() -> None:
    """The flush of a session that no shell holds."""


def _never(answered: Callable[[], None]) -> None:
    """The probe of a session that no shell holds: nobody answers."""
