"""Tests of `device_sdk.websocket` against the library's own server, on real sockets."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from device_sdk.clock import RELEASED_NS, Clock
from device_sdk.errors import AuthenticationError, ConnectionLostError
from device_sdk.transport import LinkError, make_connector
from device_sdk.websocket import WebSocketConnection
from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, MAX_FRAME_BYTES
from tests.support.certificate import ServerCertificate, make_certificate

pytestmark = pytest.mark.asyncio
LIMIT_S = 5.0
Handler = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(scope="module")
def future(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """A certificate that is not valid before a month has passed."""
    return make_certificate(tmp_path_factory.mktemp("future"), after=timedelta(days=30))


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


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def _server(handler: Handler = _echo, **options: Any) -> Any:
    settings = {"subprotocols": [Subprotocol(DEVICE_SUBPROTOCOL)], "compression": None, "ping_interval": None}
    async with serve(handler, "127.0.0.1", 0, **{**settings, **options}) as server:
        yield server.sockets[0].getsockname()[1]


async def _connect(url: str, ear: Ear, **options: Any) -> WebSocketConnection:
    settings: dict[str, Any] = {"token": None, "ca": None, "fingerprint": None, **options}
    connection = await asyncio.wait_for(make_connector(url, **settings).connect(ear), LIMIT_S)
    assert isinstance(connection, WebSocketConnection)
    return connection


async def _leave(connection: WebSocketConnection) -> None:
    connection.close()
    await asyncio.wait_for(connection.wait_closed(), LIMIT_S)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """A server certificate with its CA."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


async def test_messages_go_and_come_in_order() -> None:
    """JSON goes as text, other bytes as binary, each as one message, in order."""
    kinds: list[type] = []

    async def note(connection: ServerConnection) -> None:
        async for message in connection:
            kinds.append(type(message))
            await connection.send(message)

    ear = Ear()
    async with _server(note) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        connection.send([b'{"op":"a"}', b"\x01binary", b'{"op":"b"}'])

        assert [await ear.heard() for _ in range(3)] == [b'{"op":"a"}', b"\x01binary", b'{"op":"b"}']
        assert kinds == [str, bytes, str]
        await _leave(connection)


async def test_fragments_are_put_together() -> None:
    """A message in fragments arrives as one."""

    async def fragments(connection: ServerConnection) -> None:
        await connection.send(["one ", "two ", "three"])
        await connection.wait_closed()

    ear = Ear()
    async with _server(fragments) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)

        assert await ear.heard() == b"one two three"
        await _leave(connection)


async def test_the_upgrade_carries_path_token_and_subprotocol() -> None:
    """The device path follows the URL's own path, the token is a bearer token."""
    seen: list[Request] = []

    def look(_: ServerConnection, request: Request) -> None:
        seen.append(request)

    async with _server(process_request=look) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}/behind/proxy/", Ear(), token="t0ken")
        await _leave(connection)

    assert seen[0].path == "/behind/proxy" + DEVICE_PATH
    assert seen[0].headers["Authorization"] == "Bearer t0ken"
    assert seen[0].headers["Sec-WebSocket-Protocol"] == DEVICE_SUBPROTOCOL
    assert "Sec-WebSocket-Extensions" not in seen[0].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (HTTPStatus.UNAUTHORIZED, AuthenticationError),
        (HTTPStatus.FORBIDDEN, AuthenticationError),
        (HTTPStatus.NOT_FOUND, ConnectionLostError),
        (HTTPStatus.SERVICE_UNAVAILABLE, ConnectionLostError),
    ],
)
async def test_a_refusal_says_why(status: HTTPStatus, kind: type[LinkError]) -> None:
    """401 and 403 are about the credential; the hub's own words reach the error."""

    def refuse(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(status, '{"error":{"reason":"x","message":"its own words"}}')
        response.headers["Retry-After"] = "3"
        return response

    async with _server(process_request=refuse) as port:
        with pytest.raises(kind, match="its own words") as caught:
            await _connect(f"ws://127.0.0.1:{port}", Ear(), token="wrong")

    if isinstance(caught.value, ConnectionLostError):
        assert (caught.value.code, caught.value.retry_ms) == (status, 3000)
    assert "wrong" not in str(caught.value)


async def test_a_server_that_is_no_hub_is_refused() -> None:
    """A WebSocket server without our subprotocol is not spoken to."""
    async with _server(subprotocols=None) as port:
        with pytest.raises(ConnectionLostError, match="is this URL a hub"):
            await _connect(f"ws://127.0.0.1:{port}", Ear())


async def test_a_server_that_is_no_websocket_server_is_refused() -> None:
    """Anything that answers something else is a lost connection, not a crash."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-nothing\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionLostError):
            await _connect(f"ws://127.0.0.1:{port}", Ear())


async def test_no_server_is_a_lost_connection() -> None:
    """A refused TCP connection says which hub cannot be reached."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionLostError, match=f"hub 127.0.0.1:{port} cannot be reached"):
            await _connect(f"ws://127.0.0.1:{port}", Ear())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4401, AuthenticationError),
        (4403, AuthenticationError),
        (4409, ConnectionLostError),
        (1001, ConnectionLostError),
    ],
)
async def test_a_close_by_the_hub_is_heard_once_with_its_code(code: int, kind: type[LinkError]) -> None:
    """The close code decides the error; nothing more is heard after it."""

    async def close(connection: ServerConnection) -> None:
        await connection.close(code, "because")

    ear = Ear()
    async with _server(close) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        error = await ear.end()
        await _leave(connection)

    assert isinstance(error, kind)
    assert f"{code} because" in str(error)
    assert getattr(error, "code", code) == code
    assert ear.errors.empty()


async def test_a_reset_is_heard_as_a_lost_connection() -> None:
    """A connection that breaks without a word has no code."""

    async def reset(connection: ServerConnection) -> None:
        connection.transport.abort()

    ear = Ear()
    async with _server(reset) as port:
        await _connect(f"ws://127.0.0.1:{port}", ear)
        error = await ear.end()

    assert isinstance(error, ConnectionLostError)
    assert error.code is None


async def test_our_own_close_is_not_heard() -> None:
    """After close the receiver hears nothing, neither messages nor the end."""
    ear = Ear()
    async with _server() as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        connection.send([b'{"op":"late"}'])
        await _leave(connection)
        connection.send([b'{"op":"later"}'])

    assert ear.errors.empty()
    assert ear.messages.empty()


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    """A hub cannot make the device hold more than one frame's limit."""

    async def flood(connection: ServerConnection) -> None:
        await connection.send("x" * (MAX_FRAME_BYTES + 1))
        await connection.wait_closed()

    ear = Ear()
    async with _server(flood) as port:
        await _connect(f"ws://127.0.0.1:{port}", ear)
        error = await ear.end()

    assert "broke the WebSocket protocol" in str(error) or "1009" in str(error)


async def test_a_half_open_line_is_noticed_in_three_sweeps() -> None:
    """A peer that answers nothing, not even pings, is given up after three intervals."""
    ear = Ear()
    done = asyncio.Event()

    async def silent(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await done.wait()
        connection.transport.abort()

    async with _server(silent) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        started = asyncio.get_running_loop().time()
        connection.keep_alive(0.05)
        error = await ear.end()
        took = asyncio.get_running_loop().time() - started
        done.set()

    assert "silent for 0.15 s" in str(error)
    assert 0.14 <= took < 1.0


async def test_pongs_keep_a_quiet_line_open() -> None:
    """A peer that only answers pings is alive."""
    ear = Ear()
    pings = asyncio.Semaphore(0)

    class Counting(ServerConnection):
        """Counts pings."""

        def data_received(self, data: bytes) -> None:
            """Count, then go on."""
            super().data_received(data)
            pings.release()

    async with _server(create_connection=Counting) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        connection.keep_alive(0.02)
        for _ in range(4):
            await asyncio.wait_for(pings.acquire(), LIMIT_S)
        assert ear.errors.empty()
        await _leave(connection)


async def test_a_full_network_pauses_and_resumes_the_sender() -> None:
    """``is_writable`` is False while the peer does not read, and the receiver is told when it is True again."""
    ear = Ear()
    go = asyncio.Event()

    async def lazy(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await go.wait()
        connection.transport.resume_reading()
        async for _ in connection:
            pass

    async with _server(lazy) as port:
        connection = await _connect(f"ws://127.0.0.1:{port}", ear)
        connection.send([b"\x01" * 200_000] * 100)
        before = connection.is_writable
        go.set()
        await asyncio.wait_for(ear.was_writable.wait(), LIMIT_S)
        assert (before, connection.is_writable) == (False, True)
        await _leave(connection)


@pytest.mark.parametrize("trust", ["ca", "fingerprint", "both"])
async def test_tls_with_a_trusted_certificate(certificate: ServerCertificate, trust: str) -> None:
    """A hub is trusted by the CA file, by the pinned fingerprint, or by both together."""
    options: dict[str, str | None] = {}
    if trust != "fingerprint":
        options["ca"] = str(certificate.ca)
    if trust != "ca":
        options["fingerprint"] = certificate.fingerprint
    ear = Ear()
    async with _server(ssl=certificate.context) as port:
        connection = await _connect(f"wss://127.0.0.1:{port}", ear, **options)
        connection.send([b'{"op":"x"}'])

        assert await ear.heard() == b'{"op":"x"}'
        await _leave(connection)


@pytest.mark.parametrize("trust", ["ca", "fingerprint"])
async def test_second_connection_resumes_the_tls_session(certificate: ServerCertificate, trust: str) -> None:
    """Certificates are not sent again, and the pin is checked all the same."""
    options = {"ca": str(certificate.ca)} if trust == "ca" else {"fingerprint": certificate.fingerprint}
    was_resumed: list[bool] = []

    async def note(connection: ServerConnection) -> None:
        was_resumed.append(connection.transport.get_extra_info("ssl_object").session_reused)
        async for message in connection:
            await connection.send(message)

    async with _server(note, ssl=certificate.context) as port:
        connector = make_connector(
            f"wss://127.0.0.1:{port}", token=None, ca=options.get("ca"), fingerprint=options.get("fingerprint")
        )
        for _ in range(2):
            ear = Ear()
            connection = await connector.connect(ear)
            connection.send([b'{"op":"x"}'])
            await ear.heard()
            await _leave(cast(WebSocketConnection, connection))

    assert was_resumed == [False, True]


async def test_tls_refuses_an_unknown_certificate(certificate: ServerCertificate) -> None:
    """Without ca= and fingerprint= a certificate of one's own CA is not trusted, and the error says what to do."""
    async with _server(ssl=certificate.context) as port:
        with pytest.raises(ConnectionLostError, match="pass ca= or fingerprint="):
            await _connect(f"wss://127.0.0.1:{port}", Ear())


async def test_certificate_of_the_device_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a key with a password are said by name, without asking anybody for the password."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "key.pem").write_bytes(key)
    make_certificate(tmp_path)

    for files in (("nowhere.pem", None), (str(tmp_path / "ca.pem"), str(tmp_path / "key.pem"))):
        with pytest.raises(ConnectionLostError, match=f"certificate {re.escape(files[0])}"):
            await _connect("wss://127.0.0.1:9", Ear(), certificate=files[0], key=files[1])


async def test_pinned_certificate_needs_no_dates_while_the_clock_is_not_set(future: ServerCertificate) -> None:
    """A board in 1970 reaches its hub; the same connector checks dates again once the clock is set."""
    wall_ns = [0]
    clock = Clock(wall_ns=lambda: wall_ns[0])
    async with _server(ssl=future.context) as port:
        connector = make_connector(
            f"wss://127.0.0.1:{port}", token=None, ca=str(future.ca), fingerprint=future.fingerprint, clock=clock
        )
        unset = await connector.connect(Ear())
        wall_ns[0] = RELEASED_NS
        with pytest.raises(ConnectionLostError, match="not yet valid"):
            await connector.connect(Ear())
        unset.close()
        await unset.wait_closed()


async def test_unset_clock_relaxes_nothing_but_the_dates(
    certificate: ServerCertificate, future: ServerCertificate
) -> None:
    """Not without a pin (the error names the clock), not for another certificate, not for one of another CA."""
    cases = [
        (str(future.ca), None, "clock is not set"),
        (str(future.ca), "ab" * 32, "not the pinned one"),
        (str(certificate.ca), future.fingerprint, "is not trusted"),
    ]
    clock = Clock(wall_ns=lambda: 0)
    async with _server(ssl=future.context) as port:
        for ca, fingerprint, refusal in cases:
            with pytest.raises(ConnectionLostError, match=refusal):
                await _connect(f"wss://127.0.0.1:{port}", Ear(), ca=ca, fingerprint=fingerprint, clock=clock)


async def test_tls_refuses_another_fingerprint_before_the_token_is_sent(certificate: ServerCertificate) -> None:
    """With a pin that differs not one byte of the request leaves the device."""
    seen: list[Request] = []

    def look(_: ServerConnection, request: Request) -> None:
        seen.append(request)

    async with _server(ssl=certificate.context, process_request=look) as port:
        with pytest.raises(ConnectionLostError, match="not the pinned one"):
            await _connect(f"wss://127.0.0.1:{port}", Ear(), fingerprint="ab" * 32, token="secret")

    assert seen == []


async def test_connection_opened_elsewhere_is_checked_against_the_url(certificate: ServerCertificate) -> None:
    """With ``connect_to`` only TCP goes another way: certificate and Host header are still those of the URL."""
    hosts: list[str] = []

    def look(_: ServerConnection, request: Request) -> None:
        hosts.append(request.headers["Host"])

    async with _server(ssl=certificate.context, process_request=look) as port:
        elsewhere: dict[str, Any] = {"ca": str(certificate.ca), "connect_to": ("127.0.0.1", port)}
        await _leave(await _connect("wss://localhost:9", Ear(), **elsewhere))
        with pytest.raises(ConnectionLostError, match=r"hub\.invalid:443: its certificate is not trusted"):
            await _connect("wss://hub.invalid", Ear(), **elsewhere)

    assert hosts == ["localhost:9"]


async def test_tls_says_when_the_ca_file_is_missing(tmp_path: Path) -> None:
    """A wrong path is a lost connection with the path in it: the file may yet appear."""
    with pytest.raises(ConnectionLostError, match=r"nowhere\.pem"):
        await _connect("wss://127.0.0.1:9", Ear(), ca=str(tmp_path / "nowhere.pem"))


async def test_tls_is_refused_by_a_plain_server() -> None:
    """wss:// to a server without TLS fails as a lost connection."""
    async with _server() as port:
        with pytest.raises(ConnectionLostError):
            await _connect(f"wss://127.0.0.1:{port}", Ear())


async def test_connect_can_be_cancelled() -> None:
    """A cancelled attempt leaves no socket behind (an unclosed one would be a warning, and so an error)."""
    asked, hold = asyncio.Event(), asyncio.Event()

    async def wait(_: ServerConnection, __: Request) -> None:
        asked.set()
        await hold.wait()

    async with _server(process_request=wait) as port:
        task = asyncio.ensure_future(_connect(f"ws://127.0.0.1:{port}", Ear()))
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.set()
