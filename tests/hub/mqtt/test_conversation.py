"""One connection: what may come when, PUBACK after the handler and in order, bounds, keep-alive, both versions."""

import math
from collections.abc import Callable
from random import Random

import pytest

from hub.mqtt.conversation import (
    ALLOWED,
    FIRST_PACKET_S,
    IDLE_LIMIT_S,
    MAX_BEHIND_BYTES,
    MAX_TURN,
    MAX_UNACKED_BYTES,
    Conversation,
    State,
)
from hub.mqtt.field import Property
from hub.mqtt.handler import Code, Received, Refused, Will
from hub.mqtt.opening import MAX_UNACKED
from hub.mqtt.outgoing import MAX_IN_FLIGHT, MAX_WAITING
from hub.mqtt.packet import MAX_CONNECT_BYTES, MAX_GATEWAY_PACKET_BYTES, Kind
from hub.mqtt.recent import WINDOW_S, Recent
from tests.fuzz import mqtt as fuzz
from tests.support import mqtt_packets as say
from tests.support.mqtt_handler import RecordingHandler

T0 = 1_795_376_000_000_000_000
GRANTED = b"\x90\x03\0\x01\x01"


class Rig:
    """One endpoint without I/O: connections one after the other, virtual time, output as it is written."""

    def __init__(self, version: int = 4, *, is_prompt: bool = True) -> None:
        self.version = version
        self.recent = Recent()
        self.now = 1000.0
        self.flushes = 0
        self.reconnect(is_prompt=is_prompt)

    def reconnect(self, *, is_prompt: bool = True, name: str = "given") -> None:
        """A new connection; the one before is left as it is."""
        self.handler = RecordingHandler(is_prompt=is_prompt)
        self.talk = Conversation(self.handler, self.recent, new_client_id=lambda: name, now=self.now)
        self.talk.flush = self._flush

    def connected(self, data: bytes | None = None) -> "Rig":
        """Say CONNECT, and throw the answer away."""
        assert self.say(data or say.connect(version=self.version))[:1] == b"\x20"
        return self

    def say(self, *data: bytes) -> bytes:
        """Send bytes in one piece; return what is answered, in as many turns as it takes."""
        flushes = self.flushes
        self.talk.receive(b"".join(data), self.now, T0)
        while flushes != self.flushes:
            flushes = self.flushes
            self.talk.resume(self.now, T0)
        return self.talk.take_output()

    def publish(self, topic: str, payload: bytes = b"", packet_id: int = 0, *, is_again: bool = False) -> bytes:
        """A PUBLISH of this connection's version."""
        return say.publish(topic, payload, packet_id, self.version, is_again=is_again)

    def pass_time(self, seconds: float) -> bytes:
        """Let time pass as a shell does; return what is said."""
        self.now += seconds
        self.talk.tick(self.now, T0)
        return self.talk.take_output()

    def store(self, count: int | None = None) -> bytes:
        """Let the handler acknowledge; go on as a shell does; return what is said."""
        self.handler.store(count)
        self.talk.resume(self.now, T0)
        return self.talk.take_output()

    def _flush(self) -> None:
        self.flushes += 1


def reason(data: bytes) -> Code:
    """The code of a DISCONNECT of version 5, which is all that was said."""
    ((head, body),) = say.packets(data)
    assert head == 0xE0
    return Code(body[0])


# --- the beginning ------------------------------------------------------------------------------------------


def test_client_of_version_4_is_welcomed() -> None:
    """The handler decides over what the client said; no session is present."""
    rig = Rig()

    said = rig.say(
        say.connect("me", username="dev", password=b"pw", will=("w", b"gone", 1, True), is_clean=False, keep_alive_s=7)
    )

    assert said == say.CONNACK_4
    assert rig.talk.state is State.RUNNING
    (connect,) = rig.handler.connects
    assert connect == ("me", 4, False, 7, "dev", b"pw", Will("w", b"gone", 1, True))


def test_will_of_qos_2_is_one_of_qos_1() -> None:
    """3.1.1 cannot refuse it alone; version 5 does."""
    rig = Rig()

    rig.say(say.connect(will=("w", b"gone", 2, False)))

    assert rig.handler.connects[0].will == Will("w", b"gone", 1, False)


def test_client_of_version_5_is_told_the_terms() -> None:
    """Receive Maximum, QoS 1, packet size, aliases, no subscription identifiers, nothing shared."""
    ((head, body),) = say.packets(Rig(5).say(say.connect(version=5)))

    terms = b"\x21\x03\xe8\x24\x01\x27\0\x04\0\0\x22\0\x10\x29\0\x2a\0"
    assert (head, body) == (0x20, b"\0\0" + bytes((len(terms),)) + terms)


def test_client_without_a_name_is_given_one() -> None:
    """Version 5 is told it."""
    assert b"\x12\0\x05given" in Rig(5).say(say.connect("", 5))
    rig = Rig()
    assert rig.say(say.connect("")) == say.CONNACK_4
    assert rig.handler.connects[0].client_id == "given"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (say.connect(name="MQIsdp", version=3), b"\x20\2\0\1"),
        (say.connect(version=3), b"\x20\2\0\1"),
        (say.connect("", is_clean=False), b"\x20\2\0\2"),
        (say.connect(name="AMQP"), b""),
        (say.packet(0x10, b"\0\4MQTT\4\1\0\0\0\0"), b""),
        (say.PINGREQ, b""),
        (say.publish("a"), b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x16\x03\x01", b""),
        (say.connect("x" * MAX_CONNECT_BYTES)[:5], b""),
    ],
    ids=["3.1", "an older level", "no name", "another protocol", "reserved flag", "ping first", "publish first", "HTTP",
         "TLS", "too large"],
)  # fmt: skip
def test_beginning_that_is_wrong_ends_the_connection(data: bytes, said: bytes) -> None:
    """With an answer where 3.1.1 has one; the handler never hears of it."""
    rig = Rig()

    assert rig.say(data) == said
    assert rig.talk.is_closed
    rig.talk.lost("")
    assert (rig.handler.connects, rig.handler.ended) == ([], [])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (say.connect(version=6), 0x84),
        (say.connect(version=5, will=("w", b"", 2, False)), 0x9B),
        (say.connect(version=5, properties={Property.AUTHENTICATION_METHOD: "x"}), 0x8C),
        (say.packet(0x10, b"\0\4MQTT\5\1\0\0\0\0\0"), 0x81),
        (say.connect(version=5, properties={Property.TOPIC_ALIAS: 1}), 0x81),
        (say.connect(version=5, properties={Property.RECEIVE_MAXIMUM: 0}), 0x82),
    ],
    ids=["a newer level", "will of QoS 2", "authentication method", "reserved flag", "property", "zero"],
)
def test_version_5_is_told_why_its_connect_is_wrong(data: bytes, code: int) -> None:
    """By CONNACK."""
    rig = Rig(5)
    ((head, body),) = say.packets(rig.say(data))

    assert (head, body[:2], rig.talk.is_closed) == (0x20, bytes((0, code)), True)


@pytest.mark.parametrize(
    ("version", "said"), [(4, b"\x20\2\0\5"), (5, b"\x20\x10\0\x87\x0d\x1f\0\x0anot listed")], ids=["4", "5"]
)
def test_handler_refuses_a_client(version: int, said: bytes) -> None:
    """What follows in the same read is not looked at; the handler is not told of the end."""
    rig = Rig(version)
    rig.handler.refusal = Refused(Code.NOT_AUTHORIZED, "not listed")

    assert rig.say(say.connect(version=version), rig.publish("a", b"", 1)) == said
    rig.talk.lost("gone")
    assert (rig.handler.received, rig.handler.ended) == ([], [])


def test_first_packet_is_due() -> None:
    """A connected socket that says nothing, or half of a CONNECT, ends without a word."""
    rig = Rig()
    rig.say(say.connect()[:10])

    assert rig.talk.deadline == rig.now + FIRST_PACKET_S
    assert rig.pass_time(FIRST_PACKET_S - 0.1) == b""
    assert not rig.talk.is_closed
    rig.pass_time(0.1)
    assert rig.talk.is_closed


def test_connack_comes_before_what_the_handler_publishes_meanwhile() -> None:
    """And what is published before a subscription goes nowhere: there is no session."""
    rig = Rig()
    rig.handler.on_connect = lambda line: line.publish("a", b"x")

    assert rig.say(say.connect()) == say.CONNACK_4


def test_client_that_takes_no_connack_is_ended() -> None:
    """Nothing larger than its Maximum Packet Size is ever sent."""
    rig = Rig(5)
    assert rig.say(say.connect(version=5, properties={Property.MAXIMUM_PACKET_SIZE: 10})) == b""
    assert rig.talk.is_closed

    rig = Rig(5)
    rig.handler.refusal = Refused(Code.NOT_AUTHORIZED, "long words")
    assert rig.say(say.connect(version=5, properties={Property.MAXIMUM_PACKET_SIZE: 10})) == b"\x20\3\0\x87\0"


# --- the table ----------------------------------------------------------------------------------------------

_ANY = {
    Kind.CONNECT: say.connect(),
    Kind.PUBLISH: say.publish("a"),
    Kind.PUBACK: say.puback(1),
    Kind.PUBREC: say.packet(0x50, b"\0\1"),
    Kind.PUBREL: say.packet(0x62, b"\0\1"),
    Kind.PUBCOMP: say.packet(0x70, b"\0\1"),
    Kind.SUBSCRIBE: say.subscribe(1, ("a", 0)),
    Kind.UNSUBSCRIBE: say.unsubscribe(1, "a"),
    Kind.PINGREQ: say.PINGREQ,
    Kind.DISCONNECT: say.DISCONNECT,
    Kind.AUTH: say.packet(0xF0, b""),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", list(Kind))
def test_table_decides_over_every_packet_in_every_state(kind: Kind, state: State) -> None:
    """What is not in it ends the connection, and changes nothing else."""
    rig = Rig()
    if state is not State.AWAIT_CONNECT:
        rig.connected()
    if state is State.CLOSED:
        rig.talk.end(Code.ADMINISTRATIVE, "over")
    before = list(rig.handler.connects)

    said = rig.say(_ANY[kind])

    if state in ALLOWED[kind]:
        assert rig.talk.is_closed == (kind is Kind.DISCONNECT)
    else:
        assert (said, rig.talk.is_closed) == (b"", True)
        assert (rig.handler.connects, rig.handler.received) == (before, [])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (say.connect(version=5), Code.PROTOCOL_ERROR),
        (say.packet(0xF0, b""), Code.PROTOCOL_ERROR),
        (say.packet(0x62, b"\0\1"), Code.PROTOCOL_ERROR),
        (say.publish("a", b"", 1, 5, qos=2), Code.QOS_NOT_SUPPORTED),
        (say.publish("a", b"", 0, 5, qos=1), Code.MALFORMED),
        (say.packet(0x38, b"\0\1a\0"), Code.MALFORMED),
        (say.packet(0x36, b"\0\1a\0\1\0"), Code.MALFORMED),
        (say.publish("a/#", b"", 1, 5), Code.MALFORMED),
        (say.packet(0x80, b"\0\1\0\0\1a\0"), Code.MALFORMED),
        (b"\x32\x80\x80\x80\x80\x01", Code.MALFORMED),
        (b"\x32\xff\xff\xff\x7f", Code.PACKET_TOO_LARGE),
        (say.subscribe(1, ("a", 0), version=5, properties={Property.SUBSCRIPTION_IDENTIFIER: 1}),
         Code.SUBSCRIPTION_IDS_NOT_SUPPORTED),
        (b"\xc0\x80\x00", Code.MALFORMED),
        (say.packet(0xC0, b"x"), Code.MALFORMED),
    ],
    ids=["CONNECT again", "AUTH", "PUBREL", "QoS 2", "identifier 0", "DUP of QoS 0", "QoS 3", "wildcard", "flags",
         "length", "too large", "subscription identifier", "long zero", "ping with a body"],
)  # fmt: skip
def test_version_5_is_told_why_it_ends(data: bytes, code: Code) -> None:
    """By DISCONNECT, once; what comes afterwards is not looked at. Version 3.1.1 has no such packet."""
    rig = Rig(5).connected()

    assert reason(rig.say(data, rig.publish("a", b"", 1))) is code
    assert (rig.say(say.PINGREQ), rig.handler.received, rig.talk.is_closed) == (b"", [], True)
    old = Rig().connected()
    assert (old.say(say.publish("a", b"", 1, qos=2)), old.talk.is_closed) == (b"", True)


def test_packet_may_be_as_large_as_the_handler_says() -> None:
    """It knows who the client is; MQTT 5 is told, and one byte more ends the connection."""
    rig = Rig(5)
    rig.handler.most_bytes = MAX_GATEWAY_PACKET_BYTES
    told = rig.say(say.connect(version=5))
    largest = rig.publish("a", bytes(MAX_GATEWAY_PACKET_BYTES - 10), 1)
    rig.say(largest)

    assert b"\x27" + MAX_GATEWAY_PACKET_BYTES.to_bytes(4, "big") in told
    assert (len(largest), len(rig.handler.received)) == (MAX_GATEWAY_PACKET_BYTES, 1)
    assert reason(rig.say(rig.publish("ab", bytes(MAX_GATEWAY_PACKET_BYTES - 10), 1))) is Code.PACKET_TOO_LARGE


# --- publications -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_publications_reach_the_handler(version: int) -> None:
    """With QoS, retain flag and content type, and the wall time of the read; QoS 0 is not answered."""
    rig = Rig(version).connected()
    properties: say.PropertyValues = {Property.CONTENT_TYPE: "text/plain", Property.PAYLOAD_FORMAT: 1}

    said = rig.say(
        say.publish("a", b"1", 0, version, is_retained=True), say.publish("b", b"2", 7, version, properties=properties)
    )

    assert said == say.puback(7)
    assert rig.handler.received == [
        Received("a", b"1", 0, True, False, ""),
        Received("b", b"2", 1, False, False, "text/plain" if version == 5 else ""),
    ]
    assert rig.handler.times_ns == [T0, T0]


def test_puback_follows_the_handler_in_the_order_of_the_publications() -> None:
    """Whatever order it is told in (MQTT-4.6.0-2); told twice is told once."""
    rig = Rig(is_prompt=False).connected()
    assert rig.say(*(rig.publish("a", b"", number) for number in (5, 3, 9))) == b""
    first, second, third = rig.handler.waiting

    third(Code.SUCCESS)
    second(Code.SUCCESS)
    assert (rig.talk.take_output(), rig.flushes) == (b"", 0)
    first(Code.SUCCESS)
    first(Code.UNSPECIFIED)

    assert rig.talk.take_output() == say.puback(5) + say.puback(3) + say.puback(9)
    assert rig.flushes == 1


def test_refusal_of_a_publication_is_said_in_version_5() -> None:
    """3.1.1 must acknowledge it, or end (MQTT-3.3.5-2): it would send it again for ever."""
    for version, said in ((4, say.puback(1)), (5, b"\x40\x03\0\x01\x87")):
        rig = Rig(version, is_prompt=False).connected()
        rig.say(rig.publish("a", b"", 1))
        rig.handler.waiting[0](Code.NOT_AUTHORIZED)
        assert rig.talk.take_output() == said


def test_acks_of_one_read_are_one_write_and_those_outside_flush_once() -> None:
    """A shell need not look for output itself."""
    rig = Rig().connected()
    rig.say(rig.publish("a", b"", 1), rig.publish("a", b"", 2))
    assert rig.flushes == 0

    rig.handler.is_prompt = False
    rig.say(rig.publish("a", b"", 3), rig.publish("a", b"", 4))
    rig.handler.store()
    assert rig.flushes == 1


def test_version_4_beyond_the_number_is_held_and_not_read() -> None:
    """Pings before are answered; what is held goes on in its order when there is room, and nobody is timed out."""
    rig = Rig(is_prompt=False).connected(say.connect(keep_alive_s=10))
    flood = b"".join(rig.publish("a", number.to_bytes(2), number) for number in range(1, MAX_UNACKED + 4))

    limit = len(rig.publish("a", b"xx", 1)) * MAX_UNACKED
    assert rig.say(flood[:limit], say.PINGREQ, flood[limit:], say.PINGREQ) == say.PINGRESP
    assert (len(rig.handler.received), rig.talk.wants_read, rig.talk.deadline) == (MAX_UNACKED, False, math.inf)
    assert rig.pass_time(1000) == b""
    assert not rig.talk.is_closed

    assert rig.store(2) == say.puback(1) + say.puback(2)
    assert (len(rig.handler.received), rig.talk.wants_read) == (MAX_UNACKED + 2, False)
    assert rig.store() == b"".join(map(say.puback, range(3, MAX_UNACKED + 3))) + say.PINGRESP
    assert (rig.talk.wants_read, rig.talk.deadline) == (True, rig.now + 15)
    assert [received.payload for received in rig.handler.received] == [
        number.to_bytes(2) for number in range(1, MAX_UNACKED + 4)
    ]


def test_version_5_beyond_receive_maximum_is_ended() -> None:
    """MQTT-3.3.4-9; as many as were announced are taken."""
    rig = Rig(5, is_prompt=False).connected()
    assert rig.say(*(rig.publish("a", b"", number) for number in range(1, MAX_UNACKED + 1))) == b""
    assert not rig.talk.is_closed

    assert reason(rig.say(rig.publish("a", b"", MAX_UNACKED + 1))) is Code.RECEIVE_MAXIMUM_EXCEEDED


@pytest.mark.parametrize("version", [4, 5])
def test_bytes_on_their_way_are_bounded(version: int) -> None:
    """Both versions are held; QoS 0 is not counted, it waits for nothing."""
    rig = Rig(version, is_prompt=False).connected()
    large = MAX_UNACKED_BYTES // 4
    for number in range(1, 6):
        rig.say(rig.publish("a", bytes(large - 100), number))
    assert rig.talk.wants_read

    rig.say(rig.publish("a", b"", 6))

    assert (len(rig.handler.received), rig.talk.wants_read) == (5, False)
    rig.store(2)
    assert (len(rig.handler.received), rig.talk.wants_read) == (6, True)


def test_flood_leaves_the_others_their_turn() -> None:
    """So many packets at once, of whatever kind; what is left follows in its order, and is not timed out."""
    rig = Rig().connected(say.connect(keep_alive_s=10))
    flood = say.PINGREQ * MAX_TURN + rig.publish("a") * MAX_TURN + rig.publish("b", b"", 1)

    rig.talk.receive(flood, rig.now, T0)
    assert (rig.talk.take_output(), rig.handler.received) == (say.PINGRESP * MAX_TURN, [])
    assert (rig.flushes, rig.talk.wants_read, rig.talk.deadline) == (1, False, math.inf)
    rig.talk.resume(rig.now, T0)
    assert (len(rig.handler.received), rig.flushes, rig.talk.wants_read) == (MAX_TURN, 2, False)
    rig.talk.resume(rig.now, T0)

    assert (rig.talk.take_output(), rig.flushes, rig.talk.wants_read) == (say.puback(1), 2, True)


def test_large_publications_leave_the_others_their_turn_sooner() -> None:
    """What is in them takes its time too; one is taken however large it is."""
    rig = Rig().connected()
    rig.talk.receive(rig.publish("a", bytes(64 * MAX_TURN)) + rig.publish("b", bytes(32 * MAX_TURN)) * 3, rig.now, T0)

    counts = []
    while not rig.talk.wants_read:
        counts.append(len(rig.handler.received))
        rig.talk.resume(rig.now, T0)
    assert (counts, len(rig.handler.received)) == ([1, 3], 4)


@pytest.mark.parametrize("packet_id", [0, 1])
def test_publication_is_held_while_the_handler_takes_nothing(packet_id: int) -> None:
    """Pings before it are answered; it goes on with the next tick after there is room."""
    rig = Rig().connected()
    rig.handler.has_room = False

    assert rig.say(say.PINGREQ, rig.publish("a", b"1", packet_id), say.PINGREQ) == say.PINGRESP
    assert (rig.handler.received, rig.talk.wants_read, rig.talk.is_closed) == ([], False, False)
    rig.handler.has_room = True
    assert rig.pass_time(1) == (say.puback(1) if packet_id else b"") + say.PINGRESP
    assert rig.talk.wants_read


def test_what_comes_behind_a_held_publication_is_bounded() -> None:
    """For a shell that cannot stop reading."""
    rig = Rig(5).connected()
    rig.handler.has_room = False
    rig.say(rig.publish("a", b"", 1))
    assert rig.say(bytes(MAX_BEHIND_BYTES)) == b""

    assert reason(rig.say(b"\0")) is Code.QUOTA_EXCEEDED


# --- again --------------------------------------------------------------------------------------------------


def test_publication_that_comes_again_is_handed_on_once() -> None:
    """Stored, its PUBACK lost: after reconnecting it is acknowledged, and not stored a second time."""
    rig = Rig().connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.talk.lost("cut")
    rig.reconnect()
    rig.connected()

    assert rig.say(rig.publish("a", b"21.5", 7, is_again=True)) == say.puback(7)
    assert rig.handler.received == []


def test_as_many_as_were_on_their_way_are_known_again() -> None:
    """A client that is allowed a thousand sends a thousand again."""
    packets = [say.publish("a", b"21.5", number, is_again=True) for number in range(1, 501)]
    rig = Rig(is_prompt=False).connected()
    rig.say(*packets)
    rig.store()
    rig.talk.lost("cut")
    rig.reconnect()
    rig.connected()

    assert rig.say(*packets) == b"".join(map(say.puback, range(1, 501)))
    assert rig.handler.received == []


def test_client_without_a_name_is_known_again() -> None:
    """By its credential: it is given another name, and 3.1.1 does not tell it."""
    rig = Rig().connected(say.connect(""))
    rig.say(rig.publish("a", b"21.5", 7))
    for name in ("second", "third"):
        rig.talk.lost("cut")
        rig.reconnect(name=name)
        rig.connected(say.connect(""))
        assert rig.say(rig.publish("a", b"21.5", 7, is_again=True)) == say.puback(7)
        assert rig.handler.received == []

    assert len(rig.recent) == 1


def test_publication_of_another_owner_is_handed_on() -> None:
    """Client ids are chosen by clients: two devices may have one, and measure the same."""
    rig = Rig().connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.talk.lost("cut")
    rig.reconnect()
    rig.connected(say.connect(username="other"))
    rig.say(rig.publish("a", b"21.5", 7, is_again=True))

    assert len(rig.handler.received) == 1


@pytest.mark.parametrize(
    ("again", "client"),
    [
        (say.publish("a", b"21.5", 7), say.connect()),
        (say.publish("a", b"21.5", 8, is_again=True), say.connect()),
        (say.publish("a", b"21.6", 7, is_again=True), say.connect()),
        (say.publish("b", b"21.5", 7, is_again=True), say.connect()),
        (say.publish("a", b"21.5", 7, is_again=True), say.connect("another")),
        (say.publish("a", b"21.5", 7, is_again=True), say.connect(username="another")),
    ],
    ids=["without DUP", "identifier", "payload", "topic", "client", "user"],
)
def test_publication_that_differs_is_handed_on(again: bytes, client: bytes) -> None:
    """All of DUP, identifier, bytes and client must say that it is the same one."""
    rig = Rig().connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.talk.lost("cut")
    rig.reconnect()
    rig.connected(client)

    assert rig.say(again)[:1] == b"\x40"
    assert [received.is_again for received in rig.handler.received] == [bool(again[0] & 8)]


def test_publication_that_comes_again_late_is_another_one() -> None:
    """The window is over."""
    rig = Rig().connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.talk.lost("cut")
    rig.now += WINDOW_S + 1
    rig.reconnect()
    rig.connected()

    rig.say(rig.publish("a", b"21.5", 7, is_again=True))
    assert len(rig.handler.received) == 1


@pytest.mark.parametrize("code", [Code.SUCCESS, Code.UNSPECIFIED])
def test_publication_that_comes_again_while_the_first_is_being_stored_waits_for_it(code: Code) -> None:
    """Both connections in order: the second is told what became of the first; over two cuts too."""
    rig = Rig(5, is_prompt=False).connected()
    rig.say(rig.publish("a", b"21.5", 7))
    (first,) = rig.handler.waiting
    for _ in range(2):
        rig.talk.lost("cut")
        rig.reconnect(is_prompt=False)
        rig.connected()
        assert rig.say(rig.publish("a", b"21.5", 7, is_again=True), rig.publish("a", b"21.6", 8)) == b""
    rig.store()
    assert rig.talk.take_output() == b""

    first(code)

    assert rig.talk.take_output() == (say.puback(7) if code is Code.SUCCESS else b"\x40\3\0\7\x80") + say.puback(8)
    assert [received.payload for received in rig.handler.received] == [b"21.6"]


def test_publication_sent_again_on_the_same_connection_is_acknowledged_once() -> None:
    """Clients of 3.1.1 do so after a while without an answer."""
    rig = Rig(is_prompt=False).connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.say(rig.publish("a", b"21.5", 7, is_again=True))

    assert len(rig.handler.received) == 1
    assert rig.store() == say.puback(7)


def test_refused_publication_is_asked_again() -> None:
    """Only what is stored is remembered."""
    rig = Rig(5, is_prompt=False).connected()
    rig.say(rig.publish("a", b"21.5", 7))
    rig.handler.waiting.pop()(Code.QUOTA_EXCEEDED)

    rig.say(rig.publish("a", b"21.5", 7, is_again=True))

    assert [received.is_again for received in rig.handler.received] == [False, True]


def test_refused_publication_whose_word_was_not_said_is_asked_again() -> None:
    """It waited behind another one when the connection ended."""
    rig = Rig(5, is_prompt=False).connected()
    rig.say(rig.publish("a", b"1", 1), rig.publish("a", b"2", 2))
    rig.handler.waiting[1](Code.QUOTA_EXCEEDED)
    rig.talk.lost("cut")
    rig.reconnect()
    rig.connected()

    assert rig.say(rig.publish("a", b"2", 2, is_again=True)) == say.puback(2)
    assert len(rig.handler.received) == 1


def test_publications_that_come_again_count_as_others_do() -> None:
    """What is on its way is bounded in bytes, whatever was known."""
    rig = Rig(is_prompt=False).connected()
    large = bytes(MAX_UNACKED_BYTES // 4)
    rig.say(rig.publish("a", large[100:], 1))
    rig.store()
    for _ in range(3):
        assert rig.say(rig.publish("a", large[100:], 1, is_again=True)) == say.puback(1)

    rig.say(*(rig.publish("a", large[100:], number) for number in range(2, 8)))

    assert (len(rig.handler.received), rig.talk.wants_read) == (1 + 5, False)


# --- aliases ------------------------------------------------------------------------------------------------


def test_alias_stands_for_a_topic_on_this_connection() -> None:
    """The handler sees the topic; a wrong one ends the connection."""
    rig = Rig(5).connected()
    named, bare = (say.publish(topic, b"", 0, 5, properties={Property.TOPIC_ALIAS: 1}) for topic in ("a", ""))

    rig.say(named, bare)

    assert [received.topic for received in rig.handler.received] == ["a", "a"]
    rig.reconnect()
    rig.connected()
    assert reason(rig.say(bare)) is Code.PROTOCOL_ERROR
    assert rig.handler.received == []


# --- subscriptions ------------------------------------------------------------------------------------------


def test_handler_decides_over_filters() -> None:
    """QoS 2 is granted as 1; 3.1.1 knows one refusal."""
    for version, refused in ((4, 0x80), (5, 0x87)):
        rig = Rig(version).connected()
        rig.handler.codes["b"] = Code.NOT_AUTHORIZED
        filters = [("a", 0), ("b", 1), ("$share/g/a", 1), ("c", 2)]

        ((head, body),) = say.packets(rig.say(say.subscribe(9, *filters, version=version)))

        assert (head, body[:2]) == (0x90, b"\0\x09")
        assert body[-4:] == bytes((0, refused, refused if version == 4 else 0x9E, 1))


def test_subscribed_messages_are_sent_and_their_identifiers_used_again() -> None:
    """At once, from outside of any packet: the shell is told to write."""
    rig = Rig().connected()
    assert rig.say(say.subscribe(1, ("a", 1))) == GRANTED
    line = rig.handler.line
    assert line is not None

    line.publish("a", b"x")
    line.publish("a", b"y", 0)
    line.publish("b", b"z")

    assert (rig.talk.take_output(), rig.flushes) == (say.publish("a", b"x", 1) + say.publish("a", b"y"), 1)
    assert rig.say(say.puback(1)) == b""


def test_message_published_while_subscribing_follows_suback() -> None:
    """To the filters that are granted by then."""
    rig = Rig().connected()

    def publish(filters: object) -> None:
        assert rig.handler.line is not None
        rig.handler.line.publish("a", b"x")

    rig.handler.on_subscribe = publish

    assert rig.say(say.subscribe(1, ("a", 1))) == GRANTED + say.publish("a", b"x", 1)


def test_unsubscribed_messages_are_not_sent() -> None:
    """Version 5 is told of each filter whether it was there."""
    rig = Rig(5).connected()
    rig.say(say.subscribe(1, ("a", 1), version=5))

    assert rig.say(say.unsubscribe(2, "a", "b", version=5)) == b"\xb0\5\0\2\0\0\x11"
    assert rig.handler.line is not None
    rig.handler.line.publish("a", b"x")
    assert rig.talk.take_output() == b""


def test_client_that_acknowledges_nothing_is_ended() -> None:
    """When more waits for it than may."""
    rig = Rig(5).connected()
    rig.say(say.subscribe(1, ("a", 1), version=5))
    assert rig.handler.line is not None
    for _ in range(MAX_IN_FLIGHT + MAX_WAITING):
        rig.handler.line.publish("a", b"x")
    rig.talk.take_output()
    assert not rig.talk.is_closed

    rig.handler.line.publish("a", b"x")

    assert reason(rig.talk.take_output()) is Code.QUOTA_EXCEEDED


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_silent_client_is_ended_after_one_and_a_half_keep_alives(version: int) -> None:
    """Counted from its last packet; a part of one is none."""
    rig = Rig(version).connected(say.connect(version=version, keep_alive_s=10))
    rig.pass_time(14)
    rig.say(rig.publish("a"))
    rig.pass_time(14)
    assert rig.say(say.PINGREQ) == say.PINGRESP
    assert rig.talk.deadline == rig.now + 15

    rig.pass_time(14.9)
    rig.say(b"\xc0")
    before = rig.talk.is_closed
    said = rig.pass_time(0.1)

    assert (before, rig.talk.is_closed) == (False, True)
    assert said == b"" if version == 4 else reason(said) is Code.KEEP_ALIVE_TIMEOUT
    rig.talk.lost("")
    assert rig.handler.ended == [(False, "nothing was heard for 15 s")]


def test_client_without_keep_alive_has_an_idle_limit() -> None:
    """Version 5 is told to keep alive within it, also who wanted longer."""
    rig = Rig().connected(say.connect(keep_alive_s=0))
    assert rig.talk.deadline == rig.now + IDLE_LIMIT_S
    for keep_alive_s in (0, IDLE_LIMIT_S + 1):
        rig = Rig(5)
        said = rig.say(say.connect(version=5, keep_alive_s=keep_alive_s))
        assert b"\x13" + IDLE_LIMIT_S.to_bytes(2) in said
        assert rig.talk.deadline == rig.now + 1.5 * IDLE_LIMIT_S


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "data", "is_clean"),
    [(4, say.DISCONNECT, True), (5, say.DISCONNECT, True), (5, b"\xe0\1\0", True), (5, b"\xe0\1\4", False),
     (5, b"\xe0\1\x83", False)],
    ids=["4", "5", "5, said", "with will", "with an error"],
)  # fmt: skip
def test_goodbye_says_whether_the_will_holds(version: int, data: bytes, is_clean: bool) -> None:
    """Only reason 0 takes it back (MQTT-3.14.4-3); what follows is not looked at, and nothing is answered."""
    rig = Rig(version).connected()

    assert rig.say(data, rig.publish("a", b"", 1)) == b""
    assert rig.talk.is_closed
    rig.talk.lost("the socket was closed")
    rig.talk.lost("again")
    assert [clean for clean, _ in rig.handler.ended] == [is_clean]
    assert rig.handler.received == []


def test_lost_connection_is_told_once_and_says_nothing_more() -> None:
    """Also when publications are dealt with afterwards."""
    rig = Rig(is_prompt=False).connected()
    rig.say(say.subscribe(1, ("a", 1)), rig.publish("a", b"", 1))

    rig.talk.lost("reset by peer")
    rig.handler.store()
    assert rig.handler.line is not None
    rig.handler.line.publish("a", b"x")
    rig.handler.line.end(Code.BANNED, "too late")

    assert (rig.talk.take_output(), rig.flushes, rig.handler.ended) == (b"", 0, [(False, "reset by peer")])


@pytest.mark.parametrize("version", [4, 5])
def test_handler_ends_the_connection(version: int) -> None:
    """From outside: the shell is told; version 5 hears why."""
    rig = Rig(version).connected()
    assert rig.handler.line is not None

    rig.handler.line.end(Code.TAKEN_OVER, "another connection of the same client")

    assert (rig.talk.is_closed, rig.flushes) == (True, 1)
    said = rig.talk.take_output()
    assert said == b"" if version == 4 else reason(said) is Code.TAKEN_OVER


@pytest.mark.parametrize("ends", ["connect", "publish", "subscribe"])
def test_handler_may_end_the_connection_while_it_is_asked(ends: str) -> None:
    """Nothing follows the DISCONNECT, and nothing is answered that waited."""
    rig = Rig(5)

    def end(_: object) -> None:
        assert rig.handler.line is not None
        rig.handler.line.end(Code.SERVER_BUSY, "")

    if ends == "connect":
        rig.handler.on_connect = end
        assert rig.say(say.connect(version=5)) == b"\x20\x06\0\x89\x03\x1f\0\0"
        return
    rig.connected()
    rig.handler.on_subscribe = rig.handler.on_received = end
    data = rig.publish("a", b"", 1) if ends == "publish" else say.subscribe(1, ("a", 1), version=5)
    assert rig.say(data, say.PINGREQ) == b"\xe0\1\x89"
    assert (rig.talk.is_closed, rig.flushes) == (True, 0)


def test_reason_is_left_out_where_the_client_has_no_room_for_it() -> None:
    """It is cut at 200 characters anyway."""
    rig = Rig(5).connected(say.connect(version=5, properties={Property.MAXIMUM_PACKET_SIZE: 50}))
    rig.talk.end(Code.ADMINISTRATIVE, "x" * 60)
    assert rig.talk.take_output() == b"\xe0\1\x98"

    rig = Rig(5).connected()
    rig.talk.end(Code.ADMINISTRATIVE, "x" * 300)
    assert rig.talk.take_output().count(b"x") == 200


def test_fault_of_the_handler_is_not_swallowed() -> None:
    """A fault here is no fault of the client; the connection can be ended afterwards."""
    rig = Rig(5).connected()

    def fail(_: object) -> None:
        raise ZeroDivisionError

    rig.handler.on_received = fail
    with pytest.raises(ZeroDivisionError):
        rig.say(rig.publish("a", b"", 1))

    rig.talk.end(Code.UNSPECIFIED, "")
    assert (reason(rig.talk.take_output()), rig.flushes) == (Code.UNSPECIFIED, 1)


_READS: list[Callable[[bytes], list[bytes]]] = [
    lambda data: [data],
    lambda data: [bytes((byte,)) for byte in data],
    lambda data: [data[:3], data[3:20], data[20:]],
]


@pytest.mark.parametrize("pieces", _READS, ids=["at once", "byte by byte", "three pieces"])
def test_pieces_make_no_difference(pieces: Callable[[bytes], list[bytes]]) -> None:
    """The same answers to the same bytes."""
    rig = Rig(5)
    stream = say.connect(version=5) + say.subscribe(1, ("a", 1), version=5) + rig.publish("a", b"x" * 300, 1)
    stream += say.PINGREQ + rig.publish("a", b"y", 2) + say.DISCONNECT

    said = b"".join(rig.say(piece) for piece in pieces(stream))

    assert [head for head, _ in say.packets(said)] == [0x20, 0x90, 0x40, 0xD0, 0x40]
    assert [received.payload for received in rig.handler.received] == [b"x" * 300, b"y"]


# --- whatever comes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_valid", [True, False], ids=["valid", "mutated"])
def test_byte_by_byte_is_as_all_at_once(*, is_valid: bool) -> None:
    """The same answers, publications and end, for conversations that are right and for others."""
    for seed in range(60):
        random = Random(f"{is_valid}/{seed}")
        packets = fuzz.conversation(random)
        stream = b"".join(packets if is_valid else fuzz.mutated(random, packets))

        whole = fuzz.played(stream, lambda data: [data])
        single = fuzz.played(stream, lambda data: [data[at : at + 1] for at in range(len(data))])

        assert single == whole, f"seed {seed}"
        assert not is_valid or whole[1], f"seed {seed}: it was let in"


def test_mutated_packets_break_nothing() -> None:
    """5,000 of one seed; `python -m tests.fuzz.mqtt --n 1000000` is the same by hand."""
    fuzzed = fuzz.fuzz(5000, seed=1)
    print(fuzzed)

    assert fuzzed.faults == []
    assert fuzzed.taken > 500
