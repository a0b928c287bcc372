"""ThingsBoard: telemetry of devices and gateways is readings, questions of its clients are answered."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import is_channel_name, is_device_name
from hub.decode.base import Decoded, DecodeError, Publication
from hub.decode.dispatch import Decoders
from hub.decode.scope import Scope
from hub.decode.thingsboard import MAX_DEVICES, ThingsBoard

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "thingsboard.json").read_text(encoding="utf-8"))


def _decode(topic: str, payload: Any, scope: Scope | None = None) -> Decoded | None:
    return ThingsBoard(scope or Scope()).decode(Publication(topic, json.dumps(payload).encode()))


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: vector["what"])
def test_message_means_what_the_vector_says(vector: dict[str, Any]) -> None:
    """Times in the vectors are milliseconds, as in the messages; null: none was said."""
    found = _decode(vector["topic"], vector["payload"])

    assert found is not None
    said = {
        one.device: [[r.channel, r.value, None if r.time_ns is None else r.time_ns // 10**6] for r in one.readings]
        for one in found.said
    }
    assert said == vector["said"]
    assert vector.get("ignored", "") in found.ignored
    assert bool(found.ignored) == ("ignored" in vector)
    assert [[answer.topic, json.loads(answer.payload)] for answer in found.answers] == [
        answer for answer in [vector.get("answer")] if answer
    ]
    assert all(answer.qos == 1 and not answer.is_retained for answer in found.answers)


def test_device_is_the_one_of_the_credential() -> None:
    """Its own messages are of it; what it says of others has their names in front."""
    scope = Scope("pump-1")

    own = _decode("v1/devices/me/telemetry", {"t": 1}, scope)
    below = _decode("v1/gateway/telemetry", {"Valve": [{"t": 1}]}, scope)

    assert own is not None
    assert below is not None
    assert [(d.said[0].device, d.said[0].readings[0].channel) for d in (own, below)] == [
        ("pump-1", "t"), ("pump-1", "Valve.t"),
    ]  # fmt: skip


@pytest.mark.parametrize(("payload", "pauses"), [([{}] * 100, 100), ([{"a": 1, "b": None}, {"c": 2}] * 50, 200)])
def test_there_is_a_pause_behind_each_object_and_value(payload: Any, pauses: int) -> None:
    """Of a device, and of one behind a gateway: each object is work, with values or not."""
    for topic, said in (("v1/devices/me/telemetry", payload), ("v1/gateway/telemetry", {"d": payload})):
        reading = ThingsBoard(Scope()).reading(Publication(topic, json.dumps(said).encode()))
        assert sum(1 for _ in reading) == pauses


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/devices/me/telemetry", "text"),
        ("v1/devices/me/telemetry", [1, 2]),
        ("v1/gateway/telemetry", [1]),
        ("v1/gateway/telemetry", {"": [{"t": 1}]}),
        ("v1/gateway/telemetry", {f"d{n}": [] for n in range(MAX_DEVICES + 1)}),
        ("v1/gateway/telemetry", {"d": [{f"k{k}": 1 for k in range(900)} for _ in range(12)]}),
        ("v1/devices/me/telemetry", [{f"k{k}": 1 for k in range(900)} for _ in range(12)]),
        ("v1/gateway/connect", {"type": "pump"}),
        ("v1/gateway/attributes/request", {"device": "a"}),
        ("v1/gateway/attributes/request", {"id": 1}),
    ],
)
def test_what_is_none_of_it_cannot_be_read(topic: str, payload: Any) -> None:
    """It goes into quarantine, and says why."""
    with pytest.raises(DecodeError):
        _decode(topic, payload)


def test_other_topics_are_of_others() -> None:
    """A topic that only begins like one of ThingsBoard's is plain."""
    assert _decode("v1/room/temperature", 1) is None
    assert Decoders().decode(Publication("v1/room/temperature", b"1")).decoder == "plain"
    assert Decoders().decode(Publication("v2/t", b'{"t": 1}')).decoder == "thingsboard"


_KEYS = ["ts", "values", "device", "id", "é"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner),
    max_leaves=8,
)  # fmt: skip
_topics = st.sampled_from(sorted({vector["topic"] for vector in _VECTORS}))


@settings(max_examples=60)
@given(_topics, st.one_of(st.binary(max_size=60), _json.map(lambda value: json.dumps(value).encode())))
def test_any_payload_is_read_or_refused(topic: str, payload: bytes) -> None:
    """Nothing but `DecodeError` comes out, and names are valid ones."""
    try:
        found = ThingsBoard(Scope()).decode(Publication(topic, payload))
    except DecodeError:
        return
    assert found is not None
    for said in found.said:
        assert is_device_name(said.device)
        assert all(is_channel_name(reading.channel) for reading in said.readings)
