"""One device invents 100,000 channels: the hub keeps 200 of them, rejects the rest by reason, and stays small.

``python -m tests.chaos.channels``. The names come both ways that a device has: declared in schemas, and as columns
of batches without any declaration. Healthy devices record meanwhile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_sdk.columns import encode_batch, to_columns
from device_sdk.errors import Reason
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import MAX_CHANNELS
from hub.cli.enrol import enrol_in_folder
from simulators.verdict import Verdict
from tests.support.bystander import Bystander, Measured
from tests.support.hub_process import HubProcess
from tests.support.raw_socket import RawDevice

CHANNELS = 100_000
# What the hub may grow by: a name that was refused must leave nothing behind.
MAX_GROWTH_MIB = 5.0
_PER_SCHEMA, _PER_BATCH = 1000, 500
_WARM_UP = 2000
_START_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Invented:
    """What the hub made of the names. ``rejected``: readings, by reason, as the hub's audit has them."""

    names: int
    kept: int
    acked_rejected: int
    rejected: dict[str, int]
    growth_mib: float
    seconds: float
    bystander: Measured
    verdict: Verdict

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        if self.kept != MAX_CHANNELS:
            found.append(f"{self.kept} channels were kept; the cap is {MAX_CHANNELS}")
        expected = self.names - MAX_CHANNELS
        if self.acked_rejected != expected or self.rejected != {Reason.CHANNEL_LIMIT: expected}:
            found.append(f"{expected} readings are over the limit: {self.acked_rejected} acked so, {self.rejected}")
        if self.growth_mib > MAX_GROWTH_MIB:
            found.append(f"the hub grew by {self.growth_mib:.1f} MiB; the limit is {MAX_GROWTH_MIB:g}")
        if not self.verdict.is_balanced or not self.bystander.ack.count:
            found.append(f"the healthy devices suffered: {self.bystander.ack}, {self.verdict.findings}")
        return found

    def __str__(self) -> str:
        return (
            f"channels: {self.names} names in {self.seconds:.1f} s, {self.kept} kept, rejected {self.rejected}; hub "
            f"+{self.growth_mib:.1f} MiB; healthy devices' acks {self.bystander.ack}, "
            f"balanced {self.verdict.is_balanced}; no randomness, no seed"
        )


def run_channels(folder: Path, count: int) -> Invented:
    """Run the whole of it with everything below ``folder``."""
    names = [f"invented-{n}" for n in range(count)]
    with HubProcess(folder / "data") as hub, Bystander(hub, folder / "ledger") as bystander:
        token = enrol_in_folder(hub.data, ["inventor"])["inventor"]
        with RawDevice(hub, "inventor", token) as device:
            # The first names and messages of full size come before the measurement: they are allowed to cost.
            _declare(device, names[:_WARM_UP])
            rejected = _record(device, names[:_WARM_UP])
            before, begun = hub.rss_bytes, time.monotonic()
            bystander.reset()
            _declare(device, names)
            rejected += _record(device, names[_WARM_UP:])
            took, growth = time.monotonic() - begun, (hub.rss_bytes - before) / 2**20
        measured = bystander.taken().measured
        kept = len(hub.get("/v1/channels?match=inventor/**")["channels"])
        reasons: dict[str, int] = {}
        for entry in hub.get("/v1/audit?device=inventor")["rejections"]:
            reasons[entry["reason"]] = reasons.get(entry["reason"], 0) + entry["count"]
        return Invented(count, kept, rejected, reasons, growth, took, measured, bystander.finish())


def _declare(device: RawDevice, names: Sequence[str]) -> None:
    for at in range(0, len(names), _PER_SCHEMA):
        device.declare([Channel(name, "Cel", ValueType.FLOAT) for name in names[at : at + _PER_SCHEMA]])


def _record(device: RawDevice, names: Sequence[str]) -> int:
    """Send one reading of each channel; return how many the hub says it rejected of them."""
    before = after = device.rejected
    for at in range(0, len(names), _PER_BATCH):
        device.seq += 1
        readings = [(name, _START_NS + device.seq, 1.5) for name in names[at : at + _PER_BATCH]]
        device.send(encode_batch(to_columns(device.seq, readings)))
        after = device.acked(device.seq).get("rejected_total", 0)
    device.rejected = after
    return after - before


def main(arguments: list[str]) -> int:
    """Run from the command line and print one line."""
    parser = argparse.ArgumentParser(description="One device invents channels without end.")
    parser.add_argument("--channels", type=int, default=CHANNELS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-channels-") as folder:
        invented = run_channels(Path(folder), options.channels)
    print(invented)
    print("".join(f"{fault}\n" for fault in invented.faults), end="")
    return bool(invented.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
