"""A name leads to an object or to an error that says what is wrong; what was not named is not loaded."""

from pathlib import Path

import pytest

from hub.errors import ConfigError
from hub.plugin import find, make

GROUP = "telemetry_hub.tests"


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in this folder, and a package with an entry point."""
    (tmp_path / "my_plugins.py").write_text("class A:\n    b = 7\n    def __init__(self, x):\n        pass\n")
    (tmp_path / "my_broken_plugins.py").write_text("raise SystemError('no library')")
    package = tmp_path / "site" / "my_installed_plugins-1.0.dist-info"
    package.mkdir(parents=True)
    (package.parent / "my_installed_plugins.py").write_text("seven = 7\n")
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-installed-plugins\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{GROUP}]\nseven = my_installed_plugins:seven\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["my_plugins:A.b", "seven"])
def test_name_leads_to_an_object(name: str) -> None:
    """As an import string, or as an entry point."""
    assert find("pump", GROUP, name) == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_plugins:C", "pump 'my_plugins:C' cannot be loaded: AttributeError"),
        ("my_broken_plugins:A", "no library"),
        ("nobody", "no installed package .*there: seven"),
    ],
)
def test_wrong_name_is_a_setting_that_is_wrong(name: str, says: str) -> None:
    """It names what was wanted, and why it is not there."""
    with pytest.raises(ConfigError, match=says):
        find("pump", GROUP, name)


def test_class_that_needs_something_cannot_be_made() -> None:
    """Nothing is known here to give it."""
    with pytest.raises(ConfigError, match="pump 'a' cannot be made: TypeError"):
        make("pump", "a", find("pump", GROUP, "my_plugins:A"))
