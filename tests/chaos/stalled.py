"""Watchers that never read: each costs the hub a bounded buffer, and nobody else any time.

``python -m tests.chaos.stalled --watchers 1000``. A device sends a megabyte a second; healthy devices and a healthy
watcher are measured first with that load alone, then with watchers that subscribed to all of it, have the smallest
receive buffer the kernel gives, and read nothing.
"""

import argparse
import re
import resource
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from device_sdk.columns import Batch, Column, encode_json
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import WATCH_PATH, WATCH_SUBPROTOCOL
from hub.cli.enrol import enrol_in_folder
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.bystander import Bystander, Latency, Measured
from tests.support.hub_process import HubProcess
from tests.support.raw_socket import RawDevice, connected, frame, upgrade

WATCHERS = 1000
# At 15 bytes a reading: more than 10 MB become due to each watcher in `STALL_S`; within it no ping goes unanswered.
FRAMES_HZ, READINGS = 60.0, 1000
CALM_S, STALL_S = 5.0, 13.0
MIN_DUE_MB = 10.0
MAX_KIB_EACH = 300.0
# In the kernel, both ends together: what the hub lets wait there unsent, and the bookkeeping around it.
MAX_KERNEL_KIB_EACH = 256.0
# Once the buffers are full the hub must stand still; this much is other work: query caches, the allocator.
MAX_LATE_GROWTH_MIB = 4.0
MAX_ACK_SLOWDOWN, MAX_WATCH_SLOWDOWN = 1.5, 2.0
# Below this the disk's own fsyncs decide, not the hub.
FLOOR_MS = 10.0
_RECEIVE_BUFFER = 4096
_SUBSCRIBE = b'{"op":"sub","sub":"%s","match":["load/**"],"mode":"lossless"}'
_START_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Stalled:
    """What the watchers cost. ``held``: still connected at the end; ``late_growth_mib``: of the last third."""

    watchers: int
    held: int
    due_mb: float
    kib_each: float
    kernel_kib_each: float
    late_growth_mib: float
    calm: Measured
    stalled: Measured
    verdict: Verdict

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        if self.held < self.watchers or self.due_mb < MIN_DUE_MB:
            found.append(f"{self.held} watchers held, {self.due_mb:.1f} MB due to each: this run shows nothing")
        if self.kib_each > MAX_KIB_EACH:
            found.append(f"{self.kib_each:.0f} KiB for each watcher; the limit is {MAX_KIB_EACH:g}")
        if self.kernel_kib_each > MAX_KERNEL_KIB_EACH:
            found.append(f"{self.kernel_kib_each:.0f} KiB in the kernel for each; the limit is {MAX_KERNEL_KIB_EACH:g}")
        if self.late_growth_mib > MAX_LATE_GROWTH_MIB:
            found.append(f"still growing: {self.late_growth_mib:.1f} MiB in the last third")
        found += _slower("acks", self.calm.ack, self.stalled.ack, MAX_ACK_SLOWDOWN)
        found += _slower("watcher", self.calm.watch, self.stalled.watch, MAX_WATCH_SLOWDOWN)
        if not self.verdict.is_balanced:
            found.append(f"the healthy devices' ledger does not balance: {self.verdict.findings}")
        return found

    def __str__(self) -> str:
        return (
            f"stalled: {self.watchers} watchers that never read, {self.due_mb:.1f} MB due to each, {self.kib_each:.0f} "
            f"KiB each in the hub, {self.kernel_kib_each:.0f} in the kernel, {self.late_growth_mib:+.1f} "
            f"MiB in the last third; acks {self.stalled.ack}, without them {self.calm.ack}; "
            f"healthy watcher {self.stalled.watch}, without them {self.calm.watch}; balanced "
            f"{self.verdict.is_balanced}; no randomness, no seed"
        )


def _slower(what: str, calm: Latency, stalled: Latency, factor: float) -> list[str]:
    limit_ms = factor * max(calm.p99, FLOOR_MS)
    if stalled.count and stalled.p99 <= limit_ms:
        return []
    return [f"{what}: {stalled}, undisturbed {calm}: more than {factor:g} times"]


def run_stalled(folder: Path, watchers: int, *, is_apart: bool = False) -> Stalled:
    """Run the whole of it with everything below ``folder``.

    ``is_apart``: each watcher gives its subscription a name of its own, so that they share no bytes.
    """
    raise_handle_limit(watchers + 500)
    with HubProcess(folder / "data") as hub, Bystander(hub, folder / "ledger") as bystander:
        token = enrol_in_folder(hub.data, ["load"])["load"]
        sockets: list[socket.socket] = []
        with RawDevice(hub, "load", token) as device, _Load(device) as load:
            time.sleep(CALM_S)  # fills the ring, so that it is not counted as theirs
            calm = bystander.measure(CALM_S).measured
            rss, handles, kernel = hub.rss_bytes, hub.handle_count, _kernel_bytes()
            try:
                sockets += [_stalled_watcher(hub.port, f"s{n if is_apart else 1}") for n in range(watchers)]
                due = load.bytes
                bystander.reset()
                time.sleep(STALL_S * 2 / 3)
                late = hub.rss_bytes
                time.sleep(STALL_S / 3)
                stalled, most, held = bystander.taken().measured, hub.rss_bytes, hub.handle_count - handles
                kernel = _kernel_bytes() - kernel
                due_mb = (load.bytes - due) / 1e6
            finally:
                for one in sockets:
                    one.close()
        return Stalled(
            watchers, held, due_mb, (max(most, late) - rss) / 1024 / watchers, kernel / 1024 / watchers,
            (most - late) / 2**20, calm, stalled, bystander.finish(),
        )  # fmt: skip


def _stalled_watcher(port: int, name: str) -> socket.socket:
    watcher = connected(port, receive_buffer=_RECEIVE_BUFFER)
    watcher.settimeout(20)
    watcher.sendall(upgrade(WATCH_PATH, WATCH_SUBPROTOCOL))
    assert b" 101 " in watcher.recv(4096)
    watcher.sendall(frame(_SUBSCRIBE % name.encode()))
    return watcher


def _kernel_bytes() -> int:
    """Return what the kernel holds for all TCP sockets of this network namespace."""
    found = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert found is not None, "Linux says so"
    return int(found[1]) * resource.getpagesize()


class _Load:
    """Sends batches from a thread, at a steady rate, while in the block; ``bytes``: of the batches sent so far."""

    def __init__(self, device: RawDevice) -> None:
        self.bytes = 0
        self._device = device
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def _run(self) -> None:
        device, begun = self._device, time.monotonic()
        device.declare([Channel("vibration", None, ValueType.FLOAT)])
        while not self._ends.is_set():
            device.seq += 1
            # Irregular times, or the hub would send a step instead of a time for each.
            offsets = [n * 50 + n * n % 37 for n in range(READINGS)]
            values = [round(20 + n * 7919 % 1000 / 997, 4) for n in range(READINGS)]
            start_ns = _START_NS + device.seq * 10**9
            body = encode_json(Batch(device.seq, READINGS, start_ns, 1000, (Column("vibration", offsets, values),)))
            device.send(body)
            device.acked(device.seq)
            self.bytes += len(body)
            self._ends.wait(max(0.0, begun + device.seq / FRAMES_HZ - time.monotonic()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(20)


def main(arguments: list[str]) -> int:
    """Run from the command line and print one line."""
    parser = argparse.ArgumentParser(description="Watchers that never read.")
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--apart", action="store_true", help="subscriptions of different names: no shared bytes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-stalled-") as folder:
        stalled = run_stalled(Path(folder), options.watchers, is_apart=options.apart)
    print(stalled)
    print("".join(f"{fault}\n" for fault in stalled.faults), end="")
    return bool(stalled.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
