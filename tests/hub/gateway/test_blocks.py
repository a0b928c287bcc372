"""Lines of a body are stored in blocks, cut alike however the body arrives, and none is lost beside a bad one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hub.gateway.blocks import BLOCK_READINGS, MAX_LINE_BYTES, Lines, store_lines
from hub.posts import Request
from hub.roles import Identity, Role, scopes_of
from tests.support.hub_parts import HubParts, hub_parts

T0 = 1_700_000_000 * 10**9
PUMP = Identity("p", "pump", Role.DEVICE, scopes=scopes_of(Role.DEVICE))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield parts


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield the data in pieces."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def store(hub: HubParts, data: bytes, *, size: int = 4096, name: str | None = None) -> Request:
    """Store a body as a device."""
    with hub.posts.request(PUMP, name=name) as request:
        await store_lines(request, pieces_of(data, size), "ns", "")
    return request


@pytest.mark.asyncio
async def test_long_body_is_several_frames(hub: HubParts) -> None:
    """Each of them is stored before the next is read; with a name it is stored once, however it arrives."""
    data = b"".join(b"m f=%d,g=2 %d\n" % (i, T0 + i) for i in range(3000))
    first = await store(hub, data, name="k")
    frames = hub.journal.head
    again = await store(hub, data, size=777, name="k")

    assert (first.outcome.accepted, again.outcome.accepted) == (6000, 6000)
    assert frames == hub.journal.head >= 6000 // BLOCK_READINGS
    assert len(hub.store.read(list(hub.registry.by_id), 0, 2**62, 10_000)) == 6000


@pytest.mark.asyncio
async def test_bad_lines_are_named_and_the_others_stored(hub: HubParts) -> None:
    """One that is no UTF-8, one that is too long, and a text that never ends at the end."""
    lines = [b"m f=1", b"m f=\xff", b"m f=" + b"1" * MAX_LINE_BYTES, b"m f=2\r", b"", b'm s="open']
    request = await store(hub, b"\n".join(lines))

    assert request.outcome.accepted == 2
    assert [(one.at, one.reason) for one in request.outcome.in_order()] == [
        (2, "malformed"), (3, "malformed"), (6, "malformed"),
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_body_of_nothing_but_bad_lines_is_read_to_its_end(hub: HubParts) -> None:
    """All are counted, however many there are."""
    request = await store(hub, b"x\n" * 30_000 + b"m f=1\n")

    assert (request.outcome.accepted, request.outcome.rejected) == (1, 30_000)


@pytest.mark.asyncio
async def test_empty_body_stores_nothing(hub: HubParts) -> None:
    """And is no error."""
    request = await store(hub, b"")

    assert (request.outcome.accepted, request.outcome.rejected, hub.journal.head) == (0, 0, 0)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    """Without their ends; one that is too long is none."""
    data = b"a\r\n\nbc\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nd"
    lines = Lines()
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]

    assert [*found, *lines.end()] == [b"a", b"", b"bc", None, b"d"]


def test_last_line_that_is_too_long_is_none() -> None:
    """No more of it is in memory than the limit and a piece."""
    lines = Lines()
    assert [*lines.feed(b"x" * (MAX_LINE_BYTES + 1)), *lines.feed(b"y"), *lines.end()] == [None]
