"""``hub backup``: all data of a hub, as it is at one moment, in a new folder.

Place: a command module; see `hub.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from hub.cli import options, output

# The hub copies everything before it sends: about a minute for 5 GB on a slow card.
_SILENCE_S = 3600.0


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder for the copy.")],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Copy journal, readings and identities, also while the hub runs; to restore, stop the hub and copy them back."""
    from hub.backup import back_up, receive

    if data is not None:
        made = back_up(data, target)
    else:
        with options.open_client(url, token, ca).stream("/v1/backup", timeout_s=_SILENCE_S) as answer:
            made = receive(answer, target)
    if as_json:
        output.show_json({"path": str(target), "bytes": made.bytes, "head": made.head, "store_applied": made.applied})
        return
    typer.echo(f"{target}: {made.bytes:,} bytes, checked; all frames up to {made.head}")
