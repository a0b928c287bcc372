"""The client for microcontrollers, by the programs in `tests/device_sdk/micro`: with CPython and a real MicroPython."""

import ast
import json
import re
import select
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.device_sdk.micro.scripted_hub import ScriptedHub

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "device_sdk" / "micro.py"
PROGRAMS = ROOT / "tests" / "device_sdk" / "micro"
MICROPYTHON = shutil.which("micropython", path=sysconfig.get_path("scripts"))
INTERPRETERS = {"cpython": [sys.executable, "-W", "error"], "micropython": [MICROPYTHON or ""]}
CASES = re.findall(
    r"^    (\w+),$", (PROGRAMS / "cases.py").read_text("utf-8").split("\nCASES = [")[1], flags=re.MULTILINE
)
needs_micropython = pytest.mark.skipif(MICROPYTHON is None, reason="there is no MicroPython for this machine")
both = pytest.mark.parametrize(
    "interpreter", ["cpython", pytest.param("micropython", marks=needs_micropython)]
)  # fmt: skip

# What MicroPython has on every port, and what TLS needs there.
MODULES = {"json", "os", "socket", "ssl", "struct", "time", "tls"}
MAX_BYTES = 8192


def run(interpreter: str, program: str, *arguments: str) -> str:
    """Run a program as a device would, beside a copy of `micro.py`; return what it printed."""
    with TemporaryDirectory() as folder:
        for path in (SOURCE, *PROGRAMS.glob("*.py"), ROOT / "tests" / "vectors" / "micro.json"):
            shutil.copy(path, folder)
        command = [*INTERPRETERS[interpreter], program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def outcomes(interpreter: str) -> dict[str, str]:
    """Return what the program says of each case: all run in one process."""
    parts = re.split(r"^(ok|failed) (\w+)\n", run(interpreter, "cases.py"), flags=re.MULTILINE)
    return {name: word + text for word, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


@both
@pytest.mark.parametrize("case", CASES)
def test_rule_holds_under_both_interpreters(interpreter: str, case: str) -> None:
    """Each rule is said by the function of this name in `cases.py`."""
    assert outcomes(interpreter)[case] == "ok"


def test_source_is_less_than_8_kib() -> None:
    """It is compiled on the device, in its memory."""
    assert SOURCE.stat().st_size <= MAX_BYTES


def test_imports_are_what_every_port_has() -> None:
    """One file to copy: nothing of ours, nothing to install."""
    nodes = list(ast.walk(ast.parse(SOURCE.read_text("utf-8"))))

    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}

    assert imported <= MODULES
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom)]


@both
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_messages_than_there_are_packet_identifiers(interpreter: str, tmp_path: Path) -> None:
    """65,600 of QoS 1 in a row, one reading each: each is there once; a minute of work."""
    count = 65_600
    hub = ScriptedHub()
    for path in (SOURCE, PROGRAMS / "session.py"):
        shutil.copy(path, tmp_path)
    arguments = ["session.py", hub.name, str(hub.port), "secret", str(count), "100", "singly", "250"]
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen([*INTERPRETERS[interpreter], *arguments], cwd=tmp_path, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                select.select(hub.sockets, [], [], 0.05)
                hub.turn()
                del hub.got[:]
        finally:
            process.kill()
            process.wait(10)
            hub.close()
        output.seek(0)
        told = json.loads(output.read())

    values = sorted(row[1] for payload in hub.frames.values() for row in json.loads(payload)["r"])
    assert (told["dropped"], told["left"], told["connections"]) == (0, 0, 1)
    assert told["pid"] < 1000 < told["acked"]
    assert values == list(range(1, count + 1))


@needs_micropython
def test_import_leaves_most_of_a_heap_of_64_kib() -> None:
    """Source, bytecode and a device that has its memory: the program keeps the larger half."""
    code = (
        "import gc; gc.collect(); before = gc.mem_free(); import micro; d = micro.Device('a', 'h'); "
        "gc.collect(); print(before - gc.mem_free(), gc.mem_free())"
    )
    done = subprocess.run(
        [*INTERPRETERS["micropython"], "-X", "heapsize=64k", "-c", code],
        cwd=SOURCE.parent, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    used, free = map(int, done.stdout.split())

    assert used < 16_000
    assert free > 40_000
