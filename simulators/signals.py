"""What sensors would read: physical signals as pure functions of (seed, time).

Owns: the shapes. Place: leftmost in `simulators`. Must not: keep state, read
a clock or a random source: the same seed and time give the same value in any
process, so a replayed minute equals the minute lived.

Times are epoch seconds (float). Numbers are rounded as a sensor would.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Signal = Callable[[float], float | int | bool | str]

DAY_S = 86_400.0
_MASK = 2**64 - 1


def uniform(seed: int, step: int) -> float:
    """Return a number in [0, 1) that depends on (seed, step) alone. Source: splitmix64's finaliser."""
    x = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) >> 11) / 2**53


def drift(seed: int, time_s: float, period_s: float) -> float:
    """Return smooth noise in [-1, 1]: a random height each ``period_s``, joined by cosines."""
    position = time_s / period_s
    step = math.floor(position)
    weight = (1.0 - math.cos((position - step) * math.pi)) / 2.0
    low, high = uniform(seed, step), uniform(seed, step + 1)
    return 2.0 * (low + (high - low) * weight) - 1.0


def jitter(seed: int, time_s: float) -> float:
    """Return white noise in [-1, 1): the last digit of a sensor."""
    return 2.0 * uniform(seed ^ 0x5DEECE66D, math.floor(time_s * 1000)) - 1.0


def day_wave(time_s: float, peak_hour: float = 15.0) -> float:
    """Return the daily wave in [-1, 1], highest at ``peak_hour`` UTC."""
    return math.cos(2 * math.pi * (time_s / DAY_S - peak_hour / 24.0))


@dataclass(frozen=True, slots=True)
class Temperature:
    """Degrees Celsius: a day, weather over hours, minutes of drift, and sensor noise."""

    seed: int
    mean: float = 21.0
    daily: float = 2.5
    drift: float = 0.6
    noise: float = 0.04

    def __call__(self, time_s: float) -> float:
        """Return the temperature, to 0.01."""
        slow = drift(self.seed, time_s, 4 * 3600) + 0.6 * drift(self.seed + 1, time_s, 420)
        value = self.mean + self.daily * day_wave(time_s) + self.drift * slow + self.noise * jitter(self.seed, time_s)
        return round(value, 2)


@dataclass(frozen=True, slots=True)
class Humidity:
    """Relative humidity in %RH; it falls where the air of ``temperature`` warms (about 3 % a degree)."""

    seed: int
    temperature: Temperature
    mean: float = 60.0

    def __call__(self, time_s: float) -> float:
        """Return the humidity, to 0.1, within 0 and 100."""
        warmth = self.temperature(time_s) - self.temperature.mean
        value = self.mean - 3.0 * warmth + 1.5 * drift(self.seed, time_s, 600) + 0.2 * jitter(self.seed, time_s)
        return round(min(100.0, max(0.0, value)), 1)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """CO₂ in ppm: outdoor air, plus people who come by day and leave in the evening."""

    seed: int
    outdoor: float = 420.0
    people: float = 650.0

    def __call__(self, time_s: float) -> float:
        """Return the concentration in whole ppm."""
        presence = 0.55 + 0.25 * day_wave(time_s, 14.0)
        crowd = 0.7 + 0.3 * drift(self.seed, time_s, 1500)
        air = 0.06 * drift(self.seed + 1, time_s, 180)
        return float(round(self.outdoor + self.people * (presence * crowd + air) + 3 * jitter(self.seed, time_s)))


@dataclass(frozen=True, slots=True)
class Power:
    """Watts of a machine that switches on for part of each cycle; cycles differ a little."""

    seed: int
    idle: float = 170.0
    load: float = 60.0
    cycle_s: float = 140.0
    duty: float = 0.22

    def __call__(self, time_s: float) -> float:
        """Return the power, to 0.1."""
        cycle = math.floor(time_s / self.cycle_s)
        duty = self.duty * (0.7 + 0.6 * uniform(self.seed, cycle))
        is_on = time_s / self.cycle_s - cycle < duty
        value = self.idle + (self.load if is_on else 0.0)
        return round(value + 5 * drift(self.seed + 1, time_s, 300) + 2 * jitter(self.seed, time_s), 1)


@dataclass(frozen=True, slots=True)
class Vibration:
    """Velocity in mm/s (RMS) of a running machine, with a rough patch now and then."""

    seed: int
    calm: float = 1.2
    rough: float = 2.0

    def __call__(self, time_s: float) -> float:
        """Return the velocity, to 0.01, never negative."""
        patch = max(0.0, drift(self.seed, time_s, 240) - 0.5) * 2.0
        value = self.calm * (1 + 0.15 * drift(self.seed + 1, time_s, 60)) + self.rough * patch
        return round(max(0.0, value + 0.1 * jitter(self.seed, time_s)), 2)


@dataclass(frozen=True, slots=True)
class Battery:
    """Volts of a lithium cell that discharges over ``life_s`` and is then replaced."""

    seed: int
    full: float = 4.15
    empty: float = 3.3
    life_s: float = 90 * DAY_S

    def __call__(self, time_s: float) -> float:
        """Return the voltage, to 0.001; flat in the middle and steep at both ends, as cells are."""
        used = (time_s / self.life_s + uniform(self.seed, 0)) % 1.0
        shape = used + 0.09 * math.sin(2 * math.pi * used)
        return round(self.full - (self.full - self.empty) * shape + 0.002 * jitter(self.seed, time_s), 3)


@dataclass(frozen=True, slots=True)
class Door:
    """True while open: now and then for a part of its slot, more often by day."""

    seed: int
    slot_s: float = 600.0
    open_part: float = 0.2

    def __call__(self, time_s: float) -> bool:
        """Return whether it is open."""
        slot = math.floor(time_s / self.slot_s)
        chance = 0.35 + 0.25 * day_wave(time_s, 13.0)
        return uniform(self.seed, slot) < chance and (time_s / self.slot_s) % 1.0 < self.open_part


@dataclass(frozen=True, slots=True)
class Offset:
    """Another signal moved by a constant: a fault that takes a channel out of its normal range."""

    signal: Signal
    by: float

    def __call__(self, time_s: float) -> float:
        """Return the moved value, to 0.01."""
        return round(float(self.signal(time_s)) + self.by, 2)
