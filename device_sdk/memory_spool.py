"""The outbox without files: the same contract as `FileSpool`, lost with the process.

Owns: un-numbered readings in memory and their limit. Place: after `spool_base`,
beside `file_spool`; users import it from `spool`. Must not: read a clock or know
the network.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, islice
from typing import Final

from device_sdk.errors import Reason
from device_sdk.outbox import MAX_LANES, Copying, CutFrame, Entry, Outbox, WhenFull, loss_of, ranges_of
from device_sdk.reading import Channel, Value
from device_sdk.spool_base import SpoolBase, body_limit, check_limit, window_limit
from device_sdk.thinning import Stretch, pick, survivors

# A tuple, its int and float, and a place in the queue (CPython 3.11, 64 bits); a string costs its length more.
_ENTRY_BYTES = 160
_STRING_BYTES = 60
# A full spool drops this part of its oldest readings at a time, which costs less than one by one.
_DROP_PARTS = 64
# Readings are thinned in stretches of twice this part of the limit: about 15 ms each at 64 MB.
_THIN_PARTS = 64


class _Stretch:
    """Readings that were thinned together, ``level`` times."""

    __slots__ = ("entries", "level")

    def __init__(self, entries: deque[Entry], level: int) -> None:
        self.entries = entries
        self.level = level


class _Lane:
    """Readings in order: what was thinned, then what was not. ``is_explicit``: it may hold given times."""

    __slots__ = ("fresh", "is_explicit", "stretches")

    def __init__(self) -> None:
        self.stretches: deque[_Stretch] = deque()
        self.fresh: deque[Entry] = deque()
        self.is_explicit = False

    def __len__(self) -> int:
        return sum(len(stretch.entries) for stretch in self.stretches) + len(self.fresh)

    def first(self, count: int) -> list[Entry]:
        """Return up to ``count`` of the oldest readings."""
        return list(islice(chain(*(stretch.entries for stretch in self.stretches), self.fresh), count))

    def candidates(self, most: int, spared: int) -> Iterator[tuple[Stretch, _Stretch]]:
        """Yield what may be thinned: what was already, and up to ``most`` others, the newest ``spared`` apart."""
        for at, stretch in enumerate(self.stretches):
            yield Stretch(stretch.level, len(stretch.entries), is_joined=at > 0), stretch
        if (count := min(most, len(self.fresh) - spared)) > 0:
            yield Stretch(0, count, is_joined=False), _Stretch(deque(islice(self.fresh, count)), 0)

    def replace(self, sources: Sequence[_Stretch], thinned: _Stretch) -> None:
        """Put one stretch in the place of others, or of as many of the readings that were never thinned."""
        if not sources[0].level:
            for _ in sources[0].entries:
                self.fresh.popleft()
            self.stretches.append(thinned)
            return
        at = self.stretches.index(sources[0])
        for source in sources:
            self.stretches.remove(source)
        self.stretches.insert(at, thinned)

    def pop(self) -> Entry:
        """Take the oldest reading."""
        if not self.stretches:
            return self.fresh.popleft()
        entries = self.stretches[0].entries
        entry = entries.popleft()
        if not entries:
            self.stretches.popleft()
        return entry


class MemorySpool(SpoolBase):
    """A `Spool` in memory (see `spool.Spool` for every method).

    Args:
        max_bytes: memory the readings and frames may use, estimated; ≥ 256 KiB.
        when_full: ``oldest`` drops the oldest un-numbered readings, ``newest`` the new one, ``thin`` every
            second one, of the oldest stretch first.
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
        self._live = _Lane()
        self._lanes: Final[list[_Lane]] = [self._live]
        self._entry_bytes = 0
        self._kept: Final[deque[tuple[str, CutFrame]]] = deque()
        self._kept_bytes, self._retain_bytes = 0, retain_bytes
        self._limit_bytes: Final = max_bytes - window_limit(max_bytes) - body_limit(max_bytes)

    @property
    def has_uncut(self) -> bool:
        return self._outbox.has_uncut(self._waiting())

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
            live = self._live
            live.fresh.extend(entries)
            if time_ns is not None:
                live.is_explicit = True
            self._entry_bytes += size
            if self._entry_bytes > self._peak_bytes:
                self._peak_bytes = self._used_bytes()

    def split(self) -> bool:
        with self._lock:
            self._check_open()
            if len(self._lanes) >= MAX_LANES or self._live.is_explicit or not len(self._live):
                return False
            self._live = _Lane()
            self._lanes.append(self._live)
            return True

    def cut(
        self, max_readings: int = 1000, max_bytes: int = 200 * 1024, *, from_backlog: bool = False
    ) -> CutFrame | None:
        with self._lock:
            self._check_open()
            if not self._outbox.has_room(window_limit(self._max_bytes)):
                return None
            max_bytes = min(max_bytes, body_limit(self._max_bytes))
            lane = self._lanes[0] if from_backlog or not len(self._live) else self._live
            made = self._outbox.next_frame(lane.first(max_readings), max_bytes)
            if made is None:
                return None
            self._outbox.add(made)
            if made.source == "readings":
                for _ in range(made.frame.readings):
                    self._entry_bytes -= _size_of(lane.pop())
                self._tidy()
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

    def forget(self, stream: str, copying: Copying | None = None) -> None:
        with self._lock:
            self._check_open()
            self._outbox.forget(stream, copying)

    def copied(self, copying: Copying | None) -> None:
        with self._lock:
            self._check_open()
            self._outbox.copied(copying)

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

    def _take(self, entries: list[Entry], now_ns: int, is_explicit: bool) -> bool:
        size = sum(map(_size_of, entries))
        if self._entry_bytes + size <= self._limit_bytes or self._make_room(entries):
            self._live.fresh.extend(entries)
            self._live.is_explicit = self._live.is_explicit or is_explicit
            self._entry_bytes += size
            self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        return False

    def _recorded(self, is_over: bool) -> None:
        """Do nothing: `_take` has made the room."""

    def _note_time(self, offset: int) -> None:
        """Do nothing: no later process needs it."""

    def _make_room(self, new: list[Entry]) -> bool:
        """Drop what the policy says; False when it says to drop ``new``."""
        if self._when_full == "newest":
            self._outbox.lose(Reason.SPOOL_FULL, len(new), ranges_of(new))
            self._outbox.refused += len(new)
            return False
        target_bytes = self._limit_bytes - self._limit_bytes // _DROP_PARTS - sum(map(_size_of, new))
        if self._when_full == "thin":
            while self._entry_bytes > target_bytes and self._thin():
                pass
        dropped = []
        while self._entry_bytes > max(0, target_bytes):
            dropped.append(self._lanes[0].pop())
            self._entry_bytes -= _size_of(dropped[-1])
            if not self._lanes[0].fresh:
                self._tidy()
        if dropped:
            self._outbox.lose(Reason.SPOOL_FULL, len(dropped), ranges_of(dropped))
        return True

    def _thin(self) -> bool:
        """Thin the stretch whose turn it is; False when that freed nothing."""
        unit = self._limit_bytes // _ENTRY_BYTES // _THIN_PARTS
        # As in files, what is being recorded stays as it is.
        found = [(lane, *one) for lane in self._lanes for one in lane.candidates(2 * unit, unit * (lane is self._live))]
        chosen = pick([candidate for _, candidate, _ in found], 2 * unit)
        sources = [stretch for _, _, stretch in found[chosen.start : chosen.stop]]
        entries = [entry for stretch in sources for entry in stretch.entries]
        stays = survivors([channel for channel, _, _ in entries])
        if all(stays):
            return False
        found[chosen.start][0].replace(sources, _Stretch(deque(compress(entries, stays)), sources[0].level + 1))
        dropped = [entry for entry, stay in zip(entries, stays, strict=True) if not stay]
        self._entry_bytes -= sum(map(_size_of, dropped))
        self._outbox.lose(Reason.THINNED, len(dropped), ranges_of(dropped))
        return True

    def _tidy(self) -> None:
        """Let go of a lane of the backlog that is empty; an empty live lane holds no given time."""
        if not len(self._lanes[0]) and len(self._lanes) > 1:
            del self._lanes[0]
        if not len(self._live):
            self._live.is_explicit = False

    def _waiting(self) -> int:
        return sum(map(len, self._lanes))

    def _backlog(self) -> int:
        return sum(map(len, self._lanes[:-1]))

    def _oldest_waiting_ns(self) -> int | None:
        return next((entry[1] for lane in self._lanes for entry in lane.first(1)), None)

    def _used_bytes(self) -> int:
        return self._entry_bytes + self._outbox.body_bytes


def _size_of(entry: Entry) -> int:
    value = entry[2]
    return _ENTRY_BYTES if type(value) is not str else _ENTRY_BYTES + _STRING_BYTES + len(value)
