"""Access over WebSockets, event stream and long poll: every entrance × role × verb × scope × namespace, and every op.

The matrix of the REST routes is in `tests.hub.gateway.test_http`; what an entrance then shows, in `test_isolation`.
Each case starts a whole hub with all its files: seven seconds together, so they run with the real processes.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.envelope import wrap
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START, DEVICE_PATH, WATCH_PATH, Close
from hub.app import Hub
from hub.config import Config
from hub.gateway.http import make_app
from hub.live import message as watch
from hub.model import SeriesKey
from hub.roles import VERBS, Role, Verb
from hub.session import ALLOWED, State
from tests.support.entrances import EventStream, Socket

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

T0 = 1_795_376_000_000_000_000
NAMESPACES = ("default", "other")
OWN, OTHERS = "mine-1", "theirs-1"
MATCHES = ("**", "mine-*")
DEVICE, WATCH, EVENTS, POLL = "device socket", "watch socket", "event stream", "long poll"

# Where a credential of the role comes in, and where one comes in that has this verb alone: a new one needs a line.
ROLE_ENTERS: dict[Role, set[str]] = {
    Role.DEVICE: {DEVICE},
    Role.GATEWAY: {DEVICE},
    Role.WATCHER: {WATCH, EVENTS, POLL},
    Role.OPERATOR: {WATCH, EVENTS, POLL},
    Role.ADMIN: {WATCH, EVENTS, POLL},
}
VERB_ENTERS: dict[Verb, set[str]] = {
    Verb.WRITE: {DEVICE},
    Verb.READ: {WATCH, EVENTS, POLL},
    Verb.COMMAND: set(),
    Verb.EDIT: set(),
    Verb.MANAGE: set(),
}

_BATCH = encode_batch(to_columns(1, [("level", T0, 1.0)]))
# op of a device → a message of it, what the hub answers before hello, and after: an op, a close code or nothing.
DEVICE_OPS: dict[str, tuple[bytes, int | str | None, int | str | None]] = {
    "hello": (b"", "welcome", "welcome"),
    "schema": (wire.encode(wire.Schema((Channel("level"),))), Close.BAD_MESSAGE, None),
    "batch": (_BATCH, Close.BAD_MESSAGE, "ack"),
    "gap": (wire.encode(wire.Gap(1, 2, "spool_full", {"level": (T0, T0)})), Close.BAD_MESSAGE, "ack"),
    "reply": (wire.encode(wire.Reply("c1", True, 1)), Close.BAD_MESSAGE, None),
    "reported": (wire.encode(wire.Reported(0, {"on": True})), Close.BAD_MESSAGE, None),
    "malformed": (b'{"op":"nonsense"}', Close.BAD_MESSAGE, "error"),
    "bye": (wire.encode(wire.Bye()), 1000, 1000),
}
# What only the hub says: from a device it is nonsense.
HUB_OPS: dict[type, wire.HubMessage] = {
    wire.Welcome: wire.Welcome(1, CHAIN_START.hex(), "", T0),
    wire.NewStream: wire.NewStream(0, CHAIN_START.hex(), "seq_reuse", ""),
    wire.Ack: wire.Ack(1, CHAIN_START.hex(), ""),
    wire.Error: wire.Error("out_of_order", 1),
    wire.Slow: wire.Slow("store_behind", 1),
    wire.Command: wire.Command("c1", "reboot", {}, T0),
    wire.Desired: wire.Desired(1, {"on": True}),
}
# message of a watcher → its fields beside op; what needs a subscription that exists names it.
WATCH_OPS: dict[type, dict[str, Any]] = {
    watch.Hello: {},
    watch.Sub: {"sub": "s"},
    watch.Set: {"sub": "s", "max_hz": 5},
    watch.Unsub: {"sub": "s"},
    watch.Auth: {"token": "t0.unknown"},
}
PATTERNS = (OWN, OTHERS, "**")
# What comes of each when the pattern is granted, and when it is not: then there is no subscription to set or end.
GRANTED = {"Hello": "welcome", "Sub": "ok", "Set": "ok", "Unsub": "ok", "Auth": "unauthenticated"}
REFUSED = {**GRANTED, "Sub": "forbidden", "Set": "not_found", "Unsub": "not_found"}


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub that asks everybody for a credential, with the same two devices in two namespaces."""
    async with Hub(Config(data=tmp_path, host="0.0.0.0", insecure_lan=True)) as hub:
        for namespace in NAMESPACES:
            for device in (OWN, OTHERS):
                hub.registry.declare(namespace, device, [Channel("level")])
        hub.live.add_series(hub.registry.take_changes())
        yield hub


def token_of(hub: Hub, role: Role, match: str, namespace: str, verb: Verb | None = None) -> str:
    """Return a token of the role; ``verb``: it has this one alone."""
    if role is Role.DEVICE:
        return hub.identities.add_devices([OWN], rotate=True, namespace=namespace)[OWN]
    scopes = None if verb is None else {v: [match] if v is verb else [] for v in VERBS[role]}
    return hub.identities.add_token(role, [match], "gate", scopes=scopes, namespace=namespace)[1]


async def entered(hub: Hub, token: str | None) -> dict[str, int]:
    """Knock at each entrance; return its status."""
    found = {}
    for entrance, path in ((DEVICE, DEVICE_PATH), (WATCH, WATCH_PATH)):
        socket = Socket(hub, path, token)
        found[entrance] = socket.status
        assert token is None or token not in socket.text
        socket.leave()
    for entrance, query in ((EVENTS, ""), (POLL, "wait=0s")):
        async with EventStream(make_app(hub), token, query) as events:
            found[entrance] = events.status
            assert token is None or token not in events.text
    return found


def expected(enters: set[str]) -> dict[str, int]:
    """Return the status of each entrance for a credential that comes in at some."""
    opens = {DEVICE: 101, WATCH: 101, EVENTS: 200, POLL: 200}
    return {entrance: status if entrance in enters else 403 for entrance, status in opens.items()}


def greeting(device: str) -> bytes:
    """Return the hello of a device with a new stream."""
    return wire.encode(wire.Hello(device, "9f3a0000000000aa", "boot", "run", 0, 1, CHAIN_START.hex()))


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("match", MATCHES)
async def test_every_entrance_asks_for_its_verb(hub: Hub, match: str, namespace: str) -> None:
    """Every role, and every verb of it alone, at every entrance; nobody and a wrong token get 401, also of devices."""
    assert set(ROLE_ENTERS) == set(Role), "a new role: say above where it comes in"
    assert set(VERB_ENTERS) == set(Verb), "a new verb: say above where it comes in"
    for role in Role:
        token = token_of(hub, role, match, namespace)
        assert await entered(hub, token) == expected(ROLE_ENTERS[role]), role
        assert set((await entered(hub, token + "x")).values()) == {401}
        for verb in VERBS[role]:
            token = token_of(hub, role, match, namespace, verb)
            assert await entered(hub, token) == expected(VERB_ENTERS[verb]), (role, verb)

    assert set((await entered(hub, None)).values()) == {401}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("op", DEVICE_OPS)
async def test_every_device_op_before_and_after_hello(hub: Hub, op: str, namespace: str) -> None:
    """Before hello nothing but hello and bye is taken; afterwards each op works, in its own namespace alone."""
    data, before, after = DEVICE_OPS[op]
    data = data or greeting(OWN)
    assert (before != Close.BAD_MESSAGE) == (State.AWAIT_HELLO in ALLOWED[op])
    token = token_of(hub, Role.DEVICE, "**", namespace)
    foreign = NAMESPACES[1 - NAMESPACES.index(namespace)]

    early = Socket(hub, DEVICE_PATH, token)
    early.say(data)
    assert before == (early.code or early.messages[-1]["op"])
    early.leave()
    assert hub.journal.head == 0

    socket = Socket(hub, DEVICE_PATH, token)
    socket.say(greeting(OWN))
    if op == "batch":
        socket.say(DEVICE_OPS["schema"][0])
    told = len(socket.messages)
    socket.say(data)
    if isinstance(after, str):
        await socket.until(after, 2 if op == "hello" else 1)
    else:
        assert (socket.code, socket.messages[told:]) == (after, [])
    assert not hub.downlink.can_reach(foreign, OWN)
    assert hub.journal.account(foreign, None, 0).marks == []
    assert hub.registry.devices[foreign, OWN].connections == 0
    socket.leave()


async def test_no_device_op_is_without_a_line() -> None:
    """A new op on the wire, in either direction, needs a line in this matrix."""
    assert set(DEVICE_OPS) == set(ALLOWED)
    assert {message.__name__.lower() for message in get_args(wire.DeviceMessage)} | {"batch", "malformed"} == set(
        ALLOWED
    )
    assert set(HUB_OPS) == set(get_args(wire.HubMessage)) - set(get_args(wire.DeviceMessage))


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_a_device_is_itself_alone(hub: Hub, namespace: str) -> None:
    """Hello for another device, known here, known elsewhere or not known, is 4403, before hello and after it."""
    hub.identities.add_devices([OTHERS, "unknown"], namespace="other")
    token = token_of(hub, Role.DEVICE, "**", namespace)
    for device in (OTHERS, "unknown", OWN.upper(), ""):
        for first in ((), (greeting(OWN),)):
            socket = Socket(hub, DEVICE_PATH, token)
            for data in (*first, greeting(device)):
                socket.say(data)
            assert socket.code == Close.FORBIDDEN, device
            assert not any(hub.downlink.can_reach(space, device) for space in NAMESPACES)
            socket.leave()

    assert {device for _, device in hub.registry.devices} == {OWN, OTHERS}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("op", DEVICE_OPS)
async def test_every_device_op_behind_a_gateway(hub: Hub, op: str, namespace: str) -> None:
    """Each op as from the device itself, under its number, in its own namespace; before hello it is told to say hello.

    What ends a device ends that one: the gateway's connection stays.
    """
    data, before, after = DEVICE_OPS[op]
    data = data or greeting(OWN)
    foreign = NAMESPACES[1 - NAMESPACES.index(namespace)]
    token = token_of(hub, Role.GATEWAY, "mine-*", namespace)
    hub.children.set_rules("gate", namespace=namespace)
    hub.children.accept("gate", OWN, namespace=namespace)
    socket = Socket(hub, DEVICE_PATH, token)

    socket.say(wrap(7, data), is_text=data[:1] == b"{")
    told = [(m["n"], m.get("code", m["op"])) for m in socket.messages]
    assert told == ([] if before == 1000 else [(7, before)])

    socket.say(wrap(8, greeting(OWN)))
    if op == "batch":
        socket.say(wrap(8, DEVICE_OPS["schema"][0]))
    said = len(socket.messages)
    socket.say(wrap(8, data), is_text=data[:1] == b"{")
    if isinstance(after, str):
        found = await socket.until(after, len([m for m in socket.messages[:said] if m["op"] == after]) + 1)
        assert found["n"] == 8
    else:
        assert socket.messages[said:] == []
    assert socket.code is None
    assert not hub.downlink.can_reach(foreign, OWN)
    assert hub.downlink.can_reach(namespace, OWN) is (op != "bye")
    assert hub.journal.account(foreign, None, 0).marks == []
    socket.leave()
    assert not hub.downlink.can_reach(namespace, OWN)


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_a_gateway_speaks_for_its_children_alone(hub: Hub, namespace: str) -> None:
    """Not for itself, not beyond its prefix, not for enrolled devices, nobody without a word; of no other namespace."""
    hub.identities.add_device("mine-2", namespace=namespace)
    hub.children.set_rules("gate", namespace=NAMESPACES[1 - NAMESPACES.index(namespace)])
    hub.children.accept("gate", OWN, namespace=NAMESPACES[1 - NAMESPACES.index(namespace)])
    socket = Socket(hub, DEVICE_PATH, token_of(hub, Role.GATEWAY, "mine-*", namespace))
    for number, device in enumerate((OWN, OTHERS, "mine-2", "gate", "MINE-1", "mine-1/x", ""), 1):
        socket.say(wrap(number, greeting(device)))
    words = ["child_pending", "child_prefix", "child_taken", *["child_prefix"] * 4]
    assert [(m["n"], m["op"], m["code"], m["reason"]) for m in socket.messages] == [
        (number, "bye", Close.FORBIDDEN, word) for number, word in enumerate(words, 1)
    ]
    assert not any(hub.downlink.can_reach(space, OWN) for space in NAMESPACES)
    assert {device for _, device in hub.registry.devices} == {OWN, OTHERS}

    socket.say(greeting(OWN))
    assert socket.code == Close.BAD_MESSAGE
    socket.leave()


async def test_what_the_hub_says_is_nothing_a_device_may_say(hub: Hub) -> None:
    """An ack or a command from a device is nonsense: before hello it closes, after hello it changes nothing."""
    token = token_of(hub, Role.DEVICE, "**", "default")
    for kind, message in HUB_OPS.items():
        data = wire.encode(message)
        early, socket = Socket(hub, DEVICE_PATH, token), Socket(hub, DEVICE_PATH, token)
        early.say(data)
        for each in (greeting(OWN), data):
            socket.say(each)

        assert early.code == Close.BAD_MESSAGE, kind
        assert [(m["op"], m.get("reason")) for m in socket.messages][1:] == [("error", "unreadable")], kind
        assert (socket.code, hub.journal.head) == (None, 0)
        early.leave()
        socket.leave()


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("match", MATCHES)
async def test_every_watch_message_with_every_pattern(hub: Hub, match: str, namespace: str) -> None:
    """What meets the granted patterns is granted, what does not is refused; series show no more."""
    assert set(WATCH_OPS) == set(get_args(watch.ClientMessage)), "a new message: say above what it looks like"
    for role in (role for role in Role if WATCH in ROLE_ENTERS[role]):
        token = token_of(hub, role, match, namespace)
        for pattern in PATTERNS:
            is_seen = match == "**" or pattern != OTHERS
            socket = Socket(hub, WATCH_PATH, token)
            answers = await every_message(socket, pattern, is_seen)

            assert answers == (GRANTED if is_seen else REFUSED), (role, pattern)
            assert socket.messages[0]["namespace"] == namespace
            assert shown(hub, socket) == seen_by(hub, namespace, match, pattern)
            socket.leave()
            for query in (f"match={pattern}", f"match={pattern}&wait=0s"):
                async with EventStream(make_app(hub), token, query) as events:
                    assert events.status == (200 if is_seen else 403)


async def every_message(socket: Socket, pattern: str, is_seen: bool) -> dict[str, str]:
    """Say every message; return what came of each."""
    for kind, fields in WATCH_OPS.items():
        more = {"match": [pattern], "mode": "latest"} if kind is watch.Sub else {}
        socket.ask(op=kind.__name__.lower(), id=kind.__name__, **fields, **more)
        if kind is watch.Sub and is_seen:
            await socket.until("live")
    return {m["id"]: m.get("reason", m["op"]) for m in socket.messages if "id" in m}


def shown(hub: Hub, socket: Socket) -> set[SeriesKey]:
    """Return what the ids in all series messages stand for."""
    ids = {int(id_) for m in socket.messages if m["op"] == "series" for id_ in m["s"]}
    return {key for key, series in hub.registry.by_key.items() if series.id in ids}


def seen_by(hub: Hub, namespace: str, match: str, pattern: str) -> set[SeriesKey]:
    """Return what a subscription may show, said without the hub's patterns."""
    devices = {OWN, OTHERS} if pattern == "**" else {pattern}
    if match == "mine-*":
        devices -= {OTHERS}
    return {key for key in hub.registry.by_key if key.namespace == namespace and key.device in devices}


@pytest.mark.parametrize(("match", "denied"), [("**", []), ("mine-*", [OTHERS])])
async def test_denied_patterns_are_named_beside_the_granted(hub: Hub, match: str, denied: list[str]) -> None:
    """Several patterns in one subscription: it begins with those that meet a grant, and says which did not."""
    socket = Socket(hub, WATCH_PATH, token_of(hub, Role.WATCHER, match, "default"))
    socket.say(json.dumps({"op": "sub", "sub": "s", "match": list(PATTERNS)}).encode())
    answer = await socket.until("ok")

    assert (answer["denied"], answer["granted"]) == (denied, [p for p in PATTERNS if p not in denied])
    socket.leave()


async def test_another_token_decides_again_on_the_open_connection(hub: Hub) -> None:
    """With a narrower token the connection sees less from now on; the end of the first one is nothing to it."""
    first = token_of(hub, Role.WATCHER, "**", "default")
    socket = Socket(hub, WATCH_PATH, first)
    socket.say(json.dumps({"op": "sub", "sub": "s", "match": list(PATTERNS[:2])}).encode())
    await socket.until("live")

    socket.ask(op="auth", id="a", token=token_of(hub, Role.WATCHER, "mine-*", "default"))
    hub.identities.remove_token(first.partition(".")[0])
    hub.live.end_identities(hub.identities.refresh())
    answer = next(m for m in socket.messages if m.get("id") == "a")

    assert answer["subs"] == {"s": {"granted": [OWN], "denied": [OTHERS]}}
    assert socket.code is None
    socket.leave()
