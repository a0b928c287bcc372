"""Whoever knocks at a hub, without a port: WebSocket upgrades through `Hub.upgrade`, event streams through its app.

Each keeps what it was told; `until` waits for more without polling, `leave` hangs up.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, WATCH_PATH, WATCH_SUBPROTOCOL
from hub.app import Hub
from hub.gateway.websocket import Refuse, UpgradeRequest
from tests.support.fake_connection import FakeConnection

WAIT_S = 20.0
_SUBPROTOCOLS = {DEVICE_PATH: DEVICE_SUBPROTOCOL, WATCH_PATH: WATCH_SUBPROTOCOL}


def bearer(token: str | None) -> dict[str, str]:
    """Return the headers of a request with that token, if any."""
    return {} if token is None else {"authorization": f"Bearer {token}"}


class Socket:
    """One WebSocket; ``status`` 101: it is open."""

    def __init__(self, hub: Hub, path: str, token: str | None) -> None:
        request = UpgradeRequest(path, {}, bearer(token), "192.0.2.1:5000", False, (_SUBPROTOCOLS[path],))
        self.answer = hub.upgrade(request)
        self.connection = FakeConnection()
        self._messages: list[dict[str, Any]] = []
        self._heard = asyncio.Event()
        self.connection.on_send = self._heard.set
        if not isinstance(self.answer, Refuse):
            self.answer.handler.opened(self.connection)

    @property
    def status(self) -> int:
        """The status of the upgrade."""
        return self.answer.status if isinstance(self.answer, Refuse) else 101

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Everything that was said so far."""
        self._messages += self.connection.take()
        return self._messages

    @property
    def text(self) -> str:
        """Everything that was said so far, also in a refusal or a close."""
        ends = self.answer.message if isinstance(self.answer, Refuse) else str(self.connection.closed_with)
        return json.dumps(self.messages) + ends

    @property
    def code(self) -> int | None:
        """What the hub closed it with."""
        return None if self.connection.closed_with is None else self.connection.closed_with[0]

    def say(self, data: bytes, is_text: bool = True) -> None:
        """Send one message."""
        assert not isinstance(self.answer, Refuse), self.answer
        self.answer.handler.message(data, is_text)

    def ask(self, **message: Any) -> None:
        """Send one JSON message."""
        self.say(json.dumps(message).encode())

    async def until(self, op: str, count: int = 1) -> dict[str, Any]:
        """Return the message number ``count`` of that op as soon as it was said."""
        async with asyncio.timeout(WAIT_S):
            while len(found := [m for m in self.messages if m["op"] == op]) < count:
                self._heard.clear()
                await self._heard.wait()
        return found[count - 1]

    def leave(self) -> None:
        """Hang up."""
        if not isinstance(self.answer, Refuse):
            self.answer.handler.closed(1000, "")


class EventStream:
    """One ``GET /v1/watch``; ``text`` is the body so far. Use as ``async with``: its end hangs up."""

    def __init__(self, app: ASGIApp, token: str | None, query: str = "") -> None:
        self.status = 0
        self.text = ""
        self._app = app
        self._heard = asyncio.Event()
        self._left = asyncio.Event()
        headers = [(b"host", b"192.0.2.9"), *((k.encode(), v.encode()) for k, v in bearer(token).items())]
        self._scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": WATCH_PATH, "raw_path": WATCH_PATH.encode(), "query_string": query.encode(),
            "root_path": "", "headers": headers, "client": ("192.0.2.1", 5000), "server": ("192.0.2.9", 80),
        }  # fmt: skip

    async def __aenter__(self) -> "EventStream":
        self._task = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))
        await self._wait(lambda: self.status != 0 and (self.status != 200 or bool(self.text)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._left.set()
        await self._task

    async def until(self, op: str, count: int = 1) -> None:
        """Wait until events of that name were sent."""
        await self._wait(lambda: self.text.count(f"event: {op}\n") >= count)

    async def _wait(self, is_met: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_met():
                self._heard.clear()
                await self._heard.wait()

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        self._heard.set()
