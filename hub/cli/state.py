"""``hub state``: what devices should have and what they have: show, set, drift.

Place: a command module; see `hub.cli`. Works on a running hub, which brings changes to the devices.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

app = typer.Typer(help="Desired and reported states of devices.", no_args_is_help=True)

_DRIFTS = ("pending", "drifted", "offline")


@app.command("show")
def show(
    device: Annotated[str, typer.Argument(metavar="DEVICE")],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Show desired beside reported, key by key."""
    found = options.open_client(url, token, ca).get(f"/v1/devices/{quote(device, safe='')}/state")
    if as_json:
        output.show_json(found)
        return
    rows = list(_compared(found))
    output.show_rows(rows, ["key", "desired", "reported", "differs"], as_json=False, empty="no state is known of it")
    wanted, told = found["desired"], found["reported"]
    output.tell(
        f"{device}: {found['drift']} · desired version {wanted['version']}, the device has taken in {told['version']}"
    )


@app.command("set")
def set_(
    selector: Annotated[
        str, typer.Argument(metavar="SELECTOR", help="e.g. 'greenhouse-*', 'site:north tag:fan', '*'.")
    ],
    assignments: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="e.g. interval_s=10 fan.speed=3 mode=eco old=null")
    ],
    expected_version: Annotated[
        int | None, typer.Option("--expected-version", min=0, help="Refuse devices that have another version by now.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Change the desired state of all devices that match; what is not named stays.

    A dot goes into an object; a value is JSON or else text; null removes the key. Ends with code 1 when a device
    was refused, 5 when none matches.
    """
    body: dict[str, Any] = {"selector": selector, "patch": _patch(assignments), "expected_version": expected_version}
    outcomes = options.open_client(url, token, ca).post("/v1/desired", body)["devices"]
    output.show_rows(outcomes, ["device", "version", "changed", "error"], as_json=as_json, empty="no device matches")
    refused = sum(row["error"] is not None for row in outcomes)
    output.tell(f"{len(outcomes)} devices: {sum(row['changed'] for row in outcomes)} changed, {refused} refused")
    if refused or not outcomes:
        raise typer.Exit(ExitCode.FAILED if refused else ExitCode.NOT_FOUND)


@app.command("drift")
def drift(
    pattern: options.Patterns = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """List devices that are not as desired: pending, drifted, or offline until they get it."""
    question: dict[str, str | int | list[str] | None] = {"match": list(pattern or []), "drift": list(_DRIFTS)}
    rows = options.open_client(url, token, ca).get("/v1/states", question)["devices"]
    columns = ["device", "drift", "differing", "desired_version", "reported_version"]
    output.show_rows(rows, columns, as_json=as_json, empty="every device is as desired")


def _patch(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the merge patch that ``a.b=1`` and the like say."""
    patch: dict[str, Any] = {}
    for text in assignments:
        path, sign, value = text.partition("=")
        names = path.split(".")
        if not sign or not all(names):
            raise CliError(f"{text!r}: write KEY=VALUE, e.g. fan.speed=3", ExitCode.USAGE)
        at = patch
        for name in names[:-1]:
            inner = at.setdefault(name, {})
            if not isinstance(inner, dict):
                raise CliError(f"{text!r}: {name} was given a value before", ExitCode.USAGE)
            at = inner
        at[names[-1]] = _value(value)
    return patch


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _compared(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    wanted, told = dict(_leaves(found["desired"]["state"])), dict(_leaves(found["reported"]["state"]))
    for key in dict.fromkeys([*wanted, *told]):
        yield {
            "key": output.printable(key), "desired": wanted.get(key), "reported": told.get(key),
            "differs": "differs" if key in found["differing"] else None,
        }  # fmt: skip


def _leaves(state: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in state.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            # JSON, so that text and numbers look different; what a device says must not reach the terminal as it is.
            yield prefix + name, output.printable(json.dumps(value, ensure_ascii=False))
