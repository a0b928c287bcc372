"""Sparkplug B: births name what data says, a lost message is noticed, nothing of it is unbounded."""

import json
from base64 import b64decode
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import Channel, ValueType, is_channel_name, is_device_name
from hub.decode.base import Answer, Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.decode.naming import Names
from hub.decode.scope import Scope
from hub.decode.sparkplug import MAX_ASKED_PER_S, Sparkplug, host_state
from hub.decode.sparkplug_node import ASK_AGAIN_NS, REORDER_NS
from hub.decode.sparkplug_payload import DataType, payload_class
from tests.support.sparkplug import T0_MS, EdgeNode, payload

_T0 = T0_MS * 10**6
_TEMPERATURE = {
    "name": "Boiler/Temperature", "alias": 0, "datatype": DataType.FLOAT, "value": 61.5,
    "properties": {"engUnit": "°C"},
}  # fmt: skip
_STEPS = {"name": "Steps", "alias": 1, "datatype": DataType.INT16, "value": 0}


class _Host:
    """A decoder, and the topics of one node."""

    def __init__(self, scope: Scope | None = None, **limits: int) -> None:
        self.decoder = Sparkplug(scope or Scope(), **limits)

    def hear(self, verb: str, data: bytes, after_s: float = 0, where: str = "Line 3", **fields: Any) -> Decoded:
        kind, _, device = verb.partition(" ")
        topic = f"spBv1.0/Plant/{kind}/{where}" + (f"/{device}" if device else "")
        publication = Publication(topic, data, _T0 + int(after_s * 10**9), **fields)
        found = self.decoder.decode(publication)
        assert found is not None
        return found


def _birth(node: EdgeNode) -> bytes:
    return node.birth(_TEMPERATURE, _STEPS, {"name": "Recipe", "alias": 2, "datatype": 16, "field": "dataset_value",
                                             "value": b""})  # fmt: skip


def _asked(found: Decoded) -> list[str]:
    return [answer.topic for answer in found.answers]


def test_birth_gives_names_units_types_and_the_values_of_now() -> None:
    """Controls and data sets are no channels; names of ours say what the node calls it in their label."""
    found = _Host().hear("NBIRTH", _birth(EdgeNode()))

    assert found.said == (
        Said(
            "Plant-Line-3",
            (ForeignReading("Boiler-Temperature", 61.5, _T0), ForeignReading("Steps", 0, _T0)),
            (
                Channel("Boiler-Temperature", "Cel", ValueType.FLOAT, label="Boiler/Temperature"),
                Channel("Steps", None, ValueType.INT),
            ),
        ),
    )
    assert (found.answers, found.ignored) == ((), "")


def test_messages_of_another_implementation_are_read() -> None:
    """Bytes that a client of Sparkplug made, which nobody here wrote: birth, data by alias, death of its session."""
    vector = json.loads((Path(__file__).parents[2] / "vectors" / "sparkplug.json").read_text(encoding="utf-8"))
    host = _Host()

    birth, data, death = (host.hear(verb, b64decode(payload)) for verb, payload in vector["messages"])

    assert {reading.time_ns for reading in birth.said[0].readings} == {vector["time_ms"] * 10**6}
    for found in (birth, data):
        assert {reading.channel: reading.value for reading in found.said[0].readings} == vector["readings"]
    assert death.ignored == "the node is gone"


def test_lost_message_is_one_request_for_births_not_a_storm() -> None:
    """NBIRTH, data by alias, one message lost: after the time for reordering one NCMD, and none after the birth."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))

    found = host.hear("NDATA", node.data({"alias": 0, "value": 62.25, "field": "float_value"}), 1)
    assert found.said == (Said("Plant-Line-3", (ForeignReading("Boiler-Temperature", 62.25, _T0),)),)
    assert _asked(found) == []

    node.lose()
    asked, values = [], []
    for tenth in range(20, 120):
        found = host.hear("NDATA", node.data({"alias": 1, "value": tenth}), tenth / 10)
        values += [reading.value for said in found.said for reading in said.readings]
        asked += [(tenth / 10, answer) for answer in found.answers]

    assert values == list(range(20, 120))
    ((second, answer),) = asked
    assert second == 2 + REORDER_NS / 10**9
    assert (answer.topic, answer.qos, answer.is_retained) == ("spBv1.0/Plant/NCMD/Line 3", 0, False)
    command = payload_class()()
    command.ParseFromString(answer.payload)
    assert [metric.name for metric in command.metrics] == [b"Node Control/Rebirth"]

    assert _asked(host.hear("NBIRTH", _birth(node), 12)) == []
    for tenth in range(121, 400):
        assert _asked(host.hear("NDATA", node.data({"alias": 1, "value": tenth}), tenth / 10)) == []


def test_message_that_comes_late_is_no_hole() -> None:
    """Two messages that swapped places are both taken, and nothing is asked for."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))
    first, second = (node.data({"alias": 1, "value": value}) for value in (1, 2))

    found = [host.hear("NDATA", second, 1), host.hear("NDATA", first, 1.2), host.hear("NDATA", node.data(), 60)]

    assert [one.said[0].readings[0].value for one in found[:2]] == [2, 1]
    assert [_asked(one) for one in found] == [[], [], []]


def test_data_before_a_birth_asks_for_it() -> None:
    """What has an alias alone cannot be named, and it is said; what has a name and a type is a reading already."""
    host, node = _Host(), EdgeNode()

    found = host.hear("NDATA", node.data({"alias": 1, "value": 7}))
    assert found.said == ()
    assert found.ignored == "a metric by an alias that no birth has named yet"
    assert _asked(found) == ["spBv1.0/Plant/NCMD/Line 3"]

    named = {"name": "Steps", "datatype": DataType.INT16, "value": 0xFFFF}
    untyped = {"name": "Steps", "field": "int_value", "value": 1}
    found = host.hear("NDATA", node.data({"alias": 1, "value": 7}, named, untyped), 1)
    assert found.said == (Said("Plant-Line-3", (ForeignReading("Steps", -1, _T0),)),)
    assert _asked(found) == []
    assert _asked(host.hear("NDATA", node.data(), ASK_AGAIN_NS / 10**9)) == ["spBv1.0/Plant/NCMD/Line 3"]


def test_devices_of_a_node_are_devices_with_aliases_of_the_node() -> None:
    """DBIRTH and DDATA name a device of their own; an alias of another device is not taken for one's own."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))
    born = host.hear(
        "DBIRTH Press", node.data({"name": "Force", "alias": 9, "datatype": DataType.DOUBLE, "value": 1.5})
    )
    found = host.hear("DDATA Press", node.data({"alias": 9, "field": "double_value", "value": 2.5}))
    wrong = host.hear("DDATA Press", node.data({"alias": 0, "field": "float_value", "value": 3.5}))

    assert born.said[0].device == found.said[0].device == "Plant-Line-3-Press"
    assert found.said[0].readings == (ForeignReading("Force", 2.5, _T0),)
    assert (wrong.said, _asked(wrong)) == ((), ["spBv1.0/Plant/NCMD/Line 3"])


def test_names_of_metrics_do_not_hang_on_what_was_remembered() -> None:
    """Beside a thousand other devices, and after a restart in another order, a metric has the name it had."""
    scope = Scope()
    scope.names = Names(max_bytes=0)

    found = _Host(scope).hear("NBIRTH", _birth(EdgeNode()))

    assert [channel.name for channel in found.said[0].channels] == ["Boiler-Temperature", "Steps"]


def test_device_that_is_gone_needs_a_birth() -> None:
    """After DDEATH the device's aliases mean nothing; those of the node go on."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))
    host.hear("DBIRTH Press", node.data({"name": "Force", "alias": 9, "datatype": DataType.DOUBLE, "value": 1.5}))

    assert host.hear("DDEATH Press", node.data()).ignored == "a device of the node is gone"
    assert host.hear("NDATA", node.data({"alias": 1, "value": 3})).said[0].readings[0].value == 3
    found = host.hear("DDATA Press", node.data({"alias": 9, "field": "double_value", "value": 2.5}))
    assert (found.said, _asked(found)) == ((), ["spBv1.0/Plant/NCMD/Line 3"])


def test_death_counts_for_its_own_session_only() -> None:
    """A will that comes after the next birth has the number of an earlier session, and changes nothing."""
    host, old, new = _Host(), EdgeNode(bd_seq=255), EdgeNode(bd_seq=0)
    host.hear("NBIRTH", _birth(old))
    host.hear("NBIRTH", _birth(new))

    assert "earlier session" in host.hear("NDEATH", old.death()).ignored
    assert host.hear("NDATA", new.data({"alias": 1, "value": 3})).said
    assert host.hear("NDEATH", new.death()).ignored == "the node is gone"
    assert host.hear("NDATA", new.data({"alias": 1, "value": 3})).said == ()


def test_history_keeps_its_times() -> None:
    """What a node kept while it was cut off has the time of each metric; without one it cannot be placed."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))
    kept = [{"alias": 1, "value": n, "timestamp": T0_MS - 1000 * n, "is_historical": True} for n in (3, 2, 1)]

    found = host.hear("NDATA", node.data(*kept))
    assert found.said[0].readings == tuple(ForeignReading("Steps", n, _T0 - n * 10**9) for n in (3, 2, 1))
    found = host.hear("NDATA", node.data({"alias": 1, "value": 3, "timestamp": 5, "is_historical": True}))
    assert found.ignored == "from before, without a time"


def test_clock_that_was_never_set_gives_way_to_the_receive_time() -> None:
    """A node in 1970 sends values of now."""
    host, node = _Host(), EdgeNode()

    found = host.hear("NBIRTH", node.birth({**_STEPS, "timestamp": 12_345}))

    assert found.said[0].readings == (ForeignReading("Steps", 0, None),)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"is_null": True}, "no metric with a value"),
        ({"is_transient": True, "value": 1}, "transient, which is not meant for history"),
        ({"value": 1, "properties": {"Quality": 0}}, "of bad quality"),
        ({"value": 1, "properties": {"Quality": 500}}, "of stale quality"),
        ({"field": "string_value", "value": "x"}, "string_value in a metric of type INT16"),
        ({"datatype": DataType.STRING, "value": "x"}, "a metric of another type than its birth said"),
    ],
)  # fmt: skip
def test_metric_that_is_no_reading_says_why(fields: dict[str, Any], why: str) -> None:
    """Null, transient, of bad quality, of another type than was said: nothing is stored in its place."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))

    found = host.hear("NDATA", node.data({"alias": 1, **fields}))

    assert (found.said, found.ignored) == ((), why)


def test_text_of_a_document_is_no_reading() -> None:
    """A text of more than a kilobyte is left out, the others are taken."""
    long = {"name": "Report", "datatype": DataType.TEXT, "value": "é" * 600}

    found = _Host().hear("NBIRTH", EdgeNode().birth(_STEPS, long))

    assert [reading.channel for reading in found.said[0].readings] == ["Steps"]


def test_value_that_does_not_fit_wants_births() -> None:
    """A value of another type is how aliases of a node that started anew unseen are found out."""
    host, node = _Host(), EdgeNode()
    host.hear("NBIRTH", _birth(node))

    assert _asked(host.hear("NDATA", node.data({"alias": 1, "field": "double_value", "value": 1.5})))


def test_client_that_is_one_device_keeps_its_name() -> None:
    """By a credential of one device all is of it, and metrics of its devices have their names in front."""
    host, node = _Host(Scope("line-3")), EdgeNode()
    own = host.hear("NBIRTH", node.birth(_STEPS))
    below = host.hear("DBIRTH Press", node.data({"name": "Steps", "alias": 9, "datatype": DataType.INT16, "value": 1}))

    assert [(one.said[0].device, one.said[0].readings[0].channel) for one in (own, below)] == [
        ("line-3", "Steps"), ("line-3", "Press-Steps"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("spBv1.0/STATE/scada", "the state of a host application"),
        ("spBv1.0/Plant/NCMD/Line", "a command to a node, not a reading"),
        ("spBv1.0/Plant/DCMD/Line/Press", "a command to a node, not a reading"),
    ],
)
def test_messages_of_hosts_are_no_readings(topic: str, why: str) -> None:
    """A bridge that subscribes to all sees what hosts say, its own requests too."""
    assert Sparkplug(Scope()).decode(Publication(topic, b"ONLINE")) == Decoded("sparkplug", ignored=why)


def test_sparkplug_is_in_the_table() -> None:
    """A topic of Sparkplug comes here, from whichever sender."""
    decoded = Decoders().decode(Publication("spBv1.0/Plant/NBIRTH/Line", _birth(EdgeNode()), _T0))

    assert (decoded.decoder, decoded.said[0].device) == ("sparkplug", "Plant-Line")
    assert decoded.said[0].channels[0].unit == "Cel"


def test_retained_message_is_not_a_birth() -> None:
    """Sparkplug forbids to retain: aliases of such a birth may be of years ago."""
    host = _Host()

    assert "kept by the broker" in host.hear("NBIRTH", _birth(EdgeNode()), is_retained=True).ignored
    assert host.decoder.decode(Publication("home/a/b", b"1")) is None


@pytest.mark.parametrize("topic", ["spBv1.0", "spBv1.0/a/NDATA", "spBv1.0/a/NDATA/", "spBv1.0/a/DDATA/b",
                                   "spBv1.0//NDATA/b", "spBv1.0/a/NOPE/b", "spBv1.0/a/NDATA/b/c"])  # fmt: skip
def test_topic_that_is_none_says_how_they_look(topic: str) -> None:
    """Such a message goes into quarantine with the form of a topic."""
    with pytest.raises(DecodeError, match="GROUP/NDATA/NODE"):
        Sparkplug(Scope()).decode(Publication(topic, b""))


def test_host_state_is_retained_json_of_the_specification() -> None:
    """Birth and will of the host application have one timestamp."""
    online, will = host_state("hub", True, T0_MS), host_state("hub", False, T0_MS)

    assert online == Answer("spBv1.0/STATE/hub", b'{"online":true,"timestamp":%d}' % T0_MS, 1, True)
    assert json.loads(will.payload) == {"online": False, "timestamp": T0_MS}
    with pytest.raises(ValueError, match="one segment"):
        host_state("a/b", True, T0_MS)


def test_invented_nodes_and_metrics_are_bounded() -> None:
    """Nodes and metrics without end take the place of the oldest; the node that speaks is never the one forgotten."""
    host = _Host(max_nodes=10, max_metrics=400)
    for number in range(300):
        metrics = [{"name": f"m{n}", "alias": n, "datatype": DataType.FLOAT, "value": 1.0} for n in range(number % 150)]
        found = host.hear("NBIRTH", EdgeNode().birth(*metrics), where=f"node {number}")
        assert len(found.said[0].readings if found.said else ()) == number % 150
        nodes = host.decoder._nodes
        assert len(nodes) <= 10
        assert host.decoder._size == sum(map(len, nodes.values())) <= 400

    for number in range(300):
        found = host.hear("DBIRTH d" + str(number), payload(_STEPS), where="node 299")
    assert host.decoder._size == sum(map(len, host.decoder._nodes.values())) <= 400


def test_requests_of_all_nodes_are_few_a_second() -> None:
    """A hub that starts beside a thousand nodes asks them one after the other."""
    host = _Host()
    data = payload({"alias": 1, "value": 1}, seq=4)

    first = sum(len(host.hear("NDATA", data, 0.5, where=f"n{n}").answers) for n in range(100))
    second = sum(len(host.hear("NDATA", data, 1.5, where=f"n{n}").answers) for n in range(100))

    assert (first, second) == (MAX_ASKED_PER_S, MAX_ASKED_PER_S)


def test_large_birth_is_read_with_pauses() -> None:
    """What another connection of the sender says meanwhile is read, and by no birth that is known in part."""
    metrics = [{"name": f"m{at}", "alias": at, "datatype": DataType.INT32, "value": at} for at in range(1000)]
    node, host, whole = EdgeNode(), _Host(), _Host()
    host.hear("NBIRTH", node.birth(_STEPS))
    birth, data = node.birth(*metrics), payload({"alias": 999, "value": 7})
    reading = host.decoder.reading(Publication("spBv1.0/Plant/NBIRTH/Line 3", birth, _T0))
    found: list[Decoded | None] = []

    def to_its_end() -> Generator[None, None, None]:
        found.append((yield from reading))

    seen = [host.hear("NDATA", data).said for _ in to_its_end()]
    assert found == [whole.hear("NBIRTH", birth)]
    assert seen == [()] * 40 + [whole.hear("NDATA", data).said] * 20


def test_metrics_are_counted_whatever_comes_in_a_pause() -> None:
    """The death of a node takes what was known of it out of the number, and a birth that ends later brings its own."""
    metrics = [{"name": f"m{at}", "datatype": DataType.INT32, "value": at} for at in range(100)]
    host, data = _Host(max_metrics=450), payload({"name": "m7", "value": 7})
    for _ in range(10):
        reading = host.decoder.reading(Publication("spBv1.0/Plant/NBIRTH/A", EdgeNode().birth(*metrics), _T0))
        for _ in reading:
            host.hear("NBIRTH", EdgeNode().birth(*metrics), where="A")
            host.hear("NDEATH", EdgeNode().death(), where="A")
    for name in "ABCDE":
        host.hear("NBIRTH", EdgeNode().birth(*metrics), where=name)

    assert [bool(host.hear("NDATA", data, where=name).said) for name in "BCDE"] == [True] * 4
    assert not host.hear("NDATA", data, where="A").said


_metrics = st.fixed_dictionaries(
    {}, optional={"name": st.text(max_size=20), "alias": st.integers(0, 3), "timestamp": st.integers(0, 2**64 - 1),
                  "datatype": st.integers(0, 40), "is_historical": st.booleans(), "is_null": st.booleans()},
)  # fmt: skip
_values = st.one_of(
    st.tuples(st.just("int_value"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("long_value"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("float_value"), st.floats(width=32)), st.tuples(st.just("double_value"), st.floats()),
    st.tuples(st.just("string_value"), st.text(max_size=9)), st.tuples(st.just("bytes_value"), st.binary(max_size=9)),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["NBIRTH", "DBIRTH a", "NDATA", "DDATA a", "DDEATH a", "NDEATH"]),
            st.lists(st.tuples(_metrics, _values), max_size=4),
            st.integers(0, 300),
        ),
        max_size=8,
    )
)
def test_any_conversation_gives_valid_readings(messages: list[tuple[str, list[Any], int]]) -> None:
    """Whatever a node says in whatever order: names and values are ones that the hub may keep."""
    host = _Host(max_nodes=2, max_metrics=8)
    for verb, described, seq in messages:
        metrics = [{**metric, "field": field, "value": value} for metric, (field, value) in described]
        found = host.hear(verb, payload(*metrics, seq=seq))
        for said in found.said:
            assert is_device_name(said.device)
            assert all(
                is_channel_name(name)
                for name in (*(r.channel for r in said.readings), *(c.name for c in said.channels))
            )
        assert bool(found.ignored) != any(said.readings for said in found.said)
