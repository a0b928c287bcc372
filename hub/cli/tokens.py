"""``hub tokens``: credentials of watchers, operators, admins and gateways.

Place: a command module; see `hub.cli`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output

if TYPE_CHECKING:
    from hub.roles import Verb

app = typer.Typer(help="Make and end tokens of watchers, operators, admins and gateways.", no_args_is_help=True)


class PersonRole(StrEnum):
    """Roles of users of the page."""

    ADMIN = "admin"
    OPERATOR = "operator"
    WATCHER = "watcher"


class TokenRole(StrEnum):
    """Roles a token may have; a device's token comes from ``hub devices add``."""

    ADMIN = "admin"
    GATEWAY = "gateway"
    OPERATOR = "operator"
    WATCHER = "watcher"


@app.command("add")
def add(
    role: Annotated[
        TokenRole,
        typer.Option(
            help="watcher reads; operator also commands and edits; admin also manages; gateway sends for others."
        ),
    ],
    match: Annotated[
        list[str] | None, typer.Option(help="Pattern its verbs hold for; repeat for more. Default: all.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="VERB=PATTERN", help="Other patterns for one verb; `VERB=` takes it away. Repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for, shown in listings; of a gateway, its name.")] = "",
    prefix: Annotated[
        list[str] | None, typer.Option(help="Of a gateway: names of devices it may speak for, with *. Repeatable.")
    ] = None,
    quota: Annotated[int | None, typer.Option(help="Of a gateway: how many devices may be accepted.")] = None,
    auto_accept: Annotated[
        list[str] | None, typer.Option(help="Of a gateway: new devices of these names need nobody's word. Repeatable.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Make a token and print it, which is shown only now."""
    patterns, scopes = match or ["**"], verb_patterns(scope or ())
    rules = _gateway_rules(role, prefix, quota, auto_accept, is_scoped=bool(match or scope))
    if role is TokenRole.GATEWAY:
        patterns = prefix or []
    if data is not None:
        from hub.roles import Role

        with options.open_identities(data) as identities, options.open_children(data, identities) as children:
            if role is TokenRole.GATEWAY:
                children.set_rules(name, **rules)
            id_, secret = identities.add_token(Role(role.value), patterns, name, scopes=scopes)
    else:
        body = {"role": role.value, "match": patterns, "scopes": scopes, "name": name, **rules}
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
    """List all tokens but those of devices; secrets are not known any more."""
    rows: list[dict[str, Any]]
    if data is not None:
        with options.open_identities(data) as identities:
            found = identities.tokens()
        rows = [
            {"id": t.id, "role": t.role.value, "scopes": t.scopes, "name": t.name, "created_ns": str(t.created_ns)}
            for t in found
        ]
    else:
        rows = options.open_client(url, token, ca).get("/v1/tokens")["tokens"]
    if not as_json:
        rows = [
            {**row, "may": scopes_text(row["scopes"]), "created": output.show_time(row.get("created_ns"))}
            for row in rows
        ]
    output.show_rows(rows, ["id", "role", "may", "name", "created"], as_json=as_json, empty="no token")


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


def _gateway_rules(
    role: TokenRole,
    prefix: list[str] | None,
    quota: int | None,
    auto_accept: list[str] | None,
    *,
    is_scoped: bool,
) -> dict[str, Any]:
    """Return what is said of a gateway's children; raise where an option is not of this role."""
    if role is TokenRole.GATEWAY and (is_scoped or not prefix):
        raise typer.BadParameter("a gateway needs --prefix, e.g. 'barn-*', and has no --match or --scope")
    rules: dict[str, Any] = {"quota": quota, "auto_accept": auto_accept}
    if role is not TokenRole.GATEWAY and (prefix or quota is not None or auto_accept):
        raise typer.BadParameter("--prefix, --quota and --auto-accept are for --role gateway")
    return {name: value for name, value in rules.items() if value is not None}


def verb_patterns(options: Sequence[str]) -> "dict[Verb, list[str]]":
    """Return verb → patterns of options ``VERB=PATTERN``."""
    from hub.roles import Verb

    scopes: dict[Verb, list[str]] = {}
    for option in options:
        word, _, pattern = option.partition("=")
        if word not in list(Verb):
            raise typer.BadParameter(f"{word!r} is no verb: use one of {', '.join(Verb)}, as VERB=PATTERN")
        scopes.setdefault(Verb(word), []).extend([pattern] if pattern else [])
    return scopes


def scopes_text(scopes: Mapping[str, Sequence[str]]) -> str:
    """Return scopes for people, verbs with the same patterns together: ``read, edit: **; command: greenhouse-*``."""
    verbs: dict[tuple[str, ...], list[str]] = {}
    for verb, patterns in scopes.items():
        verbs.setdefault(tuple(patterns), []).append(verb)
    return "; ".join(f"{', '.join(names)}: {' '.join(patterns)}" for patterns, names in verbs.items())
