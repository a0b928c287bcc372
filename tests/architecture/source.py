"""The tree as the architecture tests see it: modules of ours, parsed once, and what each imports."""

import ast
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("device_sdk", "hub", "simulators")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its path below the root, its dotted name, its text and tree."""

    path: Path
    name: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def is_package(self) -> bool:
        """Tell whether this is the `__init__` of a package."""
        return self.path.name == "__init__.py"


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Return the modules below folders of the root, sorted by path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(_parse(path.relative_to(ROOT)) for path in paths if "build" not in path.relative_to(ROOT).parts)


def source_modules() -> tuple[Module, ...]:
    """Return the modules that are shipped."""
    return modules(*PACKAGES)


@cache
def imported_names(module: Module) -> frozenset[str]:
    """Return the dotted names a module imports, also inside functions and for type checking.

    ``from a.b import c`` gives ``a.b`` and ``a.b.c``, since ``c`` may be a module.
    """
    names: set[str] = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom(module=str(origin)):
                names.add(origin)
                names.update(f"{origin}.{alias.name}" for alias in node.names)
    return frozenset(names)


def offenders(found: Iterable[Module], check: Callable[[Module], Collection[object]]) -> dict[str, list[object]]:
    """Return module → what `check` finds wrong with it, without those where it finds nothing.

    One test over all modules: a test for each took a third of the fast suite's time.
    """
    return {module.name: sorted(wrong, key=str) for module in found if (wrong := check(module))}


@cache
def _parse(path: Path) -> Module:
    text = (ROOT / path).read_text(encoding="utf-8")
    parts = path.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(path, name, text, ast.parse(text, str(path)))
