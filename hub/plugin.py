"""From names to objects of other people's packages: entry points, and import strings.

Owns: which names mean what. Place: leftmost in `hub`; hooks and decoders say what they want to find. Nothing is loaded
that was not named: a package that happens to be installed must not get a say.
"""

import importlib
import importlib.metadata
import os
import sys
from typing import Any

from hub.errors import ConfigError


def find(what: str, group: str, name: str) -> Any:
    """Import what a name means.

    Args:
        what: what it is to be, for people: ``hook``.
        group: where packages name theirs.
        name: ``package.module:name``, or the name of an entry point of ``group``.

    Raises:
        ConfigError: the name leads nowhere; says which, and why.
    """
    module, colon, path = name.partition(":")
    try:
        if not colon:
            return _entry_point(what, group, name).load()
        _see_this_folder()
        target: Any = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
        return target
    except ConfigError:
        raise
    except Exception as error:  # foreign code is run: it may raise anything
        raise ConfigError(f"{what} {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def make(what: str, name: str, kind: type) -> object:
    """Return an object of a class that was found.

    Raises:
        ConfigError: it cannot be made without arguments.
    """
    try:
        return kind()
    except Exception as error:  # foreign code is run: it may raise anything
        raise ConfigError(f"{what} {name!r} cannot be made: {type(error).__name__}: {error}") from error


def _entry_point(what: str, group: str, name: str) -> importlib.metadata.EntryPoint:
    found = importlib.metadata.entry_points(group=group)
    for entry_point in found:
        if entry_point.name == name:
            return entry_point
    there = ", ".join(sorted(found.names)) or "none"
    raise ConfigError(
        f"{what} {name!r}: no installed package has an entry point of this name in the group {group} (there: {there}); "
        "a file in this folder is named as MODULE:NAME"
    )


def _see_this_folder() -> None:
    # As uvicorn finds an application: the program `hub` does not see the folder it is started in. Last, so that no
    # file there takes the place of a module of the hub.
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
