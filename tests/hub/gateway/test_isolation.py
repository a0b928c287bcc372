"""What any entrance shows: nothing of another namespace, nothing outside the granted patterns.

Two namespaces hold devices and channels of the same names. Every text in the hub (a value, a label) says whose it is,
so whatever an answer holds can be compared with what its asker may see. Who comes in at all: `test_entrances`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, DEVICE_PATH, WATCH_PATH
from hub.app import Hub
from hub.config import Config
from hub.gateway.http import make_app
from hub.gateway.rest import ENDPOINTS
from hub.roles import Role
from tests.support.entrances import WAIT_S, EventStream, Socket
from tests.support.hub_parts import http_client

pytestmark = pytest.mark.asyncio

T0 = 1_795_376_000_000_000_000
NAMESPACES = ("default", "other")
OWN, OTHERS = "mine-1", "theirs-1"
CHANNELS = ("level", "hidden")
# Scope → what it holds for, said without the hub's patterns; `self` is what belongs to a device as a whole.
SCOPES: dict[str, Callable[[str, str], bool]] = {
    "**": lambda device, channel: True,
    "mine-*": lambda device, channel: device == OWN,
    "*/level": lambda device, channel: channel != "hidden",
}
_MARK = re.compile(r"(default|other)\.(mine-1|theirs-1|only-default|only-other)\.(level|hidden|self)")
_DEVICE = re.compile(r"only-default|only-other|mine-1|theirs-1")
# What shows every channel that the asker may see, and what shows every device.
OF_CHANNELS = {"/v1/latest", "/v1/readings", "/v1/export", "/v1/export?format=ndjson", "/v1/channels"}
OF_DEVICES = {"/v1/devices", "/v1/metadata"}
# Of the whole hub, whoever asks (health, version) or for whom this is (a backup).
OF_THE_HUB = {endpoint.path for endpoint in ENDPOINTS if endpoint.verb is None} | {"/v1/backup"}


def devices_of(namespace: str) -> tuple[str, ...]:
    """Return the devices of a namespace: two have a namesake in the other."""
    return (f"only-{namespace}", OTHERS, OWN)


def other_than(namespace: str) -> str:
    """Return the other namespace."""
    return NAMESPACES[1 - NAMESPACES.index(namespace)]


@dataclass
class Feeder:
    """One device of one namespace on its socket; ``sent`` frames are acked."""

    hub: Hub
    namespace: str
    device: str
    sent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        token = self.hub.identities.add_device(self.device, namespace=self.namespace)
        self.socket = Socket(self.hub, DEVICE_PATH, token)
        hello = wire.Hello(self.device, "9f3a0000000000aa", "boot", "run", 0, 1, CHAIN_START.hex())
        channels = [Channel(name, "", ValueType.STR, label=self.mark(name)) for name in CHANNELS]
        for message in (hello, wire.Schema(tuple(channels))):
            self.socket.say(wire.encode(message))

    def mark(self, channel: str) -> str:
        """Return the text that says whose something is."""
        return f"{self.namespace}.{self.device}.{channel}"

    async def feed(self, time_ns: int) -> None:
        """Send a reading of each channel, and wait for its ack."""
        self.sent += 1
        batch = to_columns(self.sent, [(c, time_ns, f"{self.mark(c)}#{self.sent}") for c in CHANNELS])
        await self._send(encode_batch(batch))

    async def lose(self) -> None:
        """Declare a loss in each channel."""
        self.sent += 1
        await self._send(wire.encode(wire.Gap(self.sent, 2, "spool_full", {c: (T0, T0 + 1) for c in CHANNELS})))

    async def _send(self, data: bytes) -> None:
        self.socket.say(data, is_text=data[:1] == b"{")
        await self.socket.until("ack", self.sent)


class Fleet:
    """Both namespaces' devices; the readings of one are a second later than those of the other."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.of = {n: [Feeder(hub, n, device) for device in devices_of(n)] for n in NAMESPACES}

    async def feed(self, namespace: str) -> int:
        """Feed the other namespace twice, then this one; its newest event time is returned."""
        for feeder in self.of[other_than(namespace)]:
            await feeder.feed(T0 + 10**9)
            await feeder.feed(T0 + 2 * 10**9)
        for feeder in self.of[namespace]:
            await feeder.feed(T0 + feeder.sent)
        return T0 + self.of[namespace][0].sent - 1


@pytest_asyncio.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A hub with readings, losses and edited labels in two namespaces."""
    async with Hub(Config(data=tmp_path, host="0.0.0.0", insecure_lan=True)) as hub:
        fleet = Fleet(hub)
        for namespace in NAMESPACES:
            _, token = hub.identities.add_token(Role.ADMIN, name=f"{namespace}.mine-1.self", namespace=namespace)
            async with http_client(make_app(hub), token=token) as client:
                for device in devices_of(namespace):
                    label = {"label": f"{namespace}.{device}.self"}
                    assert (await client.patch(f"/v1/devices/{device}/metadata", json=label)).status_code == 200
            for feeder in fleet.of[namespace]:
                await feeder.feed(T0)
                await feeder.lose()
        yield fleet


def asker(hub: Hub, namespace: str, match: str, role: Role = Role.WATCHER) -> str:
    """Return a token."""
    return hub.identities.add_token(role, [match], namespace=namespace)[1]


def granted(namespace: str, match: str) -> set[tuple[str, str, str]]:
    """Return the marks that an asker may see."""
    sees = SCOPES[match]
    return {(namespace, d, c) for d in devices_of(namespace) for c in (*CHANNELS, "self") if sees(d, c)}


def series_of(marks: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """Return the marks of channels."""
    return {mark for mark in marks if mark[2] != "self"}


def marks_in(text: str) -> set[tuple[str, ...]]:
    """Return whose texts are in it."""
    return set(_MARK.findall(text))


async def said(is_met: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not is_met():  # noqa: ASYNC110 - several connections are looked at, none of them has an event for it
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("match", SCOPES)
@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_watching_shows_what_is_granted_and_no_more(fleet: Fleet, namespace: str, match: str) -> None:
    """Live and from each kind of `since`, both modes, by socket, event stream and poll: the grant's series and data."""
    hub = fleet.hub
    token, app = asker(hub, namespace, match), make_app(hub)
    first = f"{hub.journal.run.id}.0"
    begins = {"live": None, "cursor": first, "time": str(T0 - 1), "last": "last"}
    socket = Socket(hub, WATCH_PATH, token)
    async with AsyncExitStack() as stack:
        streams = {}
        for name, since in begins.items():
            for mode in ("lossless", "latest"):
                more = {} if since is None else {"since": since}
                socket.ask(op="sub", sub=f"{name}:{mode}", match=["**"], mode=mode, max_hz=50, **more)
                query = str(httpx.QueryParams({"mode": mode, "max_hz": "50", **more}))
                streams[name, mode] = await stack.enter_async_context(EventStream(app, token, query))
        await socket.until("live", len(streams))
        for stream in streams.values():
            await stream.until("live")
        await fleet.feed(namespace)

        # Fed last, and granted to all: whatever else was to be shown has been shown before it.
        newest = f"{namespace}.{OWN}.level#3"
        await said(lambda: all(newest in stream.text for stream in streams.values()))
        await said(lambda: sum(newest in str(m) for m in socket.messages) == len(streams))
        for key, stream in streams.items():
            assert marks_in(stream.text) == series_of(granted(namespace, match)), key
            of_sub = str([m for m in socket.messages if m.get("sub") == ":".join(key)])
            assert marks_in(of_sub) == series_of(granted(namespace, match)), key
        ids = {id_ for m in socket.messages if m["op"] == "data" for id_, *_ in m["u"]}
        shown = {(s.namespace, s.device, s.channel) for i, s in hub.registry.by_id.items() if i in ids}
        assert shown == series_of(granted(namespace, match))
    for name, mode in streams:
        query = str(httpx.QueryParams({"mode": mode, "wait": "0s", "since": begins[name] or first}))
        async with EventStream(app, token, query) as poll:
            assert marks_in(poll.text) == series_of(granted(namespace, match)), (name, mode)
    socket.leave()


_FURTHER = (
    "/v1/export?format=ndjson", "/v1/readings?bucket=1h&agg=last&from=0", "/v1/readings?at=now",
    "/v1/readings?points=5", "/v1/readings?bucket=1d&tz=UTC&from=0&agg=integral,last",
)  # fmt: skip


@pytest.mark.parametrize("match", SCOPES)
@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_rest_shows_what_is_granted_and_no_more(fleet: Fleet, namespace: str, match: str) -> None:
    """Every GET of the table, of watcher and admin: the texts and names of the grant, in history all of them."""
    hub = fleet.hub
    allowed = granted(namespace, match)
    paths = [e.path.replace("{id}", "1") for e in ENDPOINTS if e.method == "GET" and e.path not in OF_THE_HUB]
    paths = [path.replace("{device}", device) for path in paths for device in (OWN, OTHERS)]
    for role in (Role.WATCHER, Role.ADMIN):
        async with http_client(make_app(hub), token=asker(hub, namespace, match, role)) as client:
            for path in dict.fromkeys([*paths, *_FURTHER]):
                response = await client.get(path)

                told = (role, path, response.status_code, response.text[:2000])
                assert marks_in(response.text) <= allowed, told
                # An error repeats what was asked.
                named = set(_DEVICE.findall(response.text)) if response.status_code == 200 else set()
                assert named <= {device for _, device, _ in allowed}, told
                assert match != "*/level" or "hidden" not in response.text, told
                if path in OF_CHANNELS:
                    assert marks_in(response.text) == series_of(allowed), told
                if path in OF_DEVICES:
                    assert marks_in(response.text) >= {mark for mark in allowed if mark[2] == "self"}, told


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_presence_and_audit_count_the_own_namespace_alone(fleet: Fleet, namespace: str) -> None:
    """A namesake that is connected, newer and busier elsewhere changes no presence, time, count or gap here."""
    hub = fleet.hub
    last_ns = await fleet.feed(namespace)
    for feeder in fleet.of[namespace]:
        feeder.socket.leave()

    async with http_client(make_app(hub), token=asker(hub, namespace, "**")) as client:
        devices = (await client.get("/v1/devices")).json()["devices"]
        audit = (await client.get("/v1/audit")).json()

    assert [(d["device"], d["connected"], d["last_ns"], d["late"]) for d in devices] == [
        (device, False, str(last_ns), 0) for device in sorted(devices_of(namespace))
    ]
    counts = [(d["device"], d["streams"], d["accepted"], d["dropped"], d["rows"]) for d in audit["devices"]]
    assert counts == [(device, 1, 4, 2, 4) for device in sorted(devices_of(namespace))]
    assert {(g["device"], tuple(sorted(g["ranges"]))) for g in audit["gaps"]} == {
        (device, tuple(sorted(CHANNELS))) for device in devices_of(namespace)
    }
    assert {s["rows"] for s in audit["series"]} == {2}


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_errors_say_nothing_of_what_is_not_granted(fleet: Fleet, namespace: str) -> None:
    """What exists elsewhere and what exists nowhere is refused in the same words, by socket, events, poll and REST."""
    hub = fleet.hub
    token, app = asker(hub, namespace, "mine-*"), make_app(hub)
    answers: dict[str, set[str]] = {"socket": set(), "events": set(), "poll": set(), "latest": set(), "edit": set()}
    editor = asker(hub, namespace, "mine-*", Role.OPERATOR)
    for device in (OTHERS, f"only-{other_than(namespace)}", "nowhere"):
        socket = Socket(hub, WATCH_PATH, token)
        socket.ask(op="sub", sub="s", match=[device])
        answers["socket"].add(socket.text.replace(device, "X"))
        socket.leave()
        async with EventStream(app, token, f"match={device}") as stream:
            answers["events"].add(stream.text.replace(device, "X"))
        async with EventStream(app, token, f"match={device}&wait=0s") as stream:
            answers["poll"].add(stream.text.replace(device, "X"))
        async with http_client(app, token=editor) as client:
            answers["latest"].add((await client.get(f"/v1/latest?match={device}")).text.replace(device, "X"))
            edit = await client.patch(f"/v1/devices/{device}/metadata", json={"label": "Mine"})
            answers["edit"].add(edit.text.replace(device, "X"))

    assert {name: len(texts) for name, texts in answers.items()} == dict.fromkeys(answers, 1), answers
    assert marks_in(str(answers)) == set()


@pytest.mark.parametrize("match", SCOPES)
async def test_lag_counts_and_names_nobody(fleet: Fleet, match: str) -> None:
    """A stuck watcher is told how far it is behind in frames of the hub and seconds; conflated are its own alone."""
    hub = fleet.hub
    socket = Socket(hub, WATCH_PATH, asker(hub, "default", match))
    for mode in ("lossless", "latest"):
        socket.ask(op="sub", sub=mode, match=["**"], mode=mode, max_hz=50)
    await socket.until("live", 2)
    told = len(socket.messages)
    socket.connection.is_stalled = True
    # As full as if the network took nothing of it.
    socket.connection.send(b'{"op":"filler","text":"%s"}' % (b"x" * 2**19))
    await fleet.feed("other")
    await said(lambda: hub.live.statistics().behind == 2)
    before = hub.live.head
    for feeder in fleet.of["other"]:
        await feeder.feed(T0 + 3 * 10**9)
    for watcher in list(hub.live.watchers):
        watcher.tick()
    socket.connection.drain()

    lags = {m["sub"]: m for m in socket.messages[told:] if m["op"] == "lag"}
    assert {sub: set(lag) for sub, lag in lags.items()} == {
        "lossless": {"op", "sub", "behind", "secs"},
        "latest": {"op", "sub", "behind", "secs", "conflated"},
    }
    assert lags["latest"]["conflated"] == 0
    assert lags["lossless"]["behind"] >= hub.live.head - before
    assert not any(mark[0] == "other" for mark in marks_in(str(socket.messages)))
    socket.leave()
