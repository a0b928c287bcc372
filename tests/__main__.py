"""Run the test suites one after the other and print the minutes of each (`make test`, or `python -m tests SUITE`).

A suite is a marker expression; each test outside `bench` and `nightly` belongs to exactly one. All suites run also
after one failed, so that one run shows everything; the exit code is 0 only when all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

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
    if name == "fast":
        command += ["-n", str(_FAST_PROCESSES)]
    start = time.monotonic()
    code = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    return time.monotonic() - start, code.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
