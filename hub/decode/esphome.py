"""ESPHome without Home Assistant: ``<prefix>/sensor/<id>/state`` with a bare value.

Owns: how its topics are understood. Place: before `dispatch`. Pure. Source: ESPHome, "MQTT Client Component".

Channels of sensors have the id of the sensor, those of what can be switched its kind as well (``switch.pump``): a
switch and its sensor often have one id.
"""

import re
from typing import NamedTuple

from device_sdk.reading import Channel, Value, ValueType
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, text_of, word_value

ONLINE = "online"
_BARE = frozenset({"sensor", "binary_sensor", "text_sensor"})
_KINDS = _BARE | {
    "alarm_control_panel", "button", "climate", "cover", "date", "datetime", "event", "fan", "light", "lock", "number",
    "select", "switch", "text", "time", "update", "valve",
}  # fmt: skip
# What such a channel says is text, also where it looks like a number: a version, a choice.
_TEXTS = frozenset({"text_sensor", "select", "text", "date", "datetime", "time"})

# A line of its log, with or without the colour.
_LOG = re.compile(rb"(?:\x1b\[[0-9;]*m)?\[[CDEIVW]\]\[")


class _Place(NamedTuple):
    prefix: str
    kind: str
    channel: str


class EspHome:
    """Knows states by the last parts of their topics, and ``<prefix>/status``."""

    __slots__ = ("_scope",)
    name = "esphome"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the value of a state; see `hub.decode.base.Decoder`."""
        topic = publication.topic
        if topic.endswith("/state"):
            found = _place(topic)
            return None if found is None else self._state(found, publication.payload)
        if topic.endswith("/status") and publication.payload in (b"online", b"offline"):
            prefix = topic[: -len("/status")]
            if prefix == "homeassistant":
                return None
            is_online = publication.payload == b"online"
            return Decoded(self.name, (Said(self._scope.own(prefix), (ForeignReading(ONLINE, is_online),)),))
        if topic.startswith("esphome/discover/") or (topic.endswith("/debug") and _LOG.match(publication.payload)):
            return Decoded(self.name, ignored="what a device says of itself, and its log, are no readings")
        return None

    def _state(self, place: _Place, payload: bytes) -> Decoded:
        values = _values(place.kind, payload)
        if not values:
            return Decoded(self.name, ignored="no value")
        device = self._scope.own(place.prefix)
        readings, channels = [], []
        for path, value in values:
            text = f"{place.channel}.{path}" if path else place.channel
            channel = self._scope.names.channel(device, text)
            readings.append(ForeignReading(channel, value))
            if place.kind in _TEXTS:
                channels.append(Channel(channel, type=ValueType.STR))
        return Decoded(self.name, (Said(device, tuple(readings), tuple(channels)),))


def place(scope: Scope, topic: str) -> tuple[str, str] | None:
    """Return which channel of which device a state is of; None: it is no topic of ESPHome."""
    found = _place(topic)
    if found is None:
        return None
    device = scope.own(found.prefix)
    return device, scope.names.channel(device, found.channel)


def _place(topic: str) -> _Place | None:
    """Return the place of ``<prefix>/<kind>/<id>/state`` and ``<prefix>/<kind>/<id>/<part>/state``."""
    segments = topic.split("/")
    # Home Assistant's own prefix, where small programs put the states of their devices beside the announcements.
    if segments[0] == "homeassistant":
        return None
    for at in (-3, -4):
        if len(segments) > -at and segments[at] in _KINDS:
            kind, rest = segments[at], segments[at + 1 : -1]
            if kind not in _BARE:
                rest.insert(0, kind)
            return _Place("/".join(segments[:at]), kind, ".".join(rest))
    return None


def _values(kind: str, payload: bytes) -> list[tuple[str, Value]]:
    text = text_of(payload)
    if kind in _TEXTS:
        if len(text.encode()) > 1024:
            raise DecodeError("a text of more than 1024 bytes is no reading")
        return [("", text)] if text else []
    if text.startswith("{"):
        return flatten(load(payload))
    value = word_value(text)
    return [] if value is None else [("", value)]
