"""Metadata as a file that people edit: rows ↔ TOML or CSV.

Owns: both forms, and which row of a file is wrong. Place: after `description`; the command line reads and writes with
it. Pure. A field that a file leaves out, or an empty cell, is left as it is.

TOML: ``[device."greenhouse-1"]`` with the device's fields, ``[device."greenhouse-1".channel."temperature"]`` with the
channel's. CSV: one row for each device (its ``channel`` empty) and each channel; tags are separated by spaces, and
text that begins like a formula has a ``'`` in front (`hub.csv_cell`).
"""

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.csv_cell import as_meant, defused
from hub.description import CHANNEL_FIELDS, DEVICE_FIELDS, NUMBERS
from hub.errors import BadRequestError

COLUMNS = ("device", "channel", *dict.fromkeys([*DEVICE_FIELDS, *CHANNEL_FIELDS]))
# What a hub can hold at most (50,000 descriptions) fits; more is another file.
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class TableRow:
    """What a file says of a device, or of one channel of it.

    ``where``: the line or the table, for the report. ``error``: why it cannot be read; there are no fields then.
    """

    device: str
    channel: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    error: str | None = None


def write_toml(rows: Iterable[TableRow]) -> str:
    """Return rows as TOML."""
    out = ["# Metadata of a telemetry hub; `hub metadata import` reads it. What is left out stays as it is.\n"]
    for row in rows:
        if row.fields:
            name = f"device.{json.dumps(row.device)}"
            out.append(f"\n[{name}]\n" if row.channel is None else f"\n[{name}.channel.{json.dumps(row.channel)}]\n")
            # JSON's text, numbers and lists of them are TOML's.
            out += [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row.fields.items()]
    return "".join(out)


def write_csv(rows: Iterable[TableRow]) -> str:
    """Return rows as CSV with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    for row in rows:
        cells = {name: _cell(name, value) for name, value in row.fields.items()}
        if cells:
            writer.writerow({"device": row.device, "channel": row.channel or "", **cells})
    return text.getvalue()


def read_toml(text: str) -> list[TableRow]:
    """Return the rows of a TOML file, wrong ones with their error.

    Raises:
        BadRequestError: this is no TOML, or holds something else than ``device`` tables.
    """
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRequestError(f"no TOML: {error}") from error
    devices = found.pop("device", {})
    if found or not isinstance(devices, dict):
        raise BadRequestError(
            f"{', '.join(found)[:80] or 'device'}: use tables [device.NAME], [device.NAME.channel.NAME]"
        )
    return _bounded(row for name, table in devices.items() for row in _toml_rows(name, table))


def read_csv(text: str) -> list[TableRow]:
    """Return the rows of a CSV file, wrong ones with their error.

    Raises:
        BadRequestError: the header has no ``device``, or a column that is no field.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = reader.fieldnames or ()
        unknown = [name for name in header if name not in COLUMNS]
        if "device" not in header or unknown:
            raise BadRequestError(
                f"columns {', '.join(map(str, header))[:200]}: use device and some of {', '.join(COLUMNS)}"
            )
        return _bounded(_csv_row(cells, f"line {reader.line_num}") for cells in reader)
    except csv.Error as error:
        raise BadRequestError(f"line {reader.line_num}: no CSV: {error}") from error


def _bounded(rows: Iterator[TableRow]) -> list[TableRow]:
    out: list[TableRow] = []
    for row in rows:
        if len(out) >= MAX_ROWS:
            raise BadRequestError(f"more than {MAX_ROWS} rows: import them from several files")
        out.append(row)
    return out


def _toml_rows(device: str, table: object) -> Iterator[TableRow]:
    where = f"device.{device}"
    if not isinstance(table, dict):
        yield TableRow(device, None, where=where, error=f"use a table: [device.{device}]")
        return
    fields = {name: value for name, value in table.items() if name != "channel"}
    if fields:
        yield TableRow(device, None, fields, where)
    channels = table.get("channel", {})
    if not isinstance(channels, dict):
        yield TableRow(device, None, where=where, error=f"channel: use tables [device.{device}.channel.NAME]")
        return
    for name, found in channels.items():
        place = f"{where}.channel.{name}"
        if isinstance(found, dict):
            yield TableRow(device, name, found, place)
        else:
            yield TableRow(device, name, where=place, error=f"use a table: [{place}]")


def _csv_row(cells: Mapping[str | None, Any], where: str) -> TableRow:
    device, channel = cells.get("device") or "", cells.get("channel") or None
    if None in cells or any(value is None for value in cells.values()):
        return TableRow(device, channel, where=where, error="its number of cells is not that of the header")
    fields: dict[str, Any] = {}
    for name, text in cells.items():
        if name in ("device", "channel", None) or not text.strip():
            continue
        try:
            fields[str(name)] = parse_field(str(name), as_meant(text))
        except BadRequestError as error:
            return TableRow(device, channel, where=where, error=str(error))
    return TableRow(device, channel, fields, where)


def parse_field(name: str, text: str) -> Any:
    """Return a field's value from text: numbers as numbers, tags separated by commas or spaces.

    Raises:
        BadRequestError: no number where one must be.
    """
    if name == "tags":
        return text.replace(",", " ").split()
    if name not in NUMBERS:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise BadRequestError(f"{name}: {text[:40]!r} is no number") from error


def _cell(name: str, value: Any) -> str:
    if name in NUMBERS:
        return repr(value) if isinstance(value, float) else str(value)
    return defused(" ".join(value) if isinstance(value, list | tuple) else str(value))
