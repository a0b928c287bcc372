"""``hub serve --demo``: devices appear with a past, and leave with the hub."""

import time
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.cli.demo import fingerprint_of
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


@pytest.mark.slow
def test_demo_fills_a_hub_and_stops_with_it(tmp_path: Path) -> None:
    """201 devices with history, a device of the user's left alone, all gone ≤ 2 s after Ctrl-C; takes a few seconds."""
    data = tmp_path / "data"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    mine = identities.add_device("pump-01")
    with HubProcess(data, "--demo") as hub:
        deadline = time.monotonic() + 40
        devices: list[dict[str, object]] = []
        while sum(d["last_ns"] is not None for d in devices) < 200 and time.monotonic() < deadline:
            devices = hub.get("/v1/devices")["devices"]
            time.sleep(0.1)

        assert sum(d["last_ns"] is not None for d in devices) == 200
        assert [d["device"] for d in devices if d["alert"] and d["device"] == "greenhouse-03"]
        rows = hub.get("/v1/readings?match=greenhouse-01/temperature&last=20m&limit=1000")["rows"]
        assert len(rows) >= 225
        assert identities.authenticate(mine) is not None
        identities.close()
        # The bound is 2 s; the second one is for a machine that runs other tests beside.
        assert hub.stop() < 4.0
    assert "demo     200 devices" in hub.log.read_text()


def test_fingerprint_is_that_of_the_certificate(run: Run, tmp_path: Path) -> None:
    """The demo pins what `hub tls init` printed."""
    made = run("tls", "init", "--json").json

    assert fingerprint_of(Path(made["cert"])) == made["fingerprint"]
