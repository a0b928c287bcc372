"""Signals: pure functions of (seed, time) that look like the physics they stand for."""

import itertools
import statistics
from collections.abc import Callable

import pytest

from simulators import signals
from simulators.signals import DAY_S

MIDNIGHT_S = 1_795_305_600.0
DAY = [MIDNIGHT_S + 60.0 * minute for minute in range(1440)]

SIGNALS: dict[str, Callable[[int], signals.Signal]] = {
    "temperature": signals.Temperature,
    "humidity": lambda seed: signals.Humidity(seed, signals.Temperature(seed + 1)),
    "occupancy": signals.Occupancy,
    "power": signals.Power,
    "vibration": signals.Vibration,
    "battery": signals.Battery,
    "door": signals.Door,
}


@pytest.mark.parametrize("name", SIGNALS)
def test_same_seed_and_time_give_the_same_value(name: str) -> None:
    """A signal has no state: asked backwards it answers as asked forwards."""
    one, two = SIGNALS[name](7), SIGNALS[name](7)

    forwards = [one(time_s) for time_s in DAY]

    assert [two(time_s) for time_s in reversed(DAY)] == forwards[::-1]


@pytest.mark.parametrize("name", SIGNALS)
def test_another_seed_gives_another_signal(name: str) -> None:
    """Two devices of a fleet do not move alike."""
    one, two = SIGNALS[name](7), SIGNALS[name](8)

    assert [one(time_s) for time_s in DAY] != [two(time_s) for time_s in DAY]


def test_afternoon_is_warmer_than_night() -> None:
    """Temperature follows the day."""
    air = signals.Temperature(3)

    afternoon = statistics.mean(air(MIDNIGHT_S + hour * 3600) for hour in (14, 15, 16))
    night = statistics.mean(air(MIDNIGHT_S + hour * 3600) for hour in (2, 3, 4))

    assert afternoon > night + 2


def test_humidity_falls_when_it_warms() -> None:
    """Over a day humidity and temperature are anti-correlated."""
    air = signals.Temperature(3)
    damp = signals.Humidity(4, air)

    assert statistics.correlation([air(t) for t in DAY], [damp(t) for t in DAY]) < -0.8


def test_battery_discharges_until_it_is_replaced() -> None:
    """The voltage falls over its life and jumps back once."""
    cell = signals.Battery(5, life_s=30 * DAY_S)
    days = [cell(MIDNIGHT_S + day * DAY_S) for day in range(31)]

    rises = [later - earlier for earlier, later in itertools.pairwise(days) if later > earlier + 0.01]

    assert len(rises) == 1
    assert rises[0] > 0.5
    assert all(3.2 < volts < 4.2 for volts in days)


def test_power_switches_between_two_levels() -> None:
    """A duty cycle is near its idle or its load, hardly ever between."""
    fan = signals.Power(6, idle=100.0, load=400.0)
    watts = [fan(MIDNIGHT_S + second) for second in range(0, 3600, 5)]

    assert {round(value / 100) for value in watts} == {1, 5}
    assert 0.1 < sum(value > 300 for value in watts) / len(watts) < 0.35


def test_door_is_open_for_a_small_part_of_the_day() -> None:
    """A door opens at times and is shut most of the day."""
    door = signals.Door(9)

    share = sum(bool(door(t)) for t in DAY) / len(DAY)

    assert 0 < share < 0.2


def test_offset_moves_a_signal() -> None:
    """A fault is the signal itself, moved."""
    air = signals.Temperature(3)

    assert signals.Offset(air, 8.0)(MIDNIGHT_S) == pytest.approx(air(MIDNIGHT_S) + 8.0)


def test_uniform_fills_its_range_evenly() -> None:
    """The source of randomness has no visible bias."""
    numbers = [signals.uniform(11, step) for step in range(10_000)]

    assert 0 <= min(numbers)
    assert max(numbers) < 1
    assert statistics.mean(numbers) == pytest.approx(0.5, abs=0.02)
    assert len(set(numbers)) == 10_000


def test_drift_is_smooth_and_bounded() -> None:
    """Drift stays within ±1 and never jumps."""
    values = [signals.drift(12, float(second), 600.0) for second in range(6000)]

    assert all(-1 <= value <= 1 for value in values)
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) < 0.01
