"""The hub as a client of a real broker: what is acknowledged, what comes again, how it finds back."""

import asyncio
import inspect
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from socket import socket as Socket
from socket import socketpair
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import aiomqtt
import pytest
from paho.mqtt.client import Client as PahoClient

from device_sdk import Device
from hub.gateway.mqtt_bridge import (
    _INFLIGHT,
    MAX_UNACKED,
    READ_AT_ONCE,
    MqttBridge,
    _Line,
    acknowledge,
    close_socket,
    heed_receive_maximum,
    inside,
    read_packet,
    take_by_hand,
)
from hub.gateway.mqtt_broker import Broker, Settings, tls_context
from hub.mqtt.clients import MAX_WAITING
from hub.mqtt.intake import LARGE_BYTES
from hub.mqtt.packet import MAX_GATEWAY_PACKET_BYTES
from hub.mqtt.relay import RECEIVE_MAXIMUM, Delivered
from tests.support.certificate import make_certificate
from tests.support.hub_parts import HubParts, hub_parts
from tests.support.hub_process import free_port, wait_for
from tests.support.mosquitto import PROGRAM, Mosquitto
from tests.support.mqtt_clients import MqttWorld

at_a_broker = [
    pytest.mark.asyncio,
    pytest.mark.end_to_end,
    pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


def _all(*marks: pytest.MarkDecorator) -> Callable[[Any], Any]:
    def marked(test: Any) -> Any:
        for mark in marks:
            test = mark(test)
        return test

    return marked


broker_test = _all(*at_a_broker)


class NoGateways:
    """Nobody decides anything meanwhile."""

    def enter(self, socket: Any, sessions: Any) -> None:
        """Nothing."""

    def leave(self, socket: Any) -> None:
        """Nothing."""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub that accepts lamps behind its bridge."""
    with hub_parts(tmp_path / "hub") as parts:
        parts.children.set_rules("mqtt-bridge", auto_accept=["lamp*"])
        yield parts


@pytest.fixture
def world(parts: HubParts) -> MqttWorld:
    """Return it with MQTT clients."""
    return MqttWorld(parts)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker for anybody."""
    with Mosquitto(tmp_path, free_port()) as broker:
        yield broker


def _bridge(world: MqttWorld, mosquitto: Mosquitto, **settings: Any) -> MqttBridge:
    given = {"broker": Broker("127.0.0.1", mosquitto.port), **settings}
    return MqttBridge(Settings(**given), world.clients, world.parts.identities, NoGateways(), "hub/v1")


@asynccontextmanager
async def _running(world: MqttWorld, bridge: MqttBridge, *, commits: bool = True) -> AsyncIterator[MqttBridge]:
    """Run a bridge over a hub that commits a hundred times a second."""

    async def commit() -> None:
        while True:
            await asyncio.sleep(0.01)
            if commits:
                world.settle()

    tasks = [asyncio.ensure_future(bridge.run()), asyncio.ensure_future(commit())]
    try:
        await wait_for(lambda: bridge.is_connected, what="the bridge")
        yield bridge
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _publish(broker: Mosquitto, *messages: tuple[str, bytes], retain: bool = False) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=1, retain=retain)


@pytest.mark.asyncio
async def test_the_private_names_that_are_used_are_there() -> None:
    """A new version of the library that has others fails here, not at a broker."""
    client = aiomqtt.Client("127.0.0.1")
    paho = inside(client)
    take_by_hand(paho)
    acknowledge(paho, 1)
    heed_receive_maximum(paho, 10)

    assert paho._manual_ack is True
    assert paho.max_inflight_messages == 10
    assert "if self._manual_ack" in inspect.getsource(type(paho)._handle_publish)
    assert "_max_inflight_messages" in inspect.getsource(type(paho)._update_inflight)
    close_socket(client)
    assert paho.socket() is None


@pytest.mark.asyncio
async def test_the_private_names_that_read_a_packet_are_there() -> None:
    """It does what the library's own loop does, for one packet: what has come of one waits for the rest."""
    for name in ("self._packet_read()", "if rc > 0:", "self._loop_rc_handle(rc)"):
        assert name in inspect.getsource(PahoClient.loop_read)
    line, taken = _line()
    assert not read_packet(inside(line._make()))  # without a socket

    with _socket_of(line) as (paho, broker):
        said = [read_packet(paho)]
        for part in (b"\x30", b"\x0d\x00\x09home", b"/lamp\x00x" + _message(b"y")):
            broker.sendall(part)
            said.append(read_packet(paho))
        assert said == [False, False, False, True]
        assert [delivered.payload for delivered in taken] == [b"x"]
        assert read_packet(paho)
        assert not line._ended.done()

        broker.close()
        assert not read_packet(paho)
        assert paho.socket() is None
        assert "lost" in line._ended.result()


def _line(settings: Settings | None = None) -> tuple[_Line, list[Delivered]]:
    """Return a connection that is not open, and what it will have taken."""
    settings = settings or Settings(Broker("b", 1883))
    line, taken = _Line(settings, tls_context(settings), "hub/v1"), list[Delivered]()
    line.relay = cast(Any, SimpleNamespace(take=lambda delivered, now_ns: taken.append(delivered), is_full=False))
    return line, taken


@contextmanager
def _socket_of(line: _Line, tls: ssl.SSLContext | None = None) -> Iterator[tuple[PahoClient, Socket]]:
    """Open it as a CONNACK leaves it; return the broker's side. ``tls``: of the broker."""
    client = line._make()
    paho = inside(client)
    ours, broker = socketpair()
    if tls is not None and line._tls is not None:
        ours = line._tls.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
        broker = tls.wrap_socket(broker, server_side=True, do_handshake_on_connect=False)
        shaking = Thread(target=broker.do_handshake)
        shaking.start()
        ours.do_handshake()
        shaking.join()
    ours.setblocking(False)
    paho._sock = ours
    with broker:
        try:
            yield paho, broker
        finally:
            close_socket(client)


def _message(payload: bytes) -> bytes:
    """Return a message of QoS 0."""
    rest = b"\x00\x09home/lamp\x00" + payload
    assert len(rest) < 1 << 14
    return bytes((0x30, len(rest) & 127 | 128, len(rest) >> 7)) + rest


async def _taken_by_turn(line: _Line, taken: list[Delivered], count: int) -> list[int]:
    """Read until so many were taken; return how many each turn of the loop took."""
    line._read_and_write_directly()
    turns, before = list[int](), 0
    async with asyncio.timeout(5):
        while before < count:
            await asyncio.sleep(0)
            turns.append(len(taken) - before)
            before = len(taken)
    return turns


@pytest.mark.asyncio
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(("size", "at_once"), [(10, READ_AT_ONCE), (640, READ_AT_ONCE // 11 + 1)])
async def test_what_has_come_is_taken_together_but_not_for_ever(
    tmp_path: Path, size: int, at_once: int, secure: bool
) -> None:
    """A turn of the loop is one commit; others have theirs in between, however much there is behind a full one."""
    made = make_certificate(tmp_path)
    line, taken = _line(Settings(Broker("localhost", 8883, secure), ca=made.ca if secure else None))
    with _socket_of(line, made.context if secure else None) as (_, broker):
        broker.sendall(_message(bytes(size)) * (5 * at_once + 10))
        turns = await _taken_by_turn(line, taken, 5 * at_once + 10)

    assert [turn for turn in turns if turn] == [at_once] * 5 + [10]


@pytest.mark.asyncio
async def test_commands_on_their_way_let_no_more_in() -> None:
    """The library's own loop reads a packet for each of them, and looks at nothing in between."""
    line, taken = _line()
    with _socket_of(line) as (_, broker):
        for number in range(500):
            line.publish(f"a/{number}", b"!", 1, False)
        broker.sendall(_message(b"x") * (READ_AT_ONCE + 10))
        turns = await _taken_by_turn(line, taken, READ_AT_ONCE + 10)

    assert [turn for turn in turns if turn] == [READ_AT_ONCE, 10]


@pytest.mark.asyncio
async def test_packets_that_are_no_messages_are_read_together_too() -> None:
    """PUBACKs of what devices were told: a turn for each would hold their commands up."""
    line, taken = _line()
    with _socket_of(line) as (paho, broker):
        numbers = [paho.publish(f"a/{number}", b"!", 1).mid for number in range(_INFLIGHT)]
        broker.sendall(b"".join(b"\x40\x02" + number.to_bytes(2) for number in numbers) + _message(b"x"))
        turns = await _taken_by_turn(line, taken, 1)

        assert [turn for turn in turns if turn] == [1]
        assert len(turns) <= 2
        assert not line._ended.done()


@pytest.mark.asyncio
async def test_broker_is_read_again_when_a_large_message_is_through() -> None:
    """At once, and by one timer at a time whatever the number of such messages; nothing comes in behind one."""
    line, taken = _line()
    relay = cast(Any, line.relay)

    def take(delivered: Delivered, now_ns: int) -> None:
        taken.append(delivered)
        relay.is_full = True

    relay.take = take
    with _socket_of(line) as (paho, broker):
        for number in range(500):
            line.publish(f"a/{number}", b"!", 1, False)
        broker.sendall(_message(b"x") * 5)
        line._read(paho)
        counts, timers = [len(taken)], [line._held]
        for _ in range(4):
            relay.is_full = False
            line.go_on()
            line.go_on()
            await asyncio.sleep(0)
            counts.append(len(taken))
            timers.append(line._held)
        assert timers[-1] is not None
        timers[-1].cancel()

    assert counts == [1, 2, 3, 4, 5]
    assert [timer is not None and timer.cancelled() for timer in timers] == [True] * 5
    assert len(set(timers)) == 5


@pytest.mark.asyncio
async def test_connection_that_ends_is_not_read() -> None:
    """Its socket is open until what was taken is stored; the loop does not look at it again and again."""
    line, taken = _line()
    with _socket_of(line) as (paho, broker):
        broker.sendall(_message(b"x"))
        line._read_and_write_directly()
        line.hang_up("enough")
        line._read(paho)

        sock = paho.socket()
        assert sock is not None
        assert not asyncio.get_running_loop().remove_reader(sock.fileno())
        assert line._held is not None
        line._held.cancel()
    assert taken == []


@pytest.mark.asyncio
@pytest.mark.parametrize("qos", [0, 1])
async def test_broker_that_takes_nothing_is_left(qos: int) -> None:
    """The library holds what is said to devices, of either kind, until the broker has it."""
    said: list[str] = []
    line = _Line(Settings(Broker("b", 1883)), None, "hub/v1")
    line._paho = cast(Any, SimpleNamespace(publish=lambda topic, *_: said.append(topic)))
    for number in range(MAX_UNACKED):
        line.publish(f"a/{number}", b"!", qos, False)
        if number % 2:
            line._published()
    assert not line._ended.done()

    for _ in range(MAX_UNACKED // 2 + 1):
        line.publish("b", b"!", qos, False)
    assert line._ended.done()
    assert len(said) == MAX_UNACKED + MAX_UNACKED // 2


@pytest.mark.asyncio
async def test_fault_of_a_connection_is_said_and_the_next_one_is_tried(
    world: MqttWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is, here a name that is none: a bridge that ended would be missed by nobody."""
    settings = Settings(Broker("broker..local", 1883))
    bridge = MqttBridge(settings, world.clients, world.parts.identities, NoGateways(), "hub/v1")
    running = asyncio.ensure_future(bridge.run())
    await wait_for(lambda: "broker lost" in caplog.text)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


# What a broker answers: CONNACK; SUBACK and the message of a topic that it has kept.
_CONNACK = b"\x20\x03\x00\x00\x00"
_SUBACK_AND_MESSAGE = b"\x90\x04\x00\x01\x00\x01" + b"\x31\x0d\x00\x09home/lamp\x00x"


@asynccontextmanager
async def _one_record_broker(folder: Path) -> AsyncIterator[Settings]:
    """Serve one client by TLS: what belongs together is one record, as brokers that write many packets at once do."""
    made = make_certificate(folder)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (_CONNACK, _SUBACK_AND_MESSAGE):
            await reader.read(1000)
            writer.write(answer)
        await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=made.context) as server:
        yield Settings(Broker("127.0.0.1", server.sockets[0].getsockname()[1], True), ca=made.ca)
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.asyncio
async def test_message_in_one_record_of_tls_with_another_packet_is_taken_at_once(tmp_path: Path) -> None:
    """The socket shows nothing of it: without another look it would wait for whatever the broker sends next."""
    taken: asyncio.Queue[Delivered] = asyncio.Queue()
    async with _one_record_broker(tmp_path) as settings:
        line = _Line(settings, tls_context(settings), "hub/v1")
        line.relay = cast(Any, SimpleNamespace(take=lambda told, _: taken.put_nowait(told), in_order=(), is_full=False))
        carrying = asyncio.ensure_future(line.carry(lambda: None))
        try:
            delivered = await asyncio.wait_for(taken.get(), 2)
        finally:
            line.hang_up("enough")
            await carrying

    assert (delivered.topic, delivered.payload) == ("home/lamp", b"x")


# --- at a broker -------------------------------------------------------------------------------


@broker_test
async def test_readings_through_a_broker_are_stored(world: MqttWorld, broker: Mosquitto) -> None:
    """Of any topic; a device that nobody accepted is pending."""
    async with _running(world, _bridge(world, broker)):
        await _publish(broker, ("home/lamp", b"lamp.t=21.5"), ("home/shed", b"shed.t=1"))
        await wait_for(lambda: world.values("lamp") == [("t", 21.5)])
        await wait_for(lambda: world.clients.figures.publications == 2)

    assert [child.device for child in world.parts.children.listed(state=None)][:1] == ["shed"]


@broker_test
async def test_what_is_not_stored_is_delivered_again(world: MqttWorld, broker: Mosquitto, tmp_path: Path) -> None:
    """A hub that ends before the commit has acknowledged nothing; what came while it was away waits at the broker."""
    async with _running(world, _bridge(world, broker), commits=False):
        await _publish(broker, ("home/lamp", b"lamp.t=1"))
        await wait_for(lambda: world.clients.figures.publications == 1)
    await _publish(broker, ("home/lamp", b"lamp.t=2"))
    with hub_parts(tmp_path / "again") as parts:
        parts.children.set_rules("mqtt-bridge", auto_accept=["lamp*"])
        started = MqttWorld(parts)
        async with _running(started, _bridge(started, broker)):
            await wait_for(lambda: len(started.values("lamp")) == 2)
        assert sorted(started.values("lamp")) == [("t", 1.0), ("t", 2.0)]


@broker_test
async def test_broker_that_is_killed_is_found_again(world: MqttWorld, broker: Mosquitto) -> None:
    """With a pause that grows; the hub goes on meanwhile."""
    async with _running(world, _bridge(world, broker)) as bridge:
        broker.kill()
        await wait_for(lambda: not bridge.is_connected)
        broker.start()
        await wait_for(lambda: bridge.is_connected)
        await _publish(broker, ("home/lamp", b"lamp.t=1"))
        await wait_for(lambda: world.values("lamp") == [("t", 1.0)])
        carrier = world.parts.registry.device("default", "lamp").carrier
        assert carrier is not None
        assert carrier.connections == 1
    assert carrier.connections == 0


@broker_test
async def test_what_comes_behind_a_large_message_follows_it(world: MqttWorld, broker: Mosquitto) -> None:
    """It is read in steps, in which the broker is not read."""
    world.clients.steps.step_ns = 0
    large = [b"lamp.t=%d".ljust(2 * LARGE_BYTES) % number for number in range(3)]
    async with _running(world, _bridge(world, broker)):
        await _publish(broker, *[("home/lamp", payload) for payload in (large[0], b"lamp.t=9", *large[1:])])
        await wait_for(lambda: len(world.values("lamp")) == 4)

    assert [value for _, value in world.values("lamp")] == [0, 9, 1, 2]


@broker_test
async def test_no_more_is_on_its_way_than_the_hub_holds(world: MqttWorld, broker: Mosquitto, tmp_path: Path) -> None:
    """A hub that stores nothing is given no more than Receive Maximum; the rest waits at the broker."""
    broker.kill()
    with Mosquitto(tmp_path, free_port(), "max_inflight_messages 0", "max_queued_messages 0") as roomy:
        async with _running(world, _bridge(world, roomy), commits=False):
            messages = [("home/lamp", b"lamp.t=%d" % number) for number in range(RECEIVE_MAXIMUM + 200)]
            await _publish(roomy, *messages)
            await wait_for(lambda: world.clients.figures.publications == RECEIVE_MAXIMUM)
            await asyncio.sleep(0.1)
            assert world.clients.figures.publications == RECEIVE_MAXIMUM


@broker_test
async def test_no_more_of_qos_0_is_on_its_way_than_the_hub_holds(world: MqttWorld, broker: Mosquitto) -> None:
    """Receive Maximum does not count it: what is more than the disk takes stays in the network, and then goes on."""
    figures = world.clients.figures
    figures.waiting += MAX_WAITING - 50  # what others have on its way
    async with _running(world, _bridge(world, broker), commits=False):
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            for number in range(200):
                await client.publish("home/lamp", b"lamp.t=%d" % number)
        await wait_for(lambda: figures.waiting >= MAX_WAITING)
        await asyncio.sleep(0.1)
        assert figures.waiting == MAX_WAITING
        while len(world.values("lamp")) < 200:
            world.settle()
            await asyncio.sleep(0.01)


@broker_test
async def test_message_that_no_gateway_may_send_is_not_sent_to_the_hub(world: MqttWorld, broker: Mosquitto) -> None:
    """MQTT allows 256 MiB in one; the library would hold it. What comes after it is taken."""
    async with _running(world, _bridge(world, broker)):
        await _publish(broker, ("home/lamp", bytes(MAX_GATEWAY_PACKET_BYTES)), ("home/lamp", b"lamp.t=1"))
        await wait_for(lambda: world.values("lamp") == [("t", 1.0)])

    assert world.clients.figures.publications == 1


@broker_test
async def test_retained_messages_are_no_readings(world: MqttWorld, broker: Mosquitto) -> None:
    """They come with each subscription."""
    await _publish(broker, ("home/lamp", b"poison"), retain=True)
    async with _running(world, _bridge(world, broker)):
        await wait_for(lambda: world.clients.figures.publications == 1)

    assert world.clients.figures.quarantined == 0


@broker_test
async def test_only_the_topics_that_were_asked_for(world: MqttWorld, broker: Mosquitto) -> None:
    """And the hub's own."""
    async with _running(world, _bridge(world, broker, topics=("home/#",))):
        await _publish(broker, ("barn/lamp", b"lamp.t=1"), ("home/lamp", b"lamp.t=2"))
        await wait_for(lambda: world.values("lamp") == [("t", 2.0)])

    assert world.clients.figures.publications == 1


@broker_test
async def test_hubs_of_a_group_share_what_comes(tmp_path: Path, broker: Mosquitto) -> None:
    """Each message goes to one of them."""
    with hub_parts(tmp_path / "a") as a, hub_parts(tmp_path / "b") as b:
        worlds = [MqttWorld(a), MqttWorld(b)]
        for world in worlds:
            world.parts.children.set_rules("mqtt-bridge", auto_accept=["lamp*"])
        bridges = [_bridge(world, broker, group="hubs", hub_id=str(n)) for n, world in enumerate(worlds)]
        async with _running(worlds[0], bridges[0]), _running(worlds[1], bridges[1]):
            await _publish(broker, *[("home/lamp", b"lamp.t=%d" % number) for number in range(20)])
            await wait_for(lambda: sum(len(world.values("lamp")) for world in worlds) == 20)

        assert all(world.values("lamp") for world in worlds)


@broker_test
async def test_wrong_password_is_said(
    world: MqttWorld, broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once as a warning, without the password; the hub goes on and tries again."""
    passwords = tmp_path / "passwords"
    make = ["mosquitto_passwd", "-c", "-b", str(passwords), "hub", "right"]
    await asyncio.to_thread(subprocess.run, make, check=True)
    broker.kill()
    with Mosquitto(tmp_path, free_port(), f"password_file {passwords}", "allow_anonymous false") as guarded:
        wrong = _bridge(world, guarded, broker=Broker("127.0.0.1", guarded.port, False, "hub", "wr0ng"))
        task = asyncio.ensure_future(wrong.run())
        await wait_for(lambda: "Not authorized" in caplog.text)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        right = _bridge(world, guarded, broker=Broker("127.0.0.1", guarded.port, False, "hub", "right"))
        async with _running(world, right):
            pass

    assert "wr0ng" not in caplog.text


@broker_test
async def test_broker_with_tls_is_checked_against_its_authority(world: MqttWorld, tmp_path: Path) -> None:
    """As a device would."""
    made = make_certificate(tmp_path / "tls")
    lines = (f"cafile {made.ca}", f"certfile {made.cert}", f"keyfile {made.key}")
    with Mosquitto(tmp_path, free_port(), *lines) as secure:
        address = Broker("127.0.0.1", secure.port, True)
        async with _running(world, _bridge(world, secure, broker=address, ca=made.ca)):
            pass
        untrusting = _bridge(world, secure, broker=address)
        assert untrusting._tls is not None
        assert untrusting._tls.verify_mode is ssl.CERT_REQUIRED
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(untrusting.run(), 0.5)
        assert not untrusting.is_connected


@broker_test
async def test_device_of_the_sdk_is_found_again_by_a_hub_that_starts(world: MqttWorld, broker: Mosquitto) -> None:
    """It is connected to the broker all the time; its kept birth tells the hub, whose ``bye`` tells the device."""
    world.parts.identities.add_device("pump")
    url = f"mqtt://127.0.0.1:{broker.port}"
    async with AsyncExitStack() as outlives:
        # The bridge first: a hello that nobody listens to is said again after ten seconds.
        async with _running(world, _bridge(world, broker)):
            made = Device("pump", url, spool=":memory:", close_timeout_s=0.5)
            device = await outlives.enter_async_context(made)
            device.record(t=1.0)
            await device.flush_async(10)
        async with _running(world, _bridge(world, broker)):
            await wait_for(lambda: world.parts.registry.device("default", "pump").connections == 1, what="a hello")
            device.record(t=2.0)
            await device.flush_async(10)

    assert world.values("pump") == [("t", 1.0), ("t", 2.0)]
    assert world.incidents == []
