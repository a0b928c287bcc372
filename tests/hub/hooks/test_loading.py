"""A name leads to hooks or to an error that says what is wrong; what was not named is not loaded."""

from pathlib import Path

import pytest

from hub.errors import ConfigError
from hub.hooks.loading import GROUP, load

MODULE = """
def authorize(context, action, pattern):
    return True

def ingest(context, columns):
    return None

class Both:
    def authorize(self, context, action, pattern):
        return False

    async def ingest(self, context, columns):
        return None

class Needs:
    def __init__(self, argument):
        pass

made = Both()

def other():
    pass

def broken():
    raise RuntimeError
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of hooks, and a package with an entry point."""
    (tmp_path / "my_broken_hooks.py").write_text("raise RuntimeError('no database')")
    package = tmp_path / "site" / "my_hooks-1.0.dist-info"
    package.mkdir(parents=True)
    (package.parent / "my_hooks.py").write_text(MODULE)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-hooks\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{GROUP}]\ngreenhouse = my_hooks:made\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "authorize", "ingest"),
    [
        pytest.param("my_hooks:authorize", ["authorize"], [], id="function"),
        pytest.param("my_hooks:ingest", [], ["ingest"], id="other function"),
        pytest.param("my_hooks:Both", ["Both.authorize"], ["Both.ingest"], id="class"),
        pytest.param("my_hooks:made", ["Both.authorize"], ["Both.ingest"], id="object"),
        pytest.param("my_hooks:made.ingest", [], ["Both.ingest"], id="method"),
        pytest.param("greenhouse", ["Both.authorize"], ["Both.ingest"], id="entry point"),
    ],
)
def test_name_leads_to_hooks(name: str, authorize: list[str], ingest: list[str]) -> None:
    """Functions by their name; objects, and classes made without arguments, by what they have."""
    loaded = load([name])

    assert [hook.__qualname__ for hook in loaded.authorize] == authorize
    assert [hook.__qualname__ for hook in loaded.ingest] == ingest


def test_hooks_keep_the_order_of_their_names() -> None:
    """It is the order in which they are asked."""
    loaded = load(["my_hooks:made", "my_hooks:ingest"])

    assert [hook.__qualname__ for hook in loaded.ingest] == ["Both.ingest", "ingest"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("my_missing_hooks:ingest", "No module named", id="no module"),
        pytest.param("my_hooks:nothing", "no attribute 'nothing'", id="no name"),
        pytest.param("my_hooks:", "no attribute ''", id="empty name"),
        pytest.param("my_broken_hooks:ingest", "no database", id="module that raises"),
        pytest.param("my_hooks:other", "neither called authorize or ingest", id="no hook"),
        pytest.param("my_hooks:Needs", "cannot be made", id="class with arguments"),
        pytest.param("elsewhere", "there: greenhouse", id="no entry point"),
    ],
)
def test_wrong_name_is_a_setting_that_is_wrong(name: str, says: str) -> None:
    """The hub does not start without a hook that it was told to have."""
    with pytest.raises(ConfigError, match=says):
        load([name])
