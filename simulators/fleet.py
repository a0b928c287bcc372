"""Many devices in one process, each with its own SDK session, at a steady rate.

Owns: the schedule. Place: after `link`, `obedience` and `sensor`.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, Summary, drain, open_devices, summarise
from simulators.obedience import Obedience, obey
from simulators.pace import Pace
from simulators.progress import NoProgress, Progress
from simulators.sensor import SimulatedDevice

DRAIN_S = 60.0
# Between turns of the loop: short enough for the couriers to keep up, long enough to pay for the turn.
_BURST = 100
_TICK_S = 0.01


async def run_fleet(
    link: Link,
    devices: Sequence[SimulatedDevice],
    *,
    rate_hz: float,
    duration_s: float,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    drain_s: float = DRAIN_S,
    faults: AbstractAsyncContextManager[None] | None = None,
) -> Summary:
    """Record ``rate_hz`` samples a second on every device for ``duration_s``, then wait for the acks.

    A sample is one value of each of the device's channels. Devices take turns,
    so the load is even within each second. When this machine is too slow the
    rate falls behind, never the count; only a device whose desired state names a longer ``interval_s`` leaves samples
    out. ``faults`` is entered while samples are
    recorded and left before the drain: see `FaultProxy.chaos`.

    Cancellation: may be cancelled; un-acked readings in memory are lost with the process, and say so in no summary.
    """
    started = time.monotonic()
    async with open_devices(link, (device.name for device in devices), ledger) as links:
        declare_channels(devices, links, every_s=1.0 / rate_hz)
        paces = {name: Pace(one.device, time.monotonic) for name, one in links.items()}
        async with faults or nullcontext():
            await _record_all(devices, links, obey(links), paces, rate_hz, duration_s, progress or NoProgress())
        opened = list(links.values())
        await drain(opened, drain_s)
        summary = summarise(opened, time.monotonic() - started)
    return summary


def declare_channels(
    devices: Sequence[SimulatedDevice], links: dict[str, SimulatedLink], *, every_s: float | None
) -> None:
    """Tell the hub of each channel's unit, label, normal range and rate before the first reading."""
    for device in devices:
        opened = links[device.name].device
        for sensor in device.sensors:
            opened.channel(sensor.channel, unit=sensor.unit, every_s=every_s, range=sensor.range, label=sensor.label)


async def _record_all(
    devices: Sequence[SimulatedDevice],
    links: dict[str, SimulatedLink],
    told: dict[str, Obedience],
    paces: dict[str, Pace],
    rate_hz: float,
    duration_s: float,
    progress: Progress,
) -> None:
    """Sample number n is due at n / (devices × rate) and belongs to device n mod devices."""
    per_second = rate_hz * len(devices)
    total = round(per_second * duration_s)
    start, done = time.monotonic(), 0
    while done < total:
        due = min(total, int((time.monotonic() - start) * per_second) + 1)
        for n in range(done, min(due, done + _BURST)):
            device = devices[n % len(devices)]
            # A command and the desired state may both slow a device down: the slower one holds.
            if told[device.name].is_due(time.monotonic()) and paces[device.name].is_due():
                links[device.name].record(device.read(time.time()))
        is_late = due > done + _BURST
        done = min(due, done + _BURST)
        progress.update(done, f"{done} samples")
        await asyncio.sleep(0 if is_late else _TICK_S)
