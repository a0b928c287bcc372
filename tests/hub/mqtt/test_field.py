"""Fields and properties are read as the standard says, and what it calls malformed is refused."""

import pytest
from paho.mqtt.packettypes import PacketTypes

from hub.mqtt.field import (
    IN_CONNECT,
    IN_PUBLISH,
    IN_SUBSCRIBE,
    IN_WILL,
    MAX_VARINT,
    NONE,
    Fields,
    Property,
    WrongPacketError,
    number_of,
    property_bytes,
    read_text,
    text_bytes,
    text_of,
    varint_bytes,
)
from hub.mqtt.handler import Code
from tests.support.paho_types import PahoProperties, VariableByteIntegers


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT])
def test_varint_is_that_of_paho_and_read_back(value: int) -> None:
    """Each border of the length is written as Eclipse Paho writes it."""
    assert varint_bytes(value) == VariableByteIntegers.encode(value)
    assert Fields(varint_bytes(value)).varint() == value


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff", b"\x80\x00", b"\x81\x80\x00"]
)
def test_varint_that_is_cut_or_too_long_is_refused(raw: bytes) -> None:
    """Four bytes at most, and no more than are needed (MQTT-1.5.5-1)."""
    with pytest.raises(WrongPacketError) as caught:
        Fields(raw).varint()
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"a\0b", b"\xe2\x82"],
    ids=["no byte of UTF-8", "cut", "surrogate", "above U+10FFFF", "overlong", "NUL", "half a sign"],
)  # fmt: skip
def test_text_is_strict(raw: bytes) -> None:
    """MQTT-1.5.4-1 and -2: well-formed UTF-8, no surrogate, no NUL."""
    with pytest.raises(WrongPacketError):
        read_text(raw)


def test_text_may_hold_any_other_sign() -> None:
    """Also a byte order mark, which is not taken away (MQTT-1.5.4-3)."""
    assert Fields(text_bytes("\ufeffGrüße 🌡")).text() == "\ufeffGrüße 🌡"


def test_field_that_is_not_there_as_a_whole_is_refused() -> None:
    """Nothing is made of the rest."""
    for read in (lambda: Fields(b"\x01").integer(2), lambda: Fields(b"\0\x05abc").text(), lambda: Fields(b"").take(1)):
        with pytest.raises(WrongPacketError, match="ends"):
            read()


def test_rest_and_end() -> None:
    """What is behind the last field is a payload, or it is wrong."""
    fields = Fields(b"\x01ab")
    fields.integer(1)

    with pytest.raises(WrongPacketError, match="2 bytes behind"):
        fields.end()
    assert fields.rest() == b"ab"
    fields.end()


def test_properties_that_paho_writes_are_read() -> None:
    """Each property of a CONNECT and of a will, of every type."""
    theirs = PahoProperties(PacketTypes.CONNECT)
    theirs.SessionExpiryInterval = 4_294_967_295
    theirs.ReceiveMaximum = 7
    theirs.MaximumPacketSize = 1000
    theirs.TopicAliasMaximum = 3
    theirs.RequestResponseInformation = 1
    theirs.RequestProblemInformation = 0
    theirs.UserProperty = [("a", "b"), ("a", "c")]
    theirs.AuthenticationMethod = "SCRAM"
    theirs.AuthenticationData = b"\0\1"

    found = Fields(theirs.pack()).properties(IN_CONNECT)

    assert found == {
        Property.SESSION_EXPIRY: 4_294_967_295, Property.RECEIVE_MAXIMUM: 7, Property.MAXIMUM_PACKET_SIZE: 1000,
        Property.TOPIC_ALIAS_MAXIMUM: 3, Property.REQUEST_RESPONSE_INFORMATION: 1,
        Property.REQUEST_PROBLEM_INFORMATION: 0, Property.AUTHENTICATION_METHOD: "SCRAM",
        Property.AUTHENTICATION_DATA: b"\0\1",
    }  # fmt: skip
    assert (number_of(found, Property.RECEIVE_MAXIMUM, 1), number_of(NONE, Property.RECEIVE_MAXIMUM, 1)) == (7, 1)
    assert (text_of(found, Property.AUTHENTICATION_METHOD), text_of(NONE, Property.CONTENT_TYPE)) == ("SCRAM", "")


def test_properties_of_the_hub_are_read_by_paho() -> None:
    """What CONNACK tells, byte for byte what Eclipse Paho makes of it."""
    ours = property_bytes(
        {
            Property.RECEIVE_MAXIMUM: 1000,
            Property.MAXIMUM_QOS: 1,
            Property.MAXIMUM_PACKET_SIZE: 262_144,
            Property.ASSIGNED_CLIENT_ID: "hub-1",
            Property.REASON_STRING: "because",
            Property.SERVER_KEEP_ALIVE: 60,
        }
    )

    theirs = PahoProperties(PacketTypes.CONNACK)
    theirs.unpack(ours)

    assert theirs.json() == {
        "ReceiveMaximum": 1000, "MaximumQoS": 1, "MaximumPacketSize": 262_144, "AssignedClientIdentifier": "hub-1",
        "ReasonString": "because", "ServerKeepAlive": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "allowed", "code"),
    [
        (b"\x05\x11\0\0\0\1", IN_PUBLISH, Code.MALFORMED),
        (b"\x01\x7f", IN_CONNECT, Code.MALFORMED),
        (b"\x02\x80\x01", IN_CONNECT, Code.MALFORMED),
        (b"\x03\x23\0", IN_PUBLISH, Code.MALFORMED),
        (b"\x02\x23\0", IN_PUBLISH, Code.MALFORMED),
        (b"\x04\x01\0\x01\0", IN_PUBLISH, Code.PROTOCOL_ERROR),
        (b"\x02\x01\x02", IN_WILL, Code.PROTOCOL_ERROR),
        (b"\x03\x21\0\0", IN_CONNECT, Code.PROTOCOL_ERROR),
        (b"\x05\x27\0\0\0\0", IN_CONNECT, Code.PROTOCOL_ERROR),
        (b"\x02\x0b\0", IN_SUBSCRIBE, Code.PROTOCOL_ERROR),
        (b"\x05\x26\0\1a\0", IN_SUBSCRIBE, Code.MALFORMED),
        (b"\x07\x26\0\1a\0\1\0", IN_SUBSCRIBE, Code.MALFORMED),
        (b"\x05\x03\0\2\xff\xff", IN_PUBLISH, Code.MALFORMED),
    ],
    ids=["of another packet", "unknown", "unknown, two bytes", "longer than the packet", "cut inside", "twice",
         "neither 0 nor 1", "receive maximum 0", "packet size 0", "identifier 0", "half a pair", "NUL in a pair",
         "no UTF-8"],
)  # fmt: skip
def test_properties_that_are_wrong_are_refused(raw: bytes, allowed: frozenset[Property], code: Code) -> None:
    """Each with the code that the standard has for it."""
    with pytest.raises(WrongPacketError) as caught:
        Fields(raw).properties(allowed)
    assert caught.value.code is code


def test_user_properties_may_repeat_and_are_read_over() -> None:
    """They mean nothing here, and cost nothing."""
    raw = b"\x0e\x26\0\1a\0\1b\x26\0\1a\0\1c"
    assert Fields(raw).properties(IN_PUBLISH) == {}


def test_properties_are_bounded() -> None:
    """An empty user property takes five bytes, and time."""
    pair = b"\x26\0\0\0\0"
    assert Fields(varint_bytes(16_380) + pair * 3276).properties(IN_PUBLISH) == {}
    with pytest.raises(WrongPacketError) as caught:
        Fields(varint_bytes(16_385)).properties(IN_PUBLISH)
    assert caught.value.code is Code.QUOTA_EXCEEDED


def test_every_property_has_a_type() -> None:
    """One that is added must say how it is written."""
    for name in Property:
        if name is not Property.USER_PROPERTY:
            is_text = name.name.endswith(("TYPE", "TOPIC", "CLIENT_ID", "METHOD", "STRING"))
            is_binary = name.name.endswith("DATA")
            assert property_bytes({name: "a" if is_text else b"a" if is_binary else 1})[1] == name
