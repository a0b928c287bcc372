"""Full disks, at the hub and at the device: nothing acked is lost; with space again what was full drains."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Client, Device
from tests.end_to_end.conftest import enrol
from tests.end_to_end.test_bad_input import GOOD, batch, conversation
from tests.support.hub_process import HubProcess, wait_for
from tests.support.small_disk import SmallDisk, small_disk

T0 = 1_790_000_000_000_000_000
DRAIN_S = 30.0
# What a device records while the disk is full: more than the free pages of the hub's files take.
MANY = 400
TEXT = "x" * 500
# What a device records without a hub: 2 MB, of which its spool takes half; near the end others fill its disk.
MANY_AT_DEVICE, FULL_AT = 4000, 3000
pytestmark = pytest.mark.privileged


@contextmanager
def hub_on(disk: SmallDisk) -> Iterator[HubProcess]:
    """A hub whose data folder is the small disk."""
    with HubProcess(disk.path) as hub:
        yield hub


def record(device: Device, first: int, end: int) -> int:
    """Record n = ``first`` … ``end`` - 1, each with a text, about 200 a second; return ``end``."""
    for n in range(first, end):
        device.record({"n": n, "text": TEXT}, time=T0 + n)
        time.sleep(0.005)
    return end


def check_all(hub: HubProcess, count: int) -> None:
    """0 lost, 0 doubled."""
    rows = hub.get("/v1/readings?match=d/n&from=0&limit=100000")["rows"]
    assert [(int(row[0]), row[2]) for row in rows] == [(T0 + n, n) for n in range(count)]
    series = [s for s in hub.get("/v1/audit")["series"] if s["device"] == "d"]
    assert [(s["accepted"], s["superseded"], s["rows"]) for s in series] == [(count, 0, count)] * 2


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_disk_full_at_the_hub(tmp_path: Path, kind: str) -> None:
    """Devices wait, pages and queries go on; with space again all drains within 30 s, in the same process."""
    with small_disk(tmp_path / "disk", 8, kind=kind) as disk, hub_on(disk) as hub:
        pid = hub.pid
        with Device("d", hub.ws_url, token=enrol(hub, "d")["d"], spool=tmp_path / "spool") as device:
            count = record(device, 0, 20)
            device.flush(10)
            disk.fill()
            count = record(device, count, count + MANY)
            asyncio.run(wait_for(lambda: "refusing reason" in hub.log.read_text(), what="a refusal"))
            assert device.status.pending > 0
            health = hub.get("/healthz")
            assert health["status"] == "ok"
            assert len(hub.get("/v1/readings?match=d/n&from=0&limit=1000")["rows"]) >= 20
            disk.free()
            begun = time.monotonic()
            device.flush(DRAIN_S)
            assert time.monotonic() - begun < DRAIN_S

        check_all(hub, count)
        assert (hub.pid, hub.exit_code) == (pid, None)
        assert hub.get("/healthz")["run"] == health["run"]


@pytest.mark.asyncio
async def test_disk_full_is_said_as_slow_and_not_acked(tmp_path: Path) -> None:
    """A frame that cannot be stored is answered with ``slow`` and ``disk_full``; sent again with space, it is acked."""
    with small_disk(tmp_path / "disk", 8, kind="tmpfs") as disk, hub_on(disk) as hub:
        token = enrol(hub, "d")["d"]
        async with conversation(hub, "d", token, "00000000000000f1") as socket:

            async def say(seq: int) -> dict[str, Any]:
                await socket.send(json.dumps(batch(seq, {"x": GOOD})))
                async with asyncio.timeout(10):
                    answer: dict[str, Any] = json.loads(await socket.recv())
                return answer

            assert (await say(1))["stored"] == 1
            disk.fill()
            seq = 2
            while (answer := await say(seq))["op"] == "ack":
                assert answer["stored"] == seq
                seq += 1
            assert (answer["op"], answer["why"]) == ("slow", "disk_full")
            disk.free()
            assert (await say(seq))["stored"] == seq
        assert len(hub.get("/v1/readings?match=d/x&from=0&limit=100000")["rows"]) == seq


@pytest.mark.asyncio
async def test_disk_full_at_the_store_while_the_journal_has_room(tmp_path: Path) -> None:
    """Devices are acked and watchers see everything; with space again the store has all of it within 30 s."""
    data = tmp_path / "data"
    data.mkdir()
    with small_disk(tmp_path / "disk", 1, kind="tmpfs") as disk:
        (data / "readings.sqlite3").symlink_to(disk.path / "readings.sqlite3")
        with HubProcess(data) as hub:
            seen: list[int] = []
            watch = Client(hub.url).watch("d/n", since=T0)

            async def look() -> None:
                while True:
                    seen.extend(int(str(reading.value)) for reading in await watch.batch())

            looking = asyncio.create_task(look())
            async with Device("d", hub.ws_url, token=enrol(hub, "d")["d"], spool=tmp_path / "spool") as device:
                count = await asyncio.to_thread(record, device, 0, 20)
                await device.flush_async(10)
                disk.fill()
                count = await asyncio.to_thread(record, device, count, count + MANY)
                await device.flush_async(10)
            health = await asyncio.to_thread(hub.get, "/healthz")
            assert health["status"] == "ok"
            assert health["store_applied"] < health["head"]
            latest = await asyncio.to_thread(hub.get, "/v1/latest?match=d/n")
            assert latest["readings"][0]["value"] == count - 1
            await wait_for(lambda: len(seen) >= count, what="the watcher")
            looking.cancel()
            await watch.close()
            disk.free()
            # And what the hub tells of itself meanwhile.
            await wait_for(lambda: hub.get("/healthz")["store_applied"] >= health["head"], DRAIN_S, "the store")
            assert seen == list(range(count))
            check_all(hub, count)


@pytest.mark.parametrize("max_spool", ["1MB", "64MB"], ids=["limit below the disk", "limit above the disk"])
def test_disk_full_at_the_device(tmp_path: Path, max_spool: str) -> None:
    """`record` never raises, neither for a full spool nor for a full disk; each dropped reading is declared, no other.

    First the spool reaches its own limit, or the disk's, and drops the oldest; then others fill the disk; with space
    and a hub again all that is left drains within 30 s.
    """
    with small_disk(tmp_path / "spool", 2, kind="tmpfs") as disk, HubProcess(tmp_path / "data") as hub:
        token = enrol(hub, "d")["d"]
        hub.kill()
        with Device("d", hub.ws_url, token=token, spool=disk.path, max_spool=max_spool) as device:
            for n in range(MANY_AT_DEVICE):
                if n == FULL_AT:
                    disk.fill()
                device.record({"n": n, "text": TEXT}, time=T0 + n)
            hub.start()
            disk.free()
            begun = time.monotonic()
            device.flush(DRAIN_S)
            assert time.monotonic() - begun < DRAIN_S

        audit = hub.get("/v1/audit?device=d")
        reasons = {gap["reason"] for gap in audit["gaps"]}
        assert {"spool_full"} <= reasons <= {"spool_full", "disk_full"}
        rows = [hub.get(f"/v1/readings?match=d/{name}&from=0&limit=100000")["rows"] for name in ("n", "text")]
        declared = sum(gap["count"] for gap in audit["gaps"])
        assert sum(map(len, rows)) + declared == 2 * MANY_AT_DEVICE
        for name, found in zip(("n", "text"), rows, strict=True):
            missing = {T0 + n for n in range(MANY_AT_DEVICE)} - {int(row[0]) for row in found}
            ranges = [tuple(map(int, gap["ranges"][name])) for gap in audit["gaps"] if name in gap["ranges"]]
            assert all(any(first <= time_ns <= last for first, last in ranges) for time_ns in missing)
        assert all(s["superseded"] == 0 for s in audit["series"])
