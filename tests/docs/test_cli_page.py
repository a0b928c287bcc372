"""docs/reference/cli.md names every command, every option and every exit code."""

from typing import Any

import pytest

from docs.cli_page import cli, commands
from hub.cli.exit_code import ExitCode

PAGE = cli()


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=str)
def test_every_command_has_every_option(name: str, command: Any) -> None:
    """A command stands there with each of its options and arguments."""
    section = PAGE.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]

    for parameter in command.params:
        for word in [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else ():
            assert f"`{word}`" in section
        assert parameter.param_type_name == "option" or parameter.name.upper() in section


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_every_exit_code_is_listed(code: ExitCode) -> None:
    """What a script may branch on is written down."""
    assert f"| {code.value} | {code.name.lower()} |" in PAGE
