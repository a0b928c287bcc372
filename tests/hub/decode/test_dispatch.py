"""The first decoder that knows a message has it; retained messages are no readings."""

import json
from datetime import UTC, tzinfo
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import Channel, check_value, is_channel_name, is_device_name
from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import TABLE, Decoders, entries_of
from hub.decode.scope import Scope
from tests.support.foreign_messages import FAMILIES, cases, in_steps


class Fixed:
    """Says what it was told to."""

    name = "fixed"

    def __init__(self, *answers: Decoded | None) -> None:
        self._answers = list(answers)

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the next answer."""
        return self._answers.pop(0)


def test_plugin_is_asked_before_ours() -> None:
    """What it does not know is ours."""
    known = Decoded("fixed", ignored="for a test")
    decoders = Decoders(plugins=[lambda: Fixed(None, known)])

    assert decoders.decode(Publication("a/b", b"1")).decoder == "plain"
    assert decoders.decode(Publication("a/b", b"1")) == known


def test_retained_message_is_no_reading() -> None:
    """It comes again at each subscribe; what it says of channels counts."""
    said = Said("d", (ForeignReading("x", 1),), (Channel("x", "W"),))
    decoders = Decoders(plugins=[lambda: Fixed(*[Decoded("fixed", (said,))] * 2)])

    kept = decoders.decode(Publication("", b"", is_retained=True))
    assert (kept.said, "kept by the broker" in kept.ignored) == ((Said("d"),), True)
    assert (decoders.channels_of("d"), decoders.announced_of("d")) == ((), (Channel("x", "W"),))
    assert decoders.decode(Publication("", b"")).said == (said,)
    assert decoders.channels_of("d") == (Channel("x", "W"),)


@pytest.mark.parametrize(
    ("topic", "record", "sign"),
    [("t", 'm,host=a%d v=1', "\n"), ("t", '{"n":"a%d:t","v":1}', ","), ("v1/devices/me/telemetry", '{"t":%d}', ","),
     ("v1/gateway/telemetry", '"a%d":{"t":1}', ",")],
)  # fmt: skip
def test_large_message_is_read_with_pauses(topic: str, record: str, sign: str) -> None:
    """One for each device, and many in what is long work."""
    text = sign.join(record % at for at in range(200))
    text = text if sign == "\n" else f"[{text}]" if record[0] == "{" else f"{{{text}}}"
    message = Publication(topic, text.encode(), 1_631_186_545_000_000_000)
    decoded, pauses = in_steps(Decoders(), message)

    assert decoded == Decoders().decode(message)
    assert sum(len(one.readings) for one in decoded.said) == 200
    assert pauses >= 200


def test_message_read_in_steps_is_read_as_any() -> None:
    """By plugins first, kept ones without readings; what is learnt is known to all, and said once."""
    said = Said("d", (ForeignReading("x", 1),), (Channel("x", "W"),))
    decoders = Decoders(plugins=[lambda: Fixed(*[Decoded("fixed", (said,))] * 3, None)])

    kept, _ = in_steps(decoders, Publication("", b"", is_retained=True))
    assert (kept.said, "kept by the broker" in kept.ignored) == ((Said("d"),), True)
    assert in_steps(decoders, Publication("", b""))[0].said == (said,)
    assert in_steps(decoders, Publication("", b""))[0].said == (said._replace(channels=()),)
    assert in_steps(decoders, Publication("a/b", b"1"))[0].decoder == "plain"


@pytest.mark.parametrize(("answers", "pauses"), [([None, None, Decoded("f")], 2), ([Decoded("f", (Said(
    "d", tuple(ForeignReading(f"c{at}", 1) for at in range(1000))),))], 11)])  # fmt: skip
def test_there_is_a_pause_behind_each_decoder_and_in_what_is_learnt(answers: list[Decoded | None], pauses: int) -> None:
    """Each may look at all of the message; of each new channel a name and a label are made."""
    plugins = [partial(Fixed, answer) for answer in answers]

    assert in_steps(Decoders(plugins=plugins), Publication("", b""))[1] == pauses


@pytest.mark.parametrize(
    ("topic", "why"), [("a" * 2000, "a topic of more than"), ("a", "decoder fixed failed: IndexError")]
)
def test_what_cannot_be_read_in_steps_says_why(topic: str, why: str) -> None:
    """Whatever a decoder raises."""
    with pytest.raises(DecodeError, match=why):
        in_steps(Decoders(plugins=[Fixed]), Publication(topic, b"1"))


def test_what_is_known_is_said_once() -> None:
    """A decoder may say it with each reading."""
    said = Said("d", (ForeignReading("x", 1),), (Channel("x", "W"),))
    decoders = Decoders(plugins=[lambda: Fixed(*[Decoded("fixed", (said,))] * 2)])

    assert [decoders.decode(Publication("", b"")).said[0].channels for _ in "ab"] == [(Channel("x", "W"),), ()]


def test_name_that_was_changed_is_kept_as_label() -> None:
    """Once; a name that is ours already needs none."""
    decoders = Decoders("pump")

    said = decoders.decode(Publication("", '{"in °C":1,"x":2}'.encode())).said[0]

    assert said.channels == (Channel("in-C", label="in °C"), Channel("x"))
    assert decoders.decode(Publication("", '{"in °C":3}'.encode())).said[0] == Said(
        "pump", (ForeignReading("in-C", 3),)
    )


def test_decoder_that_fails_says_so() -> None:
    """A fault of ours, or of a plugin, is a reason for the quarantine."""
    with pytest.raises(DecodeError, match="decoder fixed failed: IndexError"):
        Decoders(plugins=[Fixed]).decode(Publication("a/b", b"1"))


def test_topic_beyond_all_measure_is_refused() -> None:
    """The record of the quarantine has it."""
    with pytest.raises(DecodeError, match="1024"):
        Decoders().decode(Publication("x" * 1025, b"1"))


_CASES = [case.values[0] for family in FAMILIES for case in cases(family)]
TOPICS = st.sampled_from(sorted({case["topic"] for case in _CASES})) | st.lists(
    st.sampled_from(["a b", "é", "", "x" * 70, "state", "status", "sensor", "online", "config", "set", "switch:0"]),
    max_size=6,
).map("/".join)
_DOCUMENTS = [case["payload"] for case in _CASES if isinstance(case["payload"], dict)]
KEYS = st.sampled_from(sorted({key for document in _DOCUMENTS for key in document})) | st.text(max_size=8)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["ON", "online", "NotifyStatus", "NotifyEvent", "{{ value_json.temp }}", "a/b", "~/x", 1e300,
                       1631186545, "2021-09-09T11:22:25", "0001-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "sensor"])
)  # fmt: skip
NODES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5), max_leaves=25
)
# What a device says, with something else in the place of some of it.
DOCUMENTS = NODES | st.builds(
    lambda told, other: {**told, **other}, st.sampled_from(_DOCUMENTS), st.dictionaries(KEYS, NODES, max_size=2)
)
PAYLOADS = DOCUMENTS.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=60) | st.sampled_from(
    [b"ON", b"online", b"true", b"nan", b"21.5", b"9" * 400, b"\xff", b"[" * 2000, b'{"a":' * 2000, b"web,host=h f=1 1"]
)  # fmt: skip


_LEVELS = st.sampled_from(
    ["tele", "stat", "cmnd", "tasmota", "discovery", "shellies", "rpc", "events", "online", "debug", "log", "status",
     "state", "switch:0", "esphome", "discover", "feeds", "groups", "u", "SENSOR", "LWT", "POWER", "light", ""]
)  # fmt: skip


@given(
    topic=TOPICS | st.lists(_LEVELS, min_size=1, max_size=6).map("/".join),
    payload=PAYLOADS | st.sampled_from([b"false", b"offline", b"[I][wifi:1]: x", b'{"id":1,"method":"x"}']),
)
@settings(max_examples=300, deadline=None)
def test_decoder_is_asked_about_all_of_its_topics(topic: str, payload: bytes) -> None:
    """What the table says of topics leaves out those alone that a decoder knows nothing of."""
    publication = Publication(topic, payload, 1_631_186_580_000_000_000)
    asked = entries_of(topic)
    for entry in TABLE:
        if entry not in asked and not entry.first:
            assert entry.make(Scope()).decode(publication) is None


def test_decoder_is_not_asked_about_what_it_cannot_know() -> None:
    """Most messages are plain ones, and would be looked at by each of them."""
    names = [entry.make(Scope()).name for entry in entries_of("home/bedroom/temperature")]

    assert names == ["zigbee2mqtt", "home-assistant", "line-protocol", "senml", "plain"]


@given(
    messages=st.lists(st.tuples(TOPICS, PAYLOADS, st.booleans()), max_size=6),
    device=st.sampled_from(["", "pump"]),
    zone=st.sampled_from([None, ZoneInfo("Europe/Berlin"), UTC]),
)
@settings(max_examples=100, deadline=None)
def test_no_message_gives_what_the_hub_cannot_take(
    messages: list[tuple[str, bytes, bool]], device: str, zone: tzinfo | None
) -> None:
    """Whatever comes in whatever order: valid names, finite values, plausible times; else a reason."""
    decoders, reasons = Decoders(device, zone=zone), []
    for topic, payload, is_retained in messages:
        try:
            decoded = decoders.decode(Publication(topic, payload, 1_631_186_580_000_000_000, is_retained))
        except DecodeError as error:
            reasons.append(str(error))
            continue
        for said in decoded.said:
            assert is_device_name(said.device)
            assert all(is_channel_name(channel.name) for channel in said.channels)
            assert all(len(channel.unit or "") <= 32 and len(channel.label or "") <= 128 for channel in said.channels)
            for reading in said.readings:
                assert is_channel_name(reading.channel)
                assert check_value(reading.channel, reading.value) is not None
                assert reading.time_ns is None or MIN_TIME_NS <= reading.time_ns < MAX_TIME_NS
        assert decoded.ignored or any(one.readings or one.channels for one in decoded.said) or decoded.answers
    assert [reason for reason in reasons if " failed: " in reason] == []
