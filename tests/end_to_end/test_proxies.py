"""Behind nginx and caddy as deploy/ configures them: every transport, at once, each reading once, nobody let in.

Also behind an nginx that people have already: one that buffers what it may, one that cuts what is silent.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
import websockets
from websockets.typing import Subprotocol

from device_sdk import Client, Device
from hub.auth import Identities
from hub.live.patterns import MAX_PATTERNS
from hub.passwords import hash_password
from hub.roles import Role
from hub.tls import make_certificates
from hub.users import USERS, Users
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import ROOT, HubProcess, wait_for
from tests.support.live_world import decode
from tests.support.reverse_proxy import PROGRAMS, ReverseProxy

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]

START_NS = 1_795_376_000_000_000_000
KINDS = ("nginx", "caddy")


def make_proxy(kind: str, tmp_path: Path, hub: HubProcess, **options: Any) -> ReverseProxy:
    """Return a proxy in front of a hub; skip where there is none."""
    if PROGRAMS[kind] is None:
        pytest.skip(f"{kind} is not on this machine")
    return ReverseProxy(kind, tmp_path / kind, hub.port, **options)


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest, tmp_path: Path, hub: HubProcess) -> Iterator[ReverseProxy]:
    """A running proxy in front of the running hub."""
    with make_proxy(request.param, tmp_path, hub) as running:
        yield running


def watcher_token(hub: HubProcess) -> str:
    """Return a watcher's token made beside the running hub: through a proxy nobody is this machine."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return identities.add_token(Role.WATCHER, ("**",), "test")[1]
    finally:
        identities.close()


async def upgrade(proxy: ReverseProxy, headers: dict[str, str]) -> int:
    """Return the status of a watcher's upgrade."""
    url, name = f"{proxy.ws_url}/v1/watch", Subprotocol("watch.v1")
    try:
        async with websockets.connect(url, ssl=proxy.trust, subprotocols=[name], additional_headers=headers):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


def changes_for_tls(kind: str, ca: Path) -> dict[str, str]:
    """Return what the how-to page says to change in a file of deploy/ for TLS to the hub, for one on this machine."""
    page = (ROOT / "docs" / "how-to" / "behind-a-proxy.md").read_text(encoding="utf-8")
    told = page.split(f"```{kind}\n", 1)[1].split("```", 1)[0].replace("/etc/telemetry-hub/tls/ca.pem", str(ca))
    if kind == "nginx":
        return {"        proxy_pass http://telemetry_hub;\n": told.replace("hub.local", "localhost")}
    first, transport, *rest = (
        told.replace("hub.local:8000", "127.0.0.1:8000").replace("hub.local", "localhost").splitlines()
    )
    return {"\treverse_proxy 127.0.0.1:8000 {": first, transport: "\n".join((transport, *rest))}


class Watchers:
    """One watcher on each transport of one address, each resumes by its cursor alone; ``seen`` by transport.

    All begin behind what is there when the first asks.

    Args:
        proxy, token, cursor: where, who, and from when on.
        only: these transports.
    """

    def __init__(self, proxy: ReverseProxy, token: str, cursor: str, *only: str) -> None:
        self.seen: dict[str, list[tuple[int, Any]]] = {}
        self.connections = dict.fromkeys(("ws", "sse", "poll"), 0)
        self._proxy, self._token, self._begin = proxy, token, cursor
        ways: dict[str, Callable[[list[tuple[int, Any]]], Any]] = {"ws": self._ws, "sse": self._sse, "poll": self._poll}
        self._tasks = []
        for name in only or ways:
            seen = self.seen[name] = []
            self._tasks.append(asyncio.create_task(ways[name](seen), name=name))

    @classmethod
    async def begin(cls, proxy: ReverseProxy, hub: HubProcess, *only: str) -> "Watchers":
        """Return watchers who stand where the hub stands now."""
        token = watcher_token(hub)
        async with proxy.client(token) as http:
            return cls(proxy, token, (await http.get("/v1/watch?wait=0s")).json()["o"], *only)

    async def until(self, value: int, limit_s: float = 20.0) -> None:
        """Wait until every watcher saw the value."""

        def is_seen() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return all(seen and seen[-1][1] == value for seen in self.seen.values())

        await wait_for(is_seen, limit_s, f"{value}: {[(n, len(s), s[-1:]) for n, s in self.seen.items()]}")

    async def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ws(self, seen: list[tuple[int, Any]]) -> None:
        watch = Client(self._proxy.url, self._token, ca=self._proxy.ca).watch("d/n", since=self._begin)
        try:
            while True:
                seen += [(reading.time_ns, reading.value) for reading in await watch.batch()]
        finally:
            await watch.close()

    async def _sse(self, seen: list[tuple[int, Any]]) -> None:
        last: dict[str, str] = {}
        names: dict[int, Any] = {}
        async with self._proxy.client(self._token) as http:
            while True:
                self.connections["sse"] += 1
                with suppress(httpx.TransportError):
                    url = f"/v1/watch?match=d/n&since={self._begin}"
                    async with http.stream("GET", url, headers=last) as answer:
                        async for name, number, data in _events(answer):
                            names |= {int(i): s for i, s in data.get("s", {}).items()}
                            if name == "data":
                                seen += [(time_ns, value) for _, time_ns, value in decode(data, names)]
                            last = {"Last-Event-ID": number} if number else last
                await asyncio.sleep(0.05)

    async def _poll(self, seen: list[tuple[int, Any]]) -> None:
        cursor = self._begin
        async with self._proxy.client(self._token) as http:
            while True:
                self.connections["poll"] += 1
                try:
                    answer = await http.get(f"/v1/watch?match=d/n&since={cursor}&wait=20s")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code != 200:
                    assert answer.status_code in (502, 503, 504), answer.text
                    await asyncio.sleep(0.05)
                    continue
                body = answer.json()
                names: dict[int, Any] = {}
                for message in body["messages"]:
                    names |= {int(i): s for i, s in message.get("s", {}).items()}
                    if message["op"] == "data":
                        seen += [(time_ns, value) for _, time_ns, value in decode(message, names)]
                cursor = body["o"]


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, str | None, dict[str, Any]]]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])
        fields = {}


@pytest_asyncio.fixture
async def device(hub: HubProcess, proxy: ReverseProxy, tmp_path: Path) -> AsyncIterator[Device]:
    """A device that reaches the hub through the proxy."""
    token = enrol(hub, "d")["d"]
    async with Device("d", proxy.ws_url, token=token, spool=tmp_path / "spool", ca=proxy.ca) as device:
        device.record({"n": -1}, time=START_NS - 1)
        await device.flush_async(20)
        yield device


async def test_each_reading_arrives_at_once_on_every_transport(
    hub: HubProcess, proxy: ReverseProxy, device: Device
) -> None:
    """One after the other: the next is recorded when every watcher has seen the last, so nothing may wait for more."""
    watchers = await Watchers.begin(proxy, hub)
    begun = time.monotonic()

    for n in range(50):
        device.record({"n": n}, time=START_NS + n)
        await watchers.until(n)
    took_s = time.monotonic() - begun
    await watchers.close()

    assert set(watchers.seen) == {"ws", "sse", "poll"}
    for name, seen in watchers.seen.items():
        assert seen == [(START_NS + n, n) for n in range(50)], name
    assert took_s < 10


async def test_nothing_is_missed_or_doubled_when_hub_or_proxy_is_killed(
    hub: HubProcess, proxy: ReverseProxy, device: Device
) -> None:
    """While readings come: the hub is killed and comes back, the proxy is killed and comes back."""
    watchers = await Watchers.begin(proxy, hub)

    for n in range(600):
        device.record({"n": n}, time=START_NS + n)
        if n in (200, 400):
            ends = hub if n == 200 else proxy
            ends.kill()
            await asyncio.to_thread(ends.start)
        await asyncio.sleep(0.002)
    await device.flush_async(30)
    await watchers.until(599, 30)
    await watchers.close()

    for name, seen in watchers.seen.items():
        assert seen == [(START_NS + n, n) for n in range(600)], name


async def test_nothing_is_missed_or_doubled_on_a_bad_line_to_the_proxy(
    hub: HubProcess, proxy: ReverseProxy, device: Device
) -> None:
    """Watchers' connections are cut, reset, stalled, half closed, swallowed at random bytes: all resume by cursor."""
    async with FaultProxy(("127.0.0.1", proxy.port), seed=7) as line:
        beyond = copy(proxy)
        beyond.port = line.port
        watchers = await Watchers.begin(beyond, hub)
        device.record({"n": 0}, time=START_NS)
        await watchers.until(0)
        async with line.chaos(7, 0.03):
            for n in range(1, 1_000):
                device.record({"n": n}, time=START_NS + n)
                await asyncio.sleep(0.003)
            await device.flush_async(30)
        line.calm()
        await watchers.until(999, 40)
        await watchers.close()
        struck = line.statistics().struck

    assert struck > 20
    for name, seen in watchers.seen.items():
        assert seen == [(START_NS + n, n) for n in range(1_000)], name


async def test_who_leaves_the_proxy_is_forgotten_by_the_hub(hub: HubProcess, proxy: ReverseProxy) -> None:
    """A poll and a stream that hang up there have no connection here a moment later."""

    def busy() -> int:
        return len([c for c in psutil.Process(hub.pid).net_connections("tcp") if c.status == "ESTABLISHED"])

    async with proxy.client(watcher_token(hub)) as http:
        cursor = (await http.get("/v1/watch?wait=0s")).json()["o"]
        polls = [asyncio.create_task(http.get(f"/v1/watch?wait=50s&since={cursor}", timeout=60)) for _ in range(5)]
        async with http.stream("GET", "/v1/watch") as stream:
            assert stream.status_code == 200
            await wait_for(lambda: busy() >= 6)
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    await wait_for(lambda: busy() == 0, 10, "connections that nobody is behind")


async def test_nobody_is_this_machine_behind_a_proxy(hub: HubProcess, proxy: ReverseProxy) -> None:
    """Without a token there is nothing to read, by any transport; the page's cookie never travels in clear."""
    assert hub.request("GET", "/v1/latest")[0] == 200
    async with proxy.client() as http:
        for path in ("/v1/latest", "/v1/watch", "/v1/watch?wait=1s"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "unauthenticated"), path
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.delete("/v1/watch")).status_code == 405
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(
            f"{proxy.ws_url}/v1/watch", ssl=proxy.trust, subprotocols=[Subprotocol("watch.v1")]
        ):
            pass
    assert refused.value.response.status_code == 401


async def test_people_who_signed_in_are_known_behind_a_proxy(hub: HubProcess, proxy: ReverseProxy) -> None:
    """The cookie never travels in clear, and opens the streams to the page's own origin, but to no other's."""
    users = Users(hub.data / USERS)
    users.add("anna", Role.WATCHER, hash=hash_password("correct horse battery"))
    users.close()
    async with proxy.client() as http:
        origin = {"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"}
        person = {"name": "anna", "password": "correct horse battery"}
        answer = await http.post("/v1/login", json=person, headers=origin)
        assert answer.status_code == 200, answer.text
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "Secure", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        assert (await http.get("/v1/watch?wait=0s", headers=origin)).status_code == 200
        assert (await http.get("/v1/watch?wait=0s", headers={"Origin": "https://evil.example"})).status_code == 401

    known = {"Cookie": cookie.partition(";")[0]}
    assert await upgrade(proxy, {**known, "Origin": proxy.url}) == 101
    assert await upgrade(proxy, {**known, "Origin": "https://evil.example"}) == 401


async def test_a_query_of_many_patterns_passes(hub: HubProcess, proxy: ReverseProxy) -> None:
    """As many and as long as there may be: 13 KB in one line, and the hub's own words where it is too much."""
    patterns = [(name, f"{'x' * 40}-{n}/{'y' * 150}") for name in ("match", "not") for n in range(MAX_PATTERNS)]
    async with proxy.client(watcher_token(hub)) as http:
        answer = await http.get("/v1/watch", params=[*patterns, ("wait", "0s")])
        assert answer.status_code == 200, answer.text[:500]
        refused = await http.get("/v1/watch", params=[*patterns, ("match", "one-more"), ("wait", "0s")])
    assert (refused.status_code, refused.json()["error"]["reason"]) == (400, "bad_request")


async def test_nginx_sends_browsers_to_https(hub: HubProcess, tmp_path: Path) -> None:
    """Nothing of the hub is there without TLS."""
    with make_proxy("nginx", tmp_path, hub) as proxy:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://localhost:{proxy.plain_port}/v1/latest?match=d")
    assert (answer.status_code, answer.headers["location"]) == (301, "https://localhost/v1/latest?match=d")


@pytest.mark.parametrize("kind", KINDS)
async def test_tls_to_the_hub_too(kind: str, tmp_path: Path) -> None:
    """As the how-to page says for a hub on another machine: its certificate is checked, devices and watchers get in."""
    files = make_certificates(tmp_path / "hub-tls", ["localhost", "127.0.0.1"], now=datetime.now(UTC))
    changes = changes_for_tls(kind, files.ca)
    with (
        HubProcess(tmp_path / "data", "--tls-cert", str(files.cert), "--tls-key", str(files.key), ca=files.ca) as hub,
        make_proxy(kind, tmp_path, hub, changes=changes) as proxy,
    ):
        token = enrol(hub, "d")["d"]
        watchers = await Watchers.begin(proxy, hub)
        async with Device("d", proxy.ws_url, token=token, spool=tmp_path / "spool", ca=proxy.ca) as device:
            for n in range(3):
                device.record({"n": n}, time=START_NS + n)
                await watchers.until(n)
        await watchers.close()


async def test_nginx_that_buffers_is_told_not_to(hub: HubProcess, tmp_path: Path) -> None:
    """One with buffers and compression for all: events pass because the hub says so, polls because they end."""
    lines = {"        proxy_buffering off;\n        gzip off;\n": ""}
    http = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; proxy_buffering on; proxy_buffers 16 64k;"
    with make_proxy("nginx", tmp_path, hub, changes=lines, http=http) as proxy:
        token = enrol(hub, "d")["d"]
        watchers = await Watchers.begin(proxy, hub, "sse", "poll")
        async with Device("d", proxy.ws_url, token=token, spool=tmp_path / "spool", ca=proxy.ca) as device:
            for n in range(20):
                device.record({"n": n}, time=START_NS + n)
                await watchers.until(n)
        await watchers.close()

    for name, seen in watchers.seen.items():
        assert seen == [(START_NS + n, n) for n in range(20)], name


async def test_long_poll_gets_through_where_events_are_held_back(hub: HubProcess, tmp_path: Path) -> None:
    """A proxy that buffers whatever it is told: what is held back of events comes by long poll, at once."""
    lines = {"        proxy_buffering off;\n        gzip off;\n": ""}
    http = "proxy_buffering on; proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_ignore_headers X-Accel-Buffering;"
    http += "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"
    with make_proxy("nginx", tmp_path, hub, changes=lines, http=http) as proxy:
        token = enrol(hub, "d")["d"]
        events = await Watchers.begin(proxy, hub, "sse")
        polls = await Watchers.begin(proxy, hub, "poll")
        async with Device("d", proxy.ws_url, token=token, spool=tmp_path / "spool", ca=proxy.ca) as device:
            for n in range(20):
                device.record({"n": n}, time=START_NS + n)
                await polls.until(n)
        held = len(events.seen["sse"])
        await events.close()
        await polls.close()

    assert held == 0
    assert polls.seen["poll"] == [(START_NS + n, n) for n in range(20)]


async def test_nginx_that_cuts_what_is_silent(hub: HubProcess, tmp_path: Path) -> None:
    """Connections are cut after a second of silence, with 504 where an answer was awaited: all resume by cursor."""
    with make_proxy("nginx", tmp_path, hub, changes={"proxy_read_timeout 75s": "proxy_read_timeout 1s"}) as proxy:
        token = enrol(hub, "d")["d"]
        watchers = await Watchers.begin(proxy, hub)
        async with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
            for n in range(4):
                device.record({"n": n}, time=START_NS + n)
                await watchers.until(n)
                await asyncio.sleep(1.3)
        await watchers.close()

    assert min(watchers.connections["sse"], watchers.connections["poll"]) > 4
    for name, seen in watchers.seen.items():
        assert seen == [(START_NS + n, n) for n in range(4)], name
