"""One HTTP/1.1 request whose answer is read as it comes: the part that SSE and long poll share.

Owns: heads, chunked bodies, and how a cut looks. By hand, because clients in libraries read ahead and hide cuts.
"""

import asyncio
from contextlib import suppress

from tests.conformance.adapter import CONNECT_S, LostError, Place, RefusedError

# Little, so that a reader who stalls is felt by the server soon.
_LIMIT_BYTES = 64 * 1024


class HttpStream:
    """The answer to one GET."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.headers: dict[str, str] = {}
        self.status = 0
        self._left = 0

    @classmethod
    async def get(cls, place: Place, target: str, headers: dict[str, str]) -> "HttpStream":
        """Send the request and read the head. Raises as `Adapter.connect`; other states than 200 are `LostError`."""
        stream = await cls.ask(place, target, headers)
        try:
            await stream.head(CONNECT_S)
        except BaseException:
            stream.abort()
            raise
        return stream

    @classmethod
    async def ask(cls, place: Place, target: str, headers: dict[str, str]) -> "HttpStream":
        """Send the request; `head` must follow."""
        socket = place.open()
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(socket, (place.host, place.port))
                name = None if place.tls is None else place.server_name or place.host
                reader, writer = await asyncio.open_connection(
                    sock=socket, ssl=place.tls, server_hostname=name, limit=_LIMIT_BYTES
                )
        except BaseException as error:
            socket.close()
            if isinstance(error, OSError | TimeoutError):
                raise LostError(str(error)) from error
            raise
        given = {"Host": f"{place.server_name or place.host}:{place.port}", **headers}
        if place.token is not None:
            given["Authorization"] = f"Bearer {place.token}"
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return cls(reader, writer)

    async def head(self, limit_s: float) -> None:
        """Read the head. Raises as `get`."""
        try:
            async with asyncio.timeout(limit_s):
                await self._read_head()
        except TimeoutError as error:
            raise LostError("no answer") from error

    async def some(self) -> bytes:
        """Return the next bytes of a chunked body, as soon as there are any; empty: it ended as it should."""
        if not self._left:
            # Chunks are as large as the server likes: what has come of one is not kept back until it is whole.
            self._left = int((await self._line()).partition(b";")[0], 16)
            if not self._left:
                return b""
        try:
            data = await self._reader.read(self._left)
        except OSError as error:
            raise LostError(str(error)) from error
        if not data:
            raise LostError("cut inside a chunk")
        self._left -= len(data)
        if not self._left:
            await self._line()
        return data

    async def body(self) -> bytes:
        """Return the whole body."""
        if self.headers.get("transfer-encoding") != "chunked":
            return await self._exactly(int(self.headers["content-length"]))
        parts = []
        while part := await self.some():
            parts.append(part)
        return b"".join(parts)

    def abort(self) -> None:
        """Drop the connection at once."""
        with suppress(OSError):
            self._writer.transport.abort()

    async def _read_head(self) -> None:
        self.status = int((await self._line()).split(b" ")[1])
        while line := await self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip().lower()
        if self.status in (401, 403):
            raise RefusedError(f"status {self.status}")
        if self.status != 200:
            raise LostError(f"status {self.status}")

    async def _line(self) -> bytes:
        try:
            return (await self._reader.readuntil(b"\r\n"))[:-2]
        except (OSError, asyncio.IncompleteReadError) as error:
            raise LostError(str(error)) from error

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise LostError(str(error)) from error
