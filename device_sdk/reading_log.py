"""Un-numbered readings on disk: append-only segments, deleted when their readings are numbered.

Owns: the files ``readings-….log``: appending, reading back, and which of them stand at a
start. Place: after `lane`, which keeps count, before `file_spool`, whose record lock
guards it. Must not: number, acknowledge, or decide when to drop.

A position is the count of bytes ever appended; a file is named by the position
of its first byte, so damage, a thinned or a lost file shifts nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from device_sdk import disk
from device_sdk.lane import CACHE_READINGS, Found, Lane, Marks, Piece, ReadingLanes
from device_sdk.outbox import MAX_LANES, Entry
from device_sdk.reading import Value
from device_sdk.reading_file import COPY_SUFFIX, PREFIX, FileName, Segment, choose_standing, list_files
from device_sdk.segment import ReadingDecoder, Scan, encode_header, encode_reading


class ReadingLog(ReadingLanes):
    """The un-numbered readings of one spool.

    Args:
        directory: exists and is locked.
        segment_bytes: a new file begins beyond this size; also the unit of dropping.
        marks: which positions are un-numbered, as the state log knows it.
        last_ns: latest instant given to a reading, as the state log knows it.
        thinned: thinned files the state log knows.

    After construction ``found_damage`` says, by segment base, how many places could
    not be read, ``torn_base`` names the last file when its end is one of them,
    ``is_missing`` says that a file between others is not there, and ``last_uptime`` the
    last position on the line of uptime in any file, -1 for none.
    """

    def __init__(
        self, directory: Path, segment_bytes: int, marks: Marks, last_ns: int, thinned: Collection[FileName] = ()
    ) -> None:
        super().__init__(segment_bytes, marks)
        self._directory = directory
        self.last_ns = last_ns
        self.last_uptime = -1
        self.found_damage: dict[int, int] = {}
        self.is_missing = False
        self.torn_base: int | None = None
        self._names: dict[str, bytes] = {}
        self._fd = -1
        self._seed = 0
        self._unsynced: list[Segment] = []
        self._suspect: list[Segment] = []
        self._load(thinned)

    # --- appending -------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry], now_ns: int, is_explicit: bool = False) -> None:
        """Append readings; on return the operating system has them. ``is_explicit``: their time was given.

        ``now_ns``: times beyond it were given by hand; 0 while the clock is not set.

        Raises:
            OSError: none of them was written.
        """
        current = self._current
        if is_explicit:
            current = self._file_for_given()
        elif current is None or current.end - current.base >= self.segment_bytes:
            current = self.rotate()
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
        live = self._live
        if live.is_caching:
            live.cache.extend(entries)
            live.ends.extend(ends)
            if len(live.cache) >= CACHE_READINGS:
                live.is_caching, live.cached_to = False, current.end

    def append_one(self, channel: str, time_ns: int, value: Value, now_ns: int) -> None:
        """Do as `append` for one reading whose time was not given, without loops and lists: what most sensors do.

        Raises:
            OSError: it was not written.
        """
        current = self._current
        if current is None or current.end - current.base >= self.segment_bytes:
            current = self.rotate()
        is_future = time_ns > now_ns and time_ns > self.last_ns + 1
        data = encode_reading(self._seed, self._names.get(channel) or self._name(channel), time_ns, value, is_future)
        size = len(data)
        if os.write(self._fd, data) != size:
            self._undo_short_write(current)
        if not is_future and time_ns > self.last_ns:
            self.last_ns = time_ns
        end = current.end = current.end + size
        current.left += 1
        self.left += 1
        self.bytes += size
        live = self._live
        if live.is_caching:
            live.cache.append((channel, time_ns, value))
            live.ends.append(end)
            if len(live.ends) >= CACHE_READINGS:
                live.is_caching, live.cached_to = False, end

    def _file_for_given(self) -> Segment:
        """Return the file for a reading with a given time: one whose header says that it may hold such."""
        current = self._current
        if current is None or current.end - current.base >= self.segment_bytes or not current.given_to:
            current = self.rotate(is_explicit=True)
        current.given_to = current.end + 1
        return current

    def rotate(self, is_explicit: bool = False) -> Segment:
        """Begin a new file; the old one's fsync is owed.

        ``is_explicit``: it may hold readings with a given time; the header says so, and nothing else has to.

        Raises:
            OSError: it cannot be made; the old one stays.
        """
        base = max(self.end, self._live.head)
        segment = Segment(FileName(base).path_in(self._directory), base, base)
        header = encode_header(segment.seed, self.last_ns, is_explicit)
        fd = disk.open_append(segment.path)
        try:
            disk.append(fd, header)
        except OSError:
            os.close(fd)
            segment.path.unlink(missing_ok=True)
            raise
        segment.end += len(header)
        segment.given_to = segment.end if is_explicit else 0
        self._close_current()
        self._fd, self._seed, self._current = fd, segment.seed, segment
        self.segments.append(segment)
        self.bytes += segment.size
        return segment

    def close(self) -> None:
        """Close the file that is appended to; nothing may be called afterwards."""
        self._close_current()

    # --- durable ---------------------------------------------------------------------------

    def owed(self) -> tuple[list[Segment], Segment | None]:
        """Return the closed files that owe an fsync, and the one that is appended to; tell what came of them.

        `synced`, for a closed one, or `distrust`.
        """
        return list(self._unsynced), self._current

    def is_current(self, segment: Segment) -> bool:
        """Say whether a file is the one that is appended to."""
        return segment is self._current

    def synced(self, segment: Segment) -> None:
        """Note that a file which was closed before its fsync is on the medium, or gone."""
        if segment in self._unsynced:
            self._unsynced.remove(segment)

    def distrust(self, segment: Segment) -> None:
        """Note that a file's fsync failed: the kernel may take its lost pages for clean, so it is written anew."""
        if segment is self._current:
            self._close_current()
        self.synced(segment)
        self._suspect.append(segment)

    def suspect(self) -> Segment | None:
        """Return a file that is to be written anew."""
        return self._suspect[0] if self._suspect else None

    def renewed(self, segment: Segment, copy: Path | None) -> None:
        """Put a durable copy in the place of a suspect file; None: the file cannot be read, and shows its damage later.

        Raises:
            OSError: the copy cannot take its place; the file stays suspect.
        """
        if copy is not None:
            if segment in self.segments:
                copy.replace(segment.path)
            else:
                copy.unlink()  # its readings were numbered or dropped meanwhile
        self._suspect.remove(segment)

    # --- lanes, reading back, dropping -----------------------------------------------------

    def split(self) -> bool:
        """Close the open lane here, so that what is appended next can be cut before it; False when it must not be.

        It must not while readings with a given time wait in it, which stay in order among themselves, nor beyond
        `MAX_LANES`.

        Raises:
            OSError: the new file cannot be made; nothing changed.
        """
        is_explicit = any(s.left and s.given_to > self._lane_of(s.base).head for s in self.segments)
        left = self.left_of(self._live)
        if is_explicit or not left or len(self.lanes) >= MAX_LANES:
            return False
        border = self.rotate().base
        closed = self._live
        closed.close(border, left)
        if closed is not self.lanes[0]:
            closed.forget_from(closed.head)
        self._live = Lane(border)
        self.lanes.append(self._live)
        return True

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
        for payload, at in Scan(data, segment.seed, start=piece.start - segment.base):
            entry = decoder.decode(payload)
            if entry is not None:
                entries.append(entry)
                ends.append(segment.base + at)
        return Found(entries, ends)

    def to_drop(self) -> Piece:
        """Return the oldest un-numbered readings, one file of them; begins a new file when all are in the current one.

        Raises:
            OSError: the new file cannot be made.
        """
        segment = next(s for s in self.segments if s.left)
        if segment is self._current:
            self.rotate()
        lane = self._lane_of(segment.base)
        return Piece(lane, segment, max(lane.head, segment.base), segment.end, segment.left)

    # --- private ---------------------------------------------------------------------------

    def _load(self, thinned: Collection[FileName]) -> None:
        is_whole = True
        for path, name in self._standing(thinned):
            lane = self._lane_of(name.base)
            segment = Segment(path, name.base, name.base if name.end is None else name.end, level=name.level)
            is_whole = self._scan(segment, lane)
            self.is_missing = self.is_missing or self._is_hole(self.end if self.segments else 0, segment.base)
            self.segments.append(segment)
            self.bytes += segment.size
        for lane in self.lanes:
            lane.is_caching = lane is self._live and len(lane.cache) == self.left_of(lane)
        for lane in [lane for lane in self.lanes[:-1] if not lane.left]:
            self.lanes.remove(lane)
        if is_whole and self.segments and self._live.head <= self.end and not self.segments[-1].level:
            self._resume(self.segments[-1])
        # A process that was killed may have left any of them to the kernel.
        self._unsynced = [s for s in self.segments if s is not self._current and not s.level]

    def _resume(self, segment: Segment) -> None:
        """Append to the last file again, so that a program that restarts each second does not leave a file each."""
        if self._lane_of(segment.base) is not self._live:
            return
        with contextlib.suppress(OSError):
            self._fd = disk.open_append(segment.path)
            self._seed, self._current = segment.seed, segment

    def _standing(self, thinned: Collection[FileName]) -> list[tuple[Path, FileName]]:
        """Return the files that count, in order; delete what a kill left beside them."""
        for left in self._directory.glob(f"{PREFIX}*{COPY_SUFFIX}"):
            with contextlib.suppress(OSError):
                left.unlink()
        found = list_files(self._directory)
        standing = choose_standing([name for _, name in found], thinned)
        stands: list[tuple[Path, FileName]] = []
        for path, name in found:
            # An empty one is what a power cut leaves of a name that was synced before its bytes. The next file may
            # get the same name, and must not go with it.
            if name in standing and path.stat().st_size:
                stands.append((path, name))
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        return stands

    def _close_current(self) -> None:
        """Append no more to the file; its fsync is owed."""
        if self._current is not None:
            os.close(self._fd)
            standing = set(map(id, self.segments))
            self._unsynced = [segment for segment in self._unsynced if id(segment) in standing]
            self._unsynced.append(self._current)
        self._fd, self._current = -1, None

    def _is_hole(self, end: int, base: int) -> bool:
        """Say whether something un-numbered lay between two files."""
        return any(max(lane.head, end) < min(base, base if lane.end is None else lane.end) for lane in self.lanes)

    def _scan(self, segment: Segment, lane: Lane) -> bool:
        """Count and cache what is un-numbered in a file; return True when all of it could be read."""
        data = self._bytes_of(segment)
        if segment.level:
            segment.saved = segment.size - len(data)
        else:
            segment.end = segment.base + len(data)
        numbered = max(0, lane.head - segment.base)
        decoder = ReadingDecoder()
        before = Scan(data[:numbered], segment.seed)
        for payload, _ in before:
            decoder.decode(payload)
        scan = Scan(data, segment.seed, start=numbered)
        # Only the oldest readings are cached: those of the first lane that has any, as far as they reach.
        cache = lane.cache if self.left == self.left_of(lane) == len(lane.cache) else None
        for payload, at in scan:
            entry = decoder.decode(payload)
            if entry is None:
                continue
            segment.left += 1
            if segment.first_ns is None:
                segment.first_ns = entry[1]
            if cache is not None and len(cache) < CACHE_READINGS:
                cache.append(entry)
                lane.ends.append(segment.base + at)
                lane.cached_to = segment.base + at
        self.left += segment.left
        if lane is not self._live:
            lane.left += segment.left
        segment.given_to = segment.end if decoder.is_explicit else 0
        self.last_ns = max(self.last_ns, decoder.last_ns)
        self.last_uptime = max(self.last_uptime, decoder.last_uptime)
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

    def _name(self, channel: str) -> bytes:
        name = self._names[channel] = channel.encode()
        return name

    def _undo_short_write(self, segment: Segment) -> None:
        try:
            os.ftruncate(self._fd, segment.size)
        except OSError:
            self._close_current()  # the half record stays, as damage; what follows goes into a new file
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
