"""Numbered frames that come by request, without a conversation: from devices that wake, send and sleep.

Owns: which frames of a request are taken, and who waits for their commit. Place: beside `session`, whose rules of a
stream it keeps; below the shells that receive requests. Pure. Must not: know HTTP, or who may speak for which device.

Theory of operation. There is no hello: the first frame's number says where the device thinks it is. What is stored is
answered and dropped, what follows is taken, a hole is a conflict whose answer says where to go on. The chain is
computed over the frames as they came, from the one before the first, and compared with what the hub has of the same
numbers: a written-back or copied card is found as a hello finds it, within the last 64. The newest connection of a
stream wins here too, but only when it brings something new.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from device_sdk import wire
from device_sdk.columns import Batch
from device_sdk.errors import Reason
from device_sdk.reading import Channel
from device_sdk.wire import Close, Rejection
from hub.devices import Registry
from hub.errors import BadRequestError, ConflictError, HubError, JournalError, TooManyRequestsError, UnavailableError
from hub.model import Draft, Frame, Kind, Mark, StreamKey
from hub.session import RETRY_NEW_STREAM_MS, WARN_EVERY_NS
from hub.streams import MAX_NEW_STREAMS, Streams, StreamState
from hub.validate import MalformedError, check_batch, parse_message, unpacked

_log = logging.getLogger("hub.session")

# Of a request, beside what it may weigh: a wake-up's worth. Each frame is checked before the next is heard.
MAX_FRAMES = 500
MAX_READINGS = 50_000

Done = Callable[[HubError | None], None]


class StreamConflictError(ConflictError):
    """Frames that do not follow what is stored of their stream: go on where the answer says.

    ``stored``, ``chain``: of the stream now.
    """

    def __init__(self, message: str, reason: Reason, mark: Mark) -> None:
        super().__init__(message)
        self.reason = str(reason)
        self.stored, self.chain = mark.stored, mark.last_chain


class Taken:
    """What became of a request, filled before its ``done`` is called without an error.

    ``stored``, ``chain``, ``position``, ``rejected_total``: as in an ack. ``accepted``, ``rejected``: readings of the
    frames that were new; ``named``: those refused, the first hundred at most.
    """

    def __init__(self) -> None:
        self.stored = self.accepted = self.rejected = self.rejected_total = 0
        self.chain = wire.CHAIN_START
        self.position = ""
        self.named: list[Rejection] = []
        self.frames: list[Frame] = []


class _Sent(NamedTuple):
    """A numbered frame of a request: what it says, or why it cannot be taken apart."""

    seq: int
    body: bytes
    message: Batch | wire.Gap | MalformedError


class _Waiting(NamedTuple):
    seq: int
    taken: Taken
    done: Done


class _Line:
    """Who waits for frames of one stream (`hub.streams.Owner`)."""

    def __init__(self, state: StreamState, position: Callable[[], str], leave: Callable[[StreamKey], None]) -> None:
        self.flush: Callable[[], None] = _nothing
        self.state = state
        self._position = position
        self._leave = leave
        self._waiting: deque[_Waiting] = deque()

    def wait(self, seq: int, taken: Taken, done: Done) -> None:
        self._waiting.append(_Waiting(seq, taken, done))

    def ack(self, state: StreamState) -> None:
        """Answer whose last frame is durable."""
        rejected, state.rejected = state.rejected, []
        for entry in self._waiting:
            seqs = {frame.seq for frame in entry.taken.frames}
            entry.taken.named += [rejection for rejection in rejected if rejection.seq in seqs]
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry.seq <= state.mark.stored:
                fill(entry.taken, state.mark, self._position())
                entry.done(None)
            else:
                self._waiting.append(entry)
        self._rest()

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Tell who waits for what was taken back: send it again."""
        error = UnavailableError(f"the hub stores nothing now: {why}; send the same again")
        error.retry_s = retry_ms / 1000
        self._fail(error, self.state.accepted)

    def end(self, code: int, reason: str) -> None:
        """A connection speaks for the stream now: it is told what is stored, and who waits here asks again."""
        self._fail(StreamConflictError(reason, Reason.TAKEN_OVER, self.state.mark), -1)

    def _fail(self, error: HubError, kept: int) -> None:
        failed = [entry for entry in self._waiting if entry.seq > kept]
        self._waiting = deque(entry for entry in self._waiting if entry.seq <= kept)
        self._rest()
        for entry in failed:
            entry.done(error)

    def _rest(self) -> None:
        if not self._waiting:
            if self.state.owner is self:
                self.state.owner = None
            self._leave(self.state.mark.key)


class Numbered:
    """Takes requests of numbered frames; all calls come from the event loop.

    Args:
        submit: hands frames to the journal's writer, or to the hooks before it; never waits.
        has_hooks: batches are not checked here: their frames are drafts, which `hub.hooks.ingest` completes.
    """

    def __init__(
        self, streams: Streams, registry: Registry, submit: Callable[[list[Frame]], None], *, has_hooks: bool = False
    ) -> None:
        self._streams = streams
        self._registry = registry
        self._submit = submit
        self._has_hooks = has_hooks
        self._lines: dict[StreamKey, _Line] = {}

    def take(
        self, key: StreamKey, bodies: Sequence[bytes], now_ns: int, done: Done, *,
        before: str | None = None, seen: str | None = None,
    ) -> Taken:  # fmt: skip
        """Take what is new of a request's frames; ``done`` is called when all of it is durable, or is not.

        Args:
            bodies: messages as a WebSocket carries them: ``schema``, ``batch``, ``gap``, also deflated.
            before: the device's chain before the first of them, in hex; None: it keeps none.
            seen: the position that the device has kept, if any: shows that this hub was restored.

        Raises:
            BadRequestError: a message is none of these, or numbers do not follow each other; nothing is taken.
            StreamConflictError: the frames do not follow what is stored; nothing is taken.
            TooManyRequestsError: the device began too many streams today.
            JournalError: what is stored of the stream cannot be read.
        """
        if key.stream == wire.HUB_STREAM:
            raise BadRequestError(f"stream {key.stream} is the hub's own: begin one with a random name")
        channels, sent = _read(bodies)
        taken = Taken()
        self._registry.declare(key.namespace, key.device, channels)
        if seen is not None and self._streams.was_restored(key.namespace, key.device, seen):
            _log.warning("hub_restored device=%s seen=%s now=%s", key.device, seen[:40], self._streams.position())
            self._streams.owe(key.namespace, key.device, now_ns, None, Reason.HUB_RESTORED)
        if not self._streams.may_begin(key, now_ns):
            raise TooManyRequestsError(
                f"{key.device} began {MAX_NEW_STREAMS} streams within a day: does it keep the name of its stream?",
                retry_s=RETRY_NEW_STREAM_MS / 1000,
            )
        state = self._streams.get(key)
        try:
            new = self._new(state, sent, before, now_ns)
        except StreamConflictError:
            self._rest(state)
            self._hand_on(self._streams.own_frames(key.namespace, key.device, now_ns))
            raise
        if not new and (not sent or sent[-1].seq <= state.mark.stored):
            fill(taken, state.mark, self._streams.position())
            self._rest(state)
            done(None)
            return taken
        line = self._own(state)
        taken.frames = [self._accept(state, one, now_ns) for one in new]
        line.wait(sent[-1].seq, taken, done)
        self._hand_on([*taken.frames, *self._streams.own_frames(key.namespace, key.device, now_ns)])
        return taken

    def _new(self, state: StreamState, sent: Sequence[_Sent], before: str | None, now_ns: int) -> Sequence[_Sent]:
        """Return what follows what was accepted; raise when what is known already is something else, or a hole is."""
        if not sent:
            return ()
        mark, first = state.mark, sent[0].seq
        if first > state.accepted + 1:
            raise StreamConflictError(
                f"got frame {first}, expected {state.accepted + 1}: send from {mark.stored + 1}",
                Reason.OUT_OF_ORDER, mark,
            )  # fmt: skip
        chain = mark.chain(first - 1) if first - 1 <= mark.stored else None
        if chain is not None and before is not None and chain.hex() != before:
            raise self._conflict(mark, first - 1, now_ns)
        for one in sent:
            if chain is None or one.seq > mark.stored:
                break
            chain = wire.next_chain(chain, one.body)
            if chain != mark.chain(one.seq):
                raise self._conflict(mark, one.seq, now_ns)
        return [one for one in sent if one.seq > state.accepted]

    def _conflict(self, mark: Mark, seq: int, now_ns: int) -> StreamConflictError:
        """Return the refusal of a stream that two spools write; the ledger keeps that it happened."""
        key = mark.key
        device = self._registry.device(key.namespace, key.device)
        if not 0 <= now_ns - device.warned_ns < WARN_EVERY_NS:
            device.warned_ns = now_ns
            _log.warning(
                "%s device=%s stream=%s stored=%d seq=%d: two spools write it, a copied or written-back card",
                Reason.CHAIN_CONFLICT, key.device, key.stream, mark.stored, seq,
            )  # fmt: skip
        self._streams.owe(key.namespace, key.device, now_ns, 0, Reason.CHAIN_CONFLICT)
        return StreamConflictError(
            f"frame {seq} is stored, and was another one: two spools write stream {key.stream}, or it was written "
            "back; begin a new stream",
            Reason.CHAIN_CONFLICT, mark,
        )  # fmt: skip

    def _own(self, state: StreamState) -> _Line:
        key = state.mark.key
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(state, self._streams.position, self._ended)
        older, state.owner = state.owner, line
        if older is not None and older is not line:
            older.end(Close.TAKEN_OVER, "a request continues this stream")
            older.flush()
        return line

    def _rest(self, state: StreamState) -> None:
        """Let a stream go of which nothing was taken, unless somebody speaks for it."""
        if state.owner is None:
            self._streams.release(state)

    def _ended(self, key: StreamKey) -> None:
        self._lines.pop(key, None)

    def _hand_on(self, frames: list[Frame]) -> None:
        # The journal may have failed: the hub stops, nobody is told that anything is stored.
        with suppress(JournalError):
            if frames:
                self._submit(frames)

    def _accept(self, state: StreamState, one: _Sent, now_ns: int) -> Frame:
        key, (seq, body, message) = state.mark.key, one
        if seq == 1:
            self._streams.begin(key, now_ns)
        match message:
            case MalformedError():
                return state.accept(
                    seq, body, now_ns, Kind.QUARANTINE, body=body, rejected_count=message.count,
                    reason=f"{Reason.MALFORMED}: {message}",
                )  # fmt: skip
            case wire.Gap():
                return state.accept(
                    seq, body, now_ns, Kind.GAP, body=body, dropped=message.count or 0, reason=message.reason
                )
        known = self._registry.device(key.namespace, key.device).channels
        # Nobody said hello, so nobody may have said which channels there are; the first value shows the type.
        unknown = [Channel(column.channel) for column in message.columns if column.channel not in known]
        if unknown:
            self._registry.declare(key.namespace, key.device, unknown)
        if self._has_hooks:
            draft = Draft(message, state.accepted_chain)
            return state.accept(seq, body, now_ns, Kind.BATCH, body=body, t0=message.t0, tick=message.tick, draft=draft)
        checked = check_batch(message, body, known.get, has_all_channels=len(known) >= wire.MAX_CHANNELS)
        for series in checked.retyped:
            self._registry.changed(series)
        return state.accept(
            seq, body, now_ns, Kind.BATCH, body=checked.body, t0=message.t0, tick=message.tick,
            columns=checked.columns, readings=checked.readings, rejected=checked.rejected,
            rejected_count=checked.rejected_count, reason=checked.reason,
        )  # fmt: skip


def fill(taken: Taken, mark: Mark, position: str) -> None:
    """Say what is stored now."""
    taken.stored, taken.chain, taken.position = mark.stored, mark.last_chain, position
    taken.rejected_total = mark.rejected
    taken.accepted = sum(frame.readings for frame in taken.frames)
    taken.rejected = sum(frame.rejected_count for frame in taken.frames)


def _read(bodies: Sequence[bytes]) -> tuple[list[Channel], list[_Sent]]:
    """Return the channels that a request declares, and its numbered frames."""
    if not bodies:
        raise BadRequestError("no frame in it: send schema, batch or gap, as on a WebSocket")
    if len(bodies) > MAX_FRAMES:
        raise BadRequestError(f"{len(bodies)} frames: send at most {MAX_FRAMES} in a request")
    channels: list[Channel] = []
    sent: list[_Sent] = []
    readings = 0
    for at, data in enumerate(bodies, 1):
        one = _message(at, data)
        if isinstance(one, wire.Schema):
            channels += one.channels
            continue
        if sent and one.seq != sent[-1].seq + 1:
            raise BadRequestError(f"frame {at} has seq {one.seq} behind {sent[-1].seq}: numbers follow each other")
        sent.append(one)
        readings += one.message.count or 0
        if readings > MAX_READINGS:
            raise BadRequestError(f"more than {MAX_READINGS} readings: send them in several requests")
    return channels, sent


def _message(at: int, data: bytes) -> _Sent | wire.Schema:
    if len(data) > wire.MAX_FRAME_BYTES:
        raise BadRequestError(f"frame {at} has {len(data)} bytes; the limit is {wire.MAX_FRAME_BYTES}")
    try:
        if data[:1] == wire.DEFLATED:
            data = unpacked(data)
        message = parse_message(data, data[:1] == b"{")
    except MalformedError as error:
        if error.seq is None:
            raise BadRequestError(f"frame {at}: {error}") from error
        return _Sent(error.seq, data, error)
    if isinstance(message, wire.Schema):
        return message
    if isinstance(message, Batch | wire.Gap):
        return _Sent(message.seq, data, message)
    raise BadRequestError(f"frame {at}: a {type(message).__name__.lower()} belongs to a connection: send it there")


def _nothing() -> None:
    """Nothing is written to anybody."""
