"""``hub devices``: enrol, list, remove, give a new token.

Place: a command module; see `hub.cli`.
"""

from typing import Annotated, Any

import typer

from hub.cli import options, output

app = typer.Typer(help="Enrol devices and manage their tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Device name: letters, digits, _ . - (at most 64).")]


@app.command("add")
def add(
    name: Name,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Enrol a device and print its token, which is shown only now."""
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
             "token_changed": output.show_time(d.rotated_ns)}
            for d in enrolled
        ]  # fmt: skip
        output.show_rows(
            rows, ["device", "id", "enrolled", "token_changed"], as_json=as_json, empty="no device is enrolled"
        )
        return
    found: list[dict[str, Any]] = options.open_client(url, token, ca).get("/v1/devices")["devices"]
    if as_json:
        output.show_json(found)
        return
    shown: list[dict[str, Any]] = [
        {**d, "last": output.show_time(d.get("last_ns")), "channels": len(d.get("channels", ())),
         "alert": "alert" if d.get("alert") else "", "clock": clock_text(d)}
        for d in found
    ]  # fmt: skip
    output.show_rows(
        shown,
        ["device", "state", "alert", "clock", "last", "rate_hz", "channels"],
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
    """End a device's token; its readings stay."""
    if data is not None:
        with options.open_identities(data) as identities:
            identities.remove_device(name)
    else:
        options.open_client(url, token, ca).delete(f"/v1/devices/{name}")
    output.tell(f"{name} may not connect any more; its readings stay")


@app.command("rotate")
def rotate(
    name: Name,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Print a new token for a device; the old one ends within a second."""
    if data is not None:
        with options.open_identities(data) as identities:
            secret = identities.rotate_device(name)
    else:
        secret = options.open_client(url, token, ca).post(f"/v1/devices/{name}/rotate", {})["token"]
    _show_token(name, secret, as_json, url)


def clock_text(device: dict[str, Any]) -> str:
    """Return how wrong a flagged device's clock is, e.g. ``+3.2 s``; empty when it is not flagged."""
    return f"{device['skew_s']:+,.1f} s" if device.get("skewed") else ""


def _show_token(name: str, secret: str, as_json: bool, url: str) -> None:
    if as_json:
        output.show_json({"device": name, "token": secret})
        return
    output.tell(f"token of {name}, shown only now:")
    typer.echo(secret)
    address = url.replace("http", "ws", 1)
    output.tell(f'next, on the device: Device("{name}", "{address}", token=…)')
