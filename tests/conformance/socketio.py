"""Node Socket.IO with connection state recovery, beside ours in the table: a target and an adapter.

Owns: the server's process, and its protocol (Engine.IO 4, Socket.IO 5) as far as watching needs it. Recovery is what
its documentation says: the client keeps the private session id and the offset of the last packet, and sends both
when it connects again; `recovered` is that the server answers with the same session id. Installed from npm into a
cache folder.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.conformance.adapter import NOTHING, Connection, Got, LostError, Place, Value, Wish
from tests.conformance.target import RESTART
from tests.conformance.websocket import open_websocket, receive_text

VERSION = "4.8.4"
INSTALL_LIMIT_S = 180.0
PATH = "/socket.io/?EIO=4&transport=websocket"
_SERVER = Path(__file__).with_name("socketio_server.cjs")
_LAST_WORD_S = 5.0


class SocketIoAdapter:
    """A cursor is ``<session> <offset>``."""

    name = "socket.io"
    cut_within = 128 * 1024
    answer_bytes: int | None = None

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """See `Adapter`."""
        connection = SocketIoConnection(await open_websocket(place, PATH), wish.since)
        try:
            await connection.ask()
        except BaseException:
            connection.abort()
            raise
        return connection


class SocketIoConnection:
    """One session on one WebSocket."""

    def __init__(self, socket: ClientConnection, since: str | None) -> None:
        self._socket = socket
        self._session, _, self._offset = (since or "").partition(" ")
        self._is_resuming = since is not None

    async def ask(self) -> None:
        """Ask for the namespace, with what is kept of the session."""
        await receive_text(self._socket)
        kept = {"pid": self._session, **({"offset": self._offset} if self._offset else {})}
        await self._send(f"40{json.dumps(kept)}" if self._session else "40")

    async def receive(self) -> Got:
        """See `Connection`."""
        text = await receive_text(self._socket)
        assert isinstance(text, str), "nothing here is binary"
        if text == "2":
            await self._send("3")
            return NOTHING
        if text.startswith("40"):
            return self._welcome(json.loads(text[2:])["pid"])
        if not text.startswith("42"):
            raise LostError(text[:100])
        _, series, numbers, _, self._offset = json.loads(text[2:])
        return Got([Value(series, number) for number in numbers], self._cursor())

    def abort(self) -> None:
        """See `Connection`."""
        self._socket.transport.abort()

    def _welcome(self, session: str) -> Got:
        is_recovered = session == self._session
        if not is_recovered:
            self._session, self._offset = session, ""
        if self._is_resuming and not is_recovered:
            return Got(cursor=self._cursor(), reset="not recovered", is_live=True)
        return Got(cursor=self._cursor(), recovered=self._is_resuming or None, is_live=True)

    def _cursor(self) -> str:
        return f"{self._session} {self._offset}".rstrip()

    async def _send(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise LostError(str(error)) from error


class SocketIoServer:
    """The server's process; numbers are sent when they are produced, and kept for nobody but sessions."""

    name = "socket.io"
    can = frozenset({RESTART})
    device = "*"
    series: tuple[str, ...] = ("a/n", "b/n")

    def __init__(self, modules: Path, arrive_s: float) -> None:
        self.arrive_s = arrive_s
        self.produced = 0
        self._modules = modules
        self._process: asyncio.subprocess.Process | None = None
        self.place = Place("127.0.0.1", 0)

    async def produce(self, count: int, padding: int = 0) -> None:
        """See `Target`. Those that a server had not sent when it was killed are no readings."""
        process, wanted = self._process, self.produced + count
        assert process is not None, "start it first"
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        process.stdin.write(f"{count} {self.produced} {padding}\n".encode())
        while self.produced < wanted and (line := await process.stdout.readline()):
            self.produced = int(line)

    async def kill(self) -> None:
        """See `Target`."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def start(self) -> None:
        """See `Target`."""
        environment = {**os.environ, "NODE_PATH": str(self._modules)}
        self._process = await asyncio.create_subprocess_exec(
            "node", str(_SERVER), str(self.place.port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        assert self._process.stdout is not None, "it is a pipe"
        self.place = Place("127.0.0.1", int(await self._process.stdout.readline()))

    async def back_up(self) -> None:
        """Not here: it keeps nothing."""
        raise NotImplementedError

    restore = back_up

    def token(self, seconds: float) -> str:
        """Not here."""
        raise NotImplementedError


@asynccontextmanager
async def socketio_server(cache: Path) -> AsyncIterator[SocketIoServer]:
    """Run a server while in the block.

    Raises:
        OSError, subprocess.SubprocessError: it could not be installed.
    """
    server = SocketIoServer(await asyncio.to_thread(_installed, cache), _LAST_WORD_S)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def _installed(cache: Path) -> Path:
    """Return the folder of the packages, installing them when they are not there."""
    folder = cache / f"socket.io-{VERSION}"
    mark = folder / "installed"
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", f"socket.io@{VERSION}"]
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_LIMIT_S, capture_output=True)
        mark.touch()
    return folder / "node_modules"
