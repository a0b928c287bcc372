"""``python -m tests.fuzz --n 100000 --seed 1``: hostile frames against a real hub; one line of figures."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import RATE_HZ, run_fuzz


def main(arguments: list[str]) -> int:
    """Run, print the figures and what broke; 0 when nothing did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Hostile peers against a real hub.")
    parser.add_argument("--n", type=int, default=20_000, help="frames")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="connection to begin with, to replay a failure")
    parser.add_argument("--rate", type=float, default=RATE_HZ, help="frames a second")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-fuzz-") as folder:
        fuzzed = run_fuzz(Path(folder), options.n, options.seed, first=options.first, rate_hz=options.rate)
    print(fuzzed)
    print("".join(f"{fault}\n" for fault in fuzzed.faults), end="")
    return bool(fuzzed.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
