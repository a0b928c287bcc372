"""A local certificate authority, a server certificate that devices can trust or pin, and certificates of devices.

Owns: the files of ``DATA/tls`` and what stands in the certificates. Place:
beside `config`; used by ``hub tls`` only. Must not: be imported by a
running hub, which only reads the files.

The authority's key stays on this machine (mode 0600); devices get ``ca.pem``,
or the fingerprint of the server certificate.
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.certificate import first_fingerprint
from hub.device_tokens import check_enrolled_name
from hub.errors import ConfigError, ConflictError

CA_DAYS = 3650
# Apple's systems refuse server certificates of more than 825 days, also from a local authority.
SERVER_DAYS = 825
# Two years: renewed by hand, so seldom; a device that is lost is revoked, not waited for.
DEVICE_DAYS = 730
# A device whose clock is a little behind must not find the certificate "not yet valid".
_BACKDATED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What `make_certificates` wrote: paths, the names it is good for, and the fingerprint to pin."""

    ca: Path
    cert: Path
    key: Path
    names: tuple[str, ...]
    fingerprint: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """What `make_device_certificate` wrote, and the fingerprint to revoke it by.

    ``replaced`` is that of the certificate that lay there before: it is still good, and now nowhere else to be found.
    """

    cert: Path
    key: Path
    fingerprint: str
    not_after: datetime
    replaced: str | None = None


def make_certificates(folder: Path, names: Sequence[str], *, now: datetime, replace: bool = False) -> TlsFiles:
    """Write a server certificate, and an authority first where the folder has none.

    Args:
        folder: made when absent (mode 0700); keys get mode 0600.
        names: host names and addresses clients will use; see `local_names`.
        now: begin of validity; an aware datetime.
        replace: make a new server certificate though there is one; the authority stays, so devices
            that trust ``ca.pem`` need nothing, those that pin the fingerprint need the new one.

    Raises:
        ConflictError: there is a server certificate and ``replace`` is false; nothing was written.
        ConfigError: no names, or one that cannot stand in a certificate; or one file of the authority is missing.
    """
    cert_path, key_path = folder / "server.pem", folder / "server-key.pem"
    if cert_path.exists() and not replace:
        raise ConflictError(f"{cert_path} exists; for a new server certificate say --renew (the authority stays)")
    alternatives = _alternative_names(names)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_cert, ca_key = _load_or_make_ca(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(now + timedelta(days=SERVER_DAYS), ca_cert.not_valid_after_utc)
    begun = _begin(_common_name("telemetry-hub"), ca_cert.subject, key, now, not_after)
    begun = begun.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    fingerprint = _finish(begun, key, ExtendedKeyUsageOID.SERVER_AUTH, ca_cert, ca_key, cert_path, key_path)
    return TlsFiles(folder / "ca.pem", cert_path, key_path, tuple(dict.fromkeys(names)), fingerprint, not_after)


def make_device_certificate(folder: Path, name: str, *, now: datetime, replace: bool = False) -> DeviceFiles:
    """Write a certificate with which a device proves its name, signed by the folder's authority.

    It is good for clients only: whoever takes it from a device cannot play the hub with it.

    Args:
        folder: that of `make_certificates`; the files go to its ``devices/`` (mode 0700, the key 0600).
        name: of the device; becomes the common name (see `hub.certificate`).
        now: begin of validity; an aware datetime.
        replace: make a new one though there is one, which stays valid until it ends or is revoked.

    Raises:
        BadRequestError: no device can have the name.
        ConfigError: there is no authority in the folder.
        ConflictError: there is a certificate of the device and ``replace`` is false; nothing was written.
    """
    check_enrolled_name(name)
    if not ((folder / "ca.pem").exists() and (folder / "ca-key.pem").exists()):
        raise ConfigError(f"{folder} holds no authority that could sign; make one with: hub tls init")
    devices = folder / "devices"
    # Not NAME-key.pem: that is the certificate of a device called NAME-key.
    cert_path, key_path = devices / f"{name}.pem", devices / f"{name}.key"
    if cert_path.exists() and not replace:
        raise ConflictError(f"{cert_path} exists; for a new certificate say --renew (revoke the old one if it leaked)")
    replaced = first_fingerprint(cert_path.read_text(errors="replace")) if cert_path.exists() else None
    devices.mkdir(exist_ok=True, mode=0o700)
    ca_cert, ca_key = _load_or_make_ca(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(now + timedelta(days=DEVICE_DAYS), ca_cert.not_valid_after_utc)
    begun = _begin(_common_name(name), ca_cert.subject, key, now, not_after)
    fingerprint = _finish(begun, key, ExtendedKeyUsageOID.CLIENT_AUTH, ca_cert, ca_key, cert_path, key_path)
    return DeviceFiles(cert_path, key_path, fingerprint, not_after, replaced)


def local_names() -> list[str]:
    """Return the names and addresses by which this machine is reached: loopback, host name, LAN addresses."""
    host = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", host]
    if "." not in host:
        names.append(f"{host}.local")
    return list(dict.fromkeys([*names, *_lan_addresses()]))


def _lan_addresses() -> Iterable[str]:
    """Yield the address of the default route, which needs no packet to find."""
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Connecting a datagram socket only asks the routing table; no route is an ordinary answer.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            yield probe.getsockname()[0]


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    if not names or not all(names):
        raise ConfigError("a certificate needs at least one name, e.g. --name hub.local")
    out: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            out.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        except ValueError:
            pass
        try:
            out.append(x509.DNSName(name.encode("idna").decode()))
        except (UnicodeError, ValueError) as error:
            raise ConfigError(f"{name!r} is no host name or address: {error}") from error
    return out


def _load_or_make_ca(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    cert_path, key_path = folder / "ca.pem", folder / "ca-key.pem"
    if cert_path.exists() and key_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{key_path} is no key of `hub tls init`; move it away and try again")
        return x509.load_pem_x509_certificate(cert_path.read_bytes()), key
    if cert_path.exists() or key_path.exists():
        there, away = (cert_path, key_path) if cert_path.exists() else (key_path, cert_path)
        raise ConfigError(
            f"{there} is there and {away} is not: bring it back, for a new authority would be trusted by no device "
            f"that has the old one. If that is what you want, move {there} away too"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(f"telemetry-hub authority of {socket.gethostname()}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    cert = (
        _begin(name, name, key, now, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(key_path, _key_pem(key))
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return cert, key


def _finish(
    begun: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    purpose: x509.ObjectIdentifier,
    ca_cert: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    cert_path: Path,
    key_path: Path,
) -> str:
    """Sign a certificate that is good for one purpose, write it and its key, return its fingerprint."""
    issuer_id = ca_cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
    cert = (
        begun.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write_private(key_path, _key_pem(key))
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return cert.fingerprint(hashes.SHA256()).hex()


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(not_after.astimezone(UTC))
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, data: bytes) -> None:
    # The mode is given at creation: the key is at no moment readable by others.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
