"""Packages for Node.js, installed by npm when a test needs them, and a Node process that talks in JSON lines."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

INSTALL_S = 180


def install(folder: Path, *packages: str) -> Path | None:
    """Install packages of npm and return their folder; None where there is no npm or nothing to fetch them from."""
    npm, node = find("npm"), find("node")
    if npm is None or node is None:
        return None
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", *packages]
    try:
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S, capture_output=True)
    except subprocess.SubprocessError:
        return None
    return folder / "node_modules"


def find(program: str) -> str | None:
    """Return where a program of Node.js is: on the path, or in .venv, where `make` puts it on machines without one."""
    return shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))


class NodeProcess:
    """``node SCRIPT ARGUMENTS``; ``lines`` are what it printed, parsed."""

    def __init__(self, modules: Path, script: Path, arguments: Sequence[str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [find("node") or "node", str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "NODE_PATH": str(modules)},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="node reader")
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, line: str) -> None:
        """Write one line to it."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def heard(self, what: str) -> list[dict[str, Any]]:
        """Return the lines of one kind."""
        return [line for line in self.lines if line["what"] == what]

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        for line in self._process.stdout:
            self.lines.append(json.loads(line))
