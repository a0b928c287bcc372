"""An ASGI application's WebSocket on one of our connections.

Owns: the translation between `hub.gateway.websocket.Handler` and ASGI's websocket messages, with limits on both
sides. Place: gateway; only for applications of others (`hub.gateway.socket_io`), as ours need no task per connection.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp

from device_sdk.wire import Close
from hub.gateway.websocket import HIGH_WATER_BYTES, Connection, UpgradeRequest

_log = logging.getLogger("hub.gateway")

# What the application has not read yet: it reads one message per turn of the loop, which a flood outruns.
MAX_UNREAD_BYTES = 256 * 1024
# A message takes this at least, however short: else a flood of empty ones is counted as nothing.
_MESSAGE_BYTES = 256

Message = MutableMapping[str, Any]


class AsgiSocket:
    """Handler of one connection that ``app`` serves; ``send`` waits while the peer does not take what was sent.

    Args:
        takes: (message, is text) → whether the application can read it; what it cannot read closes with 4400.
        waits: begin the application with the first message, not with the connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        request: UpgradeRequest,
        *,
        takes: Callable[[bytes, bool], bool] = lambda *_: True,
        waits: bool = False,
    ) -> None:
        self._app = app
        self._takes = takes
        self._waits = waits
        self._task: asyncio.Task[None] | None = None
        self._scope = _scope(request)
        self._unread: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._unread_bytes = 0
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self.is_closed = False

    def end(self) -> None:
        """Close from the hub's side."""
        self._connection.close(1000)

    # --- what the connection calls -----------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Begin the application."""
        self._connection = connection
        if not self._waits:
            self._begin()

    def message(self, data: bytes, is_text: bool) -> None:
        """Hand one message over, or close on a peer that sends faster than the application reads."""
        if not self._takes(data, is_text):
            self._connection.close(Close.BAD_MESSAGE, "this cannot be read")
            return
        size = len(data) + _MESSAGE_BYTES
        if self._unread and self._unread_bytes + size > MAX_UNREAD_BYTES:
            self._connection.close(Close.RATE_LIMITED, "more than is read")
            return
        self._push({"type": "websocket.receive", **({"text": data.decode()} if is_text else {"bytes": data})}, size)
        if self._task is None:
            self._begin()

    def writable(self) -> None:
        """Let the application send again."""
        self._drained.set()

    def closed(self, code: int, reason: str) -> None:
        """Tell the application; what it still sends is refused."""
        self.is_closed = True
        self._push({"type": "websocket.disconnect", "code": code, "reason": reason}, 0)
        self._drained.set()

    # --- what the application calls ------------------------------------------------------------------------

    async def _receive(self) -> Message:
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        message, size = self._unread.popleft()
        self._unread_bytes -= size
        return message

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                text = message.get("text")
                self._connection.send(message["bytes"] if text is None else text.encode(), binary=text is None)
                await self._wait_drained()
            case "websocket.close":
                self._connection.close(message.get("code", 1000), message.get("reason") or "")
            case _:
                # websocket.accept: the handshake was answered before the application began.
                pass

    async def _wait_drained(self) -> None:
        while not self.is_closed and self._connection.buffered_bytes > HIGH_WATER_BYTES:
            self._drained.clear()
            # The transport may take it at the end of this turn without ever saying `writable`.
            await asyncio.sleep(0)
            if self._connection.buffered_bytes > HIGH_WATER_BYTES:
                await self._drained.wait()
        if self.is_closed:
            raise OSError("the connection is closed")

    # --- inside ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="asgi websocket")

    def _push(self, message: Message, size: int) -> None:
        self._unread.append((message, size))
        self._unread_bytes += size
        self._arrived.set()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:
            _log.exception("application failed path=%s", self._scope["path"])
            self._connection.close(Close.INTERNAL, "the hub failed; its log says why")
        else:
            self._connection.close(1000)


def _scope(request: UpgradeRequest) -> dict[str, Any]:
    host, _, port = request.peer.rpartition(":")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "wss" if request.is_tls else "ws",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": urlencode(request.query).encode(),
        "headers": _raw(request.headers),
        "client": (host.strip("[]"), int(port)) if port.isdecimal() else None,
        "subprotocols": list(request.subprotocols),
    }


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
