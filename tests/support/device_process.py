"""Devices as a child process of their own: the real SDK, spools on disk, a witness; killed by process id.

`DeviceProcess` is the parent's side, ``python -m tests.support.device_process JOB`` the child's. The child records on
all its devices in turn until SIGTERM or ``duration_s``, then waits until everything is at the hub: exit code 0, or
`UNDRAINED`.
"""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from device_sdk import Device, FlushTimeoutError
from device_sdk.outbox import Durability
from simulators.ledger import Ledger
from simulators.link import SimulatedLink

ROOT = Path(__file__).resolve().parents[2]
UNDRAINED = 3
# After the drain a device says bye and closes its spool; a loaded machine takes its time over it.
_EXIT_LIMIT_S = 20.0
# The signal reaches a running thread within microseconds; one that is in an fsync stays there for milliseconds.
_STOP_S = 0.0002


@dataclass(frozen=True, slots=True)
class Job:
    """What one child does.

    ``delay_s``: from opening the devices to the first sample. ``text_chars``: a text of that length in each sample, to
    fill disks. ``retain_acked``: bytes. ``mutant``: a fault of `mutants`.
    """

    name: str
    url: str
    tokens: dict[str, str]
    spool: str
    ledger: str
    rate_hz: float = 25.0
    delay_s: float = 0.0
    duration_s: float = 3600.0
    drain_s: float = 30.0
    boot: str = "boot-1"
    durability: Durability = "second"
    max_spool: int = 64_000_000
    text_chars: int = 0
    retain_acked: int = 64_000_000
    mutant: str = ""


class DeviceProcess:
    """One life of a group of devices: started once, killed or drained once."""

    def __init__(self, job: Job, log: Path) -> None:
        self.job = job
        self._log = log
        with log.open("ab") as file:
            command = [sys.executable, "-m", "tests.support.device_process", json.dumps(asdict(job))]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=ROOT)
        self._ledger: Path | None = None
        self._read_to = 0
        self._seen = {"B": 0, "R": 0, "F": 0, "A": 0}

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def seen(self, kind: str) -> int:
        """Return how many lines of a kind (B, R, F or A) its witness has written until now."""
        if self._ledger is None:
            files = Path(self.job.ledger).glob(f"{self.job.name}-{self._process.pid}-*.ledger")
            self._ledger = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
        if self._ledger is not None:
            with self._ledger.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._read_to += end
            for line in data[:end].split(b"\n"):
                if line:
                    self._seen[chr(line[0])] += 1
        return self._seen[kind]

    def kill(self) -> int:
        """End it at once (SIGKILL); return its exit code, which is -9 unless it had ended by itself."""
        self._process.kill()
        return self._process.wait(10)

    def freeze(self) -> None:
        """Let it execute nothing more, wherever it is; only `kill` may follow."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(_STOP_S)

    def drain(self) -> int:
        """Ask it to deliver everything and end; return its exit code, `UNDRAINED` also when it hangs."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self) -> int:
        """Wait for the end that ``duration_s`` brings; killed and `UNDRAINED` when it does not come."""
        limit_s = len(self.job.tokens) * self.job.drain_s + _EXIT_LIMIT_S
        try:
            return self._process.wait(limit_s + min(self.job.duration_s, 60.0))
        except subprocess.TimeoutExpired:
            self.kill()
            return UNDRAINED

    def log_tail(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-2000:]


def _main(job: Job) -> int:
    if job.mutant:
        from tests.support.mutants import apply

        apply(job.mutant)
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stops.append(number))
    ledger = Ledger(Path(job.ledger), job.name)
    with ExitStack() as stack:
        links = [_open(job, name, ledger, stack) for name in job.tokens]
        time.sleep(job.delay_s)
        _record_until(job, links, stops)
        is_drained = all([_drain(link, job.drain_s) for link in links])
    ledger.close()
    return 0 if is_drained else UNDRAINED


def _open(job: Job, name: str, ledger: Ledger, stack: ExitStack) -> SimulatedLink:
    device = Device(
        name,
        job.url,
        token=job.tokens[name],
        spool=Path(job.spool) / name,
        max_spool=job.max_spool,
        durability=job.durability,
        retain_acked=job.retain_acked,
        boot_id=job.boot,
        on_frame=ledger.frame_hook(name),
        on_ack=ledger.ack_hook(name),
    )
    return SimulatedLink(stack.enter_context(device), name, ledger, is_lasting=True)


def _record_until(job: Job, links: list[SimulatedLink], stops: list[int]) -> None:
    """Record samples at the job's rate; when this machine is too slow the rate falls behind."""
    begun, number = time.monotonic(), 0
    while not stops and time.monotonic() - begun < job.duration_s:
        for link in links:
            sample = {"level": random.random(), "count": number, "is_open": number % 2 == 0}
            link.record(sample | ({"text": "x" * job.text_chars} if job.text_chars else {}))
        number += 1
        time.sleep(max(0.0, begun + number / job.rate_hz - time.monotonic()))


def _drain(link: SimulatedLink, limit_s: float) -> bool:
    try:
        link.device.flush(limit_s)
    except FlushTimeoutError as error:
        print(error, file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(_main(Job(**json.loads(sys.argv[1]))))
