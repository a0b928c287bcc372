"""Gateways that are connected, and children that may not speak any more.

Owns: which connections are those of gateways. Place: above `auth`, `children` and `child_sessions`; `hub.app` asks here
twice a second, and `Children` tells when a person has decided. Must not: decide over a child.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Generic, Protocol, TypeVar

from hub.auth import Identities
from hub.change_log import ChangeLog, Entry
from hub.children import Children

_Socket = TypeVar("_Socket", bound=Hashable)
_Device = tuple[str, str]


class Sessions(Protocol):
    """What speaks for children on one connection (`ChildSessions` by WebSocket)."""

    @property
    def flush(self) -> Callable[[], None]: ...
    @property
    def namespace(self) -> str: ...
    @property
    def devices(self) -> Collection[str]: ...
    def recheck(self, enrolled: Collection[str] = (), missing: Collection[str] = ()) -> None:
        """End who may not speak any more; ``flush`` tells them.

        Args:
            enrolled: devices that have a credential of their own now.
            missing: devices that have none now.
        """


class Gateways(Generic[_Socket]):
    """The connections of gateways. `refresh` runs in a thread, all else belongs to the event loop.

    Args:
        call_soon: runs a function on the event loop, from any thread.
    """

    def __init__(
        self,
        identities: Identities,
        children: Children,
        change_log: ChangeLog,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._identities = identities
        self._children = children
        self._change_log = change_log
        self._connected: dict[_Socket, Sessions] = {}
        # Changes of the identities: at the look that is under way, and at the last one that came to its end.
        self._asked_at = self._seen_at = -1
        self._asked: frozenset[_Device] = frozenset()
        self._call_soon = call_soon
        children.listen(self._decided)

    def enter(self, socket: _Socket, sessions: Sessions) -> None:
        """Remember a gateway's connection."""
        self._connected[socket] = sessions

    def leave(self, socket: _Socket) -> None:
        """Forget a connection; it may not have been a gateway's."""
        self._connected.pop(socket, None)

    def asked(self) -> frozenset[_Device]:
        """Return (namespace, name) of the connected children, for `refresh`; none when no identity has changed."""
        # Noted before the look, so that what changes during it is looked at in the next turn.
        self._asked_at = self._identities.changes
        self._asked = frozenset()
        if self._asked_at != self._seen_at:
            self._asked = frozenset((s.namespace, device) for s in self._connected.values() for device in s.devices)
        return self._asked

    def refresh(self, asked: frozenset[_Device]) -> frozenset[_Device]:
        """Write what was noted, take in what other processes decided; return those of ``asked`` that are enrolled now.

        Raises:
            UnavailableError: a file cannot be read or written; ask again.
        """
        for child in self._children.keep():
            entry = Entry("accept by pattern", child.device, who=child.gateway, role="gateway",
                          namespace=child.namespace)  # fmt: skip
            self._change_log.record(entry)
        return asked - self._identities.missing(asked) if asked else frozenset()

    def ended(self, enrolled: frozenset[_Device]) -> None:
        """End children that have a credential of their own, after `refresh` said which, or that had one."""
        self._seen_at = self._asked_at
        if self._asked:
            self.recheck(enrolled, self._asked - enrolled)

    def _decided(self) -> None:
        self._call_soon(self.recheck)

    def recheck(self, enrolled: frozenset[_Device] = frozenset(), missing: frozenset[_Device] = frozenset()) -> None:
        """End children that may not speak any more."""
        for sessions in list(self._connected.values()):
            of = sessions.namespace
            sessions.recheck({name for space, name in enrolled if space == of}, {n for s, n in missing if s == of})
            sessions.flush()
