"""``hub simulate proxy`` and ``hub simulate fleet --chaos``: faults are done, told, and cost nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from tests.hub.cli.conftest import Run
from tests.support.hub_process import ROOT, HubProcess, free_port

LIMIT_S = 20.0
READINGS = 100


def test_fleet_with_chaos_explains_its_run_beside_the_ledger(run: Run, hub: HubProcess, name: str) -> None:
    """Each fault that struck is a line in the ledger's folder; JSON tells the same counts."""
    outcome = run(
        "simulate", "fleet", "--chaos", 5, "--chaos-every", 0.1, "--devices", 2, "--rate", 50, "--duration", 0.6,
        "--prefix", name, "--ledger", "l", "--json", "--url", hub.url, "--data", hub.data,
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    told, _, ledger = map(json.loads, outcome.out.splitlines())
    first, *lines = Path("l", "faults.log").read_text().splitlines()
    assert first == "chaos seed 5"
    assert told["chaos_seed"] == 5
    assert sum(told["faults"].values()) == len(lines) > 0
    assert ledger["balanced"] is True


def _take_ctrl_c() -> None:
    """A shell's background job ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_proxy_carries_devices_and_tells_its_faults(hub: HubProcess, name: str, tmp_path: Path) -> None:
    """A device behind the command delivers all; Ctrl-C ends it with the counts."""
    identities = Identities(hub.data / "identities.sqlite3")
    token = identities.add_device(name)
    identities.close()
    port = free_port()
    command = [sys.executable, "-m", "hub", "simulate", "proxy", "--listen", str(port), "--to", f"127.0.0.1:{hub.port}"]
    options = ["--chaos", "1", "--chaos-every", "0.03", "--latency-ms", "5", "--jitter-ms", "5"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=_take_ctrl_c,
    )  # fmt: skip
    assert process.stderr is not None, "it is a pipe"
    try:
        assert f"devices connect to 127.0.0.1:{port}" in process.stderr.readline()
        with Device(name, f"ws://127.0.0.1:{port}", token=token, spool=tmp_path / "spool") as device:
            for n in range(READINGS):
                device.record({"n": n}, time=1_790_000_000_000_000_000 + n)
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 130
    assert out.startswith("chaos seed 1: ")
    assert "connection 1: " in err
    with Device(name, hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        device.flush(LIMIT_S)
    assert hub.get(f"/v1/audit?device={name}")["series"][0]["rows"] == READINGS


@pytest.mark.parametrize("to", ["hub", "hub:", "hub:port", ":8000", "hub:70000"])
def test_proxy_needs_an_address(run: Run, to: str) -> None:
    """A hub is a host and a port."""
    outcome = run("simulate", "proxy", "--to", to, "--duration", 0.01)

    assert outcome.code == 2
    assert "say HOST:PORT" in outcome.err


def test_proxy_without_faults_ends_after_its_time(run: Run) -> None:
    """Nothing connected and nothing struck: it says so, as JSON when asked."""
    outcome = run("simulate", "proxy", "--to", "127.0.0.1:9", "--duration", 0.01, "--json")

    assert outcome.code == 0
    assert outcome.json["connections"] == 0
    assert outcome.json["faults"] == {}
