"""``hub quarantine``: frames that could not be taken apart: list, look at, replay after a fix, delete.

Place: a command module; see `hub.cli`. Listing and looking also work on the
files of a data folder; replaying and deleting are the running hub's.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Frames that could not be taken apart: look, replay after a fix, delete.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(help="The id shown by `hub quarantine ls`.", min=1)]
Ids = Annotated[list[int], typer.Argument(metavar="ID...", help="Ids shown by `hub quarantine ls`.", min=1)]
Device = Annotated[str | None, typer.Option(help="Only this device.")]
_MALFORMED = "malformed"


@app.command("ls")
def ls(
    device: Device = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List quarantined frames, oldest first, without their bytes."""
    with options.open_source(url, token, ca, data) as source:
        rows = source.quarantine(device)
    if not as_json:
        rows = [_shown(row) for row in rows]
    columns = ["id", "device", "seq", "count", "size", "received", "replayed", "reason"]
    output.show_rows(rows, columns, as_json=as_json, empty="nothing is in quarantine")


@app.command("refused")
def refused(
    device: Device = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """List the newest readings that the store's server did not take, and what it said."""
    rows = options.open_client(url, token, ca).get("/v1/refused", {"device": device})["readings"]
    if not as_json:
        rows = [
            {**row, "time": output.show_time(row["time_ns"]), "reason": output.printable(row["reason"])} for row in rows
        ]
    columns = ["device", "channel", "time", "value", "reason"]
    output.show_rows(rows, columns, as_json=as_json, empty="no reading was refused")


@app.command("show")
def show(
    id: Id,
    max_bytes: Annotated[int, typer.Option("--bytes", min=0, help="Show at most so many of its bytes.")] = 4096,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show a quarantined frame's bytes: as text when they are printable, else in hex."""
    with options.open_source(url, token, ca, data) as source:
        frame = source.quarantined(id, max_bytes)
    if as_json:
        output.show_json(frame)
        return
    output.tell(f"{frame['device']} stream {frame['stream']} seq {frame['seq']}: {output.printable(frame['reason'])}")
    if frame["topic"] is not None:
        kind = f" ({output.printable(frame['content_type'])})" if frame["content_type"] else ""
        output.tell(f"topic {output.printable(frame['topic']) or '-'}{kind}")
    typer.echo(frame["hex"] if frame["text"] is None else frame["text"])
    if frame["truncated"]:
        output.tell(f"there is more: it has {frame['size']} bytes (--bytes)")


@app.command("replay")
def replay(
    ids: Ids,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Check frames again and store what is valid now, each once; exit code 1 when one is still malformed."""
    client = options.open_client(url, token, ca)
    rows: list[dict[str, Any]] = [client.post(f"/v1/quarantine/{id_}/replay", {}) for id_ in ids]
    if not as_json:
        rows = [{**row, "why": output.printable(row["why"])} for row in rows]
    output.show_rows(rows, ["id", "outcome", "accepted", "rejected", "why"], as_json=as_json)
    if malformed := sum(row["outcome"] == _MALFORMED for row in rows):
        raise CliError(f"{malformed} of {len(rows)} stay in quarantine", ExitCode.FAILED)


@app.command("rm")
def rm(
    ids: Ids,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
) -> None:
    """Delete quarantined frames for good; the audit goes on counting them."""
    client = options.open_client(url, token, ca)
    for id_ in ids:
        client.delete(f"/v1/quarantine/{id_}")
        output.tell(f"{id_} deleted")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row, "received": output.show_time(row["received_ns"]), "replayed": output.show_time(row["replayed_ns"]),
        "reason": output.printable(row["reason"]),
    }  # fmt: skip
