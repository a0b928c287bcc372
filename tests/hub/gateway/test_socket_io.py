"""Watching by Socket.IO, over real sockets with Python's client: acks, gapless resume, slow clients, rights, ends."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import socketio
from websockets.asyncio.client import connect

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel, ValueType
from hub.app import Hub
from hub.config import Config
from hub.gateway.http import make_app
from hub.gateway.socket_io import MAX_QUEUED, MAX_STRANGERS, STRANGER_S, UPGRADE_S, SocketIo
from hub.gateway.socket_io_link import HIGH_WATER_BYTES, NAMESPACE
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import make_protocol
from hub.model import StreamKey
from hub.roles import Role
from hub.session import DeviceSession
from simulators.proxy import FaultProxy
from tests.support.gateway import serving
from tests.support.hub_process import wait_for

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]
T0 = 1_790_000_000_000_000_000
TRANSPORTS = ("websocket", "polling")
EVENTS = ("ok", "error", "welcome", "series", "data", "live", "lag", "reset", "bye")


class Rig:
    """A hub in this process with the door open; `publish` is what a device sends."""

    def __init__(self, hub: Hub, door: SocketIo, port: int) -> None:
        self.hub = hub
        self.door = door
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._sessions: dict[str, DeviceSession] = {}
        self._seq: dict[str, int] = {}

    def token(self, *patterns: str, role: Role = Role.WATCHER, namespace: str = "default") -> str:
        """Return a new token."""
        return self.hub.identities.add_token(role, patterns or ("**",), "test", namespace=namespace)[1]

    def publish(self, values: "list[float]", device: str = "d") -> None:
        """Send readings as the device, one frame; the value is the time too."""
        session = self._sessions.get(device) or self._connect(device)
        seq = self._seq[device] = self._seq[device] + 1
        dts = [int(v) for v in values]
        body = encode_json(Batch(seq, len(values), T0, 1, (Column("x", dts, values),)))
        session.receive(body, True, time.time_ns())
        frames, session.frames = session.frames, []
        self.hub.submit(frames)

    def _connect(self, device: str) -> DeviceSession:
        session = DeviceSession("default", device, self.hub.streams, self.hub.registry)
        stream = "9f3a0000000000aa"
        ((acked, chain),) = self.hub.streams.stored([StreamKey("default", device, stream)])
        session.receive(wire.encode(wire.Hello(device, stream, "boot", "run", acked, acked + 1, chain.hex())), True, T0)
        session.receive(wire.encode(wire.Schema((Channel("x", "Cel", ValueType.FLOAT),))), True, T0)
        self._seq[device] = acked
        self._sessions[device] = session
        return session


@asynccontextmanager
async def rig(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    """Serve a hub in this loop."""
    async with Hub(Config(data=folder / "data", socketio=True)) as hub:
        door = SocketIo(hub, Sweep(3600), **options)
        ws = make_protocol(door.over(hub.upgrade), goodbye=hub.goodbye)
        async with serving(make_app(hub, socket_io=door), ws=ws) as port:
            yield Rig(hub, door, port)


class Client:
    """Python's client with one subscription, which it begins anew from its cursor at each connect."""

    def __init__(self, token: str | None, transport: str = "websocket", *, reconnects: bool = False) -> None:
        # Ours, as the library leaves its own unclosed when it is refused or reconnects.
        self.http = aiohttp.ClientSession()
        self.io = socketio.AsyncClient(
            reconnection=reconnects, reconnection_delay=0.05, reconnection_delay_max=0.1, http_session=self.http
        )
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.values: list[float] = []
        self.cursor: str | None = None
        self.ends: list[str] = []
        self._token = token
        self._transport = transport
        for name in EVENTS:
            self.io.on(name, self._hear(name), namespace=NAMESPACE)
        self.io.on("disconnect", self.ends.append, namespace=NAMESPACE)

    async def connect(self, rig: Rig, *, url: str = "", **more: Any) -> "Client":
        """Come in."""
        auth = None if self._token is None else {"token": self._token}
        await self.io.connect(
            url or rig.url, namespaces=[NAMESPACE], auth=auth, transports=[self._transport], wait_timeout=10, **more
        )
        return self

    async def leave(self) -> None:
        """Say goodbye, if it is open, and let go."""
        await self.io.disconnect()
        await self.http.close()

    async def call(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the ack of an event."""
        answer: dict[str, Any] = await self.io.call(event, fields, namespace=NAMESPACE, timeout=20)
        return answer

    async def watch(self, **fields: object) -> dict[str, Any]:
        """Subscribe from the cursor, or as said."""
        since = {} if self.cursor is None else {"since": self.cursor}
        return await self.call("sub", **{"sub": "s1", "match": ["**"], **since, **fields})

    def ops(self) -> list[str]:
        """Return the events heard."""
        return [name for name, _ in self.told]

    def _hear(self, name: str) -> Callable[[dict[str, Any]], None]:
        def heard(message: dict[str, Any]) -> None:
            self.told.append((name, message))
            if name == "data":
                self.values += [row[2] for row in message["u"]]
            if name in ("data", "live"):
                self.cursor = message["o"]

        return heard


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_event_is_the_op_and_its_ack_the_answer(tmp_path: Path, transport: str) -> None:
    """sub answers by ack, before its events; series, live and data follow as events of these names."""
    async with rig(tmp_path) as hub:
        client = await Client(hub.token(), transport).connect(hub)
        welcome = await client.call("hello")
        answer = await client.watch()
        await wait_for(lambda: "live" in client.ops())
        hub.publish([1.5, 2.5])
        await wait_for(lambda: client.values)

        assert (welcome["op"], welcome["namespace"]) == ("welcome", "default")
        assert (answer["op"], answer["granted"], answer["recovered"]) == ("ok", ["**"], False)
        assert client.ops() == ["live", "series", "data"]
        assert client.told[1][1]["s"]["1"]["unit"] == "Cel"
        assert client.values == [1.5, 2.5]
        assert (await client.watch())["reason"] == "conflict"
        assert (await client.call("unsub", sub="s1"))["op"] == "ok"
        assert (await client.call("join", room="x"))["reason"] == "bad_request"
        await client.leave()


async def test_answer_without_an_ack_is_an_event(tmp_path: Path) -> None:
    """Who asks for no ack still learns what became of it."""
    async with rig(tmp_path) as hub:
        client = await Client(hub.token()).connect(hub)
        await client.io.emit("sub", {"sub": "s1", "match": ["**"]}, namespace=NAMESPACE)
        await client.io.emit("unsub", {"sub": "s2"}, namespace=NAMESPACE)
        await wait_for(lambda: len(client.told) == 3)

        assert sorted(client.ops()) == ["error", "live", "ok"]
        assert dict(client.told)["error"] == {
            "sub": "s2", "op": "error", "reason": "not_found", "message": "no subscription 's2' on this connection",
        }  # fmt: skip
        await client.leave()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_random_cuts_lose_and_double_nothing(tmp_path: Path, transport: str) -> None:
    """A client that is cut off at random and comes back with its cursor gets each reading once, in order."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    count, cuts = 20_000, 12
    async with rig(tmp_path) as hub:
        token = hub.token()
        client = Client(token, transport)

        async def publish() -> None:
            for first in range(0, count, 50):
                hub.publish([float(v) for v in range(first, first + 50)])
                await asyncio.sleep(0.005)

        hub.publish([-1.0])
        client = await client.connect(hub)
        await client.watch()
        publishing = asyncio.create_task(publish())
        for _ in range(cuts):
            await asyncio.sleep(rng.random() * 0.3)
            before = client
            await cut(before)
            client = Client(token, transport)
            client.values, client.cursor = before.values, before.cursor
            await client.connect(hub)
            answer = await client.watch()
            assert answer["recovered"] is True, f"seed {seed}"
        await publishing
        await wait_for(lambda: len(client.values) >= count, 30, f"{len(client.values)} of {count}, seed {seed}")

        assert [v for v in client.values if v >= 0] == [float(v) for v in range(count)], f"seed {seed}"
        await client.leave()


async def cut(client: Client) -> None:
    """End a client without a word, as a network does."""
    for name in ("data", "live"):
        client.io.on(name, lambda _: None, namespace=NAMESPACE)
    if client.io.eio.ws is not None:
        client.io.eio.ws._response.connection.transport.abort()
    else:
        await client.http.close()
    await wait_for(lambda: client.ends)
    await client.http.close()


async def test_stalled_client_costs_a_cursor(tmp_path: Path) -> None:
    """5 MB are due to a client that does not read: what is held is bounded; then it gets all, in order."""
    per_frame, frames = 1000, 200
    async with rig(tmp_path) as hub:
        async with connect(
            f"ws://127.0.0.1:{hub.port}/socket.io/?EIO=4&transport=websocket", max_queue=1, max_size=None
        ) as raw:
            await raw.recv()
            await raw.send(f'40{NAMESPACE},{{"token":"{hub.token()}"}}')
            await raw.recv()
            await raw.send(f'42{NAMESPACE},0["sub",{{"sub":"s1","match":["**"]}}]')
            assert '"op":"ok"' in str(await raw.recv())
            assert '"live"' in str(await raw.recv())
            (link,) = hub.door._server.links.values()
            (client,) = hub.door._server.eio.sockets.values()
            most = 0
            for k in range(frames):
                hub.publish([k * per_frame + v + 0.123456 for v in range(per_frame)])
                if k % 20 == 0:
                    await asyncio.sleep(0.01)
                most = max(most, link.buffered_bytes + sum(len(str(p.data)) for p in client.queue._queue))
            await wait_for(lambda: hub.hub.journal.head >= frames)
            assert hub.hub.live.statistics().behind == 1
            assert most < 2 * (HIGH_WATER_BYTES + 128 * 1024)

            found: list[int] = []
            while len(found) < frames * per_frame:
                text = str(await asyncio.wait_for(raw.recv(), 20))
                if text == "2":
                    await raw.send("3")
                elif text.startswith(f'42{NAMESPACE},["data"'):
                    found += [int(row[2]) for row in json.loads(text[3 + len(NAMESPACE) :])[1]["u"]]

        assert found == list(range(frames * per_frame))


async def test_wrong_token_is_refused_with_the_reason(tmp_path: Path) -> None:
    """connect_error says unauthenticated, or forbidden for a device's token; the log of changes has the first."""
    async with rig(tmp_path) as hub:
        device = hub.hub.identities.add_device("d")
        for token, reason in (("t1.wrong", "unauthenticated"), (device, "forbidden")):
            client = Client(token)
            refusals: list[Any] = []
            client.io.on("connect_error", refusals.append, namespace=NAMESPACE)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await client.connect(hub)
            assert [r["data"] for r in refusals] == [{"reason": reason}]
            await client.http.close()
        await asyncio.to_thread(hub.hub.change_log.flush)
        (entry, *_) = hub.hub.change_log.entries("default", 1)

        assert (entry.what, entry.outcome) == ("connect /socket.io", "unauthenticated")


async def test_rights_are_those_of_the_token(tmp_path: Path) -> None:
    """Only granted series are sent, by auth payload as by header; another namespace sees nothing."""
    async with rig(tmp_path) as hub:
        hub.publish([0.0], "d")
        hub.publish([0.0], "secret")
        by_auth = await Client(hub.token("d/**")).connect(hub)
        by_header = await Client(None).connect(hub, headers={"Authorization": f"Bearer {hub.token('d/**')}"})
        other = await Client(hub.token(namespace="north")).connect(hub)
        answers = [await c.watch(match=["d", "secret"]) for c in (by_auth, by_header)]
        await other.watch()
        hub.publish([2.0], "secret")
        hub.publish([1.0], "d")
        await wait_for(lambda: by_auth.values and by_header.values)

        assert [(a["granted"], a["denied"]) for a in answers] == [(["d"], ["secret"])] * 2
        assert (by_auth.values, by_header.values, other.values) == ([1.0], [1.0], [])
        assert (await by_auth.watch(sub="s2", match=["secret"]))["reason"] == "forbidden"
        for client in (by_auth, by_header, other):
            await client.leave()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_revoked_token_ends_for_good(tmp_path: Path, transport: str) -> None:
    """bye 4401, then the namespace is disconnected, after which a client does not come back by itself."""
    async with rig(tmp_path) as hub:
        id_, token = hub.hub.identities.add_token(Role.WATCHER, ("**",), "test")
        client = await Client(token, transport, reconnects=True).connect(hub)
        await client.watch()

        hub.hub.identities.remove_token(id_)
        await wait_for(lambda: client.ends)
        await asyncio.sleep(0.3)

        assert client.told[-1][0] == "bye"
        assert (client.told[-1][1]["code"], client.told[-1][1]["reason"]) == (4401, "this credential was revoked")
        assert not client.io.connected
        await client.http.close()
        assert hub.hub.live.statistics().watchers == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_client_that_is_told_to_come_back_does(tmp_path: Path, transport: str) -> None:
    """A close that is no fault of the client ends the transport: it comes back by itself, with its cursor."""
    async with rig(tmp_path) as hub:
        client = await Client(hub.token(), transport, reconnects=True).connect(hub)
        await client.watch()
        await wait_for(lambda: client.cursor)
        (link,) = hub.door._server.links.values()

        link.end(4100, "the hub failed; its log says why")
        await wait_for(lambda: len(client.ends) == 1 and client.io.connected and client.io.namespaces)
        hub.publish([1.0])
        assert (await client.watch())["recovered"] is True
        await wait_for(lambda: client.values)

        assert client.values == [1.0]
        await client.leave()


@pytest.mark.parametrize(
    ("packets", "code"),
    [
        ([f'42{NAMESPACE},["sub"]'] * 250, 4029),
        ([f'42{NAMESPACE},["sub",[1]]'], 4400),
        ([f'42{NAMESPACE},[7]'], 4400),
        ([f'42{NAMESPACE},["sub",{{"max_hz":{10**30}}}]'], 4400),
        ([f'42{NAMESPACE},["sub",{{"sub":"{"x" * 40_000}"}}]'], 4413),
    ],
    ids=["flood", "no object", "no event", "huge number", "too large"],
)  # fmt: skip
async def test_what_breaks_the_rules_ends_the_connection(tmp_path: Path, packets: list[str], code: int) -> None:
    """The limits of watch.v1 hold, and bye names the code."""
    async with rig(tmp_path) as hub, raw_client(hub) as raw:
        for packet in packets:
            await raw.send(packet)
        text = ""
        async with asyncio.timeout(10):
            while '["bye"' not in text:
                text = str(await raw.recv())

        assert json.loads(text[3 + len(NAMESPACE) :])[1]["code"] == code


@pytest.mark.parametrize(
    "packet", ["x", "", "0{}", "9", "²", "b!", "4" + "[" * 5000, "2" + "[" * 5000, "4" * 70_000],
    ids=["letter", "empty", "open", "nine", "power", "base64", "deep", "deep ping", "long"],
)  # fmt: skip
async def test_what_is_no_packet_ends_the_connection(
    tmp_path: Path, packet: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, with all that belongs to it, and without a traceback for each who sends it."""
    async with rig(tmp_path) as hub, raw_client(hub) as raw:
        await raw.send(packet)
        await asyncio.wait_for(raw.wait_closed(), 5)
        await wait_for(lambda: not hub.door._server.eio.sockets and not hub.door._server.links)

        assert raw.close_code == 4400
        assert "Traceback" not in caplog.text


async def test_garbage_is_ignored_and_attachments_are_not_collected(tmp_path: Path) -> None:
    """What is no packet of ours changes nothing: no memory, no end, no line in the log."""
    async with rig(tmp_path) as hub, raw_client(hub) as raw:
        for packet in (
            f'451-{NAMESPACE},["sub",{{"_placeholder":true,"num":0}}]',
            "4",
            "49",
            "42{",
            "4x",
            f"40{NAMESPACE}",
        ):
            await raw.send(packet)
        await raw.send(f'42{NAMESPACE},7["hello"]')
        text = ""
        async with asyncio.timeout(10):
            while not text.startswith(f"43{NAMESPACE},7["):
                text = str(await raw.recv())

        assert hub.door._server._binary_packet == {}
        assert len(hub.door._server.links) == 1


async def test_strangers_are_few_and_short(tmp_path: Path) -> None:
    """Who does not say in time that it comes to watch is ended; beyond a number of them, the next waits outside."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        client = await Client(hub.token()).connect(hub)
        answers = [await http.get("/socket.io/?EIO=4&transport=polling") for _ in range(MAX_STRANGERS + 1)]
        assert [a.status_code for a in answers] == [200] * MAX_STRANGERS + [503]
        async with connect(f"ws://127.0.0.1:{hub.port}/v1/watch", subprotocols=["watch.v1"]):  # type: ignore[list-item]
            pass  # other doors are open

        for _ in range(STRANGER_S + 1):
            hub.door.sweep()
        await wait_for(lambda: len(hub.door._server.eio.sockets) == 1)

        assert (await http.get("/socket.io/?EIO=4&transport=polling")).status_code == 200
        assert (await client.call("hello"))["op"] == "welcome"
        await client.leave()


async def test_session_has_one_websocket_and_it_ends_with_it(tmp_path: Path) -> None:
    """A session that began by polling opens one WebSocket to upgrade; without a session there is none."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        opened = await http.get("/socket.io/?EIO=4&transport=polling")
        sid = json.loads(opened.text[1:])["sid"]
        url = f"ws://127.0.0.1:{hub.port}/socket.io/?EIO=4&transport=websocket&sid="
        async with connect(url + sid) as upgrading:
            for wrong in (sid, "unknown"):
                with pytest.raises(Exception, match="400"):
                    await connect(url + wrong)
            for _ in range(STRANGER_S + 1):
                hub.door.sweep()
            await wait_for(lambda: not hub.door._server.eio.sockets)
            hub.door.sweep()
            await asyncio.wait_for(upgrading.wait_closed(), 5)
        hub.door.sweep()

        assert hub.door._upgrades == {}


async def test_session_goes_on_by_polling_until_its_websocket_speaks(tmp_path: Path) -> None:
    """A WebSocket whose frames never come, or never come back, holds nothing back, and is closed after a while."""
    async with rig(tmp_path) as hub, poller(hub) as client:
        url = f"ws://127.0.0.1:{hub.port}/socket.io/?EIO=4&transport=websocket&sid={client.sid}"
        async with connect(url) as silent:
            hub.publish([1.0])
            assert await client.values() == [1.0]
            await silent.send("2probe")
            assert await silent.recv() == "3probe"
            assert await client.poll() == ["6"]
            for _ in range(UPGRADE_S + 1):
                hub.door.sweep()
            await asyncio.wait_for(silent.wait_closed(), 5)
        hub.publish([2.0])
        assert await client.values() == [2.0]
        hub.door.sweep()
        async with connect(url) as upgrading:
            await upgrading.send("2probe")
            assert await upgrading.recv() == "3probe"
            await client.poll()
            await upgrading.send("5")
            hub.publish([3.0])
            text = ""
            async with asyncio.timeout(5):
                while '["data"' not in text:
                    text = str(await upgrading.recv())
            for _ in range(UPGRADE_S + 1):
                hub.door.sweep()
            await upgrading.send(f'42{NAMESPACE},9["hello"]')
            async with asyncio.timeout(5):
                while not text.startswith(f"43{NAMESPACE},9["):
                    text = str(await upgrading.recv())


async def test_lost_answer_to_a_poll_ends_the_session(tmp_path: Path) -> None:
    """What it held would be missing: who hung up, asks the same again, or asks beside an open question begins anew."""
    async with rig(tmp_path) as hub:
        async with poller(hub) as client:
            asking = asyncio.create_task(client.get("1"))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await wait_for(lambda: not hub.door._server.links)
            assert (await client.get("2")).status_code == 400
        async with poller(hub) as client:
            hub.publish([1.0])
            assert "series" in (await client.get("1")).text
            assert (await client.get("1")).status_code == 400
            assert hub.door._server.links == {}
        async with poller(hub) as client:
            asking = asyncio.create_task(client.get("1"))
            await asyncio.sleep(0.05)
            assert (await client.get("2")).status_code == 400
            assert (await asking).status_code == 200
            assert (await client.get("3")).status_code == 400


async def test_polls_that_are_cut_while_they_wait_lose_nothing(tmp_path: Path) -> None:
    """Python's HTTP client sends a question again by itself when its kept connection breaks."""
    async with rig(tmp_path) as hub, FaultProxy(("127.0.0.1", hub.port)) as proxy:
        client = await Client(hub.token(), "polling", reconnects=True).connect(
            hub, url=f"http://127.0.0.1:{proxy.port}"
        )
        await client.watch()
        await wait_for(lambda: "live" in client.ops())
        for n in range(5):
            ends = len(client.ends)
            await asyncio.sleep(0.05)
            proxy.abort()
            await asyncio.sleep(0.05)
            hub.publish([2.0 * n])
            await asyncio.sleep(0.1)
            hub.publish([2.0 * n + 1])
            await wait_for(lambda n=n, ends=ends: 2.0 * n + 1 in client.values or len(client.ends) > ends)
            if len(client.ends) > ends:
                await wait_for(lambda: client.io.connected and client.io.namespaces)
                await client.watch()
            await wait_for(lambda n=n: 2.0 * n + 1 in client.values)

        assert client.values == [float(n) for n in range(10)]
        await client.leave()


async def test_client_that_never_polls_is_held_within_bounds(tmp_path: Path) -> None:
    """The library answers whatever is posted; who does not fetch it is ended, stranger or not."""
    async with rig(tmp_path) as hub, poller(hub) as client:
        queue = hub.door._server.eio.sockets[client.sid].queue
        for _ in range(20):
            await client.post(*["40/x"] * 16)
            await client.post(*["5"] * 16)
            await client.post(f"40/{'x' * 60_000}")
        assert queue.qsize() <= MAX_QUEUED
        assert sum(len(str(packet.data)) for packet in queue._queue if packet is not None) < MAX_QUEUED * 200
        hub.door.sweep()
        await wait_for(lambda: not hub.door._server.eio.sockets)


async def test_hub_that_stops_waits_for_nobody_who_is_about_to_begin(tmp_path: Path) -> None:
    """Their open polls end, and nobody else begins; who watches is told by the live core."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http, poller(hub):
        client = Poller(http)
        await client.open()
        asking = asyncio.create_task(client.get("1"))
        await asyncio.sleep(0.05)
        hub.door.stop()
        await asyncio.wait_for(asking, 5)

        assert (await http.get("/socket.io/?EIO=4&transport=polling")).status_code == 503
        assert list(hub.door._server.eio.sockets) == list(hub.door._server.links)


async def test_session_that_said_goodbye_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither what it says behind its goodbye, nor a place among those who are about to begin."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        client = Poller(http)
        for number in range(MAX_STRANGERS + 10):
            client = Poller(http)
            await client.open()
            assert (await client.post("1", f"40{NAMESPACE},{{}}")).status_code == 200, number
        assert (await client.post("1")).status_code == 400
        async with raw_client(hub) as raw:
            await raw.send("1")
            await raw.send(f"40{NAMESPACE},{{}}")
            await raw.send(f'42{NAMESPACE},["hello"]')
        hub.door.sweep()
        await wait_for(lambda: not hub.door._server.eio.sockets)

        assert hub.door._server.manager.rooms == {}
        assert hub.door._server.manager.pending_connect == {}
        assert hub.door._server.links == {}
        assert "Traceback" not in caplog.text


async def test_token_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Whatever JSON can say; nothing of such a client stays."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        for auth in ('{"token":"t1.\\ud800"}', '{"token":{"a":[1]}}', '{"token":7}', '["x"]', '"x"'):
            client = Poller(http)
            await client.open(headers={"Authorization": "Bearer wrong"})
            await client.post(f"40{NAMESPACE},{auth}")
            assert await client.poll() == [
                f'44{NAMESPACE},{{"message":"send auth: {{token}} of a watcher, or Authorization: Bearer with it",'
                '"data":{"reason":"unauthenticated"}}'
            ], auth
        assert hub.door._server.manager.rooms == {}


async def test_head_of_an_upgrade_by_http_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two `Connection` lines are an upgrade for the library and none for the hub."""
    async with rig(tmp_path) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        head = "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nConnection: close\r\n\r\n"
        writer.write(f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{head}".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()

        assert answer.split()[1] == b"400"
        assert "Traceback" not in caplog.text
        assert hub.door._server.eio.sockets == {}


async def test_answers_are_no_scripts(tmp_path: Path) -> None:
    """A page of any origin could include them, and read the session's id."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        assert (await http.get("/socket.io/?EIO=4&transport=polling&j=0")).status_code == 400


async def test_default_namespace_is_empty(tmp_path: Path) -> None:
    """Programs that know no other come to it first; nothing is there, and nothing else changes."""
    async with rig(tmp_path) as hub, raw_client(hub) as raw:
        await raw.send("40")
        assert str(await raw.recv()).startswith('40{"sid":')
        await raw.send('421["sub",{"sub":"s1","match":["**"]}]')
        await raw.send(f'42{NAMESPACE},7["hello"]')
        assert str(await raw.recv()).startswith(f"43{NAMESPACE},7[")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_namespace_may_be_left_and_come_back_to(tmp_path: Path, transport: str) -> None:
    """With the cursor from before."""
    async with rig(tmp_path) as hub:
        client = await Client(hub.token(), transport).connect(hub)
        for n in range(3):
            assert (await client.watch())["recovered"] is (n > 0)
            hub.publish([float(n)])
            await wait_for(lambda n=n: len(client.values) > n)
            await client.io.disconnect()
            await wait_for(lambda: not hub.door._server.links)
            await client.connect(hub)
        assert client.values == [0.0, 1.0, 2.0]
        await client.leave()


async def test_body_that_does_not_come_is_408(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that sends a head and no body gets an answer, and the log no traceback."""
    async with rig(tmp_path, body_s=0.1) as hub:
        client = await Client(hub.token(), "polling").connect(hub)
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        path = f"/socket.io/?EIO=4&transport=polling&sid={client.io.eio.sid}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()

        assert answer.split()[1] == b"408"
        assert "Traceback" not in caplog.text
        await client.leave()


async def test_page_of_another_origin_is_refused(tmp_path: Path) -> None:
    """A page cannot use the cookie or the loopback access of whoever looks at it, by polling as by WebSocket."""
    async with rig(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as http:
        answer = await http.get("/socket.io/?EIO=4&transport=polling", headers={"Origin": "http://evil.example"})
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "forbidden")
        with pytest.raises(Exception, match="403"):
            await connect(
                f"ws://127.0.0.1:{hub.port}/socket.io/?EIO=4&transport=websocket",
                origin="http://evil.example",  # type: ignore[arg-type]
            )
        own = await http.get("/socket.io/?EIO=4&transport=polling", headers={"Origin": hub.url})
        assert own.status_code == 200


async def test_nothing_is_left_of_clients_that_went(tmp_path: Path) -> None:
    """After the last client the hub has no watcher, room, link or task of theirs."""
    async with rig(tmp_path) as hub:
        for transport in TRANSPORTS:
            client = await Client(hub.token(), transport).connect(hub)
            await client.watch()
            await cut(client) if transport == "websocket" else await client.leave()
        await wait_for(lambda: not hub.door._server.links)

        statistics = hub.hub.live.statistics()
        assert (statistics.watchers, statistics.rooms) == (0, 0)
        await wait_for(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("socket.io")])


@asynccontextmanager
async def raw_client(rig: Rig) -> AsyncIterator[Any]:
    """Give a WebSocket that has connected to the namespace."""
    async with connect(f"ws://127.0.0.1:{rig.port}/socket.io/?EIO=4&transport=websocket", max_size=None) as raw:
        await raw.recv()
        await raw.send(f'40{NAMESPACE},{{"token":"{rig.token()}"}}')
        await raw.recv()
        yield raw


class Poller:
    """A client by long poll, one request at a time as the test says."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.sid = ""
        self._http = http
        self._count = 0

    async def open(self, **more: Any) -> None:
        """Begin a session."""
        answer = await self._http.get("/socket.io/?EIO=4&transport=polling", **more)
        self.sid = json.loads(answer.text[1:])["sid"]

    async def post(self, *packets: str) -> httpx.Response:
        """Say something."""
        return await self._http.post(
            f"/socket.io/?EIO=4&transport=polling&sid={self.sid}", content="\x1e".join(packets).encode()
        )

    async def get(self, mark: str) -> httpx.Response:
        """Ask; ``mark`` makes each question another one, as clients do."""
        return await self._http.get(f"/socket.io/?EIO=4&transport=polling&t={mark}&sid={self.sid}", timeout=20)

    async def poll(self) -> list[str]:
        """Return the next packets."""
        self._count += 1
        return (await self.get(f"p{self._count}")).text.split("\x1e")

    async def values(self) -> list[float]:
        """Return what the next packets with readings hold."""
        found: list[float] = []
        async with asyncio.timeout(5):
            while not found:
                for packet in await self.poll():
                    if packet.startswith(f'42{NAMESPACE},["data"'):
                        found += [row[2] for row in json.loads(packet[3 + len(NAMESPACE) :])[1]["u"]]
        return found


@asynccontextmanager
async def poller(rig: Rig) -> AsyncIterator[Poller]:
    """Give a client by long poll that watches everything and is live."""
    async with httpx.AsyncClient(base_url=rig.url) as http:
        client = Poller(http)
        await client.open()
        await client.post(f'40{NAMESPACE},{{"token":"{rig.token()}"}}')
        await client.post(f'42{NAMESPACE},0["sub",{{"sub":"s1","match":["**"]}}]')
        heard = ""
        async with asyncio.timeout(5):
            while '["live"' not in heard:
                heard = "".join(await client.poll())
        yield client
