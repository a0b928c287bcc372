"""One connection to somebody else's broker: whose each of its messages is, where it goes, and when PUBACK may leave.

Owns: the order of acknowledgements, and which messages the broker delivers again that the hub has. Place: beside
`client`, whose part it takes for all that one broker carries. Pure. Must not: know packets, or how a broker is reached.

Through a broker nobody's credential can be seen. The broker's own rules say who may publish where, so the bridge is a
*gateway*: devices that are enrolled here, and those that a person has accepted behind it, speak on their own topics;
others are pending. PUBACK leaves in the order of the messages (MQTT-4.6.0-2), once what they said is stored: the broker
keeps the rest, over restarts of the hub as well, and gives no more than `RECEIVE_MAXIMUM` before.

A broker delivers again, with DUP, what it has no PUBACK of. Native frames have numbers and readings with a time are
upserts; of all else the last `MAX_TAKEN` messages are known by their packet identifier and bytes, over the connections
of one process.

Retained messages come at each subscription. They tell of channels, never of readings; a kept birth of a device with
which there is no conversation makes the hub ask for a hello.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple, Protocol

from hub.child_book import Asked, Refusal
from hub.child_sessions import Admission
from hub.decode.base import Answer, Publication
from hub.devices import Carrier
from hub.mqtt.client import read_state
from hub.mqtt.clients import Clients
from hub.mqtt.handler import Code, Done
from hub.mqtt.intake import Intake
from hub.mqtt.native import Brokered, Native
from hub.mqtt.topics import STATE, UP
from hub.roles import Identity

_log = logging.getLogger("hub.mqtt")

# Messages that are not acknowledged: what a broker may have on its way to the hub, and so what the hub holds of it.
RECEIVE_MAXIMUM = 1000
# What a broker may deliver again: as many as were on their way, and as many whose PUBACK was.
MAX_TAKEN = 2 * RECEIVE_MAXIMUM
# Devices whose boot id is known; of one that is forgotten any will counts.
MAX_BOOTS = 10_000


class Delivered(NamedTuple):
    """A message as the broker delivered it. ``packet_id``: 0 of QoS 0, which needs no PUBACK."""

    topic: str
    payload: bytes
    packet_id: int = 0
    is_retained: bool = False
    is_again: bool = False
    content_type: str = ""


class Enrolment(Protocol):
    """Who knows the devices with a credential of their own (`hub.auth.Identities`)."""

    def is_enrolled(self, name: str, *, namespace: str = ...) -> bool:
        """Say whether there is a device of that name; raise `UnavailableError` when it cannot be seen now."""


class BrokerAdmission:
    """Which devices may speak on their own topics through a broker (`hub.child_sessions.Admission`).

    Those that are enrolled, for the broker's rules say who publishes on their topics; others as behind any gateway. On
    topics of other forms, where nobody looks at names, an enrolled device is nobody's child.
    """

    def __init__(self, children: Admission, enrolment: Enrolment) -> None:
        self._children = children
        self._enrolment = enrolment
        self._enrolled: set[tuple[str, str]] = set()

    def admit(self, asked: Asked) -> Refusal | None:
        """Decide over a device that says hello."""
        outside, key = asked.outside(), (asked.namespace, asked.device)
        if outside is not None:
            return outside
        if self._enrolment.is_enrolled(asked.device, namespace=asked.namespace):
            self._enrolled.add(key)
            return None
        self._enrolled.discard(key)
        return self._children.admit(asked)

    def learn(self, namespace: str, enrolled: Collection[str], missing: Collection[str]) -> None:
        """Take which devices are enrolled now, and which are not."""
        self._enrolled.difference_update((namespace, device) for device in missing)
        self._enrolled.update((namespace, device) for device in enrolled)

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Say whether a device may go on speaking."""
        return (namespace, device) in self._enrolled or self._children.is_accepted(namespace, gateway, device)


class InOrder:
    """PUBACKs in the order in which messages came, each when it may leave."""

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        # [packet identifier, whether it is done]
        self._waiting: deque[list[int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, packet_id: int) -> Callable[[], None]:
        """Note a message; call what is returned when its PUBACK may leave."""
        entry = [packet_id, 0]
        self._waiting.append(entry)

        def done() -> None:
            entry[1] = 1
            while self._waiting and self._waiting[0][1]:
                self._acknowledge(self._waiting.popleft()[0])

        return done


class Taken:
    """Messages that the hub has, or is storing: told by packet identifier and bytes when they come again."""

    def __init__(self) -> None:
        # What was done is None; what is not has those who wait for it.
        self._known: OrderedDict[int, list[Callable[[], None]] | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def has(self, delivered: Delivered, done: Callable[[], None]) -> bool:
        """Return whether it is here already; then ``done`` is called when it is stored."""
        waiting = self._known.get(_mark(delivered), _UNKNOWN)
        if waiting is _UNKNOWN:
            return False
        if waiting is None:
            done()
        else:
            waiting.append(done)
        return True

    def note(self, delivered: Delivered, done: Callable[[], None]) -> Callable[[], None]:
        """Note a message; return what to call when it is stored."""
        mark, waiting = _mark(delivered), [done]
        self._known[mark] = waiting
        self._known.move_to_end(mark)
        if len(self._known) > MAX_TAKEN:
            self._known.popitem(last=False)

        def stored() -> None:
            if self._known.get(mark) is waiting:
                self._known[mark] = None
            for told in waiting:
                told()

        return stored


class Relay:
    """What comes by one connection to a broker (`hub.mqtt.clients.Connected`).

    Args:
        identity: the bridge's, a gateway.
        admission: of devices on their own topics.
        taken: over the connections of one broker.
        publish: sends a message: (topic, payload, QoS, retained).
        acknowledge: sends PUBACK for a packet identifier.
        hang_up: ends the connection; says why.
        brokered: over the connections of one broker, too.
    """

    def __init__(
        self,
        clients: Clients,
        identity: Identity,
        name: str,
        admission: BrokerAdmission,
        taken: Taken,
        publish: Callable[[str, bytes, int, bool], None],
        acknowledge: Callable[[int], None],
        hang_up: Callable[[str], None],
        brokered: Brokered,
    ) -> None:
        self.identity = identity
        self.client_id = name
        self.in_order = InOrder(acknowledge)
        parts = replace(clients.parts, admission=admission)
        self.native = Native(parts, identity, name, self._say, self.end, brokered)
        # As a gateway's connection (`hub.gateway.gateways`).
        self.namespace, self.flush = identity.namespace, self.native.flush
        self._admission = admission
        self.is_leaving = False
        # Says of a topic that this hub publishes there itself, by another connection.
        self.is_own: Callable[[str], bool] = _nobodys
        # Called when a large message is through, and nothing is full any more by that.
        self.go_on: Callable[[], None] = _untold
        self._clients = clients
        self._topics = clients.parts.topics
        self._intake = Intake(clients, identity, f"{identity.name} {name}", self)
        self._taken = taken
        self._publish = publish
        self._hang_up = hang_up
        self._boots: OrderedDict[str, str] = OrderedDict()
        self._carrier: Carrier | None = None

    @property
    def devices(self) -> Collection[str]:
        """The devices that have a session now."""
        return self.native.devices

    def recheck(self, enrolled: Collection[str] = (), missing: Collection[str] = ()) -> None:
        """End who may not speak any more; whoever is enrolled may, and no file is asked for each."""
        self._admission.learn(self.namespace, enrolled, missing)
        self.native.recheck()

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be read: so much is on its way to the disk, or a large message is read in steps."""
        return self._clients.is_full or self._intake.in_steps > 0

    def take(self, delivered: Delivered, now_ns: int) -> None:
        """Take a message; while the connection is left they stay at the broker."""
        if self.is_leaving or self._clients.is_stopped:
            return
        self._clients.figures.publications += 1
        done = self.in_order.expect(delivered.packet_id) if delivered.packet_id else _untold
        native = self._topics.native(delivered.topic)
        if native is None and self.is_own(delivered.topic):
            done()
        elif native is None:
            self._take_foreign(delivered, now_ns, done)
        elif native.part == UP and not delivered.is_retained:
            self.native.receive(native.device, delivered.payload, now_ns, _whatever(done), is_again=delivered.is_again)
        else:
            if native.part == STATE:
                self._take_state(native.device, delivered)
            done()  # anything else is what the hub has said itself, or is of before

    def connected(self) -> None:
        """The broker has taken the connection: devices that speak by it are there."""
        self._carrier = self._clients.carrier(self.identity)
        self._carrier.connections += 1

    def end(self, code: Code, why: str) -> None:
        """End the connection from the hub's side; when it stops devices are told when to come back."""
        if code is Code.SERVER_SHUTTING_DOWN:
            self.is_leaving = True
            self.native.farewell()
        self._hang_up(f"{code.name.lower()}: {why}")

    def answer(self, answer: Answer) -> None:
        """Say what a message asked for."""
        self._publish(answer.topic, answer.payload, answer.qos, answer.is_retained)

    def closed(self, why: str) -> None:
        """The connection ended, and with it every conversation; what was taken is still stored."""
        self.native.closed(why)
        if self._carrier is not None:
            self._carrier.connections -= 1
            self._carrier = None

    def _take_foreign(self, delivered: Delivered, now_ns: int, done: Callable[[], None]) -> None:
        if delivered.packet_id:
            if delivered.is_again and self._taken.has(delivered, done):
                return
            done = self._taken.note(delivered, done)
        publication = Publication(
            delivered.topic, delivered.payload, now_ns, delivered.is_retained, delivered.content_type
        )
        self._intake.take(publication, int(delivered.packet_id > 0), _whatever(done))

    def _take_state(self, device: str, delivered: Delivered) -> None:
        """Take a birth or a will; a will with the boot id of an older start says nothing."""
        told = read_state(delivered.payload)
        if told is None:
            return
        is_on, boot = told
        if is_on:
            self._boots[device] = boot
            self._boots.move_to_end(device)
            if len(self._boots) > MAX_BOOTS:
                self._boots.popitem(last=False)
            if delivered.is_retained:
                self.native.ask_again(device)
        elif self._boots.get(device, boot) == boot:
            self.native.left(device, "its will, or its own word")

    def _say(self, device: str, message: bytes) -> None:
        self._publish(self._topics.down(device), message, 1, False)


_UNKNOWN: list[Callable[[], None]] = []


def _mark(delivered: Delivered) -> int:
    """Return a keyed hash that nobody who publishes can foresee."""
    return hash((delivered.packet_id, delivered.topic, delivered.payload))


def _whatever(done: Callable[[], None]) -> Done:
    """Return what is told a code: a broker is told none, for it would deliver the message again for ever or drop it."""
    return lambda code: done()


def _nobodys(topic: str) -> bool:
    """The hub publishes nowhere else."""
    return False


def _untold() -> None:
    """QoS 0 has no PUBACK."""
