"""The reason codes are those of the standard."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from hub.mqtt.handler import Code


def test_codes_are_those_that_other_implementations_know() -> None:
    """Each has a name in Eclipse Paho."""
    known = ReasonCode(PacketTypes.CONNACK).names
    assert [code for code in Code if code not in known] == []
