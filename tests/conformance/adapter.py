"""What the suite asks of a server that is watched: connect from a cursor, receive, abort. Each transport is an adapter.

Owns: `Adapter` and `Connection`, the seam to a server of any kind, and what one message comes to (`Got`). Must not:
know a scenario. To test another server, write these two classes and a `tests.conformance.target.Target`.
"""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# As a phone's page or a small program would be given; the suite's stalled reader has less.
CONNECT_S = 10.0


class Value(NamedTuple):
    """One reading: its series, and the number that it carries (the n-th of its series carries n)."""

    series: str
    number: int


@dataclass(frozen=True, slots=True)
class Got:
    """What one message came to.

    Attributes:
        values: readings, in the order of the message.
        cursor: what a client keeps once it has applied ``values``; None: as before.
        is_live: from here on each reading comes once and in order; before that, history may be sent again.
        recovered: the answer to a cursor: whether the server goes on exactly behind it.
        reset: the server said that it cannot, and why.
    """

    values: Sequence[Value] = ()
    cursor: str | None = None
    is_live: bool = False
    recovered: bool | None = None
    reset: str | None = None


NOTHING = Got()


class LostError(Exception):
    """The connection ended; come back with the cursor."""


class RefusedError(Exception):
    """The credential is not good, or not any more; coming back with it is of no use."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection goes: the server, or a proxy before it.

    Args:
        host, port: of the socket; ``host`` is an address, not a name.
        token: credential, None where none is asked for.
        tls: context of a server that speaks TLS, and whose name its certificate has.
        receive_buffer: bytes of the kernel's buffer, for a reader that stalls; None: as it comes.
    """

    host: str
    port: int
    token: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    receive_buffer: int | None = None

    def open(self) -> socket.socket:
        """Return a socket that is not connected."""
        found = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        if self.receive_buffer is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        found.setblocking(False)
        return found


@dataclass(frozen=True, slots=True)
class Wish:
    """What is watched: patterns, and from where. ``max_hz``: only the newest of each series, so many times a second."""

    match: tuple[str, ...]
    since: str | None = None
    max_hz: float | None = None


class MissingError(Exception):
    """The server does not have this transport."""


class Connection(Protocol):
    """One connection of one watcher; used once."""

    async def receive(self) -> Got:
        """Wait for the next message. Nothing is read ahead beyond small buffers: who does not call this stalls.

        Raises:
            LostError, RefusedError: it ended.
            MissingError: there is no such transport.
        """

    def abort(self) -> None:
        """Drop it at once, without a word to the server."""


class Adapter(Protocol):
    """One transport of one kind of server.

    ``cut_within``: bytes that an ordinary connection is sure to carry down, so that a cut at one of them strikes;
    ``answer_bytes``: that the shortest one carries, None where it lasts until it is cut.
    """

    name: str
    cut_within: int
    answer_bytes: int | None

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """Connect and ask.

        Raises:
            LostError: nobody answers.
            RefusedError: the credential is refused.
        """
