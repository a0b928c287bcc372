"""The streams of all devices: what of each is accepted, what is stored, who speaks for it.

Owns: `Streams`, the marks in memory; per stream a volatile ``accepted`` and a durable
``stored``. Place: after `validate` and `journal.base`, before `session`, which
speaks for one stream at a time. Pure.

The hub has a stream of its own for each device (`wire.HUB_STREAM`): in it, it tells as
gap frames what only it can know, that it was restored or that two spools write one stream.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from device_sdk import wire
from device_sdk.errors import Reason
from device_sdk.reading import INT_MAX
from device_sdk.wire import CHAIN_START, CHAINS_KEPT, Rejection
from hub.journal.base import Run
from hub.model import Frame, Kind, Mark, StreamKey
from hub.validate import MAX_REJECTIONS_NAMED

RETRY_DISK_FULL_MS = 5000
# A new stream begins at a power cut, a rolled-back card, a hub that was restored: a hundred a day is a device that
# cannot keep its spool, and each costs the hub a mark for ever.
MAX_NEW_STREAMS = 100
NEW_STREAMS_NS = 24 * 3600 * 10**9
# The hub tells one thing of a device at most once a minute: a hello costs a peer nothing.
TELL_EVERY_NS = 60 * 10**9


class Owner(Protocol):
    """The session that speaks for a stream."""

    flush: Callable[[], None]

    def ack(self, state: "StreamState") -> None:
        """Say that everything ≤ stored is durable."""

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Tell the device to wait."""

    def end(self, code: int, reason: str) -> None:
        """Close: another session speaks for the stream now."""


@dataclass(slots=True)
class StreamState:
    """One stream: its durable mark, how far beyond it frames were accepted, who speaks for it now."""

    mark: Mark
    accepted: int = 0
    accepted_chain: bytes = CHAIN_START
    owner: "Owner | None" = None
    rejected: list[Rejection] = field(default_factory=list)
    # Of a device's own stream at the hub: the unknown position that was noticed last, when something was told last,
    # and what is still to be told, with its count.
    seen: str | None = None
    told_ns: dict[str, int] = field(default_factory=dict)
    owed: dict[str, int | None] = field(default_factory=dict)

    def accept(self, seq: int, data: bytes, now_ns: int, kind: Kind, **fields: object) -> Frame:
        """Take the next frame, ``data`` as it came, and return it for the journal."""
        self.accepted, self.accepted_chain = seq, wire.next_chain(self.accepted_chain, data)
        return Frame(self.mark.key, seq, kind, now_ns, chain=self.accepted_chain, **fields)  # type: ignore[arg-type]

    def rewind(self) -> None:
        """Forget what was accepted and not stored: the device sends it again."""
        self.accepted = self.mark.stored
        self.accepted_chain = self.chain(self.mark.stored)

    def chain(self, seq: int) -> bytes:
        """Return chain(seq) of a stored frame that is still known; the start for 0."""
        return CHAIN_START if seq == 0 else self.mark.chains[seq]


class Streams:
    """Every stream the hub knows; the one owner of marks in memory.

    Args:
        marks: of the journal.
        runs: of the journal, oldest first; the last one is writing.
        head: the last offset.
    """

    def __init__(self, marks: Iterable[Mark], runs: Sequence[Run], head: int) -> None:
        self.run = runs[-1].id
        self.head = head
        # run → its first offset and the last one it wrote; the present run has no end yet.
        ends = [run.first_offset - 1 for run in runs[1:]]
        self._runs = {run.id: (run.first_offset, end) for run, end in zip(runs, [*ends, INT_MAX], strict=True)}
        self._states: dict[StreamKey, StreamState] = {}
        self._births: dict[tuple[str, str], deque[int]] = {}
        for mark in sorted(marks, key=lambda mark: mark.first_ns):
            state = self._states[mark.key] = StreamState(mark)
            state.rewind()
            if mark.stored and mark.key.stream != wire.HUB_STREAM:
                self.begin(mark.key, mark.first_ns)

    def position(self) -> str:
        """Return the hub's position ``run.offset`` of the last commit."""
        return f"{self.run}.{self.head}"

    def knows(self, position: str) -> bool:
        """Say whether this hub gave out a position: False after it was restored from an older backup."""
        run, _, offset = position.partition(".")
        first, last = self._runs.get(run, (0, -1))
        return offset.isascii() and offset.isdigit() and first - 1 <= int(offset) <= min(last, self.head)

    def may_begin(self, key: StreamKey, now_ns: int) -> bool:
        """Say whether a device may begin this stream, or had too many new ones within a day."""
        if key in self._states:
            return True
        born = self._births.get((key.namespace, key.device))
        return born is None or len(born) < MAX_NEW_STREAMS or born[0] <= now_ns - NEW_STREAMS_NS

    def owe(self, namespace: str, device: str, now_ns: int, count: int | None, reason: Reason) -> None:
        """Note what the hub itself has to tell of a device: a loss of ``count`` readings (None: unknown)."""
        own = self.get(StreamKey(namespace, device, wire.HUB_STREAM))
        if now_ns - own.told_ns.get(reason, now_ns - TELL_EVERY_NS) >= TELL_EVERY_NS:
            own.told_ns[reason] = now_ns
            own.owed[reason] = count

    def was_restored(self, namespace: str, device: str, seen: str) -> bool:
        """Say whether a position shows that this hub was restored; once for each position."""
        if self.knows(seen):
            return False
        own = self.get(StreamKey(namespace, device, wire.HUB_STREAM))
        is_news, own.seen = own.seen != seen, seen
        return is_news

    def own_frames(self, namespace: str, device: str, now_ns: int) -> list[Frame]:
        """Return what is owed as gap frames of the hub's own stream; they must be stored now."""
        own = self._states.get(StreamKey(namespace, device, wire.HUB_STREAM))
        if own is None:
            return []
        frames = []
        for reason, count in own.owed.items():
            body = wire.encode(wire.Gap(own.accepted + 1, count, reason, {}))
            frames.append(
                own.accept(own.accepted + 1, body, now_ns, Kind.GAP, body=body, dropped=count or 0, reason=reason)
            )
        own.owed.clear()
        return frames

    def begin(self, key: StreamKey, now_ns: int) -> None:
        """Count a stream whose first frame was accepted now."""
        born = self._births.setdefault((key.namespace, key.device), deque(maxlen=MAX_NEW_STREAMS))
        born.append(now_ns)

    def get(self, key: StreamKey) -> StreamState:
        """Return the stream's state; an unknown stream begins with ``stored`` 0."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = StreamState(Mark(key))
        return state

    def stored(self, key: StreamKey) -> tuple[int, bytes]:
        """Return the last stored seq of a stream and its chain; (0, the start) of an unknown one."""
        state = self._states.get(key)
        return (0, CHAIN_START) if state is None else (state.mark.stored, state.chain(state.mark.stored))

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

    def committed(self, frames: Sequence[Frame]) -> "list[Owner]":
        """Advance marks over durable frames and let their sessions ack; return sessions with output to write."""
        touched: dict[StreamKey, StreamState] = {}
        for frame in frames:
            state = touched.get(frame.key)
            if state is None:
                state = touched[frame.key] = self.get(frame.key)
            advance_mark(state.mark, frame)
            if frame.rejected:
                state.rejected += frame.rejected[: MAX_REJECTIONS_NAMED - len(state.rejected)]
                # The journal has counted them; the ring, which keeps the frame for minutes, does not weigh them.
                frame.rejected = ()
        self.head = frames[-1].offset if frames else self.head
        owners = []
        for state in touched.values():
            if state.owner is not None:
                state.owner.ack(state)
                owners.append(state.owner)
        return owners

    def refused(self, frames: Sequence[Frame]) -> "list[Owner]":
        """Take back frames that could not be stored (disk full); their sessions are told ``slow``."""
        owners = []
        for frame in frames:
            if frame.key.stream == wire.HUB_STREAM and frame.replayed is None:
                # Nobody sends it again: it is told with the device's next hello.
                lost = None if frame.reason == Reason.HUB_RESTORED else frame.dropped
                self.get(frame.key).owed.setdefault(frame.reason, lost)
        for key in {frame.key for frame in frames}:
            state = self.get(key)
            state.rewind()
            self._forget_birth(state)
            if state.owner is not None:
                state.owner.say_slow(Reason.DISK_FULL, RETRY_DISK_FULL_MS)
                owners.append(state.owner)
        return owners

    def _forget_birth(self, state: StreamState) -> None:
        """Take back that a stream began, when nothing of it was stored."""
        key = state.mark.key
        if state.accepted or key.stream == wire.HUB_STREAM:
            return
        if born := self._births.get((key.namespace, key.device)):
            born.pop()
        if state.owner is None:
            self._states.pop(key, None)


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
