"""All benchmarks one after the other, or those named: ``python -m tests.bench [frames] [journal] …`` (`make bench`).

Each prints its own Markdown table; `docs/benchmarks.md` holds such a run with its date and machine. Two are run by
themselves, as ``python -m tests.bench.NAME``: `outage` installs its peers, `data_budget` takes half an hour.
"""

import subprocess
import sys
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(names: list[str]) -> int:
    """Run them; return 1 when one failed, 2 when there is none of that name."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or NAMES:
        print(f"\n## {name}\n\n`python -m tests.bench.bench_{name}`\n", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.bench.bench_{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
