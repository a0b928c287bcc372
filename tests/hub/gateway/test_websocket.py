"""`hub.gateway.websocket`: handshake, delivery, backpressure, closing; with a fake transport and on real uvicorn."""

import asyncio
import inspect
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from device_sdk.wire import PING_S, Close
from hub.errors import ForbiddenError
from hub.gateway.frames import PING_FRAME, text_frame
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import (
    CLOSE_S,
    HIGH_WATER_BYTES,
    MAX_BUFFER_BYTES,
    PONG_S,
    PROBE_BYTES,
    TURN_BYTES,
    Accept,
    Connection,
    Refuse,
    UpgradeRequest,
    WebSocketConnection,
    make_protocol,
)
from hub.tls import make_certificates, make_device_certificate
from tests.support.gateway import RecordingHandler, not_found, serving
from tests.support.transport import FakeTransport

HANDSHAKE = (
    b"GET /v1/device?match=a%2F**&last=1 HTTP/1.1\r\nHost: hub.local:8000\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Authorization: Bearer d1.secret\r\nX-Twice: a\r\nX-Twice: b\r\n"
    b"Sec-WebSocket-Protocol: other, telemetry.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def client_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """A masked frame as a client sends it."""
    return Frame(opcode, payload).serialize(mask=True)


class Opened:
    """A connection after its handshake, on a fake transport."""

    def __init__(
        self,
        on_message: Callable[[Connection, bytes, bool], None] | None = None,
        *,
        can_half_close: bool = True,
        goodbye: bytes | None = None,
    ) -> None:
        self.sweep = Sweep(3600)
        self.state = ServerState()
        self.handler = RecordingHandler(on_message)
        protocol_class = make_protocol(
            lambda request: Accept(self.handler),
            goodbye=None if goodbye is None else lambda: goodbye,
            sweep=self.sweep,
        )
        self.transport = FakeTransport(can_half_close=can_half_close)
        self.connection = protocol_class(uvicorn.Config(not_found), self.state, {})
        self.connection.connection_made(self.transport)
        self.connection.data_received(HANDSHAKE)
        self.transport.take()

    def sweeps(self, count: int) -> None:
        """Let ``count`` seconds pass."""
        for _ in range(count):
            self.sweep.run()


def handshake(upgrade: Callable[[UpgradeRequest], Accept | Refuse], head: bytes = HANDSHAKE) -> FakeTransport:
    """Send a head to a new connection; return its transport."""
    transport = FakeTransport()
    connection = make_protocol(upgrade, sweep=Sweep(3600))(uvicorn.Config(not_found), ServerState(), {})
    connection.connection_made(transport)
    connection.data_received(head)
    return transport


# --- handshake ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_upgrade_sees_the_request_and_picks_the_subprotocol() -> None:
    """The decision gets path, query, headers and peer; the answer names the subprotocol and no extension."""
    seen: list[UpgradeRequest] = []

    def upgrade(request: UpgradeRequest) -> Accept:
        seen.append(request)
        return Accept(RecordingHandler(), "telemetry.v1")

    answer = handshake(upgrade).written

    assert seen[0].path == "/v1/device"
    assert seen[0].query == {"match": "a/**", "last": "1"}
    assert seen[0].headers["authorization"] == "Bearer d1.secret"
    assert seen[0].headers["x-twice"] == "a, b"
    assert seen[0].subprotocols == ("other", "telemetry.v1")
    assert (seen[0].peer, seen[0].is_loopback, seen[0].is_tls) == ("127.0.0.1:50000", True, False)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Protocol: telemetry.v1\r\n" in answer
    assert b"Extensions" not in answer


@pytest.mark.asyncio
async def test_refusal_is_an_http_answer_before_any_websocket_state() -> None:
    """A refused client reads status, reason and message as JSON, then the end."""
    transport = handshake(lambda request: Refuse(401, "unauthenticated", "no token", {"WWW-Authenticate": "Bearer"}))

    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"WWW-Authenticate: Bearer" in head
    assert orjson.loads(body) == {"error": {"reason": "unauthenticated", "message": "no token"}}
    assert transport.has_written_end


@pytest.mark.asyncio
async def test_hub_error_of_the_upgrade_becomes_the_refusal() -> None:
    """The decision may raise; its status and words reach the client."""

    def upgrade(request: UpgradeRequest) -> Accept:
        raise ForbiddenError("a watcher may not send")

    assert b" 403 Forbidden\r\n" in handshake(upgrade).written


@pytest.mark.asyncio
async def test_failing_upgrade_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the decision is logged here and not told to the peer."""

    def upgrade(request: UpgradeRequest) -> Accept:
        raise ValueError("secret detail")

    answer = handshake(upgrade).written

    assert b" 500 " in answer
    assert b"secret" not in answer
    assert caplog.records[0].levelname == "ERROR"


@pytest.mark.asyncio
async def test_handshake_without_key_is_refused_by_the_library() -> None:
    """What is not a WebSocket handshake never reaches the decision."""
    answer = handshake(
        lambda request: Accept(RecordingHandler()), HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key")
    ).written

    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.asyncio
async def test_a_query_that_cannot_be_read_is_a_400(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is not even known cannot fill the log with tracebacks, and hears what is wrong."""
    head = HANDSHAKE.replace(b"match=a%2F**", b"&".join([b"a=1"] * 200))

    answer = handshake(lambda request: Accept(RecordingHandler()), head).written

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not caplog.records


# --- delivery and writing -------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_answers_to_one_read_leave_in_one_write() -> None:
    """Three frames in one read: three messages, one write with three answers in order, pong included."""
    opened = Opened(lambda connection, data, is_text: connection.send(b"re " + data))

    opened.connection.data_received(
        client_frame(Opcode.TEXT, b"a") + client_frame(Opcode.PING, b"p") + client_frame(Opcode.BINARY, b"b")
    )

    assert opened.handler.messages == [(b"a", True), (b"b", False)]
    assert opened.transport.writes == [text_frame(b"re a") + b"\x8a\x01p" + text_frame(b"re b")]


@pytest.mark.asyncio
async def test_a_long_read_gives_the_others_a_turn() -> None:
    """After much data the connection is read again in the next turn of the loop, not in this one."""
    opened = Opened()

    opened.connection.data_received(client_frame(Opcode.BINARY, bytes(TURN_BYTES)))
    paused = opened.transport.is_reading_paused
    await asyncio.sleep(0)

    assert paused
    assert not opened.transport.is_reading_paused
    assert len(opened.handler.messages) == 1


@pytest.mark.asyncio
async def test_a_long_read_does_not_reopen_a_full_connection() -> None:
    """What is paused because the peer takes nothing stays paused until it does."""
    opened = Opened()

    opened.connection.data_received(client_frame(Opcode.BINARY, bytes(TURN_BYTES)))
    opened.connection.pause_writing()
    await asyncio.sleep(0)
    was_paused = opened.transport.is_reading_paused
    opened.connection.resume_writing()

    assert was_paused
    assert not opened.transport.is_reading_paused


@pytest.mark.slow
def test_a_flood_on_one_socket_delays_the_others_by_one_read() -> None:
    """uvloop would take up to 32 full reads from one socket; the others are heard after one of 256 KiB.

    Slow: only a socket that fills while its messages are handled shows it, so each is handled for 2 ms.
    """
    uvloop = pytest.importorskip("uvloop")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard = runner.run(_flooded())

    assert heard <= 2 * 256 * 1024


async def _flooded() -> int:
    """Let one socket send 8 MiB and another a word; return how many bytes were heard before the word."""
    flood, count = client_frame(Opcode.BINARY, bytes(32 * 1024)), 256
    heard, heard_before_word = 0, -1
    is_flooding, all_heard = threading.Event(), asyncio.Event()

    def hear(connection: Connection, data: bytes, is_text: bool) -> None:
        nonlocal heard, heard_before_word
        if is_text:
            heard_before_word = heard - heard_at_word
        else:
            time.sleep(0.002)
            heard += len(data)
            is_flooding.set()
        if heard_before_word >= 0 and heard == count * 32 * 1024:
            all_heard.set()

    heard_at_word = 0

    def say_word(port: int) -> None:
        nonlocal heard_at_word
        with _upgraded(port) as speaker:
            assert is_flooding.wait(10)
            # The receive buffer has grown by now: the kernel's first window is smaller than one read.
            while heard < 2 * 1024 * 1024:
                time.sleep(0.001)
            heard_at_word = heard
            speaker.sendall(client_frame(Opcode.TEXT, b"word"))
            speaker.recv(1)

    def send_flood(port: int) -> None:
        with _upgraded(port) as flooder:
            flooder.sendall(flood * count)

    async with serving(ws=make_protocol(lambda request: Accept(RecordingHandler(hear)))) as port, asyncio.timeout(20):
        speaking = asyncio.create_task(asyncio.to_thread(say_word, port))
        await asyncio.to_thread(send_flood, port)
        await all_heard.wait()
    await speaking
    return heard_before_word


def _upgraded(port: int) -> socket.socket:
    """Return a blocking socket after its handshake."""
    upgraded = socket.create_connection(("127.0.0.1", port), timeout=10)
    upgraded.sendall(HANDSHAKE)
    assert b" 101 " in upgraded.recv(4096)
    return upgraded


@pytest.mark.asyncio
async def test_send_outside_a_read_is_written_at_once() -> None:
    """What the journal's commit causes does not wait for the peer's next frame."""
    opened = Opened()

    opened.handler.connection.send(b"ack")
    opened.handler.connection.send(b"\x00", binary=True)

    assert opened.transport.writes == [b"\x81\x03ack", b"\x82\x01\x00"]


@pytest.mark.asyncio
async def test_reading_stops_while_the_write_buffer_is_full() -> None:
    """A peer that takes no answers gets no further frames read; after draining the handler may write on."""
    opened = Opened()

    opened.connection.pause_writing()
    was_paused = opened.transport.is_reading_paused
    opened.connection.resume_writing()

    assert was_paused
    assert not opened.transport.is_reading_paused
    assert opened.handler.writable_count == 1


@pytest.mark.asyncio
async def test_a_smaller_share_is_said_to_have_drained_sooner() -> None:
    """`expect_drain` holds once: after `writable` the connection is full at the usual mark again."""
    opened = Opened()
    usual = opened.transport.limits

    opened.handler.connection.expect_drain(40_000)
    while_waiting = opened.transport.limits
    opened.connection.pause_writing()
    opened.connection.resume_writing()

    assert while_waiting == (40_000, 10_000)
    assert usual == opened.transport.limits == (HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4)
    assert opened.handler.writable_count == 1


@pytest.mark.asyncio
async def test_writing_on_regardless_costs_the_connection() -> None:
    """Beyond the hard limit the connection fails with 4008 instead of filling the hub's memory."""
    opened = Opened()
    opened.connection.pause_writing()
    opened.transport.buffered = MAX_BUFFER_BYTES + 1

    opened.handler.connection.send(b"one more")
    opened.connection.connection_lost(None)

    assert opened.handler.closes == [(Close.TOO_SLOW, "too slow")]


@pytest.mark.asyncio
async def test_buffered_bytes_count_what_is_corked() -> None:
    """A handler sees its own unsent answers too."""
    sizes: list[int] = []

    def answer(connection: Connection, data: bytes, is_text: bool) -> None:
        connection.send(b"12345")
        sizes.append(connection.buffered_bytes)

    opened = Opened(answer)
    opened.transport.buffered = 100
    opened.connection.data_received(client_frame(Opcode.TEXT, b"x"))

    assert sizes == [107]


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_close_waits_for_the_peers_close_frame() -> None:
    """Our close frame goes out; the peer's answer ends our side; then the handler hears our code."""
    opened = Opened()

    opened.handler.connection.close(Close.TAKEN_OVER, "newer connection")
    before = opened.transport.take(), opened.transport.has_written_end
    opened.handler.connection.send(b"too late")
    opened.connection.data_received(client_frame(Opcode.TEXT, b"late") + client_frame(Opcode.CLOSE, b"\x11\x39"))
    opened.connection.connection_lost(None)

    assert before == (b"\x88\x12\x11\x39newer connection", False)
    assert (opened.transport.take(), opened.transport.has_written_end) == (b"", True)
    assert opened.handler.messages == []
    assert opened.handler.closes == [(4409, "newer connection")]


@pytest.mark.asyncio
async def test_close_of_the_peer_is_answered_and_reported() -> None:
    """The peer's code comes back to it, and the handler hears it once."""
    opened = Opened()

    opened.connection.data_received(client_frame(Opcode.CLOSE, b"\x03\xe8done"))
    opened.connection.connection_lost(None)

    assert opened.transport.written == b"\x88\x06\x03\xe8done"
    assert opened.handler.closes == [(1000, "done")]


@pytest.mark.asyncio
async def test_lost_connection_is_1006() -> None:
    """Without any close frame the code is 1006, and the connection is forgotten everywhere."""
    opened = Opened()

    opened.connection.connection_lost(ConnectionResetError())

    assert opened.handler.closes == [(1006, "")]
    assert len(opened.sweep) == 0
    assert opened.state.connections == set()


@pytest.mark.asyncio
async def test_failing_handler_closes_with_4100(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a handler ends its own connection with 4100, and is logged."""

    def fail(connection: Connection, data: bytes, is_text: bool) -> None:
        raise ValueError("bug")

    opened = Opened(fail)
    opened.connection.data_received(client_frame(Opcode.TEXT, b"x") + client_frame(Opcode.TEXT, b"y"))
    opened.connection.connection_lost(None)

    assert opened.handler.messages == [(b"x", True)]
    assert opened.handler.closes == [(Close.INTERNAL, "internal error")]
    assert caplog.records[0].levelname == "ERROR"


@pytest.mark.asyncio
async def test_transport_that_cannot_half_close_is_closed() -> None:
    """With TLS the transport is closed after the last write."""
    opened = Opened(can_half_close=False)

    opened.connection.data_received(client_frame(Opcode.CLOSE))

    assert opened.transport.is_closed
    assert not opened.transport.has_written_end


# --- the sweep ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_quiet_connection_is_pinged_once() -> None:
    """After 15 s without a byte one constant ping goes out; an answer starts the count again."""
    opened = Opened()

    opened.sweeps(PING_S - 1)
    before = opened.transport.take()
    opened.sweeps(1)
    ping = opened.transport.take()
    opened.connection.data_received(client_frame(Opcode.PONG))
    opened.sweeps(PING_S - 1)

    assert (before, ping, opened.transport.take()) == (b"", PING_FRAME, b"")


@pytest.mark.asyncio
async def test_probe_is_answered_by_its_own_pong_alone() -> None:
    """A pong that was on its way, or one of another payload, is no sign of life now; one probe waits at a time."""
    opened, answers = Opened(), list[str]()

    opened.connection.probe(lambda: answers.append("first"))
    ping = opened.transport.take()
    opened.connection.probe(lambda: answers.append("second"))
    for payload in (b"", bytes(PROBE_BYTES)):
        opened.connection.data_received(client_frame(Opcode.PONG, payload))
    early = list(answers)
    opened.connection.data_received(client_frame(Opcode.PONG, ping[2:]))
    opened.connection.data_received(client_frame(Opcode.PONG, ping[2:]))

    assert (ping[0], len(ping[2:]), opened.transport.take()) == (PING_FRAME[0], PROBE_BYTES, b"")
    assert (early, answers) == ([], ["first"])


@pytest.mark.asyncio
async def test_keep_alive_sets_how_often_a_quiet_line_is_pinged() -> None:
    """A device on a metered link is pinged each quarter of an hour, and closed 10 s after a ping without an answer."""
    opened = Opened()
    opened.connection.keep_alive(900)

    opened.sweeps(899)
    before = opened.transport.take()
    opened.sweeps(1)

    assert (before, opened.transport.take()) == (b"", PING_FRAME)


@pytest.mark.asyncio
async def test_silence_after_the_ping_closes_with_4010_and_cuts_off() -> None:
    """No answer for 10 s more: 4010; a peer that does not even take that is cut off."""
    opened = Opened()

    opened.sweeps(PING_S + PONG_S)
    sent = opened.transport.take()
    opened.sweeps(CLOSE_S + 1)
    opened.connection.connection_lost(None)

    assert sent == PING_FRAME + b"\x88\x09\x0f\xaano pong"
    assert opened.transport.is_aborted
    assert opened.handler.closes == [(Close.NO_PONG, "no pong")]


@pytest.mark.asyncio
async def test_draining_buffer_is_a_sign_of_life() -> None:
    """A slow reader whose buffer shrinks is not taken for dead: its pong waits behind the data."""
    opened = Opened()
    opened.transport.buffered = 1_000_000

    for _ in range(3 * (PING_S + PONG_S)):
        opened.transport.buffered -= 1000
        opened.sweeps(1)

    assert not opened.transport.has_written_end


@pytest.mark.asyncio
async def test_peer_that_never_answers_a_close_is_cut_off() -> None:
    """The closing handshake has 2 s."""
    opened = Opened()
    opened.handler.connection.close(4000)

    opened.sweeps(CLOSE_S)
    was_aborted = opened.transport.is_aborted
    opened.sweeps(1)

    assert (was_aborted, opened.transport.is_aborted) == (False, True)


# --- on real uvicorn ------------------------------------------------------------------------------


def test_uvicorn_constructs_a_ws_class_as_we_expect() -> None:
    """uvicorn's contract for ``ws=`` is not documented: these are the calls its HTTP protocols make."""
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    for implementation in (H11Protocol, HttpToolsProtocol):
        source = "".join(inspect.getsource(implementation.handle_websocket_upgrade).split())
        assert "self.ws_protocol_class(#type:ignore[call-arg,misc]config=self.config," in source
        assert "server_state=self.server_state,app_state=self.app_state,)" in source
        assert 'protocol.connection_made(self.transport)protocol.data_received(b"".join(output))' in source
        assert source.endswith("self.transport.set_protocol(protocol)")
    parameters = inspect.signature(WebSocketConnection).parameters
    assert list(parameters) == ["config", "server_state", "app_state", "_loop"]
    assert "connection.shutdown()" in inspect.getsource(uvicorn.Server.shutdown)


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.asyncio
async def test_http_and_websocket_share_one_port(http: str) -> None:
    """A library client talks to our class, and plain HTTP is answered on the same port."""
    handler = RecordingHandler(lambda connection, data, is_text: connection.send(data, binary=not is_text))
    protocol = make_protocol(lambda request: Accept(handler, "telemetry.v1"))

    async with serving(ws=protocol, http=http) as port, asyncio.timeout(10):
        async with connect(f"ws://127.0.0.1:{port}/v1/device", subprotocols=["telemetry.v1"]) as client:  # type: ignore[list-item]
            subprotocol = client.subprotocol
            await client.send("grün")
            await client.send(b"x" * 100_000)
            answers = [await client.recv(), await client.recv()]
            pong = await client.ping()
            await pong
        await handler.is_closed.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        plain = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert subprotocol == "telemetry.v1"
    assert answers == ["grün", b"x" * 100_000]
    assert handler.closes == [(1000, "")]
    assert plain.startswith(b"HTTP/1.1 404")


@pytest.mark.asyncio
async def test_refused_client_sees_the_status() -> None:
    """The library's client reads our refusal as an ordinary HTTP answer."""
    protocol = make_protocol(lambda request: Refuse(403, "forbidden", "not yours"))

    async with serving(ws=protocol) as port, asyncio.timeout(10):
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{port}/v1/device")

    assert caught.value.response.status_code == 403
    assert b"not yours" in caught.value.response.body


@pytest.mark.asyncio
async def test_oversize_message_closes_with_1009() -> None:
    """A frame over 256 KiB is refused without being read to its end."""
    handler = RecordingHandler()

    async with serving(ws=make_protocol(lambda request: Accept(handler))) as port, asyncio.timeout(10):
        client = await connect(f"ws://127.0.0.1:{port}/", compression=None)
        with pytest.raises(ConnectionClosed) as caught:
            await send_and_wait(client, b"x" * (256 * 1024 + 1))
        await handler.is_closed.wait()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009
    assert handler.messages == []


async def send_and_wait(client: ClientConnection, data: bytes) -> None:
    """Send, then wait for whatever comes."""
    await client.send(data)
    await client.recv()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_stopping_says_goodbye_and_ends_in_two_seconds() -> None:
    """uvicorn's stop: each peer reads the goodbye and 4000; one that never answers does not hold it up."""
    handlers: list[RecordingHandler] = []

    def upgrade(request: UpgradeRequest) -> Accept:
        handlers.append(RecordingHandler())
        return Accept(handlers[-1])

    async with asyncio.timeout(10):
        async with serving(ws=make_protocol(upgrade, goodbye=lambda: b'{"op":"bye"}')) as port:
            client = await connect(f"ws://127.0.0.1:{port}/")
            deaf_reader, deaf = await asyncio.open_connection("127.0.0.1", port)
            deaf.write(HANDSHAKE)
            await client.ping()
            await deaf_reader.readuntil(b"\r\n\r\n")
            started = asyncio.get_running_loop().time()
        took_s = asyncio.get_running_loop().time() - started
        received = await client.recv()
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        deaf.close()

    assert received == '{"op":"bye"}'
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4000
    assert all(len(handler.closes) == 1 for handler in handlers)
    assert took_s < 2


@pytest.mark.asyncio
async def test_never_reading_peer_is_bounded_and_told_when_it_drains() -> None:
    """A real socket that is not read pauses the writer at the high water mark; reading again resumes it."""
    handler = RecordingHandler()

    async with serving(ws=make_protocol(lambda request: Accept(handler))) as port, asyncio.timeout(20):
        client = await connect(f"ws://127.0.0.1:{port}/", compression=None, max_queue=1)
        await handler.is_opened.wait()
        sent = 0
        while handler.connection.buffered_bytes < 256 * 1024:
            handler.connection.send(b"x" * 65536)
            sent += 1
        for _ in range(sent):
            await client.recv()
        await handler.is_writable.wait()
        await client.close()

    assert handler.writable_count == 1


@pytest.mark.asyncio
async def test_tls_carries_messages_and_closes_cleanly(tmp_path: Path) -> None:
    """The same class over TLS: both sides see their close codes, and the request knows that it was encrypted."""
    files = make_certificates(tmp_path, ["127.0.0.1"], now=datetime.now(UTC))
    seen: list[UpgradeRequest] = []
    handler = RecordingHandler(lambda connection, data, is_text: connection.send(data))

    def upgrade(request: UpgradeRequest) -> Accept:
        seen.append(request)
        return Accept(handler)

    trust = ssl.create_default_context(cafile=str(files.ca))
    options = {"ssl_certfile": files.cert, "ssl_keyfile": files.key}
    async with serving(ws=make_protocol(upgrade), **options) as port, asyncio.timeout(10):
        client = await connect(f"wss://127.0.0.1:{port}/", ssl=trust, proxy=None)
        await client.send("x" * 200_000)
        answer = await client.recv()
        handler.connection.close(Close.TAKEN_OVER, "newer connection")
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        await handler.is_closed.wait()

    assert answer == "x" * 200_000
    assert seen[0].is_tls
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, handler.closes) == (4409, [(4409, "newer connection")])


@pytest.mark.asyncio
async def test_client_certificate_is_told_also_when_tls_is_resumed(tmp_path: Path) -> None:
    """The request has what TLS verified, in a full handshake and in a resumed one; without a certificate None."""
    now = datetime.now(UTC)
    files = make_certificates(tmp_path, ["127.0.0.1"], now=now)
    device = make_device_certificate(tmp_path, "pump", now=now)
    seen: list[UpgradeRequest] = []

    def upgrade(request: UpgradeRequest) -> Refuse:
        seen.append(request)
        return Refuse(401, "unauthenticated", "seen")

    options = {
        "ssl_certfile": files.cert, "ssl_keyfile": files.key, "ssl_ca_certs": files.ca,
        "ssl_cert_reqs": ssl.CERT_OPTIONAL,
    }  # fmt: skip
    trust = ssl.create_default_context(cafile=str(files.ca))
    showing = ssl.create_default_context(cafile=str(files.ca))
    showing.load_cert_chain(device.cert, device.key)

    sessions: list[ssl.SSLSession | None] = [None]
    resumed: list[bool | None] = []

    def ask(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), 10)
        with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as secure:
            secure.sendall(HANDSHAKE)
            while secure.recv(4096):
                pass
            sessions.append(secure.session)
            resumed.append(secure.session_reused)

    async with serving(ws=make_protocol(upgrade), **options) as port, asyncio.timeout(20):
        await asyncio.to_thread(ask, port, trust)
        await asyncio.to_thread(ask, port, showing)
        await asyncio.to_thread(ask, port, showing, sessions[-1])

    assert resumed == [False, False, True]
    assert seen[0].certificate is None
    certificates = [request.certificate for request in seen[1:]]
    assert [c is not None and (c.device, c.namespace, c.fingerprint) for c in certificates] == [
        ("pump", "default", device.fingerprint)
    ] * 2


# --- holding ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_held_connection_is_not_read_and_not_taken_for_dead() -> None:
    """Its pongs are not read either; a drained buffer or its next turn let nothing through."""
    opened = Opened()

    opened.connection.hold(True)
    opened.connection.pause_writing()
    opened.connection.resume_writing()
    opened.connection.data_received(client_frame(Opcode.BINARY, bytes(TURN_BYTES)))
    await asyncio.sleep(0)
    opened.sweeps(2 * (PING_S + PONG_S))
    assert (opened.transport.is_reading_paused, opened.transport.written) == (True, b"")

    opened.connection.hold(False)
    assert not opened.transport.is_reading_paused
    opened.sweeps(PING_S)
    assert opened.transport.written == PING_FRAME


@pytest.mark.asyncio
async def test_full_connection_is_not_read_when_it_is_let_go() -> None:
    """Whoever holds it does not know that."""
    opened = Opened()
    opened.connection.hold(True)
    opened.connection.pause_writing()

    opened.connection.hold(False)

    assert opened.transport.is_reading_paused
