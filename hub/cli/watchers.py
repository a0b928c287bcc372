"""``hub watchers``: who watches now, from where, and how far behind.

Place: a command module; see `hub.cli`.
"""

from typing import Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.status import size_text

_COLUMNS = [
    "name", "who", "role", "transport", "from", "since", "sub", "match", "phase", "behind", "msg/s", "conflated",
    "unsent",
]  # fmt: skip


def watchers(
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="Connections shown, the furthest behind first.")] = 100,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Show who watches now and how each subscription stands; takes an operator's or admin's token."""
    answer = options.open_client(url, token, ca).get("/v1/watchers", {"limit": limit})
    if as_json:
        output.show_json(answer)
        return
    rows = [row for watcher in answer["watchers"] for row in _rows(watcher)]
    output.show_rows(rows, _COLUMNS, as_json=False, empty="nobody watches")
    output.tell(f"{answer['count']} connections, {answer['behind']} behind, {size_text(answer['unsent_bytes'])} unsent")


def _rows(watcher: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each subscription; a connection without one has a line as well."""
    connection = {
        "name": watcher["name"], "who": output.printable(watcher["identity"] or watcher["identity_id"]),
        "role": watcher["role"], "transport": watcher["transport"], "from": watcher["peer"],
        "since": output.show_time(watcher["since_ns"]), "unsent": size_text(watcher["unsent_bytes"]),
    }  # fmt: skip
    subscriptions = [
        {
            "sub": one["name"], "match": output.printable(" ".join(one["match"])), "phase": one["phase"],
            "behind": f"{one['behind']:,} ({one['behind_s']:g} s)" if one["behind"] else "",
            "msg/s": one["messages_per_s"], "conflated": one["conflated"],
        }
        for one in watcher["subscriptions"]
    ]  # fmt: skip
    return [{**connection, **one} for one in subscriptions or [{}]]
