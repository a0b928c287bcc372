"""Messages and the chain, held fixed by vectors that other languages test against too."""

import json
from pathlib import Path
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.errors import ProtocolError, Reason
from device_sdk.reading import Channel, ValueType

T = 1_795_376_000_000_000_000
VECTORS = Path(__file__).parents[1] / "vectors"
CHAIN = "ab" * 16

DEVICE_MESSAGES: dict[str, wire.DeviceMessage] = {
    "hello": wire.Hello(
        "greenhouse-7", "9f3a6c01d2e4b587", "51c0aa", "77aa01", 1180, 1201, CHAIN, sdk="python/0.1.0",
        seen="7f3a0001.1000100", earlier=(wire.Earlier("0123456789abcdef", 3, 5, "cd" * 16),),
        mono_ns=12, wall_ns=T, clock="synced",
    ),
    "hello of a new spool": wire.Hello("d", "9f3a6c01d2e4b587", "b", "r", 0, 1, "00" * 16),
    "schema": wire.Schema(
        (
            Channel("temperature", "Cel", ValueType.FLOAT, 1.0, -10.0, 40.0, "Température"),
            Channel("door", type=ValueType.BOOL),
            Channel("x"),
        )
    ),
    "schema with commands": wire.Schema(
        (),
        {
            "fan": {"args": {"speed": {"type": "int", "required": True, "choices": [0, 3]}}, "doc": "Turn it."},
            "blink": {"args": {}},
        },
    ),
    "gap": wire.Gap(1202, 70, "spool_full", {"temperature": (T, T + 10**9)}),
    "gap of unknown count": wire.Gap(1, None, "power_cut", {}),
    "bye of a device": wire.Bye(),
    "reply": wire.Reply("k7", True, {"speed": 3}),
    "reply with nothing to say": wire.Reply("k7", True),
    "reply of a failure": wire.Reply("k8", False, error="the fan does not turn"),
    "reported": wire.Reported(4, {"interval_s": 10, "fans": {"left": None}}),
}  # fmt: skip
HUB_MESSAGES: dict[str, wire.HubMessage] = {
    "welcome": wire.Welcome(1200, CHAIN, "7f3a0001.1000123", T),
    "welcome of a hub that holds less of an earlier stream": wire.Welcome(
        1200, CHAIN, "7f3a0001.1000123", T, earlier=(wire.Earlier("0123456789abcdef", 2, 3, "cd" * 16),)
    ),
    "new stream": wire.NewStream(1200, CHAIN, "chain_conflict", "7f3a0001.5"),
    "ack": wire.Ack(1201, "cd" * 16, "7f3a0001.1000124"),
    "ack with a rejection": wire.Ack(
        1201, "cd" * 16, "7f3a0001.1000124", 1, (wire.Rejection(1201, "door", 0, "type_conflict"),)
    ),
    "error": wire.Error("out_of_order", 1200, "seq 1203 after 1200"),
    "slow": wire.Slow("disk_full", 5000),
    "bye of a hub": wire.Bye(8412),
    "command": wire.Command("k7", "fan", {"speed": 3, "when": "größer"}, T),
    "desired": wire.Desired(4, {"interval_s": 10, "fans": {"left": 1.5}}),
}


def _load(file: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((VECTORS / file).read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in _load("message.json")])
def test_message_vector(case: dict[str, Any]) -> None:
    """Each message is exactly these bytes; what the hub says is read back equal."""
    message = {**DEVICE_MESSAGES, **HUB_MESSAGES}[case["name"]]
    body = case["body"].encode()

    assert wire.encode(message) == body
    if case["from"] == "hub":
        assert wire.decode_hub_message(body) == message
        assert wire.decode_hub_message(case["body"]) == message


def test_every_message_kind_has_a_vector() -> None:
    """A new message is not forgotten."""
    kinds = {type(message) for message in (*DEVICE_MESSAGES.values(), *HUB_MESSAGES.values())}

    assert kinds == set(wire.DeviceMessage.__args__) | set(wire.HubMessage.__args__)
    assert {case["name"] for case in _load("message.json")} == {*DEVICE_MESSAGES, *HUB_MESSAGES}


def test_chain_vector() -> None:
    """chain(0) is 16 zero bytes; chain(n) = BLAKE2b-128(chain(n-1) ‖ body(n))."""
    chain = wire.CHAIN_START
    first, *rows = _load("chain.json")
    assert first["chain"] == "0" * 32

    for row in rows:
        chain = wire.next_chain(chain, bytes.fromhex(row["body_hex"]))
        assert chain.hex() == row["chain"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"nonsense", b"[]", b"5", b"null", b"{}", b'{"op":"nope"}', b'{"op":["ack"]}', b'{"op":"ack"}',
        b'{"op":"ack","stored":"x","chain":"","pos":""}', b'{"op":"welcome","stored":1}', b'{"op":"slow","why":"x"}',
        b'{"op":"ack","stored":1,"chain":"","pos":"","rejected":[1]}', b"[" * 100_000, b"\xff\xfe{}",
    ],
)  # fmt: skip
def test_unreadable_hub_message_is_a_protocol_error(data: bytes) -> None:
    """Whatever a hub sends, the SDK closes and reconnects; it does not crash."""
    with pytest.raises(ProtocolError, match="cannot read") as caught:
        wire.decode_hub_message(data)

    assert caught.value.reason is Reason.BAD_MESSAGE


def test_unknown_fields_are_passed_over() -> None:
    """A newer hub may say more."""
    body = b'{"op":"slow","why":"disk_full","retry_ms":5000,"later":{"x":1}}'

    assert wire.decode_hub_message(body) == wire.Slow("disk_full", 5000)


@pytest.mark.parametrize(("said", "used"), [(0, 1), (-3, 1), (8, 8), (10**9, wire.MAX_WINDOW)])
def test_window_of_a_welcome_is_kept_within_bounds(said: int, used: int) -> None:
    """A hub cannot stop a device with a window of zero, nor make it hold more than it may."""
    body = wire.encode(wire.Welcome(0, CHAIN, "p", T)).replace(b'"window":32', b'"window":%d' % said)

    message = wire.decode_hub_message(body)

    assert isinstance(message, wire.Welcome)
    assert message.window == used


@pytest.mark.parametrize(
    "channel",
    [
        Channel("t"),
        Channel("t", "%RH", ValueType.INT, 0.5, 0.0, 100.0, "Humidity ☂"),
        Channel("t", low=-1.0, high=1.0),
    ],
)
def test_channel_round_trips_through_its_object(channel: Channel) -> None:
    """The same object serves `schema` and the spool's files; absent fields are left out."""
    obj = wire.channel_to_object(channel)

    assert wire.channel_from_object("t", json.loads(json.dumps(obj))) == channel
    assert None not in obj.values()


def test_levels_of_nesting_are_counted() -> None:
    """Objects, lists and tuples alike; what is not nested has none."""
    assert not wire.is_deeper(3, 0)
    assert wire.is_deeper({}, 0)
    assert not wire.is_deeper({"a": [(1,)], "b": 2}, 3)
    assert wire.is_deeper({"b": 2, "a": [(1,)]}, 2)
