"""Rows become columns once, whole, and not by half."""

import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.renewal import renew_if_suspect
from hub.store.base import RetainingStore, Store
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.store.migration import migrate
from hub.store.opening import kind_of, open_as, open_store
from tests.support.frames import T0, FrameMaker, numbered

FILE = "readings.sqlite3"
SERIES = list(range(1, 5))
S = 10**9


def fill(store: Store) -> FrameMaker:
    """Write two days of readings of every type, late, doubled, erased, dropped; the last series is empty again."""
    maker = FrameMaker()
    values: list[Value] = [1.5, -0.0, 7.25]
    for n in range(20):
        times = [T0 + (n * 8640 + i) * S for i in range(40)]
        sent: list[tuple[str, int, Value]] = [("t", t, values[i % 3]) for i, t in enumerate(times)]
        sent += [("n", t, i) for i, t in enumerate(times)]
        sent += [("mixed", t, ("x", True, 2**53 + 1, 0.5)[i % 4]) for i, t in enumerate(times)]
        store.write(numbered([maker.batch("pump", sent, received_ns=T0 + n * 8640 * S + 41 * S)], n * 2 + 1))
        late = [("t", times[3] - 5 * S, 9.0), ("gone", times[0], 1.0)]
        store.write(numbered([maker.batch("pump", late, received_ns=T0 + n * 8640 * S + 60 * S)], n * 2 + 2))
    store.erase([4])
    assert isinstance(store, RetainingStore)
    while store.drop_before(SERIES, T0 + 7200 * S):
        pass
    return maker


def answers(store: Store) -> list[object]:
    """Return what a store says of everything."""
    rows = [row for page in store.dump(SERIES, 0, 2**62, received=True) for row in page]
    # Receive times are exact or up to a second too early in both: compared to the second.
    plain = [(r.series, r.time_ns, repr(r.value), (r.received_ns or 0) // S) for r in rows]
    assert isinstance(store, RetainingStore)
    hours = store.aggregate(SERIES, 0, 2**62, 3600 * S, ["count", "min", "max", "last"])
    ledger = [store.applied, store.counters(SERIES), store.raw_from(SERIES), store.largest_series()]
    return [*ledger, store.latest(SERIES), hours, plain]


def test_rows_become_columns(tmp_path: Path) -> None:
    """Every reading with its type and receive time, counters, position; the folder is smaller and has one file."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
        expected = answers(rows)
    os.chmod(tmp_path / FILE, 0o600)

    with closing(open_as(tmp_path / FILE, "columns")) as store:
        assert isinstance(store, ColumnStore)
        assert answers(store) == expected

    assert os.listdir(tmp_path) == [FILE]
    assert kind_of(tmp_path / FILE) == "columns"
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_migrated_store_goes_on(tmp_path: Path) -> None:
    """What comes afterwards is stored, late or not, as if it had been columns from the beginning."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows, closing(ColumnStore(tmp_path / "other")) as columns:
        maker = fill(rows)
        fill(columns)
    migrate(tmp_path / FILE)
    frames = numbered([maker.batch("pump", [("t", T0 + 3 * S, -1.0), ("gone", T0, 1.0)])], 41)
    with closing(open_store(tmp_path / FILE)) as store, closing(open_store(tmp_path / "other")) as other:
        store.write(frames)
        other.write(frames)
        assert answers(store) == answers(other)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_kill_during_a_migration_leaves_the_rows(tmp_path: Path) -> None:
    """Until the new file has the name, the old one counts, whatever lies beside it; the next start finishes."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
        expected = answers(rows)
    copy = tmp_path / "copy"

    def kill() -> None:
        copy.mkdir()
        for path in tmp_path.glob(f"{FILE}*"):
            shutil.copyfile(path, copy / path.name)
        raise Killed

    with pytest.raises(Killed):
        migrate(tmp_path / FILE, on_page=kill)

    assert (copy / f"{FILE}-columns").exists()
    for folder in (copy, tmp_path):
        assert kind_of(folder / FILE) == "rows"
        with closing(open_as(folder / FILE, "columns")) as store:
            assert answers(store) == expected
        assert [path.name for path in folder.glob(f"{FILE}*")] == [FILE]


def test_kill_while_the_new_file_takes_the_name(tmp_path: Path) -> None:
    """Between the two names the next start does the rest, and the old file's log is not applied to the new one."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
        expected = answers(rows)
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / (FILE + suffix), tmp_path / ("old" + suffix))
    migrate(tmp_path / FILE)
    (tmp_path / FILE).rename(tmp_path / f"{FILE}-renewed")
    for suffix in ("", "-wal"):
        (tmp_path / ("old" + suffix)).rename(tmp_path / (FILE + suffix))

    assert renew_if_suspect(tmp_path / FILE)

    with closing(open_as(tmp_path / FILE, "columns")) as store:
        assert answers(store) == expected


def test_rows_stay_when_they_cannot_be_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hub starts all the same, on the rows, and says why."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
        expected = answers(rows)
    (tmp_path / f"{FILE}-columns").mkdir()

    with closing(open_as(tmp_path / FILE, "columns")) as store:
        assert isinstance(store, EmbeddedStore)
        assert answers(store) == expected

    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == [logging.ERROR]
    assert "readings stay rows" in caplog.text


def test_new_file_never_takes_the_name_without_its_log(tmp_path: Path) -> None:
    """What closing the new file would leave in its log, and say nothing, is no file to go on with: the rows stay."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
        expected = answers(rows)
    with closing(sqlite3.connect(tmp_path / f"{FILE}-other", isolation_level=None)) as reader:

        def hold() -> None:
            reader.execute("ATTACH ? AS fresh", (str(tmp_path / f"{FILE}-columns"),))
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM fresh.chunk").fetchone()

        with pytest.raises(StoreError, match="log"):
            migrate(tmp_path / FILE, on_page=hold)

    with closing(open_store(tmp_path / FILE)) as store:
        assert answers(store) == expected


def test_rows_are_not_written_once_columns_are_finished(tmp_path: Path) -> None:
    """A disk that fails between the two names: the next start would throw away what was written to the rows."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)
    (tmp_path / f"{FILE}-renewed").touch()
    (tmp_path / f"{FILE}-columns").mkdir()

    with pytest.raises(StoreError, match="start again"):
        open_as(tmp_path / FILE, "columns")


def test_migration_says_how_far_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Minutes in which no device is served are not silent: a line each tenth, and no more."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        rows.write(numbered(FrameMaker().many(20, 1, 5)))
    caplog.set_level(logging.INFO)

    migrate(tmp_path / FILE)

    said = [r.getMessage().partition("percent=")[2] for r in caplog.records if "percent=" in r.getMessage()]
    assert said == ["40", "80", "100"]


def test_migration_that_lacks_readings_is_refused(tmp_path: Path) -> None:
    """As many readings of each series must have arrived as there were: else the rows stay."""
    with closing(EmbeddedStore(tmp_path / FILE)) as rows:
        fill(rows)

    def lose() -> None:
        with closing(sqlite3.connect(tmp_path / f"{FILE}-columns")) as connection, connection:
            connection.execute("DELETE FROM chunk WHERE series = 2")

    with pytest.raises(StoreError, match="series 2: 0 of 760"):
        migrate(tmp_path / FILE, on_page=lose)
    assert os.listdir(tmp_path) == [FILE]
    assert kind_of(tmp_path / FILE) == "rows"
