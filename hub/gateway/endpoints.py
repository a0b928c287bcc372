"""REST, declared as one table: routes, access and OpenAPI are made from it.

Owns: every endpoint's method, path, role, parameters and answer, and the few
lines that answer it. Place: above `query`, `auth` and `devices`, below `http`,
which turns requests into calls and errors into answers.

Registry, streams and latest values belong to the event loop and are read
there; what touches a disk (store, journal, identities' edits) runs in a thread.
"""

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import Response

from device_sdk.errors import MisuseError
from device_sdk.reading import check_device_name
from hub.audit import audit_object, take_books
from hub.auth import Identity, Role
from hub.devices import DeviceState, natural_key
from hub.errors import BadRequestError, NotFoundError, UnavailableError
from hub.gateway import resources
from hub.gateway.access import Parts
from hub.gateway.archive import make_archive
from hub.gateway.export import export_response
from hub.gateway.quarantine import quarantine_object, raw_object
from hub.gateway.resources import json_value
from hub.journal.ledger import OTHER
from hub.live.patterns import PatternSet
from hub.model import Series
from hub.query import iso_time, parse_duration, time_range

# History must hold what was acked before the question; a store this far behind is better said than waited for.
STORE_WAIT_S = 10.0
_ID_DIGITS = 18

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, after access and parameters were checked."""

    hub: Parts
    identity: Identity
    path: Mapping[str, str]

    def series(self, match: Sequence[str]) -> list[Series]:
        """Return the series that match and that the caller may see."""
        return self.hub.query.series(self.identity.namespace, match, self.identity.match)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the table.

    ``role`` None = open to all. ``takes`` is read from the query, or for
    POST from the JSON body. ``media`` names an answer that is not JSON.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    role: Role | None
    takes: type[BaseModel]
    gives: type[BaseModel] | None
    answer: Callable[[Call, Any], Awaitable[JsonObject | Response | None]]
    status: int = 200
    media: tuple[str, ...] = field(default=())


async def health(call: Call, _: resources.Nothing) -> JsonObject:
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


async def list_devices(call: Call, query: resources.Matching) -> JsonObject:
    """List devices with presence and newest values."""
    hub, namespace, now_ns = call.hub, call.identity.namespace, time.time_ns()
    enrolled = await asyncio.to_thread(hub.identities.devices, namespace=namespace)
    seen = visible_devices(call, query.match, [device.name for device in enrolled])
    devices = [_device_object(call, name, series, now_ns) for name, series in seen.items()]
    return {"devices": devices, "head": hub.streams.position(), "time_ns": str(now_ns)}


async def add_device(call: Call, body: resources.NewDevice) -> JsonObject:
    """Enrol a device."""
    token = await asyncio.to_thread(call.hub.identities.add_device, body.device, namespace=call.identity.namespace)
    return {"device": body.device, "token": token}


async def add_devices(call: Call, body: resources.NewDevices) -> JsonObject:
    """Enrol many devices in one transaction."""
    tokens = await asyncio.to_thread(
        call.hub.identities.add_devices, body.devices, rotate=body.rotate, namespace=call.identity.namespace
    )
    return {"devices": [{"device": name, "token": token} for name, token in tokens.items()]}


async def rotate_device(call: Call, _: resources.Nothing) -> JsonObject:
    """Give a device a new token; the old one ends at once."""
    name = call.path["device"]
    token = await asyncio.to_thread(call.hub.identities.rotate_device, name, namespace=call.identity.namespace)
    return {"device": name, "token": token}


async def remove_device(call: Call, _: resources.Nothing) -> None:
    """End a device's credential; its readings stay."""
    name = call.path["device"]
    await asyncio.to_thread(call.hub.identities.remove_device, name, namespace=call.identity.namespace)


async def list_channels(call: Call, query: resources.Matching) -> JsonObject:
    """List channels as their devices declared them."""
    return {"channels": [{"device": s.device, **_declared(s)} for s in call.series(query.match)]}


async def list_latest(call: Call, query: resources.Matching) -> JsonObject:
    """Give the newest reading of each series, by event time."""
    readings = [
        {
            "device": s.device, "channel": s.channel, "unit": s.unit,
            "time_ns": str(time_ns), "time": iso_time(time_ns), "value": json_value(value),
        }
        for s, time_ns, value in call.hub.query.latest(call.series(query.match))
    ]  # fmt: skip
    return {"readings": readings}


async def list_readings(call: Call, query: resources.ReadingsQuery) -> JsonObject:
    """Give history: raw rows page by page, or aggregates in buckets."""
    series = call.series(query.match)
    start_ns, end_ns = time_range(query.start, query.end, query.last, time.time_ns())
    if query.received and query.bucket is not None:
        raise BadRequestError("received is of single readings: leave out bucket, or received")
    await wait_for_store(call.hub)
    if query.bucket is None:
        answer = await asyncio.to_thread(
            call.hub.query.readings, series, start_ns, end_ns, query.limit,
            descending=query.order == "desc", page=query.page, received=query.received,
        )  # fmt: skip
    else:
        # Without an end the range would reach to the end of time, and no bucket be small enough.
        newest_ns = max((time_ns for _, time_ns, _ in call.hub.query.latest(series)), default=start_ns)
        functions = [name.strip() for name in query.agg.split(",")]
        answer = await asyncio.to_thread(
            call.hub.query.aggregate, series, start_ns, max(min(end_ns, newest_ns + 1), start_ns),
            parse_duration(query.bucket), functions,
        )  # fmt: skip
        if query.order == "desc":
            answer.rows.reverse()
    return {
        "series": [{"device": s.device, "channel": s.channel, "unit": s.unit} for s in answer.series],
        "columns": list(answer.columns),
        "rows": [[str(row[0]), row[1], *map(json_value, row[2:])] for row in answer.rows],
        "next": answer.next_page,
    }


async def export(call: Call, query: resources.ExportQuery) -> Response:
    """Stream readings as CSV or as JSON lines, ordered by time, in bounded memory."""
    series = call.series(query.match)
    start_ns, end_ns = time_range(query.start, query.end, query.last, time.time_ns())
    await wait_for_store(call.hub)
    pages = call.hub.query.dump(series, start_ns, end_ns, received=query.received)
    return export_response(series, pages, query.format, received=query.received)


async def audit(call: Call, query: resources.AuditQuery) -> JsonObject:
    """Say what arrived, what was lost, and why, and whether the ledgers balance."""
    hub, namespace, device = call.hub, call.identity.namespace, query.device
    if device is not None:
        _check_device(device)
    # A store further behind than it can catch up is said, not waited for.
    await hub.consumer.applied(hub.streams.head, STORE_WAIT_S)
    known = [s.id for s in hub.registry.by_id.values() if s.namespace == namespace and device in (None, s.device)]
    books = await asyncio.to_thread(
        take_books, lambda after: hub.journal.account(namespace, device, after), hub.store.account, known
    )
    names = [*(m.key.device for m in books.journal.marks), *(r.device for r in books.journal.rejections)]
    visible = visible_devices(call, () if device is None else (device,), names)
    granted = PatternSet(call.identity.match)

    def sees(name: str, channel: str) -> bool:
        # Counts without a channel's name belong to the device.
        return name in visible and (channel in ("", OTHER) or granted.matches(name, channel))

    return await asyncio.to_thread(audit_object, books, sees, natural_key)


async def list_quarantine(call: Call, query: resources.AuditQuery) -> JsonObject:
    """List frames that could not be taken apart, without their bytes."""
    if query.device is not None:
        _check_device(query.device)
    entries = await asyncio.to_thread(call.hub.journal.quarantine, call.identity.namespace, query.device)
    return {"frames": [quarantine_object(entry) for entry in entries]}


async def show_quarantined(call: Call, query: resources.RawQuery) -> JsonObject:
    """Give one quarantined frame with its first bytes."""
    found = await asyncio.to_thread(call.hub.journal.quarantined, call.identity.namespace, _quarantine_id(call))
    return raw_object(*found, query.bytes)


async def replay_quarantined(call: Call, _: resources.Nothing) -> JsonObject:
    """Check a quarantined frame again and store what is valid now, once."""
    id_ = _quarantine_id(call)
    replay = await call.hub.replays.replay(call.identity.namespace, id_)
    return {
        "id": id_, "outcome": replay.outcome, "accepted": replay.accepted, "rejected": replay.rejected,
        "why": replay.why,
    }  # fmt: skip


async def delete_quarantined(call: Call, _: resources.Nothing) -> None:
    """Delete a quarantined frame for good; the ledger's counts stay."""
    await asyncio.to_thread(call.hub.journal.delete_quarantined, call.identity.namespace, _quarantine_id(call))


async def backup(call: Call, _: resources.Nothing) -> Response:
    """Copy the hub's data as it is at one moment and send it as a tar archive."""
    return await make_archive(call.hub.config.data, call.hub.pause)


async def list_tokens(call: Call, _: resources.Nothing) -> JsonObject:
    """List watcher and admin tokens, without their secrets."""
    tokens = await asyncio.to_thread(call.hub.identities.tokens, namespace=call.identity.namespace)
    return {
        "tokens": [
            {"id": t.id, "name": t.name, "role": t.role, "match": list(t.match), "created_ns": str(t.created_ns)}
            for t in tokens
        ]
    }


async def add_token(call: Call, body: resources.NewToken) -> JsonObject:
    """Make a watcher's or admin's token."""
    try:
        PatternSet(tuple(body.match))
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    id_, token = await asyncio.to_thread(
        call.hub.identities.add_token, Role(body.role), body.match, body.name, namespace=call.identity.namespace
    )
    return {"id": id_, "token": token}


async def remove_token(call: Call, _: resources.Nothing) -> None:
    """End a token."""
    await asyncio.to_thread(call.hub.identities.remove_token, call.path["id"], namespace=call.identity.namespace)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/healthz", "Is the hub well?", None, resources.Nothing, resources.Health, health),
    Endpoint("GET", "/v1/devices", "Devices, presence, newest values", Role.WATCHER, resources.Matching,
             resources.Devices, list_devices),
    Endpoint("POST", "/v1/devices", "Enrol a device", Role.ADMIN, resources.NewDevice, resources.DeviceToken,
             add_device, 201),
    Endpoint("POST", "/v1/devices/bulk", "Enrol many devices", Role.ADMIN, resources.NewDevices,
             resources.DeviceTokens, add_devices, 201),
    Endpoint("POST", "/v1/devices/{device}/rotate", "New token for a device", Role.ADMIN, resources.Nothing,
             resources.DeviceToken, rotate_device),
    Endpoint("DELETE", "/v1/devices/{device}", "End a device's credential", Role.ADMIN, resources.Nothing, None,
             remove_device, 204),
    Endpoint("GET", "/v1/channels", "Declared channels", Role.WATCHER, resources.Matching, resources.Channels,
             list_channels),
    Endpoint("GET", "/v1/latest", "Newest readings", Role.WATCHER, resources.Matching, resources.Latest, list_latest),
    Endpoint("GET", "/v1/readings", "History, raw or in buckets", Role.WATCHER, resources.ReadingsQuery,
             resources.Readings, list_readings),
    Endpoint("GET", "/v1/export", "History as a file", Role.WATCHER, resources.ExportQuery, None, export,
             media=("text/csv", "application/x-ndjson")),
    Endpoint("GET", "/v1/audit", "What arrived, what did not, and why", Role.WATCHER, resources.AuditQuery,
             resources.Audit, audit),
    Endpoint("GET", "/v1/quarantine", "Frames that could not be taken apart", Role.ADMIN, resources.AuditQuery,
             resources.Quarantine, list_quarantine),
    Endpoint("GET", "/v1/quarantine/{id}", "One of them, with its bytes", Role.ADMIN, resources.RawQuery,
             resources.RawFrame, show_quarantined),
    Endpoint("POST", "/v1/quarantine/{id}/replay", "Store what is valid of it now", Role.ADMIN, resources.Nothing,
             resources.ReplayAnswer, replay_quarantined),
    Endpoint("DELETE", "/v1/quarantine/{id}", "Delete one of them for good", Role.ADMIN, resources.Nothing, None,
             delete_quarantined, 204),
    Endpoint("GET", "/v1/backup", "All data as it is at one moment", Role.ADMIN, resources.Nothing, None, backup,
             media=("application/x-tar",)),
    Endpoint("GET", "/v1/tokens", "Watcher and admin tokens", Role.ADMIN, resources.Nothing, resources.Tokens,
             list_tokens),
    Endpoint("POST", "/v1/tokens", "Make a token", Role.ADMIN, resources.NewToken, resources.TokenMade, add_token, 201),
    Endpoint("DELETE", "/v1/tokens/{id}", "End a token", Role.ADMIN, resources.Nothing, None, remove_token, 204),
)  # fmt: skip


def version() -> str:
    """Return the hub's version, also when it runs from a checkout without being installed."""
    try:
        return importlib.metadata.version("telemetry-hub")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"


async def wait_for_store(hub: Parts) -> None:
    """Wait until history holds everything that was acked before now.

    Raises:
        UnavailableError: the store is too far behind.
    """
    head = hub.streams.head
    if hub.store.applied < head and not await hub.consumer.applied(head, STORE_WAIT_S):
        raise UnavailableError(
            f"the store has {hub.store.applied} of {head} frames and did not catch up in {STORE_WAIT_S:g} s; try again"
        )


def visible_devices(call: Call, match: Sequence[str], further: Sequence[str]) -> dict[str, list[Series]]:
    """Return device → its visible series, in natural order; ``further`` are devices that may have no series yet."""
    found: dict[str, list[Series]] = {}
    for series in call.series(match):
        found.setdefault(series.device, []).append(series)
    wanted, granted = PatternSet(tuple(match) or ("**",)), PatternSet(call.identity.match)
    for name in further:
        # A device without channels is shown to whom all of its channels would be.
        if name not in found and wanted.matches(name, "*") and granted.matches(name, "*"):
            found[name] = []
    return {name: found[name] for name in sorted(found, key=natural_key)}


def _device_object(call: Call, name: str, series: Sequence[Series], now_ns: int) -> JsonObject:
    registry = call.hub.registry
    state = registry.devices.get((call.identity.namespace, name)) or DeviceState(call.identity.namespace, name)
    channels = []
    for s in series:
        latest = registry.latest.get(s.id)
        newest = None if latest is None else {"time_ns": str(latest.time_ns), "value": json_value(latest.value)}
        channels.append({**_declared(s), "latest": newest})
    return {
        "device": name,
        "state": state.presence(now_ns).value,
        "connected": state.connections > 0,
        "alert": any(registry.is_alert(s) for s in series),
        "last_ns": _time(state.last_time_ns),
        "rate_hz": round(state.rate_hz, 3),
        "late": state.late,
        "skew_s": None if state.skew_ns is None else round(state.skew_ns / 1e9, 3),
        "skewed": state.is_skewed,
        "channels": channels,
    }


def _declared(series: Series) -> JsonObject:
    low, high = series.low, series.high
    return {
        "channel": series.channel,
        "label": series.label,
        "unit": series.unit,
        "type": None if series.type is None else series.type.value,
        "every_s": series.every_s,
        "range": None if low is None or high is None else [low, high],
    }


def _time(time_ns: int) -> str | None:
    return str(time_ns) if time_ns else None


def _quarantine_id(call: Call) -> int:
    text = call.path["id"]
    # An offset is a 64-bit integer; more digits are none of ours.
    if not (text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS):
        raise NotFoundError(f"no quarantined frame {text[:40]!r}; its id is a number: GET /v1/quarantine")
    return int(text)


def _check_device(name: str) -> None:
    try:
        check_device_name(name)
    except MisuseError as error:
        raise BadRequestError(str(error)) from error
