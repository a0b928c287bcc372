"""``hub serve``: its flags are the table of settings; it runs and stops."""

import inspect
from pathlib import Path
from typing import get_args

import pytest

from hub.cli.serving import serve
from hub.config import Config
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

FLAGS = {name: get_args(parameter.annotation)[1] for name, parameter in inspect.signature(serve).parameters.items()}
# Flags are seen by everybody on the machine.
WITHOUT_FLAG = {"store_token"}


def test_flags_are_the_settings() -> None:
    """Every setting but a secret has a flag and every flag but --config is a setting."""
    assert set(FLAGS) - {"config"} == set(Config.model_fields) - WITHOUT_FLAG


@pytest.mark.parametrize("name", sorted(set(Config.model_fields) - WITHOUT_FLAG))
def test_flag_says_what_the_setting_says(name: str) -> None:
    """One help text, wherever it is read."""
    assert FLAGS[name].help == Config.model_fields[name].description


def test_lan_without_tls_is_refused(run: Run) -> None:
    """The secure default is explained, with the three ways out."""
    outcome = run("serve", "--host", "0.0.0.0")

    assert outcome.code == 2
    for way in ("hub tls init", "--host 127.0.0.1", "--insecure-lan"):
        assert way in outcome.err


@pytest.mark.parametrize("kind", ["hook", "decoder"])
def test_code_that_is_not_there_is_a_wrong_setting(run: Run, tmp_path: Path, kind: str) -> None:
    """The hub does not start without what it was told to ask, and makes no file."""
    outcome = run("serve", "--data", tmp_path / "data", "--port", 0, f"--{kind}", "nobody")

    assert outcome.code == 2
    assert f"{kind} 'nobody'" in outcome.err
    assert not (tmp_path / "data").exists()


def test_list_that_is_not_given_is_that_of_the_file(run: Run, tmp_path: Path) -> None:
    """A flag without a value is no empty list; one with a value is the whole list."""
    file = tmp_path / "hub.toml"
    file.write_text(f'hook = ["nobody"]\ndata = "{(tmp_path / "data").as_posix()}"\nport = 0\n')

    by_file = run("serve", "--config", file)
    by_flag = run("serve", "--config", file, "--hook", "somebody")

    assert (by_file.code, by_flag.code) == (2, 2)
    assert "hook 'nobody'" in by_file.err
    assert "hook 'somebody'" in by_flag.err
    assert "nobody" not in by_flag.err


def test_port_in_use_says_so(run: Run, hub: HubProcess, tmp_path: Path) -> None:
    """A second hub on the port ends at once with what to do."""
    outcome = run("serve", "--data", tmp_path / "other", "--port", hub.port)

    assert outcome.code == 2
    assert "--port N" in outcome.err
