"""What is refused of a CONNECT whoever sends it, and the terms that MQTT 5 is told."""

import pytest

from hub.mqtt.field import NONE, Properties, Property
from hub.mqtt.handler import Code, Connect, Will
from hub.mqtt.opening import MAX_CLIENT_ID_CHARS, outgoing_of, refusal_of, terms_of
from hub.mqtt.outgoing import MAX_IN_FLIGHT
from hub.mqtt.packet import MAX_PACKET_BYTES

_V4, _V5 = Connect("c", 4, True, 60, None, None, None), Connect("c", 5, True, 60, None, None, None)
_WILL = Will("a", b"", 2, False)


@pytest.mark.parametrize(
    ("connect", "properties", "code"),
    [
        (_V4, NONE, None),
        (_V5._replace(client_id="", is_clean=False), NONE, None),
        (_V4._replace(client_id=""), NONE, None),
        (_V4._replace(client_id="", is_clean=False), NONE, Code.BAD_CLIENT_ID),
        (_V4._replace(client_id="x" * MAX_CLIENT_ID_CHARS), NONE, None),
        (_V4._replace(client_id="x" * (MAX_CLIENT_ID_CHARS + 1)), NONE, Code.BAD_CLIENT_ID),
        (_V5, {Property.AUTHENTICATION_METHOD: "SCRAM"}, Code.BAD_AUTHENTICATION_METHOD),
        (_V5._replace(will=_WILL), NONE, Code.QOS_NOT_SUPPORTED),
        (_V4._replace(will=_WILL), NONE, None),
    ],
)
def test_refusals(connect: Connect, properties: Properties, code: Code | None) -> None:
    """A will of QoS 2 can be refused in version 5 alone: only there the client was told."""
    refused = refusal_of(connect, properties)
    assert (None if refused is None else refused[0]) is code


def test_terms_say_that_no_session_stays() -> None:
    """Only to who asked for one; Retain Available and wildcards are 1 when they are not said."""
    terms = terms_of(NONE, 1000)

    assert (terms[Property.MAXIMUM_QOS], terms[Property.MAXIMUM_PACKET_SIZE]) == (1, 1000)
    assert Property.SESSION_EXPIRY not in terms
    assert terms_of({Property.SESSION_EXPIRY: 60}, 1000)[Property.SESSION_EXPIRY] == 0


def test_limits_of_the_client_hold() -> None:
    """Never more than this hub's own."""
    small = outgoing_of(5, {Property.RECEIVE_MAXIMUM: 3, Property.MAXIMUM_PACKET_SIZE: 100})
    large = outgoing_of(5, {Property.RECEIVE_MAXIMUM: 65_535})

    assert (small.max_in_flight, small.max_packet_bytes) == (3, 100)
    assert (large.max_in_flight, large.max_packet_bytes) == (MAX_IN_FLIGHT, MAX_PACKET_BYTES)
