"""Whatever a device sends is either trusted columns, a reason per reading, or one clear error."""

import json
from typing import Any

import pytest

from device_sdk import columns, wire
from device_sdk.columns import Batch, Column
from device_sdk.errors import Reason
from device_sdk.reading import MAX_STRING_BYTES, Channel, ValueType
from hub.model import Series
from hub.validate import Checked, MalformedError, check_batch, parse_message

T0 = 1_795_376_000_000_000_000


def body(**changes: Any) -> bytes:
    """Return a good batch as JSON with some keys replaced (None removes)."""
    good: dict[str, Any] = {"op": "batch", "seq": 7, "count": 2, "t0": str(T0), "tick": 1_000_000}
    good["c"] = {"temperature": {"dt": [0, 1000], "v": [21.5, 21.6]}}
    good.update(changes)
    return json.dumps({k: v for k, v in good.items() if v is not None}, separators=(",", ":")).encode()


def check(values: list[Any], kind: ValueType | None = ValueType.FLOAT, dt: list[int] | None = None) -> Checked:
    """Check one column of channel ``x`` declared as ``kind``."""
    batch = Batch(1, len(values), T0, 1, (Column("x", dt or list(range(len(values))), values),))
    series = Series(1, "default", "d", "x", kind)
    return check_batch(batch, b"as received", {"x": series}.get)


def test_parse_message_returns_a_batch_with_its_columns_untouched() -> None:
    """A sound batch parses to the columns the device cut, whatever the order of its keys."""
    batch = parse_message(body(), True)
    shuffled = parse_message(json.dumps(dict(reversed(json.loads(body()).items()))).encode(), True)

    assert batch == shuffled == Batch(7, 2, T0, 1_000_000, (Column("temperature", [0, 1000], [21.5, 21.6]),))


def test_parse_message_reads_what_the_sdk_writes() -> None:
    """Hello, schema, gap and bye survive the way from the SDK's encoder to the hub's models."""
    hello = wire.Hello("d-1", "9f3a0000000000aa", "boot", "run", 3, 5, "ab" * 16, seen="7f3a.12", wall_ns=T0)
    schema = wire.Schema((Channel("t", "Cel", ValueType.FLOAT, 1.0, 10.0, 27.5, "Temperature"),))
    gap = wire.Gap(9, None, Reason.POWER_CUT, {"t": (T0, T0 + 1)})

    for message in (hello, schema, gap, wire.Bye()):
        assert parse_message(wire.encode(message), True) == message


def test_parse_message_reads_binary_batches() -> None:
    """A binary frame is the same batch as its JSON form."""
    batch = Batch(3, 2, T0, 1000, (Column("x", [0, 5], [1.5, -2.25]),))
    binary = columns.encode_binary(batch)

    assert binary is not None
    assert parse_message(binary, False) == batch


@pytest.mark.parametrize(
    ("data", "seq", "says"),
    [
        pytest.param(b"not json", None, "JSON object", id="no-json"),
        pytest.param(b"[1,2]", None, "JSON object", id="array"),
        pytest.param(b'{"op":"fly"}', None, "fly", id="unknown-op"),
        pytest.param(b'{"op":["batch"]}', None, "op", id="op-is-a-list"),
        pytest.param(b"[" * 100_000, None, "JSON object", id="nesting-bomb"),
        pytest.param(body(c=None), 7, "c", id="no-columns"),
        pytest.param(body(seq=0), None, "seq", id="seq-zero"),
        pytest.param(body(seq=2**62, count=3), 2**62, "count says 3", id="count-lies"),
        pytest.param(body(count="2"), None, "count", id="count-is-text"),
        pytest.param(body(tick=7), 7, "tick", id="odd-tick"),
        pytest.param(body(c={"x": {"dt": [0], "v": [1.0, 2.0]}}), 7, "one dt", id="unequal-lists"),
        pytest.param(body(c={"x": {"dt": [0, 2**63], "v": [1.0, 2.0]}}), 7, "dt", id="dt-beyond-64-bits"),
        pytest.param(body(c={"x": {"dt": [0, 1], "v": []}}), 7, "v", id="no-values"),
        pytest.param(b'{"op":"hello","proto":9}', None, "hello", id="other-protocol"),
    ],
)
def test_parse_message_says_what_is_wrong(data: bytes, seq: int | None, says: str) -> None:
    """A malformed message names its fault, and its seq when that could be read (so it can be quarantined)."""
    with pytest.raises(MalformedError, match=says) as caught:
        parse_message(data, True)

    assert caught.value.seq == seq


@pytest.mark.parametrize("cut", range(60))
def test_parse_message_refuses_a_binary_frame_cut_anywhere(cut: int) -> None:
    """No prefix of a binary frame is taken for a batch."""
    whole = columns.encode_binary(Batch(3, 2, T0, 1000, (Column("xyz", [0, 5], [1.5, -2.25]),)))
    assert whole is not None

    with pytest.raises(MalformedError):
        parse_message(whole[: min(cut, len(whole) - 1)], False)


def test_check_batch_hands_the_received_bytes_on_when_all_is_well() -> None:
    """Nothing is encoded again for a clean frame."""
    checked = check([1.0, 2, -3.5])

    assert (checked.readings, checked.rejected_count, checked.body) == (3, 0, b"as received")
    assert list(checked.columns[0].column.values) == [1.0, 2, -3.5]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        pytest.param(ValueType.FLOAT, float("nan"), Reason.NOT_FINITE, id="nan"),
        pytest.param(ValueType.FLOAT, float("inf"), Reason.NOT_FINITE, id="infinity"),
        pytest.param(ValueType.FLOAT, None, Reason.NOT_FINITE, id="null"),
        pytest.param(ValueType.FLOAT, "21.5", Reason.TYPE_CONFLICT, id="text-for-a-number"),
        pytest.param(ValueType.FLOAT, True, Reason.TYPE_CONFLICT, id="bool-for-a-number"),
        pytest.param(ValueType.FLOAT, {"a": 1}, Reason.TYPE_CONFLICT, id="object"),
        pytest.param(ValueType.INT, 2**63, Reason.OUT_OF_RANGE, id="int-beyond-64-bits"),
        pytest.param(ValueType.BOOL, 1, Reason.TYPE_CONFLICT, id="number-for-a-bool"),
        pytest.param(ValueType.STR, 5, Reason.TYPE_CONFLICT, id="number-for-text"),
        pytest.param(ValueType.STR, "x" * (MAX_STRING_BYTES + 1), Reason.TOO_LONG, id="long-text"),
        pytest.param(ValueType.STR, "ä" * MAX_STRING_BYTES, Reason.TOO_LONG, id="long-in-bytes"),
    ],
)
def test_check_batch_rejects_the_bad_reading_only(kind: ValueType, value: Any, reason: Reason) -> None:
    """One bad value costs itself: its neighbours are stored and the body tells exactly them."""
    good: Any = {ValueType.FLOAT: 1.5, ValueType.INT: 3, ValueType.BOOL: True, ValueType.STR: "on"}[kind]
    checked = check([good, value, good], kind)

    assert [(r.index, r.reason) for r in checked.rejected] == [(1, reason)]
    assert (checked.readings, checked.rejected_count) == (2, 1)
    assert [r.time_ns - T0 for r in columns.decode_batch(checked.body).readings()] == [0, 2]


@pytest.mark.parametrize("when", [0, 10**18 // 2, wire.MAX_TIME_NS], ids=["1970", "1985", "2100"])
def test_check_batch_rejects_times_no_sensor_has(when: int) -> None:
    """A reading of 1970 or 2100 is refused by reason, the others stay."""
    checked = check([1.0, 2.0], dt=[0, when - T0])

    assert [(r.index, r.reason) for r in checked.rejected] == [(1, Reason.TIME_OUT_OF_RANGE)]
    assert checked.readings == 1


def test_estimated_times_stay_flagged_in_both_encodings_and_after_a_rejection() -> None:
    """The body that is kept says that its times are an estimate, also when it is not the one received."""
    batch = Batch(3, 3, T0, 1, (Column("x", [0, 1], [1.0, 2.0]), Column("y", [0], [1.0])), time_estimated=True)
    as_json, binary = columns.encode_json(batch), columns.encode_binary(batch)
    assert binary is not None

    checked = check_batch(batch, as_json, {"x": Series(1, "default", "d", "x", ValueType.FLOAT)}.get)

    assert parse_message(as_json, True) == parse_message(binary, False) == batch
    assert (checked.readings, checked.rejected_count) == (2, 1)
    assert columns.decode_batch(checked.body).time_estimated


def test_check_batch_rejects_channels_nobody_declared() -> None:
    """An undeclared name and a name outside the grammar are different faults; the declared channel is stored."""
    batch = Batch(1, 3, T0, 1, (Column("x", [0], [1.0]), Column("y", [0], [1.0]), Column("../etc", [0], [1.0])))
    checked = check_batch(batch, b"", {"x": Series(1, "default", "d", "x", ValueType.FLOAT)}.get)

    assert [(r.channel, r.reason) for r in checked.rejected] == [
        ("y", Reason.UNKNOWN_CHANNEL),
        ("../etc", Reason.BAD_NAME),
    ]
    assert checked.readings == 1


def test_check_batch_says_that_a_device_has_all_its_channels() -> None:
    """Beyond the cap a new name is refused for the cap: declaring it, which `unknown_channel` asks for, cannot help."""
    batch = Batch(1, 2, T0, 1, (Column("new", [0], [1.0]), Column("../etc", [0], [1.0])))
    others: dict[str, Series] = {}
    checked = check_batch(batch, b"", others.get, has_all_channels=True)

    assert [r.reason for r in checked.rejected] == [Reason.CHANNEL_LIMIT, Reason.BAD_NAME]


def test_check_batch_widens_an_int_series_that_meets_a_float() -> None:
    """21 and then 21.5 is one sensor, not a type conflict; true is still refused."""
    series = Series(1, "default", "d", "x", ValueType.INT)
    batch = Batch(1, 3, T0, 1, (Column("x", [0, 1, 2], [21, 21.5, True]),))
    checked = check_batch(batch, b"", {"x": series}.get)

    assert series.type is ValueType.FLOAT
    assert checked.retyped == (series,)
    assert [r.index for r in checked.rejected] == [2]


def test_check_batch_learns_the_type_of_an_undeclared_type() -> None:
    """A channel declared without a type takes that of its first value."""
    series = Series(1, "default", "d", "x", None)
    check_batch(Batch(1, 1, T0, 1, (Column("x", [0], [True]),)), b"", {"x": series}.get)

    assert series.type is ValueType.BOOL


def test_check_batch_names_a_hundred_rejections_and_counts_all() -> None:
    """An ack stays small however much is wrong."""
    checked = check(["no"] * 500)

    assert (len(checked.rejected), checked.rejected_count, checked.readings) == (100, 500, 0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(["no"] * 500, "type_conflict", id="all-alike"),
        pytest.param(["no", None] * 250, "", id="different"),
        pytest.param([1.5], "", id="none"),
    ],
)
def test_check_batch_keeps_the_reason_of_rejections_it_does_not_name(values: list[Any], reason: str) -> None:
    """The audit counts the rest under the reason they share; where they differ it says that they are not itemised."""
    assert check(values).reason == reason


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b" \r\n" + body(), ValueType.FLOAT, id="space-in-front"),
        pytest.param(body().replace(b":1000000,", b":1000000.0,"), ValueType.FLOAT, id="tick-is-a-float"),
        pytest.param(body().replace(b":1000000,", b":true,"), ValueType.FLOAT, id="tick-is-true"),
        pytest.param(
            body(c={"temperature": {"dt": [0, 1], "type": "int", "v": ["1" * 21, "2" * 21]}}),
            ValueType.STR,
            id="long-digits-as-int-for-a-string-channel",
        ),
        pytest.param(
            body(c={"temperature": {"dt": [0, 1], "type": "int", "v": ["a" * 21, "b" * 21]}}),
            ValueType.STR,
            id="long-text-as-int-for-a-string-channel",
        ),
    ],
)
def test_a_taken_body_reads_again_as_the_columns_that_were_checked(data: bytes, kind: ValueType) -> None:
    """What the journal keeps gives the same columns to whoever reads it later; a body that would not is refused."""
    series = Series(1, "default", "d", "temperature", kind)

    try:
        batch = parse_message(data, True)
    except MalformedError:
        return
    assert isinstance(batch, Batch)
    checked = check_batch(batch, data, {"temperature": series}.get)

    again = columns.decode_batch(checked.body)
    assert again.columns == tuple(c.column for c in checked.columns)
    assert type(again.tick) is int


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_check_batch_rejects_integers_no_store_can_hold(value: int) -> None:
    """A float channel takes integers up to 64 bits; its neighbours are kept."""
    checked = check([1.5, value, 2**63 - 1])

    assert [(r.index, r.reason) for r in checked.rejected] == [(1, Reason.OUT_OF_RANGE)]
    assert [list(c.column.values) for c in checked.columns] == [[1.5, 2**63 - 1]]


def test_nulls_do_not_settle_the_type_of_a_channel() -> None:
    """A sensor that failed first must not make every later string or bool a conflict."""
    series = Series(1, "default", "d", "x")

    def taken(values: list[Any]) -> int:
        batch = Batch(1, len(values), T0, 1, (Column("x", list(range(len(values))), values),))
        return check_batch(batch, b"as received", {"x": series}.get).readings

    assert [taken([None, {}]), taken(["on"])] == [0, 1]
    assert series.type is ValueType.STR


@pytest.mark.parametrize("t0", [1_795_376_000_000_000_000, -9_999_999_999_999_999_999], ids=["usual", "beyond-64-bits"])
def test_what_is_left_of_a_long_batch_is_encoded_exactly(t0: int) -> None:
    """Refused readings are left out, whatever t0 a peer chose; the body reads again as the columns taken."""
    base = (1_795_376_000_000_000_000 - t0) // 10**9
    column = Column("x", [base + n for n in range(40)], [None, *(n / 7 for n in range(39))])  # type: ignore[list-item]
    batch = Batch(1, 40, t0, 10**9, (column,))

    checked = check_batch(batch, b"", {"x": Series(1, "default", "d", "x", ValueType.FLOAT)}.get)

    again = columns.decode_batch(checked.body)
    assert again.count == 39
    assert (list(again.columns[0].values), list(again.columns[0].dt)) == (column.values[1:], column.dt[1:])
    assert again.t0 == t0


def test_readings_refused_before_are_counted_and_not_looked_at() -> None:
    """They keep their places and reasons; the others are checked as always."""
    series = Series(1, "default", "d", "x", None)
    batch = Batch(1, 4, 0, 1, (Column("x", [2**60, 2**60, 2**60, 1], ["text", 1.5, 2.5, 3.5]),))

    checked = check_batch(batch, b"", {"x": series}.get, refused={"x": {0: "hook: no", 2: "hook: spike"}})

    assert series.type is ValueType.FLOAT
    assert [(r.index, r.reason) for r in checked.rejected] == [
        (0, "hook: no"),
        (2, "hook: spike"),
        (3, "time_out_of_range"),
    ]
    assert (checked.readings, checked.rejected_count, checked.reason) == (1, 3, "")


def test_changed_batch_is_encoded_again_though_nothing_is_refused() -> None:
    """The body tells what is stored."""
    batch = Batch(1, 1, 1_795_376_000_000_000_000, 1, (Column("x", [0], [2.5]),))
    series = Series(1, "default", "d", "x", ValueType.FLOAT)

    checked = check_batch(batch, b"as it came", {"x": series}.get, is_changed=True)

    assert columns.decode_batch(checked.body).columns == batch.columns
