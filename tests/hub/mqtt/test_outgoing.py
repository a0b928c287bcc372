"""A client is sent what it subscribed to, at most as much at once as it takes, and no more waits than may."""

import pytest

from hub.mqtt.answer import publish
from hub.mqtt.handler import Code
from hub.mqtt.outgoing import MAX_FILTERS, MAX_IN_FLIGHT, MAX_WAITING, MAX_WAITING_BYTES, Outgoing
from hub.mqtt.packet import Wanted


def subscribed(*filters: tuple[str, int]) -> Outgoing:
    """Of a client of 3.1.1."""
    outgoing = Outgoing(4)
    for name, qos in filters:
        outgoing.subscribe(name, qos)
    return outgoing


def test_nothing_is_sent_without_a_subscription() -> None:
    """Before the first, on other topics, and after the last."""
    outgoing = subscribed(("a/+", 1))

    assert outgoing.publish("b", b"x", 1) == (b"", True)
    assert outgoing.publish("a/b", b"x", 1) == (publish(4, "a/b", b"x", 1), True)
    assert (outgoing.unsubscribe("a/+"), outgoing.unsubscribe("a/+")) == (Code.SUCCESS, Code.NO_SUBSCRIPTION)
    assert outgoing.publish("a/b", b"x", 1) == (b"", True)


@pytest.mark.parametrize(("granted", "qos", "packet_id"), [((0,), 1, 0), ((1,), 0, 0), ((1,), 1, 1), ((0, 1), 1, 1)])
def test_qos_is_the_lower_of_both_and_overlapping_filters_send_once(
    granted: tuple[int, ...], qos: int, packet_id: int
) -> None:
    """With the greatest that any of the filters has (MQTT-3.3.5-1)."""
    outgoing = subscribed(*zip(("a", "+"), granted, strict=False))

    assert outgoing.publish("a", b"x", qos) == (publish(4, "a", b"x", packet_id), True)


def test_filters_are_opened_up_to_a_number() -> None:
    """One that is there already takes no further place; a shared one is not taken."""
    outgoing = subscribed(*((f"a/{number}", 1) for number in range(MAX_FILTERS - 1)))

    codes = outgoing.open_filters(
        [Wanted("a/0", 2), Wanted("$share/g/a", 1), Wanted("b", 0), Wanted("c", 1), Wanted("a/1", 0)]
    )

    assert codes == [1, Code.SHARED_NOT_SUPPORTED, 0, Code.QUOTA_EXCEEDED, 0]


def test_as_much_is_on_its_way_as_the_client_takes() -> None:
    """What waits follows in its order, one for each PUBACK."""
    outgoing = subscribed(("a", 1))
    outgoing.max_in_flight = 2

    sent = [outgoing.publish("a", bytes((number,)), 1)[0] for number in range(4)]
    after = [outgoing.acknowledge(packet_id) for packet_id in (9, 2, 2, 1, 3)]

    assert sent == [publish(4, "a", b"\0", 1), publish(4, "a", b"\1", 2), b"", b""]
    assert after == [b"", publish(4, "a", b"\2", 3), b"", publish(4, "a", b"\3", 4), b""]


def test_qos_0_does_not_wait() -> None:
    """It needs no room."""
    outgoing = subscribed(("a", 1))
    outgoing.max_in_flight = 1
    outgoing.publish("a", b"1", 1)
    outgoing.publish("a", b"2", 1)

    assert outgoing.publish("a", b"3", 0) == (publish(4, "a", b"3"), True)


@pytest.mark.parametrize(("size", "count"), [(1, MAX_WAITING), (MAX_WAITING_BYTES // 4, 4)])
def test_more_than_may_wait_is_said(size: int, count: int) -> None:
    """By number and by bytes."""
    outgoing = subscribed(("a", 1))
    for _ in range(MAX_IN_FLIGHT + count):
        assert outgoing.publish("a", bytes(size), 1)[1]

    assert not outgoing.publish("a", bytes(size), 1)[1]


def test_what_has_left_makes_room_for_others() -> None:
    """Bytes are those that wait now."""
    outgoing = subscribed(("a", 1))
    outgoing.max_in_flight = 1
    outgoing.publish("a", b"", 1)
    for packet_id in range(1, 10):
        assert outgoing.publish("a", bytes(MAX_WAITING_BYTES // 2), 1)[1]
        outgoing.acknowledge(packet_id)


def test_what_is_too_large_for_the_client_is_left_out() -> None:
    """It takes no identifier, and what follows is sent."""
    outgoing = subscribed(("a", 1))
    outgoing.max_packet_bytes = len(publish(4, "a", b"12", 1))

    assert outgoing.publish("a", b"123", 1) == (b"", True)
    assert outgoing.publish("a", b"12", 1) == (publish(4, "a", b"12", 1), True)


def test_identifiers_go_round_past_those_on_their_way() -> None:
    """65,535 is followed by 1, or by the next that is free; 0 is none."""
    outgoing = subscribed(("a", 1))
    outgoing.publish("a", b"", 1)
    for packet_id in range(2, 65_536):
        outgoing.publish("a", b"", 1)
        outgoing.acknowledge(packet_id)

    assert outgoing.publish("a", b"", 1) == (publish(4, "a", b"", 2), True)
