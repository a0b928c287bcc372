"""What both spools answer alike: the queries of the `Spool` contract over one `Outbox` and one lock.

Owns: the lock that guards all state of a spool, statistics. Place: after
`outbox`, before `memory_spool` and `file_spool`. Must not: know where readings lie.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from device_sdk.errors import MisuseError
from device_sdk.outbox import Copying, Entry, Instants, Outbox, SpoolStatistics, WhenFull
from device_sdk.reading import Channel, Value
from device_sdk.uptime import UPTIME
from device_sdk.wire import Earlier

# Below this the state of 200 channels and one window of frames would leave no room for readings.
MIN_LIMIT_BYTES = 256 * 1024


class SpoolBase(ABC):
    """The part of a spool that numbers; see `spool.Spool` for every public name."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        max_bytes: int,
        when_full: WhenFull,
        random_bytes: Callable[[int], bytes],
        last_ns: int = 0,
    ) -> None:
        self._outbox: Final = outbox
        self._max_bytes = max_bytes
        self._when_full: Final = when_full
        self._random_bytes: Final = random_bytes
        self._instants: Final = Instants(last_ns)
        self._lock: Final = threading.Lock()
        self._peak_bytes = 0
        self._is_closed = False

    @property
    def stream(self) -> str:
        return self._outbox.stream

    @property
    def acked(self) -> int:
        return self._outbox.acked

    @property
    def next(self) -> int:
        return self._outbox.next

    @property
    def pos(self) -> str | None:
        return self._outbox.pos

    @property
    def channels(self) -> Mapping[str, Channel]:
        with self._lock:
            return dict(self._outbox.channels)

    @property
    def pending(self) -> int:
        with self._lock:
            return self._waiting() + self._outbox.readings_in_frames

    @property
    def unnumbered(self) -> int:
        with self._lock:
            return self._waiting() + self._outbox.readings_returned

    @property
    def backlog(self) -> int:
        with self._lock:
            return self._backlog()

    def chain(self, seq: int) -> bytes | None:
        return self._outbox.chain(seq)

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        return self._outbox.earlier

    @property
    def copying(self) -> Copying | None:
        return self._outbox.copying

    def skip_no_value(self, count: int) -> None:
        with self._lock:
            self._outbox.no_value += count

    @abstractmethod
    def record(self, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int) -> None: ...

    def record_one(self, channel: str, value: Value, now_ns: int) -> None:
        self.record(((channel, value),), None, now_ns)

    def record_at_uptime(self, values: Sequence[tuple[str, Value]], time_ns: int | None, boot_ns: int) -> None:
        with self._lock:
            self._check_open()
            now_ns = self._outbox.uptime.at(boot_ns)
            # An unset clock cannot say whether a time given by hand lies in the future: it counts as if it did.
            entries = self._instants.stamp(values, time_ns, now_ns)
            is_over = self._take(entries, now_ns if now_ns < UPTIME else 0, time_ns is not None)
        self._recorded(is_over)

    def uptime_at(self, boot_ns: int) -> int:
        with self._lock:
            return self._outbox.uptime.at(boot_ns)

    def learn_time(self, wall_ns: int, boot_ns: int) -> None:
        with self._lock:
            line = self._outbox.uptime
            if line.offset is None and not self._is_closed:
                offset = line.offset_at(wall_ns, boot_ns)
                self._note_time(offset)
                self._outbox.learn_time(offset)
                if line.is_used:
                    self._instants.learn_time(line)

    def statistics(self) -> SpoolStatistics:
        with self._lock:
            outbox = self._outbox
            used_bytes = self._used_bytes()
            self._peak_bytes = max(self._peak_bytes, used_bytes)
            oldest_ns = outbox.oldest_ns()
            return SpoolStatistics(
                pending=self._waiting() + outbox.readings_in_frames,
                unnumbered=self._waiting() + outbox.readings_returned,
                frames=len(outbox.frames),
                bytes=used_bytes,
                limit_bytes=self._max_bytes,
                peak_bytes=self._peak_bytes,
                dropped=outbox.dropped,
                no_value=outbox.no_value,
                oldest_time_ns=self._placed(self._oldest_waiting_ns()) if oldest_ns is None else oldest_ns,
                damaged=outbox.damaged,
                disk_error=self._disk_error(),
                backlog=self._backlog(),
                dropped_by=dict(outbox.dropped_by),
                refused=outbox.refused,
            )

    @abstractmethod
    def _take(self, entries: list[Entry], now_ns: int, is_explicit: bool) -> bool:
        """Take stamped readings as `record` does; times beyond ``now_ns`` lie in the future.

        True: room must be made now, which waits for the lock's end (`_recorded`).
        """

    @abstractmethod
    def _recorded(self, is_over: bool) -> None:
        """Do what had to wait for the end of the lock."""

    @abstractmethod
    def _waiting(self) -> int:
        """Return how many readings are not in a frame, cut or returned."""

    @abstractmethod
    def _backlog(self) -> int:
        """Return how many of them are older than the live lane."""

    @abstractmethod
    def _oldest_waiting_ns(self) -> int | None:
        """Return the time of the first of them."""

    @abstractmethod
    def _note_time(self, offset: int) -> None:
        """Write down what `Outbox.learn_time` is about to be told."""

    @abstractmethod
    def _used_bytes(self) -> int:
        """Return what counts against the limit."""

    def _placed(self, instant: int | None) -> int | None:
        placed = None if instant is None else self._outbox.uptime.place(instant)
        return instant if placed is None else placed[0]

    def _disk_error(self) -> str | None:
        return None

    def _check_open(self) -> None:
        if self._is_closed:
            raise MisuseError("the spool is closed; make a new one")

    def _new_stream(self) -> str:
        return self._random_bytes(8).hex()


def window_limit(max_bytes: int) -> int:
    """Return how many bytes of unacked frames a spool of this size holds before `cut` waits for an ack."""
    return max_bytes // 64


def body_limit(max_bytes: int) -> int:
    """Return how large a frame a spool of this size cuts at most (200 KiB from 26 MB on)."""
    return max_bytes // 128


def check_limit(max_bytes: int) -> int:
    """Return ``max_bytes``; raise `MisuseError` when no spool can work with so little."""
    if max_bytes < MIN_LIMIT_BYTES:
        raise MisuseError(f"max_bytes {max_bytes} is too small for a spool; use at least {MIN_LIMIT_BYTES}")
    return max_bytes
