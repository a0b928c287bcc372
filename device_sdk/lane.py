"""Lanes: intervals of positions whose readings wait for a number, and which files hold them.

Owns: the count of what is un-numbered, the cache of the oldest readings, the choice of
what is cut, dropped or thinned next. Place: after `reading_file`, before `reading_log`,
which writes and reads the files. Must not: decide when.

Closed lanes are the backlog of outages; the last one is open and takes what is recorded.
Borders lie between files, so each file belongs to one lane.

The cache holds the oldest readings: all of them while ``is_caching``, else those up to
``cached_to``; newer ones stay on disk until they are read back.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import islice

from device_sdk.frozen import Frozen
from device_sdk.outbox import Entry
from device_sdk.reading_file import FileName, Segment, Thinned

# Readings of a lane kept in memory; 20,000 are about 4 MB and ten seconds of a very fast device. At most the
# oldest and the newest lane keep any.
CACHE_READINGS = 20_000


class Marks(Frozen):
    """What is un-numbered, as the state log says it: everything from ``head`` on, and these older intervals."""

    head: int
    lanes: list[tuple[int, int]]


NOTHING_NUMBERED = Marks(0, [])


class Lane:
    """Readings from ``head`` up to ``end`` (None: open). ``left``: how many; kept only for a closed lane."""

    __slots__ = ("cache", "cached_to", "end", "ends", "head", "is_caching", "left")

    def __init__(self, head: int, end: int | None = None) -> None:
        self.head = head
        self.end = end
        self.left = 0
        self.cache: deque[Entry] = deque()
        self.ends: deque[int] = deque()
        self.cached_to = head
        self.is_caching = True

    def take(self, count: int) -> list[int]:
        """Take the ``count`` oldest readings out of the cache; return the positions behind them."""
        ends = [self.ends.popleft() for _ in range(count)]
        for _ in range(count):
            self.cache.popleft()
        self.head = ends[-1]
        return ends

    def skip_to(self, position: int) -> None:
        """Forget everything before ``position``: it was dropped."""
        while self.ends and self.ends[0] <= position:
            self.ends.popleft()
            self.cache.popleft()
        self.head = position
        self.cached_to = max(self.cached_to, position)

    def forget_from(self, position: int) -> None:
        """Let go of the cache behind ``position``: it is read back when its turn comes."""
        if not self.is_caching and self.cached_to <= position:
            return
        while self.ends and self.ends[-1] > position:
            self.ends.pop()
            self.cache.pop()
        self.cached_to = max(position, self.head)
        self.is_caching = False

    def close(self, end: int, left: int) -> None:
        """Let nothing be added any more."""
        if self.is_caching:
            self.cached_to = end
        self.is_caching = False
        self.end = end
        self.left = left


class Piece(Frozen):
    """A stretch of one segment to read back or drop, and how many readings must be in it."""

    lane: Lane
    segment: Segment
    start: int
    end: int
    expected: int


class Found(Frozen):
    """What was found in a piece: readings and the position behind each."""

    entries: list[Entry]
    ends: list[int]


class ReadingLanes:
    """Which files hold un-numbered readings, in which lanes: the part of `ReadingLog` that keeps count.

    Usually one lane holds all of them, from its head to the end. The last lane is open.
    """

    def __init__(self, segment_bytes: int, marks: Marks) -> None:
        self.segment_bytes = segment_bytes
        self.segments: deque[Segment] = deque()
        self.left = 0
        self.bytes = 0
        self._current: Segment | None = None
        self._replaced: list[Segment] = []
        self._live = Lane(marks.head)
        self.lanes: list[Lane] = [*(Lane(head, end) for head, end in marks.lanes), self._live]

    @property
    def end(self) -> int:
        """Position behind the last reading written."""
        return self.segments[-1].end if self.segments else self._live.head

    @property
    def backlog(self) -> int:
        """Readings in the closed lanes."""
        return sum(lane.left for lane in self.lanes[:-1])

    @property
    def replaced_bytes(self) -> int:
        """Bytes of files that were thinned and go with the next durable step."""
        return sum(segment.size for segment in self._replaced)

    @property
    def replaced_count(self) -> int:
        """How many files wait for `delete_replaced`."""
        return len(self._replaced)

    @property
    def thinned(self) -> list[FileName]:
        """The thinned files that stand."""
        return [segment.name for segment in self.segments if segment.level]

    def oldest_ns(self) -> int | None:
        """Return the time of the oldest un-numbered reading, as far as memory knows it."""
        lane = self.lanes[0]
        if lane.cache:
            return lane.cache[0][1]
        return next((segment.first_ns for segment in self.segments if segment.left), None)

    def marks(self) -> Marks:
        """Return what is un-numbered now."""
        return Marks(self._live.head, [(lane.head, lane.end or 0) for lane in self.lanes[:-1]])

    def left_of(self, lane: Lane) -> int:
        """Return how many readings of a lane are un-numbered."""
        return self.left - self.backlog if lane is self._live else lane.left

    def next_lane(self, from_backlog: bool = False) -> Lane:
        """Return the lane to cut from: the open one or, when asked for or the open one is empty, the oldest."""
        is_oldest = from_backlog or not self.left_of(self._live)
        return self.lanes[0] if is_oldest else self._live

    # --- taking from the front -------------------------------------------------------------

    def first(self, count: int, lane: Lane | None = None) -> list[Entry]:
        """Return up to ``count`` of a lane's oldest readings without taking them; only what its cache holds."""
        return list(islice((lane or self.next_lane()).cache, count))

    def marks_after(self, count: int, lane: Lane | None = None) -> Marks:
        """Return what will be un-numbered after `consume` with the same arguments."""
        lane = lane or self.next_lane()
        head = lane.ends[count - 1] if count else lane.head
        return self._moved(lane, head, count)

    def consume(self, count: int, lane: Lane | None = None) -> None:
        """Take the ``count`` oldest readings of a lane's cache: they are numbered now. No file is deleted yet."""
        if not count:
            return
        lane = lane or self.next_lane()
        ends = lane.take(count)
        self._count_off(lane, count)
        taken = 0
        for segment in self.segments:
            upto = bisect_right(ends, segment.end)
            segment.left -= upto - taken
            taken = upto
            if taken == count:
                break

    def delete_numbered(self, marks: Marks) -> None:
        """Delete the files that hold nothing un-numbered, as ``marks`` that are durable in the state log say."""
        intervals = [*marks.lanes, (marks.head, None)]
        for segment in list(self.segments):
            if segment.left or segment is self._current:
                continue
            if not any(head < segment.end and (end is None or segment.base < end) for head, end in intervals):
                self._delete(segment)

    def next_piece(self, lane: Lane | None = None) -> Piece | None:
        """Return what of a lane to read back next, or None while its cache holds readings or none is left on disk."""
        lane = lane or self.next_lane()
        if lane.cache or not self.left_of(lane):
            return None
        segment = next(s for s in self.segments if s.left and s.end > lane.head)
        return Piece(lane, segment, max(lane.cached_to, segment.base), segment.end, segment.left)

    def install(self, piece: Piece, found: Found) -> int:
        """Put what `read` found into the cache; return how many readings damage took.

        Nothing happens when the readings were dropped or thinned in the meantime.
        """
        lane = piece.lane
        if piece.segment not in self.segments or not piece.segment.left or lane.cache or lane not in self.lanes:
            return 0
        missing = piece.expected - len(found.entries)
        piece.segment.left -= missing
        lane.cache.extend(found.entries)
        lane.ends.extend(found.ends)
        lane.cached_to = piece.end
        lane.is_caching = lane is self._live and piece.end == self.end and len(lane.cache) < CACHE_READINGS
        self._count_off(lane, missing)
        return missing

    # --- dropping and thinning -------------------------------------------------------------

    def marks_without(self, piece: Piece) -> Marks:
        """Return what will be un-numbered after `drop`."""
        return self._moved(piece.lane, piece.segment.end, piece.segment.left)

    def drop(self, piece: Piece) -> None:
        """Forget the readings that `to_drop` named and delete their file."""
        segment, lane = piece.segment, piece.lane
        lane.skip_to(segment.end)
        left, segment.left = segment.left, 0
        self._count_off(lane, left)
        if lane is self._live and not self.left_of(lane):
            lane.is_caching = True
        self._delete(segment)

    def to_thin(self) -> list[Segment]:
        """Return the files to thin next as one; empty when none is whole and closed."""
        # Most devices never thin: they need not pay for its import.
        from device_sdk.thinning import Stretch, pick

        whole, stretches = [], []
        before: Segment | None = None
        for segment in self.segments:
            lane = self._lane_of(segment.base)
            if segment.left and segment is not self._current and lane.head <= segment.base:
                is_joined = before is not None and before.end == segment.base and before.base >= lane.head
                whole.append(segment)
                stretches.append(Stretch(segment.level, segment.size, is_joined))
            before = segment
        chosen = pick(stretches, 2 * self.segment_bytes)
        return whole[chosen.start : chosen.stop]

    def replace(self, sources: Sequence[Segment], thinned: Thinned) -> None:
        """Let a thinned file stand for others; they are deleted by `delete_replaced`, once that is durable."""
        new, at = thinned.segment, self.segments.index(sources[0])
        lane = self._lane_of(new.base)
        for source in sources:
            self.segments.remove(source)
        self.segments.insert(at, new)
        self._replaced.extend(sources)
        self.bytes += new.size
        lane.forget_from(new.base)
        self._count_off(lane, sum(source.left for source in sources) - new.left)

    def delete_replaced(self, count: int) -> None:
        """Delete the first ``count`` of the replaced files."""
        for segment in self._replaced[:count]:
            self.bytes -= segment.size
            with contextlib.suppress(OSError):
                segment.path.unlink()
        del self._replaced[:count]

    # --- private ---------------------------------------------------------------------------

    def _lane_of(self, position: int) -> Lane:
        return next(lane for lane in self.lanes if lane.end is None or position < lane.end)

    def _moved(self, lane: Lane, head: int, count: int) -> Marks:
        """Return the marks when ``count`` readings of a lane are gone; one that is empty then is gone too."""
        if lane is self._live:
            return Marks(head, self.marks().lanes)
        closed = [(head if one is lane else one.head, one.end or 0) for one in self.lanes[:-1]]
        if lane.left <= count:
            closed.pop(self.lanes.index(lane))
        return Marks(self._live.head, closed)

    def _count_off(self, lane: Lane, count: int) -> None:
        """Note that readings of a lane are gone; the last one of a closed lane takes the lane with it."""
        self.left -= count
        if lane is not self._live:
            lane.left -= count
            if not lane.left:
                self.lanes.remove(lane)

    def _delete(self, segment: Segment) -> None:
        self.segments.remove(segment)
        self.bytes -= segment.size
        # A file that cannot be deleted now (an open one on Windows) is deleted at the next start.
        with contextlib.suppress(OSError):
            segment.path.unlink()
