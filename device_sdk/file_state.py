"""The state of a spool in files: events written ahead, fsyncs, snapshots, and how much disk is left for readings.

Owns: the order in which files become durable and go, the limit on disk. Place:
after `recovery`, before `file_spool`, whose steps it serves. Must not: decide
what is cut or dropped.

A disk that is full before the limit is reached sets a lower one, so that the oldest readings
make room for what must be written to deliver the others; while it has room again the
limit grows back.

When an event could not be written, or an fsync failed, ``_is_suspect`` makes the next step
write the whole state to a new file: after a failed fsync the kernel may take lost
pages for clean.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from device_sdk import disk, spool_event
from device_sdk.disk import is_full
from device_sdk.errors import Reason
from device_sdk.lane import Piece
from device_sdk.outbox import Durability, Entry, WhenFull, ranges_of
from device_sdk.reading_file import Segment, renew
from device_sdk.recovery import Recovered
from device_sdk.spool_base import MIN_LIMIT_BYTES, SpoolBase, body_limit, window_limit
from device_sdk.state_log import Event, Unsynced

# The state log is written anew when it is this much longer than twice its snapshot.
MAX_STATE_SLACK_BYTES = 1024 * 1024
# The largest file of readings; one of them is dropped at a time, which takes `record` about 6 ms.
MAX_SEGMENT_BYTES = 256 * 1024
# How much of its files a spool lets go when the disk is full: room for a snapshot and some frames.
_YIELD_PARTS = 8


class FileState(SpoolBase):
    """What the steps of `FileSpool` stand on; see there for the arguments and the two locks."""

    def __init__(
        self,
        path: Path,
        found: Recovered,
        *,
        boot: str,
        segment_bytes: int,
        max_bytes: int,
        when_full: WhenFull,
        durability: Durability,
        random_bytes: Callable[[int], bytes],
        sync_file: Callable[[int], None],
    ) -> None:
        super().__init__(
            found.outbox,
            max_bytes=max_bytes,
            when_full=when_full,
            random_bytes=random_bytes,
            last_ns=found.last_ns,
        )
        self._wanted_bytes: Final = max_bytes
        self._segment_bytes = segment_bytes
        self._slack_bytes = min(max_bytes // 64, MAX_STATE_SLACK_BYTES)
        self._path: Final = path
        self._boot: Final = boot
        self._durability: Final = durability
        self._is_fsynced: Final = durability == "fsync"
        self._sync_file: Final = sync_file
        self._readings: Final = found.readings
        self._state: Final = found.state_log
        self._damage: Final = found.damage
        self._step: Final = threading.Lock()
        self._held: Final[deque[Entry]] = deque()
        self._is_held_explicit = False
        self._error: str | None = None
        self._is_suspect = True
        self._is_dirty = True
        self._durable_next = found.outbox.next
        self._synced_end = self._synced_base = -1
        self._limit_bytes = max_bytes
        self._begun_bytes = 0  # the last snapshot without the bodies of frames

    # --- durable, with ``_step`` held -------------------------------------------------------

    def _sync(self) -> None:
        with self._lock:
            self._write_held()
        try:
            self._sync_readings()
            with self._lock:
                self._error = None if not self._held else self._error
                self._grow_back()
        except OSError as error:
            with self._lock:
                self._note(error)
        if self._is_dirty or self._is_suspect:
            self._make_durable()

    def _sync_readings(self) -> None:
        """Fsync what was recorded; first what an earlier fsync failed for, as nothing else can do while that fails.

        Raises:
            OSError: not all of it is on the medium.
        """
        log = self._readings
        while (suspect := log.suspect()) is not None:
            copy = renew(suspect, self._sync_file)
            self._synced_base = -1  # its new name is owed, also when the fsync of that fails once
            with self._lock:
                log.renewed(suspect, copy)
        with self._lock:
            end, base = log.end, log.segments[-1].base if log.segments else -1
            closed, current = log.owed() if end != self._synced_end else ([], None)
        for segment in closed:
            self._sync_segment(segment)
            with self._lock:
                log.synced(segment)
        if current is not None:
            self._sync_segment(current)
        if base != self._synced_base:
            disk.sync_directory(self._path)
        self._synced_end, self._synced_base = end, base

    def _sync_segment(self, segment: Segment) -> None:
        fd = disk.open_existing(segment.path)
        if fd < 0:
            with self._lock:
                if self._readings.is_current(segment):  # somebody deleted it: what follows goes to another
                    self._readings.distrust(segment)
                    raise FileNotFoundError(errno.ENOENT, f"{segment.path.name} is gone")
            return
        try:
            self._sync_file(fd)
        except OSError:
            with self._lock:
                self._readings.distrust(segment)
            raise
        finally:
            os.close(fd)

    def _make_durable(self) -> bool:
        """Fsync the state log, then delete the files it replaces; False (and suspect) when that failed."""
        with self._lock:
            if self._is_suspect and not self._begin():
                return False
            try:
                unsynced = self._state.take_unsynced()
            except OSError as error:  # no descriptor is free; the next step tries again
                self._note(error)
                return False
            marks, replaced, cut_to = self._readings.marks(), self._readings.replaced_count, self._outbox.next
            self._is_dirty = False
        try:
            self._sync_state(unsynced)
        except OSError as error:
            with self._lock:
                self._note(error)
                self._is_suspect = True
                self._state.sync_failed()
            return False
        with self._lock:
            self._state.synced(unsynced)
            self._readings.delete_numbered(marks)
            self._readings.delete_replaced(replaced)
            self._durable_next = cut_to
            self._budget()
            if not self._held:
                self._error = None
        return True

    def _sync_state(self, unsynced: Unsynced) -> None:
        try:
            self._sync_file(unsynced.fd)
            if unsynced.has_new_name:
                disk.sync_directory(self._path)
        finally:
            os.close(unsynced.fd)

    def _apply_durably(self, event: Event, apply: Callable[[], None]) -> None:
        """Do a step of its own: write, apply, fsync. Takes ``_step`` itself."""
        with self._step:
            with self._lock:
                self._check_open()
                self._write(event)
                apply()
                self._shorten()
            self._make_durable()

    # --- under the lock ---------------------------------------------------------------------

    def _write_held(self, now_ns: int = 0) -> bool:
        """Write what `_hold` kept; False when the disk still takes nothing."""
        try:
            while self._held:  # one by one: while the disk is full each `record` tries only the first
                self._readings.append((self._held[0],), max(now_ns, self._readings.last_ns), self._is_held_explicit)
                self._held.popleft()
            self._is_held_explicit = False
        except OSError as error:
            self._note(error)
            return False
        return True

    def _over_bytes(self) -> int:
        """Return how many bytes of readings are beyond the limit; files that are thinned already do not count."""
        return self._readings.bytes - self._readings.replaced_bytes - self._limit_bytes

    def _write(self, event: Event) -> bool:
        """Append an event that a power cut may take back; a failure (False) is repaired by the next step."""
        self._is_dirty = True
        is_written = True
        try:
            self._state.append(event)
        except OSError as error:
            self._note(error)
            self._is_suspect = True
            is_written = False
        self._budget()
        return is_written

    def _lose(self, reason: Reason, count: int, entries: Collection[Entry], dropped: Piece | None = None) -> None:
        """Declare a loss, and drop what it names before a new snapshot could tell the one without the other."""
        ranges = ranges_of(entries)
        marks = None if dropped is None else self._readings.marks_without(dropped)
        self._write(spool_event.lose_event(reason, count, ranges, marks=marks))
        self._outbox.lose(reason, count, ranges)
        if dropped is not None:
            self._readings.drop(dropped)
        self._shorten()

    def _shorten(self) -> bool:
        """Begin a new state file when this one is long; True when one was begun."""
        return self._state.is_long(self._slack_bytes) and self._begin()

    def _begin(self) -> bool:
        log = self._readings
        state = spool_event.State(
            self._outbox, log.marks(), log.last_ns, boot=self._boot, durability=self._durability,
            damage=self._damage, thinned=log.thinned,
        )  # fmt: skip
        try:
            self._state.begin(spool_event.snapshot(state))
        except OSError as error:
            self._note(error)
            return False
        self._is_dirty, self._is_suspect = True, False
        self._begun_bytes = max(0, self._state.snapshot_bytes - self._outbox.body_bytes)
        self._budget()
        return True

    def _budget(self) -> None:
        """Set how many bytes of readings fit beside the state, which grows to two long files and a snapshot at most."""
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        bodies = window_limit(self._max_bytes) + body_limit(self._max_bytes)
        reserve = 5 * (bodies + self._begun_bytes) + 2 * self._slack_bytes
        state_bytes = max(reserve, self._state.bytes + self._state.snapshot_bytes)
        # One file may still grow beyond the limit; thinning has the copy of two on the disk beside them.
        room = self._segment_bytes * (3 if self._when_full == "thin" else 1)
        self._limit_bytes = max(self._max_bytes - state_bytes, 6 * self._segment_bytes) - room

    def _waiting(self) -> int:
        return self._readings.left + len(self._held)

    def _backlog(self) -> int:
        return self._readings.backlog

    def _oldest_waiting_ns(self) -> int | None:
        oldest_ns = self._readings.oldest_ns()
        return self._held[0][1] if oldest_ns is None and self._held else oldest_ns

    def _used_bytes(self) -> int:
        return self._readings.bytes + self._state.bytes

    def _disk_error(self) -> str | None:
        return self._error

    def _note_time(self, offset: int) -> None:
        self._write(spool_event.time_event(offset))

    def _grow_back(self) -> None:
        """Use more of the disk again where the limit is lower than wanted and about to be reached."""
        if self._max_bytes < self._wanted_bytes and not self._held and self._over_bytes() + 2 * self._segment_bytes > 0:
            self._set_limit(2 * self._max_bytes)

    def _set_limit(self, max_bytes: int) -> None:
        self._max_bytes = max(MIN_LIMIT_BYTES, min(max_bytes, self._wanted_bytes))
        self._segment_bytes = self._readings.segment_bytes = segment_limit(self._max_bytes)
        self._slack_bytes = min(self._max_bytes // 64, MAX_STATE_SLACK_BYTES)
        self._budget()

    def _note(self, error: OSError) -> None:
        if is_full(error) and not self._state.free_space():
            used_bytes = self._used_bytes()
            self._set_limit(used_bytes - used_bytes // _YIELD_PARTS)
        self._error = f"{error.strerror or error} ({self._path})"


def segment_limit(max_bytes: int) -> int:
    """Return how large a file of readings becomes in a spool of this size."""
    return min(max_bytes // 32, MAX_SEGMENT_BYTES)
