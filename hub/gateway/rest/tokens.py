"""Tokens of people, programs and gateways: make, list, end.

Place: `hub.gateway.rest`, above `hub.auth`.
"""

import asyncio
from typing import Annotated, Literal

from pydantic import Field

from hub.device_names import check_names
from hub.errors import BadRequestError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Pattern, Patterns, Question
from hub.gateway.rest.children import AutoAccept, Quota
from hub.live.patterns import MAX_PATTERNS, PatternSet
from hub.roles import EVERYTHING, Role, Verb

_Role = Literal["watcher", "operator", "admin", "gateway"]


class NewToken(Question):
    """Each verb of the role holds for ``match``, or for what ``scopes`` says of the verb; `[]` takes the verb away.

    A gateway's ``match`` are the names of the devices it may speak for, e.g. ``barn-*``, its ``name`` is that of a
    device; ``quota`` and ``auto_accept`` hold for all tokens of this name, and stay as they are where left out.
    """

    role: _Role
    match: Patterns = list(EVERYTHING)
    scopes: dict[Verb, Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)]] = {}
    name: Annotated[str, Field(max_length=100)] = ""
    quota: Quota | None = None
    auto_accept: AutoAccept | None = None


class TokenListed(Answer):
    """A token without its secret."""

    id: str
    name: str
    role: _Role
    scopes: dict[Verb, list[str]]
    created_ns: str


class Tokens(Answer):
    """All tokens but those of devices, oldest first."""

    tokens: list[TokenListed]


class TokenMade(Answer):
    """A new token: shown this once."""

    id: str
    token: str


async def list_tokens(call: Call, _: Nothing) -> JsonObject:
    """List all tokens but those of devices, without their secrets."""
    tokens = await asyncio.to_thread(call.hub.identities.tokens, namespace=call.namespace)
    return {
        "tokens": [
            {
                "id": t.id, "name": t.name, "role": t.role, "created_ns": str(t.created_ns),
                "scopes": {verb.value: list(patterns) for verb, patterns in t.scopes.items()},
            }
            for t in tokens
        ]
    }  # fmt: skip


async def add_token(call: Call, body: NewToken) -> JsonObject:
    """Make a token of a watcher, an operator, an admin or a gateway."""
    try:
        for patterns in (body.match, *body.scopes.values()):
            PatternSet(patterns)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    if body.role == "gateway":
        await _make_known(call, body)
    elif body.quota is not None or body.auto_accept is not None:
        raise BadRequestError("quota and auto_accept are of gateways alone")
    id_, token = await asyncio.to_thread(
        call.hub.identities.add_token,
        Role(body.role),
        body.match,
        body.name,
        scopes=body.scopes,
        namespace=call.namespace,
    )
    return {"id": id_, "token": token}


async def _make_known(call: Call, body: NewToken) -> None:
    if "match" not in body.model_fields_set:
        raise BadRequestError("match: say the names of the devices that the gateway may speak for, e.g. barn-*")
    for pattern in body.match:
        check_names(pattern, "match")
    await asyncio.to_thread(
        call.hub.children.set_rules, body.name, quota=body.quota, auto_accept=body.auto_accept,
        namespace=call.namespace,
    )  # fmt: skip


async def remove_token(call: Call, _: Nothing) -> None:
    """End a token."""
    await asyncio.to_thread(call.hub.identities.remove_token, call.path["id"], namespace=call.namespace)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/tokens", "Tokens", Verb.MANAGE, Nothing, Tokens, list_tokens,
             whole=True),
    Endpoint("POST", "/v1/tokens", "Make a token", Verb.MANAGE, NewToken, TokenMade, add_token, 201, whole=True),
    Endpoint("DELETE", "/v1/tokens/{id}", "End a token", Verb.MANAGE, Nothing, None, remove_token, 204, whole=True),
)  # fmt: skip
