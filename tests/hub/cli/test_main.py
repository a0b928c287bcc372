"""The tree of commands: quick to start, complete, and polite about mistakes."""

import os
import subprocess
import sys

import pytest

from tests.hub.cli.conftest import Run
from tests.support.hub_process import ROOT

HEAVY = {"pydantic", "pydantic_settings", "rich", "uvicorn", "starlette", "cryptography", "asyncio", "sqlite3", "numpy"}
COMMANDS = (
    "serve", "watch", "query", "export", "audit", "quarantine", "backup", "devices", "tokens", "simulate", "tls",
    "config",
)  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    """What a command needs is imported when it runs, not when the help is shown."""
    program = (
        "import sys\nfrom hub.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    sys.stderr.write(' '.join(sys.modules))"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)

    assert set(loaded.stderr.split()) & HEAVY == set()


@pytest.mark.slow  # a measurement: the fast suite keeps every core busy
def test_help_is_quick() -> None:
    """`hub --help` takes less than 150 ms of CPU, or on a slow machine less than three times loading Typer."""
    typer, ours = _least_cpu_s("-c", "import typer"), _least_cpu_s("-m", "hub", "--help")

    assert ours < max(0.150, 3 * typer)


def _least_cpu_s(*arguments: str) -> float:
    """Return processor seconds, which other tests beside disturb less than the clock on the wall."""
    least = float("inf")
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        least = min(least, usage.ru_utime + usage.ru_stime)
    return least


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    """Each command and group has a help."""
    outcome = run(command, "--help")

    assert outcome.code == 0
    assert "Usage:" in outcome.out


def test_unknown_command_is_a_usage_error(run: Run) -> None:
    """A mistyped command ends with 2."""
    assert run("serv").code == 2


def test_module_is_the_command() -> None:
    """`python -m hub` is `hub`."""
    shown = subprocess.run(
        [sys.executable, "-m", "hub", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )

    assert "Telemetry hub" in shown.stdout
