"""``hub claims``: codes with which groups of devices fetch their tokens; list and end them.

Place: a command module; see `hub.cli`. A code for one device comes from ``hub devices add NAME --claim``.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli import options, output, qr

app = typer.Typer(help="One-time codes with which devices fetch their tokens.", no_args_is_help=True)

Qr = Annotated[bool, typer.Option("--qr", help="Draw the code as a QR code, beside the result.")]
QrFile = Annotated[Path | None, typer.Option("--qr-file", help="Write the QR code to a new .png or .svg file.")]
Expires = Annotated[str, typer.Option("--expires", help="How long the code lives, e.g. 15m or 7d (at most 90d).")]


@app.command("add")
def add(
    match: Annotated[str, typer.Option(help="Names of the devices, with *.")],
    quota: Annotated[int, typer.Option(min=1, help="How many devices may use it.")],
    expires: Expires = "15m",
    with_qr: Qr = False,
    qr_file: QrFile = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Print a code for a group of devices, which is shown only now."""
    expires_s = options.seconds(expires)
    place = None if qr_file is None else qr.check_file(qr_file)
    if data is not None:
        with options.open_identities(data) as identities:
            id_, code = identities.claims.add_group(match, quota, expires_s, namespace=options.NAMESPACE)
    else:
        body = {"match": match, "quota": quota, "expires_s": expires_s}
        made = options.open_client(url, token, ca).post("/v1/claims", body)
        id_, code = made["id"], made["code"]
    if as_json:
        output.show_json({"id": id_, "code": code, "match": match, "quota": quota})
    show_code(f"code for {quota} devices {match}", code, url, expires, with_qr=with_qr, place=place, is_told=as_json)


@app.command("ls")
def ls(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List open claims; the codes are not known any more."""
    rows: list[dict[str, Any]]
    if data is not None:
        with options.open_identities(data) as identities:
            found = identities.claims.listed(namespace=options.NAMESPACE)
        rows = [
            {"id": c.id, "device": c.device, "match": c.match, "quota": c.quota, "used": c.used,
             "created_ns": str(c.created_ns), "expires_ns": str(c.expires_ns)}
            for c in found
        ]  # fmt: skip
    else:
        rows = options.open_client(url, token, ca).get("/v1/claims")["claims"]
    if not as_json:
        rows = [
            {**row, "devices": row["device"] or row["match"], "expires": output.show_time(row["expires_ns"])}
            for row in rows
        ]
    output.show_rows(rows, ["id", "devices", "used", "quota", "expires"], as_json=as_json, empty="no open claim")


@app.command("rm")
def rm(
    id: Annotated[str, typer.Argument(help="The id shown by `hub claims ls`.")],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """End a claim; devices that used it keep their tokens."""
    if data is not None:
        with options.open_identities(data) as identities:
            identities.claims.remove(id, namespace=options.NAMESPACE)
    else:
        options.open_client(url, token, ca).delete(f"/v1/claims/{id}")
    output.tell(f"claim {id} ended")


def show_code(
    what: str, code: str, url: str, expires: str, *, with_qr: bool, place: Path | None, is_told: bool = False
) -> None:
    """Print a code on stdout (unless ``is_told``), and beside it the QR code and what to do with it."""
    address = qr.claim_address(url, code)
    if not is_told:
        output.tell(f"{what}, good for {expires}, shown only now:")
        typer.echo(code)
    if with_qr:
        output.tell(qr.draw(address))
    if place is not None:
        qr.save(address, place)
        output.tell(f"QR code in {place}")
    if (with_qr or place is not None) and qr.is_of_this_machine(url):
        output.tell(f"note: the QR code says {url}, which only this machine reaches; say --url with the hub's address")
    if not is_told:
        output.tell(f"next, on the device: python -m device_sdk claim {url} {code}")
