"""A reader keeps what a client keeps, and notices what a server says of a cursor and does not do."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.conformance.adapter import Connection, Got, LostError, Place, Value, Wish
from tests.conformance.reader import Reader

PLACE = Place("127.0.0.1", 1)


def numbers(*found: int, cursor: str) -> Got:
    """Return a message of readings."""
    return Got([Value("d/n", number) for number in found], cursor)


class Script:
    """A server that says to each connection what is written for it, and then is quiet; it ends all but the last."""

    name = "script"
    cut_within = 1
    answer_bytes: int | None = None

    def __init__(self, *connections: Sequence[Got]) -> None:
        self.asked: list[str | None] = []
        self._connections = [[*said] for said in connections]

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """Begin the next one."""
        self.asked.append(wish.since)
        return _Said(self._connections.pop(0), is_last=not self._connections)


class _Said:
    def __init__(self, said: list[Got], *, is_last: bool) -> None:
        self._said, self._is_last = said, is_last

    async def receive(self) -> Got:
        """Say the next thing."""
        if self._said:
            return self._said.pop(0)
        if not self._is_last:
            raise LostError("cut")
        never: asyncio.Future[Got] = asyncio.get_running_loop().create_future()
        return await never

    def abort(self) -> None:
        """Nothing to drop."""


async def read(script: Script, last: str) -> Reader:
    """Return a reader that came to the cursor."""
    reader = Reader(script, PLACE, Wish(("d/n",)))
    async with reader:
        assert await reader.until(lambda: reader.cursor == last, 5)
    return reader


@pytest.mark.asyncio
async def test_goes_on_behind_what_it_applied() -> None:
    """The cursor of a message counts with the message; an honest server is believed."""
    script = Script([Got(cursor="0", is_live=True), numbers(0, 1, cursor="1")],
                    [Got(recovered=True), numbers(2, cursor="2")])  # fmt: skip
    reader = await read(script, "2")

    assert script.asked == [None, "1"]
    assert (reader.witness.seen, reader.resumed, reader.resets, reader.untruths) == (3, 1, 0, set())
    assert reader.messages == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("first", "second", "untruth"),
    [
        ([Got(recovered=True)], [], "recovered, where no cursor was given"),
        ([], [Got(recovered=True), Got(cursor="5", reset="run")], "recovered, and then a reset"),
        ([], [Got(recovered=False), Got(cursor="5")], "not recovered, and no reset"),
    ],
    ids=["no cursor", "reset", "no reset"],
)
async def test_untruths_of_a_server_are_kept(first: list[Got], second: list[Got], untruth: str) -> None:
    """Readings alone would not show them."""
    reader = await read(Script([*first, numbers(0, cursor="0")], [*second, numbers(1, cursor="9")]), "9")

    assert reader.untruths == {untruth}


@pytest.mark.asyncio
async def test_readings_may_come_before_the_word_that_they_were_recovered() -> None:
    """Node Socket.IO sends them so."""
    reader = await read(
        Script([numbers(0, cursor="0")], [numbers(1, cursor="1"), Got(cursor="2", recovered=True)]), "2"
    )

    assert (reader.resumed, reader.untruths) == (1, set())


@pytest.mark.asyncio
async def test_a_reset_that_is_told_is_no_untruth() -> None:
    """It is counted, and the scenario knows how many may be."""
    script = Script([numbers(0, cursor="0")], [Got(recovered=False), Got(cursor="5", reset="run"),
                                               numbers(9, cursor="9")])  # fmt: skip
    reader = await read(script, "9")

    assert (reader.resets, reader.untruths) == (1, set())
