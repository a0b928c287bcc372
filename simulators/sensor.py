"""Kinds of simulated devices: which channels they have and what those read.

Owns: the kinds and their normal ranges. Place: after `signals`. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from simulators import signals
from simulators.signals import Signal


@dataclass(frozen=True, slots=True)
class Sensor:
    """One channel of a simulated device; ``range`` is what counts as normal."""

    channel: str
    signal: Signal
    unit: str | None = None
    label: str | None = None
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A name and its sensors."""

    name: str
    sensors: tuple[Sensor, ...]

    def read(self, time_s: float) -> dict[str, float | int | bool | str]:
        """Return what all its sensors read at one instant."""
        return {sensor.channel: sensor.signal(time_s) for sensor in self.sensors}

    def with_fault(self, channel: str, by: float) -> "SimulatedDevice":
        """Return the same device with one channel moved by a constant."""
        return replace(self, sensors=tuple(_moved(s, by) if s.channel == channel else s for s in self.sensors))


def greenhouse(name: str, seed: int) -> SimulatedDevice:
    """Return a greenhouse node: temperature, humidity, CO₂ and the fan's power."""
    air = signals.Temperature(seed, mean=20.5 + 3 * signals.uniform(seed, 1), daily=1.5)
    return SimulatedDevice(
        name,
        (
            Sensor("temperature", air, "Cel", "Temperature", (12.0, 27.5)),
            Sensor("humidity", signals.Humidity(seed + 2, air, 64.0), "%RH", "Humidity", (35.0, 90.0)),
            Sensor("co2", signals.Occupancy(seed + 3), "ppm", "CO₂", (350.0, 1500.0)),
            Sensor("power", signals.Power(seed + 4), "W", "Power", (0.0, 400.0)),
        ),
    )


def coldroom(name: str, seed: int) -> SimulatedDevice:
    """Return a cold room: temperature, humidity, compressor power and its door."""
    air = signals.Temperature(seed, mean=3.5 + signals.uniform(seed, 1), daily=0.3, drift=0.5)
    return SimulatedDevice(
        name,
        (
            Sensor("temperature", air, "Cel", "Temperature", (0.5, 7.5)),
            Sensor("humidity", signals.Humidity(seed + 2, air, 82.0), "%RH", "Humidity", (60.0, 98.0)),
            Sensor("power", signals.Power(seed + 3, 90.0, 640.0, 420.0, 0.45), "W", "Compressor", (0.0, 900.0)),
            Sensor("door", signals.Door(seed + 4), None, "Door open"),
        ),
    )


def pump(name: str, seed: int) -> SimulatedDevice:
    """Return a pump: motor temperature, vibration and power."""
    motor = signals.Temperature(seed, mean=18.5 + 4 * signals.uniform(seed, 1), daily=1.0, drift=1.2, noise=0.15)
    return SimulatedDevice(
        name,
        (
            Sensor("temperature", motor, "Cel", "Temperature", (5.0, 60.0)),
            Sensor("vibration", signals.Vibration(seed + 2), "mm/s", "Vibration", (0.0, 4.5)),
            Sensor("power", signals.Power(seed + 3, 40.0, 1150.0, 300.0, 0.5), "W", "Power", (0.0, 1500.0)),
        ),
    )


def rooftop(name: str, seed: int) -> SimulatedDevice:
    """Return a rooftop unit: outdoor temperature, humidity, battery."""
    air = signals.Temperature(seed, mean=17.5 + 3 * signals.uniform(seed, 1), daily=4.0, drift=0.8)
    return SimulatedDevice(
        name,
        (
            Sensor("temperature", air, "Cel", "Temperature", (-20.0, 40.0)),
            Sensor("humidity", signals.Humidity(seed + 2, air, 58.0), "%RH", "Humidity", (10.0, 100.0)),
            Sensor("battery", signals.Battery(seed + 3), "V", "Battery", (3.2, 4.3)),
        ),
    )


KINDS: tuple[Callable[[str, int], SimulatedDevice], ...] = (greenhouse, coldroom, pump, rooftop)


def mixed_fleet(count: int, seed: int = 1) -> list[SimulatedDevice]:
    """Return ``count`` devices of all kinds in turn, named by kind: ``greenhouse-01``, ``coldroom-01``, …"""
    per_kind = -(-count // len(KINDS))
    digits = max(2, len(str(per_kind)))
    return [
        kind(f"{kind.__name__}-{number:0{digits}}", seed * 1_000_003 + number * 64 + index * 16)
        for number in range(1, per_kind + 1)
        for index, kind in enumerate(KINDS)
    ][:count]


def numbered_fleet(count: int, prefix: str, seed: int = 1) -> list[SimulatedDevice]:
    """Return ``count`` devices of all kinds in turn, named by number: ``sim-0001``, …"""
    digits = max(4, len(str(count)))
    return [KINDS[n % len(KINDS)](f"{prefix}{n + 1:0{digits}}", seed * 1_000_003 + n * 64) for n in range(count)]


def _moved(sensor: Sensor, by: float) -> Sensor:
    return replace(sensor, signal=signals.Offset(sensor.signal, by))
