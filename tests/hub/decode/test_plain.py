"""A topic and a value are a reading."""

import pytest

from device_sdk.reading import Value
from hub.decode.base import DecodeError, ForeignReading, Publication, Said
from hub.decode.plain import Plain
from hub.decode.scope import Scope

T = 1_631_186_545_000_000_000


def _said(topic: str, payload: str, device: str = "") -> Said:
    decoded = Plain(Scope(device)).decode(Publication(topic, payload.encode(), T))
    return decoded.said[0]


@pytest.mark.parametrize(
    ("topic", "device", "channel"),
    [
        ("home/bedroom/temperature", "home-bedroom", "temperature"),
        ("/home/bedroom/temperature/", "home-bedroom", "temperature"),
        ("esp1/sensor/temperature", "esp1-sensor", "temperature"),
        ("bedroom", "bedroom", "value"),
    ],
)
def test_topic_names_device_and_channel(topic: str, device: str, channel: str) -> None:
    """All of the topic is in the names."""
    assert _said(topic, "21.5") == Said(device, (ForeignReading(channel, 21.5),))


@pytest.mark.parametrize(
    ("topic", "channel"),
    [
        ("bedroom/temperature", "temperature"), ("home/bedroom/temperature", "temperature"),
        ("home/attic/temperature", "home.attic.temperature"), ("temperature", "temperature"), ("bedroom", "value"),
        ("", "value"), ("a//b", "a.b"),
    ],
)  # fmt: skip
def test_credential_names_the_device(topic: str, channel: str) -> None:
    """Of a client that is one device; its name in the topic says nothing more."""
    assert _said(topic, "21.5", "bedroom") == Said("bedroom", (ForeignReading(channel, 21.5),))


@pytest.mark.parametrize(
    ("payload", "channels"),
    [
        ('{"temp":21.5}', {"x.temp": 21.5}),
        ('{"a":{"b":1},"state":"ON","c":null}', {"x.a.b": 1, "x.state": True}),
        ('"open"', {"x": "open"}),
        ("[1,2]", {"x.0": 1, "x.1": 2}),
        ("ON", {"x": True}),
    ],
)
def test_values_of_a_payload(payload: str, channels: dict[str, Value]) -> None:
    """A value has the topic's channel, a document's values begin with it."""
    assert {r.channel: r.value for r in _said("d/x", payload).readings} == channels


@pytest.mark.parametrize("name", ["ts", "timestamp", "time"])
def test_time_in_a_document_counts(name: str) -> None:
    """When it is one; else it is a value."""
    assert _said("d/x", f'{{"{name}":1631186545,"v":1}}').readings == (ForeignReading("x.v", 1, T),)
    assert _said("d/x", f'{{"{name}":1631190145,"v":1}}').readings == (ForeignReading("x.v", 1),)
    assert _said("d/x", f'{{"{name}":12}}').readings == (ForeignReading(f"x.{name}", 12),)


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("d/x", "", "empty"), ("d/x/set", "ON", "command"), ("d/x", "nan", "no value"), ("d/x", "{}", "no value"),
        ("d/x", '{"time":1631186545}', "no value"),
    ],
)  # fmt: skip
def test_what_is_no_reading_is_ignored(topic: str, payload: str, why: str) -> None:
    """With the reason."""
    decoded = Plain(Scope()).decode(Publication(topic, payload.encode()))

    assert (decoded.said, why in decoded.ignored) == ((), True)


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("d/x", b"{", "no JSON"), ("d/x", b"\xff", "neither text"), ("d/x", b"x" * 2000, "1024"),
        ("", b"1", "neither a topic"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error(topic: str, payload: bytes, why: str) -> None:
    """It goes into quarantine with that."""
    with pytest.raises(DecodeError, match=why):
        Plain(Scope()).decode(Publication(topic, payload))


def test_what_a_topic_means_is_the_same_however_often_it_comes() -> None:
    """Also where there are more topics than are remembered, and where values and documents take turns."""
    plain = Plain(Scope())
    topics = [f"home/{number}/temperature" for number in range(3)] + [f"a/{number}/b/set" for number in range(2)]
    topics += [f"hall/{number}/t" for number in range(300)] + ["long/" + "x" * 200]
    payloads = (b"21.5", b"ON", b'{"a":1}', b"", b"nan", b"21.5")
    for payload in payloads:
        for topic in topics:
            publication = Publication(topic, payload, T)
            assert plain.decode(publication) == Plain(Scope()).decode(publication)


def test_few_topics_are_remembered() -> None:
    """A sender that invents them fills no memory with them."""
    plain = Plain(Scope("d"))
    sizes = []
    for number in range(1000):
        plain.decode(Publication(f"{number}/t", b"1", T))
        plain.decode(Publication(f"{number}/{'t' * 200}", b"1", T))
        sizes.append(len(plain._known))

    assert max(sizes) == 200


def test_dot_in_a_key_makes_another_channel() -> None:
    """In one document or two, over a restart too; alone it has the name that people read."""
    scope, later = Scope("pump"), Scope("pump")
    first = _channels(scope, '{"a.b":1,"a":{"b":2}}')
    later.names.know(lambda device, channel: channel in first.values())

    assert (first[1], len(set(first.values()))) == ("a.b", 2)
    assert _channels(scope, '{"a":{"b":2},"a.b":1}') == _channels(later, '{"a":{"b":2},"a.b":1}') == first
    assert _channels(Scope("pump"), '{"PM2.5":1,"a":{"PM2.5":2}}') == {1: "PM2.5", 2: "a.PM2.5"}


def _channels(scope: Scope, payload: str) -> dict[Value, str]:
    (said,) = Plain(scope).decode(Publication("pump", payload.encode(), T)).said
    return {reading.value: reading.channel for reading in said.readings}
