"""The outbox in files: what `record` took survives a process kill at once, a power cut after `sync`.

Owns: the durable steps, what is dropped and thinned. Place: after `file_state`, which
owns the files between two steps; users import it from `spool`. Must not: read a
clock, know the network.

Two locks, taken in this order. ``_step`` is held across an fsync by whoever makes
a durable step (cut, acknowledge, restart, declare, sync, close). ``_lock`` guards all
state and is never held across an fsync: `record` takes only this one.

Write-ahead: an event is in the state log before the `Outbox` changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from device_sdk import disk, spool_event
from device_sdk.errors import Reason, SpoolError
from device_sdk.file_state import FileState, segment_limit
from device_sdk.outbox import Copying, CutFrame, Durability, Entry, NextFrame, WhenFull, loss_of, ranges_of
from device_sdk.reading import Channel, Value
from device_sdk.reading_file import Segment, Thinned, rewrite
from device_sdk.recovery import recover
from device_sdk.spool_base import body_limit, check_limit, window_limit

# Readings kept in memory while the disk takes none: seconds to minutes of sensors, 200 KB.
HELD_READINGS = 1_000
# ``thin`` begins when the free part of the limit is less than this, with the sync of each second, so that `record`
# need not do it: 8 MB of a default spool are 200,000 readings.
THIN_AHEAD_PARTS = 8
# Each step of thinning takes about 30 ms; more of them at one sync would hold up the conversation.
MAX_THIN_STEPS = 4


class FileSpool(FileState):
    """A `Spool` in a directory (see `spool.Spool` for every method).

    Args:
        path: directory, made when absent; one process at a time.
        boot: the machine's boot id; a spool that was not closed and meets another
            boot id has lived through a power cut and begins a new stream.
        max_bytes: disk the spool may use, ≥ 256 KiB.
        when_full: ``oldest`` drops the oldest un-numbered readings, ``newest`` the new one, ``thin`` every
            second one, of the oldest stretch first.
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
        segment_bytes = segment_limit(check_limit(max_bytes))
        self._lock_fd: Final = _open_directory(path)
        with _closed_on_error(self._lock_fd, path):
            found = recover(
                path, boot=boot, segment_bytes=segment_bytes, retain_bytes=retain_bytes,
                new_stream=lambda: random_bytes(8).hex(),
            )  # fmt: skip
        super().__init__(
            path, found, boot=boot, segment_bytes=segment_bytes, max_bytes=max_bytes, when_full=when_full,
            durability=durability, random_bytes=random_bytes, sync_file=sync_file,
        )  # fmt: skip
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
        is_over = False
        with self._lock:
            entries = self._instants.stamp(values, time_ns, now_ns)
            log = self._readings
            if self._held or self._is_closed or log.bytes > self._limit_bytes:
                is_over = self._take(entries, now_ns, time_ns is not None)
            else:
                try:
                    log.append(entries, now_ns, time_ns is not None)
                except OSError as error:
                    self._hold(entries, error, time_ns is not None)
        if is_over or self._is_fsynced:
            self._recorded(is_over)

    def record_one(self, channel: str, value: Value, now_ns: int) -> None:
        is_over = False
        with self._lock:
            time_ns = self._instants.stamp_one(channel, now_ns)
            log = self._readings
            if self._held or self._is_closed or log.bytes > self._limit_bytes:
                is_over = self._take([(channel, time_ns, value)], now_ns, is_explicit=False)
            else:
                try:
                    log.append_one(channel, time_ns, value, now_ns)
                except OSError as error:
                    self._hold([(channel, time_ns, value)], error, is_explicit=False)
        if is_over or self._is_fsynced:
            self._recorded(is_over)

    def _recorded(self, is_over: bool) -> None:
        if is_over:
            self._thin_now()
        if self._is_fsynced:
            self.sync()

    def _take(self, entries: list[Entry], now_ns: int, is_explicit: bool) -> bool:
        """Record in any trouble (`record` itself does without asking while there is none)."""
        self._check_open()
        if not self._write_held(now_ns) and not (self._yield_disk() and self._write_held(now_ns)):
            self._hold(entries, None, is_explicit)
            return False
        # Thinning fsyncs, so it waits for the lock's end; a segment of room is kept for that.
        is_thinning = self._when_full == "thin" and self._over_bytes() <= self._segment_bytes
        if is_thinning or self._make_room(entries):
            try:
                self._readings.append(entries, now_ns, is_explicit)
            except OSError as error:
                self._hold(entries, error, is_explicit)
        return is_thinning and self._over_bytes() > 0

    def _make_room(self, new: list[Entry]) -> bool:
        """Drop what the policy says until readings are within the limit; False when it says to drop ``new``."""
        if self._over_bytes() <= 0:
            return True
        if self._when_full == "newest":
            self._lose(Reason.SPOOL_FULL, len(new), new)
            self._outbox.refused += len(new)
            return False
        self._drop_oldest()
        return True

    def _yield_disk(self) -> bool:
        """Let the oldest readings go when the disk is full, whatever the policy: nothing could be delivered else."""
        if self._max_bytes == self._wanted_bytes or self._over_bytes() <= 0:
            return False
        self._drop_oldest()
        return True

    def _drop_oldest(self) -> None:
        log = self._readings
        while log.left and self._over_bytes() > 0:
            try:
                piece = log.to_drop()
            except OSError as error:
                self._note(error)
                break
            self._lose(Reason.SPOOL_FULL, piece.expected, log.read(piece).entries, piece)

    def _hold(self, entries: list[Entry], error: OSError | None, is_explicit: bool) -> None:
        """Keep readings the disk did not take; beyond the cap the new ones are dropped."""
        self._is_held_explicit = self._is_held_explicit or is_explicit
        if error is not None:
            self._note(error)
        room = max(0, HELD_READINGS - len(self._held))
        self._held.extend(entries[:room])
        if entries[room:]:
            self._lose(Reason.DISK_FULL, len(entries) - room, entries[room:])
            self._outbox.refused += len(entries) - room

    # --- durable steps ---------------------------------------------------------------------

    def declare(self, channel: Channel) -> None:
        with self._step, self._lock:
            self._check_open()
            self._write(spool_event.declare_event(channel))
            self._outbox.declare(channel)

    def split(self) -> bool:
        with self._step, self._lock:
            self._check_open()
            try:
                return not self._held and self._readings.split()
            except OSError as error:
                self._note(error)
                return False

    def cut(
        self, max_readings: int = 1000, max_bytes: int = 200 * 1024, *, from_backlog: bool = False
    ) -> CutFrame | None:
        with self._step:
            if self._is_suspect:
                return self._cut_after_trouble()
            self._load_more(from_backlog)
            with self._lock:
                self._check_open()
                made = self._number(max_readings, min(max_bytes, body_limit(self._max_bytes)), from_backlog)
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

    def forget(self, stream: str, copying: Copying | None = None) -> None:
        self._apply_durably(spool_event.forget_event(stream, copying), lambda: self._outbox.forget(stream, copying))

    def copied(self, copying: Copying | None) -> None:
        self._apply_durably(spool_event.copy_event(copying), lambda: self._outbox.copied(copying))

    def sync(self) -> None:
        with self._step:
            if not self._is_closed:
                with self._lock:
                    self._yield_disk()
                self._sync()
                self._thin_ahead()

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

    def _number(self, max_readings: int, max_bytes: int, from_backlog: bool) -> NextFrame | None:
        """Build the next frame, write it, then count it as cut."""
        outbox, log = self._outbox, self._readings
        self._write_held()
        if not outbox.has_room(window_limit(self._max_bytes)):
            return None
        lane = log.next_lane(from_backlog)
        made = outbox.next_frame(log.first(max_readings, lane), max_bytes)
        if made is None:
            return None
        self._shorten()
        taken = made.frame.readings if made.source == "readings" else 0
        try:
            self._state.append(spool_event.frame_event(outbox.stream, made, log.marks_after(taken, lane)))
        except OSError as error:
            self._note(error)
            return None
        outbox.add(made)
        log.consume(taken, lane)
        return made

    def _cut_after_trouble(self) -> CutFrame | None:
        """Write the state anew; return the frame whose fsync had failed, if that was the trouble."""
        first = self._durable_next
        if not self._make_durable():
            return None
        waiting = self._outbox.unacked(first - 1)
        return waiting[0] if waiting else None

    def _load_more(self, from_backlog: bool) -> None:
        """Read back readings that the cache had no room for, without keeping `record` waiting."""
        while True:
            with self._lock:
                piece = self._readings.next_piece(self._readings.next_lane(from_backlog))
            if piece is None:
                return
            found = self._readings.read(piece)
            with self._lock:
                missing = self._readings.install(piece, found)
                if missing:
                    self._outbox.damaged += 1
                    self._damage[piece.segment.base] = self._damage.get(piece.segment.base, 0) + 1
                    self._lose(Reason.SPOOL_DAMAGED, missing, ())

    # --- thinning ---------------------------------------------------------------------------

    def _thin_ahead(self) -> None:
        """Make room before `record` needs it; with ``_step`` held."""
        ahead = self._limit_bytes // THIN_AHEAD_PARTS
        for _ in range(MAX_THIN_STEPS if self._when_full == "thin" else 0):
            if self._over_bytes() + ahead <= 0 or not self._thin():
                return

    def _thin_now(self) -> None:
        """Bring readings within the limit, for `record`; what cannot be thinned is dropped, the oldest first."""
        if not self._step.acquire(blocking=False):
            return  # a durable step is under way; `record` never waits for its fsync, and the next one thins
        try:
            while self._over_bytes() > 0 and self._thin():
                pass
            with self._lock:
                if not self._is_closed:
                    self._drop_oldest()
        finally:
            self._step.release()

    def _thin(self) -> bool:
        """Thin the stretch whose turn it is; False when that freed nothing. With ``_step`` held.

        First the copy is durable, then the event that says it stands and what is lost, then the old
        files go: whichever of these a kill or a power cut leaves undone, one of the two stands.
        """
        with self._lock:
            sources = [] if self._is_closed or self._is_suspect else self._readings.to_thin()
        try:
            made = rewrite(self._path, sources, self._sync_file) if sources else None
        except FileNotFoundError:
            return False  # `record` dropped one of them meanwhile
        except OSError as error:
            with self._lock:
                self._note(error)
            return False
        if made is None:
            return False
        with self._lock:
            self._thinned(sources, made)
        return self._make_durable()

    def _thinned(self, sources: Sequence[Segment], made: Thinned) -> None:
        log = self._readings
        ranges = ranges_of(made.dropped)
        event = spool_event.lose_event(Reason.THINNED, len(made.dropped), ranges, file=made.segment.name)
        is_stale = any(source not in log.segments for source in sources)  # `record` dropped one meanwhile
        if is_stale or not self._write(event):
            made.segment.path.unlink(missing_ok=True)
            return
        self._outbox.lose(Reason.THINNED, len(made.dropped), ranges)
        log.replace(sources, made)
        for source in sources:
            self._damage.pop(source.base, None)
        if made.missing:
            self._outbox.damaged += 1
            self._lose(Reason.SPOOL_DAMAGED, made.missing, ())
        self._shorten()
        self._budget()


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
