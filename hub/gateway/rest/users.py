"""Users of the page: add, list, change, remove, invite.

Place: `hub.gateway.rest`, above `hub.users`.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from hub.errors import BadRequestError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Pattern, Patterns, Question
from hub.live.patterns import MAX_PATTERNS, PatternSet
from hub.passwords import MAX_CHARS
from hub.roles import EVERYTHING, Role, Verb

_Role = Literal["watcher", "operator", "admin"]
Password = Annotated[str, Field(max_length=MAX_CHARS)]


class UserScopes(Question):
    """Each verb of the role holds for ``match``, or for what ``scopes`` says of the verb; `[]` takes the verb away."""

    role: _Role
    match: Patterns = list(EVERYTHING)
    scopes: dict[Verb, Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)]] = {}


class NewUser(UserScopes):
    """A user with a password, or without: then the answer has an invitation."""

    name: Annotated[str, Field(max_length=64)]
    password: Password | None = None


class NewPassword(Question):
    """What the user shall sign in with from now on."""

    password: Password


class UserListed(Answer):
    """A user; the hash of the password is never told."""

    name: str
    role: _Role
    scopes: dict[Verb, list[str]]
    has_password: bool
    created_ns: str


class UserList(Answer):
    """The users of the caller's namespace, by name."""

    users: list[UserListed]


class Invitation(Answer):
    """``invite``: a code for `POST /v1/invite`, good once, shown this once; null when a password was given."""

    name: str
    invite: str | None


async def list_users(call: Call, _: Nothing) -> JsonObject:
    """List the users of the page."""
    users = await asyncio.to_thread(call.hub.users.users, namespace=call.namespace)
    return {
        "users": [
            {
                "name": u.name, "role": u.role.value, "has_password": u.has_password, "created_ns": str(u.created_ns),
                "scopes": {verb.value: list(patterns) for verb, patterns in u.scopes.items()},
            }
            for u in users
        ]
    }  # fmt: skip


async def add_user(call: Call, body: NewUser) -> JsonObject:
    """Add a user of the page; without a password the answer has a one-time code to set it."""
    _check_patterns(body)
    hash_ = None if body.password is None else await call.hub.sign_in.hash(body.password, body.name)
    await asyncio.to_thread(
        call.hub.users.add, body.name, Role(body.role), body.match, scopes=body.scopes, hash=hash_,
        namespace=call.namespace,
    )  # fmt: skip
    return {"name": body.name, "invite": None if hash_ else await _invite(call, body.name)}


async def change_user(call: Call, body: UserScopes) -> None:
    """Give a user another role or other scopes; its sessions end."""
    _check_patterns(body)
    await asyncio.to_thread(
        call.hub.users.change, call.path["user"], Role(body.role), body.match, scopes=body.scopes,
        namespace=call.namespace,
    )  # fmt: skip


async def invite_user(call: Call, _: Nothing) -> JsonObject:
    """Make a one-time code with which the user sets a new password; the present one stays good until then."""
    return {"name": call.path["user"], "invite": await _invite(call, call.path["user"])}


async def set_password(call: Call, body: NewPassword) -> None:
    """Replace a user's password; its sessions end."""
    hash_ = await call.hub.sign_in.hash(body.password, call.path["user"])
    await asyncio.to_thread(call.hub.users.set_password, call.path["user"], hash_, namespace=call.namespace)


async def remove_user(call: Call, _: Nothing) -> None:
    """Remove a user; its sessions end within a second."""
    await asyncio.to_thread(call.hub.users.remove, call.path["user"], namespace=call.namespace)


async def _invite(call: Call, name: str) -> str:
    return await asyncio.to_thread(call.hub.users.invite, name, namespace=call.namespace)


def _check_patterns(body: UserScopes) -> None:
    patterns: Sequence[Sequence[str]] = (body.match, *body.scopes.values())
    try:
        for several in patterns:
            PatternSet(several)
    except ValueError as error:
        raise BadRequestError(str(error)) from error


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/users", "Users of the page", Verb.MANAGE, Nothing, UserList, list_users, whole=True),
    Endpoint("POST", "/v1/users", "Add a user", Verb.MANAGE, NewUser, Invitation, add_user, 201, whole=True),
    Endpoint("POST", "/v1/users/{user}", "Change role and scopes", Verb.MANAGE, UserScopes, None, change_user, 204,
             whole=True),
    Endpoint("POST", "/v1/users/{user}/invite", "Invite to set a password", Verb.MANAGE, Nothing, Invitation,
             invite_user, 201, whole=True),
    Endpoint("POST", "/v1/users/{user}/password", "Set a password", Verb.MANAGE, NewPassword, None, set_password, 204,
             whole=True),
    Endpoint("DELETE", "/v1/users/{user}", "Remove a user", Verb.MANAGE, Nothing, None, remove_user, 204, whole=True),
)  # fmt: skip
