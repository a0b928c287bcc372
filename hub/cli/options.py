"""Options that several commands share, and which hub they lead to.

Owns: their names and help. Place: before the commands.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    from hub.auth import Identities
    from hub.cli.rest import RestClient
    from hub.cli.source import Source

DEFAULT_URL = "http://127.0.0.1:8000"
# What commands on the files of a hub work in; by REST the namespace comes from the credential.
NAMESPACE = "default"

Url = Annotated[str, typer.Option("--url", envvar="HUB_URL", help="The hub's address.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="HUB_TOKEN", help="Credential; better in HUB_TOKEN than typed.")
]
Ca = Annotated[
    Path | None, typer.Option("--ca", envvar="HUB_CA", help="Trust this authority (ca.pem of `hub tls init`).")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Work on this data folder directly, also beside a running hub.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATTERN]...", help="device/channel with *; a device alone means all of it."),
]


def open_client(url: str, token: str | None, ca: Path | None) -> "RestClient":
    """Return a client of the hub at ``url``."""
    from hub.cli.rest import RestClient

    return RestClient(url, token, ca)


def seconds(duration: str) -> float:
    """Return the seconds of ``90``, ``15m`` or ``7d``; raise `BadRequestError` for anything else."""
    from hub.query import parse_duration

    text = duration.strip()
    return float(text) if text.isdecimal() else parse_duration(text) / 1e9


@contextmanager
def open_source(url: str, token: str | None, ca: Path | None, data: Path | None) -> "Iterator[Source]":
    """Give a running hub, or with ``data`` the files of a folder, as the source of answers."""
    from hub.cli.source import FilesSource, RestSource

    if data is None:
        yield RestSource(open_client(url, token, ca))
        return
    source = FilesSource(data)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def open_identities(data: Path) -> "Iterator[Identities]":
    """Give the identities of a data folder; the folder must exist, for a mistyped one would be made silently."""
    from hub.auth import Identities

    if not data.is_dir():
        raise CliError(f"{data} is no folder; start the hub once with `hub serve --data {data}`", ExitCode.NOT_FOUND)
    identities = Identities(data / "identities.sqlite3")
    try:
        yield identities
    finally:
        identities.close()
