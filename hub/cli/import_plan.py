"""How a file of history is to be read: from its name, its header and the options of ``hub import``.

Owns: which options mean what for which format. Place: before `importing`. Times and maps of columns are those of
``hub simulate replay``.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    from hub.importing.source import Source
    from hub.importing.table import Layout, ParseCell, ParseTime

# In a file of readings one after the other, many stand at one time.
_TIMES_CACHED = 4096
_DEVICE_CHARS = 64


class FileFormat(StrEnum):
    """How a file is written."""

    CSV = "csv"
    NDJSON = "ndjson"
    LINE_PROTOCOL = "line-protocol"
    PARQUET = "parquet"


class Precision(StrEnum):
    """Of the times in line protocol."""

    NS = "ns"
    US = "us"
    MS = "ms"
    S = "s"


_SUFFIXES = {
    ".csv": FileFormat.CSV, ".tsv": FileFormat.CSV, ".ndjson": FileFormat.NDJSON, ".jsonl": FileFormat.NDJSON,
    ".lp": FileFormat.LINE_PROTOCOL, ".line": FileFormat.LINE_PROTOCOL, ".parquet": FileFormat.PARQUET,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """The options that decide which readings a file holds."""

    format: FileFormat | None = None
    device: str | None = None
    channel: str | None = None
    device_column: str | None = None
    time: str | None = None
    map: Path | None = None
    precision: Precision = Precision.NS
    tz: str | None = None
    delimiter: str | None = None
    decimal_comma: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What opens the file once its size is known, and all that decides which readings that gives.

    ``left_out``: columns that cannot be read.
    """

    open: "Callable[[int], AbstractContextManager[Source]]"
    said: dict[str, object]
    left_out: Sequence[str] = ()


def make_plan(file: Path, how: Reading) -> Plan:
    """Return how to read a file, of which at most the header is read now.

    Raises:
        CliError, BadRequestError: an option that does not fit the file; the message says which.
    """
    form = how.format or _SUFFIXES.get(file.suffix.lower())
    if form is None:
        raise CliError(f"{file}: say with --format how it is written: {', '.join(FileFormat)}", ExitCode.USAGE)
    plan = _PLANS[form](file, how)
    plan.said.update(format=form.value, tz=how.tz, decimal_comma=how.decimal_comma)
    return plan


def _csv_plan(file: Path, how: Reading) -> Plan:
    from hub.importing.source import open_csv, read_header
    from hub.importing.table import exported_layout

    given = "\t" if how.delimiter is None and file.suffix.lower() == ".tsv" else how.delimiter
    header, delimiter = read_header(file, given)
    layout: Layout | None = None if how.decimal_comma else exported_layout(header, delimiter)
    told: object = "export"
    if layout is None:
        layout, told = _layout(file, how, header, is_text=True)
    parse_time = _time_parser(how.tz)
    return Plan(
        lambda size: open_csv(file, size, layout, parse_time, header, delimiter), {"delimiter": delimiter, "as": told}
    )


def _ndjson_plan(file: Path, how: Reading) -> Plan:
    from hub.importing.source import open_ndjson

    parse_time = _time_parser(how.tz)
    return Plan(lambda size: open_ndjson(file, size, parse_time), {})


def _line_protocol_plan(file: Path, how: Reading) -> Plan:
    from hub.importing.naming import Template
    from hub.importing.source import open_line_protocol

    devices = (how.device,) if how.device else ("{device}", "{host}")
    channel = how.channel or "{measurement}.{field}"
    templates = Template(*devices), Template(channel)
    return Plan(
        lambda size: open_line_protocol(file, size, *templates, how.precision.value),
        {"device": devices, "channel": channel, "precision": how.precision.value},
    )


def _parquet_plan(file: Path, how: Reading) -> Plan:
    from hub.importing.parquet import read_parquet_header
    from hub.importing.source import open_parquet

    header = read_parquet_header(file)
    layout, told = _layout(file, how, header.names, is_text=False)
    parse_time = _time_parser(how.tz)
    return Plan(lambda _: open_parquet(file, header.rows, layout, parse_time), {"as": told}, header.left_out)


def _layout(file: Path, how: Reading, header: list[str], *, is_text: bool) -> "tuple[Layout, object]":
    """Return the layout of a table, and what tells it from any other; ``is_text``: its cells are."""
    from hub.importing.table import Long, as_it_is, comma_value, plain_value
    from simulators.csv_map import MapError

    at = header.index
    parse = as_it_is if not is_text else comma_value if how.decimal_comma else plain_value
    try:
        if how.map is not None:
            return _mapped_layout(header, how.map, is_text=is_text, has_comma=how.decimal_comma)
        if {"device", "channel", "time", "value"} <= set(header):
            unit_at = at("unit") if "unit" in header else None
            return Long(at("device"), at("channel"), at("time"), at("value"), unit_at, parse), "long"
        return _guessed_layout(file, how, header, parse)
    except MapError as error:
        raise CliError(f"{file}: {error}", ExitCode.USAGE) from error


def _mapped_layout(header: list[str], path: Path, *, is_text: bool, has_comma: bool) -> "tuple[Layout, object]":
    from hub.importing.table import ChannelColumn, ParseCell, Wide, as_it_is, with_point
    from simulators.csv_map import ColumnType, load_map, parse_value

    def parser(type_: ColumnType) -> ParseCell:
        if not is_text:
            return as_it_is
        if has_comma and type_ == "float":
            return lambda text: parse_value(with_point(text), type_)
        return partial(parse_value, type_=type_)

    mapped = load_map(path, header)
    columns = tuple(
        ChannelColumn(header.index(c.name), c.device, c.channel, c.unit, parser(c.type)) for c in mapped.columns
    )
    return Wide(header.index(mapped.time), columns), [str(mapped), header]


def _guessed_layout(file: Path, how: Reading, header: list[str], parse: "ParseCell") -> "tuple[Layout, object]":
    from hub.importing.table import ChannelColumn, Wide
    from simulators.csv_map import MapError, guess_map, slug

    guessed = guess_map(header, how.device or slug(file.stem)[:_DEVICE_CHARS], how.time)
    of_row = how.device_column
    if of_row is not None and of_row not in header:
        raise MapError(f"the file has no column {of_row!r}; it has: {', '.join(header)}")
    # Of a file with 100,000 columns too; of two with one name the first.
    at = {name: place for place, name in reversed(list(enumerate(header)))}
    columns = tuple(
        ChannelColumn(at[c.name], c.device if of_row is None else None, c.channel, None, parse)
        for c in guessed.columns
        if c.name != of_row
    )
    device_at = None if of_row is None else header.index(of_row)
    return Wide(header.index(guessed.time), columns, device_at), [str(guessed), of_row]


def _time_parser(tz: str | None) -> "ParseTime":
    from simulators.local_time import TimeError, parse_time, parse_zone

    try:
        zone = parse_zone(tz) if tz else None
    except TimeError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    return lru_cache(_TIMES_CACHED)(lambda text: parse_time(text, zone))


_PLANS: dict[FileFormat, Callable[[Path, Reading], Plan]] = {
    FileFormat.CSV: _csv_plan,
    FileFormat.NDJSON: _ndjson_plan,
    FileFormat.LINE_PROTOCOL: _line_protocol_plan,
    FileFormat.PARQUET: _parquet_plan,
}
