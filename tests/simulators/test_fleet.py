"""Fleets: so many samples, evenly, each with all channels of its device."""

import asyncio

import pytest

from simulators.faults import Effect, Fault, Way
from simulators.fleet import run_fleet
from simulators.link import Link
from simulators.progress import NoProgress
from simulators.proxy import FaultProxy
from simulators.sensor import numbered_fleet
from tests.support.fake_hub import FakeHub


class Notes(NoProgress):
    """Keeps what a progress was told."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def update(self, done: float, note: str = "") -> None:
        """Keep it."""
        self.done.append(done)


def test_fleet_records_rate_times_duration_on_each_device() -> None:
    """8 devices at 50 Hz for 0.2 s are 80 samples; the hub has all their values when the run ends."""
    devices = numbered_fleet(8, "sim-")
    notes = Notes()
    with FakeHub() as hub:
        link = Link(hub.url, {device.name: "x" for device in devices})

        summary = asyncio.run(run_fleet(link, devices, rate_hz=50, duration_s=0.2, progress=notes))

    per_round = sum(len(device.sensors) for device in devices)
    assert summary.recorded == 10 * per_round
    assert (summary.acked, summary.pending, summary.dropped) == (10 * per_round, 0, 0)
    assert len(hub.model.readings) == 10 * per_round
    assert len(hub.model.hellos) == 8
    assert notes.done[-1] == 80


def test_fleet_declares_units_ranges_and_rate() -> None:
    """The hub knows what a channel is before its first reading."""
    devices = numbered_fleet(1, "sim-")
    with FakeHub() as hub:
        asyncio.run(run_fleet(Link(hub.url, {"sim-0001": "x"}), devices, rate_hz=20, duration_s=0.05))

    declared = hub.model.channels["temperature"]
    assert (declared["unit"], declared["every_s"]) == ("Cel", 0.05)
    assert declared["range"] == [12.0, 27.5]


@pytest.mark.slow
def test_fleet_delivers_all_after_faults_that_end_before_the_drain() -> None:
    """Devices reach the hub through ``connect_to``; what faults held up is acked when the run ends."""
    devices = numbered_fleet(4, "sim-")

    async def run(hub: FakeHub) -> tuple[int, int]:
        swallowed = [Fault(Effect.SWALLOW, Way.DOWN, 400) for _ in devices]
        async with FaultProxy(("127.0.0.1", hub.port), swallowed) as proxy:
            link = Link("ws://hub.invalid", {d.name: "x" for d in devices}, connect_to=("127.0.0.1", proxy.port))
            summary = await run_fleet(link, devices, rate_hz=50, duration_s=0.2, faults=proxy.chaos(1, every_s=1e9))
            return summary.pending, proxy.statistics().struck

    with FakeHub() as hub:
        assert asyncio.run(run(hub)) == (0, 4)

    per_round = sum(len(device.sensors) for device in devices)
    assert len(hub.model.readings) == len(set(hub.model.readings)) == 10 * per_round
