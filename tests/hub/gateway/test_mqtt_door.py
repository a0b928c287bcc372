"""A real hub in this process and plain sockets: who gets in, who must go, and what was acknowledged is stored."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hub.app import IDENTITIES_EVERY_S, Hub
from hub.change_log import Filter
from hub.config import Config
from hub.gateway.mqtt_door import MQTT_PATH
from hub.gateway.websocket import Accept, Refuse, UpgradeRequest
from hub.mqtt.handler import Code
from hub.roles import Role
from tests.support import mqtt_packets as say

pytestmark = pytest.mark.asyncio
LIMIT_S = 10.0


class Line:
    """A client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, packet: bytes) -> tuple[int, bytes]:
        """Send a packet and return the next one that comes."""
        self._writer.write(packet)
        return await self.next()

    async def next(self) -> tuple[int, bytes]:
        """Return the next packet; (0, b"") at the end."""
        async with asyncio.timeout(LIMIT_S):
            head = await self._reader.read(1)
            if not head:
                return 0, b""
            length = shift = 0
            while True:
                (byte,) = await self._reader.readexactly(1)
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return head[0], await self._reader.readexactly(length)

    def send(self, packets: bytes) -> None:
        """Send packets."""
        self._writer.write(packets)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def listening(data: Path) -> AsyncIterator[tuple[Hub, int]]:
    """Give a hub and the port where it takes MQTT."""
    async with Hub(Config(data=data)) as hub:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await hub.mqtt.listen(listener, None, 100)
        yield hub, port


@asynccontextmanager
async def connected(port: int, name: str, token: str, version: int = 5) -> AsyncIterator[Line]:
    """Give a client that was let in."""
    line = Line(*await asyncio.open_connection("127.0.0.1", port))
    try:
        head, body = await line.ask(say.connect(name, version, username=name, password=token.encode()))
        assert (head, body[1]) == (0x20, 0)
        yield line
    finally:
        await line.close()


async def test_what_is_acknowledged_is_stored(tmp_path: Path) -> None:
    """One row, after a restart too."""
    async with listening(tmp_path / "data") as (hub, port):
        token = await asyncio.to_thread(hub.identities.add_device, "d")
        async with connected(port, "d", token, 4) as line:
            assert await line.ask(say.publish("d", b'{"t":21.5}', 7)) == (0x40, b"\0\7")
            assert hub.registry.device("default", "d").connections == 1
            assert (hub.journal.head, hub.mqtt.statistics().connections) == (1, 1)

    async with Hub(Config(data=tmp_path / "data")) as hub:
        (series,) = hub.registry.by_id
        assert hub.registry.latest[series].value == 21.5


async def test_hub_that_stops_acknowledges_what_it_stores(tmp_path: Path) -> None:
    """Else each client would send it again to the next hub, which cannot know it."""
    async with listening(tmp_path / "data") as (hub, port):
        token = await asyncio.to_thread(hub.identities.add_device, "d")
        async with connected(port, "d", token) as line:
            line.send(b"".join(say.publish("d/t", b"21.5", number, version=5) for number in range(1, 51)))
            async with asyncio.timeout(LIMIT_S):
                while not hub.mqtt.statistics().waiting:  # noqa: ASYNC110 - in the turn in which they come
                    await asyncio.sleep(0)
            hub.mqtt.stop()
            answers = [await line.next()]
            while answers[-1][0] == 0x40:
                answers.append(await line.next())

    assert [head for head, _ in answers] == [0x40] * 50 + [0xE0]
    assert answers[-1][1][0] == Code.SERVER_SHUTTING_DOWN


async def test_wrong_token_stands_in_the_log(tmp_path: Path) -> None:
    """With the address, and counted with others alike."""
    async with listening(tmp_path / "data") as (hub, port):
        for _ in range(2):
            line = Line(*await asyncio.open_connection("127.0.0.1", port))
            head, body = await line.ask(say.connect("d", username="d", password=b"wrong"))
            assert (head, body) == (0x20, b"\0\4")
            await line.close()
        await asyncio.to_thread(hub.change_log.flush)
        (entry,) = hub.change_log.entries("default", 10, Filter(what="connect mqtt"))

    assert (entry.peer, entry.outcome, entry.count) == ("127.0.0.1", "unauthenticated", 2)


async def test_credential_that_ends_ends_its_connection(tmp_path: Path) -> None:
    """At the hub's next look at its identities."""
    async with listening(tmp_path / "data") as (hub, port):
        token = await asyncio.to_thread(hub.identities.add_device, "d")
        async with connected(port, "d", token) as line:
            await asyncio.to_thread(hub.identities.remove_device, "d")
            async with asyncio.timeout(2 * IDENTITIES_EVERY_S):
                head, body = await line.next()

    assert (head, body[0]) == (0xE0, Code.NOT_AUTHORIZED)


async def test_child_that_is_shut_out_is_told_at_once(tmp_path: Path) -> None:
    """A gateway's connection is known where decisions over children arrive."""
    async with listening(tmp_path / "data") as (hub, port):
        _, token = await asyncio.to_thread(hub.identities.add_token, Role.GATEWAY, ("barn-*",), "barn")
        await asyncio.to_thread(hub.children.set_rules, "barn", auto_accept=["*"])
        async with connected(port, "barn", token) as line:
            await line.ask(say.subscribe(1, ("hub/v1/barn-1/down", 0), version=5))
            hello = (
                b'{"op":"hello","device":"barn-1","stream":"9f3a0000000000aa","boot":"b","run":"r","proto":1,'
                b'"acked":0,"next":1}'
            )
            head, body = await line.ask(say.publish("hub/v1/barn-1/up", hello, 2, 5))
            assert (head, b'"op":"welcome"' in body) == (0x30, True)
            assert (await line.next())[0] == 0x40
            await asyncio.to_thread(hub.children.ignore, "barn", "barn-1")
            head, body = await line.next()

    assert (head, b'"op":"bye"' in body) == (0x30, True)


async def test_stop_tells_clients_and_lets_nobody_in(tmp_path: Path) -> None:
    """Before the journal is drained; who connects meanwhile is refused."""
    async with listening(tmp_path / "data") as (hub, port):
        token = await asyncio.to_thread(hub.identities.add_device, "d")
        async with connected(port, "d", token) as line:
            hub.mqtt.stop()
            head, body = await line.next()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", port)

    assert (head, body[0]) == (0xE0, Code.SERVER_SHUTTING_DOWN)


async def test_hub_that_ends_waits_for_its_clients_to_go(tmp_path: Path) -> None:
    """Who does not is cut off; nothing of it is left."""
    async with listening(tmp_path / "data") as (hub, port):
        token = await asyncio.to_thread(hub.identities.add_device, "d")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(say.connect("d", 5, username="d", password=token.encode()))
        await reader.read(100)
        began = asyncio.get_running_loop().time()

    assert (hub.mqtt.statistics().connections, asyncio.get_running_loop().time() - began < 2.0) == (0, True)
    writer.close()


async def test_upgrade_asks_for_no_credential_and_needs_the_subprotocol(tmp_path: Path) -> None:
    """Who it is, CONNECT says."""
    async with Hub(Config(data=tmp_path / "data")) as hub:
        request = UpgradeRequest(MQTT_PATH, {}, {}, "127.0.0.1:5", False, ("mqtt",))
        taken = hub.upgrade(request)
        refused = hub.upgrade(UpgradeRequest(MQTT_PATH, {}, {}, "127.0.0.1:5", False, ()))

    assert isinstance(taken, Accept)
    assert taken.subprotocol == "mqtt"
    assert isinstance(refused, Refuse)
    assert refused.status == 400
