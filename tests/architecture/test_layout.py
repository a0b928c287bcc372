"""The tree's shape: tests mirror the source, files stay small, everything says what it is."""

import ast
import re
from functools import cache

from tests.architecture.source import ROOT, Module, modules, offenders, source_modules

MIRRORED = ("tests/device_sdk", "tests/hub", "tests/simulators")
# The guidance is 400, 40 and 300 lines; the quarter on top is for the case where cutting would hurt reading.
# Of a function, the body counts: a command's options and a long docstring are no complexity.
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 50
MAX_CLASS_LINES = 400
# Interfaces are tested by the contract suites, `__main__` by running the program; `errors` and `model` only declare.
_WITHOUT_OWN_TEST = re.compile(r"(.*/)?(__init__|__main__|base|errors|model)\.py")
# Implementations of one interface are tested by one suite over all of them.
_TESTED_IN = {
    "device_sdk.file_spool": "tests/contract/test_spool.py",
    "device_sdk.memory_spool": "tests/contract/test_spool.py",
    "device_sdk.spool": "tests/contract/test_spool.py",
    "device_sdk.spool_base": "tests/contract/test_spool.py",
    "hub.gateway.device_socket": "tests/end_to_end/test_bad_input.py",
    "hub.journal.sqlite": "tests/contract/test_journal.py",
    "hub.store.buckets": "tests/contract/test_store.py",
    "hub.store.columns": "tests/contract/test_store.py",
    "hub.store.embedded": "tests/contract/test_store.py",
    "hub.store.victoria_reader": "tests/contract/test_store_victoria.py",
    "hub.store.walk": "tests/contract/test_store.py",
}
# What a package as a whole must not load, or must not let in and show, belongs to no module of it.
_OF_A_WHOLE_PACKAGE = {
    "tests/device_sdk/test_footprint.py",
    "tests/hub/gateway/test_entrances.py",
    "tests/hub/gateway/test_isolation.py",
}

# Its docstring says that what has none is private: 8 KiB are not spent on names' first characters.
_PRIVATE_WITHOUT_DOCSTRING = {"device_sdk.micro"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _mirror_of(module: Module) -> str:
    return f"tests/{module.path.parent.as_posix()}/test_{module.path.name}"


def test_every_module_has_its_test_module() -> None:
    """hub/x/y.py is tested by tests/hub/x/test_y.py, or where `_TESTED_IN` says."""
    tested = [m for m in source_modules() if not _WITHOUT_OWN_TEST.fullmatch(m.path.as_posix())]

    missing = [m.name for m in tested if not (ROOT / _TESTED_IN.get(m.name, _mirror_of(m))).is_file()]

    assert missing == []


def test_every_mirrored_test_has_its_source() -> None:
    """No test module is left behind by a source module that moved."""
    expected = {_mirror_of(module) for module in source_modules()} | _OF_A_WHOLE_PACKAGE
    found = {m.path.as_posix() for m in modules(*MIRRORED) if m.path.name.startswith("test_")}

    assert sorted(found - expected) == []


def test_modules_are_small() -> None:
    """A file, class or function past its size is two of something."""
    assert offenders(source_modules(), _too_long) == {}


def _too_long(module: Module) -> list[str]:
    sizes = [(len(module.text.splitlines()), MAX_FILE_LINES, module.path.name)]
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            sizes.append((_body_lines(node), MAX_FUNCTION_LINES, node.name))
        elif isinstance(node, ast.ClassDef):
            sizes.append((_last_line(node) - node.lineno + 1, MAX_CLASS_LINES, node.name))

    return [f"{name}: {size} > {limit} lines" for size, limit, name in sizes if size > limit]


def _body_lines(node: Function) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return _last_line(node) - body[0].lineno + 1 if body else 0


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def test_modules_say_what_they_own() -> None:
    """Each file that holds anything begins with a docstring."""
    found = modules("device_sdk", "hub", "simulators", "tests")

    assert [m.name for m in found if m.tree.body and not ast.get_docstring(m.tree)] == []


def test_every_test_says_its_rule() -> None:
    """The docstring of a test is the sentence that must hold."""
    assert offenders([m for m in modules("tests") if m.path.name.startswith("test_")], _silent_tests) == {}


def _silent_tests(module: Module) -> list[str]:
    nodes = [node for node in ast.walk(module.tree) if isinstance(node, Function)]
    return [node.name for node in nodes if node.name.startswith("test_") and not ast.get_docstring(node)]


def test_public_names_have_docstrings() -> None:
    """A public function, class or method has a docstring; one that implements an interface has it there."""
    found = [module for module in source_modules() if module.name not in _PRIVATE_WITHOUT_DOCSTRING]

    assert offenders(found, _silent_names) == {}


def _silent_names(module: Module) -> list[str]:
    public = _public(module.tree, "")
    silent = [name for name, node in public if not ast.get_docstring(node) and not _is_explained_elsewhere(node)]
    return [name for name in silent if "." not in name or name.split(".")[1] not in _documented_methods()]


@cache
def _documented_methods() -> frozenset[str]:
    public = [found for module in source_modules() for found in _public(module.tree, "")]
    return frozenset(name.split(".")[1] for name, node in public if "." in name and ast.get_docstring(node))


def _public(node: ast.Module | ast.ClassDef, prefix: str) -> list[tuple[str, Function | ast.ClassDef]]:
    found: list[tuple[str, Function | ast.ClassDef]] = []
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            found.append((prefix + child.name, child))
            if isinstance(child, ast.ClassDef):
                found += _public(child, f"{child.name}.")
    return found


def _is_explained_elsewhere(node: Function | ast.ClassDef) -> bool:
    # A setter shares its property's docstring, an overload its implementation's; a property of a protocol
    # stands for an attribute, which the class's docstring explains.
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    is_attribute = "property" in names and ast.unparse(node.body[-1]) == "..."
    return is_attribute or any(name.endswith((".setter", "overload", "override")) for name in names)


def test_architecture_lists_every_module() -> None:
    """The table under "Modules" in ARCHITECTURE.md has one row for each module, and no row for one that is gone."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.split("\n## Modules", 1)[1].split("\n## ", 1)[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    listed = {name for cell in first_cells for name in re.findall(r"`([a-z0-9_./]+)`", cell)}
    tree = {m.name for m in source_modules() if not m.is_package and m.path.name != "__main__.py"}

    assert {"missing": sorted(tree - listed), "gone": sorted(listed - tree)} == {"missing": [], "gone": []}
