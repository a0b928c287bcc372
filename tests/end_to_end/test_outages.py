"""The four outages that lose or double readings with other clients: here nothing is lost, nothing doubled.

200 readings at 50 a second through the real SDK to a real hub. In each, every `record` that returned is one
row with its exact time and value, and 99 of 100 `record` calls take less than 50 ms.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_sdk import Device
from simulators.faults import Effect, Fault, Way
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import ROOT, HubProcess

READINGS = 200
PERIOD_S = 1 / 50
START_NS = 1_790_000_000_000_000_000
RECORD_P99_S = 0.050

pytestmark = pytest.mark.slow


def record_all(device: Device, at: dict[int, Callable[[], object]]) -> list[float]:
    """Record 0 … 199 at 50 a second; call ``at[n]`` before reading n; return the seconds each record took."""
    took = []
    begun = time.monotonic()
    for n in range(READINGS):
        if n in at:
            at[n]()
        call = time.perf_counter()
        device.record({"n": n}, time=START_NS + n)
        took.append(time.perf_counter() - call)
        time.sleep(max(0.0, begun + (n + 1) * PERIOD_S - time.monotonic()))
    return took


def stored(hub: HubProcess) -> list[tuple[int, int]]:
    """Return (time, value) of every row of device d."""
    answer = hub.get("/v1/readings?match=d/n&limit=10000&from=0")
    return [(int(row[0]), row[2]) for row in answer["rows"]]


def check(hub: HubProcess, took: list[float]) -> None:
    """0 lost, 0 doubled, the ledger balanced, record() quick."""
    assert stored(hub) == [(START_NS + n, n) for n in range(READINGS)]
    audit = hub.get("/v1/audit?device=d")
    assert sum(s["accepted"] for s in audit["streams"]) == READINGS
    assert [(s["accepted"], s["superseded"], s["rows"]) for s in audit["series"]] == [(READINGS, 0, READINGS)]
    assert sorted(took)[int(len(took) * 0.99) - 1] < RECORD_P99_S


def device(hub: HubProcess, port: int, token: str, tmp_path: Path) -> Device:
    """Return the device under test, connected through ``port``."""
    return Device("d", f"ws://127.0.0.1:{port}", token=token, spool=tmp_path / "spool")


def test_hub_gone_for_a_while(hub: HubProcess, tmp_path: Path) -> None:
    """A: the hub is killed and comes back 1.5 s later while the device goes on recording."""
    token = enrol(hub, "d")["d"]
    with device(hub, hub.port, token, tmp_path) as under_test:
        took = record_all(under_test, {50: hub.kill, 125: hub.start})
        under_test.flush(20)

    check(hub, took)


@pytest.mark.parametrize("way", [Way.DOWN, Way.UP], ids=["acks", "frames"])
def test_bytes_vanish_before_a_cut(hub: HubProcess, tmp_path: Path, way: Way) -> None:
    """B: frames are stored but their acks vanish. C: frames leave the device and never arrive. Twice, then a cut."""
    token = enrol(hub, "d")["d"]
    with FaultProxy(("127.0.0.1", hub.port)) as proxy, device(hub, proxy.port, token, tmp_path) as under_test:

        def lose() -> None:
            proxy.arm(Fault(Effect.SWALLOW, way))

        took = record_all(under_test, {50: lose, 70: proxy.abort, 120: lose, 140: proxy.abort})
        under_test.flush(20)

    assert proxy.statistics().faults == {"swallow": 2}
    check(hub, took)


_PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from device_sdk import Device
name, url, token, spool, first, last, start_ns = sys.argv[1:]
device = Device(name, url, token=token, spool=Path(spool))
device.__enter__()
took = []
for n in range(int(first), int(last)):
    call = time.perf_counter()
    device.record({"n": n}, time=int(start_ns) + n)
    took.append(time.perf_counter() - call)
    time.sleep(1 / 50)
print(",".join(f"{t:.6f}" for t in took), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_hub_down_and_device_killed(hub: HubProcess, tmp_path: Path) -> None:
    """D: the hub is down, the device's process is killed, both return: all of it is delivered."""
    token = enrol(hub, "d")["d"]

    def part(first: int, last: int) -> list[float]:
        arguments = ["d", hub.ws_url, token, str(tmp_path / "spool"), str(first), str(last), str(START_NS)]
        run = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, cwd=ROOT, timeout=60)
        assert run.returncode == -9, run.stderr.decode()
        return [float(t) for t in run.stdout.split(b",")]

    took = part(0, 100)
    hub.kill()
    took += part(100, READINGS)
    hub.start()
    with device(hub, hub.port, token, tmp_path) as under_test:
        under_test.flush(20)

    check(hub, took)
