"""The hub's WebSocket as an adapter: ``/v1/watch``, subprotocol ``watch.v1``."""

import asyncio
import json
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tests.conformance.adapter import CONNECT_S, Connection, Got, LostError, Place, RefusedError, Wish
from tests.conformance.watch_v1 import Decoder

UNAUTHENTICATED, FORBIDDEN = 4401, 4403


class WebSocketAdapter:
    """Connects, and sends one ``sub``."""

    name = "ws"
    cut_within = 128 * 1024
    answer_bytes: int | None = None

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """See `Adapter`."""
        socket = await open_websocket(place, "/v1/watch", "watch.v1")
        asked: dict[str, object] = {"id": 1, "op": "sub", "sub": "s1", "match": wish.match}
        if wish.since is not None:
            asked["since"] = wish.since
        if wish.max_hz is not None:
            asked |= {"mode": "latest", "max_hz": wish.max_hz}
        connection = WebSocketConnection(socket)
        try:
            await socket.send(json.dumps(asked))
        except ConnectionClosed as error:
            raise LostError(str(error)) from error
        except BaseException:
            connection.abort()
            raise
        return connection


class WebSocketConnection:
    """One subscription on one socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._decoder = Decoder()

    async def receive(self) -> Got:
        """See `Connection`."""
        return self._decoder.take(json.loads(await receive_text(self._socket)))

    def abort(self) -> None:
        """See `Connection`."""
        self._socket.transport.abort()


async def open_websocket(place: Place, path: str, subprotocol: str | None = None) -> ClientConnection:
    """Return an open WebSocket that reads nothing ahead. Raises as `Adapter.connect`."""
    socket = place.open()
    scheme = "ws" if place.tls is None else "wss"
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(socket, (place.host, place.port))
            return await connect(
                f"{scheme}://{place.server_name or place.host}:{place.port}{path}",
                subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)],
                additional_headers={} if place.token is None else {"Authorization": f"Bearer {place.token}"},
                sock=socket, ssl=place.tls, compression=None, max_size=None, max_queue=1, ping_interval=None,
                open_timeout=None, proxy=None,
            )  # fmt: skip
    except InvalidStatus as error:
        _close(socket)
        if error.response.status_code in (401, 403):
            raise RefusedError(str(error)) from error
        raise LostError(str(error)) from error
    except (OSError, TimeoutError, WebSocketException, EOFError) as error:
        _close(socket)
        raise LostError(str(error)) from error
    except BaseException:
        _close(socket)
        raise


async def receive_text(socket: ClientConnection) -> str | bytes:
    """Return the next message. Raises as `Connection.receive`."""
    try:
        return await socket.recv()
    except ConnectionClosed as error:
        if error.rcvd is not None and error.rcvd.code in (UNAUTHENTICATED, FORBIDDEN):
            raise RefusedError(str(error)) from error
        raise LostError(str(error)) from error


def _close(socket: object) -> None:
    with suppress(OSError):
        socket.close()  # type: ignore[attr-defined]
