"""What the SDK costs before it does anything: import CPU, resident memory and installed size, beside bare websockets.

``python -m tests.bench.bench_footprint`` prints two Markdown tables; the second is what it costs to declare a small
record in each of the ways there are (decision 0009). Each row is the best of several fresh interpreters (other work on
the machine only adds), with the bytecode that pip leaves beside what it installs: without it the compiler is what one
measures. Memory is all that the process has resident, on Linux.
"""

import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import device_sdk

RUNS = 9
BARE = "from websockets.asyncio.client import connect"
ROWS = (
    ("nothing (the interpreter)", "pass"),
    ("bare websockets: `from websockets.asyncio.client import connect`", BARE),
    ("`import device_sdk`", "import device_sdk"),
    ("`from device_sdk import Device`", "from device_sdk import Device"),
    ("a `Device` ready to connect", "from device_sdk import Device\nimport device_sdk.websocket"),
)
RECORDS = 40
_FIELDS = "    stream: str\n    acked: int\n    next: int = 0\n    chain: str | None = None\n"
_WRITTEN_OUT = """class R{n}:
    __slots__ = ("acked", "chain", "next", "stream")
    def __init__(self, stream: str, acked: int, next: int = 0, chain: str | None = None) -> None:
        self.stream, self.acked, self.next, self.chain = stream, acked, next, chain
"""
# How a record is declared → what must be imported, and the source of record n.
KINDS = {
    "frozen dataclass with slots": (
        "from dataclasses import dataclass",
        "@dataclass(frozen=True, slots=True)\nclass R{n}:\n" + _FIELDS,
    ),
    "`typing.NamedTuple`": ("from typing import NamedTuple", "class R{n}(NamedTuple):\n" + _FIELDS),
    "`collections.namedtuple`": (
        "from collections import namedtuple",
        "R{n} = namedtuple('R{n}', 'stream acked next chain', defaults=(0, None))\n",
    ),
    "`__slots__` and `__init__` written out": ("", _WRITTEN_OUT),
    "`device_sdk.frozen.Frozen`": ("from device_sdk.frozen import Frozen", "class R{n}(Frozen):\n" + _FIELDS),
}
_MEASURE = """
import sys, time
{before}
began = time.process_time()
{code}
took = time.process_time() - began
resident = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(took * 1e3, int(resident[0]) / 1024)
"""


def main() -> None:
    """Measure and print."""
    print(f"{platform.python_implementation()} {platform.python_version()}\n")
    print("| | import, CPU ms | × bare | resident, MB | × bare |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench-bytecode-") as bytecode:
        measured = _measured([("", code) for _, code in ROWS], bytecode)
        declared = _declared(Path(bytecode))
    bare_ms, bare_mb = measured["", BARE]
    for name, code in ROWS:
        ms, mb = measured["", code]
        print(f"| {name} | {ms:.1f} | {ms / bare_ms:.2f} | {mb:.1f} | {mb / bare_mb:.2f} |")
    print("\n| one small record of four fields | to declare, CPU µs |\n| --- | --- |")
    for kind, us in declared.items():
        print(f"| {kind} | {us:.0f} |")
    ours = _size([Path(f) for f in Path(next(iter(device_sdk.__path__))).glob("*.py")])
    theirs = _size([Path(str(f.locate())) for f in metadata.files("websockets") or ()])
    print(
        f"\nInstalled: {ours:.2f} MB of our own + {theirs:.2f} MB of websockets = {ours + theirs:.2f} MB (goal: ≤ 3)."
    )


def _declared(folder: Path) -> dict[str, float]:
    """Return the µs that one record of each kind takes at import, out of a module of many."""
    codes = {}
    for at, (kind, (needs, source)) in enumerate(KINDS.items()):
        module = folder / f"records_{at}.py"
        module.write_text(needs + "\n" + "".join(source.replace("{n}", str(n)) for n in range(RECORDS)))
        codes[kind] = (f"sys.path.insert(0, {str(folder)!r})\n{needs}", f"import {module.stem}")
    measured = _measured(list(codes.values()), str(folder))
    return {kind: measured[code][0] / RECORDS * 1e3 for kind, code in codes.items()}


def _measured(codes: list[tuple[str, str]], bytecode: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the least ms and MB of each code after what comes before it; in turns: a busy minute hits all rows."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {code: [] for code in codes}
    for _ in range(1 + RUNS):
        for code in codes:
            before, measured = code
            command = [sys.executable, "-c", _MEASURE.format(before=before, code=measured)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            ms, mb = done.stdout.split()
            samples[code].append((float(ms), float(mb)))
    # The first of each has compiled.
    return {code: (min(ms for ms, _ in s[1:]), min(mb for _, mb in s[1:])) for code, s in samples.items()}


def _size(files: list[Path]) -> float:
    return sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts) / 1e6


if __name__ == "__main__":
    main()
