"""One MQTT client: who it is, whose topics it may use, and where each of its messages goes.

Owns: the identity of one connection. Place: last of `hub.mqtt`; `conversation` asks it as its `Handler`. Pure. Must
not: know packets, or what a foreign message means.

The credential decides, never a topic or a client id. A message that the client may not send ends a connection of 3.1.1,
which has no word for "no" (MQTT-3.3.5-2); MQTT 5 is told by its PUBACK.

Presence. A device is there while it is connected, as it is by WebSocket, whatever it says. Its birth and will on
``state`` can only say *earlier* that it has gone; a will with the boot id of an older start says nothing. The will of a
foreign device (Tasmota's ``LWT``) is a message like any other, sent when its connection was lost.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from device_sdk.wire import MAX_FRAME_BYTES, Command, Desired
from hub.child_sessions import MAX_CHILDREN
from hub.decode.base import Answer, Publication
from hub.decode.sparkplug import PREFIX, host_state
from hub.device_names import is_among
from hub.devices import Carrier
from hub.errors import ForbiddenError, HubError, UnauthenticatedError
from hub.mqtt.clients import Clients, Parts
from hub.mqtt.handler import Code, Connect, Done, Line, Received, Refused
from hub.mqtt.intake import Intake
from hub.mqtt.native import Native
from hub.mqtt.packet import MAX_GATEWAY_PACKET_BYTES, MAX_PACKET_BYTES
from hub.mqtt.topics import STATE, UP
from hub.roles import Identity, Role, Verb

_log = logging.getLogger("hub.mqtt")

_HOST = f"{PREFIX}/STATE/"

# Of a birth or a will: a boot id is 36 characters.
MAX_STATE_BYTES = 1024
# Twice what a client may have at once (`hub.mqtt.outgoing`).
MAX_FILTERS = 512


class Doorkeeper(Protocol):
    """Who lets clients in (`hub.gateway.mqtt_door`)."""

    def identify(self, peer: str, token: str | None, certificate: object) -> Identity:
        """Return who a token, a certificate or both speak for.

        Raises:
            UnauthenticatedError, ForbiddenError: nobody. UnavailableError: it cannot be seen now.
        """

    def refused(self, peer: str, why: str) -> None:
        """Note that a credential was wrong."""

    def entered(self, client: "Client", certificate: object) -> None:
        """A client was let in."""

    def left(self, client: "Client") -> None:
        """A client that had been let in has gone."""


class _Here:
    """A device that is connected and says nothing of ours (`hub.downlink.Reachable`)."""

    __slots__ = ("device", "flush", "namespace")

    def __init__(self, identity: Identity) -> None:
        self.namespace, self.device = identity.namespace, identity.name
        self.flush: Callable[[], None] = _nothing

    def tell(self, message: Command | Desired) -> None:
        """It could not read it: what is to be said waits for a connection that speaks the native conversation."""


class Client:
    """One connection's meaning (`hub.mqtt.handler.Handler`).

    Args:
        peer: address of the other end.
        certificate: that TLS has verified, if it showed one.
    """

    # Thousands are idle: without a dict each, and what publications need is made with the first one.
    __slots__ = ("_boot", "_carrier", "_certificate", "_clients", "_door", "_filters", "_here", "_intake", "_line",
                 "_listening", "_parts", "_version", "_will", "client_id", "identity", "native", "peer")  # fmt: skip
    identity: Identity
    client_id: str

    def __init__(self, clients: Clients, door: Doorkeeper, peer: str, certificate: object = None) -> None:
        self.peer = peer
        self.native: Native | None = None
        self._clients = clients
        self._parts: Parts = clients.parts
        self._door = door
        self._certificate = certificate
        self._line: Line | None = None
        self._intake: Intake | None = None
        self._here: _Here | None = None
        self._carrier: Carrier | None = None
        self._boot = ""
        self._will: Received | None = None
        # Granted ones that may take a ``down``: a client may subscribe and unsubscribe for ever.
        self._filters: list[str] = []
        # Devices whose ``down`` one of them takes, as far as they have spoken; an empty set is 216 bytes, a dict 64.
        self._listening: dict[str, None] = {}
        self._version = 0

    # --- Handler ------------------------------------------------------------------------------------------

    def connect(self, connect: Connect, line: Line) -> Refused | None:
        """Let a client in, or say why not."""
        try:
            identity = self._identify(connect)
        except UnauthenticatedError as error:
            return self._refused(Code.BAD_CREDENTIAL, str(error), is_wrong=True)
        except ForbiddenError as error:
            return self._refused(Code.NOT_AUTHORIZED, str(error), is_wrong=True)
        except HubError as error:
            return self._refused(Code.SERVER_UNAVAILABLE, str(error))
        if not identity.patterns(Verb.WRITE):
            return self._refused(Code.NOT_AUTHORIZED, "this is not a device's token: use one of `hub devices add`")
        if self._clients.is_stopped:
            return self._refused(Code.SERVER_SHUTTING_DOWN, "the hub stops")
        self.identity, self.client_id, self._version = identity, connect.client_id, connect.version
        self._line = line
        is_device = identity.role is not Role.GATEWAY
        self.native = Native(self._parts, identity, self.peer, self._say, self._end)
        if connect.will is not None:
            will = connect.will
            self._will = Received(will.topic, will.payload, will.qos, will.is_retained, False)
        if is_device:
            # Before the one whose place it takes goes: the device was there all the time.
            self._come()
        else:
            self._carrier = self._clients.carrier(identity)
            self._carrier.connections += 1
        older = self._clients.enter(self)
        if older is not None:
            _log.debug("taken over client=%s id=%r", identity.name, connect.client_id[:64])
        self._door.entered(self, self._certificate)
        return None

    @property
    def who(self) -> str:
        """Whom the credential speaks for: a user name may be a token, or none where there is a certificate."""
        return f"{self.identity.namespace}/{self.identity.role}/{self.identity.name}"

    @property
    def max_packet_bytes(self) -> int:
        """How large a packet may be: announcements of all that is behind a gateway are."""
        return MAX_GATEWAY_PACKET_BYTES if self.identity.role is Role.GATEWAY else MAX_PACKET_BYTES

    def publish(self, received: Received, now_ns: int, done: Done) -> None:
        """Take a publication."""
        self._clients.figures.publications += 1
        native = self._parts.topics.native(received.topic)
        if native is None:
            self._take_foreign(received, now_ns, done)
        elif not self._is_own(native.device):
            self._deny(done, Code.NOT_AUTHORIZED, f"this credential is for {self.identity.name}, not for this topic")
        elif native.part == UP:
            self._take_up(native.device, received.payload, now_ns, done)
        elif native.part == STATE:
            self._take_state(native.device, received.payload, done)
        else:
            self._deny(done, Code.TOPIC_NAME_INVALID, f"publish to …/{native.device}/{UP} or …/{STATE}")

    def subscribe(self, filters: Sequence[str]) -> Sequence[Code]:
        """Decide over topic filters."""
        is_gateway = self.identity.role is Role.GATEWAY
        codes = [self._parts.topics.decide(name, self._is_own, is_gateway=is_gateway) for name in filters]
        for name, code in zip(filters, codes, strict=True):
            if code is not Code.SUCCESS:
                continue
            if name not in self._filters and self._parts.topics.native(name) is not None:
                self._filters.append(name)
                del self._filters[:-MAX_FILTERS]
            elif name.startswith(_HOST) and self._line is not None:
                self._tell_host_state(self._line, name)
        return codes

    def can_take(self) -> bool:
        """Say whether more may be read."""
        intake, clients = self._intake, self._clients
        if intake is not None and intake.in_steps:
            return False
        return self._parts.can_take() and not clients.is_full and not clients.is_stopped

    def closed(self, is_clean: bool, why: str) -> None:
        """Let go; what was taken is still stored."""
        self._go(why)
        if not is_clean:
            self._say_will()
        if self.native is not None:
            self.native.closed(why)
        # A will may say that it is there.
        self._go(why)
        if self._carrier is not None:
            self._carrier.connections -= 1
            self._carrier = None
        self._clients.leave(self)
        self._door.left(self)
        self._line = None

    # --- Connected ----------------------------------------------------------------------------------------

    def end(self, code: Code, why: str) -> None:
        """End the connection from the hub's side."""
        if code is Code.TAKEN_OVER:
            # Now: the newer connection says that it is here in its next message.
            self._say_will()
        self._will = None
        self._end(code, why)

    # --- Giver ----------------------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Say what a message of the client asked for."""
        if self._line is not None:
            self._line.publish(answer.topic, answer.payload, answer.qos)

    def go_on(self) -> None:
        """Take what was held."""
        if self._line is not None:
            self._line.flush()

    # --- who ----------------------------------------------------------------------------------------------

    def _identify(self, connect: Connect) -> Identity:
        name, token = connect.username or "", None
        if connect.password:
            try:
                token = connect.password.decode()
            except UnicodeDecodeError as error:
                raise UnauthenticatedError("the password is a device's token") from error
        elif name and self._certificate is None:
            # As ThingsBoard has it: the user name is the token.
            name, token = "", name
        if token is None and self._certificate is None:
            raise UnauthenticatedError("the user name is the device's name, the password its token")
        identity = self._door.identify(self.peer, token, self._certificate)
        if name and name != identity.name:
            raise UnauthenticatedError(f"the user name is not that of this token, which is {identity.name}")
        return identity

    def _refused(self, code: Code, why: str, *, is_wrong: bool = False) -> Refused:
        self._clients.figures.refused[code.name.lower()] += 1
        if is_wrong:
            self._door.refused(self.peer, why)
        return Refused(code, why)

    def _is_own(self, device: str) -> bool:
        if self.identity.role is Role.GATEWAY:
            return is_among(device, self.identity.patterns(Verb.WRITE))
        return device == self.identity.name

    # --- what -----------------------------------------------------------------------------------------------

    def _take_foreign(self, received: Received, now_ns: int, done: Done) -> None:
        if self._intake is None:
            self._intake = Intake(self._clients, self.identity, f"{self.identity.name} {self.peer}", self)
        publication = Publication(received.topic, received.payload, now_ns, content_type=received.content_type)
        self._intake.take(publication, received.qos, done)

    def _take_up(self, device: str, payload: bytes, now_ns: int, done: Done) -> None:
        assert self.native is not None, "who publishes has connected"
        if len(payload) > MAX_FRAME_BYTES:
            why = f"a message of {len(payload)} bytes > {MAX_FRAME_BYTES}"
            self._deny(done, Code.PACKET_TOO_LARGE, why, is_final=True)
            return
        if not self._hears(device):
            # Nothing that the hub has to say of these readings would reach it.
            down = self._parts.topics.down(device)
            self._deny(done, Code.IMPLEMENTATION, f"subscribe to {down} first", is_final=True)
            return
        if self.native.receive(device, payload, now_ns, done) and self._here is not None:
            # It is in the downlink by its session, where commands reach it.
            self._go("")

    def _hears(self, device: str) -> bool:
        """Say whether the client has subscribed to what a device is told."""
        if device in self._listening:
            return True
        if not any(self._parts.topics.takes_down(name, device) for name in self._filters):
            return False
        if len(self._listening) >= MAX_CHILDREN:
            self._listening.clear()
        self._listening[device] = None
        return True

    def _tell_host_state(self, line: Line, topic: str) -> None:
        """Tell an edge node of Sparkplug that its host application is there, by whichever name: else it says nothing.

        A broker would have kept this for it. That the hub has gone, it sees by its connection.
        """
        with suppress(ValueError):
            answer = host_state(topic.removeprefix(_HOST), True, self._parts.clock() // 1_000_000)
            line.publish(answer.topic, answer.payload, answer.qos)

    def _take_state(self, device: str, payload: bytes, done: Done) -> None:
        told = read_state(payload)
        if told is None:
            self._deny(done, Code.PAYLOAD_FORMAT_INVALID, 'a state is {"on":1,"boot":"…"} or {"on":0,"boot":"…"}')
            return
        is_on, boot = told
        if self.identity.role is not Role.GATEWAY:
            if is_on:
                self._boot = boot
                if self.native is None or device not in self.native.devices:
                    self._come()
            elif boot == self._boot or not self._boot:
                self._go("it said that it goes")
        done(Code.SUCCESS)

    def _deny(self, done: Done, code: Code, why: str, *, is_final: bool = False) -> None:
        if is_final or self._version < 5:
            self._end(code, why)
            return
        done(code)

    # --- there or not -----------------------------------------------------------------------------------------

    def _come(self) -> None:
        if self._here is None:
            self._here = _Here(self.identity)
            self._parts.registry.device(self.identity.namespace, self.identity.name).arrived()
            self._parts.downlink.entered(self._here)

    def _go(self, why: str) -> None:
        here, self._here = self._here, None
        if here is not None:
            self._parts.registry.device(here.namespace, here.device).connections -= 1
            self._parts.downlink.left(here, why)

    def _say_will(self) -> None:
        will, self._will = self._will, None
        if will is None or self._clients.is_stopped:
            return
        if self._clients.is_stuck:
            # It was taken with CONNECT, which nothing held back: clients come and go for as long as the disk is full.
            self._clients.figures.lost += 1
            return
        self.publish(will, self._parts.clock(), _untold)

    # --- the line -----------------------------------------------------------------------------------------------

    def _say(self, device: str, message: bytes) -> None:
        if self._line is not None:
            self._line.publish(self._parts.topics.down(device), message)

    def _end(self, code: Code, why: str) -> None:
        if self._line is not None:
            self._line.end(code, why)


def read_state(payload: bytes) -> tuple[bool, str] | None:
    """Return whether it is on, and its boot id; None: it is no state."""
    if len(payload) > MAX_STATE_BYTES:
        return None
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("on") not in (0, 1):
        return None
    return bool(told["on"]), str(told.get("boot", ""))


def _nothing() -> None:
    """Nothing is written to a device that reads nothing."""


def _untold(code: Code) -> None:
    """Nobody waits for a will."""
