"""`hub.gateway.asyncapi`: the document is sound, and everything that is really said is as it says, both ways."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, get_args

import httpx
import pytest
from jsonschema import Draft7Validator
from starlette.datastructures import Headers, QueryParams

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_json
from device_sdk.envelope import wrap
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import Close
from hub.gateway.asyncapi import asyncapi
from hub.gateway.http import make_app
from hub.gateway.sse import watch_events
from hub.gateway.watch_socket import WatchSocket
from hub.live import message
from hub.live.cursor import resolve_since
from hub.live.figures import Origin
from hub.live.message import check_message
from hub.live.poll import Poll
from hub.live.watch import MAX_SUBS, room_key
from hub.query import parse_time
from hub.roles import Identity, Role, scopes_of
from hub.session import ALLOWED
from tests.hub.test_session import T0, Rig, batch, greet
from tests.support.fake_connection import FakeConnection
from tests.support.hub_parts import HubParts, http_client
from tests.support.live_world import NOW_NS, Client, StoreInStep, World

DOCUMENT = asyncapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
IDENTITY = Identity("t1", "tester", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
S = 10**9
Said = tuple[str, Any]


# --- the document by itself -------------------------------------------------------------------------------


def references(found: object) -> Iterator[str]:
    """Yield every ``$ref`` in the document."""
    if isinstance(found, dict):
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        found = list(found.values())
    if isinstance(found, list):
        for inner in found:
            yield from references(inner)


def resolve(reference: str) -> Any:
    """Return what a reference names; `KeyError` when it is not there."""
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_reference_resolves() -> None:
    """No channel, operation, message or schema points to one that is not there."""
    found = set(references(DOCUMENT))

    assert len(found) > 100
    assert [reference for reference in found if not resolve(reference)] == []


def test_every_schema_is_one() -> None:
    """Payloads and the parameters of requests are JSON Schema draft 07: AsyncAPI means it where nothing is said."""
    queries = [o["bindings"]["http"]["query"] for o in DOCUMENT["operations"].values() if "bindings" in o]

    assert len(queries) == 2
    for schema in [*SCHEMAS.values(), *queries]:
        Draft7Validator.check_schema(schema)
        assert not {"prefixItems", "$defs", "unevaluatedProperties"} & set(json.dumps(schema).split('"'))
    assert {"match", "not", "selector", "since", "mode", "max_hz", "agg", "every"} == set(queries[0]["properties"])
    assert set(queries[1]["properties"]) - set(queries[0]["properties"]) == {"wait"}


def test_operations_are_of_messages_of_their_channels() -> None:
    """AsyncAPI 3.0: an operation has an action, a channel, and messages of that channel alone; so has its reply."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    for name, operation in DOCUMENT["operations"].items():
        channel = operation["channel"]["$ref"]
        reply = operation.get("reply", {"channel": operation["channel"], "messages": []})
        assert operation["action"] in ("send", "receive"), name
        assert reply["channel"] == operation["channel"]
        for one in operation["messages"] + reply["messages"]:
            assert one["$ref"].startswith(f"{channel}/messages/"), name
        assert operation["security"]


def test_every_message_is_in_a_channel_and_an_operation() -> None:
    """Nothing is described that nobody says."""
    in_channels = {
        one["$ref"].rpartition("/")[2] for c in DOCUMENT["channels"].values() for one in c["messages"].values()
    }
    in_operations = {
        one["$ref"].rpartition("/")[2]
        for o in DOCUMENT["operations"].values()
        for one in [*o["messages"], *o.get("reply", {}).get("messages", ())]
    }

    inside_pages = {name for name in DOCUMENT["components"]["messages"] if name.startswith("poll_")} - {"poll_page"}
    assert set(DOCUMENT["components"]["messages"]) - inside_pages == in_channels == in_operations


def test_channels_say_how_to_come_in_and_why_one_is_closed() -> None:
    """Addresses, subprotocols, close codes with their policy and limits are those of the code."""
    channels = DOCUMENT["channels"]
    codes = {one["code"]: one for one in channels["watch"]["x-close-codes"]}

    assert {c["address"] for c in channels.values()} == {wire.DEVICE_PATH, wire.WATCH_PATH}
    assert set(codes) == {code for name, code in vars(Close).items() if name.isupper()}
    assert (codes[4010]["reconnect"], codes[4401]["reconnect"][:7]) == ("soon", "after m")
    assert all(one["meaning"] for one in codes.values())
    assert channels["devices"]["x-limits"]["max_frame_bytes"] == wire.MAX_FRAME_BYTES
    assert channels["watch"]["x-limits"]["max_subs"] == MAX_SUBS
    assert channels["watchPoll"]["x-limits"]["max_wait_s"] == 55.0
    sub = channels["devices"]["bindings"]["ws"]["headers"]["properties"]["Sec-WebSocket-Protocol"]
    assert Draft7Validator(sub).is_valid("telemetry.v1")
    assert not Draft7Validator(sub).is_valid("telemetry.v10")


def test_every_op_is_described() -> None:
    """An op that is added to a protocol appears by itself, in its direction."""
    hub = {name.removeprefix("hub_") for name in SCHEMAS if name.startswith("hub_")}

    assert {op for op in ALLOWED if op != "malformed"} == {
        name.removeprefix("device_") for name in DOCUMENT["components"]["messages"] if name.startswith("device_")
    } - {"batch_binary"}
    assert len(hub) == len(get_args(wire.HubMessage))
    assert {get_args(m.model_fields["op"].annotation)[0] for m in get_args(message.ClientMessage)} == {
        name.removeprefix("watcher_") for name in DOCUMENT["components"]["messages"] if name.startswith("watcher_")
    }


# --- what is really said ----------------------------------------------------------------------------------


def devices() -> Iterator[Said]:
    """Yield both sides of conversations of devices with the real session, every op of each."""
    rig = Rig()
    session = rig.session()

    def say(op: str, data: bytes, **options: Any) -> Iterator[Said]:
        yield f"device_{op}", json.loads(data)
        yield from told(rig.say(session, data, **options))

    channels = (Channel("x", "Cel", ValueType.FLOAT, 1.0, 0.0, 9.0, "X"), Channel("y"))
    commands = {"fan": {"args": {"speed": {"type": "int", "required": True, "choices": [1, 2]}}, "doc": "Turns."}}
    yield from say("hello", greet(earlier=(wire.Earlier("9f3a0000000000ab", 3, 4, "ab" * 16),), seen="7f3a0001.0"))
    yield from say("schema", wire.encode(wire.Schema(channels, commands)))
    yield from say("batch", batch(1))
    yield from say("batch", batch(1), can_accept=False)
    yield from say("gap", wire.encode(wire.Gap(2, None, "power_cut", {"x": (T0, T0 + S)})))
    yield from say("batch", batch(3, "no number"))
    rig.commit()
    yield from told(map(json.loads, session.take_output()))
    yield from say("batch", batch(9))
    yield from say("batch", batch(4), can_accept=False)
    yield from say("reply", wire.encode(wire.Reply("k7", False, error="expired")))
    yield from say("reply", wire.encode(wire.Reply("k8", True, {"speed": 3})))
    yield from say("reported", wire.encode(wire.Reported(4, {"interval_s": 10}, "m1")))
    session.tell(wire.Command("k7", "fan", {"speed": 3}, T0))
    session.tell(wire.Desired(4, {"interval_s": 10}, "m1"))
    yield from told(map(json.loads, session.take_output()))
    yield from say("bye", wire.encode(wire.Bye()))
    session = rig.session()
    yield from say("hello", greet(next_seq=2, chain=bytes(range(16))))
    yield from told([json.loads(wire.encode(wire.Bye(8412))), json.loads(wire.encode(wire.Bye(1, 4403, "no", "not")))])
    yield (
        "device_batch",
        json.loads(encode_json(Batch(7, 2, T0, 10**6, (Column("x", [0, 5], [1, 2**60]),), True, True))),
    )


def told(messages: Iterable[Any]) -> Iterator[Said]:
    """Yield what the hub said to a device, with the names of the schemas."""
    for one in messages:
        yield f"hub_{one['op']}", one


def watchers() -> Iterator[Said]:
    """Yield both sides of conversations of watchers with the real session, every op of each."""
    world = World()
    world.add("pump-1", "flow", ValueType.INT)
    world.add("pump-2", "flow")
    world.describe("pump-2", "wet")
    client = Client(world, selector="tag:wet", max_hz=5, mode="latest", agg="minmax").connect()
    asked: dict[Any, str] = {}

    def say(at: int, **fields: Any) -> Iterator[Said]:
        asked[at] = fields["op"]
        yield f"watcher_{fields['op']}", {"id": at, **fields}
        client.say({"id": at, **fields})
        client.run()

    yield "watcher_sub", client.sub
    yield from say(1, op="hello", client="test/1")
    yield from say(2, op="sub", sub="s2", match=["**"], **{"not": ["*/debug"]}, since="-15m")
    yield from say(3, op="sub", sub="s3", match=["pump-1"], mode="sample", every=2, since="last")
    yield from say(4, op="set", sub="s1", max_hz=2)
    yield from say(5, op="set", sub="none", max_hz=2)
    for value in (4.0, 1.0, 9.0, 3.0):
        world.publish(world.frame({2: [(NOW_NS + int(value), value)]}))
    world.settle(1)
    world.describe("pump-2")
    late = world.frame({1: [(NOW_NS - S, 2**60)]})
    late.late = ((0, NOW_NS),)
    world.publish(late)
    world.settle(1)
    yield from say(6, op="auth", token="pump-1/**")
    yield from say(7, op="auth", token="?")
    yield from say(8, op="unsub", sub="s2")
    yield from watched(client.receive(), asked)
    yield from behind(world, client)
    socket, connection = WatchSocket(world.live, world.store, StoreInStep(), IDENTITY), FakeConnection()
    socket.opened(connection)
    socket.end(Close.GOING_AWAY, "the hub stops", 5)
    yield from watched(connection.take(), {})


def behind(world: World, client: Client) -> Iterator[Said]:
    """Yield what is told to one who did not read, and to one with a cursor that means nothing any more."""
    text = world.add("log", "line", ValueType.STR)
    slow = [Client(world, match=["log"]).connect(), Client(world, match=["log"], mode="latest", max_hz=50).connect()]
    for each in slow:
        each.connection.is_stalled = True
    for k in range(400):
        world.record(text.id, NOW_NS + k, "x" * 1000)
    for each in slow:
        each.session.tick()
        each.connection.drain()
        each.run()
        yield from watched(each.connection.take(), {})
    client.cursor = "0badcafe.7"
    yield from watched(client.connect().receive(), {})


def watched(messages: Iterable[dict[str, Any]], asked: dict[Any, str]) -> Iterator[Said]:
    """Yield what the hub said to a watcher, with the names of the schemas."""
    for one in messages:
        op = one["op"]
        if op == "ok":
            kind = asked.get(one["id"], "sub")
            op = {"sub": "ok_sub", "auth": "ok_auth"}.get(kind, "ok")
        yield f"watch_{op}", one


@cache
def conversation() -> tuple[Said, ...]:
    """Return everything said by WebSocket, with the name of its schema."""
    return (*devices(), *watchers())


@cache
def validator(name: str) -> Draft7Validator:
    """Return the schema of a message, with the others beside it."""
    return Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


@cache
def strict(name: str) -> Draft7Validator:
    """Return the same with every field it does not name refused: what is said has to be described."""
    return Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed(SCHEMAS)}})


def closed(found: Any) -> Any:
    """Return schemas whose objects may have the fields that they name, and no others."""
    if isinstance(found, list):
        return [closed(inner) for inner in found]
    if not isinstance(found, dict):
        return found
    out = {name: closed(inner) for name, inner in found.items()}
    if isinstance(out.get("properties"), dict) and out.get("type") == "object":
        out.setdefault("additionalProperties", False)
    return out


@pytest.mark.parametrize("name", [n for n in SCHEMAS if n.split("_")[0] in ("device", "hub", "watcher", "watch")])
def test_what_is_said_is_as_described(name: str) -> None:
    """Each op of both protocols, in both directions, recorded from the real sessions: no field more, none wrong."""
    said = [one for schema, one in conversation() if schema == name]

    if name == "device_batch_binary" or name not in DOCUMENT["components"]["messages"]:
        return
    assert said, "an op that no conversation here has: add it"
    for one in said:
        assert [error.message for error in strict(name).iter_errors(one)] == [], one


def test_every_field_described_is_said() -> None:
    """No field is described that the hub never sends: each occurs in the recorded conversations."""
    seen: dict[str, set[str]] = {}
    for name, one in conversation():
        seen.setdefault(name, set()).update(one)

    told = [name for name in seen if name.startswith(("hub_", "watch_"))]
    assert {name: set(SCHEMAS[name]["properties"]) - seen[name] for name in told} == {name: set() for name in told}


@pytest.mark.parametrize("name", sorted({name for name, _ in conversation()}))
def test_a_message_with_a_wrong_field_is_refused(name: str) -> None:
    """Without a field that is required, or with one of a type that no field has, a message is not as described."""
    said = next(one for schema, one in conversation() if schema == name)
    schema = validator(name)
    assert schema.is_valid(said)

    for field in SCHEMAS[name]["required"]:
        assert not schema.is_valid({key: value for key, value in said.items() if key != field}), field
    for field, of_field in SCHEMAS[name]["properties"].items():
        if set(of_field) - {"title", "default", "description"}:
            assert not schema.is_valid({**said, field: [{"wrong": None}]}), field


def test_messages_behind_a_gateway_carry_a_number() -> None:
    """The same message in an envelope is as described, and without a number it is not."""
    for name, one in conversation():
        if name.startswith(("device_", "hub_")):
            inside = json.dumps(one, separators=(",", ":")).encode()
            assert validator(f"gateway_{name}").is_valid(json.loads(wrap(7, inside)))
            assert not validator(f"gateway_{name}").is_valid(one)


def test_answers_to_polls_are_as_described() -> None:
    """A page has the messages of a subscription, without its name."""
    world = World()
    world.add("d", "x")
    request = check_message({"op": "sub", "sub": "http", "match": ["**"], "since": "0badcafe.7"})
    assert isinstance(request, message.Sub)
    key, _, _ = room_key(request, "default", ["**"])
    start = resolve_since(request.since, world.live.runs, world.live.head, NOW_NS, parse_time)
    poll = Poll(world.live, key, start, Origin("p-1", IDENTITY, "poll", "127.0.0.1:5", NOW_NS), lambda: None)
    while poll.step() is not False:
        pass
    world.record(1, NOW_NS, 1.5)
    poll.end(Close.GOING_AWAY, "the hub stops", 5)

    page = json.loads(poll.answer())

    assert [one["op"] for one in page["messages"]] == ["reset", "series", "data", "live", "bye"]
    assert [error.message for error in strict("poll_page").iter_errors(page)] == []
    assert not validator("poll_page").is_valid({**page, "messages": [{"op": "live"}]})


@pytest.mark.asyncio
async def test_events_are_as_described() -> None:
    """The data of an event is the message without op and subscription; its name is the op."""
    world = World(loop=asyncio.get_running_loop())
    world.add("d", "x")
    query = QueryParams("match=**&since=0badcafe.7")
    stream = watch_events(world.live, world.store, StoreInStep(), IDENTITY, query, Headers({})).stream
    text = ""
    async for data in stream.events():
        text += data.decode()
        if "event: data" in text and "event: bye" not in text:
            stream.end(Close.GOING_AWAY, "the hub stops", 5)
        elif "event: live" in text and "event: data" not in text:
            world.publish(world.frame({1: [(NOW_NS, 1.5)]}))
    stream.close()

    blocks = [block for block in text.split("\n\n") if "event: " in block]
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    assert [event["event"] for event in events] == ["reset", "series", "live", "data", "bye"]
    for event in events:
        assert [e.message for e in strict(f"event_{event['event']}").iter_errors(json.loads(event["data"]))] == [], (
            event
        )


@pytest.mark.asyncio
async def test_the_hub_serves_it_to_all(hub: HubParts) -> None:
    """As JSON, without a credential, as the description of REST."""
    async with http_client(make_app(hub)) as client:
        answer: httpx.Response = await client.get("/v1/asyncapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
