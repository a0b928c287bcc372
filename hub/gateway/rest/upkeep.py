"""The hub itself: its health, a copy of its data.

Place: `hub.gateway.rest`.
"""

import asyncio
import time
from typing import Literal

from starlette.responses import Response

from hub.errors import ForbiddenError, NotFoundError
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


class Status(Answer):
    """What the hub's data takes, and how long that goes well.

    ``readings_per_day``: as since the start, null in its first minute; ``days_left``: until the budget is exceeded at
    this rate if nothing is dropped, null without a budget. ``expired``: readings dropped since the start because their
    time was over, ``dropped_early``: for the budget; ``is_full``: devices wait, for nothing is left to drop, or more
    comes than can be dropped.
    """

    journal_bytes: int
    store_bytes: int
    disk_budget: int | None
    readings: int
    bytes_per_reading: float | None
    readings_per_day: float | None
    days_left: float | None
    expired: int
    dropped_early: int
    is_full: bool


async def status(call: Call, _: Nothing) -> JsonObject:
    """Say how much is stored, how fast it grows, and what was dropped."""
    if call.namespace != DEFAULT_NAMESPACE:
        raise ForbiddenError(f"the figures are of all namespaces: they take an admin of {DEFAULT_NAMESPACE!r}")
    retention, budget = call.hub.retention, call.hub.disk_budget
    if retention is None or budget is None:
        raise NotFoundError("the store of this hub is another engine: ask that one for its sizes")
    expired = retention.figures.dropped
    sizing = await asyncio.to_thread(budget.sizing, expired)
    return {
        "journal_bytes": sizing.journal_bytes, "store_bytes": sizing.store_bytes, "disk_budget": sizing.budget_bytes,
        "readings": sizing.readings, "bytes_per_reading": sizing.bytes_per_reading,
        "readings_per_day": sizing.readings_per_day, "days_left": sizing.days_left, "expired": expired,
        "dropped_early": sizing.dropped_early, "is_full": sizing.is_full,
    }  # fmt: skip


async def backup(call: Call, _: Nothing) -> Response:
    """Copy the hub's data as it is at one moment and send it as a tar archive."""
    if call.namespace != DEFAULT_NAMESPACE:
        raise ForbiddenError(f"a backup holds all namespaces: it takes an admin of {DEFAULT_NAMESPACE!r}")
    return await make_archive(call.hub.config.data, call.hub.pause)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/healthz", "Is the hub well?", None, Nothing, Health, health),
    Endpoint("GET", "/v1/status", "What the data takes, and for how long", Verb.MANAGE, Nothing, Status, status,
             whole=True),
    Endpoint("GET", "/v1/backup", "All data as it is at one moment", Verb.MANAGE, Nothing, None, backup, whole=True,
             media=("application/x-tar",)),
)  # fmt: skip
