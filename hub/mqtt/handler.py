"""The seam between an MQTT connection and what its messages mean.

Owns: the records and calls between `conversation`, which knows packets and their order, and `client`, which knows
identities, topics and devices. Place: leftmost of `hub.mqtt`. Pure.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

# PUBACK may leave: told once for each publication of QoS 1, in any order; the conversation sorts.
Done = Callable[["Code"], None]


class Code(IntEnum):
    """Reason codes of MQTT 5 (section 2.4); a connection of 3.1.1 says as much of them as it can."""

    SUCCESS = 0x00
    NO_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_CREDENTIAL = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    SHARED_NOT_SUPPORTED = 0x9E
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1
    WILDCARDS_NOT_SUPPORTED = 0xA2


class Will(NamedTuple):
    """What the client wants said when its connection is lost."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool


class Connect(NamedTuple):
    """Who connects. ``version``: 4 (3.1.1) or 5; ``keep_alive_s`` 0: the client says nothing by itself."""

    client_id: str
    version: int
    is_clean: bool
    keep_alive_s: int
    username: str | None
    password: bytes | None
    will: Will | None


class Received(NamedTuple):
    """A publication of the client. ``is_again``: of QoS 1 with DUP set, and not seen before by this hub."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool
    is_again: bool
    content_type: str = ""


class Refused(NamedTuple):
    """Why a connection is refused or ended, in a code and in words."""

    code: Code
    why: str


class Line(Protocol):
    """What a handler may say on its connection (`conversation.Conversation` is one)."""

    @property
    def flush(self) -> Callable[[], None]:
        """What goes on with a publication that was held because the handler could not take it."""

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send a message where the client subscribed to it, never retained; beyond what may wait the line ends."""

    def end(self, code: Code, why: str) -> None:
        """End the connection; MQTT 5 says why."""


class Handler(Protocol):
    """What becomes of what a client says; all calls come from the loop, in the order of the packets."""

    def connect(self, connect: Connect, line: Line) -> Refused | None:
        """Decide over a client; None: it may go on."""

    @property
    def who(self) -> str:
        """Whom it has let in: one text for all connections of one client's owner, which no other has."""

    @property
    def max_packet_bytes(self) -> int:
        """How large a packet of whom it has let in may be."""

    def publish(self, received: Received, now_ns: int, done: Done) -> None:
        """Take a publication; ``done`` once it is durable (or will never be: with a code that says why).

        May be called inside this call. Never called: it is not stored yet, and PUBACK is withheld.
        """

    def subscribe(self, filters: Sequence[str]) -> Sequence[Code]:
        """Return for each topic filter whether the client may have it: `Code.SUCCESS`, or why not."""

    def can_take(self) -> bool:
        """Say whether more may be read of the client; False while the hub stores nothing."""

    def closed(self, is_clean: bool, why: str) -> None:
        """The connection ended; not clean: without DISCONNECT, so its will holds."""
