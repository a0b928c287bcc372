"""Whom a device trusts over TLS, and what it shows of itself: one context for all connections of a connector.

Owns: the authority or the pinned certificate, the device's own one, the session that is resumed. Place: after `clock`;
used by `websocket` and `mqtt`. Must not: open a connection.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any, Self

from device_sdk.clock import Clock, is_set
from device_sdk.errors import ConnectionLostError

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL ≥ 1.1.0, which `ssl` does not name.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)


class ResumingContext(ssl.SSLContext):
    """A context that resumes the last session: a reconnect then costs 0.5 KB of handshake instead of 2 to 4.

    asyncio has no argument for it, but makes each connection by `wrap_bio`; whoever blocks makes it by `wrap_socket`.
    """

    last: ssl.SSLSession | None = None
    # Of a connection that is opened elsewhere: the host that the certificate is checked against.
    host: str | None = None

    @classmethod
    def trusting(cls, ca: str | None) -> Self:
        """Return what `ssl.create_default_context` would: certificates and names are checked."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
        return context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **options: Any
    ) -> ssl.SSLObject:
        """Wrap as asked, with the last session."""
        options["session"] = self.last
        return super().wrap_bio(incoming, outgoing, *arguments, **options)

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap as asked, with the last session, and the host that the certificate must name."""
        options["session"] = self.last
        options["server_hostname"] = self.host or options.get("server_hostname")
        return super().wrap_socket(sock, *arguments, **options)


class Trust:
    """The TLS side of a connector; see `transport.make_connector` for the arguments.

    Args:
        kind: the context that is made, once: loading CA certificates costs 10 ms each time.
    """

    def __init__(
        self,
        ca: str | None,
        fingerprint: str | None,
        certificate: tuple[str, str | None] | None,
        clock: Clock,
        kind: type[ResumingContext] = ResumingContext,
    ) -> None:
        self._ca = ca
        self._fingerprint = fingerprint
        self._certificate = certificate
        self._clock = clock
        self._kind = kind
        self._tls: ResumingContext | None = None

    @property
    def is_certified(self) -> bool:
        """Whether the device shows a certificate."""
        return self._certificate is not None

    def context(self) -> ResumingContext:
        """Return the context for the next connection.

        Raises:
            ConnectionLostError: a file cannot be read; it may yet appear.
        """
        if self._tls is None:
            try:
                tls = self._kind.trusting(self._ca)
            except OSError as error:
                raise ConnectionLostError(f"ca file {self._ca}: {error}") from error
            self._tls = self._showing_certificate(tls)
            if self._fingerprint is not None and self._ca is None:
                # The pin is compared before a byte is sent, and trusts one certificate whoever signed it.
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
        if self._fingerprint is not None:
            # Without the time nobody can say whether a certificate is valid today; the pin names the one it must be.
            has_dates = is_set(self._clock.wall_ns())
            before = self._tls.verify_flags
            self._tls.verify_flags = before & ~_NO_CHECK_TIME if has_dates else before | _NO_CHECK_TIME
            if self._tls.verify_flags != before:
                self._tls.last = None  # a resumed session would rest on a check without dates
        return self._tls

    def check(self, host: str, tls: ssl.SSLObject | ssl.SSLSocket) -> None:
        """Raise `ConnectionLostError` unless the peer's certificate is the pinned one, where one is."""
        if self._fingerprint is None:
            return
        found = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        if found != self._fingerprint:
            raise ConnectionLostError(
                f"hub {host}: its certificate has fingerprint {found}, not the pinned one; "
                "someone is in between, or the hub has a new certificate"
            )

    def remember(self, tls: ssl.SSLObject | ssl.SSLSocket) -> None:
        """Keep the session for the next connection; TLS 1.3 gives it after the first bytes of the hub."""
        if self._tls is not None and tls.session is not None:
            self._tls.last = tls.session

    def refusal(self, name: str, error: ssl.SSLCertVerificationError) -> ConnectionLostError:
        """Return what to say of a certificate that is not trusted."""
        advice = "pass ca= or fingerprint="
        if not is_set(self._clock.wall_ns()):
            advice = (
                "this machine's clock is not set: set it, or pass fingerprint= to do without the certificate's dates"
            )
        return ConnectionLostError(f"{name}: its certificate is not trusted ({error.verify_message}); {advice}")

    def _showing_certificate(self, tls: ResumingContext) -> ResumingContext:
        if self._certificate is not None:
            try:
                # A key with a password would make OpenSSL ask for it on the terminal, where nobody is.
                tls.load_cert_chain(*self._certificate, password="")
            except OSError as error:
                files = " and ".join(filter(None, self._certificate))
                raise ConnectionLostError(f"certificate {files}: {error}") from error
        return tls
