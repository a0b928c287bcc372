"""What both spools share: streams, frames, acks and declared losses, as state that only computes.

Owns: which frame comes next, its number, its bytes, and what an ack or a new
stream changes. Place: after `columns`, before `memory_spool` and `file_spool`.
Pure: no file, clock, lock or randomness; its owner calls it under one lock.

Theory of operation. Four queues feed the numbers, in this order:

    leading losses ─▶ returned frames ─▶ other losses ─▶ un-numbered readings (the owner's)
                            ▲                                     │
                            └──────────── restart ◀── frames ◀────┘ add ─▶ acknowledge

`next_frame` builds a frame and changes nothing; `add` numbers it. Between the two
the owner makes it durable, so that a replay of what is on disk (`add`,
`acknowledge`, `restart`, `lose`, `declare`, in order) rebuilds the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from device_sdk import wire
from device_sdk.columns import decode_batch, encode_batch, to_columns
from device_sdk.errors import ChainConflictError, Reason
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json, to_json
from device_sdk.reading import Channel, Value
from device_sdk.uptime import UPTIME, UptimeLine

FrameKind = Literal["batch", "gap"]
WhenFull = Literal["oldest", "newest", "thin"]
Durability = Literal["second", "fsync"]

# (channel, time_ns, value); a plain tuple because making a `Reading` costs a quarter of `record`. The time is an
# instant of `uptime` when the clock was not set.
Entry = tuple[str, int, Value]

# Times in one frame lie at most this far apart (146 years), so that every `dt` fits 64 bits.
MAX_SPAN_NS = 2**62
# Each outage with a backlog adds a lane of readings, at most so many: a link that flaps must not grow the state.
# Beyond it everything joins the last one, in order.
MAX_LANES = 8
# Losses that a new stream declares in its first frames, before anything else.
LEADING_LOSSES = (Reason.POWER_CUT, Reason.UNREADABLE, Reason.HUB_RESTORED)
# Losses that a policy or a full disk decided on: what `dropped` counts.
DROP_REASONS = (Reason.SPOOL_FULL, Reason.DISK_FULL, Reason.THINNED)
# A gap frame names at most this many channels; the count stays exact beyond it.
MAX_LOSS_CHANNELS = wire.MAX_CHANNELS


class CutFrame(Frozen):
    """One numbered, immutable frame. ``readings`` is 0 for a gap."""

    seq: int
    body: bytes
    chain: bytes
    kind: FrameKind
    readings: int


class SpoolStatistics(Frozen):
    """What a spool holds and what it lost (readings are counted, not records).

    ``pending``: not acked; ``unnumbered``: of these, not yet in a frame; ``backlog``: of
    these, older than the live lane (0 while there is only one).
    ``frames``: cut and not acked. ``dropped``: ever, for a full spool or disk;
    ``dropped_by``: the same by reason (``spool_full``, ``disk_full``, ``thinned``).
    ``refused``: of these, since the start, new ones that a full spool or disk did not take.
    ``damaged``: places in the files that could not be read, ever.
    ``oldest_time_ns``: time of the oldest pending reading, None when empty.
    ``disk_error``: why the last write failed; None while the disk works.
    """

    pending: int
    unnumbered: int
    frames: int
    bytes: int
    limit_bytes: int
    peak_bytes: int
    dropped: int
    no_value: int
    oldest_time_ns: int | None
    damaged: int = 0
    disk_error: str | None = None
    backlog: int = 0
    dropped_by: Mapping[str, int] = MappingProxyType({})
    refused: int = 0


class Loss:
    """Readings that will never be sent, not yet declared by a gap frame. ``count`` None: unknown."""

    __slots__ = ("count", "ranges")

    def __init__(self, count: int | None = 0, ranges: dict[str, tuple[int, int]] | None = None) -> None:
        self.count = count
        self.ranges = {} if ranges is None else ranges

    def add(self, count: int | None, ranges: Mapping[str, tuple[int, int]]) -> None:
        """Widen the loss; an unknown count makes the sum unknown."""
        self.count = None if self.count is None or count is None else self.count + count
        mine = self.ranges
        for channel, (low, high) in ranges.items():
            old = mine.get(channel)
            if old is not None:
                mine[channel] = (min(old[0], low), max(old[1], high))
            elif len(mine) < MAX_LOSS_CHANNELS:
                mine[channel] = (low, high)


class Copying(Frozen):
    """A stream that cannot go on at a restored hub, of which the kept frames > ``start`` go as a copy instead.

    ``name``: of the copy's stream, on which everything ≤ ``seq`` is acked, with chain(``seq``) in hex. Frame
    ``after`` of the stream was the last of that; ``last`` is the last to go.
    """

    stream: str
    start: int
    after: int
    last: int
    name: str
    seq: int = 0
    chain: str = wire.CHAIN_START.hex()


class NextFrame(Frozen):
    """A frame as `Outbox.next_frame` built it.

    ``source``: where it came from, ``readings``, ``returned`` or the reason of a loss.
    ``first_ns``: time of its earliest reading, None for a gap.
    """

    frame: CutFrame
    source: str
    first_ns: int | None


def ranges_of(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """Return the first and last time of each channel."""
    ranges: dict[str, tuple[int, int]] = {}
    for channel, time_ns, _ in entries:
        low, high = ranges.get(channel, (time_ns, time_ns))
        ranges[channel] = (min(low, time_ns), max(high, time_ns))
    return ranges


def again_body(frame: CutFrame, seq: int) -> bytes:
    """Return the body of a frame under another number; readings are marked as perhaps stored already."""
    if frame.kind == "gap":
        return to_json({**from_json(frame.body), "seq": seq})
    return encode_batch(decode_batch(frame.body)._replace(seq=seq, again=True))


def copying_of(values: Sequence[Any] | None) -> Copying | None:
    """Return the record of which a list was written."""
    return Copying(*values) if values else None


def loss_of(entries: Collection[Entry]) -> Loss:
    """Return the loss of exactly these readings."""
    loss = Loss()
    loss.add(len(entries), ranges_of(entries))
    return loss


class Instants:
    """Gives each reading its time; two without ``time=`` never share an instant in a channel.

    A time in the future (explicit, beyond ``now_ns``) does not count as the channel's
    last instant: one wrong date would drag every later reading there.

    Args:
        floor_ns: no instant given from now on lies at or before it (what earlier runs used).
    """

    def __init__(self, floor_ns: int = 0) -> None:
        self._floor_ns = floor_ns
        self._last: dict[str, int] = {}

    def stamp(self, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int) -> list[Entry]:
        """Return the readings with their times."""
        last, floor_ns = self._last, self._floor_ns
        entries = []
        for channel, value in values:
            before = last.get(channel, floor_ns)
            instant = time_ns
            if instant is None:
                instant = last[channel] = now_ns if now_ns > before else before + 1
            elif before < instant <= now_ns:
                last[channel] = instant
            entries.append((channel, instant, value))
        return entries

    def stamp_one(self, channel: str, now_ns: int) -> int:
        """Return the time of one reading that was given none."""
        before = self._last.get(channel, self._floor_ns)
        self._last[channel] = stamped = now_ns if now_ns > before else before + 1
        return stamped

    def learn_time(self, uptime: UptimeLine) -> None:
        """Go on in real time, behind every instant of uptime that was given, here or by an earlier process."""
        newest = max((last for last in self._last.values() if last >= UPTIME), default=UPTIME)
        placed = uptime.place(max(newest, UPTIME + uptime.floor))
        assert placed is not None, "the time of this boot was just learnt"
        self._floor_ns = max(self._floor_ns, placed[0])
        self._last.clear()


class Outbox:
    """The numbered side of a spool: one stream, its frames, and what waits to be numbered besides readings."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.acked = 0
        self.next = 1
        self.pos: str | None = None
        self.channels: dict[str, Channel] = {}
        self.uptime = UptimeLine()
        self.no_value = 0
        self.dropped = 0
        self.dropped_by: dict[str, int] = {}
        self.refused = 0
        self.damaged = 0
        # True from an unclean boot until the frames from before it are acked; then a new stream begins.
        self.is_ending = False
        self.frames: deque[NextFrame] = deque()
        self.returned: deque[NextFrame] = deque()
        self.losses: dict[str, Loss] = {}
        # Streams that ended with frames acked: a hub that was restored from a backup may have lost them.
        self.earlier: tuple[wire.Earlier, ...] = ()
        # What such a hub gets as a copy: the loss in front of it is declared, so nothing else would send the rest.
        self.copying: Copying | None = None
        self.readings_in_frames = 0
        self.body_bytes = 0
        self._chains: dict[int, bytes] = {0: wire.CHAIN_START}

    # --- what is known ---------------------------------------------------------------------

    def chain(self, seq: int) -> bytes | None:
        """Return chain(seq), or None when it is too old or not cut."""
        return self._chains.get(seq) if seq else wire.CHAIN_START

    def has_uncut(self, unnumbered: int) -> bool:
        """Say whether something waits for a number and may have one."""
        if self.is_ending:
            return False
        return bool(unnumbered or self.losses or self.returned)

    def has_room(self, limit_bytes: int) -> bool:
        """Say whether one more frame may be cut: window, bytes, and no stream that waits for its end."""
        if self.is_ending or len(self.frames) >= wire.MAX_WINDOW:
            return False
        return not self.frames or self.body_bytes < limit_bytes

    @property
    def readings_returned(self) -> int:
        """Readings of frames that wait to be numbered again."""
        return sum(made.frame.readings for made in self.returned)

    def oldest_ns(self) -> int | None:
        """Return the time of the oldest reading in a frame, cut or returned."""
        return next((held.first_ns for held in (*self.frames, *self.returned) if held.first_ns is not None), None)

    def unacked(self, after: int) -> list[CutFrame]:
        """Return the frames with seq > ``after``, ascending."""
        return [held.frame for held in self.frames if held.frame.seq > after]

    # --- numbering -------------------------------------------------------------------------

    def next_frame(self, readings: Sequence[Entry], max_bytes: int) -> NextFrame | None:
        """Build the next frame without numbering it; None when nothing waits, or the time of what waits is not known.

        Args:
            readings: the oldest un-numbered readings, at most as many as one frame may
                hold; the frame takes as many from the front as fit (``frame.readings``),
                unless something older goes first.
            max_bytes: size of the body; one reading alone may exceed it.
        """
        for reason in LEADING_LOSSES:
            if reason in self.losses:
                return self._gap(reason)
        if self.returned:
            return self._again(self.returned[0])
        if self.losses:
            return self._gap(next(iter(self.losses)))
        return self._batch(readings, max_bytes) if readings else None

    def add(self, made: NextFrame) -> None:
        """Number a frame that `next_frame` made: from now on it never changes."""
        if made.source == "returned":
            if self.returned:
                old = self.returned.popleft()
                self.readings_in_frames -= old.frame.readings
                self.body_bytes -= len(old.frame.body)
        elif made.source != "readings":
            self.losses.pop(made.source, None)
        self.hold(made)
        self.next = made.frame.seq + 1
        self._chains[made.frame.seq] = made.frame.chain

    def hold(self, made: NextFrame, *, is_returned: bool = False) -> None:
        """Keep a frame's body: the last step of `add`, and what loading a snapshot does."""
        (self.returned if is_returned else self.frames).append(made)
        self.readings_in_frames += made.frame.readings
        self.body_bytes += len(made.frame.body)

    def check_ack(self, stored: int, chain: bytes) -> None:
        """Raise `ChainConflictError` unless chain(stored) of this stream is ``chain``."""
        own = self.chain(stored)
        if own != chain:
            known = "is not cut yet" if own is None else f"has chain {own.hex()}"
            raise ChainConflictError(
                f"stream {self.stream}: the hub stored frame {stored} with chain {chain.hex()}, here it {known}; "
                "a rolled-back or cloned spool: begin a new stream"
            )

    def acknowledge(self, stored: int, pos: str) -> bool:
        """Forget frames ≤ ``stored``; return True when the stream waited for that and must now end."""
        while self.frames and self.frames[0].frame.seq <= stored:
            gone = self.frames.popleft().frame
            self.readings_in_frames -= gone.readings
            self.body_bytes -= len(gone.body)
        for seq in range(max(0, self.acked - wire.CHAINS_KEPT), stored - wire.CHAINS_KEPT):
            self._chains.pop(seq, None)
        self.acked = stored
        self.pos = pos
        return self.is_ending and not self.frames

    def restart(self, stream: str, stored: int | None, lost: Loss | None = None) -> None:
        """Begin ``stream``; unacked frames > ``stored`` wait to be numbered again, first and in order.

        ``lost``: readings of frames ≤ ``stored`` that the hub cannot read, declared ``unreadable``.
        """
        # A frame that is set aside counts as acked here, but the hub does not hold it.
        self._remember_stream(self.acked if lost is not None and lost.count else max(self.acked, stored or 0))
        again = [held for held in self.frames if held.frame.seq > (stored or 0)]
        waiting = list(self.returned)
        self.frames.clear()
        self.returned.clear()
        self.readings_in_frames = self.body_bytes = 0
        for held in (*again, *waiting):
            self.hold(held, is_returned=True)
        self.stream = stream
        self.acked, self.next = 0, 1
        self._chains = {0: wire.CHAIN_START}
        if self.is_ending:
            self.is_ending = False
            self.lose(Reason.POWER_CUT, None, {})
        if lost is not None and lost.count:
            self.lose(Reason.UNREADABLE, lost.count, lost.ranges)

    def forget(self, stream: str, copying: Copying | None = None) -> None:
        """Name an earlier stream no more: what a restored hub lost of it cannot be sent again and is declared lost.

        ``copying``: what is still kept of it, to be sent as a copy from now on.
        """
        self.earlier = tuple(e for e in self.earlier if e.stream != stream)
        self.lose(Reason.HUB_RESTORED, None, {})
        if copying is not None:
            self.copying = copying

    def copied(self, copying: Copying | None) -> None:
        """Note how far the copy is; None: it is over."""
        self.copying = copying

    def lose(self, reason: str, count: int | None, ranges: Mapping[str, tuple[int, int]]) -> None:
        """Note readings that will never be sent; the next gap frame of ``reason`` declares them all."""
        self.losses.setdefault(reason, Loss()).add(count, self.uptime.place_ranges(ranges))
        if reason in DROP_REASONS:
            self.dropped += count or 0
            self.dropped_by[str(reason)] = self.dropped_by.get(reason, 0) + (count or 0)

    def declare(self, channel: Channel) -> None:
        """Remember a channel; the same name again replaces it."""
        self.channels[channel.name] = channel

    def learn_time(self, offset: int) -> None:
        """Take what places this boot, and the boots before it that never learnt the time, in real time."""
        self.uptime.offset = offset
        for loss in self.losses.values():
            loss.ranges = self.uptime.place_ranges(loss.ranges)

    # --- a snapshot without the bodies -----------------------------------------------------

    def to_object(self) -> dict[str, Any]:
        """Return everything but frames as JSON values."""
        return {
            "stream": self.stream, "acked": self.acked, "next": self.next, "pos": self.pos,
            "chains": {str(seq): chain.hex() for seq, chain in self._chains.items()},
            "uptime": self.uptime.to_object(),
            "channels": {c.name: wire.channel_to_object(c) for c in self.channels.values()},
            "losses": {reason: [loss.count, loss.ranges] for reason, loss in self.losses.items()},
            "no_value": self.no_value, "dropped": self.dropped, "damaged": self.damaged, "ending": self.is_ending,
            "earlier": [list(e) for e in self.earlier],
            "copying": self.copying and list(self.copying),
            "dropped_by": dict(self.dropped_by),
        }  # fmt: skip

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Outbox:
        """Return the outbox that `to_object` wrote; frames follow by `hold`."""
        outbox = cls(obj["stream"])
        outbox.acked, outbox.next, outbox.pos = obj["acked"], obj["next"], obj["pos"]
        outbox._chains = {int(seq): bytes.fromhex(chain) for seq, chain in obj["chains"].items()}
        outbox.uptime = UptimeLine.from_object(obj["uptime"]) if "uptime" in obj else UptimeLine()
        outbox.channels = {name: wire.channel_from_object(name, c) for name, c in obj["channels"].items()}
        for reason, (count, ranges) in obj["losses"].items():
            outbox.losses[reason] = Loss(count, {name: (low, high) for name, (low, high) in ranges.items()})
        outbox.no_value, outbox.dropped, outbox.damaged = obj["no_value"], obj["dropped"], obj["damaged"]
        outbox.is_ending = obj["ending"]
        outbox.earlier = tuple(wire.Earlier(*e) for e in obj.get("earlier", ()))
        outbox.copying = copying_of(obj.get("copying"))
        outbox.dropped_by = dict(obj.get("dropped_by", {}))
        return outbox

    # --- private ---------------------------------------------------------------------------

    def _remember_stream(self, acked: int) -> None:
        chain = self._chains.get(acked)
        if acked and chain is not None:
            ended = wire.Earlier(self.stream, acked, acked + 1, chain.hex())
            self.earlier = (*self.earlier, ended)[-wire.MAX_EARLIER :]

    def _batch(self, readings: Sequence[Entry], max_bytes: int) -> NextFrame | None:
        is_estimated = False
        if self.uptime.is_used:
            readings, is_estimated = self.uptime.place_run(readings)
            if not readings:
                return None  # neither this machine nor a hub has known the time yet
        count = min(len(readings), wire.MAX_FRAME_READINGS)
        while True:
            batch = to_columns(self.next, readings[:count], time_estimated=is_estimated)
            if count == 1 or max(t for _, t, _ in readings[:count]) - batch.t0 <= MAX_SPAN_NS:
                body = encode_batch(batch)
                if count == 1 or len(body) <= max_bytes:
                    return self._numbered(body, "batch", count, "readings", batch.t0)
            count //= 2

    def _gap(self, reason: str) -> NextFrame:
        loss = self.losses[reason]
        ranges = {channel: ends for channel, ends in loss.ranges.items() if ends[1] < UPTIME}
        body = wire.encode(wire.Gap(self.next, loss.count, reason, ranges))
        return self._numbered(body, "gap", 0, reason, None)

    def _again(self, held: NextFrame) -> NextFrame:
        old = held.frame
        return self._numbered(again_body(old, self.next), old.kind, old.readings, "returned", held.first_ns)

    def _numbered(self, body: bytes, kind: FrameKind, readings: int, source: str, first_ns: int | None) -> NextFrame:
        chain = wire.next_chain(self._chains[self.next - 1], body)
        return NextFrame(CutFrame(self.next, body, chain, kind, readings), source, first_ns)
