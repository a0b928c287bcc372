"""``hub config show``: the settings that hold, and where each came from."""

from pathlib import Path

import pytest

from tests.hub.cli.conftest import Run


def test_origin_of_each_setting_is_shown(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and default are told apart."""
    (tmp_path / "hub.toml").write_text("journal_hours = 2")
    monkeypatch.setenv("HUB_PORT", "9000")

    rows = {row["setting"]: row for row in run("config", "show", "--origin", "--json").json}

    assert (rows["journal_hours"]["value"], rows["journal_hours"]["origin"]) == (2.0, "hub.toml")
    assert (rows["port"]["value"], rows["port"]["origin"]) == (9000, "$HUB_PORT")
    assert rows["host"]["origin"] == "default"


def test_origin_is_a_column_when_asked_for(run: Run) -> None:
    """The short form shows names and values."""
    assert run("config", "show").out.splitlines()[0].split() == ["setting", "value"]
    assert run("config", "show", "--origin").out.splitlines()[0].split() == ["setting", "value", "origin"]


def test_wrong_setting_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    """A broken file is named before anything starts."""
    (tmp_path / "hub.toml").write_text("port = 70000")

    outcome = run("config", "show")

    assert outcome.code == 2
    assert "port = 70000 (from hub.toml)" in outcome.err
