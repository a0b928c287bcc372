"""Options that several commands share, and which hub they lead to.

Owns: their names and help. Place: before the commands.
"""

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.exit_code import CliError, ExitCode
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.auth import Identities
    from hub.change_log import ChangeLog
    from hub.children import Children
    from hub.cli.rest import RestClient
    from hub.cli.source import Source
    from hub.revocations import Revocations
    from hub.users import Users

# Commands on a folder that only look; options that no value follows.
_READING = frozenset({"ls", "list", "gateways", "show", "history", "export"})
_FLAGS = frozenset({"--json", "--invite"})
_command: ContextVar[tuple[str, ...]] = ContextVar("command", default=())
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

    _check_folder(data)
    with closing(Identities(data / "identities.sqlite3")) as identities, recorded(data):
        yield identities


@contextmanager
def open_users(data: Path) -> "Iterator[Users]":
    """Give the users of a data folder, which must exist."""
    from hub.users import USERS, Users

    _check_folder(data)
    with closing(Users(data / USERS)) as users, recorded(data):
        yield users


@contextmanager
def open_revocations(data: Path) -> "Iterator[Revocations]":
    """Give the revoked certificates of a data folder, which must exist."""
    from hub.revocations import CERTIFICATES, Revocations

    _check_folder(data)
    with closing(Revocations(data / CERTIFICATES)) as revocations, recorded(data):
        yield revocations


@contextmanager
def open_children(data: Path, identities: "Identities | None" = None) -> "Iterator[Children]":
    """Give the devices behind gateways of a data folder, which must exist; ``identities``: of it, if they are open."""
    from hub.auth import Identities
    from hub.children import CHILDREN, Children

    _check_folder(data)
    with ExitStack() as files:
        if identities is None:
            files.enter_context(recorded(data))
            identities = files.enter_context(closing(Identities(data / "identities.sqlite3")))
        yield files.enter_context(closing(Children(data / CHILDREN, identities)))


@contextmanager
def open_change_log(data: Path) -> "Iterator[ChangeLog]":
    """Give the log of changes of a data folder, which must exist."""
    from hub.change_log import CHANGES, ChangeLog

    _check_folder(data)
    with closing(ChangeLog(data / CHANGES)) as log:
        yield log


def _check_folder(data: Path) -> None:
    if not data.is_dir():
        raise CliError(f"{data} is no folder; start the hub once with `hub serve --data {data}`", ExitCode.NOT_FOUND)


@contextmanager
def recorded(data: Path) -> Iterator[None]:
    """Write into the folder's log of changes what the command that runs has done to it, unless it only reads.

    Who has the folder can do anything to it, also to its log: this is for the honest.
    """
    words = _command.get()
    outcome = "ok"
    try:
        yield
    except HubError as error:
        outcome = error.reason
        raise
    finally:
        if words and not _READING.intersection(words[:2]):
            from hub.change_log import Entry

            with open_change_log(data) as log:
                what, target = " ".join(words[:2]), " ".join(_named(words[2:]))
                log.record(Entry(f"hub {what}", target, outcome, who=_user(), role="offline", peer="--data"))


def set_command(words: Sequence[str]) -> None:
    """Remember what was typed, for the log of changes."""
    _command.set(tuple(words))


def _named(words: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, without options and what follows one: that may be a token."""
    before = ""
    for word in words:
        if not word.startswith("-") and (not before.startswith("-") or "=" in before or before in _FLAGS):
            yield word
        before = word


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container may run with a number that no user has.
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "?"
