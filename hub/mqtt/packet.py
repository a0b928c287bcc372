"""Packets that a client sends: cut out of the stream of bytes, and read, for MQTT 3.1.1 and 5.

Owns: where a packet begins and ends, its limit, what each packet holds, what of it the standard calls malformed. Place:
below `hub.mqtt.conversation`, which knows which packet may come when. Pure.

A packet is its first byte and its body. PUBLISH is what an endpoint reads all day: `read_publish` does no work that a
message without properties has no need of, and returns a plain tuple.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from hub.mqtt.field import (
    IN_CONNECT,
    IN_DISCONNECT,
    IN_PUBACK,
    IN_PUBLISH,
    IN_SUBSCRIBE,
    IN_UNSUBSCRIBE,
    IN_WILL,
    NONE,
    Fields,
    Properties,
    Property,
    WrongPacketError,
)
from hub.mqtt.handler import Code, Connect, Will
from hub.mqtt.topic import SHARED, check_filter, check_name, read_name

# As large as a WebSocket message may be (`device_sdk.wire.MAX_FRAME_BYTES`): MQTT 5 is told.
MAX_PACKET_BYTES = 256 * 1024
# Of a gateway, whose lists of all that is behind it come in one message: 270 devices of Zigbee2MQTT.
MAX_GATEWAY_PACKET_BYTES = 1024 * 1024
# Of somebody who is not known yet: room for a long password and a will, of which the standard has 64 KiB each.
MAX_CONNECT_BYTES = 16 * 1024

# Topic filters of one SUBSCRIBE or UNSUBSCRIBE: 65,000 would fit into a packet, and hold everybody up.
MAX_FILTERS_PER_PACKET = 1000

V311, V5 = 4, 5


class Kind(IntEnum):
    """What a client may send: the upper half of a packet's first byte (MQTT 5, table 2-1)."""

    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 10
    PINGREQ = 12
    DISCONNECT = 14
    AUTH = 15


PUBLISH = Kind.PUBLISH << 4
# Flags of PUBLISH.
DUP, QOS, RETAIN = 0x08, 0x06, 0x01
QOS_1, QOS_2 = 0x02, 0x04
# QoS 3 there is not, and QoS 0 is never sent again (MQTT-3.3.1-2).
_PUBLISHES = frozenset(PUBLISH | flags for flags in (*range(0x06), *range(0x0A, 0x0E)))
# The lower half of the first byte of these is 2, of all others but PUBLISH it is 0.
_WITH_TWO = {Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE}
# First bytes that a client may send; any other has the flags or the type of nobody (MQTT-2.2.2-2).
_HEADS = _PUBLISHES | {kind << 4 | 2 * (kind in _WITH_TWO) for kind in Kind if kind is not Kind.PUBLISH}
_MAX_HEADER_BYTES = 5
# What a client may say when it goes (MQTT 5, table 3-13).
_GOODBYES = frozenset({0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99})


class PacketReader:
    """Cuts a stream of bytes into packets: `feed`, then `next` until it returns None.

    Args:
        max_bytes: of one packet, header included; may be set at any time, also to refuse what has not come yet.

    ``is_strict``: a remaining length must be as short as it can be, as MQTT 5 says (MQTT-1.5.5-1). Earlier versions do
    not say it, and small clients fill it up to a fixed width.
    """

    __slots__ = ("_at", "_buffer", "_need", "is_strict", "max_bytes")

    def __init__(self, max_bytes: int = MAX_PACKET_BYTES) -> None:
        self.max_bytes = max_bytes
        self.is_strict = False
        # Either the bytes of one read, or what was gathered of a packet that comes in pieces.
        self._buffer: bytes | bytearray = b""
        self._at = 0
        # How long the buffer must be before looking again is worth it.
        self._need = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were fed and are part of no packet returned yet."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take bytes, as they come."""
        if self._at == len(self._buffer):
            self._buffer, self._at, self._need = data, 0, 0
            return
        buffer = self._buffer
        if not isinstance(buffer, bytearray):
            buffer = bytearray(buffer[self._at :])
            self._at = 0
        buffer += data
        # Bytes are made of it once, when the packet is whole: a packet that comes byte by byte is no quadratic work.
        if len(buffer) < self._need:
            self._buffer = buffer
        else:
            self._buffer, self._need = bytes(buffer), 0

    def next(self) -> tuple[int, bytes] | None:
        """Return the first byte and the body of the next packet; None when it is not there as a whole.

        Raises:
            WrongPacketError: it is too large, or begins as no packet does. Nothing may be read after that.
        """
        buffer, at = self._buffer, self._at
        available = len(buffer) - at
        if available < 2 or isinstance(buffer, bytearray):
            self._wait(2)
            return None
        head, length, start = buffer[at], buffer[at + 1], at + 2
        if head not in _HEADS:
            # Before anything else, as when this byte comes alone.
            raise _wrong_head(head)
        if length >= 0x80:
            found = self._long_length(buffer, at + 1)
            if found is None:
                self._wait(available + 1)
                return None
            length, start = found
        end = start + length
        if end - at > self.max_bytes:
            raise WrongPacketError(f"a packet of {end - at} bytes > {self.max_bytes}", Code.PACKET_TOO_LARGE)
        if end > len(buffer):
            self._wait(end - at)
            return None
        self._at = end
        return head, buffer[start:end]

    def clear(self) -> None:
        """Forget what was fed."""
        self._buffer, self._at, self._need = b"", 0, 0

    def _wait(self, need: int) -> None:
        buffer, at = self._buffer, self._at
        if at == len(buffer):
            self._buffer, self._at = b"", 0
        elif not isinstance(buffer, bytearray):
            if buffer[at] not in _HEADS:
                raise _wrong_head(buffer[at])
            self._need = need

    def _long_length(self, buffer: bytes, at: int) -> tuple[int, int] | None:
        """Return the length and where the body begins; None when the length is not there as a whole."""
        value = 0
        for number, byte in enumerate(buffer[at : at + _MAX_HEADER_BYTES - 1]):
            value |= (byte & 0x7F) << 7 * number
            if byte < 0x80:
                if not byte and self.is_strict:
                    raise WrongPacketError("a remaining length longer than it need be")
                return value, at + number + 1
        if len(buffer) - at >= _MAX_HEADER_BYTES - 1:
            raise WrongPacketError("a remaining length of more than four bytes")
        return None


def _wrong_head(head: int) -> WrongPacketError:
    return WrongPacketError(f"no packet of a client begins with {head:#04x}")


# --- PUBLISH ------------------------------------------------------------------------------------------------


# topic (empty: the alias says which), payload, packet identifier as two bytes (empty with QoS 0), properties
Published = tuple[str, bytes, bytes, Properties]


def read_publish(head: int, body: bytes, version: int) -> Published:
    """Return what a PUBLISH holds.

    Raises:
        WrongPacketError: it is malformed.
    """
    if len(body) < 2:
        raise WrongPacketError("a PUBLISH without a topic")
    at = 2 + (body[0] << 8 | body[1])
    name = body[2:at]
    packet_id = b""
    if head & QOS:
        packet_id = body[at : at + 2]
        at += 2
        if packet_id == b"\0\0":
            raise WrongPacketError("packet identifier 0")
    if at > len(body):
        raise WrongPacketError("a PUBLISH that ends before its payload")
    properties = NONE
    if version == V5:
        if body[at : at + 1] == b"\0":
            at += 1
        else:
            fields = Fields(body, at)
            properties = fields.properties(IN_PUBLISH)
            _check_response_topic(properties)
            return _name_or_alias(name, properties), fields.rest(), packet_id, properties
    return read_name(name), body[at:], packet_id, properties


def _name_or_alias(name: bytes, properties: Properties) -> str:
    return "" if not name and Property.TOPIC_ALIAS in properties else read_name(name)


def _check_response_topic(properties: Properties) -> None:
    topic = properties.get(Property.RESPONSE_TOPIC)
    if isinstance(topic, str):
        check_name(topic)


# --- the others ---------------------------------------------------------------------------------------------


class Opening(NamedTuple):
    """A CONNECT: what the handler decides over, and what MQTT 5 asks of the connection."""

    connect: Connect
    properties: Properties


class Wanted(NamedTuple):
    """One topic filter of a SUBSCRIBE, and the QoS asked for."""

    filter: str
    qos: int


def read_protocol(fields: Fields) -> int:
    """Return the version that the client speaks, known here or not; the first thing of a CONNECT.

    Raises:
        WrongPacketError: it does not speak MQTT.
    """
    name = fields.text()
    level = fields.integer(1)
    if name not in ("MQTT", "MQIsdp"):
        raise WrongPacketError("not MQTT", Code.UNSUPPORTED_VERSION)
    return level


def read_connect(fields: Fields, version: int) -> Opening:
    """Return what a CONNECT holds behind its version.

    Raises:
        WrongPacketError: it is malformed.
    """
    flags = fields.integer(1)
    has_will, will_qos, will_retain = bool(flags & 0x04), flags >> 3 & 3, bool(flags & 0x20)
    has_username, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if flags & 1 or will_qos == 3 or (not has_will and flags & 0x38):
        raise WrongPacketError(f"no CONNECT has the flags {flags:#04x}")
    if has_password and not has_username and version == V311:
        raise WrongPacketError("a password without a user name")
    keep_alive_s = fields.integer(2)
    properties = fields.properties(IN_CONNECT) if version == V5 else NONE
    if Property.AUTHENTICATION_DATA in properties and Property.AUTHENTICATION_METHOD not in properties:
        raise WrongPacketError("authentication data without a method", Code.PROTOCOL_ERROR)
    client_id = fields.text()
    will = None
    if has_will:
        if version == V5:
            _check_response_topic(fields.properties(IN_WILL))
        will = Will(check_name(fields.text()), fields.binary(), will_qos, will_retain)
    username = fields.text() if has_username else None
    password = fields.binary() if has_password else None
    fields.end()
    connect = Connect(client_id, version, bool(flags & 0x02), keep_alive_s, username, password, will)
    return Opening(connect, properties)


def read_subscribe(body: bytes, version: int) -> tuple[int, Sequence[Wanted], Properties]:
    """Return packet identifier, topic filters (at least one) and properties of a SUBSCRIBE.

    Raises:
        WrongPacketError: it is malformed.
    """
    fields = Fields(body)
    packet_id = _packet_id(fields)
    properties = fields.properties(IN_SUBSCRIBE) if version == V5 else NONE
    wanted = []
    while fields.has_more:
        name = check_filter(fields.text())
        options = fields.integer(1)
        qos, reserved = options & 3, options & (0xC0 if version == V5 else 0xFC)
        if qos == 3 or reserved or options & 0x30 == 0x30:
            raise WrongPacketError(f"no subscription has the options {options:#04x}")
        if options & 0x04 and name.startswith(SHARED):
            raise WrongPacketError("No Local of a shared subscription", Code.PROTOCOL_ERROR)
        wanted.append(Wanted(name, qos))
        _check_count(wanted)
    if not wanted:
        raise WrongPacketError("a SUBSCRIBE to nothing", Code.PROTOCOL_ERROR)
    return packet_id, wanted, properties


def read_unsubscribe(body: bytes, version: int) -> tuple[int, Sequence[str]]:
    """Return packet identifier and topic filters (at least one) of an UNSUBSCRIBE.

    Raises:
        WrongPacketError: it is malformed.
    """
    fields = Fields(body)
    packet_id = _packet_id(fields)
    if version == V5:
        fields.properties(IN_UNSUBSCRIBE)
    filters = []
    while fields.has_more:
        filters.append(check_filter(fields.text()))
        _check_count(filters)
    if not filters:
        raise WrongPacketError("an UNSUBSCRIBE from nothing", Code.PROTOCOL_ERROR)
    return packet_id, filters


def read_puback(body: bytes, version: int) -> int:
    """Return the packet identifier of a PUBACK; whatever its reason, the message was dealt with.

    Raises:
        WrongPacketError: it is malformed.
    """
    fields = Fields(body)
    packet_id = _packet_id(fields)
    if version == V5 and fields.has_more:
        fields.integer(1)
        if fields.has_more:
            fields.properties(IN_PUBACK)
    fields.end()
    return packet_id


def read_disconnect(body: bytes, version: int) -> int:
    """Return the reason code of a DISCONNECT.

    Raises:
        WrongPacketError: it is malformed.
    """
    fields = Fields(body)
    reason = 0
    if version == V5 and fields.has_more:
        reason = fields.integer(1)
        if reason not in _GOODBYES:
            raise WrongPacketError(f"no client goes with reason {reason:#04x}")
        if fields.has_more:
            fields.properties(IN_DISCONNECT)
    fields.end()
    return reason


def read_nothing(body: bytes) -> None:
    """Take the body of a packet that has none.

    Raises:
        WrongPacketError: it has one.
    """
    Fields(body).end()


def _check_count(filters: Sequence[object]) -> None:
    if len(filters) > MAX_FILTERS_PER_PACKET:
        raise WrongPacketError(f"more than {MAX_FILTERS_PER_PACKET} topic filters", Code.QUOTA_EXCEEDED)


def _packet_id(fields: Fields) -> int:
    packet_id = fields.integer(2)
    if not packet_id:
        raise WrongPacketError("packet identifier 0")
    return packet_id
