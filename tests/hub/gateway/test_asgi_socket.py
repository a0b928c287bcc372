"""An ASGI application on our WebSocket: it gets and sends in order, waits for a slow peer, and floods end."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from hub.gateway.asgi_socket import MAX_UNREAD_BYTES, AsgiSocket
from hub.gateway.websocket import HIGH_WATER_BYTES, UpgradeRequest
from tests.support.fake_connection import FakeConnection, split_frames

REQUEST = UpgradeRequest(
    "/socket.io/", {"EIO": "4", "x": "a b"}, {"host": "h:1", "cookie": "k=é"}, "[::1]:5000", True, ("p",)
)


class App:
    """Keeps what it is told, and sends what it is given."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.received: list[Any] = []
        self.sent = 0
        self.scope: Any = None
        self.is_done = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all texts, then take messages up to the disconnect."""
        self.scope = scope
        self.received.append(await receive())
        try:
            for text in self.texts:
                await send({"type": "websocket.send", "text": text, "bytes": None})
                self.sent += 1
            while self.received[-1]["type"] != "websocket.disconnect":
                self.received.append(await receive())
        except OSError as error:
            self.error = error
        self.is_done.set()


def begin(app: App) -> tuple[AsgiSocket, FakeConnection]:
    """Return an open socket and its connection."""
    socket, connection = AsgiSocket(app, REQUEST), FakeConnection()
    socket.opened(connection)
    return socket, connection


async def turns(count: int = 20) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_messages_pass_in_order_both_ways() -> None:
    """connect, what the peer said, disconnect with its code; what the application sends leaves as frames."""
    app = App("one", "zwei ü")
    socket, connection = begin(app)

    await turns()
    socket.message(b"a", True)
    socket.message(b"\x00", False)
    socket.closed(1001, "away")
    await asyncio.wait_for(app.is_done.wait(), 5)

    assert [m["type"].removeprefix("websocket.") for m in app.received] == [
        "connect", "receive", "receive", "disconnect",
    ]  # fmt: skip
    assert [app.received[1]["text"], app.received[2]["bytes"], app.received[3]["code"]] == ["a", b"\x00", 1001]
    assert split_frames(b"".join(connection.received)) == [b"one", "zwei ü".encode()]


@pytest.mark.asyncio
async def test_scope_is_the_request() -> None:
    """Path, query, headers, address and TLS reach the application as ASGI says them."""
    app = App()
    socket, _ = begin(app)
    await turns()
    socket.closed(1000, "")

    assert (app.scope["type"], app.scope["scheme"], app.scope["path"]) == ("websocket", "wss", "/socket.io/")
    assert app.scope["query_string"] == b"EIO=4&x=a+b"
    assert app.scope["client"] == ("::1", 5000)
    assert (b"cookie", "k=é".encode("latin-1")) in app.scope["headers"]


@pytest.mark.asyncio
async def test_sending_waits_for_a_slow_peer() -> None:
    """Not more than the high water mark and one message is written to a peer that does not read."""
    app = App(*["x" * 100_000] * 10)
    socket, connection = begin(app)
    connection.is_stalled = True

    await turns()
    assert app.sent == 2
    assert connection.peak_bytes < HIGH_WATER_BYTES + 100_100
    connection.drain()
    socket.writable()
    await turns(100)

    assert app.sent == 10
    socket.closed(1000, "")


@pytest.mark.asyncio
async def test_application_that_waits_is_told_of_the_end() -> None:
    """A peer that never reads and goes away leaves nothing that waits for it."""
    app = App(*["x" * 100_000] * 10)
    socket, connection = begin(app)
    connection.is_stalled = True
    await turns()

    socket.closed(1006, "")
    await asyncio.wait_for(app.is_done.wait(), 5)

    assert isinstance(app.error, OSError)


@pytest.mark.asyncio
async def test_flood_that_is_not_read_is_closed() -> None:
    """A peer that sends faster than the application reads loses its connection, not the hub its memory."""
    app = App()
    socket, connection = begin(app)

    for _ in range(MAX_UNREAD_BYTES // 256 + 1):
        socket.message(b"", True)

    assert connection.closed_with == (4029, "more than is read")
    socket.closed(4029, "")
    await turns()


@pytest.mark.asyncio
async def test_application_that_fails_closes(caplog: pytest.LogCaptureFixture) -> None:
    """4100, and the log says why."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    connection = FakeConnection()
    AsgiSocket(broken, REQUEST).opened(connection)
    await turns()

    assert connection.closed_with == (4100, "the hub failed; its log says why")
    assert "application failed path=/socket.io/" in caplog.text


@pytest.mark.asyncio
async def test_application_that_waits_begins_with_the_first_message() -> None:
    """A connection that says nothing costs it nothing; what ends before leaves nothing either."""
    silent, app = App(), App()
    AsgiSocket(silent, REQUEST, waits=True).opened(FakeConnection())
    socket = AsgiSocket(app, REQUEST, waits=True)
    socket.opened(FakeConnection())
    await turns()
    assert (silent.scope, app.scope) == (None, None)

    socket.message(b"a", True)
    await turns()
    socket.closed(1000, "")
    await asyncio.wait_for(app.is_done.wait(), 5)

    assert [m["type"].removeprefix("websocket.") for m in app.received] == ["connect", "receive", "disconnect"]


@pytest.mark.asyncio
async def test_what_the_application_does_not_take_closes() -> None:
    """It never sees it."""
    app, connection = App(), FakeConnection()
    socket = AsgiSocket(app, REQUEST, takes=lambda data, is_text: is_text and data != b"x")
    socket.opened(connection)
    await turns()

    socket.message(b"a", True)
    socket.message(b"x", True)
    socket.closed(4400, "")
    await asyncio.wait_for(app.is_done.wait(), 5)

    assert connection.closed_with == (4400, "this cannot be read")
    assert [m.get("text") for m in app.received] == [None, "a", None]
