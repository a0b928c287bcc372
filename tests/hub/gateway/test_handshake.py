"""`hub.gateway.handshake`: a head that does not come ends the connection; requests and upgrades are left alone."""

import asyncio
import contextlib
import gc
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.http11 import Request

from hub.gateway.handshake import (
    ABORT,
    HEAD_S,
    MAX_HEAD_BYTES,
    MAX_WAITING,
    STALL_S,
    GuardedHttp,
    make_http_protocol,
)
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import Accept, make_protocol
from tests.support.gateway import RecordingHandler, serving
from tests.support.raw_socket import connected, upgrade

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Stream:
    """An answer that begins with ``first`` and goes on until the client leaves."""

    def __init__(self, first: bytes = b"begun") -> None:
        self.first = first
        self.has_begun = asyncio.Event()
        self.is_left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.first, "more_body": True})
        self.has_begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_left.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("head", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "byte", "part"])
async def test_incomplete_head_is_closed_after_ten_seconds(head: bytes) -> None:
    """Slow or silent clients do not hold a connection; each byte does not buy more time."""
    sweep = Sweep(3600)

    async with serving(http=make_http_protocol(sweep)) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        while not len(sweep):  # noqa: ASYNC110 (the server accepts in its own time)
            await asyncio.sleep(0.005)
        for _ in range(HEAD_S):
            sweep.run()
        is_swept_early = len(sweep) == 0
        sweep.run()
        end = b""
        # Closing before the server has read what was sent is a reset.
        with contextlib.suppress(ConnectionResetError):
            end = await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()

    assert (is_swept_early, end, len(sweep)) == (False, b"", 0)


@pytest.mark.asyncio
async def test_requests_and_upgrades_are_not_limited() -> None:
    """A complete head takes the connection out of the sweep; a second request on it puts it in and out again."""
    sweep = Sweep(3600)
    handler = RecordingHandler(lambda connection, data, is_text: connection.send(data))
    protocol = make_protocol(lambda request: Accept(handler), sweep=Sweep(3600))

    async with serving(http=make_http_protocol(sweep), ws=protocol) as port, asyncio.timeout(10):
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = [(await client.get(f"http://127.0.0.1:{port}/")).status_code for _ in range(2)]
            between = len(sweep)
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as websocket:
            for _ in range(HEAD_S + 2):
                sweep.run()
            await websocket.send("still here")
            answer = await websocket.recv()

    assert (answers, between, answer) == ([404, 404], 0, "still here")


@pytest.mark.asyncio
async def test_who_leaves_with_a_further_request_behind_a_stream_is_noticed() -> None:
    """The stream ends, though the last request of the connection is the one that waits for it."""
    stream = Stream()

    async with serving(stream, http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST * 2)
        await reader.readuntil(b"begun")
        writer.close()
        await writer.wait_closed()

        await stream.is_left.wait()


@pytest.mark.asyncio
async def test_an_upgrade_in_the_middle_of_an_answer_is_no_upgrade() -> None:
    """The connection ends, and with it the answer; frames among its bytes would be neither."""
    stream, handler = Stream(), RecordingHandler()
    protocol = make_protocol(lambda request: Accept(handler), sweep=Sweep(3600))

    async with serving(stream, http=make_http_protocol(Sweep(3600)), ws=protocol) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + upgrade("/", "any"))
        answer = await reader.read()
        await stream.is_left.wait()
        writer.close()
        await writer.wait_closed()

    assert b"101" not in answer
    assert not handler.is_opened.is_set()


@pytest.mark.asyncio
async def test_an_answer_that_nobody_takes_is_cut_off() -> None:
    """After a minute in which not a byte was taken, not before; what was kept for the client goes with it."""
    sweep = Sweep(3600)
    stream = Stream(bytes(8 * 1024 * 1024))

    async with serving(stream, http=make_http_protocol(sweep)) as port, asyncio.timeout(10):
        with connected(port, receive_buffer=4096) as client:
            client.sendall(REQUEST)
            await stream.has_begun.wait()
            sweeps = 0
            while not stream.is_left.is_set():
                sweep.run()
                sweeps += 1
                await asyncio.sleep(0.001)

    assert STALL_S < sweeps < 3 * STALL_S
    assert len(sweep) == 0


@pytest.mark.asyncio
async def test_an_answer_that_is_taken_slowly_is_not_cut_off() -> None:
    """However long it takes, while some of it is taken between two sweeps."""
    sweep = Sweep(3600)
    size = 16 * 1024 * 1024
    stream = Stream(bytes(size))

    async with serving(stream, http=make_http_protocol(sweep)) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < size:
            taken += len(await reader.read(65536))
            if taken % 3 == 0:
                sweep.run()
        is_left = stream.is_left.is_set()
        writer.close()
        await writer.wait_closed()

    assert not is_left


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"GET /", b"a" * 65536), (b"GET / HTTP/1.1\r\nX: ", b"a" * 65536), (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
     (b"GET / HTTP/1.1\r\n", b"a" * 65536), (b"", b"\r\n" * 32768), (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
     (CHUNKED + b"0\r\nX: ", b"a" * 65536), (CHUNKED + b"1;", b"a" * 65536)],
    ids=["address", "header", "headers", "name", "lines", "trailers", "trailer", "extension"],
)  # fmt: skip
async def test_a_head_without_end_is_refused(begin: bytes, more: bytes) -> None:
    """Whatever its form, and behind a body too: nothing that a stranger sends is kept for long."""
    async with serving(http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MAX_HEAD_BYTES:
                writer.write(more)
                await writer.drain()
                sent += len(more)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    assert sent < 64 * MAX_HEAD_BYTES


@pytest.mark.asyncio
async def test_who_sends_too_large_a_head_is_told() -> None:
    """431 in the hub's words, and the connection ends."""
    async with serving(http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD_BYTES + 1))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"reason":"too_large"' in answer


@pytest.mark.asyncio
async def test_a_body_in_tiny_pieces_is_no_head() -> None:
    """What frames the pieces is longer than they are, and counts for nothing."""

    async def count(scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % size})

    async with serving(count, http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
        answer = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert b"\r\n100000\r\n" in answer


@pytest.mark.asyncio
@pytest.mark.parametrize("last", [b"", b"-end"])
async def test_a_client_of_http_1_0_gets_no_chunks(last: bytes) -> None:
    """It would take their sizes for text; its answer ends with the connection."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await send({"type": "http.response.body", "body": last})

    async with serving(answer, http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
        writer.close()
        await writer.wait_closed()

    assert body == b"begun" + last
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


@pytest.mark.asyncio
async def test_a_websocket_holds_nothing_of_its_handshake() -> None:
    """10,000 watchers that wait: neither what read the request nor the request itself stays, not until a collection."""
    protocol = make_protocol(lambda request: Accept(RecordingHandler()), sweep=Sweep(3600))
    gc.collect()
    gc.disable()
    try:
        async with serving(http=make_http_protocol(Sweep(3600)), ws=protocol) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0)
            held = [one for one in gc.get_objects() if isinstance(one, Request | GuardedHttp)]
            writer.close()
            await writer.wait_closed()
    finally:
        gc.enable()

    assert held == []


@pytest.mark.asyncio
async def test_few_requests_may_wait_for_an_answer() -> None:
    """Some are answered in their order; with more the connection ends, and none of them is kept."""
    stream = Stream()

    async with asyncio.timeout(10):
        async with serving(http=make_http_protocol(Sweep(3600))) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST * (1 + MAX_WAITING))
            for _ in range(1 + MAX_WAITING):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
            writer.close()
            await writer.wait_closed()
        async with serving(stream, http=make_http_protocol(Sweep(3600))) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            begin = await reader.readuntil(b"begun\r\n")
            writer.write(REQUEST * (1 + MAX_WAITING))
            rest = await reader.read()
            await stream.is_left.wait()
            writer.close()
            await writer.wait_closed()

    assert (begin[:13], rest) == (b"HTTP/1.1 200 ", b"")


@pytest.mark.asyncio
async def test_what_cannot_be_parsed_has_no_answer_amid_another() -> None:
    """It would stand among the bytes of a stream; the connection ends."""
    stream = Stream()

    async with serving(stream, http=make_http_protocol(Sweep(3600))) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await reader.readuntil(b"begun\r\n")
        writer.write(b"\0\r\n\r\n")
        rest = await reader.read()
        await stream.is_left.wait()
        writer.close()
        await writer.wait_closed()

    assert rest == b""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("head", "more"),
    [(REQUEST, b"\r\n"), (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", b"ab"),
     (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", b"a")],
    ids=["line", "body", "part of a body"],
)  # fmt: skip
async def test_what_comes_behind_an_answer_holds_no_connection(head: bytes, more: bytes) -> None:
    """Neither empty lines nor the body of a request that was refused by its head: a further request has ten seconds."""
    sweep = Sweep(3600)

    async with serving(http=make_http_protocol(sweep)) as port, asyncio.timeout(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(more)
        while not len(sweep):  # noqa: ASYNC110 (the server reads in its own time)
            await asyncio.sleep(0.005)
        for _ in range(HEAD_S + 1):
            sweep.run()
        end = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert (end, len(sweep)) == (b"", 0)


class LeftOver:
    """An answer of which the kernel takes all but some KB, less than anybody is told of."""

    def __init__(self) -> None:
        self.is_done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.transport = scope["extensions"][ABORT]["abort"].__self__
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while self.transport.get_write_buffer_size() < 8192:
            await send({"type": "http.response.body", "body": bytes(4096), "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})
        self.is_done.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("further", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
async def test_the_end_of_an_answer_that_nobody_takes_is_cut_off(further: bytes) -> None:
    """A close alone waits until all was taken, for ever."""
    sweep = Sweep(3600)
    answer = LeftOver()

    async with serving(answer, http=make_http_protocol(sweep)) as port, asyncio.timeout(10):
        with connected(port, receive_buffer=4096) as client:
            client.sendall(REQUEST[:-2] + further + b"\r\n")
            await answer.is_done.wait()
            sweeps = 0
            while answer.transport.get_write_buffer_size() and sweeps < 3 * STALL_S:
                sweep.run()
                sweeps += 1
                await asyncio.sleep(0.001)

    assert STALL_S < sweeps < 3 * STALL_S
    assert len(sweep) == 0


@pytest.mark.asyncio
async def test_an_upgrade_behind_an_answer_that_is_not_taken_is_no_upgrade() -> None:
    """What the transport says of its buffer would come to the wrong protocol, which then cut the WebSocket off."""
    sweep, handler = Sweep(3600), RecordingHandler()
    is_done = asyncio.Event()
    protocol = make_protocol(lambda request: Accept(handler), sweep=Sweep(3600))

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(8 * 1024 * 1024)})
        is_done.set()

    async with serving(large, http=make_http_protocol(sweep), ws=protocol) as port, asyncio.timeout(10):
        with connected(port, receive_buffer=4096) as client:
            client.sendall(REQUEST)
            await is_done.wait()
            client.sendall(upgrade("/", "any"))
            sweeps = 0
            while len(sweep) and sweeps < 3 * STALL_S:
                sweep.run()
                sweeps += 1
                await asyncio.sleep(0.005)

    assert not handler.is_opened.is_set()
    assert len(sweep) == 0
