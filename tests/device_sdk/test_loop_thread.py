"""`LoopThread`: coroutines run beside a loop that runs already, and nothing of it is left."""

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from device_sdk.loop_thread import LoopThread


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "device_sdk-watch"]


@pytest.mark.asyncio
async def test_coroutines_run_beside_a_running_loop() -> None:
    """Each gives its result or raises; they share one loop, which is another."""
    with LoopThread() as thread:
        loops = [thread.run(_loop()), thread.run(_loop())]
        with pytest.raises(ValueError, match="no"):
            thread.run(_fail())

    assert loops[0] is loops[1]
    assert loops[0] is not asyncio.get_running_loop()
    assert loops[0].is_closed()
    assert _threads() == []


@pytest.mark.asyncio
async def test_what_is_left_in_the_loop_is_cancelled() -> None:
    """A task that nobody awaited ends with the block."""
    tasks: list[asyncio.Task[bool]] = []

    async def leave() -> None:
        tasks.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))

    with LoopThread() as thread:
        thread.run(leave())

    assert tasks[0].cancelled()


def test_an_interrupt_cancels_what_is_waited_for() -> None:
    """Ctrl-C, or a notebook's stop button, ends the wait: the coroutine is cancelled, the thread ends."""
    cancelled = threading.Event()

    async def forever() -> None:
        main = threading.main_thread().ident
        assert main is not None, "it runs this test"
        signal.pthread_kill(main, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt), LoopThread() as thread:
        thread.run(forever())

    assert cancelled.is_set()
    assert _threads() == []


UNFINISHED = """
import asyncio
from device_sdk.loop_thread import LoopThread

def numbers():
    with LoopThread() as thread:
        try:
            while True:
                yield thread.run(asyncio.sleep(0, 1))
        finally:
            thread.run(asyncio.sleep(0))

left = numbers()
print(next(left))
"""


def test_program_ends_with_a_loop_that_was_not_left() -> None:
    """Its generator is closed while the interpreter ends: nothing is waited for, nothing is said."""
    done = subprocess.run([sys.executable, "-c", UNFINISHED], capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_generator_that_is_closed_in_the_loops_own_thread_ends_it() -> None:
    """The collector runs in any thread, also in the one that would have to be waited for."""
    threads: list[threading.Thread] = []

    def numbers() -> Generator[int, None, None]:
        with LoopThread() as thread:
            try:
                threads.extend(_threads())
                while True:
                    yield thread.run(_one())
            finally:
                thread.run(_one())

    left = numbers()
    next(left)
    loop_thread: LoopThread = inspect.getgeneratorlocals(left)["thread"]

    loop_thread.run(_close(left))

    threads[0].join(5)
    assert not threads[0].is_alive()


async def _one() -> int:
    return 1


async def _close(generator: Generator[int, None, None]) -> None:
    generator.close()


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def _fail() -> None:
    raise ValueError("no")
