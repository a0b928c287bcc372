"""A hub put back to an older backup: devices send again what it had acked, and it says that it was restored."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Device
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.slow

START_NS = 1_790_000_000_000_000_000
PART = 500


def record_part(device: Device, part: int) -> None:
    """Record 500 readings and wait until they are durable at the hub."""
    for n in range(part * PART, (part + 1) * PART):
        device.record({"n": n}, time=START_NS + n)
    device.flush(20)


def stored(hub: HubProcess) -> list[tuple[int, int]]:
    """Return (time, value) of every row."""
    answer = hub.get("/v1/readings?match=d/n&limit=10000&from=0")
    return [(int(row[0]), row[2]) for row in answer["rows"]]


def audit(hub: HubProcess) -> Any:
    """Return both ledgers of the device."""
    return hub.get("/v1/audit?device=d")


def back_up(hub: HubProcess, to: Path) -> None:
    """Copy the data of a hub that does not run."""
    hub.stop()
    shutil.copytree(hub.data, to)
    hub.start()


def restore(hub: HubProcess, backup: Path) -> None:
    """Put the hub's data back to the copy."""
    hub.stop()
    shutil.rmtree(hub.data)
    shutil.copytree(backup, hub.data)
    hub.start()


def test_acked_frames_are_sent_again_to_a_restored_hub(hub: HubProcess, tmp_path: Path) -> None:
    """Nothing is missing, nothing is doubled, the stream goes on, and the ledger names the restore."""
    token = enrol(hub, "d")["d"]
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        record_part(device, 0)
        back_up(hub, tmp_path / "backup")
        record_part(device, 1)
        restore(hub, tmp_path / "backup")
        record_part(device, 2)

    assert stored(hub) == [(START_NS + n, n) for n in range(3 * PART)]
    ledger = audit(hub)
    assert [(s["accepted"], s["superseded"], s["rows"]) for s in ledger["series"]] == [(3 * PART, 0, 3 * PART)]
    assert [gap["reason"] for gap in ledger["gaps"]] == ["hub_restored"]


def test_frames_of_an_earlier_stream_are_sent_again(hub: HubProcess, tmp_path: Path) -> None:
    """Also what was acked on a stream that ended since: a power cut began another one."""
    token = enrol(hub, "d")["d"]
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "before", boot_id="b1") as device:
        back_up(hub, tmp_path / "backup")
        record_part(device, 0)
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "after", boot_id="b2") as device:
        record_part(device, 1)
        restore(hub, tmp_path / "backup")
        record_part(device, 2)

    assert stored(hub) == [(START_NS + n, n) for n in range(3 * PART)]
    ledger = audit(hub)
    assert [(s["accepted"], s["superseded"]) for s in ledger["series"]] == [(3 * PART, 0)]
    assert sorted(gap["reason"] for gap in ledger["gaps"]) == ["hub_restored", "power_cut"]


def test_what_is_gone_everywhere_is_declared(hub: HubProcess, tmp_path: Path) -> None:
    """A device that keeps no acked frames declares what the restored hub misses, and goes on."""
    token = enrol(hub, "d")["d"]
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool", retain_acked=0) as device:
        record_part(device, 0)
        back_up(hub, tmp_path / "backup")
        for part in range(1, 8):
            record_part(device, part)
        restore(hub, tmp_path / "backup")
        record_part(device, 8)

    rows = stored(hub)
    assert [row for row in rows if not PART <= row[1] < 8 * PART] == [
        (START_NS + n, n) for n in (*range(PART), *range(8 * PART, 9 * PART))
    ]
    reasons = [(gap["reason"], gap["count"]) for gap in audit(hub)["gaps"]]
    assert ("hub_restored", None) in reasons
