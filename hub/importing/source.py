"""A file of history → its readings, and the name of its import.

Owns: which reader reads which file, and the digest of a file and of how it is read. Place: after the readers, below the
command line, which says how times and the columns of a table are to be understood.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hub.errors import BadRequestError
from hub.importing.cutter import VERSION
from hub.importing.line_protocol import read_line_protocol
from hub.importing.lines import Lines
from hub.importing.naming import Template
from hub.importing.ndjson import read_ndjson
from hub.importing.parquet import parquet_items
from hub.importing.row import Items
from hub.importing.table import Layout, ParseTime, read_csv

ID_BYTES = 16
_HASHED_BYTES = 1024 * 1024
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Source:
    """An open file: what it holds, and how far that is read, of ``total``."""

    items: Items
    total: int
    position: Callable[[], int]


def import_id(path: Path, options: Mapping[str, object], tell: Callable[[int], None]) -> tuple[str, int]:
    """Return the name of an import and the bytes that it covers: the content and how it is read make the name.

    Args:
        options: what else decides which readings the file holds.
        tell: called with the bytes read so far.
    """
    digest = hashlib.blake2b(json.dumps([VERSION, options], sort_keys=True).encode(), digest_size=ID_BYTES)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_BYTES):
            digest.update(chunk)
            size += len(chunk)
            tell(size)
    return digest.hexdigest(), size


def has_changed(path: Path, before: os.stat_result) -> bool:
    """Say whether a file is another than it was; what was appended meanwhile is not read and changes nothing."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return True
    is_written = now.st_size == before.st_size and now.st_mtime_ns != before.st_mtime_ns
    return now.st_ino != before.st_ino or now.st_size < before.st_size or is_written


def read_header(path: Path, delimiter: str | None = None) -> tuple[list[str], str]:
    """Return the names of a CSV file's columns, and the delimiter: the one given, or what the header has most of.

    Raises:
        BadRequestError: there is no header, or none can be read; or the delimiter is none.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise BadRequestError(f"delimiter {delimiter!r}: it is one character, such as ';' or '|'")
    with path.open("rb") as file:
        lines = Lines(file, path.stat().st_size)
        first = next(lines, "")
    for fault in lines.take_faults():
        raise BadRequestError(f"{path}: line 1: {fault.reason}; it must name the columns, in UTF-8")
    if not first.strip():
        raise BadRequestError(f"{path}: its first line must hold the names of the columns")
    found = delimiter or max(_DELIMITERS, key=first.count)
    try:
        return [cell.strip() for cell in next(csv.reader([first], delimiter=found))], found
    except csv.Error as error:
        # As of a Macintosh, where lines end in CR alone.
        raise BadRequestError(f"{path}: line 1: {error}; lines must end in LF or CR LF") from error


@contextmanager
def open_csv(
    path: Path, size: int, layout: Layout, parse_time: ParseTime, header: Sequence[str], delimiter: str
) -> Iterator[Source]:
    """Open a CSV file of which the header is known."""
    with _open_lines(path, size) as lines:
        next(lines, None)
        items = read_csv(lines, layout, parse_time, len(header), delimiter)
        yield Source(items, size, lambda: lines.position)


@contextmanager
def open_ndjson(path: Path, size: int, parse_time: ParseTime) -> Iterator[Source]:
    """Open a file of JSON lines."""
    with _open_lines(path, size) as lines:
        yield Source(read_ndjson(lines, parse_time), size, lambda: lines.position)


@contextmanager
def open_line_protocol(path: Path, size: int, device: Template, channel: Template, precision: str) -> Iterator[Source]:
    """Open a file of line protocol."""
    with _open_lines(path, size) as lines:
        yield Source(read_line_protocol(lines, device, channel, precision), size, lambda: lines.position)


@contextmanager
def open_parquet(path: Path, rows: int, layout: Layout, parse_time: ParseTime) -> Iterator[Source]:
    """Open a Parquet file of which the header is known; its position counts rows."""
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done = count

    with parquet_items(path, layout, parse_time, tell) as items:
        yield Source(items, rows, lambda: done)


@contextmanager
def _open_lines(path: Path, size: int) -> Iterator[Lines]:
    file: BinaryIO
    with path.open("rb") as file:
        yield Lines(file, size)
