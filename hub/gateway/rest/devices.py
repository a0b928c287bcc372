"""Devices and their channels: who is there, and how many tokens each has.

Place: `hub.gateway.rest`. Registry and latest values belong to the event loop and are read there; identities are read
in a thread.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from device_sdk.reading import Value
from hub.description import MAX_SITE_CHARS, MAX_TAG_CHARS, MAX_TAGS
from hub.device_tokens import DeviceIdentity
from hub.devices import DeviceState
from hub.gateway.endpoint import (
    Answer,
    Call,
    Endpoint,
    JsonObject,
    Matching,
    json_value,
    visible_devices,
)  # fmt: skip
from hub.model import Series
from hub.query import shown_value
from hub.roles import Verb
from hub.selector import is_chosen
from hub.unit import unit_shown


class LatestValue(Answer):
    """The newest value by event time."""

    time_ns: str
    value: Value


class DevicesQuery(Matching):
    """Which devices: patterns, and what people said of them."""

    site: Annotated[str | None, Field(max_length=MAX_SITE_CHARS, description="Only devices at this site.")] = None
    tag: Annotated[
        list[Annotated[str, Field(max_length=MAX_TAG_CHARS)]],
        Field(max_length=MAX_TAGS, description="Only devices with this tag. May be repeated: all of them."),
    ] = []


class ChannelBase(Answer):
    """What holds of a channel: what a person set, else what its device declared.

    ``unit`` is the code, ``unit_shown`` what people write. ``range``: normal values as shown, null for an open end or
    when nobody told one. Values are ``stored * scale + offset``.
    """

    channel: str
    label: str | None
    unit: str | None
    unit_shown: str | None
    type: str | None
    every_s: float | None
    range: tuple[float | None, float | None] | None
    decimals: int | None
    kind: str | None
    scale: float | None
    offset: float | None


class Channel(ChannelBase):
    """A channel of a device, without the device."""

    latest: LatestValue | None


class Device(Answer):
    """A device as the hub sees it now.

    ``late``: readings since the hub's start that came behind a newer one. ``skew_s``: its clock minus the hub's when it
    connected, null when it did not say; ``skewed``: by more than 2 s, so its times are to be doubted. ``tokens``: how
    many are live, 0 when it is not enrolled; with two, the old one ends at ``old_token_ends_ns``.
    """

    device: str
    label: str | None
    site: str | None
    tags: list[str]
    state: Literal["online", "stale", "offline"]
    connected: bool
    alert: bool
    last_ns: str | None
    rate_hz: float
    late: int
    skew_s: float | None
    skewed: bool
    tokens: int
    old_token_ends_ns: str | None
    channels: list[Channel]


class Devices(Answer):
    """All devices the credential may see; watch from ``head`` on to follow without a gap."""

    devices: list[Device]
    head: str
    time_ns: str


class DeviceChannel(ChannelBase):
    """A channel with its device, and where that is."""

    device: str
    site: str | None
    tags: list[str]


class Channels(Answer):
    """Matching channels in natural order."""

    channels: list[DeviceChannel]


async def list_devices(call: Call, query: DevicesQuery) -> JsonObject:
    """List devices with presence and newest values."""
    hub, namespace, now_ns = call.hub, call.namespace, time.time_ns()
    found = await asyncio.to_thread(hub.identities.devices, namespace=namespace)
    enrolled = {device.name: device for device in found}
    seen = visible_devices(call, query.match, [*enrolled, *hub.children.names(namespace)])
    of = {name: hub.metadata.device(namespace, name) for name in seen}
    names = [name for name in seen if is_chosen(of[name], query.site, query.tag)]
    devices = [_device_object(call, name, seen[name], enrolled.get(name), now_ns) for name in names]
    return {"devices": devices, "head": hub.streams.position(), "time_ns": str(now_ns)}


async def list_channels(call: Call, query: Matching) -> JsonObject:
    """List channels as their devices declared them."""
    channels = []
    for series in call.series(query.match):
        of = call.hub.metadata.device(call.namespace, series.device)
        channels.append({"device": series.device, "site": of.site, "tags": list(of.tags), **_channel_object(series)})
    return {"channels": channels}


def _device_object(
    call: Call, name: str, series: Sequence[Series], enrolled: DeviceIdentity | None, now_ns: int
) -> JsonObject:
    registry = call.hub.registry
    state = registry.devices.get((call.namespace, name)) or DeviceState(call.namespace, name)
    channels = []
    for s in series:
        latest = registry.latest.get(s.id)
        newest = None
        if latest is not None:
            newest = {"time_ns": str(latest.time_ns), "value": json_value(shown_value(s, latest.value))}
        channels.append({**_channel_object(s), "latest": newest})
    of = call.hub.metadata.device(call.namespace, name)
    return {
        "device": name,
        "label": of.label,
        "site": of.site,
        "tags": list(of.tags),
        "state": state.presence(now_ns).value,
        "connected": state.connections > 0,
        "alert": any(registry.is_alert(s) for s in series),
        "last_ns": _time(state.last_time_ns),
        "rate_hz": round(state.rate_hz, 3),
        "late": state.late,
        "skew_s": None if state.skew_ns is None else round(state.skew_ns / 1e9, 3),
        "skewed": state.is_skewed,
        "tokens": 0 if enrolled is None else enrolled.tokens,
        "old_token_ends_ns": _time(0 if enrolled is None else enrolled.old_ends_ns or 0),
        "channels": channels,
    }


def _channel_object(series: Series) -> JsonObject:
    effective, kind = series.effective(), series.shown_type
    low, high = effective.low, effective.high
    return {
        "channel": series.channel,
        "label": effective.label,
        "unit": effective.unit,
        "unit_shown": unit_shown(effective.unit),
        "type": None if kind is None else kind.value,
        "every_s": effective.every_s,
        "range": None if low is None and high is None else [low, high],
        "decimals": effective.decimals,
        "kind": effective.kind,
        "scale": effective.scale,
        "offset": effective.offset,
    }


def _time(time_ns: int) -> str | None:
    return str(time_ns) if time_ns else None


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/devices", "Devices, presence, newest values", Verb.READ, DevicesQuery, Devices, list_devices),
    Endpoint("GET", "/v1/channels", "Declared channels", Verb.READ, Matching, Channels, list_channels),
)  # fmt: skip
