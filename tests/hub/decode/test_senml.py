"""Packs of SenML, with the examples of RFC 8428 and what a stranger may send instead."""

import json
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import Channel
from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import TOO_LARGE, DecodeError, Publication
from hub.decode.rows import MAX_ROWS, Row, Rows
from hub.decode.scope import Scope
from hub.decode.senml import CBOR, JSON, Senml, read_pack, read_records
from tests.support.foreign_messages import cases, check

NOW = 1_700_000_000 * 10**9
S = 10**9


def read(*records: dict[Any, Any], device: str = "") -> Rows:
    """Return what a pack in JSON holds."""
    return read_pack(json.dumps(records).encode(), Scope(device), NOW)


def short(rows: Rows) -> list[tuple[str | None, str, Any]]:
    """Return device, channel and value of each reading."""
    return [(row.device, row.channel, row.value) for row in rows.rows]


def test_single_datapoint() -> None:
    """RFC 8428, 5.1.1: the name of a device alone is a device."""
    found = read({"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1})

    assert found.rows == [Row(1, "urn-dev-ow-10e2073a01080063", "value", 23.1)]
    assert found.channels == {("urn-dev-ow-10e2073a01080063", "value"): Channel("value", "Cel")}


def test_multiple_datapoints() -> None:
    """RFC 8428, 5.1.2: base name, base time, base unit; the decimal digits of a time are kept."""
    found = read(
        {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e09, "bu": "A", "bver": 5, "n": "voltage", "u": "V",
         "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
    )  # fmt: skip
    device, t0 = "urn-dev-ow-10e2073a0108006", 1_276_020_076_001_000_000

    assert found.rows == [
        Row(1, device, "voltage", 120.1, t0), Row(2, device, "current", 1.2, t0 - 5 * S),
        Row(3, device, "current", 1.3, t0 - 4 * S),
    ]  # fmt: skip
    assert [channel.unit for channel in found.channels.values()] == ["V", "A"]


def test_pack_of_the_table() -> None:
    """A shop's counter: integers stay integers, a sum is a channel of its own."""
    found = read(
        {"bn": "cashier-1:", "bt": 1544457886, "n": "in", "u": "l", "v": 1},
        {"n": "in2", "v": 12.0},
        {"n": "in", "s": 7, "v": 2},
        {"n": "door", "vb": True},
        {"n": "state", "vs": "open"},
    )

    assert short(found) == [
        ("cashier-1", "in", 1), ("cashier-1", "in2", 12.0), ("cashier-1", "in", 2), ("cashier-1", "in.sum", 7),
        ("cashier-1", "door", True), ("cashier-1", "state", "open"),
    ]  # fmt: skip
    assert [type(row.value) for row in found.rows] == [int, float, int, int, bool, str]


def test_equal_times_of_a_channel_are_set_apart() -> None:
    """They are several readings; another channel, another time and one that is taken already are not moved."""
    found = read(
        {"bn": "a:", "bt": 1544457886, "n": "x", "v": 1}, {"n": "x", "v": 1}, {"n": "y", "v": 1},
        {"n": "x", "t": -1, "v": 1}, {"n": "x", "v": 1},
    )  # fmt: skip
    exact = read_pack(b'[{"n":"a:x","t":1544457886,"v":1},{"n":"a:x","t":1544457886.000000001,"v":2},'
                      b'{"n":"a:x","t":1544457886,"v":3}]', Scope(), NOW)  # fmt: skip
    t = 1544457886 * S

    assert [row.time_ns for row in found.rows] == [t, t + 1, t, t - S, t + 2]
    assert len({row.time_ns for row in exact.rows}) == 3


def test_relative_times_are_relative_to_now() -> None:
    """Below 2**28; zero is now, which whoever received it says."""
    found = read({"bn": "a:", "n": "x", "t": -1.5, "v": 1}, {"n": "x", "v": 2}, {"bt": 2**28 - 1, "n": "x", "v": 3})
    late = read({"bn": "a:", "bt": 2**28, "n": "x", "v": 1}, {"bt": 1.6e9, "n": "x", "v": 2})

    assert [row.time_ns for row in found.rows] == [NOW - 1_500_000_000, None, NOW + (2**28 - 1) * S]
    assert [fault.reason for fault in late.faults] == ["time_out_of_range"]
    assert [row.time_ns for row in late.rows] == [1_600_000_000 * S]


def test_base_value_and_sum_are_added() -> None:
    """To what follows them too."""
    found = read({"bn": "a/", "bv": 20, "bs": 100, "n": "x", "v": 1}, {"n": "y", "v": 0.5, "s": 1}, {"bv": 0.25})

    assert short(found) == [("a", "x", 21), ("a", "y", 20.5), ("a", "y.sum", 101)]


@pytest.mark.parametrize(
    ("name", "device", "place"),
    [
        ("temperature", "", (None, "temperature")),
        ("house/kitchen/temperature", "", ("house-kitchen", "temperature")),
        ("urn:dev:ow:1:temperature", "", ("urn-dev-ow-1", "temperature")),
        ("a:b/c", "", ("a-b", "c")),
        ("pump:", "", ("pump", "value")),
        (":x", "", (None, "x")),
        ("pump:x", "pump", (None, "x")),
        ("other:x", "pump", (None, "other.x")),
    ],
)
def test_name_is_split_into_device_and_channel(name: str, device: str, place: tuple[str | None, str]) -> None:
    """At the last sign; of a sender that is one device all is its own."""
    assert [(row.device, row.channel) for row in read({"n": name, "v": 1}, device=device).rows] == [place]


def test_cbor_has_labels() -> None:
    """RFC 8428, 6: integers for names, the names themselves too; decimal fractions keep their digits."""
    pack = [
        {-2: "urn:dev:ow:10e2073a0108006:", -3: 1276020076.001, -4: "A", -1: 5, 0: "voltage", 1: "V", 2: 120.1},
        {0: "current", 6: -5, 2: 1.2, 99: "?"},
        {"n": "current", "t": -4, "v": cbor2.loads(bytes.fromhex("c482201903e7"))},
    ]
    found = read_pack(cbor2.dumps(pack), Scope(), NOW, is_cbor=True)

    assert [(row.channel, row.value, row.time_ns) for row in found.rows] == [
        ("voltage", 120.1, 1_276_020_076_001_000_000), ("current", 1.2, 1_276_020_071_001_000_000),
        ("current", 99.9, 1_276_020_072_001_000_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"bn": 1, "v": 1}, "bn is no text"), ({"n": 1, "v": 1}, "n is no text"),
        ({"n": "x", "v": "1"}, "v is no number"), ({"n": "x", "v": True}, "v is no number"),
        ({"n": "x", "vb": 1}, "neither"), ({"n": "x", "vs": 1}, "no text"),
        ({"n": "x", "v": 1, "t": "now"}, "t is no number"), ({"n": "x", "bt": None, "v": 1}, "bt is no number"),
        ({"n": "x", "vs": "y" * 2000}, "limit"), ({"n": "x", "u": 1, "v": 1}, "u is no text"),
        ({"n": "x", "v": 10**30}, "64 bits"),
    ],
)  # fmt: skip
def test_bad_record_is_named_and_loses_nothing_else(record: dict[str, Any], why: str) -> None:
    """The others are read, with the base that held before it."""
    data = cbor2.dumps([{"bn": "a:"}, record, {"n": "x", "v": 1}])
    found = read_pack(data, Scope(), NOW, is_cbor=True)

    assert [(row.at, row.device, row.channel) for row in found.rows] == [(3, "a", "x")]
    assert [(fault.at, why in fault.why) for fault in found.faults] == [(2, True)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "list of records"), (b"[1]", "record 1 is no object"), (b"[", "no JSON"), (b'"x"', "list of records"),
        (b'[{"n":"x","v":1,"bver":11}]', "version 11"), (b'[{"n":"x","v":1,"must_":1}]', "must_"),
    ],
)  # fmt: skip
def test_what_is_no_pack_is_refused_as_a_whole(data: bytes, why: str) -> None:
    """Nothing of it may be taken: section 4.4 asks for that."""
    with pytest.raises(DecodeError, match=why):
        read_pack(data, Scope(), NOW)


def test_record_without_a_name_is_named_by_its_place() -> None:
    """A record of base fields alone is none."""
    assert [(fault.at, fault.why) for fault in read({"bt": 5}, {"v": 1}).faults] == [(2, "it has no name")]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_pack_or_refused(data: bytes) -> None:
    """Never another exception; also what CBOR has tags for, and lengths that are lies."""
    for is_cbor in (True, False):
        with suppress(DecodeError):
            read_pack(data, Scope(), NOW, is_cbor=is_cbor)


_ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.decimals(allow_nan=True, allow_infinity=True).filter(lambda value: not value.is_snan()),
)  # fmt: skip
_FIELD = st.one_of(
    st.sampled_from(["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut", "x_"]),
    st.integers(-7, 9), _ANYTHING.filter(lambda value: not isinstance(value, list)),
)  # fmt: skip


@given(st.lists(st.one_of(st.dictionaries(_FIELD, _ANYTHING, max_size=6), _ANYTHING), max_size=4), st.booleans())
def test_any_records_are_read_or_named_or_refused(records: list[Any], is_one: bool) -> None:
    """Never another exception, whatever stands in the place of what; what is read can be stored."""
    rows = Rows()
    with suppress(DecodeError):
        rows = read_records(records, Scope("pump" if is_one else ""), NOW)
    for row in rows.rows:
        assert isinstance(row.value, float | int | str)
        assert row.channel


def test_numbers_that_would_be_memory_are_refused() -> None:
    """A decimal fraction may say an exponent of 2**32."""
    huge = bytes.fromhex("81a2006178 02c4821b00000000ffffffff01".replace(" ", ""))
    found = read_pack(huge, Scope(), NOW, is_cbor=True)

    assert found.rows == []
    assert "finite" in found.faults[0].why


def test_integer_of_many_bytes_is_refused_before_its_digits_are_made() -> None:
    """240 kB of it took 13 s of the loop; as a version it was no reason but a fault of the hub."""
    records = [{"n": "x", "v": 1 << (8 * 200_000)}, {"n": "y", "v": 1}]
    found = read_records(records, Scope(), NOW)
    assert (found.faults[0].why, [row.channel for row in found.rows]) == ("v is no finite number", ["y"])

    with pytest.raises(DecodeError, match="version no number"):
        read_records([{"bver": 10**5000, "n": "x", "v": 1}], Scope(), NOW)
    assert read_pack(cbor2.dumps(records), Scope(), NOW, is_cbor=True) == found


def test_tagged_numbers_of_cbor_are_values_but_no_labels() -> None:
    """Section 6 allows them; as labels they could be made to hash alike, and 100 kB of them were quadratic work."""
    decimal, binary = cbor2.CBORTag(4, [-2, 2153]), cbor2.CBORTag(5, [-1, 3])
    found = read_pack(cbor2.dumps([{0: "x", 2: decimal}, {0: "y", 2: binary}]), Scope("pump"), NOW, is_cbor=True)
    assert [row.value for row in found.rows] == [21.53, 1.5]

    for bad in (cbor2.CBORTag(4, "ab"), cbor2.CBORTag(4, [1]), cbor2.CBORTag(5, [1, 1.5])):
        with pytest.raises(DecodeError):
            read_pack(cbor2.dumps([{0: "x", 2: bad}]), Scope("pump"), NOW, is_cbor=True)
    for label in (decimal, binary, 2**70, -(2**70)):
        with pytest.raises(DecodeError):
            read_pack(b"\x81\xa2\x00\x61x" + cbor2.dumps(label) + b"\x01", Scope("pump"), NOW, is_cbor=True)


@pytest.mark.parametrize("kind", ["", CBOR])
def test_record_that_is_referred_to_does_not_multiply(kind: str) -> None:
    """CBOR may say `the same again` in three bytes; that is no more of a pack than what is in it."""
    fields: dict[object, object] = {0: "a", 2: 1} | {f"{i:03d}": 1 for i in range(1000)}
    record = b"\xd8\x1c" + cbor2.dumps(fields)
    pack = b"\x98\xc8" + record + b"\xd8\x1d\x00" * 199

    with pytest.raises(DecodeError, match="tag"):
        read_pack(pack, Scope("x"), NOW, is_cbor=True)
    assert Senml(Scope("x")).decode(Publication("a", pack, NOW)) is None
    wide = read_records([{"n": "a", "v": 1, **{str(i): 1 for i in range(1000)}}, {"n": "b", "v": 1}], Scope("x"), NOW)
    assert (wide.faults[0].at, [row.channel for row in wide.rows]) == (1, ["b"])
    if kind:
        with pytest.raises(DecodeError):
            Senml(Scope("x")).decode(Publication("a", pack, NOW, content_type=kind))


@pytest.mark.parametrize("tag", [0, 1, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000])
def test_tags_of_no_number_are_refused(tag: int) -> None:
    """Among them a program for texts, whose making is a second's work, and a mail."""
    pack = b"\x81\xa2\x00\x61a\x02" + cbor2.dumps(cbor2.CBORTag(tag, "2026-01-01"))
    with pytest.raises(DecodeError, match="tag"):
        read_pack(pack, Scope(), NOW, is_cbor=True)


def test_name_is_not_longer_than_any() -> None:
    """A base name of 100 kB with ten thousand records would be a gigabyte of names."""
    found = read_records([{"bn": "x" * 1020 + "/", "n": "abc", "v": 1}, {"n": "abcd", "v": 1}], Scope("pump"), NOW)
    assert ([row.at for row in found.rows], [fault.at for fault in found.faults]) == ([1], [2])


@pytest.mark.parametrize(
    ("payload", "kind", "is_read"),
    [
        (b'[{"n":"x","v":1}]', "", True), (b'[{"bn":"x","n":"y","v":1}]', "application/json", True),
        (b'[{"v":1}]', "", False), (b"[1,2]", "", False), (b'{"n":"x","v":1}', "", False), (b"[{", "", False),
        (cbor2.dumps([{0: "x", 2: 1}]), "", True), (cbor2.dumps([{0: "x", 2: 1}]), f"{CBOR}; x=1", True),
        (cbor2.dumps({0: 1}), "", False), (b"\x81\xff", "", False), (b"", "", False), (b"21.5", "", False),
        (b'[{"n":"x","v":1}]', JSON, True),
    ],
)  # fmt: skip
def test_pack_is_known_by_its_type_or_its_looks(payload: bytes, kind: str, is_read: bool) -> None:
    """By topic ``channels/ID/messages`` the device is the ID."""
    decoded = Senml(Scope()).decode(Publication("channels/7b/messages", payload, NOW, content_type=kind))

    assert (decoded is not None) is is_read
    if decoded is not None:
        assert [said.device for said in decoded.said] == ["7b"] if payload[2:4] != b'"b' else ["x"]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [(b"\x81\xa1\xff", ""), (b"\x9b\0\0\0\0\0\0\0\1\xa1\xff", ""), (b"\xff", CBOR), (b"?", JSON)],
)  # fmt: skip
def test_pack_that_is_larger_than_a_frame_is_not_read(payload: bytes, kind: str) -> None:
    """Whatever stands in it: no reading of it could be stored."""
    message = Publication("d", payload + bytes(MAX_FRAME_BYTES), NOW, content_type=kind)
    with pytest.raises(DecodeError, match=TOO_LARGE):
        Senml(Scope()).decode(message)


@pytest.mark.parametrize(("rest", "kind"), [(b"\xa1", ""), (b"", CBOR)])
def test_pack_that_says_it_is_too_long_is_not_read(rest: bytes, kind: str) -> None:
    """CBOR says how many items there are, which cannot be more than there are bytes."""
    head = b"\x99\x27\x11" + rest + b"\xff"
    with pytest.raises(DecodeError, match=f"10001 records in one pack; the limit is {MAX_ROWS}"):
        Senml(Scope()).decode(Publication("d", head + bytes(MAX_ROWS), NOW, content_type=kind))
    with pytest.raises(DecodeError, match="no CBOR"):
        Senml(Scope()).decode(Publication("d", head, NOW, content_type=CBOR))


@pytest.mark.parametrize(
    "pack",
    [cbor2.dumps([{0: "x", 2: 1}] * MAX_ROWS + [1]), json.dumps([{"n": "x", "v": 1}] * MAX_ROWS + [1]).encode()],
    ids=["CBOR", "JSON"],
)
def test_more_records_than_are_read_are_not_looked_at(pack: bytes) -> None:
    """Neither whether they are some: the reason is that there are too many."""
    with pytest.raises(DecodeError, match=f"{MAX_ROWS + 1} records in one pack"):
        Senml(Scope()).decode(Publication("d", pack, NOW))


def test_nobody_is_guessed() -> None:
    """Without a device in name, topic or credential the message is put aside; so is one with a bad record."""
    decoder, own = Senml(Scope()), Senml(Scope("pump"))
    with pytest.raises(DecodeError, match="which device"):
        decoder.decode(Publication("x", b'[{"n":"x","v":1}]', NOW))
    with pytest.raises(DecodeError, match="record 2: "):
        own.decode(Publication("x", b'[{"n":"x","v":1},{"n":"x","v":"?"}]', NOW))

    decoded = own.decode(Publication("x", b'[{"n":"x","v":1}]', NOW))
    assert decoded is not None
    assert [said.device for said in decoded.said] == ["pump"]


@pytest.mark.parametrize("case", cases("senml"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/senml.json says what stands there."""
    check(case)
