"""Our devices appear at a real broker as Home Assistant finds them there, and go again; nothing comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.support.hub_process import HubProcess, free_port, wait_for
from tests.support.mosquitto import PROGRAM, Mosquitto

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.end_to_end,
    pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
LIMIT_S = 15.0


@asynccontextmanager
async def listening(broker: Mosquitto) -> AsyncIterator[dict[str, bytes]]:
    """Give what the newest message of each topic is, empty ones left out, as Home Assistant sees them."""
    newest: dict[str, bytes] = {}

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            newest[message.topic.value] = bytes(message.payload)
            if not message.payload:
                del newest[message.topic.value]

    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("#")
        task = asyncio.ensure_future(listen(client))
        try:
            yield newest
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def announced(newest: dict[str, bytes]) -> dict[str, Any]:
    """Return what is announced: name of the entity → its document."""
    found = [json.loads(payload) for topic, payload in newest.items() if topic.endswith("/config")]
    return {document["name"]: document for document in found}


async def test_device_appears_with_its_values_and_goes_with_the_hub(tmp_path: Path) -> None:
    """It is announced with unit and class, its value follows, and when the hub is gone it is not available.

    The hub hears the same broker: what it has said there itself is no reading and nobody's channel.
    """
    with Mosquitto(tmp_path, free_port()) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        hub = HubProcess(tmp_path / "data", "--ha-discovery", url, "--mqtt-url", url)
        async with listening(broker) as newest:
            await asyncio.to_thread(hub.start)
            with closing(Identities(hub.data / "identities.sqlite3")) as identities:
                token = identities.add_device("greenhouse-1")
                _, admin = identities.add_token(Role.ADMIN)
            async with Device("greenhouse-1", hub.ws_url, token=token, spool=tmp_path / "s") as device:
                device.channel("temperature", unit="Cel")
                device.record(temperature=21.5, door=True)
                await device.flush_async(LIMIT_S)
                await wait_for(lambda: announced(newest).keys() == {"temperature", "door"}, LIMIT_S, "both entities")
                entity = announced(newest)["temperature"]
                await wait_for(lambda: newest.get(entity["state_topic"]) == b"21.5", LIMIT_S, "the value")
                device.record(temperature=22.5)
                await wait_for(lambda: newest.get(entity["state_topic"]) == b"22.5", LIMIT_S, "the next value")
            assert (entity["unit_of_measurement"], entity["device_class"]) == ("°C", "temperature")
            assert newest[announced(newest)["door"]["state_topic"]] == b"ON"
            topics = [place["topic"] for place in entity["availability"]]
            assert [newest[topic] for topic in topics] == [b"online", b"online"]
            listed = {d["device"] for d in hub.get("/v1/devices")["devices"]}
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                await client.publish("kitchen/temperature", b"20.5", qos=1)

            def waiting() -> list[str]:
                return [child["device"] for child in hub.get("/v1/children?gateway=mqtt-bridge", admin)["children"]]

            await wait_for(waiting, LIMIT_S, "a device of somebody else's")
            found = waiting()
            await asyncio.to_thread(hub.stop)
            await wait_for(lambda: newest[topics[0]] == b"offline", LIMIT_S, "the last word")
        assert (listed, found) == ({"greenhouse-1"}, ["kitchen"])


async def test_what_an_earlier_life_announced_is_taken_back(tmp_path: Path) -> None:
    """A device that was removed while the hub did not run is forgotten by the broker; a killed hub is not available."""
    with Mosquitto(tmp_path, free_port()) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        hub = HubProcess(tmp_path / "data", "--ha-discovery", url)
        async with listening(broker) as newest:
            await asyncio.to_thread(hub.start)
            with closing(Identities(hub.data / "identities.sqlite3")) as identities:
                token = identities.add_device("pump")
            async with Device("pump", hub.ws_url, token=token, spool=tmp_path / "s") as device:
                device.record(flow=1.5)
                await device.flush_async(LIMIT_S)
            await wait_for(lambda: "flow" in announced(newest), LIMIT_S, "the entity")
            (config,) = (topic for topic in newest if topic.endswith("/config"))
            gone = config.replace("/pump", "/gone").replace("pump", "gone")
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                await client.publish(gone, newest[config], qos=1, retain=True)
            await wait_for(lambda: gone not in newest, LIMIT_S, "an announcement that nobody made to be taken back")
            await asyncio.to_thread(hub.kill)
            status = announced(newest)["flow"]["availability"][0]["topic"]
            await wait_for(lambda: newest[status] == b"offline", LIMIT_S, "the will")
            hub.data = hub.data.rename(tmp_path / "moved")  # the same hub, wherever its data are
            await asyncio.to_thread(hub.start)
            await wait_for(lambda: newest[status] == b"online", LIMIT_S, "the hub's return")
            await asyncio.to_thread(hub.stop)


async def test_broker_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    """The hub takes readings meanwhile; when the broker is there all is said."""
    port = free_port()
    hub = HubProcess(tmp_path / "data", "--ha-discovery", f"mqtt://127.0.0.1:{port}")
    await asyncio.to_thread(hub.start)
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        token = identities.add_device("pump")
    async with Device("pump", hub.ws_url, token=token, spool=tmp_path / "s") as device:
        device.record(flow=1.5)
        await device.flush_async(LIMIT_S)
    with Mosquitto(tmp_path, port) as broker:
        async with listening(broker) as newest:
            await wait_for(lambda: "flow" in announced(newest), LIMIT_S, "the entity")
    await asyncio.to_thread(hub.stop)
