"""Hooks run beside the hub's loop in bounded time, whatever they do; each call is answered once."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from hub.hooks import runner as module
from hub.hooks.answer import HookError
from hub.hooks.runner import THREADS, Runner

# Of a call that must end by itself; what must not is ended by the test.
QUICK_S = 0.05
LIMIT_S = 10.0
pytestmark = pytest.mark.asyncio


class Gate:
    """Hooks that hang until the test ends."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def hang(self) -> str:
        self.event.wait(LIMIT_S)
        return "late"

    async def block(self) -> str:
        return self.hang()

    async def never(self) -> None:
        await asyncio.Event().wait()

    async def stubborn(self) -> None:
        while not self.event.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Let all that hangs go at the end."""
    gate = Gate()
    yield gate
    gate.event.set()


async def within(runner: Runner, *hooks: object) -> list[object]:
    calls = [runner.ask(hook) for hook in hooks]  # type: ignore[arg-type]
    return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT_S)


def make(timeout_s: float = LIMIT_S) -> Runner:
    return Runner(asyncio.get_running_loop(), timeout_s=timeout_s)


async def test_functions_and_coroutines_are_answered() -> None:
    """Arguments go in, the answer comes out; none of it in the hub's thread."""
    runner, here = make(), threading.get_ident()

    def sync(number: int) -> object:
        return number, threading.get_ident() != here

    async def later(number: int) -> object:
        await asyncio.sleep(0)
        return number, threading.get_ident() != here

    class Callable_:
        async def __call__(self, number: int) -> object:
            return await later(number)

    assert [await runner.ask(hook, 5) for hook in (sync, later, Callable_())] == [(5, True)] * 3
    runner.stop()


async def test_many_calls_are_each_answered_once(caplog: pytest.LogCaptureFixture) -> None:
    """Under load answers come in bundles; none is lost, however often threads are looked at meanwhile."""
    runner = Runner(asyncio.get_running_loop(), timeout_s=LIMIT_S, look_s=0.0)
    answers: list[object] = []
    done = asyncio.Event()

    def answered(answer: object, error: HookError | None) -> None:
        answers.append(answer)
        if len(answers) == 2000:
            done.set()

    async def later(number: int) -> int:
        return number

    for number in range(2000):
        runner.call(later if number % 2 else abs, (number,), answered)
    await asyncio.wait_for(done.wait(), LIMIT_S)

    assert sorted(answers) == list(range(2000))  # type: ignore[type-var]
    assert caplog.text == ""
    runner.stop()


async def test_what_a_hook_raises_is_an_error_with_its_name() -> None:
    """Also what is no `Exception`: the thread goes on."""
    runner = make()

    def leave() -> None:
        raise SystemExit("bye")

    async def fail() -> None:
        raise TimeoutError("of its own")

    errors = await within(runner, leave, fail)
    assert [type(error) for error in errors] == [HookError, HookError]
    assert "leave raised SystemExit: bye" in str(errors[0])
    assert "fail raised TimeoutError: of its own" in str(errors[1])
    assert await within(runner, lambda: 1) == [1]
    runner.stop()


class Untold(Exception):
    """An error with an error."""

    def __str__(self) -> str:
        return str(self.args[1])


async def test_error_that_cannot_be_told_is_an_answer_too() -> None:
    """Else its thread ended without one: readings of that device would wait until the hub is started anew."""
    runner = make()

    def fail() -> None:
        raise Untold

    async def fail_too() -> None:
        raise Untold

    errors = await within(runner, fail, fail_too)

    assert [str(error).rpartition("raised ")[2] for error in errors] == ["Untold: without a text"] * 2
    assert await within(runner, lambda: 1) == [1]
    runner.stop()


async def test_coroutine_that_stops_its_loop_ends_no_other() -> None:
    """Who comes while it ends is answered, by an error perhaps; those that come later run in a new one."""
    runner = make()

    async def stop() -> int:
        asyncio.get_running_loop().stop()
        return 1

    async def answer() -> int:
        return 2

    stopped = await within(runner, stop)
    (meanwhile,) = await within(runner, answer)
    later = [await within(runner, answer, answer) for _ in range(3)]

    assert (stopped, later) == ([1], [[2, 2]] * 3)
    assert meanwhile == 2 or isinstance(meanwhile, HookError)
    runner.stop()


async def test_function_that_returns_something_to_await_is_an_error() -> None:
    """Silently it would never run."""
    runner, future = make(), asyncio.get_running_loop().create_future()

    (error,) = await within(runner, lambda: future)

    assert "async def" in str(error)
    runner.stop()


async def test_hanging_function_fails_and_others_go_on(gate: Gate) -> None:
    """As many as there are threads hang: each is given up at its time, and others take their place."""
    runner = make(QUICK_S)

    answers = await within(runner, *[gate.hang] * THREADS, *[time.monotonic] * 10)

    assert ["no answer within" in str(answer) for answer in answers] == [True] * THREADS + [False] * 10
    assert runner.stuck == THREADS
    runner.stop()


async def test_hanging_coroutines_fail_and_others_go_on(gate: Gate) -> None:
    """One that waits is cancelled; one that will not end is let be; one that blocks costs its loop."""
    runner = make(QUICK_S)

    async def good() -> int:
        return 1

    answers = await within(runner, gate.never, gate.stubborn, good)
    assert [str(answer)[:16] for answer in answers] == ["no answer within", "no answer within", "1"]
    blocked = await within(runner, gate.block)
    assert isinstance(blocked[0], HookError)
    assert await within(runner, good) == [1]
    assert runner.stuck == 1
    runner.stop()


async def test_when_all_threads_hang_calls_fail_at_once(gate: Gate) -> None:
    """Nothing grows; when one comes back, hooks are called again."""
    runner = make(QUICK_S)
    most = THREADS + module.MAX_STUCK

    answers = await within(runner, *[gate.hang] * (most + 5))
    assert all(isinstance(answer, HookError) for answer in answers)
    began = time.monotonic()
    (error,) = await within(runner, lambda: 1)
    assert "used up" in str(error)
    assert time.monotonic() - began < LIMIT_S / 2

    gate.event.set()
    while await within(runner, lambda: 1) != [1]:
        assert time.monotonic() < began + LIMIT_S
    runner.stop()


async def test_after_the_stop_calls_fail(gate: Gate) -> None:
    """The stop waits for nothing."""
    runner = make()
    call = asyncio.create_task(runner.ask(gate.hang))
    await within(runner, lambda: 1)

    runner.stop()

    (error,) = await within(runner, lambda: 1)
    assert str(error) == "the hub stops"
    call.cancel()


async def test_callback_that_raises_does_not_take_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next is answered."""
    runner = make()
    answers: list[object] = []

    def raises(answer: object, error: HookError | None) -> None:
        raise ValueError("a bug of ours")

    for _ in range(10):
        runner.call(lambda: 1, (), raises)
        answers += await within(runner, lambda: 2)

    assert answers == [2] * 10
    assert "a bug of ours" in caplog.text
    runner.stop()
