"""What a command takes, read from its function: names, types, defaults, choices, the docstring's first line.

Owns: the declaration of one command, as `wire.Schema` carries it. Place: after `wire`, inside `commands`. Pure.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from device_sdk.errors import MisuseError
from device_sdk.wire import MAX_COMMAND_ARGUMENTS

MAX_DOC_CHARS = 200
_WORDS = {int: "int", float: "float", bool: "bool", str: "str", dict: "dict", list: "list"}
_ALLOWED = "int, float, bool, str, dict, list, Literal of one of these, each with None or a default if you like"


def declare(name: str, function: Callable[..., object]) -> dict[str, Any]:
    """Return the declaration of a command.

    Raises:
        MisuseError: an argument without annotation, of an unsupported one, or with a default of another type.
    """
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise MisuseError(f"command {name!r}: its annotations cannot be read: {error}") from error
    parameters = inspect.signature(function).parameters.values()
    if len(parameters) > MAX_COMMAND_ARGUMENTS:
        raise MisuseError(f"command {name!r} has {len(parameters)} arguments; the limit is {MAX_COMMAND_ARGUMENTS}")
    args = {parameter.name: _argument(name, parameter, hints) for parameter in parameters}
    doc = (inspect.getdoc(function) or "").partition("\n")[0][:MAX_DOC_CHARS]
    return {"args": args, **({"doc": doc} if doc else {})}


def _argument(command: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> dict[str, Any]:
    where = f"command {command!r}, argument {parameter.name!r}"
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise MisuseError(f"{where}: commands are called by name; use no *, ** or / here")
    if parameter.name not in hints:
        raise MisuseError(f"{where} has no type; use {_ALLOWED}")
    found = _of_hint(where, hints[parameter.name])
    if parameter.default is inspect.Parameter.empty:
        return {**found, "required": True}
    _check_default(where, found, parameter.default)
    return {**found, "default": parameter.default}


def _of_hint(where: str, hint: Any) -> dict[str, Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) == 1 and len(kinds) < len(typing.get_args(hint)):
            return {**_of_hint(where, kinds[0]), "nullable": True}
    elif origin is Literal:
        choices = list(typing.get_args(hint))
        kinds = list({type(choice) for choice in choices})
        if len(kinds) == 1 and kinds[0] in (int, float, bool, str):
            return {"type": _WORDS[kinds[0]], "choices": choices}
    else:
        word = _WORDS.get(origin or hint)
        if word is not None:
            return {"type": word}
    raise MisuseError(f"{where}: {hint!r} is not supported; use {_ALLOWED}")


def _check_default(where: str, found: dict[str, Any], default: object) -> None:
    kinds = [kind for kind, word in _WORDS.items() if word == found["type"]]
    is_number = found["type"] == "float" and type(default) is int
    is_null = default is None and found.get("nullable", False)
    if not (type(default) in kinds or is_number or is_null) or (
        "choices" in found and not is_null and default not in found["choices"]
    ):
        raise MisuseError(f"{where}: the default {default!r} is not what its type allows")
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MisuseError(f"{where}: the default is no JSON: {error}") from error
