"""Rows of a microcontroller are an ordinary batch, or a reason with the number that goes into quarantine."""

import json
from pathlib import Path
from typing import Any

import pytest

from device_sdk.columns import Batch, Column
from hub.mqtt.compact import is_rows, read_rows
from hub.validate import MalformedError, parse_message

STREAM = "9f3a0000000000aa"
T_MS = 1_763_838_000_123


def rows(**other: Any) -> bytes:
    """Return a message of two rows, some of its fields otherwise."""
    whole = {
        "s": STREAM, "q": 1234, "t": str(T_MS), "f": ["temperature", "humidity"],
        "r": [[0, 21.53, 44.1], [1000, 21.6, None]],
    }  # fmt: skip
    return json.dumps({**whole, **other}, separators=(",", ":")).encode()


VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "micro.json").read_text("utf-8"))


@pytest.mark.parametrize("case", [c for c in VECTORS if c["topic"].endswith("/up")], ids=lambda case: case["name"])
def test_what_a_microcontroller_says_is_read(case: dict[str, Any]) -> None:
    """The same vectors that `micro.py` is tested against."""
    body = case["body"].encode()
    if is_rows(body):
        batch = read_rows(body, "9f3a6c01d2e4b587")
        assert batch.count == sum(value is not None for row in json.loads(body)["r"] for value in row[1:])
    else:
        message = parse_message(body, True)
        assert type(message).__name__.lower() == json.loads(body)["op"]


def test_rows_become_columns_and_null_is_no_reading() -> None:
    """Times are exact milliseconds; an int stays one."""
    data = rows(r=[[0, 21.53, 44], [1000, 21.6, None], [-5, None, True]])

    assert is_rows(data)
    assert read_rows(data, STREAM) == Batch(
        1234, 4, T_MS * 1_000_000, 1_000_000,
        (Column("temperature", [0, 1000], [21.53, 21.6]), Column("humidity", [0, -5], [44, True])),
    )  # fmt: skip


def test_channel_without_a_value_is_left_out() -> None:
    """A sensor that is not there makes no column."""
    assert [c.channel for c in read_rows(rows(r=[[0, 1.5, None]]), STREAM).columns] == ["temperature"]


def test_rows_that_were_numbered_anew_say_so() -> None:
    """As a batch does."""
    assert read_rows(rows(again=True), STREAM).again


def test_short_name_of_a_stream_is_filled_with_zeros() -> None:
    """As an example of the protocol writes it."""
    assert read_rows(rows(s="9f3a"), "0000000000009f3a").seq == 1234


@pytest.mark.parametrize(
    ("other", "seq", "count", "why"),
    [
        ({"r": [[0, 1.5]]}, 1234, 1, "for each of the 2 channels"),
        ({"r": [[0.5, 1.5, 2]]}, 1234, 2, "an offset in ms"),
        ({"r": [[10**15, 1.5, 2]]}, 1234, 2, "an offset in ms"),
        ({"r": [[0, None, None]]}, 1234, 0, "no row has a value"),
        ({"f": ["t", "t"]}, 1234, 3, "named twice"),
        ({"r": [[0, [1], 2], [1]]}, 1234, 2, "rows: r.0.1"),
        ({"r": [[n, 1, 2] for n in range(6000)]}, 1234, 12_000, "the limit is 10000"),
        ({"t": T_MS}, 1234, 3, "rows: t"),
        ({"q": 0}, None, 0, "rows: q"),
        ({"q": "7"}, None, 0, "rows: q"),
        ({"s": "0000000000009f3a"}, None, 0, "say hello first"),
    ],
    ids=["short row", "offset", "far", "empty", "twice", "value", "many", "time", "zero", "text", "stream"],
)  # fmt: skip
def test_what_is_no_rows_says_why_and_which(other: dict[str, Any], seq: int | None, count: int, why: str) -> None:
    """With a number that can be read it takes its place in the stream; without one it is sent again."""
    with pytest.raises(MalformedError, match=why) as caught:
        read_rows(rows(**other), STREAM)

    assert (caught.value.seq, caught.value.count) == (seq, count)


@pytest.mark.parametrize(
    "value",
    [b'"\\ud800"', b'"\xff"', b"<object>", b"[" * 300, b"1e"],
    ids=["surrogate", "utf-8", "object", "deep", "number"],
)
def test_what_is_no_json_has_its_number_all_the_same(value: bytes) -> None:
    """Else it would be sent for ever, and hold up all behind it: a device drops nothing that has a number."""
    data = rows(r=[[0, 1, 2], [10, 3, 4]]).replace(b",4]", b"," + value + b"]")

    with pytest.raises(MalformedError, match="rows: message") as caught:
        read_rows(data, STREAM)

    assert (caught.value.seq, caught.value.count) == (1234, 4)


@pytest.mark.parametrize("value", ["[1]", "<object>"])
def test_rows_of_another_stream_have_no_number_here(value: str) -> None:
    """It would be taken for the next of this one, and the real one for a repetition."""
    data = rows(s="0000000000009f3a").replace(b"21.6", value.encode())

    with pytest.raises(MalformedError) as caught:
        read_rows(data, STREAM)

    assert caught.value.seq is None


@pytest.mark.parametrize("data", [b'{"s":', b'{"s":"9f3a"}', b"[]", b"\xff", b'{"s":' + b"[" * 5000], ids=repr)
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    """Nothing else is ever raised."""
    with pytest.raises(MalformedError):
        read_rows(data, STREAM)
