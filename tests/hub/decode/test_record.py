"""Objects of channels and values, as a person writes them."""

import orjson
import pytest

from hub.decode.base import DecodeError
from hub.decode.record import MAX_RECORDS, read_records
from hub.decode.rows import Row, Rows
from hub.decode.scope import Scope

T0 = 1_700_000_000 * 10**9


def read(text: str) -> Rows:
    """Return what a document holds."""
    return read_records(orjson.loads(text), Scope("pump"))


def test_object_is_a_reading_of_each_channel() -> None:
    """Objects inside are parts of the name, null is no value, other signs are made fit."""
    text = '{"temperature": 21.5, "n": 3, "on": true, "s": "x", "gone": null, "air": {"co2": 612}, "a b": 1}'

    assert read(text).rows == [
        Row(1, None, "temperature", 21.5), Row(1, None, "n", 3), Row(1, None, "on", True), Row(1, None, "s", "x"),
        Row(1, None, "air.co2", 612), Row(1, None, "a-b", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "time",
    ['"2023-11-14T22:13:20Z"', '"2023-11-14T23:13:20+01:00"', "1700000000", "1700000000000", '"1700000000000000000"'],
)
def test_time_is_the_time_of_all(time: str) -> None:
    """RFC 3339 with a zone, or an epoch by its size."""
    assert read(f'[{{"x": 1}}, {{"time": {time}, "x": 2, "y": 3}}]').rows == [
        Row(1, None, "x", 1), Row(2, None, "x", 2, T0), Row(2, None, "y", 3, T0),
    ]  # fmt: skip


@pytest.mark.parametrize("time", ['"yesterday"', "5", "true", '"2023-11-14T22:13:20"', "{}", '"99999999999999999999"'])
def test_bad_time_is_no_guess(time: str) -> None:
    """The object is named; the others are read."""
    found = read(f'[{{"time": {time}, "x": 1}}, {{"x": 2}}]')

    assert [row.at for row in found.rows] == [2]
    assert [(fault.at, fault.reason) for fault in found.faults] == [(1, "bad_time")]


def test_null_is_no_time() -> None:
    """A clock that is not set yet."""
    assert read('{"time": null, "x": 1}').rows == [Row(1, None, "x", 1)]


def test_bad_values_lose_nothing_else() -> None:
    """A text that is too long is no reading; a document that is too deep is named."""
    deep = '{"a":' * 12 + "1" + "}" * 12
    found = read(f'[{{"x": 1, "long": "{"y" * 2000}"}}, {deep}, {{"x": 2}}]')

    assert [(row.at, row.channel) for row in found.rows] == [(1, "x"), (3, "x")]
    assert [fault.at for fault in found.faults] == [2]


@pytest.mark.parametrize("text", ["1", '"x"', "[1]", '[{"x":1},2]', "null"])
def test_what_is_no_object_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(DecodeError, match="temperature"):
        read(text)


def test_list_is_bounded() -> None:
    """Each object costs a look."""
    with pytest.raises(DecodeError, match=str(MAX_RECORDS)):
        read_records([{}] * (MAX_RECORDS + 1), Scope("pump"))
