"""Calls hooks apart from the hub's event loop, each in bounded time.

Owns: the threads that hooks run in, and which of them are stuck. Place: below `hub.app`; `ingest` and `grant` see its
`call` and `ask`. Must not: know what a hook is about.

Theory of operation. A plain function runs in one of a few threads, a coroutine in a thread that has an event loop of
its own: whatever a hook does, the loop on which devices and watchers are served goes on. A call that takes longer than
`timeout_s` fails. A coroutine is cancelled then; a function cannot be ended, so its thread is given up and another
takes its place, up to `MAX_STUCK` of them: beyond that calls fail at once until one comes back, and nothing grows.

One thread does the work as long as it keeps up, and others help for as long as it does not: threads share one
interpreter, and the hand-over between four that are not needed costs three times what a short hook does.
"""

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from hub.hooks.answer import HookError, name_of

_log = logging.getLogger("hub.hooks")

# An ack waits for it, and a device gives a connection up after 60 s without one.
TIMEOUT_S = 1.0
# At once, for functions. With one, a slow hook of one device would hold up all; more than a few gain nothing.
THREADS = 4
# How often it is looked whether a thread needs help: so long one that hangs holds up what is behind it.
LOOK_S = 0.02
# Threads that are given up and still run: a stack and some kilobytes each.
MAX_STUCK = 16
# Coroutines of one loop that went on when they were cancelled: beyond it the loop counts as stuck.
MAX_UNENDING = 64
# Coroutines at once; a lookup of 10 ms is then done 25,000 times a second, more than one interpreter can.
MAX_COROUTINES = 256

Hook = Callable[..., object]
Answered = Callable[[object, HookError | None], None]


class _Job:
    """One call: begun by a thread of hooks, ended on the hub's loop, once."""

    __slots__ = ("answer", "answered", "arguments", "error", "hook", "is_over", "started_s")

    def __init__(self, hook: Hook, arguments: tuple[object, ...], answered: Answered) -> None:
        self.hook = hook
        self.arguments = arguments
        self.answered = answered
        self.answer: object = None
        self.error: HookError | None = None
        self.started_s = 0.0
        self.is_over = False


class _Worker:
    """A thread that calls functions, one after the other; a helper ends when none waits."""

    def __init__(
        self, jobs: "queue.SimpleQueue[_Job | None]", finished: Callable[[_Job], None], *, is_helper: bool
    ) -> None:
        self.job: _Job | None = None
        self.is_given_up = False
        self.is_helper = is_helper
        self._jobs = jobs
        self._finished = finished
        # A daemon: a function that never returns must not keep the hub from ending.
        self.thread = threading.Thread(target=self._run, name="hub hooks", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with suppress(queue.Empty):
            while not self.is_given_up and (job := self._jobs.get(block=not self.is_helper)) is not None:
                self._call(job)

    def _call(self, job: _Job) -> None:
        job.started_s = time.monotonic()
        self.job = job
        try:
            job.answer = job.hook(*job.arguments)
            if inspect.isawaitable(job.answer):
                job.error = HookError("it returned something to await: write it with `async def`")
        except BaseException as error:  # the outer edge of foreign code, whatever it raises
            job.error = _raised(job.hook, error)
        self.job = None
        self._finished(job)


class _Lane:
    """A thread with an event loop that runs coroutines."""

    def __init__(self, finished: Callable[[_Job], None]) -> None:
        # Put and not over, for the hub's loop; what the lane has not begun is in `_incoming`.
        self.jobs: set[_Job] = set()
        # When the loop was asked for a sign of life that it has not given yet.
        self.asked_s: float | None = None
        self._finished = finished
        self._loop = asyncio.new_event_loop()
        self._incoming: deque[_Job] = deque()
        self._is_due = False
        self._tasks: dict[_Job, asyncio.Task[None]] = {}
        # Cancelled, when, and not over yet.
        self._cancelled: dict[_Job, float] = {}
        self.thread = threading.Thread(target=self._run, name="hub async hooks", daemon=True)
        self.thread.start()

    def put(self, job: _Job) -> None:
        """Run a job; on the hub's loop."""
        self.jobs.add(job)
        self._incoming.append(job)
        # As in `Runner._has_finished`: set back before the jobs are taken.
        if not self._is_due:
            self._is_due = True
            with suppress(RuntimeError):  # the loop was stopped by a hook: `is_stuck` says so soon
                self._loop.call_soon_threadsafe(self._begin)

    def take_back(self) -> list[_Job]:
        """Return the jobs that were not begun, which are not begun here any more; on the hub's loop."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._incoming.popleft())
        return taken

    def cancel(self, job: _Job) -> None:
        """Cancel what runs too long; on the hub's loop."""
        with suppress(RuntimeError):  # it has ended with its loop
            self._loop.call_soon_threadsafe(self._cancel, job)

    def unending(self, before_s: float) -> int:
        """Return how many coroutines were cancelled before then and go on."""
        return sum(at < before_s for at in list(self._cancelled.values()))

    def is_stuck(self, now_s: float, timeout_s: float) -> bool:
        """Return whether a coroutine has blocked the loop for longer than a call may take, or stopped it."""
        if not self.thread.is_alive():
            return True
        # Read once: the lane's thread may answer between two lines.
        asked_s = self.asked_s
        if asked_s is None:
            self.asked_s = now_s
            with suppress(RuntimeError):  # it ends just now
                self._loop.call_soon_threadsafe(self._is_alive)
            return False
        return now_s - asked_s > timeout_s

    def stop(self) -> None:
        """End the loop when it can; harmless when it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _is_alive(self) -> None:
        self.asked_s = None

    def _begin(self) -> None:
        self._is_due = False
        with suppress(IndexError):  # none is left, also when `take_back` was quicker
            while len(self._tasks) < MAX_COROUTINES:
                job = self._incoming.popleft()
                job.started_s = time.monotonic()
                self._tasks[job] = self._loop.create_task(self._run_job(job))

    def _cancel(self, job: _Job) -> None:
        if (task := self._tasks.get(job)) is not None:
            self._cancelled[job] = time.monotonic()
            task.cancel()

    async def _run_job(self, job: _Job) -> None:
        try:
            job.answer = await job.hook(*job.arguments)  # type: ignore[misc]  # `Runner.call` looked
        except BaseException as error:  # the outer edge of foreign code, whatever it raises; cancelled: it is over
            job.error = _raised(job.hook, error)
        del self._tasks[job]
        self._cancelled.pop(job, None)
        self._finished(job)
        if self._incoming:
            self._begin()


class Runner:
    """Calls hooks. All methods are for the loop it is made on.

    Args:
        loop: where answers are given.
        timeout_s: how long one call may take, seconds. look_s: see `LOOK_S`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, timeout_s: float = TIMEOUT_S, look_s: float = LOOK_S
    ) -> None:
        self._hub_loop = loop
        self._timeout_s = timeout_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._lane: _Lane | None = None
        # Given up, and not seen to have ended: a worker may have taken one job more, which is watched as others are.
        self._given_up: list[_Worker | _Lane] = []
        # Finished by a thread and not yet handed on: many at once cost the loop one wake-up.
        self._finished: deque[_Job] = deque()
        self._is_due = False
        self._open = self._answered = 0
        self._look_s = min(look_s, timeout_s / 4)
        self._watch: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def call(self, hook: Hook, arguments: tuple[object, ...], answered: Answered) -> None:
        """Call ``hook(*arguments)`` apart; ``answered`` gets what it returned, or an error, in bounded time."""
        job = _Job(hook, arguments, answered)
        self._open += 1
        if self._watch is None:
            self._watch = self._hub_loop.call_later(self._look_s, self._look)
        if self._is_stopped:
            self._give_up(job, "the hub stops")
        elif _is_async(hook):
            self._put_async(job)
        else:
            self._put(job)

    async def ask(self, hook: Hook, *arguments: object) -> object:
        """Return what a hook answers; may be cancelled.

        Raises:
            HookError: it raised, or took too long.
        """
        future: asyncio.Future[object] = self._hub_loop.create_future()

        def answered(answer: object, error: HookError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        self.call(hook, arguments, answered)
        return await future

    def stop(self) -> None:
        """Let the threads end; calls that are open fail. Never waits: a hook may be stuck."""
        self._is_stopped = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for _ in self._workers:
            self._jobs.put(None)
        if self._lane is not None:
            self._lane.stop()

    @property
    def stuck(self) -> int:
        """How many threads were given up and have not come back."""
        self._given_up = [one for one in self._given_up if one.thread.is_alive()]
        return len(self._given_up)

    def _put(self, job: _Job) -> None:
        if not self._workers and self.stuck < MAX_STUCK:
            self._workers.append(_Worker(self._jobs, self._has_finished, is_helper=False))
        if self._workers:
            self._jobs.put(job)
        else:
            self._give_up(job, f"{self.stuck} calls of hooks hang: their threads are used up")

    def _put_async(self, job: _Job) -> None:
        if self._lane is None and self.stuck < MAX_STUCK:
            self._lane = _Lane(self._has_finished)
        if self._lane is not None:
            self._lane.put(job)
        else:
            self._give_up(job, f"{self.stuck} calls of hooks hang: their threads are used up")

    def _give_up(self, job: _Job, why: str) -> None:
        job.error = HookError(why)
        self._has_finished(job)

    def _has_finished(self, job: _Job) -> None:
        """From any thread."""
        self._finished.append(job)
        # Set back before the jobs are taken, so one that comes meanwhile is taken or wakes the loop once more.
        if not self._is_due:
            self._is_due = True
            with suppress(RuntimeError):  # the hub's loop has ended
                self._hub_loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        while self._finished:
            job = self._finished.popleft()
            self._end(job, job.answer, job.error)

    def _end(self, job: _Job, answer: object, error: HookError | None) -> None:
        if job.is_over:
            return
        job.is_over = True
        self._open -= 1
        self._answered += 1
        if self._lane is not None:
            self._lane.jobs.discard(job)
        try:
            job.answered(answer, error)
        except Exception:  # the outer edge: the other answers must get through
            _log.exception("answer of a hook not taken hook=%s", name_of(job.hook))

    def _look(self) -> None:
        """Find threads that are stuck; as long as calls are open."""
        self._watch = None
        now_s = time.monotonic()
        for worker in [*self._workers, *(one for one in self._given_up if isinstance(one, _Worker))]:
            job = worker.job
            if job is not None and not job.is_over and now_s - job.started_s > self._timeout_s:
                self._replace(worker, job)
        self._workers = [one for one in self._workers if one.thread.is_alive()]
        waiting, answered, self._answered = self._jobs.qsize(), self._answered, 0
        keeps_up = waiting <= (answered if self._workers else 0)
        if not keeps_up and len(self._workers) < THREADS and self.stuck < MAX_STUCK:
            is_helper = any(not one.is_helper for one in self._workers)
            self._workers.append(_Worker(self._jobs, self._has_finished, is_helper=is_helper))
        if self._lane is not None and (self._lane.jobs or self._lane.asked_s is not None):
            self._look_at(self._lane, now_s)
        if self._open or (self._lane is not None and self._lane.asked_s is not None):
            self._watch = self._hub_loop.call_later(self._look_s, self._look)

    def _look_at(self, lane: _Lane, now_s: float) -> None:
        for job in [job for job in lane.jobs if job.started_s and now_s - job.started_s > self._timeout_s]:
            lane.cancel(job)
            self._end(job, None, _late(self._timeout_s))
        if lane.is_stuck(now_s, self._timeout_s) or lane.unending(now_s - self._timeout_s) > MAX_UNENDING:
            self._lane = None
            self._note(lane, "async hooks")
            lane.stop()
            waiting = lane.take_back()
            for job in lane.jobs.difference(waiting):
                self._end(job, None, HookError("a coroutine blocks the loop of async hooks: it must await, not wait"))
            for job in waiting:
                self._put_async(job)

    def _replace(self, worker: _Worker, job: _Job) -> None:
        if not worker.is_given_up:
            worker.is_given_up = True
            self._workers.remove(worker)
            self._note(worker, name_of(job.hook))
        self._end(job, None, _late(self._timeout_s))
        if not self._workers and self.stuck >= MAX_STUCK:
            with suppress(queue.Empty):
                while (waiting := self._jobs.get_nowait()) is not None:
                    self._give_up(waiting, f"{self.stuck} calls of hooks hang: their threads are used up")

    def _note(self, one: _Worker | _Lane, what: str) -> None:
        self._given_up.append(one)
        _log.error("hook hangs: %s; its thread is given up, %d of %d", what, self.stuck, MAX_STUCK)


def _is_async(hook: Hook) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)


def _raised(hook: Hook, error: BaseException) -> HookError:
    try:
        text = str(error)[:200]
    except Exception:  # a bug in foreign code's own error: its call must be answered all the same
        text = "without a text"
    found = HookError(f"{name_of(hook)} raised {type(error).__name__}: {text}")
    found.__cause__ = error
    return found


def _late(timeout_s: float) -> HookError:
    return HookError(f"no answer within {timeout_s:g} s")
