"""How results are shown: a table on a terminal, plain columns elsewhere, JSON when asked.

Owns: the look of every listing. Place: before the commands.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def show_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str = "nothing"
) -> None:
    """Show a listing; in JSON every row keeps all its keys, in a table only ``columns``."""
    if as_json:
        show_json(list(rows))
    elif not rows:
        sys.stderr.write(f"{empty}\n")
    else:
        _show_table([[show_value(row.get(column)) for column in columns] for row in rows], columns)


def show_json(value: object) -> None:
    """Write one JSON document and a line end."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")


def show_value(value: object) -> str:
    """Return a cell's text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return " ".join(map(show_value, value))
    return str(value)


def show_time(time_ns: int | str | None) -> str:
    """Return a time for people: UTC to the millisecond; empty for none."""
    if time_ns is None:
        return ""
    seconds, rest = divmod(int(time_ns), 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{rest // 10**6:03d}Z" if rest else f"{text}Z"


def printable(text: str) -> str:
    """Return text of a peer so that no terminal interprets it: what is not printable as ``\\x1b``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def tell(text: str) -> None:
    """Say something beside the result: on stderr, so stdout can be piped."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _show_table(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "))
        for row in cells:
            table.add_row(*row)
        Console().print(table, markup=False)
        return
    widths = [max(len(column), *(len(row[at]) for row in cells)) for at, column in enumerate(columns)]
    for row in [list(columns), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
