"""Kinds of devices: their names, and readings within what they declare as normal."""

import pytest

from device_sdk.reading import is_channel_name, is_device_name
from simulators.sensor import KINDS, mixed_fleet, numbered_fleet

NOON_S = 1_795_348_800.0


def test_mixed_fleet_takes_kinds_in_turn() -> None:
    """The first device of each kind comes first, numbered with leading zeros."""
    names = [device.name for device in mixed_fleet(6)]

    assert names == ["greenhouse-01", "coldroom-01", "pump-01", "rooftop-01", "greenhouse-02", "coldroom-02"]


def test_numbered_fleet_has_distinct_valid_names() -> None:
    """A thousand devices have a thousand names that the hub takes."""
    names = {device.name for device in numbered_fleet(1000, "sim-")}

    assert len(names) == 1000
    assert all(is_device_name(name) for name in names)
    assert "sim-0001" in names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_readings_stay_in_the_normal_range(kind: object) -> None:
    """Without a fault no channel raises an alert, whatever the seed and the hour."""
    assert callable(kind)
    for seed in range(40):
        device = kind("d", seed)
        for sensor in device.sensors:
            assert is_channel_name(sensor.channel)
            if sensor.range is not None:
                low, high = sensor.range
                values = [float(sensor.signal(NOON_S + 1800.0 * step)) for step in range(48)]
                assert low <= min(values)
                assert max(values) <= high


def test_fault_takes_one_channel_out_of_range() -> None:
    """A fault moves its channel and leaves the others alone."""
    sound = mixed_fleet(1)[0]

    faulty = sound.with_fault("temperature", 8.0)

    before, after = sound.read(NOON_S), faulty.read(NOON_S)
    assert float(after["temperature"]) > 27.5
    assert {name for name in before if before[name] != after[name]} == {"temperature"}
