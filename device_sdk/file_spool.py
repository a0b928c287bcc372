"""The outbox in files: what `record` took survives a process kill at once, a power cut after `sync`.

Owns: the order of locks and writes, the durable steps, the limit on disk. Place:
after `reading_log`, `state_log` and `recovery`; users import it from `spool`.
Must not: read a clock, know the network.

Two locks, taken in this order. ``_step`` is held across an fsync by whoever makes
a durable step (cut, acknowledge, restart, declare, sync, close). ``_lock`` guards all
state and is never held across an fsync: `record` takes only this one.

Write-ahead: an event is in the state log before the `Outbox` changes. When it could
not be written, or an fsync failed, ``_is_suspect`` makes the next step write the whole
state to a new file: after a failed fsync the kernel may take lost pages for clean.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from device_sdk import disk, spool_event
from device_sdk.errors import Reason, SpoolError
from device_sdk.outbox import CutFrame, Durability, Entry, NextFrame, WhenFull, loss_of, ranges_of
from device_sdk.reading import Channel, Value
from device_sdk.reading_log import Piece
from device_sdk.recovery import recover
from device_sdk.spool_base import SpoolBase, body_limit, check_limit, window_limit
from device_sdk.state_log import Event

# Readings kept in memory while the disk takes none: seconds to minutes of sensors, 200 KB.
HELD_READINGS = 1_000
# The largest file of readings; one of them is dropped at a time, which takes `record` about 6 ms.
MAX_SEGMENT_BYTES = 256 * 1024
# The state log is written anew when it is this much longer than twice its snapshot.
MAX_STATE_SLACK_BYTES = 1024 * 1024


class FileSpool(SpoolBase):
    """A `Spool` in a directory (see `spool.Spool` for every method).

    Args:
        path: directory, made when absent; one process at a time.
        boot: the machine's boot id; a spool that was not closed and meets another
            boot id has lived through a power cut and begins a new stream.
        max_bytes: disk the spool may use, ≥ 256 KiB.
        when_full: ``oldest`` drops the oldest un-numbered readings, ``newest`` the new one.
        durability: ``fsync`` makes each `record` survive a power cut (milliseconds each).
        retain_bytes: disk that acked frames may use besides, for a hub that is restored from a backup.
        random_bytes: source of stream identities.
        sync_file: returns when the bytes of a descriptor are on the medium.

    Raises:
        SpoolError: the directory cannot be used, or another process holds it. Damaged
            files are no error: what can be read is kept, the loss is declared.
    """

    def __init__(
        self,
        path: Path,
        *,
        boot: str,
        max_bytes: int = 64_000_000,
        when_full: WhenFull = "oldest",
        durability: Durability = "second",
        retain_bytes: int = 0,
        random_bytes: Callable[[int], bytes] = os.urandom,
        sync_file: Callable[[int], None] = disk.sync_file,
    ) -> None:
        self._segment_bytes: Final = min(check_limit(max_bytes) // 32, MAX_SEGMENT_BYTES)
        self._slack_bytes: Final = min(max_bytes // 64, MAX_STATE_SLACK_BYTES)
        self._lock_fd: Final = _open_directory(path)
        with _closed_on_error(self._lock_fd, path):
            found = recover(
                path, boot=boot, segment_bytes=self._segment_bytes, retain_bytes=retain_bytes,
                new_stream=lambda: random_bytes(8).hex(),
            )  # fmt: skip
        super().__init__(
            found.outbox,
            max_bytes=max_bytes,
            when_full=when_full,
            random_bytes=random_bytes,
            last_ns=found.last_ns,
        )
        self._path: Final = path
        self._boot: Final = boot
        self._durability: Final = durability
        self._sync_file: Final = sync_file
        self._readings: Final = found.readings
        self._state: Final = found.state_log
        self._damage: Final = found.damage
        self._step: Final = threading.Lock()
        self._held: Final[deque[Entry]] = deque()
        self._error: str | None = None
        self._is_suspect = True
        self._is_dirty = True
        self._is_syncing = False
        self._durable_next = found.outbox.next
        self._synced_end = self._synced_base = -1
        self._limit_bytes = max_bytes
        self._begun_bytes = 0  # the last snapshot without the bodies of frames
        self._make_durable()

    @property
    def has_uncut(self) -> bool:
        with self._lock:
            # A frame that is cut but waits for a disk that failed is not out of the spool yet.
            return self._durable_next < self._outbox.next or self._outbox.has_uncut(self._waiting())

    def frames(self, after: int) -> list[CutFrame]:
        with self._lock:
            return [frame for frame in self._outbox.unacked(after) if frame.seq < self._durable_next]

    def retained(self, stream: str, after: int) -> Iterator[CutFrame]:
        return spool_event.frames_of(self._state.kept_events(), stream, after)

    # --- recording -------------------------------------------------------------------------

    def record(self, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int) -> None:
        with self._lock:
            entries = self._instants.stamp(values, time_ns, now_ns)
            log = self._readings
            if self._held or self._is_closed or log.bytes > self._limit_bytes:
                self._take(entries, now_ns)
            else:
                try:
                    log.append(entries, now_ns)
                except OSError as error:
                    self._hold(entries, error)
        if self._durability == "fsync":
            self.sync()

    def record_at_uptime(self, values: Sequence[tuple[str, Value]], time_ns: int | None, boot_ns: int) -> None:
        super().record_at_uptime(values, time_ns, boot_ns)
        if self._durability == "fsync":
            self.sync()

    def _take(self, entries: list[Entry], now_ns: int) -> None:
        """Record in any trouble: `record` itself does without asking while there is none."""
        self._check_open()
        if not self._write_held(now_ns):
            self._hold(entries, None)
        elif self._make_room(entries):
            try:
                self._readings.append(entries, now_ns)
            except OSError as error:
                self._hold(entries, error)

    def _make_room(self, new: list[Entry]) -> bool:
        """Drop what the policy says until readings are within the limit; False when it says to drop ``new``."""
        log = self._readings
        if log.bytes <= self._limit_bytes:
            return True
        if self._when_full == "newest":
            self._lose(Reason.SPOOL_FULL, len(new), new)
            return False
        while log.left and log.bytes > self._limit_bytes:
            try:
                piece = log.to_drop()
            except OSError as error:
                self._note(error)
                break
            self._lose(Reason.SPOOL_FULL, piece.expected, log.read(piece).entries, piece)
        return True

    def _hold(self, entries: list[Entry], error: OSError | None) -> None:
        """Keep readings the disk did not take; beyond the cap the new ones are dropped."""
        if error is not None:
            self._note(error)
        room = max(0, HELD_READINGS - len(self._held))
        self._held.extend(entries[:room])
        if entries[room:]:
            self._lose(Reason.DISK_FULL, len(entries) - room, entries[room:])

    def _write_held(self, now_ns: int = 0) -> bool:
        """Write what `_hold` kept; False when the disk still takes nothing."""
        try:
            while self._held:  # one by one: while the disk is full each `record` tries only the first
                self._readings.append((self._held[0],), max(now_ns, self._readings.last_ns))
                self._held.popleft()
        except OSError as error:
            self._note(error)
            return False
        return True

    # --- durable steps ---------------------------------------------------------------------

    def declare(self, channel: Channel) -> None:
        with self._step, self._lock:
            self._check_open()
            self._write(spool_event.declare_event(channel))
            self._outbox.declare(channel)

    def cut(self, max_readings: int = 1000, max_bytes: int = 200 * 1024) -> CutFrame | None:
        with self._step:
            if self._is_suspect:
                return self._cut_after_trouble()
            self._load_more()
            with self._lock:
                self._check_open()
                made = self._number(max_readings, min(max_bytes, body_limit(self._max_bytes)))
            return made.frame if made is not None and self._make_durable() else None

    def acknowledge(self, stored: int, chain: bytes, pos: str) -> None:
        with self._step:
            with self._lock:
                self._check_open()
                outbox = self._outbox
                if stored < outbox.acked:
                    return
                outbox.check_ack(stored, chain)
                ends = outbox.is_ending and stored == outbox.next - 1
                new_stream = self._new_stream() if ends else None
                self._write(spool_event.ack_event(outbox.stream, stored, pos, new_stream))
                outbox.acknowledge(stored, pos)
                if new_stream is not None:
                    outbox.restart(new_stream, stored)
                has_new_file = self._shorten()
            # An ack that a power cut takes back is harmless: the frames are sent and acked again.
            # Only a new stream, and files that are to be deleted, need the medium.
            if new_stream is not None or has_new_file:
                self._make_durable()

    def restart(self, stored: int | None, lost: Sequence[Entry] = ()) -> None:
        stream, loss = self._new_stream(), loss_of(lost)
        event = spool_event.restart_event(stream, stored, loss)
        self._apply_durably(event, lambda: self._outbox.restart(stream, stored, loss))

    def forget(self, stream: str) -> None:
        self._apply_durably(spool_event.forget_event(stream), lambda: self._outbox.forget(stream))

    def sync(self) -> None:
        with self._step:
            if not self._is_closed:
                self._sync()

    def close(self) -> None:
        with self._step:
            if self._is_closed:
                return
            with self._lock:
                if not self._write_held():
                    self._lose(Reason.DISK_FULL, len(self._held), self._held)
                    self._held.clear()
                self._is_closed = True
            self._sync()
            with self._lock:
                self._write(spool_event.close_event(self._readings.end, self._outbox.no_value))
            self._make_durable()
            self._readings.close()
            self._state.close()
            os.close(self._lock_fd)

    def _apply_durably(self, event: Event, apply: Callable[[], None]) -> None:
        with self._step:
            with self._lock:
                self._check_open()
                self._write(event)
                apply()
            self._make_durable()

    def _number(self, max_readings: int, max_bytes: int) -> NextFrame | None:
        """Build the next frame, write it, then count it as cut."""
        outbox, log = self._outbox, self._readings
        self._write_held()
        if not outbox.has_room(window_limit(self._max_bytes)):
            return None
        made = outbox.next_frame(log.first(max_readings), max_bytes)
        if made is None:
            return None
        self._shorten()
        taken = made.frame.readings if made.source == "readings" else 0
        try:
            self._state.append(spool_event.frame_event(outbox.stream, made, log.position_after(taken)))
        except OSError as error:
            self._note(error)
            return None
        outbox.add(made)
        log.consume(taken)
        return made

    def _cut_after_trouble(self) -> CutFrame | None:
        """Write the state anew; return the frame whose fsync had failed, if that was the trouble."""
        first = self._durable_next
        if not self._make_durable():
            return None
        waiting = self._outbox.unacked(first - 1)
        return waiting[0] if waiting else None

    def _load_more(self) -> None:
        """Read back readings that the cache had no room for, without keeping `record` waiting."""
        while True:
            with self._lock:
                piece = self._readings.next_piece()
            if piece is None:
                return
            found = self._readings.read(piece)
            with self._lock:
                missing = self._readings.install(piece, found)
                if missing:
                    self._outbox.damaged += 1
                    self._damage[piece.segment.base] = self._damage.get(piece.segment.base, 0) + 1
                    self._lose(Reason.SPOOL_DAMAGED, missing, ())

    def _sync(self) -> None:
        with self._lock:
            self._write_held()
            log = self._readings
            end, base = log.end, log.segments[-1].base if log.segments else -1
            owed = log.take_unsynced() if end != self._synced_end else []
        try:
            for fd in owed:
                self._sync_file(fd)
            if base != self._synced_base:
                disk.sync_directory(self._path)
            self._synced_end, self._synced_base = end, base
            self._error = None if not self._held else self._error
        except OSError as error:
            self._note(error)
        finally:
            for fd in owed:
                os.close(fd)
        if self._is_dirty or self._is_suspect:
            self._make_durable()

    def _make_durable(self) -> bool:
        """Fsync the state log, then delete the files it replaces; False (and suspect) when that failed."""
        with self._lock:
            if self._is_suspect and not self._begin():
                return False
            unsynced = self._state.take_unsynced()
            head, cut_to = self._readings.head, self._outbox.next
            self._is_syncing, self._is_dirty = True, False
        try:
            self._sync_file(unsynced.fd)
            if unsynced.has_new_name:
                disk.sync_directory(self._path)
        except OSError as error:
            self._note(error)
            self._is_suspect = True
            return False
        finally:
            os.close(unsynced.fd)
            self._is_syncing = False
        with self._lock:
            self._state.synced(unsynced)
            self._readings.delete_before(head)
            self._durable_next = cut_to
            self._budget()
            if not self._held:
                self._error = None
        return True

    # --- state, under the lock -------------------------------------------------------------

    def _write(self, event: Event) -> None:
        """Append an event that a power cut may take back; a failure is repaired by the next step."""
        self._is_dirty = True
        try:
            self._state.append(event)
        except OSError as error:
            self._note(error)
            self._is_suspect = True
        self._budget()

    def _lose(self, reason: Reason, count: int, entries: Collection[Entry], dropped: Piece | None = None) -> None:
        """Declare a loss, and drop what it names before a new snapshot could tell the one without the other."""
        ranges = ranges_of(entries)
        self._write(spool_event.lose_event(reason, count, ranges, 0 if dropped is None else dropped.end))
        self._outbox.lose(reason, count, ranges)
        if dropped is not None:
            self._readings.drop(dropped)
        if not self._is_syncing:
            self._shorten()

    def _shorten(self) -> bool:
        """Begin a new state file when this one is long; True when one was begun."""
        return self._state.is_long(self._slack_bytes) and self._begin()

    def _begin(self) -> bool:
        log = self._readings
        state = spool_event.State(
            self._outbox, log.head, log.last_ns, boot=self._boot, durability=self._durability, damage=self._damage
        )
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
        self._limit_bytes = max(self._max_bytes - state_bytes, 6 * self._segment_bytes) - self._segment_bytes

    def _waiting(self) -> int:
        return self._readings.left + len(self._held)

    def _oldest_waiting_ns(self) -> int | None:
        oldest_ns = self._readings.oldest_ns()
        return self._held[0][1] if oldest_ns is None and self._held else oldest_ns

    def _used_bytes(self) -> int:
        return self._readings.bytes + self._state.bytes

    def _disk_error(self) -> str | None:
        return self._error

    def _note_time(self, offset: int) -> None:
        self._write(spool_event.time_event(offset))

    def _note(self, error: OSError) -> None:
        self._state.free_space(error)
        self._error = f"{error.strerror or error} ({self._path})"


def _open_directory(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return disk.lock(path / "lock")
    except SpoolError:
        raise
    except OSError as error:
        raise _unusable(path, error) from error


@contextmanager
def _closed_on_error(fd: int, path: Path) -> Iterator[None]:
    """Free the lock when the files cannot be used."""
    try:
        yield
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and not isinstance(error, SpoolError):
            raise _unusable(path, error) from error
        raise


def _unusable(path: Path, error: OSError) -> SpoolError:
    return SpoolError(f"spool {path} cannot be used: {error.strerror or error}; choose another directory")
