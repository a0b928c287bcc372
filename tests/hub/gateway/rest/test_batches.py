"""`hub.gateway.rest.batches`: readings by request, in every form, answered when they are durable."""

import gzip
import json
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import cbor2
import httpx
import pytest
import pytest_asyncio

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Value
from device_sdk.wire import CHAIN_START, Schema, encode, next_chain
from hub.decode.base import Publication
from hub.decode.rows import Row, Rows
from hub.gateway.http import make_app
from hub.gateway.rest.batches import FRAMES, JSON, MAX_DOCUMENT_BYTES, ND_JSON, TEXT, PostAnswer
from hub.posts import CUT, digest_of
from hub.roles import Role
from tests.hub.gateway.conftest import T0
from tests.support.hub_parts import HubParts, http_client

pytestmark = pytest.mark.asyncio
PATH = "/v1/batches"
STREAM = "9f3a0000000000aa"


@pytest_asyncio.fixture
async def device(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """The client of an enrolled device."""
    async with http_client(make_app(hub), token=hub.identities.add_device("shed")) as client:
        yield client


@pytest_asyncio.fixture
async def gateway(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """The client of a gateway; one child is accepted."""
    _, token = hub.identities.add_token(Role.GATEWAY, ["barn-*"], "barn")
    hub.children.set_rules("barn")
    hub.children.accept("barn", "barn-1")
    async with http_client(make_app(hub), token=token) as client:
        yield client


def stored(hub: HubParts, device: str = "shed") -> dict[str, list[Value]]:
    """Return the values of a device by channel, in the order of their times."""
    known = hub.registry.device("default", device).channels
    return {
        name: [row.value for row in hub.store.read([series.id], 0, 2**62, 1000)] for name, series in known.items()
    }  # fmt: skip


async def post(client: httpx.AsyncClient, data: bytes, kind: str, status: int = 200, **more: Any) -> dict[str, Any]:
    """Post a body; return the answer, checked against its model."""
    headers = {"Content-Type": kind, **more.pop("headers", {})}
    response = await client.post(PATH, content=data, headers=headers, **more)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    if status == 200:
        PostAnswer.model_validate(answer)
    return answer


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (b'{"temperature": 21.5, "air": {"co2": 612}}', JSON, {"temperature": [21.5], "air.co2": [612]}),
        (b'{"temperature": 21.5}', "", {"temperature": [21.5]}),
        (b'[{"time": 1700000001, "t": 2}, {"time": 1700000000, "t": 1}]', JSON, {"t": [1, 2]}),
        (b'[{"n": "t", "u": "Cel", "v": 21.5}, {"n": "t", "v": 22}]', "application/senml+json", {"t": [21.5, 22]}),
        (cbor2.dumps([{0: "t", 2: 21.5}]), "application/senml+cbor", {"t": [21.5]}),
        (b"m,host=x f=1i 1700000000\nm f=2i 1700000001\n", f"{TEXT}; charset=utf-8", {"m.f": [1, 2]}),
    ],
)
async def test_forms_of_readings(
    hub: HubParts, device: httpx.AsyncClient, data: bytes, kind: str, expected: dict[str, list[Value]]
) -> None:
    """Each by its content type, also packed; what is answered is stored."""
    answer = await post(device, data, kind, params={"precision": "s"})
    packed = await post(
        device, gzip.compress(data), kind, params={"precision": "s"}, headers={"Content-Encoding": "gzip"}
    )

    count = sum(map(len, expected.values()))
    assert (answer["accepted"], answer["rejected"], answer["refused"]) == (count, 0, [])
    assert packed["accepted"] == count
    assert {name: sorted(set(values)) for name, values in stored(hub).items()} == {
        name: sorted(values) for name, values in expected.items()
    }  # fmt: skip


async def test_refused_readings_are_named(hub: HubParts, device: httpx.AsyncClient) -> None:
    """Beside those that are stored 200; when nothing is 422, and asking again does not help."""
    some = await post(device, b'[{"t": 1}, {"t": "x"}, {"time": "noon", "t": 2}]', JSON)
    none = await post(device, b'{"t": "x"}', JSON, 422)

    assert (some["accepted"], some["rejected"]) == (1, 2)
    assert [(r["at"], r["channel"], r["reason"]) for r in some["refused"]] == [
        (2, "t", "type_conflict"), (3, "", "bad_time"),
    ]  # fmt: skip
    assert none["error"]["reason"] == "type_conflict"
    assert (none["accepted"], none["rejected"]) == (0, 1)
    assert stored(hub) == {"t": [1]}


async def test_idempotency_key_makes_one_of_many(hub: HubParts, device: httpx.AsyncClient) -> None:
    """The same status and the same answer; another body under it is 422."""
    for data, kind, status in ((b'[{"a": 1}, {"a": "x"}]', JSON, 200), (b'b=1\nm,host=q c=1,d="x"', TEXT, 200)):
        headers = {"Idempotency-Key": kind}
        answers = [await post(device, data, kind, status, headers=headers) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
    first, second = [await post(device, b'{"a": "x"}', JSON, 422, headers={"Idempotency-Key": "z"}) for _ in range(2)]

    assert first == second
    assert (await post(device, b'{"a": 7}', JSON, 422, headers={"Idempotency-Key": JSON}))["error"]["reason"] == (
        "key_reused"
    )
    assert stored(hub) == {"a": [1], "m.c": [1.0], "m.d": ["x"]}


@pytest.mark.parametrize("kind", [ND_JSON, FRAMES, JSON])
async def test_numbered_frames(hub: HubParts, device: httpx.AsyncClient, kind: str) -> None:
    """As on a WebSocket; sent again nothing is stored twice, and the answer is that of an ack."""
    bodies = [encode(Schema((Channel("t", "Cel"),))), encode_batch(to_columns(1, [("t", T0, 1.5), ("t", T0 + 1, 2.5)]))]
    if kind == ND_JSON:
        data = b"\n".join(bodies) + b"\n"
    elif kind == FRAMES:
        data = b"".join(struct.pack("<I", len(body)) + body for body in bodies)
    else:
        await post(device, bodies[0], kind, params={"stream": STREAM})
        data = bodies[1]
    first, again = [await post(device, data, kind, params={"stream": STREAM, "seen": "none.1"}) for _ in range(2)]

    assert (first["accepted"], again["accepted"], first["stored"], again["stored"]) == (2, 0, 1, 1)
    assert first["chain"] == next_chain(CHAIN_START, bodies[1]).hex()
    assert first["pos"].count(".") == 1
    assert stored(hub) == {"t": [1.5, 2.5]}
    assert hub.registry.device("default", "shed").channels["t"].unit == "Cel"


async def test_frames_that_do_not_follow_say_where_to_go_on(hub: HubParts, device: httpx.AsyncClient) -> None:
    """409 with what is stored; a refused reading is named by seq and index."""
    body = encode_batch(to_columns(1, [("t", T0, 1.5), ("t", T0 + 1, "x")]))
    taken = await post(device, body, ND_JSON, params={"stream": STREAM})
    hole = await post(device, encode_batch(to_columns(3, [("t", T0, 1.5)])), ND_JSON, 409, params={"stream": STREAM})
    other = await post(device, body.replace(b"1.5", b"1.7"), ND_JSON, 409, params={"stream": STREAM})
    chained = {"stream": STREAM, "chain": "ab" * 16}
    forked = await post(device, encode_batch(to_columns(2, [("t", T0, 1.5)])), ND_JSON, 409, params=chained)

    assert [(r["at"], r["index"], r["reason"]) for r in taken["refused"]] == [(1, 1, "type_conflict")]
    assert (hole["error"]["reason"], hole["stored"], hole["chain"]) == ("out_of_order", 1, taken["chain"])
    assert [answer["error"]["reason"] for answer in (other, forked)] == ["chain_conflict"] * 2


async def test_gateway_sends_for_its_children(hub: HubParts, gateway: httpx.AsyncClient) -> None:
    """By names in the body, by `device`; who waits for a person is told when to come again, and appears as pending."""
    pack = b'[{"bn": "barn-1:", "n": "t", "v": 1}, {"bn": "barn-2:", "n": "t", "v": 2}]'
    some = await post(gateway, pack, "application/senml+json")
    named = await post(gateway, b'{"u": 1}', JSON, params={"device": "barn-1"})
    waiting = await gateway.post(PATH, json={"u": 1}, params={"device": "barn-2"})
    outside = await post(gateway, b'{"u": 1}', JSON, 403, params={"device": "shed"})
    nobody = await post(gateway, b'{"u": 1}', JSON, 422)
    frames = await post(
        gateway, encode_batch(to_columns(1, [("t", T0, 1)])), ND_JSON, params={"stream": STREAM, "device": "barn-1"}
    )
    refused = await gateway.post(
        PATH, content=b"{}", headers={"Content-Type": ND_JSON}, params={"stream": STREAM, "device": "barn-2"}
    )

    assert [(r["device"], r["reason"]) for r in some["refused"]] == [("barn-2", "child_pending")]
    assert (some["accepted"], named["accepted"], frames["accepted"]) == (1, 1, 1)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (403, "5")
    assert (refused.status_code, refused.headers["Retry-After"]) == (403, "5")
    assert outside["error"]["reason"] == "child_prefix"
    assert nobody["error"]["reason"] == "unknown_device"
    assert [child.device for child in hub.children.listed() if child.state == "pending"] == ["barn-2"]


@pytest.mark.parametrize(
    ("data", "kind", "query", "status", "reason"),
    [
        (b"{", JSON, {}, 400, "bad_request"),
        (b"[1]", JSON, {}, 422, "undecodable"),
        (b"[1]", "application/senml+json", {}, 422, "undecodable"),
        (b"\xff", "application/senml+cbor", {}, 422, "undecodable"),
        (b"<t/>", "text/xml", {}, 415, "unsupported_media_type"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), JSON, {}, 413, "too_large"),
        (b"{}", JSON, {"device": "pump-2"}, 400, "bad_request"),
        (b"{}", JSON, {"device": "a/b"}, 400, "bad_request"),
        (b"{}", JSON, {"unknown": "1"}, 400, "bad_request"),
        (b"{}", JSON, {"precision": "d"}, 400, "bad_request"),
        (b"{}", ND_JSON, {}, 400, "bad_request"),
        (b"{}", ND_JSON, {"stream": "xyz"}, 400, "bad_request"),
        (b"{}", ND_JSON, {"stream": STREAM}, 400, "bad_request"),
        (b"", ND_JSON, {"stream": STREAM}, 400, "bad_request"),
        (b"{}", ND_JSON, {"stream": STREAM, "device": "pump-2"}, 403, "forbidden"),
        (b"\x05\0\0\0{}", FRAMES, {"stream": STREAM}, 400, "bad_request"),
        (b"\x05\0", FRAMES, {"stream": STREAM}, 400, "bad_request"),
        (b'{"op":"hello"}', JSON, {"stream": STREAM}, 400, "bad_request"),
    ],
)
async def test_what_cannot_be_taken_says_why(
    device: httpx.AsyncClient, data: bytes, kind: str, query: dict[str, str], status: int, reason: str
) -> None:
    """The status tells whether another body, another type or fewer bytes help."""
    answer = await post(device, data, kind, status, params=query)

    assert answer["error"]["reason"] == reason


async def test_full_journal_is_503_with_a_time(hub: HubParts, device: httpx.AsyncClient) -> None:
    """So that a device that sleeps knows when to wake."""
    hub.has_room = False
    response = await device.post(PATH, json={"t": 1})

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["error"]["reason"] == "unavailable"


async def test_empty_body_stores_nothing(hub: HubParts, device: httpx.AsyncClient) -> None:
    """An object without values too."""
    assert (await post(device, b"", TEXT))["accepted"] == 0
    assert (await post(device, json.dumps([{}, {"t": None}]).encode(), JSON))["rejected"] == 0
    assert stored(hub) == {}


async def test_namespaces_know_nothing_of_each_other(hub: HubParts, device: httpx.AsyncClient) -> None:
    """A device of the same name elsewhere, with the same key and the same stream, is another one."""
    hub.identities.add_devices(["shed"], namespace="other")
    token = hub.identities.add_devices(["shed"], rotate=True, namespace="other")["shed"]
    body = encode_batch(to_columns(1, [("f", T0, 1)]))
    async with http_client(make_app(hub), token=token) as other:
        for client, value in ((device, 1), (other, 2)):
            await post(client, b'{"t": %d}' % value, JSON, headers={"Idempotency-Key": "k"})
            assert (await post(client, body, ND_JSON, params={"stream": STREAM}))["accepted"] == 1

    series = {(s.namespace, s.channel): s.id for s in hub.registry.by_id.values() if s.device == "shed"}
    assert [row.value for row in hub.store.read([series["other", "t"]], 0, 2**62, 9)] == [2]
    assert [row.value for row in hub.store.read([series["default", "t"]], 0, 2**62, 9)] == [1]


async def test_request_that_was_put_aside_is_answered_again(hub: HubParts, device: httpx.AsyncClient) -> None:
    """Its readings are in quarantine, and nothing of it is named in what the journal remembers."""
    identity = hub.identities.authenticate(device.headers["Authorization"].partition(" ")[2])
    assert identity is not None
    with hub.posts.request(identity, name="k") as request:
        rows = Rows(rows=[Row(1, None, "t", object())])  # type: ignore[arg-type]
        await request.take(rows, digest_of(CUT, JSON.encode(), b"", b'{"t": 1}').digest(), Publication("", b"", T0))
    again = await post(device, b'{"t": 1}', JSON, 422, headers={"Idempotency-Key": "k"})

    assert request.outcome.in_order()[0].why.startswith("in quarantine: no frame")
    assert (again["rejected"], again["error"]["message"]) == (1, "nothing is stored; the first: in quarantine")


async def test_no_body_is_a_fault_of_the_hub(hub: HubParts, gateway: httpx.AsyncClient) -> None:
    """Bodies of each kind with bytes changed, put in and left out: an answer, and none that blames the hub."""
    choice = random.Random(7)
    hub.children.set_rules("barn", auto_accept=["barn-*"])
    frame = encode_batch(to_columns(1, [("t", T0, 1.5), ("u", T0, "x")]))
    bodies = {
        JSON: b'[{"time": "2026-01-31T12:00:00Z", "t": 1, "a": {"b": [1, true]}}, {"t": null}]',
        "application/senml+json": b'[{"bn":"barn-1:","bt":1.5e9,"bu":"A","n":"t","v":1,"s":2},{"n":"u","vs":"x"}]',
        "application/senml+cbor": cbor2.dumps([{-2: "barn-1:", -3: 1.5e9, 0: "t", 2: 1.5}, {0: "u", 3: "x", 6: -5}]),
        TEXT: b'cpu,host=barn-1,c=0 a=1,b=2i,s="x y",t=t 1700000000000000000\nm f=1\n',
        ND_JSON: frame + b"\n",
        FRAMES: struct.pack("<I", len(frame)) + frame,
    }
    found = set()
    for _ in range(300):
        kind = choice.choice(list(bodies))
        data = bytearray(bodies[kind])
        for _ in range(choice.randrange(4)):
            at = choice.randrange(len(data))
            piece = choice.choice(
                [bytes(choice.choices(b'{}[]",:=\\0 \n-eE.9\xff', k=3)), b"1e999", b"9" * 30, b"null"]
            )
            data[at : at + choice.randrange(3)] = choice.choice([piece, b"", bytes([choice.randrange(256)])])
        query = {"device": "barn-1", "stream": f"{choice.randrange(3):016x}"}
        response = await gateway.post(PATH, content=bytes(data), headers={"Content-Type": kind}, params=query)
        found.add(response.status_code)

    assert {200, 400, 422} <= found <= {200, 400, 403, 409, 422}
