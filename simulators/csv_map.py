"""What the columns of a CSV mean: options or a MAP.toml → devices, channels, units.

Owns: the map's format and its checks. Place: before `replay`. Pure but for
reading the map's file.

    time = "date"
    [[column]]
    name = "T1"              # header of the column
    device = "kitchen"
    channel = "temperature"
    unit = "Cel"             # optional
    type = "float"           # optional: float, int, bool, str
"""

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from device_sdk.reading import Value, is_channel_name, is_device_name

ColumnType = Literal["float", "int", "bool", "str"]

TIME_HEADERS = ("time", "timestamp", "date", "datetime", "ts", "time_unix_ms")
_TRUE, _FALSE = frozenset({"true", "t", "yes", "on", "1"}), frozenset({"false", "f", "no", "off", "0"})
_BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
_KEYS = frozenset({"name", "device", "channel", "unit", "type"})


class MapError(ValueError):
    """The map does not fit itself or the file: the message names the entry and what it may be."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """One column of the file that holds readings."""

    name: str
    device: str
    channel: str
    unit: str | None = None
    type: ColumnType = "float"


@dataclass(frozen=True, slots=True)
class CsvMap:
    """The time column and the columns that hold readings; all others are left out."""

    time: str
    columns: tuple[ColumnMap, ...]

    @property
    def devices(self) -> list[str]:
        """Return the devices' names in the order they first appear."""
        return list(dict.fromkeys(column.device for column in self.columns))


def load_map(path: Path, header: Sequence[str]) -> CsvMap:
    """Return the map in a TOML file, checked against the file's header.

    Raises:
        MapError: not TOML, an unknown key, a bad name, a column that the file does not have.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MapError(f"{path}: {error}") from error
    unknown = set(table) - {"time", "column"}
    if unknown:
        raise MapError(f"{path}: {', '.join(sorted(unknown))}: not known; use time and [[column]]")
    entries = table.get("column")
    if not isinstance(entries, list) or not entries:
        raise MapError(f"{path}: no [[column]]; each needs name, device and channel")
    columns = tuple(_column(path, number, entry) for number, entry in enumerate(entries, 1))
    time = table.get("time") or _time_header(header)
    return check_map(CsvMap(str(time), columns), header)


def guess_map(header: Sequence[str], device: str, time: str | None = None) -> CsvMap:
    """Return a map that makes every other column a channel of one device.

    Raises:
        MapError: the file has no column of the time.
    """
    time = time or _time_header(header)
    columns = tuple(ColumnMap(name, device, slug(name)) for name in header if name != time)
    return check_map(CsvMap(time, columns), header)


def check_map(csv_map: CsvMap, header: Sequence[str]) -> CsvMap:
    """Return the map; raise `MapError` when names are bad, doubled, or not in the file."""
    names = frozenset(header)
    for name in [csv_map.time, *(column.name for column in csv_map.columns)]:
        if name not in names:
            raise MapError(f"the file has no column {name!r}; it has: {', '.join(header)}")
    seen: set[tuple[str, str]] = set()
    for column in csv_map.columns:
        if not is_device_name(column.device):
            raise MapError(f"column {column.name!r}: {column.device!r} is no device name (letters, digits, _ . -)")
        if not is_channel_name(column.channel):
            raise MapError(f"column {column.name!r}: {column.channel!r} is no channel name (letters, digits, _ . -)")
        if (column.device, column.channel) in seen:
            raise MapError(f"{column.device}/{column.channel} is mapped twice; two columns cannot be one channel")
        seen.add((column.device, column.channel))
    return csv_map


def parse_value(text: str, type_: ColumnType) -> Value | None:
    """Return the value, or None for a blank; padding is trimmed.

    Raises:
        ValueError: the text is no value of that type.
    """
    text = text.strip()
    if text.lower() in _BLANK:
        return None
    if type_ == "str":
        return text
    if type_ in ("float", "int"):
        return _number(text, type_)
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def slug(name: str) -> str:
    """Return a valid channel name made of ``name``: runs of other characters become ``-``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.")[:128] or "value"


def _number(text: str, type_: ColumnType) -> float | int:
    # Python also reads 1_000, inf and nan as numbers; a data file that holds those means something else.
    if "_" in text or (type_ == "float" and not math.isfinite(float(text))):
        raise ValueError(f"{text!r} is no number")
    return float(text) if type_ == "float" else int(text)


def _column(path: Path, number: int, entry: object) -> ColumnMap:
    where = f"{path}: [[column]] number {number}"
    if not isinstance(entry, dict) or not {"name", "device", "channel"} <= set(entry):
        raise MapError(f"{where} needs name, device and channel")
    if unknown := set(entry) - _KEYS:
        raise MapError(f"{where}: {', '.join(sorted(unknown))}: not known; use {', '.join(sorted(_KEYS))}")
    type_ = entry.get("type", "float")
    if type_ not in get_args(ColumnType):
        raise MapError(f"{where}: type {type_!r}; use {', '.join(get_args(ColumnType))}")
    unit = entry.get("unit")
    return ColumnMap(
        str(entry["name"]), str(entry["device"]), str(entry["channel"]),
        None if unit is None else str(unit), cast("ColumnType", type_),
    )  # fmt: skip


def _time_header(header: Sequence[str]) -> str:
    for wanted in TIME_HEADERS:
        for name in header:
            if name.strip().lower() == wanted:
                return name
    raise MapError(f"which column is the time? Say --time COLUMN; the file has: {', '.join(header)}")
