"""A hub and its fleet as people meet them: enrolled from a CSV, claimed, asked who is there, commanded, rolled out to.

Owns: the hub's process, the groups of devices (`fleet_process`), what they were told, what was not as it should be.
Place: below the runs, which add faults and judge. Everything is asked through the command line or `Client`.
"""

import csv
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from device_sdk import Client, ConnectionLostError
from device_sdk.merge_patch import merged
from hub.auth import Identities
from hub.roles import Role
from tests.support.fleet_process import FleetProcess, Job
from tests.support.hub_process import ROOT, HubProcess, free_port

STEP_LIMIT_S = 240.0
# What the hub waits at most for answers, and for each device more.
_TIMEOUT_S, _TIMEOUT_EACH_S = 1.0, 0.002
_OFFLINE_SHARE = 0.1
# Samples of two readings a second, of all devices together: what 3,000 devices say each ten seconds.
_SAMPLES_PER_S = 300.0
# Two processes of devices for two cores.
_NEAR_GROUPS = 2
_OFFLINE_S = 3.0
POLL_S, LOOK_S = 0.25, 0.01
_BAD_ROWS = ("", "no name", "x" * 65, "duplicate")
_FINAL = frozenset({"done", "failed", "timed_out", "expired", "refused", "cancelled"})
ALL = "tag:fleet"
_T = TypeVar("_T")


class FleetWorld:
    """A hub and a fleet; the seed says who is offline.

    Args:
        folder: of everything but the hub's data.
        mutant: a fault of the devices.
        limit_s: how long anything is waited for.
    """

    def __init__(
        self, folder: Path, hub: HubProcess, devices: int, seed: int, *, mutant: str = "", limit_s: float = STEP_LIMIT_S
    ) -> None:
        self.folder = folder
        self.hub = hub
        self.random = Random(seed)
        self.names = [f"fleet-{n}" for n in range(1, devices + 1)]
        self.offline = set(self.random.sample(self.names, round(devices * _OFFLINE_SHARE)))
        self.token = _admin(hub.data)
        self.client = Client(hub.url, self.token)
        self.groups: dict[str, FleetProcess] = {}
        self.orders: dict[str, list[str]] = {}
        self.wanted: dict[str, dict[str, Any]] = {name: {} for name in self.names}
        self.times: dict[str, float] = {}
        self.troubles: list[str] = []
        self._mutant = mutant
        self._limit_s = limit_s

    @property
    def near(self) -> list[FleetProcess]:
        """The groups that are connected all the time."""
        return [group for name, group in self.groups.items() if name != "far"]

    def timed(self, what: str, step: Callable[[], _T]) -> _T:
        """Do a step and keep how long it took."""
        begun = time.monotonic()
        result = step()
        self.times[what] = time.monotonic() - begun
        print(f"{what} {self.times[what]:.1f} s", flush=True)
        return result

    def expect(self, is_so: bool, what: str) -> None:
        """Note a trouble unless it is so."""
        if not is_so:
            print(what, flush=True)
            self.troubles.append(what)

    # --- enrolling ----------------------------------------------------------------------------------------

    def enrol(self) -> dict[str, str]:
        """Enrol the fleet from a CSV file with bad rows in it, and describe it by the same file; return the codes."""
        table, report = self.folder / "fleet.csv", self.folder / "report.csv"
        rows = [(name, self.site_of(name), "fleet") for name in self.names]
        bad = [(self.names[0] if name == "duplicate" else name, "north", "fleet") for name in _BAD_ROWS]
        for row in bad:
            rows.insert(self.random.randrange(1, len(rows)), row)
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("device", "site", "tags"), *rows])
        code = self.timed(
            "enrol", lambda: self._run("devices", "import", str(table), "--claims", "--report", str(report))
        )
        self.expect(code == 1, f"import of a file with bad rows ended with {code}")
        with report.open(newline="", encoding="utf-8") as file:
            told = list(csv.DictReader(file))
        results = Counter(row["result"] for row in told)
        wanted = {"claimable": len(self.names), "bad_name": len(bad) - 1, "duplicate": 1}
        self.expect(results == wanted, f"the report of the import says {dict(results)}")
        self.timed("describe", lambda: self._run("metadata", "import", str(table), "--json"))
        return {row["device"]: row["code"] for row in told if row["code"]}

    def site_of(self, name: str) -> str:
        """Return where a device is."""
        return "north" if int(name.rpartition("-")[2]) % 2 else "south"

    def _run(self, *arguments: str) -> int:
        command = [sys.executable, "-m", "hub", *arguments, "--url", self.hub.url]
        environment = {**os.environ, "HUB_TOKEN": self.token}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=STEP_LIMIT_S, check=False
        )
        return done.returncode

    def claim(self, codes: Mapping[str, str], meanwhile: Callable[[], None]) -> None:
        """Let each device exchange its code for its token; ``meanwhile`` is called when they have begun."""
        near = [name for name in self.names if name not in self.offline]
        parts = {f"near-{n}": near[n::_NEAR_GROUPS] for n in range(_NEAR_GROUPS)} | {"far": sorted(self.offline)}
        every_s = len(self.names) / _SAMPLES_PER_S
        for name, devices in parts.items():
            own = {device: codes[device] for device in devices}
            job = Job(name, self.hub.ws_url, own, str(self.folder), every_s, self._mutant)
            self.groups[name] = FleetProcess(job).start(claim_only=True)
        meanwhile()
        for name, group in self.groups.items():
            code = group.wait(STEP_LIMIT_S)
            self.expect(code == 0, f"claiming ended with {code}: {name} {group.log_tail()[-300:]}")
            missing = group.job.codes.keys() - group.look().claimed
            self.expect(not missing, f"not claimed: {sorted(missing)[:5]}")
        tokens = {one["device"]: one["tokens"] for one in self.client.devices()}
        self.expect(tokens == dict.fromkeys(self.names, 1), "not every device has exactly one token")

    # --- who is there -------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start all devices and wait until they are connected and a command has reached each."""
        for group in self.groups.values():
            group.start()
        self.wait(lambda: len(self._connected()) == len(self.names), "all devices to connect")

    def go_offline(self) -> None:
        """Kill a tenth of the devices and let them live on without a network."""
        self.groups["far"].kill()
        self.groups["far"].start(url=f"ws://127.0.0.1:{free_port()}")
        self.wait(lambda: not self._connected() & self.offline, "the hub to miss who is offline")
        time.sleep(_OFFLINE_S)

    def come_back(self) -> None:
        """Give the tenth its network back, and wait until it has caught up with commands and states."""
        self.groups["far"].kill()
        self.groups["far"].start()
        self.settle(set(self.names))

    def settle(self, who: set[str]) -> None:
        """Wait until those devices have an outcome of each order and the state that they should have."""
        self.wait(lambda: not self._open_at(who), "all outcomes")
        self.wait(lambda: not self.drifted() & who, "all states")

    def _connected(self) -> set[str]:
        return {one["device"] for one in self.client.devices() if one["connected"]}

    def drifted(self) -> set[str]:
        """Return who is not as desired."""
        return {one["device"] for one in self.client.get("/v1/states")["devices"] if one["drift"] != "in_sync"}

    def _open_at(self, who: set[str]) -> bool:
        return any(
            result["device"] in who and result["state"] not in _FINAL
            for order in self.orders
            for result in self.results(order)
        )

    def results(self, order: str) -> list[dict[str, Any]]:
        """Return what the hub knows of an order."""
        found: list[dict[str, Any]] = self.client.get(f"/v1/commands/{order}")["results"]
        return found

    def wait(self, condition: Callable[[], bool], what: str, pause_s: float = POLL_S) -> None:
        """Return when it is so; AssertionError when it takes too long."""
        limit = time.monotonic() + self._limit_s
        while not condition():
            assert time.monotonic() < limit, f"waited {self._limit_s:g} s in vain for {what}"
            time.sleep(pause_s)

    # --- commanding ---------------------------------------------------------------------------------------

    def order(self, order: str, selector: str, expires: str | None = None, work_s: float = 0.0) -> list[dict[str, Any]]:
        """Command the devices of a selector by `Client.command`; ask again with the same id while there is no hub."""
        self.orders[order] = [name for name in self.names if selector in (ALL, f"site:{self.site_of(name)}")]
        timeout_s = _TIMEOUT_S + _TIMEOUT_EACH_S * len(self.names)
        return self._until_answered(lambda: self.client.command(
            selector, "mark", order=order, work_s=work_s, id=order, timeout_s=timeout_s,
            queue=expires is not None, expires=expires,
        ))  # fmt: skip

    def roll_out(self, selector: str, patch: dict[str, Any], names: list[str]) -> None:
        """Change the desired state of the devices of a selector, which are these."""
        for name in names:
            self.wanted[name] = merged(self.wanted[name], patch)
        outcomes = self._until_answered(lambda: self.client.set_desired(selector, patch))
        self.expect({one["device"] for one in outcomes} == set(names), f"roll-out to {selector}: others than meant")
        self.expect(not any(one["error"] for one in outcomes), f"roll-out to {selector}: errors")

    def _until_answered(self, ask: Callable[[], _T]) -> _T:
        limit = time.monotonic() + self._limit_s
        while True:
            try:
                return ask()
            except ConnectionLostError:
                assert time.monotonic() < limit, f"no hub for {self._limit_s:g} s"
                time.sleep(POLL_S)


def _admin(data: Path) -> str:
    with closing(Identities(data / "identities.sqlite3")) as identities:
        return identities.add_token(Role.ADMIN, ("**",), "fleet")[1]
