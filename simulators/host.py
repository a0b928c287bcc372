"""This machine as a real device: processor, memory, disk, load, and temperature where it has a sensor.

Owns: what is read and how. Place: after `link`.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from simulators import signals
from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, Summary, drain, open_devices, summarise
from simulators.sensor import Sensor

DRAIN_S = 10.0
# Names under which chips report the processor: Raspberry Pi, Intel, AMD, ACPI.
_THERMAL_CHIPS = ("cpu_thermal", "coretemp", "k10temp", "zenpower", "acpitz")


def host_name() -> str:
    """Return this machine's name as a valid device name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname().split(".")[0]).strip("-_.")[:64] or "this-machine"


def host_sensors(disk: Path = Path("/")) -> tuple[Sensor, ...]:
    """Return what this machine can measure of itself; those it cannot are left out."""
    sensors = [
        Sensor("cpu", _now(lambda: psutil.cpu_percent(interval=None)), "%", "Processor", (0.0, 95.0)),
        Sensor("memory", _now(lambda: psutil.virtual_memory().percent), "%", "Memory", (0.0, 90.0)),
        Sensor("disk", _now(lambda: psutil.disk_usage(str(disk)).percent), "%", "Disk", (0.0, 90.0)),
    ]
    if hasattr(os, "getloadavg"):
        sensors.append(Sensor("load", _now(lambda: round(os.getloadavg()[0], 2)), None, "Load, 1 min"))
    if _temperature() is not None:
        sensors.append(Sensor("temperature", _now(lambda: _temperature() or 0.0), "Cel", "Temperature", (0.0, 80.0)))
    return tuple(sensors)


async def run_host(
    link: Link,
    name: str,
    *,
    every_s: float = 1.0,
    duration_s: float | None = None,
    ledger: Ledger | None = None,
    drain_s: float = DRAIN_S,
) -> Summary:
    """Record this machine each ``every_s`` seconds, for ``duration_s`` or until cancelled; then wait for the acks."""
    started = time.monotonic()
    async with open_devices(link, [name], ledger) as links:
        try:
            await record_host(links[name], every_s=every_s, duration_s=duration_s)
        finally:
            # Also after Ctrl-C: what was recorded is delivered, within the limit.
            await asyncio.shield(drain([links[name]], drain_s))
        summary = summarise([links[name]], time.monotonic() - started)
    return summary


async def record_host(opened: SimulatedLink, *, every_s: float, duration_s: float | None = None) -> None:
    """Record this machine on an open device until ``duration_s`` is over or the task is cancelled."""
    sensors = host_sensors()
    for sensor in sensors:
        opened.device.channel(sensor.channel, unit=sensor.unit, every_s=every_s, range=sensor.range, label=sensor.label)
    # The first answer of cpu_percent covers no time and is always 0.
    psutil.cpu_percent(interval=None)
    start, number = time.monotonic(), 0
    while duration_s is None or number * every_s < duration_s:
        number += 1
        await asyncio.sleep(max(0.0, start + number * every_s - time.monotonic()))
        opened.record({sensor.channel: sensor.signal(0.0) for sensor in sensors})


def _now(read: Callable[[], float]) -> signals.Signal:
    """Make a signal of a function that reads now, whatever time is asked for."""
    return lambda _time_s: read()


def _temperature() -> float | None:
    sensors_temperatures = getattr(psutil, "sensors_temperatures", None)
    chips = sensors_temperatures() if sensors_temperatures is not None else {}
    for chip in [*_THERMAL_CHIPS, *chips]:
        for entry in chips.get(chip, ()):
            if entry.current and entry.current > 0:
                return round(float(entry.current), 1)
    return None
