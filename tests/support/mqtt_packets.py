"""Packets of an MQTT client as bytes, and those of a server taken apart: what tests of the protocol speak with."""

from collections.abc import Mapping

from hub.mqtt.field import NONE, Property, property_bytes, text_bytes, varint_bytes

PropertyValues = Mapping[Property, int | str | bytes]


def packet(head: int, body: bytes) -> bytes:
    """A packet with whatever body."""
    return bytes((head,)) + varint_bytes(len(body)) + body


def connect(
    client_id: str = "c",
    version: int = 4,
    *,
    is_clean: bool = True,
    keep_alive_s: int = 60,
    username: str | None = None,
    password: bytes | None = None,
    will: tuple[str, bytes, int, bool] | None = None,
    properties: PropertyValues = NONE,
    name: str = "MQTT",
) -> bytes:
    """A CONNECT."""
    flags = 2 * is_clean | 0x80 * (username is not None) | 0x40 * (password is not None)
    body = text_bytes(client_id)
    if will is not None:
        topic, payload, qos, is_retained = will
        flags |= 0x04 | qos << 3 | 0x20 * is_retained
        body += property_bytes(NONE) if version == 5 else b""
        body += text_bytes(topic) + len(payload).to_bytes(2) + payload
    if username is not None:
        body += text_bytes(username)
    if password is not None:
        body += len(password).to_bytes(2) + password
    head = text_bytes(name) + bytes((version, flags)) + keep_alive_s.to_bytes(2)
    return packet(0x10, head + (property_bytes(properties) if version == 5 else b"") + body)


def publish(
    topic: str,
    payload: bytes = b"",
    packet_id: int = 0,
    version: int = 4,
    *,
    is_again: bool = False,
    is_retained: bool = False,
    qos: int | None = None,
    properties: PropertyValues = NONE,
) -> bytes:
    """A PUBLISH; of QoS 1 with a packet identifier, else of QoS 0, if nothing else is said."""
    qos = (1 if packet_id else 0) if qos is None else qos
    body = text_bytes(topic) + (packet_id.to_bytes(2) if qos else b"")
    body += property_bytes(properties) if version == 5 else b""
    return packet(0x30 | 8 * is_again | qos << 1 | is_retained, body + payload)


def subscribe(packet_id: int, *filters: tuple[str, int], version: int = 4, properties: PropertyValues = NONE) -> bytes:
    """A SUBSCRIBE to (filter, options)."""
    body = packet_id.to_bytes(2) + (property_bytes(properties) if version == 5 else b"")
    return packet(0x82, body + b"".join(text_bytes(name) + bytes((options,)) for name, options in filters))


def unsubscribe(packet_id: int, *filters: str, version: int = 4) -> bytes:
    """An UNSUBSCRIBE."""
    body = packet_id.to_bytes(2) + (b"\0" if version == 5 else b"")
    return packet(0xA2, body + b"".join(map(text_bytes, filters)))


def puback(packet_id: int) -> bytes:
    """A PUBACK that says success."""
    return b"\x40\x02" + packet_id.to_bytes(2)


PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
PINGRESP = b"\xd0\x00"
CONNACK_4 = b"\x20\x02\x00\x00"


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Take apart what a server sent: (first byte, body) of each packet; none may be incomplete."""
    found = []
    while data:
        length, at = 0, 1
        while True:
            length |= (data[at] & 0x7F) << 7 * (at - 1)
            at += 1
            if data[at - 1] < 0x80:
                break
        assert at + length <= len(data), "a server sends whole packets"
        found.append((data[0], data[at : at + length]))
        data = data[at + length :]
    return found
