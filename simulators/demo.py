"""The demo: 200 simulated devices with a past, one in alert, one going stale, and this machine as a real device.

Owns: the cast and its timing. Place: after `fleet` and `host`.

Times lie on a grid and signals are functions of time, so a demo started again
on the same data writes the same readings at the same instants: corrections
that change nothing.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from simulators.fleet import declare_channels
from simulators.host import host_name, record_host
from simulators.link import Link, SimulatedLink, open_devices
from simulators.sensor import SimulatedDevice, mixed_fleet

DEVICES = 200
# With 3.5 channels on average: 350 readings/s, little enough for a small board and lively on a page.
STEP_NS = 2_000_000_000
HISTORY_NS = 15 * 60 * 1_000_000_000
# Half the live density: 160,000 readings, so that the page has its past within seconds.
HISTORY_STEP_NS = 2 * STEP_NS
ALERT_DEVICE, ALERT_CHANNEL, ALERT_BY = "greenhouse-03", "temperature", 8.0
STALE_DEVICE, STALE_AFTER_S = "pump-02", 60.0
_TICK_S = 0.05
# Simulated readings are worth no long farewell: the hub waits for this process when it stops.
_CLOSE_TIMEOUT_S = 0.3


def demo_devices() -> list[SimulatedDevice]:
    """Return the cast."""
    return [
        device.with_fault(ALERT_CHANNEL, ALERT_BY) if device.name == ALERT_DEVICE else device
        for device in mixed_fleet(DEVICES)
    ]


def demo_names() -> list[str]:
    """Return the names to enrol: the cast and this machine."""
    return [*(device.name for device in demo_devices()), host_name()]


async def run_demo(link: Link) -> None:
    """Write the past of every device that has a token, then live on until cancelled."""
    cast = [device for device in demo_devices() if device.name in link.tokens]
    host = [name for name in [host_name()] if name in link.tokens]
    async with open_devices(link, [*(device.name for device in cast), *host]) as links:
        declare_channels(cast, links, every_s=STEP_NS / 1e9)
        async with asyncio.TaskGroup() as tasks:
            for name in host:
                tasks.create_task(record_host(links[name], every_s=2.0), name=f"demo {name}")
            tasks.create_task(_play(cast, links), name="demo cast")


async def _play(cast: Sequence[SimulatedDevice], links: dict[str, SimulatedLink]) -> None:
    started_ns = time.time_ns()
    steps = started_ns // STEP_NS
    first = steps - HISTORY_NS // STEP_NS
    for place, device in enumerate(cast):
        for step in range(first, steps, HISTORY_STEP_NS // STEP_NS):
            _record(links[device.name], device, _instant_ns(step, place))
        await links[device.name].wait_for_room()
        await asyncio.sleep(0)
    stale_ns = started_ns + round(STALE_AFTER_S * 1e9)
    while True:
        for place, device in enumerate(cast):
            time_ns = _instant_ns(steps, place)
            early_s = (time_ns - time.time_ns()) / 1e9
            if early_s > 0:
                await asyncio.sleep(max(early_s, _TICK_S))
            if device.name != STALE_DEVICE or time_ns < stale_ns:
                _record(links[device.name], device, time_ns)
        steps += 1
        await asyncio.sleep(0)


def _record(link: SimulatedLink, device: SimulatedDevice, time_ns: int) -> None:
    link.record(device.read(time_ns / 1e9), time_ns)


def _instant_ns(step: int, place: int) -> int:
    """Return a step's instant for one device: they take turns within the step, so the load is even."""
    return step * STEP_NS + place * (STEP_NS // DEVICES)


def main() -> int:
    """Play the demo as the first line of stdin says (JSON: url, tokens, fingerprint), until a signal or stdin's end."""
    # A hub that stops is no news here; 200 lines of it would hide what the hub itself says.
    logging.basicConfig(level=logging.ERROR)
    # Unbuffered: what follows the line must stay for the loop to see.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        start = json.loads(stdin.readline())
    link = Link(start["url"], start["tokens"], fingerprint=start["fingerprint"], close_timeout_s=_CLOSE_TIMEOUT_S)
    asyncio.run(_play_until_told(link))
    return 0


async def _play_until_told(link: Link) -> None:
    loop = asyncio.get_running_loop()
    demo = asyncio.create_task(run_demo(link), name="demo")
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, demo.cancel)
    stdin = sys.stdin.fileno()

    def input_came() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            demo.cancel()

    loop.add_reader(stdin, input_came)
    with contextlib.suppress(asyncio.CancelledError):
        await demo


if __name__ == "__main__":
    sys.exit(main())
