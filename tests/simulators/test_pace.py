"""`simulators.pace`: a simulated device does what its desired state says, and reports it."""

import asyncio

import pytest

from device_sdk import Device
from device_sdk.wire import Desired, encode
from simulators.pace import Pace
from tests.support.fake_hub import FakeHub


@pytest.mark.asyncio
async def test_interval_is_applied_and_reported() -> None:
    """Every sample is due until the hub names an interval; what is none changes nothing, null ends it."""
    now = 100.0
    with FakeHub() as hub:
        async with Device("sim-1", hub.url, spool=":memory:") as device:
            pace = Pace(device, lambda: now)
            assert [pace.is_due(), pace.is_due()] == [True, True]
            await told(hub, 0)

            hub.send(encode(Desired(1, {"interval_s": 10})))
            await told(hub, 1)
            due = [pace.is_due(), pace.is_due()]
            now = 110.0
            due.append(pace.is_due())
            hub.send(encode(Desired(2, {"interval_s": "soon"})))
            await told(hub, 2)
            hub.send(encode(Desired(3, {})))
            await told(hub, 3)
            due += [pace.is_due(), pace.is_due()]

    states = {r["version"]: r["state"] for r in hub.model.reported}
    assert due == [True, False, True, True, True]
    assert (states[1], states[2], states[3]) == ({"interval_s": 10}, {"interval_s": 10}, {})


async def told(hub: FakeHub, version: int) -> None:
    """Wait until the device has taken a version in."""
    await asyncio.to_thread(hub.wait_for, lambda: any(r["version"] == version for r in hub.model.reported))
