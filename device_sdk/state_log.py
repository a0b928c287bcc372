"""What a spool knows besides un-numbered readings, as a log of events that begins with a snapshot.

Owns: the files ``state-<number>.log``: frames with their bodies, acks, declared
losses, channels, open and close. Place: after `segment` and `disk`, before
`spool_event`, which gives the events their meaning, and `file_spool`.

A file begins with the whole state (``snapshot``, ``held`` …, ``complete``), so older
files can go as soon as it is fsynced. Until then they stay, and `load` falls back
to them when the new one was cut short.

A file that goes is first kept as ``acked-<number>.log``, when asked to: the frames in
it are acked, and a hub that is restored from a backup will want them again. That costs
no write. Kept are `retain_bytes`, and nothing older than `RETAIN_S` before the newest.

    payload of a record = u32 length | JSON {"event": …} | body of a frame
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from device_sdk import disk
from device_sdk.clock import is_set
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json, to_json
from device_sdk.segment import MAX_STATE_BYTES, Scan, encode_record, seed_of

_PREFIX, _KEPT, _SUFFIX = "state-", "acked-", ".log"
# Backups are made each night: a hub restored from the last one misses at most a day.
RETAIN_S = 24 * 3600.0
# A program that starts each second leaves a small file each time.
MAX_KEPT_FILES = 1_000
_LENGTH = struct.Struct("<I")
SNAPSHOT, HELD, COMPLETE = "snapshot", "held", "complete"


class Event(Frozen):
    """One change of state; ``body`` is a frame's bytes or empty."""

    kind: str
    fields: dict[str, Any]
    body: bytes = b""


class Loaded(Frozen):
    """What the files say.

    ``damaged``: places that could not be read, the end of the file among them when ``is_torn``.
    ``is_intact``: the snapshot could.
    """

    events: list[Event]
    damaged: int
    is_intact: bool
    is_torn: bool = False


class KeptFile(Frozen):
    """A file of acked frames: its number, bytes, and when it was last written (file time, s)."""

    number: int
    size: int
    written_s: float


class Unsynced(Frozen):
    """What a durable step has to fsync, outside the lock: a descriptor to sync and close, names to sync."""

    fd: int
    has_new_name: bool
    number: int


class StateLog:
    """The state files of one spool; guarded by the spool's lock.

    Args:
        directory: exists and is locked.
        retain_bytes: how much of files with acked frames is kept; 0 = none.
    """

    def __init__(self, directory: Path, retain_bytes: int = 0) -> None:
        self._directory = directory
        self._retain_bytes = retain_bytes
        self._fd = -1
        self._number = 0
        self._size = 0
        self._snapshot_size = 0
        self._synced_number = -1
        self._is_syncing = False
        self._files: dict[int, int] = {number: path.stat().st_size for path, number in self._paths(_PREFIX)}
        self._kept: deque[KeptFile] = deque(sorted(_kept_file(path, number) for path, number in self._paths(_KEPT)))
        self.retained_bytes = sum(kept.size for kept in self._kept)

    @property
    def bytes(self) -> int:
        """Bytes of all state files."""
        return sum(self._files.values())

    @property
    def snapshot_bytes(self) -> int:
        """Size of the last snapshot, about what the next one needs."""
        return self._snapshot_size

    def is_long(self, slack_bytes: int) -> bool:
        """Say whether a new file would be much shorter than this one, and may be begun: no fsync is under way.

        `begin` removes a file that was never fsynced; this one may be by now.
        """
        return not self._is_syncing and self._size > 2 * self._snapshot_size + slack_bytes

    def load(self) -> Loaded | None:
        """Return the events of the newest file whose snapshot is whole, or of the best one; None when there is none."""
        best: Loaded | None = None
        for path, number in sorted(self._paths(_PREFIX), key=lambda found: -found[1]):
            loaded = _read(path, number)
            if loaded.is_intact:
                return loaded
            if best is None or len(loaded.events) > len(best.events):
                best = loaded
        return best

    def kept_events(self) -> Iterator[list[Event]]:
        """Yield the events of each file, kept ones first, oldest first; reads a file at a time, needs no lock."""
        for path, number in sorted([*self._paths(_KEPT), *self._paths(_PREFIX)], key=lambda found: found[1]):
            # A file of the state may have become a kept one since it was listed.
            yield _read(path, number).events or _read(self._path(number, _KEPT), number).events

    def free_space(self) -> bool:
        """Give up the oldest kept file for a disk that is full; False: there is none."""
        if not self._kept:
            return False
        self._drop_oldest()
        return True

    def begin(self, snapshot: Iterable[Event]) -> None:
        """Start a new file with a snapshot; older files go with `synced`.

        Raises:
            OSError: it cannot be written; the log goes on in the old file.
        """
        number = max(max(self._files, default=0), self._kept[-1].number if self._kept else 0) + 1
        seed = seed_of(number)
        path = self._path(number)
        fd = disk.open_append(path)
        data = b"".join(_encode(seed, event) for event in snapshot)
        try:
            disk.append(fd, data)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._fd >= 0:
            os.close(self._fd)
            if self._synced_number not in (-1, self._number):
                self._remove(self._number)  # never fsynced, and an older one that was still stands
        self._fd, self._number = fd, number
        self._size = self._snapshot_size = self._files[number] = len(data)

    def append(self, event: Event) -> None:
        """Write one event; on return the operating system has it. ``OSError``: nothing is written."""
        if self._fd < 0:
            raise OSError("the spool's state could not be written at its start")
        data = _encode(seed_of(self._number), event)
        disk.append(self._fd, data)
        self._size += len(data)
        self._files[self._number] = self._size

    def take_unsynced(self) -> Unsynced:
        """Return what to fsync now; then call `synced` with it, or `sync_failed`.

        Raises:
            OSError: no descriptor is free.
        """
        unsynced = Unsynced(os.dup(self._fd), self._synced_number != self._number, self._number)
        self._is_syncing = True
        return unsynced

    def synced(self, done: Unsynced) -> None:
        """Note that ``done`` is on the medium: older files are not needed any more."""
        self._is_syncing = False
        self._synced_number = max(self._synced_number, done.number)
        for number in [number for number in self._files if number < done.number]:
            self._remove(number)

    def sync_failed(self) -> None:
        """Note that nothing is known of the medium."""
        self._is_syncing = False

    def close(self) -> None:
        """Close the file; nothing may be called afterwards."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _remove(self, number: int) -> None:
        """Take a file out of the state: keep it for its acked frames, or delete it."""
        size = self._files.pop(number)
        path = self._path(number)
        with contextlib.suppress(OSError):
            if size > self._retain_bytes:
                path.unlink()
            else:
                kept = path.rename(self._path(number, _KEPT))
                self._kept.append(_kept_file(kept, number))
                self.retained_bytes += size
        while self._kept and self._is_too_much():
            self._drop_oldest()

    def _is_too_much(self) -> bool:
        oldest_s = self._kept[0].written_s
        # The file times of a machine whose clock was not set say nothing; then the bytes decide alone.
        is_old = is_set(int(oldest_s * 1e9)) and self._kept[-1].written_s - oldest_s > RETAIN_S
        return self.retained_bytes > self._retain_bytes or is_old or len(self._kept) > MAX_KEPT_FILES

    def _drop_oldest(self) -> None:
        if not self._kept:
            return
        oldest = self._kept.popleft()
        self.retained_bytes -= oldest.size
        with contextlib.suppress(OSError):
            self._path(oldest.number, _KEPT).unlink()

    def _path(self, number: int, prefix: str = _PREFIX) -> Path:
        return self._directory / f"{prefix}{number:010d}{_SUFFIX}"

    def _paths(self, prefix: str) -> list[tuple[Path, int]]:
        found = []
        for path in self._directory.glob(f"{prefix}*{_SUFFIX}"):
            number = path.name[len(prefix) : -len(_SUFFIX)]
            if number.isascii() and number.isdigit():
                found.append((path, int(number)))
        return found


def _encode(seed: int, event: Event) -> bytes:
    head = to_json({"event": event.kind, **event.fields})
    return encode_record(seed, _LENGTH.pack(len(head)) + head + event.body)


def _kept_file(path: Path, number: int) -> KeptFile:
    found = path.stat()
    return KeptFile(number, found.st_size, found.st_mtime)


def _read(path: Path, number: int) -> Loaded:
    try:
        data = path.read_bytes()
    except OSError:
        return Loaded([], 1, False)
    scan = Scan(data, seed_of(number), max_bytes=MAX_STATE_BYTES)
    events = []
    damaged_at_complete = -1
    for payload, _ in scan:
        event = _decode(payload)
        events.append(event)
        if event.kind == COMPLETE:
            damaged_at_complete = scan.damaged
    is_intact = damaged_at_complete == 0 and events[0].kind == SNAPSHOT
    return Loaded(events, scan.damaged, is_intact, scan.is_torn)


def _decode(payload: bytes) -> Event:
    (length,) = _LENGTH.unpack_from(payload)
    fields = from_json(payload[4 : 4 + length])
    return Event(fields.pop("event"), fields, payload[4 + length :])
