"""``hub tls init``: a local authority and the hub's certificate.

Place: a command module; see `hub.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from hub.cli import options, output

app = typer.Typer(help="Certificates for wss:// without a public authority.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``init`` a subcommand though it is the only one."""


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
