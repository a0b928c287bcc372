"""The loop that owns the connection: brings frames from the spool to the hub, for as long as the device lives.

Owns: connecting and reconnecting, the order of session steps, timers, waiters
of `flush`. Place: between `session` (which decides) and `transport` (which
carries); `device` starts it, in its own thread or as a task of the user's loop.
Must not: interpret messages; block the loop when it is the user's.

One step at a time: inputs (a message, a new connection, its end) queue up, and a
step feeds them to the session, cuts, and returns what to send. A step touches
the disk, so in a user's loop (``offload``) it runs in a worker thread; in the
SDK's own thread it runs where it is, which costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from device_sdk.clock import Clock
from device_sdk.conversation import Acknowledged, Closing, SessionEvent, State, Welcomed
from device_sdk.errors import ConnectionLostError, ProtocolError
from device_sdk.outbox import CutFrame
from device_sdk.session import Session
from device_sdk.spool import Spool
from device_sdk.timekeeper import Timekeeper
from device_sdk.transport import LINK_ERRORS, Connection, Connector, LinkError, RetryPolicy, needs_person
from device_sdk.wire import Command, Desired, Reply, Reported

logger = logging.getLogger("device_sdk.courier")

# A power cut may take what was recorded since the last sync: the promise is one second.
SYNC_S = 1.0
# Messages that wait while a step hangs in an fsync; a hub answers frames, and no more than a window of them waits.
MAX_INPUT_BYTES = 1024 * 1024

FrameHook = Callable[[int, bytes, str], None]
AckHook = Callable[[int, str], None]
_Input = Callable[[float], None]


class Control(Protocol):
    """Who takes what the hub asks of the device besides readings; called on the courier's loop, must not block."""

    def welcomed(self) -> None:
        """A connection began: say again what the hub may not have."""

    def take(self, message: Command | Desired) -> None:
        """Take what the hub said."""


class _Step:
    """What one step has computed, for the connection that was in use when it began."""

    __slots__ = ("deadline", "events", "frames", "has_more", "line", "messages", "stream")

    def __init__(self, line: _Line | None) -> None:
        self.line = line
        self.messages: list[bytes] = []
        self.frames: list[CutFrame] = []
        self.stream = ""
        self.events: list[SessionEvent] = []
        self.deadline: float | None = None
        self.has_more = False


class _Line:
    """The courier's ear on one connection; deaf once the connection is given up."""

    def __init__(self, feed: Callable[[bytes], None], kick: Callable[[], None]) -> None:
        self._feed = feed
        self._kick = kick
        self.ended: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()
        self.connection: Connection | None = None

    @property
    def is_writable(self) -> bool:
        return self.connection is not None and self.connection.is_writable

    def message(self, data: bytes) -> None:
        if not self.ended.done():
            self._feed(data)

    def writable(self) -> None:
        if not self.ended.done():
            self._kick()

    def closed(self, error: LinkError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)


class Courier:
    """Carries the frames of one device.

    Args:
        session: the conversation; only the courier calls it.
        spool: the outbox of the session.
        connector: makes connections.
        retry: how long to wait between them.
        device: for log lines.
        clock: for intervals.
        timekeeper: learns the time before anything is cut.
        is_on_disk: the spool needs `sync`.
        offload: run steps in a worker thread (spool on disk inside a user's loop).
        on_frame, on_ack: the user's hooks; they run on this loop.

    `wake`, `declared`, `say`, `controls`, `is_online` and `last_error` are for any thread; all else for the loop that
    runs `run`.
    """

    def __init__(
        self,
        session: Session,
        spool: Spool,
        connector: Connector,
        retry: RetryPolicy,
        *,
        device: str,
        clock: Clock,
        timekeeper: Timekeeper,
        is_on_disk: bool,
        offload: bool,
        on_frame: FrameHook | None = None,
        on_ack: AckHook | None = None,
    ) -> None:
        self._session = session
        self._spool = spool
        self._connector = connector
        self._retry = retry
        self._device = device
        self._clock = clock
        self._timekeeper = timekeeper
        self._is_on_disk = is_on_disk
        self._offload = offload
        self._on_frame = on_frame
        self._on_ack = on_ack
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: _Line | None = None
        self._inputs: list[_Input] = []
        self._input_bytes = 0
        self._hello: bytes | None = None
        self._stepping: asyncio.Future[_Step] | None = None
        self._is_kicked = False
        self._timer: asyncio.TimerHandle | None = None
        self._sync_at: float | None = None
        self._wants_wake = False
        self._changed: asyncio.Future[None] | None = None
        # Present while a pause after a failure may be cut short.
        self._nudge: asyncio.Future[None] | None = None
        self._is_told_to_wait = False
        self._failures = 0
        self._has_warned = False
        self.is_online = False
        self.last_error: str | None = None
        self.controls: list[Control] = []

    async def run(self) -> None:
        """Connect, carry, reconnect, until cancelled; whatever is unacked then stays in the spool."""
        self._loop = asyncio.get_running_loop()
        self.kick()
        try:
            while True:
                await self._pause(await self._carry_once())
        finally:
            self._wants_wake = False
            self._loop = None
            if self._timer is not None:
                self._timer.cancel()
            if self._stepping is not None:
                await asyncio.wait((self._stepping,))

    def wake(self) -> None:
        """Note, from any thread, that the spool got something. Costs nothing while a wake is on its way."""
        loop = self._loop
        if self._wants_wake and loop is not None:
            self._wants_wake = False
            try:
                loop.call_soon_threadsafe(self.kick)
            except RuntimeError:
                # The loop was closed under a device that was not; the spool keeps what was recorded.
                logger.debug("recorded after the end of the loop device=%s", self._device)

    def declared(self) -> None:
        """Note, from any thread, that a channel was declared."""
        self._session.schema_changed()
        self.wake()

    def declare_commands(self, commands: dict[str, Any]) -> None:
        """Declare, from any thread, all commands of the device."""
        self._session.declare_commands(commands)
        self.wake()

    def say(self, message: Reply | Reported) -> None:
        """Say something beside the frames, from any thread; lost with the connection (see `Control.welcomed`)."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._say, message)

    def _say(self, message: Reply | Reported) -> None:
        self._inputs.append(lambda now: self._session.say(message))
        self.kick()

    async def drain(self, timeout_s: float, *, give_up_offline: bool = False) -> bool:
        """Wait until all that was recorded before this call is durable at the hub; False when it is not.

        Args:
            timeout_s: seconds.
            give_up_offline: also stop waiting when the hub cannot be reached now.
        """
        loop = asyncio.get_running_loop()
        base, pending, failures = self._progress(), self._spool.pending, self._failures
        if self._nudge is not None and not self._nudge.done():
            self._nudge.set_result(None)
        deadline = loop.time() + timeout_s
        self._session.hurry()
        self.kick()
        while self._spool.backlog or not self._is_drained(base, pending):
            if self._spool.backlog:  # live readings overtake it: what is left once it is cut leaves in order again
                base, pending = self._progress(), self._spool.pending
            left_s = deadline - loop.time()
            is_hopeless = not self.is_online and (self._is_told_to_wait or self._failures > failures)
            if left_s <= 0 or (give_up_offline and is_hopeless):
                return False
            if self._changed is None or self._changed.done():
                self._changed = loop.create_future()
            await asyncio.wait((self._changed,), timeout=left_s)
        return True

    # --- steps ---------------------------------------------------------------------------------

    def kick(self) -> None:
        """Do a step now, or right after the present one."""
        if self._loop is None:
            return
        if self._stepping is not None:
            self._is_kicked = True
            return
        inputs, self._inputs, self._input_bytes = self._inputs, [], 0
        if not self._offload:
            self._finish(self._compute(self._line, inputs))
            return
        self._stepping = self._loop.run_in_executor(None, self._compute, self._line, inputs)
        self._stepping.add_done_callback(self._finish_offloaded)

    def _feed(self, data: bytes) -> None:
        self._input_bytes += len(data)
        if self._input_bytes > MAX_INPUT_BYTES and self._stepping is not None and self._line is not None:
            self._line.closed(ConnectionLostError("the hub says more than the device can read while its disk hangs"))
            return
        self._inputs.append(partial(self._session.receive, data))
        self.kick()

    def _compute(self, line: _Line | None, inputs: list[_Input]) -> _Step:
        """Feed the session, cut, gather. The only place that touches session and disk; one at a time."""
        session, now, step = self._session, self._clock.monotonic_s(), _Step(line)
        for feed in inputs:
            self._guard(feed, now)
        self._guard(self._advance, now)
        if self._hello is not None:
            step.messages.append(self._hello)
            self._hello = None
        if line is not None and line.is_writable:
            self._guard(partial(self._gather, step), now)
        step.events = session.events()
        step.deadline = _earliest(session.next_deadline(), self._sync_at)
        return step

    def _gather(self, step: _Step, now: float) -> None:
        step.stream = self._spool.stream
        for item in self._session.frames_to_send(now):
            step.messages.append(item.data)
            if item.is_first and item.frame is not None:
                step.frames.append(item.frame)
        step.has_more = self._session.has_more_to_send

    def _advance(self, now: float) -> None:
        """Let time pass: deadlines, cuts, the sync of each second."""
        session, spool = self._session, self._spool
        session.tick(now)
        self._timekeeper.learn(session.hub_time_ns)
        while session.cut_is_due(now) and session.cut(now):
            pass
        if self._sync_at is not None and now >= self._sync_at:
            spool.sync()
            self._sync_at = None
        # Wish first, look second: a record() after the look wakes us, one before it is seen by the look. With
        # readings waiting there is a timer or an ack to come, and a wake for each of them would only cost.
        self._wants_wake = True
        # Also what may not be numbered yet, behind a stream that must end first, is to be synced.
        if spool.has_uncut or spool.unnumbered:
            self._wants_wake = session.waits_for_live
            if self._is_on_disk and self._sync_at is None:
                self._sync_at = now + SYNC_S

    def _guard(self, act: _Input, now: float) -> None:
        """Turn any failure into the end of the connection: the next hello settles where both ends stand."""
        try:
            act(now)
        except ProtocolError as error:
            self._end(str(error))
        except Exception:
            # The task's outer edge: a fault of ours costs a reconnect, never the user's program.
            logger.exception("step failed device=%s", self._device)
            self._end("an internal error of the SDK, see the log")

    def _end(self, why: str) -> None:
        if self._session.state is not State.OFFLINE:
            self._session.end(why)

    def _finish_offloaded(self, done: asyncio.Future[_Step]) -> None:
        self._stepping = None
        if not done.cancelled() and self._loop is not None:
            self._finish(done.result())

    def _finish(self, step: _Step) -> None:
        """Do what must happen on the loop: send, report, set the timer."""
        line = step.line
        if line is not None and line is self._line and line.connection is not None:
            if self._on_frame is not None:
                for frame in step.frames:
                    self._call(partial(self._on_frame, frame.seq, frame.body, step.stream))
            if step.messages:
                line.connection.send(step.messages)
        for event in step.events:
            self._report(event, line)
        self._set_timer(step.deadline)
        if self._is_kicked or self._inputs or (step.has_more and line is not None and line.is_writable):
            self._is_kicked = False
            assert self._loop is not None, "steps happen inside run"
            self._loop.call_soon(self.kick)
        self._notify()

    def _report(self, event: SessionEvent, line: _Line | None) -> None:
        match event:
            case Welcomed():
                self._welcomed(event, line)
            case Acknowledged(stored, stream):
                if self._on_ack is not None:
                    self._call(partial(self._on_ack, stored, stream))
            case Command() | Desired():
                for control in tuple(self.controls):
                    self._call(partial(control.take, event))
            case Closing(why, retry_s):
                if line is not None:
                    line.closed(ConnectionLostError(why, retry_ms=None if retry_s is None else round(retry_s * 1000)))

    def _welcomed(self, event: Welcomed, line: _Line | None) -> None:
        self.is_online = line is self._line
        self.last_error = None
        self._has_warned = False
        self._retry.connected(self._clock.monotonic_s())
        logger.info("online device=%s stream=%s", self._device, self._spool.stream)
        if line is not None and line.connection is not None:
            line.connection.keep_alive(event.ping_s)
        for control in tuple(self.controls):
            self._call(control.welcomed)

    # --- connections ---------------------------------------------------------------------------

    async def _carry_once(self) -> float:
        """Use one connection from beginning to end; return how long to wait before the next."""
        line = _Line(self._feed, self.kick)
        logger.debug("connecting device=%s", self._device)
        try:
            line.connection = await self._connector.connect(line)
        except LINK_ERRORS as refusal:
            return self._failed(refusal)
        self._line = line
        self._inputs.append(self._greet)
        self.kick()
        try:
            error = await line.ended
        except asyncio.CancelledError:
            await self._say_bye(line.connection)
            raise
        finally:
            self._line = None
            self.is_online = False
            line.connection.close()
            self._inputs.append(self._part)
        self.kick()
        return self._failed(error)

    async def _say_bye(self, connection: Connection) -> None:
        self._loop = None  # no step begins any more: the session is ours
        if self._stepping is not None:
            await asyncio.wait((self._stepping,))
        if self._session.is_online:
            connection.send([self._session.farewell()])
        connection.close()
        await connection.wait_closed()

    def _greet(self, now: float) -> None:
        self._hello = self._session.connected(now, *self._timekeeper.reading(), self._timekeeper.clock)

    def _part(self, now: float) -> None:
        self._hello = None
        self._session.disconnected()

    def _failed(self, error: LinkError) -> float:
        pause_s = self._retry.pause_s(error, self._clock.monotonic_s())
        self._is_told_to_wait = needs_person(error) or getattr(error, "retry_ms", None) is not None
        self._nudge = None if self._is_told_to_wait else asyncio.get_running_loop().create_future()
        self._failures += 1
        self.last_error = str(error)
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        logger.log(level, "offline device=%s retry_s=%.1f reason=%s", self._device, pause_s, error)
        self._notify()
        return pause_s

    async def _pause(self, pause_s: float) -> None:
        """Wait; `drain` cuts it short, except where the hub has asked for patience."""
        if self._nudge is None:
            await asyncio.sleep(pause_s)
        else:
            await asyncio.wait((self._nudge,), timeout=pause_s)
        self._nudge = None
        self._is_told_to_wait = False

    # --- timers, waiters, hooks ----------------------------------------------------------------

    def _set_timer(self, deadline: float | None) -> None:
        """Come back at ``deadline``. A timer that fires sooner stays: an empty step is cheaper than a new timer."""
        assert self._loop is not None, "timers are set inside run"
        if deadline is None:
            return
        at = self._loop.time() + max(0.0, deadline - self._clock.monotonic_s())
        if self._timer is not None:
            if self._timer.when() <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.kick()

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _call(self, hook: Callable[[], None]) -> None:
        try:
            hook()
        except Exception:
            logger.exception("a hook of the user failed device=%s", self._device)

    def _progress(self) -> int:
        """Return how many readings that waited are stored or were dropped; what was never taken did not wait."""
        held = self._spool.statistics()
        return self._session.settled + held.dropped - held.refused

    def _is_drained(self, base: int, pending: int) -> bool:
        if self._spool.pending == 0 and not self._session.has_unacked:
            return True
        return pending > 0 and self._progress() - base >= pending


def _earliest(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
