"""What the hub publishes to one client: its subscriptions, packet identifiers, and what may be on its way at once.

Owns: the client's Receive Maximum and Maximum Packet Size, and the bound of what waits for room. Place: inside
`hub.mqtt.conversation`. Pure.

Nothing is sent again: what is published here is repeated by whoever says it, until the client answers it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hub.mqtt import answer
from hub.mqtt.handler import Code
from hub.mqtt.packet import MAX_PACKET_BYTES, Wanted
from hub.mqtt.topic import SHARED, matches

# A device subscribes to its own commands, a gateway to those of each of its devices.
MAX_FILTERS = 256
# On their way without a PUBACK, or fewer where the client says so.
MAX_IN_FLIGHT = 100
# Behind those: each commit may have an ack for every device behind a gateway. Beyond it the client is stuck.
MAX_WAITING = 1000
# And their payloads.
MAX_WAITING_BYTES = 256 * 1024
_MAX_PACKET_ID = 0xFFFF


class _Waiting(NamedTuple):
    topic: str
    payload: bytes


class Outgoing:
    """Subscriptions and publications of one connection; ``max_in_flight`` and ``max_packet_bytes`` are the client's."""

    __slots__ = ("_filters", "_in_flight", "_last_id", "_waiting", "_waiting_bytes", "max_in_flight",
                 "max_packet_bytes", "version")  # fmt: skip

    def __init__(self, version: int) -> None:
        self.version = version
        self.max_in_flight = MAX_IN_FLIGHT
        self.max_packet_bytes = MAX_PACKET_BYTES
        self._filters: dict[str, int] = {}
        # A dict: an empty set is 216 bytes for each idle connection.
        self._in_flight: dict[int, None] = {}
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._last_id = 0

    def open_filters(self, wanted: Sequence[Wanted]) -> list[int]:
        """Return of each filter the QoS if it may be asked for, else the reason; nothing is subscribed to yet."""
        room = MAX_FILTERS - len(self._filters)
        codes: list[int] = []
        for name, qos in wanted:
            if name.startswith(SHARED):
                codes.append(Code.SHARED_NOT_SUPPORTED)
            elif name in self._filters or room > 0:
                room -= name not in self._filters
                codes.append(min(qos, 1))
            else:
                codes.append(Code.QUOTA_EXCEEDED)
        return codes

    def subscribe(self, name: str, qos: int) -> None:
        """Take messages on topics of this filter from now on."""
        self._filters[name] = qos

    def unsubscribe(self, name: str) -> Code:
        """Take no more of them."""
        return Code.NO_SUBSCRIPTION if self._filters.pop(name, None) is None else Code.SUCCESS

    def publish(self, topic: str, payload: bytes, qos: int) -> tuple[bytes, bool]:
        """Return what is to be sent now, and whether all is well: no more may wait than does."""
        granted = [granted for name, granted in self._filters.items() if matches(name, topic)]
        if not granted:
            return b"", True
        if not min(qos, max(granted)):
            return self._if_small(answer.publish(self.version, topic, payload)), True
        if len(self._in_flight) >= self.max_in_flight:
            self._waiting.append(_Waiting(topic, payload))
            self._waiting_bytes += len(payload)
            return b"", len(self._waiting) <= MAX_WAITING and self._waiting_bytes <= MAX_WAITING_BYTES
        return self._send(topic, payload), True

    def acknowledge(self, packet_id: int) -> bytes:
        """Take a PUBACK and return what there is room for now; one of nothing is not held against the client."""
        self._in_flight.pop(packet_id, None)
        out = []
        while self._waiting and len(self._in_flight) < self.max_in_flight:
            topic, payload = self._waiting.pop(0)
            self._waiting_bytes -= len(payload)
            out.append(self._send(topic, payload))
        return b"".join(out)

    def _send(self, topic: str, payload: bytes) -> bytes:
        packet_id = self._last_id % _MAX_PACKET_ID + 1
        while packet_id in self._in_flight:
            packet_id = packet_id % _MAX_PACKET_ID + 1
        packet = self._if_small(answer.publish(self.version, topic, payload, packet_id))
        if packet:
            self._last_id = packet_id
            self._in_flight[packet_id] = None
        return packet

    def _if_small(self, packet: bytes) -> bytes:
        """Return nothing for what the client cannot take: it counts as delivered (MQTT-3.1.2-25)."""
        return packet if len(packet) <= self.max_packet_bytes else b""
