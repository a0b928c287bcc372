"""The hub itself: its health, a copy of its data.

Place: `hub.gateway.rest`.
"""

import time
from typing import Literal

from starlette.responses import Response

from hub.errors import ForbiddenError
from hub.gateway.archive import make_archive
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, version
from hub.roles import DEFAULT_NAMESPACE, Verb


class Health(Answer):
    """Whether the hub takes readings; the status code is 503 when it does not."""

    status: Literal["ok", "failed"]
    version: str
    run: str
    head: int
    store_applied: int
    uptime_s: float


async def health(call: Call, _: Nothing) -> JsonObject:
    """Say whether readings are taken."""
    hub = call.hub
    return {
        "status": "ok" if hub.failed is None else "failed",
        "version": version(),
        "run": hub.streams.run,
        "head": hub.streams.head,
        "store_applied": hub.store.applied,
        "uptime_s": round((time.time_ns() - hub.started_ns) / 1e9, 3),
    }


async def backup(call: Call, _: Nothing) -> Response:
    """Copy the hub's data as it is at one moment and send it as a tar archive."""
    if call.namespace != DEFAULT_NAMESPACE:
        raise ForbiddenError(f"a backup holds all namespaces: it takes an admin of {DEFAULT_NAMESPACE!r}")
    return await make_archive(call.hub.config.data, call.hub.pause)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/healthz", "Is the hub well?", None, Nothing, Health, health),
    Endpoint("GET", "/v1/backup", "All data as it is at one moment", Verb.MANAGE, Nothing, None, backup, whole=True,
             media=("application/x-tar",)),
)  # fmt: skip
