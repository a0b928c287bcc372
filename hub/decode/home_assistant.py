"""Devices that announce themselves to Home Assistant: what they announced says how to read their states.

Owns: the register of announced topics, its bound, and what a state is worth. Place: after the families, whose topics it
leaves to them: of those it learns units and labels alone. Pure.
"""

from collections.abc import Callable
from typing import TypeVar

from device_sdk.reading import Channel, Value, ValueType
from hub.decode import esphome, shelly, tasmota, zigbee2mqtt
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.discovery import PREFIX, Announced, Availability, Entity, as_text, is_config, read_config
from hub.decode.esphome import ONLINE
from hub.decode.scope import Scope
from hub.decode.template import MISSING
from hub.decode.value import flatten, json_value, load, text_of, word_value

# Entities of a sender of many devices, 1 kB each (measured; with the longest texts 3); of one that is a device.
MAX_ENTITIES = 2_000
MAX_OWN_ENTITIES = 200

_Kept = TypeVar("_Kept")
# How the families call what a topic of theirs is of.
_PLACES: tuple[Callable[[Scope, str], tuple[str, str] | None], ...] = (
    zigbee2mqtt.place, tasmota.place, shelly.place, esphome.place,
)  # fmt: skip


class HomeAssistant:
    """Knows discovery messages, and messages at topics that were announced."""

    __slots__ = ("_available", "_configs", "_count", "_entities", "_scope", "_wild")
    name = "home-assistant"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        # What each discovery message announced, by its topic: another one at it takes its place.
        self._configs: dict[str, Announced] = {}
        self._entities: dict[str, list[Entity]] = {}
        self._available: dict[str, list[tuple[str, Availability]]] = {}
        # State topics with `+`, as gateways for Bluetooth announce what any of them hears, by their last part.
        self._wild: dict[str, list[str]] = {}
        self._count = 0

    def decode(self, publication: Publication) -> Decoded | None:
        """Return what a state or an announcement says; see `hub.decode.base.Decoder`."""
        topic = publication.topic
        entities, available = self._entities.get(topic), self._available.get(topic)
        if entities is None and self._wild:
            entities = self._entities.get(self._pattern(topic))
        if entities is not None or available is not None:
            return self._states(entities or [], available or [], publication.payload)
        if is_config(topic):
            return self._announcement(topic, publication.payload)
        if topic == "homeassistant/status":
            return Decoded(self.name, ignored="Home Assistant tells of itself")
        if topic.startswith(PREFIX) and topic.endswith("/config"):
            return Decoded(self.name, ignored="an announcement of no form that is known")
        return None

    def _announcement(self, topic: str, payload: bytes) -> Decoded:
        self._forget(topic)
        if not payload:
            return Decoded(self.name, ignored="an entity is announced no more")
        announced = read_config(topic, load(payload))
        count = len(announced.entities) + len(announced.availabilities)
        limit = MAX_OWN_ENTITIES if self._scope.device else MAX_ENTITIES
        if self._count + count > limit:
            raise DecodeError(f"more than {limit} entities are announced")
        said: dict[str, list[Channel]] = {}
        theirs = []
        for entity in announced.entities:
            place = next((found for of in _PLACES if (found := of(self._scope, entity.topic))), None)
            if place is None:
                theirs.append(entity)
            learnt = self._placed(entity) if place is None else _placed_by(self._scope, entity, place)
            if learnt is not None:
                said.setdefault(learnt[0], []).append(learnt[1])
        self._keep(topic, Announced(tuple(theirs), announced.availabilities if theirs else ()))
        why = "an announcement, no reading"
        if announced.unread:
            why += f"; templates that do more than pick and scale are not read: {', '.join(announced.unread)[:200]}"
        return Decoded(self.name, tuple(Said(device, (), tuple(found)) for device, found in said.items()), ignored=why)

    def _placed(self, entity: Entity) -> tuple[str, Channel]:
        device, name = self._names(entity)
        kind = ValueType.BOOL if entity.on else None
        return device, Channel(name, entity.unit, kind, label=entity.label or None)

    def _names(self, entity: Entity) -> tuple[str, str]:
        names = self._scope.names
        device = names.device(entity.device, entity.device_like)
        return device, names.channel(device, entity.channel, entity.channel_like)

    def _keep(self, topic: str, announced: Announced) -> None:
        if not announced.entities:
            return
        self._configs[topic] = announced
        self._count += len(announced.entities) + len(announced.availabilities)
        for entity in announced.entities:
            self._entities.setdefault(entity.topic, []).append(entity)
            if "+" in entity.topic:
                self._wild.setdefault(_last(entity.topic), []).append(entity.topic)
        device = self._names(announced.entities[0])[0]
        for availability in announced.availabilities:
            self._available.setdefault(availability.topic, []).append((device, availability))

    def _forget(self, topic: str) -> None:
        announced = self._configs.pop(topic, None)
        if announced is None:
            return
        self._count -= len(announced.entities) + len(announced.availabilities)
        for entity in announced.entities:
            _remove(self._entities, entity.topic, entity)
            if "+" in entity.topic:
                _remove(self._wild, _last(entity.topic), entity.topic)
        device = self._names(announced.entities[0])[0]
        for availability in announced.availabilities:
            _remove(self._available, availability.topic, (device, availability))

    def _pattern(self, topic: str) -> str:
        """Return the announced topic that means this one; empty when none does."""
        levels = topic.split("/")
        for pattern in self._wild.get(levels[-1], ()):
            wanted = pattern.split("/")
            if len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True)):
                return pattern
        return ""

    def _states(self, entities: list[Entity], available: list[tuple[str, Availability]], payload: bytes) -> Decoded:
        text = text_of(payload)
        # What is announced as JSON and is none gives no value: many say `offline` at such a topic.
        document = load(payload) if text[:1] in ("{", "[") else None
        said: dict[str, dict[str, ForeignReading]] = {}
        for entity in entities:
            device, channel = self._names(entity)
            for path, value in _values(entity, text, document):
                name = self._scope.names.channel(device, f"{channel}.{path}") if path else channel
                said.setdefault(device, {})[name] = ForeignReading(name, value)
        for device, availability in available:
            is_online = _availability(availability, text, document)
            if is_online is not None:
                said.setdefault(device, {})[ONLINE] = ForeignReading(ONLINE, is_online)
        if not said:
            return Decoded(self.name, ignored="no value")
        return Decoded(self.name, tuple(Said(device, tuple(found.values())) for device, found in said.items()))


def _placed_by(scope: Scope, entity: Entity, place: tuple[str, str]) -> tuple[str, Channel] | None:
    """Return what is learnt of a channel of a family; its values have their paths as names."""
    device, name = place
    template = entity.template
    path = template.path if template is not None else ""
    # A scaled value is another one than the family's, and so is its unit.
    if (not name and not path) or (template is not None and template.is_scaled):
        return None
    channel = scope.names.channel(device, f"{name}.{path}" if name and path else name or path)
    return device, Channel(channel, entity.unit, label=entity.label or None)


def _values(entity: Entity, text: str, document: object) -> list[tuple[str, Value]]:
    if entity.template is None:
        if isinstance(document, dict | list):
            return flatten(document)
        got: object = text
    else:
        got = entity.template.pick(document if entity.template.is_json else text)
    if got is MISSING or got is None:
        return []
    if entity.on:
        word = as_text(got)
        return [("", True)] if word == entity.on else [("", False)] if word == entity.off else []
    value = (
        word_value(got) if isinstance(got, str) and (entity.is_number or entity.template is None) else json_value(got)
    )
    # A number that is none for once (`unknown`, `overflow`) must not be a text of its channel.
    return [] if value is None or (entity.is_number and isinstance(value, str)) else [("", value)]


def _availability(availability: Availability, text: str, document: object) -> bool | None:
    template = availability.template
    got = text if template is None else template.pick(document if template.is_json else text)
    word = as_text(got)
    return True if word == availability.on else False if word == availability.off else None


def _last(topic: str) -> str:
    return topic.rpartition("/")[2]


def _remove(where: dict[str, list[_Kept]], topic: str, what: _Kept) -> None:
    found = where.get(topic, [])
    if what in found:
        found.remove(what)
    if not found:
        where.pop(topic, None)
