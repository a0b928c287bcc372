"""`Client`: history in pages, live readings each once over connections that drop."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.sync.server import Server
from websockets.sync.server import ServerConnection as SyncConnection
from websockets.sync.server import serve as serve_sync

from device_sdk.client import Client, Watch
from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, ProtocolError, ResetError
from device_sdk.reading import Value
from device_sdk.rows import Rows
from device_sdk.watch import WatchedReading

T0 = 1_795_376_000_000_000_000
Answer = tuple[int, object]


@contextmanager
def rest(answer: Callable[[str, dict[str, list[str]], str | None], Answer]) -> Iterator[str]:
    """Serve canned JSON on a port of its own; ``answer``: (path, query, authorization) → (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body = answer(parts.path, parse_qs(parts.query), self.headers["Authorization"])
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_query_fetches_every_page() -> None:
    """Pages are asked for until there is no next; rows come as dicts and as tuples, times as exact ints."""
    asked: list[dict[str, list[str]]] = []
    series = [{"device": "d", "channel": "x", "unit": "Cel"}]

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        asked.append(query)
        assert (path, authorization) == ("/v1/readings", "Bearer secret")
        at = len(asked)
        return 200, {
            "series": series, "columns": ["time_ns", "series", "value"],
            "rows": [[str(T0 + at), 0, at + 0.5]], "next": str(at) if at < 3 else None,
        }  # fmt: skip

    with rest(answer) as url:
        rows = Client(url, "secret").query("d/*", last="1h")

    assert rows.columns == ("device", "channel", "unit", "time_ns", "value")
    assert rows.rows == [("d", "x", "Cel", T0 + k, k + 0.5) for k in (1, 2, 3)]
    assert rows[0] == {"device": "d", "channel": "x", "unit": "Cel", "time_ns": T0 + 1, "value": 1.5}
    assert len(rows) == 3
    assert isinstance(rows[1:], Rows)
    assert asked[0]["match"] == ["d/*"]
    assert asked[0]["last"] == ["1h"]
    assert "page" not in asked[0]
    assert asked[2]["page"] == ["2"]


def test_query_with_buckets_gives_a_column_per_aggregate() -> None:
    """`bucket` asks for aggregates; start and end may be datetimes, epoch ns or text."""

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        assert query["bucket"] == ["1m"]
        assert query["agg"] == ["avg,max"]
        assert query["from"] == [str(T0)]
        assert query["to"] == ["2026-11-22T00:00:00Z"]
        assert authorization is None
        series = [{"device": "d", "channel": "x", "unit": None}]
        return 200, {"series": series, "columns": ["time_ns", "series", "avg", "max"], "rows": [["60", 0, 1.5, 2]]}

    with rest(answer) as url:
        rows = Client(url).query("d/x", start=T0, end="2026-11-22T00:00:00Z", bucket="1m", agg=("avg", "max"))

    assert rows[0] == {"device": "d", "channel": "x", "unit": None, "time_ns": 60, "avg": 1.5, "max": 2}


def test_query_passes_what_is_asked_and_nothing_else() -> None:
    """Each parameter has the hub's name; what comes in one answer has no limit of pages."""
    asked: list[dict[str, list[str]]] = []

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        asked.append({name: value for name, value in query.items() if name not in ("match", "order")})
        return 200, {"series": [], "columns": ["time_ns", "series", "value"], "rows": [], "next": None}

    with rest(answer) as url:
        client = Client(url)
        client.query(last="7d", bucket="1d", tz="Europe/Brussels", agg="mean", fill="previous")
        client.query(last="7d", bucket="1h", fill=0)
        client.query(last="7d", points=800)
        client.query(at=datetime(2026, 11, 22, tzinfo=UTC), lookback="1h")
        with pytest.raises(MisuseError, match="limit 0"):
            client.query(limit=0)

    assert asked == [
        {"last": ["7d"], "bucket": ["1d"], "tz": ["Europe/Brussels"], "agg": ["mean"], "fill": ["previous"],
         "limit": ["10000"]},
        {"last": ["7d"], "bucket": ["1h"], "agg": ["avg,min,max,count"], "fill": ["0"], "limit": ["10000"]},
        {"last": ["7d"], "points": ["800"]},
        {"at": ["1795305600000000000"], "lookback": ["1h"]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(1970, 1, 2, tzinfo=UTC), "1970-01-02T00:00:00.000000000Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC), "1969-12-31T23:59:59.500000000Z"),
        (76_204_800_000_000_001, "1972-06-01T00:00:00.000000001Z"),
        (datetime.min.replace(tzinfo=UTC), str(-(2**63))),
        (T0 + 1, str(T0 + 1)),
    ],
)
def test_a_time_is_asked_for_as_it_is_meant(time: datetime | int, text: str) -> None:
    """Also those about 1970, whose nanoseconds look like milliseconds of today, and those beyond 64 bits."""
    asked: list[str] = []

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        asked.extend(query["from"])
        return 200, {"series": [], "columns": ["time_ns", "series", "value"], "rows": [], "next": None}

    with rest(answer) as url:
        Client(url).query(start=time)

    assert asked == [text]


def test_query_stops_at_its_limit() -> None:
    """A page may hold more than was asked for; the answer does not, and no page is fetched in vain."""
    series = [{"device": "d", "channel": "x", "unit": None}]
    asked: list[dict[str, list[str]]] = []

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        asked.append(query)
        rows = [[str(T0 + len(asked) * 2 + i), 0, 1.5] for i in range(2)]
        return 200, {"series": series, "columns": ["time_ns", "series", "value"], "rows": rows, "next": "1"}

    with rest(answer) as url:
        rows = Client(url).query("d/x", limit=3, order="desc")

    assert len(rows) == 3
    assert len(asked) == 2
    assert (asked[0]["limit"], asked[0]["order"]) == (["3"], ["desc"])


def test_large_integers_come_back_whole_and_text_stays_text() -> None:
    """Text in an int series is an integer beyond 2**53; in a series of strings it is text."""
    series = [{"device": "d", "channel": c, "unit": None} for c in ("count", "state")]

    def answer(path: str, query: dict[str, list[str]], authorization: str | None) -> Answer:
        if path == "/v1/channels":
            kinds = {"count": "int", "state": "str"}
            return 200, {"channels": [{"device": "d", "channel": c, "type": t} for c, t in kinds.items()]}
        rows = [["1", 0, str(2**60)], ["2", 1, "42"], ["3", 0, 7]]
        return 200, {"series": series, "columns": ["time_ns", "series", "value"], "rows": rows, "next": None}

    with rest(answer) as url:
        rows = Client(url).query()

    assert [row[4] for row in rows.rows] == [2**60, "42", 7]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"error": {"reason": "bad_request", "message": "duration 'x'"}}, MisuseError, "duration"),
        (401, {"error": {"reason": "unauthenticated", "message": "send a token"}}, AuthenticationError, "token"),
        (403, b"", AuthenticationError, "403"),
        (503, {"error": {"reason": "unavailable", "message": "later"}}, ConnectionLostError, "later"),
        (200, b"<html>", ProtocolError, "no telemetry hub"),
        (200, [], ProtocolError, "no telemetry hub"),
    ],
)
def test_refusals_say_what_to_do(status: int, body: object, kind: type[Exception], words: str) -> None:
    """Each status becomes the error by which a caller knows what to fix."""
    with rest(lambda *_: (status, body)) as url, pytest.raises(kind, match=words):
        Client(url).query(last="x")


def test_no_hub_is_a_lost_connection() -> None:
    """Nothing listens: the error names the address."""
    with rest(lambda *_: (200, {})) as url:
        pass

    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1"):
        Client(url).devices()


@pytest.mark.parametrize("url", ["ftp://x", "http://", ""])
def test_wrong_url_is_misuse(url: str) -> None:
    """An address that cannot be a hub's is refused at once."""
    with pytest.raises(MisuseError):
        Client(url)


def test_missing_ca_is_misuse() -> None:
    """A CA file that is not there is named."""
    with pytest.raises(MisuseError, match=r"none\.pem"):
        Client("https://hub.local", ca="none.pem")


SERIES = {"op": "series", "sub": "s1", "s": {"1": {"device": "d", "channel": "x", "unit": None, "type": "float"}}}


def data(offset: int) -> dict[str, Any]:
    """Return the data message of one reading: its value is its offset."""
    return {
        "op": "data",
        "sub": "s1",
        "o": f"aaaaaaaa.{offset}",
        "t0": str(T0),
        "tick": 1,
        "u": [[1, offset, offset + 0.5]],
    }


class Script:
    """A hub with one series of 10 readings that cuts its first connections after some messages."""

    def __init__(self, cuts: list[int], *, last: int = 10) -> None:
        self.cuts = cuts
        self.asked: list[dict[str, Any]] = []
        self._last = last

    async def __call__(self, socket: ServerConnection) -> None:
        """Serve one connection from its cursor on."""
        request = json.loads(await socket.recv())
        self.asked.append(request)
        after = int(request.get("since", "aaaaaaaa.0").split(".")[1])
        messages = [{"id": 1, "op": "ok", "sub": "s1", "from": f"aaaaaaaa.{after}", "recovered": True}, SERIES]
        messages += [data(offset) for offset in range(after + 1, self._last + 1)]
        left = self.cuts.pop(0) if self.cuts else len(messages)
        for message in messages[:left]:
            await socket.send(json.dumps(message))
        if left < len(messages):
            socket.transport.abort()
        else:
            await socket.wait_closed()


def without_waiting(client: Client, **options: Any) -> Watch:
    """Return a watch that reconnects at once."""
    watch = client.watch("d/*", **options)
    watch.wait = _no_wait
    return watch


async def _no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_watch_resumes_by_cursor_and_gives_each_reading_once() -> None:
    """Connections cut after any message are made again; the loop sees 10 readings, in order, once."""
    script = Script([1, 2, 3, 4, 0, 6])

    async with serve(script, "127.0.0.1", 0, subprotocols=["watch.v1"]) as server, asyncio.timeout(10):  # type: ignore[list-item]
        watch = without_waiting(Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        seen: list[WatchedReading] = []
        async for reading in watch:
            seen.append(reading)
            if len(seen) == 10:
                break
        await watch.close()

    assert [(r.time_ns - T0, r.value) for r in seen] == [(k, k + 0.5) for k in range(1, 11)]
    assert len(script.asked) == 7


@pytest.mark.asyncio
async def test_cursor_names_what_the_loop_was_given_completely() -> None:
    """A watch can be continued by its cursor: the reading in hand counts only when the next is asked for."""
    async with serve(Script([]), "127.0.0.1", 0) as server, asyncio.timeout(10):
        client = Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        watch = client.watch()

        await watch.batch()
        first = watch.cursor
        await watch.batch()
        second = watch.cursor
        await watch.close()
        later = client.watch(since=second)
        (reading,) = await later.batch()
        await later.close()

    assert (first, second) == ("aaaaaaaa.0", "aaaaaaaa.1")
    assert reading.value == 2.5


def test_for_loop_without_an_event_loop() -> None:
    """`for reading in client.watch(…)` works in plain programs and notebooks' cells."""
    with sync_hub(SERIES, data(1), data(2)) as url:
        seen = []
        for reading in Client(url).watch("d"):
            seen.append(reading.value)
            if len(seen) == 2:
                break

    assert seen == [1.5, 2.5]


@pytest.mark.asyncio
async def test_for_loop_inside_a_running_loop() -> None:
    """In a notebook's cell, where a loop runs, `for` works too; broken out of, thread and connection end."""
    with sync_hub(SERIES, data(1), data(2), data(3)) as url:
        seen = []
        watch = Client(url).watch("d")
        for reading in watch:
            seen.append(reading.value)
            if len(seen) == 2:
                break
        left = [thread for thread in threading.enumerate() if thread.name == "device_sdk-watch"]

    assert seen == [1.5, 2.5]
    assert left == []
    assert watch._socket is None


def packed(first: int, count: int) -> dict[str, Any]:
    """Return the data message of several readings; its offset is that of the first."""
    return {**data(first), "u": [[1, at, at + 0.5] for at in range(first, first + count)]}


def packs(request: str | bytes) -> list[str]:
    """Return what answers a subscription: messages of three readings, from the cursor on."""
    after = int(json.loads(request).get("since", "aaaaaaaa.-2").split(".")[1])
    ok = {"id": 1, "op": "ok", "sub": "s1", "from": f"aaaaaaaa.{after}", "recovered": True}
    return [json.dumps(m) for m in (ok, SERIES, *(packed(first, 3) for first in range(after + 3, 10, 3)))]


@pytest.mark.asyncio
async def test_loop_goes_on_where_the_one_before_was_left() -> None:
    """Also in the middle of a message: its rest is the first that the next loop over the same watch is given."""

    async def handle(socket: ServerConnection) -> None:
        for message in packs(await socket.recv()):
            await socket.send(message)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, subprotocols=["watch.v1"]) as server, asyncio.timeout(10):  # type: ignore[list-item]
        watch = without_waiting(Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        seen: list[list[Value]] = []
        for _ in range(3):
            seen.append([])
            async for reading in watch:
                seen[-1].append(reading.value)
                if len(seen[-1]) == 2:
                    break
        await watch.close()

    assert seen == [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]


@pytest.mark.parametrize("is_inside", [False, True])
def test_for_loop_goes_on_where_the_one_before_was_left(is_inside: bool) -> None:
    """As `async for` does, with a loop of its own and beside one that runs."""

    def read(url: str) -> list[list[Value]]:
        watch = without_waiting(Client(url))
        return [[reading.value for reading in islice(watch, 2)] for _ in range(3)]

    async def read_inside(url: str) -> list[list[Value]]:
        return read(url)

    with serving(packs) as url:
        seen = asyncio.run(read_inside(url)) if is_inside else read(url)

    assert seen == [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]


@pytest.mark.asyncio
async def test_an_error_inside_a_running_loop_reaches_the_for_loop() -> None:
    """What ends a watch ends the `for`, as where no loop runs."""
    with rest(lambda *_: (404, {})) as url, pytest.raises(ConnectionLostError):
        next(iter(Client(url).watch()))

    assert not [thread for thread in threading.enumerate() if thread.name == "device_sdk-watch"]


@pytest.mark.asyncio
async def test_reset_is_raised_or_handed_to_the_callback() -> None:
    """Without `on_reset` the loop raises and can be continued from the head; with it, it goes on by itself."""
    reset = {"op": "reset", "sub": "s1", "why": "expired", "head": "aaaaaaaa.7"}
    resets: list[ResetError] = []

    with sync_hub(reset, SERIES, data(8)) as url:
        async with asyncio.timeout(10):
            watch = Client(url).watch(since="aaaaaaaa.1")
            with pytest.raises(ResetError):
                await watch.batch()
            assert watch.cursor == "aaaaaaaa.7"
            (reading,) = await watch.batch()
            await watch.close()
            called = Client(url).watch(since="aaaaaaaa.1", on_reset=resets.append)
            await called.batch()
            await called.close()

    assert reading.value == 8.5
    assert [r.why for r in resets] == ["expired"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "kind"), [(4401, AuthenticationError), (4403, AuthenticationError), (4400, ProtocolError)]
)
async def test_final_close_codes_end_the_loop(code: int, kind: type[Exception]) -> None:
    """44xx is for a person to mend: it is raised, not tried again."""

    async def close(socket: ServerConnection) -> None:
        await socket.close(code, "no")

    async with serve(close, "127.0.0.1", 0) as server, asyncio.timeout(10):
        watch = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}").watch()
        with pytest.raises(kind):
            await watch.batch()
        await watch.close()


@pytest.mark.asyncio
async def test_refused_upgrade_is_an_authentication_error() -> None:
    """401 and 403 at the upgrade show the hub's words."""

    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(401, '{"error":{"reason":"unauthenticated","message":"send a token"}}')

    async with serve(Script([]), "127.0.0.1", 0, process_request=refuse) as server, asyncio.timeout(10):
        with pytest.raises(AuthenticationError, match="send a token"):
            await Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}").watch().batch()


@pytest.mark.asyncio
async def test_function_is_asked_for_another_token_once() -> None:
    """One that the hub does not know, at the upgrade or later, is no end where another can be had."""
    given: list[str] = []
    tokens = iter(["unknown", "good", "ended"])

    def token() -> str:
        given.append(next(tokens))
        return given[-1]

    def look(connection: ServerConnection, request: Request) -> Response | None:
        if request.headers["Authorization"] == "Bearer unknown":
            return connection.respond(401, '{"error":{"reason":"unauthenticated","message":"who?"}}')
        return None

    async def serve_one(socket: ServerConnection) -> None:
        if given[-1] != "ended":
            assert [json.loads(await socket.recv())["op"] for _ in range(2)] == ["hello", "sub"]
            await socket.send(json.dumps(SERIES))
            await socket.send(json.dumps(data(1)))
        await socket.close(4401, "this credential was revoked")

    async with serve(serve_one, "127.0.0.1", 0, process_request=look) as server, asyncio.timeout(10):
        watch = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", token).watch("d")
        first = await watch.batch()
        with pytest.raises(AuthenticationError):
            await watch.batch()
        await watch.close()

    assert [reading.value for reading in first] == [1.5]
    assert given == ["unknown", "good", "ended"]


@pytest.mark.asyncio
async def test_first_connection_that_fails_is_raised() -> None:
    """A wrong address shows at once instead of being tried for ever."""
    with rest(lambda *_: (404, {})) as url, pytest.raises(ConnectionLostError):
        await Client(url).watch().batch()


@contextmanager
def sync_hub(*messages: dict[str, Any]) -> Iterator[str]:
    """Serve the same messages to every connection, from a thread."""
    with serving(lambda _: [json.dumps(message) for message in messages]) as url:
        yield url


@contextmanager
def serving(answer: Callable[[str | bytes], list[str]]) -> Iterator[str]:
    """Answer the first message of every connection, from a thread."""

    def handle(socket: SyncConnection) -> None:
        for message in answer(socket.recv()):
            socket.send(message)
        for _ in socket:
            pass

    server: Server = serve_sync(handle, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join()
