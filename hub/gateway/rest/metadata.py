"""Metadata: what people say of devices and channels, what holds, and how that came to be.

Place: `hub.gateway.rest`. The file is written in a thread; series belong to the event loop and are read there.
"""

import asyncio
import time
from bisect import bisect_right
from typing import Annotated, Any, Literal

from pydantic import Field

from hub.devices import natural_key
from hub.errors import BadRequestError, ForbiddenError, HubError, NotFoundError
from hub.gateway.endpoint import (
    Answer,
    Call,
    Endpoint,
    JsonObject,
    Matching,
    Nothing,
    Question,
    When,
    check_name,
    visible_devices,
)  # fmt: skip
from hub.live.patterns import PatternSet
from hub.metadata import MAX_CHANGES_EACH, MAX_EDITS, Change, Edit
from hub.model import Series, SeriesKey
from hub.query import iso_time, parse_time
from hub.roles import EVERYTHING, Verb
from hub.unit import unit_shown

# With the most channels that a device may have some 10 MB, mostly 300 KB.
MAX_DEVICES_LISTED = 100

Tags = Annotated[list[str], Field(max_length=100)]
# Of a name that is too long, as much as shows that it is: it is one wrong row, not a request that is refused.
_MAX_NAME_CHARS = 256


class DeviceFields(Question):
    """Fields of a device to set; null unsets one, what is left out stays."""

    label: str | None = None
    site: Annotated[str | None, Field(description="One word, so that `site:NAME` chooses it.")] = None
    tags: Tags | None = None
    lat: Annotated[float | None, Field(description="Degrees north (WGS 84), with `lon`.")] = None
    lon: Annotated[float | None, Field(description="Degrees east, with `lat`.")] = None
    place: Annotated[str | None, Field(description="Where it is, in words.")] = None
    notes: str | None = None
    add_tags: Tags = []
    remove_tags: Tags = []


class ChannelFields(Question):
    """Fields of a channel to set; null unsets one: what the device declared holds again. What is left out stays."""

    label: str | None = None
    unit: Annotated[str | None, Field(description="UCUM or SenML code of what is shown: `Cel`, `%RH`, `W`.")] = None
    decimals: int | None = None
    low: Annotated[float | None, Field(description="Shown values below are an alert.")] = None
    high: Annotated[float | None, Field(description="Shown values above are an alert.")] = None
    kind: Literal["gauge", "counter"] | None = None
    scale: Annotated[float | None, Field(description="Shown = stored * scale + offset, for all of history.")] = None
    offset: float | None = None
    every_s: Annotated[float | None, Field(description="Seconds between readings: later is stale.")] = None
    hysteresis: Annotated[float | None, Field(description="Back inside by so much an alert of `$sys` ends.")] = None


class RowEdit(Question):
    """One device, or one channel of it, and the fields to set or (null) to unset."""

    device: Annotated[str, Field(max_length=_MAX_NAME_CHARS)]
    channel: Annotated[str | None, Field(max_length=_MAX_NAME_CHARS)] = None
    fields: Annotated[dict[str, Any], Field(max_length=20)]


class Edits(Question):
    """Many edits at once: one that is wrong keeps no other from being made."""

    edits: Annotated[list[RowEdit], Field(max_length=MAX_EDITS)]
    dry_run: Annotated[bool, Field(description="Say what would change, and change nothing.")] = False


class HistoryQuery(Question):
    """Which part of the history."""

    limit: Annotated[int, Field(ge=1, le=MAX_CHANGES_EACH)] = 100
    at: Annotated[When, Field(description="Also say what was set at this time.")] = None


class MetadataQuery(Matching):
    """Which series, and which part of the list; ``after`` is ``next`` of the answer before."""

    limit: Annotated[int, Field(ge=1, le=MAX_DEVICES_LISTED, description="Devices in one answer.")] = MAX_DEVICES_LISTED
    after: Annotated[str | None, Field(max_length=64)] = None


class DeviceMetadata(Answer):
    """What people set of a device."""

    device: str
    set: JsonObject


class ChannelMetadata(Answer):
    """What people set of a channel, and what holds with what the device declared."""

    device: str
    channel: str
    set: JsonObject
    effective: JsonObject
    unit_shown: str | None


class AllMetadata(Answer):
    """Devices and channels, in natural order of devices; ``next``: the page after, null at the end."""

    devices: list[DeviceMetadata]
    channels: list[ChannelMetadata]
    next: str | None


class ChangedField(Answer):
    """One field, changed once; null: not set."""

    time_ns: str
    time: str
    who: str
    field: str
    old: Any
    new: Any


class HistoryAnswer(Answer):
    """Changes, newest first. ``since_ns``: before this some are not kept any more; null: all are.

    ``held``: what was set at the time asked for; null when none was.
    """

    changes: list[ChangedField]
    since_ns: str | None
    held: JsonObject | None


class EditOutcome(Answer):
    """What became of one edit: the fields that changed, or why it was refused."""

    device: str
    channel: str | None
    changed: list[str]
    error: str | None


class Outcomes(Answer):
    """One outcome for each edit, in order."""

    outcomes: list[EditOutcome]


async def list_metadata(call: Call, query: MetadataQuery) -> JsonObject:
    """Give what people set and what holds."""
    described = call.hub.metadata.subjects(call.namespace)
    names = await asyncio.to_thread(call.device_names) | {key.device for key in described}
    seen = visible_devices(call, query.match, sorted(names))
    keys = {SeriesKey(call.namespace, name, s.channel): None for name, series in seen.items() for s in series}
    wanted, granted = PatternSet(tuple(query.match) or EVERYTHING), PatternSet(call.granted)
    for key in sorted(described):
        if key.channel and all(p.matches(key.device, key.channel) for p in (wanted, granted)):
            keys[key] = None
    fields = call.hub.metadata.fields
    every = sorted({*seen, *(key.device for key in keys)}, key=_order)
    rest = every if query.after is None else every[bisect_right(every, _order(query.after), key=_order) :]
    page = dict.fromkeys(rest[: query.limit])
    return {
        "devices": [
            {"device": name, "set": fields(SeriesKey(call.namespace, name, ""))} for name in page if name in seen
        ],
        "channels": [_channel_object(call, key) for key in keys if key.device in page],
        "next": rest[query.limit - 1] if len(rest) > query.limit else None,
    }


def _order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    # pump-1 and pump-01 are alike to `natural_key`, and are two devices.
    return natural_key(name), name


async def get_device(call: Call, _: Nothing) -> JsonObject:
    """Give what people set of a device."""
    name = await _seen_device(call)
    return {"device": name, "set": call.hub.metadata.fields(SeriesKey(call.namespace, name, ""))}


async def get_channel(call: Call, _: Nothing) -> JsonObject:
    """Give what people set of a channel, and what holds."""
    return _channel_object(call, _seen_channel(call))


async def change_device(call: Call, body: DeviceFields) -> JsonObject:
    """Change fields of a device."""
    name = call.check_device(call.path["device"])
    fields = body.model_dump(exclude_unset=True, exclude={"add_tags", "remove_tags"})
    subject = SeriesKey(call.namespace, name, "")
    await _make(call, Edit(subject, fields, body.add_tags, body.remove_tags))
    return {"device": name, "set": call.hub.metadata.fields(subject)}


async def change_channel(call: Call, body: ChannelFields) -> JsonObject:
    """Change fields of a channel."""
    subject = call.check_channel(call.path["device"], call.path["channel"])
    await _make(call, _edit(call, subject, body.model_dump(exclude_unset=True)))
    return _channel_object(call, subject)


async def change_many(call: Call, body: Edits) -> JsonObject:
    """Change fields of many devices and channels."""
    outcomes: list[JsonObject] = []
    edits: list[Edit] = []
    allowed: list[JsonObject] = []
    for row in body.edits:
        outcome: JsonObject = {"device": row.device, "channel": row.channel, "changed": [], "error": None}
        outcomes.append(outcome)
        try:
            edits.append(_edit(call, _editable(call, row), row.fields))
            allowed.append(outcome)
        except (ForbiddenError, BadRequestError) as error:
            outcome["error"] = str(error)
    made = await asyncio.to_thread(call.hub.metadata.change_all, edits, _who(call), is_trial=body.dry_run)
    for outcome, result in zip(allowed, made, strict=True):
        if isinstance(result, HubError):
            outcome["error"] = str(result)
        else:
            outcome["changed"] = [change.field for change in result]
    call.hub.describe()
    return {"outcomes": outcomes}


async def device_history(call: Call, query: HistoryQuery) -> JsonObject:
    """Give who changed what of a device when."""
    return await _history(call, SeriesKey(call.namespace, await _seen_device(call), ""), query)


async def channel_history(call: Call, query: HistoryQuery) -> JsonObject:
    """Give who changed what of a channel when."""
    return await _history(call, _seen_channel(call), query)


async def _history(call: Call, subject: SeriesKey, query: HistoryQuery) -> JsonObject:
    metadata, held = call.hub.metadata, None
    if query.at is not None:
        held = await asyncio.to_thread(metadata.held_at, subject, parse_time(query.at, time.time_ns()))
    found = await asyncio.to_thread(metadata.history, subject, query.limit)
    since_ns = None if found.since_ns is None else str(found.since_ns)
    return {"changes": list(map(change_object, found.changes)), "since_ns": since_ns, "held": held}


def change_object(change: Change) -> JsonObject:
    """Return a change as it stands in answers."""
    return {
        "time_ns": str(change.time_ns), "time": iso_time(change.time_ns), "who": change.who, "field": change.field,
        "old": change.old, "new": change.new,
    }  # fmt: skip


def channel_metadata(key: SeriesKey, held: JsonObject, series: Series) -> JsonObject:
    """Return a channel as it stands in answers."""
    effective = series.effective()
    return {
        "device": key.device, "channel": key.channel, "set": held,
        "effective": effective._asdict(), "unit_shown": unit_shown(effective.unit),
    }  # fmt: skip


async def _make(call: Call, edit: Edit) -> None:
    await asyncio.to_thread(call.hub.metadata.change, edit, _who(call))
    call.hub.describe()


def _who(call: Call) -> str:
    return call.identity.name or call.identity.id


def _edit(call: Call, subject: SeriesKey, fields: dict[str, Any]) -> Edit:
    series = call.hub.registry.by_key.get(subject)
    return Edit(subject, fields, type=None if series is None else series.type)


def _editable(call: Call, row: RowEdit) -> SeriesKey:
    if row.channel is None:
        return SeriesKey(call.namespace, call.check_device(row.device), "")
    if not row.channel:
        raise BadRequestError("an empty channel: leave it out for the device itself")
    return call.check_channel(row.device, row.channel)


def _channel_object(call: Call, key: SeriesKey) -> JsonObject:
    described = call.hub.metadata.channel(key)
    series = call.hub.registry.by_key.get(key) or Series(0, *key, described=described)
    return channel_metadata(key, call.hub.metadata.fields(key), series)


async def _seen_device(call: Call) -> str:
    """Return the name of a device the caller may see; what is outside of that is as if it were not there."""
    name = call.path["device"]
    check_name(name)
    names = await asyncio.to_thread(call.device_names, [name])
    if SeriesKey(call.namespace, name, "") in call.hub.metadata.subjects(call.namespace):
        names = {name}
    if name not in visible_devices(call, [name], sorted(names)):
        raise NotFoundError(f"no device {name!r}; see them with: hub devices ls")
    return name


def _seen_channel(call: Call) -> SeriesKey:
    device, channel = call.path["device"], call.path["channel"]
    check_name(device)
    key = SeriesKey(call.namespace, device, channel)
    is_known = key in call.hub.registry.by_key or bool(call.hub.metadata.fields(key))
    if not is_known or not PatternSet(call.granted).matches(device, channel):
        raise NotFoundError(f"no channel {device}/{channel[:40]}; see them with: hub metadata show {device}")
    return key


_DEVICE, _CHANNEL = "/v1/devices/{device}/metadata", "/v1/devices/{device}/channels/{channel}/metadata"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/metadata", "Metadata of devices and channels", Verb.READ, MetadataQuery, AllMetadata,
             list_metadata),
    Endpoint("POST", "/v1/metadata", "Change metadata of many", Verb.EDIT, Edits, Outcomes, change_many),
    Endpoint("GET", _DEVICE, "Metadata of a device", Verb.READ, Nothing, DeviceMetadata, get_device),
    Endpoint("PATCH", _DEVICE, "Change metadata of a device", Verb.EDIT, DeviceFields, DeviceMetadata, change_device),
    Endpoint("GET", f"{_DEVICE}/history", "Who changed a device's metadata when", Verb.READ, HistoryQuery,
             HistoryAnswer, device_history),
    Endpoint("GET", _CHANNEL, "Metadata of a channel", Verb.READ, Nothing, ChannelMetadata, get_channel),
    Endpoint("PATCH", _CHANNEL, "Change metadata of a channel", Verb.EDIT, ChannelFields, ChannelMetadata,
             change_channel),
    Endpoint("GET", f"{_CHANNEL}/history", "Who changed a channel's metadata when", Verb.READ, HistoryQuery,
             HistoryAnswer, channel_history),
)  # fmt: skip
