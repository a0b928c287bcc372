"""From names to hooks: entry points of installed packages, and import strings.

Owns: which names mean what. Place: above `answer`, below `hub.app`. Nothing is loaded that was not named: a package
that happens to be installed must not get a say.
"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hub.errors import ConfigError

# Packages name their hooks in this group.
GROUP = "telemetry_hub.hooks"
_KINDS = ("authorize", "ingest")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Hooks by what they are asked, in the order they were named."""

    authorize: tuple[Callable[..., object], ...] = ()
    ingest: tuple[Callable[..., object], ...] = ()


def load(names: Sequence[str]) -> Loaded:
    """Import hooks.

    Args:
        names: ``package.module:name``, or the name of an entry point of `GROUP`. What it leads to is a function called
            ``authorize`` or ``ingest``, or something (a module, an object, a class that is made without arguments) that
            has one of them or both.

    Raises:
        ConfigError: a name leads nowhere, or to no hook; says which.
    """
    found: dict[str, list[Callable[..., object]]] = {kind: [] for kind in _KINDS}
    for name in names:
        target = _find(name)
        if isinstance(target, type):
            target = _made(name, target)
        kinds = [kind for kind in _KINDS if getattr(target, "__name__", "") == kind and callable(target)]
        hooks = {kind: target for kind in kinds} or {kind: getattr(target, kind, None) for kind in _KINDS}
        given = {kind: hook for kind, hook in hooks.items() if callable(hook)}
        if not given:
            raise ConfigError(f"hook {name!r} is neither called authorize or ingest, nor has it one of these")
        for kind, hook in given.items():
            found[kind].append(hook)
    return Loaded(tuple(found["authorize"]), tuple(found["ingest"]))


def _find(name: str) -> Any:
    module, colon, path = name.partition(":")
    try:
        if not colon:
            return _entry_point(name).load()
        _see_this_folder()
        target: Any = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
        return target
    except ConfigError:
        raise
    except Exception as error:  # foreign code is run: it may raise anything
        raise ConfigError(f"hook {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _entry_point(name: str) -> importlib.metadata.EntryPoint:
    found = importlib.metadata.entry_points(group=GROUP)
    for entry_point in found:
        if entry_point.name == name:
            return entry_point
    there = ", ".join(sorted(found.names)) or "none"
    raise ConfigError(
        f"hook {name!r}: no installed package has an entry point of this name in the group {GROUP} (there: {there}); "
        "a file in this folder is named as MODULE:NAME"
    )


def _see_this_folder() -> None:
    # As uvicorn finds an application: the program `hub` does not see the folder it is started in. Last, so that no
    # file there takes the place of a module of the hub.
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)


def _made(name: str, kind: type) -> object:
    try:
        return kind()
    except Exception as error:  # foreign code is run: it may raise anything
        raise ConfigError(f"hook {name!r} cannot be made: {type(error).__name__}: {error}") from error
