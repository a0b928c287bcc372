"""A real hub is scraped as Prometheus does it: with a token, in its text format, by its own parser."""

import json
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.end_to_end


def scrape(hub: HubProcess, token: str) -> dict[tuple[str, ...], float]:
    """Return (name, label values …) → value."""
    request = urllib.request.Request(f"{hub.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_a_running_hub_is_scraped(hub: HubProcess, tmp_path: Path) -> None:
    """A device that sent and a watcher that listens are in the figures; within a second they are not gathered again."""
    device_token = enrol(hub, "d")["d"]
    identities = Identities(hub.data / "identities.sqlite3")
    _, token = identities.add_token(Role.WATCHER, name="prometheus")
    identities.close()
    with Device("d", hub.ws_url, token=device_token, spool=tmp_path / "spool") as device:
        for n in range(10):
            device.record(n=n)
        device.flush(20)
        with connect(f"{hub.ws_url}/v1/watch", subprotocols=[Subprotocol("watch.v1")]) as socket:
            socket.send(json.dumps({"op": "sub", "sub": "s", "match": ["d"]}))
            while json.loads(socket.recv(20))["op"] != "live":
                pass

            found = scrape(hub, token)
            again = scrape(hub, token)

    assert found["hub_devices", "online"] == found["hub_device_connections",] == 1
    assert found["hub_watchers", "websocket"] == found["hub_live_subscriptions",] == 1
    assert found["hub_journal_frames_total",] >= 1
    assert found["hub_failed",] == found["hub_watchers_behind",] == found["hub_hooks_failed_batches_total",] == 0
    assert 10e6 < found["process_resident_memory_bytes",] < 1e9
    assert again["hub_scrape_duration_seconds",] == found["hub_scrape_duration_seconds",]
