"""Tests of `device_sdk.setting`."""

from pathlib import Path

import pytest

from device_sdk.errors import MisuseError
from device_sdk.setting import check_choice, default_spool, from_environment, is_address, is_loopback, parse_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [("64MB", 64_000_000), ("1 MiB", 2**20), ("300kb", 300_000), (" 2GB ", 2 * 10**9), ("512", 512), (500, 500)],
)
def test_parse_size_reads_what_people_write(size: int | str, expected: int) -> None:
    """Decimal and binary units, any case, a space or none."""
    assert parse_size("max_spool", size) == expected


@pytest.mark.parametrize("size", ["much", "1.5MB", "", "MB", "-1MB", "1TB", "1 M B"])
def test_parse_size_refuses_the_rest(size: str) -> None:
    """The message names the setting."""
    with pytest.raises(MisuseError, match="max_spool"):
        parse_size("max_spool", size)


def test_check_choice_lists_what_is_allowed() -> None:
    """An allowed value passes, another one is told the choices."""
    assert check_choice("when_full", "oldest", ("oldest", "newest")) == "oldest"
    with pytest.raises(MisuseError, match="when_full 'never': use oldest or newest"):
        check_choice("when_full", "never", ("oldest", "newest"))


def test_default_spool_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_STATE_HOME wins, then the home directory; one directory for each device."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_spool("d1") == tmp_path / "state" / "telemetry" / "d1"

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_spool("d2") == tmp_path / ".local" / "state" / "telemetry" / "d2"


def test_from_environment_takes_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """HUB_CERTIFICATE and HUB_KEY become the arguments of `Device`; what the program says wins."""
    environment = {"HUB_URL": "wss://hub", "DEVICE_NAME": "pump", "HUB_CERTIFICATE": "pump.pem", "HUB_KEY": "k.pem"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    found = from_environment({"key": "other.pem"})

    assert (found["certificate"], found["key"]) == ("pump.pem", "other.pem")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.7", True), ("::1", True), ("192.168.1.2", False), ("localhost.example", False)],
)
def test_is_loopback_knows_this_machine(host: str, expected: bool) -> None:
    """Addresses of the loopback and its one name; no other name is looked up."""
    assert is_loopback(host) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("192.168.1.20", True), ("::1", True), ("fe80::1%eth0", True),
     ("hub.local", False), ("localhost", False), ("10.example", False)],
)  # fmt: skip
def test_is_address_tells_addresses_from_names(host: str, expected: bool) -> None:
    """What is looked up nowhere, and has one way to connect."""
    assert is_address(host) == expected
