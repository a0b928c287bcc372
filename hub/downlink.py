"""Which devices can be reached now, and by which of their connections.

Owns: device → its newest running session. Place: before `session`, which enters itself here; what is to be said to
devices besides acks (commands, desired state) goes through here, and what they say besides readings comes from here.
Pure: lives on the event loop.
"""

from collections.abc import Callable
from typing import Protocol

from device_sdk.wire import Command, Desired, Reply, Reported, Schema


class Reachable(Protocol):
    """A session as it is seen from here (`DeviceSession` is one)."""

    @property
    def namespace(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def flush(self) -> Callable[[], None]: ...

    def tell(self, message: Command | Desired) -> None:
        """Say something beside the acks."""


class Listener(Protocol):
    """Who has something to say to devices."""

    def entered(self, namespace: str, device: str) -> None:
        """A device can be reached, by a new connection: say again what it may not have."""

    def heard(self, namespace: str, device: str, message: Reply | Reported | Schema) -> None:
        """A device said something (a schema: when it declares commands); each listener takes what is for it."""


class Follower(Protocol):
    """Who is told which devices are there, by whichever connection."""

    def came(self, namespace: str, device: str) -> None:
        """A device that had no connection has one."""

    def went(self, namespace: str, device: str, why: str) -> None:
        """A device's last connection ended."""


class Downlink:
    """The way to the devices. One per hub."""

    def __init__(self) -> None:
        # Of each device its sessions, the newest last: nearly always one.
        self._sessions: dict[tuple[str, str], list[Reachable]] = {}
        self._listeners: list[Listener] = []
        self._followers: list[Follower] = []

    def listen(self, listener: Listener) -> None:
        """Tell it of every device from now on."""
        self._listeners.append(listener)

    def follow(self, follower: Follower) -> None:
        """Tell it who comes and goes from now on."""
        self._followers.append(follower)

    def can_reach(self, namespace: str, device: str) -> bool:
        """Say whether the device is connected."""
        return (namespace, device) in self._sessions

    def send(self, namespace: str, device: str, message: Command | Desired) -> bool:
        """Send it to the device's newest connection; False when there is none. A sent message may still be lost."""
        sessions = self._sessions.get((namespace, device))
        if sessions is None:
            return False
        session = sessions[-1]
        session.tell(message)
        session.flush()
        return True

    def entered(self, session: Reachable) -> Reachable | None:
        """Take a session that was welcomed; the newest of a device is the one that counts.

        Returns:
            the one that counted until now, where that is another; it has not left.
        """
        key = (session.namespace, session.device)
        held = self._sessions.get(key, [])
        self._sessions[key] = [*(other for other in held if other is not session), session]
        if not held:
            for follower in self._followers:
                follower.came(*key)
        for listener in self._listeners:
            listener.entered(session.namespace, session.device)
        return held[-1] if held and held[-1] is not session else None

    def left(self, session: Reachable, why: str = "") -> None:
        """Forget a session that ended; an older one that is still there is the one that counts again.

        Args:
            why: it ended.
        """
        key = (session.namespace, session.device)
        sessions = [other for other in self._sessions.get(key, ()) if other is not session]
        if sessions:
            self._sessions[key] = sessions
        elif self._sessions.pop(key, None):
            for follower in self._followers:
                follower.went(*key, why)

    def heard(self, session: Reachable, message: Reply | Reported | Schema) -> None:
        """Hand on what a device said, whichever of its connections it came on."""
        for listener in self._listeners:
            listener.heard(session.namespace, session.device, message)
