"""MQTT at a hub: its port, its WebSocket, and who is let in.

Owns: the listening socket for MQTT, and which client stands on which credential. Place: above `mqtt_socket` and
`hub.mqtt`, which it brings together; below `hub.app`, which makes it, and `hub.server`, which gives it a port. Must
not: know packets, or what messages mean.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol

from hub.auth import Identities
from hub.certificate import Certificate
from hub.change_log import ChangeLog, Entry
from hub.children import Children
from hub.decode.dispatch import Decoders
from hub.devices import Registry
from hub.downlink import Downlink
from hub.errors import UnauthenticatedError
from hub.foreign import Foreign
from hub.gateway.certified import Certified, Ending
from hub.gateway.gateways import Gateways
from hub.gateway.mqtt_socket import MqttEndpoint, MqttPeer
from hub.gateway.websocket import Accept, Refuse, UpgradeRequest
from hub.model import Frame
from hub.mqtt.client import Client
from hub.mqtt.clients import Clients, Figures
from hub.mqtt.clients import Parts as ClientParts
from hub.mqtt.handler import Code
from hub.mqtt.topics import Topics
from hub.roles import Identity, Role
from hub.session import DeviceSession

MQTT_PATH = "/mqtt"
# As registered with IANA.
MQTT_PORT, MQTT_TLS_PORT = 1883, 8883
# A TLS handshake; who does not finish it holds a descriptor.
HANDSHAKE_S = 10.0
# How often it is looked whether all is stored when a hub stops, and then whether the last client has gone.
_LOOK_S, _LOOKS = 0.01, 120


class Parts(Protocol):
    """The parts of a hub that MQTT clients need (`hub.app.Hub` is one)."""

    @property
    def identities(self) -> Identities: ...
    @property
    def certified(self) -> Certified[Ending]: ...
    @property
    def gateways(self) -> Gateways[object]: ...
    @property
    def change_log(self) -> ChangeLog: ...
    @property
    def children(self) -> Children: ...
    @property
    def foreign(self) -> Foreign: ...
    @property
    def make_decoders(self) -> Callable[[str], Decoders]: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def downlink(self) -> Downlink: ...
    def take(self, frames: list[Frame]) -> None:
        """Hand accepted frames to the journal's writer, or to the hooks before it."""

    def can_take(self) -> bool:
        """Tell whether devices may send."""

    def begin(self, peer: str, namespace: str, device: str) -> DeviceSession:
        """Make the session of a device that an address speaks for."""


class _Ending:
    """A client as a connection that stands on a certificate."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def end(self, code: int, reason: str) -> None:
        """End it; MQTT has one code for all that a credential may have come to."""
        self._client.end(Code.NOT_AUTHORIZED, reason)


class MqttDoor:
    """MQTT of one hub (`hub.mqtt.client.Doorkeeper`). Belongs to the event loop.

    Args:
        prefix: of the hub's own topics.
        later: `loop.call_later`.
    """

    def __init__(self, hub: Parts, prefix: str, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._hub = hub
        self._later = later
        self._server: asyncio.Server | None = None
        self._endings: dict[Client, _Ending] = {}
        self._endpoint = MqttEndpoint(self._client)
        self.clients = Clients(
            ClientParts(
                Topics(prefix), hub.children, hub.foreign, hub.registry, hub.downlink, hub.begin, hub.take,
                hub.can_take, later, time.time_ns,
            ),
            hub.make_decoders,
        )  # fmt: skip

    def statistics(self) -> Figures:
        """Return the figures of now."""
        return self.clients.statistics()

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None, backlog: int) -> None:
        """Take connections on a bound socket, which this closes."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._endpoint.tcp, sock=listener, ssl=tls, backlog=backlog,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
        )  # fmt: skip

    def upgrade(self, request: UpgradeRequest) -> Accept | Refuse:
        """Decide a WebSocket upgrade: who it is, CONNECT says."""
        return self._endpoint.web_socket(request)

    def stop(self) -> None:
        """Let nobody in any more, take nothing more, and tell all who are here to go. May be called again.

        They go when what was taken of them is stored, so they hear that: the next hub would take it as another message.
        """
        if self._server is not None:
            self._server.close()
        self.clients.rest()
        self._end_when_stored(_LOOKS)

    async def stopped(self) -> None:
        """Stop, and wait until all have gone: who does not go by himself is cut off."""
        self.stop()
        for _ in range(2 * _LOOKS):
            if not len(self._endpoint):
                return
            await asyncio.sleep(_LOOK_S)

    def _end_when_stored(self, looks: int) -> None:
        if looks and self.clients.is_storing:
            self._later(_LOOK_S, lambda: self._end_when_stored(looks - 1))
            return
        self.clients.stop()
        self._endpoint.stop()

    # --- Doorkeeper -----------------------------------------------------------------------------------------

    def identify(self, peer: str, token: str | None, certificate: object) -> Identity:
        """Return who a token, a certificate or both speak for."""
        identity = None if token is None else self._hub.identities.authenticate(token)
        if token is not None and identity is None:
            raise UnauthenticatedError("the password is not a token of this hub, or it has ended")
        if isinstance(certificate, Certificate):
            return self._hub.certified.identify(certificate, identity)
        assert identity is not None, "by token or by certificate"
        return identity

    def refused(self, peer: str, why: str) -> None:
        """Count a wrong credential in the log of changes."""
        self._hub.change_log.refused(Entry("connect mqtt", outcome=UnauthenticatedError.reason, peer=peer))

    def entered(self, client: Client, certificate: object) -> None:
        """Remember what a client stands on."""
        if isinstance(certificate, Certificate):
            ending = self._endings[client] = _Ending(client)
            self._hub.certified.enter(ending, certificate)
        if client.identity.role is Role.GATEWAY and client.native is not None:
            self._hub.gateways.enter(client, client.native)

    def left(self, client: Client) -> None:
        """Forget a client."""
        ending = self._endings.pop(client, None)
        if ending is not None:
            self._hub.certified.leave(ending)
        self._hub.gateways.leave(client)

    def _client(self, peer: MqttPeer) -> Client:
        address = peer.address.rpartition(":")[0].strip("[]")
        return Client(self.clients, self, address, peer.certificate)
