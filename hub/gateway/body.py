"""The body of a request as it arrives: unpacked, in bounded pieces, no more of it than a limit.

Owns: content encodings, limits of size and time. Place: below `hub.gateway.http`'s routes that take what is no JSON.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from hub.errors import BadRequestError, HubError

# Between two pieces; a sensor's modem may take seconds for one.
PIECE_S = 20.0
# Of a request as a whole, so that nobody holds one of the few that may be under way.
WHOLE_S = 300.0
_UNPACKED_BYTES = 64 * 1024
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class TooLargeError(HubError):
    """The body is larger than this route takes: send it in several requests."""

    status = 413
    reason = "too_large"


class UnsupportedMediaError(HubError):
    """The body's type or encoding is not one that this route takes."""

    status = 415
    reason = "unsupported_media_type"


class Body:
    """The body of one request; iterate `pieces` once, or take all by `whole`.

    Args:
        piece_s, whole_s: how long the next piece, and all of it, may take.

    ``received``: bytes that have arrived, packed as they were.
    """

    def __init__(self, request: Request, *, piece_s: float = PIECE_S, whole_s: float = WHOLE_S) -> None:
        self.received = 0
        self._request = request
        self._piece_s, self._whole_s = piece_s, whole_s

    @property
    def content_type(self) -> str:
        """Return what it is said to be, without parameters, in lower case."""
        return self._request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def whole(self, most: int) -> bytes:
        """Return all of it, unpacked; raises as `pieces`."""
        body = bytearray()
        async for piece in self.pieces(most):
            body += piece
        return bytes(body)

    async def pieces(self, most: int) -> AsyncIterator[bytes]:
        """Yield it unpacked, 64 KiB at a time or what one read brought.

        Args:
            most: bytes, as they arrive and as they are unpacked.

        Raises:
            TooLargeError: there are more.
            UnsupportedMediaError: it is packed in a way that is not known here.
            BadRequestError: it stops before its end, or is packed wrongly.
        """
        encoding = self._request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "") and encoding not in _WINDOW_BITS:
            raise UnsupportedMediaError(f"Content-Encoding {encoding[:40]!r}: use gzip, deflate or none")
        pieces = self._received(most)
        if encoding in _WINDOW_BITS:
            pieces = _unpacked(pieces, _WINDOW_BITS[encoding])
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > most:
                raise TooLargeError(f"the body is over {most} bytes unpacked: send it in several requests")
            yield piece

    async def _received(self, most: int) -> AsyncIterator[bytes]:
        if int(self._request.headers.get("content-length", "0")) > most:
            raise TooLargeError(f"the body is over {most} bytes: send it in several requests")
        clock = asyncio.get_running_loop().time
        stream, ends = self._request.stream().__aiter__(), clock() + self._whole_s
        while True:
            try:
                # Around the read alone: whoever takes the pieces is not to be cancelled for it.
                async with asyncio.timeout(min(self._piece_s, ends - clock())):
                    piece = await anext(stream, None)
            except TimeoutError as error:
                raise BadRequestError(
                    f"the body did not go on within {self._piece_s:g} s, or end within {self._whole_s:g} s"
                ) from error
            except ClientDisconnect as error:
                raise BadRequestError("the client went away") from error
            if piece is None:
                return
            self.received += len(piece)
            if self.received > most:
                raise TooLargeError(f"the body is over {most} bytes: send it in several requests")
            yield piece


async def _unpacked(pieces: AsyncIterator[bytes], bits: int) -> AsyncIterator[bytes]:
    """Yield what packed pieces hold, never more of a bomb than is asked for; packed files may follow each other."""
    unpacker = zlib.decompressobj(bits)
    try:
        async for piece in pieces:
            while piece:
                if unpacker.eof:
                    unpacker = zlib.decompressobj(bits)
                data = unpacker.decompress(piece, _UNPACKED_BYTES)
                if data:
                    yield data
                piece = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise BadRequestError(f"the body is not packed as its Content-Encoding says: {error}") from error
    if not unpacker.eof:
        raise BadRequestError("the packed body ends before its end")
