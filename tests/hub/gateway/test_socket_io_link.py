"""One client of the namespace: packets of its events and acks, what it is given next, the word it ends with."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hub.app import Hub
from hub.config import Config
from hub.gateway.socket_io_link import BATCH_PACKETS, NAMESPACE, SocketIoLink
from hub.gateway.websocket import MAX_BUFFER_BYTES
from hub.roles import LOCAL
from tests.support.hub_process import wait_for

pytestmark = pytest.mark.asyncio


class Library:
    """Takes packets once it may; keeps how clients were ended."""

    def __init__(self) -> None:
        self.batches: list[Sequence[str]] = []
        self.ends: list[bool] = []
        self.may_take = asyncio.Event()
        self.may_take.set()

    async def give(self, eio_sid: str, packets: Sequence[str]) -> None:
        """Keep a batch, and take it when it is time."""
        self.batches.append(packets)
        await self.may_take.wait()

    async def close_client(self, eio_sid: str, *, for_good: bool) -> None:
        """Keep it."""
        self.ends.append(for_good)


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[SocketIoLink, Library]]:
    """Give a client of a hub, and what it is given."""
    async with Hub(Config(data=folder / "data")) as hub:
        library = Library()
        link = SocketIoLink(library, "e1", hub, LOCAL, "127.0.0.1")
        yield link, library
        link.closed()


async def test_answers_are_acks_and_ops_are_events(tmp_path: Path) -> None:
    """An answer nobody asked an ack for is an event too."""
    async with linked(tmp_path) as (link, library):
        link.receive("hello", 7, [])
        link.receive("hello", None, [])
        await wait_for(lambda: sum(map(len, library.batches)) == 2)
        ack, event = [packet for batch in library.batches for packet in batch]

        assert ack.startswith(f'3{NAMESPACE},7[{{"op":"welcome"')
        assert json.loads(event.removeprefix(f"2{NAMESPACE},"))[0] == "welcome"


async def test_a_batch_is_given_when_the_one_before_was_taken(tmp_path: Path) -> None:
    """What waits is counted, given or not; a batch has few packets."""
    async with linked(tmp_path) as (link, library):
        library.may_take.clear()
        for number in range(3 * BATCH_PACKETS):
            link.write(link.frame(b'{"op":"live","n":%d}' % number))
        await wait_for(lambda: library.batches)
        held = link.buffered_bytes
        assert [len(batch) for batch in library.batches] == [BATCH_PACKETS]
        library.may_take.set()
        await wait_for(lambda: len(library.batches) == 3 and not link.buffered_bytes)

        assert held == sum(len(packet) + 1 for batch in library.batches for packet in batch)


async def test_the_last_word_is_in_the_place_of_what_is_unsent(tmp_path: Path) -> None:
    """The cursor says what is owed; nothing is written behind."""
    async with linked(tmp_path) as (link, library):
        library.may_take.clear()
        for number in range(3 * BATCH_PACKETS):
            link.write(link.frame(b'{"op":"live","n":%d}' % number))
        await wait_for(lambda: library.batches)
        link.end(4401, "revoked")
        assert link._buffered == 0
        link.write(link.frame(b'{"op":"live"}'))
        library.may_take.set()
        await wait_for(lambda: library.ends)

        assert ["bye" in str(batch) for batch in library.batches] == [False, True]
        assert library.ends == [True]


async def test_answers_without_an_end_end_the_client(tmp_path: Path) -> None:
    """It may come back, and fetch them then."""
    async with linked(tmp_path) as (link, library):
        library.may_take.clear()
        frame = link.frame(b'{"op":"error","message":"%s"}' % (b"x" * 60_000))
        for _ in range(MAX_BUFFER_BYTES // 60_000 + 1):
            link.write(frame)
        assert link._buffered == 0
        library.may_take.set()
        await wait_for(lambda: library.ends)

        assert "4008" in str(library.batches[-1])
        assert library.ends == [False]


async def test_its_name_is_not_the_id_of_the_session(tmp_path: Path) -> None:
    """Operators and logs see the name; who knows the id may go on with the session."""
    async with linked(tmp_path) as (link, _):
        assert link.origin.name.removeprefix("io-").isdecimal()
