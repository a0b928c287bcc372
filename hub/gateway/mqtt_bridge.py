"""The hub as a client of somebody else's MQTT broker: connected again and again, for as long as the hub runs.

Owns: the connection, its session at the broker, what is on its way there. Place: above `hub.mqtt.relay`, which says
what each message means. Imports ``aiomqtt`` when there is a broker. Must not: know topics beyond its own filters.

The session at the broker outlives the connection and the hub: what devices publish meanwhile waits there. A message is
acknowledged by hand, after the commit, so a hub that is killed is given it again. Only `relay.RECEIVE_MAXIMUM` messages
come before: the library's own queue has no useful bound, and is not used. A message costs the hub 0.06 ms of CPU with
all that becomes of it, half of it in the library; a faster reader may take its place behind `_Line`.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hub.gateway.mqtt_broker import EVERYTHING, Settings, tls_context
from hub.mqtt.clients import Clients
from hub.mqtt.handler import Code
from hub.mqtt.native import Brokered
from hub.mqtt.packet import MAX_GATEWAY_PACKET_BYTES
from hub.mqtt.relay import RECEIVE_MAXIMUM, BrokerAdmission, Delivered, Relay, Taken
from hub.roles import Identity, Role, scopes_of

if TYPE_CHECKING:
    import aiomqtt
    from paho.mqtt.client import Client as PahoClient
    from paho.mqtt.client import MQTTMessage
    from paho.mqtt.properties import Properties

_log = logging.getLogger("hub.mqtt.bridge")

# The gateway behind which devices of a broker are accepted.
BRIDGE = Identity("mqtt-bridge", "mqtt-bridge", Role.GATEWAY, scopes=scopes_of(Role.GATEWAY, ("*",)))
# A day without the hub; a broker has limits of its own (`max_queued_messages` of mosquitto).
SESSION_S = 24 * 3600
KEEP_ALIVE_S = 30
CONNECT_S = 10.0
# How long the end waits for PUBACKs of what was taken: a commit takes milliseconds.
LEAVE_S = 1.0
PAUSE_FIRST_S, PAUSE_LAST_S, STEADY_S = 0.5, 30.0, 60.0
# What is said to devices is cumulative, or said again: nobody waits for it longer.
EXPIRY_S = 60
# Messages to devices without PUBACK: a broker that takes none for so long is left, and each conversation begins anew.
MAX_UNACKED = 20_000
# Of those, on the wire until the broker has said how many it takes; it ends the connection for more.
_INFLIGHT = 8
# Packets read in one turn of the loop, each 64 bytes of a message counted as one: as many as make a commit worth its
# cost, and others wait 10 ms at most.
READ_AT_ONCE = 200
# How long nothing is read once the hub holds as much as it may that is not stored: some commits.
HOLD_S = 0.02
# Devices of one broker come back at this rate when they are asked to say hello.
HELLOS_PER_S = 500


class Enrolment(Protocol):
    """Who knows the devices with a credential of their own."""

    def is_enrolled(self, name: str, *, namespace: str = ...) -> bool:
        """Say whether there is a device of that name."""


class Known(Protocol):
    """Where connections of gateways are known, so that they hear what people decide (`hub.gateway.gateways`)."""

    def enter(self, socket: Any, sessions: Any) -> None:
        """Remember one."""

    def leave(self, socket: Any) -> None:
        """Forget it."""


class MqttBridge:
    """Keeps one hub connected to one broker; `run` until it is cancelled.

    Raises:
        ConfigError: the file of the authority cannot be read.
    """

    def __init__(self, settings: Settings, clients: Clients, enrolment: Enrolment, known: Known, prefix: str) -> None:
        self._settings = settings
        self._clients = clients
        self._known = known
        self._prefix = prefix
        self._admission = BrokerAdmission(clients.parts.admission, enrolment)
        self._taken = Taken()
        self._brokered = Brokered(self._again_ms)
        self._tls = tls_context(settings)
        self._line: _Line | None = None
        self._has_warned = False
        # Topics that this hub publishes to by another connection: what it has said there is nobody's reading.
        self.is_own: Callable[[str], bool] = lambda _: False

    @property
    def is_connected(self) -> bool:
        """Whether the broker has taken the subscriptions of a connection that stands."""
        return self._line is not None and self._line.is_ready

    async def run(self) -> None:
        """Connect, carry, connect again."""
        failures = 0
        while not self._is_stopped():
            begun = time.monotonic()
            try:
                why = await self._carry()
            except OSError as error:
                why = str(error)
            except Exception:  # the outer edge of this task: without it nobody would notice that it has ended
                _log.exception("bridge failed; trying again")
                why = "a fault of the hub"
            if time.monotonic() - begun > STEADY_S:
                failures = 0
            pause_s = random.random() * min(PAUSE_LAST_S, PAUSE_FIRST_S * 2.0 ** min(failures, 20))
            failures += 1
            if self._is_stopped():
                return
            level = logging.DEBUG if self._has_warned else logging.WARNING
            self._has_warned = True
            _log.log(level, "broker lost broker=%s retry_s=%.1f reason=%s", self._settings.broker.name, pause_s, why)
            await asyncio.sleep(pause_s)

    def _is_stopped(self) -> bool:
        return self._clients.is_stopped

    async def _carry(self) -> str:
        """Use one connection from beginning to end; return why it ended."""
        line = self._line = _Line(self._settings, self._tls, self._prefix)
        relay = Relay(
            self._clients, BRIDGE, self._settings.broker.name, self._admission, self._taken, line.publish,
            line.acknowledge, line.hang_up, self._brokered,
        )  # fmt: skip
        relay.is_own, relay.go_on = self.is_own, line.go_on
        line.relay = relay
        self._clients.enter(relay)
        self._known.enter(line, relay)
        try:
            return await line.carry(partial(self._connected, relay))
        finally:
            self._line = None
            self._known.leave(line)
            relay.closed("the broker's connection ended")
            self._clients.leave(relay)

    def _connected(self, relay: Relay) -> None:
        relay.connected()
        self._has_warned = False
        _log.info("broker connected broker=%s session=%s", self._settings.broker.name, self._settings.session())

    def _again_ms(self) -> int:
        """Spread the hellos of all devices."""
        devices = 0 if self._line is None else self._line.asked
        return random.randrange(100 + devices * 1000 // HELLOS_PER_S)


class _Line:
    """One connection to the broker, used once."""

    relay: Relay

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None, prefix: str) -> None:
        self.is_ready = False
        # Devices that were told something: how far their hellos must be spread.
        self.asked = 0
        self._settings = settings
        self._prefix = prefix
        self._tls = tls
        self._paho: PahoClient | None = None
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._unacked = self._taken = 0
        # While the loop does not look at the socket: what ends that.
        self._held: asyncio.Handle | None = None
        self._expiring: Properties | None = None

    async def carry(self, connected: Callable[[], None]) -> str:
        """Connect, subscribe, and wait for the end; return why.

        Cancellation: says good-bye to the broker first.
        """
        import aiomqtt

        client = self._make()
        try:
            await self._until_ended(client.__aenter__(), CONNECT_S + 5)
            if not self._ended.done():
                self._read_and_write_directly()
                await self._until_ended(self._subscribe(client), CONNECT_S)
            if not self._ended.done():
                self.is_ready = True
                connected()
                watching = asyncio.ensure_future(_watch(client))
                await asyncio.wait((self._ended, watching), return_when=asyncio.FIRST_COMPLETED)
                watching.cancel()
                return self._ended.result() if self._ended.done() else await watching
            return self._ended.result()
        except (aiomqtt.MqttError, TimeoutError) as error:
            return self._ended.result() if self._ended.done() else str(error) or "no answer"
        finally:
            self.is_ready = False
            await self._leave(client)

    def publish(self, topic: str, payload: bytes, qos: int, is_retained: bool) -> None:
        """Send a message; the connection ends when the broker takes too few."""
        if self._paho is None or self._ended.done():
            return
        if self._unacked >= MAX_UNACKED:
            self.hang_up(f"the broker has not taken {MAX_UNACKED} messages")
            return
        self._unacked += 1  # of QoS 0 until it is on the wire
        self._paho.publish(topic, payload, qos, is_retained, self._expiring)

    def acknowledge(self, packet_id: int) -> None:
        """Send PUBACK."""
        if self._paho is not None:
            acknowledge(self._paho, packet_id)

    def hang_up(self, why: str) -> None:
        """End the connection soon."""
        if not self._ended.done():
            self._ended.set_result(why)

    # --- inside -----------------------------------------------------------------------------------------------

    def _make(self) -> "aiomqtt.Client":
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes

        broker = self._settings.broker
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=self._settings.session(),
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=_properties(
                PacketTypes.CONNECT,
                SessionExpiryInterval=SESSION_S,
                ReceiveMaximum=RECEIVE_MAXIMUM,
                MaximumPacketSize=MAX_GATEWAY_PACKET_BYTES,
            ),
            keepalive=KEEP_ALIVE_S,
            max_inflight_messages=_INFLIGHT,
            tls_context=self._tls,
            timeout=CONNECT_S,
        )
        self._expiring = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=EXPIRY_S)
        paho = self._paho = inside(client)
        take_by_hand(paho)
        paho.on_message = self._take
        paho.on_publish = self._published
        paho.on_connect = partial(self._answered, paho.on_connect)
        paho.on_disconnect = partial(self._lost, paho.on_disconnect)
        return client

    async def _until_ended(self, step: Awaitable[Any], limit_s: float) -> None:
        """Do a step of the beginning, unless the connection ends before it is done."""
        doing = asyncio.ensure_future(step)
        try:
            await asyncio.wait((doing, self._ended), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
            elif not self._ended.done():
                raise TimeoutError
        finally:
            doing.cancel()

    async def _subscribe(self, client: "aiomqtt.Client") -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        filters = self._filters()
        # A shared subscription has no such option; what the hub has said itself is told by its topic.
        options = [(name, SubscribeOptions(1, noLocal=not name.startswith("$share/"))) for name in filters]
        codes: Sequence[Any] = await client.subscribe(options)
        for name, code in zip(filters, codes, strict=True):
            if code.value >= Code.UNSPECIFIED:
                _log.warning("broker refused topic=%s reason=%s", name, code)

    def _read_and_write_directly(self) -> None:
        """Take what has come in one turn of the loop, and send what there is without waking it for each packet.

        The library takes one packet a turn: then each would be a frame and a commit of its own.
        """
        assert self._paho is not None, "it is made before"
        loop, paho = asyncio.get_running_loop(), self._paho
        sock = paho.socket()
        if sock is None:
            return
        loop.remove_reader(sock.fileno())
        loop.add_reader(sock.fileno(), self._read, paho)
        paho.on_socket_register_write = self._write_soon

    def _read(self, paho: "PahoClient") -> None:
        """Read what one turn of the loop may: it calls this once in each while it looks at the socket."""
        limit = self._taken + READ_AT_ONCE
        loop = asyncio.get_running_loop()
        try:
            while self._taken < limit:
                if self._ended.done() or self.relay.is_full:
                    # Receive Maximum bounds neither QoS 0 nor bytes: the network and the broker do.
                    self._hold(paho, loop.call_later(HOLD_S, self._read_on, paho))
                    return
                if not read_packet(paho):
                    break
                self._taken += 1
            # What a socket holds is shown again in the next turn, what TLS does is not.
            if _holds_more(paho.socket()):
                self._hold(paho, loop.call_soon(self._read_on, paho))
        except Exception as error:  # whatever a broker sends: the next connection begins anew
            self.hang_up(f"the broker sent what the library cannot read: {error!r}")

    def _hold(self, paho: "PahoClient", until: asyncio.Handle) -> None:
        """Read nothing until then."""
        self._held = until
        sock = paho.socket()
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())

    def go_on(self) -> None:
        """Read again in the next turn: what kept the relay from taking more is over."""
        if self._held is not None and self._paho is not None:
            self._held.cancel()
            self._held = asyncio.get_running_loop().call_soon(self._read_on, self._paho)

    def _read_on(self, paho: "PahoClient") -> None:
        self._held = None
        if not self._ended.done():
            self._read(paho)
        sock = paho.socket()
        if sock is not None and self._held is None and not self._ended.done():
            asyncio.get_running_loop().add_reader(sock.fileno(), self._read, paho)

    def _write_soon(self, paho: "PahoClient", userdata: Any, sock: Any) -> None:
        asyncio.get_running_loop().add_writer(sock.fileno(), self._write, paho)

    def _write(self, paho: "PahoClient") -> None:
        try:
            paho.loop_write()
        except (OSError, ValueError) as error:
            self.hang_up(f"the connection was lost: {error}")

    def _filters(self) -> list[str]:
        topics, group = self._settings.topics, self._settings.group
        foreign = [f"$share/{group}/{name}" if group else name for name in topics]
        if EVERYTHING in foreign:
            return foreign
        # Never shared: a conversation is with one hub.
        return [f"{self._prefix}/+/up", f"{self._prefix}/+/state", *foreign]

    def _take(self, paho: "PahoClient", userdata: Any, message: "MQTTMessage") -> None:
        content_type = getattr(message.properties, "ContentType", "")
        packet_id = message.mid if message.qos else 0
        self._taken += len(message.payload) >> 6
        delivered = Delivered(
            message.topic, bytes(message.payload), packet_id, message.retain, message.dup, content_type
        )
        if message.retain:
            self.asked += 1
        self.relay.take(delivered, time.time_ns())

    def _answered(self, told: Any, *event: Any) -> None:
        """CONNACK came. The library looks at the answer alone."""
        paho, _, _, reason, properties = event
        if reason.is_failure:
            self.hang_up(f"the broker refused the connection: {reason}")
        heed_receive_maximum(paho, getattr(properties, "ReceiveMaximum", 65535))
        told(*event)

    def _lost(self, told: Any, *event: Any) -> None:
        """The connection is gone. Before CONNACK the library says so to nobody."""
        reason = event[3]
        self.hang_up(f"the connection was lost: {reason}" if reason.is_failure else "it ended")
        told(*event)

    def _published(self, *event: Any) -> None:
        self._unacked = max(0, self._unacked - 1)

    async def _leave(self, client: "aiomqtt.Client") -> None:
        """Say DISCONNECT once what was taken is stored, and close the socket whatever comes."""
        import aiomqtt

        self.relay.is_leaving = True
        limit = time.monotonic() + LEAVE_S
        # Counted by the loop that stores them, a few at a time: no event for each.
        while len(self.relay.in_order) and time.monotonic() < limit and inside(client).is_connected():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if not self._ended.done():
            self._ended.set_result("the hub stops")
        try:
            async with asyncio.timeout(LEAVE_S):
                if inside(client).is_connected():
                    await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TimeoutError):
            pass
        finally:
            self._paho = None
            close_socket(client)


async def _watch(client: "aiomqtt.Client") -> str:
    """Return why the connection ended; messages do not come this way."""
    import aiomqtt

    try:
        async for _ in client.messages:
            pass
    except aiomqtt.MqttError as error:
        return str(error.__cause__ or error)
    return "it ended"


def _holds_more(sock: Any) -> bool:
    """Say whether TLS has more of a broker than the socket shows: several packets may be one record."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


# --- what the library gives by private names alone: each in one place, and tested ---------------------------------


def inside(client: "aiomqtt.Client") -> "PahoClient":
    """Return the client inside the client."""
    return client._client


def take_by_hand(paho: "PahoClient") -> None:
    """Have nothing acknowledged but by `acknowledge`."""
    paho.manual_ack_set(True)


def acknowledge(paho: "PahoClient", packet_id: int) -> None:
    """Send PUBACK for a message of QoS 1."""
    paho.ack(packet_id, 1)


def read_packet(paho: "PahoClient") -> bool:
    """Read a packet; return whether it was there, whole. `loop_read` reads one for each message on its way as well."""
    if paho.socket() is None:
        return False
    code = paho._packet_read()
    if code > 0:
        paho._loop_rc_handle(code)
    return code == 0


def heed_receive_maximum(paho: "PahoClient", maximum: int) -> None:
    """Send no more at a time than the broker takes; it has said so in CONNACK, and the library does not look."""
    paho._max_inflight_messages = min(maximum, RECEIVE_MAXIMUM)


def close_socket(client: "aiomqtt.Client") -> None:
    """Close the socket now, if it is open."""
    client._client._sock_close()


def _properties(packet: int, **values: int) -> "Properties":
    from paho.mqtt.properties import Properties

    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
