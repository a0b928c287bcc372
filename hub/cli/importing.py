"""``hub import``: history from files into a hub, each reading once, however often and wherever it is killed.

Owns: the command, its options, what a person sees of it. Place: above `hub.importing`, which reads, cuts and sends.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode, UnreachableError
from hub.cli.import_plan import FileFormat, Precision, Reading, make_plan
from hub.errors import UnavailableError

if TYPE_CHECKING:
    from hub.importing.report import Report
    from hub.importing.upload import Post

# A hub that starts again is back in seconds; one whose disk is full needs a person.
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0, 10.0)


def import_history(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of readings.")],
    format: Annotated[FileFormat | None, typer.Option(help="Instead of by the name's end.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Of every row of a table (else: the file's name); of line protocol, made of tags: '{host}'."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Of line protocol, made of tags: '{measurement}.{field}'.")
    ] = None,
    device_column: Annotated[str | None, typer.Option(help="The column of a table that names the device.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of a table that holds the time.")] = None,
    map: Annotated[
        Path | None, typer.Option(help="TOML: which column of a table is which channel of which device.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the times in line protocol.")] = Precision.NS,
    tz: Annotated[
        str | None, typer.Option(help="Zone of times that have none: Europe/Brussels, or an offset +01:00.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="CSV: between cells; found in the header.")] = None,
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="CSV: numbers are written as 20,5.")] = False,
    refused: Annotated[
        Path | None, typer.Option(help="Write every refused line to this new CSV file: file, line, reason, text.")
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
    how = Reading(format, device, channel, device_column, time, map, precision, tz, delimiter, decimal_comma)
    reports = {}
    with ExitStack() as stack:
        out = None if refused is None else stack.enter_context(_open_refused(refused))
        for file in files:
            reports[file] = _import_file(file, how, url, token, ca, out)
    if as_json:
        output.show_json([_report_object(file, report) for file, report in reports.items()])
    if any(report.refused for report in reports.values()):
        raise CliError("some lines were refused" + ("; --refused FILE keeps all of them" if refused is None else ""))
    if any(report.units for report in reports.values()):
        raise CliError("a file has other units than the hub; what is stored of it is numbers in those of the file")
    if any(report.is_changed for report in reports.values()):
        raise CliError("a file changed while it was read; import it again")


def _import_file(file: Path, how: Reading, url: str, token: str | None, ca: Path | None, out: Any) -> "Report":
    from hub.importing.report import Report
    from hub.importing.source import has_changed, import_id
    from hub.importing.upload import Upload
    from simulators.progress import show_progress

    if not file.is_file():
        raise CliError(f"{file}: no such file", ExitCode.NOT_FOUND)
    # Of any bytes: what no terminal and no text in UTF-8 can hold is written as an escape.
    name = output.printable(file.name)
    before, report = file.stat(), Report()
    if out is not None:
        report.write_to(out, name)
    plan = make_plan(file, how)
    if plan.left_out:
        output.tell(f"{name}: left out: {output.printable(', '.join(plan.left_out))}")
    with show_progress(f"{name}: looking", before.st_size) as progress:
        id_, size = import_id(file, plan.said, progress.update)
    post = _post(url, token, ca, name, id_)
    upload = Upload(post, _wait, report)
    with plan.open(size) as source, show_progress(name, source.total) as progress:
        for _ in upload.run(source.items):
            progress.update(source.position(), f"{report.stored:,} stored")
    report.is_changed = has_changed(file, before)
    _tell_report(name, report)
    return report


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
    from hub.importing.report import begin_refused

    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            begin_refused(file)
            begun = file.tell()
            try:
                yield file
            except BaseException:
                if file.tell() == begun:
                    # Nothing is in it yet: the same command must work again.
                    path.unlink()
                raise
    except FileExistsError as error:
        raise CliError(f"--refused {path} exists: choose another name", ExitCode.EXISTS) from error


def _tell_report(name: str, report: "Report") -> None:
    for refused in report.shown:
        text = f": {output.printable(refused.text)}" if refused.text else ""
        output.tell(f"{name} line {refused.line}: {output.printable(refused.reason)}{text}")
    for channel, (unit, told) in report.units.items():
        unit, told = output.printable(unit), output.printable(told)
        output.tell(f"{name}: {channel} is in {unit} and stays so; here it is {told}")
    if report.is_changed:
        output.tell(f"{name} changed while it was read: not all of what it held may be stored")
    more = report.refused - len(report.shown)
    if more > 0:
        output.tell(f"{name}: {more:,} more refused")
    output.tell(
        f"{name}: {report.read:,} readings read, {report.stored:,} stored, {report.already:,} already there, "
        f"{report.refused:,} refused, {report.blank:,} blank"
    )


def _report_object(file: Path, report: "Report") -> dict[str, Any]:
    return {
        "file": output.printable(str(file)), "read": report.read, "stored": report.stored, "already": report.already,
        "refused": report.refused, "blank": report.blank,
        "changed": report.is_changed,
        "units": [{"channel": c, "unit": unit, "told": told} for c, (unit, told) in report.units.items()],
        "lines": [{"line": r.line, "reason": r.reason, "text": r.text} for r in report.shown],
    }  # fmt: skip
