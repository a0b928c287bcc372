"""`LoopThread`: coroutines run beside a loop that runs already, and nothing of it is left."""

import asyncio
import signal
import threading

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


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def _fail() -> None:
    raise ValueError("no")
