"""The loop of a device under ``with``: one daemon thread that runs the courier, and how a courier is ended.

Owns: the thread's body, which devices a fork must not take along. Place: after `courier`, inside `device`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from typing import Protocol

from device_sdk.courier import Courier

logger = logging.getLogger("device_sdk.device")


def run_loop(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Body of the background thread: run until the task has ended, then close the loop."""
    try:
        loop.run_until_complete(asyncio.wait((task,)))
        if not task.cancelled() and task.exception() is not None:
            logger.error("courier ended", exc_info=task.exception())
    finally:
        loop.run_until_complete(_cancel_leftovers())
        loop.close()


async def _cancel_leftovers() -> None:
    """End the losers of a race between several addresses: `create_connection` leaves them behind."""
    leftovers = asyncio.all_tasks() - {asyncio.current_task()}
    for task in leftovers:
        task.cancel()
    await asyncio.gather(*leftovers, return_exceptions=True)
    # One more turn: a transport that was given up closes its socket in the next.
    await asyncio.sleep(0)


async def stop(courier: Courier, task: asyncio.Task[None], timeout_s: float) -> None:
    """Drain for a while, then end the courier; also when cancelled meanwhile."""
    try:
        await courier.drain(timeout_s, give_up_offline=True)
    finally:
        task.cancel()
        await asyncio.wait((task,))


class _Forkable(Protocol):
    def forget_after_fork(self) -> None:
        """Let go without closing."""


# Spool, lock and socket of an open device belong to the process that opened it.
open_devices: weakref.WeakSet[_Forkable] = weakref.WeakSet()


def _after_fork() -> None:
    for device in list(open_devices):
        device.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
