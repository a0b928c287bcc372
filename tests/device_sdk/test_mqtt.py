"""Tests of `device_sdk.mqtt` at a real broker, with a small hub behind it."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiomqtt
import pytest
import pytest_asyncio

from device_sdk import Device
from device_sdk.clock import Clock
from device_sdk.envelope import wrap
from device_sdk.errors import AuthenticationError, ConnectionLostError
from device_sdk.mqtt import MAX_UNACKED, OPEN_TIMEOUT_S, MqttConnection, MqttConnector, MqttTarget
from device_sdk.session import WELCOME_TIMEOUT_S
from device_sdk.transport import Access, LinkError, make_connector
from device_sdk.wire import CHAIN_START, Bye, Close, Hello, encode
from tests.support.brokered_hub import PREFIX, MqttHub, echo
from tests.support.certificate import make_certificate
from tests.support.hub_model import HubModel
from tests.support.hub_process import free_port
from tests.support.mosquitto import PROGRAM, Mosquitto

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.end_to_end,
    pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
LIMIT_S = 10.0
WELCOME = b'{"op":"welcome","stored":0}'


class Ear:
    """A receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.errors: asyncio.Queue[LinkError] = asyncio.Queue()
        self.was_writable = asyncio.Event()

    def message(self, data: bytes) -> None:
        """Keep a message."""
        self.messages.put_nowait(data)

    def writable(self) -> None:
        """Note that there is room."""
        self.was_writable.set()

    def closed(self, error: LinkError) -> None:
        """Keep the end."""
        self.errors.put_nowait(error)

    async def heard(self) -> bytes:
        """Return the next message."""
        return await asyncio.wait_for(self.messages.get(), LIMIT_S)

    async def end(self) -> LinkError:
        """Return why the connection ended."""
        return await asyncio.wait_for(self.errors.get(), LIMIT_S)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker for anybody."""
    with Mosquitto(tmp_path_factory.mktemp("broker"), free_port()) as broker:
        yield broker


@pytest_asyncio.fixture
async def hub(broker: Mosquitto) -> AsyncIterator[MqttHub]:
    """A hub that says what it hears."""
    async with MqttHub(broker.port, answer=echo) as hub:
        yield hub


def _connector(url: str, device: str, **options: Any) -> MqttConnector:
    settings: dict[str, Any] = {"token": None, "ca": None, "fingerprint": None, "device": device, **options}
    return cast(MqttConnector, make_connector(url, boot=lambda: "b00t", **settings))


async def _connect(broker: Mosquitto, device: str, ear: Ear | None = None, **options: Any) -> MqttConnection:
    return await _connector(f"mqtt://127.0.0.1:{broker.port}", device, **options).connect(ear or Ear())


async def _welcomed(broker: Mosquitto, hub: MqttHub, device: str, ear: Ear | None = None) -> MqttConnection:
    ear = ear or Ear()
    connection = await _connect(broker, device, ear)
    await hub.say(device, wrap(connection.number, WELCOME))
    assert await ear.heard() == WELCOME
    return connection


async def _leave(connection: MqttConnection) -> None:
    connection.close()
    await asyncio.wait_for(connection.wait_closed(), LIMIT_S)


async def test_messages_go_and_come_in_order_under_the_number_of_the_connection(
    broker: Mosquitto, hub: MqttHub
) -> None:
    """JSON and binary messages travel as they are, in the envelope that says to which conversation they belong."""
    ear = Ear()
    connection = await _connect(broker, "order", ear)

    connection.send([b'{"op":"a"}', b"\x01binary", b'{"op":"b"}'])

    assert [await ear.heard() for _ in range(3)] == [b'{"op":"a"}', b"\x01binary", b'{"op":"b"}']
    assert hub.seen[0].payload == wrap(connection.number, b'{"op":"a"}')
    assert hub.seen[0].topic.value == "hub/v1/order/up"
    await _leave(connection)


async def test_what_a_device_says_expires_when_it_has_given_up_the_answer(broker: Mosquitto, hub: MqttHub) -> None:
    """A hello lasts as long as the device waits for a welcome, all else as long as it waits for an ack."""
    ear = Ear()
    connection = await _connect(broker, "expiry", ear)

    connection.send([b'{"op":"hello"}', b'{"op":"batch"}'])
    await ear.heard()
    await ear.heard()

    assert [getattr(message.properties, "MessageExpiryInterval", None) for message in hub.seen] == [10, 60]
    assert [(message.qos, message.retain) for message in hub.seen] == [(1, False)] * 2
    await _leave(connection)


async def test_birth_and_end_are_retained(broker: Mosquitto, hub: MqttHub) -> None:
    """Whoever asks later sees whether the device is there; the boot id says of which life that is."""
    connection = await _welcomed(broker, hub, "birth")
    async with MqttHub(broker.port, answer=echo, client="later") as later:
        await later.wait_for(lambda: later.states("birth") == [{"on": 1, "boot": "b00t"}])
        await _leave(connection)
        await later.wait_for(lambda: later.states("birth")[1:] == [{"on": 0, "boot": "b00t"}])


async def test_a_device_that_no_hub_answers_says_nothing_that_lasts(broker: Mosquitto, hub: MqttHub) -> None:
    """It tries again and again: all of it would wait at the broker for a hub that is away, and push out readings."""
    connection = await _connect(broker, "alone")
    connection.send([b'{"op":"hello"}'])
    await hub.wait_for(lambda: bool(hub.seen))
    await _leave(connection)
    await _leave(await _welcomed(broker, hub, "answered"))
    await hub.wait_for(lambda: len(hub.states("answered")) == 2)

    assert hub.states("alone") == []


async def test_a_device_that_breaks_off_leaves_its_will(broker: Mosquitto, hub: MqttHub) -> None:
    """The broker says what the device cannot."""
    connection = await _welcomed(broker, hub, "will")
    await hub.wait_for(lambda: len(hub.states("will")) == 1)

    connection._drop()

    await hub.wait_for(lambda: len(hub.states("will")) == 2)
    assert hub.states("will") == [{"on": 1, "boot": "b00t"}, {"on": 0, "boot": "b00t"}]


async def test_an_answer_to_an_earlier_conversation_is_not_heard(broker: Mosquitto, hub: MqttHub) -> None:
    """Neither an old welcome nor an old ack reaches the session, whoever delivers it late."""
    ear = Ear()
    connector = _connector(f"mqtt://127.0.0.1:{broker.port}", "late")
    first = await connector.connect(Ear())
    await _leave(first)
    connection = await connector.connect(ear)

    await hub.say("late", wrap(first.number, WELCOME))
    await hub.say("late", wrap(first.number, b'{"op":"bye"}'))
    await hub.say("late", WELCOME)
    await hub.say("late", b"no JSON")
    await hub.say("late", wrap(connection.number, b'{"op":"mine"}'))

    assert await ear.heard() == b'{"op":"mine"}'
    assert ear.errors.empty()
    await _leave(connection)


async def test_a_second_welcome_is_not_heard(broker: Mosquitto, hub: MqttHub) -> None:
    """A hello that the broker delivered twice is answered twice; the session has gone on since."""
    ear = Ear()
    connection = await _connect(broker, "twice", ear)

    for message in (WELCOME, WELCOME, b'{"op":"ack"}'):
        await hub.say("twice", wrap(connection.number, message))

    assert [await ear.heard(), await ear.heard()] == [WELCOME, b'{"op":"ack"}']
    await _leave(connection)


async def test_a_retained_message_is_not_heard(broker: Mosquitto, hub: MqttHub) -> None:
    """The hub retains nothing; what the broker kept is of before."""
    ear = Ear()
    await hub.say("kept", b'{"op":"bye"}', retain=True)
    connection = await _connect(broker, "kept", ear)

    connection.send([b'{"op":"a"}'])

    assert await ear.heard() == b'{"op":"a"}'
    assert ear.errors.empty()
    await hub.say("kept", b"", retain=True)
    await _leave(connection)


@pytest.mark.parametrize(
    ("bye", "kind", "code", "retry_ms"),
    [
        (Bye(2500), ConnectionLostError, None, 2500),
        (Bye(code=Close.TAKEN_OVER, reason="taken_over", message="newer"), ConnectionLostError, 4409, None),
        (Bye(60_000, Close.FORBIDDEN, "child_pending", "wait"), ConnectionLostError, 4403, 60_000),
        (Bye(code=Close.UNAUTHENTICATED, reason="unauthenticated"), AuthenticationError, None, None),
    ],
    ids=["stops", "taken over", "pending", "revoked"],
)
@pytest.mark.parametrize("is_numbered", [True, False])
async def test_bye_ends_the_connection(
    broker: Mosquitto, hub: MqttHub, is_numbered: bool, bye: Bye, kind: type, code: int | None, retry_ms: int | None
) -> None:
    """As a close does elsewhere; without a number it is for whatever conversation there is: the hub began anew."""
    ear = Ear()
    connection = await _connect(broker, "farewell", ear)

    await hub.say("farewell", wrap(connection.number, encode(bye)) if is_numbered else encode(bye))
    error = await ear.end()

    assert type(error) is kind
    assert (getattr(error, "code", None), getattr(error, "retry_ms", None)) == (code, retry_ms)
    assert bye.message in str(error)
    assert ear.messages.empty()
    await _leave(connection)


async def test_another_client_of_the_same_name_ends_the_connection(broker: Mosquitto) -> None:
    """A broker has one client of a name; the older one hears that it is lost, and once."""
    ear = Ear()
    older = await _connect(broker, "twin", ear)
    newer = await _connect(broker, "twin")

    error = await ear.end()

    assert isinstance(error, ConnectionLostError)
    assert f"broker 127.0.0.1:{broker.port}" in str(error)
    await _leave(newer)
    await _leave(older)
    assert ear.errors.empty()


async def test_our_own_close_is_not_heard(broker: Mosquitto, hub: MqttHub) -> None:
    """After close the receiver hears nothing, and nothing is said; what was said before it arrives."""
    ear = Ear()
    connection = await _welcomed(broker, hub, "close", ear)

    connection.send([b'{"op":"bye"}'])
    connection.close()
    connection.send([b'{"op":"late"}'])
    await asyncio.wait_for(connection.wait_closed(), LIMIT_S)
    await hub.wait_for(lambda: len(hub.states("close")) == 2)

    assert [message.payload for message in hub.seen] == [wrap(connection.number, b'{"op":"bye"}')]
    assert ear.errors.empty()
    assert ear.messages.empty()


async def test_what_has_no_puback_is_bounded(broker: Mosquitto, hub: MqttHub) -> None:
    """``is_writable`` is False while the broker takes nothing, and the receiver is told when it is True again."""
    ear = Ear()
    connection = await _welcomed(broker, hub, "bound", ear)
    await hub.wait_for(lambda: len(hub.states("bound")) == 1)
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        for _ in range(MAX_UNACKED - 1):
            connection.send([b'{"op":"x"}'])
        before = connection.is_writable
        connection.send([b'{"op":"x"}'])
        after = connection.is_writable
    finally:
        os.kill(broker.pid, signal.SIGCONT)

    await asyncio.wait_for(ear.was_writable.wait(), LIMIT_S)
    assert (before, after, connection.is_writable) == (True, False, True)
    await _leave(connection)


async def test_bytes_without_puback_are_bounded(broker: Mosquitto, hub: MqttHub) -> None:
    """Two full frames are as much as many small ones."""
    ear = Ear()
    connection = await _connect(broker, "bytes", ear)

    connection.send([b"\x01" * 200_000] * 3)
    before = connection.is_writable
    await asyncio.wait_for(ear.was_writable.wait(), LIMIT_S)

    assert (before, connection.is_writable) == (False, True)
    await _leave(connection)


async def test_a_silent_broker_is_noticed(tmp_path: Path) -> None:
    """A broker that answers no ping is given up after two intervals of keep-alive."""
    ear = Ear()
    with Mosquitto(tmp_path, free_port()) as broker:
        target = MqttTarget("127.0.0.1", broker.port, PREFIX, False, "silent", 1)
        access = Access(None, None, None, None, None, Clock())
        connection = await MqttConnector(target, access, lambda: "b00t").connect(ear)
        os.kill(broker.pid, signal.SIGSTOP)
        error = await ear.end()
        os.kill(broker.pid, signal.SIGCONT)

    assert "lost" in str(error)
    assert isinstance(error, ConnectionLostError)
    await _leave(connection)


async def test_no_broker_is_a_lost_connection() -> None:
    """A refused TCP connection says which broker cannot be reached."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionLostError, match=f"broker 127.0.0.1:{port} cannot be reached"):
            await _connector(f"mqtt://127.0.0.1:{port}", "d").connect(Ear())


async def test_a_broker_that_is_killed_is_a_lost_connection(tmp_path: Path) -> None:
    """It has no code: the next attempt may be soon."""
    ear = Ear()
    with Mosquitto(tmp_path, free_port()) as broker:
        connection = await _connect(broker, "killed", ear)
        broker.kill()
        error = await ear.end()

    assert isinstance(error, ConnectionLostError)
    assert (error.code, error.retry_ms) == (None, None)
    await _leave(connection)


@asynccontextmanager
async def _scripted(*answers: bytes, hangs_up: bool = False) -> AsyncIterator[int]:
    """A server that gives one answer after each thing it is told; its port."""
    is_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        while not hangs_up and await reader.read(1000):
            pass
        writer.close()
        is_over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait_for(is_over.wait(), LIMIT_S)


@pytest.mark.parametrize("answer", [b"SSH-2.0-nothing\r\n\r\n", b""], ids=["something else", "nothing"])
async def test_a_server_that_is_no_broker_is_refused(answer: bytes) -> None:
    """Anything that answers something else, or hangs up, is a lost connection at once."""
    async with _scripted(answer, hangs_up=True) as port:
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(ConnectionLostError, match="hung up before it answered"):
                await _connector(f"mqtt://127.0.0.1:{port}", "d").connect(Ear())


async def test_connect_can_be_cancelled() -> None:
    """A cancelled attempt leaves no socket behind (an unclosed one would be a warning, and so an error)."""
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        while await reader.read(100):
            pass
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        task = asyncio.ensure_future(_connector(f"mqtt://127.0.0.1:{port}", "d").connect(Ear()))
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(hung_up.wait(), LIMIT_S)


# --- credentials -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that knows ``pump`` with ``secret``."""
    folder = tmp_path_factory.mktemp("guarded")
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "pump", "secret"], check=True)
    with Mosquitto(folder, free_port(), f"password_file {passwords}", "allow_anonymous false") as broker:
        yield broker


async def test_the_user_is_the_device_and_the_password_its_token(guarded: Mosquitto) -> None:
    """Who has both gets in."""
    await _leave(await _connect(guarded, "pump", token="secret"))


@pytest.mark.parametrize("token", ["wrong", None])
async def test_a_wrong_token_is_about_the_credential(guarded: Mosquitto, token: str | None) -> None:
    """A person must act; the token is not said again."""
    with pytest.raises(AuthenticationError, match="refused device pump") as caught:
        await _connect(guarded, "pump", token=token)

    assert "wrong" not in str(caught.value)


async def test_a_device_that_may_not_hear_its_own_topic_is_told() -> None:
    """Without `down` it would wait for a welcome for ever."""
    async with _scripted(b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x87") as port:
        with pytest.raises(AuthenticationError, match="does not let the device hear hub/v1/d/down"):
            await _connector(f"mqtt://127.0.0.1:{port}", "d").connect(Ear())


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (0x84, ConnectionLostError, "does not speak MQTT 5"),
        (0x87, AuthenticationError, "Not authorized"),
        (0x89, ConnectionLostError, "Server busy"),
    ],
)
async def test_a_refusal_says_why(code: int, kind: type[LinkError], words: str) -> None:
    """The reason code of CONNACK decides the error."""
    async with _scripted(bytes((0x20, 3, 0, code, 0))) as port:
        with pytest.raises(kind, match=words):
            await _connector(f"mqtt://127.0.0.1:{port}", "d").connect(Ear())


async def test_a_takeover_that_the_broker_explains_needs_a_person() -> None:
    """DISCONNECT with "session taken over" is the 4409 of a hub: two devices have one name."""
    ear = Ear()
    suback, disconnect = b"\x90\x04\x00\x01\x00\x01", b"\xe0\x02\x8e\x00"
    async with _scripted(b"\x20\x03\x00\x00\x00", suback, disconnect) as port:
        connection = await _connector(f"mqtt://127.0.0.1:{port}", "d").connect(ear)
        connection.send([b'{"op":"hello"}'])
        error = await ear.end()
        await _leave(connection)

    assert (getattr(error, "code", None), "another client connected as d" in str(error)) == (Close.TAKEN_OVER, True)


# --- TLS ---------------------------------------------------------------------------------------


class Tls:
    """A broker with TLS, and the files around it."""

    def __init__(self, folder: Path) -> None:
        made = make_certificate(folder / "tls")
        self.ca, self.fingerprint = made.ca, made.fingerprint
        self.device = made.of_device("pump")
        common = (f"cafile {made.ca}", f"certfile {made.cert}", f"keyfile {made.key}")
        self.log = folder / "mosquitto.log"
        self.broker = Mosquitto(folder, free_port(), *common)
        self.strict = Mosquitto(
            folder / "tls", free_port(), *common, "require_certificate true", "use_identity_as_username true"
        )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """Two brokers: one for anybody, one for those with a certificate."""
    tls = Tls(tmp_path_factory.mktemp("tls"))
    with tls.broker, tls.strict:
        yield tls


@pytest.mark.parametrize("trust", ["ca", "fingerprint", "both"])
async def test_tls_with_a_trusted_certificate(tls: Tls, trust: str) -> None:
    """A broker is trusted by the CA file, by the pinned fingerprint, or by both; the second time it resumes."""
    options: dict[str, Any] = {}
    if trust != "fingerprint":
        options["ca"] = tls.ca
    if trust != "ca":
        options["fingerprint"] = tls.fingerprint
    connector = _connector(f"mqtts://127.0.0.1:{tls.broker.port}", "tls", **options)
    resumed = []

    for _ in range(2):
        connection = await connector.connect(Ear())
        sock = cast(ssl.SSLSocket, connection._open_client()._client.socket())
        resumed.append(sock.session_reused)
        await _leave(connection)

    assert resumed == [False, True]


async def test_tls_refuses_an_unknown_certificate(tls: Tls) -> None:
    """Without ca= and fingerprint= it is not trusted, and the error says what to do."""
    with pytest.raises(ConnectionLostError, match="pass ca= or fingerprint="):
        await _connector(f"mqtts://127.0.0.1:{tls.broker.port}", "tls").connect(Ear())


async def test_tls_with_a_wrong_pin_sends_nothing(tls: Tls) -> None:
    """The pin is compared before a byte of CONNECT leaves the device: the token stays here."""
    connector = _connector(f"mqtts://127.0.0.1:{tls.broker.port}", "secretive", token="secret", fingerprint="ab" * 32)
    with pytest.raises(ConnectionLostError, match="not the pinned one"):
        await connector.connect(Ear())

    assert "secretive" not in tls.log.read_text()


async def test_tls_says_when_the_ca_file_is_missing(tmp_path: Path) -> None:
    """A wrong path is a lost connection with the path in it: the file may yet appear."""
    with pytest.raises(ConnectionLostError, match=r"nowhere\.pem"):
        await _connector("mqtts://127.0.0.1:9", "d", ca=str(tmp_path / "nowhere.pem")).connect(Ear())


async def test_tls_to_a_plain_broker_is_a_lost_connection(broker: Mosquitto) -> None:
    """mqtts:// to a listener without TLS fails, and leaves no socket behind."""
    with pytest.raises(ConnectionLostError):
        await _connector(f"mqtts://127.0.0.1:{broker.port}", "d", fingerprint="ab" * 32).connect(Ear())


async def test_connection_opened_elsewhere_is_checked_against_the_url(tls: Tls) -> None:
    """With ``connect_to`` only TCP goes another way: the certificate is still that of the URL's host."""
    elsewhere: dict[str, Any] = {"ca": tls.ca, "connect_to": ("127.0.0.1", tls.broker.port)}
    await _leave(await _connector("mqtts://localhost:9", "d", **elsewhere).connect(Ear()))
    with pytest.raises(ConnectionLostError, match=r"hub\.invalid:8883: its certificate is not trusted"):
        await _connector("mqtts://hub.invalid", "d", **elsewhere).connect(Ear())


async def test_a_device_shows_its_own_certificate(tls: Tls) -> None:
    """Instead of a token; without one the broker hangs up."""
    url = f"mqtts://127.0.0.1:{tls.strict.port}"
    files = {"certificate": tls.device.cert, "key": tls.device.key}
    await _leave(await _connector(url, "pump", ca=tls.ca, **files).connect(Ear()))
    with pytest.raises(ConnectionLostError):
        await _connector(url, "pump", ca=tls.ca).connect(Ear())


# --- a whole device ----------------------------------------------------------------------------


def _device(broker: Mosquitto, name: str, **options: Any) -> Device:
    return Device(name, f"mqtt://127.0.0.1:{broker.port}", spool=":memory:", close_timeout_s=0.5, **options)


async def test_a_device_delivers_over_a_broker(broker: Mosquitto) -> None:
    """The same `Device`: what was recorded is at the hub once `flush` returns, each reading once."""
    async with MqttHub(broker.port) as hub, _device(broker, "whole") as device:
        for number in range(500):
            device.record(number=number)
        await device.flush_async(LIMIT_S)

        assert sorted(reading.value for reading in hub.model.readings) == list(range(500))
        assert device.status.pending == 0


async def test_a_hub_that_starts_anew_behind_the_broker_gets_everything(broker: Mosquitto) -> None:
    """Nobody hangs up on the device; it hears ``bye`` and says hello again. Nothing is lost, nothing doubled."""
    model = HubModel()
    async with _device(broker, "restart") as device:
        byes = []
        for number in range(3):
            async with MqttHub(broker.port, model) as hub:
                device.record(number=number)
                # A hello that comes before the first hub listens is heard by nobody.
                await device.flush_async(WELCOME_TIMEOUT_S + LIMIT_S)
                byes.append(hub.byes)
        assert byes == [0, 1, 1]

    assert sorted(reading.value for reading in model.readings) == [0, 1, 2]
    assert (len(model.streams), model.alarms) == (1, [])


async def test_a_hub_that_was_away_answers_what_is_over_to_nobody(broker: Mosquitto) -> None:
    """Hellos of earlier conversations wait at the broker; their answers reach no session, and cost no stream."""
    model = HubModel()
    old = Hello("away", "ab" * 8, "b00t", "cd" * 8, 0, 1, CHAIN_START.hex())
    async with MqttHub(broker.port, model, is_lasting=True):
        pass
    for _ in range(3):
        connection = await _connect(broker, "away")
        connection.send([encode(old)])
        await _leave(connection)
    async with _device(broker, "away") as device:
        device.record(number=1)
        async with MqttHub(broker.port, model, is_lasting=True) as hub:
            await device.flush_async(LIMIT_S)
            assert len(hub.seen) >= 5

    assert [reading.value for reading in model.readings] == [1]
    assert (len(model.streams), model.alarms) == (2, [])


async def test_the_private_names_that_are_used_are_there() -> None:
    """What no public name of the library gives: the client inside, whose socket nobody else closes."""
    client = aiomqtt.Client("127.0.0.1")

    assert callable(client._client._sock_close)
    assert client._client.socket() is None


async def test_handshake_has_less_time_than_a_quiet_line(tmp_path: Path) -> None:
    """A metered line may be quiet for a quarter of an hour; a thread is not to wait for that."""
    context = _connector("mqtts://127.0.0.1", "d", ca=str(make_certificate(tmp_path).ca))._tls()
    ours, other = socket.socketpair()
    with context.wrap_socket(ours, do_handshake_on_connect=False) as secure:
        secure.settimeout(900)
        other.close()
        with pytest.raises(OSError):
            secure.do_handshake()
        assert secure.gettimeout() == OPEN_TIMEOUT_S


async def test_broker_whose_rules_forbid_to_publish_is_a_refusal(tmp_path: Path) -> None:
    """PUBACK says so; a person must act, as where the rules forbid to hear."""
    (tmp_path / "acl").write_text("topic read #\n")
    with Mosquitto(tmp_path, free_port(), f"acl_file {tmp_path / 'acl'}") as silent:
        ear = Ear()
        connection = await _connect(silent, "mute", ear)
        connection.send([b'{"op":"hello"}'])
        error = await ear.end()
        await _leave(connection)

    assert isinstance(error, AuthenticationError)
    assert "does not let the device publish" in str(error)
