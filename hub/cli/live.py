"""``hub watch``: readings as they arrive.

Place: a command module; see `hub.cli`.
"""

from typing import Annotated

import typer

from hub.cli import options


def watch(
    pattern: options.Patterns = None,
    since: Annotated[str | None, typer.Option(help="Begin in the past: -15m, RFC 3339, `last`, or a cursor.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many readings.")] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Show readings live: a table on a terminal, else one line each (`--json`: NDJSON)."""
    from device_sdk import Client
    from hub.cli.watching import run

    run(Client(url, token, ca=ca), pattern or ["**"], since, count, as_json=as_json)
