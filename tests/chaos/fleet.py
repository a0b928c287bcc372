"""A fleet from its CSV to its last answer: enrolled, claimed, commanded, rolled out; some offline, the hub killed.

``python -m tests.chaos.fleet --devices 3000 --seed 1``. A hub, the command line and the SDK's devices, all as processes
of their own. A tenth of the devices is offline while commands are given and states are rolled out, and catches up; the
hub is killed while devices claim, and while a command and a roll-out are under way, and a part of the devices in the
middle of a command. Outside witnesses say how often a command took effect at a device, which state it took in last, and
which readings it recorded. Devices' files are on a RAM disk where there is one: 3,000 devices have 3,000 disks, this
machine has one.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hub.cli.check import compare_with_hub
from hub.cli.rest import RestClient
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.fleet_world import ALL, LOOK_S, STEP_LIMIT_S, FleetWorld
from tests.support.hub_process import HubProcess

DEVICES = 3000
KILLS = 2
# The promise: every device of a selector is listed with its answer, or why there is none, so soon.
LISTED_LIMIT_S = 10.0
# How long a command and a state take that a kill is to find in the middle, and for each device more.
_WORK_S, _WORK_EACH_S = 1.0, 0.001
_PATCHED_SHARE = 0.02
_SHM = Path("/dev/shm")


@dataclass(slots=True)
class Fleet:
    """What a run showed; times in seconds, memory in MiB."""

    devices: int
    seed: int
    times: dict[str, float]
    troubles: list[str]
    answers_s: dict[str, list[float]] = field(default_factory=dict)
    states: dict[str, Counter[str]] = field(default_factory=dict)
    effects: int = 0
    kills: int = 0
    rss_mib: float = 0.0
    verdict: Verdict = field(default_factory=lambda: Verdict(()))

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
            if self.times.get(what, 0.0) > LISTED_LIMIT_S
        ]
        return found

    def __str__(self) -> str:
        times = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.times.items())
        counts = "; ".join(f"{order} {dict(states)}" for order, states in self.states.items())
        answers = "; ".join(
            f"{order}: answers p50 {_share(of, 0.5):.2f} p99 {_share(of, 0.99):.2f} max {max(of):.2f} s"
            for order, of in self.answers_s.items()
        )
        total = self.verdict.total
        return (
            f"fleet: {self.devices} devices, seed {self.seed}: {times}. {answers}. {counts}. {self.kills} kills, "
            f"{self.effects} effects; {total('produced')} readings, {total('lost')} lost, {total('doubled')} doubled; "
            f"hub {self.rss_mib:.0f} MiB"
        )


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class _Run(FleetWorld):
    """One run: a fleet with faults, and what it showed."""

    def __init__(self, folder: Path, hub: HubProcess, devices: int, seed: int, mutant: str, limit_s: float) -> None:
        super().__init__(folder, hub, devices, seed, mutant=mutant, limit_s=limit_s)
        self.work_s = _WORK_S + _WORK_EACH_S * devices
        self.there = len(self.names) - len(self.offline)
        self.fleet = Fleet(devices, seed, self.times, self.troubles)

    def listed(self, what: str, order: str, expires: str | None = None) -> None:
        """Give an order while all is quiet: who is there answers, who is not is listed so."""
        answer = self.timed(what, lambda: self.order(order, ALL, expires))
        self.expect([one["device"] for one in answer] == self.names, f"{order}: not every device is listed")
        away = "queued" if expires else "refused"
        wrong = [one for one in answer if one["state"] != (away if one["device"] in self.offline else "done")]
        self.expect(not wrong, f"{order}: {wrong[:3]}")
        told = self.client.get(f"/v1/commands/{order}")
        times = [
            (int(one["ended_ns"]) - int(told["made_ns"])) / 1e9 for one in told["results"] if one["state"] == "done"
        ]
        self.fleet.answers_s[order] = times

    # --- killing ------------------------------------------------------------------------------------------

    def _kill_hub(self) -> None:
        self.hub.kill()
        self.hub.start()
        self.fleet.kills += 1

    def _wait_for_share(self, count: Callable[[], int], of: int) -> None:
        """Return when a part of those has done it that the seed chooses."""
        least = self.random.uniform(0.2, 0.6) * of
        self.wait(lambda: count() >= least, "the moment of a kill", LOOK_S)
        done = count()
        self.expect(done < of, f"a kill came too late: all {of} had done it")
        print(f"killing at {done} of {of}", flush=True)

    def kill_hub_while_claiming(self) -> None:
        """Kill the hub when a part of the fleet has its tokens."""
        self._wait_for_share(lambda: sum(len(group.look().claimed) for group in self.groups.values()), len(self.names))
        self._kill_hub()

    def effects_of(self, order: str) -> int:
        """Return how many devices that are there have witnessed its effect."""
        return sum(1 for group in self.near for one, _ in group.look().effects if one == order)

    def taken_in(self, key: str, value: object) -> int:
        """Return how many devices that are there have witnessed a state with this."""
        return sum(1 for group in self.near for state in group.look().states.values() if state.get(key) == value)

    def roll_out_in_peace(self) -> None:
        """Roll a state out to all, and wait until who is there has it."""
        self.roll_out(ALL, {"edition": 0, "limits": {"low": 10}}, self.names)
        self.wait(lambda: not self.drifted() - self.offline, "all states", LOOK_S)

    def patch_some(self) -> None:
        """Change the states of some devices, one by one, and of those of a site: each is merged into what was there."""
        for name in self.random.sample(self.names, max(2, round(len(self.names) * _PATCHED_SHARE))):
            self.roll_out(name, {"fan": {"speed": 3}, "limits": {"low": None}}, [name])
        north = [name for name in self.names if self.site_of(name) == "north"]
        self.roll_out("site:north", {"fan": {"mode": "auto"}}, north)

    def kill_hub_between(self, number: int) -> None:
        """Kill the hub in the middle of two commands and of a roll-out to all.

        One command is kept for who is away; the other is over soon, and may be answered too late or never.
        """
        order, patch = f"killed-hub-{number}", {"edition": number, "limits": {"high": 30}, "work_s": self.work_s}
        with ThreadPoolExecutor(3) as pool:
            steps: list[Future[Any]] = [
                pool.submit(self.order, f"over-soon-{number}", ALL, work_s=self.work_s),
                pool.submit(self.order, order, ALL, "1h", self.work_s),
                pool.submit(self.roll_out, ALL, patch, self.names),
            ]
            self.wait(lambda: self.taken_in("edition", number) > 0, "the roll-out to begin", LOOK_S)
            self._wait_for_share(lambda: self.effects_of(order), self.there)
            self.expect(self.taken_in("edition", number) < self.there, "a kill came too late: all had the state")
            self._kill_hub()
            for step in steps:
                step.result()

    def kill_devices_between(self) -> None:
        """Kill a part of the devices in the middle of a command; what had begun there is answered as interrupted."""
        group, order = self.groups["near-0"], "killed-devices"
        with ThreadPoolExecutor(1) as pool:
            step = pool.submit(self.order, order, ALL, "1h", self.work_s)
            effects = lambda: sum(1 for one, _ in group.look().effects if one == order)  # noqa: E731
            self._wait_for_share(effects, len(group.job.codes))
            group.kill()
            group.start()
            self.fleet.kills += 1
            step.result()

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Drain all, and compare what the hub says with what the witnesses say."""
        for order in self.orders:
            self._compare(order, self.results(order))
        drift = self.drifted()
        self.expect(not drift, f"not as desired: {sorted(drift)[:5]}")
        self.fleet.rss_mib = self.hub.rss_bytes / 2**20
        for name, group in self.groups.items():
            code = group.drain()
            self.expect(code == 0, f"{name} did not drain: {code} {group.log_tail()[-300:]}")
            for device in group.job.codes:
                state = group.look().states.get(device)
                self.expect(state == self.wanted[device], f"{device} has {state}, wanted {self.wanted[device]}")
        self.fleet.verdict = compare_with_hub(RestClient(self.hub.url, self.token), self.folder / "ledger")

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


def run_fleet(
    folder: Path,
    devices: int,
    seed: int,
    *,
    kills: int = KILLS,
    hub_mutant: str = "",
    mutant: str = "",
    limit_s: float = STEP_LIMIT_S,
) -> Fleet:
    """Run the whole of it with everything below ``folder``, or on a RAM disk what is the devices'.

    Args:
        kills: of the hub, between commands and roll-outs.
        hub_mutant, mutant: faults of hub and devices.
        limit_s: how long anything is waited for.
    """
    raise_handle_limit(devices * 2 + 500)
    (folder / "data").mkdir()
    program = ("-m", "tests.support.mutants", hub_mutant) if hub_mutant else ("-m", "hub")
    with (
        tempfile.TemporaryDirectory(prefix="telemetry-fleet-", dir=_SHM if _SHM.is_dir() else folder) as own,
        HubProcess(folder / "data", program=program) as hub,
    ):
        run = _Run(Path(own), hub, devices, seed, mutant, limit_s)
        try:
            _play(run, kills)
        except AssertionError as error:
            run.troubles.append(str(error))
        finally:
            for group in run.groups.values():
                group.kill()
        return run.fleet


def _play(run: _Run, kills: int) -> None:
    codes = run.enrol()
    run.timed("claim", lambda: run.claim(codes, run.kill_hub_while_claiming))
    run.timed("connect", run.connect)
    run.go_offline()
    run.listed("ask", "asked")
    run.listed("queue", "queued", "1h")
    run.order("expired", "site:south", "1s")
    run.timed("roll out", run.roll_out_in_peace)
    run.patch_some()
    for number in range(1, kills + 1):
        run.timed(f"kill hub {number}", partial(run.kill_hub_between, number))
    run.timed("kill devices", run.kill_devices_between)
    run.timed("settle", lambda: run.settle(set(run.names) - run.offline))
    run.roll_out(ALL, {"work_s": None}, run.names)
    run.timed("catch up", run.come_back)
    run.timed("finish", run.finish)


def main(arguments: list[str]) -> int:
    """Run from the command line; print the figures and what is wrong."""
    parser = argparse.ArgumentParser(description="A fleet from its CSV to its last answer, with kills.")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = Random().randrange(2**31) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="telemetry-fleet-") as folder:
        fleet = run_fleet(Path(folder), options.devices, seed, kills=options.kills)
    print(fleet)
    print("".join(f"{fault}\n" for fault in fleet.faults[:20]), end="")
    return bool(fleet.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
