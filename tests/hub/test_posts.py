"""What a request holds is stored once by its name, however often it is sent, and its outcome is always the same."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Value
from hub.decode.base import Publication
from hub.decode.rows import Row, Rows
from hub.errors import BadRequestError, ConflictError, JournalError, UnavailableError
from hub.foreign import Foreign
from hub.model import Frame
from hub.numbered import Numbered
from hub.post_outcome import IN_PART, MAX_NAMED, REFUSED
from hub.posts import (
    MAX_ACTIVE,
    MAX_ACTIVE_OF_ONE,
    MAX_NAMED_PARTS,
    MAX_SCOPES,
    PART_READINGS,
    KeyReusedError,
    NotAllowedError,
    Posts,
    Request,
    TooLargeToNameError,
)
from hub.roles import Identity, Role, scopes_of
from tests.support.hub_parts import HubParts, hub_parts
from tests.support.hub_process import wait_for

pytestmark = pytest.mark.asyncio
T0 = 1_700_000_000 * 10**9
BLOCK = Publication("", b"body", T0)
PUMP = Identity("p", "pump", Role.DEVICE, scopes=scopes_of(Role.DEVICE))
GATE = Identity("g", "gate", Role.GATEWAY, scopes=scopes_of(Role.GATEWAY, ["mine-*"]))


class World:
    """A hub's parts with `Posts` over them; what is given waits for ``commit``."""

    def __init__(self, parts: HubParts) -> None:
        self.parts = parts
        self.frames: list[Frame] = []
        self.has_room = True
        self.posts = self.make()

    def make(self) -> Posts:
        """Return the posts of a hub that has just begun."""
        parts = self.parts
        foreign = Foreign(parts.streams, parts.registry, self.frames.extend, _soon)
        numbered = Numbered(parts.streams, parts.registry, self.frames.extend)
        return Posts(foreign, numbered, parts.children, parts.journal, lambda: self.has_room, lambda: T0)

    def commit(self) -> int:
        """Store what was given; return how many frames that were."""
        frames, self.frames[:] = list(self.frames), []
        if frames:
            self.parts.store_frames(frames)
        return len(frames)

    async def send(
        self, *rows: tuple[str | None, str, Value], name: str | None = None, sender: Identity = PUMP,
        body: bytes = b"1", fallback: str = "",
    ) -> Request:  # fmt: skip
        """Send one request of one block, and let the writer store it."""
        with self.posts.request(sender, fallback, name) as request:
            task = asyncio.ensure_future(request.take(rows_of(*rows), body, BLOCK))
            while not task.done():
                await asyncio.sleep(0.001)
                self.commit()
            await task
        return request

    def values(self) -> list[Value]:
        """Return what is stored, by time."""
        return [row.value for row in self.parts.store.read(list(self.parts.registry.by_id), 0, 2**62, 10_000)]


def _soon(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(call)


def rows_of(*rows: tuple[str | None, str, Value]) -> Rows:
    """Return readings of device, channel and value, a line each."""
    found = Rows()
    for at, (device, channel, value) in enumerate(rows, 1):
        found.add(at, device, channel, value, T0 + at)
    return found


def told(request: Request) -> tuple[int, int, list[tuple[int, str, str, str]]]:
    """Return what became of it."""
    outcome = request.outcome
    return outcome.accepted, outcome.rejected, [(r.at, r.device, r.channel, r.reason) for r in outcome.in_order()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an empty hub, with a gateway whose child mine-1 is accepted."""
    with hub_parts(tmp_path) as parts:
        parts.children.set_rules("gate")
        parts.children.accept("gate", "mine-1")
        yield World(parts)


async def test_outcome_says_what_is_stored_and_what_not(world: World) -> None:
    """By the place of each; faults of the format among them, in order."""
    with world.posts.request(PUMP) as request:
        rows = rows_of((None, "t", 1.0), (None, "t", "x"), (None, "u", True))
        rows.fault(2, "malformed", "half a line")
        task = asyncio.ensure_future(request.take(rows, b"", BLOCK))
        await asyncio.sleep(0.001)
        assert not task.done()
        world.commit()
        await task

    assert told(request) == (2, 2, [(2, "", "", "malformed"), (2, "pump", "t", "type_conflict")])
    assert world.values() == [1.0, True]


async def test_request_with_a_name_is_stored_once(world: World) -> None:
    """Sent again it has the same outcome, by a hub that was killed too; other names are other requests."""
    rows: list[tuple[str | None, str, Value]] = [(None, "t", 1.0), (None, "t", "x"), (None, "t", 2.0)]
    first = await world.send(*rows, name="k")
    again = await world.send(*rows, name="k")
    world.posts = world.make()
    later = await world.send(*rows, name="k")

    assert told(first) == told(again) == told(later) == (2, 1, [(2, "pump", "t", "type_conflict")])
    assert len(world.values()) == 2
    await world.send((None, "n", 1.0), name="other")
    await world.send((None, "n", 1.0), name="other", sender=Identity("q", "tank", Role.DEVICE))
    assert len(world.values()) == 4


async def test_name_is_of_one_body(world: World) -> None:
    """Another body under it is an error, and changes nothing."""
    await world.send((None, "t", 1.0), name="k")
    with pytest.raises(KeyReusedError):
        await world.send((None, "t", 2.0), name="k", body=b"2")

    assert world.values() == [1.0]


async def test_what_a_kill_left_out_is_stored_by_the_next(world: World) -> None:
    """Of a request of several parts, some of which were committed: those alone are known."""
    rows = [(None, "t", float(i)) for i in range(2 * PART_READINGS + 1)]
    with world.posts.request(PUMP, name="k") as request:
        task = asyncio.ensure_future(request.take(rows_of(*rows), b"1", BLOCK))
        await wait_for(lambda: len(world.frames) == 3)
        parts, world.frames[1:] = world.frames[1:], []
        world.commit()
        task.cancel()
        for owner in world.parts.streams.refused(parts):  # as if they had never been given
            owner.flush()
        await asyncio.gather(task, return_exceptions=True)
    world.posts = world.make()
    later = await world.send(*rows, name="k")

    assert told(later) == (len(rows), 0, [])
    assert world.values() == [float(i) for i in range(len(rows))]


async def test_name_is_busy_until_nothing_is_on_its_way(world: World) -> None:
    """Also when whoever asked has gone: or the same readings were given twice."""
    with world.posts.request(PUMP, name="k") as request:
        task = asyncio.ensure_future(request.take(rows_of((None, "t", 1.0)), b"1", BLOCK))
        await wait_for(lambda: world.frames)
        with pytest.raises(ConflictError, match="under way"), world.posts.request(PUMP, name="k"):
            pass
        while not task.done():  # between two parts, and while it waits for those that it gave
            task.cancel()
            await asyncio.sleep(0)
    with pytest.raises(ConflictError, match="under way"), world.posts.request(PUMP, name="k"):
        pass
    world.commit()
    await asyncio.sleep(0)

    assert told(await world.send((None, "t", 1.0), name="k")) == (1, 0, [])
    assert world.values() == [1.0]


async def test_without_a_name_it_is_stored_again(world: World) -> None:
    """But for readings with a time of their own: of those there is one in the store."""
    for _ in range(2):
        assert told(await world.send((None, "t", 1.0))) == (1, 0, [])

    assert world.values() == [1.0]
    assert world.parts.journal.head == 2


async def test_gateway_speaks_for_its_children_alone(world: World) -> None:
    """Each part is decided over by itself; what waits for a person may be sent again, with the same name too."""
    rows = [("mine-1", "t", 1.0), ("mine-2", "t", 2.0), ("theirs", "t", 3.0), (None, "t", 4.0), ("mine-2", "u", 5)]
    first = await world.send(*rows, sender=GATE, name="k")
    assert told(first) == (1, 4, [
        (2, "mine-2", "", "child_pending"), (3, "theirs", "", "child_prefix"), (4, "", "", "unknown_device"),
    ])  # fmt: skip
    assert first.outcome.retry_s == 60
    assert [child.device for child in world.parts.children.listed() if child.state == "pending"] == ["mine-2"]

    world.parts.children.accept("gate", "mine-2")
    assert told(await world.send(*rows, sender=GATE, name="k", fallback=""))[:2] == (3, 2)
    assert sorted(world.values(), key=str) == [1.0, 2.0, 5]
    named = await world.send((None, "v", 6.0), sender=GATE, fallback="mine-1")
    assert told(named) == (1, 0, [])


async def test_device_speaks_for_itself_alone(world: World) -> None:
    """Whatever decoders made of names."""
    assert told(await world.send(("other", "t", 1.0))) == (0, 1, [(1, "other", "", "forbidden")])
    with pytest.raises(NotAllowedError):
        await world.posts.take_numbered(PUMP, "other", "0" * 15 + "1", [b"x"])


async def test_only_so_many_are_named(world: World) -> None:
    """All are counted."""
    request = await world.send((None, "t", 1.0), *[(None, "t", "x")] * 300)

    assert (request.outcome.accepted, request.outcome.rejected, len(request.outcome.named)) == (1, 300, MAX_NAMED)


async def test_there_is_room_for_so_many(world: World) -> None:
    """Beyond, and while the disk is behind, a request is told to come again; nothing of it is stored."""
    world.has_room = False
    with pytest.raises(UnavailableError, match="disk"):
        await world.send((None, "t", 1.0))
    world.has_room = True
    with ExitStack() as under_way:
        for at in range(MAX_ACTIVE):
            sender = Identity("x", f"d{at // MAX_ACTIVE_OF_ONE}", Role.DEVICE)
            under_way.enter_context(world.posts.request(sender))
            if at == MAX_ACTIVE_OF_ONE:
                first = Identity("x", "d0", Role.DEVICE)
                with pytest.raises(UnavailableError, match="under way"), world.posts.request(first):
                    pass
        with pytest.raises(UnavailableError, match="under way"), world.posts.request(PUMP):
            pass

    assert told(await world.send((None, "t", 1.0))) == (1, 0, [])


async def test_journal_that_fails_answers_all(world: World) -> None:
    """Those that wait, and those that come."""
    with world.posts.request(PUMP) as request:
        task = asyncio.ensure_future(request.take(rows_of((None, "t", 1.0)), b"1", BLOCK))
        await wait_for(lambda: world.frames)
        world.posts.failed(JournalError("the disk is gone"))
        with pytest.raises(JournalError, match="gone"):
            await task
    with pytest.raises(JournalError):
        await world.send((None, "t", 1.0))


async def test_numbered_frames_are_answered_when_durable(world: World) -> None:
    """And may be sent again."""
    body = encode_batch(to_columns(1, [("t", T0, 1.0)]))
    for accepted in (1, 0):
        task = asyncio.ensure_future(world.posts.take_numbered(PUMP, "pump", "0" * 15 + "1", [body]))
        while not task.done():
            await asyncio.sleep(0.001)
            world.commit()
        assert ((await task).stored, (await task).accepted) == (1, accepted)


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_name_has_a_length(world: World, name: str) -> None:
    """None is no name, and a long one is a body."""
    with pytest.raises(BadRequestError, match="Idempotency-Key"), world.posts.request(PUMP, name=name):
        pass


async def test_names_made_fit_are_labels_and_senders_are_forgotten(world: World) -> None:
    """What people see is what the sender says; memory is of so many senders."""
    scope = world.posts.scope(PUMP)
    await world.send((None, scope.names.channel("pump", "Küche 1"), 1.0))
    assert world.parts.registry.device("default", "pump").channels["Kuche-1"].label == "Küche 1"

    for at in range(MAX_SCOPES + 5):
        world.posts.scope(Identity("x", f"d{at}", Role.DEVICE))
    assert world.posts.scope(PUMP) is not scope


async def test_names_stay_over_a_restart(world: World) -> None:
    """What was stored under a name that had to differ is found again, whoever comes first now."""
    names = world.posts.scope(PUMP).names
    first, second = names.channel("pump", "a b"), names.channel("pump", "a-b")
    await world.send((None, first, 1.0), (None, second, 2.0))
    later = world.make().scope(PUMP).names

    assert (later.channel("pump", "a-b"), later.channel("pump", "a b")) == (second, first)


async def test_request_with_a_name_has_so_many_parts(world: World) -> None:
    """Each is remembered for two days; what came before is stored once, and without a name there is no end."""
    rows: list[tuple[str | None, str, Value]] = [(f"mine-{at}", "t", 1.0) for at in range(MAX_NAMED_PARTS + 1)]
    world.parts.children.set_rules("gate", auto_accept=["mine-*"], quota=1000)
    for _ in range(2):
        with pytest.raises(TooLargeToNameError):
            await world.send(*rows, sender=GATE, name="k")
    assert len(world.values()) == 1000

    assert told(await world.send(*rows[-1:], *rows[:1], sender=GATE))[0] == 1


async def test_figures_are_of_what_is_durable(world: World) -> None:
    """A part is counted when it is stored, also of a sender that went away; sent again it is known and not counted."""
    figures = world.posts.figures
    rows: list[tuple[str | None, str, Value]] = [("pump", "t", 1.0), ("other", "t", 2.0), ("pump", "t", "x")]

    async def ask() -> None:
        with world.posts.request(PUMP, name="k") as request:
            await request.take(rows_of(*rows), b"1", BLOCK)

    task = asyncio.ensure_future(ask())
    await wait_for(lambda: world.frames and figures.rejected == 1)
    task.cancel()
    await asyncio.sleep(0)
    assert figures.accepted == 0
    world.commit()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for(lambda: figures.accepted)
    assert (figures.accepted, figures.rejected, figures.known, figures.requests) == (1, 2, 0, {})

    for times in (1, 2):
        await world.send(*rows, name="k")
        # What its sender may not say is refused anew each time: nothing remembers it.
        assert (figures.accepted, figures.rejected, figures.known) == (1, 2 + times, times)
    assert figures.requests == {IN_PART: 2}


async def test_figures_count_what_is_put_aside(world: World) -> None:
    """A part that nobody can make a frame of, and a numbered frame that cannot be read: both are in quarantine."""
    unreadable = [b'{"op":"batch","seq":1,"count":3}']
    with world.posts.request(PUMP) as request:
        parts = request.take(Rows(rows=[Row(1, None, "t", object())]), b"1", BLOCK)  # type: ignore[arg-type]
        for coroutine in (parts, world.posts.take_numbered(PUMP, "pump", "0" * 15 + "1", unreadable)):
            task = asyncio.ensure_future(coroutine)
            await wait_for(lambda: world.frames)
            world.commit()
            await task

    figures = world.posts.figures
    assert (figures.accepted, figures.rejected, figures.quarantined) == (0, 1 + 3, 2)
    assert figures.requests == {REFUSED: 2}
