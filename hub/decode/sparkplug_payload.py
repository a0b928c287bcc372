"""The payload of Sparkplug B: bytes of protobuf ↔ records of ours, by field numbers of the specification.

Owns: the fields, the data types, and which value a metric's bits mean. Place: after `base`, before `sparkplug`. Pure.
The only importer of ``google.protobuf``, an extra, when the first message comes.

The messages are described here at run time, so nothing is generated and no other package's description of them is
needed. Texts are described as bytes, which is the same on the wire: what is no UTF-8 is then found here, whichever of
its implementations protobuf runs on. What is never read (data sets, templates) is described as bytes too: its insides
cost nothing, however deep they are nested.
Source: Sparkplug 3.0.0, section 6.4.
"""

import struct
from collections.abc import Generator, Mapping
from enum import IntEnum
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

from device_sdk.reading import INT_MAX, Value, ValueType
from hub.decode.base import DecodeError, at_once

REBIRTH = "Node Control/Rebirth"
# What a birth of a large node has is some thousands; beyond it a message is no work for one turn of the loop.
MAX_METRICS = 10_000
# Metrics between which others are heard: half a millisecond.
STEP = 50
# A name is a path of folders; the longest seen in plants have about 200 bytes.
MAX_NAME_BYTES = 512


class DataType(IntEnum):
    """What a metric holds; only what can be a reading has a name here."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14
    UUID = 15


# Of the others, for people.
_NO_READING = {16: "DataSet", 17: "Bytes", 18: "File", 19: "Template", 20: "PropertySet", 21: "PropertySetList"}
_BITS = {
    DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64,
}  # fmt: skip
_UNSIGNED = frozenset({DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64, DataType.DATE_TIME})
_TEXTS = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})
_TYPES: Mapping[int, ValueType] = {
    **dict.fromkeys((*_BITS, *_UNSIGNED), ValueType.INT),
    DataType.FLOAT: ValueType.FLOAT, DataType.DOUBLE: ValueType.FLOAT, DataType.BOOLEAN: ValueType.BOOL,
    **dict.fromkeys(_TEXTS, ValueType.STR),
}  # fmt: skip

# name: (number, type); ``*``: repeated. Of the fields of a message that end in ``_value`` at most one is there.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Payload": {
        "timestamp": (1, "uint64"), "metrics": (2, "*Metric"), "seq": (3, "uint64"), "uuid": (4, "bytes"),
        "body": (5, "bytes"),
    },
    "Metric": {
        "name": (1, "bytes"), "alias": (2, "uint64"), "timestamp": (3, "uint64"), "datatype": (4, "uint32"),
        "is_historical": (5, "bool"), "is_transient": (6, "bool"), "is_null": (7, "bool"), "metadata": (8, "bytes"),
        "properties": (9, "Properties"),
        "int_value": (10, "uint32"), "long_value": (11, "uint64"), "float_value": (12, "float"),
        "double_value": (13, "double"), "boolean_value": (14, "bool"), "string_value": (15, "bytes"),
        "bytes_value": (16, "bytes"), "dataset_value": (17, "bytes"), "template_value": (18, "bytes"),
        "extension_value": (19, "bytes"),
    },
    "Properties": {"keys": (1, "*bytes"), "values": (2, "*Property")},
    "Property": {
        "type": (1, "uint32"), "is_null": (2, "bool"), "int_value": (3, "uint32"), "long_value": (4, "uint64"),
        "float_value": (5, "float"), "double_value": (6, "double"), "boolean_value": (7, "bool"),
        "string_value": (8, "bytes"), "propertyset_value": (9, "bytes"), "propertysets_value": (10, "bytes"),
        "extension_value": (11, "bytes"),
    },
}  # fmt: skip
_PACKAGE = "hub.sparkplug"


class UnfitError(ValueError):
    """A metric whose value cannot be a reading; the message says why."""


class MisfitError(UnfitError):
    """A value that is not of its metric's type: by now its alias may mean something else."""


class Metric(NamedTuple):
    """One metric as it came: ``raw`` is of the field ``kind``, e.g. ``int_value``; "" when it has no value.

    ``datatype`` 0: not said. ``time_ms`` None: not said. ``unit``, ``quality``: of its properties.
    """

    name: str
    alias: int | None
    time_ms: int | None
    datatype: int
    kind: str
    raw: Any
    is_historical: bool
    is_transient: bool
    unit: str | None
    quality: int | None


class Payload(NamedTuple):
    """One message: when it was sent, its place in the sequence of its node, its metrics; None: not said."""

    time_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]


def parse(data: bytes) -> Payload:
    """Return what a message holds.

    Raises:
        DecodeError: it is no payload of Sparkplug B, or larger than any that is meant; protobuf is not installed.
    """
    return at_once(parsing(data))


def parsing(data: bytes) -> Generator[None, None, Payload]:
    """Do as `parse`, with pauses."""
    message = payload_class()()
    try:
        message.ParseFromString(data)
        if len(message.metrics) > MAX_METRICS:
            raise DecodeError(f"{len(message.metrics)} metrics in one message; the limit is {MAX_METRICS}")
        if message.uuid == b"SPBV1.0_COMPRESSED":
            raise DecodeError("a compressed payload, which is none of Sparkplug 3: switch compression off")
        metrics = []
        for at, metric in enumerate(message.metrics, 1):
            metrics.append(_metric(metric))
            if at % STEP == 0:
                yield
    except DecodeError:
        raise
    except UnicodeDecodeError as error:
        raise DecodeError(f"a text of the payload is not UTF-8: {error}") from error
    except Exception as error:  # protobuf's own, whose class is only there when protobuf is
        raise DecodeError(f"not a payload of Sparkplug B: {error}") from error
    time_ms = message.timestamp if message.HasField("timestamp") else None
    return Payload(time_ms, message.seq if message.HasField("seq") else None, tuple(metrics))


def rebirth(now_ms: int) -> bytes:
    """Return the payload of the command that asks a node for new births."""
    message = payload_class()()
    message.timestamp = now_ms
    metric = message.metrics.add()
    metric.name = REBIRTH.encode()
    metric.timestamp = now_ms
    metric.datatype = DataType.BOOLEAN
    metric.boolean_value = True
    return bytes(message.SerializeToString())


def value_type(datatype: int) -> ValueType | None:
    """Return the type of a channel of such metrics; None: they are no readings, or it is not known."""
    return _TYPES.get(datatype)


def value_of(metric: Metric, datatype: int) -> Value | None:
    """Return the value of a metric; None: it has none.

    Args:
        datatype: of its birth, or as it came with the metric.

    Raises:
        UnfitError: it cannot be a reading.
        MisfitError: it is not of this type.
    """
    kind, raw = metric.kind, metric.raw
    if not kind:
        return None
    if kind not in _KINDS or (datatype and datatype not in _TYPES):
        raise UnfitError(f"a value of type {_type_name(datatype) or kind} is no reading")
    if kind in _FLOATS and not isfinite(raw):
        return None
    if kind == "string_value":
        raw = _utf8(raw)
    if not datatype:
        return _guessed(kind, raw)
    if kind not in _KINDS_OF[_TYPES[datatype]]:
        raise MisfitError(f"{kind} in a metric of type {_type_name(datatype)}")
    match _TYPES[datatype]:
        case ValueType.INT:
            return _integer(raw, datatype)
        case ValueType.FLOAT:
            return shortest(raw) if kind == "float_value" else float(raw)
        case ValueType.BOOL:
            return bool(raw)
        case _:
            return str(raw)


def shortest(value: float) -> float:
    """Return the shortest decimal number that is this 32-bit float: 21.53, not 21.530000686645508."""
    for digits in (6, 7, 8):
        found = float(f"{value:.{digits}g}")
        try:
            if struct.unpack("<f", struct.pack("<f", found))[0] == value:
                return found
        except OverflowError:  # rounded up beyond what 32 bits hold
            continue
    return value


@cache
def payload_class() -> Any:
    """Return protobuf's class of the payload, described in a pool of its own.

    Raises:
        DecodeError: protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise DecodeError("Sparkplug needs protobuf: pip install 'telemetry-hub[sparkplug]'") from error
    # Presence must be told apart from 0: an alias may be 0.
    file = descriptor_pb2.FileDescriptorProto(name="hub/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    of = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        has_value = any(field.endswith("_value") for field in fields)
        if has_value:
            described.oneof_decl.add(name="value")
        for field_name, (number, kind) in fields.items():
            label = of.LABEL_REPEATED if kind.startswith("*") else of.LABEL_OPTIONAL
            field = described.field.add(name=field_name, number=number, label=label)
            base = kind.removeprefix("*")
            if base in _MESSAGES:
                field.type, field.type_name = of.TYPE_MESSAGE, f".{_PACKAGE}.{base}"
            else:
                field.type = getattr(of, f"TYPE_{base.upper()}")
            if field_name.endswith("_value"):
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


_INTEGERS = frozenset({"int_value", "long_value"})
_FLOATS = frozenset({"float_value", "double_value"})
_KINDS = _INTEGERS | _FLOATS | {"boolean_value", "string_value"}
# Which fields a type may come in: integers of any width in both (clients differ), a whole float as an integer too.
_KINDS_OF: Mapping[ValueType, frozenset[str]] = {
    ValueType.INT: _INTEGERS, ValueType.FLOAT: _FLOATS | _INTEGERS, ValueType.BOOL: frozenset({"boolean_value"}),
    ValueType.STR: frozenset({"string_value"}),
}  # fmt: skip


def _metric(metric: Any) -> Metric:
    kind = "" if metric.is_null else metric.WhichOneof("value") or ""
    unit, quality = _properties(metric.properties) if metric.HasField("properties") else (None, None)
    return Metric(
        _text(metric.name) if len(metric.name) <= MAX_NAME_BYTES else "",
        metric.alias if metric.HasField("alias") else None,
        metric.timestamp if metric.HasField("timestamp") else None,
        metric.datatype, kind, getattr(metric, kind) if kind else None, metric.is_historical, metric.is_transient, unit,
        quality,
    )  # fmt: skip


def _properties(properties: Any) -> tuple[str | None, int | None]:
    unit = quality = None
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == b"engUnit" and value.HasField("string_value"):
            unit = _text(value.string_value).strip() or None
        elif key == b"Quality" and not value.is_null:
            quality = value.int_value if value.HasField("int_value") else value.long_value
    return unit, quality


def _type_name(datatype: int) -> str:
    if datatype in _TYPES:
        return DataType(datatype).name
    return _NO_READING.get(datatype, f"{datatype}, an array or one that is not known" if datatype else "")


def _utf8(raw: bytes) -> str:
    try:
        return _text(raw)
    except UnicodeDecodeError as error:
        raise UnfitError("a text that is not UTF-8") from error


def _text(raw: bytes) -> str:
    return raw.decode("utf-8")


def _integer(raw: int, datatype: int) -> Value:
    """Return the number: a signed one is two's complement in an unsigned field, extended to it or not."""
    bits = _BITS.get(DataType(datatype))
    if bits is not None:
        raw &= (1 << bits) - 1
        return raw - (1 << bits) if raw >> (bits - 1) else raw
    # Of 64 bits without a sign the upper half is no integer of the store.
    return raw if raw <= INT_MAX else float(raw)


def _guessed(kind: str, raw: Any) -> Value:
    """Return a value whose type was not said; whether an integer has a sign cannot be seen."""
    if kind in _INTEGERS:
        raise MisfitError("an integer whose type was not said yet: with or without a sign?")
    return shortest(raw) if kind == "float_value" else raw
