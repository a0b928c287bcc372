"""Homie, versions 3 to 5: properties that describe themselves in retained messages.

Owns: its topics, data types, and what was learnt of properties: at most `MAX_PROPERTIES`. Place: one of the decoders.
Pure. Property ``P`` of node ``N`` of device ``D`` is channel ``N.P`` of device ``D``.
Source: the Homie convention 4.0.0 and 5.0.0.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

from device_sdk.reading import MAX_STRING_BYTES, Channel, Value, ValueType
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.naming import label_of
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, text_of, word_value
from hub.unit import unit_code

# Of one sender: a property takes about 500 bytes; beyond it the one described longest ago lacks its unit.
MAX_PROPERTIES = 5_000
# Of a client that is one device, which has at most 200 channels.
MAX_PROPERTIES_OF_DEVICE = 500
MAX_UNIT_CHARS = 32
_ATTRIBUTES = frozenset({"$name", "$unit", "$datatype"})
_TYPES = {
    "integer": ValueType.INT, "float": ValueType.FLOAT, "boolean": ValueType.BOOL, "string": ValueType.STR,
    "enum": ValueType.STR, "color": ValueType.STR, "datetime": ValueType.STR, "duration": ValueType.STR,
}  # fmt: skip
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,3})?")

_Key = tuple[str, str, str]


class _Property(NamedTuple):
    name: str = ""
    unit: str = ""
    datatype: str = ""


class Homie:
    """Reads properties and what describes them; see `hub.decode.base.Decoder`."""

    __slots__ = ("_max_properties", "_properties", "_scope")
    name = "homie"

    def __init__(self, scope: Scope, *, max_properties: int = MAX_PROPERTIES) -> None:
        self._scope = scope
        self._max_properties = min(max_properties, MAX_PROPERTIES_OF_DEVICE) if scope.device else max_properties
        self._properties: OrderedDict[_Key, _Property] = OrderedDict()

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the value of a property, with what is known of it."""
        segments = publication.topic.split("/")
        if segments[0] != "homie" or not all(segments):
            return None
        # Version 5 has its number in front; before, a device may be called 5, but nobody has one.
        segments = segments[2:] if segments[1:2] == ["5"] else segments[1:]
        match segments:
            case [device, "$description"]:
                return self._described(device, publication)
            case [device, node, prop] if not node.startswith("$") and not prop.startswith("$"):
                return self._value((device, node, prop), publication)
            case [device, node, prop, attribute] if attribute in _ATTRIBUTES:
                text = text_of(publication.payload)
                key = (device, node, prop)
                self._learn(key, self._known(key)._replace(**{attribute[1:]: label_of(text)}))
        return Decoded(self.name, ignored="describes a device, or asks it for something: no reading")

    def _value(self, key: _Key, publication: Publication) -> Decoded:
        known = self._known(key)
        text = text_of(publication.payload)
        device = self._scope.own(key[0])
        name = f"{key[1]}.{key[2]}"
        if known.datatype == "json":
            values = flatten(load(publication.payload), name) if text else []
        else:
            value = _typed(known.datatype, text)
            values = [] if value is None else [(name, value)]
        if not values:
            return Decoded(self.name, ignored="no value")
        readings = tuple([ForeignReading(self._scope.names.channel(device, path), value) for path, value in values])
        channels: tuple[Channel, ...] = ()
        if known is not _NOTHING and known.datatype != "json":
            channel = readings[0].channel
            label = known.name or (name if name != channel else "")
            channels = (Channel(channel, unit_code(known.unit[:MAX_UNIT_CHARS]), _TYPES.get(known.datatype),
                                label=label or None),)  # fmt: skip
        return Decoded(self.name, (Said(device, readings, channels),))

    def _described(self, device: str, publication: Publication) -> Decoded:
        """Learn all properties of a device of version 5."""
        document = load(publication.payload) if publication.payload else {}
        for node, prop, described in _properties_of(document):
            name, unit, datatype = (described.get(field) for field in ("name", "unit", "datatype"))
            self._learn((device, node, prop), _Property(_text(name), _text(unit), _text(datatype)))
        return Decoded(self.name, ignored="describes a device")

    def _known(self, key: _Key) -> _Property:
        return self._properties.get(key, _NOTHING)

    def _learn(self, key: _Key, known: _Property) -> None:
        self._properties[key] = known
        self._properties.move_to_end(key)
        while len(self._properties) > self._max_properties:
            self._properties.popitem(last=False)


_NOTHING = _Property()


def _properties_of(document: object) -> Iterator[tuple[str, str, dict[str, object]]]:
    nodes = document.get("nodes") if isinstance(document, dict) else None
    for node, of_node in nodes.items() if isinstance(nodes, dict) else ():
        properties = of_node.get("properties") if isinstance(of_node, dict) else None
        for prop, described in properties.items() if isinstance(properties, dict) else ():
            if isinstance(described, dict):
                yield node, prop, described


def _text(value: object) -> str:
    return label_of(value) if isinstance(value, str) else ""


def _typed(datatype: str, text: str) -> Value | None:
    """Return the value that a text means; of a property that is not described, what it looks like."""
    kind = _TYPES.get(datatype)
    if kind is None:
        return word_value(text)
    if kind is ValueType.STR and len(text.encode()) <= MAX_STRING_BYTES:
        return text or None
    if text.lower() in ("", "nan"):
        return None
    if kind is ValueType.BOOL and text in ("true", "false"):
        return text == "true"
    if kind is ValueType.INT and _INTEGER.fullmatch(text):
        return int(text)
    if kind is ValueType.FLOAT and _FLOAT.fullmatch(text):
        number = float(text)
        return number if isfinite(number) else None
    raise DecodeError(f"{text[:40]!r} is none of type {datatype}")
