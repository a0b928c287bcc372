"""How a connection begins: what of a CONNECT is refused whoever sends it, and which terms MQTT 5 is told.

Owns: the terms of this hub as CONNACK names them. Place: inside `hub.mqtt.conversation`. Pure.
"""

from hub.mqtt.alias import MAX_ALIASES
from hub.mqtt.field import Properties, Property, number_of
from hub.mqtt.handler import Code, Connect
from hub.mqtt.outgoing import MAX_IN_FLIGHT, Outgoing
from hub.mqtt.packet import MAX_PACKET_BYTES, V5, V311

# Publications on their way without a PUBACK, of one connection: what one commit takes in at full speed.
MAX_UNACKED = 1000
# The standard has every server take 23 and lets it take more; generated ones have 36.
MAX_CLIENT_ID_CHARS = 256


def refusal_of(connect: Connect, properties: Properties) -> tuple[Code, str] | None:
    """Return why a client cannot be served, whoever it is."""
    if Property.AUTHENTICATION_METHOD in properties:
        return Code.BAD_AUTHENTICATION_METHOD, "a user name and a password are enough here"
    if connect.version == V5 and connect.will is not None and connect.will.qos > 1:
        return Code.QOS_NOT_SUPPORTED, "a will of QoS 2 is not taken here, of 1 it is"
    if len(connect.client_id) > MAX_CLIENT_ID_CHARS:
        return Code.BAD_CLIENT_ID, f"a client identifier has at most {MAX_CLIENT_ID_CHARS} characters"
    if connect.version == V311 and not connect.client_id and not connect.is_clean:
        # MQTT-3.1.3-8; version 5 has no such rule.
        return Code.BAD_CLIENT_ID, "who wants a session needs a client identifier"
    return None


def outgoing_of(version: int, properties: Properties) -> Outgoing:
    """Return what may be sent to a client that said so."""
    outgoing = Outgoing(version)
    outgoing.max_in_flight = min(number_of(properties, Property.RECEIVE_MAXIMUM, MAX_IN_FLIGHT), MAX_IN_FLIGHT)
    outgoing.max_packet_bytes = number_of(properties, Property.MAXIMUM_PACKET_SIZE, MAX_PACKET_BYTES)
    return outgoing


def terms_of(asked: Properties, max_packet_bytes: int) -> Properties:
    """Return what MQTT 5 is told of this hub; retained messages and wildcards are taken, which needs no word."""
    terms: dict[Property, int | str | bytes] = {
        Property.RECEIVE_MAXIMUM: MAX_UNACKED,
        Property.MAXIMUM_QOS: 1,
        Property.MAXIMUM_PACKET_SIZE: max_packet_bytes,
        Property.TOPIC_ALIAS_MAXIMUM: MAX_ALIASES,
        Property.SUBSCRIPTION_IDENTIFIERS_AVAILABLE: 0,
        Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
    }
    if number_of(asked, Property.SESSION_EXPIRY, 0):
        terms[Property.SESSION_EXPIRY] = 0
    return terms
