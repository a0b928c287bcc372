"""A device's key in two places is an alarm in the log of changes; a device's ordinary life is none."""

import asyncio
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_sdk import Device
from hub.change_log import CHANGES, ChangeLog, Entry
from tests.end_to_end.conftest import enrol
from tests.support.device_process import DeviceProcess, Job
from tests.support.hub_process import HubProcess, wait_for

pytestmark = pytest.mark.end_to_end

BOTH = "127.0.0.1 and 127.0.0.1"


def entries(hub: HubProcess, what: str) -> list[Entry]:
    """Stop the hub, which writes what it has counted; return the entries of a kind."""
    hub.stop()
    with closing(ChangeLog(hub.data / CHANGES)) as log:
        return [entry for entry in log.entries("default", 1000) if entry.what == what]


@pytest.mark.asyncio
async def test_two_live_devices_of_one_key_raise_an_alarm(hub: HubProcess) -> None:
    """Two programs, two streams, one token: both are heard, and the log names both addresses."""
    token = enrol(hub, "pump")["pump"]
    async with Device("pump", hub.ws_url, token=token, spool=":memory:") as first:
        first.record(level=1.0)
        await first.flush_async(10)
        async with Device("pump", hub.ws_url, token=token, spool=":memory:") as second:
            second.record(level=2.0)
            await second.flush_async(10)
            # Both still live: the answer to the hub's ping is on its way back.
            first.record(level=3.0)
            await first.flush_async(10)

    (alarm,) = entries(hub, "alarm")
    assert (alarm.who, alarm.role, alarm.target, alarm.outcome) == ("pump", "device", "pump", "cloned_key")
    assert (alarm.peer, alarm.count) == (BOTH, 1)


@pytest.mark.asyncio
async def test_copied_spool_raises_an_alarm(hub: HubProcess, tmp_path: Path) -> None:
    """A copy of a card writes the stream of the original: the takeover and the conflict are in the log."""
    token = enrol(hub, "pump")["pump"]
    spools = tmp_path / "one", tmp_path / "two"
    async with Device("pump", hub.ws_url, token=token, spool=spools[0]) as device:
        device.record(level=1.0)
        await device.flush_async(10)
    shutil.copytree(*spools)

    async with Device("pump", hub.ws_url, token=token, spool=spools[0]) as original:
        original.record(level=2.0)
        await original.flush_async(10)
        async with Device("pump", hub.ws_url, token=token, spool=spools[1]) as copy:
            copy.record(level=3.0)
            await copy.flush_async(10)

    found = entries(hub, "alarm")
    assert found
    assert {entry.outcome for entry in found} <= {"chain_conflict", "seq_reuse", "cloned_key"}
    assert {(entry.target, entry.peer) for entry in found} == {("pump", BOTH)}
    assert [entry.peer for entry in entries(hub.start(), "takeover")] == [BOTH]


@pytest.mark.asyncio
async def test_ordinary_life_of_a_device_raises_no_alarm(hub: HubProcess, tmp_path: Path) -> None:
    """Killed and started again on its spool; half-open behind a new stream, as after a power cut; a hub that restarts.

    A process that is stopped answers nothing, while its connection stays as it was: what a device leaves behind that
    lost its power.
    """
    token = enrol(hub, "pump")["pump"]
    job = Job("lives", hub.ws_url, {"pump": token}, str(tmp_path / "spool"), str(tmp_path / "ledger"), rate_hz=200)
    (tmp_path / "ledger").mkdir()
    log = tmp_path / "device.log"

    async def live(job: Job) -> DeviceProcess:
        process = DeviceProcess(job, log)
        await wait_for(lambda: process.seen("A") > 3, 20, "acks")
        return process

    for _ in range(3):
        (await live(job)).kill()
    frozen = await live(job)
    frozen.freeze()
    # Its spool is held by the stopped process; a device that lost its spool to the power cut has a new one.
    lost = replace(job, name="lost", spool=str(tmp_path / "spool-2"), boot="boot-2")
    successor = await live(lost)
    # What is counted is written when the hub stops.
    await asyncio.to_thread(hub.stop)
    await asyncio.to_thread(hub.start)
    acks = successor.seen("A")
    await wait_for(lambda: successor.seen("A") > acks + 3, 30, "acks of the new hub")
    frozen.kill()
    assert successor.drain() == 0, successor.log_tail()
    assert (await live(lost)).drain() == 0

    assert entries(hub, "alarm") == []
