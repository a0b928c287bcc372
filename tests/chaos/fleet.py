"""A fleet from its CSV to its last answer: enrolled, claimed, commanded, rolled out; some offline, the hub killed.

``python -m tests.chaos.fleet --devices 3000 --seed 1``. A hub, the command line and the SDK's devices, all as processes
of their own. A tenth of the devices is offline while commands are given and states are rolled out, and catches up; the
hub is killed in the middle of a command and of a roll-out, and a part of the devices in the middle of a command.
Outside witnesses say how often a command took effect at a device, which state it took in last, and which readings it
recorded. Devices' files are on a RAM disk where there is one: 3,000 devices have 3,000 disks, this machine has one.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from device_sdk import Client, ConnectionLostError
from device_sdk.merge_patch import merged
from hub.auth import Identities
from hub.cli.check import compare_with_hub
from hub.cli.rest import RestClient
from hub.roles import Role
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.fleet_process import FleetProcess, Job
from tests.support.hub_process import ROOT, HubProcess, free_port

DEVICES = 3000
# The promise: every device of a selector is listed with its answer, or why there is none, so soon.
LISTED_LIMIT_S = 10.0
# What the hub waits at most for answers in those, and for each device more: the rest is asking and telling of it.
_TIMEOUT_S, _TIMEOUT_EACH_S = 1.0, 0.002
# How long a command and a state take that a kill is to find in the middle.
_WORK_S = 1.0
_OFFLINE_SHARE = 0.1
_PATCHED_SHARE = 0.02
# Samples of two readings a second, of all devices together: what 3,000 devices say each ten seconds.
_SAMPLES_PER_S = 300.0
# Two processes of devices for two cores.
_NEAR_GROUPS = 2
_OFFLINE_S = 3.0
_STEP_LIMIT_S = 240.0
_POLL_S, _LOOK_S = 0.25, 0.01
_BAD_ROWS = ("", "no name", "x" * 65, "duplicate")
_FINAL = frozenset({"done", "failed", "timed_out", "expired", "refused", "cancelled"})
_SHM = Path("/dev/shm")
_T = TypeVar("_T")


@dataclass(slots=True)
class Fleet:
    """What a run showed; times in seconds, memory in MiB."""

    devices: int
    seed: int
    times: dict[str, float] = field(default_factory=dict)
    answers_s: dict[str, list[float]] = field(default_factory=dict)
    states: dict[str, Counter[str]] = field(default_factory=dict)
    effects: int = 0
    kills: int = 0
    rss_mib: float = 0.0
    verdict: Verdict = field(default_factory=lambda: Verdict(()))
    troubles: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = list(self.troubles)
        if not self.verdict.is_balanced:
            found.append(f"the ledger does not balance: {[f for f in self.verdict.findings if not f.is_balanced][:5]}")
        if not self.verdict.total("produced"):
            found.append("no readings: this run shows nothing")
        found += [
            f"{what} took {self.times[what]:.1f} s; the limit is {LISTED_LIMIT_S:g} s"
            for what in ("ask", "queue")
            if self.times[what] > LISTED_LIMIT_S
        ]
        return found

    def __str__(self) -> str:
        times = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.times.items())
        answers = "; ".join(
            f"{order}: {dict(self.states[order])}, answers p50 {_share(of, 0.5):.2f} p99 {_share(of, 0.99):.2f} "
            f"max {max(of):.2f} s"
            for order, of in self.answers_s.items()
        )
        total = self.verdict.total
        return (
            f"fleet: {self.devices} devices, seed {self.seed}: {times}. {answers}. {self.kills} kills, {self.effects} "
            f"effects; {total('produced')} readings, {total('lost')} lost, {total('doubled')} doubled; "
            f"hub {self.rss_mib:.0f} MiB"
        )


def _admin(data: Path) -> str:
    with closing(Identities(data / "identities.sqlite3")) as identities:
        return identities.add_token(Role.ADMIN, ("**",), "fleet")[1]


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class _Run:
    """One run: the hub, the groups of devices, what they were told."""

    def __init__(self, folder: Path, hub: HubProcess, devices: int, seed: int) -> None:
        self.folder = folder
        self.hub = hub
        self.random = Random(seed)
        self.names = [f"fleet-{n}" for n in range(1, devices + 1)]
        self.offline = set(self.random.sample(self.names, round(devices * _OFFLINE_SHARE)))
        self.token = _admin(hub.data)
        self.client = Client(hub.url, self.token)
        self.fleet = Fleet(devices, seed)
        self.groups: dict[str, FleetProcess] = {}
        self.orders: dict[str, list[str]] = {}
        self.wanted: dict[str, dict[str, Any]] = {name: {} for name in self.names}

    @property
    def near(self) -> list[FleetProcess]:
        """The groups that are connected all the time."""
        return [group for name, group in self.groups.items() if name != "far"]

    def timed(self, what: str, step: Callable[[], _T]) -> _T:
        """Do a step and keep how long it took."""
        begun = time.monotonic()
        result = step()
        self.fleet.times[what] = time.monotonic() - begun
        print(f"{what} {self.fleet.times[what]:.1f} s", flush=True)
        return result

    def expect(self, is_so: bool, what: str) -> None:
        """Note a trouble unless it is so."""
        if not is_so:
            print(what, flush=True)
            self.fleet.troubles.append(what)

    # --- enrolling ----------------------------------------------------------------------------------------

    def enrol(self) -> dict[str, str]:
        """Enrol the fleet from a CSV file with bad rows in it, and describe it by the same file; return the codes."""
        table, report = self.folder / "fleet.csv", self.folder / "report.csv"
        rows = [(name, self._site(name), "fleet") for name in self.names]
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

    def _site(self, name: str) -> str:
        return "north" if int(name.rpartition("-")[2]) % 2 else "south"

    def _run(self, *arguments: str) -> int:
        command = [sys.executable, "-m", "hub", *arguments, "--url", self.hub.url]
        environment = {**os.environ, "HUB_TOKEN": self.token}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=_STEP_LIMIT_S, check=False
        )
        return done.returncode

    def claim(self, codes: Mapping[str, str]) -> None:
        """Let each device exchange its code for its token."""
        near = [name for name in self.names if name not in self.offline]
        parts = {f"near-{n}": near[n::_NEAR_GROUPS] for n in range(_NEAR_GROUPS)} | {"far": sorted(self.offline)}
        every_s = len(self.names) / _SAMPLES_PER_S
        for name, devices in parts.items():
            job = Job(name, self.hub.ws_url, {one: codes[one] for one in devices}, str(self.folder), every_s)
            self.groups[name] = FleetProcess(job).start(claim_only=True)
        for name, group in self.groups.items():
            code = group.wait(_STEP_LIMIT_S)
            self.expect(code == 0, f"claiming ended with {code}: {name} {group.log_tail()[-300:]}")
            missing = group.job.codes.keys() - group.look().claimed
            self.expect(not missing, f"not claimed: {sorted(missing)[:5]}")

    # --- who is there -------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start all devices and wait until they are connected and a command has reached each."""
        for group in self.groups.values():
            group.start()
        self._wait(lambda: len(self._connected()) == len(self.names), "all devices to connect")

    def go_offline(self) -> None:
        """Kill a tenth of the devices and let them live on without a network."""
        self.groups["far"].kill()
        self.groups["far"].start(url=f"ws://127.0.0.1:{free_port()}")
        self._wait(lambda: not self._connected() & self.offline, "the hub to miss who is offline")
        time.sleep(_OFFLINE_S)

    def come_back(self) -> None:
        """Give the tenth its network back, and wait until it has caught up with commands and states."""
        self.groups["far"].kill()
        self.groups["far"].start()
        self.settle(set(self.names))

    def settle(self, who: set[str]) -> None:
        """Wait until those devices have an outcome of each order and the state that they should have."""
        self._wait(lambda: not self._open_at(who), "all outcomes")
        self._wait(lambda: not self._drifted() & who, "all states")

    def _connected(self) -> set[str]:
        return {one["device"] for one in self.client.devices() if one["connected"]}

    def _drifted(self) -> set[str]:
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

    def _wait(self, condition: Callable[[], bool], what: str, pause_s: float = _POLL_S) -> None:
        limit = time.monotonic() + _STEP_LIMIT_S
        while not condition():
            assert time.monotonic() < limit, f"waited {_STEP_LIMIT_S:g} s in vain for {what}"
            time.sleep(pause_s)

    # --- commanding ---------------------------------------------------------------------------------------

    def order(self, order: str, selector: str, *, is_queued: bool, work_s: float = 0.0) -> list[dict[str, Any]]:
        """Command the devices of a selector by `Client.command`; ask again with the same id while there is no hub."""
        self.orders[order] = [name for name in self.names if selector in ("tag:fleet", f"site:{self._site(name)}")]
        expires = "1h" if is_queued else None
        timeout_s = _TIMEOUT_S + _TIMEOUT_EACH_S * len(self.names)
        return self._until_answered(lambda: self.client.command(
            selector, "mark", order=order, work_s=work_s, id=order, timeout_s=timeout_s, queue=is_queued,
            expires=expires,
        ))  # fmt: skip

    def roll_out(self, selector: str, patch: dict[str, Any], names: list[str]) -> None:
        """Change the desired state of the devices of a selector, which are these."""
        for name in names:
            self.wanted[name] = merged(self.wanted[name], patch)
        outcomes = self._until_answered(lambda: self.client.set_desired(selector, patch))
        self.expect({one["device"] for one in outcomes} == set(names), f"roll-out to {selector}: others than meant")
        self.expect(not any(one["error"] for one in outcomes), f"roll-out to {selector}: errors")

    def _until_answered(self, ask: Callable[[], _T]) -> _T:
        limit = time.monotonic() + _STEP_LIMIT_S
        while True:
            try:
                return ask()
            except ConnectionLostError:
                assert time.monotonic() < limit, f"no hub for {_STEP_LIMIT_S:g} s"
                time.sleep(_POLL_S)

    def listed(self, what: str, order: str, *, is_queued: bool) -> None:
        """Give an order while all is quiet: who is there answers, who is not is listed so."""
        answer = self.timed(what, lambda: self.order(order, "tag:fleet", is_queued=is_queued))
        self.expect([one["device"] for one in answer] == self.names, f"{order}: not every device is listed")
        away = "queued" if is_queued else "refused"
        wrong = [one for one in answer if one["state"] != (away if one["device"] in self.offline else "done")]
        self.expect(not wrong, f"{order}: {wrong[:3]}")
        told = self.client.get(f"/v1/commands/{order}")
        times = [
            (int(one["ended_ns"]) - int(told["made_ns"])) / 1e9 for one in told["results"] if one["state"] == "done"
        ]
        self.fleet.answers_s[order] = times

    # --- killing ------------------------------------------------------------------------------------------

    def kill_hub_when(self, share: float, count: Callable[[], int]) -> None:
        """Kill the hub when that share of who is there has done it, and start it again."""
        self._wait_for_share(share, count)
        self.hub.kill()
        self.hub.start()
        self.fleet.kills += 1

    def _wait_for_share(self, share: float, count: Callable[[], int]) -> None:
        least = share * (len(self.names) - len(self.offline))
        self._wait(lambda: count() >= least, "the moment of a kill", _LOOK_S)
        done = count()
        self.expect(done < len(self.names) - len(self.offline), f"the kill came too late: {done} had done it")
        print(f"killed at {done}", flush=True)

    def effects_of(self, order: str) -> int:
        """Return how many devices that are there have witnessed its effect."""
        return sum(1 for group in self.near for one, _ in group.look().effects if one == order)

    def taken_in(self, key: str, value: object) -> int:
        """Return how many devices that are there have witnessed a state with this."""
        return sum(1 for group in self.near for state in group.look().states.values() if state.get(key) == value)

    def command_and_kill(self) -> None:
        """Kill the hub in the middle of a command, then a part of the devices in the middle of another."""
        self._beside(
            lambda: self.order("killed-hub", "tag:fleet", is_queued=True, work_s=_WORK_S),
            lambda: self.kill_hub_when(self.random.uniform(0.2, 0.7), lambda: self.effects_of("killed-hub")),
        )
        self._beside(
            lambda: self.order("killed-devices", "site:north", is_queued=True, work_s=_WORK_S),
            lambda: self._kill_group(self.groups["near-0"], "killed-devices"),
        )

    def _kill_group(self, group: FleetProcess, order: str) -> None:
        least = self.random.uniform(0.05, 0.3) * len(group.job.codes)
        count = lambda: sum(1 for one, _ in group.look().effects if one == order)  # noqa: E731
        self._wait(lambda: count() >= least, "the moment of a kill", _LOOK_S)
        group.kill()
        group.start()
        self.fleet.kills += 1

    def roll_out_in_peace(self) -> None:
        """Roll a state out to all, and wait until who is there has it."""
        self.roll_out("tag:fleet", {"edition": 0, "limits": {"low": 10}}, self.names)
        self._wait(lambda: not self._drifted() - self.offline, "all states", _LOOK_S)

    def roll_out_and_kill(self) -> None:
        """Roll states out, by device and by selector, and kill the hub in the middle."""
        for name in self.random.sample(self.names, max(2, round(len(self.names) * _PATCHED_SHARE))):
            self.roll_out(name, {"fan": {"speed": 3}}, [name])
        north = [name for name in self.names if self._site(name) == "north"]
        self.roll_out("site:north", {"fan": {"mode": "auto"}, "edition": 1}, north)
        self._beside(
            lambda: self.roll_out("tag:fleet", {"edition": 2, "limits": {"high": 30}, "work_s": _WORK_S}, self.names),
            lambda: self.kill_hub_when(self.random.uniform(0.2, 0.7), lambda: self.taken_in("edition", 2)),
        )

    def _beside(self, step: Callable[[], object], other: Callable[[], None]) -> None:
        with ThreadPoolExecutor(1) as pool:
            running: Future[object] = pool.submit(step)
            other()
            running.result()

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> Fleet:
        """Drain all, and compare what the hub says with what the witnesses say."""
        for order in self.orders:
            self._compare(order, self.results(order))
        drift = self._drifted()
        self.expect(not drift, f"not as desired: {sorted(drift)[:5]}")
        self.fleet.rss_mib = self.hub.rss_bytes / 2**20
        for name, group in self.groups.items():
            code = group.drain()
            self.expect(code == 0, f"{name} did not drain: {code} {group.log_tail()[-300:]}")
            for device, state in group.look().states.items():
                self.expect(state == self.wanted[device], f"{device} has {state}, wanted {self.wanted[device]}")
        self.fleet.verdict = compare_with_hub(RestClient(self.hub.url, self.token), self.folder / "ledger")
        return self.fleet

    def _compare(self, order: str, results: list[dict[str, Any]]) -> None:
        """Done: took effect once. Interrupted: at most once. Nothing else happens here, and no device is left out."""
        effects = Counter[str]()
        for group in self.groups.values():
            effects.update({device: n for (one, device), n in group.look().effects.items() if one == order})
        self.expect([one["device"] for one in results] == self.orders[order], f"{order}: not every device is listed")
        states = self.fleet.states[order] = Counter(one["state"] for one in results)
        self.fleet.effects += effects.total()
        for one in results:
            count, state = effects[one["device"]], one["state"]
            is_right = {
                "done": count == 1,
                "failed": count <= 1 and one["error"].startswith("interrupted"),
                "timed_out": count <= 1,
            }.get(state, count == 0)
            self.expect(is_right, f"{order} at {one['device']}: {state} {one['error']!r}, {count} effects")
        print(order, dict(states), flush=True)


def run_fleet(folder: Path, devices: int, seed: int) -> Fleet:
    """Run the whole of it with everything below ``folder``, or on a RAM disk what is the devices'."""
    raise_handle_limit(devices * 2 + 500)
    with (
        tempfile.TemporaryDirectory(prefix="telemetry-fleet-", dir=_SHM if _SHM.is_dir() else folder) as own,
        HubProcess(folder / "data") as hub,
    ):
        run = _Run(Path(own), hub, devices, seed)
        try:
            return _play(run)
        finally:
            for group in run.groups.values():
                group.kill()


def _play(run: _Run) -> Fleet:
    codes = run.enrol()
    run.timed("claim", lambda: run.claim(codes))
    run.timed("connect", run.connect)
    run.go_offline()
    run.listed("ask", "asked", is_queued=False)
    run.listed("queue", "queued", is_queued=True)
    run.timed("roll out", run.roll_out_in_peace)
    near = set(run.names) - run.offline
    run.timed("command and kill", run.command_and_kill)
    run.timed("roll out and kill", run.roll_out_and_kill)
    run.timed("settle", lambda: run.settle(near))
    run.timed("catch up", run.come_back)
    return run.timed("finish", run.finish)


def main(arguments: list[str]) -> int:
    """Run from the command line; print the figures and what is wrong."""
    parser = argparse.ArgumentParser(description="A fleet from its CSV to its last answer, with kills.")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = Random().randrange(2**31) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="telemetry-fleet-") as folder:
        fleet = run_fleet(Path(folder), options.devices, seed)
    print(fleet)
    print("".join(f"{fault}\n" for fault in fleet.faults[:20]), end="")
    return bool(fleet.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
