"""Between a device's session and the journal: frames wait here for what hooks say of their readings.

Owns: per stream the frames that wait, in order. Place: after `session`, before the journal's writer. Pure: hooks are
called by the `Call` it is given, which answers later.

Theory of operation. A batch arrives as a *draft*: it counts as accepted, its chain is over the bytes as received, and
nothing of it is checked yet. Hooks are asked about one batch of a stream at a time; what they leave is checked as what
a device sends, and its frame goes to the writer. Frames behind it, of whatever kind, wait, so a stream's order stays.
So dedupe, acks and restarts are as without hooks: a frame sent again is known by its number and chain, whatever a hook
would say of it now, and one that was not stored is asked about anew.

When a hook fails, its frame and those behind it are taken back, as when the disk is full, and the device is told
``slow``: it keeps its readings and sends them again. Other streams go on. When the disk refuses frames, those of the
same streams that wait here are forgotten with them: a later frame must never be stored without an earlier one.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from device_sdk.columns import Batch
from device_sdk.errors import Reason
from device_sdk.wire import MAX_CHANNELS
from hub.devices import Registry
from hub.errors import JournalError
from hub.hooks.answer import Columns, Context, HookError, Refused, left_by, name_of
from hub.model import Frame, StreamKey
from hub.roles import Role
from hub.streams import Streams
from hub.validate import check_batch

_log = logging.getLogger("hub.hooks")

# Decoded frames that wait for hooks, beyond which devices are told ``slow``: seconds of a busy hub.
MAX_WAITING_BYTES = 16 * 1024 * 1024
# About what a decoded reading takes (`hub.model`).
_READING_BYTES = 72
_FRAME_BYTES = 600
# Long enough that a hook that fails is not called without a pause, short enough that a device notices its end.
RETRY_HOOK_MS = 5000
# Of hooks that fail a line is logged each ten seconds, with how many failures came between.
LOG_EVERY_NS = 10 * 10**9

IngestHook = Callable[[Context, Columns], object]
# Told what the hook answered, or why it did not.
Answered = Callable[[object, HookError | None], None]


class Call(Protocol):
    """Calls hooks apart from whoever asks (`hub.hooks.runner.Runner.call`)."""

    def __call__(self, hook: Callable[..., object], arguments: tuple[object, ...], answered: Answered, /) -> None:
        """Call ``hook`` soon; ``answered`` is called once, later, never inside this call."""


@dataclass(frozen=True, slots=True)
class IngestStatistics:
    """Frames and about how many bytes wait for hooks, the limit; batches hooks answered for, and failures."""

    frames: int
    bytes: int
    limit_bytes: int
    answered: int
    failed: int


class Ingest:
    """Asks hooks about the batches of devices; all calls come from the event loop.

    Args:
        hooks: in the order in which they are asked: each sees what the one before left. Empty: frames pass.
        submit: takes complete frames, as `hub.app.Hub.submit`.
    """

    def __init__(
        self,
        hooks: Sequence[IngestHook],
        call: Call,
        streams: Streams,
        registry: Registry,
        submit: Callable[[list[Frame]], None],
        *,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self.has_hooks = bool(hooks)
        self._hooks = tuple(hooks)
        self._call = call
        self._streams = streams
        self._registry = registry
        self._submit = submit
        self._max_bytes = max_bytes
        # A stream is here while frames of it wait; the first of them is a draft that a hook is asked about. A queue
        # that is dropped is never used again: an answer that comes for it means nothing.
        self._queues: dict[StreamKey, deque[Frame]] = {}
        self._bytes = self._answered_count = self._failed_count = 0
        self._logged_ns, self._left_out = -LOG_EVERY_NS, 0

    def take(self, frames: list[Frame]) -> None:
        """Take frames in the order of their streams; hand on at once what waits for nothing."""
        ready = []
        for frame in frames:
            queue = self._queues.get(frame.key)
            if queue is None and frame.draft is None:
                ready.append(frame)
                continue
            self._bytes += _weight(frame)
            if queue is not None:
                queue.append(frame)
                continue
            queue = self._queues[frame.key] = deque([frame])
            self._begin(queue)
        if ready:
            self._submit(ready)

    def refused(self, frames: Sequence[Frame]) -> None:
        """Forget what waits behind frames that the writer refused; call it before `Streams.refused`."""
        for key in {frame.key for frame in frames}:
            self._drop(key)

    def stop(self) -> None:
        """Forget everything: nothing of it was acked, and its devices send it again."""
        for key in list(self._queues):
            self._drop(key)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that devices must."""
        return self._bytes >= self._max_bytes

    def statistics(self) -> IngestStatistics:
        """Return the figures of now."""
        frames = sum(map(len, self._queues.values()))
        return IngestStatistics(frames, self._bytes, self._max_bytes, self._answered_count, self._failed_count)

    def _begin(self, queue: deque[Frame]) -> None:
        frame = queue[0]
        assert frame.draft is not None, "only drafts are waited for"
        self._ask(queue, frame, 0, frame.draft.batch, {})

    def _ask(self, queue: deque[Frame], frame: Frame, step: int, batch: Batch, refused: Refused) -> None:
        namespace, device, _ = frame.key
        context = Context(namespace, device, Role.DEVICE.value, (), frame.received_ns)
        answered = partial(self._answered, queue, frame, step, batch, refused)
        self._call(self._hooks[step], (context, Columns(batch)), answered)

    def _answered(
        self, queue: deque[Frame], frame: Frame, step: int, batch: Batch, refused: Refused,
        answer: object, error: HookError | None,
    ) -> None:  # fmt: skip
        if self._queues.get(frame.key) is not queue:
            return  # its frames were taken back meanwhile
        try:
            if error is not None:
                raise error
            batch = left_by(answer, batch, refused)
            if step + 1 < len(self._hooks):
                self._ask(queue, frame, step + 1, batch, refused)
                return
            self._complete(frame, batch, refused)
        except HookError as why:
            self._fail(queue, step, str(why))
        except Exception as bug:
            # What a hook left may be of any type, and validation and encoding are made for what JSON can be.
            self._fail(queue, step, f"what it left cannot be stored: {bug!r}"[:200])
        else:
            self._answered_count += 1
            self._go_on(queue)

    def _complete(self, frame: Frame, batch: Batch, refused: Refused) -> None:
        """Check what hooks left of a draft, and make it what the journal keeps."""
        draft = frame.draft
        assert draft is not None, "only drafts are completed"
        channels = self._registry.device(frame.key.namespace, frame.key.device).channels
        checked = check_batch(
            batch, frame.body, channels.get, has_all_channels=len(channels) >= MAX_CHANNELS, refused=refused,
            is_changed=batch is not draft.batch,
        )  # fmt: skip
        for series in checked.retyped:
            self._registry.changed(series)
        self._bytes -= _weight(frame)
        frame.body, frame.columns, frame.readings = checked.body, checked.columns, checked.readings
        frame.rejected, frame.rejected_count, frame.reason = checked.rejected, checked.rejected_count, checked.reason
        frame.draft = None

    def _go_on(self, queue: deque[Frame]) -> None:
        """Hand on the completed frame and what waited for it alone; then ask about the next."""
        ready = [queue.popleft()]
        while queue and queue[0].draft is None:
            self._bytes -= _weight(queue[0])
            ready.append(queue.popleft())
        if queue:
            self._begin(queue)
        else:
            del self._queues[ready[0].key]
        # The journal may have failed meanwhile: the hub stops, and nothing of it was acked.
        with suppress(JournalError):
            self._submit(ready)

    def _fail(self, queue: deque[Frame], step: int, why: str) -> None:
        frame = queue[0]
        assert frame.draft is not None, "the first of a queue is a draft until it is completed"
        self._failed_count += 1
        self._log(frame, step, why)
        self._drop(frame.key)
        owner = self._streams.take_back(frame, frame.draft.before, Reason.HOOK_FAILED, RETRY_HOOK_MS)
        if owner is not None:
            owner.flush()

    def _drop(self, key: StreamKey) -> None:
        queue = self._queues.pop(key, None)
        if queue is not None:
            self._bytes -= sum(map(_weight, queue))

    def _log(self, frame: Frame, step: int, why: str) -> None:
        if 0 <= frame.received_ns - self._logged_ns < LOG_EVERY_NS:
            self._left_out += 1
            return
        _log.error(
            "ingest hook failed hook=%s device=%s seq=%d left_out=%d: %s; the device keeps its readings, tried again",
            name_of(self._hooks[step]), frame.key.device, frame.seq, self._left_out, why,
        )  # fmt: skip
        self._logged_ns, self._left_out = frame.received_ns, 0


def _weight(frame: Frame) -> int:
    readings = frame.draft.batch.count if frame.draft is not None else 0
    return _FRAME_BYTES + len(frame.body) + _READING_BYTES * readings
