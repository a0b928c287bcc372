"""Zigbee2MQTT: ``zigbee2mqtt/<friendly name>`` with a JSON object.

Owns: which of its messages hold readings; units and labels from ``bridge/devices``. Place: before `dispatch`. Pure.
Source: Zigbee2MQTT documentation, "MQTT Topics and Messages" and "Exposes".

A friendly name may contain ``/``. The base topic is a setting there: another one than ``zigbee2mqtt`` is learnt from
its ``bridge/`` messages.
"""

from collections.abc import Generator, Iterator
from itertools import islice

from device_sdk.reading import Channel, Value
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said, at_once
from hub.decode.esphome import ONLINE
from hub.decode.moment import near_ns
from hub.decode.naming import label_of
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, path_of, text_of, word_value
from hub.unit import PERCENT, unit_code

_BASE = "zigbee2mqtt/"
# Of one sender: a broker has one for each coordinator.
_MAX_BASES = 8
# A Zigbee network has no more than some hundred devices; a device exposes some dozen values.
_MAX_DEVICES = 1000
_MAX_EXPOSED = 100
# Not of the sensor: the state of updates, the device's description, time since the last message.
_NO_CHANNEL = frozenset({"last_seen", "elapsed", "update", "update_available", "device"})
_DEVICES = "bridge/devices"
_DEVICES_TAIL = f"/{_DEVICES}"

_Values = list[tuple[str, Value]]


class Zigbee2Mqtt:
    """Knows messages by their base topic."""

    __slots__ = ("_bases", "_scope")
    name = "zigbee2mqtt"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._bases: tuple[str, ...] = (_BASE,)

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a message; see `hub.decode.base.Decoder`."""
        topic = publication.topic
        if not topic.startswith(self._bases) and self._learn(publication) is None:
            return None
        name = self._name(topic)
        if name == _DEVICES:
            return at_once(self._devices(publication.payload))
        if name.startswith("bridge/") or not name:
            return Decoded(self.name, ignored="the bridge tells of itself")
        head, _, tail = name.rpartition("/")
        if tail in ("set", "get") or "/set/" in name or "/get/" in name:
            return Decoded(self.name, ignored="a command to a device, not a reading")
        if not publication.payload:
            return Decoded(self.name, ignored="an empty message")
        if tail == "availability":
            return self._availability(head, publication.payload)
        if publication.payload[:1] != b"{" and head:
            # Published by attribute: one topic for each value.
            return self._said(head, [] if tail in _NO_CHANNEL else _attribute(tail, publication.payload), None)
        return self._state(name, publication)

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`, with a pause after each device of a list."""
        topic = publication.topic
        if not topic.startswith(self._bases) and self._learn(publication) is None:
            return None
        if self._name(topic) != _DEVICES:
            return self.decode(publication)
        return (yield from self._devices(publication.payload))

    def _name(self, topic: str) -> str:
        """Return what stands behind the base topic."""
        return topic[len(next(base for base in self._bases if topic.startswith(base))) :]

    def _learn(self, publication: Publication) -> str | None:
        """Return the base topic of another bridge, when this is its list of devices; others may say `bridge` too."""
        topic = publication.topic
        if not topic.endswith(_DEVICES_TAIL) or b'"ieee_address"' not in publication.payload:
            return None
        base = topic[: -len(_DEVICES)]
        self._bases = (*self._bases[:_MAX_BASES], base)
        return base

    def _state(self, name: str, publication: Publication) -> Decoded:
        document = load(publication.payload)
        if not isinstance(document, dict):
            raise DecodeError("no JSON object, which the state of a device is")
        time_ns = near_ns(document.get("last_seen"), self._scope.zone, publication.received_ns)
        return self._said(name, flatten({k: v for k, v in document.items() if k not in _NO_CHANNEL}), time_ns)

    def _said(self, name: str, values: _Values, time_ns: int | None) -> Decoded:
        if not values:
            return Decoded(self.name, ignored="no value")
        device = self._scope.names.device(name)
        channel = self._scope.names.channel
        readings = [ForeignReading(channel(device, path), value, time_ns) for path, value in values]
        return Decoded(self.name, (Said(device, tuple(readings)),))

    def _availability(self, name: str, payload: bytes) -> Decoded:
        document = load(payload) if payload[:1] == b"{" else None
        state = document.get("state") if isinstance(document, dict) else text_of(payload)
        if state not in ("online", "offline"):
            raise DecodeError("neither online nor offline, which an availability is")
        device = self._scope.names.device(name)
        return Decoded(self.name, (Said(device, (ForeignReading(ONLINE, state == "online"),)),))

    def _devices(self, payload: bytes) -> Generator[None, None, Decoded]:
        document = load(payload)
        if not isinstance(document, list):
            raise DecodeError("no list, which bridge/devices is")
        said = []
        for entry in document[:_MAX_DEVICES]:
            name = entry.get("friendly_name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not name or entry.get("type") == "Coordinator":
                continue
            definition = entry.get("definition")
            exposes = definition.get("exposes") if isinstance(definition, dict) else None
            device = self._scope.names.device(name)
            channels = [
                _channel(self._scope.names.channel(device, path), feature)
                for path, feature in islice(_exposed(exposes, (), 3), _MAX_EXPOSED)
            ]
            if channels:
                said.append(Said(device, (), tuple(channels)))
            yield
        return Decoded(self.name, tuple(said), ignored="what devices there are, and their units")


def place(scope: Scope, topic: str) -> tuple[str, str] | None:
    """Return whose a state is; None: it is none of Zigbee2MQTT. Its values name the channels."""
    if not topic.startswith(_BASE) or topic.startswith(_BASE + "bridge/"):
        return None
    return scope.names.device(topic[len(_BASE) :]), ""


def _attribute(name: str, payload: bytes) -> _Values:
    value = word_value(text_of(payload))
    return [] if value is None else [(name, value)]


def _exposed(exposes: object, steps: tuple[str, ...], depth: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield what has a value, by its path: a composite has a property and features, a light features alone."""
    if not isinstance(exposes, list) or depth == 0:
        return
    for feature in exposes:
        if not isinstance(feature, dict):
            continue
        name = feature.get("property")
        below = (*steps, name) if isinstance(name, str) else steps
        if "features" in feature:
            yield from _exposed(feature["features"], below, depth - 1)
        elif isinstance(name, str) and name and len(path := path_of(below)) <= 256:
            yield path, feature


def _channel(name: str, feature: dict[str, object]) -> Channel:
    unit, label = feature.get("unit"), feature.get("label")
    code = unit_code(unit[:32]) if isinstance(unit, str) else None
    if code == "%":
        code = PERCENT.get(str(feature.get("property")), code)
    return Channel(name, code, label=(label_of(label) or None) if isinstance(label, str) else None)
