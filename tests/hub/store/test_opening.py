"""Whoever opens a folder finds the store that it has, and who wants another one is told."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import ConfigError, StoreError
from hub.store.base import Store
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.store.opening import Kind, kind_of, open_as, open_store
from tests.support.frames import FrameMaker, numbered
from tests.support.recorder import Recorder

FILE = "readings.sqlite3"


OPENED: list[tuple[Callable[[Path], Store], str]] = [(EmbeddedStore, "rows"), (ColumnStore, "columns")]


@pytest.mark.parametrize(("make", "kind"), OPENED)
def test_store_is_opened_as_it_is(tmp_path: Path, make: Callable[[Path], Store], kind: str) -> None:
    """Commands on a folder change nothing of it."""
    make(tmp_path / FILE).close()

    assert kind_of(tmp_path / FILE) == kind
    with closing(open_store(tmp_path / FILE)) as store:
        assert isinstance(store, EmbeddedStore) is (kind == "rows")
    assert kind_of(tmp_path / FILE) == kind


def test_columns_do_not_become_rows(tmp_path: Path) -> None:
    """Asked for, it is refused in words; a new folder has what was asked for; what is no database is told."""
    kinds: tuple[Kind, ...] = ("columns", "rows")
    for kind in kinds:
        open_as(tmp_path / kind, kind).close()
        assert kind_of(tmp_path / kind) == kind
    with pytest.raises(StoreError, match="start without --store rows"):
        open_as(tmp_path / "columns", "rows")
    assert kind_of(tmp_path / "nothing") is None
    (tmp_path / "text").write_text("no database, but longer than the header of one" * 10)
    with pytest.raises(StoreError, match="not a database"):
        open_store(tmp_path / "text")


@pytest.mark.parametrize(("make", "kind"), OPENED)
def test_hub_that_says_nothing_keeps_what_there_is(tmp_path: Path, make: Callable[[Path], Store], kind: str) -> None:
    """A folder stays as it is over an upgrade; a new one has rows."""
    make(tmp_path / FILE).close()

    open_as(tmp_path / FILE, None).close()
    open_as(tmp_path / "new", None).close()

    assert (kind_of(tmp_path / FILE), kind_of(tmp_path / "new")) == (kind, "rows")


def test_hub_of_rows_does_not_load_what_others_need() -> None:
    """Its memory and the time of its import are for those who keep columns."""
    names = "['aiohttp', 'influxdb_client', 'numpy', 'pyarrow']"
    program = f"import sys, hub.app, hub.store.opening; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


ADDRESS = "influxdb+http://127.0.0.1:1/hub"


def test_folder_and_server_belong_together(tmp_path: Path) -> None:
    """What was begun on a server goes on there, and opens while it is away; what was begun here stays here."""
    open_as(tmp_path / "remote", ADDRESS, token="x").close()
    EmbeddedStore(tmp_path / "rows").close()

    assert kind_of(tmp_path / "remote") == "remote"
    with closing(open_as(tmp_path / "remote", ADDRESS)) as store:
        assert (store.applied, store.latest([1])) == (0, [])
    for kind in (None, "rows", "columns"):
        with pytest.raises(StoreError, match="are on a server"):
            open_as(tmp_path / "remote", kind)
    with pytest.raises(StoreError, match="do not move to a server"):
        open_as(tmp_path / "rows", ADDRESS)
    with pytest.raises(ConfigError, match="HUB_STORE_TOKEN"):
        open_as(tmp_path / "new", "influxdb+http://user:secret@h/hub")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("scheme", "path"), [("influxdb", "/query"), ("influxdb2", "/api/v2/query")])
def test_address_says_which_questions_a_server_understands(tmp_path: Path, scheme: str, path: str) -> None:
    """InfluxQL to 1.x, Flux to 2.x, with the token."""
    with Recorder() as recorder:
        address = f"{scheme}+{recorder.url}/hub?org=farm"
        with closing(open_as(tmp_path / "remote", address, token="s3cret")) as store:
            store.write(numbered([FrameMaker().one("pump", 1.0)]))
            recorder.answer = (503, "later")
            with pytest.raises(StoreError, match="503: later"):
                store.counters([1])

    assert [(asked, token) for asked, _, token, _ in recorder.requests] == [
        ("/api/v2/write", "Token s3cret"), (path, "Token s3cret")
    ]  # fmt: skip


VICTORIA = "victoriametrics+http://127.0.0.1:1"


def test_folder_belongs_to_one_kind_of_server(tmp_path: Path) -> None:
    """A folder begun with VictoriaMetrics goes on there while it is away, and not on another server or here."""
    open_as(tmp_path / "victoria", VICTORIA).close()
    open_as(tmp_path / "influx", ADDRESS, token="x").close()

    assert kind_of(tmp_path / "victoria") == "victoriametrics"
    with closing(open_as(tmp_path / "victoria", VICTORIA)) as store:
        assert (store.applied, store.latest([1])) == (0, [])
    with pytest.raises(StoreError, match="are on a server"):
        open_as(tmp_path / "victoria", None)
    for folder, address in (("victoria", ADDRESS), ("influx", VICTORIA)):
        with pytest.raises(StoreError, match="or to another one"):
            open_as(tmp_path / folder, address)
    with pytest.raises(ConfigError, match="HUB_STORE_TOKEN"):
        open_as(tmp_path / "new", "victoriametrics+http://user:secret@h")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("begun", "moved"),
    [(ADDRESS, "influxdb+http://127.0.0.1:1/other"), (VICTORIA, "victoriametrics+http://127.0.0.1:2")],
)
def test_folder_that_is_pointed_at_another_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begun: str, moved: str
) -> None:
    """Servers get other names; but if it is another database, what was written before is in no answer: it is said."""
    for address in (begun, begun + "/", begun):
        open_as(tmp_path / FILE, address).close()
    assert caplog.text == ""

    for _ in range(2):
        open_as(tmp_path / FILE, moved).close()

    assert len(caplog.records) == 1
    assert f"from={begun} to={moved}" in caplog.text
    assert "hub audit" in caplog.text
