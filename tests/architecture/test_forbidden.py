"""What must not be in the repository: dangerous calls, mocks of our own code, addresses of machines."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

from tests.architecture.source import ROOT, Module, imported_names, modules, offenders, source_modules

_DANGEROUS_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "jsonpickle"}
_DANGEROUS_CALLS = {
    "eval",
    "exec",
    "compile",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
}
_CORE_TESTS = ("tests/device_sdk", "tests/hub/journal", "tests/hub/store", "tests/hub/live", "tests/simulators")

# Written in parts, since this file is searched too.
_REGISTRIES = ("py" + "pi.org", "python" + "hosted", "npm" + "js.", "deb.deb" + "ian", "crates" + ".io", "yarn" + "pkg")
_MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/home/" + "user")
_NOT_TEXT = {".png", ".woff2", ".ico", ".sqlite3", ".bin"}


@cache
def _calls(module: Module) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}


def test_nothing_dangerous_is_used() -> None:
    """No pickle, eval, exec, unsafe YAML, or shell in shipped code."""
    assert offenders(source_modules(), _dangers) == {}


def _dangers(module: Module) -> set[str]:
    roots = {name.split(".")[0] for name in imported_names(module)}
    shells = {"shell" for node in ast.walk(module.tree) if _has_shell(node)}
    return roots & _DANGEROUS_MODULES | _calls(module) & _DANGEROUS_CALLS | shells


def _has_shell(node: ast.AST) -> bool:
    if not isinstance(node, ast.keyword) or node.arg != "shell":
        return False
    return not (isinstance(node.value, ast.Constant) and node.value.value is False)


def test_our_own_code_is_never_patched() -> None:
    """No mocks and no patched attributes: where one seems needed, a seam is missing."""
    assert offenders(modules("tests"), _patches) == {}


def _patches(module: Module) -> set[str]:
    mocks = {name for name in imported_names(module) if name.split(".")[-1] == "mock" or name == "pytest_mock"}
    return mocks | {call for call in _calls(module) if call.endswith("monkeypatch.setattr")}


def test_core_tests_never_sleep() -> None:
    """Time is passed in: the only sleep of a core test is `asyncio.sleep(0)`, which yields."""
    assert offenders(modules(*_CORE_TESTS), _sleeps) == {}


def _sleeps(module: Module) -> set[str]:
    calls = {
        ast.unparse(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}
    }
    return calls - {"asyncio.sleep(0)"}


def _tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in _NOT_TEXT]


def test_no_file_names_a_registry_or_a_machine() -> None:
    """A clone works behind any mirror and in any folder: no registry's host, no path of somebody's machine."""
    pattern = re.compile("|".join(map(re.escape, (*_REGISTRIES, *_MACHINE_PATHS))))

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in _tracked_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == []
