"""What importing the SDK must not load: pinned in fresh interpreters."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import device_sdk

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "device_sdk"
MAX_INSTALLED_BYTES = 3_000_000


def _loaded(code: str) -> set[str]:
    """Return the top-level modules a fresh interpreter has loaded after ``code``."""
    show = "import sys; print(*sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}\n{show}"],
        capture_output=True, text=True, timeout=30, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(done.stdout.split())


def test_naming_the_package_loads_nothing() -> None:
    """`import device_sdk` costs one small file and no other module."""
    assert _loaded("import device_sdk") - _loaded("pass") == {"device_sdk"}


@pytest.mark.parametrize("name", ["Channel", "Reading", "MisuseError"])
def test_plain_names_load_no_network(name: str) -> None:
    """Values and errors come without asyncio, websockets or ssl."""
    loaded = _loaded(f"from device_sdk import {name}")

    assert not loaded & {"asyncio", "websockets", "ssl", "socket", "http", "threading"}


def test_the_device_loads_no_network_library_before_it_is_made() -> None:
    """`from device_sdk import Device` leaves websockets alone; nothing heavy ever comes in."""
    loaded = _loaded("from device_sdk import Device")

    assert not loaded & {
        "websockets",
        "http",
        "email",
        "urllib3",
        "requests",
        "pydantic",
        "numpy",
        "hub",
        "json",
        "multiprocessing",
    }


def test_a_running_device_loads_the_sans_io_client_only() -> None:
    """The library's asyncio, sync and server halves are never needed."""
    code = (
        "from device_sdk import Device\n"
        "with Device('d', 'ws://127.0.0.1:1', spool=':memory:', close_timeout_s=0): pass\n"
        "import sys; bad = [m for m in sys.modules if m.startswith(('websockets.asyncio', 'websockets.sync',"
        " 'websockets.server', 'websockets.legacy'))]; assert not bad, bad"
    )
    loaded = _loaded(code)

    assert "websockets" in loaded
    assert not loaded & {"pydantic", "numpy", "hub", "cryptography", "multiprocessing"}


def test_annotations_are_not_evaluated_at_import() -> None:
    """They cost half a millisecond; where a `NamedTuple` is declared, as text they would cost more."""
    evaluating = {
        path.name
        for path in PACKAGE.glob("*.py")
        if "from __future__ import annotations" not in (text := path.read_text(encoding="utf-8"))
        and "(NamedTuple)" not in text
    }

    # What runs under MicroPython has no annotations.
    assert evaluating == {"__init__.py", "micro.py"}


def test_the_public_names_exist_and_no_other() -> None:
    """Each name of ``__all__`` can be had; an unknown one is an AttributeError."""
    assert [name for name in device_sdk.__all__ if not hasattr(device_sdk, name)] == []
    assert set(device_sdk.__all__) < set(dir(device_sdk))
    with pytest.raises(AttributeError, match="no attribute 'Hub'"):
        device_sdk.__getattr__("Hub")


def test_the_version_is_the_distributions() -> None:
    """What hello says is what was installed."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert device_sdk.__version__ == project["version"]


def test_the_installed_size_stays_small() -> None:
    """Our files and websockets together take less than 3 MB of an SD card."""
    import websockets

    places = (PACKAGE, Path(next(iter(websockets.__path__))))
    size = sum(f.stat().st_size for place in places for f in place.rglob("*") if f.suffix in (".py", ".so", ".typed"))

    assert size < MAX_INSTALLED_BYTES
