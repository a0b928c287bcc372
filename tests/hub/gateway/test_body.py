"""A body is read in bounded pieces, whatever it is packed in and however it comes."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from hub.errors import BadRequestError
from hub.gateway.body import Body, TooLargeError, UnsupportedMediaError

pytestmark = pytest.mark.asyncio
DATA = b"cpu,host=pi usage=1 1700000000000000000\n" * 5000


def body_of(pieces: Sequence[bytes], headers: Mapping[str, str] | None = None, *, is_cut: bool = False) -> Body:
    """Return the body of a request that comes in these pieces; ``is_cut``: its client goes away then."""
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append(
        {"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b"", "more_body": False}
    )

    async def receive() -> Message:
        return messages.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Body(Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive))


def split(data: bytes, size: int) -> list[bytes]:
    """Return the data in pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


async def sizes(pieces: AsyncIterator[bytes]) -> list[int]:
    """Return the size of each piece."""
    return [len(piece) async for piece in pieces]


@pytest.mark.parametrize("size", [1000, 10**6])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("identity", DATA), ("", DATA), ("gzip", gzip.compress(DATA)), ("GZIP", gzip.compress(DATA)),
        ("deflate", zlib.compress(DATA)), ("gzip", gzip.compress(DATA[:100]) + gzip.compress(DATA[100:])),
    ],
    ids=["identity", "none", "gzip", "upper", "deflate", "two"],
)  # fmt: skip
async def test_body_is_unpacked(size: int, encoding: str, packed: bytes) -> None:
    """However it is cut; two packed files behind each other too."""
    headers = {"content-encoding": encoding} if encoding else {}

    assert await body_of(split(packed, size), headers).whole(10**6) == DATA


async def test_bomb_is_never_unpacked_whole() -> None:
    """A piece at a time, no more than the limit."""
    bomb = gzip.compress(bytes(50_000_000))
    pieces = body_of([bomb], {"content-encoding": "gzip"}).pieces(1_000_000)
    found: list[int] = []

    async def take() -> None:
        async for piece in pieces:
            found.append(len(piece))

    with pytest.raises(TooLargeError, match="1000000"):
        await take()
    assert max(found) <= 64 * 1024
    assert sum(found) <= 1_000_000


@pytest.mark.parametrize("headers", [{}, {"content-length": "200000"}])
async def test_body_that_is_too_large_is_refused(headers: dict[str, str]) -> None:
    """By what it says, or by what comes."""
    with pytest.raises(TooLargeError):
        await body_of(split(DATA, 1000), headers).whole(100_000)
    assert await sizes(body_of([b"a", b"", b"bc"]).pieces(3)) == [1, 2, 0]


@pytest.mark.parametrize(
    "packed",
    [b"rubbish", gzip.compress(DATA)[:-9], gzip.compress(DATA)[:50] + b"x" * 50],
    ids=["rubbish", "cut", "damaged"],
)
async def test_packed_wrongly_is_said(packed: bytes) -> None:
    """And is nothing of the hub's."""
    with pytest.raises(BadRequestError, match="packed"):
        await body_of([packed], {"content-encoding": "gzip"}).whole(10**6)


async def test_other_encodings_are_refused() -> None:
    """With those that are taken."""
    with pytest.raises(UnsupportedMediaError, match="gzip"):
        await body_of([b"x"], {"content-encoding": "br"}).whole(10)


async def test_client_that_goes_away_ends_it() -> None:
    """What came before it was handed on."""
    pieces = body_of([b"abc"], is_cut=True).pieces(10)
    assert await anext(pieces) == b"abc"
    with pytest.raises(BadRequestError, match="went away"):
        await anext(pieces)


async def test_type_is_without_parameters() -> None:
    """In lower case."""
    assert body_of([], {"content-type": "Text/Plain; charset=utf-8"}).content_type == "text/plain"
    assert body_of([]).content_type == ""


@pytest.mark.parametrize(("piece_s", "whole_s"), [(0.01, 5.0), (5.0, 0.01)])
async def test_body_that_does_not_go_on_is_ended(piece_s: float, whole_s: float) -> None:
    """Whoever holds one of the requests that may be under way and sends nothing gives it back."""
    left = [b"abc"]

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(), "more_body": True}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    pieces = Body(request, piece_s=piece_s, whole_s=whole_s).pieces(10)
    assert await anext(pieces) == b"abc"
    with pytest.raises(BadRequestError, match="did not go on"):
        await anext(pieces)
