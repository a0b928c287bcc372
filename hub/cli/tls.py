"""``hub tls``: a local authority, the hub's certificate, certificates of devices.

Place: a command module; see `hub.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from hub.cli import options, output

app = typer.Typer(help="Certificates for wss:// without a public authority.", no_args_is_help=True)


@app.command("init")
def init(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of the hub's files; certificates go to its tls/.")
    ] = Path("hub-data"),
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Further name or address of the hub; repeat for more.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new server certificate; the authority stays.")] = False,
    as_json: options.Json = False,
) -> None:
    """Make a local authority (once) and a server certificate with this machine's names."""
    from datetime import UTC, datetime

    from hub.tls import local_names, make_certificates

    names = list(dict.fromkeys([*local_names(), *(name or ())]))
    files = make_certificates(data / "tls", names, now=datetime.now(UTC), replace=renew)
    if as_json:
        output.show_json(
            {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key), "names": list(files.names),
             "fingerprint": files.fingerprint, "not_after": files.not_after.isoformat()}
        )  # fmt: skip
        return
    typer.echo(f"certificate  {files.cert}  (until {files.not_after:%Y-%m-%d})")
    typer.echo(f"key          {files.key}")
    typer.echo(f"authority    {files.ca}  ← copy this one to devices: Device(…, ca=…), or HUB_CA")
    typer.echo(f"fingerprint  {files.fingerprint}  ← or pin it: Device(…, fingerprint=…)")
    typer.echo(f"names        {' '.join(files.names)}")
    output.tell(f"next: hub serve --data {data} --host 0.0.0.0 --tls-cert {files.cert} --tls-key {files.key}")


@app.command("device")
def device(
    name: Annotated[str, typer.Argument(help="Name of the device, as it is enrolled.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the hub's files, with the authority in its tls/.")] = (
        Path("hub-data")
    ),
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the old one stays valid until revoked.")] = (
        False
    ),
    as_json: options.Json = False,
) -> None:
    """Make a certificate with which a device connects without a token."""
    from datetime import UTC, datetime

    from hub.tls import make_device_certificate

    files = make_device_certificate(data / "tls", name, now=datetime.now(UTC), replace=renew)
    if as_json:
        output.show_json(
            {"device": name, "cert": str(files.cert), "key": str(files.key), "fingerprint": files.fingerprint,
             "not_after": files.not_after.isoformat(), "replaced": files.replaced}
        )  # fmt: skip
        return
    typer.echo(f"certificate  {files.cert}  (until {files.not_after:%Y-%m-%d})")
    typer.echo(f"key          {files.key}  ← both go to the device: Device(…, certificate=…, key=…)")
    typer.echo(f"fingerprint  {files.fingerprint}  ← to end it: hub certificates revoke")
    if files.replaced is not None:
        typer.echo(f"replaced     {files.replaced}  ← still good, and only told now: revoke it if it leaked")
    output.tell(
        f"next: hub devices add {name} --data {data}, and hub serve … --tls-client-ca {data / 'tls' / 'ca.pem'}"
    )
