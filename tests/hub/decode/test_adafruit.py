"""Adafruit IO: feeds and groups, as text, JSON and CSV."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.decode.adafruit import AdafruitIo
from hub.decode.base import DecodeError, Publication
from hub.decode.dispatch import Decoders
from hub.decode.scope import Scope

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "adafruit.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: vector["what"])
def test_message_means_what_the_vector_says(vector: dict[str, Any]) -> None:
    """A value without a time is of now."""
    found = AdafruitIo(Scope()).decode(Publication(vector["topic"], vector["payload"].encode()))

    assert found is not None
    said = {one.device: [[r.channel, r.value] for r in one.readings] for one in found.said}
    assert said == vector["said"]
    assert {r.time_ns and r.time_ns // 10**6 for one in found.said for r in one.readings} <= {vector.get("time_ms")}
    assert vector.get("ignored", "") in found.ignored
    assert bool(found.ignored) == ("ignored" in vector)


def test_device_is_the_one_of_the_credential() -> None:
    """Feeds of its groups have the group's name in front."""
    found = AdafruitIo(Scope("barn-1")).decode(Publication("ann/feeds/barn.t", b"1"))

    assert found is not None
    assert (found.said[0].device, found.said[0].readings[0].channel) == ("barn-1", "barn.t")


@pytest.mark.parametrize(
    ("topic", "payload"),
    [("a/feeds/t/json", b"3"), ("a/feeds/t/json", b"{}"), ("a/groups/g/json", b"[]"),
     ("a/groups/g/json", b'{"feeds":1}'),
     ("a/groups/g/csv", b"x"), ("a/groups/g/csv", b"a,1\n" * 1001), ("a/feeds/t", b"\xff"), ("a/feeds/t", b"{")],
)  # fmt: skip
def test_what_is_none_of_it_cannot_be_read(topic: str, payload: bytes) -> None:
    """It goes into quarantine, and says why."""
    with pytest.raises(DecodeError):
        AdafruitIo(Scope()).decode(Publication(topic, payload))


def test_other_topics_are_of_others() -> None:
    """Groups without a form, and topics of other lengths, are plain."""
    for topic in ("a/groups/g", "a/feeds", "a/feeds/b/c", "a/feeds/b/json/d", "a/b/c", "/feeds/x"):
        assert AdafruitIo(Scope()).decode(Publication(topic, b"1")) is None
    assert Decoders().decode(Publication("ann/feeds/t", b"1")).decoder == "adafruit"


@settings(max_examples=60)
@given(st.sampled_from(sorted({vector["topic"] for vector in _VECTORS})), st.binary(max_size=40))
def test_any_payload_is_read_or_refused(topic: str, payload: bytes) -> None:
    """Nothing but `DecodeError` comes out."""
    try:
        found = AdafruitIo(Scope()).decode(Publication(topic, payload))
    except DecodeError:
        return
    assert found is not None
