"""The HTTP side of the port: REST, OpenAPI, the page; errors as JSON.

Owns: from a request to a `Call` (credential, scope, parameters) and from an
answer or an error to a response. Place: top of the gateway; uvicorn runs
`make_app`, `hub.app` builds it. Decides nothing: what is asked is declared in
`rest`, who asks in `access`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, get_origin

import orjson
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, WATCH_PATH
from hub.errors import BadRequestError, ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import LoginLinks, Parts, Peer
from hub.gateway.access import identify as identify
from hub.gateway.asyncapi import document_bytes
from hub.gateway.body import Body
from hub.gateway.endpoint import Call, Endpoint, version
from hub.gateway.influx import influx_routes
from hub.gateway.mqtt_door import MQTT_PATH
from hub.gateway.mqtt_socket import SUBPROTOCOL as MQTT_SUBPROTOCOL
from hub.gateway.openapi import openapi
from hub.gateway.page import SECURITY_HEADERS, SecurityHeaders, page_routes
from hub.gateway.poll import watch_poll
from hub.gateway.recording import Record, refused
from hub.gateway.rest import ENDPOINTS
from hub.gateway.sse import watch_events
from hub.roles import LOCAL, Identity, Verb, covers_all

_log = logging.getLogger("hub.gateway")

# The largest body is a bulk enrolment of 10,000 names.
MAX_BODY_BYTES = 1024 * 1024
# What a stranger may send before anything is known of him: a claim is some 300 bytes.
MAX_OPEN_BODY_BYTES = 4096
BODY_S = 10.0
_REASONS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def make_app(hub: Parts, *, links: LoginLinks | None = None, socket_io: ASGIApp | None = None) -> Starlette:
    """Return the ASGI application.

    Args:
        links: login links that ``hub serve`` issues; None = none can be redeemed.
        socket_io: what answers at ``/socket.io`` (`hub.gateway.socket_io`), if anything.
    """
    return Starlette(
        routes=[
            *(Route(e.path, _route(hub, e), methods=[e.method]) for e in ENDPOINTS),
            Route("/openapi.json", _description),
            Route("/v1/asyncapi.json", _protocols),
            Route(WATCH_PATH, _watch_route(hub)),
            Route(DEVICE_PATH, _use_websocket),
            Route(MQTT_PATH, _use_websocket),
            *influx_routes(hub, partial(authorize, hub, verb=Verb.WRITE)),
            *([] if socket_io is None else [Mount("/socket.io", socket_io)]),
            *page_routes(hub, links or LoginLinks(time.monotonic)),
        ],
        middleware=[Middleware(SecurityHeaders), *_for_other_origins(hub.config.allow_origin)],
        exception_handlers={HubError: _hub_error, HTTPException: _http_error, Exception: _bug},
    )


def _for_other_origins(origins: Sequence[str]) -> list[Middleware]:
    """Return what lets browsers show our answers to pages of these origins; they bring a token, no cookie."""
    if not origins:
        return []
    cors = Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"],
        expose_headers=["ETag", "Next-Page", "Retry-After"],
    )  # fmt: skip
    return [cors]


async def _description(request: Request) -> Response:
    return Response(_document(), media_type="application/json")


async def _protocols(request: Request) -> Response:
    return Response(document_bytes(), media_type="application/json")


@cache
def _document() -> bytes:
    # 34 ms (CPython 3.11), so when it is first asked for, and once.
    return orjson.dumps(openapi(ENDPOINTS, version()))


def authorize(
    hub: Parts, request: Request, verb: Verb, *, whole: bool = False, record: Record | None = None,
    headers: Mapping[str, str] | None = None,
) -> Identity:  # fmt: skip
    """Return who asks; ``record`` learns it also when it may not.

    Args:
        headers: instead of the request's, where a credential may stand elsewhere.

    Raises:
        UnauthenticatedError: nobody, or a credential that is not known.
        ForbiddenError: known, but it may do ``verb`` with nothing, or not with the ``whole`` namespace.
    """
    peer = _peer(request, headers)
    identity = identify(hub, peer.headers, peer, is_change=request.method not in ("GET", "HEAD"))
    if identity is None:
        if peer.has_credential:
            hub.change_log.refused(refused(f"{request.method} {_route_path(request)}", peer.address))
        raise UnauthenticatedError(
            "send Authorization: Bearer with a token; make one with: hub tokens add --role watcher"
        )
    if record is not None:
        record.identity = identity
    granted = identity.patterns(verb)
    if granted and (not whole or covers_all(granted)):
        return identity
    if verb is Verb.WRITE and identity is LOCAL:
        raise UnauthenticatedError("send Authorization: Bearer with the token of a device or gateway")
    if identity is LOCAL:
        raise UnauthenticatedError(
            "this needs an admin: make a token with `hub tokens add --role admin`, or use the login link"
        )
    allowed = f"may {verb} only {', '.join(granted)}" if granted else f"is a {identity.role}"
    raise ForbiddenError(
        f"this needs {verb} on {'**' if whole else 'something'}; the credential {identity.name!r} {allowed}"
    )


def _route_path(request: Request) -> str:
    """Return the route as it is declared: what stands in the place of an id may be a whole token."""
    return str(getattr(request.scope.get("route"), "path", request.url.path))


def _peer(request: Request, headers: Mapping[str, str] | None = None) -> Peer:
    return Peer("" if request.client is None else request.client.host, headers or request.headers)


def _route(hub: Parts, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        body = Body(request)
        # What stores readings is counted, also when it may not: else nobody sees a device with a wrong token.
        counted = hub.posts.figures.request(body) if endpoint.verb is Verb.WRITE else nullcontext()
        async with Record(hub.change_log, endpoint, _peer(request), request.path_params) as record:
            with counted:
                return await respond(request, record, body)

    async def respond(request: Request, record: Record, body: Body) -> Response:
        identity, granted = LOCAL, LOCAL.patterns(Verb.READ)
        if endpoint.verb is not None:
            identity = authorize(hub, request, endpoint.verb, whole=endpoint.whole, record=record)
        most = MAX_OPEN_BODY_BYTES if endpoint.verb is None else MAX_BODY_BYTES
        if not endpoint.bodies and endpoint.method in ("POST", "PATCH") and endpoint.takes.model_fields:
            question = _validated(endpoint.takes, _parse_json(await _read_body(request, most)))
        else:
            question = _validated(endpoint.takes, _query_object(endpoint.takes, request))
        record.question = question
        if endpoint.verb is not None:
            if hub.grants.has_hooks:
                identity = await hub.grants.narrow(identity, endpoint.verb, _asked(question, request))
            granted = identity.patterns(endpoint.verb)
            if endpoint.whole and not covers_all(granted):
                raise ForbiddenError(f"this needs {endpoint.verb} on **; a hook leaves {', '.join(granted)}")
        call = Call(hub, identity, request.path_params, granted, _peer(request), body)
        answer = await endpoint.answer(call, question)
        if isinstance(answer, Response):
            return answer
        if answer is None:
            return Response(status_code=endpoint.status)
        status = 503 if answer.get("status") == "failed" else endpoint.status
        return Response(orjson.dumps(answer), status, media_type="application/json")

    return handle


def _watch_route(hub: Parts) -> Callable[[Request], Awaitable[Response]]:
    async def watch(request: Request) -> Response:
        identity = await _who_watches(hub, request)
        query, headers = request.query_params, request.headers
        peer = _peer(request).address
        if "wait" in query:
            return await watch_poll(hub.live, hub.store, hub.consumer, identity, query, headers, request.receive, peer)
        return watch_events(hub.live, hub.store, hub.consumer, identity, query, headers, peer)

    return watch


async def _who_watches(hub: Parts, request: Request) -> Identity:
    """Return who asks, with what hooks leave; nothing may be awaited between this and the entry among the watchers."""
    identity = authorize(hub, request, Verb.READ)
    while hub.grants.has_hooks:
        narrowed = await hub.grants.narrow(identity, Verb.READ, request.query_params.getlist("match"))
        # While hooks were asked it was no watcher yet whom the end of its credential ends: it is looked at again.
        before, identity = identity, authorize(hub, request, Verb.READ)
        if identity == before:
            return narrowed
    return identity


def _asked(question: BaseModel, request: Request) -> tuple[str, ...]:
    """Return the patterns that a request is about, for hooks; empty: all that its credential may see."""
    path = request.path_params
    if "device" in path:
        return (f"{path['device']}/{path.get('channel', '**')}",)
    match = getattr(question, "match", ())
    return (match,) if isinstance(match, str) else tuple(match)


def _query_object(model: type[BaseModel], request: Request) -> dict[str, Any]:
    """Return the query with repeated parameters as lists where the model has a list."""
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    query = request.query_params
    for name in query:
        if name not in lists and len(query.getlist(name)) > 1:
            raise BadRequestError(f"parameter {name[:40]!r} is given twice")
    return {name: query.getlist(name) if name in lists else query[name] for name in query}


async def _read_body(request: Request, most: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise HTTPException(413, f"the body is over {most} bytes: send it in several requests")
    except TimeoutError as error:
        raise BadRequestError(f"the body did not arrive within {BODY_S:g} s") from error
    except ClientDisconnect as error:
        raise BadRequestError("the client went away") from error
    return bytes(body)


def _parse_json(body: bytes) -> object:
    try:
        # Where all fields have defaults, nothing says as much as an empty object.
        return orjson.loads(body or b"{}")
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error


def _validated(model: type[BaseModel], found: object) -> BaseModel:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}" for p in problems[:3]]
        raise BadRequestError("; ".join(told)) from error


async def _use_websocket(request: Request) -> Response:
    subprotocol = MQTT_SUBPROTOCOL if request.url.path == MQTT_PATH else DEVICE_SUBPROTOCOL
    return _error(
        426, "upgrade_required", f"this address speaks WebSocket (subprotocol {subprotocol})",
        {"Upgrade": "websocket", "Connection": "Upgrade"},
    )  # fmt: skip


def _error(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps({"error": {"reason": reason, "message": message}})
    return Response(body, status, headers, media_type="application/json")


async def _hub_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError), "registered for HubError alone"
    if error.status >= 500:
        # What passes by itself is said by who has the trouble; a thousand devices that come again would fill the log.
        level = logging.ERROR if error.retry_s is None else logging.DEBUG
        _log.log(level, "request failed path=%s reason=%s: %s", request.url.path, error.reason, error)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_s))
    return _error(error.status, error.reason, str(error), headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for HTTPException alone"
    reason = _REASONS.get(error.status_code, "bad_request")
    return _error(error.status_code, reason, error.detail, dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    # Starlette answers outside the middleware here, and then raises again, so uvicorn logs the traceback.
    return _error(500, HubError.reason, "the hub failed; its log says why", SECURITY_HEADERS)
