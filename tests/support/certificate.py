"""Certificates for tests, made on the spot by the hub's own code: an authority, a server, devices, for loopback."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hub.tls import DeviceFiles, make_certificates, make_device_certificate


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """``ca``: PEM file to trust; ``fingerprint``: SHA-256 of the server's certificate; ``context``: for the server."""

    ca: Path
    cert: Path
    key: Path
    fingerprint: str
    context: ssl.SSLContext

    def of_device(self, name: str) -> DeviceFiles:
        """Make a certificate by which a device proves its name, of the same authority."""
        return make_device_certificate(self.ca.parent, name, now=datetime.now(UTC))


def make_certificate(folder: Path, after: timedelta = timedelta()) -> ServerCertificate:
    """Return a certificate for ``localhost`` and 127.0.0.1 of an authority of its own, valid from now + ``after``."""
    made = make_certificates(folder, ["localhost", "127.0.0.1"], now=datetime.now(UTC) + after)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    return ServerCertificate(made.ca, made.cert, made.key, made.fingerprint, context)
