"""A real uvicorn on port 0 inside the test's own loop, and a handler that writes down what it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from hub.gateway.websocket import Connection, WebSocketConnection


class RecordingHandler:
    """Keeps every call; answers through ``on_message`` when given one."""

    def __init__(self, on_message: Callable[[Connection, bytes, bool], None] | None = None) -> None:
        self.messages: list[tuple[bytes, bool]] = []
        self.closes: list[tuple[int, str]] = []
        self.writable_count = 0
        self.is_closed = asyncio.Event()
        self.is_opened = asyncio.Event()
        self.is_writable = asyncio.Event()
        self._on_message = on_message

    def opened(self, connection: Connection) -> None:
        """Keep the connection."""
        self.connection = connection
        self.is_opened.set()

    def message(self, data: bytes, is_text: bool) -> None:
        """Keep the message, then do what the test wants."""
        self.messages.append((data, is_text))
        if self._on_message is not None:
            self._on_message(self.connection, data, is_text)

    def writable(self) -> None:
        """Count."""
        self.writable_count += 1
        self.is_writable.set()

    def closed(self, code: int, reason: str) -> None:
        """Keep code and reason."""
        self.closes.append((code, reason))
        self.is_closed.set()


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI app: 404 for everything."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(
    app: Any = not_found, *, ws: type[WebSocketConnection] | None = None, **options: Any
) -> AsyncIterator[int]:
    """Serve until the block ends; gives the port."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, ws=ws or "none", lifespan="off", log_config=None, access_log=False,
        timeout_graceful_shutdown=2, **options,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(), name="uvicorn")
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await asyncio.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task
