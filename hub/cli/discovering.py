"""``hub discover``: hubs that announce themselves in this network.

Place: a command module; see `hub.cli`.
"""

from typing import Annotated

import typer

from hub.cli import options, output


def discover(
    timeout: Annotated[str, typer.Option(help="How long to listen, e.g. 3s.")] = "3s",
    as_json: options.Json = False,
) -> None:
    """List hubs that announce themselves here (`hub serve --announce`); nothing of it is proven."""
    from device_sdk import discover as find

    rows = [
        {"name": hub.name, "url": hub.url, "fingerprint": hub.fingerprint, "version": hub.version}
        for hub in find(options.seconds(timeout))
    ]
    output.show_rows(rows, ["name", "url", "version", "fingerprint"], as_json=as_json, empty="no hub announces itself")
