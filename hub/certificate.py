"""What a device's certificate says of it: name, namespace, dates, fingerprint. One rule, and nothing of trust.

Owns: the rule below. Place: after `roles`; the WebSocket gateway reads with it what TLS has verified. Must not: decide
whether a certificate is trusted (TLS does: `--tls-client-ca`), revoked (`hub.revocations`) or enrolled.

The rule: the device is the common name of the subject; a certificate without one names it by its first DNS name. The
namespace is that of the URI ``telemetry-hub:NAMESPACE`` among the alternative names, else the default one. Several
common names, or several such URIs, say two things, so such a certificate names nobody.
"""

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hub.errors import BadRequestError
from hub.roles import DEFAULT_NAMESPACE

NAMESPACE_SCHEME = "telemetry-hub:"
_FINGERPRINT_DIGITS = 64
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that TLS has verified; ``device`` is empty where the rule finds no name. Times are epoch ns."""

    device: str
    namespace: str
    fingerprint: str
    begins_ns: int
    ends_ns: int


def read_certificate(fields: Mapping[str, Any], der: bytes) -> Certificate:
    """Return what a certificate says.

    Args:
        fields: of `ssl.SSLObject.getpeercert()`.
        der: of ``getpeercert(binary_form=True)``.
    """
    names = [value for part in fields.get("subject", ()) for key, value in part if key == "commonName"]
    alternatives: Iterable[tuple[str, str]] = fields.get("subjectAltName", ())
    if not names:
        names = [value for kind, value in alternatives if kind == "DNS"][:1]
    # Schemes have no case (RFC 3986, section 3.1): one that was overlooked would put the device into the default one.
    spaces = [
        value[len(NAMESPACE_SCHEME) :]
        for kind, value in alternatives
        if kind == "URI" and value.lower().startswith(NAMESPACE_SCHEME)
    ]
    return Certificate(
        device=names[0] if len(names) == 1 and len(spaces) <= 1 else "",
        namespace=spaces[0] if spaces else DEFAULT_NAMESPACE,
        fingerprint=hashlib.sha256(der).hexdigest(),
        begins_ns=_time_ns(fields["notBefore"]),
        ends_ns=_time_ns(fields["notAfter"]),
    )


def first_fingerprint(pem: str) -> str | None:
    """Return the SHA-256 of the first certificate in PEM, of a chain the owner's; None when there is none.

    `ssl.PEM_cert_to_DER_cert` alone takes two certificates for one, whose fingerprint nobody has.
    """
    found = _CERTIFICATE.search(pem)
    try:
        return None if found is None else hashlib.sha256(ssl.PEM_cert_to_DER_cert(found.group())).hexdigest()
    except ValueError:
        return None


def check_fingerprint(text: str) -> str:
    """Return a SHA-256 as 64 lower-case hex digits; takes ``SHA256:`` before and colons between.

    Raises:
        BadRequestError: it is none.
    """
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(digits) != _FINGERPRINT_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise BadRequestError("a fingerprint is the certificate's SHA-256: 64 hex digits, colons allowed")
    return digits


def _time_ns(text: str) -> int:
    return ssl.cert_time_to_seconds(text) * 1_000_000_000
