"""A room: the watchers of the same patterns in the same mode, who share every encoded byte.

Owns: which series belong (decided once each), the chunk every live
listener gets, and pages for those behind. Place: after `ring` and `encode`, before
`rooms` and `subscription`. Pure: `now` comes in, bytes go out through `Outlet`.

A listener is *live* when it has received everything up to the room's head;
it then costs the room one dictionary entry. One whose outlet is full leaves
the live set with the offset it reached and asks for pages when it has room.
There is no queue anywhere.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.live.budget import UnsentBudget
from hub.live.cursor import RunTable
from hub.live.encode import Message, encode_frames, encode_series, encode_values, scaled_rows
from hub.live.patterns import PatternSet
from hub.live.ring import Ring
from hub.model import Frame, Series

# Bodies in one page or live chunk: enough to amortise a message, little enough to hold the loop for about 1 ms.
PAGE_BYTES = 64 * 1024
# All rooms' encoded chunks together: lets watchers that fell behind together share, and never grows with their number.
CHUNK_CACHE_BYTES = 8 * 1024 * 1024
# A chunk in the cache with its place there, and a message beside its JSON, by tracemalloc.
_CHUNK_BYTES, _MESSAGE_BYTES = 340, 130
# Transport-ready copies shared while one chunk is delivered; clients mostly give their subscriptions the same names.
_MAX_READY = 8
# Series named in one message: about 50 KiB.
SERIES_PER_MESSAGE = 500


class RoomKey(NamedTuple):
    """What makes two subscriptions share a room: patterns in normal form, and the rate (None = lossless).

    ``has_extremes``: least and greatest readings too (``agg:"minmax"``). ``every``: one of so many (mode ``sample``).
    ``selector``: of which devices, by name, site and tag, its words in order.
    """

    namespace: str
    match: tuple[str, ...]
    exclude: tuple[str, ...]
    granted: tuple[str, ...]
    max_hz: float | None = None
    has_extremes: bool = False
    every: int = 1
    selector: str | None = None


# Selector text → whether a device of a namespace is chosen as it is described now; raises `BadRequestError`.
Select = Callable[[str], Callable[[str, str], bool]]


def _no_selectors(_: str) -> Callable[[str, str], bool]:
    raise BadRequestError("nothing is known here of sites and tags")


class Newest(Protocol):
    """The newest reading of a series by event time; ``offset`` 0: from before this start of the hub."""

    time_ns: int
    value: Value
    offset: int


class Outlet(Protocol):
    """Where one listener's bytes go. Outlets with an equal ``key`` wrap alike, so they share the result."""

    key: str

    def wrap(self, op: str, tail: bytes, cursor: str | None) -> bytes:
        """Return the transport's bytes of a message; ``tail`` is its JSON behind ``{`` without op and sub."""

    def write(self, data: bytes) -> None:
        """Write bytes made by `wrap`."""

    @property
    def is_full(self) -> bool:
        """Whether so much is unsent that nothing more may be written now."""


class Listener(Protocol):
    """One subscription, as its room sees it."""

    @property
    def outlet(self) -> Outlet:
        """Where its bytes go."""

    def fell_behind(self, offset: int) -> None:
        """Leave the live set: everything up to ``offset`` was written."""


@dataclass(slots=True)
class Chunk:
    """Encoded readings of the offsets after + 1 … upto; no message when none of them matched."""

    after: int
    upto: int
    messages: list[Message]

    def wrap(self, outlet: Outlet) -> bytes:
        """Return all messages as the outlet's transport wants them."""
        return b"".join([outlet.wrap("data", m.tail, m.cursor) for m in self.messages])

    def size(self) -> int:
        """Return about how many bytes it takes in memory."""
        return _CHUNK_BYTES + sum(len(m.tail) + _MESSAGE_BYTES for m in self.messages)


class ChunkCache:
    """The newest chunks of all rooms, bounded together; the oldest leave first."""

    def __init__(self, max_bytes: int = CHUNK_CACHE_BYTES) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._chunks: OrderedDict[tuple[int, int], Chunk] = OrderedDict()

    def get(self, room: int, after: int) -> Chunk | None:
        """Return the room's chunk that begins behind ``after``."""
        return self._chunks.get((room, after))

    def add(self, room: int, chunk: Chunk) -> None:
        """Keep a chunk; it replaces one that began at the same offset."""
        old = self._chunks.pop((room, chunk.after), None)
        if old is not None:
            self.bytes -= old.size()
        self._chunks[(room, chunk.after)] = chunk
        self.bytes += chunk.size()
        while self.bytes > self._max_bytes and self._chunks:
            self.bytes -= self._chunks.popitem(last=False)[1].size()

    def drop(self, room: int) -> None:
        """Forget the chunks of a room that ended: its number does not come again."""
        # All keys are looked at: a room ends seldom, and to begin it cost a look at every series.
        for key in [key for key in self._chunks if key[0] == room]:
            self.bytes -= self._chunks.pop(key).size()


@dataclass(slots=True)
class Sources:
    """What all rooms of a hub share."""

    ring: Ring
    runs: RunTable
    newest: Mapping[int, Newest]
    cache: ChunkCache
    start_head: int
    unsent: UnsentBudget
    deliveries: int = 0
    select: Select = _no_selectors


class Room:
    """Membership, announcements and delivery; subclasses decide what is sent (`advance`, `page`).

    ``catalog`` lists member series in the order they must be announced; a
    listener keeps only how far in it was told. A series that changed is
    listed again. ``announced``: how far in live listeners were told.
    ``generation`` grows when the list was rewritten: listeners then start over.
    ``redrawn`` grows when a member changed: what was encoded before may have
    its old scale. A number in the catalog is the id of a series that belonged
    and does so no more.
    """

    def __init__(self, number: int, key: RoomKey, sources: Sources) -> None:
        self.key = key
        self.head = sources.ring.head
        self.sent = 0
        # Data messages that its live listeners were sent: what one got is a difference, so the hot path counts once.
        self.messages = 0
        self.live: dict[Listener, None] = {}
        self.listeners = 0
        self.members: dict[int, Series] = {}
        self.catalog: list[Series | int] = []
        self.generation = 0
        self.redrawn = 0
        self.due: float | None = None
        self.conflated = 0
        self._number = number
        self._sources = sources
        self._wanted = PatternSet(key.match, key.exclude)
        self._granted = PatternSet(key.granted)
        self._chooses = None if key.selector is None else sources.select(key.selector)
        self.announced = 0
        self._kept = 0

    def advance(self, now: float) -> None:
        """Send live listeners what was committed since the last call; set ``due`` when some of it must wait."""
        raise NotImplementedError

    def page(self, after: int) -> Chunk | None:
        """Return the next chunk behind ``after``, at most up to the head; None: it has to come from the journal."""
        raise NotImplementedError

    def add(self, series: Sequence[Series]) -> None:
        """Decide membership of new series; list changed members again."""
        belonging = [s for s in series if s.id in self.members or self._belongs(s)]
        if any(s.id in self.members for s in belonging):
            # Encoded with the scale that held: what is read from now on has the new one.
            self._redraw()
        self.catalog += belonging
        self.members.update((s.id, s) for s in belonging)
        self._shorten()

    def decide_again(self, series: Sequence[Series]) -> None:
        """Decide membership anew of series whose device was described: some come, some go."""
        if self._chooses is None:
            return
        gone = [s.id for s in series if s.id in self.members and not self._belongs(s)]
        come = [s for s in series if s.id not in self.members and self._belongs(s)]
        if gone or come:
            # Who is behind gets what belongs at the moment of sending.
            self._redraw()
        for number in gone:
            del self.members[number]
        self.catalog += gone
        self.add(come)

    def join(self, listener: Listener) -> None:
        """Make a listener live: it was told the whole catalog and has received everything up to the head."""
        if not self.live:
            self.announced = len(self.catalog)
        self._announce_new()
        self.live[listener] = None

    def end(self) -> None:
        """Let go of what the room shares with others; nobody listens any more."""
        self._sources.cache.drop(self._number)

    def leave(self, listener: Listener) -> None:
        """Take a listener out of the live set, if it is there."""
        self.live.pop(listener, None)

    def announcement(self, begin: int) -> tuple[bytes | None, int]:
        """Return a ``series`` tail for the catalog from ``begin`` on (None: nothing to tell), and where it ends."""
        part = self.catalog[begin : begin + SERIES_PER_MESSAGE]
        # Of a series that comes and goes its last state is told.
        told = {entry if isinstance(entry, int) else entry.id: entry for entry in part}
        series = [entry for entry in told.values() if not isinstance(entry, int)]
        gone = [entry for entry in told.values() if isinstance(entry, int)]
        return (encode_series(series, gone) if part else None), begin + len(part)

    def newest_values(self, after: int | None = None) -> list[tuple[int, int, Value]]:
        """Return (series, time_ns, value shown) of members, newest by event time; ``after``: only what came behind."""
        newest, start = self._sources.newest, self._sources.start_head
        found = [(i, newest[i]) for i in self.members if i in newest]
        if after is not None:
            # What was loaded at the start has no offset: it is older than the start, which is all that is known.
            found = [(i, n) for i, n in found if after < (n.offset or start) <= self.head]
        return list(scaled_rows(((i, n.time_ns, n.value) for i, n in found), self.members))

    def _belongs(self, series: Series) -> bool:
        return (
            series.namespace == self.key.namespace
            and self._wanted.matches(series.device, series.channel)
            and self._granted.matches(series.device, series.channel)
            and (self._chooses is None or self._chooses(series.namespace, series.device))
        )

    def _redraw(self) -> None:
        self._sources.cache.drop(self._number)
        self.redrawn += 1

    def _shorten(self) -> None:
        if len(self.catalog) > 2 * max(len(self.members), self._kept) + SERIES_PER_MESSAGE:
            self.catalog = list(
                {entry if isinstance(entry, int) else entry.id: entry for entry in self.catalog}.values()
            )
            self._kept = len(self.catalog)
            self.generation += 1
            self.announced = 0

    def _announce_new(self) -> None:
        """Tell live listeners about series they do not know; always before the data that uses them."""
        while self.live and self.announced < len(self.catalog):
            tail, end = self.announcement(self.announced)
            assert tail is not None, "there is something behind announced"
            self._write(partial(_wrap_series, tail))
            self.announced = end
        self.announced = len(self.catalog)

    def _deliver(self, chunk: Chunk) -> None:
        """Write a chunk to every live listener; it begins where they stand."""
        if chunk.messages:
            self._write(chunk.wrap)
            self._sources.deliveries += len(chunk.messages) * len(self.live)
            self.messages += len(chunk.messages)
            self.sent = chunk.upto
        self.head = chunk.upto

    def _write(self, wrap: Callable[[Outlet], bytes]) -> None:
        """The hot path: one dictionary look-up and one write per live listener.

        Who is full is asked before it is written to: of the subscriptions of one connection each would add its share.
        """
        full: list[Listener] = []
        ready: dict[str, bytes] = {}
        data: bytes | None = None
        for listener in self.live:
            outlet = listener.outlet
            if outlet.is_full:
                full.append(listener)
                continue
            data = ready.get(outlet.key)
            if data is None:
                data = wrap(outlet)
                if len(ready) < _MAX_READY:
                    ready[outlet.key] = data
            outlet.write(data)
        for listener in full:
            del self.live[listener]
            listener.fell_behind(self.head)
        if data is not None:
            # The copies differ by the name of the subscription alone.
            self._sources.unsent.wrote(len(data) * len(self.live))

    def _drop_all(self) -> None:
        for listener in list(self.live):
            del self.live[listener]
            listener.fell_behind(self.head)


class PagedRoom(Room):
    """Listeners that fell behind read on, page by page, from ring or journal; `_messages` says what they get."""

    def page(self, after: int) -> Chunk | None:
        """Return the cached chunk behind ``after``, or one from the ring; None: from the journal (`encode_page`)."""
        return self._chunk(after, self.head)

    def encode_page(self, after: int, frames: Sequence[Frame]) -> Chunk:
        """Return the chunk of frames read from the journal."""
        return self._encode(after, frames, frames[-1].offset if frames else after)

    def _chunk(self, after: int, upto: int) -> Chunk | None:
        chunk = self._sources.cache.get(self._number, after)
        if chunk is not None:
            return chunk
        # Fullness is asked behind a chunk: where the share is small, a whole page would pass it many times over.
        size = min(PAGE_BYTES, self._sources.unsent.chunk_bytes())
        frames = self._sources.ring.after(after, size, upto)
        return None if frames is None else self._encode(after, frames, frames[-1].offset if frames else after)

    def _encode(self, after: int, frames: Sequence[Frame], upto: int) -> Chunk:
        chunk = Chunk(after, upto, self._messages(frames, upto))
        # One listener never asks for the same chunk twice; a room that it has alone ends with it.
        if frames and self.listeners > 1:
            self._sources.cache.add(self._number, chunk)
        return chunk

    def _messages(self, frames: Sequence[Frame], upto: int) -> list[Message]:
        """Encode frames; the last message's cursor stands at ``upto``."""
        raise NotImplementedError


class LosslessRoom(PagedRoom):
    """Every matching reading, each offset once and in order."""

    def advance(self, now: float) -> None:
        """Encode what is new once, in chunks, and write it to every live listener."""
        self._announce_new()
        ring = self._sources.ring
        while self.live and self.head < ring.head:
            chunk = self._chunk(self.head, ring.head)
            if chunk is None:
                # More arrived within one tick than the ring holds: they read it from the journal instead.
                self._drop_all()
                break
            self._deliver(chunk)
        self.head = ring.head

    def _messages(self, frames: Sequence[Frame], upto: int) -> list[Message]:
        return encode_frames(frames, self.members, upto, self._sources.runs.cursor)


class LatestRoom(Room):
    """The newest reading per series by event time, at most ``max_hz`` times a second, the true last value at the end.

    The table of newest values is the registry's; the room remembers only
    which series changed since its last chunk.
    """

    def __init__(self, number: int, key: RoomKey, sources: Sources) -> None:
        super().__init__(number, key, sources)
        assert key.max_hz is not None, "a latest room has a rate"
        self._interval_s = 1 / key.max_hz
        self._next_at = 0.0
        self._scanned = self.head
        self._changed: set[int] = set()
        self._seen = 0

    def advance(self, now: float) -> None:
        """Note what changed; write it when the rate allows, else set ``due``."""
        self._announce_new()
        self._scan()
        self.due = None
        if not self.live or not self._changed:
            self._changed.clear()
            self.head = self._scanned
        elif now < self._next_at:
            self.due = self._next_at
        else:
            self._send(now)

    def page(self, after: int) -> Chunk | None:
        """Return everything that is newer than ``after`` in one chunk; never needs the journal."""
        cursor = self._sources.runs.cursor(self.head)
        return Chunk(after, self.head, encode_values(self.newest_values(after), cursor))

    def _scan(self) -> None:
        frames = self._sources.ring.after(self._scanned, 2**62, self._sources.ring.head)
        if frames is None:
            self._changed = set(self.members)
        else:
            for frame in frames:
                for c in frame.columns:
                    if c.series.id in self.members:
                        self._changed.add(c.series.id)
                        self._seen += len(c.column.values)
        self._scanned = self._sources.ring.head

    def _send(self, now: float) -> None:
        newest = self._sources.newest
        found = [(i, newest[i]) for i in self._changed if i in newest and i in self.members]
        # A late reading does not change what is newest: nothing to say about that series.
        rows = ((i, n.time_ns, n.value) for i, n in found if n.offset > self.head)
        values = list(scaled_rows(rows, self.members))
        self.conflated += self._seen - len(values)
        self._changed.clear()
        self._seen = 0
        chunk = Chunk(self.head, self._scanned, encode_values(values, self._sources.runs.cursor(self._scanned)))
        self._next_at = now + self._interval_s
        self._deliver(chunk)


def _wrap_series(tail: bytes, outlet: Outlet) -> bytes:
    return outlet.wrap("series", tail, None)
