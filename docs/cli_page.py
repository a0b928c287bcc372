"""The page docs/reference/cli.md: every command with its arguments, options and defaults, from the tree it runs by.

Place: beside `docs.generate`, which writes it.
"""

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from hub.cli.exit_code import ExitCode
from hub.cli.main import app
from hub.config import Config


def cli() -> str:
    """Return docs/reference/cli.md."""
    lines = inspect.getsource(ExitCode).splitlines()
    meanings = {line.split("=")[0].strip(): line.partition("# ")[2] for line in lines if " = " in line}
    codes = ["| code | name | meaning |", "| --- | --- | --- |"]
    codes += [f"| {code.value} | {code.name.lower()} | {meanings.get(code.name, '')} |" for code in ExitCode]
    return "\n".join([
        "# The command `hub`\n",
        "*Generated from the commands themselves by `python -m docs.generate`; `hub COMMAND --help` says the same.*\n",
        "## Exit codes\n", "\n".join(codes) + "\n",
        *(_command(name, command) for name, command in commands()),
    ])  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its words: (``hub devices add``, command), in the tree's order."""
    yield from _leaves("hub", typer.main.get_command(app))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for word, child in children.items():
        yield from _leaves(f"{name} {word}", child)


def _command(name: str, command: Any) -> str:
    rows = ["| argument or option | default | what |", "| --- | --- | --- |"]
    # Options of `hub serve` are settings: their defaults stand in that table, so that other places may come between.
    settings = Config.model_fields if name == "hub serve" else {}
    for parameter in command.params:
        setting = settings.get(parameter.name)
        rows.append(_parameter(parameter, parameter.default if setting is None else setting.default))
    table = "\n".join(rows) + "\n" if command.params else ""
    return f"## {name}\n\n{inspect.cleandoc(command.help or '')}\n\n{table}"


def _parameter(parameter: Any, default: object) -> str:
    is_option = parameter.param_type_name == "option"
    words = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
    name = ", ".join(f"`{word}`" for word in words)
    default_text = "required" if parameter.required else _default(default)
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    variable = getattr(parameter, "envvar", None)
    return f"| {name} | {default_text} | {text}{f' Also `${variable}`.' if variable else ''} |"


def _default(value: object) -> str:
    if value is None or value is False or value == [] or value == () or callable(value):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"
