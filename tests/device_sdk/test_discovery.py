"""`device_sdk.discovery`: what of an announcement is believed. On a network: `tests.end_to_end.test_discovery`."""

import asyncio
import subprocess
import sys

import pytest

from device_sdk.discovery import SERVICE, FoundHub, discover, found_hub, nearest_first
from device_sdk.errors import MisuseError
from tests.support.hub_process import ROOT

FP = "ab" * 32
SECURE = {b"v": b"telemetry.v1", b"path": b"/v1/device", b"tls": b"1", b"fp": FP.encode()}


def test_secure_hub_is_found_with_its_pin() -> None:
    """Address, port and fingerprint become what `Device` takes; the usual path is left out."""
    assert found_hub(f"barn.{SERVICE}", ["192.0.2.7", "192.0.2.8"], 8443, SECURE) == FoundHub(
        "wss://192.0.2.7:8443", FP, "barn", "telemetry.v1"
    )


def test_hub_without_tls_and_behind_a_path() -> None:
    """Without TLS there is nothing to pin, whatever is said; another path stays; IPv6 is bracketed."""
    told = {**SECURE, b"tls": b"0", b"path": b"/hub/v1/device/"}

    found = found_hub(f"barn.{SERVICE}", ["2001:db8::7"], 8000, told)

    assert found == FoundHub("ws://[2001:db8::7]:8000/hub", None, "barn", "telemetry.v1")


@pytest.mark.parametrize(
    ("addresses", "port", "told"),
    [
        pytest.param([], 8443, SECURE, id="no address"),
        pytest.param(["192.0.2.7"], None, SECURE, id="no port"),
        pytest.param(["192.0.2.7"], 8443, {**SECURE, b"path": b"@evil"}, id="no path"),
        pytest.param(["192.0.2.7"], 8443, {**SECURE, b"path": b"/x?y#z"}, id="query in the path"),
        pytest.param(["192.0.2.7"], 8443, {**SECURE, b"path": b"/\xff\xc3\xa9"}, id="path no request can hold"),
        pytest.param(["192.0.2.7"], 8443, {**SECURE, b"tls": b"yes"}, id="tls is a word"),
        pytest.param(["192.0.2.7"], 8443, {**SECURE, b"fp": b"abc"}, id="TLS without a fingerprint"),
        pytest.param(["192.0.2.7"], 8443, {b"tls": None}, id="nothing said"),
    ],
)
def test_what_no_device_could_use_is_left_out(
    addresses: list[str], port: int | None, told: dict[bytes, bytes | None]
) -> None:
    """A malformed announcement is no hub; above all none with TLS and nothing to pin."""
    assert found_hub(f"barn.{SERVICE}", addresses, port, told) is None


def test_names_are_bounded_and_obeyed_by_no_terminal() -> None:
    """Escape sequences and line breaks of a stranger are dropped, what is endless is cut."""
    found = found_hub(f"\x1b[2Jb\narn.{SERVICE}", ["192.0.2.7"], 8443, {**SECURE, b"v": b"\xff" + b"x" * 500})

    assert found is not None
    assert (found.name, len(found.version), found.version.isprintable()) == ("[2Jbarn", 100, True)


def test_own_addresses_and_those_without_a_way_come_last() -> None:
    """A bridge that this machine has too leads to itself, what is no address nowhere; IPv6 is second choice."""
    ordered = nearest_first(["::1", "no address", "127.0.0.1", "127.0.0.2", *["127.0.0.1"] * 99])

    assert ordered[0] == "127.0.0.2"
    assert ordered[-2:] == ["no address", "::1"]
    assert len(ordered) == 16


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 61.0, float("nan"), float("inf")])
def test_time_that_makes_no_sense_is_said(timeout_s: float) -> None:
    """Nothing is asked of the network, and the range is named."""
    with pytest.raises(MisuseError, match="above 0 and up to 60 seconds"):
        discover(timeout_s)


def test_coroutine_is_told_of_threads() -> None:
    """In an event loop it would find nothing for three seconds, and stop everything else meanwhile."""

    async def ask() -> None:
        with pytest.raises(MisuseError, match=r"await asyncio\.to_thread\(discover\)"):
            discover()

    asyncio.run(ask())


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)


def test_without_zeroconf_the_error_says_what_to_install() -> None:
    """A device without the extra learns its name."""
    done = _run("import sys; sys.modules['zeroconf'] = None; from device_sdk import Device; Device.discover()")

    assert done.returncode == 1
    assert "MisuseError: discovery needs zeroconf: pip install 'telemetry-device-sdk[discovery]'" in done.stderr


def test_nothing_is_loaded_before_it_is_asked() -> None:
    """`Device` loads neither this module nor zeroconf."""
    done = _run(
        "from device_sdk import Device; Device('d', 'ws://127.0.0.1:1'); import sys; "
        "print([m for m in sys.modules if 'zeroconf' in m or m == 'device_sdk.discovery'])"
    )

    assert done.stdout == "[]\n"
