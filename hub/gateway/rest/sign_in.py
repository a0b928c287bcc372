"""Signing in and out of the page, and who the asker is.

Place: `hub.gateway.rest`, above `hub.sign_in`. These are open to all: they say who somebody is.
"""

import asyncio
from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.responses import Response

from hub.change_log import Entry
from hub.errors import ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import SESSION_COOKIE, identify, is_from_page
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question
from hub.gateway.recording import write
from hub.gateway.rest.users import Password
from hub.roles import SENDERS, Identity, Verb
from hub.users import MAX_SECRET_CHARS, SESSION_S


class Login(Question):
    """A user's name and password."""

    name: Annotated[str, Field(max_length=64)]
    password: Password


class Acceptance(Question):
    """The code of an invitation, and the password to set."""

    code: Annotated[str, Field(max_length=MAX_SECRET_CHARS)]
    password: Password


class Me(Answer):
    """Who asks; ``signed_in``: by a session of the page, which `POST /v1/logout` ends. ``id``: of the credential."""

    id: str
    name: str
    role: Literal["device", "watcher", "operator", "admin"]
    namespace: str
    scopes: dict[Verb, list[str]]
    signed_in: bool


async def sign_in(call: Call, body: Login) -> Response:
    """Sign in: the answer sets the session's cookie, and ends the session that was there."""
    _check_origin(call)
    try:
        cookie = await call.hub.sign_in.sign_in(body.name, body.password, call.peer.address)
    except UnauthenticatedError as error:
        # What was typed as a name may be a password: only a name that is one is written down.
        is_user = await asyncio.to_thread(call.hub.users.password_of, body.name) is not None
        told = body.name if is_user else ""
        call.hub.change_log.refused(Entry("sign in", told, error.reason, peer=call.peer.address))
        raise
    except HubError as error:
        call.hub.change_log.refused(Entry("sign in", outcome=error.reason, peer=call.peer.address))
        raise
    return await _signed_in(call, cookie, "sign in")


async def accept(call: Call, body: Acceptance) -> Response:
    """Set the password that an invitation is for, and sign in."""
    _check_origin(call)
    try:
        _, cookie = await call.hub.sign_in.accept(body.code, body.password)
    except UnauthenticatedError as error:
        call.hub.change_log.refused(Entry("accept invitation", outcome=error.reason, peer=call.peer.address))
        raise
    return await _signed_in(call, cookie, "accept invitation")


async def sign_out(call: Call, _: Nothing) -> Response:
    """End the session; without one there is nothing to end."""
    _check_origin(call)
    await _end_session(call)
    answer = Response(status_code=204)
    answer.delete_cookie(SESSION_COOKIE, path="/", secure=call.hub.config.is_tls, httponly=True, samesite="strict")
    return answer


async def who_am_i(call: Call, _: Nothing) -> JsonObject:
    """Say who asks, and what it may do."""
    who = identify(call.hub, call.peer.headers, call.peer)
    if who is None:
        raise UnauthenticatedError("nobody is signed in here: POST /v1/login, or send Authorization: Bearer")
    return _me(who, is_session="authorization" not in call.peer.headers and who.id != "local")


async def _signed_in(call: Call, cookie: str, what: str) -> Response:
    await _end_session(call)
    who = call.hub.users.authenticate(cookie)
    if who is None:
        raise UnauthenticatedError("the session ended in this moment: sign in again")
    entry = Entry(what, who=who.name, role=who.role.value, credential=who.id, peer=call.peer.address,
                  namespace=who.namespace)  # fmt: skip
    await write(call.hub.change_log, entry)
    answer = Response(orjson.dumps(_me(who, is_session=True)), media_type="application/json")
    answer.set_cookie(
        SESSION_COOKIE, cookie, max_age=int(SESSION_S), path="/", secure=call.hub.config.is_tls, httponly=True,
        samesite="strict",
    )  # fmt: skip
    return answer


async def _end_session(call: Call) -> None:
    old = call.peer.cookie
    if not old:
        return
    if (user := call.hub.users.authenticate(old)) is not None:
        await asyncio.to_thread(call.hub.users.end_session, user.id)
    elif (link := call.hub.identities.authenticate(old)) is not None and link.role not in SENDERS:
        await asyncio.to_thread(call.hub.identities.remove_token, link.id, namespace=link.namespace)


def _check_origin(call: Call) -> None:
    """A page of another site could sign its visitor in as somebody else."""
    headers = call.peer.headers
    if ("origin" in headers or "sec-fetch-site" in headers) and not is_from_page(headers):
        raise ForbiddenError("sign in from the hub's own page: this request came from another site")


def _me(who: Identity, *, is_session: bool) -> JsonObject:
    return {
        "id": who.id, "name": who.name, "role": who.role.value, "namespace": who.namespace, "signed_in": is_session,
        "scopes": {verb.value: list(patterns) for verb, patterns in who.scopes.items()},
    }  # fmt: skip


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/login", "Sign in", None, Login, Me, sign_in),
    Endpoint("POST", "/v1/logout", "Sign out", None, Nothing, None, sign_out, 204),
    Endpoint("POST", "/v1/invite", "Set the password of an invitation", None, Acceptance, Me, accept),
    Endpoint("GET", "/v1/me", "Who am I?", None, Nothing, Me, who_am_i),
)  # fmt: skip
