"""MQTT clients that nobody here wrote, at a real hub: what was acknowledged is in the store, once."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import aiomqtt
import gmqtt
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from device_sdk import wire
from hub.auth import Identities
from hub.revocations import CERTIFICATES, Revocations
from hub.roles import Role
from hub.tls import make_certificates, make_device_certificate
from tests.end_to_end.conftest import admin_token
from tests.support.hub_process import ROOT
from tests.support.mqtt_hub import LIMIT_S, MqttHub, Paho, until
from tests.support.node import NodeProcess, install

pytestmark = pytest.mark.end_to_end

MQTT_JS = "mqtt@5.16"
VERSIONS = [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttHub]:
    """One hub for all tests; each has a device of its own."""
    with MqttHub(tmp_path_factory.mktemp("mqtt") / "data") as hub:
        yield hub


@pytest.mark.parametrize("version", VERSIONS, ids=["3.1.1", "5"])
def test_paho_has_its_reading_stored_when_it_is_acknowledged(hub: MqttHub, version: MQTTProtocolVersion) -> None:
    """JSON of nobody's protocol: the row is there, once, with the device's name."""
    name = f"paho-{int(version)}"
    with Paho(hub, name, hub.enrol(name), version) as client:
        client.publish(f"sensors/{name}", '{"temperature":21.5,"humidity":47}')
        client.publish(f"sensors/{name}", '{"temperature":21.6}')
    until(lambda: len(hub.values(name)) == 2, "two rows")

    assert (hub.values(name), hub.values(name, "humidity")) == ([21.5, 21.6], [47])


@pytest.mark.parametrize("version", VERSIONS, ids=["3.1.1", "5"])
def test_wrong_token_is_refused(hub: MqttHub, version: MQTTProtocolVersion) -> None:
    """With the code that says so, and it stands in the log of changes."""
    hub.enrol(f"wrong-{int(version)}")
    with Paho(hub, f"wrong-{int(version)}", "nonsense", version) as client:
        assert [str(reason) for reason in client.refused] == ["Bad user name or password"]
    admin = admin_token(hub)

    def logged() -> object:
        return [e for e in hub.get("/v1/log?what=connect%20mqtt", token=admin)["entries"]]

    until(logged, "an entry of the log")


@pytest.mark.parametrize("version", VERSIONS, ids=["3.1.1", "5"])
def test_subscription_to_others_is_refused_and_their_topic_denied(hub: MqttHub, version: MQTTProtocolVersion) -> None:
    """A device has its own ``down``; 3.1.1, which has no word for no, ends."""
    name = f"own-{int(version)}"
    with Paho(hub, name, hub.enrol(name), version) as client:
        assert [r.is_failure for r in client.subscribe("hub/v1/other/down")] == [True]
        assert [r.is_failure for r in client.subscribe("#")] == [True]
        assert [r.is_failure for r in client.subscribe(f"hub/v1/{name}/down")] == [False]
        client.client.publish("hub/v1/other/up", b"{}", qos=1)
        if version is MQTTProtocolVersion.MQTTv311:
            until(lambda: client.ended, "the end")
        else:
            client.publish("t", "1")
            assert client.ended == []


def test_native_device_is_welcomed_and_acked(hub: MqttHub) -> None:
    """The conversation of the SDK, by hand: hello, schema, batch, and a command that comes on ``down``."""
    name = "native"
    with Paho(hub, name, hub.enrol(name), MQTTProtocolVersion.MQTTv311) as client:
        client.subscribe(f"hub/v1/{name}/down")
        up = f"hub/v1/{name}/up"
        hello = wire.Hello(name, "9f3a0000000000aa", "boot", "run", 0, 1, "")
        client.publish(up, wire.encode(hello))
        client.publish(up, '{"op":"schema","channels":{"temperature":{"unit":"Cel"}},"commands":{"fan":{}}}')
        now_ms = str(time.time_ns() // 1_000_000)
        rows = {"s": "9f3a0000000000aa", "q": 1, "t": now_ms, "f": ["temperature"], "r": [[0, 20.5], [5, 20.75]]}
        client.publish(up, json.dumps(rows, separators=(",", ":")))
        until(lambda: len(hub.values(name)) == 2, "two rows")
        ops = [json.loads(payload)["op"] for topic, payload in client.heard]
        assert (ops[:2], {topic for topic, _ in client.heard}) == (["welcome", "ack"], {f"hub/v1/{name}/down"})
        status, answer = hub.request(
            "POST", "/v1/commands", {"match": name, "name": "fan", "args": {}}, token=admin_token(hub)
        )
        assert status in (200, 201, 202), answer
        until(lambda: any(b'"op":"command"' in payload for _, payload in client.heard), "the command")


def test_mqtt_by_websocket_is_the_same(hub: MqttHub) -> None:
    """At ``/mqtt`` of the hub's one port."""
    with Paho(hub, "web", hub.enrol("web"), transport="websockets") as client:
        client.publish("sensors/web", '{"temperature":1.5}')
    until(lambda: hub.values("web") == [1.5], "the row")
    status, answer = hub.request("GET", "/mqtt")

    assert (status, "subprotocol mqtt" in answer["error"]["message"]) == (426, True)


def test_newer_connection_of_the_same_client_takes_over(hub: MqttHub) -> None:
    """MQTT 5 says why; the newer one goes on."""
    token = hub.enrol("twice")
    with Paho(hub, "twice", token, MQTTProtocolVersion.MQTTv5, client_id="c") as older:
        with Paho(hub, "twice", token, MQTTProtocolVersion.MQTTv5, client_id="c") as newer:
            until(lambda: older.ended, "the end of the older one")
            newer.publish("t", '{"temperature":1.5}')
        assert [str(reason) for reason in older.ended] == ["Session taken over"]


def test_revoked_device_ends_within_a_second(hub: MqttHub) -> None:
    """As by every other way."""
    token = hub.enrol("revoked")
    with Paho(hub, "revoked", token, MQTTProtocolVersion.MQTTv5) as client:
        with closing(Identities(hub.data / "identities.sqlite3")) as identities:
            identities.remove_device("revoked")
        begun = time.monotonic()
        until(lambda: client.ended, "the end")
        assert time.monotonic() - begun < 1.5
        assert [str(reason) for reason in client.ended] == ["Not authorized"]


def test_device_comes_by_tls_with_its_certificate_alone(tmp_path: Path) -> None:
    """One that is revoked is refused, and ends where it is connected; a token goes on."""
    tls = tmp_path / "data" / "tls"
    files = make_certificates(tls, ["127.0.0.1"], now=datetime.now(UTC))
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-client-ca", str(files.ca))
    with MqttHub(tmp_path / "data", *options, ca=files.ca) as hub:
        token, reader = hub.enrol("cert"), admin_token(hub)
        shown = make_device_certificate(tls, "cert", now=datetime.now(UTC))
        pair = (shown.cert, shown.key)
        with Paho(hub, "cert", token) as by_token, Paho(hub, "", None, certificate=pair, client_id="2") as client:
            by_token.publish("cert", '{"temperature":1.5}')
            client.publish("cert", '{"temperature":2.5}')
            until(lambda: hub.values("cert", token=reader) == [1.5, 2.5], "the rows")
            with closing(Revocations(hub.data / CERTIFICATES)) as revocations:
                revocations.revoke(shown.fingerprint)
            until(lambda: client.ended, "the end of who stands on the certificate")
            by_token.publish("cert", '{"temperature":3.5}')
            assert by_token.ended == []
        with Paho(hub, "", None, certificate=pair) as client:
            assert [str(reason) for reason in client.refused] == ["Bad user name or password"]


@pytest.mark.asyncio
async def test_aiomqtt_has_its_readings_stored(hub: MqttHub) -> None:
    """Hundred at once, over one connection."""
    token = hub.enrol("aio")
    async with (
        aiomqtt.Client(hub.host, hub.mqtt_port, username="aio", password=token) as client,
        asyncio.timeout(LIMIT_S),
        asyncio.TaskGroup() as group,
    ):
        for n in range(100):
            group.create_task(client.publish("aio", f'{{"temperature":{n}}}', qos=1))
    until(lambda: len(hub.values("aio")) == 100, "a hundred rows")

    assert sorted(hub.values("aio")) == list(range(100))


@pytest.mark.asyncio
async def test_gmqtt_has_its_readings_stored(hub: MqttHub) -> None:
    """MQTT 5, with a will that says that it is gone."""
    token = hub.enrol("gm")
    client = gmqtt.Client("gm")
    client.set_auth_credentials("gm", token)
    await client.connect(hub.host, hub.mqtt_port)
    for n in range(10):
        client.publish("gm", {"temperature": n}, qos=1)
    await asyncio.to_thread(until, lambda: len(hub.values("gm")) == 10, "ten rows")
    await client.disconnect()

    assert hub.values("gm") == list(range(10))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of mqtt.js."""
    found = install(tmp_path_factory.mktemp("node"), MQTT_JS)
    if found is None:
        pytest.skip(f"no npm here, or no way to {MQTT_JS}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("way", ["tcp", "websocket"])
def test_mqtt_js_has_its_readings_stored(hub: MqttHub, modules: Path, way: str, version: str) -> None:
    """By TCP and by WebSocket, as in a browser; slow: npm fetches it."""
    name = f"js-{way}-{version}"
    url = f"mqtt://{hub.host}:{hub.mqtt_port}" if way == "tcp" else f"{hub.ws_url}/mqtt"
    script = ROOT / "tests" / "support" / "mqtt_js_client.cjs"
    with NodeProcess(modules, script, [url, name, hub.enrol(name), version]) as client:
        until(lambda: client.heard("connected"), "the connection")
        for n in range(50):
            client.say(json.dumps({"topic": name, "payload": f'{{"temperature":{n}}}'}))
        client.say(json.dumps({"subscribe": "others/temperature"}))
        until(lambda: len(client.heard("acked")) == 50 and client.heard("granted"), "the PUBACKs")
        assert [line for line in client.lines if line["what"] in ("error", "closed")] == []
    until(lambda: len(hub.values(name)) == 50, "fifty rows")

    assert hub.values(name) == list(range(50))


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are not installed")
def test_line_of_mosquitto_pub_in_the_documentation_works(hub: MqttHub) -> None:
    """The device needs no program at all."""
    token = hub.enrol("shell")
    line: list[str] = ["mosquitto_pub", "-h", hub.host, "-p", str(hub.mqtt_port), "-u", "shell", "-P", token, "-q", "1",
            "-t", "sensors/shell", "-m", '{"temperature":21.5,"humidity":47}']  # fmt: skip
    subprocess.run(line, check=True, timeout=LIMIT_S)

    until(lambda: hub.values("shell") == [21.5], "the row")


def test_device_behind_a_gateway_is_pending_then_stored(hub: MqttHub) -> None:
    """Its messages are acknowledged from the start; its sensor waits for a person, who does not hold up the others."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        _, token = identities.add_token(Role.GATEWAY, ["*"], "zigbee")
    admin = admin_token(hub)

    def children(state: str) -> list[str]:
        return [c["device"] for c in hub.get(f"/v1/children?gateway=zigbee&state={state}", token=admin)["children"]]

    with Paho(hub, "zigbee", token, MQTTProtocolVersion.MQTTv311) as client:
        client.publish("kitchen/temperature", "27.34")
        until(lambda: children("pending"), "a pending child")
        (name,) = children("pending")
        status, answer = hub.request("POST", f"/v1/gateways/zigbee/children/{name}", {"state": "accepted"}, token=admin)
        assert status in (200, 204), answer
        client.publish("kitchen/temperature", "27.5")
    until(lambda: hub.values(name), "the row")

    assert (name, hub.values(name)) == ("kitchen", [27.5])


def test_unmodified_zigbee2mqtt_with_one_sensor(hub: MqttHub) -> None:
    """Its sensor is pending, then stored, with the units that were announced meanwhile."""
    admin = admin_token(hub)
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        _, token = identities.add_token(Role.GATEWAY, ["*"], "z2m")
    exposes = [
        {"type": "numeric", "name": name, "property": name, "unit": unit, "access": 1}
        for name, unit in (("temperature", "°C"), ("humidity", "%"))
    ]
    announced = [
        {"ieee_address": "0x00124b0018e27922", "type": "Coordinator", "friendly_name": "Coordinator"},
        {"ieee_address": "0x00158d0001dc126a", "type": "EndDevice", "friendly_name": "office",
         "definition": {"model": "WSDCGQ11LM", "vendor": "Aqara", "exposes": exposes}},
    ]  # fmt: skip
    client = Paho(hub, "z2m", token, MQTTProtocolVersion.MQTTv311)
    client.client.will_set("zigbee2mqtt/bridge/state", '{"state":"offline"}', 1, retain=True)
    with client:
        assert [r.is_failure for r in client.subscribe("zigbee2mqtt/#")] == [False]
        client.publish("zigbee2mqtt/bridge/state", '{"state":"online"}')
        client.publish("zigbee2mqtt/bridge/devices", json.dumps(announced))
        client.publish("zigbee2mqtt/office", '{"temperature":27.34,"humidity":44.72,"linkquality":128}')
        waiting = hub.get("/v1/children?gateway=z2m", token=admin)["children"]
        assert [(c["device"], c["state"]) for c in waiting] == [("office", "pending")]
        hub.request("POST", "/v1/gateways/z2m/children/office", {"state": "accepted"}, token=admin)
        client.publish("zigbee2mqtt/office", '{"temperature":27.5,"humidity":44.5,"linkquality":128}')
    until(lambda: hub.values("office"), "the row")

    latest = {r["channel"]: (r["value"], r["unit_shown"]) for r in hub.get("/v1/latest?match=office")["readings"]}
    assert latest == {"temperature": (27.5, "°C"), "humidity": (44.5, "%"), "linkquality": (128, None)}


@pytest.mark.slow
def test_hub_that_is_killed_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    """Kill -9 among PUBLISHes and PUBACKs, five times; the device sends again what it has no PUBACK for: each once."""
    begun_ms = time.time_ns() // 1_000_000 - 60_000
    acked: set[int] = set()
    unacked: list[int] = []
    number = 0
    with MqttHub(tmp_path / "data") as hub:
        token = hub.enrol("d")
        for turn in range(6):
            with Paho(hub, "d", token, MQTTProtocolVersion.MQTTv311) as client:
                sent: dict[int, int] = {}
                client.client.on_publish = lambda c, d, mid, *_, sent=sent: acked.add(sent[mid])
                fresh = range(number, number + 100)
                number += 100
                for count, each in enumerate([*unacked, *fresh]):
                    payload = json.dumps({"temperature": each, "ts": begun_ms + each})
                    sent[client.client.publish("d", payload, qos=1).mid] = each
                    if count == 50 and turn < 5:
                        threading.Timer(0.01, hub.kill).start()
                if turn < 5:
                    until(lambda: client.ended, "the cut")
                else:
                    until(lambda: len(acked) == 600, "every PUBACK")
            unacked = [each for each in range(number) if each not in acked]
            if turn < 5:
                hub.start()
        until(lambda: len(hub.values("d")) >= number, "every row")

        assert hub.values("d") == list(range(number))
        (series,) = hub.get("/v1/audit?device=d")["series"]
        assert (series["rows"], series["accepted"] - series["superseded"]) == (number, number)


def test_clients_are_told_that_the_hub_stops(tmp_path: Path) -> None:
    """MQTT 5 by its code; the hub ends in time, and what was acknowledged is there."""
    with MqttHub(tmp_path / "data") as hub:
        with Paho(hub, "d", hub.enrol("d"), MQTTProtocolVersion.MQTTv5) as client:
            client.publish("d", '{"temperature":1.5}')
            assert hub.stop() < 2.0
            until(lambda: client.ended, "the end")
            assert [str(reason) for reason in client.ended] == ["Server shutting down"]
        hub.start()
        assert hub.values("d") == [1.5]
        assert f"mqtt     mqtt://127.0.0.1:{hub.mqtt_port}" in hub.log.read_text()
