"""Lines of a body → blocks of readings → the journal, as they arrive: however long a body is, a block is in memory.

Owns: where blocks end, so that the same body is always cut alike. Place: after `body`, above `hub.posts`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from hub.decode.base import Publication
from hub.decode.line import LineReader
from hub.posts import CUT, Request, digest_of

# Of a body of lines, unpacked: an hour of a busy Telegraf, for one that was without a network.
MAX_LINES_BYTES = 64 * 1024 * 1024
# What is checked and stored before more is read: some milliseconds, and one wait for the disk.
BLOCK_BYTES, BLOCK_READINGS = 64 * 1024, 2_000
# No point with its texts is longer; InfluxDB takes as much for one.
MAX_LINE_BYTES = 64 * 1024
# Lines between which others are heard: two milliseconds.
STEP = 100


async def store_lines(request: Request, pieces: AsyncIterator[bytes], precision: str, fallback: str) -> None:
    """Store line protocol; ``request.outcome`` says what became of it, also when this raises.

    Raises as `Request.take` and what gives the pieces.
    """
    reader = LineReader(request.scope, precision, fallback)
    digest = digest_of(CUT, b"line", precision.encode(), fallback.encode())
    lines = Lines()
    block: list[bytes] = []

    async def store() -> None:
        data = b"\n".join(block)
        block.clear()
        digest.update(data + b"\n")
        publication = Publication("", data, request.now_ns(), content_type="text/plain")
        await request.take(reader.take_rows(), digest.digest(), publication)

    async for piece in pieces:
        left = lines.feed(piece)
        while await _fill(request, reader, left, block):
            await store()
    await _fill(request, reader, lines.end(), block)
    reader.end()
    await store()


async def _fill(request: Request, reader: LineReader, lines: Iterator[bytes | None], block: list[bytes]) -> bool:
    """Read lines into a block; return whether it is full, and there may be more."""
    size = sum(map(len, block))
    async with request.turn:
        for at, line in enumerate(lines, 1):
            _read(reader, line)
            block.append(line or b"")
            size += len(line or b"") + 1
            if size >= BLOCK_BYTES or reader.rows.count >= BLOCK_READINGS:
                return True
            if at % STEP == 0:
                await asyncio.sleep(0)
    return False


def _read(reader: LineReader, line: bytes | None) -> None:
    if line is None:
        reader.refuse(f"a line of more than {MAX_LINE_BYTES} bytes")
        return
    try:
        reader.feed(line.decode())
    except UnicodeDecodeError:
        reader.refuse("it is not UTF-8")


class Lines:
    """Pieces of a body → its lines without their ends; None for one that is too long."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_skipping = False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """Yield the lines that end in this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._is_skipping = b"", True

    def end(self) -> Iterator[bytes | None]:
        """Yield the last line, which has no end."""
        if self._rest or self._is_skipping:
            yield from self._line(self._rest)

    def _line(self, line: bytes) -> Iterator[bytes | None]:
        is_too_long, self._is_skipping = self._is_skipping or len(line) > MAX_LINE_BYTES, False
        yield None if is_too_long else line.removesuffix(b"\r")
