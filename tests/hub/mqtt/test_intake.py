"""Whose a foreign reading is, and that none is lost or holds up others where something cannot be stored."""

import json

import pytest

from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import Decoded, DecodeError, Publication
from hub.decode.dispatch import Decoders
from hub.devices import Presence
from hub.model import Kind
from hub.mqtt.clients import MAX_AGAIN, MAX_AGAIN_BYTES, MAX_WAITING, MAX_WAITING_BYTES
from hub.mqtt.handler import Code, Will
from hub.mqtt.intake import LARGE_BYTES
from tests.support.hub_parts import HubParts
from tests.support.mqtt_clients import NOW, FailingAdmission, MqttWorld, UnreadableAdmission, WordDecoders


def quarantine(world: MqttWorld) -> list[tuple[str, str]]:
    """Return who is in quarantine, and why."""
    return [(entry.key.device, entry.reason) for entry in world.parts.journal.quarantine("default")]


def unit_of(world: MqttWorld, device: str, channel: str) -> str | None:
    """Return what is known of a channel."""
    return world.parts.registry.device("default", device).channels[channel].unit


# --- a device ---------------------------------------------------------------------------------------------------


def test_every_reading_of_a_device_is_its_own(world: MqttWorld) -> None:
    """Whatever the message calls it."""
    connected = world.device("d")
    connected.publish("t", b"bedroom.t:Cel")
    number = connected.publish("t", b"bedroom.t=21.5 bedroom.h=44")
    world.settle()

    assert world.values("d") == [("h", 44.0), ("t", 21.5)]
    assert (connected.codes[number], unit_of(world, "d", "t")) == (Code.SUCCESS, "Cel")
    assert ("default", "bedroom") not in world.parts.registry.devices


def test_decoders_know_which_names_are_taken(world: MqttWorld) -> None:
    """Of the hub's store, which outlives them: a name that was given once stays."""
    connected = world.device("d")
    connected.publish("t", b"bedroom.t=21.5")
    world.settle()
    decoders = world.clients.decoders(connected.client.identity, is_gateway=False)

    assert isinstance(decoders, WordDecoders)
    assert [decoders.has(*of) for of in (("d", ""), ("d", "t"), ("d", "h"), ("e", ""))] == [True, True, False, False]
    assert ("default", "e") not in world.parts.registry.devices


def test_message_that_names_several_devices_needs_a_gateway(world: MqttWorld) -> None:
    """Else their channels would become one: it is put aside, and acknowledged when it is there."""
    connected = world.device("d")
    number = connected.publish("t", b"a.t=1 b.t=2")
    assert connected.codes == {}
    world.settle()

    assert quarantine(world) == [("d", "it speaks of 2 devices (a, b): that needs a gateway credential")]
    assert (connected.codes[number], world.values("d")) == (Code.SUCCESS, [])


def test_device_that_its_gateway_does_not_hear_goes_offline(world: MqttWorld) -> None:
    """Its availability says so, if it has one; what it says afterwards brings it back."""
    world.parts.children.set_rules("barn", auto_accept=["barn-*"])
    gateway, later_ns, seen = world.gateway(), NOW + 86_400 * 10**9, []
    for payload in (b"barn-1.t=1", b"barn-1.online=0", b"barn-1.online=1 barn-2.online=0", b"barn-1:Cel"):
        gateway.publish("t", payload)
        world.settle()
        seen.append(world.parts.registry.device("default", "barn-1").presence(later_ns))

    assert seen == [Presence.STALE, Presence.OFFLINE, Presence.STALE, Presence.STALE]
    assert world.parts.registry.device("default", "barn-2").presence(later_ns) is Presence.OFFLINE


def test_gateway_does_not_carry_who_has_a_connection_of_its_own(world: MqttWorld) -> None:
    """Also where it may still speak for the device for some seconds."""
    world.parts.children.set_rules("barn", auto_accept=["barn-*"])
    gateway = world.gateway()
    gateway.publish("t", b"barn-1.t=1")
    device = world.device("barn-1")
    gateway.publish("t", b"barn-1.t=2")
    world.settle()
    device.closed(is_clean=True)

    state = world.parts.registry.device("default", "barn-1")
    assert state.presence(NOW + 3600 * 10**9) is Presence.OFFLINE


def test_device_that_may_not_speak_is_not_there(world: MqttWorld) -> None:
    """Nobody has accepted it: the hub knows nothing of it."""
    world.gateway().publish("t", b"barn-1.t=1")

    assert ("default", "barn-1") not in world.parts.registry.devices


def test_list_of_many_devices_says_nothing_of_one(world: MqttWorld) -> None:
    """What a coordinator tells of its lamps are not this device's channels."""
    connected = world.device("d")
    number = connected.publish("t", b"a.t:Cel b.t:Cel")

    assert connected.codes == {number: Code.SUCCESS}
    assert world.parts.registry.device("default", "d").channels == {}


def test_what_cannot_be_read_is_put_aside(world: MqttWorld) -> None:
    """With its topic and its reason, in the order of what the device sends."""
    connected = world.device("d")
    connected.publish("t", b"a.t=1")
    number = connected.publish("t/x", b"nonsense")
    connected.publish("t", b"a.t=2")
    world.turn()

    assert [f.kind for f in world.frames] == [Kind.BATCH, Kind.QUARANTINE, Kind.BATCH]
    world.commit()
    assert quarantine(world) == [("d", "nonsense is no word")]
    assert (connected.codes[number], world.clients.figures.quarantined) == (Code.SUCCESS, 1)


def test_message_without_readings_is_acknowledged_at_once(world: MqttWorld) -> None:
    """There is nothing to store of it."""
    connected = world.device("d")

    assert connected.codes == {connected.publish("t", b""): Code.SUCCESS}


# --- when nothing can be stored -----------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"a.t=1", b"nonsense"], ids=["readings", "poison"])
def test_what_could_not_be_stored_is_given_again(world: MqttWorld, payload: bytes) -> None:
    """PUBACK is withheld until it is stored, once; also when the connection has ended meanwhile."""
    connected = world.device("d")
    number = connected.publish("t", payload)
    world.turn()
    world.refuse()
    world.is_full = True
    connected.closed()
    world.pause()
    assert (connected.codes, world.clients.figures.again, world.clients.figures.waiting) == ({}, 1, 1)

    world.is_full = False
    world.pause()
    world.settle()

    assert connected.codes == {number: Code.SUCCESS}
    assert (world.clients.figures.again, world.clients.figures.waiting, world.timers) == (0, 0, [])
    assert len(world.values("d")) + len(quarantine(world)) == 1


def test_what_is_given_again_does_not_hold_up_a_stop(world: MqttWorld) -> None:
    """It has no PUBACK, so the next hub is sent it: this one has nothing to wait for."""
    connected = world.device("d")
    connected.publish("t", b"a.t=1")
    world.turn()
    world.refuse()
    world.clients.rest()
    world.pause()

    assert (connected.codes, world.clients.is_storing) == ({}, False)
    assert (world.clients.figures.waiting, world.clients.figures.waiting_bytes) == (0, 0)


@pytest.mark.parametrize("payload", [b"a.t=1", b"nonsense"], ids=["readings", "poison"])
def test_of_qos_0_it_is_lost_and_counted(world: MqttWorld, payload: bytes) -> None:
    """Its sender has chosen that."""
    connected = world.device("d")
    world.is_full = True
    connected.publish("t", payload, qos=0)

    assert (world.timers, world.clients.figures.lost, world.clients.figures.waiting) == ([], 1, 0)


def test_nothing_is_read_while_too_much_waits_for_another_try(world: MqttWorld) -> None:
    """Memory is bounded whatever the number of clients that come and go."""
    connected = world.device("d")
    world.clients.figures.again = MAX_AGAIN

    assert not connected.client.can_take()


def test_nothing_is_read_while_too_much_is_on_its_way_to_the_disk(world: MqttWorld) -> None:
    """Whatever the number of clients that send at the same time."""
    connected, size = world.device("d"), 256 * 1024
    number = connected.publish("t", b"a.t=1")
    world.clients.figures.waiting += MAX_WAITING - 1
    assert not connected.client.can_take()
    world.settle()
    assert connected.codes == {number: Code.SUCCESS}
    assert connected.client.can_take()
    world.clients.figures.waiting = 0

    for _ in range(MAX_WAITING_BYTES // size):
        assert connected.client.can_take()
        connected.publish("t", b"a.t=1".ljust(size))
        world.turn()
    assert not connected.client.can_take()
    world.settle()
    assert (connected.client.can_take(), world.clients.figures.waiting_bytes) == (True, 0)


def test_nothing_is_read_while_the_payloads_that_wait_are_large(world: MqttWorld) -> None:
    """A few thousand large messages fill the memory as well as many small ones."""
    connected, size = world.device("d"), 256 * 1024
    payload = b"a.t=1".ljust(size)
    numbers = [connected.publish("t", payload) for _ in range(MAX_AGAIN_BYTES // size)]
    world.turns()
    assert connected.client.can_take()
    world.refuse()
    assert not connected.client.can_take()

    world.pause()
    assert connected.client.can_take()
    world.settle()
    assert connected.codes == dict.fromkeys(numbers, Code.SUCCESS)
    assert world.clients.figures.again_bytes == 0


# --- large ones ---------------------------------------------------------------------------------------------------


def large(payload: bytes) -> bytes:
    """Return a payload that is read in steps."""
    return payload.ljust(LARGE_BYTES + 1)


@pytest.mark.parametrize("qos", [0, 1])
def test_large_message_leaves_the_others_their_turns(world: MqttWorld, qos: int) -> None:
    """Its sender is held until it is through, and its PUBACK leaves when it is durable."""
    world.clients.steps.step_ns = 0
    connected, other = world.device("d"), world.device("e")
    number = connected.publish("t", large(b"a.t=1"), qos=qos)
    assert (connected.client.can_take(), other.client.can_take(), world.clients.is_storing) == (False, True, True)
    quick = other.publish("t", b"a.t=2")
    world.turn()
    world.commit()
    assert (connected.codes, other.codes) == ({}, {quick: Code.SUCCESS})
    assert (connected.client.can_take(), connected.line.flushed, world.values("d")) == (False, 0, [])

    world.turns()
    assert (connected.client.can_take(), connected.line.flushed, connected.codes) == (True, 1, {})
    world.commit()
    assert (connected.codes, world.values("d")) == ({number: Code.SUCCESS}, [("t", 1.0)])
    assert (world.clients.figures.waiting, world.clients.figures.waiting_bytes) == (0, 0)


def test_what_comes_behind_a_large_message_is_stored_behind_it(world: MqttWorld) -> None:
    """Here the will of a client whose connection ends meanwhile; nothing is lost or doubled by that."""
    world.clients.steps.step_ns = 0
    connected = world.device("d", will=Will("t", b"a.t=3", 1, False))
    number = connected.publish("t", b"a.t=1")
    behind = connected.publish("t", large(b"a.t=2 ?"))
    connected.closed()
    world.settle()

    assert world.values("d") == [("t", 1.0), ("t", 2.0), ("t", 3.0)]
    assert connected.codes == {number: Code.SUCCESS, behind: Code.SUCCESS}
    assert (connected.line.published, world.clients.figures.waiting, world.soon) == ([], 0, [])


def test_large_message_is_answered_and_put_aside_as_any(world: MqttWorld) -> None:
    """Also one that names several devices."""
    connected = world.device("d")
    numbers = [connected.publish("t", large(payload)) for payload in (b"?", b"nonsense", b"a.t=1 b.t=1")]
    world.turns()
    assert connected.codes == {numbers[0]: Code.SUCCESS}
    world.settle()

    assert connected.line.published == [("t/response", b"!", 0)]
    assert [reason for _, reason in quarantine(world)] == [
        "nonsense is no word", "it speaks of 2 devices (a, b): that needs a gateway credential",
    ]  # fmt: skip
    assert connected.codes == dict.fromkeys(numbers, Code.SUCCESS)


def test_large_message_that_cannot_be_stored_is_given_again(world: MqttWorld) -> None:
    """Of several devices each by itself, and none twice."""
    world.parts.children.set_rules("barn", auto_accept=["*"])
    connected = world.gateway()
    number = connected.publish("t", large(b"barn-1.t=1 barn-2.t=2"))
    world.is_full = True
    world.settle()
    assert (connected.codes, world.clients.figures.again, world.clients.figures.waiting) == ({}, 2, 2)

    world.is_full = False
    world.pause()
    world.settle()
    assert (world.values("barn-1"), world.values("barn-2")) == ([("t", 1.0)], [("t", 2.0)])
    assert (connected.codes, world.clients.figures.waiting_bytes) == ({number: Code.SUCCESS}, 0)


def test_devices_of_a_large_message_are_looked_at_in_steps(world: MqttWorld) -> None:
    """Each is looked up, and has a frame."""
    world.clients.steps.step_ns = 0
    world.parts.children.set_rules("barn", auto_accept=["*"])
    connected = world.gateway()
    number = connected.publish("t", large(b" ".join(b"barn-%d.t=1" % at for at in range(50))))
    turns = 0
    while world.soon:
        world.turn()
        turns += 1
        world.commit()

    assert turns > 2 * 50
    assert connected.codes == {number: Code.SUCCESS}
    assert world.values("barn-49") == [("t", 1.0)]


@pytest.mark.parametrize("spaces", [0, LARGE_BYTES])
def test_fault_of_the_hub_puts_its_message_aside(world: MqttWorld, spaces: int) -> None:
    """Its client would give it again for ever, with all behind it waiting. These decoders fail where no number is."""
    connected = world.device("d")
    numbers = [connected.publish("t", b"a.t=x" + b" " * spaces), connected.publish("t", b"a.t=2")]
    world.settle()

    assert (connected.line.ended, connected.codes) == (None, dict.fromkeys(numbers, Code.SUCCESS))
    assert [reason for _, reason in quarantine(world)] == [
        "the hub failed at it: ValueError(\"could not convert string to float: 'x'\")"
    ]
    assert (world.values("d"), world.clients.figures.waiting) == ([("t", 2.0)], 0)


@pytest.mark.parametrize("spaces", [0, LARGE_BYTES])
def test_what_cannot_be_gathered_is_put_aside(world: MqttWorld, spaces: int) -> None:
    """A decoder may be anybody's."""
    connected = world.device("d")
    number = connected.publish("t", b"!" + b" " * spaces)
    world.settle()

    assert connected.codes == {number: Code.SUCCESS}
    ((_, reason),) = quarantine(world)
    assert reason.startswith("the hub failed at it: ")
    assert (world.clients.figures.waiting, world.clients.figures.waiting_bytes) == (0, 0)


def test_what_comes_by_the_next_connection_is_stored_behind_a_large_message(world: MqttWorld) -> None:
    """Which is still read, of a connection that is gone: the newest value is the one that was sent last."""
    world.clients.steps.step_ns = 0
    token = world.parts.identities.add_device("d")
    connected = world.client("d", token)
    connected.publish("t", large(b"a.t=1"))
    world.turn()
    again = world.client("d", token)
    world.now_ns += 1
    number = again.publish("t", b"a.t=2")
    connected.closed()
    assert not again.client.can_take()
    world.settle()

    assert (again.client.can_take(), again.line.flushed, again.codes) == (True, 1, {number: Code.SUCCESS})
    assert world.values("d") == [("t", 1.0), ("t", 2.0)]
    (series,) = world.parts.registry.device("default", "d").channels.values()
    assert world.parts.registry.latest[series.id].value == 2.0


def test_unit_is_not_lost_with_a_message_that_is_too_large(parts: HubParts) -> None:
    """Its readings are put aside; what it told of channels comes with the next one."""
    world = MqttWorld(parts, make_decoders=Decoders)
    parts.children.set_rules("barn", auto_accept=["barn-*"])
    connected = world.gateway()
    records = [
        {"bn": "barn-1/", "n": "t", "u": "Cel", "v": 1},
        *[{"n": f"x{at % 50}", "vs": 200 * "y"} for at in range(1500)],
    ]
    connected.publish("t", json.dumps(records).encode())
    world.settle()
    connected.publish("t", b'[{"n":"barn-1/t","u":"Cel","v":2}]')
    world.settle()

    assert [reason for _, reason in quarantine(world)] == [
        f"readings in a message of more than {MAX_FRAME_BYTES} bytes"
    ]
    assert (world.values("barn-1"), unit_of(world, "barn-1", "t")) == ([("t", 2)], "Cel")


def test_unit_is_not_lost_with_a_message_that_the_hub_fails_at(parts: HubParts) -> None:
    """It is put aside; what it told of channels comes with the next one."""
    world = MqttWorld(parts, make_decoders=Decoders, admission=FailingAdmission())
    connected = world.gateway()
    for _ in range(2):
        connected.publish("t", b'[{"n":"barn-1/t","u":"Cel","v":2}]')
        world.settle()

    assert [reason for _, reason in quarantine(world)] == ["the hub failed at it: RuntimeError('once')"]
    assert (world.values("barn-1"), unit_of(world, "barn-1", "t")) == ([("t", 2)], "Cel")


# --- a gateway ------------------------------------------------------------------------------------------------------


def test_device_behind_a_gateway_waits_for_a_person(world: MqttWorld) -> None:
    """Until then its messages are acknowledged and forgotten, counted; then its units are known all the same."""
    connected = world.gateway()
    connected.publish("t", b"barn-1.t:Cel")
    numbers = [connected.publish("t", b"barn-1.t=1"), connected.publish("t", b"barn-2.t=1")]
    assert [connected.codes[n] for n in numbers] == [Code.SUCCESS] * 2
    assert [c.device for c in world.parts.children.listed()] == ["barn-2", "barn-1"]
    assert world.clients.figures.not_taken == {"child_pending": 2}

    world.parts.children.accept("barn", "barn-1")
    number = connected.publish("t", b"barn-1.t=2 barn-2.t=2")
    assert number not in connected.codes
    world.settle()

    assert (world.values("barn-1"), world.values("barn-2")) == ([("t", 2.0)], [])
    assert (connected.codes[number], unit_of(world, "barn-1", "t")) == (Code.SUCCESS, "Cel")


def test_message_for_several_devices_is_acknowledged_when_all_are_stored(world: MqttWorld) -> None:
    """What one of them could not store is given again alone."""
    world.parts.children.set_rules("barn", auto_accept=["*"])
    connected = world.gateway()
    number = connected.publish("t", b"barn-1.t=1 barn-2.t=2")
    world.turn()
    first, second = world.frames
    world.frames[:] = [first]
    world.commit()
    world.frames[:] = [second]
    world.refuse()
    assert connected.codes == {}
    world.pause()
    world.settle()

    assert connected.codes == {number: Code.SUCCESS}
    assert (world.values("barn-1"), world.values("barn-2")) == ([("t", 1.0)], [("t", 2.0)])


def test_large_message_may_announce_but_not_measure(world: MqttWorld) -> None:
    """What a gateway tells of hundreds of devices is larger than a frame, which readings become."""
    gateway = world.gateway("barn", "barn-*")
    gateway.publish("t", b"barn-1.t=1")
    world.parts.children.accept("barn", "barn-1")
    many = b" ".join(b"barn-%d.t:Cel" % at for at in range(1, 20_000))
    number = gateway.publish("t", many)
    world.settle()
    assert len(many) > MAX_FRAME_BYTES
    assert gateway.codes[number] is Code.SUCCESS

    gateway.publish("t", many + b" barn-1.t=21.5")
    world.settle()
    assert quarantine(world) == [("barn", f"readings in a message of more than {MAX_FRAME_BYTES} bytes")]
    assert (world.values("barn-1"), unit_of(world, "barn-1", "t")) == ([], "Cel")


def test_announcement_makes_nobody_pending(world: MqttWorld) -> None:
    """A list of all lamps and repeaters is not to be decided over; an accepted one learns its units."""
    world.parts.children.set_rules("barn")
    world.parts.children.accept("barn", "barn-1")
    connected = world.gateway()
    connected.publish("t", b"barn-1.t:Cel barn-2.t:Cel")
    world.settle()

    assert [c.device for c in world.parts.children.listed()] == ["barn-1"]
    assert unit_of(world, "barn-1", "t") == "Cel"


def test_name_outside_the_prefix_is_not_taken(world: MqttWorld) -> None:
    """Nor one that a person ignores, nor one with a token of its own."""
    world.parts.children.set_rules("barn")
    world.parts.children.ignore("barn", "barn-2")
    world.parts.identities.add_device("barn-3")
    connected = world.gateway()
    for name in ("attic", "barn-2", "barn-3"):
        connected.publish("t", f"{name}.t=1".encode())

    assert world.clients.figures.not_taken == {"child_prefix": 1, "child_ignored": 1, "child_taken": 1}
    assert world.soon == []


def test_accepted_device_that_is_ignored_ends_at_once_and_one_enrolled_within_seconds(world: MqttWorld) -> None:
    """The file is not asked at each message."""
    world.parts.children.set_rules("barn", auto_accept=["*"])
    connected = world.gateway()
    for name in ("barn-1", "barn-2"):
        connected.publish("t", f"{name}.t=1".encode())
    world.parts.children.ignore("barn", "barn-1")
    world.parts.identities.add_device("barn-2")
    world.now_ns += 10 * 10**9
    for name in ("barn-1", "barn-2"):
        connected.publish("t", f"{name}.t=2".encode())

    assert world.clients.figures.not_taken == {"child_ignored": 1, "child_taken": 1}


def test_what_is_not_known_now_is_not_taken(parts: HubParts) -> None:
    """It is counted, and the sender's next reading is looked at again."""
    world = MqttWorld(parts, admission=UnreadableAdmission())
    connected = world.gateway()
    number = connected.publish("t", b"barn-1.t=1")

    assert connected.codes == {number: Code.SUCCESS}
    assert world.clients.figures.not_taken == {"unavailable": 1}


def test_poison_of_a_gateway_is_its_own(world: MqttWorld) -> None:
    """No device can be named: it is in quarantine under the gateway's name."""
    connected = world.gateway()
    connected.publish("t", b"nonsense")
    world.settle()

    assert quarantine(world) == [("barn", "nonsense is no word")]


def test_units_are_known_over_connections(world: MqttWorld) -> None:
    """Many devices say them at their start alone."""
    token = world.parts.identities.add_device("d")
    first = world.client("d", token)
    first.publish("t", b"a.t:Cel")
    first.closed()
    world.client("d", token).publish("t", b"a.t=1")
    world.settle()

    assert unit_of(world, "d", "t") == "Cel"


def test_decoder_that_fails_without_a_word_loses_nothing(world: MqttWorld) -> None:
    """It may be anybody's: the message is put aside all the same."""

    class Wordless(WordDecoders):
        def decode(self, publication: Publication) -> Decoded:
            raise DecodeError("")

    world.clients._make_decoders = Wordless
    connected = world.device("d")
    number = connected.publish("t", b"a.t=1")
    world.settle()

    assert [device for device, _ in quarantine(world)] == ["d"]
    assert connected.codes[number] is Code.SUCCESS
