"""``hub log``: who changed what, when, from where.

Place: a command module; see `hub.cli`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

# Of one question; `hub log --limit` asks for more in several.
PAGE = 1000
_EVERY_S = 1.0
_COLUMNS = ["time", "who", "role", "from", "what", "target", "outcome", "count"]
Ask = Callable[[dict[str, Any]], dict[str, Any]]


def log(
    who: Annotated[str, typer.Option(help="Part of the name, or of the id of the token or session.")] = "",
    what: Annotated[str, typer.Option(help="Part of what was done, e.g. `DELETE` or `sign in`.")] = "",
    device: Annotated[str, typer.Option(help="Part of what it was done to.")] = "",
    since: Annotated[str | None, typer.Option(help="RFC 3339 with zone, epoch, or e.g. -1h.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest entries shown.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show who changed what: oldest first, the newest at the end."""
    wanted = {"who": who, "what": what, "device": device, "since": since}
    if data is not None:
        if follow:
            raise CliError("--follow asks a running hub: leave --data away", ExitCode.USAGE)
        with options.open_change_log(data) as files:
            rows = _read_files(files, wanted, limit)
    else:
        client = options.open_client(url, token, ca)

        def ask(parameters: dict[str, Any]) -> dict[str, Any]:
            return client.get("/v1/log", {**wanted, **parameters})

        rows = _read(ask, limit)
        if follow:
            _follow(ask, rows, as_json)
    output.show_rows([_row(entry) for entry in rows] if not as_json else rows, _COLUMNS, as_json=as_json,
                     empty="nothing in the log")  # fmt: skip


def _read(ask: Ask, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before: int | None = 0
    while before is not None and len(rows) < limit:
        answer = ask({"limit": min(limit - len(rows), PAGE), "before": before})
        rows += answer["entries"]
        before = answer["next"]
    return rows[::-1]


def _read_files(files: Any, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from hub.change_log import Filter
    from hub.query import parse_time
    from hub.roles import DEFAULT_NAMESPACE

    since_ns = 0 if wanted["since"] is None else parse_time(wanted["since"], time.time_ns())
    chosen = Filter(wanted["who"], wanted["what"], wanted["device"], since_ns)
    return [asdict(entry) for entry in reversed(files.entries(DEFAULT_NAMESPACE, limit, chosen))]


def _follow(ask: Ask, rows: list[dict[str, Any]], as_json: bool) -> None:
    after = 0
    while True:
        for entry in rows:
            after = max(after, entry["id"])
            text = json.dumps(entry) if as_json else "  ".join(str(v) for v in _row(entry).values() if v != "")
            sys.stdout.write(output.printable(text) + "\n")
        sys.stdout.flush()
        time.sleep(_EVERY_S)
        rows = _read(lambda given, last=after: ask({**given, "after": last}), PAGE)  # type: ignore[misc]


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": output.show_time(entry["time_ns"]), "who": entry["who"], "role": entry["role"], "from": entry["peer"],
        "what": entry["what"], "target": entry["target"], "outcome": entry["outcome"], "count": entry["count"],
    }  # fmt: skip
