"""`hub.gateway.arrow`: columns have types, every bit comes back, memory is bounded."""

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet

from device_sdk.reading import Value, ValueType
from hub.description import ChannelDescription
from hub.errors import UnavailableError
from hub.gateway.arrow import answer_file, reading_chunks
from hub.model import Series
from hub.query import Answer
from hub.store.base import Row
from tests.support.hub_process import ROOT

T0 = 1_795_376_000_123_456_789
FLOAT = Series(1, "default", "pump-1", "pressure", ValueType.FLOAT, "bar")
INT = Series(2, "default", "pump-1", "count", ValueType.INT)
BOOL = Series(3, "default", "pump-2", "door", ValueType.BOOL)
STR = Series(4, "default", "pump-2", "note", ValueType.STR)
READERS: dict[str, Callable[[bytes], Any]] = {
    "arrow": lambda data: ipc.open_stream(data).read_all(),
    "parquet": lambda data: parquet.read_table(io.BytesIO(data)),
}
forms = pytest.mark.parametrize("form", list(READERS))


def table(form: str, series: list[Series], *pages: list[Row], **options: Any) -> Any:
    """The file, read back by the library."""
    return READERS[form](b"".join(reading_chunks(series, pages, form, **options)))


def rows_of(series: Series, *values: Value) -> list[Row]:
    """One reading a nanosecond."""
    return [Row(series.id, T0 + at, value) for at, value in enumerate(values)]


@forms
@pytest.mark.parametrize(
    ("series", "values", "kind"),
    [
        pytest.param(FLOAT, [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308], "double", id="float"),
        pytest.param(INT, [2**53 + 1, -(2**63), 2**63 - 1, 0], "int64", id="int"),
        pytest.param(BOOL, [True, False], "bool", id="bool"),
        pytest.param(STR, ["", "läuft", "a\x00b"], "string", id="str"),
    ],
)
def test_one_type_is_one_column_and_every_bit(form: str, series: Series, values: list[Value], kind: str) -> None:
    """Values and times come back bit by bit, names and unit with them; the column has the channel's type."""
    found = table(form, [series], rows_of(series, *values))

    assert found.column_names == ["device", "channel", "unit", "time", "value"]
    assert str(found.schema.field("value").type) == kind
    assert str(found.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert [repr(value) for value in found["value"].to_pylist()] == [repr(value) for value in values]
    assert found["time"].cast(pyarrow.int64()).to_pylist() == [T0 + at for at in range(len(values))]
    assert {str(found.schema.field(name).type)[:10] for name in ("device", "channel", "unit")} == {"dictionary"}
    assert found["device"].to_pylist() == [series.device] * len(values)
    assert found["channel"].to_pylist() == [series.channel] * len(values)
    assert found["unit"].to_pylist() == [series.unit] * len(values)


@forms
def test_several_types_stand_in_columns_of_their_own(form: str) -> None:
    """`value` is the number as a float, or null; what is of another type stands exactly in its column."""
    page = [Row(1, T0, -0.0), Row(2, T0, 2**53 + 1), Row(3, T0, True), Row(4, T0, "1")]

    found = table(form, [FLOAT, INT, BOOL, STR], page)

    assert found.column_names[4:] == ["value", "value_int", "value_bool", "value_str"]
    assert found["value"].to_pylist() == [-0.0, float(2**53), None, None]
    assert math.copysign(1, found["value"][0].as_py()) == -1
    assert found["value_int"].to_pylist() == [None, 2**53 + 1, None, None]
    assert found["value_bool"].to_pylist() == [None, None, True, None]
    assert found["value_str"].to_pylist() == [None, None, None, "1"]


@forms
def test_a_channel_that_widened_is_float(form: str) -> None:
    """Integers of a float channel are floats, also those that no float is equal to."""
    found = table(form, [FLOAT], rows_of(FLOAT, 2, 2**53 + 1, 0.5))

    assert found["value"].to_pylist() == [2.0, float(2**53), 0.5]


@forms
@pytest.mark.parametrize(
    ("series", "values"),
    [
        pytest.param([INT], [1, 1.5], id="widened"),
        pytest.param([INT, Series(1, "default", "pump-1", "new")], [1, "first"], id="first-text"),
        pytest.param([Series(1, "default", "pump-1", "new")], ["first"], id="no-type"),
    ],
)
def test_what_no_column_holds_ends_the_file(form: str, series: list[Series], values: list[Value]) -> None:
    """A channel may get another type while a file is written: no value is cut to fit, and none is left out."""
    pages = [rows_of(series[-1], value) for value in values]

    with pytest.raises(UnavailableError, match="export again"):
        table(form, series, *pages)


@forms
def test_a_scaled_integer_is_float_and_as_stored_it_is_not(form: str) -> None:
    """The column's type is that of the values shown, or with `raw` of those stored."""
    scaled = Series(2, "default", "pump-1", "count", ValueType.INT, described=ChannelDescription(scale=0.1))

    shown, stored = table(form, [scaled], rows_of(scaled, 0.5)), table(form, [scaled], rows_of(scaled, 5), raw=True)

    assert (str(shown["value"].type), str(stored["value"].type)) == ("double", "int64")


@forms
def test_receive_times_and_no_rows(form: str) -> None:
    """`received` is a column of its own, null where it is not known; a file without rows has all columns."""
    known = table(form, [FLOAT], [Row(1, T0, 1.5, T0 + 5), Row(1, T0 + 1, 2.5)], received=True)
    empty = table(form, [FLOAT])

    assert known["received"].cast(pyarrow.int64()).to_pylist() == [T0 + 5, None]
    assert (empty.num_rows, empty.column_names) == (0, ["device", "channel", "unit", "time", "value"])


@forms
def test_pages_are_written_as_they_come(form: str) -> None:
    """A piece leaves with its page, or with its row group; what Arrow holds does not grow with the file."""
    taken, held = 0, []

    def pages() -> Iterator[list[Row]]:
        nonlocal taken
        for page in range(40):
            taken += 1
            yield [Row(1, T0 + page * 500 + at, float(at)) for at in range(500)]

    before = pyarrow.total_allocated_bytes()
    pieces = []
    for piece in reading_chunks([FLOAT], pages(), form, group_rows=1000):
        pieces.append((taken, len(piece)))
        held.append(pyarrow.total_allocated_bytes() - before)

    step = 1 if form == "arrow" else 2
    assert [at for at, _ in pieces[:-1]] == list(range(step, 41, step))
    assert max(held[10:]) <= 1.5 * max(held[:10])


def test_parquet_has_row_groups_of_a_bounded_size() -> None:
    """Pages are joined up to the size of a group, so that a long file has few."""
    pages = [[Row(1, T0 + page * 10 + at, 1.5) for at in range(10)] for page in range(10)]

    data = b"".join(reading_chunks([FLOAT], pages, "parquet", group_rows=40))
    file = parquet.ParquetFile(io.BytesIO(data))

    assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == [40, 40, 20]


@forms
def test_buckets_have_a_column_for_each_aggregate(form: str) -> None:
    """Integers stay integers, a mean is float, what is missing is null."""
    rows: list[tuple[Value | None, ...]] = [(T0, 0, 1.5, 2**53 + 1, 2), (T0 + 10, 1, None, 7, 0)]
    found = READERS[form](answer_file(Answer([FLOAT, INT], ("time_ns", "series", "avg", "max", "count"), rows), form))

    assert found.column_names == ["device", "channel", "unit", "time", "avg", "max", "count"]
    assert [str(found[name].type) for name in ("avg", "max", "count")] == ["double", "int64", "int64"]
    assert found["avg"].to_pylist() == [1.5, None]
    assert found["max"].to_pylist() == [2**53 + 1, 7]
    assert found["channel"].to_pylist() == ["pressure", "count"]
    assert found["time"].cast(pyarrow.int64()).to_pylist() == [T0, T0 + 10]


@pytest.mark.slow
@forms
def test_a_bucket_that_begins_before_time_does(form: str) -> None:
    """Its start is the first that 64 bits hold."""
    answer = Answer([FLOAT], ("time_ns", "series", "count"), [(-(2**63) - 1, 0, 0), (0, 0, 0)])

    found = READERS[form](answer_file(answer, form))

    assert found["time"].cast(pyarrow.int64()).to_pylist() == [-(2**63), 0]


def test_without_pyarrow_the_error_names_the_extra() -> None:
    """A hub without the extra says what to install; nothing of the gateway needs pyarrow. (Another interpreter.)"""
    program = """
import sys
sys.modules["pyarrow"] = None
import hub.gateway.http
from hub.errors import BadRequestError
from hub.gateway.export import export_chunks
import json
print(json.dumps([c.decode() for c in export_chunks([], [], "csv")]))
try:
    export_chunks([], [], "parquet")
except BadRequestError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    header, message = done.stdout.splitlines()
    assert json.loads(header) == ["device,channel,time,time_unix_ms,value,unit\r\n"]
    assert "telemetry-hub[arrow]" in message
