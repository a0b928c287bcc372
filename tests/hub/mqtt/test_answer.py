"""What the hub says is what other implementations read."""

import pytest
from paho.mqtt.packettypes import PacketTypes

from hub.mqtt import answer
from hub.mqtt.field import Property
from hub.mqtt.handler import Code
from tests.support.mqtt_packets import packet, packets
from tests.support.paho_types import PahoProperties, PahoReasonCode


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code.SUCCESS, 0), (Code.UNSUPPORTED_VERSION, 1), (Code.BAD_CLIENT_ID, 2), (Code.SERVER_UNAVAILABLE, 3),
        (Code.SERVER_BUSY, 3), (Code.QUOTA_EXCEEDED, 3), (Code.BAD_CREDENTIAL, 4), (Code.NOT_AUTHORIZED, 5),
        (Code.BANNED, 5),
    ],
)  # fmt: skip
def test_connack_of_version_4_says_what_it_can(code: Code, said: int) -> None:
    """Table 3.1 of 3.1.1; a session is never present."""
    assert answer.connack(4, code, {Property.MAXIMUM_QOS: 1}) == bytes((0x20, 2, 0, said))


def test_connack_of_version_5_has_properties() -> None:
    """Read by Eclipse Paho."""
    ((head, body),) = packets(answer.connack(5, Code.NOT_AUTHORIZED, {Property.REASON_STRING: "not yours"}))

    properties = PahoProperties(PacketTypes.CONNACK)
    properties.unpack(body[2:])

    assert (head, body[:2]) == (0x20, b"\0\x87")
    assert properties.json() == {"ReasonString": "not yours"}


def test_publish_has_an_identifier_with_qos_1_alone() -> None:
    """And a length of properties in version 5."""
    assert answer.publish(4, "a/b", b"x") == b"\x30\x06\0\x03a/bx"
    assert answer.publish(4, "a/b", b"x", 258) == b"\x32\x08\0\x03a/b\x01\x02x"
    assert answer.publish(5, "a/b", b"x", 1) == b"\x32\x09\0\x03a/b\0\1\0x"
    assert answer.publish(4, "a", bytes(200)) == packet(0x30, b"\0\1a" + bytes(200))


def test_puback_says_success_in_four_bytes() -> None:
    """In both versions; a refusal is said in version 5 alone, in a word that PUBACK may have."""
    assert answer.puback(4, b"\1\2", Code.SUCCESS) == answer.puback(5, b"\1\2", Code.SUCCESS) == b"\x40\2\1\2"
    assert answer.puback(4, b"\1\2", Code.NOT_AUTHORIZED) == b"\x40\2\1\2"
    assert answer.puback(5, b"\1\2", Code.NOT_AUTHORIZED) == b"\x40\3\1\2\x87"
    assert answer.puback(5, b"\1\2", Code.SERVER_BUSY) == b"\x40\3\1\2\x80"


def test_suback_of_version_4_knows_one_refusal() -> None:
    """0x80; version 5 has the reason."""
    assert answer.suback(4, 7, [0, 1, Code.NOT_AUTHORIZED]) == b"\x90\5\0\7\0\1\x80"
    assert answer.suback(5, 7, [1, Code.NOT_AUTHORIZED, Code.BANNED]) == b"\x90\6\0\7\0\1\x87\x80"


def test_unsuback_of_version_4_says_nothing_more() -> None:
    """Version 5 says of each whether it was there."""
    assert answer.unsuback(4, 7, [0, 0x11]) == b"\xb0\2\0\7"
    assert answer.unsuback(5, 7, [Code.SUCCESS, Code.NO_SUBSCRIPTION]) == b"\xb0\5\0\7\0\0\x11"


@pytest.mark.parametrize("code", [code for code in Code if code >= 0x80])
def test_disconnect_has_a_code_that_a_server_may_say(code: Code) -> None:
    """Whatever code the hub has for it; Eclipse Paho refuses one that has no place in DISCONNECT."""
    ((head, body),) = packets(answer.disconnect(code, "so"))
    reason = PahoReasonCode(PacketTypes.DISCONNECT)
    reason.unpack(body)

    assert head == 0xE0
    assert reason.getName() != "Success"
    assert answer.disconnect(code) == bytes((0xE0, 1, body[0]))


@pytest.mark.parametrize("code", list(Code))
def test_puback_and_suback_have_codes_that_they_may_carry(code: Code) -> None:
    """Eclipse Paho refuses the others."""
    (_, puback), (_, suback) = packets(answer.puback(5, b"\0\1", code) + answer.suback(5, 1, [code]))

    if len(puback) > 2:
        PahoReasonCode(PacketTypes.PUBACK).unpack(puback[2:])
    PahoReasonCode(PacketTypes.SUBACK, "Granted QoS 0").unpack(suback[3:])
