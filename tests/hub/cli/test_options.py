"""Shared options: where a command's hub or folder comes from."""

from pathlib import Path

import pytest

from hub.cli import options
from hub.cli.exit_code import CliError
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


def test_url_and_token_come_from_the_environment(
    run: Run, hub: HubProcess, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HUB_URL and HUB_TOKEN do as --url and --token."""
    monkeypatch.setenv("HUB_URL", hub.url)
    monkeypatch.setenv("HUB_TOKEN", admin)

    assert run("tokens", "ls", "--json").code == 0


def test_mistyped_data_folder_is_not_made(run: Run, tmp_path: Path) -> None:
    """An offline command works on a folder that is there; it never makes one by mistake."""
    outcome = run("devices", "ls", "--data", tmp_path / "hub-date")

    assert outcome.code == 5
    assert "start the hub once" in outcome.err
    assert not (tmp_path / "hub-date").exists()
    with pytest.raises(CliError), options.open_identities(tmp_path / "hub-date"):
        raise AssertionError("nothing was opened")
