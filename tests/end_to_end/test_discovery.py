"""A hub is found by mDNS from another machine, and a device connects with nothing but what it found.

Both machines are network namespaces joined by one cable: nothing is announced to a real network.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.tls import make_certificates
from tests.support.hub_process import ROOT

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip, for network namespaces"),
]
LIMIT_S = 30.0
NET = "10.213.79"
PORT = 8443
# What a device runs that knows its name and its token, and nothing of the hub.
PROGRAM = """
import sys
from device_sdk import Device
(hub,) = Device.discover()
with Device("pump", hub.url, token=sys.argv[1], fingerprint=hub.fingerprint, spool=":memory:") as device:
    device.record(level=1.5)
    device.flush(20)
print(hub.name, hub.url)
"""
# What somebody else in the network announces for some seconds: names that no hub has.
STRANGER = """
import socket, struct, sys, time

def name(*labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + bytes(1)

service = (b"_telemetry-hub", b"_tcp", b"local")
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
line.bind(("", 5353))
line.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
evil = [name(b"a", b"_http", b"_tcp", b"local"), name(b"a", b"example"), name(b"\\x1b[2J", *service), name(*service)]
for _ in range(50):
    for alias in evil:
        pointer = name(*service) + struct.pack("!HHIH", 12, 1, 4500, len(alias)) + alias
        line.sendto(struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + pointer, ("224.0.0.251", 5353))
    print("sent", flush=True)
    time.sleep(0.2)
"""

# What somebody else in the network says for some seconds: services of this kind whose names no service can have.
HOSTILE = """
import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("%s"))
def name(*labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + bytes(1)
kind = name(b"_telemetry-hub", b"_tcp", b"local")
others = name(b"x", b"_http", b"_tcp", b"local"), name(bytes([7]), b"_telemetry-hub", b"_tcp", b"local"), bytes(1)
for _ in range(40):
    for told in others:
        pointer = kind + bytes([0, 12, 0, 1, 0, 0, 0, 120, 0, len(told)]) + told
        out.sendto(bytes([0, 0, 132, 0, 0, 0, 0, 1, 0, 0, 0, 0]) + pointer, ("224.0.0.251", 5353))
    time.sleep(0.1)
"""


@dataclass(frozen=True)
class Cable:
    """Two namespaces: the hub's at ``.1``, the device's at ``.2``."""

    hub: str
    device: str

    def run(self, *arguments: str) -> str:
        """Run Python at the device's end; return what it printed."""
        command = ["ip", "netns", "exec", self.device, sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def found(self) -> list[dict[str, str]]:
        """Return what `hub discover` lists there."""
        listed: list[dict[str, str]] = json.loads(self.run("-m", "hub", "discover", "--json"))
        return listed


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Lay the cable; take it away again."""
    ends = Cable(f"telemetry-h{os.getpid()}", f"telemetry-d{os.getpid()}")
    names = (ends.hub, ends.device)
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "cable", "netns", ends.hub, "type", "veth", "peer", "name", "cable", "netns", ends.device)
        for number, name in enumerate(names, 1):
            _ip("-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "cable")
            for link in ("cable", "lo"):
                _ip("-n", name, "link", "set", link, "up")
        yield ends
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=LIMIT_S)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=LIMIT_S)


@contextmanager
def serving(
    cable: Cable, data: Path, *options: str, until: bytes = b"announced name="
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a hub at its end until its log says that it has announced itself; stopped afterwards."""
    log = data.with_name(data.name + ".log")
    serve = ["-m", "hub", "serve", "--data", str(data), "--host", "0.0.0.0", "--announce", *options]
    with log.open("wb") as out:
        command = ["ip", "netns", "exec", cable.hub, sys.executable, *serve]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        limit = time.monotonic() + LIMIT_S
        while until not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(LIMIT_S)


def test_device_finds_its_hub_and_pins_it(cable: Cable, tmp_path: Path) -> None:
    """`hub discover` shows address and fingerprint; a device delivers by them; a hub that stopped is not found."""
    data = tmp_path / "data"
    files = make_certificates(data / "tls", ["hub.example"], now=datetime.now(UTC))
    identities = Identities(data / "identities.sqlite3")
    token = identities.add_device("pump")
    identities.close()
    tls = ("--port", str(PORT), "--tls-cert", str(files.cert), "--tls-key", str(files.key))

    with serving(cable, data, *tls) as process:
        (listed,) = cable.found()
        delivered = cable.run("-c", PROGRAM, token)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
        stop_s = time.monotonic() - begun
    after = cable.found()

    assert (listed["url"], listed["fingerprint"]) == (f"wss://{NET}.1:{PORT}", files.fingerprint)
    assert listed["version"] == "telemetry.v1"
    assert delivered.split()[1] == listed["url"]
    assert stop_s < 2.5
    assert after == []


def test_two_hubs_of_one_machine_have_two_names(cable: Cable, tmp_path: Path) -> None:
    """Both are found though the second starts right after the first; without TLS there is no fingerprint."""
    first, second = (("--insecure-lan", "--port", port) for port in ("8001", "8002"))
    with serving(cable, tmp_path / "a", *first), serving(cable, tmp_path / "b", *second):
        found = cable.found()

    assert {hub["url"] for hub in found} == {f"ws://{NET}.1:8001", f"ws://{NET}.1:8002"}
    assert len({hub["name"] for hub in found}) == 2
    assert [hub["fingerprint"] for hub in found] == [None, None]


def test_names_of_a_stranger_hide_no_hub(cable: Cable, tmp_path: Path) -> None:
    """One packet with a name of another type or none must not end the search; nor does a search leave a thread."""
    command = ["ip", "netns", "exec", cable.hub, sys.executable, "-c", STRANGER, f"{NET}.1"]
    look = "import threading; from device_sdk import Device; "
    look += "print([hub.url for hub in Device.discover()], threading.active_count())"
    with serving(cable, tmp_path / "data", "--insecure-lan", "--port", "8001"):
        stranger = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"sent\n"
            found = cable.run("-c", look)
        finally:
            stranger.kill()
            stranger.communicate(timeout=LIMIT_S)

    assert found == f"['ws://{NET}.1:8001'] 1\n"


def test_hub_with_container_bridges_is_found_where_it_is_reached(cable: Cable, tmp_path: Path) -> None:
    """Of all the addresses it tells the device takes that of the cable, also when it has such a bridge itself."""
    for end, address in ((cable.hub, "172.17.0.1"), (cable.hub, "172.18.0.1"), (cable.device, "172.17.0.1")):
        _ip("-n", end, "addr", "add", f"{address}/16", "dev", "lo")  # told before that of the cable
    _ip("-n", cable.device, "route", "add", "default", "via", f"{NET}.1")

    with serving(cable, tmp_path / "data", "--insecure-lan", "--port", "8001"):
        (found,) = cable.found()

    assert found["url"] == f"ws://{NET}.1:8001"


def test_hub_without_a_network_works_and_tries_again(cable: Cable, tmp_path: Path) -> None:
    """No address yet, as at boot: the hub runs, says that it is not announced, and stops as fast as ever."""
    _ip("-n", cable.hub, "addr", "flush", "dev", "cable")

    with serving(cable, tmp_path / "data", "--insecure-lan", "--port", "0", until=b"not announced in_s=30") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0


def test_names_that_no_service_can_have_hide_no_hub(cable: Cable, tmp_path: Path) -> None:
    """Anybody can say anything: what cannot even be asked for is left out, and the hub beside it is found."""
    with serving(cable, tmp_path / "data", "--insecure-lan", "--port", str(PORT)):
        command = ["ip", "netns", "exec", cable.hub, sys.executable, "-c", HOSTILE % f"{NET}.1"]
        with subprocess.Popen(command) as hostile:
            try:
                found = cable.found()
            finally:
                hostile.kill()

    assert [hub["url"] for hub in found] == [f"ws://{NET}.1:{PORT}"]
