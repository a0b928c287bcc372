"""Half-open connections: the network between device and hub swallows everything, and neither end is told.

``python -m tests.chaos.half_open`` (root, ip, nft). Device and hub live in two network namespaces joined by a veth
pair; nft drops all packets both ways while the connection stands. Both ends must notice by themselves; when the
packets flow again, everything drains. The program makes the namespaces and runs itself again in the device's.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from device_sdk import Device
from hub.auth import Identities
from hub.cli.check import compare_with_hub
from hub.cli.enrol import enrol_in_folder
from hub.cli.rest import RestClient
from hub.roles import Role
from simulators.ledger import Ledger
from tests.support.hub_process import ROOT, HubProcess, wait_for

# Three pings of 15 s; and what a busy machine may be late with a timer.
NOTICE_LIMIT_S = 45.0
_TIMER_SLACK_S = 1.0
# A connection attempt under way when the network returns: TCP tries again after 1, 3, 7 and 15 s at most.
DRAIN_LIMIT_S = 25.0
_HUB_ADDRESS, _DEVICE_ADDRESS = "10.213.77.1", "10.213.77.2"
_PERIOD_S = 0.2
_ESTABLISHED = "01"  # in /proc/net/tcp
_NFT = """
table inet outage {
  chain in { type filter hook input priority 0; iifname "hub0" drop; }
  chain out { type filter hook output priority 0; oifname "hub0" drop; }
}
"""


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """Seconds from the drop until each end gave the connection up, and from the return until all was acked."""

    device_noticed_s: float
    hub_noticed_s: float
    drained_s: float
    produced: int
    stored: int
    lost: int
    doubled: int
    is_balanced: bool

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        for end, took_s in (("device", self.device_noticed_s), ("hub", self.hub_noticed_s)):
            if took_s > NOTICE_LIMIT_S + _TIMER_SLACK_S:
                found.append(f"the {end} noticed after {took_s:.1f} s; the limit is {NOTICE_LIMIT_S:g} s")
        if not self.is_balanced or self.stored != self.produced:
            found.append(f"{self.produced} produced, {self.stored} stored, {self.lost} lost, {self.doubled} doubled")
        return found

    def __str__(self) -> str:
        return (
            f"half_open: device noticed after {self.device_noticed_s:.1f} s, hub after {self.hub_noticed_s:.1f} s; all "
            f"acked {self.drained_s:.1f} s after the network was back; {self.produced} produced, {self.stored} stored, "
            f"{self.lost} lost, {self.doubled} doubled; no randomness, no seed"
        )


def run_half_open() -> HalfOpen:
    """Make the namespaces, run the rest in the device's, and remove them.

    Raises:
        subprocess.CalledProcessError: a namespace cannot be made, or the run failed; its words are on stderr.
    """
    with _namespaces() as (hub_space, device_space):
        command = [*_inside(device_space), sys.executable, "-m", "tests.chaos.half_open", "--hub-namespace", hub_space]
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=110)
    return HalfOpen(**json.loads(run.stdout.splitlines()[-1]))


def why_not() -> str | None:
    """Return why this machine cannot run it, None when it can."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    return f"needs the Debian packages iproute2 and nftables: {missing} not found" if missing else None


@contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    hub_space, device_space = f"outage-hub-{os.getpid()}", f"outage-device-{os.getpid()}"
    try:
        for space in (hub_space, device_space):
            _do("ip", "netns", "add", space)
            _do(*_inside(space), "ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", "hub0", "netns", hub_space, "type", "veth", "peer", "device0", "netns", device_space)
        for space, link, address in ((hub_space, "hub0", _HUB_ADDRESS), (device_space, "device0", _DEVICE_ADDRESS)):
            _do(*_inside(space), "ip", "address", "add", f"{address}/30", "dev", link)
            _do(*_inside(space), "ip", "link", "set", link, "up")
        yield hub_space, device_space
    finally:
        for space in (hub_space, device_space):
            # The veth pair goes with them.
            subprocess.run(["ip", "netns", "delete", space], check=False, stderr=subprocess.DEVNULL)


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _do(*command: str, text: str | None = None) -> None:
    subprocess.run(command, check=True, input=text, text=True, stdout=subprocess.DEVNULL)


async def _run_inside(hub_space: str, folder: Path) -> HalfOpen:
    """Be the device; this process is in its namespace."""
    data = folder / "data"
    runner = _inside(hub_space)
    ledger = Ledger(folder / "ledger")
    with HubProcess(data, "--insecure-lan", host=_HUB_ADDRESS, runner=runner) as hub:
        token = enrol_in_folder(data, ["pump"])["pump"]
        device = Device(
            "pump", hub.ws_url, token=token, spool=folder / "spool",
            on_frame=ledger.frame_hook("pump"), on_ack=ledger.ack_hook("pump"),
        )  # fmt: skip
        async with device:
            recording = asyncio.create_task(_record(device, ledger), name="record")
            await wait_for(lambda: device.status.online and not device.status.pending, 10, "the first acks")
            assert _holds_device(hub), "the hub's side of the connection is not seen: this run would show nothing"
            _do(*runner, "nft", "-f", "-", text=_NFT)
            device_s, hub_s = await _both_notice(device, hub)
            _do(*runner, "nft", "flush", "ruleset")
            returned = time.monotonic()
            await wait_for(lambda: device.status.online, DRAIN_LIMIT_S, "the device to come back")
            recording.cancel()
            await device.flush_async(DRAIN_LIMIT_S)
            drained_s = time.monotonic() - returned
        ledger.close()
        verdict = compare_with_hub(RestClient(hub.url, _watcher_token(data)), folder / "ledger")
    total = verdict.total
    return HalfOpen(
        device_s, hub_s, drained_s, total("produced"), total("stored"), total("lost"), total("doubled"),
        verdict.is_balanced,
    )  # fmt: skip


async def _record(device: Device, ledger: Ledger) -> None:
    n = 0
    while True:
        n, time_ns = n + 1, time.time_ns()
        device.record({"pressure": n}, time=time_ns)
        ledger.recorded("pump", "pressure", time_ns, n)
        await asyncio.sleep(_PERIOD_S)


async def _both_notice(device: Device, hub: HubProcess) -> tuple[float, float]:
    """Return after how many seconds device and hub gave the connection up."""
    begun = time.monotonic()
    device_s = hub_s = 0.0
    while not (device_s and hub_s):
        await asyncio.sleep(0.1)
        took_s = time.monotonic() - begun
        assert took_s < 2 * NOTICE_LIMIT_S, f"nobody noticed: device {device_s:.1f} s, hub {hub_s:.1f} s"
        device_s = device_s or (0.0 if device.status.online else took_s)
        hub_s = hub_s or (0.0 if _holds_device(hub) else took_s)
    return device_s, hub_s


def _holds_device(hub: HubProcess) -> bool:
    """Tell whether the hub has an established connection to the device, as its own namespace's kernel sees it."""
    remote = f"{int.from_bytes(socket.inet_aton(_DEVICE_ADDRESS), sys.byteorder):08X}"
    lines = Path(f"/proc/{hub.pid}/net/tcp").read_text().splitlines()[1:]
    return any(fields[2].startswith(remote) and fields[3] == _ESTABLISHED for fields in map(str.split, lines))


def _watcher_token(data: Path) -> str:
    identities = Identities(data / "identities.sqlite3")
    try:
        return identities.add_token(Role.ADMIN, ("**",), "half_open")[1]
    finally:
        identities.close()


def main(arguments: list[str]) -> int:
    """Run from the command line and print one line."""
    parser = argparse.ArgumentParser(description="The network swallows everything; both ends notice.")
    parser.add_argument("--hub-namespace", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.hub_namespace:
        with tempfile.TemporaryDirectory(prefix="telemetry-half-open-") as folder:
            print(json.dumps(asdict(asyncio.run(_run_inside(options.hub_namespace, Path(folder))))))
        return 0
    half_open = run_half_open()
    print(half_open)
    print("".join(f"{fault}\n" for fault in half_open.faults), end="")
    return bool(half_open.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
