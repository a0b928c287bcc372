"""The demo: a cast with a past, one in alert, one going stale."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from simulators import demo
from simulators.link import Link
from tests.support.fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]


def test_cast_is_200_devices_and_this_machine() -> None:
    """Every name is there once, the two special ones included."""
    names = demo.demo_names()

    assert len(names) == len(set(names)) == demo.DEVICES + 1
    assert {demo.ALERT_DEVICE, demo.STALE_DEVICE, "coldroom-50", "rooftop-50"} <= set(names)


def test_exactly_one_device_is_out_of_its_range() -> None:
    """Over a day only the faulty device's temperature leaves its normal range, and always."""
    start_s = time.time() // 86400 * 86400
    out: Counter[tuple[str, str]] = Counter()
    for device in demo.demo_devices():
        for sensor in device.sensors:
            if sensor.range is not None:
                low, high = sensor.range
                values = [float(sensor.signal(start_s + 3600.0 * hour)) for hour in range(24)]
                out[device.name, sensor.channel] += sum(not low <= value <= high for value in values)

    assert +out == Counter({(demo.ALERT_DEVICE, demo.ALERT_CHANNEL): 24})


def test_past_comes_first_and_ends_now() -> None:
    """A device's first reading is 15 minutes old, its readings are in order, and none is of the future."""
    with FakeHub() as hub:
        link = Link(hub.url, {"greenhouse-01": "x"}, close_timeout_s=0.1)

        async def play() -> None:
            task = asyncio.create_task(demo.run_demo(link))
            await asyncio.to_thread(hub.wait_for, lambda: len(hub.model.readings) >= 900)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(play())

    times = [r.time_ns for r in hub.model.readings if r.channel == "temperature"]
    now_ns = time.time_ns()
    assert times == sorted(set(times))
    assert 14.5 * 60 < (now_ns - times[0]) / 1e9 < 15.6 * 60
    assert times[-1] <= now_ns


def test_process_ends_when_its_stdin_does() -> None:
    """A demo cannot outlive the hub that started it, not even after a kill."""
    with FakeHub() as hub:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulators.demo"], stdin=subprocess.PIPE, cwd=ROOT, stderr=subprocess.PIPE
        )
        start = {"url": hub.url, "tokens": {"greenhouse-01": "x"}, "fingerprint": None}
        assert process.stdin is not None
        process.stdin.write(json.dumps(start).encode() + b"\n")
        process.stdin.flush()
        hub.wait_for(lambda: hub.connections > 0)

        _, errors = process.communicate(timeout=10)

    assert (process.returncode, errors) == (0, b"")
