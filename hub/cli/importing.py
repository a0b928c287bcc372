"""``hub import``: history from files into a hub, each reading once, however often and wherever it is killed.

Owns: the command, its options, what a person sees of it. Place: above `hub.importing`, which reads, cuts and sends.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode, UnreachableError
from hub.errors import UnavailableError

if TYPE_CHECKING:
    from hub.importing.report import Report
    from hub.importing.table import Layout, ParseTime
    from hub.importing.upload import Post

# A hub that starts again is back in seconds; one whose disk is full needs a person.
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0, 10.0)
_TIMES_CACHED = 4096


class FileFormat(StrEnum):
    """How a file is written."""

    CSV = "csv"


_SUFFIXES = {".csv": FileFormat.CSV, ".tsv": FileFormat.CSV}


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are to be read: the options that decide which readings they hold."""

    format: FileFormat | None
    device: str | None
    device_column: str | None
    time: str | None
    map: Path | None
    tz: str | None
    delimiter: str | None


def import_history(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of readings.")],
    format: Annotated[FileFormat | None, typer.Option(help="Instead of by the name's end.")] = None,
    device: Annotated[str | None, typer.Option(help="CSV: the device of every row (else: the file's name).")] = None,
    device_column: Annotated[str | None, typer.Option(help="CSV: the column that names the device.")] = None,
    time: Annotated[str | None, typer.Option(help="CSV: the column of the time.")] = None,
    map: Annotated[
        Path | None, typer.Option(help="CSV: TOML that says which column is which channel of which device.")
    ] = None,
    tz: Annotated[
        str | None, typer.Option(help="Zone of times that have none: Europe/Brussels, or an offset +01:00.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="CSV: between cells; found in the header.")] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Write every refused line to this new CSV file: line, reason, text.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Store readings of files; again after a kill or by mistake: what is stored already stays as it is.

    A line that cannot be read, or that the hub refuses, loses nothing else; then the exit code is 1. Names of devices
    need not be enrolled. The token must be an admin's.
    """
    how = Reading(format, device, device_column, time, map, tz, delimiter)
    reports = {}
    with ExitStack() as stack:
        out = None if refused is None else stack.enter_context(_open_refused(refused))
        for file in files:
            reports[file] = _import_file(file, how, url, token, ca, out)
    if as_json:
        output.show_json([_report_object(file, report) for file, report in reports.items()])
    if any(report.refused for report in reports.values()):
        raise CliError("some lines were refused" + ("; --refused FILE keeps all of them" if refused is None else ""))


def _import_file(file: Path, how: Reading, url: str, token: str | None, ca: Path | None, out: Any) -> "Report":
    from hub.importing.report import Report
    from hub.importing.source import import_id
    from hub.importing.upload import Upload
    from simulators.progress import show_progress

    if not file.is_file():
        raise CliError(f"{file}: no such file", ExitCode.NOT_FOUND)
    report = Report()
    if out is not None:
        report.write_to(out)
    opened, said = _plan(file, how)
    with show_progress(f"{file.name}: looking", file.stat().st_size) as progress:
        id_, size = import_id(file, said, progress.update)
    post = _post(url, token, ca, file.name, id_)
    upload = Upload(post, _wait, report)
    with opened(size) as source, show_progress(file.name, source.total) as progress:
        for _ in upload.run(source.items):
            progress.update(source.position(), f"{report.stored:,} stored")
    _tell_report(file, report)
    return report


def _plan(file: Path, how: Reading) -> "tuple[Any, dict[str, object]]":
    """Return what opens the file once its size is known, and all that decides which readings it holds."""
    from hub.importing.source import open_csv, read_header

    form = how.format or _SUFFIXES.get(file.suffix.lower())
    if form is None:
        raise CliError(f"{file}: say with --format how it is written: {', '.join(FileFormat)}", ExitCode.USAGE)
    header, delimiter = read_header(file, how.delimiter or ("\t" if file.suffix.lower() == ".tsv" else None))
    layout, told = _layout(file, how, header)
    said = {"format": form.value, "tz": how.tz, "delimiter": delimiter, "layout": told}
    return lambda size: open_csv(file, size, layout, _time_parser(how.tz), header, delimiter), said


def _layout(file: Path, how: Reading, header: list[str]) -> "tuple[Layout, object]":
    from hub.importing.table import ChannelColumn, Long, Wide, exported_layout, plain_value
    from simulators.csv_map import MapError, guess_map, load_map, parse_value, slug

    long = exported_layout(header)
    if long is not None:
        return long, "export"
    try:
        if {"device", "channel", "time", "value"} <= set(header):
            at = header.index
            unit_at = at("unit") if "unit" in header else None
            return Long(at("device"), at("channel"), at("time"), at("value"), unit_at, plain_value), "long"
        if how.map is not None:
            mapped = load_map(how.map, header)
            columns = [
                ChannelColumn(header.index(c.name), c.device, c.channel, c.unit, partial(parse_value, type_=c.type))
                for c in mapped.columns
            ]
            return Wide(header.index(mapped.time), tuple(columns)), [str(mapped), header]
        device = how.device or slug(file.stem)[:64]
        guessed = guess_map(header, device, how.time)
        if how.device_column is not None and how.device_column not in header:
            raise MapError(f"the file has no column {how.device_column!r}; it has: {', '.join(header)}")
    except MapError as error:
        raise CliError(f"{file}: {error}", ExitCode.USAGE) from error
    of_row = how.device_column is not None
    columns = [
        ChannelColumn(header.index(c.name), None if of_row else c.device, c.channel, None, plain_value)
        for c in guessed.columns
        if c.name != how.device_column
    ]
    device_at = None if how.device_column is None else header.index(how.device_column)
    return Wide(header.index(guessed.time), tuple(columns), device_at), [str(guessed), how.device_column]


def _time_parser(tz: str | None) -> "ParseTime":
    from simulators.local_time import TimeError, parse_time, parse_zone

    try:
        zone = parse_zone(tz) if tz else None
    except TimeError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    # In a file of readings one after the other, many stand at one time.
    return lru_cache(_TIMES_CACHED)(lambda text: parse_time(text, zone))


def _post(url: str, token: str | None, ca: Path | None, name: str, id_: str) -> "Post":
    """Return what sends frames to a running hub, after it was told which file they are of."""
    client = options.open_client(url, token, ca)
    client.post("/v1/imports", {"name": name[:255], "id": id_})

    def post(frames: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return client.post(f"/v1/imports/{id_}/frames", {"frames": frames})
        except UnreachableError as error:
            raise UnavailableError(str(error)) from error

    return post


def _wait(error: Exception, attempt: int) -> None:
    if attempt > len(RETRY_S):
        output.tell("gave up; the same command goes on where this one ended")
        raise error.__cause__ or error
    if attempt == 1:
        output.tell(f"trying again: {error}")
    time.sleep(RETRY_S[attempt - 1])


@contextmanager
def _open_refused(path: Path) -> Iterator[Any]:
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            yield file
    except FileExistsError as error:
        raise CliError(f"--refused {path} exists: choose another name", ExitCode.EXISTS) from error


def _tell_report(file: Path, report: "Report") -> None:
    for refused in report.shown:
        text = f": {output.printable(refused.text)}" if refused.text else ""
        output.tell(f"{file.name} line {refused.line}: {output.printable(refused.reason)}{text}")
    more = report.refused - len(report.shown)
    if more > 0:
        output.tell(f"{file.name}: {more:,} more refused")
    output.tell(
        f"{file.name}: {report.read:,} readings read, {report.stored:,} stored, {report.already:,} already there, "
        f"{report.refused:,} refused, {report.blank:,} blank"
    )


def _report_object(file: Path, report: "Report") -> dict[str, Any]:
    return {
        "file": str(file), "read": report.read, "stored": report.stored, "already": report.already,
        "refused": report.refused, "blank": report.blank,
        "lines": [{"line": r.line, "reason": r.reason, "text": r.text} for r in report.shown],
    }  # fmt: skip
