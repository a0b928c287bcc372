"""The native conversation by MQTT: sessions on ``up`` and ``down``, and PUBACK when what was taken is stored."""

import json
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_binary, encode_json
from device_sdk.envelope import wrap
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START, Close
from hub.model import Kind
from hub.mqtt.handler import Code
from hub.mqtt.native import DOUBT_NS, MAX_ASKED, NUMBERS, SETTLE_S, Brokered, Native
from tests.support.hub_parts import HubParts
from tests.support.mqtt_clients import NOW, ConnectedClient, MqttWorld, UnreadableAdmission

STREAM = "9f3a0000000000aa"


class Speaker:
    """A device that speaks the native conversation; ``heard`` returns what came on its ``down``."""

    def __init__(self, connected: ConnectedClient, device: str = "d") -> None:
        self.connected = connected
        self.device = device
        assert connected.client.subscribe([f"hub/v1/{device}/down"]) == [Code.SUCCESS]

    def say(self, data: bytes) -> int:
        """Publish on ``up``."""
        return self.connected.publish(f"hub/v1/{self.device}/up", data)

    def greet(self, *, stream: str = STREAM, next_seq: int = 1, **more: Any) -> int:
        """Say hello and which channels there are."""
        hello = wire.Hello(self.device, stream, "boot", "run", 0, next_seq, "", **more)
        number = self.say(wire.encode(hello))
        self.say(wire.encode(wire.Schema((Channel("x"),))))
        return number

    def batch(self, seq: int, value: float = 1.5) -> int:
        """Send a batch of one reading."""
        return self.say(encode_json(Batch(seq, 1, NOW + seq, 1, (Column("x", [0], [value]),))))

    def heard(self) -> list[dict[str, Any]]:
        """Return what the hub said since the last call."""
        taken = self.connected.line.take()
        assert {(topic, qos) for topic, _, qos in taken} <= {(f"hub/v1/{self.device}/down", 1)}
        return [json.loads(payload) for _, payload, _ in taken]

    @property
    def codes(self) -> dict[int, Code]:
        """What publications were told."""
        return self.connected.codes


def ops(heard: list[dict[str, Any]]) -> list[str]:
    """Return what was said, in a word each."""
    return [message["op"] for message in heard]


def test_batch_is_acknowledged_when_it_is_stored(world: MqttWorld) -> None:
    """By PUBACK and by ``ack``; what brings no frame has its PUBACK at once."""
    device = Speaker(world.device())
    hello = device.greet()
    first, second = device.batch(1), device.batch(2)

    assert ops(device.heard()) == ["welcome"]
    assert device.codes == {hello: Code.SUCCESS, hello + 1: Code.SUCCESS}
    world.commit()
    assert [(m["op"], m["stored"]) for m in device.heard()] == [("ack", 2)]
    assert device.codes == dict.fromkeys([hello, hello + 1, first, second], Code.SUCCESS)
    assert world.values("d") == [("x", 1.5), ("x", 1.5)]


def test_columns_in_binary_are_taken(world: MqttWorld) -> None:
    """As by WebSocket: the first byte tells them from text."""
    device = Speaker(world.device())
    device.greet()
    body = encode_binary(Batch(1, 2, NOW, 1_000_000, (Column("x", [0, 5], [1.5, 2.5]),)))
    assert body is not None
    device.say(body)
    world.commit()

    assert world.values("d") == [("x", 1.5), ("x", 2.5)]


def test_rows_of_a_microcontroller_are_taken(world: MqttWorld) -> None:
    """A hello without a chain, rows, and a gap for what it had to drop."""
    device = Speaker(world.device())
    device.greet()
    rows = {"s": STREAM, "q": 1, "t": str(NOW // 1_000_000), "f": ["x", "y"], "r": [[0, 21.5, None], [1000, 22, True]]}
    device.say(wire.encode(wire.Schema((Channel("y"),))))
    number = device.say(json.dumps(rows, separators=(",", ":")).encode())
    device.say(wire.encode(wire.Gap(2, 70, "spool_full", {})))
    world.commit()

    assert [(m["op"], m.get("stored")) for m in device.heard()][-1] == ("ack", 2)
    assert device.codes[number] is Code.SUCCESS
    assert world.values("d") == [("x", 21.5), ("x", 22), ("y", True)]


def test_rows_of_another_stream_are_not_taken(world: MqttWorld) -> None:
    """They were on their way when the device began anew."""
    device = Speaker(world.device())
    device.greet()
    device.heard()
    device.say(b'{"s":"1","q":1,"t":"1763838000123","f":["x"],"r":[[0,1]]}')

    assert [(m["op"], m["reason"]) for m in device.heard()] == [("error", "unreadable")]
    assert world.frames == []


def test_frame_sent_again_waits_for_its_first_one(world: MqttWorld) -> None:
    """PUBACK means stored; of one that is stored it leaves at once."""
    device = Speaker(world.device())
    device.greet()
    first, again = device.batch(1), device.batch(1)
    assert {first, again}.isdisjoint(device.codes)
    world.commit()
    third = device.batch(1)

    assert [device.codes[n] for n in (first, again, third)] == [Code.SUCCESS] * 3
    assert world.values("d") == [("x", 1.5)]


def test_frame_out_of_order_is_told_on_down(world: MqttWorld) -> None:
    """Then its PUBACK leaves: the device reads ``down``."""
    device = Speaker(world.device())
    device.greet()
    device.heard()
    number = device.batch(7)

    assert [(m["op"], m["reason"], m["stored"]) for m in device.heard()] == [("error", "out_of_order", 0)]
    assert device.codes[number] is Code.SUCCESS


def test_what_the_disk_refuses_is_told_on_down_and_comes_again(world: MqttWorld) -> None:
    """MQTT 5 sees it in the PUBACK as well."""
    device = Speaker(world.device())
    device.greet()
    device.heard()
    refused = device.batch(1)
    world.refuse()

    assert [(m["op"], m["why"]) for m in device.heard()] == [("slow", "disk_full")]
    assert device.codes[refused] is Code.QUOTA_EXCEEDED
    again = device.batch(1)
    world.commit()
    assert device.codes[again] is Code.SUCCESS
    assert world.values("d") == [("x", 1.5)]


def test_full_hub_says_slow(world: MqttWorld) -> None:
    """The frame is not taken."""
    device = Speaker(world.device())
    device.greet()
    device.heard()
    world.is_full = True
    number = device.batch(1)

    assert ops(device.heard()) == ["slow"]
    assert (device.codes[number], world.frames) == (Code.SUCCESS, [])


def test_who_has_not_subscribed_is_told_to(world: MqttWorld) -> None:
    """What the hub has to say of its readings would reach nobody: nothing is taken."""
    connected = world.device(version=5)
    number = connected.publish("hub/v1/d/up", wire.encode(wire.Hello("d", STREAM, "b", "r", 0, 1, "")))

    assert connected.line.ended == (Code.IMPLEMENTATION, "subscribe to hub/v1/d/down first")
    assert (number in connected.codes, world.frames) == (False, [])


@pytest.mark.parametrize(
    ("data", "close", "code"),
    [
        (wire.encode(wire.Gap(1, 1, "x", {})), Close.BAD_MESSAGE, Code.PROTOCOL_ERROR),
        (wire.encode(wire.Hello("other", STREAM, "b", "r", 0, 1, "")), Close.FORBIDDEN, Code.NOT_AUTHORIZED),
        (b'{"s":"1"}', Close.BAD_MESSAGE, Code.PROTOCOL_ERROR),
        (b'{"op":"hello\xff"}', Close.BAD_MESSAGE, Code.PROTOCOL_ERROR),
    ],
    ids=["no hello", "other device", "rows first", "no text"],
)
def test_what_ends_a_session_ends_the_connection(world: MqttWorld, data: bytes, close: int, code: Code) -> None:
    """``down`` says why before, for 3.1.1 has no word for it."""
    device = Speaker(world.device())
    device.say(data)

    (bye,) = device.heard()
    assert (bye["op"], bye["code"]) == ("bye", close)
    assert device.connected.line.ended is not None
    assert device.connected.line.ended[0] is code


def test_goodbye_ends_the_session_alone_and_its_last_frames_are_acknowledged(world: MqttWorld) -> None:
    """The device says it before it disconnects; it waits for the PUBACKs of what it sent."""
    device = Speaker(world.device())
    device.greet()
    number = device.batch(1)
    device.say(wire.encode(wire.Bye()))
    world.pause()
    assert number not in device.codes
    assert not world.parts.downlink.can_reach("default", "d")
    world.commit()
    world.pause()

    assert (device.codes[number], device.connected.line.ended) == (Code.SUCCESS, None)
    assert (world.timers, SETTLE_S > 0) == ([], True)


def test_lost_connection_leaves_nothing_untold(world: MqttWorld) -> None:
    """Whoever sends the same publication again is told of the first one's end."""
    device = Speaker(world.device())
    device.greet()
    number = device.batch(1)
    device.connected.closed()
    world.commit()
    world.pause()

    assert device.codes[number] is Code.SUCCESS
    assert world.parts.registry.device("default", "d").connections == 0


def test_new_stream_on_the_same_connection_leaves_the_old_one(world: MqttWorld) -> None:
    """What was on its way is stored; the device has numbered it anew, so no PUBACK waits for it."""
    device = Speaker(world.device())
    device.greet()
    number = device.batch(1)
    device.greet(stream="9f3a0000000000bb")

    assert device.codes[number] is Code.QUOTA_EXCEEDED
    device.batch(1, 2.5)
    assert [(f.key.stream, f.seq) for f in world.frames] == [(STREAM, 1), ("9f3a0000000000bb", 1)]


def test_newest_connection_takes_the_stream_over(world: MqttWorld) -> None:
    """Also with another client id, and from a WebSocket: the older one is told and ended."""
    token = world.parts.identities.add_device("d")
    older = Speaker(world.client("d", token, id_="a"))
    older.greet()
    older.heard()
    newer = Speaker(world.client("d", token, id_="b"))
    newer.greet()

    assert [(m["op"], m["code"]) for m in older.heard()] == [("bye", Close.TAKEN_OVER)]
    assert older.connected.line.ended is not None
    assert older.connected.line.ended[0] is Code.TAKEN_OVER
    assert [(i.what, i.outcome) for i in world.incidents] == [("takeover", "ok")]
    older.connected.closed()
    assert world.parts.downlink.can_reach("default", "d")


def test_commands_reach_the_device_on_down(world: MqttWorld) -> None:
    """Presence is by its session from the hello on, and it has one connection."""
    device = Speaker(world.device())
    device.greet()
    device.heard()

    assert world.parts.registry.device("default", "d").connections == 1
    assert world.parts.downlink.send("default", "d", wire.Command("k7", "fan", {"speed": 3}, NOW))
    assert ops(device.heard()) == ["command"]


# --- gateways ---------------------------------------------------------------------------------------------------


def test_child_speaks_once_it_is_accepted(world: MqttWorld) -> None:
    """Until then each of its messages is told when to ask again, and none is taken."""
    child = Speaker(world.gateway(), "barn-1")
    child.greet()
    said = child.heard()
    assert [(m["op"], m["reason"]) for m in said] == [("bye", "child_pending")] * 2
    assert set(child.codes.values()) == {Code.NOT_AUTHORIZED}

    world.parts.children.accept("barn", "barn-1")
    child.greet()
    number = child.batch(1)
    world.commit()
    assert ops(child.heard()) == ["welcome", "ack"]
    assert (child.codes[number], world.values("barn-1")) == (Code.SUCCESS, [("x", 1.5)])


def test_child_that_may_not_speak_any_more_is_told(world: MqttWorld) -> None:
    """The others go on, and so does the connection."""
    world.parts.children.set_rules("barn", auto_accept=["*"])
    connected = world.gateway()
    native = connected.client.native
    assert native is not None
    for name in ("barn-1", "barn-2"):
        Speaker(connected, name).greet()
    connected.line.take()
    world.parts.children.ignore("barn", "barn-1")
    native.recheck()
    native.flush()

    ((topic, payload, _),) = connected.line.take()
    assert (topic, json.loads(payload)["code"]) == ("hub/v1/barn-1/down", Close.FORBIDDEN)
    assert (list(native.devices), connected.line.ended) == (["barn-2"], None)


def test_child_that_does_wrong_ends_alone(world: MqttWorld) -> None:
    """Its next hello is a new beginning."""
    world.parts.children.set_rules("barn", auto_accept=["*"])
    child = Speaker(world.gateway(), "barn-1")
    child.greet()
    child.say(wire.encode(wire.Hello("barn-2", STREAM, "b", "r", 0, 1, CHAIN_START.hex())))

    assert ops(child.heard()) == ["welcome", "bye"]
    assert child.connected.line.ended is None
    child.greet()
    assert ops(child.heard()) == ["welcome"]


def test_file_that_cannot_be_read_delays_a_child(parts: HubParts) -> None:
    """For a second, not for ever."""
    child = Speaker(MqttWorld(parts, admission=UnreadableAdmission()).gateway(), "barn-1")

    child.greet()

    assert {(m["reason"], m["retry_ms"]) for m in child.heard()} == {("store_behind", 1000)}


def test_malformed_batch_of_a_microcontroller_is_in_quarantine(world: MqttWorld) -> None:
    """With its number, so the stream goes on."""
    device = Speaker(world.device())
    device.greet()
    device.say(b'{"s":"' + STREAM.encode() + b'","q":1,"t":"x","f":["x"],"r":[[0,1]]}')
    device.batch(2)

    assert [(f.seq, f.kind) for f in world.frames] == [(1, Kind.QUARANTINE), (2, Kind.BATCH)]


# --- conversations with a number, and a broker between ------------------------------------------


class Behind:
    """Devices behind a broker: one `Native` for all of them; ``heard`` returns what came on a device's ``down``."""

    def __init__(self, world: MqttWorld, device: str = "barn-1") -> None:
        self.world = world
        self.device = device
        self.said: list[tuple[str, bytes]] = []
        self.codes: list[Code] = []
        self.now = NOW
        identity = world.gateway("mqtt-bridge", "*").client.identity
        world.parts.children.set_rules("mqtt-bridge", auto_accept=["barn-*"])
        self.native = Native(
            world.clients.parts,
            identity,
            "broker",
            lambda *said: self.said.append(said),
            _unended,
            Brokered(lambda: 700),
        )

    def say(self, data: bytes, number: int | None = 7, *, is_again: bool = False) -> None:
        """Publish on ``up``."""
        message = data if number is None else wrap(number, data)
        self.native.receive(self.device, message, self.now, self.codes.append, is_again=is_again)

    def greet(self, number: int | None = 7, *, next_seq: int = 1, is_again: bool = False) -> None:
        """Say hello and which channels there are."""
        hello = wire.Hello(self.device, STREAM, "boot", "run", 0, next_seq, CHAIN_START.hex() if next_seq == 1 else "")
        self.say(wire.encode(hello), number, is_again=is_again)
        self.say(wire.encode(wire.Schema((Channel("x"),))), number)

    def batch(self, seq: int, number: int | None = 7, *, is_again: bool = False) -> None:
        """Send a batch of one reading."""
        body = encode_json(Batch(seq, 1, NOW + seq, 1, (Column("x", [0], [1.5]),)))
        self.say(body, number, is_again=is_again)

    def heard(self) -> list[tuple[int | None, str]]:
        """Return what the hub said since the last call, in a word each, with the number it said it under."""
        told, self.said[:] = [json.loads(message) for _, message in self.said], []
        return [(message.get("n"), message["op"]) for message in told]


def _unended(code: Code, why: str) -> None:
    raise AssertionError(f"one device ends no bridge: {code} {why}")


def test_device_is_answered_under_the_number_of_its_conversation(world: MqttWorld) -> None:
    """Text and binary alike, on a connection of its own as behind a broker."""
    device = Speaker(world.device())
    hello = wire.Hello("d", STREAM, "boot", "run", 0, 1, CHAIN_START.hex())
    binary = encode_binary(Batch(1, 1, NOW, 1, (Column("x", [0], [2.5]),)))
    assert binary is not None
    device.say(wrap(300, wire.encode(hello)))
    device.say(wrap(300, wire.encode(wire.Schema((Channel("x"),)))))
    device.say(wrap(300, binary))
    world.commit()

    assert [(m["n"], m["op"]) for m in device.heard()] == [(300, "welcome"), (300, "ack")]
    assert world.values("d") == [("x", 2.5)]


def test_hello_under_a_new_number_begins_a_new_conversation(world: MqttWorld) -> None:
    """What comes under the older number is over: it is sent again under the new one. Nobody was taken over."""
    behind = Behind(world)
    behind.greet(7)
    behind.batch(1, 7)
    world.commit()
    behind.heard()

    behind.greet(8, next_seq=2)
    behind.batch(2, 7)
    behind.batch(2, 8)
    world.commit()

    assert behind.heard() == [(8, "welcome"), (7, "bye"), (8, "ack")]
    assert world.values("barn-1") == [("x", 1.5)] * 2
    assert world.incidents == []
    assert world.parts.registry.device("default", "barn-1").connections == 1


def test_hello_that_comes_twice_is_answered_once(world: MqttWorld) -> None:
    """A broker may deliver it again, also after frames of the conversation were stored: it is no older card."""
    behind = Behind(world)
    behind.greet()
    behind.batch(1)
    world.commit()
    behind.heard()

    behind.greet(is_again=True)
    behind.greet(is_again=False)

    assert behind.heard() == []
    assert world.incidents == []
    assert set(behind.codes) == {Code.SUCCESS}


def test_hub_that_began_anew_asks_for_a_hello(world: MqttWorld) -> None:
    """Once for a conversation, however many frames of it wait; what a device says in leaving needs no answer."""
    behind = Behind(world)
    behind.batch(4)
    behind.batch(5)
    behind.say(wire.encode(wire.Bye()), 6)
    behind.batch(6, 8)

    assert behind.heard() == [(7, "bye"), (8, "bye")]
    assert world.frames == []
    behind.greet(9)
    assert behind.heard() == [(9, "welcome")]


def test_hello_that_is_delivered_again_to_a_hub_that_began_anew_is_not_taken(world: MqttWorld) -> None:
    """Frames of that conversation may be stored since, and then it would look like a card that was written back."""
    behind = Behind(world)
    behind.greet(is_again=True)

    assert behind.heard() == [(7, "bye")]
    behind.greet(8)
    assert behind.heard() == [(8, "welcome")]
    behind.greet(7, is_again=True)
    behind.batch(1, 8)
    world.commit()
    assert behind.heard() == [(7, "bye"), (8, "ack")]


def test_hello_of_a_broker_that_read_an_old_file_is_not_taken(world: MqttWorld) -> None:
    """It is not marked as delivered again; its number has begun a conversation here before."""
    behind = Behind(world)
    for number in range(1, 4):
        behind.greet(number)
    behind.batch(1, 3)
    world.commit()
    behind.heard()

    behind.greet(2)
    behind.batch(2, 3)
    world.commit()
    assert behind.heard() == [(2, "bye"), (3, "ack")]
    assert world.incidents == []


def test_hello_that_a_hub_which_began_anew_finds_at_the_broker_is_no_alarm(world: MqttWorld) -> None:
    """It is not marked, and its number is not known; the device is asked, and says one that knows what is stored."""
    before = Behind(world)
    before.greet(1)
    before.batch(1, 1)
    before.batch(2, 1)
    world.commit()
    before.native.closed("the hub was killed")
    behind = Behind(world)
    for old in (1, 2):
        behind.greet(old)
    behind.greet(3, next_seq=3)
    behind.batch(3, 3)
    world.commit()

    assert behind.heard() == [(1, "bye"), (2, "bye"), (3, "welcome"), (3, "ack")]
    assert world.incidents == []


def test_card_that_was_written_back_is_found_out_behind_a_broker_too(world: MqttWorld) -> None:
    """It says the same whenever it is asked: after ten seconds it is believed."""
    before = Behind(world)
    before.greet(1)
    before.batch(1, 1)
    world.commit()
    before.native.closed("the hub was killed")
    behind = Behind(world)
    behind.greet(2)
    behind.now += DOUBT_NS
    behind.greet(3)

    assert behind.heard() == [(2, "bye"), (3, "new_stream")]
    assert [incident.what for incident in world.incidents] == ["alarm"]


def test_numbers_that_are_remembered_are_bounded() -> None:
    """Of each device, and of all."""
    brokered = Brokered(lambda: 0)
    for number in range(MAX_ASKED + 3):
        brokered.note(f"d{number}", 1)
    for number in range(NUMBERS + 1):
        brokered.note("d", number)

    assert len(brokered) == MAX_ASKED
    assert all(brokered.is_doubtful(f"d{number}", True, 0) for number in range(MAX_ASKED + 3))
    # The first one was forgotten: it is doubted from now on.
    assert brokered.is_doubtful("d0", True, DOUBT_NS)
    assert not brokered.is_doubtful("d9", True, DOUBT_NS)
    assert (brokered.has("d", 0), brokered.has("d", 1), brokered.has("other", 1)) == (False, True, False)


def test_device_without_a_number_behind_a_broker(world: MqttWorld) -> None:
    """It is served as well as it can be told from an older conversation, and asked for a hello in the same way."""
    behind = Behind(world)
    behind.batch(1, None)
    behind.batch(2, None)
    assert behind.heard() == [(None, "bye")]

    behind.greet(None)
    behind.batch(1, None)
    world.commit()
    assert behind.heard() == [(None, "welcome"), (None, "ack")]


def test_device_that_is_there_already_is_asked_for_a_hello(world: MqttWorld) -> None:
    """Its birth was kept by the broker; who speaks already is not asked."""
    behind = Behind(world)
    behind.native.ask_again("barn-1")
    behind.native.ask_again("barn-1")
    assert behind.heard() == [(None, "bye")] * 2

    behind.greet()
    behind.native.ask_again("barn-1")
    assert behind.heard() == [(7, "welcome")]


def test_device_that_is_gone_has_no_session(world: MqttWorld) -> None:
    """Its will said so; what was accepted of it is still stored, and its PUBACK leaves then."""
    behind = Behind(world)
    behind.greet()
    behind.batch(1)
    told = len(behind.codes)
    behind.native.left("barn-1", "its will")
    behind.native.left("barn-2", "its will")
    world.commit()
    world.pause()

    assert (list(behind.native.devices), behind.codes[told:]) == ([], [Code.SUCCESS])
    assert world.values("barn-1") == [("x", 1.5)]
    assert world.parts.registry.device("default", "barn-1").connections == 0


def test_devices_that_were_asked_are_bounded(world: MqttWorld) -> None:
    """Somebody who invents names at the broker costs no memory."""
    behind = Behind(world)
    for number in range(MAX_ASKED + 10):
        behind.device = f"barn-{number}"
        behind.batch(1)

    assert len(behind.native._asked) == MAX_ASKED


def test_pending_device_behind_a_broker_is_told_under_its_number(world: MqttWorld) -> None:
    """A person decides, as behind any gateway."""
    behind = Behind(world, "shed-1")
    behind.greet(7)

    assert behind.heard() == [(7, "bye")]
    assert behind.codes[0] is Code.NOT_AUTHORIZED
