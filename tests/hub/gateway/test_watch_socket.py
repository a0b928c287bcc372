"""A watcher's WebSocket: pages, pauses, ends, and the whole way over real sockets with cuts at random."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from device_sdk import Client, WatchedReading
from device_sdk.client import Watch
from device_sdk.reading import ValueType
from hub.gateway.watch_socket import WatchSocket
from hub.gateway.websocket import HIGH_WATER_BYTES, Accept, Refuse, UpgradeRequest, make_protocol
from hub.hooks.answer import Reject
from hub.hooks.grant import Grants
from hub.live.budget import BUDGET_BYTES, MOST_BYTES
from hub.live.rooms import Live
from hub.model import Frame
from hub.roles import Identity, Role, scopes_of
from tests.support.fake_connection import FakeConnection
from tests.support.gateway import serving
from tests.support.hook_calls import ask_now
from tests.support.live_world import NOW_NS, StoreInStep, World, decode
from tests.support.memory_journal import MemoryJournal

IDENTITY = Identity("t1", "tester", Role.WATCHER, scopes=scopes_of(Role.WATCHER))


class Peer:
    """A `WatchSocket` on a fake connection, with its messages as they come."""

    def __init__(
        self, world: World, identity: Identity = IDENTITY, known: Mapping[str, Identity] | None = None
    ) -> None:
        self.connection = FakeConnection()
        self.messages: list[dict[str, Any]] = []
        authenticate = () if known is None else (known.__getitem__,)
        self.socket = WatchSocket(world.live, world.store, StoreInStep(), identity, None, *authenticate)
        self.socket.opened(self.connection)

    def say(self, **message: object) -> None:
        """Send a message."""
        self.socket.message(json.dumps(message).encode(), True)

    async def until(self, is_met: Callable[[], bool]) -> None:
        """Let the loop run until the condition holds."""
        async with asyncio.timeout(10):
            while True:
                self.messages += self.connection.take()
                if is_met():
                    return
                await asyncio.sleep(0)

    def ops(self) -> list[str]:
        """Return the ops received."""
        return [m["op"] for m in self.messages]


def make_world(ring_bytes: int = 1 << 24, unsent_bytes: int = BUDGET_BYTES) -> World:
    """Return a hub on the running loop with one series."""
    world = World(ring_bytes=ring_bytes, unsent_bytes=unsent_bytes, loop=asyncio.get_running_loop())
    world.add("d", "x")
    return world


def publish(world: World, first: int, last: int, *, per_frame: int = 1) -> None:
    """Publish readings first … last, the number as value and as ns."""
    for begin in range(first, last + 1, per_frame):
        end = min(begin + per_frame, last + 1)
        world.publish(world.frame({1: [(NOW_NS + k, float(k)) for k in range(begin, end)]}))


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    """Return the values of all data messages."""
    return [int(v) for m in messages if m["op"] == "data" for _, _, v in m["u"]]


@pytest.mark.asyncio
async def test_catch_up_from_the_journal_then_live() -> None:
    """An old cursor is served from the journal, page by page, and then live, without a task left over."""
    world = make_world(ring_bytes=2_000)
    publish(world, 1, 3000)
    peer = Peer(world)

    peer.say(op="sub", sub="s1", match=["**"], since="00000001.0")
    await peer.until(lambda: "live" in peer.ops())
    publish(world, 3001, 3001)
    await peer.until(lambda: len(numbers(peer.messages)) == 3001)

    assert numbers(peer.messages) == list(range(1, 3002))
    assert world.journal.reads > 1
    await peer.until(lambda: all(not t.get_name().startswith("watch") for t in asyncio.all_tasks()))
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
async def test_full_connection_waits_for_writable() -> None:
    """Nothing beyond the high water mark and one page is written to a stalled client; `writable` goes on."""
    world = make_world()
    publish(world, 1, 60_000, per_frame=100)
    peer = Peer(world)
    peer.say(op="sub", sub="s1", match=["**"])
    await peer.until(lambda: "live" in peer.ops())
    peer.connection.is_stalled = True

    peer.say(op="sub", sub="s2", match=["**"], since="00000001.0")
    await peer.until(lambda: peer.connection.buffered_bytes > HIGH_WATER_BYTES)
    for _ in range(100):
        await asyncio.sleep(0)
    assert peer.connection.peak_bytes < HIGH_WATER_BYTES + 128 * 1024
    peer.connection.drain()
    peer.socket.writable()
    await peer.until(lambda: peer.ops().count("live") == 2)

    assert numbers(peer.messages) == list(range(1, 60_001))
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
async def test_auth_makes_the_new_credential_the_one_that_counts() -> None:
    """From then on the end of the old token is nothing to the connection, that of the new one closes it."""
    world = make_world()
    new = Identity("t2", "renewed", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
    peer = Peer(world, known={"t2.secret": new})
    peer.say(op="sub", sub="s1", match=["**"])
    await peer.until(lambda: "live" in peer.ops())

    peer.say(id=5, op="auth", token="t2.secret")
    world.live.end_identities({"t1"})
    after_old = peer.connection.closed_with
    publish(world, 1, 1)
    await peer.until(lambda: numbers(peer.messages) == [1])
    world.live.end_identities({"t2"})

    assert after_old is None
    assert peer.socket.origin.identity is new
    assert peer.connection.closed_with == (4401, "this credential was revoked")
    assert peer.ops() == ["ok", "series", "live", "ok", "data"]
    peer.socket.closed(4401, "")


@pytest.mark.asyncio
async def test_auth_says_when_the_new_credential_ends() -> None:
    """As `welcome` did of the first, which has no end here."""
    ends_ns = time.time_ns() + 60 * 10**9
    new = Identity("t2", "renewed", Role.WATCHER, scopes=scopes_of(Role.WATCHER), ends_ns=ends_ns)
    peer = Peer(make_world(), known={"t2.secret": new})

    peer.say(op="hello")
    peer.say(id=5, op="auth", token="t2.secret")
    peer.say(op="hello")
    await peer.until(lambda: len(peer.messages) == 3)

    first, answer, second = peer.messages
    assert (first["credential"], first["ttl"]) == ("t1", None)
    assert 59 < answer["ttl"] <= 60
    assert second["credential"] == "t2"
    assert 59 < second["ttl"] <= answer["ttl"]
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (Identity("t3", "", Role.WATCHER, "north", scopes_of(Role.WATCHER)), "forbidden"),
        (Identity("t4", "", Role.DEVICE, scopes=scopes_of(Role.DEVICE)), "forbidden"),
        (None, "unauthenticated"),
    ],
    ids=["another namespace", "may not read", "no tokens here"],
)
async def test_auth_that_is_refused_keeps_the_credential(identity: Identity | None, reason: str) -> None:
    """A token of another namespace, or of a device, is no way to other readings; the connection stays as it was."""
    world = make_world()
    peer = Peer(world, known=None if identity is None else {"token": identity})

    peer.say(id=5, op="auth", token="token")
    await peer.until(lambda: peer.ops() == ["error"])

    assert (peer.messages[0]["id"], peer.messages[0]["reason"]) == (5, reason)
    assert peer.socket.identity_id == "t1"
    assert peer.connection.closed_with is None
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
async def test_closed_connection_leaves_rooms_and_sweep() -> None:
    """After the end nothing of the watcher is left, also in the middle of a catch-up."""
    world = make_world(ring_bytes=2_000)
    publish(world, 1, 1000)
    peer = Peer(world)
    peer.say(op="sub", sub="s1", match=["**"], since="00000001.0")
    await asyncio.sleep(0)

    peer.socket.closed(1006, "")
    await asyncio.sleep(0)

    statistics = world.live.statistics()
    assert (statistics.watchers, statistics.rooms) == (0, 0)


@pytest.mark.asyncio
async def test_end_says_bye_with_the_time_to_come_back() -> None:
    """The hub's stop is a bye with retry_ms, then 4000; a revoked credential is 4401 without one."""
    world = make_world()
    peer, revoked = Peer(world), Peer(world, Identity("t2", "other", Role.WATCHER, scopes=scopes_of(Role.WATCHER)))

    world.live.end_identities({"t2"})
    world.live.stop()

    assert peer.connection.take() == [{"op": "bye", "retry_ms": 0}]
    assert peer.connection.closed_with == (4000, "the hub stops")
    assert revoked.connection.closed_with == (4401, "this credential was revoked")


class BrokenJournal(MemoryJournal):
    """A journal whose disk fails."""

    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        """Fail."""
        raise OSError("disk gone")


@pytest.mark.asyncio
async def test_failed_read_closes_with_internal(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error ends this connection with 4100 and a traceback in the log; the client comes back."""
    world = make_world(ring_bytes=500)
    publish(world, 1, 10)
    broken = BrokenJournal()
    broken.head = world.journal.head
    live = Live(broken, world.series.values(), asyncio.get_running_loop(), newest=world.newest)
    peer = Peer(world)
    peer.socket = WatchSocket(live, world.store, StoreInStep(), IDENTITY)
    peer.socket.opened(peer.connection)

    peer.say(op="sub", sub="s1", match=["**"], since="00000001.0")
    await peer.until(lambda: peer.connection.closed_with is not None)

    assert peer.connection.closed_with is not None
    assert peer.connection.closed_with[0] == 4100
    assert "disk gone" in caplog.text


@pytest.mark.asyncio
async def test_history_is_read_from_the_store() -> None:
    """`since` a time goes through the store, in a thread, and ends live."""
    world = make_world()
    publish(world, 1, 2500, per_frame=50)
    peer = Peer(world)

    peer.say(op="sub", sub="s1", match=["**"], since=str(NOW_NS + 1001))
    await peer.until(lambda: "live" in peer.ops())

    assert numbers(peer.messages) == list(range(1001, 2501))
    peer.socket.closed(1000, "")


class Door:
    """Upgrades every connection to a watcher of the hub of now."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, request: UpgradeRequest) -> Accept | Refuse:
        """Accept."""
        return Accept(WatchSocket(self.world.live, self.world.store, StoreInStep(), IDENTITY), "watch.v1")


async def batch_of(world: World, watch: Watch, *frames: Frame) -> list[WatchedReading]:
    """Return the first readings of a watch after it is live and frames were published."""
    batch = asyncio.create_task(watch.batch())
    while not watch.is_live:  # noqa: ASYNC110 (a watch says nothing when it becomes live)
        await asyncio.sleep(0.001)
    world.publish(*frames)
    return await batch


@pytest.mark.asyncio
async def test_client_gets_every_spike_over_a_real_socket() -> None:
    """The SDK's `watch(mode="latest", agg="minmax")`: the least and the greatest, named, the newest last."""
    world = make_world()
    frame = world.frame({1: [(NOW_NS + k, value) for k, value in enumerate([2.0, 9.0, 1.0, 3.0])]})

    async with serving(ws=make_protocol(Door(world))) as port, asyncio.timeout(10):
        watch = Client(f"http://127.0.0.1:{port}").watch("d/x", mode="latest", max_hz=50, agg="minmax")
        found = await batch_of(world, watch, frame)
        await watch.close()

    assert [(r.value, r.least, r.greatest) for r in found] == [
        (9.0, False, True), (1.0, True, False), (3.0, False, False),
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_client_gets_every_tenth_over_a_real_socket() -> None:
    """The SDK's `watch(mode="sample", every=10)`: one of ten, evenly apart."""
    world = make_world()
    frames = [replace(world.frame({1: [(NOW_NS + k, float(k))]}), seq=k) for k in range(100)]

    async with serving(ws=make_protocol(Door(world))) as port, asyncio.timeout(10):
        watch = Client(f"http://127.0.0.1:{port}").watch("d/x", mode="sample", every=10)
        found = [reading.value for reading in await batch_of(world, watch, *frames)]
        await watch.close()

    first = int(found[0])
    assert found == [float(k) for k in range(first, 100, 10)]
    assert first < 10


@pytest.mark.asyncio
async def test_client_follows_a_tag_over_a_real_socket() -> None:
    """The SDK's `watch(selector="tag:t")`: a device that gains the tag is in it, one that loses it is not."""
    world = make_world()
    world.add("e", "x")
    world.describe("d", "t")

    async with serving(ws=make_protocol(Door(world))) as port, asyncio.timeout(10):
        watch = Client(f"http://127.0.0.1:{port}").watch("*/x", selector="tag:t")
        found = await batch_of(world, watch, world.frame({1: [(NOW_NS, 1.0)]}), world.frame({2: [(NOW_NS, 2.0)]}))
        before = watch.series
        world.describe("d")
        world.describe("e", "t")
        world.publish(world.frame({1: [(NOW_NS + 1, 1.1)]}), world.frame({2: [(NOW_NS + 1, 2.1)]}))
        found += await watch.batch()
        await watch.close()

    assert [(r.device, r.value) for r in found] == [("d", 1.0), ("e", 2.1)]
    assert (before, watch.series) == ([("d", "x")], [("e", "x")])


async def watch_with_cuts(port: int, is_done: Callable[[int], bool], rng: random.Random) -> list[tuple[int, int, Any]]:
    """Watch over a real socket, cut it after a random number of messages, resume by cursor, until done."""
    cursor = "00000001.0"
    seen: list[tuple[int, int, Any]] = []
    names: dict[int, dict[str, Any]] = {}
    while not is_done(len(seen)):
        uri = f"ws://127.0.0.1:{port}/v1/watch"
        async with connect(uri, subprotocols=["watch.v1"], compression=None, max_size=None, proxy=None) as socket:  # type: ignore[list-item]
            left = rng.randrange(1, 60)
            with suppress(ConnectionClosed, TimeoutError):
                await socket.send(json.dumps({"op": "sub", "sub": "s1", "match": ["**"], "since": cursor}))
                while left and not is_done(len(seen)):
                    message = json.loads(await asyncio.wait_for(socket.recv(), 0.5))
                    left -= 1
                    if message["op"] == "series":
                        names |= {int(i): s for i, s in message["s"].items()}
                    elif message["op"] == "data":
                        seen += decode(message, names)
                    assert message["op"] not in ("reset", "error"), message
                    cursor = message.get("o", cursor)
            socket.transport.abort()
    return seen


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [1, 2])
async def test_real_sockets_cut_at_random_see_everything_once(seed: int) -> None:
    """Five watchers over real sockets, cut again and again, through a restart of the hub: 0 gaps, 0 duplicates."""
    rng = random.Random(seed)
    world = make_world(ring_bytes=50_000)
    door = Door(world)
    total = 4000

    async with serving(ws=make_protocol(door)) as port, asyncio.timeout(40):
        watchers = [
            asyncio.create_task(watch_with_cuts(port, lambda n: n >= total, random.Random(seed * 10 + k)))
            for k in range(5)
        ]
        for first in range(1, total + 1, 20):
            publish(world, first, first + 19)
            if first == total // 2 + 1:
                world.live.stop()
                world.restart("00000002")
            await asyncio.sleep(rng.choice([0, 0, 0.002]))
        found: Sequence[list[tuple[int, int, Any]]] = await asyncio.gather(*watchers)

    expected = [(1, NOW_NS + k, float(k)) for k in range(1, total + 1)]
    assert all(seen == expected for seen in found), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.asyncio
async def test_real_client_that_stops_reading_is_bounded_and_recovers() -> None:
    """A real client that reads nothing for a while holds one buffer at the hub; then it gets all of it, in order."""
    world = make_world()
    world.add("d", "text", ValueType.STR)
    total, filler = 12_000, "x" * 1000

    async with serving(ws=make_protocol(Door(world))) as port, asyncio.timeout(30):
        uri = f"ws://127.0.0.1:{port}/v1/watch"
        async with connect(uri, subprotocols=["watch.v1"], compression=None, max_queue=1, proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"op": "sub", "sub": "s1", "match": ["**"]}))
            while json.loads(await socket.recv())["op"] != "live":
                pass
            for first in range(1, total + 1, 100):
                texts = [(NOW_NS + k, f"{k} {filler}") for k in range(first, first + 100)]
                world.publish(world.frame({2: texts}))
                await asyncio.sleep(0.001)
            (watcher,) = world.live.watchers
            assert isinstance(watcher, WatchSocket)
            assert watcher.buffered_bytes < HIGH_WATER_BYTES + 512 * 1024
            assert world.live.statistics().behind == 1

            found: list[int] = []
            while len(found) < total:
                message = json.loads(await socket.recv())
                found += [int(value.split()[0]) for _, _, value in message.get("u", ())]

    assert found == list(range(1, total + 1))


@pytest.mark.asyncio
async def test_hooks_decide_each_subscription() -> None:
    """Narrowed, denied with the hook's reason, and a hook that fails opens nothing."""
    world = make_world()
    world.add("other", "x")
    answers: list[object] = [["d/**"], Reject("closed"), None]
    peer = Peer(world)
    peer.socket = WatchSocket(
        world.live, world.store, StoreInStep(), IDENTITY, Grants((lambda *_: answers.pop(0),), ask_now)
    )
    peer.socket.opened(peer.connection)

    for sub in ("a", "b", "c"):
        peer.say(id=sub, op="sub", sub=sub, match=["**"])
    await peer.until(lambda: "live" in peer.ops() and peer.ops().count("error") == 2)

    assert [(m["sub"], m["reason"]) for m in peer.messages if m["op"] == "error"] == [
        ("b", "forbidden"), ("c", "hook_failed"),
    ]  # fmt: skip
    assert [s["device"] for m in peer.messages if m["op"] == "series" for s in m["s"].values()] == ["d"]
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
async def test_question_that_fails_is_answered_and_those_behind_it_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong while hooks are asked: the subscription is refused, the conversation goes on."""
    world = make_world()
    peer = Peer(world)

    async def broken(hook: object, /, *arguments: object) -> object:
        raise RuntimeError("no thread")

    peer.socket = WatchSocket(world.live, world.store, StoreInStep(), IDENTITY, Grants((lambda *_: True,), broken))
    peer.socket.opened(peer.connection)
    peer.say(id=1, op="sub", sub="a", match=["**"])
    peer.say(id=2, op="hello")
    await peer.until(lambda: len(peer.messages) == 2)

    assert [(m["id"], m["op"], m.get("reason")) for m in peer.messages] == [
        (1, "error", "internal"), (2, "welcome", None),
    ]  # fmt: skip
    assert "no thread" in caplog.text
    peer.socket.closed(1000, "")


@pytest.mark.asyncio
async def test_connection_that_ends_while_hooks_are_asked_leaves_no_task() -> None:
    """The question is given up."""
    world = make_world()
    peer = Peer(world)

    async def never(hook: object, /, *arguments: object) -> object:
        await asyncio.Event().wait()
        raise AssertionError("never set")

    peer.socket = WatchSocket(world.live, world.store, StoreInStep(), IDENTITY, Grants((lambda *_: True,), never))
    peer.socket.opened(peer.connection)
    peer.say(id=1, op="sub", sub="a", match=["**"])
    await asyncio.sleep(0)

    peer.socket.closed(1006, "")
    await asyncio.sleep(0)

    assert [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("watch")] == []


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("budget", [2**20, 50_000], ids=["shared", "some are closed"])
async def test_real_clients_that_stop_reading_share_a_budget(budget: int) -> None:
    """Four that do not read hold less than one may alone; who is not closed (4429) gets everything when it reads."""
    world = make_world(unsent_bytes=budget)
    world.add("d", "text", ValueType.STR)
    total, filler = 6_000, "x" * 1000

    async def rest(client: ClientConnection) -> list[int]:
        found: list[int] = []
        with suppress(ConnectionClosed):
            while len(found) < total:
                message = json.loads(await client.recv())
                found += [int(value.split()[0]) for _, _, value in message.get("u", ())]
        return found

    async with serving(ws=make_protocol(Door(world))) as port, asyncio.timeout(30), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(slow_client(port)) for _ in range(4)]
        reader = await stack.enter_async_context(slow_client(port, receive_buffer=2**18))
        reading = asyncio.create_task(rest(reader))
        held = 0
        for first in range(1, total + 1, 10):
            texts = [(NOW_NS + k, f"{k} {filler}") for k in range(first, first + 10)]
            world.publish(world.frame({2: texts}))
            await asyncio.sleep(0.001)
            held = max(held, sum(watcher.buffered_bytes for watcher in world.live.watchers))
        statistics = world.live.statistics()
        found = [await rest(client) for client in clients]

    assert await reading == list(range(1, total + 1))
    assert statistics.unsent_mark < MOST_BYTES
    assert held < budget + 5 * 20_000
    assert [seen for seen in found if len(seen) == total] == [list(range(1, total + 1))] * (4 - statistics.evicted)
    assert (statistics.evicted > 0) is (budget < 2**20)


@asynccontextmanager
async def slow_client(port: int, receive_buffer: int = 4096) -> AsyncIterator[ClientConnection]:
    """Connect with a small receive buffer, subscribe, and read until it is live."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    narrow.connect(("127.0.0.1", port))
    uri = f"ws://127.0.0.1:{port}/v1/watch"
    async with connect(
        uri, sock=narrow, subprotocols=[Subprotocol("watch.v1")], compression=None, max_queue=1, proxy=None
    ) as client:
        await client.send(json.dumps({"op": "sub", "sub": "s1", "match": ["**"]}))
        while json.loads(await client.recv())["op"] != "live":
            pass
        yield client
