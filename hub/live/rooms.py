"""The live core: from committed frames to every room, at a tick that follows the load.

Owns: the ring, the rooms, the flush tick, the sweep over connected watchers.
Place: after `room`; `hub.app` publishes here after each commit. Lives on the
event loop but knows only a `Scheduler`: tests drive it with a clock of theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from device_sdk.wire import PING_S, Close
from hub.journal.base import Journal
from hub.live.budget import BUDGET_BYTES, UnsentBudget
from hub.live.cursor import RunTable
from hub.live.extremes import ExtremesRoom
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.ring import RING_BYTES, Ring
from hub.live.room import ChunkCache, LatestRoom, LosslessRoom, Newest, Room, RoomKey, Select, Sources
from hub.live.sample import SampleRoom
from hub.model import Frame, Series

# A busy hub flushes 100 times a second: what a person or a chart cannot see is not worth a wake-up per watcher.
MAX_TICK_S = 0.010
# At least 4 parts of time for receiving to 1 part of sending: fan-out can slow acks down by a fifth at most.
TICK_PER_COST = 4
# Watchers told to go away come back spread over connections / 500 seconds.
RECONNECTS_PER_S = 500
# Rooms of pollers between two polls: to make one costs a look at every series (0.1 s of 10,000), to keep it 0.4 MB.
KEPT_ROOMS = 16
KEPT_S = 15.0


class Handle(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Do not make the call."""


class Scheduler(Protocol):
    """What the live core needs of an event loop (asyncio's has it)."""

    def time(self) -> float:
        """Return monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Handle:
        """Call once at ``when``."""

    def call_soon(self, callback: Callable[[], object], /) -> Handle:
        """Call once after all input that is ready now was read."""


class Watcher(Protocol):
    """One connection with subscriptions."""

    identity_id: str
    origin: Origin

    @property
    def buffered_bytes(self) -> int:
        """What was written and the other end has not taken."""

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its subscriptions stand."""

    def tick(self) -> None:
        """Called each ping interval: tell quiet subscriptions where they stand."""

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Close from the hub's side; with ``retry_ms`` say when to come back."""


@dataclass(frozen=True, slots=True)
class LiveStatistics:
    """What the live side holds and has done; ``behind`` listeners are read from pages, not from flushes.

    ``unsent_bytes``: of all connections when they were last looked at; ``unsent_mark``: above it one waits as a cursor;
    ``evicted``: those that were closed because all together held too much.
    """

    head: int
    watchers: int
    rooms: int
    listeners: int
    behind: int
    ring_frames: int
    ring_bytes: int
    cache_bytes: int
    flushes: int
    deliveries: int
    unsent_bytes: int
    unsent_mark: int
    evicted: int


class Live:
    """Every room of one hub.

    Args:
        journal: read by the shells for what the ring no longer holds; its runs and head are taken once, here.
        series: all known series.
        scheduler: the event loop.
        newest: series id → newest reading by event time, kept by the registry before frames are published here.
        ring_bytes: memory for decoded frames.
        select: selector text → whether a device is chosen; `decide_again` must follow when the answer may change.
        unsent_bytes: what all connections together may hold unsent.
    """

    def __init__(
        self,
        journal: Journal,
        series: Iterable[Series],
        scheduler: Scheduler,
        *,
        newest: Mapping[int, Newest],
        ring_bytes: int = RING_BYTES,
        select: Select | None = None,
        unsent_bytes: int = BUDGET_BYTES,
    ) -> None:
        self.journal = journal
        self.runs = RunTable(journal.runs())
        self.ring = Ring(journal.head, ring_bytes)
        self.watchers: dict[Watcher, None] = {}
        self._series = {s.id: s for s in series}
        self._scheduler = scheduler
        self.unsent = UnsentBudget(scheduler.call_soon, lambda: self.watchers, _evict, unsent_bytes)
        self._sources = Sources(self.ring, self.runs, newest, ChunkCache(), journal.head, self.unsent)
        if select is not None:
            self._sources.select = select
        self._rooms: dict[RoomKey, Room] = {}
        # Rooms without a listener, the longest left first, and when they end.
        self._kept: dict[RoomKey, float] = {}
        self._numbers = 0
        self._flush: Handle | None = None
        self._flush_at = 0.0
        self._next_at = 0.0
        self._flushes = 0
        self._sweep: Handle | None = None

    @property
    def head(self) -> int:
        """The offset of the newest published frame."""
        return self.ring.head

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._scheduler.time()

    def position(self) -> str:
        """Return the head as cursor text."""
        return self.runs.cursor(self.ring.head)

    def publish(self, frames: Sequence[Frame]) -> None:
        """Take frames whose commit returned; watchers get them with the next flush."""
        self.ring.extend(frames)
        if self._rooms:
            self._schedule(self._next_at)

    def add_series(self, series: Sequence[Series]) -> None:
        """Take series that are new or changed, before frames that use them are published."""
        self._series.update((s.id, s) for s in series)
        for room in self._rooms.values():
            room.add(series)
        if self._rooms:
            # What changed by hand is told now, not with the next reading of an hourly sensor.
            self._schedule(self._next_at)

    def decide_again(self, series: Sequence[Series]) -> None:
        """Take series of devices that were described otherwise: they may belong to other rooms from now on."""
        for room in self._rooms.values():
            room.decide_again(series)
        if self._rooms and series:
            self._schedule(self._next_at)

    def enter_room(self, key: RoomKey) -> Room:
        """Return the room of the key for one more listener; `leave_room` must follow. Its head is the hub's head."""
        self._kept.pop(key, None)
        room = self._rooms.get(key)
        if room is None:
            self._numbers += 1
            room = self._rooms[key] = _kind(key)(self._numbers, key, self._sources)
            room.add(list(self._series.values()))
        else:
            self._advance(room)
        room.listeners += 1
        return room

    def leave_room(self, room: Room, *, keep: bool = False) -> None:
        """Give one listener's place back; the last one ends the room, or leaves it for a poller to come back to."""
        room.listeners -= 1
        if room.listeners:
            return
        self._kept[room.key] = self._scheduler.time() + (KEPT_S if keep else 0)
        self._end_kept()

    def enter(self, watcher: Watcher) -> None:
        """Take a connection into the sweep that tells quiet subscriptions their position."""
        self.watchers[watcher] = None
        if self._sweep is None:
            self._sweep = self._scheduler.call_at(self._scheduler.time() + PING_S, self._sweep_now)

    def leave(self, watcher: Watcher) -> None:
        """Forget a connection."""
        self.watchers.pop(watcher, None)
        self.unsent.left(watcher)

    def end_identities(self, ended: AbstractSet[str]) -> None:
        """Close every connection whose credential ended."""
        for watcher in [w for w in self.watchers if w.identity_id in ended]:
            watcher.end(Close.UNAUTHENTICATED, "this credential was revoked")

    def stop(self) -> None:
        """Tell every watcher to come back, spread over time, and stop all timers."""
        for handle in (self._flush, self._sweep):
            if handle is not None:
                handle.cancel()
        self._flush = self._sweep = None
        for place, watcher in enumerate(list(self.watchers)):
            watcher.end(Close.GOING_AWAY, "the hub stops", place * 1000 // RECONNECTS_PER_S)

    def flush(self) -> None:
        """Send what is new to every room (called by the tick; tests may call it)."""
        self._flush = None
        begin = self._scheduler.time()
        for room in list(self._rooms.values()):
            room.advance(begin)
        self._flushes += 1
        end = self._scheduler.time()
        self._next_at = end + min(MAX_TICK_S, TICK_PER_COST * (end - begin))
        due = [room.due for room in self._rooms.values() if room.due is not None]
        if due:
            self._schedule(max(min(due), self._next_at))

    def statistics(self) -> LiveStatistics:
        """Return the figures of now."""
        rooms = self._rooms.values()
        listeners = sum(room.listeners for room in rooms)
        return LiveStatistics(
            self.head, len(self.watchers), len(rooms), listeners, listeners - sum(len(room.live) for room in rooms),
            len(self.ring), self.ring.bytes, self._sources.cache.bytes, self._flushes, self._sources.deliveries,
            self.unsent.unsent_bytes, self.unsent.mark, self.unsent.evicted,
        )  # fmt: skip

    def _advance(self, room: Room) -> None:
        room.advance(self._scheduler.time())
        if room.due is not None:
            self._schedule(room.due)

    def _schedule(self, at: float) -> None:
        if self._flush is not None:
            if self._flush_at <= at:
                return
            self._flush.cancel()
        self._flush_at = at
        if at <= self._scheduler.time():
            self._flush = self._scheduler.call_soon(self.flush)
        else:
            self._flush = self._scheduler.call_at(at, self.flush)

    def _end_kept(self) -> None:
        """End rooms that nobody came back to, and the longest left of too many."""
        now = self._scheduler.time()
        ended = [key for key, until in self._kept.items() if until <= now]
        for key in ended or list(self._kept)[:-KEPT_ROOMS]:
            del self._kept[key]
            self._rooms.pop(key).end()

    def _sweep_now(self) -> None:
        self._sweep = None
        for watcher in list(self.watchers):
            watcher.tick()
        self._end_kept()
        self.unsent.look()
        if self.watchers or self._kept:
            self._sweep = self._scheduler.call_at(self._scheduler.time() + PING_S, self._sweep_now)


def _kind(key: RoomKey) -> type[Room]:
    if key.max_hz is None:
        return LosslessRoom if key.every == 1 else SampleRoom
    return ExtremesRoom if key.has_extremes else LatestRoom


def _evict(watcher: Watcher) -> None:
    watcher.end(Close.EVICTED, "too much unsent: read faster, or ask for less")
