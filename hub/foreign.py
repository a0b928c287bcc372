"""Readings that come without a number, from devices that speak no protocol of ours: onto a stream of the hub's own.

Owns: per device the frames of its foreign stream that are on their way to the journal, and who waits for them. Place:
beside `session`, whose part it takes for such devices; below the shells that receive messages. Pure. Must not: decide
who may speak for which device, or know where a message came from.

Theory of operation. What arrives is gathered by device until the shell's next turn, then becomes one frame for each
device, numbered by the hub itself. Whoever gave it is told when the frame is durable, or that it is not stored and
must be given again: nothing is kept here for longer than the journal takes. A message that cannot be made a frame of
goes into quarantine, alone: it is told *durable* as well, for giving it again would not mend it.

A stream is in memory only while frames of it are on their way (`Streams`); its times are `received` where the device
gave none, and no two readings without a time share an instant of a device.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

from device_sdk.columns import encode_binary, encode_json, to_columns
from device_sdk.reading import Channel, Value
from device_sdk.wire import MAX_CHANNELS, MAX_FRAME_READINGS, Rejection
from hub.decode.base import ForeignReading, Publication, Said
from hub.devices import Registry
from hub.errors import HubError, JournalError, UnavailableError
from hub.model import FOREIGN_STREAM, Draft, Frame, Kind, Posted, StreamKey
from hub.streams import Streams, StreamState
from hub.validate import check_batch

_log = logging.getLogger("hub.foreign")

# Readings of one frame, and about how many bytes of text: what is gathered in a turn beyond it is the next frame.
MAX_GATHERED = min(2_000, MAX_FRAME_READINGS)
MAX_GATHERED_BYTES = 64 * 1024
# Devices of which frames are made in one turn, 20 µs each.
MAX_AT_ONCE = 500
# Devices whose last given instant is remembered; one that is forgotten has not spoken for long.
MAX_CLOCKS = 10_000
# What came longer before the last given instant than this is no neighbour of it: the wall clock was set back, or the
# message is given again. It has its own time then; else a clock that said 2040 for a minute would be kept to for ever.
STEP_NS = 10**9
# The last instant given, and the last of those that were a step behind it.
_NEVER = (0, 0)


class Receipt:
    """What is to be said of a message beyond that it is durable: filled before its ``done`` is called without an error.

    Args:
        posted: the part of a request that it is, remembered in the same commit.

    ``accepted``, ``rejected``: readings; ``named``: those refused, the first hundred at most, by their place in their
    channel; ``quarantined``: why the message as a whole was put aside, else empty.
    """

    __slots__ = ("accepted", "named", "posted", "quarantined", "rejected")

    def __init__(self, posted: Posted | None = None) -> None:
        self.posted = posted
        self.accepted = self.rejected = 0
        self.named: Sequence[Rejection] = ()
        self.quarantined = ""

    def fill(self, frame: Frame, named: Sequence[Rejection]) -> None:
        """Take what became of the message's frame."""
        self.accepted, self.rejected = frame.readings, frame.rejected_count
        self.named = self.named or [rejection for rejection in named if rejection.seq == frame.seq]
        if frame.kind is Kind.QUARANTINE:
            self.quarantined = frame.reason


# Told once: None when it is durable, else why it is not stored and must be given again.
Done = Callable[[HubError | None], None]


class _Message(NamedTuple):
    readings: Sequence[tuple[str, int, Value]]
    publication: Publication
    done: Done
    receipt: Receipt | None = None


class _Gathered:
    """What came of one device in this turn: its messages, their readings, the bytes of their payloads."""

    __slots__ = ("messages", "readings", "size")

    def __init__(self) -> None:
        self.messages: list[_Message] = []
        self.readings = self.size = 0


class _Waiting(NamedTuple):
    seq: int
    dones: list[Done]
    frame: Frame
    receipt: Receipt | None


class _Line:
    """The foreign stream of one device while something of it is on its way (`hub.streams.Owner`)."""

    def __init__(self, state: StreamState, leave: Callable[[StreamKey], None]) -> None:
        self.flush: Callable[[], None] = _nothing
        self.state = state
        self._leave = leave
        self._waiting: deque[_Waiting] = deque()

    def wait(self, frame: Frame, messages: list[_Message]) -> None:
        # Who has a receipt has a frame alone.
        dones = [message.done for message in messages]
        self._waiting.append(_Waiting(frame.seq, dones, frame, messages[0].receipt))

    def ack(self, state: StreamState) -> None:
        """Tell who waits for what is stored."""
        stored = state.mark.stored
        rejected, state.rejected = state.rejected, []
        while self._waiting and self._waiting[0].seq <= stored:
            _, dones, frame, receipt = self._waiting.popleft()
            if receipt is not None:
                receipt.fill(frame, rejected)
            for done in dones:
                done(None)
        self._rest(state)

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Tell who waits for what was taken back: give it again."""
        state = self.state
        failed = [entry.dones for entry in self._waiting if entry.seq > state.accepted]
        self._waiting = deque(entry for entry in self._waiting if entry.seq <= state.accepted)
        self._rest(state)
        error = UnavailableError(f"the hub stores nothing now: {why}; try again in {retry_ms} ms")
        for dones in failed:
            for done in dones:
                done(error)

    def end(self, code: int, reason: str) -> None:
        """Nobody else speaks for this stream: no device can name it."""

    def _rest(self, state: StreamState) -> None:
        if not self._waiting:
            state.owner = None
            self._leave(state.mark.key)


class Foreign:
    """Takes readings of foreign devices; all calls come from the event loop.

    Args:
        submit: hands frames to the journal's writer, or to the hooks before it; never waits.
        soon: calls what it is given once, before anything of the next turn is read: `loop.call_soon`.
        has_hooks: batches are not checked here: their frames are drafts, which `hub.hooks.ingest` completes.
    """

    def __init__(
        self,
        streams: Streams,
        registry: Registry,
        submit: Callable[[list[Frame]], None],
        soon: Callable[[Callable[[], None]], object],
        *,
        has_hooks: bool = False,
    ) -> None:
        self._streams = streams
        self._registry = registry
        self._submit = submit
        self._soon = soon
        self._has_hooks = has_hooks
        self._lines: dict[StreamKey, _Line] = {}
        self._gathered: dict[StreamKey, _Gathered] = {}
        self._clocks: OrderedDict[StreamKey, tuple[int, int]] = OrderedDict()
        self._is_due = False

    def has(self, namespace: str, device: str, channel: str = "") -> bool:
        """Say whether the hub has a channel of a device, or any of it."""
        return self._registry.has(namespace, device, channel)

    def take(
        self, namespace: str, said: Said, publication: Publication, done: Done, receipt: Receipt | None = None
    ) -> None:
        """Take what a message says of a device; ``done`` is called later, never inside this call.

        Args:
            publication: the message, which the quarantine keeps when no frame can be made of it. When one message
                speaks of several devices, its part for this one.
            receipt: filled for who has to say what was refused; then the message is a frame of its own, so it should be
                worth one, and hold at most `MAX_GATHERED` readings.
        """
        key = StreamKey(namespace, said.device, FOREIGN_STREAM)
        self._declare(key, said)
        if not said.readings:
            self._soon(lambda: done(None))
            return
        readings = self._timed(key, said.readings, publication.received_ns)
        if receipt is not None:
            self._hand_on([key])
            with suppress(JournalError):
                self._submit(self._frames(key, [_Message(readings, publication, done, receipt)]))
            return
        count, size = len(readings), len(publication.payload)
        gathered = self._gathered.get(key)
        if gathered is None:
            gathered = self._gathered[key] = _Gathered()
        elif gathered.readings + count > MAX_GATHERED or gathered.size + size > MAX_GATHERED_BYTES:
            self._hand_on([key])
            gathered = self._gathered[key] = _Gathered()
        gathered.messages.append(_Message(readings, publication, done))
        gathered.readings += count
        gathered.size += size
        if not self._is_due:
            self._is_due = True
            self._soon(self.flush)

    def quarantine(self, namespace: str, device: str, publication: Publication, reason: str, done: Done) -> None:
        """Put a message that cannot be read aside, in the order of what the device sends."""
        key = StreamKey(namespace, device, FOREIGN_STREAM)
        self._hand_on([key])
        with suppress(JournalError):
            self._submit(self._frames(key, [_Message((), publication, done)], reason))

    def flush(self) -> None:
        """Hand on what was gathered; of more devices than `MAX_AT_ONCE` those of the others with the next turn."""
        self._is_due = len(self._gathered) > MAX_AT_ONCE
        self._hand_on(list(islice(self._gathered, MAX_AT_ONCE)))
        if self._is_due:
            self._soon(self.flush)

    def _hand_on(self, keys: Sequence[StreamKey]) -> None:
        frames: list[Frame] = []
        for key in keys:
            gathered = self._gathered.pop(key, None)
            if gathered is not None:
                frames += self._frames(key, gathered.messages)
        # The journal may have failed: the hub stops, nobody is told that anything is stored.
        with suppress(JournalError):
            if frames:
                self._submit(frames)

    def _frames(self, key: StreamKey, messages: list[_Message], reason: str = "") -> list[Frame]:
        """Return one frame of all messages; where that fails, one of each that one can be made of.

        Args:
            reason: why none is to be tried, of one message.
        """
        try:
            line = self._line(key)
        except JournalError as error:
            for message in messages:
                self._soon(partial(message.done, error))
            return []
        if reason:
            return [self._aside(line, messages[0], reason)]
        try:
            return [self._frame(key, line, messages)]
        except Exception as error:  # a decoder may be anybody's: what it gave can be of any type
            if len(messages) > 1:
                return [frame for message in messages for frame in self._frames(key, [message])]
            return [self._aside(line, messages[0], f"no frame can be made of it: {error!r}")]

    def _frame(self, key: StreamKey, line: _Line, messages: list[_Message]) -> Frame:
        rows = messages[0].readings if len(messages) == 1 else [row for m in messages for row in m.readings]
        state, receipt = line.state, messages[0].receipt
        batch = to_columns(state.accepted + 1, rows)
        # Nobody reads it on the wire: half the time of JSON and half the bytes, also for a single reading.
        body = encode_binary(batch) or encode_json(batch)
        now_ns = messages[-1].publication.received_ns
        if self._has_hooks:
            draft = Draft(batch, state.accepted_chain)
            frame = state.accept(
                batch.seq, body, now_ns, Kind.BATCH, body=body, t0=batch.t0, tick=batch.tick, draft=draft
            )
        else:
            channels = self._registry.device(key.namespace, key.device).channels
            checked = check_batch(batch, body, channels.get, has_all_channels=len(channels) >= MAX_CHANNELS)
            for series in checked.retyped:
                self._registry.changed(series)
            frame = state.accept(
                batch.seq, body, now_ns, Kind.BATCH, body=checked.body, t0=batch.t0, tick=batch.tick,
                columns=checked.columns, readings=checked.readings, rejected=checked.rejected,
                rejected_count=checked.rejected_count, reason=checked.reason,
            )  # fmt: skip
            if receipt is not None:
                receipt.named = checked.rejected
        frame.posted = None if receipt is None else receipt.posted
        line.wait(frame, messages)
        return frame

    def _aside(self, line: _Line, message: _Message, reason: str) -> Frame:
        state, publication = line.state, message.publication
        device = state.mark.key.device
        _log.debug("quarantine device=%s bytes=%d reason=%s", device, len(publication.payload), reason)
        body, receipt = publication.to_bytes(), message.receipt
        frame = state.accept(
            state.accepted + 1, body, publication.received_ns, Kind.QUARANTINE, body=body,
            rejected_count=len(message.readings) or 1, reason=reason[:300],
            posted=None if receipt is None else receipt.posted,
        )  # fmt: skip
        line.wait(frame, [message])
        return frame

    def _line(self, key: StreamKey) -> _Line:
        line = self._lines.get(key)
        if line is None:
            state = self._streams.get(key)
            line = self._lines[key] = _Line(state, self._ended)
            state.owner = line
        return line

    def _ended(self, key: StreamKey) -> None:
        self._lines.pop(key, None)

    def _declare(self, key: StreamKey, said: Said) -> None:
        known = self._registry.device(key.namespace, key.device).channels
        if not said.channels and all([reading[0] in known for reading in said.readings]):
            return  # nearly always, and at every message
        learnt = [channel for channel in said.channels if _is_news(channel, known.get(channel.name))]
        named = {channel.name for channel in learnt}
        learnt += [
            Channel(name) for name in dict.fromkeys(r.channel for r in said.readings)
            if name not in known and name not in named
        ]  # fmt: skip
        if learnt:
            self._registry.declare(key.namespace, key.device, learnt)

    def _timed(self, key: StreamKey, readings: Sequence[ForeignReading], now_ns: int) -> list[tuple[str, int, Value]]:
        """Give readings without a time the receive time; one instant each for the messages of a device."""
        rows: list[tuple[str, int, Value]] = []
        given_ns = 0
        # Channels that have a reading at the instant given now: a second one of theirs is another reading.
        given: set[str] = set()
        for channel, value, time_ns in readings:
            if time_ns is None:
                if not given_ns or channel in given:
                    given_ns = self._instant(key, now_ns)
                    given.clear()
                given.add(channel)
                time_ns = given_ns
            rows.append((channel, time_ns, value))
        if given_ns:
            self._clocks.move_to_end(key)
            if len(self._clocks) > MAX_CLOCKS:
                self._clocks.popitem(last=False)
        return rows

    def _instant(self, key: StreamKey, now_ns: int) -> int:
        """Return an instant that was not given before."""
        newest_ns, behind_ns = self._clocks.get(key, _NEVER)
        if now_ns > newest_ns - STEP_NS:
            given_ns = newest_ns = max(now_ns, newest_ns + 1)
        else:
            given_ns = behind_ns = max(now_ns, behind_ns + 1) if now_ns > behind_ns - STEP_NS else now_ns
        self._clocks[key] = (newest_ns, behind_ns)
        return given_ns


def _is_news(channel: Channel, known: object) -> bool:
    """Return whether a decoder has learnt something of a channel that the registry does not have."""
    if known is None:
        return True
    return any(
        told is not None and getattr(known, field) != told
        for field, told in (
            ("unit", channel.unit), ("type", channel.type), ("every_s", channel.every_s), ("low", channel.low),
            ("high", channel.high), ("label", channel.label),
        )
    )  # fmt: skip


def _nothing() -> None:
    """Nothing is written to anybody."""
