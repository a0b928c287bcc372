"""Devices that connect by a certificate: real TLS, a real hub, the whole SDK."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.tls import DeviceFiles, make_certificates, make_device_certificate
from tests.end_to_end.conftest import admin_token, enrol
from tests.support.hub_process import ROOT, HubProcess

LIMIT_S = 20.0
# What the README promises of every credential.
ENDS_WITHIN_S = 1.0


@dataclass(frozen=True)
class Secure:
    """A hub that takes certificates of the authority in ``tls``."""

    hub: HubProcess
    tls: Path

    def certificate(self, name: str, now: datetime | None = None) -> DeviceFiles:
        """Make a certificate of its authority."""
        return make_device_certificate(self.tls, name, now=now or datetime.now(UTC))

    @contextmanager
    def device(self, name: str, files: DeviceFiles | None = None, **options: Any) -> Iterator[Device]:
        """Give a device that shows the certificate."""
        if files is not None:
            options |= {"certificate": files.cert, "key": files.key}
        with Device(
            name, self.hub.ws_url, ca=self.tls / "ca.pem", spool=":memory:", close_timeout_s=0, **options
        ) as device:
            yield device


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """One hub for all tests; each uses devices of its own."""
    data = tmp_path_factory.mktemp("certificates") / "data"
    tls = data / "tls"
    files = make_certificates(tls, ["127.0.0.1"], now=datetime.now(UTC))
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-client-ca", str(files.ca))
    with HubProcess(data, *options, ca=files.ca) as hub:
        yield Secure(hub, tls)


def refusal(device: Device) -> str:
    """Wait until the device was refused, and return how."""
    limit = time.monotonic() + LIMIT_S
    while device.status.last_error is None:
        assert time.monotonic() < limit, "neither taken nor refused"
        time.sleep(0.01)
    assert not device.status.online
    return str(device.status.last_error)


def wait_online(device: Device) -> None:
    """Wait until the hub has welcomed the device."""
    limit = time.monotonic() + LIMIT_S
    while not device.status.online:
        assert time.monotonic() < limit, device.status.last_error
        time.sleep(0.01)


def wait_ended(device: Device) -> tuple[float, str]:
    """Return the seconds until the connection ended, and how."""
    begun = time.monotonic()
    while device.status.online:
        assert time.monotonic() < begun + LIMIT_S, "the connection lives on"
        time.sleep(0.005)
    return time.monotonic() - begun, str(device.status.last_error)


def test_certificate_replaces_the_token(secure: Secure) -> None:
    """With the authority's certificate of an enrolled device readings arrive, without any token."""
    enrol(secure.hub, "by-certificate")

    with secure.device("by-certificate", secure.certificate("by-certificate")) as device:
        device.record(level=1.5)
        device.flush(LIMIT_S)

    token = admin_token(secure.hub)
    latest = secure.hub.get("/v1/latest?match=by-certificate", token)
    assert "1.5" in str(latest)


def test_token_alone_goes_on_and_so_does_rest(secure: Secure) -> None:
    """A hub that takes certificates asks nobody for one: tokens and HTTP work without."""
    token = enrol(secure.hub, "by-token")["by-token"]

    with secure.device("by-token", token=token) as device:
        device.record(level=1.5)
        device.flush(LIMIT_S)

    assert secure.hub.get("/healthz")["status"] == "ok"


def test_nothing_is_not_enough(secure: Secure) -> None:
    """Neither token nor certificate: 401, as ever."""
    enrol(secure.hub, "by-nothing")

    with secure.device("by-nothing") as device:
        assert "send Authorization" in refusal(device)


def test_both_of_one_device_are_taken(secure: Secure) -> None:
    """Token and certificate may come together; revoking the certificate ends that connection too."""
    token = enrol(secure.hub, "by-both")["by-both"]
    files = secure.certificate("by-both")

    with secure.device("by-both", files, token=token) as device:
        wait_online(device)
        secure.hub.request("POST", "/v1/certificates/revoked", {"fingerprint": files.fingerprint},
                           admin_token(secure.hub))  # fmt: skip
        _, why = wait_ended(device)

    assert "4401" in why


def test_token_of_another_device_is_refused(secure: Secure) -> None:
    """A certificate does not lend its name to another device's token, nor a good one a pass to a wrong token."""
    tokens = enrol(secure.hub, "pair-a", "pair-b")
    files = secure.certificate("pair-b")

    with secure.device("pair-a", files, token=tokens["pair-a"]) as device:
        assert "the certificate that of 'pair-b'" in refusal(device)
    with secure.device("pair-b", files, token="d0.wrong") as device:
        assert "refused" in refusal(device)


def test_another_namespace_is_not_entered(secure: Secure) -> None:
    """A certificate speaks in the default namespace: a device of that name elsewhere stays unknown, its token other."""
    identities = Identities(secure.hub.data / "identities.sqlite3")
    token = identities.add_device("elsewhere", namespace="north")
    identities.close()
    files = secure.certificate("elsewhere")

    with secure.device("elsewhere", files) as device:
        assert "no enrolled device" in refusal(device)
    with secure.device("elsewhere", files, token=token) as device:
        assert "use one of them" in refusal(device)


def test_device_that_is_not_enrolled_is_refused(secure: Secure) -> None:
    """A certificate proves a name; whether the name may come in, the hub knows."""
    with secure.device("stranger", secure.certificate("stranger")) as device:
        assert "no enrolled device: hub devices add NAME" in refusal(device)


def test_certificate_of_another_authority_is_refused(secure: Secure, tmp_path: Path) -> None:
    """TLS itself refuses it, without a word; the SDK says that the certificate may be why."""
    enrol(secure.hub, "foreign")
    make_certificates(tmp_path / "tls", ["127.0.0.1"], now=datetime.now(UTC))
    files = make_device_certificate(tmp_path / "tls", "foreign", now=datetime.now(UTC))

    with secure.device("foreign", files) as device:
        assert "may not trust this device's certificate" in refusal(device)


def test_expired_certificate_is_refused(secure: Secure) -> None:
    """A certificate of two years ago does not connect."""
    enrol(secure.hub, "expired")

    with secure.device("expired", secure.certificate("expired", datetime.now(UTC) - timedelta(days=800))) as device:
        assert "may not trust this device's certificate" in refusal(device)


@pytest.mark.parametrize("way", ["rest", "folder"])
def test_revoked_certificate_ends_the_connection(secure: Secure, way: str) -> None:
    """Within a second after the command, by REST and on the folder, with 4401; and it does not come back."""
    name = f"revoked-by-{way}"
    enrol(secure.hub, name)
    files = secure.certificate(name)
    where = ["--data", str(secure.hub.data)]
    if way == "rest":
        where = ["--url", secure.hub.url, "--token", admin_token(secure.hub), "--ca", str(secure.tls / "ca.pem")]

    with secure.device(name, files) as device:
        wait_online(device)
        command = [sys.executable, "-m", "hub", "certificates", "revoke", str(files.cert), *where]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, cwd=ROOT)
        took_s, why = wait_ended(device)
    with secure.device(name, files) as device:
        again = refusal(device)

    assert took_s < ENDS_WITHIN_S
    assert "4401 this certificate was revoked" in why
    assert "this certificate was revoked" in again


def test_removed_device_ends_its_connection_by_certificate(secure: Secure) -> None:
    """Removing a device ends it whatever it connected with; a rotated token does not."""
    enrol(secure.hub, "removed")
    identities = Identities(secure.hub.data / "identities.sqlite3")

    with secure.device("removed", secure.certificate("removed")) as device:
        wait_online(device)
        identities.rotate_device("removed", keep_s=0)
        time.sleep(ENDS_WITHIN_S)
        is_online_after_rotation = device.status.online
        identities.remove_device("removed")
        took_s, why = wait_ended(device)
    identities.close()

    assert is_online_after_rotation
    assert took_s < ENDS_WITHIN_S
    assert "4401 this device was removed" in why
