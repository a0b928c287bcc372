"""``hub backup``: beside a running hub and by REST, the same copy; a hub starts on it."""

from pathlib import Path

import pytest

from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


@pytest.mark.parametrize("way", ["files", "rest"])
def test_backup_of_a_running_hub(
    run: Run, hub: HubProcess, admin: str, recorded: str, tmp_path: Path, way: str
) -> None:
    """All readings are in the copy, and the tokens."""
    where = ["--data", hub.data] if way == "files" else ["--url", hub.url, "--token", admin]

    head = hub.get("/healthz")["head"]
    made = run("backup", tmp_path / "copy", "--json", *where)
    again = run("backup", tmp_path / "copy", *where)

    assert (made.code, again.code) == (0, 6)
    # That there is a copy is told as well, behind it.
    assert head <= made.json["head"] <= hub.get("/healthz")["head"]
    with HubProcess(tmp_path / "copy") as restored:
        rows = restored.get(f"/v1/readings?match={recorded}/temperature&from=0", token=admin)["rows"]
        assert [row[2] for row in rows] == [20.0 + n for n in range(10)]
    assert not list(hub.data.glob("*.part"))


def test_backup_by_rest_needs_an_admin(run: Run, hub: HubProcess, tmp_path: Path) -> None:
    """The copy holds everything, so a watcher does not get it; nothing is left of the attempt."""
    assert run("backup", tmp_path / "copy", "--url", hub.url).code == 4
    assert not (tmp_path / "copy.part").exists()
