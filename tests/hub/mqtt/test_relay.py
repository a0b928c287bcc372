"""What one connection to a broker carries: whose it is, and when its PUBACKs leave."""

import json

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_json
from device_sdk.envelope import wrap
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START
from hub.child_book import Asked
from hub.devices import Presence
from hub.errors import UnavailableError
from hub.mqtt.handler import Code
from hub.mqtt.intake import LARGE_BYTES
from hub.mqtt.native import Brokered
from hub.mqtt.relay import MAX_BOOTS, MAX_TAKEN, BrokerAdmission, Delivered, InOrder, Relay, Taken
from hub.roles import Identity, Role, scopes_of
from tests.support.hub_parts import HubParts
from tests.support.mqtt_clients import NOW, MqttWorld

STREAM = "9f3a0000000000aa"
BRIDGE = Identity("mqtt-bridge", "mqtt-bridge", Role.GATEWAY, scopes=scopes_of(Role.GATEWAY, ("*",)))


@pytest.fixture
def world(parts: HubParts) -> MqttWorld:
    """Return it with MQTT clients; what is called lamp-… is accepted behind the bridge."""
    parts.children.set_rules("mqtt-bridge", auto_accept=["lamp-*", "lamp"])
    return MqttWorld(parts)


class Broker:
    """One connection to a broker; ``acked`` are packet identifiers in their order."""

    def __init__(self, world: MqttWorld, taken: Taken | None = None) -> None:
        self.world = world
        self.taken = taken or Taken()
        self.brokered = Brokered(lambda: 700)
        self.said: list[tuple[str, bytes, int, bool]] = []
        self.acked: list[int] = []
        self.hung_up = ""
        admission = BrokerAdmission(world.parts.children, world.parts.identities)
        self.relay = Relay(
            world.clients, BRIDGE, "broker:1883", admission, self.taken, lambda *said: self.said.append(said),
            self.acked.append, self._hang_up, self.brokered,
        )  # fmt: skip
        world.clients.enter(self.relay)
        self._last = 0

    def _hang_up(self, why: str) -> None:
        self.hung_up = why

    def deliver(
        self, topic: str, payload: bytes, *, qos: int = 1, packet_id: int = 0, is_retained: bool = False,
        is_again: bool = False,
    ) -> int:  # fmt: skip
        """Deliver a message; return its packet identifier."""
        self._last += 1
        packet_id = (packet_id or self._last) if qos else 0
        self.relay.take(Delivered(topic, payload, packet_id, is_retained, is_again), NOW)
        return packet_id

    def heard(self, device: str) -> list[tuple[int | None, str]]:
        """Return what was said to a device since the last call, in a word each, and under which number."""
        told = [json.loads(payload) for topic, payload, _, _ in self.said if topic == f"hub/v1/{device}/down"]
        self.said.clear()
        return [(message.get("n"), message["op"]) for message in told]

    def greet(self, device: str, number: int = 7, *, is_again: bool = False) -> None:
        """A device says hello and which channels there are."""
        hello = wire.Hello(device, STREAM, "boot", "run", 0, 1, CHAIN_START.hex())
        self.deliver(f"hub/v1/{device}/up", wrap(number, wire.encode(hello)), is_again=is_again)
        self.deliver(f"hub/v1/{device}/up", wrap(number, wire.encode(wire.Schema((Channel("x"),)))))

    def batch(self, device: str, seq: int, number: int = 7, *, is_again: bool = False) -> int:
        """A device sends a reading."""
        body = encode_json(Batch(seq, 1, NOW + seq, 1, (Column("x", [0], [1.5]),)))
        return self.deliver(f"hub/v1/{device}/up", wrap(number, body), is_again=is_again)


def test_enrolled_device_speaks_on_its_own_topics(world: MqttWorld) -> None:
    """The broker's rules say who publishes there; PUBACK leaves when the reading is stored."""
    world.parts.identities.add_device("pump")
    broker = Broker(world)
    broker.greet("pump")
    number = broker.batch("pump", 1)

    assert broker.heard("pump") == [(7, "welcome")]
    assert number not in broker.acked
    world.commit()
    assert broker.acked == [1, 2, number]
    assert broker.heard("pump") == [(7, "ack")]
    assert world.values("pump") == [("x", 1.5)]


def test_nothing_is_read_while_a_large_message_is_in_steps(world: MqttWorld) -> None:
    """PUBACKs leave in the order of the messages, and what the broker delivers again meanwhile is stored once."""
    world.clients.steps.step_ns = 0
    broker = Broker(world)
    payload = b"lamp-1.t=1".ljust(LARGE_BYTES + 1)
    large = broker.deliver("home", payload)
    assert broker.relay.is_full
    small = broker.deliver("home", b"lamp-1.t=2")
    broker.deliver("home", payload, packet_id=large, is_again=True)
    world.settle()

    assert (broker.relay.is_full, broker.acked) == (False, [large, small, large])
    assert world.values("lamp-1") == [("t", 1.0), ("t", 2.0)]


def test_device_that_nobody_knows_is_pending(world: MqttWorld) -> None:
    """As behind any gateway: a person accepts it, and its next hello is welcome."""
    broker = Broker(world)
    broker.greet("shed-1")
    assert broker.heard("shed-1") == [(7, "bye")]
    assert [child.device for child in world.parts.children.listed(gateway="mqtt-bridge")] == ["shed-1"]

    world.parts.children.accept("mqtt-bridge", "shed-1")
    broker.greet("shed-1", 8)
    assert broker.heard("shed-1") == [(8, "welcome")]
    assert broker.acked == [1, 2, 3, 4]


def test_foreign_topic_cannot_speak_for_an_enrolled_device(world: MqttWorld) -> None:
    """Nobody checks names there: else anybody at the broker could write a device's history."""
    world.parts.identities.add_device("pump")
    broker = Broker(world)
    broker.deliver("home/pump", b"pump.t=1")
    world.settle()

    assert broker.acked == [1]
    assert world.values("pump") == []
    assert dict(world.clients.figures.not_taken) == {"child_taken": 1}


def test_enrolled_device_that_is_removed_may_not_go_on(world: MqttWorld) -> None:
    """The broker still lets it in, so nobody else ends its conversation; one that is still enrolled goes on."""
    broker = Broker(world)
    for name in ("pump", "fan"):
        world.parts.identities.add_device(name)
        broker.greet(name)
        broker.heard(name)
    world.parts.identities.remove_device("pump")

    broker.relay.recheck({"fan"}, {"pump"})
    broker.relay.flush()

    assert list(broker.relay.devices) == ["fan"]
    assert broker.heard("pump") == [(7, "bye")]
    broker.batch("pump", 1)
    world.settle()
    assert world.values("pump") == []


def test_enrolled_device_that_is_removed_is_a_stranger_at_its_next_hello(world: MqttWorld) -> None:
    """Its credential was the reason to let it speak."""
    world.parts.identities.add_device("pump")
    admission = BrokerAdmission(world.parts.children, world.parts.identities)
    asked = Asked("default", "mqtt-bridge", ("*",), "pump")
    assert admission.admit(asked) is None
    assert admission.is_accepted("default", "mqtt-bridge", "pump")

    world.parts.identities.remove_device("pump")
    refusal = admission.admit(asked)
    assert refusal is not None
    assert refusal.reason == "child_pending"
    assert not admission.is_accepted("default", "mqtt-bridge", "pump")
    assert admission.admit(Asked("default", "mqtt-bridge", ("*",), "no name")) is not None


def test_foreign_readings_are_acknowledged_when_stored_and_in_order(world: MqttWorld) -> None:
    """A message that needs no commit waits for those before it: PUBACKs leave in order."""
    broker = Broker(world)
    first = broker.deliver("home/lamp", b"lamp.t=21.5")
    second = broker.deliver("hub/v1/pump/down", b"what the hub itself has said")
    unheard = broker.deliver("home/shed", b"shed.t=1")
    assert broker.acked == []

    world.settle()
    assert broker.acked == [first, second, unheard]
    assert world.values("lamp") == [("t", 21.5)]


def test_message_that_nobody_can_read_is_put_aside_in_its_order(world: MqttWorld) -> None:
    """It wedges nothing: PUBACK leaves once it is in quarantine."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"poison")
    broker.deliver("home/lamp", b"lamp.t=1")
    assert broker.acked == []

    world.settle()
    assert broker.acked == [1, 2]
    assert world.clients.figures.quarantined == 1


def test_retained_message_is_no_reading(world: MqttWorld) -> None:
    """It comes again with each subscription: what nobody can read of it is not put aside each time."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"poison", is_retained=True)
    broker.deliver("home/lamp", b"lamp.t=x", is_retained=True)  # which these decoders fail at
    world.settle()

    assert broker.acked == [1, 2]
    assert world.clients.figures.quarantined == 0


def test_message_without_qos_needs_no_acknowledgement(world: MqttWorld) -> None:
    """It is stored all the same."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"lamp.t=1", qos=0)
    world.settle()

    assert broker.acked == []
    assert world.values("lamp") == [("t", 1.0)]


def test_message_that_comes_again_is_stored_once(world: MqttWorld) -> None:
    """The connection broke between commit and PUBACK, or before the commit: the next one acknowledges either way."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"lamp.t=1", packet_id=11)
    world.settle()
    broker.deliver("home/lamp", b"lamp.t=2", packet_id=12)
    broker.relay.closed("lost")
    again = Broker(world, broker.taken)
    again.deliver("home/lamp", b"lamp.t=1", packet_id=11, is_again=True)
    again.deliver("home/lamp", b"lamp.t=2", packet_id=12, is_again=True)
    assert again.acked == [11]
    world.settle()

    assert again.acked == [11, 12]
    assert world.values("lamp") == [("t", 1.0), ("t", 2.0)]


@pytest.mark.parametrize(
    ("packet_id", "payload", "is_again"), [(11, b"lamp.t=1", False), (12, b"lamp.t=1", True), (11, b"lamp.t=3", True)]
)
def test_message_that_only_looks_like_another_is_stored(
    world: MqttWorld, packet_id: int, payload: bytes, is_again: bool
) -> None:
    """A sensor may say the same again, under the same identifier; only with DUP and the same bytes is it the same."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"lamp.t=1", packet_id=11)
    broker.deliver("home/lamp", payload, packet_id=packet_id, is_again=is_again)
    world.settle()

    assert len(world.values("lamp")) == 2


def test_messages_that_are_known_again_are_bounded(world: MqttWorld) -> None:
    """As many as a broker can deliver again."""
    taken = Taken()
    for number in range(MAX_TAKEN + 5):
        taken.note(Delivered("t", b"%d" % number, number), lambda: None)

    assert len(taken) == MAX_TAKEN


def test_acknowledgements_leave_in_order() -> None:
    """Whatever is done first."""
    acked: list[int] = []
    in_order = InOrder(acked.append)
    done = [in_order.expect(number) for number in (5, 3, 9)]
    done[2]()
    done[1]()
    assert (acked, len(in_order)) == ([], 3)
    done[0]()

    assert (acked, len(in_order)) == ([5, 3, 9], 0)


def test_kept_birth_makes_the_hub_ask_for_a_hello(world: MqttWorld) -> None:
    """The device is connected to the broker since before: it believes that it is heard."""
    broker = Broker(world)
    broker.deliver("hub/v1/lamp-1/state", b'{"on":1,"boot":"b"}', is_retained=True)
    broker.deliver("hub/v1/lamp-2/state", b'{"on":1,"boot":"b"}')
    broker.deliver("hub/v1/lamp-3/state", b'{"on":0,"boot":"b"}', is_retained=True)

    assert [(topic, json.loads(payload)["retry_ms"], qos, kept) for topic, payload, qos, kept in broker.said] == [
        ("hub/v1/lamp-1/down", 700, 1, False)
    ]
    assert broker.acked == [1, 2, 3]


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        (b'{"on":0,"boot":"b1"}', False),
        (b'{"on":0,"boot":"older"}', True),
        (b'{"on":1,"boot":"b1"}', True),
        (b"no state", True),
        (b'{"on":0,"boot":"' + b"b" * 2000 + b'"}', True),
    ],
    ids=["will", "will of an older start", "birth", "nonsense", "huge"],
)
def test_will_ends_the_conversation(world: MqttWorld, state: bytes, stays: bool) -> None:
    """Only one with the boot id of this start."""
    broker = Broker(world)
    broker.deliver("hub/v1/lamp-1/state", b'{"on":1,"boot":"b1"}')
    broker.greet("lamp-1")
    broker.deliver("hub/v1/lamp-1/state", state)

    assert ("lamp-1" in broker.relay.native.devices) is stays
    assert world.parts.registry.device("default", "lamp-1").connections == int(stays)


def test_boot_ids_are_bounded(world: MqttWorld) -> None:
    """Somebody who invents devices costs no memory."""
    broker = Broker(world)
    for number in range(MAX_BOOTS + 5):
        broker.deliver(f"hub/v1/lamp-{number}/state", b'{"on":1,"boot":"b"}')

    assert len(broker.relay._boots) == MAX_BOOTS


def test_retained_message_on_up_is_of_before(world: MqttWorld) -> None:
    """No device of ours retains what it says."""
    broker = Broker(world)
    hello = wire.Hello("lamp-1", STREAM, "boot", "run", 0, 1, CHAIN_START.hex())
    broker.deliver("hub/v1/lamp-1/up", wire.encode(hello), is_retained=True)

    assert (broker.heard("lamp-1"), broker.acked) == ([], [1])


def test_connection_that_is_lost_ends_its_conversations(world: MqttWorld) -> None:
    """The next one begins anew with each device; what was accepted is stored."""
    broker = Broker(world)
    broker.greet("lamp-1")
    broker.batch("lamp-1", 1)
    broker.relay.closed("lost")
    again = Broker(world)
    again.batch("lamp-1", 2)
    world.commit()

    assert again.heard("lamp-1") == [(7, "bye")]
    assert world.values("lamp-1") == [("x", 1.5)]


def test_device_behind_a_broker_is_not_offline_while_that_is_connected(world: MqttWorld) -> None:
    """A try to connect is no connection, and the next connection is as good as the last."""
    world.parts.children.set_rules("mqtt-bridge", auto_accept=["lamp"])
    state, later_ns = world.parts.registry.device("default", "lamp"), NOW + 86_400 * 10**9
    broker = Broker(world)
    broker.relay.connected()
    broker.deliver("home/lamp", b"lamp.t=1")
    world.settle()
    seen = [state.presence(later_ns)]
    broker.relay.closed("lost")
    again = Broker(world)
    seen.append(state.presence(later_ns))
    again.relay.connected()
    seen.append(state.presence(later_ns))
    again.relay.closed("lost")
    Broker(world).relay.closed("never connected")

    assert seen == [Presence.STALE, Presence.OFFLINE, Presence.STALE]
    assert state.presence(later_ns) is Presence.OFFLINE


def test_hub_that_stops_says_when_to_come_back_and_takes_nothing_more(world: MqttWorld) -> None:
    """What the broker still delivers stays there, without PUBACK, for the next start."""
    broker = Broker(world)
    broker.greet("lamp-1")
    broker.heard("lamp-1")
    world.clients.stop()
    late = broker.deliver("home/lamp", b"lamp.t=1")
    world.settle()

    assert broker.heard("lamp-1") == [(7, "bye")]
    assert broker.hung_up.startswith("server_shutting_down")
    assert late not in broker.acked
    assert world.values("lamp") == []


def test_answer_of_a_decoder_is_published(world: MqttWorld) -> None:
    """Where the message came from."""
    broker = Broker(world)
    broker.deliver("home/lamp", b"?")

    assert broker.said == [("home/lamp/response", b"!", 0, False)]


def test_other_end_of_the_connection_hangs_up(world: MqttWorld) -> None:
    """Whoever ends it says why."""
    broker = Broker(world)
    broker.relay.end(Code.TAKEN_OVER, "another bridge")

    assert broker.hung_up == "taken_over: another bridge"


def test_device_is_told_to_try_again_while_identities_cannot_be_seen(world: MqttWorld) -> None:
    """The file is being written, for a second at most."""

    class Unreadable:
        def is_enrolled(self, name: str, *, namespace: str = "default") -> bool:
            raise UnavailableError("being changed")

    broker = Broker(world)
    broker.relay.native._parts.admission._enrolment = Unreadable()  # type: ignore[attr-defined]
    broker.greet("lamp-1")

    assert broker.heard("lamp-1") == [(7, "bye")]
