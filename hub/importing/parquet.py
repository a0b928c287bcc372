"""Parquet files of history, batch by batch.

Owns: how their columns become cells of `table`. Place: after `table`. A door to ``pyarrow``, an extra of the hub:
imported when such a file is read, and not before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub.errors import BadRequestError
from hub.importing.row import Items
from hub.importing.table import Cell, Layout, read_cells

# Cells of a batch: as Python objects 20 MB. Of few columns no more rows than that: it is fast enough.
BATCH_CELLS = 300_000
BATCH_ROWS = 10_000
# Where channels of several types are exported, the exact values stand beside the number.
_EXACT = ("value_int", "value_bool", "value_str")
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True, slots=True)
class ParquetHeader:
    """What is known of a file before its rows: the columns that can be read, those that cannot, the count of rows."""

    names: list[str]
    left_out: list[str]
    rows: int


def read_parquet_header(path: Path) -> ParquetHeader:
    """Return which columns hold numbers, switches, texts or times.

    Raises:
        BadRequestError: it is no Parquet file, two columns have one name, or pyarrow is not installed.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
        names = _readable(schema)
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise BadRequestError(f"{path}: several columns are called {', '.join(twice)}")
        left_out = [f"{field.name} ({field.type})" for field in schema if not _is_readable(field.type)]
        return ParquetHeader(names, left_out, file.metadata.num_rows)


@contextmanager
def parquet_items(
    path: Path, layout: Layout, parse_time: Callable[[str], int], tell: Callable[[int], None]
) -> Iterator[Items]:
    """Give the items of a file; a row's line is its number, from 1.

    Args:
        layout: places count the columns of `read_parquet_header`.
        parse_time: for times that are text or a number, or have no zone.
        tell: called with the rows read so far.

    Raises (while they are read):
        BadRequestError: the file is damaged from a row on.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
        has_instants = _is_instant(schema.field(_readable(schema)[layout.time_at]).type)
        yield read_cells(
            _cells(path, file, tell), layout,
            lambda cell: cell if has_instants and isinstance(cell, int) else parse_time(str(cell)),
        )  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadRequestError("reading Parquet needs pyarrow: install telemetry-hub[arrow]") from error
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise BadRequestError(f"{path}: {error}") from error


def _readable(schema: Any) -> list[str]:
    return [field.name for field in schema if _is_readable(field.type)]


def _is_readable(of: Any) -> bool:
    from pyarrow import types

    of = _plain(of)
    checks = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_string,
              types.is_large_string, types.is_string_view, types.is_timestamp, types.is_date)  # fmt: skip
    return any(check(of) for check in checks)


def _is_instant(of: Any) -> bool:
    """Say whether it is a time with a zone, which says what no person needs to."""
    from pyarrow import types

    of = _plain(of)
    return types.is_timestamp(of) and of.tz is not None


def _plain(of: Any) -> Any:
    from pyarrow import types

    return of.value_type if types.is_dictionary(of) else of


def _cells(path: Path, file: Any, tell: Callable[[int], None]) -> Iterator[tuple[int, Sequence[Cell]]]:
    names = _readable(file.schema_arrow)
    number = 0
    for batch in _batches(path, file, names):
        columns = [_values(batch.column(batch.schema.get_field_index(name))) for name in names]
        if "value" in names:
            exact = [columns[names.index(name)] for name in _EXACT if name in names]
            at = names.index("value")
            for beside in exact:
                columns[at] = [v if b is None else b for v, b in zip(columns[at], beside, strict=True)]
        for cells in zip(*columns, strict=True):
            number += 1
            yield number, cells
        tell(number)


def _batches(path: Path, file: Any, names: list[str]) -> Iterator[Any]:
    rows, most = 0, min(BATCH_ROWS, max(1, BATCH_CELLS // max(1, len(names))))
    try:
        for batch in file.iter_batches(most, columns=names):
            rows += batch.num_rows
            yield batch
    except OSError as error:
        raise BadRequestError(
            f"{path}: damaged behind row {rows}: {error}; write the rows before it to another file, and import that"
        ) from error


def _values(column: Any) -> list[Any]:
    """Return a column's cells; times as ns where the zone is known, else as the text that a wall clock shows."""
    from pyarrow import int64, types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        written = float if types.is_decimal(column.type) else str if types.is_date(column.type) else None
        return values if written is None else [None if value is None else written(value) for value in values]
    factor = _UNIT_NS[column.type.unit]
    times = [None if time is None else time * factor for time in column.cast(int64()).to_pylist()]
    return times if column.type.tz is not None else [None if time is None else _wall_clock(time) for time in times]


def _wall_clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return f"{text}.{rest:09d}"
