"""This machine as a device: plausible figures, delivered."""

import asyncio

from device_sdk.reading import is_device_name
from simulators.host import host_name, host_sensors, run_host
from simulators.link import Link
from tests.support.fake_hub import FakeHub


def test_host_name_is_a_device_name() -> None:
    """Whatever the machine is called, the hub takes it."""
    assert is_device_name(host_name())


def test_every_machine_has_processor_memory_and_disk() -> None:
    """Shares are percentages; channels that a machine cannot measure are left out."""
    sensors = {sensor.channel: sensor for sensor in host_sensors()}

    assert {"cpu", "memory", "disk"} <= set(sensors)
    for name in ("cpu", "memory", "disk"):
        assert 0 <= float(sensors[name].signal(0.0)) <= 100
        assert sensors[name].unit == "%"


def test_host_records_until_its_time_is_over() -> None:
    """Three rounds arrive, each with all sensors."""
    with FakeHub() as hub:
        summary = asyncio.run(run_host(Link(hub.url, {"me": "x"}), "me", every_s=0.02, duration_s=0.06))

    assert summary.recorded == 3 * len(host_sensors())
    assert summary.pending == 0
    assert len(hub.model.readings) == summary.recorded
