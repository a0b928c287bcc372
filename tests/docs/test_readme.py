"""The README's commands run as printed."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.hub_process import ROOT, HubProcess

_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def commands(text: str) -> list[str]:
    """Return the commands of all console blocks, without their prompt."""
    return [line[2:] for block in _BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_commands_of_the_first_minute_run(tmp_path: Path) -> None:
    """Everything after ``make demo`` answers with exit code 0 and says something, while the demo runs."""
    told = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert told[0] == "make demo"
    with HubProcess(tmp_path / "hub-data", "--demo") as hub:
        limit = time.monotonic() + 60
        while not hub.get("/v1/latest?match=greenhouse-01/temperature")["readings"]:
            assert time.monotonic() < limit, hub.log.read_text()
            time.sleep(0.05)
        environment = {**os.environ, "HUB_URL": hub.url, "PYTHONPATH": str(ROOT)}
        for command in told[1:]:
            assert command.startswith(".venv/bin/hub "), command
            line = command.replace(".venv/bin/hub", f"{sys.executable} -m hub", 1)
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            assert done.stdout.strip(), command
        assert hub.stop() < 2.5


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    """Every relative link of a front page names a file that is here."""
    page = ROOT / name
    links = [a or b for a, b in _LINK.findall(page.read_text(encoding="utf-8"))]
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert missing == []
