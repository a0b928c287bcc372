"""Readings ↔ columns ↔ bytes: exact both ways, golden vectors, and what a broken body says."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.columns import (
    BINARY_FROM,
    Batch,
    Column,
    decode_batch,
    decode_binary,
    encode_batch,
    encode_binary,
    encode_json,
    read_seq_and_count,
    to_columns,
)
from device_sdk.errors import ProtocolError, Reason
from device_sdk.reading import INT_MAX, INT_MIN, Reading, Value

T = 1_795_376_000_000_000_000
VECTORS = Path(__file__).parents[1] / "vectors"

_floats = st.floats(allow_nan=False, allow_infinity=False)
_ints = st.integers(INT_MIN, INT_MAX)
_texts = st.text(st.characters(codec="utf-8"), max_size=20)
_names = st.sampled_from(["t", "humidity", "door.1", "x" * 128])
_times = st.integers(T - 10**12, T + 10**12) | st.integers(-(2**61), 2**61)


def _vectors(file: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((VECTORS / file).read_text("utf-8"))]


def _readings(case: dict[str, Any]) -> list[Reading]:
    kinds = {"int": int, "float": float, "bool": bool, "str": str}
    return [Reading(r["channel"], int(r["time_ns"]), kinds[r["type"]](r["value"])) for r in case["readings"]]


def _flags(case: dict[str, Any]) -> dict[str, bool]:
    return {"again": case["again"], "time_estimated": case.get("time_estimated", False)}


def _by_channel(readings: list[Reading]) -> dict[str, list[tuple[int, type, Value]]]:
    out: dict[str, list[tuple[int, type, Value]]] = {}
    for channel, time_ns, value in readings:
        out.setdefault(channel, []).append((time_ns, type(value), value))
    return out


@pytest.mark.parametrize("case", _vectors("batch_json.json"))
def test_json_vector(case: dict[str, Any]) -> None:
    """The readings make exactly this body, and the body gives exactly these readings."""
    readings, body = _readings(case), case["body"].encode()

    made = encode_json(to_columns(int(case["seq"]), readings, **_flags(case)))
    batch = decode_batch(body)

    assert made == body
    assert (batch.seq, batch.count, batch.again) == (int(case["seq"]), len(readings), case["again"])
    assert batch.time_estimated == case.get("time_estimated", False)
    assert _by_channel(batch.readings()) == _by_channel(readings)


@pytest.mark.parametrize("case", _vectors("batch_binary.json"))
def test_binary_vector(case: dict[str, Any]) -> None:
    """The same for binary frames, which the encoder chooses here by itself."""
    readings, body = _readings(case), bytes.fromhex(case["body_hex"])

    made = encode_batch(to_columns(int(case["seq"]), readings, **_flags(case)))
    batch = decode_batch(body)

    assert made == body
    assert (batch.seq, batch.count, batch.again) == (int(case["seq"]), len(readings), case["again"])
    assert batch.time_estimated == case.get("time_estimated", False)
    assert _by_channel(batch.readings()) == _by_channel(readings)


@given(
    st.integers(1, INT_MAX),
    st.lists(st.tuples(_names, _times, _floats | _ints | st.booleans() | _texts), min_size=1, max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_any_readings_round_trip(
    seq: int, entries: list[tuple[str, int, Value]], again: bool, time_estimated: bool
) -> None:
    """Whatever mix of types, times and channels: nothing changes by value, type or order inside a channel."""
    readings = [Reading(*entry) for entry in entries]

    batch = decode_batch(encode_batch(to_columns(seq, readings, again=again, time_estimated=time_estimated)))

    assert (batch.seq, batch.count) == (seq, len(readings))
    assert (batch.again, batch.time_estimated) == (again, time_estimated)
    assert _by_channel(batch.readings()) == _by_channel(readings)


@given(st.lists(st.tuples(_names, st.integers(T, T + 10**9), _floats), min_size=BINARY_FROM, max_size=60))
def test_numeric_columns_are_the_same_in_both_encodings(entries: list[tuple[str, int, Value]]) -> None:
    """A hub that reads binary sees what it would have seen in JSON."""
    batch = to_columns(1, entries)

    binary = encode_binary(batch)

    assert binary is not None
    assert decode_batch(binary).readings() == decode_batch(encode_json(batch)).readings()


@pytest.mark.parametrize(
    ("steps", "tick"),
    [([0, 10**9], 10**9), ([0, 10**6], 10**6), ([0, 10**9, 10**9 + 1000], 1000), ([0, 1], 1), ([0], 10**9)],
    ids=["seconds", "ms", "µs", "ns", "single"],
)
def test_tick_is_the_largest_exact_one(steps: list[int], tick: int) -> None:
    """Small integers on the wire, never a rounded time."""
    assert to_columns(1, [("t", T + step, 1.0) for step in steps]).tick == tick


@pytest.mark.parametrize(
    "entries",
    [
        [("t", T, 1.0)] * (BINARY_FROM - 1),
        [("t", T, "text")] * BINARY_FROM,
        [("t", T, 1.0), ("t", T, 1)] * BINARY_FROM,
        [("t", T + i * 2**31 + i, 1.0) for i in range(BINARY_FROM)],
        [("t", 2**63, 1.0)] * BINARY_FROM,
        [("t", T, 2**63)] * BINARY_FROM,
        [("t" * 256, T, 1.0)] * BINARY_FROM,
    ],
    ids=["few", "text", "mixed types", "times too far apart", "time beyond", "integer beyond", "name too long"],
)
def test_json_is_used_where_binary_would_not_pay_or_not_be_exact(entries: list[tuple[str, int, Value]]) -> None:
    """Binary is chosen only when it says the same."""
    assert encode_batch(to_columns(1, entries))[:1] == b"{"


@pytest.mark.parametrize(
    "values", [[2**60, 1.5, True], [2**60, "7", "text"]], ids=["beside floats and booleans", "beside strings"]
)
def test_large_integers_leave_their_neighbours_as_they_are(values: list[Value]) -> None:
    """Integers beyond 2**53 travel as strings; no other value of the column is rounded or becomes a number by that."""
    readings = [Reading("t", T + i, value) for i, value in enumerate(values)]

    assert _by_channel(decode_batch(encode_json(to_columns(1, readings))).readings()) == _by_channel(readings)


def test_no_readings_are_no_batch() -> None:
    """An empty frame must not take a number."""
    with pytest.raises(ValueError, match="empty"):
        to_columns(1, [])


def _json_body(**changes: object) -> bytes:
    obj: dict[str, object] = {"op": "batch", "seq": 1, "count": 2, "t0": "0", "tick": 1000, "c": {"t": {"dt": [0, 1], "v": [1, 2]}}}  # fmt: skip  # noqa: E501
    return json.dumps({key: value for key, value in {**obj, **changes}.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{not json", "not JSON"),
        (_json_body(c=...), "missing or wrong field"),
        (_json_body(t0="soon"), "missing or wrong field"),
        (_json_body(tick=7), "tick 7"),
        (_json_body(count=3), "count says 3, the columns hold 2"),
        (_json_body(seq=0), "seq 0"),
        (_json_body(c={}, count=0), "hold 0 readings"),
        (_json_body(c={"t": {"dt": [0], "v": [1, 2]}}), "1 times but 2 values"),
        (_json_body(c={"t": {"dt": [0, 1.5], "v": [1, 2]}}), "dt must be a list of integers"),
        (_json_body(c={"t": {"dt": [0, 1], "v": []}}), "at least one value"),
        (_json_body(c={"t": {"step": 0, "v": [1, 2]}}), "step 0"),
        (_json_body(c={"t": {"step": 2**62, "v": [1, 2]}}), "step"),
        (_json_body(c=[1]), "missing or wrong field"),
    ],
)
def test_broken_json_batch_is_malformed(body: bytes, says: str) -> None:
    """The message says what is wrong; the reason is `malformed`."""
    with pytest.raises(ProtocolError, match=says) as caught:
        decode_batch(body)

    assert caught.value.reason is Reason.MALFORMED


def _binary() -> bytes:
    body = encode_binary(to_columns(9, [("t", T + i * 10**6, float(i)) for i in range(20)]))
    assert body is not None
    return body


@given(st.integers(0, 200), st.integers(1, 255))
def test_changed_binary_frame_never_raises_anything_else(at: int, xor: int) -> None:
    """A flipped byte gives other readings or a ProtocolError, never another exception."""
    body = bytearray(_binary())
    body[at] ^= xor

    with contextlib.suppress(ProtocolError):
        assert decode_binary(bytes(body)).count == 20


@pytest.mark.parametrize("size", range(0, len(_binary()), 9))
def test_binary_frame_cut_short_is_malformed(size: int) -> None:
    """Every shorter frame is refused, and so is a longer one."""
    body = _binary()

    for wrong in (body[:size], body + b"\x00" * (size + 1)):
        with pytest.raises(ProtocolError):
            decode_binary(wrong)


def test_binary_frame_of_another_version_is_malformed() -> None:
    """A later encoding is not guessed at."""
    with pytest.raises(ProtocolError, match="version 2"):
        decode_binary(b"\x02" + _binary()[1:])


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (_json_body(c="broken"), (1, 2)),
        (_json_body(seq="1"), None),
        (_json_body(seq=True), None),
        (_json_body(count=-1), None),
        (b"{", None),
        (b"[1]", None),
        (_binary()[:40], (9, 20)),
        (_binary()[:10], None),
        (struct.pack("<BBBBQqIH", 1, 0, 0, 0, 0, 0, 5, 0), None),
        (b"", None),
    ],
)
def test_seq_and_count_are_read_from_a_broken_frame(body: bytes, found: tuple[int, int] | None) -> None:
    """A hub can quarantine a frame whole, and keep acks in order, when these two can be read."""
    assert read_seq_and_count(body) == found


def test_batch_gives_readings_column_by_column() -> None:
    """t0 + dt · tick, in the order of each column."""
    batch = Batch(1, 3, 1_000, 10, (Column("a", [0, 2], [1, 2]), Column("b", [1], [True])))

    assert batch.readings() == [("a", 1_000, 1), ("a", 1_020, 2), ("b", 1_010, True)]


def test_binary_frame_that_names_a_channel_twice_is_no_batch() -> None:
    """Whoever writes it again as JSON would lose one of them."""
    twice = Batch(1, 2, T, 1, (Column("t", [0], [1.5]), Column("t", [1], [2.5])))
    body = encode_binary(twice)
    assert body is not None

    with pytest.raises(ProtocolError, match="names a channel twice"):
        decode_binary(body)
