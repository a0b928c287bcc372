"""``hub tokens``: credentials of watchers and admins.

Place: a command module; see `hub.cli`.
"""

from enum import StrEnum
from typing import Annotated, Any

import typer

from hub.cli import options, output

app = typer.Typer(help="Make and end tokens of watchers and admins.", no_args_is_help=True)


class TokenRole(StrEnum):
    """Roles a token may have; a device's token comes from ``hub devices add``."""

    ADMIN = "admin"
    WATCHER = "watcher"


@app.command("add")
def add(
    role: Annotated[TokenRole, typer.Option(help="admin manages; watcher only reads.")],
    match: Annotated[list[str] | None, typer.Option(help="Pattern it may read; repeat for more. Default: all.")] = None,
    name: Annotated[str, typer.Option(help="What it is for, shown in listings.")] = "",
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Make a token and print it, which is shown only now."""
    patterns = match or ["**"]
    if data is not None:
        from hub.auth import Role

        with options.open_identities(data) as identities:
            id_, secret = identities.add_token(Role(role.value), patterns, name)
    else:
        body = {"role": role.value, "match": patterns, "name": name}
        answer = options.open_client(url, token, ca).post("/v1/tokens", body)
        id_, secret = answer["id"], answer["token"]
    if as_json:
        output.show_json({"id": id_, "token": secret, "role": role.value, "match": patterns, "name": name})
        return
    output.tell(f"{role.value} token {id_}, shown only now:")
    typer.echo(secret)


@app.command("ls")
def ls(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List tokens of watchers and admins; secrets are not known any more."""
    rows: list[dict[str, Any]]
    if data is not None:
        with options.open_identities(data) as identities:
            found = identities.tokens()
        rows = [
            {"id": t.id, "role": t.role.value, "match": list(t.match), "name": t.name, "created_ns": str(t.created_ns)}
            for t in found
        ]
    else:
        rows = options.open_client(url, token, ca).get("/v1/tokens")["tokens"]
    if not as_json:
        rows = [{**row, "created": output.show_time(row.get("created_ns"))} for row in rows]
    output.show_rows(rows, ["id", "role", "match", "name", "created"], as_json=as_json, empty="no token")


@app.command("rm")
def rm(
    id: Annotated[str, typer.Argument(help="The id shown by `hub tokens ls`.")],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """End a token within a second."""
    if data is not None:
        with options.open_identities(data) as identities:
            identities.remove_token(id)
    else:
        options.open_client(url, token, ca).delete(f"/v1/tokens/{id}")
    output.tell(f"token {id} ended")
