"""The fields that MQTT packets are made of: integers, texts, binary data, and the properties of MQTT 5.

Owns: where each field of a packet's body begins and ends, which properties which packet may have, and what of both is
malformed. Place: below `hub.mqtt.packet` and `hub.mqtt.answer`. Pure.
"""

from collections.abc import Mapping
from enum import IntEnum

from device_sdk.errors import ProtocolError, Reason
from hub.mqtt.handler import Code

# MQTT-1.5.5: four bytes of seven bits each.
MAX_VARINT = 268_435_455
_MAX_VARINT_BYTES = 4
# Of one packet: reading 16 KiB of empty user properties takes 5 ms, reading 256 KiB would hold everybody up.
MAX_PROPERTIES_BYTES = 16 * 1024


class WrongPacketError(ProtocolError):
    """What the peer sent is no packet, or not now: its connection ends; ``code`` tells it why."""

    def __init__(self, why: str, code: Code = Code.MALFORMED) -> None:
        super().__init__(why, Reason.MALFORMED)
        self.code = code


class Property(IntEnum):
    """Identifiers of MQTT 5 (section 2.2.2.2)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


# A property → its value: an integer, a text or binary data. User properties are read over: nothing here means anything.
Properties = Mapping[Property, int | str | bytes]
NONE: Properties = {}

_P = Property
_U8 = frozenset({
    _P.PAYLOAD_FORMAT, _P.REQUEST_PROBLEM_INFORMATION, _P.REQUEST_RESPONSE_INFORMATION, _P.MAXIMUM_QOS,
    _P.SUBSCRIPTION_IDENTIFIERS_AVAILABLE, _P.SHARED_SUBSCRIPTION_AVAILABLE,
})  # fmt: skip
_U16 = frozenset({_P.SERVER_KEEP_ALIVE, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS_MAXIMUM, _P.TOPIC_ALIAS})
_U32 = frozenset({_P.MESSAGE_EXPIRY, _P.SESSION_EXPIRY, _P.WILL_DELAY, _P.MAXIMUM_PACKET_SIZE})
_TEXT = frozenset({
    _P.CONTENT_TYPE, _P.RESPONSE_TOPIC, _P.ASSIGNED_CLIENT_ID, _P.AUTHENTICATION_METHOD, _P.REASON_STRING
})  # fmt: skip
_BINARY = frozenset({_P.CORRELATION_DATA, _P.AUTHENTICATION_DATA})
# Where a value is out of bounds (MQTT 5, 3.1.2.11, 3.3.2.3, 3.8.2.1).
_NEVER_ZERO = frozenset({_P.RECEIVE_MAXIMUM, _P.MAXIMUM_PACKET_SIZE, _P.SUBSCRIPTION_IDENTIFIER})
_ZERO_OR_ONE = frozenset({_P.PAYLOAD_FORMAT, _P.REQUEST_PROBLEM_INFORMATION, _P.REQUEST_RESPONSE_INFORMATION})

# What a client may put into which of its packets. A Subscription Identifier in PUBLISH is the server's alone.
IN_CONNECT = frozenset({
    _P.SESSION_EXPIRY, _P.RECEIVE_MAXIMUM, _P.MAXIMUM_PACKET_SIZE, _P.TOPIC_ALIAS_MAXIMUM,
    _P.REQUEST_RESPONSE_INFORMATION, _P.REQUEST_PROBLEM_INFORMATION, _P.USER_PROPERTY, _P.AUTHENTICATION_METHOD,
    _P.AUTHENTICATION_DATA,
})  # fmt: skip
IN_WILL = frozenset({
    _P.WILL_DELAY, _P.PAYLOAD_FORMAT, _P.MESSAGE_EXPIRY, _P.CONTENT_TYPE, _P.RESPONSE_TOPIC, _P.CORRELATION_DATA,
    _P.USER_PROPERTY,
})  # fmt: skip
IN_PUBLISH = frozenset({
    _P.PAYLOAD_FORMAT, _P.MESSAGE_EXPIRY, _P.TOPIC_ALIAS, _P.RESPONSE_TOPIC, _P.CORRELATION_DATA, _P.USER_PROPERTY,
    _P.CONTENT_TYPE,
})  # fmt: skip
IN_PUBACK = frozenset({_P.REASON_STRING, _P.USER_PROPERTY})
IN_SUBSCRIBE = frozenset({_P.SUBSCRIPTION_IDENTIFIER, _P.USER_PROPERTY})
IN_UNSUBSCRIBE = frozenset({_P.USER_PROPERTY})
IN_DISCONNECT = frozenset({_P.SESSION_EXPIRY, _P.REASON_STRING, _P.USER_PROPERTY})


class Fields:
    """The body of one packet, read from its beginning to its end.

    Every method raises `WrongPacketError` when the field is not there or is malformed.
    """

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes, at: int = 0) -> None:
        self._body = body
        self._at = at

    @property
    def has_more(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._body)

    def integer(self, size: int) -> int:
        """Return an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size))

    def varint(self) -> int:
        """Return a Variable Byte Integer; it must be as short as it can be."""
        value = 0
        for number in range(_MAX_VARINT_BYTES):
            byte = self.integer(1)
            value |= (byte & 0x7F) << 7 * number
            if byte < 0x80:
                if not byte and number:
                    raise WrongPacketError("a Variable Byte Integer longer than it need be")
                return value
        raise WrongPacketError("a Variable Byte Integer of more than four bytes")

    def binary(self) -> bytes:
        """Return bytes that have their length in front."""
        return self.take(self.integer(2))

    def text(self) -> str:
        """Return a text that has its length in front."""
        return read_text(self.binary())

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        end = self._at + size
        if end > len(self._body):
            raise WrongPacketError(f"the packet ends {end - len(self._body)} bytes before what it holds")
        found = self._body[self._at : end]
        self._at = end
        return found

    def rest(self) -> bytes:
        """Return what is left."""
        return self.take(len(self._body) - self._at)

    def end(self) -> None:
        """Check that nothing is left."""
        if self.has_more:
            raise WrongPacketError(f"{len(self._body) - self._at} bytes behind the end of what the packet holds")

    def properties(self, allowed: frozenset[Property]) -> Properties:
        """Return the properties that come next; only those ``allowed`` may be there, each once."""
        size = self.varint()
        if size > MAX_PROPERTIES_BYTES:
            raise WrongPacketError(f"{size} > {MAX_PROPERTIES_BYTES} bytes of properties", Code.QUOTA_EXCEEDED)
        inner = Fields(self.take(size))
        found: dict[Property, int | str | bytes] = {}
        while inner.has_more:
            identifier = inner.varint()
            if identifier not in allowed:
                raise WrongPacketError(f"property {identifier:#04x} has no place in this packet")
            name = Property(identifier)
            if name is Property.USER_PROPERTY:
                inner.text()
                inner.text()
                continue
            if name in found:
                raise WrongPacketError(f"property {name.name} twice", Code.PROTOCOL_ERROR)
            found[name] = inner._value(name)
        return found or NONE

    def _value(self, name: Property) -> int | str | bytes:
        if name in _TEXT:
            return self.text()
        if name in _BINARY:
            return self.binary()
        value = self.varint() if name is Property.SUBSCRIPTION_IDENTIFIER else self.integer(_size(name))
        if (name in _NEVER_ZERO and not value) or (name in _ZERO_OR_ONE and value > 1):
            raise WrongPacketError(f"property {name.name} cannot be {value}", Code.PROTOCOL_ERROR)
        return value


def read_text(raw: bytes) -> str:
    """Return UTF-8 without surrogates (Python's decoder refuses them) and without NUL.

    Raises:
        WrongPacketError: it is not that.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise WrongPacketError(f"text that is not UTF-8: {error.reason}") from error
    if "\0" in text:
        raise WrongPacketError("NUL in a text")
    return text


def number_of(properties: Properties, name: Property, default: int) -> int:
    """Return the value of an integer property."""
    value = properties.get(name, default)
    assert isinstance(value, int), "each property has the type that `Fields` read"
    return value


def text_of(properties: Properties, name: Property) -> str:
    """Return the value of a text property; empty when it is not there."""
    value = properties.get(name, "")
    assert isinstance(value, str), "each property has the type that `Fields` read"
    return value


def varint_bytes(value: int) -> bytes:
    """Return a Variable Byte Integer; ``value`` is at most `MAX_VARINT`."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text_bytes(text: str) -> bytes:
    """Return a text with its length in front; at most 65,535 bytes."""
    raw = text.encode()
    return len(raw).to_bytes(2) + raw


def property_bytes(properties: Properties) -> bytes:
    """Return properties with their length in front."""
    out = bytearray()
    for name, value in properties.items():
        out.append(name)
        if isinstance(value, str):
            out += text_bytes(value)
        elif isinstance(value, bytes):
            out += len(value).to_bytes(2) + value
        elif name is Property.SUBSCRIPTION_IDENTIFIER:
            out += varint_bytes(value)
        else:
            out += value.to_bytes(_size(name))
    return varint_bytes(len(out)) + bytes(out)


def _size(name: Property) -> int:
    if name in _U8:
        return 1
    if name in _U16:
        return 2
    assert name in _U32, f"{name.name} has a type"
    return 4
