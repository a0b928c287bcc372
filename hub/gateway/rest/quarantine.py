"""Quarantined frames: list, look at, replay after a fix, delete; and readings that the store's server refused.

Place: `hub.gateway.rest`, above `hub.replay`; how raw bytes are shown says `hub.gateway.quarantine`.
"""

import asyncio
from typing import Annotated, Literal

from pydantic import Field

from device_sdk.reading import Value
from device_sdk.wire import MAX_FRAME_BYTES
from hub.errors import NotFoundError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question, check_name, json_value
from hub.gateway.quarantine import quarantine_object, raw_object
from hub.gateway.rest.audit import OfDevice
from hub.roles import Verb
from hub.store.base import RefusingStore

_ID_DIGITS = 18


class RawQuery(Question):
    """How much of the bytes."""

    bytes: Annotated[int, Field(ge=0, le=MAX_FRAME_BYTES, description="Show at most so many of its bytes.")] = 4096


class Quarantined(Answer):
    """A frame that could not be taken apart; ``count``: the readings it was refused with."""

    id: int
    device: str
    stream: str
    seq: int
    reason: str
    received_ns: str
    count: int
    size: int
    replayed_ns: str | None


class Quarantine(Answer):
    """Quarantined frames that are still kept, oldest first."""

    frames: list[Quarantined]


class RefusedReading(Answer):
    """A reading that was accepted, and that the server of the store did not take; ``reason``: what that said."""

    device: str
    channel: str
    time_ns: str
    value: Value
    reason: str


class RefusedReadings(Answer):
    """The newest of them, the last first; empty for a store of the hub's own."""

    readings: list[RefusedReading]


class RawFrame(Quarantined):
    """A quarantined frame with its bytes: ``text`` when they are printable UTF-8, else ``hex``.

    Of a message of a device that speaks no protocol of ours they are its payload, and ``topic`` (empty: it came by
    HTTP) and ``content_type`` are not null.
    """

    topic: str | None
    content_type: str | None
    text: str | None
    hex: str | None
    truncated: bool


class ReplayAnswer(Answer):
    """What was stored of it on the hub's own stream; ``malformed``: it stays in quarantine, and ``why``."""

    id: int
    outcome: Literal["replayed", "already", "malformed"]
    accepted: int
    rejected: int
    why: str


async def list_quarantine(call: Call, query: OfDevice) -> JsonObject:
    """List frames that could not be taken apart, without their bytes."""
    if query.device is not None:
        check_name(query.device)
    entries = await asyncio.to_thread(call.hub.journal.quarantine, call.namespace, query.device)
    return {"frames": [quarantine_object(entry) for entry in entries]}


async def list_refused(call: Call, query: OfDevice) -> JsonObject:
    """List readings that the store's server did not take; they are in the journal as long as that keeps them."""
    if query.device is not None:
        check_name(query.device)
    store, known = call.hub.store, call.hub.registry.by_id
    refusals = await asyncio.to_thread(store.refusals) if isinstance(store, RefusingStore) else []
    readings = [
        {
            "device": series.device, "channel": series.channel, "time_ns": str(one.time_ns),
            "value": json_value(one.value), "reason": one.reason,
        }
        for one in refusals
        if (series := known.get(one.series)) is not None
        and series.namespace == call.namespace
        and query.device in (None, series.device)
    ]  # fmt: skip
    return {"readings": readings}


async def show_quarantined(call: Call, query: RawQuery) -> JsonObject:
    """Give one quarantined frame with its first bytes."""
    found = await asyncio.to_thread(call.hub.journal.quarantined, call.namespace, _quarantine_id(call))
    return raw_object(*found, query.bytes)


async def replay_quarantined(call: Call, _: Nothing) -> JsonObject:
    """Check a quarantined frame again and store what is valid now, once."""
    id_ = _quarantine_id(call)
    replay = await call.hub.replays.replay(call.namespace, id_)
    return {
        "id": id_, "outcome": replay.outcome, "accepted": replay.accepted, "rejected": replay.rejected,
        "why": replay.why,
    }  # fmt: skip


async def delete_quarantined(call: Call, _: Nothing) -> None:
    """Delete a quarantined frame for good; the ledger's counts stay."""
    await asyncio.to_thread(call.hub.journal.delete_quarantined, call.namespace, _quarantine_id(call))


def _quarantine_id(call: Call) -> int:
    text = call.path["id"]
    # An offset is a 64-bit integer; more digits are none of ours.
    if not (text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS):
        raise NotFoundError(f"no quarantined frame {text[:40]!r}; its id is a number: GET /v1/quarantine")
    return int(text)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/quarantine", "Frames that could not be taken apart", Verb.MANAGE, OfDevice, Quarantine,
             list_quarantine, whole=True),
    Endpoint("GET", "/v1/quarantine/{id}", "One of them, with its bytes", Verb.MANAGE, RawQuery, RawFrame,
             show_quarantined, whole=True),
    Endpoint("GET", "/v1/refused", "Readings that the store's server refused", Verb.MANAGE, OfDevice, RefusedReadings,
             list_refused, whole=True),
    Endpoint("POST", "/v1/quarantine/{id}/replay", "Store what is valid of it now", Verb.MANAGE, Nothing, ReplayAnswer,
             replay_quarantined, whole=True),
    Endpoint("DELETE", "/v1/quarantine/{id}", "Delete one of them for good", Verb.MANAGE, Nothing, None,
             delete_quarantined, 204, whole=True),
)  # fmt: skip
