"""`hub.gateway.handshake`: a head that does not come ends the connection; requests and upgrades are left alone."""

import asyncio
import contextlib

import httpx
import pytest
from websockets.asyncio.client import connect

from hub.gateway.handshake import HEAD_S, make_http_protocol
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import Accept, make_protocol
from tests.support.gateway import RecordingHandler, serving


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
