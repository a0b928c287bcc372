"""Packets that a server sends, as bytes, for MQTT 3.1.1 and 5.

Owns: their layout, and what 3.1.1 can say of a reason code. Place: below `hub.mqtt.conversation`. Pure.
"""

from collections.abc import Sequence

from hub.mqtt.field import NONE, Properties, Property, property_bytes, text_bytes, varint_bytes
from hub.mqtt.handler import Code
from hub.mqtt.packet import V5

PINGRESP = b"\xd0\x00"
# Followed by the packet identifier: a whole PUBACK that says success, in both versions (MQTT 5, 3.4.2.1).
PUBACK = b"\x40\x02"
_REFUSED = 0x80
# 3.1.1, table 3.1. What it has no word for is a client that may not, or a server that cannot.
_RETURN_CODES = {
    Code.SUCCESS: 0,
    Code.UNSUPPORTED_VERSION: 1,
    Code.BAD_CLIENT_ID: 2,
    Code.SERVER_UNAVAILABLE: 3,
    Code.SERVER_BUSY: 3,
    Code.SERVER_SHUTTING_DOWN: 3,
    Code.QUOTA_EXCEEDED: 3,
    Code.UNSPECIFIED: 3,
    Code.IMPLEMENTATION: 3,
    Code.BAD_CREDENTIAL: 4,
}
_NOT_AUTHORIZED = 5
# MQTT 5, tables 3-4, 3-8 and 3-10: which codes each packet may carry; what is not there says less.
_IN_PUBACK = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x97, 0x99})
_IN_SUBACK = frozenset({0x00, 0x01, 0x80, 0x83, 0x87, 0x8F, 0x97, 0x9E, 0xA1, 0xA2})
_INSTEAD = {
    Code.UNSUPPORTED_VERSION: Code.PROTOCOL_ERROR,
    Code.BAD_CLIENT_ID: Code.NOT_AUTHORIZED,
    Code.BAD_CREDENTIAL: Code.NOT_AUTHORIZED,
    Code.BANNED: Code.NOT_AUTHORIZED,
    Code.BAD_AUTHENTICATION_METHOD: Code.NOT_AUTHORIZED,
    Code.SERVER_UNAVAILABLE: Code.SERVER_BUSY,
}


def connack(version: int, code: Code, properties: Properties = NONE) -> bytes:
    """Return a CONNACK; no session is ever present."""
    if version != V5:
        return bytes((0x20, 2, 0, _RETURN_CODES.get(code, _NOT_AUTHORIZED)))
    return _packet(0x20, bytes((0, code)) + property_bytes(properties))


def publish(version: int, topic: str, payload: bytes, packet_id: int = 0) -> bytes:
    """Return a PUBLISH, never retained; of QoS 1 where a packet identifier is given."""
    body = text_bytes(topic)
    if packet_id:
        body += packet_id.to_bytes(2)
    if version == V5:
        body += b"\0"
    return _packet(0x32 if packet_id else 0x30, body + payload)


def puback(version: int, packet_id: bytes, code: Code) -> bytes:
    """Return a PUBACK; 3.1.1 cannot say that a message was refused."""
    if version != V5 or code is Code.SUCCESS:
        return PUBACK + packet_id
    return b"\x40\x03" + packet_id + bytes((code if code in _IN_PUBACK else Code.UNSPECIFIED,))


def suback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    """Return a SUBACK; ``codes`` are granted QoS and reasons of refusal, which 3.1.1 has one of."""
    body = packet_id.to_bytes(2)
    if version == V5:
        return _packet(0x90, body + b"\0" + bytes(code if code in _IN_SUBACK else _REFUSED for code in codes))
    return _packet(0x90, body + bytes(min(code, _REFUSED) for code in codes))


def unsuback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    """Return an UNSUBACK."""
    body = packet_id.to_bytes(2)
    return _packet(0xB0, body + b"\0" + bytes(codes) if version == V5 else body)


def disconnect(code: Code, why: str = "") -> bytes:
    """Return a DISCONNECT of MQTT 5; in 3.1.1 a server has none."""
    code = _INSTEAD.get(code, code)
    if not why:
        return bytes((0xE0, 1, code))
    return _packet(0xE0, bytes((code,)) + property_bytes({Property.REASON_STRING: why}))


def _packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + varint_bytes(len(body)) + body
