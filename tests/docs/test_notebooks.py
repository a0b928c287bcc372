"""The notebooks of the documentation run as they stand, against a real hub with simulated devices."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_process import ROOT, HubProcess

NOTEBOOKS = ROOT / "docs" / "notebooks"
LIMIT_S = 60
# In a process of its own: what runs a notebook leaves threads and warnings behind that are not ours.
_RUN = f"""
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout={LIMIT_S}, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def _cells(path: Path) -> dict[str, dict[str, Any]]:
    return {cell["id"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def _text(cell: dict[str, Any]) -> str:
    """What a cell printed, and its last value, as text."""
    outputs = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell["outputs"])
    return "".join("".join(text) for text in outputs)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_what_they_gave(path: Path) -> None:
    """No outputs and no counters: a change of a notebook is a change of what it says."""
    cells = _cells(path).values()

    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)


@pytest.mark.slow
def test_exploring_a_hub(tmp_path: Path) -> None:
    """From the connection to ten live readings, in a kernel with its own loop. (A hub, a fleet and a kernel start.)"""
    done = tmp_path / "done.ipynb"
    with HubProcess(tmp_path / "hub-data") as hub:
        environment = {
            **os.environ, "HUB_URL": hub.url, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"), "JUPYTER_PLATFORM_DIRS": "1",
        }  # fmt: skip
        environment.pop("HUB_TOKEN", None)
        fleet = subprocess.Popen(
            [sys.executable, "-m", "hub", "simulate", "fleet", "--devices", "3", "--rate", "5", "--duration", "60",
             "--url", hub.url, "--data", str(hub.data)],
            env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ends_s = time.monotonic() + LIMIT_S
            while len(hub.get("/v1/latest?match=*/temperature")["readings"]) < 3:
                assert time.monotonic() < ends_s, "the simulated devices sent nothing"
                time.sleep(0.1)
            ran = subprocess.run(
                [sys.executable, "-c", _RUN, str(NOTEBOOKS / "explore.ipynb"), str(done)],
                env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S,
            )  # fmt: skip
        finally:
            fleet.terminate()
            fleet.wait(20)

    assert ran.returncode == 0, ran.stderr[-4000:]
    cells = _cells(done)
    assert "sim-0001" in _text(cells["connect"])
    assert "datetime[ns, UTC]" in _text(cells["readings"])
    assert "sim-0001/temperature" in _text(cells["means"])
    assert "Europe/Brussels" in _text(cells["means"])
    assert len(_text(cells["watch"]).splitlines()) == 10
