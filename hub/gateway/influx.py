"""The write routes of InfluxDB 2 and 1, so that Telegraf and InfluxDB's clients send to a hub as they are.

Owns: ``/api/v2/write``, ``/write``, ``/ping``, ``/health``, ``/query`` as far as Telegraf asks it; where such clients
put a token; errors as they read them. Place: beside `rest`, above `blocks`; `hub.gateway.http` mounts it. Must not:
know what a point means (`hub.decode.line`). Source: docs.influxdata.com, InfluxDB v2 API and v1 compatibility.

``bucket``, ``org``, ``db`` and ``rp`` say nothing here: the namespace is the credential's. Lines that are refused are
named, and those beside them are stored: InfluxDB calls that a partial write. Its clients send a failed request again;
points with a time are then in the store once, for the same channel and time is the same reading.
"""

import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub.errors import BadRequestError, HubError
from hub.gateway.access import Parts
from hub.gateway.blocks import MAX_LINES_BYTES, store_lines
from hub.gateway.body import Body
from hub.gateway.endpoint import version
from hub.post_outcome import Outcome
from hub.roles import Identity

WRITE_V2, WRITE_V1, PING, HEALTH, QUERY = "/api/v2/write", "/write", "/ping", "/health", "/query"
# What each says of a precision; the default is ns.
_PRECISIONS_V2 = {"ns": "ns", "us": "us", "ms": "ms", "s": "s"}
_PRECISIONS_V1 = {**_PRECISIONS_V2, "n": "ns", "u": "us", "m": "m", "h": "h"}
# Lines that a message names; all are counted.
_MOST_NAMED = 10
_MOST_QUERY = 4096
_CODES = {
    400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "not found", 409: "conflict",
    413: "request too large", 415: "invalid", 422: "unprocessable entity", 429: "too many requests",
    503: "unavailable",
}  # fmt: skip


class Authorize(Protocol):
    """Says who asks (`hub.gateway.http.authorize`)."""

    def __call__(self, request: Request, *, headers: Mapping[str, str]) -> Identity:
        """Return who asks; raise `HubError` when nobody does who may write."""


_Handler = Callable[[Request], Awaitable[Response]]


def influx_routes(hub: Parts, authorize: Authorize) -> list[Route]:
    """Return the routes."""
    return [
        Route(WRITE_V2, _writer(hub, authorize, _PRECISIONS_V2, _error_v2), methods=["POST"]),
        Route(WRITE_V1, _writer(hub, authorize, _PRECISIONS_V1, _error_v1), methods=["POST"]),
        Route(PING, _ping, methods=["GET", "HEAD"]),
        Route(HEALTH, _health(hub), methods=["GET"]),
        Route(QUERY, _query, methods=["GET", "POST"]),
    ]


def _writer(
    hub: Parts, authorize: Authorize, precisions: Mapping[str, str], error_of: Callable[[int, str], dict[str, str]]
) -> _Handler:
    async def store(request: Request, body: Body) -> Outcome:
        sender = authorize(request, headers=_with_credential(request))
        precision = precisions.get(request.query_params.get("precision", "ns"))
        if precision is None:
            raise BadRequestError(f"precision is one of {', '.join(precisions)}")
        with hub.posts.request(sender, name=request.headers.get("idempotency-key")) as posted:
            await store_lines(posted, body.pieces(MAX_LINES_BYTES), precision, "")
        return posted.outcome

    async def write(request: Request) -> Response:
        body = Body(request)
        try:
            with hub.posts.figures.request(body):
                outcome = await store(request, body)
            status, message, retry_s = _told(outcome)
        except HubError as error:
            status, message, retry_s = error.status, str(error), error.retry_s
        if status == 204:
            return Response(status_code=204)
        headers = {"X-Influxdb-Error": message[:200].encode("ascii", "replace").decode().replace("\n", " ")}
        if retry_s is not None:
            headers["Retry-After"] = str(math.ceil(retry_s))
        return JSONResponse(error_of(status, message), status, headers)

    return write


def _told(outcome: Outcome) -> tuple[int, str, float | None]:
    """Return status, message and when to ask again, of a request that was read to its end."""
    if not outcome.rejected:
        return 204, "", None
    lines = "; ".join(
        f"line {one.at}: {f'{one.device}/{one.channel}: ' if one.channel else ''}{one.why}"
        for one in outcome.in_order()[:_MOST_NAMED]
    )
    if not outcome.accepted and outcome.retry_s is not None:
        return 403, lines, outcome.retry_s
    # Never a status that is sent again while a part of it is stored: what waits behind it would wait for ever.
    return 400, f"partial write: {lines}; dropped={outcome.rejected}", None


def _error_v2(status: int, message: str) -> dict[str, str]:
    return {"code": _CODES.get(status, "internal error"), "message": message}


def _error_v1(status: int, message: str) -> dict[str, str]:
    return {"error": message}


def _with_credential(request: Request) -> Mapping[str, str]:
    """Return the headers, with the token as Bearer wherever such a client put it.

    ``Token USER:TOKEN``, ``Basic`` with the token as password, ``?u=USER&p=TOKEN``; the user is not looked at.
    """
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    token = ""
    if scheme.lower() == "token":
        token = said.strip().rpartition(":")[2]
    elif scheme.lower() == "basic":
        try:
            token = base64.b64decode(said.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            token = "-"  # noqa: S105 - nobody's: it is refused, and noted as a wrong one
    elif not scheme and request.url.path == WRITE_V1:
        token = request.query_params.get("p", "")
    return {**request.headers, "authorization": f"Bearer {token}"} if token else request.headers


async def _ping(request: Request) -> Response:
    said = f"telemetry-hub-{version()}"
    headers = {"X-Influxdb-Version": said, "X-Influxdb-Build": "telemetry-hub"}
    if request.query_params.get("verbose") == "true":
        return JSONResponse({"version": said}, headers=headers)
    return Response(status_code=204, headers=headers)


def _health(hub: Parts) -> _Handler:
    async def health(request: Request) -> Response:
        is_well = hub.failed is None
        told: dict[str, object] = {
            "name": "telemetry-hub", "message": "ready for writes" if is_well else "the journal failed",
            "status": "pass" if is_well else "fail", "version": version(), "checks": [],
        }  # fmt: skip
        return JSONResponse(told, 200 if is_well else 503)

    return health


async def _query(request: Request) -> Response:
    """Telegraf makes its database before it writes; there is none to make. Nothing else is answered."""
    asked = request.query_params.get("q", "")
    if not asked and request.method == "POST":
        asked = (await Body(request).whole(_MOST_QUERY)).decode(errors="replace").removeprefix("q=")
    if asked.replace("+", " ").upper().startswith("CREATE DATABASE"):
        return JSONResponse({"results": [{"statement_id": 0}]})
    return JSONResponse({"error": "this is no InfluxDB: query with GET /v1/readings"}, 404)
