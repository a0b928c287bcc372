"""The thread that carries committed frames from the journal into the store.

Owns: where the store is, what waits in memory for it, retries. Place: after
`journal.base` and `store.base`. An ack never waits for it. Must not: know
which journal and which store.

Theory of operation. The store's own ``applied`` says where to go on. Frames
that were just committed are handed over in memory; while they follow what is
queued and fit its limit, the journal is not read back. Otherwise they are
dropped here, and the thread reads the journal until it meets the queue again.
An error of the store loses nothing: the frames stay queued, or in the journal.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hub.errors import DiskFailedError, ExpiredError
from hub.journal.base import JournalStatistics
from hub.model import Frame
from hub.store.base import StoreStatistics

_log = logging.getLogger("hub.store.consumer")

CONSUMER = "store"
# Frames waiting in memory; beyond it they are read back from the journal, which costs decoding them again. In bodies
# this is 4 MiB of single readings to 9 MiB of batches of a hundred.
MAX_QUEUE_BYTES = 64 * 1024 * 1024
# Readings of one write: about 10 ms, so that a stop is quick and the interpreter lock is shared in small pieces.
SLICE_READINGS = 5000
_SLICE_BYTES = 64 * 1024
# The checkpoint only lets the journal forget; each costs one fsync of the store.
CHECKPOINT_S = 5.0
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """How far the store is behind the journal (frames), what waits in memory, what went wrong."""

    applied: int
    behind: int
    queued_bytes: int
    limit_bytes: int
    errors: int
    expired: int
    last_error: str


@dataclass(slots=True)
class _Waiter:
    offset: int
    future: "asyncio.Future[bool]"
    loop: asyncio.AbstractEventLoop


class Source(Protocol):
    """What is asked of a journal: see `Journal`."""

    @property
    def head(self) -> int: ...
    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        """Return frames behind ``after``."""

    def statistics(self) -> JournalStatistics:
        """Return the figures of now."""

    def checkpoint(self, consumer: str) -> int:
        """Return what was set."""

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        """Keep frames above it."""


class Sink(Protocol):
    """What is asked of a store: see `Store`."""

    @property
    def applied(self) -> int: ...
    def write(self, frames: Sequence[Frame]) -> None:
        """Take frames; those ≤ ``applied`` are skipped."""

    def sync(self) -> int:
        """Make what was written durable; return up to where it is."""

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back."""

    def statistics(self) -> StoreStatistics:
        """Return the figures of now."""


class StoreConsumer:
    """Feeds one store from one journal.

    Args:
        store, journal: `Store.write` and `Journal.read` are called from this thread.
        name: of the checkpoint, and in the log.
        on_failed: called once, from this thread, when the store's disk failed; the thread then ends.
        clock: monotonic seconds; paces checkpoints.
    """

    def __init__(
        self,
        store: Sink,
        journal: Source,
        *,
        name: str = CONSUMER,
        on_failed: Callable[[Exception], None] | None = None,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        slice_readings: int = SLICE_READINGS,
        retry_first_s: float = _RETRY_FIRST_S,
        checkpoint_s: float = CHECKPOINT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._journal = journal
        self._name = name
        self._on_failed = on_failed
        self._max_queue_bytes = max_queue_bytes
        self._slice_readings = slice_readings
        self._retry_first_s = retry_first_s
        self._checkpoint_s = checkpoint_s
        self._clock = clock
        self._condition = threading.Condition()
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._head = journal.head
        self._position = self._applied = store.applied
        self._waiters: list[_Waiter] = []
        self._is_stopping = False
        self._errors = self._expired = 0
        self._last_error = ""
        self._checkpointed_at = clock()
        self._thread = threading.Thread(target=self._run, name=f"hub-{name}-consumer", daemon=False)

    def start(self) -> None:
        """Start the thread, which first replays what the store has not seen; call once, and `stop` afterwards."""
        self._head = self._journal.head
        # A store on another server has counted more than it has for certain.
        counted = self._store.statistics().applied
        if max(self._position, counted) > self._head:
            _log.error(
                "%s ahead of journal applied=%d head=%d: the journal was restored; going on from its head",
                self._name, max(self._position, counted), self._head,
            )  # fmt: skip
            self._store.rewind(self._head)
            self._position = self._applied = self._store.applied
        # From now on the journal keeps what the store has not seen.
        self._journal.set_checkpoint(self._name, self._position)
        self._thread.start()

    def wake(self, frames: Sequence[Frame]) -> None:
        """Hand over the frames of a commit, in commit order; any one thread, never waits."""
        if not frames:
            return
        size = sum(frame.memory_bytes for frame in frames)
        with self._condition:
            self._head = frames[-1].offset
            follows = not self._queue or self._queue[-1].offset + 1 == frames[0].offset
            if follows and self._queued_bytes + size <= self._max_queue_bytes:
                self._queue.extend(frames)
                self._queued_bytes += size
            self._condition.notify()

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Wait until the store holds every frame ≤ ``offset``; return False when that takes longer.

        May be cancelled without loss.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(offset, loop.create_future(), loop)
        with self._condition:
            if self._position >= offset:
                return True
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.future
        except TimeoutError:
            return False
        finally:
            with self._condition:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def statistics(self) -> ConsumerStatistics:
        """Return the figures of now."""
        with self._condition:
            return ConsumerStatistics(
                self._position, self._head - self._position, self._queued_bytes, self._max_queue_bytes,
                self._errors, self._expired, self._last_error,
            )  # fmt: skip

    def stop(self) -> None:
        """Finish the write at hand and end the thread; blocks, safe to call twice. The journal keeps the rest."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()
        with self._condition:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _answer(waiter, False)

    def _run(self) -> None:
        delay_s = self._retry_first_s
        while self._wait_for_work():
            try:
                self._step()
            except DiskFailedError as error:
                # The store takes nothing more; the journal keeps it for the start on a fresh copy.
                with self._condition:
                    self._errors += 1
                    self._last_error = str(error)
                if self._on_failed is not None:
                    self._on_failed(error)
                return
            except Exception as error:
                # Whatever else the store raised, the frames are still in the journal: wait and try again, for ever.
                self._note_error(error)
                self._pause(delay_s)
                delay_s = min(delay_s * 2, _RETRY_LAST_S)
            else:
                delay_s = self._retry_first_s
        try:
            self._checkpoint()
        except Exception as error:
            self._note_error(error)

    def _wait_for_work(self) -> bool:
        """Return True when frames or a checkpoint are due, False when stopping."""
        with self._condition:
            while not self._is_stopping and self._head <= self._position:
                if self._journal.checkpoint(self._name) == self._position:
                    self._condition.wait()
                    continue
                due_s = self._checkpointed_at + self._checkpoint_s - self._clock()
                if due_s <= 0:
                    return True
                self._condition.wait(due_s)
            return not self._is_stopping

    def _step(self) -> None:
        self._follow()
        frames = self._next_frames()
        if frames:
            self._store.write(frames)
            self._applied = frames[-1].offset
            self._advance(frames[-1].offset)
        if self._clock() - self._checkpointed_at >= self._checkpoint_s:
            self._checkpoint()
            self._follow()

    def _follow(self) -> None:
        """Go back with a store that lost what it had not made durable; the journal still has it."""
        applied = self._store.applied
        if applied < self._applied:
            _log.warning(
                "%s fell back applied=%d from=%d: reading the journal again", self._name, applied, self._position
            )
            with self._condition:
                self._position = min(self._position, applied)
        self._applied = applied

    def _next_frames(self) -> list[Frame]:
        """Return the next slice: from the queue when it is at hand there, else from the journal."""
        with self._condition:
            while self._queue and self._queue[0].offset <= self._position:
                self._queued_bytes -= self._queue.popleft().memory_bytes
            head, upto = self._head, None
            if self._queue:
                upto = self._queue[0].offset - 1
                if upto == self._position:
                    return self._slice()
        if head <= self._position:
            return []
        try:
            return self._journal.read(self._position, _SLICE_BYTES, upto)
        except ExpiredError as error:
            first = self._journal.statistics().first_offset
            _log.error("%s lost frames from=%d to=%d reason=%s", self._name, self._position + 1, first - 1, error)
            self._expired += first - 1 - self._position
            self._position = first - 1
            return []

    def _slice(self) -> list[Frame]:
        """Return frames from the front of the queue; they leave it when they are written."""
        frames: list[Frame] = []
        readings = 0
        for frame in self._queue:
            frames.append(frame)
            readings += frame.readings
            if readings >= self._slice_readings:
                break
        return frames

    def _advance(self, offset: int) -> None:
        with self._condition:
            self._position = offset
            ready = [w for w in self._waiters if w.offset <= offset]
            if ready:
                self._waiters = [w for w in self._waiters if w.offset > offset]
        for waiter in ready:
            _answer(waiter, True)

    def _checkpoint(self) -> None:
        self._checkpointed_at = self._clock()
        if self._journal.checkpoint(self._name) != self._store.applied:
            self._journal.set_checkpoint(self._name, self._store.sync())

    def _note_error(self, error: Exception) -> None:
        # The first of a series in full; the following ones are the same trouble going on.
        level = logging.DEBUG if self._last_error == str(error) else logging.ERROR
        _log.log(
            level, "%s failed applied=%d reason=%s; trying again", self._name, self._position, error, exc_info=error
        )
        with self._condition:
            self._errors += 1
            self._last_error = str(error)

    def _pause(self, delay_s: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._is_stopping, delay_s)


def _answer(waiter: _Waiter, is_applied: bool) -> None:
    def set_result() -> None:
        if not waiter.future.done():
            waiter.future.set_result(is_applied)

    try:
        waiter.loop.call_soon_threadsafe(set_result)
    except RuntimeError:
        _log.debug("the loop of a waiter is closed")
