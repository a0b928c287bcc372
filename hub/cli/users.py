"""``hub users``: people who sign in to the page.

Place: a command module; see `hub.cli`.
"""

import sys
from typing import Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.tokens import PersonRole, scopes_text, verb_patterns

app = typer.Typer(help="People who sign in to the page.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name to sign in with: letters, digits, . _ - @ (at most 64).")]
Role = Annotated[PersonRole, typer.Option(help="watcher reads; operator also commands and edits; admin also manages.")]
Match = Annotated[list[str] | None, typer.Option(help="Pattern its verbs hold for; repeat for more. Default: all.")]
Scope = Annotated[
    list[str] | None,
    typer.Option(metavar="VERB=PATTERN", help="Other patterns for one verb; `VERB=` takes it away. Repeatable."),
]


@app.command("add")
def add(
    name: Name,
    role: Role,
    match: Match = None,
    scope: Scope = None,
    invite: Annotated[bool, typer.Option("--invite", help="Print a one-time link to set the password.")] = False,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Add a user; the password is asked for, or read from stdin, and never an argument."""
    patterns, scopes = match or ["**"], verb_patterns(scope or ())
    password = None if invite else _ask_password(name)
    code: str | None
    if data is not None:
        from hub.passwords import check_password, hash_password
        from hub.roles import Role as AnyRole

        hash_ = None if password is None else hash_password(check_password(password, name))
        with options.open_users(data) as users:
            users.add(name, AnyRole(role.value), patterns, scopes=scopes, hash=hash_)
            code = users.invite(name) if invite else None
    else:
        body: dict[str, object] = {"name": name, "role": role.value, "match": patterns, "scopes": scopes}
        if password is not None:
            body["password"] = password
        client = options.open_client(url, token, ca)
        url, code = client.url, client.post("/v1/users", body)["invite"]
    if as_json:
        output.show_json({"name": name, "role": role.value, "invite": _link(url, code)})
    elif code is None:
        output.tell(f"{role.value} {name} can sign in at {url}")
    else:
        _show_link(name, url, code)


@app.command("ls")
def ls(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List users; ``password`` says whether one was set."""
    rows: list[dict[str, Any]]
    if data is not None:
        with options.open_users(data) as users:
            found = users.users()
        rows = [
            {"name": u.name, "role": u.role.value, "scopes": u.scopes, "has_password": u.has_password,
             "created_ns": str(u.created_ns)}
            for u in found
        ]  # fmt: skip
    else:
        rows = options.open_client(url, token, ca).get("/v1/users")["users"]
    if not as_json:
        rows = [
            {**row, "may": scopes_text(row["scopes"]), "password": row["has_password"],
             "created": output.show_time(row["created_ns"])}
            for row in rows
        ]  # fmt: skip
    output.show_rows(rows, ["name", "role", "may", "password", "created"], as_json=as_json, empty="no user")


@app.command("set")
def change(
    name: Name,
    role: Role,
    match: Match = None,
    scope: Scope = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Give a user another role or other scopes; who is signed in must sign in again."""
    patterns, scopes = match or ["**"], verb_patterns(scope or ())
    if data is not None:
        from hub.roles import Role as AnyRole

        with options.open_users(data) as users:
            users.change(name, AnyRole(role.value), patterns, scopes=scopes)
    else:
        body = {"role": role.value, "match": patterns, "scopes": scopes}
        options.open_client(url, token, ca).post(f"/v1/users/{name}", body)
    output.tell(f"{name} is {role.value} now")


@app.command("passwd")
def passwd(
    name: Name,
    invite: Annotated[bool, typer.Option("--invite", help="Print a one-time link to set it instead.")] = False,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Set a user's password: asked for, or read from stdin; who is signed in must sign in again."""
    password = None if invite else _ask_password(name)
    code = ""
    if data is not None:
        from hub.passwords import check_password, hash_password

        hash_ = "" if password is None else hash_password(check_password(password, name))
        with options.open_users(data) as users:
            if password is None:
                code = users.invite(name)
            else:
                users.set_password(name, hash_)
    else:
        client = options.open_client(url, token, ca)
        url = client.url
        if password is None:
            code = client.post(f"/v1/users/{name}/invite", {})["invite"]
        else:
            client.post(f"/v1/users/{name}/password", {"password": password})
    if code:
        _show_link(name, url, code)
    else:
        output.tell(f"{name} has a new password")


@app.command("rm")
def rm(
    name: Name,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Remove a user; sessions end within a second."""
    if data is not None:
        with options.open_users(data) as users:
            users.remove(name)
    else:
        options.open_client(url, token, ca).delete(f"/v1/users/{name}")
    output.tell(f"user {name} removed")


def _ask_password(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _link(url: str, code: str | None) -> str | None:
    # Behind the #: browsers send that part to nobody, so that no log of a proxy has it.
    return None if code is None else f"{url}/#invite={code}"


def _show_link(name: str, url: str, code: str) -> None:
    output.tell(f"one-time link for {name} to set the password, shown only now, good for 3 days:")
    typer.echo(_link(url, code))
