"""Run the test suites one after the other and print the minutes of each (`make test`, or `python -m tests SUITE`).

A suite is a marker expression; each test outside `bench` and `nightly` belongs to exactly one. All suites run also
after one failed, so that one run shows everything; the exit code is 0 only when all passed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

_OUTER = "(browser or chaos or bench or nightly)"
_REAL = "(end_to_end or slow or privileged)"
SUITES = {
    "fast": f"not {_REAL} and not {_OUTER}",
    "sockets": f"{_REAL} and not {_OUTER}",
    "browser": "browser and not (chaos or bench or nightly)",
    "chaos": "chaos and not (bench or nightly)",
}
# Processes of the fast suite; the others start hubs and browsers of their own.
_FAST_PROCESSES = min(os.cpu_count() or 1, 4)
# The fast suite is what one waits for while writing; past this it is printed as too slow.
FAST_BUDGET_S = 60
# A file system in memory, where there is one. The fast suite opens thousands of small databases, and each waits for
# fsyncs that none of its tests is about; what is, runs on a disk with the other suites.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 2 * 1024**3


def main(arguments: list[str]) -> int:
    """Run the suites named (all when none is) and return the exit code; the rest goes to pytest as it is."""
    names = [name for name in arguments if name in SUITES] or list(SUITES)
    extra = [argument for argument in arguments if argument not in SUITES]
    results = {name: _run(name, extra) for name in names}
    print("\nsuite      minutes  result")
    for name, (seconds, code) in results.items():
        result = "passed" if code == 0 else "FAILED"
        late = f"  slower than {FAST_BUDGET_S} s" if name == "fast" and seconds > FAST_BUDGET_S else ""
        print(f"{name:<10} {seconds / 60:7.1f}  {result}{late}")
    return max(code for _, code in results.values())


def _run(name: str, extra: list[str]) -> tuple[float, int]:
    print(f"\n=== suite {name}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", SUITES[name], *extra]
    start = time.monotonic()
    with ExitStack() as stack:
        if name == "fast":
            command += ["-n", str(_FAST_PROCESSES)]
            if _has_memory():
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fast-tests-", dir=_MEMORY))
                command += ["--basetemp", f"{folder}/base"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        code = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=environment)
    return time.monotonic() - start, code.returncode


def _has_memory() -> bool:
    try:
        return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
