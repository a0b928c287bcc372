"""`HubModel` behind a real WebSocket: the smallest hub a real device can talk to.

Runs in its own thread, so that both forms of `Device` meet the same thing: a
peer that shares nothing with them but a socket. Every wait has a limit.
"""

import asyncio
import http
import json
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from device_sdk.envelope import ENVELOPED, unwrap, wrap
from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, Bye, encode
from tests.support.hub_model import HubConversation, HubModel

LIMIT_S = 10.0
# After which a connection that was accepted in the last moment has been made, and reset.
_ACCEPTING_TURNS = 10


class _Connection(ServerConnection):
    """A connection that is known from its first moment."""

    def __init__(self, transports: set[asyncio.Transport], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        self._transports.add(cast(asyncio.Transport, transport))
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._transports.discard(self.transport)
        super().connection_lost(exc)


class FakeHub:
    """A hub on a free port of the loopback.

    Args:
        model: what it has stored; give the same model to a second `FakeHub` to restart a hub.
        token: the token a device must send; None takes anyone.
        port: 0 takes a free one.
        tls: context for ``wss``.

    Attributes:
        is_acking: set to False to store without telling anyone.
        is_storing: set to False to read and forget.
        refused: what to say to a device behind a gateway instead of welcome, by its name.
    """

    def __init__(
        self,
        model: HubModel | None = None,
        *,
        token: str | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        subprotocol: str | None = DEVICE_SUBPROTOCOL,
    ) -> None:
        self.model = model or HubModel()
        self.is_acking = True
        self.is_storing = True
        self.refused: dict[str, Bye] = {}
        self.connections = 0
        self.refusals = 0
        self.frames_seen = 0
        self._token = token
        self.port = port
        self._tls = tls
        self._subprotocol = subprotocol
        self._open: set[ServerConnection] = set()
        # Also of connections that have not said what they want: without them the end would wait for a handshake.
        self._transports: set[asyncio.Transport] = set()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="fake-hub", daemon=True)

    @property
    def url(self) -> str:
        """Where devices connect."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(lambda: self._server is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Go away at once, as a killed process does: connections reset, nothing said."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._abort)
            self._thread.join(LIMIT_S)
            assert not self._thread.is_alive(), "the fake hub stops"

    def cut(self) -> None:
        """Reset every connection; the hub stays."""
        self._do(self._abort_connections)

    def send(self, message: bytes) -> None:
        """Say something to every device."""
        self._do(lambda: [self._loop.create_task(c.send(message.decode())) for c in self._open])

    def close(self, code: int, reason: str = "") -> None:
        """Close every connection with a code."""
        self._do(lambda: [self._loop.create_task(c.close(code, reason)) for c in self._open])

    def wait_for(self, condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait until something the hub sees makes ``condition`` true; fail after ``limit_s``."""
        with self._changed:
            assert self._changed.wait_for(condition, limit_s), "the fake hub waited in vain"

    # --- on the hub's own thread ---------------------------------------------------------------

    def _do(self, act: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(LIMIT_S), "the fake hub's loop answers"

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def _abort(self) -> None:
        assert self._server is not None, "a running hub has a server"
        self._server.close(close_connections=False)
        self._abort_connections()
        self._stopped.set()

    def _abort_connections(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        server = await serve(
            self._handle, "127.0.0.1", self.port, ssl=self._tls, compression=None, ping_interval=None,
            subprotocols=None if self._subprotocol is None else [Subprotocol(self._subprotocol)],
            process_request=self._check,
            create_connection=cast("type[ServerConnection]", partial(_Connection, self._transports)),
        )  # fmt: skip
        self.port = next(iter(server.sockets)).getsockname()[1]
        self._server = server
        self._notify()
        await self._stopped.wait()
        for _ in range(_ACCEPTING_TURNS):
            await asyncio.sleep(0)
            self._abort_connections()
        await server.wait_closed()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path != DEVICE_PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "no such path\n")
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            self.refusals += 1
            self._notify()
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "unknown token\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        self._open.add(connection)
        self._notify()
        # Behind a gateway each number is a device's; 0 is the device that is alone.
        conversations: defaultdict[int, HubConversation] = defaultdict(lambda: HubConversation(self.model))
        try:
            async for message in connection:
                data = message.encode() if isinstance(message, str) else message
                is_wrapped = data.startswith((b'{"n":', ENVELOPED))
                number, data = unwrap(data) if is_wrapped else (0, data)
                await self._answer(connection, number, conversations[number], data)
                self._notify()
        except ConnectionClosed:
            self.model.crash()
        finally:
            self._open.discard(connection)
            self._notify()

    async def _answer(
        self, connection: ServerConnection, number: int, conversation: HubConversation, data: bytes
    ) -> None:
        self.frames_seen += 1
        if number and self.refused and data.startswith(b'{"op":"hello"'):
            bye = self.refused.get(json.loads(data)["device"])
            if bye is not None:
                await connection.send(wrap(number, encode(bye)).decode())
                return
        if not self.is_storing and not data.startswith((b'{"op":"hello"', b'{"op":"schema"')):
            return
        answers = conversation.receive(data) + conversation.commit()
        for answer in answers:
            if self.is_acking or not answer.startswith(b'{"op": "ack"'):
                await connection.send((wrap(number, answer) if number else answer).decode())
