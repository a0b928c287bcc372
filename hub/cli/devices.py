"""``hub devices``: enrol (with a token or a claim code), list, remove, give a new token.

Place: a command module; see `hub.cli`.
"""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hub.cli import bulk, claims, options, output, qr
from hub.cli.exit_code import CliError, ExitCode

# Millions of readings of a fast device, in slices between which others write.
_ERASE_S = 600.0
app = typer.Typer(help="Enrol devices and manage their tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Device name: letters, digits, _ . - (at most 64).")]


app.command("import")(bulk.import_devices)


@app.command("add")
def add(
    name: Name,
    claim: Annotated[bool, typer.Option("--claim", help="Print a one-time code instead of a token.")] = False,
    with_qr: claims.Qr = False,
    qr_file: claims.QrFile = None,
    expires: claims.Expires = "15m",
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Enrol a device and print its token, which is shown only now; with --claim a code with which it fetches one."""
    if claim:
        place = None if qr_file is None else qr.check_file(qr_file)
        code = _claim(name, options.seconds(expires), url, token, ca, data)
        if as_json:
            output.show_json({"device": name, "code": code})
        claims.show_code(f"code for {name}", code, url, expires, with_qr=with_qr, place=place, is_told=as_json)
        return
    if with_qr or qr_file is not None:
        raise CliError("a QR code is made of a claim: say --claim as well", ExitCode.USAGE)
    if data is not None:
        with options.open_identities(data) as identities:
            secret = identities.add_device(name)
    else:
        secret = options.open_client(url, token, ca).post("/v1/devices", {"device": name})["token"]
    _show_token(name, secret, as_json, url)


@app.command("ls")
def ls(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List devices: with a hub their state and last reading, with --data what is enrolled."""
    if data is not None:
        with options.open_identities(data) as identities:
            enrolled = identities.devices()
        rows = [
            {"device": d.name, "id": d.id, "enrolled": output.show_time(d.created_ns),
             "token_changed": output.show_time(d.rotated_ns), "tokens": d.tokens,
             "old_ends": output.show_time(d.old_ends_ns)}
            for d in enrolled
        ]  # fmt: skip
        columns = ["device", "id", "enrolled", "token_changed", "tokens", "old_ends"]
        output.show_rows(rows, columns, as_json=as_json, empty="no device is enrolled")
        return
    found: list[dict[str, Any]] = options.open_client(url, token, ca).get("/v1/devices")["devices"]
    if as_json:
        output.show_json(found)
        return
    shown: list[dict[str, Any]] = [
        {**d, "last": output.show_time(d.get("last_ns")), "channels": len(d.get("channels", ())),
         "alert": "alert" if d.get("alert") else "", "clock": clock_text(d),
         "old_ends": output.show_time(d.get("old_token_ends_ns"))}
        for d in found
    ]  # fmt: skip
    output.show_rows(
        shown,
        ["device", "state", "alert", "clock", "last", "tokens", "old_ends", "rate_hz", "channels"],
        as_json=False,
        empty="no device yet",
    )


@app.command("rm")
def rm(
    name: Name,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """End a device's tokens; its readings stay."""
    if data is not None:
        with options.open_identities(data) as identities:
            identities.remove_device(name)
    else:
        options.open_client(url, token, ca).delete(f"/v1/devices/{name}")
    output.tell(f"{name} may not connect any more; its readings stay")


@app.command("erase")
def erase(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Erase a device that was removed: readings, their sums, descriptions, states, commands. There is no way back."""
    if not yes:
        typer.confirm(f"Erase all that {name} ever sent, and what was said and ordered of it?", abort=True)
    client = options.open_client(url, token, ca)
    answer = client.post(f"/v1/devices/{name}/erase", {"confirm": name}, timeout_s=_ERASE_S)
    if as_json:
        output.show_json(answer)
        return
    output.tell(
        f"{name}: {answer['readings']:,} readings erased; the journal forgets its frames within "
        f"{answer['journal_hours']:g} hours"
    )


@app.command("rotate")
def rotate(
    name: Name,
    keep: Annotated[
        str, typer.Option("--keep", help="How long the old token stays valid, e.g. 2h; 0 ends it within a second.")
    ] = "24h",
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Print a new token for a device; the old one stays valid for a while, an even older one ends within a second."""
    keep_s = options.seconds(keep)
    if data is not None:
        with options.open_identities(data) as identities:
            secret = identities.rotate_device(name, keep_s=keep_s)
    else:
        secret = options.open_client(url, token, ca).post(f"/v1/devices/{name}/rotate", {"keep_s": keep_s})["token"]
    _show_token(name, secret, as_json, url)


def clock_text(device: dict[str, Any]) -> str:
    """Return how wrong a flagged device's clock is, e.g. ``+3.2 s``; empty when it is not flagged."""
    return f"{device['skew_s']:+,.1f} s" if device.get("skewed") else ""


def _claim(name: str, expires_s: float, url: str, token: str | None, ca: Path | None, data: Path | None) -> str:
    if data is not None:
        with options.open_identities(data) as identities:
            return identities.add_claim(name, expires_s=expires_s)[1]
    made = options.open_client(url, token, ca).post(
        f"/v1/devices/{quote(name, safe='')}/claim", {"expires_s": expires_s}
    )
    return str(made["code"])


def _show_token(name: str, secret: str, as_json: bool, url: str) -> None:
    if as_json:
        output.show_json({"device": name, "token": secret})
        return
    output.tell(f"token of {name}, shown only now:")
    typer.echo(secret)
    address = url.replace("http", "ws", 1)
    output.tell(f'next, on the device: Device("{name}", "{address}", token=…)')
