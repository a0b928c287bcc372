"""The bare ack servers of `bench_frames`: ours and ``websockets.serve``, each answering a frame with its number.

``python -m tests.bench.frame_server ours|websockets`` prints its port and
serves until stdin closes. No journal, no validation: the cost of frames alone.
"""

import asyncio
import sys
from contextlib import suppress

import uvicorn
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from hub.gateway.websocket import Accept, Connection, make_protocol
from tests.support.gateway import not_found


class AckHandler:
    """Counts messages and acks each at once."""

    def opened(self, connection: Connection) -> None:
        """Begin at 0."""
        self._connection = connection
        self._stored = 0

    def message(self, data: bytes, is_text: bool) -> None:
        """Ack."""
        self._stored += 1
        self._connection.send(b'{"op":"ack","stored":%d}' % self._stored)

    def writable(self) -> None:
        """Acks are small."""

    def closed(self, code: int, reason: str) -> None:
        """Nothing is kept."""


async def serve_ours() -> None:
    """Our protocol class on uvicorn."""
    config = uvicorn.Config(
        not_found, host="127.0.0.1", port=0, ws=make_protocol(lambda request: Accept(AckHandler())),
        lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(), name="uvicorn")
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await task


async def serve_websockets() -> None:
    """The library's own server, compression off."""

    async def ack(connection: ServerConnection) -> None:
        stored = 0
        with suppress(ConnectionClosed):
            async for _ in connection:
                stored += 1
                await connection.send(f'{{"op":"ack","stored":{stored}}}')

    async with serve(ack, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run({"ours": serve_ours, "websockets": serve_websockets}[sys.argv[1]]())
