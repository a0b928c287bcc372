"""Devices of the SDK by MQTT, at the hub's own port and through a real broker: kills lose and double nothing."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.children import CHILDREN, Children
from tests.end_to_end.conftest import admin_token
from tests.support.hub_process import ROOT, HubProcess, free_port, wait_for
from tests.support.mosquitto import PROGRAM, Mosquitto
from tests.support.mqtt_hub import MqttHub

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.end_to_end,
    pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
LIMIT_S = 40.0
NAME = "pump-7"


@contextmanager
def _children(hub: HubProcess) -> Iterator[Children]:
    """The decisions over devices behind gateways, beside the running hub."""
    with (
        closing(Identities(hub.data / "identities.sqlite3")) as identities,
        closing(Children(hub.data / CHILDREN, identities)) as known,
    ):
        yield known


class Site:
    """A hub and the way to it; ``token``: of the one device."""

    def __init__(self, hub: HubProcess, url: str, broker: Mosquitto | None = None) -> None:
        self.hub = hub
        self.url = url
        self.broker = broker
        with closing(Identities(hub.data / "identities.sqlite3")) as identities:
            self.token = identities.add_device(NAME)

    def device(self, folder: Path, **options: Any) -> Device:
        """Return the device, with its spool in a folder."""
        return Device(NAME, self.url, token=self.token, spool=folder / "spool", **options)

    def values(self, channel: str = "number") -> list[Any]:
        """Return what is stored of a channel, a value for each row."""
        rows = self.hub.get(f"/v1/readings?match={NAME}/{channel}&last=1h&limit=10000")["rows"]
        return [row[2] for row in rows]

    @property
    def is_balanced(self) -> bool:
        """Whether both ledgers balance."""
        return self.hub.get("/v1/audit")["balanced"] is True

    @property
    def is_connected(self) -> bool:
        """Whether the hub sees the device."""
        return any(one["connected"] for one in self.hub.get("/v1/devices")["devices"] if one["device"] == NAME)


@pytest.fixture
def brokered(tmp_path: Path) -> Iterator[Site]:
    """A hub behind a broker."""
    with (
        Mosquitto(tmp_path, free_port(), "max_queued_messages 0") as broker,
        HubProcess(tmp_path / "data", "--mqtt-url", f"mqtt://127.0.0.1:{broker.port}") as hub,
    ):
        yield Site(hub, f"mqtt://127.0.0.1:{broker.port}", broker)


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Site]:
    """A hub with a port of its own."""
    with MqttHub(tmp_path / "data") as hub:
        yield Site(hub, f"mqtt://127.0.0.1:{hub.mqtt_port}")


@pytest.fixture(params=["direct", "brokered"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each of them."""
    site: Site = request.getfixturevalue(request.param)
    return site


async def test_device_delivers_obeys_and_takes_its_state(site: Site, tmp_path: Path) -> None:
    """Everything that a device does by WebSocket."""
    admin = admin_token(site.hub)
    speeds: list[int] = []
    states: list[dict[str, Any]] = []
    async with site.device(tmp_path) as device:

        @device.command
        def fan(speed: int) -> dict[str, int]:
            speeds.append(speed)
            return {"speed": speed}

        device.on_desired(states.append)
        for number in range(100):
            device.record(number=number)
        await device.flush_async(LIMIT_S)
        order = {"name": "fan", "args": {"speed": 3}, "match": NAME}
        status, told = await asyncio.to_thread(site.hub.request, "POST", "/v1/commands", order, admin)
        assert status < 300, told
        await wait_for(lambda: speeds == [3], LIMIT_S, "the command")
        patch = {"patch": {"interval_s": 5}}
        status, told = await asyncio.to_thread(
            site.hub.request, "PATCH", f"/v1/devices/{NAME}/desired", patch, admin
        )  # fmt: skip
        assert status < 300, told
        await wait_for(lambda: {"interval_s": 5} in states, LIMIT_S, "the state")

    assert Counter(site.values()) == Counter(range(100))


async def test_hub_that_is_killed_loses_and_doubles_nothing(site: Site, tmp_path: Path) -> None:
    """With readings on their way each time; the device finds the next hub by itself."""
    sent = 0
    async with site.device(tmp_path) as device:
        for _ in range(3):
            for _ in range(200):
                device.record(number=sent)
                sent += 1
            await asyncio.sleep(0.02)
            await asyncio.to_thread(site.hub.kill)
            device.record(number=sent)
            sent += 1
            await asyncio.to_thread(site.hub.start)
        await device.flush_async(LIMIT_S)
        assert device.status.dropped == 0

    assert Counter(site.values()) == Counter(range(sent))
    await wait_for(lambda: site.is_balanced, LIMIT_S, "the audit to balance")


async def test_broker_that_is_killed_loses_and_doubles_nothing(brokered: Site, tmp_path: Path) -> None:
    """It comes back with what it wrote down some time ago: old hellos and frames come again, and change nothing."""
    site, broker, sent = brokered, brokered.broker, 0
    assert broker is not None, "it has one"
    async with site.device(tmp_path) as device:
        for _ in range(3):
            await asyncio.to_thread(site.hub.kill)
            for _ in range(200):
                device.record(number=sent)
                sent += 1
                await asyncio.sleep(0.002)
            await asyncio.to_thread(broker.save)
            await asyncio.to_thread(site.hub.start)
            for _ in range(200):
                device.record(number=sent)
                sent += 1
                await asyncio.sleep(0.002)
            broker.kill()
            device.record(number=sent)
            sent += 1
            await asyncio.to_thread(broker.start)
        await device.flush_async(LIMIT_S)

    assert Counter(site.values()) == Counter(range(sent))
    log = site.hub.log.read_text()
    assert "two spools write it" not in log
    await wait_for(lambda: site.is_balanced, LIMIT_S, "the audit to balance")


async def test_simulated_fleet_balances_its_ledger(site: Site, tmp_path: Path) -> None:
    """The same fleet by MQTT; with faults on its way to the port or the broker."""
    command = [
        "-m", "hub", "simulate", "fleet", "--devices", "5", "--rate", "20", "--duration", "4", "--chaos", "1",
        "--chaos-every", "1", "--ledger", str(tmp_path / "ledger"), "--url", site.hub.url, "--data", str(site.hub.data),
        "--device-url", site.url,
    ]  # fmt: skip
    fleet = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(fleet.communicate(), LIMIT_S)

    assert fleet.returncode == 0, told.decode()
    assert b"0 lost, 0 doubled" in told
    assert b" 0 faults" not in told


async def test_device_is_seen_to_go_and_to_come(site: Site, tmp_path: Path) -> None:
    """Commands reach it when it is back; nobody waits for the next reading."""
    async with site.device(tmp_path):
        await wait_for(lambda: site.is_connected, LIMIT_S, "the device to come")
        await asyncio.to_thread(site.hub.kill)
        await asyncio.to_thread(site.hub.start)
        await wait_for(lambda: site.is_connected, LIMIT_S, "the device to come again")
    await wait_for(lambda: not site.is_connected, LIMIT_S, "the device to go")


async def test_unmodified_devices_of_a_broker_are_accepted_and_stored_once(brokered: Site) -> None:
    """Zigbee2MQTT as it is: pending, accepted; killed hubs lose none of its messages, and double none with a time."""
    site, broker = brokered, brokered.broker
    assert broker is not None, "it has one"

    async def publish(numbers: range) -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            for number in numbers:
                at = 1_795_376_000_000 + number * 1000
                payload = f'{{"temperature":{number},"last_seen":{at}}}'
                await client.publish("zigbee2mqtt/kitchen", payload, qos=1)

    def children() -> list[str]:
        with _children(site.hub) as known:
            return [child.device for child in known.listed(gateway="mqtt-bridge")]

    await publish(range(1))
    await wait_for(lambda: "kitchen" in children(), LIMIT_S, "kitchen to be pending")
    with _children(site.hub) as known:
        known.accept("mqtt-bridge", "kitchen")
    await asyncio.sleep(1.0)  # another process has decided: the hub looks twice a second
    for part in range(3):
        await publish(range(1 + part * 100, 101 + part * 100))
        await asyncio.to_thread(site.hub.kill)
        await publish(range(301 + part * 10, 311 + part * 10))
        await asyncio.to_thread(site.hub.start)

    def rows() -> list[Any]:
        found = site.hub.get("/v1/readings?match=kitchen/temperature&start=2026-11-01T00:00:00Z&limit=10000")
        return [row[2] for row in found["rows"]]

    await wait_for(lambda: len(rows()) >= 330, LIMIT_S, "all readings")
    assert Counter(rows()) == Counter(range(1, 331))
