"""The outbox without files: the same contract as `FileSpool`, lost with the process.

Owns: un-numbered readings in memory and their limit. Place: after `spool_base`,
beside `file_spool`; users import it from `spool`. Must not: read a clock or know
the network.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from device_sdk.errors import Reason
from device_sdk.outbox import CutFrame, Entry, Outbox, WhenFull, loss_of, ranges_of
from device_sdk.reading import Channel, Value
from device_sdk.spool_base import SpoolBase, body_limit, check_limit, window_limit

# A tuple, its int and float, and a place in the queue (CPython 3.11, 64 bits); a string costs its length more.
_ENTRY_BYTES = 160
_STRING_BYTES = 60
# A full spool drops this part of its oldest readings at a time, which costs less than one by one.
_DROP_PARTS = 64


class MemorySpool(SpoolBase):
    """A `Spool` in memory (see `spool.Spool` for every method).

    Args:
        max_bytes: memory the readings and frames may use, estimated; ≥ 256 KiB.
        when_full: ``oldest`` drops the oldest un-numbered readings, ``newest`` the new one.
        retain_bytes: memory that acked frames may use besides, for a hub that is restored from a backup.
        random_bytes: source of stream identities.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64_000_000,
        when_full: WhenFull = "oldest",
        retain_bytes: int = 0,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        outbox = Outbox(random_bytes(8).hex())
        super().__init__(outbox, max_bytes=check_limit(max_bytes), when_full=when_full, random_bytes=random_bytes)
        self._entries: Final[deque[Entry]] = deque()
        self._entry_bytes = 0
        self._kept: Final[deque[tuple[str, CutFrame]]] = deque()
        self._kept_bytes, self._retain_bytes = 0, retain_bytes
        self._limit_bytes: Final = max_bytes - window_limit(max_bytes) - body_limit(max_bytes)

    @property
    def has_uncut(self) -> bool:
        return self._outbox.has_uncut(len(self._entries))

    def frames(self, after: int) -> list[CutFrame]:
        with self._lock:
            return self._outbox.unacked(after)

    def retained(self, stream: str, after: int) -> Iterator[CutFrame]:
        with self._lock:
            kept = [frame for of, frame in self._kept if of == stream and frame.seq > after]
        return iter(kept)

    def declare(self, channel: Channel) -> None:
        with self._lock:
            self._check_open()
            self._outbox.declare(channel)

    def record(self, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int) -> None:
        with self._lock:
            if self._is_closed:
                self._check_open()
            entries = self._instants.stamp(values, time_ns, now_ns)
            size = _ENTRY_BYTES * len(entries)
            for _, _, value in entries:
                if type(value) is str:
                    size += _STRING_BYTES + len(value)
            if self._entry_bytes + size > self._limit_bytes and not self._make_room(entries):
                return
            self._entries.extend(entries)
            self._entry_bytes += size
            if self._entry_bytes > self._peak_bytes:
                self._peak_bytes = self._used_bytes()

    def cut(self, max_readings: int = 1000, max_bytes: int = 200 * 1024) -> CutFrame | None:
        with self._lock:
            self._check_open()
            if not self._outbox.has_room(window_limit(self._max_bytes)):
                return None
            max_bytes = min(max_bytes, body_limit(self._max_bytes))
            made = self._outbox.next_frame(list(islice(self._entries, max_readings)), max_bytes)
            if made is None:
                return None
            self._outbox.add(made)
            if made.source == "readings":
                for _ in range(made.frame.readings):
                    self._entry_bytes -= _size_of(self._entries.popleft())
            return made.frame

    def acknowledge(self, stored: int, chain: bytes, pos: str) -> None:
        with self._lock:
            self._check_open()
            if stored >= self._outbox.acked:
                self._outbox.check_ack(stored, chain)
                self._keep(stored)
                self._outbox.acknowledge(stored, pos)

    def restart(self, stored: int | None, lost: Sequence[Entry] = ()) -> None:
        with self._lock:
            self._check_open()
            self._keep(stored or 0)
            self._outbox.restart(self._new_stream(), stored, loss_of(lost))

    def forget(self, stream: str) -> None:
        with self._lock:
            self._check_open()
            self._outbox.forget(stream)

    def sync(self) -> None:
        """Do nothing: memory does not survive a power cut."""

    def close(self) -> None:
        with self._lock:
            self._is_closed = True

    def _keep(self, stored: int) -> None:
        """Keep the frames that are acked now, as far as they fit."""
        if not self._retain_bytes:
            return
        for frame in self._outbox.unacked(self._outbox.acked):
            if frame.seq <= stored:
                self._kept.append((self._outbox.stream, frame))
                self._kept_bytes += len(frame.body)
        while self._kept_bytes > self._retain_bytes:
            self._kept_bytes -= len(self._kept.popleft()[1].body)

    def _take(self, entries: list[Entry], now_ns: int) -> None:
        size = sum(map(_size_of, entries))
        if self._entry_bytes + size <= self._limit_bytes or self._make_room(entries):
            self._entries.extend(entries)
            self._entry_bytes += size
            self._peak_bytes = max(self._peak_bytes, self._used_bytes())

    def _make_room(self, new: list[Entry]) -> bool:
        """Drop what the policy says; False when it says to drop ``new``."""
        if self._when_full == "newest":
            self._outbox.lose(Reason.SPOOL_FULL, len(new), ranges_of(new))
            return False
        target_bytes = self._limit_bytes - self._limit_bytes // _DROP_PARTS - sum(map(_size_of, new))
        dropped = []
        while self._entries and self._entry_bytes > target_bytes:
            dropped.append(self._entries.popleft())
            self._entry_bytes -= _size_of(dropped[-1])
        if dropped:
            self._outbox.lose(Reason.SPOOL_FULL, len(dropped), ranges_of(dropped))
        return True

    def _note_time(self, offset: int) -> None:
        """Do nothing: no later process needs it."""

    def _waiting(self) -> int:
        return len(self._entries)

    def _oldest_waiting_ns(self) -> int | None:
        return self._entries[0][1] if self._entries else None

    def _used_bytes(self) -> int:
        return self._entry_bytes + self._outbox.body_bytes


def _size_of(entry: Entry) -> int:
    value = entry[2]
    return _ENTRY_BYTES if type(value) is not str else _ENTRY_BYTES + _STRING_BYTES + len(value)
