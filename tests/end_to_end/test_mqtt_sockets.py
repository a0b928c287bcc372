"""Clients that nobody here wrote speak with the MQTT endpoint: paho, aiomqtt, gmqtt, mosquitto's programs."""

import asyncio
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import pytest
from gmqtt import Client as GmqttClient
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from hub.mqtt.handler import Code, Connect, Received, Refused, Will
from tests.fuzz import mqtt as fuzz
from tests.support.certificate import make_certificate
from tests.support.mqtt_listener import ServedEndpoint, serving_mqtt

pytestmark = [pytest.mark.asyncio, pytest.mark.end_to_end]

LIMIT_S = 20.0
V4, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5
both_versions = pytest.mark.parametrize("version", [V4, V5], ids=["3.1.1", "5"])


class Paho:
    """Eclipse Paho in its own thread, connected while the block lasts; all of it waits, so call it in a thread."""

    def __init__(self, version: MQTTProtocolVersion, transport: Any = "tcp") -> None:
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="paho", protocol=version, transport=transport)
        self.client.username_pw_set("device", "secret")
        self.client.will_set("w/t", b"gone", 1)
        self.received: list[MQTTMessage] = []
        self.reasons: list[str] = []
        self.is_connected, self.is_subscribed, self.has_message, self.is_gone = (threading.Event() for _ in range(4))
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self.is_subscribed.set()
        self.client.on_message = self._message
        self.client.on_disconnect = self._gone

    @contextmanager
    def connected(self, port: int) -> Iterator["Paho"]:
        """Connect, and disconnect at the end."""
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        try:
            assert self.is_connected.wait(LIMIT_S)
            yield self
        finally:
            self.client.disconnect()
            self.client.loop_stop()

    def _connected(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.reasons.append(str(reason))
        self.is_connected.set()

    def _message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        self.received.append(message)
        self.has_message.set()

    def _gone(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.reasons.append(str(reason))
        self.is_gone.set()


def speak(paho: Paho, port: int, served: ServedEndpoint, loop: asyncio.AbstractEventLoop) -> None:
    """Publish with QoS 0 and 1, retained, and be told something."""
    with paho.connected(port):
        paho.client.publish("a/b", b"0", 0)
        infos = [paho.client.publish("a/b", str(number), 1, retain=number == 1) for number in range(1, 51)]
        for info in infos:
            info.wait_for_publish(LIMIT_S)
        paho.client.subscribe("cmd/+", 1)
        assert paho.is_subscribed.wait(LIMIT_S)
        line = served.handlers[-1].line
        assert line is not None
        loop.call_soon_threadsafe(line.publish, "cmd/x", b"go")
        assert paho.has_message.wait(LIMIT_S)


def check(served: ServedEndpoint, paho: Paho, version: int) -> None:
    """What `speak` said has come, and the client went cleanly."""
    handler = served.handlers[-1]
    assert handler.connects == [Connect("paho", version, True, 60, "device", b"secret", Will("w/t", b"gone", 1, False))]
    assert handler.received == [
        Received("a/b", b"0", 0, False, False),
        *(Received("a/b", str(number).encode(), 1, number == 1, False) for number in range(1, 51)),
    ]
    assert [(message.topic, message.payload, message.qos, message.retain) for message in paho.received] == [
        ("cmd/x", b"go", 1, False)
    ]


async def wait_ended(served: ServedEndpoint) -> None:
    """Wait until no connection is left."""
    async with asyncio.timeout(LIMIT_S):
        while len(served.endpoint):  # noqa: ASYNC110 (a connection's end has no event)
            await asyncio.sleep(0.005)


@both_versions
async def test_paho_publishes_and_is_told(version: MQTTProtocolVersion) -> None:
    """Over TCP."""
    async with serving_mqtt() as served:
        paho = Paho(version)
        await asyncio.to_thread(speak, paho, served.port, served, asyncio.get_running_loop())
        await wait_ended(served)

        check(served, paho, version)
        assert [is_clean for is_clean, _ in served.handlers[0].ended] == [True]


@both_versions
async def test_paho_over_websocket(version: MQTTProtocolVersion) -> None:
    """Its subprotocol and path are those of the standard."""
    async with serving_mqtt() as served:
        paho = Paho(version, "websockets")
        await asyncio.to_thread(speak, paho, served.ws_port, served, asyncio.get_running_loop())
        await wait_ended(served)

        check(served, paho, version)


async def test_paho_over_tls(tmp_path: Path) -> None:
    """The certificate is checked; the handler is told that the line is encrypted."""
    certificate = make_certificate(tmp_path)
    async with serving_mqtt(certificate.context) as served:
        paho = Paho(V5)
        paho.client.tls_set(str(certificate.ca))
        await asyncio.to_thread(speak, paho, served.tls_port, served, asyncio.get_running_loop())
        await wait_ended(served)

        check(served, paho, 5)
        assert [peer.is_tls for peer in served.peers] == [True]


@both_versions
async def test_paho_is_told_why_it_is_refused_and_ended(version: MQTTProtocolVersion) -> None:
    """As far as its version has words for it."""
    async with serving_mqtt() as served:
        refused = Paho(version)
        served.refusal = Refused(Code.NOT_AUTHORIZED, "not this one")

        def connect() -> None:
            refused.client.connect("127.0.0.1", served.port)
            refused.client.loop_start()
            assert refused.is_gone.wait(LIMIT_S)
            refused.client.loop_stop()

        await asyncio.to_thread(connect)
        assert refused.reasons[0] == "Not authorized"
        served.refusal = None

        ended, loop = Paho(version), asyncio.get_running_loop()

        def be_ended() -> None:
            with ended.connected(served.port):
                line = served.handlers[-1].line
                assert line is not None
                loop.call_soon_threadsafe(line.end, Code.TAKEN_OVER, "another one")
                assert ended.is_gone.wait(LIMIT_S)

        await asyncio.to_thread(be_ended)
        assert ended.reasons[1] == ("Session taken over" if version == V5 else "Unspecified error")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_packet_identifiers_go_round() -> None:
    """65,600 publications of QoS 1 in a row on one connection: each arrives once and is acknowledged. Takes seconds."""
    count = 65_600

    def publish(port: int) -> None:
        paho = Paho(V4)
        paho.client.max_inflight_messages_set(500)
        with paho.connected(port):
            infos: list[MQTTMessageInfo] = []
            for number in range(count):
                if number >= 1000:  # Paho refuses a publication whose identifier another one still has
                    infos[number - 1000].wait_for_publish(120)
                infos.append(paho.client.publish("n", str(number), 1))
            for info in infos[-1000:]:
                info.wait_for_publish(120)

    async with serving_mqtt() as served:
        await asyncio.to_thread(publish, served.port)

        payloads = [int(received.payload) for received in served.handlers[0].received]
        assert payloads == list(range(count))
        assert not any(received.is_again for received in served.handlers[0].received)


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5], ids=["3.1.1", "5"])
async def test_aiomqtt(version: aiomqtt.ProtocolVersion) -> None:
    """The library that the SDK speaks MQTT by."""
    async with serving_mqtt() as served:
        async with aiomqtt.Client("127.0.0.1", served.port, identifier="aio", protocol=version) as client:
            await client.subscribe("cmd/#", 1)
            for number in range(20):
                await client.publish("a", str(number), 1)
            line = served.handlers[0].line
            assert line is not None
            line.publish("cmd/x", b"go")
            async with asyncio.timeout(LIMIT_S):
                message = await anext(client.messages)
        await wait_ended(served)

        assert (message.topic.value, message.payload, message.qos) == ("cmd/x", b"go", 1)
        assert [received.payload for received in served.handlers[0].received] == [str(n).encode() for n in range(20)]
        assert [is_clean for is_clean, _ in served.handlers[0].ended] == [True]


@pytest.mark.parametrize("version", [MQTTv311, MQTTv50], ids=["3.1.1", "5"])
async def test_gmqtt(version: int) -> None:
    """A client with a codec of its own."""
    async with serving_mqtt() as served:
        client = GmqttClient("g", clean_session=True, **({"session_expiry_interval": 60} if version == MQTTv50 else {}))
        subscribed, told = asyncio.Event(), asyncio.get_running_loop().create_future()
        client.on_subscribe = lambda *_: subscribed.set()

        async def on_message(_: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
            told.set_result((topic, payload, qos))
            return 0

        client.on_message = on_message
        async with asyncio.timeout(LIMIT_S):
            await client.connect("127.0.0.1", served.port, version=version)
            client.subscribe("cmd/#", qos=1)
            await subscribed.wait()
            for number in range(20):
                client.publish("a", str(number), qos=1)
            handler = served.handlers[0]
            while len(handler.received) < 20:  # noqa: ASYNC110 (it has no event for it)
                await asyncio.sleep(0.005)
            assert handler.line is not None
            handler.line.publish("cmd/x", b"go")
            assert await told == ("cmd/x", b"go", 1)
            await client.disconnect()
        await wait_ended(served)

        assert [received.payload for received in handler.received] == [str(number).encode() for number in range(20)]


PUB, SUB = shutil.which("mosquitto_pub"), shutil.which("mosquitto_sub")


async def _run(program: str | None, *arguments: str) -> tuple[int, str]:
    assert program is not None, "there are no mosquitto-clients on this machine: see requirements/debian.txt"
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(LIMIT_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_mosquitto_pub_and_sub(version: str) -> None:
    """The programs that everybody has at hand; QoS 2 is refused as the version can say it."""
    async with serving_mqtt() as served:
        common = ("-h", "127.0.0.1", "-p", str(served.port), "-V", version)

        published = await _run(PUB, *common, "-t", "a/b", "-m", "21.5", "-q", "1", "-u", "device", "-P", "secret", "-r")
        assert published == (0, "")
        assert served.handlers[0].received == [Received("a/b", b"21.5", 1, True, False)]
        assert served.handlers[0].connects[0].password == b"secret"

        listening = asyncio.create_task(_run(SUB, *common, "-t", "cmd/+", "-q", "1", "-C", "1", "-v"))
        async with asyncio.timeout(LIMIT_S):
            while len(served.handlers) < 2 or not served.handlers[1].line:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            line = served.handlers[1].line
            assert line is not None
            while not listening.done():
                # Until it has subscribed this goes nowhere.
                line.publish("cmd/x", b"go")
                await asyncio.sleep(0.01)
        assert await listening == (0, "cmd/x go\n")

        code, said = await _run(PUB, *common, "-t", "a/b", "-m", "21.5", "-q", "2")
        assert "try a lower QoS" in said if version == "mqttv5" else code
        assert served.handlers[-1].received == []


async def test_hostile_clients_leave_a_bystander_alone(caplog: pytest.LogCaptureFixture) -> None:
    """500 connections with something wrong in them, some cut off amid a packet: nothing is logged, all end."""
    hostile = 500

    async def attack(port: int, number: int) -> None:
        random = Random(f"sockets/{number}")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(fuzz.mutated(random, fuzz.conversation(random))))
        if random.random() < 0.3:
            writer.transport.abort()
            return
        writer.write_eof()
        with suppress(OSError):
            await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with serving_mqtt() as served, aiomqtt.Client("127.0.0.1", served.port, identifier="bystander") as bystander:
        handler = served.handlers[0]
        for number in range(0, hostile, 10):
            async with asyncio.timeout(LIMIT_S):
                await asyncio.gather(*(attack(served.port, number + other) for other in range(10)))
                await bystander.publish("a", str(number), 1)
        async with asyncio.timeout(LIMIT_S):
            while len(served.endpoint) > 1:  # noqa: ASYNC110 (a connection's end has no event)
                await asyncio.sleep(0.005)

        assert [int(received.payload) for received in handler.received] == list(range(0, hostile, 10))
        assert [record.getMessage() for record in caplog.records if record.name.startswith("hub")] == []


async def test_old_protocol_is_refused() -> None:
    """MQTT 3.1 is told so."""
    async with serving_mqtt() as served:
        arguments = ("-h", "127.0.0.1", "-p", str(served.port), "-V", "mqttv31", "-t", "a", "-m", "x")
        code, output = await _run(PUB, *arguments)

        assert code != 0
        assert "unacceptable protocol version" in output


async def test_client_certificate_is_told(tmp_path: Path) -> None:
    """What TLS has verified; a client without one has none."""
    files = make_certificate(tmp_path)
    device, server = files.of_device("pump"), files.context
    server.load_verify_locations(files.ca)
    server.verify_mode = ssl.CERT_OPTIONAL
    trust, showing = (ssl.create_default_context(cafile=str(files.ca)) for _ in range(2))
    showing.load_cert_chain(device.cert, device.key)

    async with serving_mqtt(server) as served:
        for context in (trust, showing):
            async with aiomqtt.Client("127.0.0.1", served.tls_port, tls_context=context) as client:
                await client.publish("a", b"x", 1)

        told = [peer.certificate for peer in served.peers]
        assert [certificate and certificate.device for certificate in told] == [None, "pump"]
