"""A hub and groups of devices that may be killed, cut and damaged, and the verdict of the witness outside.

Every process is real; the ledger is outside the system under test (`simulators.ledger`). A run differs from another
only in its faults; `World.finish` ends all of them alike: everything drains, then the ledger is compared with the hub.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from hub.auth import Identities
from hub.cli.check import compare_with_hub
from hub.cli.rest import RestClient
from simulators.ledger import load
from simulators.verdict import Verdict, parse_iso_ns
from tests.support.device_process import DeviceProcess, Job
from tests.support.hub_process import HubProcess

KILLED = -9
DRAIN_S = 30.0
# How long a group that is started only to drain records.
LAST_S = 0.1


@dataclass(slots=True)
class Outcome:
    """What a run has shown; counts are readings but ``acked_lost`` and ``reused``: frames.

    ``declared``: not stored, and explained by a gap or rejection. ``troubles``: what no run may show: a process that
    ended by itself, a device that could not drain, an audit that is not complete.
    """

    faults: int
    seconds: float
    produced: int = 0
    stored: int = 0
    declared: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    unwitnessed: int = 0
    acked_lost: int = 0
    reused: int = 0
    is_balanced: bool = False
    reasons: tuple[str, ...] = ()
    troubles: list[str] = field(default_factory=list)

    @property
    def is_green(self) -> bool:
        """Tell whether the promise was kept."""
        return self.is_balanced and not self.troubles

    def __str__(self) -> str:
        counts = ("produced", "stored", "declared", "lost", "doubled", "altered", "unwitnessed", "acked_lost", "reused")
        figures = " ".join(f"{name}={getattr(self, name)}" for name in counts)
        troubles = f" troubles={self.troubles}" if self.troubles else ""
        return f"{'green' if self.is_green else 'RED'} faults={self.faults} {figures} {self.seconds:.1f} s{troubles}"


class World:
    """One hub and its devices in a folder. Starts nothing by itself.

    Args:
        folder: everything that is not on a disk of its own: ledger, logs, data and spools.
        groups: name of a device process → names of its devices.
        hub_mutant, job: faults of the programs, and how devices record (`Job`; who and where is filled in).
        data, spool: where the hub's data and the devices' spools lie instead.
        options: of the hub's command line.
        url: where devices connect, if not to the hub by WebSocket.
    """

    def __init__(
        self,
        folder: Path,
        groups: Mapping[str, tuple[str, ...]],
        *,
        hub_mutant: str = "",
        job: dict[str, Any] | None = None,
        data: Path | None = None,
        spool: Path | None = None,
        options: tuple[str, ...] = (),
        url: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = folder / "ledger"
        self.spool = spool or folder / "spool"
        self.faults = 0
        self.troubles: list[str] = []
        self._begun = time.monotonic()
        self._log = folder / "devices.log"
        data = data or folder / "data"
        data.mkdir(exist_ok=True)
        program = ("-m", "tests.support.mutants", hub_mutant) if hub_mutant else ("-m", "hub")
        self.hub = HubProcess(data, *options, program=program)
        self.hub.log = folder / "hub.log"
        job = job or {}
        if hub_mutant or job.get("mutant"):
            # Frames that a device keeps would repair what the fault breaks.
            job = job | {"retain_acked": 0}
        tokens = _enrol(data, [name for names in groups.values() for name in names])
        self._jobs = {
            group: Job(
                group,
                url or self.hub.ws_url,
                {name: tokens[name] for name in names},
                str(self.spool),
                str(self.ledger),
                **job,
            )
            for group, names in groups.items()
        }
        self.processes: dict[str, DeviceProcess] = {}

    def start(self) -> None:
        """Start the hub and every group."""
        self.hub.start()
        for group in self._jobs:
            self.start_group(group)

    def start_group(self, group: str, **changes: Any) -> DeviceProcess:
        """Start a group's process, which must not run."""
        process = self.processes[group] = DeviceProcess(replace(self._jobs[group], **changes), self._log)
        return process

    def kill_hub(self, *, may_have_ended: bool = False) -> None:
        """Kill the hub (SIGKILL); one whose disk is gone may have ended by itself."""
        if self.hub.exit_code not in (None, KILLED) and not may_have_ended:
            self.troubles.append(f"the hub ended by itself: {self.hub.exit_code}")
        self.hub.kill()

    def kill_group(self, group: str) -> None:
        """Kill one device process (SIGKILL)."""
        code = self.processes.pop(group).kill()
        if code != KILLED:
            self.troubles.append(f"devices {group} ended by themselves: {code}")

    def seen(self, kind: str, group: str | None = None) -> int:
        """Return how many lines of a kind the running witnesses have written, of one group or of all."""
        return sum(process.seen(kind) for name, process in self.processes.items() if group in (None, name))

    def wait_seen(self, kind: str, more: int = 1, group: str | None = None, limit_s: float = 20.0) -> bool:
        """Wait until ``more`` new lines of a kind are there; False when the limit came first."""
        before, limit = self.seen(kind, group), time.monotonic() + limit_s
        while self.seen(kind, group) < before + more:
            if time.monotonic() > limit:
                return False
            time.sleep(0.001)
        return True

    def drain(self, group: str) -> None:
        """Let a running group deliver everything and end."""
        if not self.seen("R", group):  # it may not listen to signals yet
            self.wait_seen("R", group=group)
        process = self.processes.pop(group)
        code = process.drain()
        if code:
            self.troubles.append(f"devices {group} did not drain: {code} {process.log_tail()[-300:]}")

    def missing(self) -> list[tuple[str, int]]:
        """Return (device, time_ns) of every reading that was produced and is not stored; call after `finish`."""
        stored = set()
        with RestClient(self.hub.url).stream("/v1/export", {"format": "ndjson", "match": ["**"]}) as answer:
            for row in map(json.loads, answer):
                stored.add((row["device"], row["channel"], parse_iso_ns(row["time"])))
        return [
            (device, time_ns)
            for device, witness in load(self.ledger).items()
            for channel, instants in witness.readings.items()
            for time_ns in instants
            if (device, channel, time_ns) not in stored
        ]

    def finish(self, *, may_have: tuple[str, ...] = (), may_reuse: bool = False, **changes: Any) -> Outcome:
        """Bring everything up once more, drain it, and compare the ledger with the hub.

        Args:
            may_have: reasons of gaps that this run explains; any other gap is a trouble.
            may_reuse: this run lets two histories of one spool use the same numbers.
            changes: of the job of groups that are started for it.
        """
        try:
            if self.hub.exit_code is not None:
                self.hub.launch()
            self.hub.wait_ready()
            for group in self._jobs.keys() - self.processes.keys():
                self.start_group(group, **{"duration_s": LAST_S, **changes})
            for group in list(self.processes):
                self.drain(group)
            client = RestClient(self.hub.url)
            verdict = compare_with_hub(client, self.ledger)
            return self._outcome(verdict, client.get("/v1/audit"), may_have, may_reuse)
        except (AssertionError, OSError) as error:
            self.troubles.append(str(error))
            return Outcome(self.faults, time.monotonic() - self._begun, troubles=self.troubles)

    def _outcome(self, verdict: Verdict, audit: dict[str, Any], may_have: tuple[str, ...], may_reuse: bool) -> Outcome:
        if may_reuse:
            for finding in verdict.findings:
                finding.reused = 0
        reasons = tuple(sorted({gap["reason"] for gap in audit["gaps"]}))
        troubles = [f"a gap {reason}" for reason in reasons if reason not in may_have]
        troubles += [f"not complete: {s}" for s in audit["streams"] if not s["complete"] and not may_have]
        troubles += [f"unbalanced: {s}" for s in audit["series"] if s["accepted"] - s["superseded"] != s["rows"]]
        troubles += [f"{finding.device}: {text}" for finding in verdict.findings for text in finding.examples[:1]]
        counts = ("produced", "stored", "declared", "lost", "doubled", "altered", "unwitnessed", "acked_lost", "reused")
        return Outcome(
            self.faults,
            time.monotonic() - self._begun,
            is_balanced=verdict.is_balanced,
            reasons=reasons,
            troubles=[*self.troubles, *troubles],
            **{name: verdict.total(name) for name in counts},
        )

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
        self.hub.kill()


def _enrol(data: Path, names: list[str]) -> dict[str, str]:
    identities = Identities(data / "identities.sqlite3")
    try:
        return {name: identities.add_device(name) for name in names}
    finally:
        identities.close()
