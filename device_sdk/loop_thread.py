"""An event loop in a thread of its own, for code that must wait while the thread it is in runs another loop.

Owns: `LoopThread`. Place: below `client`, whose `Watch` is looped over with ``for`` also in a notebook, where a loop
runs already and cannot run another.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")
# How late an interrupt may be.
_LOOK_S = 0.2


def loop_runner() -> LoopThread | asyncio.Runner:
    """Return what runs coroutines from code that is no coroutine, also where an event loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.Runner()
    return LoopThread()


class LoopThread:
    """Runs one coroutine at a time, and nothing between: ``with LoopThread() as thread: thread.run(coroutine)``.

    Nothing is handed over ahead, so nothing waits that nobody took. Leaving the block cancels what is left in the loop,
    closes it and ends the thread. A daemon: a block that is never left does not keep a program from ending.

    A generator that was never ended is closed wherever the collector finds it: while the interpreter ends, when no
    other thread runs any more, or in the loop's own thread. Nothing can be waited for there; `run` raises
    GeneratorExit then, which closing takes for an end.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="device_sdk-watch", daemon=True)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        if self._may_wait():
            self._thread.join()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for a coroutine and return what it returns; interrupted (by a KeyboardInterrupt), cancel it."""
        if not self._may_wait():
            coroutine.close()
            raise GeneratorExit
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            # Not for ever at once: an interrupt that comes just before the wait begins would be seen at its end.
            while not future.done():
                wait((future,), _LOOK_S)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _may_wait(self) -> bool:
        return not sys.is_finalizing() and threading.current_thread() is not self._thread

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._end.wait()
