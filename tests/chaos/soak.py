"""A soak: many devices for a long time, under random cuts and kills of the hub; memory and handles stand still.

``python -m tests.chaos.soak --seconds 1800 --seed 1``. The hub is killed in the first quarter only, so that one
process lives through the rest; connections are cut all the time. Its memory is judged over the second half, when the
ring and the databases' caches are full.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hub.cli.check import compare_with_hub
from hub.cli.enrol import enrol_in_folder
from hub.cli.rest import RestClient
from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, drain, open_devices
from simulators.proxy import FaultProxy
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.hub_process import HubProcess

DEVICES = 200
# Fast enough to fill ring and caches (16 MiB each) in minutes.
RATE_HZ = 5.0
LONG_S = 1800.0
MAX_SLOPE_MIB_PER_H = 1.0
# A run too short to fill the caches: at most those.
MAX_SHORT_GROWTH_MIB = 40.0
SPARE_HANDLES = 8
DRAIN_S = 60.0
# Mean seconds between faults, each of which hits every device: links that never last 30 s are left ever longer alone.
# A kill leaves the hub away for up to `_AWAY_S`.
_FAULT_S, _AWAY_S = 45.0, 2.0
_KILL_SHARE = 0.4
_SAMPLE_S = 1.0


@dataclass(slots=True)
class Soak:
    """What a run showed; ``samples``: (second, RSS in MiB, handles) of the hub in the second half."""

    devices: int
    seconds: float
    seed: int
    kills: int = 0
    cuts: int = 0
    pending: int = 0
    samples: list[tuple[float, float, int]] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(()))

    @property
    def slope_mib_per_h(self) -> float:
        """Return the slope of the straight line through the samples."""
        line = statistics.linear_regression([at for at, _, _ in self.samples], [rss for _, rss, _ in self.samples])
        return line.slope * 3600

    @property
    def growth_mib(self) -> float:
        """Return how much more the last sample is than the first."""
        return self.samples[-1][1] - self.samples[0][1]

    @property
    def handles(self) -> tuple[int, int]:
        """Return the most handles in the first and in the second half of the samples."""
        middle = len(self.samples) // 2
        first, second = self.samples[:middle], self.samples[middle:]
        return max(count for _, _, count in first), max(count for _, _, count in second)

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        if self.seconds >= LONG_S and self.slope_mib_per_h > MAX_SLOPE_MIB_PER_H:
            found.append(f"the hub grows by {self.slope_mib_per_h:.1f} MiB an hour; limit {MAX_SLOPE_MIB_PER_H:g}")
        if self.growth_mib > MAX_SHORT_GROWTH_MIB:
            found.append(f"the hub grew by {self.growth_mib:.1f} MiB; the limit is {MAX_SHORT_GROWTH_MIB:g}")
        before, after = self.handles
        if after > before + SPARE_HANDLES:
            found.append(f"{after} file handles, {before} before")
        if not self.kills or not self.cuts:
            found.append(f"{self.kills} kills and {self.cuts} cuts: this run shows nothing")
        if self.pending or not self.verdict.is_balanced:
            faulty = [finding for finding in self.verdict.findings if not finding.is_balanced]
            found.append(f"{self.pending} pending; the ledger does not balance: {faulty[:3]}")
        return [f"seed {self.seed}: {fault}" for fault in found]

    def __str__(self) -> str:
        total = self.verdict.total
        return (
            f"soak: seed {self.seed}, {self.devices} devices for {self.seconds:g} s, {self.kills} kills, {self.cuts} "
            f"cuts; hub {self.samples[-1][1]:.0f} MiB, {self.growth_mib:+.1f} in the second half "
            f"({self.slope_mib_per_h:+.1f} MiB an hour); handles at most {self.handles[0]}, then {self.handles[1]}; "
            f"{total('produced')} readings, {total('stored')} stored, {total('lost')} lost, {total('doubled')} doubled"
        )


def run_soak(folder: Path, devices: int, seconds: float, seed: int) -> Soak:
    """Run the whole of it with everything below ``folder``."""
    raise_handle_limit(4 * devices + 500)
    soak = Soak(devices, seconds, seed)
    names = [f"soak-{n}" for n in range(devices)]
    ledger = Ledger(folder / "ledger")
    with HubProcess(folder / "data") as hub, FaultProxy(("127.0.0.1", hub.port)) as proxy, _quiet():
        tokens = enrol_in_folder(hub.data, names)
        link = Link(f"ws://127.0.0.1:{proxy.port}", tokens, close_timeout_s=1.0)
        try:
            asyncio.run(_run(soak, hub, proxy, link, names, ledger))
        finally:
            ledger.close()
        soak.verdict = compare_with_hub(RestClient(hub.url), folder / "ledger")
    return soak


async def _run(
    soak: Soak, hub: HubProcess, proxy: FaultProxy, link: Link, names: Sequence[str], ledger: Ledger
) -> None:
    async with open_devices(link, names, ledger) as opened:
        links = list(opened.values())
        ends = time.monotonic() + soak.seconds
        work = [
            asyncio.create_task(_record(links, ends), name="record"),
            asyncio.create_task(_break(soak, hub, proxy, ends), name="break"),
            asyncio.create_task(_sample(soak, hub, ends), name="sample"),
        ]
        await asyncio.gather(*work)
        await drain(links, DRAIN_S)
        soak.pending = sum(one.device.status.pending for one in links)


async def _record(links: Sequence[SimulatedLink], ends: float) -> None:
    begun, done = time.monotonic(), 0
    while (now := time.monotonic()) < ends:
        due = int((now - begun) * RATE_HZ * len(links))
        for n in range(done, due):
            links[n % len(links)].record({"temperature": 20 + n % 100 / 7})
        done = due
        await asyncio.sleep(0.01)


async def _break(soak: Soak, hub: HubProcess, proxy: FaultProxy, ends: float) -> None:
    random, begun = Random(soak.seed), time.monotonic()
    fault_s = min(_FAULT_S, soak.seconds / 6)
    while True:
        pause_s, is_kill, away_s = random.expovariate(1 / fault_s), random.random() < _KILL_SHARE, random.random()
        if time.monotonic() + pause_s > ends:
            return
        await asyncio.sleep(pause_s)
        # The first fault is a kill, so that each run has one.
        if not soak.kills or (is_kill and time.monotonic() - begun < soak.seconds / 4):
            soak.kills += 1
            hub.kill()
            await asyncio.sleep(away_s * _AWAY_S)
            await asyncio.to_thread(hub.start)
        else:
            soak.cuts += 1
            await asyncio.to_thread(proxy.abort)


async def _sample(soak: Soak, hub: HubProcess, ends: float) -> None:
    begun = time.monotonic()
    await asyncio.sleep(soak.seconds / 2)
    while time.monotonic() < ends:
        soak.samples.append((time.monotonic() - begun, hub.rss_bytes / 2**20, hub.handle_count))
        await asyncio.sleep(_SAMPLE_S)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the devices' complaints about each cut out of the output."""
    logger = logging.getLogger("device_sdk.courier")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def main(arguments: list[str]) -> int:
    """Run from the command line and print one line."""
    parser = argparse.ArgumentParser(description="Many devices for long, under random cuts and kills.")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--seconds", type=float, default=LONG_S)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-soak-") as folder:
        soak = run_soak(Path(folder), options.devices, options.seconds, options.seed)
    print(soak)
    print("".join(f"{fault}\n" for fault in soak.faults), end="")
    return bool(soak.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
