"""Un-numbered readings on disk: append-only segments, deleted from the front.

Owns: the files ``readings-<position>.log``, the cache of their oldest readings.
Place: after `segment` and `disk`, before `file_spool`, whose record lock guards
it. Must not: number, acknowledge, or decide what to drop.

A position is the count of bytes ever appended; a file is named by the position
of its first byte, so damage or a lost file shifts nothing. Readings before
`head` are numbered or dropped. The cache holds the oldest of the others: all of them
while `_is_caching`, else those up to `_cached_to`; newer ones stay on disk until they
are read back (`next_piece`, `read`, `install`).
"""

import contextlib
import errno
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from device_sdk import disk
from device_sdk.outbox import Entry
from device_sdk.segment import ReadingDecoder, Scan, encode_header, encode_reading, seed_of

# Readings kept in memory; 20,000 are about 4 MB and ten seconds of a very fast device.
CACHE_READINGS = 20_000
_PREFIX, _SUFFIX = "readings-", ".log"
# Closed files whose fsync is still owed; beyond this the oldest is left to the kernel's own write-back.
_MAX_UNSYNCED = 8


class Segment:
    """One file: its first position, the one behind its last, and how many of its readings are un-numbered."""

    __slots__ = ("base", "end", "left", "path")

    def __init__(self, path: Path, base: int, end: int, left: int = 0) -> None:
        self.path = path
        self.base = base
        self.end = end
        self.left = left

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.base


class Piece(NamedTuple):
    """A stretch of one segment to read back, and how many readings must be in it."""

    segment: Segment
    start: int
    end: int
    expected: int


class Found(NamedTuple):
    """What `ReadingLog.read` found: readings and the position behind each."""

    entries: list[Entry]
    ends: list[int]


class ReadingLog:
    """The un-numbered readings of one spool.

    Args:
        directory: exists and is locked.
        segment_bytes: a new file begins beyond this size; also the unit of dropping.
        head: position from which readings are un-numbered, as the state log knows it.
        last_ns: latest instant given to a reading, as the state log knows it.

    After construction ``found_damage`` says, by segment base, how many places could
    not be read, ``torn_base`` names the last file when its end is one of them, and
    ``is_missing`` says that a file between others is not there.
    """

    def __init__(self, directory: Path, segment_bytes: int, head: int, last_ns: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self.head = head
        self.last_ns = last_ns
        self.segments: deque[Segment] = deque()
        self.left = 0
        self.bytes = 0
        self.found_damage: dict[int, int] = {}
        self.is_missing = False
        self.torn_base: int | None = None
        self._names: dict[str, bytes] = {}
        self._fd = -1
        self._seed = 0
        self._current: Segment | None = None
        self._unsynced: list[int] = []
        self._cache: deque[Entry] = deque()
        self._ends: deque[int] = deque()
        self._cached_to = head
        self._is_caching = True
        self._load()

    @property
    def end(self) -> int:
        """Position behind the last reading written."""
        return self.segments[-1].end if self.segments else self.head

    def oldest_ns(self) -> int | None:
        """Return the time of the oldest un-numbered reading in memory."""
        return self._cache[0][1] if self._cache else None

    # --- appending -------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry], now_ns: int) -> None:
        """Append readings; on return the operating system has them.

        Raises:
            OSError: none of them was written.
        """
        current = self._current
        if current is None or current.end - current.base >= self._segment_bytes:
            current = self.rotate()
        if len(entries) == 1:
            self._append_one(current, entries[0], now_ns)
            return
        seed, names, last_ns, count = self._seed, self._names, self.last_ns, len(entries)
        data, ends = b"", []
        for channel, time_ns, value in entries:
            is_future = False
            if time_ns > last_ns:
                # A bumped instant may pass now by a few ns; only a time far beyond was given by hand.
                is_future = time_ns > now_ns and time_ns > last_ns + count
                if not is_future:
                    last_ns = time_ns
            name = names.get(channel) or self._name(channel)
            record = encode_reading(seed, name, time_ns, value, is_future)
            data = data + record if data else record
            ends.append(current.end + len(data))
        size = len(data)
        if os.write(self._fd, data) != size:
            self._undo_short_write(current)
        self.last_ns = last_ns
        current.end += size
        current.left += count
        self.left += count
        self.bytes += size
        if self._is_caching:
            self._cache.extend(entries)
            self._ends.extend(ends)
            if len(self._cache) >= CACHE_READINGS:
                self._is_caching, self._cached_to = False, current.end

    def _append_one(self, current: Segment, entry: Entry, now_ns: int) -> None:
        """Do as `append` for one reading, without its loop and lists: the loop of most sensors."""
        channel, time_ns, value = entry
        last_ns, is_future = self.last_ns, False
        if time_ns > last_ns:
            if time_ns <= now_ns or time_ns <= last_ns + 1:
                last_ns = time_ns
            else:
                is_future = True
        data = encode_reading(self._seed, self._names.get(channel) or self._name(channel), time_ns, value, is_future)
        size = len(data)
        if os.write(self._fd, data) != size:
            self._undo_short_write(current)
        self.last_ns = last_ns
        end = current.end = current.end + size
        current.left += 1
        self.left += 1
        self.bytes += size
        if self._is_caching:
            self._cache.append(entry)
            self._ends.append(end)
            if len(self._ends) >= CACHE_READINGS:
                self._is_caching, self._cached_to = False, end

    def rotate(self) -> Segment:
        """Begin a new file; the old one is fsynced with the next `take_unsynced`.

        Raises:
            OSError: it cannot be made; the old one stays.
        """
        base = max(self.end, self.head)
        path = self._directory / f"{_PREFIX}{base:020d}{_SUFFIX}"
        seed = seed_of(base)
        header = encode_header(seed, self.last_ns)
        fd = disk.open_append(path)
        try:
            disk.append(fd, header)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._fd >= 0:
            self._unsynced.append(self._fd)
            if len(self._unsynced) > _MAX_UNSYNCED:
                os.close(self._unsynced.pop(0))
        segment = Segment(path, base, base + len(header))
        self._fd, self._seed, self._current = fd, seed, segment
        self.segments.append(segment)
        self.bytes += segment.size
        return segment

    def take_unsynced(self) -> list[int]:
        """Return descriptors that owe an fsync; the caller syncs and closes them."""
        owed, self._unsynced = self._unsynced, []
        if self._fd >= 0:
            owed.append(os.dup(self._fd))
        return owed

    def close(self) -> None:
        """Close the files; nothing may be called afterwards."""
        for fd in (*self._unsynced, self._fd):
            if fd >= 0:
                os.close(fd)
        self._unsynced, self._fd = [], -1

    # --- taking from the front -------------------------------------------------------------

    def first(self, count: int) -> list[Entry]:
        """Return up to ``count`` of the oldest readings without taking them; only what the cache holds."""
        return list(islice(self._cache, count))

    def position_after(self, count: int) -> int:
        """Return the position behind the ``count`` oldest readings of the cache."""
        return self._ends[count - 1] if count else self.head

    def consume(self, count: int) -> None:
        """Take the ``count`` oldest readings of the cache: they are numbered now. No file is deleted yet."""
        if not count:
            return
        ends = [self._ends.popleft() for _ in range(count)]
        for _ in range(count):
            self._cache.popleft()
        self.head = ends[-1]
        self.left -= count
        taken = 0
        for segment in self.segments:
            upto = bisect_right(ends, segment.end)
            segment.left -= upto - taken
            taken = upto
            if taken == count:
                break

    def delete_before(self, head: int) -> None:
        """Delete the files that end at or before ``head``: a position durable in the state log."""
        while self.segments and self.segments[0].end <= head and self.segments[0] is not self._current:
            self._delete(self.segments[0])

    def next_piece(self) -> Piece | None:
        """Return what to read back next, or None while the cache holds readings or nothing is left on disk."""
        if self._cache or not self.left:
            return None
        segment = next(s for s in self.segments if s.left)
        return Piece(segment, max(self._cached_to, segment.base), segment.end, segment.left)

    def read(self, piece: Piece) -> Found:
        """Return the readings of a piece that are whole; needs no lock."""
        segment = piece.segment
        try:
            with segment.path.open("rb") as file:
                data = file.read(piece.end - segment.base)
        except OSError:
            data = b""
        entries, ends = [], []
        decoder = ReadingDecoder()
        for payload, at in Scan(data, seed_of(segment.base), start=piece.start - segment.base):
            entry = decoder.decode(payload)
            if entry is not None:
                entries.append(entry)
                ends.append(segment.base + at)
        return Found(entries, ends)

    def install(self, piece: Piece, found: Found) -> int:
        """Put what `read` found into the cache; return how many readings damage took.

        Nothing happens when readings were dropped in the meantime.
        """
        if self.next_piece() is None or piece.segment not in self.segments or not piece.segment.left:
            return 0
        missing = piece.expected - len(found.entries)
        piece.segment.left -= missing
        self.left -= missing
        self._cache.extend(found.entries)
        self._ends.extend(found.ends)
        self._cached_to = piece.end
        self._is_caching = piece.end == self.end and len(self._cache) < CACHE_READINGS
        return missing

    def to_drop(self) -> Piece:
        """Return the oldest un-numbered readings, one file of them; begins a new file when all are in the current one.

        Raises:
            OSError: the new file cannot be made.
        """
        segment = next(s for s in self.segments if s.left)
        if segment is self._current:
            self.rotate()
        return Piece(segment, max(self.head, segment.base), segment.end, segment.left)

    def drop(self, piece: Piece) -> None:
        """Forget the readings that `to_drop` named and delete their file."""
        segment = piece.segment
        while self._ends and self._ends[0] <= segment.end:
            self._ends.popleft()
            self._cache.popleft()
        self.left -= segment.left
        segment.left = 0
        self.head = segment.end
        self._cached_to = max(self._cached_to, segment.end)
        if not self.left:
            self._is_caching = True
        self._delete(segment)

    # --- private ---------------------------------------------------------------------------

    def _load(self) -> None:
        is_whole = True
        for path, base in self._files():
            segment = Segment(path, base, base)
            is_whole = self._scan(segment)
            self.is_missing = self.is_missing or base > max(self.end, self.head)
            self.segments.append(segment)
            self.bytes += segment.size
        self._is_caching = len(self._cache) == self.left
        if is_whole and self.segments and self.head <= self.end:
            self._resume(self.segments[-1])
        self.delete_before(self.head)

    def _resume(self, segment: Segment) -> None:
        """Append to the last file again, so that a program that restarts each second does not leave a file each."""
        with contextlib.suppress(OSError):
            self._fd = disk.open_append(segment.path)
            self._seed, self._current = seed_of(segment.base), segment

    def _files(self) -> Iterator[tuple[Path, int]]:
        for path in sorted(self._directory.glob(f"{_PREFIX}*{_SUFFIX}")):
            number = path.name[len(_PREFIX) : -len(_SUFFIX)]
            if number.isascii() and number.isdigit():
                yield path, int(number)

    def _scan(self, segment: Segment) -> bool:
        """Count and cache what is un-numbered in a file; return True when all of it could be read."""
        data = self._bytes_of(segment)
        segment.end = segment.base + len(data)
        seed, numbered = seed_of(segment.base), max(0, self.head - segment.base)
        decoder = ReadingDecoder()
        before = Scan(data[:numbered], seed)
        for payload, _ in before:
            decoder.decode(payload)
        scan = Scan(data, seed, start=numbered)
        for payload, at in scan:
            entry = decoder.decode(payload)
            if entry is None:
                continue
            segment.left += 1
            if len(self._cache) < CACHE_READINGS and len(self._cache) == self.left + segment.left - 1:
                self._cache.append(entry)
                self._ends.append(segment.base + at)
                self._cached_to = segment.base + at
        self.left += segment.left
        self.last_ns = max(self.last_ns, decoder.last_ns)
        self.torn_base = segment.base if scan.is_torn else None  # the last file is scanned last
        if scan.damaged:
            self.found_damage[segment.base] = scan.damaged
        return not scan.damaged and not before.damaged

    def _bytes_of(self, segment: Segment) -> bytes:
        try:
            return segment.path.read_bytes()
        except OSError:
            self.is_missing = True
            return b""

    def _delete(self, segment: Segment) -> None:
        self.segments.remove(segment)
        self.bytes -= segment.size
        # A file that cannot be deleted now (an open one on Windows) is deleted at the next start.
        with contextlib.suppress(OSError):
            segment.path.unlink()

    def _name(self, channel: str) -> bytes:
        name = self._names[channel] = channel.encode()
        return name

    def _undo_short_write(self, segment: Segment) -> None:
        try:
            os.ftruncate(self._fd, segment.size)
        except OSError:
            self._current = None  # the half record stays, as damage; what follows goes into a new file
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
