"""Who an MQTT client is, which topics it may use, when its device is there."""

import gc
import tracemalloc

import pytest

from device_sdk.wire import MAX_FRAME_BYTES, Desired
from hub.decode.dispatch import Decoders
from hub.devices import Presence
from hub.errors import UnavailableError
from hub.mqtt.clients import MAX_AGAIN
from hub.mqtt.handler import Code, Refused, Will
from hub.mqtt.packet import MAX_GATEWAY_PACKET_BYTES, MAX_PACKET_BYTES
from hub.roles import Identity, Role
from tests.support.hub_parts import HubParts
from tests.support.mqtt_clients import NOW, ConnectedClient, MqttWorld

DOWN = "hub/v1/d/down"
STATE = "hub/v1/d/state"


class Follower:
    """Notes who comes and goes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def came(self, namespace: str, device: str) -> None:
        """Note it."""
        self.seen.append(("came", device))

    def went(self, namespace: str, device: str, why: str) -> None:
        """Note it."""
        self.seen.append((f"went: {why}", device))


@pytest.fixture
def follower(parts: HubParts) -> Follower:
    """Return who follows the presence of all devices."""
    follower = Follower()
    parts.downlink.follow(follower)
    return follower


# --- who ----------------------------------------------------------------------------------------------------


def test_device_comes_in_by_its_name_and_token(world: MqttWorld) -> None:
    """A name and a password are what every MQTT client has."""
    connected = world.device("d")

    assert (connected.client.identity.name, connected.client.client_id) == ("d", "c")
    assert (len(world.clients), world.inside, world.wrong) == (1, [connected.client], [])


@pytest.mark.parametrize("password", [None, ""], ids=["none", "empty"])
def test_token_may_be_the_user_name(world: MqttWorld, password: str | None) -> None:
    """As ThingsBoard has it."""
    token = world.parts.identities.add_device("d")
    connected = ConnectedClient(world)

    assert connected.connect(token, password) is None
    assert connected.client.identity.name == "d"


@pytest.mark.parametrize(
    ("name", "password"),
    [("d", "wrong"), ("d", None), ("other", "TOKEN"), ("", "wrong"), (None, None), ("x" * 500, "y" * 500)],
)  # fmt: skip
def test_wrong_credential_is_refused_and_noted(world: MqttWorld, name: str | None, password: str | None) -> None:
    """A right token under another name is a wrong one: somebody has mixed them up."""
    token = world.parts.identities.add_device("d")
    connected = ConnectedClient(world)

    refused = connected.connect(name, token if password == "TOKEN" else password)

    assert isinstance(refused, Refused)
    assert refused.code is Code.BAD_CREDENTIAL
    assert token not in refused.why
    assert [peer for peer, _ in world.wrong] == ["10.0.0.7"]
    assert (len(world.clients), world.clients.figures.refused) == (0, {"bad_credential": 1})


def test_password_of_bytes_that_are_no_text_is_refused(world: MqttWorld) -> None:
    """Nothing else happens."""
    from hub.mqtt.handler import Connect

    connected = ConnectedClient(world)
    refused = connected.client.connect(Connect("c", 4, True, 60, "d", b"\xff\xfe", None), connected.line)

    assert refused is not None
    assert refused.code is Code.BAD_CREDENTIAL


def test_certificate_needs_no_token(world: MqttWorld) -> None:
    """A user name beside it must be the device's; so must a token."""
    token, other = world.parts.identities.add_devices(["d", "other"]).values()
    identity = world.parts.identities.authenticate(token)
    assert identity is not None
    world.certificates["cert"] = identity

    def outcome(name: str | None, password: str | None) -> Code:
        refused = ConnectedClient(world, certificate="cert").connect(name, password)
        return Code.SUCCESS if refused is None else refused.code

    assert outcome(None, None) is Code.SUCCESS
    assert outcome("d", None) is Code.SUCCESS
    assert outcome("d", token) is Code.SUCCESS
    assert outcome("other", None) is Code.BAD_CREDENTIAL
    assert outcome("other", other) is Code.BAD_CREDENTIAL
    assert outcome("d", "wrong") is Code.BAD_CREDENTIAL


def test_client_is_known_by_whom_its_credential_speaks_for(world: MqttWorld) -> None:
    """Whichever way it shows it, and after its token was changed; a gateway of the same name is another."""
    token = world.parts.identities.add_device("d")
    by_name, by_token = world.client("d", token, id_="1"), ConnectedClient(world)
    by_token.connect(world.parts.identities.rotate_device("d"), None, id_="2")

    assert by_name.client.who == by_token.client.who == "default/device/d"
    assert world.gateway("d", "*").client.who == "default/gateway/d"


def test_credential_that_may_not_write_is_not_authorized(world: MqttWorld) -> None:
    """A watcher's token is a right one, and no device's."""
    _, token = world.parts.identities.add_token(Role.WATCHER, name="panel")

    refused = ConnectedClient(world).connect("panel", token)

    assert refused is not None
    assert (refused.code, world.wrong) == (Code.NOT_AUTHORIZED, [])


def test_file_that_cannot_be_read_is_no_wrong_credential(world: MqttWorld) -> None:
    """The device tries again soon, and nothing is noted against it."""

    def unavailable(peer: str, token: str | None, certificate: object) -> Identity:
        raise UnavailableError("being changed")

    world.identify = unavailable  # type: ignore[method-assign]
    refused = ConnectedClient(world).connect("d", "token")

    assert refused is not None
    assert (refused.code, world.wrong) == (Code.SERVER_UNAVAILABLE, [])


def test_nobody_comes_in_while_the_hub_stops(world: MqttWorld) -> None:
    """It would be ended at once."""
    token = world.parts.identities.add_device("d")
    world.clients.stop()

    refused = ConnectedClient(world).connect("d", token)

    assert refused == Refused(Code.SERVER_SHUTTING_DOWN, "the hub stops")


# --- which topics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "code"),
    [("hub/v1/other/up", Code.NOT_AUTHORIZED), ("hub/v1/d/down", Code.TOPIC_NAME_INVALID),
     ("hub/v1/d/up/x", Code.TOPIC_NAME_INVALID), ("hub/v1/d", Code.TOPIC_NAME_INVALID)],
)  # fmt: skip
def test_native_topic_of_another_is_denied(world: MqttWorld, topic: str, code: Code) -> None:
    """MQTT 5 is told; of 3.1.1, which has no word for it, the connection ends."""
    new = world.device("d", version=5)
    old = world.client("d", world.parts.identities.rotate_device("d"), id_="old")

    number = new.publish(topic, b"{}")
    old.publish(topic, b"{}")

    assert (new.codes, new.line.ended) == ({number: code}, None)
    assert (old.codes, old.line.ended is not None and old.line.ended[0]) == ({}, code)
    assert world.frames == []


def test_subscriptions_are_decided_one_by_one(world: MqttWorld) -> None:
    """One's own ``down`` is granted, what others publish is not."""
    connected = world.device("d")

    codes = connected.client.subscribe([DOWN, "hub/v1/other/down", "cmnd/d/#", "#"])

    assert codes == [Code.SUCCESS, Code.NOT_AUTHORIZED, Code.SUCCESS, Code.NOT_AUTHORIZED]


def test_edge_node_of_sparkplug_is_told_that_its_host_is_there(world: MqttWorld) -> None:
    """By the name that it asks for: a node that waits for its primary host says nothing before."""
    connected = world.device("d")

    connected.client.subscribe(["spBv1.0/STATE/scada", "spBv1.0/STATE/+", "spBv1.0/STATE/a/b", "cmnd/d/#"])

    told = b'{"online":true,"timestamp":%d}' % (world.now_ns // 1_000_000)
    assert connected.line.published == [("spBv1.0/STATE/scada", told, 1)]


def test_gateway_may_use_the_topics_of_its_prefix(world: MqttWorld) -> None:
    """And of no other device."""
    connected = world.gateway("barn", "barn-*", version=5)

    assert connected.client.subscribe(["hub/v1/barn-1/down", "hub/v1/d/down"]) == [Code.SUCCESS, Code.NOT_AUTHORIZED]
    assert connected.codes.get(connected.publish("hub/v1/d/up", b"{}")) is Code.NOT_AUTHORIZED


def test_packet_of_a_gateway_may_be_larger(world: MqttWorld) -> None:
    """Zigbee2MQTT announces all that is behind it in one message; a frame of ours is as large as anybody's."""
    gateway, device = world.gateway("barn", "barn-*", version=5), world.device("d", version=5)

    assert device.client.max_packet_bytes == MAX_PACKET_BYTES
    assert gateway.client.max_packet_bytes == MAX_GATEWAY_PACKET_BYTES
    gateway.publish("hub/v1/barn-1/up", bytes(MAX_FRAME_BYTES + 1))
    assert gateway.line.ended is not None
    assert gateway.line.ended[0] is Code.PACKET_TOO_LARGE


def test_reading_goes_on_while_something_can_be_stored(world: MqttWorld) -> None:
    """Else the client waits, and its pings are answered."""
    connected = world.device("d")

    assert connected.client.can_take()
    world.is_full = True
    assert not connected.client.can_take()


# --- there or not ------------------------------------------------------------------------------------------------


def test_device_is_there_while_it_is_connected(world: MqttWorld, follower: Follower) -> None:
    """Whatever it says: a foreign device as well."""
    connected = world.device("d")
    state = world.parts.registry.device("default", "d")

    assert (follower.seen, state.connections) == ([("came", "d")], 1)
    assert state.presence(0) is Presence.STALE
    assert world.parts.downlink.send("default", "d", Desired(1, {}))
    connected.closed()
    assert (follower.seen[1:], state.connections) == ([("went: lost", "d")], 0)
    assert (len(world.clients), world.inside, connected.line.published) == (0, [], [])


def test_gateway_is_no_device(world: MqttWorld, follower: Follower) -> None:
    """Of those behind it each has its own presence."""
    world.gateway().closed()

    assert follower.seen == []
    assert ("default", "barn") not in world.parts.registry.devices


def test_device_behind_a_gateway_is_not_offline_while_that_is_connected(world: MqttWorld) -> None:
    """Silent for a day: as one that is connected itself. It has spoken, and nothing says that it has gone."""
    world.parts.children.set_rules("barn", auto_accept=["barn-*"])
    _, token = world.parts.identities.add_token(Role.GATEWAY, ("barn-*",), "barn")
    first = world.client("barn", token, id_="z2m")
    first.publish("t", b"barn-1.t=1")
    world.settle()
    state, later_ns = world.parts.registry.device("default", "barn-1"), NOW + 86_400 * 10**9
    seen = [state.presence(later_ns)]

    second = world.client("barn", token, id_="z2m")
    first.closed()
    seen.append(state.presence(later_ns))
    second.closed()
    seen.append(state.presence(later_ns))
    # It comes back by itself, and its devices need not speak before they are there again.
    world.client("barn", token, id_="z2m")
    seen.append(state.presence(later_ns))

    assert seen == [Presence.STALE, Presence.STALE, Presence.OFFLINE, Presence.STALE]
    assert state.presence(NOW) is Presence.ONLINE
    assert state.connections == 0


def test_birth_and_will_say_earlier_that_it_goes(world: MqttWorld, follower: Follower) -> None:
    """A will of an older start says nothing."""
    connected = world.device("d")

    for payload in (b'{"on":1,"boot":"b2"}', b'{"on":0,"boot":"b1"}'):
        connected.publish(STATE, payload)
    assert follower.seen == [("came", "d")]
    connected.publish(STATE, b'{"on":0,"boot":"b2"}')
    assert follower.seen[1:] == [("went: it said that it goes", "d")]
    connected.publish(STATE, b'{"on":1,"boot":"b2"}')
    connected.closed(is_clean=True)

    assert follower.seen[2:] == [("came", "d"), ("went: lost", "d")]
    assert set(connected.codes.values()) == {Code.SUCCESS}


@pytest.mark.parametrize("payload", [b"", b"1", b"{}", b'{"on":2}', b"\xff", b"[" * 1000, b'{"on":1}' + b" " * 2000])
def test_state_that_is_none_is_denied(world: MqttWorld, payload: bytes) -> None:
    """Nothing changes."""
    connected = world.device("d", version=5)

    number = connected.publish(STATE, payload)

    assert connected.codes == {number: Code.PAYLOAD_FORMAT_INVALID}
    assert world.parts.registry.device("default", "d").connections == 1


def test_will_is_said_when_the_connection_was_lost(world: MqttWorld) -> None:
    """It is a message like any other of the device; a client that says goodbye has none."""
    will = Will("tele/d/LWT", b"d.online=0", 1, True)
    lost = world.device("d", will=will)
    clean = world.device("e", will=Will("tele/e/LWT", b"e.online=0", 1, True))

    lost.closed()
    clean.closed(is_clean=True)
    world.settle()

    assert (world.values("d"), world.values("e")) == ([("online", 0.0)], [])


def test_will_is_lost_and_counted_while_too_much_waits_for_another_try(world: MqttWorld) -> None:
    """Clients come and go as long as the disk is full, and nothing holds their wills back."""
    connected = world.device("d", will=Will("t", b"d.online=0", 1, False))
    world.is_full = True
    world.clients.figures.again = MAX_AGAIN
    connected.closed()

    assert (world.clients.figures.again, world.clients.figures.lost, world.timers) == (MAX_AGAIN, 1, [])


def test_will_of_who_is_taken_over_comes_before_the_birth(world: MqttWorld) -> None:
    """Also where the older connection ends only later."""
    token = world.parts.identities.add_device("d")
    older = world.client("d", token, will=Will("t", b"d.online=0", 1, False))
    newer = world.client("d", token)
    newer.publish("t", b"d.online=1")
    older.closed()
    world.settle()

    assert older.line.ended is not None
    assert older.line.ended[0] is Code.TAKEN_OVER
    assert world.values("d") == [("online", 0.0), ("online", 1.0)]
    assert len(world.clients) == 1


def test_device_that_is_taken_over_was_there_all_the_time(world: MqttWorld, follower: Follower) -> None:
    """Also where the older connection's will says that it has gone, and where it ends late."""
    token = world.parts.identities.add_device("d")
    older = world.client("d", token, will=Will(STATE, b'{"on":0,"boot":"b1"}', 1, True))
    older.publish(STATE, b'{"on":1,"boot":"b1"}')
    newer = world.client("d", token)
    newer.publish(STATE, b'{"on":1,"boot":"b2"}')
    older.closed()

    assert follower.seen == [("came", "d")]
    assert world.parts.registry.device("default", "d").connections == 1


@pytest.mark.parametrize("on", [0, 1])
def test_will_on_state_leaves_nobody_there(world: MqttWorld, follower: Follower, on: int) -> None:
    """Whatever it says: the connection was lost, and that is why it went."""
    connected = world.device("d", will=Will(STATE, b'{"on":%d,"boot":""}' % on, 1, True))
    connected.closed()

    assert follower.seen[:2] == [("came", "d"), ("went: lost", "d")]
    assert follower.seen[-1][0].startswith("went")
    assert world.parts.registry.device("default", "d").connections == 0


@pytest.mark.parametrize("how", ["revoked", "stop"])
def test_will_is_not_said_where_the_hub_has_ended_the_connection(world: MqttWorld, how: str) -> None:
    """Who was revoked may say nothing more; when the hub stops nothing is known of the device."""
    connected = world.device("d", will=Will("t", b"d.online=0", 1, False))

    if how == "revoked":
        world.clients.end_identities({connected.client.identity.id})
    else:
        world.clients.stop()
    connected.closed()
    world.settle()

    assert connected.line.ended is not None
    assert connected.line.ended[0] is (Code.NOT_AUTHORIZED if how == "revoked" else Code.SERVER_SHUTTING_DOWN)
    assert world.values("d") == []


# --- foreign messages, end to end of this layer ---------------------------------------------------------------------


def test_answer_goes_to_who_has_asked(world: MqttWorld) -> None:
    """Where it subscribed to it: the line sees to that."""
    connected = world.device("d")

    connected.publish("v1/devices/me/attributes/request/1", b"?")

    assert connected.line.published == [("v1/devices/me/attributes/request/1/response", b"!", 0)]


def test_message_is_acknowledged_when_it_is_stored(world: MqttWorld) -> None:
    """Not a moment before."""
    connected = world.device("d")

    number = connected.publish("home/x", b"whatever.t=21.5")
    world.turn()
    assert connected.codes == {}
    world.commit()

    assert connected.codes == {number: Code.SUCCESS}
    assert world.values("d") == [("t", 21.5)]


def test_idle_client_costs_little_memory(world: MqttWorld) -> None:
    """Thousands say something once an hour: what publications need is made with the first one."""
    names = [f"d{number}" for number in range(300)]
    tokens = world.parts.identities.add_devices(names)
    made: list[str] = []
    world.clients._make_decoders = lambda name: made.append(name) or Decoders(name)  # type: ignore[func-returns-value]
    clients = [world.client(name, str(tokens[name])) for name in names[:100]]
    tracemalloc.start()
    try:
        clients += [world.client(name, str(tokens[name])) for name in names[100:]]
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert used / 200 < 3_000
    assert made == []
    clients[0].publish("t", b"21.5")
    assert made == ["d0"]
