"""``hub command`` and ``hub commands``: call functions of devices, and look at what became of that.

Place: a command module; see `hub.cli`.
"""

import json
from typing import Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

app = typer.Typer(help="Commands given to devices: list, show, cancel.", no_args_is_help=True)

# Beyond the time-out of the command itself: the way to the hub and back.
_GRACE_S = 30.0

Id = Annotated[str, typer.Argument(help="As `hub command` and `hub commands ls` show it.")]


def command(
    match: Annotated[str, typer.Argument(help="Devices: 'greenhouse-*', 'site:north tag:tomatoes', '*'.")],
    name: Annotated[str, typer.Argument(help="The command, as the device declares it.")],
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Values as JSON, or else text as it is.")
    ] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Keep it for devices that are not connected.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long answers may take, at most 1h.")] = "10s",
    expires: Annotated[str | None, typer.Option("--expires", help="With --queue: how long it is kept.")] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Have devices do something; exit code 0 when all of them did."""
    from hub.query import parse_duration

    body: dict[str, object] = {
        "match": match, "name": name, "args": dict(map(_argument, args or ())), "timeout": timeout, "queue": queue,
        "expires": expires, "wait": True,
    }  # fmt: skip
    wait_s = parse_duration(timeout) / 1e9 + _GRACE_S
    told = options.open_client(url, token, ca).post("/v1/commands", body, timeout_s=wait_s)
    _show(told, as_json=as_json)
    if set(told["states"]) != {"done"}:
        raise typer.Exit(ExitCode.FAILED)


@app.command("ls")
def ls(
    limit: Annotated[int, typer.Option("--limit", min=1, max=50)] = 20,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """List the newest commands, of a week at most."""
    found: list[dict[str, Any]] = options.open_client(url, token, ca).get("/v1/commands", {"limit": limit})["commands"]
    rows = found if as_json else [
        {**c, "made": output.show_time(c["made_ns"]), "args": json.dumps(c["args"]), "states": _sums(c)} for c in found
    ]  # fmt: skip
    output.show_rows(
        rows, ["id", "made", "who", "match", "name", "args", "states"], as_json=as_json, empty="no command yet"
    )


@app.command("show")
def show(
    id: Id,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Show what became of a command at each device."""
    _show(options.open_client(url, token, ca).get(f"/v1/commands/{id}"), as_json=as_json)


@app.command("cancel")
def cancel(
    id: Id,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """End a command at those devices that have not answered."""
    _show(options.open_client(url, token, ca).post(f"/v1/commands/{id}/cancel", {}), as_json=as_json)


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.show_json(told)
        return
    rows = [
        {"device": r["device"], "state": r["state"],
         "answer": output.printable(r["error"] or ("" if r["value"] is None else json.dumps(r["value"])))}
        for r in told["results"]
    ]  # fmt: skip
    output.show_rows(rows, ["device", "state", "answer"], as_json=False)
    output.tell(f"{told['name']}: {_sums(told)}; hub commands show {told['id']}")


def _sums(told: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in told["states"].items())


def _argument(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CliError(f"{text[:40]!r}: arguments are NAME=VALUE, e.g. speed=3", ExitCode.USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
