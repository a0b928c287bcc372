"""The one thread that writes the journal, between the event loop and the disk.

Owns: the queue of accepted frames and the group commit. Place: after
`journal.base`; the loop's side calls `submit`, the thread calls
`Journal.append`, the loop's side gets the answers. Must not: know acks,
sessions, or which journal it writes.

Theory of operation. Idle: a frame is committed at once. Busy: everything that
queued during the last fsync is one commit. Answers arrive on the loop in
commit order, one call a commit. When the disk is full, the frames of that
commit, all queued behind it and all submitted until the loop has heard of it
are refused *together*: a later frame of a stream must never be stored while an
earlier one is not.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from hub.errors import DiskFullError, JournalError
from hub.journal.base import Journal
from hub.model import Frame, Series

_log = logging.getLogger("hub.journal.writer")

# What waits for the disk, in memory; beyond it devices wait. 64 MiB is about a second of a fast disk.
MAX_QUEUE_BYTES = 64 * 1024 * 1024
# One commit, in memory as the queue is: 17,000 single readings, or 150,000 in batches of a hundred. A quarter of the
# store's queue, which is handed a commit whole or not at all. Larger groups gain nothing, smaller ones a third less.
MAX_GROUP_BYTES = 16 * 1024 * 1024

FramesCallback = Callable[[list[Frame]], None]
FailedCallback = Callable[[Exception], None]


class _State(Enum):
    """What happens to frames: taken; all refused until the loop has heard; all refused for good."""

    TAKING = "taking"
    REFUSING = "refusing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What waits for the disk: frames and estimated bytes in memory, the limit, the most there ever was."""

    frames: int
    bytes: int
    limit_bytes: int
    peak_bytes: int
    refused: int


class JournalWriter:
    """Commits frames in groups; every callback runs on the loop.

    Args:
        journal: its `append` is called from this writer's thread only.
        loop: where callbacks run and from where `submit` is called.
        on_committed: the frames of one commit, durable, with offsets.
        on_failed: the journal is broken; called once, nothing is taken after it.
        on_refused: frames that are not stored because the disk is full: the callback must take its streams back
            to what is stored before it does anything else; from then on frames are taken again.
        max_bytes: queue limit behind `is_full`.
    """

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        on_committed: FramesCallback,
        on_failed: FailedCallback,
        on_refused: FramesCallback,
        *,
        max_bytes: int = MAX_QUEUE_BYTES,
        max_group_bytes: int = MAX_GROUP_BYTES,
    ) -> None:
        self._journal = journal
        self._loop = loop
        self._on_committed = on_committed
        self._on_failed = on_failed
        self._on_refused = on_refused
        self._max_bytes = max_bytes
        self._max_group_bytes = max_group_bytes
        self._condition = threading.Condition()
        self._queue: deque[Frame] = deque()
        # Series wait apart from frames: they must reach the file even when their first frames are refused.
        self._series: dict[int, Series] = {}
        self._bytes = self._peak_bytes = self._refused_count = 0
        self._refused: list[Frame] = []
        self._is_due = False
        self._state = _State.TAKING
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="hub-journal-writer", daemon=False)

    def start(self) -> None:
        """Start the thread; call once, and `stop` afterwards."""
        self._thread.start()

    def submit(self, frames: Sequence[Frame], series: Sequence[Series] = ()) -> None:
        """Queue frames (in the order of their streams) and new or changed series; on the loop, never waits.

        Ask `is_full` before taking frames from a peer: this method takes what it is given.

        Raises:
            JournalError: the journal has failed; nothing is queued.
        """
        with self._condition:
            if self._state is _State.FAILED:
                raise JournalError("the journal has failed and takes nothing more: start the hub again")
            for known in series:
                self._series[known.id] = known
            if self._state is _State.REFUSING:
                self._refused += frames
                return
            self._queue.extend(frames)
            self._bytes += sum(frame.memory_bytes for frame in frames)
            self._peak_bytes = max(self._peak_bytes, self._bytes)
            self._is_due = True
            self._condition.notify()

    @property
    def is_full(self) -> bool:
        """Whether the queue has reached its limit: take nothing more from devices until it drained."""
        return self._bytes >= self._max_bytes

    def statistics(self) -> WriterStatistics:
        """Return the figures of now."""
        with self._condition:
            return WriterStatistics(
                len(self._queue), self._bytes, self._max_bytes, self._peak_bytes, self._refused_count
            )

    def stop(self) -> None:
        """Commit what is queued and end the thread; blocks, safe to call twice.

        The last answers have been scheduled on the loop when this returns.
        """
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._has_work() and not self._is_stopping:
                    self._condition.wait()
                if not self._has_work():
                    return
                frames, series, size = self._take_group()
            try:
                self._journal.append(frames, series)
            except DiskFullError as error:
                self._refuse(frames, series, error)
            except Exception as error:
                # Also a bug in a frame: what the journal's state is then is not known, so nothing more is written.
                self._fail(error)
                return
            else:
                self._answer(self._on_committed, frames)
            # Only now: frames under the disk's hands are in memory too.
            with self._condition:
                self._bytes -= size

    def _has_work(self) -> bool:
        # Series left over from a refusal do not count: alone they would ask a full disk again and again.
        return (bool(self._queue) or self._is_due) and self._state is _State.TAKING

    def _take_group(self) -> tuple[list[Frame], list[Series], int]:
        frames: list[Frame] = []
        size = 0
        while self._queue and size < self._max_group_bytes:
            frame = self._queue.popleft()
            frames.append(frame)
            size += frame.memory_bytes
        series, self._series = list(self._series.values()), {}
        self._is_due = False
        return frames, series, size

    def _refuse(self, frames: list[Frame], series: list[Series], error: DiskFullError) -> None:
        with self._condition:
            if not self._refused_count:
                _log.warning("refusing reason=%s", error)
            self._state = _State.REFUSING
            self._bytes -= sum(frame.memory_bytes for frame in self._queue)
            self._refused = [*frames, *self._queue]
            self._queue.clear()
            self._is_due = False
            for known in series:
                self._series.setdefault(known.id, known)
        self._answer(self._hand_back, [])

    def _hand_back(self, _: list[Frame]) -> None:
        """On the loop: tell of everything refused, then take frames again."""
        with self._condition:
            refused, self._refused = self._refused, []
            self._refused_count += len(refused)
            # `submit` runs on this thread too: nothing can come between this and the callback.
            self._state = _State.TAKING
        self._on_refused(refused)

    def _fail(self, error: Exception) -> None:
        _log.error("journal failed reason=%s", error, exc_info=not isinstance(error, JournalError))
        with self._condition:
            self._state = _State.FAILED
            self._queue.clear()
            self._bytes = 0
        try:
            self._loop.call_soon_threadsafe(self._on_failed, error)
        except RuntimeError:
            _log.debug("the loop is closed; nobody hears that the journal failed")

    def _answer(self, callback: FramesCallback, frames: list[Frame]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, frames)
        except RuntimeError:
            # A stop without a loop: the frames are stored; devices that heard no ack send them again.
            _log.debug("the loop is closed; %d frames are stored and not acked", len(frames))
