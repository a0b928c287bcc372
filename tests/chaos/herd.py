"""A herd: many devices connected to one hub, which is killed and comes back; all return without a storm.

``python -m tests.chaos.herd --devices 2000``. Real SDK devices in this process, a real hub beside it, killed with
SIGKILL while they record. Every reading is in a ledger; when each device began the connection that brought it back is
counted in tenths of seconds. A hub that binds its port before it takes connections finds a queue of them, which it
welcomes as fast as it can: that is no storm, and when they began is what the devices decide.
"""

import argparse
import asyncio
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.cli.check import compare_with_hub
from hub.cli.enrol import enrol_in_folder
from hub.cli.rest import RestClient
from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, drain, open_devices
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.hub_process import HubProcess, wait_for

DEVICES = 2000
# The promise: all acked again this long after the kill.
ACKED_LIMIT_S = 60.0
BIN_S = 0.1
# Full jitter over the first half second is a fifth of the devices in each tenth; twice that leaves room for chance
# and for a machine that was busy for a moment. A storm would be nearly all of them in one.
MAX_SHARE_PER_BIN = 0.4
CONNECT_LIMIT_S = 60.0
# The device's socket, the hub's, and what both have besides.
_SPARE_HANDLES = 500


@dataclass(frozen=True, slots=True)
class Herd:
    """What happened. Times are seconds since the kill; ``returns``: tenth of a second → devices that began to."""

    devices: int
    connected_s: float
    listening_s: float
    online_s: float
    acked_s: float
    returns: Mapping[int, int]
    rss_mib: float
    verdict: Verdict

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        if not self.verdict.is_balanced:
            found.append(f"the ledger does not balance: {[f for f in self.verdict.findings if not f.is_balanced][:5]}")
        if self.acked_s > ACKED_LIMIT_S:
            found.append(f"all acked after {self.acked_s:.1f} s; the limit is {ACKED_LIMIT_S:g} s")
        if max(self.returns.values()) > self.devices * MAX_SHARE_PER_BIN:
            found.append(f"a storm: {max(self.returns.values())} of {self.devices} came back within {BIN_S} s")
        return found

    def __str__(self) -> str:
        total = self.verdict.total
        return (
            f"herd: {self.devices} devices connected in {self.connected_s:.1f} s; hub killed, listening after "
            f"{self.listening_s:.1f} s, all online after {self.online_s:.1f} s, all acked after {self.acked_s:.1f} s; "
            f"at most {max(self.returns.values())} came back in {BIN_S} s; hub {self.rss_mib:.0f} MiB; "
            f"{total('produced')} readings, {total('lost')} lost, {total('doubled')} doubled; random jitter, no seed"
        )

    def histogram(self) -> str:
        """Return one line for each tenth of a second in which devices came back."""
        scale = max(1, max(self.returns.values()) // 60)
        return "\n".join(
            f"{bin_ * BIN_S:6.1f} s {self.returns[bin_]:5d} {'#' * (self.returns[bin_] // scale)}"
            for bin_ in sorted(self.returns)
        )


def run_herd(folder: Path, devices: int) -> Herd:
    """Run the whole of it with everything below ``folder``."""
    raise_handle_limit(2 * devices + _SPARE_HANDLES)
    names = [f"herd-{n}" for n in range(devices)]
    ledger = Ledger(folder / "ledger")
    with _Returns() as returns, HubProcess(folder / "data") as hub:
        link = Link(hub.ws_url, enrol_in_folder(hub.data, names), close_timeout_s=1.0)
        try:
            figures = asyncio.run(_kill_and_return(hub, link, names, ledger, returns))
        finally:
            ledger.close()
        verdict = compare_with_hub(RestClient(hub.url), folder / "ledger")
        return Herd(devices, *figures, returns.histogram(), hub.rss_bytes / 2**20, verdict)


async def _kill_and_return(
    hub: HubProcess, link: Link, names: list[str], ledger: Ledger, returns: "_Returns"
) -> tuple[float, float, float, float]:
    begun = time.monotonic()
    async with open_devices(link, names, ledger) as opened:
        links = list(opened.values())
        _record_round(links, 0)
        await drain(links, CONNECT_LIMIT_S)
        assert all(one.device.status.pending == 0 for one in links), "the herd did not get connected"
        connected_s = time.monotonic() - begun
        # Frames of this round are on their way, some acked, when the hub dies.
        _record_round(links, 1)
        await asyncio.sleep(0.1)
        hub.kill()
        killed = returns.begin()
        _record_round(links, 2)
        await asyncio.to_thread(hub.start)
        listening_s = time.monotonic() - killed
        _record_round(links, 3)
        await wait_for(lambda: len(returns.first) == len(links), CONNECT_LIMIT_S + 30, "all devices to come back")
        online_s = max(returns.first.values()) - killed
        await wait_for(lambda: all(one.device.status.pending == 0 for one in links), 60, "the last acks")
        return connected_s, listening_s, online_s, time.monotonic() - killed


def _record_round(links: list[SimulatedLink], n: int) -> None:
    for link in links:
        link.record({"temperature": 20.0 + n, "door": n % 2 == 0})


class _Returns(logging.Handler):
    """Hears in the SDK's log when each device connects and is online; its warnings stay out of the output.

    ``first``: when each was online again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, float] = {}
        self._connecting: dict[str, float] = {}
        self._came: dict[str, float] = {}
        self._begun = time.monotonic()

    def begin(self) -> float:
        """Count from now on; return now."""
        self.first.clear()
        self._came.clear()
        self._begun = time.monotonic()
        return self._begun

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line of the log."""
        found = re.match(r"(connecting|online) device=(\S+)", record.getMessage())
        if found is None:
            return
        what, device = found.groups()
        if what == "connecting":
            self._connecting[device] = time.monotonic()
        elif device not in self.first:
            self.first[device] = time.monotonic()
            self._came[device] = self._connecting[device]

    def histogram(self) -> Counter[int]:
        """Return how many began to come back in which tenth of a second."""
        return Counter(int((at - self._begun) / BIN_S) for at in self._came.values())

    def __enter__(self) -> "_Returns":
        logger = logging.getLogger("device_sdk.courier")
        self._before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("device_sdk.courier")
        logger.removeHandler(self)
        logger.level, logger.propagate = self._before


def main(arguments: list[str]) -> int:
    """Run from the command line; print the histogram and one line."""
    parser = argparse.ArgumentParser(description="Many devices, one hub, killed: all come back.")
    parser.add_argument("--devices", type=int, default=DEVICES)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-herd-") as folder:
        herd = run_herd(Path(folder), options.devices)
    print(herd.histogram())
    print(herd)
    print("".join(f"{fault}\n" for fault in herd.faults), end="")
    return bool(herd.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
