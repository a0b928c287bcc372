"""`hub.gateway.export`: the file's lines are exact."""

import csv
import io
import json

import pytest

from device_sdk.reading import Value
from hub.gateway.export import answer_response, export_chunks, unix_ms
from hub.model import Series
from hub.query import Answer
from hub.store.base import Row

SERIES = [Series(1, "default", "pump-1", "pressure", unit="bar"), Series(2, "default", "pump-1", "note")]
TIME_NS = 1_795_376_000_123_456_789


def written(form: str, *rows: tuple[int, int, Value]) -> str:
    """The whole file."""
    return b"".join(export_chunks(SERIES, [[Row(*row) for row in rows]], form)).decode()


def test_csv_reads_back_exactly() -> None:
    """Names, ISO time, unix ms, value and unit in the named columns; text is quoted as CSV wants it."""
    text = written("csv", (1, TIME_NS, 0.1), (2, TIME_NS + 1, 'a "b", c\nd'), (1, 1_795_376_000_000_000_000, True))

    rows = list(csv.reader(io.StringIO(text, newline="")))

    assert rows == [
        ["device", "channel", "time", "time_unix_ms", "value", "unit"],
        ["pump-1", "pressure", "2026-11-22T19:33:20.123456789Z", "1795376000123.456789", "0.1", "bar"],
        ["pump-1", "note", "2026-11-22T19:33:20.123456790Z", "1795376000123.45679", 'a "b", c\nd', ""],
        ["pump-1", "pressure", "2026-11-22T19:33:20Z", "1795376000000", "true", "bar"],
    ]


def test_ndjson_is_one_object_a_line() -> None:
    """Every line is JSON; an absent unit is null and a 64-bit integer keeps its digits."""
    lines = written("ndjson", (1, 1_795_376_000_000_000_000, 2**62), (2, TIME_NS, "x")).splitlines()

    assert [json.loads(line)["value"] for line in lines] == [2**62, "x"]
    assert json.loads(lines[1])["unit"] is None
    assert '"time_unix_ms":1795376000123.456789,' in lines[1]
    assert lines[0].startswith('{"device":"pump-1","channel":"pressure","time":"2026-')


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_receive_times_stand_in_a_column_of_their_own(form: str) -> None:
    """Asked for, each line ends with when the hub received it, or with nothing where that is not known."""
    page = [Row(1, TIME_NS, 1.5, TIME_NS + 10**9), Row(1, TIME_NS + 1, 2.5)]
    lines = b"".join(export_chunks(SERIES, [page], form, received=True)).decode().splitlines()

    known, unknown = ("2026-11-22T19:33:21.123456789Z", "") if form == "csv" else (
        '"received":"2026-11-22T19:33:21.123456789Z"}', '"received":null}'
    )  # fmt: skip
    assert lines[-2].endswith(known)
    assert lines[-1].endswith(f"bar,{unknown}" if form == "csv" else unknown)


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [(0, "0"), (1_000_000, "1"), (1_000_001, "1.000001"), (1_500_000, "1.5"), (TIME_NS, "1795376000123.456789")],
    ids=str,
)
def test_unix_ms_is_exact(time_ns: int, expected: str) -> None:
    """Milliseconds carry as many decimals as the nanoseconds need."""
    assert unix_ms(time_ns) == expected


def test_buckets_have_a_column_for_each_aggregate() -> None:
    """Aggregates stand where the value does; what is missing is empty, or null."""
    rows: list[tuple[Value | None, ...]] = [(TIME_NS, 0, 1.5, 2), (TIME_NS + 1, 1, None, 0)]
    answer = Answer(SERIES, ("time_ns", "series", "avg", "count"), rows)

    text = bytes(answer_response(answer, "csv", {}).body).decode()
    lines = [json.loads(line) for line in bytes(answer_response(answer, "ndjson", {}).body).splitlines()]

    assert text.splitlines() == [
        "device,channel,time,time_unix_ms,avg,count,unit",
        "pump-1,pressure,2026-11-22T19:33:20.123456789Z,1795376000123.456789,1.5,2,bar",
        "pump-1,note,2026-11-22T19:33:20.123456790Z,1795376000123.45679,,0,",
    ]
    assert [(line["channel"], line["avg"], line["count"]) for line in lines] == [
        ("pressure", 1.5, 2),
        ("note", None, 0),
    ]
