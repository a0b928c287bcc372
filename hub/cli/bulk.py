"""``hub devices import``: a fleet from a CSV file, with a report for each row.

Owns: the file's column ``device`` and the report. Place: a command of ``hub devices``. Other columns are passed over.

All rows are read and the report is opened before anything is enrolled: tokens are shown once, so there must be a place
for them. One request enrols up to 10,000 rows in one transaction.
"""

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode
from hub.csv_cell import defused

if TYPE_CHECKING:
    from hub.enrolment import Row

COLUMNS = ("row", "device", "result", "why", "token", "code")
# What one request may hold: the hub takes 10,000 names and 1 MiB; of a name, one character more than it may have is
# enough to be refused, and JSON may need six bytes for each.
CHUNK_ROWS, CHUNK_BYTES = 10_000, 900_000
_NAME_CHARS, _BYTES_A_CHAR = 65, 6
_BAD = ("bad_name", "duplicate", "forbidden")


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the file: its number as a spreadsheet shows it (the header is row 1), and the device's name."""

    number: int
    device: str


def import_devices(
    file: Annotated[Path, typer.Argument(help="CSV with a header and a column `device`.")],
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the report to this new file instead of printing it.")
    ] = None,
    claims: Annotated[bool, typer.Option("--claims", help="Make claim codes instead of tokens.")] = False,
    expires: Annotated[str, typer.Option("--expires", help="With --claims: how long the codes live.")] = "7d",
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Enrol the devices of a CSV file; the report has a row for each, with its token or claim code, shown only now.

    Devices that exist are left as they are. A name that is not valid or stands twice loses nothing else; then the exit
    code is 1.
    """
    lines = read_lines(file)
    claim_s = options.seconds(expires) if claims else None
    counts: Counter[str] = Counter()
    with _open_report(report) as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in _enrolled(lines, claim_s, url, token, ca, data):
            counts[row["result"]] += 1
            writer.writerow({**row, "device": defused(row["device"])})
    output.tell(", ".join(f"{count} {result}" for result, count in counts.items()) or "no rows")
    if any(counts[result] for result in _BAD):
        raise CliError("some rows were not enrolled; the report says why")


def read_lines(path: Path) -> list[Line]:
    """Return the rows of a CSV file that are not blank.

    Raises:
        CliError: it cannot be read, has no column ``device``, or a quote is never closed (nobody can say then which
            rows there are).
    """
    lines: list[Line] = []
    try:
        # A byte that is no UTF-8 makes a bad name, not a file that is refused.
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            if "device" not in header:
                raise CliError(f"{path} has no column `device`; its first line names: {', '.join(header)[:200]}")
            at = header.index("device")
            for number, cells in enumerate(rows, 2):
                if any(cells):
                    lines.append(Line(number, cells[at].strip() if at < len(cells) else ""))
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", ExitCode.NOT_FOUND) from error
    except csv.Error as error:
        last = lines[-1].number if lines else 1
        raise CliError(f"{path}: behind row {last}: {error}; mend it there. Nothing was enrolled") from error
    return lines


def chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names in parts that each fit one request."""
    begin = size = 0
    for at, name in enumerate(names):
        need = len(name) * _BYTES_A_CHAR
        if at - begin == CHUNK_ROWS or size + need > CHUNK_BYTES:
            yield names[begin:at]
            begin, size = at, 0
        size += need
    if begin < len(names):
        yield names[begin:]


def _enrolled(
    lines: Sequence[Line], claim_s: float | None, url: str, token: str | None, ca: Path | None, data: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield the report's row of each line; a name that stood further up is not sent."""
    first: dict[str, int] = {}
    for line in lines:
        first.setdefault(line.device, line.number)
    # One by one: what the hub has answered is in the report also when a later request fails.
    answers = _send(list(first), claim_s, url, token, ca) if data is None else _edit(list(first), claim_s, data)
    for line in lines:
        row: dict[str, Any] = {"row": line.number, "device": line.device}
        if first[line.device] == line.number:
            yield {**row, **next(answers)}
        else:
            yield {**row, "result": "duplicate", "why": f"the same name stands in row {first[line.device]}"}


def _send(
    names: Sequence[str], claim_s: float | None, url: str, token: str | None, ca: Path | None
) -> Iterator[dict[str, Any]]:
    client = options.open_client(url, token, ca)
    for part in chunks(names):
        body: dict[str, object] = {"devices": [name[:_NAME_CHARS] for name in part], "each": True}
        if claim_s is not None:
            body.update(claims=True, expires_s=claim_s)
        for row in client.post("/v1/devices/bulk", body)["rows"]:
            yield {key: row[key] for key in COLUMNS[2:]}


def _edit(names: Sequence[str], claim_s: float | None, data: Path) -> Iterator[dict[str, Any]]:
    with options.open_identities(data) as identities:
        rows: Iterable[Row] = identities.enrol_each(names, claim_s=claim_s)
    for row in rows:
        yield {"result": row.result.value, "why": row.why, "token": row.token, "code": row.code}


@contextmanager
def _open_report(path: Path | None) -> Iterator[TextIO]:
    """Give a new private file, durable when the block ends, or stdout."""
    if path is None:
        yield sys.stdout
        return
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError as error:
        raise CliError(f"--report {path} exists, and may hold tokens: choose another name", ExitCode.EXISTS) from error
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
