"""`Rows` as data frames: the same shape in each library, and every bit."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas
import pyarrow
import pytest

from device_sdk.reading import Value
from device_sdk.rows import Rows

T0 = 1_795_376_000_123_456_789
S = 10**9
HEAD = ("device", "channel", "unit", "time_ns")
READINGS = Rows(
    (*HEAD, "value"),
    [
        ("pump-1", "pressure", "bar", T0, -0.0), ("pump-2", "pressure", None, T0, 2.5),
        ("pump-1", "pressure", "bar", T0 + 1, 0.1 + 0.2),
    ],
)  # fmt: skip
BUCKETS = Rows(
    (*HEAD, "mean", "count"),
    [
        ("pump-1", "pressure", "bar", T0, 1.5, 2), ("pump-1", "pressure", "bar", T0 + S, None, 0),
        ("pump-2", "pressure", None, T0 + S, 3.0, 2**53 + 1),
    ],
)  # fmt: skip
# As lists: (column names, column → values, times as integers).
Shape = tuple[list[str], Callable[[str], list[Any]], list[int]]


def of_polars(rows: Rows, **options: bool) -> Shape:
    """A polars frame, taken apart."""
    frame = rows.to_polars(**options)
    assert str(frame.schema["time"]) == "Datetime(time_unit='ns', time_zone='UTC')"
    return frame.columns, lambda name: frame[name].to_list(), frame["time"].to_physical().to_list()


def of_pandas(rows: Rows, **options: bool) -> Shape:
    """A pandas frame, taken apart; its nulls as None."""
    frame = rows.to_pandas(**options)
    frame = frame.reset_index() if options.get("wide") else frame
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"

    def values(name: str) -> list[Any]:
        return [None if pandas.isna(value) else value for value in frame[name].tolist()]

    return list(frame.columns), values, frame["time"].astype("int64").tolist()


def of_arrow(rows: Rows, **options: bool) -> Shape:
    """An Arrow table, taken apart."""
    table = rows.to_arrow(**options)
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    return table.column_names, lambda name: table[name].to_pylist(), table["time"].cast(pyarrow.int64()).to_pylist()


libraries = pytest.mark.parametrize("of", [of_polars, of_pandas, of_arrow], ids=["polars", "pandas", "arrow"])


@libraries
def test_long_is_a_line_for_each_row(of: Callable[..., Shape]) -> None:
    """Names, unit, time in UTC to the nanosecond, value: in the order of the answer, bit by bit."""
    names, values, times = of(READINGS)

    assert names == ["device", "channel", "unit", "time", "value"]
    assert times == [T0, T0, T0 + 1]
    assert values("device") == ["pump-1", "pump-2", "pump-1"]
    assert values("unit") == ["bar", None, "bar"]
    assert values("value") == [0.0, 2.5, 0.1 + 0.2]
    assert math.copysign(1, values("value")[0]) == -1


@libraries
def test_aggregates_have_a_column_each(of: Callable[..., Shape]) -> None:
    """A filled bucket is null; counts stay integers."""
    names, values, times = of(BUCKETS)

    assert names == ["device", "channel", "unit", "time", "mean", "count"]
    assert times == [T0, T0 + S, T0 + S]
    assert values("mean") == [1.5, None, 3.0]
    assert values("count") == [2, 0, 2**53 + 1]


@libraries
@pytest.mark.parametrize(
    "values",
    [[2**53 + 1, -(2**63), 2**63 - 1], [True, False], ["", "läuft", "1"], [2**53 + 1, None]],
    ids=["int", "bool", "str", "int with a gap"],
)
def test_one_type_is_kept(of: Callable[..., Shape], values: list[Value | None]) -> None:
    """Integers beyond 2**53, booleans and text come as they are."""
    rows = Rows((*HEAD, "value"), [("d", "x", None, T0 + at, value) for at, value in enumerate(values)])

    _, found, _ = of(rows)

    assert [(type(v).__name__.removesuffix("_"), v) for v in found("value")] == [(type(v).__name__, v) for v in values]


@libraries
def test_several_types_stand_in_columns_of_their_own(of: Callable[..., Shape]) -> None:
    """`value` is the number as a float, or null; the other columns hold the exact value of their type."""
    kinds: list[Value] = [1.5, 2**53 + 1, True, "1"]
    rows = Rows((*HEAD, "value"), [("d", f"x{at}", None, T0, value) for at, value in enumerate(kinds)])

    names, values, _ = of(rows)

    assert names[4:] == ["value", "value_int", "value_bool", "value_str"]
    assert values("value") == [1.5, float(2**53), None, None]
    assert values("value_int") == [None, 2**53 + 1, None, None]
    assert values("value_bool") == [None, None, True, None]
    assert values("value_str") == [None, None, None, "1"]


@libraries
def test_wide_has_a_column_for_each_series(of: Callable[..., Shape]) -> None:
    """One line for each time, ascending; where a series has no reading is a null. Also newest first."""
    for rows in (READINGS, Rows(READINGS.columns, READINGS.rows[::-1])):
        names, values, times = of(rows, wide=True)

        assert sorted(names) == ["pump-1/pressure", "pump-2/pressure", "time"]
        assert times == [T0, T0 + 1]
        assert values("pump-1/pressure") == [0.0, 0.1 + 0.2]
        assert values("pump-2/pressure") == [2.5, None]


@libraries
def test_wide_buckets_have_a_column_for_each_aggregate(of: Callable[..., Shape]) -> None:
    """The aggregate is named where there are several."""
    names, values, _ = of(BUCKETS, wide=True)
    single = of(Rows(BUCKETS.columns[:5], [row[:5] for row in BUCKETS.rows]), wide=True)

    assert names[1:] == [
        "pump-1/pressure:mean",
        "pump-1/pressure:count",
        "pump-2/pressure:mean",
        "pump-2/pressure:count",
    ]
    assert values("pump-2/pressure:count") == [None, 2**53 + 1]
    assert single[0] == ["time", "pump-1/pressure", "pump-2/pressure"]


@libraries
def test_no_rows_is_a_frame_without_lines(of: Callable[..., Shape]) -> None:
    """The columns are there, so what comes after need not ask."""
    assert of(Rows(READINGS.columns, []))[0] == ["device", "channel", "unit", "time", "value"]
    assert of(Rows(READINGS.columns, []), wide=True)[0] == ["time"]


@pytest.mark.slow
def test_nothing_is_loaded_and_what_is_missing_is_named() -> None:
    """The SDK needs no frame library; the error says what to install. (Another interpreter.)"""
    program = """
import sys
from device_sdk.client import Rows
names = ("polars", "pandas", "pyarrow", "numpy")
assert not [name for name in names if name in sys.modules]
from device_sdk import MisuseError
sys.modules.update(dict.fromkeys(names))
rows = Rows(("device", "channel", "unit", "time_ns", "value"), [])
for ask in (rows.to_polars, rows.to_pandas, rows.to_arrow):
    try:
        ask()
    except MisuseError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == [
        "to_polars needs polars: pip install polars",
        "to_pandas needs pandas: pip install pandas",
        "to_arrow needs pyarrow: pip install pyarrow",
    ]
