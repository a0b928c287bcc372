"""`device_sdk.background`: the loop of a device ends with its task, and leaves nothing running."""

import asyncio
import logging

import pytest

from device_sdk.background import run_loop


async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def test_loop_is_closed_when_its_task_ends() -> None:
    """Also tasks that others began on it are ended."""
    loop = asyncio.new_event_loop()
    other = loop.create_task(hang())

    run_loop(loop, loop.create_task(asyncio.sleep(0)))

    assert loop.is_closed()
    assert other.cancelled()


def test_a_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours does not vanish with the thread."""

    async def fail() -> None:
        raise ValueError("a fault")

    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR):
        run_loop(loop, loop.create_task(fail()))

    assert "a fault" in caplog.text
