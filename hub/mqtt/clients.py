"""All MQTT clients of a hub: who is connected, what their decoders remember, and the figures of them.

Owns: which connection ends which, one set of decoders for each credential's name. Place: after `handler`; each `client`
enters itself here. Pure. Must not: know what a message means.

A client is told from others by its credential's name *and* its client id, never by the id alone: else anybody with a
credential could end anybody's connection. One that connects again takes the place of its older connection, as MQTT
demands. Several programs may speak for one device or gateway, each with an id of its own; of too many the oldest ends.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from device_sdk.reading import Channel
from hub.child_sessions import Admission
from hub.decode.base import Decoded, Publication
from hub.devices import Carrier, Registry
from hub.downlink import Downlink
from hub.foreign import Foreign
from hub.model import Frame
from hub.mqtt.handler import Code
from hub.mqtt.steps import Steps
from hub.mqtt.topics import Topics
from hub.roles import Identity
from hub.session import DeviceSession

# Connections of one name with different client ids. A device has one; a program that is being replaced has two.
MAX_OF_ONE = 16
# Names whose decoders are kept when they are not connected, with what they know of units and aliases.
MAX_SCOPES = 1000
# Publications of all clients on their way to the disk, and their payloads: beyond it nothing is read of anybody. Each
# is 1.4 KB here and 85 bytes in the journal's queue (measured), whose limit would let in a gigabyte of them. At 60,000
# a second 3,000 are on their way.
MAX_WAITING = 50_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
# Publications that could not be stored, of all clients: beyond it nothing is read of anybody until some are.
MAX_AGAIN = 20_000
# And their payloads: as many messages of 256 KiB would be 5 GB.
MAX_AGAIN_BYTES = 32 * 1024 * 1024


class Decoders(Protocol):
    """What reads foreign messages of one sender (`hub.decode.dispatch.Decoders`)."""

    def decode(self, publication: Publication) -> Decoded:
        """Return what a message says; raise `DecodeError`."""

    def reading(self, publication: Publication) -> Generator[None, None, Decoded]:
        """Do as `decode`, of a large message, and yield at times."""

    def channels_of(self, device: str) -> tuple[Channel, ...]:
        """Return what is known of a device's channels."""

    def know(self, has: Callable[[str, str], bool]) -> None:
        """Take what says whether the hub has a device, or a channel of it: names that were given before stay."""


class Connected(Protocol):
    """A client as it is seen from here."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def client_id(self) -> str:
        """What it calls itself."""

    def end(self, code: Code, why: str) -> None:
        """End its connection."""


@dataclass(slots=True)
class Figures:
    """Counted since the start; ``connections``, ``waiting`` and ``again`` are of now.

    ``waiting``: publications that were taken and are not stored yet, each part of one that speaks of several devices;
    ``again``: those of them that are given again after a pause, because nothing could be stored; ``waiting_bytes``,
    ``again_bytes``: of their payloads.

    ``lost``: of QoS 0, while nothing was stored. ``refused``: connections by reason. ``not_taken``: publications of
    gateways by the reason for which a device behind them may not speak.
    """

    connections: int = 0
    publications: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    again: int = 0
    again_bytes: int = 0
    lost: int = 0
    quarantined: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_taken: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Parts:
    """What clients need of a hub.

    Args:
        admission: decides over devices behind gateways.
        begin: makes a session: (address, namespace, device).
        submit: hands accepted frames to the journal's writer, or to the hooks before it.
        can_take: whether the hub stores anything now.
        later: calls a function after so many seconds.
        clock: wall time in ns.
    """

    topics: Topics
    admission: Admission
    foreign: Foreign
    registry: Registry
    downlink: Downlink
    begin: Callable[[str, str, str], DeviceSession]
    submit: Callable[[list[Frame]], None]
    can_take: Callable[[], bool]
    later: Callable[[float, Callable[[], None]], object]
    clock: Callable[[], int]


class Clients:
    """The table of clients.

    Args:
        make_decoders: makes those of one sender: of a device by its name, or of a gateway (no name).
    """

    def __init__(self, parts: Parts, make_decoders: Callable[[str], Decoders]) -> None:
        self.parts = parts
        self.figures = Figures()
        self.steps = Steps(parts.later, parts.clock)
        self.is_stopped = False
        self._make_decoders = make_decoders
        # (namespace, role, name) → client id → client, the newest last.
        self._connected: dict[tuple[str, str, str], dict[str, Connected]] = {}
        self._scopes: OrderedDict[tuple[str, str, str], Decoders] = OrderedDict()
        # In memory as long as it is connected, or a device has spoken by it last.
        self._carriers: WeakValueDictionary[tuple[str, str, str], Carrier] = WeakValueDictionary()

    @property
    def is_full(self) -> bool:
        """Whether so much is on its way that nothing more may be read."""
        figures = self.figures
        return (  # `is_stuck` in line: this is asked for each publication
            figures.waiting >= MAX_WAITING or figures.waiting_bytes >= MAX_WAITING_BYTES
            or figures.again >= MAX_AGAIN or figures.again_bytes >= MAX_AGAIN_BYTES
        )  # fmt: skip

    @property
    def is_stuck(self) -> bool:
        """Whether so much is to be given again that it will not end soon."""
        return self.figures.again >= MAX_AGAIN or self.figures.again_bytes >= MAX_AGAIN_BYTES

    def __len__(self) -> int:
        return self.figures.connections

    def statistics(self) -> Figures:
        """Return the figures of now."""
        return self.figures

    def enter(self, client: Connected) -> Connected | None:
        """Take a client that was let in; return the one that it takes the place of, which has been ended."""
        held = self._connected.setdefault(key_of(client.identity), {})
        older = held.pop(client.client_id, None)
        held[client.client_id] = client
        self.figures.connections += older is None
        if older is not None:
            older.end(Code.TAKEN_OVER, "another connection of this client id has taken its place")
        elif len(held) > MAX_OF_ONE:
            oldest = held.pop(next(iter(held)))
            self.figures.connections -= 1
            oldest.end(Code.QUOTA_EXCEEDED, f"more than {MAX_OF_ONE} connections of one credential: the oldest ends")
        return older

    def leave(self, client: Connected) -> None:
        """Forget a client; another may have its place already."""
        key = key_of(client.identity)
        held = self._connected.get(key, {})
        if held.get(client.client_id) is client:
            del held[client.client_id]
            self.figures.connections -= 1
            if not held:
                del self._connected[key]

    def decoders(self, identity: Identity, *, is_gateway: bool) -> Decoders:
        """Return those of a sender: over its connections, for many devices say their units at their start alone."""
        key = key_of(identity)
        found = self._scopes.get(key)
        if found is None:
            found = self._scopes[key] = self._make_decoders("" if is_gateway else identity.name)
            found.know(partial(self.parts.registry.has, identity.namespace))
            if len(self._scopes) > MAX_SCOPES:
                self._scopes.popitem(last=False)
        self._scopes.move_to_end(key)
        return found

    def carrier(self, identity: Identity) -> Carrier:
        """Return what is known of a gateway's connections; who is one counts itself."""
        return self._carriers.setdefault(key_of(identity), Carrier())

    def end_identities(self, ended: Set[str]) -> None:
        """End the connections of credentials that ended, by their ids."""
        for client in self._all():
            if client.identity.id in ended:
                client.end(Code.NOT_AUTHORIZED, "this credential was revoked")

    @property
    def is_storing(self) -> bool:
        """Whether something was taken that is about to be stored: its PUBACK leaves in a moment."""
        return self.figures.waiting > self.figures.again

    def rest(self) -> None:
        """Take nothing more: the hub stops. `stop` follows."""
        self.is_stopped = True

    def stop(self) -> None:
        """End all. What is not stored is sent again to the next hub."""
        self.rest()
        for client in self._all():
            client.end(Code.SERVER_SHUTTING_DOWN, "the hub stops")

    def _all(self) -> list[Connected]:
        return [client for held in self._connected.values() for client in held.values()]


def key_of(identity: Identity) -> tuple[str, str, str]:
    """Return whose connections are one's: those of one credential."""
    return (identity.namespace, identity.role.value, identity.name)
