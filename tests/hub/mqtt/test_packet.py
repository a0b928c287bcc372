"""Packets are cut and read as the standard says; what it calls malformed is refused, in whatever pieces it comes."""

from collections.abc import Callable
from typing import Any

import pytest
from gmqtt import Message, Subscription
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.package import DisconnectPacket, LoginPackageFactor, PublishPacket, SubscribePacket, UnsubscribePacket
from gmqtt.mqtt.utils import IdGenerator

from hub.mqtt.field import NONE, Fields, Property, WrongPacketError
from hub.mqtt.handler import Code, Connect, Will
from hub.mqtt.packet import (
    MAX_FILTERS_PER_PACKET,
    MAX_PACKET_BYTES,
    Opening,
    PacketReader,
    Wanted,
    read_connect,
    read_disconnect,
    read_nothing,
    read_protocol,
    read_puback,
    read_publish,
    read_subscribe,
    read_unsubscribe,
)
from tests.support import mqtt_packets as say


class Gmqtt:
    """The protocol of a version as gmqtt's encoders want to know it."""

    proto_name = b"MQTT"

    def __init__(self, version: int) -> None:
        self.proto_ver = MQTTv50 if version == 5 else MQTTv311
        self.id_generator = IdGenerator()


def read(data: bytes, reader: PacketReader | None = None) -> list[tuple[int, bytes]]:
    """Cut bytes into packets."""
    reader = reader or PacketReader()
    reader.feed(data)
    return list(iter(reader.next, None))


def body_of(data: bytes) -> bytes:
    """The body of the one packet there is."""
    ((_, body),) = read(data)
    return body


# --- cutting ------------------------------------------------------------------------------------------------


def test_pieces_of_any_size_are_the_same_packets() -> None:
    """Packets of every length of header, byte by byte as at once."""
    sizes = (0, 1, 115, 116, 117, 118, 16_370, 16_371, 16_372)
    stream = b"".join(say.publish("a", b"x" * size) for size in sizes) + say.PINGREQ
    whole = read(stream)

    for step in (1, 2, 3, 7, 1000):
        reader, found = PacketReader(), []
        for at in range(0, len(stream), step):
            found += read(stream[at : at + step], reader)
        assert found == whole
        assert reader.buffered_bytes == 0

    assert [len(body) for _, body in whole] == [*(size + 3 for size in sizes), 0]


def test_what_is_not_read_yet_stays_in_its_order() -> None:
    """A reader that is stopped goes on where it was, behind a large packet in pieces too."""
    reader, large = PacketReader(), say.publish("a", bytes(50_000))
    reader.feed(large[:10])
    assert reader.next() is None
    reader.feed(large[10:] + say.publish("b"))
    reader.feed(say.publish("c"))
    first = reader.next()
    reader.feed(say.publish("d")[:1])

    rest = read(say.publish("d")[1:], reader)

    assert first is not None
    assert len(first[1]) == 50_003
    assert rest == [(0x30, b"\0\1b"), (0x30, b"\0\1c"), (0x30, b"\0\1d")]


def test_packet_that_is_too_large_is_refused_before_it_has_come() -> None:
    """As soon as its length is there."""
    assert len(read(say.publish("a", bytes(MAX_PACKET_BYTES - 7)))) == 1
    with pytest.raises(WrongPacketError) as caught:
        read(say.publish("a", bytes(MAX_PACKET_BYTES - 6))[:5])
    assert caught.value.code is Code.PACKET_TOO_LARGE


def test_length_of_more_than_four_bytes_is_malformed() -> None:
    """However much more comes."""
    with pytest.raises(WrongPacketError, match="four bytes"):
        read(b"\x30\xff\xff\xff\xff")


def test_length_may_be_filled_up_unless_the_reader_is_strict() -> None:
    """Small clients of 3.1.1 do it; MQTT 5 forbids it."""
    assert read(b"\x30\x84\x80\x00\0\1aX") == [(0x30, b"\0\1aX")]
    reader = PacketReader()
    reader.is_strict = True
    with pytest.raises(WrongPacketError, match="longer"):
        read(b"\x30\x84\x80\x00\0\1aX", reader)


@pytest.mark.parametrize(
    "head", [0x00, 0x11, 0x20, 0x36, 0x37, 0x38, 0x39, 0x3E, 0x41, 0x60, 0x80, 0x90, 0xA0, 0xC1, 0xD0, 0xE1]
)
def test_head_that_no_client_sends_is_refused_at_its_first_byte(head: int) -> None:
    """Wrong flags, reserved types, and what only servers say; before the rest is waited for."""
    for data in (bytes((head,)), bytes((head, 0)), bytes((head, 0xFF, 0xFF, 0xFF, 0x7F))):
        with pytest.raises(WrongPacketError) as caught:
            read(data)
        assert caught.value.code is Code.MALFORMED


def test_cleared_reader_begins_anew() -> None:
    """Nothing is left of what was fed."""
    reader = PacketReader()
    reader.feed(b"\x30\x05\0")
    reader.next()

    reader.clear()

    assert read(say.PINGREQ, reader) == [(0xC0, b"")]


# --- PUBLISH ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
def test_publish_of_gmqtt_is_read(version: int, qos: int) -> None:
    """Byte for byte another implementation's."""
    message = Message("a/b", b"21.5", qos=qos, retain=True, content_type="text/plain", user_property=[("k", "v")])
    mid, data = PublishPacket.build_package(message, Gmqtt(version))

    ((head, body),) = read(bytes(data))
    topic, payload, packet_id, properties = read_publish(head, body, version)

    assert (topic, payload, head & 0x0F) == ("a/b", b"21.5", 2 * qos + 1)
    assert packet_id == (mid.to_bytes(2) if qos else b"")
    assert properties == ({Property.CONTENT_TYPE: "text/plain"} if version == 5 else {})


@pytest.mark.parametrize(
    ("head", "body", "version"),
    [
        (0x30, b"", 4),
        (0x30, b"\0", 4),
        (0x30, b"\0\0x", 4),
        (0x30, b"\0\5ab", 4),
        (0x32, b"\0\1a", 4),
        (0x32, b"\0\1a\0", 4),
        (0x32, b"\0\1a\0\0", 4),
        (0x30, b"\0\1+", 4),
        (0x30, b"\0\3a/#", 4),
        (0x30, b"\0\2\xed\xa0", 4),
        (0x30, b"\0\1\0", 4),
        (0x30, b"\0\1a", 5),
        (0x30, b"\0\0\0", 5),
        (0x30, b"\0\0\3\1\0x", 5),
        (0x30, b"\0\1a\5\x08\0\2a#", 5),
        (0x30, b"\0\1a\2\x0b\1", 5),
        (0x30, b"\0\1a\x80\0", 5),
    ],
)
def test_publish_that_is_malformed_is_refused(head: int, body: bytes, version: int) -> None:
    """Cut at any place, identifier 0, wildcards, bad text, properties of others."""
    with pytest.raises(WrongPacketError):
        read_publish(head, body, version)


def test_empty_topic_stands_for_an_alias_where_there_is_one() -> None:
    """MQTT 5 alone."""
    body = body_of(say.publish("", b"x", version=5, properties={Property.TOPIC_ALIAS: 3}))

    assert read_publish(0x30, body, 5) == ("", b"x", b"", {Property.TOPIC_ALIAS: 3})


# --- the others ---------------------------------------------------------------------------------------------


def opening(data: bytes, version: int) -> Opening:
    """Read a CONNECT."""
    fields = Fields(body_of(data))
    assert read_protocol(fields) == version
    return read_connect(fields, version)


@pytest.mark.parametrize("version", [4, 5])
def test_connect_of_gmqtt_is_read(version: int) -> None:
    """With everything that it may hold."""
    will = Message("w/t", b"gone", qos=1, retain=True, will_delay_interval=5)
    data = LoginPackageFactor.build_package(
        "me", "user", "secret", False, 30, Gmqtt(version), will_message=will, session_expiry_interval=60
    )

    connect, properties = opening(bytes(data), version)

    assert connect == Connect("me", version, False, 30, "user", b"secret", Will("w/t", b"gone", 1, True))
    assert properties == ({Property.SESSION_EXPIRY: 60} if version == 5 else {})


def test_password_without_a_user_name_is_of_version_5_alone() -> None:
    """MQTT-3.1.2-22 of 3.1.1."""
    assert opening(say.connect(version=5, password=b"p"), 5).connect.password == b"p"
    with pytest.raises(WrongPacketError):
        opening(say.connect(password=b"p"), 4)


def test_protocol_is_told_from_others() -> None:
    """3.1 has another name; a level is not judged here."""
    assert read_protocol(Fields(b"\0\6MQIsdp\3")) == 3
    assert read_protocol(Fields(b"\0\4MQTT\x63")) == 0x63
    with pytest.raises(WrongPacketError, match="not MQTT"):
        read_protocol(Fields(b"\0\4AMQP\4"))


@pytest.mark.parametrize(
    ("flags", "rest"),
    [(0x01, b"\0\1c"), (0x08, b"\0\1c"), (0x20, b"\0\1c"), (0x1C, b"\0\1c\0\1w\0\0"), (0x04, b"\0\1c\0\1#\0\0"),
     (0x04, b"\0\1c\0\0\0\0"), (0x80, b"\0\1c"), (0x00, b"\0\1c!"), (0x00, b"\0\2c")],
    ids=["reserved", "QoS without a will", "retain without a will", "QoS 3", "wildcard", "empty will topic",
         "no user name", "bytes behind", "cut"],
)  # fmt: skip
def test_connect_that_is_malformed_is_refused(flags: int, rest: bytes) -> None:
    """Whatever the standard says must not be."""
    with pytest.raises(WrongPacketError):
        read_connect(Fields(bytes((flags, 0, 60)) + rest), 4)


@pytest.mark.parametrize("version", [4, 5])
def test_subscribe_of_gmqtt_is_read(version: int) -> None:
    """Two filters; the options of MQTT 5 beside the QoS are read over."""
    options = {"no_local": True, "retain_as_published": True, "retain_handling_options": 2} if version == 5 else {}
    subscriptions = [Subscription("a/+", qos=1, **options), Subscription("#", qos=2)]
    mid, data = SubscribePacket.build_package(subscriptions, Gmqtt(version))

    assert read_subscribe(body_of(bytes(data)), version) == (mid, [Wanted("a/+", 1), Wanted("#", 2)], NONE)


@pytest.mark.parametrize("version", [4, 5])
def test_unsubscribe_of_gmqtt_is_read(version: int) -> None:
    """Two filters."""
    mid, data = UnsubscribePacket.build_package(["a/+", "b"], Gmqtt(version))

    assert read_unsubscribe(body_of(bytes(data)), version) == (mid, ["a/+", "b"])


def test_disconnect_of_gmqtt_is_read() -> None:
    """With its will said, and without."""
    assert read_disconnect(body_of(bytes(DisconnectPacket.build_package(Gmqtt(4)))), 4) == 0
    data = DisconnectPacket.build_package(Gmqtt(5), 4, reason_string="bye")
    assert read_disconnect(body_of(bytes(data)), 5) == 4


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        (read_subscribe, b"\0\0\0\1a\0"),
        (read_subscribe, b"\0\1"),
        (read_subscribe, b"\0\1\0\1a"),
        (read_subscribe, b"\0\1\0\1a\3"),
        (read_subscribe, b"\0\1\0\1a\4"),
        (read_subscribe, b"\0\1\0\0\0"),
        (read_subscribe, b"\0\1\0\3a#b\0"),
        (read_unsubscribe, b"\0\1"),
        (read_unsubscribe, b"\0\0\0\1a"),
        (read_unsubscribe, b"\0\1\0\1"),
        (read_puback, b"\0"),
        (read_puback, b"\0\0"),
        (read_puback, b"\0\1\0"),
        (read_disconnect, b"\0"),
    ],
)
def test_packets_of_version_4_that_are_malformed_are_refused(reader: Callable[..., Any], body: bytes) -> None:
    """Identifier 0, nothing asked for, reserved options, bytes where none belong."""
    with pytest.raises(WrongPacketError):
        reader(body, 4)


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        (read_subscribe, b"\0\1\0\0\1a\x40"),
        (read_subscribe, b"\0\1\0\0\1a\x30"),
        (read_subscribe, b"\0\1\0\0\x0a$share/g/a\x04"),
        (read_subscribe, b"\0\1\2\x23\0"),
        (read_unsubscribe, b"\0\1\2\x0b\1\0\1a"),
        (read_puback, b"\0\1\0\5\x11\0\0\0\1"),
        (read_disconnect, b"\1"),
        (read_disconnect, b"\x8e"),
        (read_disconnect, b"\0\0!"),
    ],
)
def test_packets_of_version_5_that_are_malformed_are_refused(reader: Callable[..., Any], body: bytes) -> None:
    """Reserved options, properties of others, reasons that no client has."""
    with pytest.raises(WrongPacketError):
        reader(body, 5)


def test_filters_of_one_packet_are_bounded() -> None:
    """Those beyond are for another packet."""
    for reader, entry in ((read_subscribe, b"\0\1a\0"), (read_unsubscribe, b"\0\1a")):
        reader(b"\0\1" + entry * MAX_FILTERS_PER_PACKET, 4)
        with pytest.raises(WrongPacketError) as caught:
            reader(b"\0\1" + entry * (MAX_FILTERS_PER_PACKET + 1), 4)
        assert caught.value.code is Code.QUOTA_EXCEEDED


@pytest.mark.parametrize("body", [b"\0\7", b"\0\7\x10", b"\0\7\0\0", b"\0\7\x87\4\x1f\0\1x"])
def test_puback_of_version_5_may_say_more(body: bytes) -> None:
    """A reason and properties, which are read over."""
    assert read_puback(body, 5) == 7


def test_ping_has_no_body() -> None:
    """A byte in it is malformed."""
    read_nothing(b"")
    with pytest.raises(WrongPacketError):
        read_nothing(b"x")
