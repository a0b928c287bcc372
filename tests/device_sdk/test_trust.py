"""Tests of `device_sdk.trust`; what it is worth on a line is in `test_websocket` and `test_mqtt`."""

import ssl
from pathlib import Path
from typing import cast

import pytest

from device_sdk.clock import RELEASED_NS, Clock
from device_sdk.errors import ConnectionLostError
from device_sdk.trust import Trust
from tests.support.certificate import ServerCertificate, make_certificate

SET, UNSET = Clock(wall_ns=lambda: RELEASED_NS), Clock(wall_ns=lambda: 0)
NO_CHECK_TIME = 0x200000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """A server certificate with its CA."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Peer:
    """As much of a TLS connection as is looked at."""

    session = None

    def getpeercert(self, binary_form: bool) -> bytes:
        """Return a certificate."""
        assert binary_form
        return b"certificate"


def test_context_is_made_once() -> None:
    """Loading the certificates of a CA for each connection would cost 10 ms each time."""
    trust = Trust(None, None, None, SET)

    assert trust.context() is trust.context()


@pytest.mark.parametrize(
    ("has_ca", "pin", "checks"), [(True, None, True), (True, "ab" * 32, True), (False, "ab" * 32, False)]
)
def test_a_pin_alone_needs_no_authority(
    certificate: ServerCertificate, has_ca: bool, pin: str | None, checks: bool
) -> None:
    """It names the one certificate, whoever signed it; together with a CA both must hold."""
    tls = Trust(str(certificate.ca) if has_ca else None, pin, None, SET).context()

    assert (tls.check_hostname, tls.verify_mode is ssl.CERT_REQUIRED) == (checks, checks)


def test_dates_count_as_soon_as_the_clock_is_set() -> None:
    """Without the time a pinned certificate is checked without its dates, and no session of that is resumed."""
    now = [0]
    trust = Trust(None, "ab" * 32, None, Clock(wall_ns=lambda: now[0]))

    without = bool(trust.context().verify_flags & NO_CHECK_TIME)
    now[0] = RELEASED_NS
    tls = trust.context()

    assert (without, bool(tls.verify_flags & NO_CHECK_TIME), tls.last) == (True, False, None)


def test_another_certificate_than_the_pinned_one_is_refused() -> None:
    """The error names what was found, so that a new certificate can be pinned after a look at the hub."""
    peer = cast(ssl.SSLObject, Peer())
    Trust(None, None, None, SET).check("hub", peer)
    with pytest.raises(
        ConnectionLostError, match=r"hub hub: its certificate has fingerprint [0-9a-f]{64}, not the pin"
    ):
        Trust(None, "ab" * 32, None, SET).check("hub", peer)


@pytest.mark.parametrize(
    ("clock", "advice"), [(SET, "pass ca= or fingerprint="), (UNSET, "this machine's clock is not set")]
)
def test_refusal_says_what_to_do(clock: Clock, advice: str) -> None:
    """Most machines that trust nobody have no time yet."""
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"

    assert advice in str(Trust(None, None, None, clock).refusal("hub", error))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """They may yet appear, so it is no misuse."""
    with pytest.raises(ConnectionLostError, match=r"ca file .*nowhere\.pem"):
        Trust(str(tmp_path / "nowhere.pem"), None, None, SET).context()
    with pytest.raises(ConnectionLostError, match=r"certificate .*a\.pem and .*b\.pem"):
        Trust(None, None, (str(tmp_path / "a.pem"), str(tmp_path / "b.pem")), SET).context()
