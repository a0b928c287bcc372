"""`device_sdk.stateful`: desired and reported state as a program sees them, over a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Device, MisuseError
from device_sdk.wire import Desired, encode
from tests.support.fake_hub import FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub on a free port."""
    with FakeHub() as running:
        yield running


def test_sync_program_handles_and_reports(hub: FakeHub, tmp_path: Path) -> None:
    """The handler runs in a thread that is not the SDK's, and may report; after a restart the state is known."""
    ran_in: list[str] = []
    with Device("d1", hub.url, spool=tmp_path / "spool") as device:

        @device.on_desired
        def apply(state: dict[str, Any]) -> None:
            ran_in.append(threading.current_thread().name)
            device.report(speed=state["speed"])

        hub.wait_for(lambda: len(hub.model.reported) == 1)
        hub.send(encode(Desired(4, {"speed": 3}, "m")))
        hub.wait_for(lambda: any(r["version"] == 4 for r in hub.model.reported))

    assert {"op": "reported", "version": 4, "state": {"speed": 3}, "mark": "m"} in hub.model.reported
    assert ran_in[0] not in ("MainThread", "telemetry-d1")
    with Device("d1", hub.url, spool=tmp_path / "spool") as device:
        assert (dict(device.desired), device.desired.version) == ({"speed": 3}, 4)
        hub.wait_for(lambda: len(hub.model.hellos) == 2)


@pytest.mark.asyncio
async def test_async_program_handles_on_its_loop(hub: FakeHub) -> None:
    """The async form takes coroutines; what was reported before a cut is said again after it."""
    device = Device("d1", hub.url, spool=":memory:")
    handled = asyncio.Event()

    @device.on_desired
    async def apply(state: dict[str, Any]) -> None:
        handled.set()

    async with device:
        device.report({"a.b": 1}, fan=3)
        await asyncio.to_thread(hub.wait_for, lambda: bool(hub.model.reported))
        hub.send(encode(Desired(1, {"on": True})))
        async with asyncio.timeout(10):
            await handled.wait()
        await asyncio.to_thread(hub.wait_for, lambda: any(r["version"] == 1 for r in hub.model.reported))
        seen = len(hub.model.reported)
        hub.cut()
        await asyncio.to_thread(hub.wait_for, lambda: len(hub.model.reported) > seen)

    assert hub.model.reported[-1] == {"op": "reported", "version": 1, "state": {"a.b": 1, "fan": 3}}


def test_misuse_is_said() -> None:
    """A closed device reports nothing; a coroutine needs a loop."""
    device = Device("d1", "ws://127.0.0.1:1", spool=":memory:")
    with pytest.raises(MisuseError, match="open"):
        device.report(fan=3)
    with device, pytest.raises(MisuseError, match="plain function"):

        @device.on_desired
        async def apply(state: dict[str, Any]) -> None:
            raise AssertionError("never called")
