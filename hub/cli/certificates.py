"""``hub certificates``: certificates of devices that count no more.

Place: a command module; see `hub.cli`. ``hub tls device`` makes certificates.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli import options, output

app = typer.Typer(help="Revoke certificates of devices.", no_args_is_help=True)

Which = Annotated[
    str, typer.Argument(metavar="CERTIFICATE", help="Its SHA-256 fingerprint, or the file (PEM) that holds it.")
]


@app.command("revoke")
def revoke(
    certificate: Which,
    note: Annotated[str, typer.Option(help="Which one, or why; shown in listings.")] = "",
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """End a certificate; a device that is connected with it is cut off within a second."""
    fingerprint = _fingerprint(certificate)
    if data is not None:
        with options.open_revocations(data) as revocations:
            fingerprint = revocations.revoke(fingerprint, note, namespace=options.NAMESPACE)
    else:
        body = {"fingerprint": fingerprint, "note": note}
        fingerprint = options.open_client(url, token, ca).post("/v1/certificates/revoked", body)["fingerprint"]
    output.tell(f"certificate {fingerprint} revoked")


@app.command("ls")
def ls(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List revoked certificates, the latest first."""
    rows: list[dict[str, Any]]
    if data is not None:
        with options.open_revocations(data) as revocations:
            found = revocations.revoked(namespace=options.NAMESPACE)
        rows = [{"fingerprint": r.fingerprint, "note": r.note, "revoked_ns": str(r.revoked_ns)} for r in found]
    else:
        rows = options.open_client(url, token, ca).get("/v1/certificates/revoked")["revoked"]
    if not as_json:
        rows = [{**row, "revoked": output.show_time(row["revoked_ns"])} for row in rows]
    output.show_rows(rows, ["fingerprint", "note", "revoked"], as_json=as_json, empty="no certificate is revoked")


@app.command("restore")
def restore(
    certificate: Which,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Let a revoked certificate be used again."""
    fingerprint = _fingerprint(certificate)
    if data is not None:
        with options.open_revocations(data) as revocations:
            revocations.restore(fingerprint, namespace=options.NAMESPACE)
    else:
        options.open_client(url, token, ca).delete(f"/v1/certificates/revoked/{fingerprint}")
    output.tell(f"certificate {fingerprint} may be used again")


def _fingerprint(text: str) -> str:
    """Return the fingerprint of a file, of a chain its first certificate's, or what was given as one."""
    from hub.certificate import check_fingerprint, first_fingerprint
    from hub.errors import BadRequestError

    path = Path(text)
    if not path.is_file():
        try:
            return check_fingerprint(text)
        except BadRequestError as error:
            raise typer.BadParameter(f"{text!r} is no file, and {error}") from error
    found = first_fingerprint(path.read_text(encoding="ascii", errors="replace"))
    if found is None:
        raise typer.BadParameter(f"{path} holds no certificate in PEM")
    return found
