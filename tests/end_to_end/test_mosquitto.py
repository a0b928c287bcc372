"""The configuration in deploy/mosquitto, in a real mosquitto: who may speak and hear where, and a hub behind it."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.children import CHILDREN, Children
from hub.tls import TlsFiles, make_certificates
from tests.support.hub_process import ROOT, HubProcess, free_port, wait_for
from tests.support.mosquitto import PROGRAM, Mosquitto

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.end_to_end,
    pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
DEPLOY = ROOT / "deploy" / "mosquitto"
LIMIT_S = 20.0
# More than a broker keeps by default.
WAITING = 1500
NAMES = ("hub", "zigbee2mqtt", "pump", "fan")


class Deployed:
    """A broker as it is deployed: only paths and ports are others. Each user's password is ``<name>-secret``."""

    def __init__(self, folder: Path) -> None:
        self.files: TlsFiles = make_certificates(folder / "tls", ["127.0.0.1"], now=datetime.now(UTC))
        passwords, rules = folder / "passwords", folder / "acl"
        for name in NAMES:
            create = [] if passwords.exists() else ["-c"]
            subprocess.run(["mosquitto_passwd", *create, "-b", passwords, name, f"{name}-secret"], check=True)
        rules.write_bytes((DEPLOY / "acl").read_bytes())
        rules.chmod(0o600)
        self.tls_port = free_port()
        text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
        # The first listener and the database are the test's.
        text = re.sub(r"^(persistence|persistence_location|listener 1883) .*\n", "", text, flags=re.MULTILINE)
        text = text.replace("listener 8883", f"listener {self.tls_port} 127.0.0.1")
        text = text.replace("/etc/mosquitto/tls/", f"{folder}/tls/").replace("/etc/mosquitto/", f"{folder}/")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.broker = Mosquitto(folder, free_port(), *lines)

    def client(self, name: str) -> aiomqtt.Client:
        """Return a client of that user."""
        return aiomqtt.Client("127.0.0.1", self.broker.port, username=name, password=f"{name}-secret")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The broker, running."""
    deployed = Deployed(tmp_path_factory.mktemp("deployed"))
    with deployed.broker:
        yield deployed


async def _heard(client: aiomqtt.Client, topic: str, speaker: aiomqtt.Client, published: str) -> bool:
    """Say whether what one publishes on a topic reaches another who asks for it."""
    await client.subscribe(topic, qos=1)
    await speaker.publish(published, b"x", qos=1)
    try:
        async with asyncio.timeout(0.3):
            async for message in client.messages:
                if message.topic.value == published:
                    return True
    except TimeoutError:
        pass
    return False


@pytest.mark.parametrize(
    ("speaker", "hearer", "topic", "is_allowed"),
    [
        ("pump", "hub", "hub/v1/pump/up", True),
        ("pump", "hub", "hub/v1/pump/state", True),
        ("hub", "pump", "hub/v1/pump/down", True),
        ("pump", "hub", "hub/v1/fan/up", False),
        ("zigbee2mqtt", "hub", "hub/v1/pump/up", False),
        ("pump", "fan", "hub/v1/fan/down", False),
        ("hub", "fan", "hub/v1/pump/down", False),
        ("pump", "hub", "zigbee2mqtt/kitchen", False),
        ("zigbee2mqtt", "hub", "zigbee2mqtt/kitchen", True),
        ("hub", "zigbee2mqtt", "zigbee2mqtt/kitchen/get", True),
    ],
)
async def test_who_may_speak_and_hear_where(
    deployed: Deployed, speaker: str, hearer: str, topic: str, is_allowed: bool
) -> None:
    """A device on its own topics alone, the hub everywhere, a program on its own tree."""
    async with deployed.client(speaker) as one, deployed.client(hearer) as other:
        assert await _heard(other, topic, one, topic) is is_allowed


async def test_nobody_comes_without_a_password(deployed: Deployed) -> None:
    """Also not from this machine."""
    with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori"):
        async with aiomqtt.Client("127.0.0.1", deployed.broker.port):
            pass


async def test_device_and_hub_meet_there(deployed: Deployed, tmp_path: Path) -> None:
    """The device by TLS, the hub on the same machine; what is published while the hub is away waits for it."""
    url = f"mqtt://hub:hub-secret@127.0.0.1:{deployed.broker.port}"
    hub = HubProcess(tmp_path / "data", environment={"HUB_MQTT_URL": url})
    device_url = f"mqtts://127.0.0.1:{deployed.tls_port}"

    def rows(match: str) -> list[Any]:
        return [row[2] for row in hub.get(f"/v1/readings?match={match}&last=1h&limit=10000")["rows"]]

    with hub:
        with (
            closing(Identities(hub.data / "identities.sqlite3")) as identities,
            closing(Children(hub.data / CHILDREN, identities)) as children,
        ):
            identities.add_device("pump")
            children.set_rules("mqtt-bridge", auto_accept=["kitchen"])
        async with Device(
            "pump", device_url, token="pump-secret", ca=deployed.files.ca, spool=":memory:", close_timeout_s=0.5
        ) as device:
            device.record(level=1.5)
            await device.flush_async(LIMIT_S)
        assert rows("pump/level") == [1.5]
        await asyncio.to_thread(hub.stop)
        async with deployed.client("zigbee2mqtt") as program:
            for number in range(WAITING):
                await program.publish("zigbee2mqtt/kitchen", b'{"temperature":%d}' % number, qos=1)
        await asyncio.to_thread(hub.start)
        await wait_for(lambda: len(rows("kitchen/temperature")) >= WAITING, LIMIT_S, "what waited")

        assert rows("kitchen/temperature") == list(range(WAITING))
    assert "hub-secret" not in hub.log.read_text()
