"""Parquet files of both layouts, batch by batch."""

from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hub.errors import BadRequestError
from hub.importing.parquet import BATCH_CELLS, BATCH_ROWS, parquet_items, read_parquet_header
from hub.importing.row import Blank, Item, Refused, Row
from hub.importing.table import ChannelColumn, Layout, Long, Wide, as_it_is
from simulators.local_time import parse_time

T0 = 1_700_000_000 * 10**9
LONG = Long(0, 1, 2, 3, None, as_it_is)


def read(path: Path, layout: Layout) -> list[Item]:
    """Return all of a file's items; a wall clock's time is what the test says."""
    told: list[int] = []
    with parquet_items(path, layout, lambda text: T0 + len(text), told.append) as items:
        found = list(items)
    assert told[-1] == read_parquet_header(path).rows
    return found


def write(path: Path, **columns: Any) -> Path:
    """Write a file."""
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_with_a_zone_are_exact(tmp_path: Path, unit: Any) -> None:
    """In each unit that the format has; a null value is a blank, a bad name costs its row."""
    times = pa.array([S_OF[unit]] * 3, pa.timestamp(unit, "Europe/Brussels"))
    path = write(
        tmp_path / "x.parquet", device=pa.array(["a", "b", "c d"]).dictionary_encode(), channel=["t"] * 3, time=times,
        value=[1.5, None, 2.5],
    )  # fmt: skip

    items = read(path, LONG)

    assert items[:2] == [Row(1, "a", "t", T0, 1.5), Blank(2)]
    assert isinstance(items[2], Refused)
    assert items[2].line == 3


S_OF = {"s": T0 // 10**9, "ms": T0 // 10**6, "us": T0 // 10**3, "ns": T0}


def test_exact_values_stand_beside_the_numbers(tmp_path: Path) -> None:
    """Where channels of several types are exported, the column of the type wins."""
    path = write(
        tmp_path / "x.parquet", device=["d"] * 4, channel=["c"] * 4, time=pa.array([T0] * 4, pa.timestamp("ns", "UTC")),
        value=pa.array([1.5, 2.0**60, None, None]), value_int=pa.array([None, 2**60 + 1, None, None]),
        value_bool=pa.array([None, None, True, None]), value_str=pa.array([None, None, None, "x"]),
    )  # fmt: skip

    assert [item.value for item in read(path, LONG) if isinstance(item, Row)] == [1.5, 2**60 + 1, True, "x"]


def test_wide_table_in_many_batches(tmp_path: Path) -> None:
    """A row is an instant, columns that hold no reading are not offered; times without a zone are text."""
    count = BATCH_ROWS + 5
    days = pa.array([19_723] * count, pa.int32()).cast(pa.date32())
    path = write(
        tmp_path / "x.parquet", when=days.cast(pa.timestamp("us")), a=list(range(count)), tags=[["x"]] * count,
        b=[True] * count,
    )  # fmt: skip
    layout = Wide(0, (ChannelColumn(1, "d", "a", None, as_it_is), ChannelColumn(2, "d", "b", None, as_it_is)))

    items = read(path, layout)

    assert read_parquet_header(path).names == ["when", "a", "b"]
    assert len(items) == 2 * count
    assert items[-2:] == [
        Row(count, "d", "a", T0 + len("2024-01-01T00:00:00.000000000"), count - 1),
        Row(count, "d", "b", T0 + len("2024-01-01T00:00:00.000000000"), True),
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_numbers_are_epoch_times_in_any_unit(tmp_path: Path, unit: str) -> None:
    """A column of integers is read as it is in CSV; only a column of times has its unit."""
    path = write(tmp_path / "x.parquet", time=[S_OF[unit]], a=[1.5])
    layout = Wide(0, (ChannelColumn(1, "d", "a", None, as_it_is),))

    with parquet_items(path, layout, lambda text: parse_time(text, None), lambda _: None) as items:
        assert list(items) == [Row(1, "d", "a", T0, 1.5)]


def test_decimals_are_numbers_and_dates_are_times(tmp_path: Path) -> None:
    """As they are in CSV; what cannot be read is named, not left out in silence."""
    path = write(
        tmp_path / "x.parquet", time=[date(2023, 11, 14)], a=[Decimal("20.50")], b=pa.array([b"x"]), c=[{"x": 1}],
        d=pa.array(["y"], pa.string_view()),
    )  # fmt: skip
    layout = Wide(0, tuple(ChannelColumn(at, "d", "c", None, as_it_is) for at in (1, 2)))

    items = read(path, layout)

    header = read_parquet_header(path)
    assert [(item.time_ns, item.value) for item in items if isinstance(item, Row)] == [
        (T0 + len("2023-11-14"), 20.5), (T0 + len("2023-11-14"), "y"),
    ]  # fmt: skip
    assert (header.names, header.left_out) == (["time", "a", "d"], ["b (binary)", "c (struct<x: int64>)"])


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them is meant nobody knows."""
    pq.write_table(pa.table([[T0], [1], [2]], names=["time", "a", "a"]), tmp_path / "x.parquet")

    with pytest.raises(BadRequestError, match="called a"):
        read_parquet_header(tmp_path / "x.parquet")


def test_damage_in_the_middle_says_where(tmp_path: Path) -> None:
    """The rows before it are read; the message names the file and the row."""
    path, count = tmp_path / "x.parquet", 5 * BATCH_ROWS
    table = pa.table({"time": [T0 + at for at in range(count)], "a": [f"text {at * 7919}" for at in range(count)]})
    pq.write_table(table, path, row_group_size=BATCH_ROWS, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    path.write_bytes(data)
    layout = Wide(0, (ChannelColumn(1, "d", "a", None, as_it_is),))
    found: list[Item] = []

    with (
        pytest.raises(BadRequestError, match=r"x\.parquet: damaged behind row 20000: "),
        parquet_items(path, layout, int, lambda _: None) as items,
    ):
        found.extend(items)

    assert len(found) == 2 * BATCH_ROWS


def test_batches_of_many_columns_have_fewer_rows(tmp_path: Path) -> None:
    """Cells are objects while they are read: their count is bounded, not that of rows."""
    count, columns = 1000, 1000
    path = write(tmp_path / "x.parquet", time=[T0] * count, **{f"c{at}": [1.5] * count for at in range(columns)})
    layout = Wide(0, (ChannelColumn(1, "d", "c0", None, as_it_is),))
    told: list[int] = []

    with parquet_items(path, layout, int, told.append) as items:
        found = list(items)

    assert len(found) == told[-1] == count
    assert max(b - a for a, b in pairwise([0, *told])) * columns <= BATCH_CELLS


def test_other_file_is_said(tmp_path: Path) -> None:
    """Not a traceback of a library."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")

    with pytest.raises(BadRequestError, match=r"x\.parquet"):
        read_parquet_header(tmp_path / "x.parquet")
