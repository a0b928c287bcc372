"""Watching by server-sent events: the cursor is the event's id, and resuming by it loses and doubles nothing."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.errors import BadRequestError, ForbiddenError
from hub.gateway.handshake import make_http_protocol
from hub.gateway.sse import RETRY_MS, EventStreamResponse, watch_events
from hub.gateway.websocket import CLOSE_S, HIGH_WATER_BYTES
from hub.roles import Identity, Role, Verb, scopes_of
from tests.support.gateway import serving
from tests.support.live_world import NOW_NS, Client, StoreInStep, World, decode

IDENTITY = Identity("t1", "tester", Role.WATCHER, scopes=scopes_of(Role.WATCHER))


class Event(dict[str, Any]):
    """The JSON of one event, with its name and id."""

    name: str
    id: str | None


def parse(text: str) -> list[Event]:
    """Return the events of complete text; comments and retry are left out."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "event" in fields:
            event = Event(json.loads(fields["data"]))
            event.name, event.id = fields["event"], fields.get("id")
            events.append(event)
    return events


def make_world(ring_bytes: int = 1 << 24) -> World:
    """Return a hub on the running loop with one series."""
    world = World(ring_bytes=ring_bytes, loop=asyncio.get_running_loop())
    world.add("d", "x")
    return world


def respond(
    world: World, query: str = "match=**", identity: Identity = IDENTITY, **headers: str
) -> EventStreamResponse:
    """Return the response of a request."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return watch_events(world.live, world.store, StoreInStep(), identity, QueryParams(query), Headers(headers))


async def take(events: AsyncIterator[bytes], until: str) -> list[Event]:
    """Return events up to the first of that name."""
    found: list[Event] = []
    async with asyncio.timeout(10):
        async for data in events:
            found += parse(data.decode())
            if any(event.name == until for event in found):
                break
    return found


@pytest.mark.asyncio
async def test_events_are_named_and_carry_the_cursor() -> None:
    """series, live, data: each data event's id is the cursor behind it, live names the position."""
    world = make_world()
    response = respond(world)
    events = response.stream.events()

    first = await take(events, "live")
    world.publish(world.frame({1: [(NOW_NS, 1.5)]}))
    (data,) = await take(events, "data")

    assert [(e.name, e.id) for e in first] == [("series", None), ("live", "00000001.0")]
    assert (data.id, data["o"], data["u"]) == ("00000001.1", "00000001.1", [[1, 0, 1.5]])
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["content-type"].startswith("text/event-stream")
    response.stream.close()


@pytest.mark.asyncio
async def test_last_event_id_goes_before_since() -> None:
    """A browser that reconnects sends the id it saw last, whatever its URL says."""
    world = make_world()
    for k in range(5):
        world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
    response = respond(world, "match=**&since=last", last_event_id="00000001.3")

    events = await take(response.stream.events(), "live")

    assert [e["u"] for e in events if e.name == "data"] == [[[1, 0, 3.0], [1, 1, 4.0]]]
    response.stream.close()


@pytest.mark.asyncio
async def test_history_then_live() -> None:
    """`since` a time sends the stored rows with ids inside history, then live."""
    world = make_world()
    for k in range(5):
        world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
    response = respond(world, f"match=**&since={NOW_NS + 2}")

    events = await take(response.stream.events(), "live")

    assert [e.name for e in events] == ["series", "data", "live"]
    assert events[1].id == f"00000001.5.{NOW_NS + 4}"
    response.stream.close()


@pytest.mark.asyncio
async def test_least_and_greatest_are_marked() -> None:
    """`agg=minmax`, as over a WebSocket."""
    world = make_world()
    response = respond(world, "match=**&mode=latest&max_hz=50&agg=minmax")
    events = response.stream.events()
    await take(events, "live")

    world.publish(world.frame({1: [(NOW_NS + k, value) for k, value in enumerate([2.0, 9.0, 1.0, 3.0])]}))
    (data,) = await take(events, "data")

    assert (data["u"], data["least"], data["greatest"]) == ([[1, 0, 9.0], [1, 1, 1.0], [1, 2, 3.0]], [[1, 2]], [[0, 1]])
    response.stream.close()


@pytest.mark.asyncio
async def test_sampled_readings_go_on_after_the_last_event_id() -> None:
    """`mode=sample&every=3`: an interrupted stream gives the same ones as one that was not."""
    world = make_world()
    frames = [replace(world.frame({1: [(NOW_NS + k, float(k))]}), seq=k) for k in range(60)]
    world.publish(*frames)
    whole = respond(world, "match=**&mode=sample&every=3", last_event_id="00000001.0")
    rest = respond(world, "match=**&mode=sample&every=3", last_event_id="00000001.31")

    seen = [u[2] for e in await take(whole.stream.events(), "live") for u in e.get("u", ())]
    rest_seen = [u[2] for e in await take(rest.stream.events(), "live") for u in e.get("u", ())]

    assert len(seen) == 20
    assert rest_seen == [value for value in seen if value >= 31]
    whole.stream.close()
    rest.stream.close()


@pytest.mark.asyncio
async def test_series_that_loses_its_tag_is_gone() -> None:
    """`selector=tag:t`: `series` events say what comes and what goes; one that cannot be read is refused."""
    world = make_world()
    world.describe("d", "t")
    response = respond(world, "match=**&selector=tag:t")
    events = response.stream.events()
    first = await take(events, "live")

    world.describe("d")
    (gone,) = await take(events, "series")

    assert [list(e["s"]) for e in first if e.name == "series"] == [["1"]]
    assert (gone["s"], gone["gone"]) == ({}, [1])
    response.stream.close()
    with pytest.raises(BadRequestError, match="colour:red"):
        respond(world, "selector=colour:red")
    assert world.live.statistics().watchers == 0


@pytest.mark.asyncio
async def test_unknown_cursor_is_a_reset_event_with_the_head_as_id() -> None:
    """After a reset the browser's next reconnect continues from the head it was told."""
    world = make_world()

    response = respond(world, "match=**", last_event_id="0000abcd.7")
    events = await take(response.stream.events(), "live")

    assert events[0].name == "reset"
    assert events[0].id == "00000001.0"
    assert events[0]["why"] == "run"
    response.stream.close()


@pytest.mark.asyncio
async def test_quiet_stream_is_pinged() -> None:
    """A stream that had nothing to say for a whole interval sends a comment."""
    world = make_world()
    response = respond(world)
    events = response.stream.events()
    await take(events, "live")

    response.stream.tick()
    response.stream.tick()

    assert await anext(events) == b": ping\n\n"
    response.stream.close()


@pytest.mark.asyncio
async def test_slow_reader_is_bounded() -> None:
    """What is not taken is not made: the stream holds one buffer, the cursor says what is owed."""
    world = make_world()
    response = respond(world)
    events = response.stream.events()
    await take(events, "live")

    for k in range(300):
        world.publish(world.frame({1: [(NOW_NS + k * 1000 + j, 0.123456) for j in range(100)]}))
        await asyncio.sleep(0.001)
    assert response.stream.is_full
    assert world.live.statistics().behind == 1
    taken = await anext(events)
    assert len(taken) < HIGH_WATER_BYTES + 256 * 1024
    found = sum(len(e["u"]) for e in parse(taken.decode()) if e.name == "data")
    while found < 30_000:
        found += sum(len(e["u"]) for e in parse((await anext(events)).decode()) if e.name == "data")

    assert found == 30_000
    response.stream.close()


@pytest.mark.asyncio
async def test_closed_for_memory_drops_what_was_not_taken() -> None:
    """What waits here is dropped before the bye with 4429: the id of the last event taken resumes in front of it."""
    world = make_world()
    response = respond(world)
    events = response.stream.events()
    await take(events, "live")
    world.publish(world.frame({1: [(NOW_NS + k, 0.5) for k in range(100)]}))
    await asyncio.sleep(0.02)
    held = response.stream.buffered_bytes

    response.stream.end(4429, "too much unsent")
    rest = parse((await anext(events)).decode())

    assert held > 1000
    assert [(e.name, e["code"]) for e in rest] == [("bye", 4429)]
    assert [data async for data in events] == []
    response.stream.close()


@pytest.mark.asyncio
async def test_end_says_bye_and_finishes() -> None:
    """When the hub stops or the credential ends, the response ends after a bye."""
    world = make_world()
    response = respond(world)

    world.live.stop()
    events = parse(b"".join([data async for data in response.stream.events()]).decode())

    assert events[-1].name == "bye"
    assert events[-1]["retry_ms"] == 0
    response.stream.close()
    assert world.live.statistics().watchers == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "query", ["match=a/b/c", "max_hz=fast", "mode=sample", "since=soon", "match=", "since=last&since=-1m"]
)
async def test_wrong_query_is_refused(query: str) -> None:
    """A parameter that cannot be read is a BadRequestError before the stream begins."""
    world = make_world()

    with pytest.raises(BadRequestError):
        respond(world, query)

    assert world.live.statistics().rooms == 0


@pytest.mark.asyncio
async def test_only_granted_series_are_sent() -> None:
    """The credential's patterns bound the stream; nothing granted is a refusal."""
    world = make_world()
    narrow = Identity("t1", "tester", Role.WATCHER, scopes={Verb.READ: ("other",)})

    with pytest.raises(ForbiddenError):
        respond(world, "match=d", narrow)
    events = await take((stream := respond(world, "", narrow).stream).events(), "live")

    assert [e.name for e in events] == ["live"]
    stream.close()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_who_does_not_read_the_end_is_cut_off() -> None:
    """A stream that is ended (for memory, or with its credential) gives back what its client does not take."""
    world = make_world()

    async def watch(request: Request) -> Response:
        return watch_events(world.live, world.store, StoreInStep(), IDENTITY, request.query_params, request.headers)

    http = make_http_protocol()
    async with serving(Starlette(routes=[Route("/v1/watch", watch)]), http=http) as port, asyncio.timeout(30):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            client.send(b"GET /v1/watch?match=** HTTP/1.1\r\nHost: x\r\n\r\n")
            at = 0
            while not any(watcher.buffered_bytes > 100_000 for watcher in world.live.watchers):
                at += 1
                world.publish(world.frame({1: [(NOW_NS + at * 1000 + i, 0.123456) for i in range(1000)]}))
                await asyncio.sleep(0.001)
            for watcher in list(world.live.watchers):
                watcher.end(4429, "too much unsent")
            async with asyncio.timeout(CLOSE_S + 3):
                while world.live.statistics().watchers:  # noqa: ASYNC110 (uvicorn says nothing when it was cut off)
                    await asyncio.sleep(0.02)

    assert world.live.statistics().rooms == 0


class CutClient:
    """Applies events until it is cut; keeps what a browser keeps."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, Any]] = []
        self.last = "00000001.0"
        self._names: dict[int, Any] = {}

    def apply(self, event: Event) -> None:
        """Take one event."""
        self._names |= {int(i): s for i, s in event.get("s", {}).items()}
        if event.name == "data":
            self.seen += decode(event, self._names)
        self.last = event.id or self.last


async def watch_with_cuts(port: int, total: int, rng: random.Random) -> list[tuple[int, int, Any]]:
    """Watch over real HTTP, leave after a random number of events, resume by Last-Event-ID, until all was seen."""
    client = CutClient()
    async with httpx.AsyncClient(trust_env=False) as http:
        while len(client.seen) < total:
            left, text = rng.randrange(1, 40), ""
            url, headers = f"http://127.0.0.1:{port}/v1/watch?match=**", {"Last-Event-ID": client.last}
            async with http.stream("GET", url, headers=headers) as answer:
                async for part in answer.aiter_text():
                    whole, _, text = (text + part).rpartition("\n\n")
                    events = parse(whole)[:left]
                    left -= len(events)
                    for event in events:
                        client.apply(event)
                    if not left or len(client.seen) >= total:
                        break
    return client.seen


@pytest.mark.slow
@pytest.mark.asyncio
async def test_real_http_cut_at_random_sees_everything_once() -> None:
    """Over real HTTP, cut again and again and resumed by Last-Event-ID: 0 gaps, 0 duplicates, no place left behind."""
    world = make_world(ring_bytes=20_000)
    total = 3000
    rng = random.Random(3)

    async def watch(request: Request) -> Response:
        return watch_events(world.live, world.store, StoreInStep(), IDENTITY, request.query_params, request.headers)

    async with serving(Starlette(routes=[Route("/v1/watch", watch)])) as port, asyncio.timeout(30):
        watching = asyncio.create_task(watch_with_cuts(port, total, rng))
        for first in range(1, total + 1, 10):
            for k in range(first, first + 10):
                world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
            await asyncio.sleep(rng.choice([0, 0.002]))
        seen = await watching
        while world.live.statistics().watchers:  # noqa: ASYNC110 (uvicorn says nothing when a response was cut off)
            await asyncio.sleep(0.005)

    assert seen == [(1, NOW_NS + k, float(k)) for k in range(1, total + 1)]
    assert world.live.statistics().rooms == 0


@pytest.mark.asyncio
async def test_watcher_by_websocket_with_any_name_gets_its_own_bytes() -> None:
    """Who shares a room shares encoded bytes, but never those of another transport, whatever a subscription's name."""
    world = make_world()
    response = respond(world)
    events = response.stream.events()
    await take(events, "live")
    client = Client(world, sub="sse").connect()

    world.publish(world.frame({1: [(NOW_NS, 1.5)]}))
    (data,) = await take(events, "data")

    assert data["u"] == [[1, 0, 1.5]]
    assert [(m["op"], m["sub"]) for m in client.receive()][-1] == ("data", "sse")
    response.stream.close()


@pytest.mark.asyncio
async def test_browsers_that_are_cut_off_together_come_back_apart() -> None:
    """An EventSource has no jitter of its own: each is told another wait, and at the hub's end its place in the row."""
    world = make_world()
    streams = [respond(world).stream for _ in range(40)]

    waits = {int((await anext(stream.events())).split()[1]) for stream in streams}
    world.live.stop()
    ends = [b"".join([data async for data in stream.events()]) for stream in streams]

    assert len(waits) > 20
    assert all(RETRY_MS // 2 <= wait <= RETRY_MS * 3 // 2 for wait in waits)
    told = [int(line.split()[1]) for end in ends for line in end.splitlines() if line.startswith(b"retry: ")]
    assert told == [RETRY_MS + 2 * place for place in range(40)]
    for stream in streams:
        stream.close()


@pytest.mark.asyncio
async def test_head_alone_is_no_watcher() -> None:
    """HEAD is answered as GET would be, without a stream that waits for the end of the connection."""
    world = make_world()

    async def watch(request: Request) -> Response:
        return watch_events(world.live, world.store, StoreInStep(), IDENTITY, request.query_params, request.headers)

    app = Starlette(routes=[Route("/v1/watch", watch)])
    async with serving(app) as port, httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http:
        answers = [await http.head("/v1/watch", timeout=10) for _ in range(2)]
        watchers = world.live.statistics().watchers

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["content-type"].startswith("text/event-stream")
    assert watchers == 0
