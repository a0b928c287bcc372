"""Devices that show a certificate: who one speaks for, and whether that ended while it is connected.

Owns: which connection stands on which certificate. Place: above `auth`, `revocations` and `access`; `hub.app` asks
here at a device's upgrade, and twice a second which connections must end. Must not: verify signatures; TLS has done so.

A certificate proves a name, the enrolment lets it in: a device that was removed stays out with a certificate that is
good for years, and one that is revoked ends while the device stays enrolled. The dates are looked at here as well,
because a resumed TLS session rests on a check of some time ago.
"""

import time
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from hub.auth import Identities
from hub.certificate import Certificate
from hub.credential import device_identity
from hub.errors import ForbiddenError, UnauthenticatedError
from hub.revocations import Revocations
from hub.roles import DEFAULT_NAMESPACE, Identity

_Socket = TypeVar("_Socket", bound=Hashable)


class Ending(Protocol):
    """A connection that can be ended."""

    def end(self, code: int, reason: str) -> None:
        """End it, with a close code of WebSocket (`device_sdk.wire.Close`)."""

    def __hash__(self) -> int: ...


class Certified(Generic[_Socket]):
    """The connections that stand on a certificate. `refresh` may run in a thread, all else belongs to the event loop.

    Args:
        clock: wall time in ns.
    """

    def __init__(
        self, identities: Identities, revocations: Revocations, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._identities = identities
        self._revocations = revocations
        self._clock = clock
        self._connected: dict[_Socket, Certificate] = {}
        # Changes of the identities: at the look that is under way, and at the last one that came to its end.
        self._asked_at = self._seen_at = -1

    def identify(self, certificate: Certificate, by_token: Identity | None) -> Identity:
        """Return who a verified certificate speaks for.

        Args:
            by_token: whom a token that came along speaks for; it must be the same device.

        Raises:
            UnauthenticatedError: it names no enrolled device, is revoked, or its dates are over.
            ForbiddenError: token and certificate belong to different devices.
            UnavailableError: identities are being changed; soon it is known.
        """
        space, name = certificate.namespace, certificate.device
        if by_token is not None and (by_token.namespace, by_token.name) != (space, name):
            raise ForbiddenError(
                f"the token is that of {_told(by_token.namespace, by_token.name)}, the certificate that of "
                f"{_told(space, name)}: use one of them, or both of one device"
            )
        why = self._why_not(certificate)
        if why is not None:
            raise UnauthenticatedError(why)
        if not name:
            raise UnauthenticatedError(
                "the certificate names no device, or two: it needs one common name, or a DNS name, and one namespace"
            )
        if not self._identities.is_enrolled(name, namespace=space):
            raise UnauthenticatedError(
                f"the certificate names {_told(space, name)}, which is no enrolled device: hub devices add NAME"
            )
        return device_identity(certificate.fingerprint, space, name) if by_token is None else by_token

    def enter(self, socket: _Socket, certificate: Certificate) -> None:
        """Remember what a connection stands on."""
        self._connected[socket] = certificate

    def leave(self, socket: _Socket) -> None:
        """Forget a connection; it may not have been one of these."""
        self._connected.pop(socket, None)

    def asked(self) -> frozenset[tuple[str, str]]:
        """Return (namespace, name) of the connected, for `refresh`; none when no identity has changed."""
        # Noted before the look, so that what changes during it is looked at in the next turn.
        self._asked_at = self._identities.changes
        if self._asked_at == self._seen_at:
            return frozenset()
        return frozenset((c.namespace, c.device) for c in self._connected.values())

    def refresh(self, asked: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        """Take in what other processes revoked; return those of ``asked`` that are not enrolled any more.

        Raises:
            UnavailableError: a file cannot be read; ask again.
        """
        self._revocations.refresh()
        return self._identities.missing(asked) if asked else frozenset()

    def ended(self, missing: frozenset[tuple[str, str]]) -> list[tuple[_Socket, str]]:
        """Return connections that must end, with the reason, after `refresh` said who is ``missing``."""
        self._seen_at = self._asked_at
        out = []
        for socket, certificate in self._connected.items():
            why = self._why_not(certificate)
            if why is None and (certificate.namespace, certificate.device) in missing:
                why = "this device was removed"
            if why is not None:
                out.append((socket, why))
        return out

    def _why_not(self, certificate: Certificate) -> str | None:
        if self._revocations.is_revoked(certificate.namespace, certificate.fingerprint):
            return "this certificate was revoked"
        if not certificate.begins_ns <= self._clock() < certificate.ends_ns:
            return "this certificate has expired, or is not valid yet: make a new one, or set the hub's clock"
        return None


def _told(namespace: str, name: str) -> str:
    """Return a device as messages name it; a certificate may say anything, of any length."""
    return repr(name[:80]) + ("" if namespace == DEFAULT_NAMESPACE else f" of namespace {namespace[:80]!r}")
