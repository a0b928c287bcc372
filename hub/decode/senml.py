"""SenML packs (RFC 8428), as JSON or CBOR → readings.

Owns: base fields, relative times, which name is a device's and which a channel's. Place: after `rows`. Pure.

The whole name of a record, its base name included, is split at the last ``/`` or ``:``: what stands before is the
device, what is behind the channel. A URN of a device alone (``urn:dev:mac:0024befffe804ff1``, RFC 9039) is a device
whose one channel is ``value``. Without a separator the name is a channel of the sender. For a sender that is one
device, another device's name is a part of the channel's. A sum (``s``) is channel ``NAME.sum``; data (``vd``) is left
out. Source: RFC 8428, sections 4 to 6.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, NoReturn

import cbor2

from device_sdk.errors import Reason
from device_sdk.reading import Channel
from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import TOO_LARGE, Decoded, DecodeError, Publication
from hub.decode.rows import MAX_ROWS, STEP, Rows, parts_of
from hub.decode.scope import Scope
from hub.decode.value import load

JSON, CBOR = "application/senml+json", "application/senml+cbor"
VERSION = 10
# Times below are relative to now; section 4.5.3.
ABSOLUTE_FROM_S = 2**28
# Nothing of SenML is deeper than a record in a pack.
_MAX_DEPTH = 4
# There are 15; more are extensions. What refers to a record of CBOR instead of saying it again would multiply them.
_MAX_FIELDS = 40
# Of a name with its base name, which is looked at for each record.
_MAX_NAME_CHARS = 1024
# Beyond any number of a sensor, in the bits of an integer.
_MAX_BITS = 1400
# What else CBOR can say than numbers (2 to 5) has no place in SenML. Programs, mails and references to what was said
# before are work and memory beyond the size of a pack.
_NO_TAGS = (0, 1, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000)
_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s",
    6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_KNOWN = frozenset(_LABELS.values())
_VALUES = ("v", "vs", "vb", "vd", "s")
# With those of CBOR.
_NAME_LABELS, _VALUE_LABELS = ("n", "bn", 0, -2), (*_VALUES, 2, 3, 4, 8, 5)
_URN_DEVICE = re.compile(r"urn:dev:[a-z0-9]+:[^:/]+", re.IGNORECASE)
_UNIT_CHARS = 32
_S_NS = 10**9

_TOO_MANY = f"{{}} records in one pack; the limit is {MAX_ROWS}"

_Record = Mapping[str, object]


class Senml:
    """Takes messages that are SenML by their content type, or look like it: a list of records with a name."""

    __slots__ = ("_scope",)
    name = "senml"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a pack; see `hub.decode.base.Decoder`."""
        records = _pack_of(publication)
        if records is None:
            return None
        return self._decoded(publication, read_records(records, self._scope, publication.received_ns))

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`, with pauses."""
        records = _pack_of(publication)
        if records is None:
            return None
        found = Rows()
        yield from reading(records, self._scope, publication.received_ns, found)
        return self._decoded(publication, found)

    def _decoded(self, publication: Publication, found: Rows) -> Decoded:
        fallback = self._scope.device or _device_of(publication.topic, self._scope)
        if found.faults:
            raise DecodeError(f"record {found.faults[0].at}: {found.faults[0].why}")
        if not fallback and any(row.device is None for row in found.rows):
            raise DecodeError("neither its name, the topic nor the credential says which device it is of")
        said = tuple(part.said for part in parts_of(found, fallback))
        return Decoded(self.name, said, ignored="" if said else "no value")


def read_pack(data: bytes, scope: Scope, now_ns: int, *, is_cbor: bool = False) -> Rows:
    """Return what a pack holds; rows without a device are the sender's.

    Raises:
        DecodeError: it is no pack, or of a later version.
    """
    return read_records(load_pack(data, is_cbor=is_cbor), scope, now_ns)


def read_records(records: object, scope: Scope, now_ns: int) -> Rows:
    """Return what the records of a pack hold; raises as `read_pack`."""
    rows = Rows()
    for _ in reading(records, scope, now_ns, rows):
        pass
    return rows


def reading(records: object, scope: Scope, now_ns: int, rows: Rows) -> Iterator[None]:
    """Read the records of a pack into ``rows``; yields at times, so that others are heard. Raises as `read_pack`."""
    if not isinstance(records, Sequence) or isinstance(records, str | bytes):
        raise DecodeError("a SenML pack is a list of records")
    if len(records) > MAX_ROWS:
        raise DecodeError(_TOO_MANY.format(len(records)))
    reader = _Reader(scope, now_ns, rows)
    for at, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise DecodeError(f"record {at} is no object")
        if len(record) > _MAX_FIELDS:
            rows.fault(at, Reason.MALFORMED, f"a record of more than {_MAX_FIELDS} fields")
        else:
            reader.read(at, _labelled(record))
        if at % STEP == 0:
            yield


class _Reader:
    """The base fields that hold now, and what was read so far."""

    def __init__(self, scope: Scope, now_ns: int, rows: Rows) -> None:
        self.rows = rows
        self._scope = scope
        self._now_ns = now_ns
        self._name, self._unit = "", ""
        self._time = self._value = self._sum = Decimal(0)
        # Instants of channels that have a reading, and how far behind the last one that said the same instant stands.
        self._taken: dict[tuple[str | None, str, int], int] = {}

    def read(self, at: int, record: _Record) -> None:
        """Take one record."""
        self._check(at, record)
        try:
            self._take_base(record)
            if not any(field in record for field in _VALUES):
                return
            device, channel = self._split(self._name + _text(record, "n"))
            time_ns = self._time_ns(record)
            values = self._values(record)
            unit = _text(record, "u") if "u" in record else self._unit
        except (ValueError, InvalidOperation, OverflowError) as error:
            self.rows.fault(at, Reason.MALFORMED, str(error)[:200])
            return
        for tail, value in values:
            name = self._scope.names.channel(device or self._scope.device, channel + tail)
            if not tail:
                self._learn(device, name, unit)
            self.rows.add(at, device, name, value, self._spread(device, name, time_ns))

    def _check(self, at: int, record: _Record) -> None:
        version = record.get("bver", VERSION)
        if not isinstance(version, int) or version > VERSION:
            # Of a number without end no text can be made.
            said = version if isinstance(version, int) and version < 2**64 else "no number"
            raise DecodeError(f"record {at}: SenML of version {said}; this hub knows {VERSION}")
        must = next((field for field in record if field.endswith("_") and field not in _KNOWN), None)
        if must is not None:
            raise DecodeError(f"record {at}: field {must[:40]!r} must be understood, and is not known here")

    def _take_base(self, record: _Record) -> None:
        """Take base fields, all of them or none: they hold for the records behind too."""
        name = _text(record, "bn") if "bn" in record else self._name
        unit = _text(record, "bu") if "bu" in record else self._unit
        time = _number(record, "bt") if "bt" in record else self._time
        value = _number(record, "bv") if "bv" in record else self._value
        self._sum = _number(record, "bs") if "bs" in record else self._sum
        self._name, self._unit, self._time, self._value = name, unit, time, value

    def _split(self, name: str) -> tuple[str | None, str]:
        """Return the device, None for the sender, and the text of the channel."""
        if not name:
            raise ValueError("it has no name")
        if len(name) > _MAX_NAME_CHARS:
            raise ValueError(f"a name of more than {_MAX_NAME_CHARS} characters")
        if _URN_DEVICE.fullmatch(name) or name[-1] in "/:":
            device, channel = name.rstrip("/:"), "value"
        else:
            at = max(name.rfind("/"), name.rfind(":"))
            device, channel = name[: max(at, 0)], name[at + 1 :]
        if not device:
            return None, channel
        if not self._scope.device:
            return self._scope.names.device(device), channel
        return None, channel if device == self._scope.device else f"{device}.{channel}"

    def _time_ns(self, record: _Record) -> int | None:
        time = self._time + (_number(record, "t") if "t" in record else 0)
        if time >= ABSOLUTE_FROM_S:
            return int(time * _S_NS)
        return None if not time else self._now_ns + int(time * _S_NS)

    def _values(self, record: _Record) -> list[tuple[str, object]]:
        values: list[tuple[str, object]] = []
        if "v" in record:
            values.append(("", _plain(_number(record, "v") + self._value, record["v"], self._value)))
        elif "vs" in record:
            values.append(("", _text(record, "vs")))
        elif "vb" in record:
            if not isinstance(record["vb"], bool):
                raise ValueError("vb is neither true nor false")
            values.append(("", record["vb"]))
        if "s" in record:
            values.append((".sum", _plain(_number(record, "s") + self._sum, record["s"], self._sum)))
        return values

    def _learn(self, device: str | None, name: str, unit: str) -> None:
        if (device, name) in self.rows.channels:
            return
        label = self._scope.names.label(device or self._scope.device, name)
        if unit or label:
            self.rows.channels[device, name] = Channel(name, unit[:_UNIT_CHARS] or None, label=label)

    def _spread(self, device: str | None, name: str, time_ns: int | None) -> int | None:
        """Set readings of a channel that say one time apart: they are several, not corrections of each other."""
        if time_ns is None:
            return None  # whoever gives it the receive time sets them apart
        taken, further = self._taken, self._taken.get((device, name, time_ns), 0)
        while (device, name, time_ns + further) in taken:
            further += 1
        taken[device, name, time_ns] = further
        taken[device, name, time_ns + further] = taken.get((device, name, time_ns + further), 0)
        return time_ns + further


def _pack_of(publication: Publication) -> object | None:
    """Return the records of a message that is SenML, None of any other."""
    kind, payload = publication.content_type.partition(";")[0].strip().lower(), publication.payload
    if kind in (JSON, CBOR):
        _check_size(payload, is_cbor=kind == CBOR)
        return load_pack(payload, is_cbor=kind == CBOR)
    if payload[:1] == b"[":
        try:
            records = load(payload)
        except DecodeError:
            return None
        return records if _looks_like_it(records) else None
    if _begins_with_map(payload):
        _check_size(payload, is_cbor=True)
        try:
            records = load_pack(payload, is_cbor=True)
        except DecodeError:
            return None
        return records if _looks_like_it(records, is_cbor=True) else None
    return None


def _check_size(payload: bytes, *, is_cbor: bool) -> None:
    """Refuse what would be refused when it is read: reading it takes time."""
    if len(payload) > MAX_FRAME_BYTES:
        raise DecodeError(TOO_LARGE)
    count, _ = _array(payload) if is_cbor else (0, 0)
    if MAX_ROWS < count <= len(payload):
        raise DecodeError(_TOO_MANY.format(count))


def _array(payload: bytes) -> tuple[int, int]:
    """Return how many items an array of CBOR says that it has, and where they begin; 0: it does not say, or is none."""
    if not payload or payload[0] >> 5 != 4:
        return 0, 0
    size = payload[0] & 31
    if not 24 <= size < 28:
        return size % 31, 1
    at = 1 + (1 << (size - 24))
    return int.from_bytes(payload[1:at], "big"), at


def _begins_with_map(payload: bytes) -> bool:
    """Return whether it is an array of CBOR that begins with a map; no text begins so."""
    _, at = _array(payload)
    return 0 < at < len(payload) and payload[at] >> 5 == 5


def _looks_like_it(records: object, *, is_cbor: bool = False) -> bool:
    """Return whether it is a list of records, by as many as are read."""
    if not isinstance(records, list) or not records:
        return False
    few = records[:MAX_ROWS]
    return (
        all(isinstance(record, Mapping) and not (is_cbor and len(record) > _MAX_FIELDS) for record in few)
        and any(label in few[0] for label in _NAME_LABELS)
        and any(label in record for record in few for label in _VALUE_LABELS)
    )


def load_pack(data: bytes, *, is_cbor: bool) -> object:
    """Return the document of a pack, which may be anything; raise `DecodeError` when it is none."""
    if not is_cbor:
        return load(data)
    try:
        return cbor2.loads(data, max_depth=_MAX_DEPTH, semantic_decoders=_SEMANTICS)
    except Exception as error:  # the library says its own errors, and those of what a tag stands for
        raise DecodeError(f"no CBOR: {error}"[:200]) from error


@dataclass(slots=True)
class _Number:
    """A number that CBOR says with a tag. It has no hash, so it is no label: many could be made that hash alike."""

    value: Decimal | int


def _no_tag(said: object, is_immutable: bool) -> NoReturn:
    raise DecodeError("a tag that has no place in SenML")


def _integer(sign: int, said: object, is_immutable: bool) -> _Number:
    if not isinstance(said, bytes):
        raise DecodeError("a large integer is bytes")
    number = int.from_bytes(said, "big")
    return _Number(number if sign > 0 else -1 - number)


def _fraction(base: int, said: object, is_immutable: bool) -> _Number:
    match said:
        case [int(exponent), int(mantissa)] if abs(exponent) <= _MAX_BITS:
            return _Number(Decimal(mantissa) * Decimal(base) ** exponent)
        case [int(), int()]:
            return _Number(Decimal("NaN"))
    raise DecodeError("a fraction is an exponent and a mantissa")


_SEMANTICS: dict[int, Callable[[Any, bool], object]] = {
    **dict.fromkeys(_NO_TAGS, _no_tag), 2: partial(_integer, 1), 3: partial(_integer, -1), 4: partial(_fraction, 10),
    5: partial(_fraction, 2),
}  # fmt: skip


def _labelled(record: Mapping[object, object]) -> _Record:
    """Return a record with the names of JSON; labels of CBOR that are not known are left out."""
    if all(type(label) is str and type(value) is not _Number for label, value in record.items()):
        return record  # type: ignore[return-value]  # just looked at
    found: dict[str, object] = {}
    for label, value in record.items():
        name = label if isinstance(label, str) else _LABELS.get(label) if isinstance(label, int) else None
        if name is not None:
            found[name] = value.value if isinstance(value, _Number) else value
    return found


def _device_of(topic: str, scope: Scope) -> str:
    """Return the device that a topic such as ``channels/ID/messages`` names, else nothing."""
    head = topic.strip("/").rpartition("/")[0]
    return scope.names.device(head.removeprefix("channels/")) if head else ""


def _text(record: _Record, field: str) -> str:
    value = record.get(field, "")
    if not isinstance(value, str):
        raise ValueError(f"{field} is no text")
    return value


def _number(record: _Record, field: str) -> Decimal:
    """Return a number with the decimal digits that were sent."""
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"{field} is no number")
    # The digits of an integer are quadratic work, those that an exponent stands for are memory.
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError(f"{field} is no finite number")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or (number and not -400 < number.adjusted() < 400):
        raise ValueError(f"{field} is no finite number")
    return number


def _plain(value: Decimal, said: object, base: Decimal) -> float | int:
    """Return a value as integer only where nothing of it was written otherwise: 21 and 21.0 are two types."""
    if isinstance(said, int) and base == base.to_integral_value():
        return int(value)
    return float(value)
