"""Certificates: a client that has only ca.pem, or only the fingerprint, can verify the hub."""

import contextlib
import hashlib
import ssl
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.errors import BadRequestError, ConfigError, ConflictError
from hub.tls import local_names, make_certificates, make_device_certificate


def shake_hands(folder: Path, name: str, *, strict: bool = True) -> bytes:
    """Do a TLS handshake in memory against the folder's certificate; return the certificate the client saw."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    client_context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if strict:
        client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    done = False
    while not done:
        done = True
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
    seen = client.getpeercert(binary_form=True)
    assert seen is not None
    return seen


@pytest.mark.parametrize("name", ["hub.local", "192.0.2.7", "::1"])
def test_client_with_the_ca_trusts_each_name(tmp_path: Path, name: str) -> None:
    """Each name and address given verifies, also under the strict X.509 rules of newer Pythons."""
    files = make_certificates(tmp_path, ["hub.local", "192.0.2.7", "::1"], now=datetime.now(UTC))

    seen = shake_hands(tmp_path, name)

    assert hashlib.sha256(seen).hexdigest() == files.fingerprint


def test_other_name_is_refused(tmp_path: Path) -> None:
    """A name that is not in the certificate does not verify."""
    make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, "other.local")


def test_second_run_refuses_and_changes_nothing(tmp_path: Path) -> None:
    """Running it twice by mistake must not break pinned devices."""
    make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(ConflictError, match="--renew"):
        make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_renewal_keeps_the_authority(tmp_path: Path) -> None:
    """A renewed certificate verifies with the same ca.pem and has another fingerprint."""
    first = make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    ca = first.ca.read_bytes()

    second = make_certificates(tmp_path, ["new.local"], now=datetime.now(UTC), replace=True)

    assert second.ca.read_bytes() == ca
    assert second.fingerprint != first.fingerprint
    shake_hands(tmp_path, "new.local")


def test_keys_are_private(tmp_path: Path) -> None:
    """Both private keys have mode 0600."""
    make_certificates(tmp_path / "tls", ["hub.local"], now=datetime.now(UTC))

    for name in ("ca-key.pem", "server-key.pem"):
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("names", [[], ["a" * 64 + ".local"], [""]], ids=["none", "label too long", "empty"])
def test_impossible_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    """A name that cannot stand in a certificate is said to be wrong before anything is written."""
    with pytest.raises(ConfigError):
        make_certificates(tmp_path / "tls", names, now=datetime.now(UTC))

    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("away", ["ca-key.pem", "ca.pem"])
def test_half_an_authority_is_never_replaced(tmp_path: Path, away: str) -> None:
    """Who keeps the key elsewhere must not find at a renewal that all devices trust nobody any more."""
    make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    (tmp_path / away).rename(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(ConfigError, match=f"{away} is not: bring it back"):
        make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC), replace=True)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_local_names_begin_with_loopback() -> None:
    """This machine is always reachable by its loopback names."""
    names = local_names()

    assert names[:3] == ["localhost", "127.0.0.1", "::1"]
    assert len(names) == len(set(names))


def show_certificate(folder: Path, cert: Path, key: Path) -> Mapping[str, object]:
    """Do a TLS handshake in memory in which the client shows a certificate; return what the server saw."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    server_context.load_verify_locations(folder / "ca.pem")
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.verify_flags |= ssl.VERIFY_X509_STRICT
    client_context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client_context.load_cert_chain(cert, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="hub.local")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return server.getpeercert() or {}


def test_device_certificate_proves_the_name(tmp_path: Path) -> None:
    """The authority's device certificate is taken from a client and names the device; the key is private."""
    make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    files = make_device_certificate(tmp_path, "greenhouse-7", now=datetime.now(UTC))

    seen = show_certificate(tmp_path, files.cert, files.key)

    assert seen["subject"] == ((("commonName", "greenhouse-7"),),)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(files.cert.read_text())).hexdigest() == files.fingerprint


def test_certificates_are_good_for_one_side_only(tmp_path: Path) -> None:
    """With a device's certificate nobody plays the hub, with the hub's nobody a device."""
    made = make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    device = make_device_certificate(tmp_path, "hub.local", now=datetime.now(UTC))

    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        show_certificate(tmp_path, made.cert, made.key)
    (tmp_path / "server.pem").write_bytes(device.cert.read_bytes())
    (tmp_path / "server-key.pem").write_bytes(device.key.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, "hub.local")


def test_device_certificate_needs_an_authority_a_name_and_a_word(tmp_path: Path) -> None:
    """Without an authority none is made silently; a name is one that a device can have; twice needs --renew."""
    now = datetime.now(UTC)
    with pytest.raises(ConfigError, match="hub tls init"):
        make_device_certificate(tmp_path, "pump", now=now)
    make_certificates(tmp_path, ["hub.local"], now=now)
    with pytest.raises(BadRequestError):
        make_device_certificate(tmp_path, "../pump", now=now)
    first = make_device_certificate(tmp_path, "pump", now=now)
    with pytest.raises(ConflictError, match="--renew"):
        make_device_certificate(tmp_path, "pump", now=now)

    assert make_device_certificate(tmp_path, "pump", now=now, replace=True).fingerprint != first.fingerprint


def test_files_of_one_device_are_never_those_of_another(tmp_path: Path) -> None:
    """Whatever devices are called, no certificate is written over a key that cannot be made again."""
    now = datetime.now(UTC)
    make_certificates(tmp_path, ["hub.local"], now=now)
    pump = make_device_certificate(tmp_path, "pump", now=now)
    key = pump.key.read_bytes()

    others = [
        make_device_certificate(tmp_path, name, now=now, replace=True)
        for name in ("pump-key", "pump.key", "pump.pem", "pump-key.pem")
    ]

    assert pump.key.read_bytes() == key
    assert len({path for files in (pump, *others) for path in (files.cert, files.key)}) == 10
