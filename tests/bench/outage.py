"""Four outages, and what each device client makes of them: lost, doubled, blocked.

``python -m tests.bench.outage`` prints Markdown tables. 200 readings at 50 a second
through the real client, in a process of its own (`tests.bench.outage_clients`, which says how each is used):

* 0: nothing happens: what follows is not the bench's doing.
* A: the hub is killed before reading 50 and started again 1.5 s later, while the device goes on.
* B: stored, but the acks are lost: what the hub sends vanishes during readings 50-69 and 140-159, then a cut.
* C: sent, but never stored: what the device sends vanishes for as long, then a cut.
* D: the hub is killed before reading 100, the device's process before reading 150 (SIGKILL both). The hub
  returns, then the device, which goes on with reading 150.

Ours runs against a real ``hub serve``; counted is what the hub's store and its audit say. MQTT clients run
against mosquitto; its "store" is a recorder of its own, connected directly, that counts payloads. The broker keeps
its sessions on disk (``persistence true``, saved before the first reading), drops nothing it holds for a
session (``max_queued_messages 0``, ``queue_qos0_messages true``), and is back sooner than our hub (10 ms, not a
second). The recorder's session outlives the broker, so nothing counted as lost is the recorder's.
What broker or recorder might lose after an ack is not measured here.

Peers are installed in virtual environments of their own, kept in a cache folder. One that cannot be
installed has a row with the reason. A reading that a blocked loop takes late is not lost.
"""

import argparse
import itertools
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from simulators.faults import Effect, Fault, Way
from simulators.proxy import FaultProxy
from tests.bench.outage_clients import DRAIN_S, PERIOD_S
from tests.bench.outage_stores import Side, running_broker, running_hub
from tests.support import mosquitto
from tests.support.hub_process import ROOT

READINGS = 200
SCENARIOS = {
    "0": "no outage",
    "A": "hub gone 1.5 s, device lives",
    "B": "stored, acks lost, twice",
    "C": "sent, never stored, twice",
    "D": "hub down, device killed, both return",
}
# Of one device process: sampling, a drain, and two stalls of a client that blocks.
LIMIT_S = READINGS * PERIOD_S + DRAIN_S + 40
INSTALL_LIMIT_S = 300.0
# Two readings further apart than this: sampling stood still. Below it, a busy machine does the same to everybody.
PAUSE_S = 0.25


@dataclass(frozen=True)
class Peer:
    """One client: its name in the table, the name of its part in `outage_clients`, what to install."""

    name: str
    kind: str
    packages: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Runs here, against the hub."""
        return not self.packages


PEERS = (
    Peer("ours", "ours"),
    Peer("paho-mqtt, QoS 1", "paho-1", ("paho-mqtt==2.2.0",)),
    Peer("paho-mqtt, QoS 0", "paho-0", ("paho-mqtt==2.2.0",)),
    Peer("aiomqtt", "aiomqtt", ("aiomqtt==2.5.1", "paho-mqtt==2.2.0")),
    Peer("AWS IoT SDK, MQTT 5", "aws", ("awsiotsdk==1.31.0", "awscrt==0.36.1")),
    Peer("ThingsBoard SDK", "thingsboard", ("tb-mqtt-client==1.13.14", "tb-paho-mqtt-client==2.1.2")),
)


@dataclass
class Outcome:
    """What one run came to. Seconds; a send that was never answered counts until its process was killed."""

    lost: int = 0
    doubled: int = 0
    never_taken: int = 0
    sends_s: list[float] = field(default_factory=list)
    pause_s: float = 0.0
    note: str = ""

    @property
    def p99_s(self) -> float:
        """99 of 100 sends took less."""
        return sorted(self.sends_s)[int(len(self.sends_s) * 0.99) - 1]


def main() -> int:
    """Measure all clients in all scenarios and print; return 1 when ours lost or doubled a reading."""
    parser = argparse.ArgumentParser(description="Four outages, and what each device client makes of them.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telemetry-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the peers' virtual environments")
    parser.add_argument("--peer", choices=[peer.kind for peer in PEERS], action="append", help="only this client")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this scenario")
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {_broker()}\n")
    results: dict[str, dict[str, Outcome] | str] = {}
    for peer in PEERS:
        if options.peer and peer.kind not in options.peer:
            continue
        results[peer.name] = _measure(peer, options.cache, options.scenario or list(SCENARIOS))
    _print(results)
    ours = results.get("ours", {})
    return int(isinstance(ours, str) or any(outcome.lost or outcome.doubled for outcome in ours.values()))


def _broker() -> str:
    if mosquitto.PROGRAM is None:
        return "no mosquitto"
    done = subprocess.run([mosquitto.PROGRAM, "-h"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].replace(" version", "")


def _measure(peer: Peer, cache: Path, scenarios: Sequence[str]) -> dict[str, Outcome] | str:
    """Return the outcome of each scenario, or why there is none."""
    if not peer.is_ours and mosquitto.PROGRAM is None:
        return "not measured: there is no mosquitto on this machine"
    try:
        python = sys.executable if peer.is_ours else _installed(peer, cache)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        return f"not measured: could not be installed: {output.strip().splitlines()[-1][:200]}"
    outcomes = {}
    for scenario in scenarios:
        print(f"{peer.name}, {scenario} …", file=sys.stderr, flush=True)
        running = running_hub if peer.is_ours else running_broker
        try:
            with tempfile.TemporaryDirectory(prefix="bench-outage-") as folder, running(Path(folder)) as side:
                outcomes[scenario] = _run(scenario, side, [python, "-m", "tests.bench.outage_clients", peer.kind])
        except DeviceError as error:
            return f"failed in {scenario}: {error}"
    return outcomes


def _installed(peer: Peer, cache: Path) -> str:
    """Return the interpreter of a virtual environment that has the peer's packages, making it when there is none."""
    folder = cache / "-".join([*peer.packages, f"py{sys.version_info.major}.{sys.version_info.minor}"])
    python, mark = folder / "bin" / "python", folder / "installed"
    if not mark.exists():
        make = [sys.executable, "-m", "venv", "--clear", str(folder)]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages]
        for command in (make, install):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_LIMIT_S)
        mark.touch()
    return str(python)


# --- one run ------------------------------------------------------------------------------------


class DeviceError(Exception):
    """The device's process did not come up."""


class DeviceProcess:
    """The device: started, watched and killed; remembers what it said."""

    def __init__(self, command: Sequence[str], first: int, port: int, options: Sequence[str]) -> None:
        arguments = [*command, str(port), str(first), str(READINGS), *options]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._errors: list[str] = []
        self._lines: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.said: list[list[str]] = []
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()
        self.ended_s = 0.0

    def begin(self, before: Callable[[], None]) -> float:
        """Wait until it is connected, call ``before``, let it begin; return when that was."""
        self._wait_for("ready")
        before()
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._wait_for("begun")

    def finish(self) -> str:
        """Wait until it ends by itself, within the limit; return what was wrong, if anything."""
        try:
            code = self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"ended after {LIMIT_S:.0f} s"
        self._join()
        return "" if code == 0 else f"exit code {code}: {(self._errors or ['?'])[-1].strip()[:60]}"

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.wait(10)
        self._join()

    def _join(self) -> None:
        self.ended_s = time.monotonic()
        for thread in self._threads:
            thread.join(5)
        while not self._lines.empty():
            self.said.append(self._lines.get())

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        for line in self._process.stdout:
            # A library may print something of its own.
            if line.count(" ") >= 3:
                self._lines.put(line.split(" ", 3))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None, "it is a pipe"
        self._errors += self._process.stderr

    def _wait_for(self, word: str) -> float:
        try:
            while True:
                line = self._lines.get(timeout=20)
                self.said.append(line)
                if line[0] == word:
                    return float(line[2])
        except queue.Empty:
            self.kill()
            raise DeviceError(f"it did not get {word}: {(self._errors or ['?'])[-1].strip()[:200]}") from None


def _run(scenario: str, side: Side, command: Sequence[str]) -> Outcome:
    """Run one scenario and count."""
    with ExitStack() as ending:
        link = ending.enter_context(FaultProxy(("127.0.0.1", side.port))) if scenario in "BC" else None
        port = link.port if link else side.port
        device = DeviceProcess(command, 0, port, side.arguments)
        ending.callback(device.kill)
        begun = device.begin(side.save)
        if scenario == "A":
            _at(begun, 50, side.kill)
            _at(begun, 125, side.start)
        if link:
            _lose(begun, link, scenario)
        if scenario != "D":
            return _count([device], side, device.finish())
        _at(begun, 100, side.kill)
        _at(begun, 150, device.kill)
        side.start()
        again = DeviceProcess(command, 150, port, side.arguments)
        ending.callback(again.kill)
        again.begin(side.save)
        return _count([device, again], side, again.finish())


def _lose(begun: float, link: FaultProxy, scenario: str) -> None:
    """Let acks (B) or readings (C) vanish twice, each time until a cut."""
    way = Way.DOWN if scenario == "B" else Way.UP
    for first, last in ((50, 70), (140, 160)):
        _at(begun, first, lambda: link.arm(Fault(Effect.SWALLOW, way)))
        _at(begun, last, link.abort)


def _at(begun: float, n: int, act: Callable[[], object]) -> None:
    """Act half a period before reading ``n`` is due, so that all before it are out and acked."""
    time.sleep(max(0.0, begun + (n - 0.5) * PERIOD_S - time.monotonic()))
    act()


def _count(devices: Sequence[DeviceProcess], side: Side, note: str) -> Outcome:
    """Return what came of it, from what the device said and what is stored."""
    stored, doubled = side.stored()
    outcome = Outcome(READINGS - len(stored), doubled, note=note)
    taken = set[str]()
    for device in devices:
        lines = [(word, n, float(at)) for word, n, at, _ in device.said if word in ("take", "sent", "failed")]
        ends: dict[str, float] = {}
        for word, n, at in lines:
            if word != "take":
                ends.setdefault(n, at)
        takes = [(n, at) for word, n, at in lines if word == "take"]
        outcome.sends_s += [ends.get(n, device.ended_s) - at for n, at in takes]
        moments = [at for _, at in takes] + ([device.ended_s] if device is not devices[-1] else [])
        outcome.pause_s = max([outcome.pause_s, *(b - a for a, b in itertools.pairwise(moments))])
        taken |= {n for n, _ in takes}
    outcome.never_taken = READINGS - len(taken)
    return outcome


# --- the tables ---------------------------------------------------------------------------------


def _print(results: dict[str, dict[str, Outcome] | str]) -> None:
    _table("lost / doubled", results, _arrived)
    print()
    _table("send p99 / slowest; longest pause of sampling", results, _blocked)
    versions = dict.fromkeys(package for peer in PEERS for package in peer.packages if peer.name in results)
    print(f"\nlost: of {READINGS} readings due, not in the store; doubled: extra copies there. {', '.join(versions)}")


def _table(title: str, results: dict[str, dict[str, Outcome] | str], cell: Callable[[Outcome], str]) -> None:
    print(f"| {title} | " + " | ".join(f"{name}: {text}" for name, text in SCENARIOS.items()) + " |")
    print("| --- |" + " --- |" * len(SCENARIOS))
    for name, outcomes in results.items():
        if isinstance(outcomes, str):
            cells = [outcomes] + ["–"] * (len(SCENARIOS) - 1)
        else:
            cells = [cell(outcomes[scenario]) if scenario in outcomes else "–" for scenario in SCENARIOS]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _arrived(outcome: Outcome) -> str:
    counts = " / ".join(f"**{count}**" if count else "0" for count in (outcome.lost, outcome.doubled))
    notes = [f"{outcome.never_taken} never taken"] if outcome.never_taken else []
    notes += [outcome.note] if outcome.note else []
    return f"{counts} ({'; '.join(notes)})" if notes else counts


def _blocked(outcome: Outcome) -> str:
    sends = f"{_ms(outcome.p99_s)} / {_ms(max(outcome.sends_s))}"
    return f"{sends}; **stood still {outcome.pause_s:.1f} s**" if outcome.pause_s > PAUSE_S else sends


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
