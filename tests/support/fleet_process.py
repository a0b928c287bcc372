"""A part of a large fleet as a child process: claims, connects, records, obeys, takes states in; killed by process id.

`FleetProcess` is the parent's side, ``python -m tests.support.fleet_process JOB`` the child's. Its devices are the
SDK's, each with its own spool, notes and state on disk, so a killed child is a group of devices that lost power for a
moment. Readings have their ledger; what else the devices did is in a witness file beside it, written with one system
call a line before the device goes on:

    C device                  its claim code became its token
    E device order            a command took effect, up to ``work_s`` after it came: a kill finds some in the middle
    S device state-as-JSON    a desired state was taken in
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from device_sdk.claim import claim
from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, drain, open_devices
from tests.chaos.limits import raise_handle_limit

ROOT = Path(__file__).resolve().parents[2]
UNDRAINED = 3
# Devices that claim at the same moment; the others of the process wait for them.
_CLAIMING = 16
# The hub lets 100 a second claim; a device that is told to wait does so.
_CLAIM_LIMIT_S = 300.0
# From an effect to its answer: long enough for a kill between the two.
_AFTER_S = 0.02
_DRAIN_S = 60.0
_EXIT_LIMIT_S = 60.0
# Socket, lock, journals of spool and notes.
_HANDLES_EACH = 10
_SPARE_HANDLES = 200


@dataclass(frozen=True, slots=True)
class Job:
    """What one child does.

    ``folder``: of spools, tokens, ledger and witness. ``every_s``: between two samples of a device. ``claim_only``: end
    when all have their tokens. ``mutant``: a fault of `mutants`.
    """

    name: str
    url: str
    codes: dict[str, str]
    folder: str
    every_s: float
    mutant: str = ""
    claim_only: bool = False

    @property
    def tokens(self) -> Path:
        """The file of tokens, one JSON list a line."""
        return Path(self.folder) / f"{self.name}.tokens"

    @property
    def witness(self) -> Path:
        """The file that says what the devices did."""
        return Path(self.folder) / f"{self.name}.witness"


@dataclass(slots=True)
class Witnessed:
    """What the devices of a group did, over all lives of its process. ``effects``: (order, device) → how often."""

    claimed: set[str] = field(default_factory=set)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)


class FleetProcess:
    """A group of devices: its process may be started, killed and started again."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.witnessed = Witnessed()
        self._read_to = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(job.folder) / f"{job.name}.log"

    def start(self, **changes: Any) -> "FleetProcess":
        """Start it, with changes of its job; it must not run."""
        assert self._process is None or self._process.poll() is not None, "it runs"
        path = Path(self.job.folder) / f"{self.job.name}.job"
        path.write_text(json.dumps(asdict(self.job) | changes), encoding="utf-8")
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.support.fleet_process", str(path)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)
        return self

    def look(self) -> Witnessed:
        """Read what is new in the witness file and return all of it."""
        if self.job.witness.exists():
            with self.job.witness.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._read_to += end
            for line in data[:end].decode().splitlines():
                self._take(line.split("\t"))
        return self.witnessed

    def wait(self, limit_s: float) -> int:
        """Wait for its end; return the exit code, `UNDRAINED` when it had to be killed."""
        assert self._process is not None, "start it first"
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return UNDRAINED

    def kill(self) -> int:
        """End it at once (SIGKILL); return its exit code, -9 unless it had ended by itself."""
        if self._process is None:
            return -signal.SIGKILL
        self._process.kill()
        return self._process.wait(10)

    def drain(self) -> int:
        """Ask it to deliver everything and end; return its exit code."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGTERM)
        return self.wait(_DRAIN_S + _EXIT_LIMIT_S)

    def log_tail(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-2000:]

    def _take(self, parts: list[str]) -> None:
        match parts:
            case ["C", device]:
                self.witnessed.claimed.add(device)
            case ["E", device, order]:
                self.witnessed.effects[order, device] += 1
            case ["S", device, state]:
                self.witnessed.states[device] = json.loads(state)


class _Life:
    """One life of the process: its devices and what they do."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._witness = os.open(job.witness, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self._stops: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: self._stops.append(number))

    def claim(self) -> dict[str, str]:
        """Return a token for each device; those that have none yet use their code."""
        tokens: dict[str, str] = {}
        if self.job.tokens.exists():
            tokens = dict(json.loads(line) for line in self.job.tokens.read_text("utf-8").splitlines())
        file = os.open(self.job.tokens, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

        def claim_one(name: str) -> tuple[str, str]:
            claimed = claim(self.job.url, self.job.codes[name], timeout_s=_CLAIM_LIMIT_S)
            assert claimed.device == name, f"the code of {name} is {claimed.device}'s"
            os.write(file, json.dumps([name, claimed.token]).encode() + b"\n")
            self._say("C", name)
            return name, claimed.token

        with ThreadPoolExecutor(_CLAIMING) as pool:
            tokens.update(pool.map(claim_one, [name for name in self.job.codes if name not in tokens]))
        os.close(file)
        return tokens

    async def run(self, tokens: Mapping[str, str]) -> int:
        """Be these devices until SIGTERM; return the exit code."""
        ledger = Ledger(Path(self.job.folder) / "ledger", self.job.name)
        link = Link(self.job.url, tokens, spool=Path(self.job.folder) / "spool")
        async with open_devices(link, tokens, ledger) as links:
            for name, one in links.items():
                self._obey(name, one)
            await self._record(list(links.values()))
            await drain(list(links.values()), _DRAIN_S)
            pending = sum(one.device.status.pending for one in links.values())
        ledger.close()
        return UNDRAINED if pending else 0

    def _obey(self, name: str, link: SimulatedLink) -> None:
        async def mark(order: str, work_s: float = 0.0) -> dict[str, str]:
            await asyncio.sleep(random.uniform(0, work_s))
            self._say("E", name, order)
            await asyncio.sleep(min(work_s, _AFTER_S))
            return {"order": order}

        async def take_in(state: dict[str, Any]) -> None:
            await asyncio.sleep(random.uniform(0, state.get("work_s", 0.0)))
            self._say("S", name, json.dumps(state))
            link.device.report(state, replace=True)

        link.device.command(mark)
        link.device.on_desired(take_in)

    async def _record(self, links: list[SimulatedLink]) -> None:
        """Devices take turns; when this machine is too slow the rate falls behind."""
        begun, number, per_second = time.monotonic(), 0, len(links) / self.job.every_s
        while not self._stops:
            due = min(int((time.monotonic() - begun) * per_second), number + len(links) // 10 + 1)
            for n in range(number, due):
                links[n % len(links)].record({"temperature": 20.0 + n % 7, "is_open": n % 2 == 0})
            number = max(number, due)
            await asyncio.sleep(0.01)

    def _say(self, *words: str) -> None:
        os.write(self._witness, "\t".join(words).encode() + b"\n")


def _main(job: Job) -> int:
    raise_handle_limit(len(job.codes) * _HANDLES_EACH + _SPARE_HANDLES)
    if job.mutant:
        from tests.support.mutants import apply

        apply(job.mutant)
    life = _Life(job)
    tokens = life.claim()
    return 0 if job.claim_only else asyncio.run(life.run(tokens))


if __name__ == "__main__":
    sys.exit(_main(Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))))
