"""The streams of all devices: what of each is accepted, what is stored, who speaks for it.

Owns: `Streams`, the marks in memory; per stream a volatile ``accepted`` and a durable
``stored``. Place: after `validate` and `journal.base`, before `session`, which
speaks for one stream at a time. Pure but for what it asks the journal for: `FindMarks`.

A stream is in memory while a session speaks for it or frames of it are on their way to the
journal, and a while longer (`IDLE_KEPT`). Any other is the journal's alone, and read when it is
asked for: streams end and are never forgotten, so memory must not hold those of years.

The hub has a stream of its own for each device (`wire.HUB_STREAM`): in it, it tells as
gap frames what only it can know, that it was restored or that two spools write one stream.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from device_sdk import wire
from device_sdk.errors import Reason
from device_sdk.reading import INT_MAX
from device_sdk.wire import CHAIN_START, Rejection
from hub.journal.base import Run
from hub.model import FOREIGN_STREAM, Frame, Kind, Mark, StreamKey
from hub.validate import MAX_REJECTIONS_NAMED

RETRY_DISK_FULL_MS = 5000
# A new stream begins at a power cut, a rolled-back card, a hub that was restored: a hundred a day is a device that
# cannot keep its spool, and each costs the hub a mark in its file for ever, 1.2 KiB at most.
MAX_NEW_STREAMS = 100
NEW_STREAMS_NS = 24 * 3600 * 10**9
# The hub tells one thing of a device at most once a minute: a hello costs a peer nothing.
TELL_EVERY_NS = 60 * 10**9
# Streams that rest in memory, about 2 KiB each: a device that comes back soon finds what was refused of its last
# frames, which only memory has, and costs no look into the journal.
IDLE_KEPT = 1000
# Names of refused readings that a stream at rest keeps for the next ack, 0.3 KiB each at most. They tell a person which
# channel is wrong, and the first few do; the count is in the mark.
_REJECTIONS_AT_REST = 5

FindMarks = Callable[[Sequence[StreamKey]], Mapping[StreamKey, Mark]]


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
    # The address from which somebody spoke for it last, while it is in memory.
    peer: str = ""
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
        self.accepted_chain = self.mark.last_chain


class Streams:
    """Every stream the hub knows; the one owner of marks in memory.

    Args:
        runs: of the journal, oldest first; the last one is writing.
        head: the last offset.
        find: the journal's `find_marks`, called for streams that are not in memory.
        begun: of the journal, streams that began within a day and when, oldest first.
    """

    def __init__(
        self, runs: Sequence[Run], head: int, find: FindMarks, begun: Iterable[tuple[StreamKey, int]] = ()
    ) -> None:
        self.run = runs[-1].id
        self.head = head
        # run → its first offset and the last one it wrote; the present run has no end yet.
        ends = [run.first_offset - 1 for run in runs[1:]]
        self._runs = {run.id: (run.first_offset, end) for run, end in zip(runs, [*ends, INT_MAX], strict=True)}
        self._find = find
        self._states: dict[StreamKey, StreamState] = {}
        # Those of `_states` at rest, the longest first.
        self._idle: dict[StreamKey, None] = {}
        # Device → when streams of it began, of devices that began one within a day; the newest beginner is the last.
        self._births: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        for key, first_ns in begun:
            self.begin(key, first_ns)

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
        born = self._births.get((key.namespace, key.device))
        if born is None or len(born) < MAX_NEW_STREAMS or born[0] <= now_ns - NEW_STREAMS_NS:
            return True
        return key in self._states or bool(self._find([key]))

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

    def has_to_tell(self, namespace: str, device: str) -> bool:
        """Say whether something that the hub itself has to tell of a device is not stored yet."""
        own = self._states.get(StreamKey(namespace, device, wire.HUB_STREAM))
        return own is not None and (bool(own.owed) or own.accepted != own.mark.stored)

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
        device = (key.namespace, key.device)
        self._births.setdefault(device, deque(maxlen=MAX_NEW_STREAMS)).append(now_ns)
        self._births.move_to_end(device)
        while now_ns - next(iter(self._births.values()))[-1] >= NEW_STREAMS_NS:
            self._births.popitem(last=False)

    def unread(self, keys: Iterable[StreamKey]) -> list[StreamKey]:
        """Return which of these streams `get` would have to ask the journal for."""
        return [key for key in keys if key not in self._states]

    def get(self, key: StreamKey, read: Mapping[StreamKey, Mark] | None = None) -> StreamState:
        """Return the stream's state; an unknown stream begins with ``stored`` 0.

        Take it over, or `release` it: until then it stays in memory.

        Args:
            read: what the caller has read of the journal, which is not asked then; nobody may have written it since.

        Raises:
            JournalError: what is stored of it could not be read; nothing stays in memory.
        """
        self._idle.pop(key, None)
        state = self._states.get(key)
        if state is None:
            found = self._find([key]) if read is None else read
            state = self._states[key] = StreamState(found.get(key) or Mark(key))
            state.rewind()
        return state

    def stored(self, keys: Sequence[StreamKey]) -> list[tuple[int, bytes]]:
        """Return the last stored seq of each stream and its chain; (0, the start) of an unknown one.

        Makes none, and asks the journal once at most; raises as `get`.
        """
        unread = [key for key in keys if key not in self._states]
        marks = dict(self._find(unread)) if unread else {}
        marks |= {key: self._states[key].mark for key in keys if key in self._states}
        return [(marks[key].stored, marks[key].last_chain) if key in marks else (0, CHAIN_START) for key in keys]

    def __len__(self) -> int:
        """Return how many streams are in memory."""
        return len(self._states)

    def release(self, state: StreamState) -> None:
        """Give up the owner's claim. A stream of which nothing was taken is forgotten: a hello can name any."""
        state.owner = None
        self._rest(state)

    def committed(self, frames: Sequence[Frame]) -> "list[Owner]":
        """Advance marks over durable frames and let their sessions ack; return sessions with output to write."""
        touched: dict[StreamKey, StreamState] = {}
        for frame in frames:
            state = touched.get(frame.key)
            if state is None:
                state = touched[frame.key] = self.get(frame.key)
            state.mark.advance(frame)
            if frame.rejected:
                # Nobody acks the hub's own stream.
                if frame.key.stream != wire.HUB_STREAM:
                    state.rejected += frame.rejected[: MAX_REJECTIONS_NAMED - len(state.rejected)]
                # The journal has counted them; the ring, which keeps the frame for minutes, does not weigh them.
                frame.forget_rejected()
        self.head = frames[-1].offset if frames else self.head
        owners = []
        for state in touched.values():
            # Which may give the stream up, as it waits for no more.
            if (owner := state.owner) is not None:
                owner.ack(state)
                owners.append(owner)
            self._rest(state)
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
            if (owner := state.owner) is not None:
                owner.say_slow(Reason.DISK_FULL, RETRY_DISK_FULL_MS)
                owners.append(owner)
            self._rest(state)
        return owners

    def take_back(self, frame: Frame, before: bytes, why: str, retry_ms: int) -> "Owner | None":
        """Take back a frame and those behind it, which the writer was never given; return who was told ``slow``.

        Those before it may be on their way to the disk, so its stream goes back to ``before``, their chain, and not to
        what is stored.
        """
        state = self.get(frame.key)
        state.accepted, state.accepted_chain = frame.seq - 1, before
        self._forget_birth(state)
        owner = state.owner
        if owner is not None:
            owner.say_slow(why, retry_ms)
        self._rest(state)
        return owner

    def _forget_birth(self, state: StreamState) -> None:
        """Take back that a stream began, when nothing of it was stored."""
        key = state.mark.key
        if state.accepted or key.stream in (wire.HUB_STREAM, FOREIGN_STREAM) or key.is_import:
            return
        device = (key.namespace, key.device)
        if born := self._births.get(device):
            born.pop()
            if not born:
                del self._births[device]

    def _rest(self, state: StreamState) -> None:
        """Let a stream go that nobody speaks for and nothing is on its way of: what is stored, the journal has."""
        key = state.mark.key
        # The hub's own streams stay, one a device: what is owed on them is nowhere else.
        if state.owner is not None or state.accepted != state.mark.stored or key.stream == wire.HUB_STREAM:
            return
        self._idle.pop(key, None)
        if not state.accepted:
            self._states.pop(key, None)
            return
        del state.rejected[_REJECTIONS_AT_REST:]
        self._idle[key] = None
        if len(self._idle) > IDLE_KEPT:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._states[oldest]
