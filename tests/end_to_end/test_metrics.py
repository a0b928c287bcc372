"""A real hub is scraped as Prometheus does it: with a token, in its text format, by its own parser."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import admin_token, enrol
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


def test_requests_with_readings_are_in_the_figures(hub: HubProcess) -> None:
    """Posted to a running hub, refused there, put aside there: the next scrape says so."""
    device = enrol(hub, "d")["d"]
    json_, lines = b'[{"t": 1.5}, {"t": "warm"}]', b"air humidity=61i\n"
    unreadable = b'{"op":"batch","seq":1,"count":2}'

    said = [
        post(hub, "/v1/batches", device, json_, {"Idempotency-Key": "wake-1"}),
        post(hub, "/v1/batches", device, json_, {"Idempotency-Key": "wake-1"}),
        post(hub, "/v1/batches?stream=9f3a0000000000aa", device, unreadable, {}),
        post(hub, "/api/v2/write", device, lines, {}),
        post(hub, "/write", "th_wrong", lines, {}),
    ]
    found = scrape(hub, admin_token(hub))

    assert said == [200, 200, 200, 204, 401]
    assert {labels[0]: value for (name, *labels), value in found.items() if name == "hub_post_requests_total"} == {
        "stored": 1, "in_part": 2, "refused": 1, "unauthenticated": 1,
    }  # fmt: skip
    assert (found["hub_post_accepted_readings_total",], found["hub_post_rejected_readings_total",]) == (2, 3)
    assert (found["hub_post_quarantined_frames_total",], found["hub_post_repeated_requests_total",]) == (1, 1)
    assert found["hub_post_received_bytes_total",] == 2 * len(json_) + len(unreadable) + len(lines)
    assert found["hub_mqtt_publications_total",] == 0


def post(hub: HubProcess, path: str, token: str, body: bytes, headers: dict[str, str]) -> int:
    """Send a body; return the status of the answer."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{hub.url}{path}", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
