"""Watching by long poll over a real loop: it waits, ends on time, notices who leaves, misses and repeats nothing."""

import asyncio
import random
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from hub.errors import BadRequestError, ForbiddenError, UnauthenticatedError
from hub.gateway.poll import watch_poll
from hub.roles import Identity, Role, Verb, scopes_of
from tests.support.gateway import serving
from tests.support.live_world import NOW_NS, StoreInStep, World, decode

pytestmark = pytest.mark.asyncio

IDENTITY = Identity("t1", "tester", Role.WATCHER, scopes=scopes_of(Role.WATCHER))


class Asker:
    """One request: its body has ended, and it hangs up when told to."""

    def __init__(self, world: World, query: str, identity: Identity = IDENTITY, **headers: str) -> None:
        self.left = asyncio.Event()
        self._has_asked = False
        told = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        answer = watch_poll(
            world.live, world.store, StoreInStep(), identity, QueryParams(query), told, self._receive, "127.0.0.1"
        )  # fmt: skip
        self.task = asyncio.create_task(answer)

    async def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        async with asyncio.timeout(10):
            found: dict[str, Any] = orjson.loads((await self.task).body)
        return found

    async def _receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}


class SlowStore(StoreInStep):
    """A store that never catches up."""

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Answer no."""
        return False


def make_world(ring_bytes: int = 1 << 24) -> World:
    """Return a hub on the running loop with one series."""
    world = World(ring_bytes=ring_bytes, loop=asyncio.get_running_loop())
    world.add("d", "x")
    return world


async def until_waiting(world: World, watchers: int = 1) -> None:
    """Return when so many polls are there and have done what they can at once."""
    async with asyncio.timeout(10):
        while world.live.statistics().watchers != watchers or world.live.statistics().behind:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_an_answer_is_json_with_a_cursor_that_nobody_keeps() -> None:
    """What is behind the cursor comes at once, however long the client would wait."""
    world = make_world()
    world.publish(world.frame({1: [(NOW_NS, 1.5)]}))

    asker = Asker(world, "match=d&since=00000001.0&wait=50s")
    body = await asker.body()

    assert body["o"] == "00000001.1"
    assert [m["op"] for m in body["messages"]] == ["series", "data", "live"]
    assert asker.task.result().headers["cache-control"] == "no-store"
    assert asker.task.result().headers["content-type"] == "application/json"
    assert world.live.statistics().watchers == 0


async def test_a_poll_waits_for_the_next_reading() -> None:
    """The answer comes with the reading, not with the end of the wait."""
    world = make_world()
    asker = Asker(world, "match=d&since=00000001.0&wait=50s")
    await until_waiting(world)

    world.publish(world.frame({1: [(NOW_NS, 1.5)]}))

    assert [m["op"] for m in (await asker.body())["messages"]] == ["series", "data", "live"]


@pytest.mark.parametrize("wait", ["0s", "20ms"])
async def test_a_wait_ends_with_the_position(wait: str) -> None:
    """Nothing came: the answer is where the client stands, behind what did not match."""
    world = make_world()
    world.add("d", "y")
    world.publish(world.frame({2: [(NOW_NS, 1.0)]}))

    body = await Asker(world, f"match=d/x&since=00000001.0&wait={wait}").body()

    assert body == {"o": "00000001.1", "messages": [{"op": "live", "o": "00000001.1"}]}


async def test_pages_from_journal_and_store_are_read() -> None:
    """With nothing to wait for, an answer is a page: of the journal behind the ring, of the store behind a time."""
    world = make_world(ring_bytes=500)
    for k in range(20):
        world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))

    behind = await Asker(world, "since=00000001.2&wait=0s").body()
    history = await Asker(world, f"since={NOW_NS + 15}&wait=0s").body()

    assert [row[2] for m in behind["messages"] for row in m.get("u", ())] == [float(k) for k in range(2, 20)]
    assert [row[2] for m in history["messages"] for row in m.get("u", ())] == [15.0, 16.0, 17.0, 18.0, 19.0]
    assert behind["o"] == history["o"] == "00000001.20"


async def test_a_store_that_is_late_is_told() -> None:
    """`lag`, and the same position."""
    world = make_world()
    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))
    query = QueryParams(f"since={NOW_NS}&wait=50s")

    response = await watch_poll(
        world.live, world.store, SlowStore(), IDENTITY, query, Headers({}),
        asyncio.Event().wait, "127.0.0.1",  # type: ignore[arg-type]
    )  # fmt: skip

    body = orjson.loads(response.body)
    assert [m["op"] for m in body["messages"]] == ["lag"]
    assert body["o"] == f"00000001.1.{NOW_NS - 1}"


async def test_who_leaves_is_forgotten_at_once() -> None:
    """Not when the answer is sent in vain: the place is free with the next turn of the loop."""
    world = make_world()
    asker = Asker(world, "match=d&since=00000001.0&wait=50s")
    await until_waiting(world)

    asker.left.set()
    async with asyncio.timeout(10):
        await asker.task

    figures = world.live.statistics()
    assert (figures.watchers, figures.listeners) == (0, 0)


async def test_a_request_that_is_cancelled_is_forgotten() -> None:
    """As when the server ends with requests that wait."""
    world = make_world()
    asker = Asker(world, "match=d&since=00000001.0&wait=50s")
    await until_waiting(world)

    asker.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker.task

    assert world.live.statistics().watchers == 0


async def test_a_credential_that_ends_ends_its_polls() -> None:
    """401 at once, and nothing of what was written."""
    world = make_world()
    asker = Asker(world, "match=d&since=00000001.0&wait=50s")
    await until_waiting(world)

    world.live.end_identities({"t1"})

    with pytest.raises(UnauthenticatedError, match="revoked"):
        await asker.body()
    assert world.live.statistics().watchers == 0


async def test_a_hub_that_stops_says_bye() -> None:
    """Who waits is told when to come back, spread as for the others."""
    world = make_world()
    askers = [Asker(world, "match=d&since=00000001.0&wait=50s") for _ in range(3)]
    await until_waiting(world, 3)

    world.live.stop()

    ends = [(await asker.body())["messages"][-1] for asker in askers]
    assert [(end["op"], end["code"], end["retry_ms"]) for end in ends] == [("bye", 4000, ms) for ms in (0, 2, 4)]


async def test_latest_answers_at_its_rate() -> None:
    """A resumed `latest` is answered no sooner than its rate allows, with the newest value of then."""
    world = make_world()
    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    asker = Asker(world, "since=00000001.0&mode=latest&max_hz=20&wait=50s")
    await asyncio.sleep(0)

    world.publish(world.frame({1: [(NOW_NS + 1, 2.0)]}))
    body = await asker.body()

    assert [row[2] for m in body["messages"] for row in m.get("u", ())] == [2.0]
    assert loop.time() - begun >= 0.05


@pytest.mark.parametrize(
    "query",
    ["match=a/b/c&wait=1s", "max_hz=fast&wait=1s", "mode=sample&wait=1s", "since=soon&wait=1s", "wait=", "wait=soon",
     "wait=56s", "wait=-1s", "wait=1", f"wait={'0' * 5000}s", "wait=1s&wait=0s"],
)  # fmt: skip
async def test_wrong_query_is_refused(query: str) -> None:
    """A parameter that cannot be read, or a wait that proxies would cut, is a BadRequestError that says the limits."""
    world = make_world()

    with pytest.raises(BadRequestError):
        await Asker(world, query).body()

    assert world.live.statistics().rooms == 0


async def test_only_granted_series_are_sent() -> None:
    """Nothing granted of what was asked for is a refusal, as on the other transports."""
    world = make_world()
    narrow = Identity("t1", "tester", Role.WATCHER, scopes={Verb.READ: ("other",)})
    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))

    with pytest.raises(ForbiddenError):
        await Asker(world, "match=d&wait=1s", narrow).body()
    body = await Asker(world, "since=00000001.0&wait=0s", narrow).body()

    assert [m["op"] for m in body["messages"]] == ["live"]


async def poll_with_cuts(port: int, total: int, rng: random.Random) -> list[tuple[int, int, Any]]:
    """Poll over real HTTP; leave while it waits or before the answer is read to its end, until all was seen."""
    seen: list[tuple[int, int, Any]] = []
    cursor = "00000001.0"
    async with httpx.AsyncClient(trust_env=False) as http:
        while len(seen) < total:
            url = f"http://127.0.0.1:{port}/v1/watch?match=**&wait=20s&since={cursor}"
            patience = rng.choice([0.0005, 0.002, 5])
            try:
                async with asyncio.timeout(patience):
                    body = (await http.get(url)).json()
            except TimeoutError:
                continue
            names: dict[int, Any] = {}
            for message in body["messages"]:
                names |= {int(i): s for i, s in message.get("s", {}).items()}
                if message["op"] == "data":
                    seen += decode(message, names)
            cursor = body["o"]
    return seen


@pytest.mark.slow
async def test_real_http_left_at_random_sees_everything_once() -> None:
    """Over real HTTP, left again and again: 0 gaps, 0 duplicates, no place left behind."""
    world = make_world(ring_bytes=20_000)
    total = 3000
    rng = random.Random(3)

    async def watch(request: Request) -> Response:
        return await watch_poll(
            world.live, world.store, StoreInStep(), IDENTITY, request.query_params, request.headers, request.receive,
            "127.0.0.1",
        )  # fmt: skip

    async with serving(Starlette(routes=[Route("/v1/watch", watch)])) as port, asyncio.timeout(60):
        polling = asyncio.create_task(poll_with_cuts(port, total, rng))
        for first in range(1, total + 1, 10):
            for k in range(first, first + 10):
                world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
            await asyncio.sleep(rng.choice([0, 0.002]))
        seen = await polling
        while world.live.statistics().watchers:  # noqa: ASYNC110 (uvicorn says nothing when a request was left)
            await asyncio.sleep(0.005)

    assert seen == [(1, NOW_NS + k, float(k)) for k in range(1, total + 1)]
    assert world.live.statistics().listeners == 0
