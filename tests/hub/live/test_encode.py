"""What goes to watchers: exact times and values, only members, cursors that never claim too much."""

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.columns import Column
from device_sdk.reading import Value, ValueType
from hub.description import ChannelDescription
from hub.live.encode import (
    MESSAGE_ROWS,
    Message,
    encode_frames,
    encode_rows,
    encode_series,
    encode_values,
    scaled_rows,
)
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.base import Row

T = 1_795_376_000_000_000_000
KEY = StreamKey("default", "d", "0" * 16)
SERIES = {i: Series(i, "default", "d", f"c{i}", ValueType.FLOAT) for i in range(1, 5)}


def frame(offset: int, t0: int, tick: int, columns: dict[int, tuple[list[int], list[Value]]]) -> Frame:
    """Return a committed frame of series → (dt, values)."""
    parts = tuple(SeriesColumn(SERIES[i], Column(f"c{i}", dt, values)) for i, (dt, values) in columns.items())
    count = sum(len(values) for _, values in columns.values())
    return Frame(KEY, offset, Kind.BATCH, 0, b"x" * 50, b"", t0, tick, parts, count, offset=offset)


def decode(messages: list[Message]) -> list[tuple[int, int, Value]]:
    """Return the readings of messages, as a client computes them."""
    out = []
    for message in messages:
        obj: dict[str, Any] = orjson.loads(b"{" + message.tail)
        assert obj["o"] == message.cursor
        for i, dt, value in obj["u"]:
            exact = int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
            out.append((i, int(obj["t0"]) + int(dt) * obj["tick"], exact))
    return out


def rows_of(frames: list[Frame], members: set[int]) -> list[tuple[int, int, Value]]:
    """Return what must arrive."""
    return [(s.id, t, v) for f in frames for s, t, v in f.rows() if s.id in members]


def test_frames_with_different_ticks_share_one_exact_message() -> None:
    """A ms frame and a ns frame become one message whose tick is exact for both."""
    frames = [
        frame(1, T, 10**6, {1: ([0, 5], [1.5, 2.5])}),
        frame(2, T + 7, 1, {2: ([0, 3], [True, False])}),
        frame(3, T - 10**9, 10**9, {1: ([0], ["on"])}),
    ]

    messages = encode_frames(frames, {1, 2}, 3, lambda o: f"run.{o}")

    assert len(messages) == 1
    assert decode(messages) == rows_of(frames, {1, 2})
    assert messages[0].cursor == "run.3"


def test_ms_frames_stay_short() -> None:
    """Batches of 100 readings in ms cost about 15 bytes a reading, the message's head included."""
    readings = [20.0 + k / 100 for k in range(100)]
    messages = encode_frames([frame(1, T, 10**6, {1: (list(range(0, 10_000, 100)), list(readings))})], {1}, 1, str)

    assert len(messages[0].tail) / 100 <= 15.5


def test_late_rows_are_named_and_others_cost_nothing() -> None:
    """Runs of late rows by their place in ``u``, of members only; a message without late rows has no such field."""
    late = frame(2, T - 100, 1, {1: ([0, 50, 100], [1.0, 2.0, 3.0]), 2: ([0], [4.0]), 3: ([0, 1], [5.0, 6.0])})
    late.late = ((0, T - 20), (1, T), (2, T))
    frames = [frame(1, T, 1, {1: ([0, 1], [0.0, 0.5])}), late, frame(3, T, 1, {1: ([7], [7.0])})]

    (message,) = encode_frames(frames, {1, 3}, 3, str)
    (plain,) = encode_frames(frames[:1], {1}, 1, str)

    found = orjson.loads(b"{" + message.tail)
    assert found["late"] == [[2, 4], [5, 7]]
    assert [row[2] for row in found["u"]] == [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0]
    assert plain.tail == b'"o":"1","t0":"%d","tick":1,"u":[[1,0,0.0],[1,1,0.5]]}' % T


def test_far_times_begin_another_message_at_a_frame_border() -> None:
    """A back-dated frame among live ones gets its own message; its predecessor's cursor ends before it."""
    frames = [
        frame(5, T, 1, {1: ([0], [1.0])}),
        frame(6, T, 1, {3: ([0], [9.0])}),
        frame(7, T - 3600 * 10**9, 1, {1: ([0, 1], [2.0, 3.0])}),
        frame(8, T, 1, {3: ([0], [9.0])}),
    ]

    messages = encode_frames(frames, {1}, 8, lambda o: f"run.{o}")

    assert [m.cursor for m in messages] == ["run.6", "run.8"]
    assert decode(messages) == rows_of(frames, {1})


def test_a_large_page_is_cut_at_frame_borders() -> None:
    """A watcher whose line breaks often keeps what came before, and comes forward; offsets are never divided."""
    steps = [*range(200)]
    frames = [frame(n, T + n * 10**9, 10**6, {1: (steps, [float(n)] * 200)}) for n in range(1, 8)]

    messages = encode_frames(frames, {1}, 9, str)

    assert [message.cursor for message in messages] == ["3", "6", "9"]
    assert decode(messages) == rows_of(frames, {1})


def test_frames_without_members_make_no_message() -> None:
    """When nothing matches there is nothing to send."""
    assert encode_frames([frame(1, T, 1, {1: ([0], [1.0])})], {2}, 1, str) == []
    assert encode_values([], "c") == []
    assert encode_rows([], str) == []


def test_large_integers_are_decimal_strings() -> None:
    """Values and ticks beyond 2**53 travel as strings, all others as numbers."""
    frames = [frame(1, T, 1, {1: ([0, 2**53 + 1], [2**53 + 1, -(2**63)]), 2: ([1], [7])})]

    messages = encode_frames(frames, {1, 2}, 1, str)

    assert b'"9007199254740993"' in messages[0].tail
    assert b"[2,1,7]" in messages[0].tail
    assert decode(messages) == rows_of(frames, {1, 2})


def test_history_is_cut_only_where_the_time_changes() -> None:
    """Rows of one instant are never parted, so the cursor's time means: everything up to it was sent."""
    same = [Row(i, T, float(i)) for i in range(MESSAGE_ROWS + 300)]
    rows = [*same, Row(1, T + 1, 1.0), Row(2, T + 1, 2.0)]

    messages = encode_rows(rows, lambda t: f"run.9.{t}")

    assert [m.cursor for m in messages] == [f"run.9.{T}", f"run.9.{T + 1}"]
    assert decode(messages) == [row[:3] for row in rows]


def test_history_over_many_years_in_ns_stays_exact() -> None:
    """Times further apart than 2**53 ns go into messages of their own."""
    rows = [Row(1, T - 2**54, 1.0), Row(1, T - 1, 2.0), Row(1, T, 3.0)]

    messages = encode_rows(rows, str)

    assert len(messages) == 2
    assert decode(messages) == [row[:3] for row in rows]


def test_scale_is_applied_to_frames_and_rows_of_its_series_alone() -> None:
    """A member with a scale is sent as it is shown; the frame itself and other series stay as they are stored."""
    scaled = Series(2, "default", "d", "c2", ValueType.INT, described=ChannelDescription(scale=0.1, offset=-40))
    switch = Series(3, "default", "d", "c3", ValueType.BOOL, described=ChannelDescription(scale=2))
    one = frame(1, T, 10**6, {1: ([0], [215]), 2: ([0, 1], [215, 3]), 3: ([0], [True])})
    columns = tuple(SeriesColumn({2: scaled, 3: switch}.get(c.series.id, c.series), c.column) for c in one.columns)
    one = replace(one, columns=columns)

    messages = encode_frames([one], {1, 2, 3}, 1, lambda o: f"run.{o}")

    assert [value for _, _, value in decode(messages)] == [215, -18.5, -39.7, True]
    assert one.columns[1].column.values == [215, 3]
    assert list(scaled_rows([(2, T, 215), (3, T, True), (1, T, 215)], {**SERIES, 2: scaled, 3: switch})) == [
        (2, T, -18.5), (3, T, True), (1, T, 215),
    ]  # fmt: skip


def test_series_message_tells_what_a_person_set() -> None:
    """What holds, as people write it; a scale lets a client tell older values apart; absent fields are not sent."""
    of = ChannelDescription(unit="Cel", label="Air", decimals=1, kind="gauge", scale=0.1)
    series = Series(2, "default", "d", "c2", ValueType.INT, "K", described=of)

    told = orjson.loads(b"{" + encode_series([series]))["s"]["2"]

    assert told == {
        "device": "d", "channel": "c2", "unit": "Cel", "type": "float", "label": "Air", "unit_shown": "°C",
        "decimals": 1, "kind": "gauge", "scale": 0.1,
    }  # fmt: skip


def test_series_message_carries_what_clients_need_to_decode() -> None:
    """Device, channel, unit, type and label by id."""
    series = Series(12, "default", "pump-1", "flow", ValueType.INT, "L/min", label="Durchfluss")

    assert orjson.loads(b"{" + encode_series([series])) == {
        "s": {"12": {"device": "pump-1", "channel": "flow", "unit": "L/min", "type": "int", "label": "Durchfluss"}}
    }


_TIMES = st.integers(-(10**13), 10**13)
_VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1), st.booleans())


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            _TIMES,
            st.sampled_from([1, 10**3, 10**6, 10**9]),
            st.dictionaries(
                st.integers(1, 4), st.lists(st.tuples(st.integers(-1000, 10**6), _VALUES), min_size=1, max_size=4)
            ),
        ),
        max_size=5,
    ),
    st.sets(st.integers(1, 4)),
)
def test_any_frames_arrive_exactly(
    parts: list[tuple[int, int, dict[int, list[tuple[int, Value]]]]], members: set[int]
) -> None:
    """Whatever frames are encoded together, a client computes the same times and values, in the same order."""
    frames = [
        frame(n + 1, T + shift, tick, {i: ([d for d, _ in c], [v for _, v in c]) for i, c in columns.items()})
        for n, (shift, tick, columns) in enumerate(parts)
    ]

    messages = encode_frames(frames, members, len(frames), str)

    expected = rows_of(frames, members)
    found = decode(messages)
    assert found == expected
    assert [type(v) for _, _, v in found] == [type(v) for _, _, v in expected]
