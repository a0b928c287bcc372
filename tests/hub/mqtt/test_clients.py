"""Which connection ends which, and what is bounded."""

from hub.mqtt.clients import MAX_OF_ONE, MAX_SCOPES
from hub.mqtt.handler import Code
from hub.roles import Identity, Role
from tests.support.mqtt_clients import MqttWorld


def test_carrier_is_known_while_it_is_needed(world: MqttWorld) -> None:
    """By its gateway's name, over its connections; nothing is left of one by which nobody speaks."""
    barn, shed = (Identity(name, name, Role.GATEWAY) for name in ("barn", "shed"))
    carrier = world.clients.carrier(barn)

    assert world.clients.carrier(barn) is carrier is not world.clients.carrier(shed)
    assert len(world.clients._carriers) == 1


def test_client_that_connects_again_takes_its_place(world: MqttWorld) -> None:
    """The same credential's name and client id; an end that is told late changes nothing."""
    token = world.parts.identities.add_device("d")
    older, newer = world.client("d", token), world.client("d", token)

    assert older.line.ended == (Code.TAKEN_OVER, "another connection of this client id has taken its place")
    older.closed()
    assert (len(world.clients), newer.line.ended) == (1, None)


def test_client_id_of_another_device_ends_nobody(world: MqttWorld) -> None:
    """Else every device could shut out every other."""
    one, other = world.device("d"), world.device("e")

    assert (one.line.ended, other.line.ended, len(world.clients)) == (None, None, 2)


def test_other_client_ids_of_one_device_stand_beside_each_other_in_bounded_number(world: MqttWorld) -> None:
    """Of too many the oldest ends: it may be half-open, the newest is not."""
    token = world.parts.identities.add_device("d")
    clients = [world.client("d", token, id_=str(n)) for n in range(MAX_OF_ONE + 1)]

    assert [c.line.ended is not None for c in clients] == [True] + [False] * MAX_OF_ONE
    assert clients[0].line.ended is not None
    assert clients[0].line.ended[0] is Code.QUOTA_EXCEEDED
    assert len(world.clients) == MAX_OF_ONE


def test_credential_that_ended_ends_its_connections_alone(world: MqttWorld) -> None:
    """By the id of the token, not by the device's name."""
    old, other = world.device("d"), world.device("e")
    world.clients.end_identities({old.client.identity.id})

    assert old.line.ended == (Code.NOT_AUTHORIZED, "this credential was revoked")
    assert other.line.ended is None


def test_stop_ends_all(world: MqttWorld) -> None:
    """With the code that says so."""
    connected = [world.device("d"), world.gateway()]
    world.clients.stop()

    assert [c.line.ended for c in connected] == [(Code.SERVER_SHUTTING_DOWN, "the hub stops")] * 2


def test_nothing_more_is_taken_of_a_hub_that_stops(world: MqttWorld) -> None:
    """What was taken is stored and acknowledged before the connections end."""
    connected = world.device("d")
    number = connected.publish("t", b"a.t=1")
    world.clients.rest()
    assert (connected.client.can_take(), world.clients.is_storing, connected.line.ended) == (False, True, None)
    world.settle()

    assert (connected.codes, world.clients.is_storing) == ({number: Code.SUCCESS}, False)


def test_decoders_of_those_who_were_here_are_kept_in_bounded_number(world: MqttWorld) -> None:
    """The one not seen for the longest is forgotten."""

    def decoders(number: int) -> object:
        return world.clients.decoders(Identity("i", f"d{number}", Role.DEVICE), is_gateway=False)

    first, second = decoders(0), decoders(1)
    for number in range(2, MAX_SCOPES):
        decoders(number)
    assert decoders(0) is first
    decoders(MAX_SCOPES)

    assert decoders(0) is first
    assert decoders(1) is not second


def test_decoders_of_a_device_know_its_name_and_those_of_a_gateway_have_none(world: MqttWorld) -> None:
    """A device and a gateway of one name are two."""
    device = world.clients.decoders(Identity("i", "barn", Role.DEVICE), is_gateway=False)
    gateway = world.clients.decoders(Identity("j", "barn", Role.GATEWAY), is_gateway=True)

    assert (device.device, gateway.device) == ("barn", "")  # type: ignore[attr-defined]
