"""``hub metadata``: what people say of devices and channels: set, unset, show, history, export, import.

Place: a command module; see `hub.cli`. Each works on a running hub or, with ``--data``, on its file.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    from hub.cli.metadata_source import MetadataSource

app = typer.Typer(help="Labels, units, sites, tags, scales of devices and channels.", no_args_is_help=True)

_ASSIGNMENT = re.compile(r"([a-z_]+)(\+=|-=|=)(.*)", re.DOTALL)


class TableFormat(StrEnum):
    """Formats of a file."""

    TOML = "toml"
    CSV = "csv"


Target = Annotated[str, typer.Argument(metavar="DEVICE[/CHANNEL]", help="A device, or one of its channels.")]
Fields = Annotated[list[str], typer.Argument(metavar="FIELD...", help="Names of fields.")]


@app.command("set")
def set_(
    target: Target,
    assignments: Annotated[
        list[str], typer.Argument(metavar="FIELD=VALUE...", help="e.g. label='North house' tags+=tomatoes scale=0.1")
    ],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Set fields; tags+=WORD and tags-=WORD add and take one tag.

    Device: label, site, tags, lat, lon, place, notes. Channel: label, unit (code, e.g. Cel, %RH), decimals, low, high,
    kind (gauge, counter), scale, offset (shown = stored * scale + offset), every_s, hysteresis.
    """
    device, channel = _target(target)
    body = _assigned(assignments)
    with _open(url, token, ca, data) as source:
        source.change(device, channel, body)
    output.tell(f"{target}: set")


@app.command("unset")
def unset(
    target: Target,
    fields: Fields,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Unset fields: what the device declared holds again."""
    device, channel = _target(target)
    with _open(url, token, ca, data) as source:
        source.change(device, channel, dict.fromkeys(fields))
    output.tell(f"{target}: unset {', '.join(fields)}")


@app.command("show")
def show(
    pattern: options.Patterns = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show what holds, and whether a person set it or the device declared it."""
    with _open(url, token, ca, data) as source:
        found = source.listing(pattern or ["**"])
    if as_json:
        output.show_json(found)
        return
    output.show_rows(
        list(_shown(found)), ["of", "field", "value", "from"], as_json=False, empty="nothing is known of it"
    )


@app.command("history")
def history(
    target: Target,
    at: Annotated[str | None, typer.Option(help="Show what was set at this time: RFC 3339, epoch ns, -7d.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many changes, the newest.")] = 100,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show who changed what when, newest first."""
    device, channel = _target(target)
    with _open(url, token, ca, data) as source:
        answer = source.history(device, channel, limit, at)
    if as_json:
        output.show_json(answer)
        return
    if at is not None:
        rows: list[dict[str, Any]] = [{"field": name, "value": value} for name, value in answer["held"].items()]
        output.show_rows(rows, ["field", "value"], as_json=False, empty="nothing was set then")
        return
    output.show_rows(answer["changes"], ["time", "who", "field", "old", "new"], as_json=False, empty="never changed")
    if answer["since_ns"] is not None:
        output.tell(f"older changes than {output.show_time(answer['since_ns'])} are not all kept")


@app.command("export")
def export(
    pattern: options.Patterns = None,
    format: Annotated[TableFormat, typer.Option(help="toml or csv.")] = TableFormat.TOML,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="File to write; - is stdout.")] = Path("-"),
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Write what people set, as a file that `hub metadata import` reads."""
    from hub.metadata_table import TableRow, write_csv, write_toml

    with _open(url, token, ca, data) as source:
        found = source.listing(pattern or ["**"])
    rows = [TableRow(row["device"], row.get("channel"), row["set"]) for row in (*found["devices"], *found["channels"])]
    text = write_csv(rows) if format is TableFormat.CSV else write_toml(rows)
    if output_path == Path("-"):
        sys.stdout.write(text)
    else:
        # csv has its own line ends.
        output_path.write_text(text, encoding="utf-8", newline="")
        output.tell(f"{output_path}: {sum(bool(row.fields) for row in rows)} rows")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .toml or .csv file.")],
    is_trial: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Set what a file says, and report each row; a wrong row keeps no other from being set.

    Ends with code 1 when a row is wrong.
    """
    rows = _read(path)
    right = [row for row in rows if row.error is None]
    with _open(url, token, ca, data) as source:
        outcomes = iter(source.change_all(right, is_trial=is_trial))
    report: list[dict[str, Any]] = []
    for row in rows:
        outcome = {"changed": [], "error": row.error} if row.error else next(outcomes)
        of = row.device if row.channel is None else f"{row.device}/{row.channel}"
        report.append({"where": row.where, "of": of, "changed": outcome["changed"], "error": outcome["error"]})
    wrong = sum(row["error"] is not None for row in report)
    told = report if as_json else [row for row in report if row["changed"] or row["error"]]
    output.show_rows(told, ["where", "of", "changed", "error"], as_json=as_json, empty="nothing changes")
    word = "would change" if is_trial else "changed"
    output.tell(f"{len(report)} rows: {sum(bool(r['changed']) for r in report)} {word}, {wrong} wrong")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _open(url: str, token: str | None, ca: Path | None, data: Path | None) -> "Iterator[MetadataSource]":
    from hub.cli.metadata_source import open_metadata

    with open_metadata(options.open_client(url, token, ca) if data is None else None, data) as source:
        yield source


def _target(text: str) -> tuple[str, str | None]:
    device, slash, channel = text.partition("/")
    # Into a path of REST only what can be a name; the hub says the rest.
    if not all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in ([device, channel] if slash else [device])):
        raise CliError(f"{text!r}: write DEVICE or DEVICE/CHANNEL, without *", ExitCode.USAGE)
    return device, channel if slash else None


def _assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the body of a change from ``field=value``, ``tags+=word`` and ``tags-=word``."""
    from hub.metadata_table import parse_field

    body: dict[str, Any] = {}
    for text in assignments:
        found = _ASSIGNMENT.fullmatch(text)
        if found is None:
            raise CliError(f"{text!r}: write FIELD=VALUE, e.g. unit=Cel", ExitCode.USAGE)
        name, sign, value = found.groups()
        if sign == "=":
            body[name] = parse_field(name, value)
        elif name in ("tag", "tags"):
            key = "add_tags" if sign == "+=" else "remove_tags"
            body.setdefault(key, []).extend(parse_field("tags", value))
        else:
            raise CliError(f"{text!r}: {sign} is for tags; write {name}=VALUE", ExitCode.USAGE)
    return body


def _shown(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for device in found["devices"]:
        for name, value in device["set"].items():
            yield {"of": device["device"], "field": name, "value": value, "from": "set"}
    for channel in found["channels"]:
        of = f"{channel['device']}/{channel['channel']}"
        for name, value in channel["effective"].items():
            if value is not None:
                shown = channel["unit_shown"] if name == "unit" else value
                # What a device declared may hold anything.
                shown = output.printable(shown) if isinstance(shown, str) else shown
                yield {"of": of, "field": name, "value": shown, "from": "set" if name in channel["set"] else "declared"}


def _read(path: Path) -> "list[Any]":
    from hub.errors import BadRequestError
    from hub.metadata_table import MAX_FILE_BYTES, read_csv, read_toml

    readers = {".toml": read_toml, ".csv": read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CliError(f"{path}: its name must end with .toml or .csv", ExitCode.USAGE)
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise CliError(f"{path}: over {MAX_FILE_BYTES} bytes: import it in parts", ExitCode.USAGE)
    try:
        return reader(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: no UTF-8: {error}", ExitCode.USAGE) from error
    except BadRequestError as error:
        raise CliError(f"{path}: {error}", ExitCode.USAGE) from error
