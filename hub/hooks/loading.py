"""From names to hooks: entry points of installed packages, and import strings.

Owns: what of an object is a hook. Place: above `answer`, below `hub.app`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hub.errors import ConfigError
from hub.plugin import find, make

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
        target = find("hook", GROUP, name)
        if isinstance(target, type):
            target = make("hook", name, target)
        kinds = [kind for kind in _KINDS if getattr(target, "__name__", "") == kind and callable(target)]
        hooks = {kind: target for kind in kinds} or {kind: getattr(target, kind, None) for kind in _KINDS}
        given = {kind: hook for kind, hook in hooks.items() if callable(hook)}
        if not given:
            raise ConfigError(f"hook {name!r} is neither called authorize or ingest, nor has it one of these")
        for kind, hook in given.items():
            found[kind].append(hook)
    return Loaded(tuple(found["authorize"]), tuple(found["ingest"]))
