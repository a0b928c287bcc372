"""The hub's side of a device conversation: dedupe, order, acks, takeover. Pure.

Owns: per stream a volatile ``accepted`` and a durable ``stored`` (`StreamState`),
and per connection the states below. State belongs to the stream, not to the
connection. Place: after `validate` and `devices`, before the gateway, which
hands bytes in and writes ``take_output()`` out.

Theory of operation. A frame is taken when ``seq == accepted + 1``: it is
validated, appended to ``frames`` for the journal's writer, and ``accepted``
advances. Nothing is said to the device. When the journal's commit has
returned, `Streams.committed` advances ``stored`` and the session that owns the
stream acks it: **no ack can leave before the commit**, because only
`committed` writes acks for new frames. A frame ≤ stored is acked again, one
between stored and accepted is ignored (its ack follows its commit), and any
other is ``out_of_order``, said once per ``stored``.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from device_sdk import wire
from device_sdk.columns import Batch
from device_sdk.errors import Reason
from device_sdk.reading import INT_MAX, Channel
from device_sdk.wire import CHAIN_START, CHAINS_KEPT, Close, Rejection
from hub.devices import Registry
from hub.model import Frame, Kind, Mark, StreamKey
from hub.validate import MAX_REJECTIONS_NAMED, MalformedError, check_batch, parse_message

_log = logging.getLogger("hub.session")

RETRY_DISK_FULL_MS = 5000
RETRY_BUSY_MS = 1000


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
    "malformed": frozenset({State.RUNNING}),
    "bye": frozenset({State.AWAIT_HELLO, State.RUNNING}),
}


@dataclass(slots=True)
class StreamState:
    """One stream: its durable mark, how far beyond it frames were accepted, who speaks for it now."""

    mark: Mark
    accepted: int = 0
    accepted_chain: bytes = CHAIN_START
    owner: "DeviceSession | None" = None
    rejected: list[Rejection] = field(default_factory=list)

    def rewind(self) -> None:
        """Forget what was accepted and not stored: the device sends it again."""
        self.accepted = self.mark.stored
        self.accepted_chain = self.chain(self.mark.stored)

    def chain(self, seq: int) -> bytes:
        """Return chain(seq) of a stored frame that is still known; the start for 0."""
        return CHAIN_START if seq == 0 else self.mark.chains[seq]


class Streams:
    """Every stream the hub knows; the one owner of marks in memory."""

    def __init__(self, marks: Iterable[Mark], run: str, head: int) -> None:
        self.run = run
        self.head = head
        self._states: dict[StreamKey, StreamState] = {}
        for mark in marks:
            state = self._states[mark.key] = StreamState(mark)
            state.rewind()

    def position(self) -> str:
        """Return the hub's position ``run.offset`` of the last commit."""
        return f"{self.run}.{self.head}"

    def get(self, key: StreamKey) -> StreamState:
        """Return the stream's state; an unknown stream begins with ``stored`` 0."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = StreamState(Mark(key))
        return state

    def __len__(self) -> int:
        return len(self._states)

    def release(self, state: StreamState) -> None:
        """Give up the owner's claim. A stream of which nothing was taken is forgotten: a hello can name any."""
        state.owner = None
        if not state.accepted:
            self._states.pop(state.mark.key, None)

    def marks(self, namespace: str, device: str | None = None) -> list[Mark]:
        """Return the marks of one device, or of the whole namespace."""
        return [
            s.mark
            for k, s in self._states.items()
            if k.namespace == namespace and device in (None, k.device) and s.mark.stored
        ]

    def committed(self, frames: Sequence[Frame]) -> "list[DeviceSession]":
        """Advance marks over durable frames and let their sessions ack; return sessions with output to write."""
        touched: dict[StreamKey, StreamState] = {}
        for frame in frames:
            state = touched.get(frame.key)
            if state is None:
                state = touched[frame.key] = self.get(frame.key)
            advance_mark(state.mark, frame)
            if frame.rejected:
                state.rejected += frame.rejected[: MAX_REJECTIONS_NAMED - len(state.rejected)]
        self.head = frames[-1].offset if frames else self.head
        owners = []
        for state in touched.values():
            if state.owner is not None:
                state.owner.ack(state)
                owners.append(state.owner)
        return owners

    def refused(self, frames: Sequence[Frame]) -> "list[DeviceSession]":
        """Take back frames that could not be stored (disk full); their sessions are told ``slow``."""
        owners = []
        for key in {frame.key for frame in frames}:
            state = self.get(key)
            state.rewind()
            if state.owner is not None:
                state.owner.say_slow(Reason.DISK_FULL, RETRY_DISK_FULL_MS)
                owners.append(state.owner)
        return owners


def advance_mark(mark: Mark, frame: Frame) -> None:
    """Apply one stored frame to its stream's mark: the rule that journal and memory share."""
    mark.stored = frame.seq
    mark.chains[frame.seq] = frame.chain
    mark.chains.pop(frame.seq - CHAINS_KEPT, None)
    mark.accepted += frame.readings
    # A gap's count is chosen by a peer: two of 2**62 must not outgrow what REST can say.
    mark.rejected = min(mark.rejected + frame.rejected_count, INT_MAX)
    mark.dropped = min(mark.dropped + frame.dropped, INT_MAX)
    mark.quarantined += frame.kind is Kind.QUARANTINE
    mark.first_ns = mark.first_ns or frame.received_ns
    mark.last_ns = frame.received_ns


class DeviceSession:
    """One device connection. Feed `receive`; then take ``frames``, `take_output` and ``closing``.

    Args:
        namespace, device: from the credential, never from the message.
        window: how many cut and unacked frames the device may have.

    The shell sets ``flush``: it writes `take_output` when something other than `receive` made output.
    """

    def __init__(
        self, namespace: str, device: str, streams: Streams, registry: Registry, *, window: int = wire.MAX_WINDOW
    ) -> None:
        self.namespace = namespace
        self.device = device
        self.state = State.AWAIT_HELLO
        self.frames: list[Frame] = []
        self.flush: Callable[[], None] = _nothing
        self.closing: tuple[int, str] | None = None
        self.displaced: list[DeviceSession] = []
        self.unreadable = 0
        self._streams = streams
        self._registry = registry
        self._window = window
        self._output: list[bytes] = []
        self._stream: StreamState | None = None
        self._complained_at = -1
        self._slow = False

    def receive(self, data: bytes, is_text: bool, now_ns: int, *, can_accept: bool = True) -> None:
        """Take one complete message received at wall time ``now_ns``.

        ``can_accept`` is False while the journal's queue is full; the device is then told ``slow``.
        """
        if self.state is State.CLOSED:
            return
        try:
            message = parse_message(data, is_text)
        except MalformedError as error:
            self._malformed(error, data, now_ns, can_accept)
            return
        op = type(message).__name__.lower()
        if self.state not in ALLOWED[op]:
            self._close(Close.BAD_MESSAGE, f"{op} is not allowed in state {self.state.value}: say hello first")
            return
        self._take(message, data, now_ns, can_accept)

    def take_output(self) -> list[bytes]:
        """Return and clear the text messages to send, in order."""
        output, self._output = self._output, []
        return output

    def ack(self, state: StreamState) -> None:
        """Say that everything ≤ stored is durable. Called only after the commit returned."""
        mark = state.mark
        rejected, state.rejected = tuple(state.rejected), []
        position = self._streams.position()
        if mark.rejected:
            chain = state.chain(mark.stored).hex()
            self._send(wire.Ack(mark.stored, chain, position, mark.rejected, rejected))
        else:
            # The hot path: one per device and commit; the same bytes `wire.encode` would give.
            chain = mark.chains[mark.stored].hex()
            self._output.append(
                b'{"op":"ack","stored":%d,"chain":"%s","pos":"%s"}' % (mark.stored, chain.encode(), position.encode())
            )

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Tell the device to wait; frames that still arrive are dropped and come again."""
        if not self._slow:
            self._send(wire.Slow(why, retry_ms))
        self._slow = True

    def closed(self) -> None:
        """The connection ended: give up the stream (frames already accepted are still stored)."""
        if self._stream is not None and self._stream.owner is self:
            self._streams.release(self._stream)
        if self.state is State.RUNNING:
            self._registry.device(self.namespace, self.device).connections -= 1
        self._set(State.CLOSED)

    def _take(
        self,
        message: wire.Hello | wire.Schema | wire.Gap | wire.Bye | Batch,
        data: bytes,
        now_ns: int,
        can_accept: bool,
    ) -> None:
        match message:
            case Batch():
                if self._is_next(message.seq, can_accept):
                    self._take_batch(message, data, now_ns)
            case wire.Hello():
                self._hello(message, now_ns)
            case wire.Schema(channels):
                self._schema(channels)
            case wire.Gap():
                if self._is_next(message.seq, can_accept):
                    self._take_gap(message, data, now_ns)
            case wire.Bye():
                self._close(1000, "bye")

    def _hello(self, hello: wire.Hello, now_ns: int) -> None:
        if hello.device != self.device:
            self._close(Close.FORBIDDEN, f"this credential is for device {self.device!r}, not {hello.device[:64]!r}")
            return
        state = self._streams.get(StreamKey(self.namespace, self.device, hello.stream))
        answer = self._verdict(state, hello, now_ns)
        self._take_over(state)
        self._send(answer)
        self._complained_at, self._slow = -1, False
        self._registry.device(self.namespace, self.device).skew_ns = hello.wall_ns - now_ns if hello.wall_ns else None
        if self.state is State.AWAIT_HELLO:
            self._registry.device(self.namespace, self.device).connections += 1
            self._set(State.RUNNING)

    def _verdict(self, state: StreamState, hello: wire.Hello, now_ns: int) -> wire.Welcome | wire.NewStream:
        """Detect a reused or forked stream (delivery rule 3): compare what both ends still know."""
        mark, position, last = state.mark, self._streams.position(), hello.next - 1
        known = CHAIN_START if last == 0 else mark.chains.get(last)
        if mark.stored >= hello.next:
            if known is not None and known.hex() == hello.chain:
                return wire.NewStream(last, hello.chain, Reason.SEQ_REUSE, position)
            _log.warning(
                "chain_conflict device=%s stream=%s stored=%d next=%d",
                self.device,
                hello.stream,
                mark.stored,
                hello.next,
            )
            return wire.NewStream(0, CHAIN_START.hex(), Reason.SEQ_REUSE, position)
        if known is not None and known.hex() != hello.chain:
            _log.warning(
                "chain_conflict device=%s stream=%s stored=%d next=%d",
                self.device,
                hello.stream,
                mark.stored,
                hello.next,
            )
            return wire.NewStream(0, CHAIN_START.hex(), Reason.CHAIN_CONFLICT, position)
        return wire.Welcome(mark.stored, state.chain(mark.stored).hex(), position, now_ns, self._window)

    def _take_over(self, state: StreamState) -> None:
        """The newest connection of a stream wins at once."""
        if self._stream is not None and self._stream is not state and self._stream.owner is self:
            self._streams.release(self._stream)
        # Owned before the older is closed: what it gives up would be forgotten.
        older, state.owner, self._stream = state.owner, self, state
        if older is not None and older is not self:
            older._close(Close.TAKEN_OVER, "another connection continues this stream")
            self.displaced.append(older)

    def _schema(self, channels: Sequence[Channel]) -> None:
        refused = self._registry.declare(self.namespace, self.device, channels)
        if refused:
            _log.warning("channels refused device=%s count=%d first=%r", self.device, len(refused), refused[0][:128])

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

    def _take_batch(self, batch: Batch, data: bytes, now_ns: int) -> None:
        state = self._running_stream()
        channels = self._registry.device(self.namespace, self.device).channels
        checked = check_batch(batch, data, channels.get)
        for series in checked.retyped:
            self._registry.changed(series)
        self._accept(
            state, batch.seq, data, now_ns, Kind.BATCH, body=checked.body, t0=batch.t0, tick=batch.tick,
            columns=checked.columns, readings=checked.readings, rejected=checked.rejected,
            rejected_count=checked.rejected_count,
        )  # fmt: skip

    def _take_gap(self, gap: wire.Gap, data: bytes, now_ns: int) -> None:
        self._accept(
            self._running_stream(),
            gap.seq,
            data,
            now_ns,
            Kind.GAP,
            body=data,
            dropped=gap.count or 0,
            reason=gap.reason,
        )

    def _accept(self, state: StreamState, seq: int, data: bytes, now_ns: int, kind: Kind, **fields: object) -> None:
        chain = wire.next_chain(state.accepted_chain, data)
        state.accepted, state.accepted_chain = seq, chain
        self.frames.append(Frame(state.mark.key, seq, kind, now_ns, chain=chain, **fields))  # type: ignore[arg-type]

    def _malformed(self, error: MalformedError, data: bytes, now_ns: int, can_accept: bool) -> None:
        """Quarantine a frame whose seq and count are readable; else say so, and give up after three."""
        if self.state not in ALLOWED["malformed"]:
            self._close(Close.BAD_MESSAGE, str(error))
            return
        state = self._running_stream()
        if error.seq is not None:
            if self._is_next(error.seq, can_accept):
                _log.warning("quarantine device=%s seq=%d reason=%s", self.device, error.seq, error)
                self._accept(
                    state, error.seq, data, now_ns, Kind.QUARANTINE, body=data, rejected_count=error.count,
                    reason=f"{Reason.MALFORMED}: {error}",
                )  # fmt: skip
            return
        self.unreadable += 1
        _log.warning("unreadable device=%s bytes=%d reason=%s", self.device, len(data), error)
        self._send(wire.Error(Reason.UNREADABLE, state.mark.stored, str(error)))
        if self.unreadable > 3:
            self._close(Close.BAD_MESSAGE, f"four unreadable messages on one connection; the last: {error}")

    def _running_stream(self) -> StreamState:
        assert self._stream is not None, "a running session has a stream: hello set it"
        return self._stream

    def _send(self, message: wire.HubMessage) -> None:
        self._output.append(wire.encode(message))

    def _close(self, code: int, reason: str) -> None:
        if self.state is State.CLOSED:
            return
        self.closing = (code, reason)
        self.closed()

    def _set(self, state: State) -> None:
        if state is not self.state:
            _log.debug("= device=%s %s -> %s", self.device, self.state.value, state.value)
            self.state = state


def _nothing() -> None:
    """The flush of a session that no shell holds."""
