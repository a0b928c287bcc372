"""Homie: values have the unit, type and name that their property says of itself."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import Channel, Value, ValueType
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.decode.homie import Homie
from hub.decode.scope import Scope

_ATTRIBUTES = {
    "$homie": "4.0", "$name": "Living room", "$state": "ready", "$nodes": "air", "air/$name": "Air", "air/$type": "x",
    "air/$properties": "temperature,open", "air/temperature/$name": "Temperature", "air/temperature/$unit": "°C",
    "air/temperature/$datatype": "float", "air/temperature/$format": "-20:120", "air/open/$datatype": "boolean",
}  # fmt: skip


class _Sender:
    def __init__(self, max_properties: int = 100) -> None:
        self.decoder = Homie(Scope(), max_properties=max_properties)

    def hear(self, topic: str, payload: str, base: str = "homie/room/") -> Decoded:
        found = self.decoder.decode(Publication(base + topic, payload.encode()))
        assert found is not None
        return found


def test_value_has_what_its_property_says() -> None:
    """Attributes are no readings; a value after them has name, unit and type."""
    sender = _Sender()
    for topic, text in _ATTRIBUTES.items():
        assert sender.hear(topic, text).said == ()

    assert sender.hear("air/temperature", "21").said == (
        Said("room", (ForeignReading("air.temperature", 21.0),),
             (Channel("air.temperature", "Cel", ValueType.FLOAT, label="Temperature"),)),
    )  # fmt: skip
    assert sender.hear("air/open", "true").said == (
        Said("room", (ForeignReading("air.open", True),), (Channel("air.open", None, ValueType.BOOL),)),
    )


def test_value_before_its_description_is_what_it_looks_like() -> None:
    """Nothing waits for attributes."""
    assert _Sender().hear("air/temperature", "21.5").said == (Said("room", (ForeignReading("air.temperature", 21.5),)),)


@pytest.mark.parametrize(
    ("datatype", "text", "value"),
    [("integer", "-3", -3), ("float", "1e3", 1000.0), ("float", "nan", None), ("float", "1e999", None),
     ("boolean", "false", False), ("enum", "none", "none"), ("string", "12", "12"), ("string", "", None),
     ("color", "1,2,3", "1,2,3"), ("datetime", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
     ("later", "7", 7), ("later", "on", True)],
)  # fmt: skip
def test_value_is_of_its_type(datatype: str, text: str, value: Value | None) -> None:
    """A text that looks like a number stays one where the property says string."""
    sender = _Sender()
    sender.hear("n/p/$datatype", datatype)

    found = sender.hear("n/p", text)

    assert [reading.value for said in found.said for reading in said.readings] == ([] if value is None else [value])
    assert bool(found.ignored) == (value is None)


@pytest.mark.parametrize(("datatype", "text"), [("integer", "1.5"), ("float", "warm"), ("boolean", "on"),
                                                ("string", "x" * 1025), ("integer", "1" * 20)])  # fmt: skip
def test_value_of_another_type_cannot_be_read(datatype: str, text: str) -> None:
    """It is not made into something else."""
    sender = _Sender()
    sender.hear("n/p/$datatype", datatype)

    with pytest.raises(DecodeError):
        sender.hear("n/p", text)


def test_description_of_version_5_names_all_properties() -> None:
    """One document instead of many attributes, and the version in the topic."""
    sender = _Sender()
    properties = {
        "t": {"name": "Temperature", "unit": "W", "datatype": "float"}, "all": {"datatype": "json"}, "bad": 3,
    }  # fmt: skip
    described = {"name": "Room", "nodes": {"air": {"properties": properties}}}
    sender.hear("$description", json.dumps(described), "homie/5/room/")

    assert sender.hear("air/t", "21", "homie/5/room/").said[0].channels == (
        Channel("air.t", "W", ValueType.FLOAT, label="Temperature"),
    )
    assert sender.hear("air/all", '{"a": {"b": 1}}', "homie/5/room/").said == (
        Said("room", (ForeignReading("air.all.a.b", 1),)),
    )


@pytest.mark.parametrize(
    "topic", ["air/t/set", "air/t/$target", "$state", "air/$name", "$fw/name", "a/b/c/d/e", "$log/warn"]
)
def test_all_else_is_ignored(topic: str) -> None:
    """Commands, states and logs are no readings."""
    assert _Sender().hear(topic, "1").ignored


def test_other_topics_are_of_others() -> None:
    """An empty part makes a topic nobody's of Homie."""
    assert Homie(Scope()).decode(Publication("homie//a/b", b"1")) is None
    assert Homie(Scope()).decode(Publication("home/a/b/c", b"1")) is None
    assert Decoders().decode(Publication("homie/a/b/c", b"1")).decoder == "homie"


def test_memory_is_bounded() -> None:
    """Properties that are invented take the place of the oldest; all goes on without their units."""
    sender = _Sender(max_properties=10)
    for number in range(2000):
        sender.hear(f"n/p{number}/$unit", "x" * 5000)
    assert len(sender.decoder._properties) == 10
    assert all(len(known.unit) <= 128 for known in sender.decoder._properties.values())
    many = {"nodes": {"n": {"properties": {f"q{number}": {"unit": "W"} for number in range(2000)}}}}
    sender.hear("$description", json.dumps(many), "homie/5/room/")
    assert len(sender.decoder._properties) == 10
    assert sender.hear("n/p0", "1").said[0].readings == (ForeignReading("n.p0", 1),)


@settings(max_examples=60)
@given(st.lists(st.tuples(
    st.sampled_from(["n/p", "n/p/$datatype", "n/p/$unit", "$description", "n/p/$name"]),
    st.binary(max_size=20) | st.sampled_from([b"float", b"json", b'{"nodes":{"n":{"properties":{"p":{}}}}}']),
), max_size=6))  # fmt: skip
def test_any_conversation_is_read_or_refused(messages: list[tuple[str, bytes]]) -> None:
    """Nothing but `DecodeError` comes out."""
    decoder = Homie(Scope())
    for topic, payload in messages:
        try:
            decoder.decode(Publication(f"homie/room/{topic}", payload))
        except DecodeError:
            continue
