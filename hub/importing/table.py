"""Tables of history: rows of cells, from CSV files, as readings.

Owns: the layouts a table may have, and how text becomes a value. Place: after `lines`. Pure but for what it reads.

*Long*: each row is one reading, with columns for device, channel, time and value; what ``hub export`` writes is one.
*Wide*: each row is one instant, each further column a channel, of one device or of the device that a column names.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from device_sdk.reading import Value
from hub.importing.lines import Lines
from hub.importing.row import Item, Items, Refused, RowError, checked, quoted

ParseTime = Callable[[str], int]
# Of a CSV file: text. Parquet has values, and times in ns.
Cell = Value | None
ParseCell = Callable[[Any], Value | None]

# What `hub.gateway.export` writes; `received` may follow.
EXPORTED = ("device", "channel", "time", "time_unix_ms", "value", "unit")
_BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_INT = re.compile(r"0|-?[1-9][0-9]*")
# How far the texts of one row may go; a row with more has lost a quote, and each line would open the next one for ever.
_LINES_JOINED, _CHARS_JOINED = 1000, 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChannelColumn:
    """One column of a wide table; ``device`` None: of the device that the row names."""

    at: int
    device: str | None
    channel: str
    unit: str | None
    parse: ParseCell


@dataclass(frozen=True, slots=True)
class Wide:
    """One instant a row."""

    time_at: int
    columns: tuple[ChannelColumn, ...]
    device_at: int | None = None


@dataclass(frozen=True, slots=True)
class Long:
    """One reading a row; ``unit_at`` None: without a unit."""

    device_at: int
    channel_at: int
    time_at: int
    value_at: int
    unit_at: int | None
    parse: ParseCell


Layout = Wide | Long


def exported_layout(header: Sequence[str], delimiter: str = ",") -> Long | None:
    """Return the layout of a file that a hub has exported, None when it is another."""
    if tuple(header[: len(EXPORTED)]) != EXPORTED:
        return None
    return Long(0, 1, 2, 4, 5, exact_value if delimiter == "," else _saved_value)


def read_csv(lines: Lines, layout: Layout, parse_time: ParseTime, width: int, delimiter: str = ",") -> Items:
    """Yield what stands in a CSV file behind its header.

    Args:
        lines: behind the header already.
        parse_time: raises ValueError for what is no time.
        width: cells of the header; a row must have as many.
    """
    return read_cells(_records(lines, delimiter, width), layout, parse_time)


def read_cells(
    rows: Iterator[tuple[int, Sequence[Cell]] | Refused], layout: Layout, parse_time: Callable[[Any], int]
) -> Items:
    """Yield the readings of numbered rows."""
    for record in rows:
        if isinstance(record, Refused):
            yield record
        else:
            line, cells = record
            if isinstance(layout, Long):
                yield _long_item(line, cells, layout, parse_time)
            else:
                yield from _wide_items(line, cells, layout, parse_time)


def exact_value(text: str) -> Value | None:
    """Return the value that ``hub export`` wrote so: what no number or switch is written like is text."""
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and repr(number) == text else text


def plain_value(text: str) -> Value | None:
    """Return what a person would take a cell for: nothing, a number (a float), true or false, else text.

    Raises:
        RowError: a number with a comma: a thousand and five tenths are written alike, and a text is neither.
    """
    text = text.strip()
    _ask_about_comma(text)
    word = text.lower()
    if word in _BLANK:
        return None
    if word in ("true", "false"):
        return word == "true"
    try:
        # Python reads 1_000 as a number; a table that holds that means something else.
        return text if "_" in text else float(text)
    except ValueError:
        return text


def _saved_value(text: str) -> Value | None:
    """Return an exported value that a spreadsheet has saved again, perhaps in its own way."""
    _ask_about_comma(text)
    return exact_value(text)


def _ask_about_comma(text: str) -> None:
    if "," in text and _WITH_COMMA.fullmatch(text):
        raise RowError(f"{text[:40]!r} is a number with a comma: say --decimal-comma, or --map the column as text")


def comma_value(text: str) -> Value | None:
    """Return the same of a table whose numbers have a comma for the point."""
    return plain_value(with_point(text))


def with_point(text: str) -> str:
    """Return a number as Python writes it; what is no number with a comma stays as it is."""
    return text.replace(",", ".") if "," in text and _WITH_COMMA.fullmatch(text.strip()) else text


def _records(lines: Lines, delimiter: str, width: int) -> Iterator[tuple[int, Sequence[Cell]] | Refused]:
    """Yield the rows; one that cannot be right costs its first line only, also when a quote in it is never closed."""
    reader = csv.reader(_Joined(lines), delimiter=delimiter, strict=True)
    while True:
        lines.mark()
        first = lines.number + 1
        try:
            cells, why = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            cells, why = [], str(error)
        faults = lines.take_faults()
        span = len(lines.taken)
        if faults and span == 1:
            yield from faults
        elif cells and len(cells) == width and not faults:
            yield first, cells
        elif cells or why:
            text = lines.taken[0]
            lines.give_back(span - 1)
            yield Refused(first, why or f"{len(cells)} cells; the header has {width}", quoted(text))
            # Of lines that were given back: they are handed on as empty ones now.
            yield from faults


class _Joined:
    """Hands on the lines of one row, as many as one may have."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        count = len(self._lines.taken)
        if not count:
            self._chars = 0
        if count >= _LINES_JOINED or self._chars > _CHARS_JOINED:
            raise csv.Error(f"a row of more than {_LINES_JOINED} lines or {_CHARS_JOINED} characters: a quote is open")
        line = next(self._lines)
        self._chars += len(line)
        return line


def as_it_is(value: Value | None) -> Value | None:
    """Return a value that is one already."""
    return value


def _long_item(line: int, cells: Sequence[Cell], layout: Long, parse_time: Callable[[Any], int]) -> Item:
    try:
        unit = None if layout.unit_at is None else _text(cells[layout.unit_at])
        device, channel = _text(cells[layout.device_at]), _text(cells[layout.channel_at])
        return checked(
            line, device, channel, parse_time(cells[layout.time_at]), layout.parse(cells[layout.value_at]), unit
        )
    except ValueError as error:
        return Refused(line, str(error), _quoted_row(cells))


def _wide_items(line: int, cells: Sequence[Cell], layout: Wide, parse_time: Callable[[Any], int]) -> Items:
    try:
        time_ns = parse_time(cells[layout.time_at])
    except ValueError as error:
        yield Refused(line, str(error), _quoted_row(cells))
        return
    own = "" if layout.device_at is None else _text(cells[layout.device_at])
    for column in layout.columns:
        try:
            value = column.parse(cells[column.at])
            yield checked(line, column.device or own, column.channel, time_ns, value, column.unit)
        except RowError as error:
            yield Refused(line, f"{column.channel}: {error}", quoted(str(cells[column.at])))
        except ValueError as error:
            yield Refused(
                line, f"{column.channel}: a value that cannot be read: {error}", quoted(str(cells[column.at]))
            )


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell).strip()


def _quoted_row(cells: Sequence[Cell]) -> str:
    return quoted(",".join(map(_text, cells)))
