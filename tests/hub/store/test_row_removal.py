"""Plain rows that go: what else of a series goes with them, and what must stay."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.embedded import EmbeddedStore
from hub.store.row_removal import drop_oldest, droppable, erase_oldest
from tests.support.frames import T0, FrameMaker, numbered

S = 10**9


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A file with ten readings of a series, each received two seconds after the one before, one of them late."""
    store, maker = EmbeddedStore(tmp_path / "readings.sqlite3"), FrameMaker()
    for at in (0, 1, 2, 3, 5, 4, 6, 7, 8, 9):
        frame = maker.batch("pump", [("t", T0 + at * S, float(at))], received_ns=T0 + 2 * at * S)
        store.write(numbered([frame], store.applied + 1))
    store.close()
    connection = sqlite3.connect(tmp_path / "readings.sqlite3", isolation_level=None)
    yield connection
    connection.close()


def times(connection: sqlite3.Connection, table: str) -> list[int]:
    """Return the seconds that a table has."""
    return [(t - T0) // S for (t,) in connection.execute(f"SELECT time_ns FROM {table} ORDER BY 1")]


def test_receipts_go_with_their_readings(connection: sqlite3.Connection) -> None:
    """But the last one before those that stay is theirs."""
    assert drop_oldest(connection, 1, T0 + 5 * S, 99)[0] == 5

    assert times(connection, "reading") == [5, 6, 7, 8, 9]
    assert times(connection, "receipt") == [5, 6, 7, 8, 9]
    assert times(connection, "older_receipt") == []


def test_a_slice_takes_the_oldest(connection: sqlite3.Connection) -> None:
    """As many as it may, the newest reading never."""
    taken = []
    while droppable(connection, [1, 2], T0 + 99 * S):
        taken.append(drop_oldest(connection, 1, T0 + 99 * S, 4)[0])

    assert taken == [4, 4, 1]
    assert times(connection, "reading") == [9]
    assert connection.execute("SELECT expired, raw_from_ns FROM counter").fetchone() == (9, T0 + 9 * S)
    assert drop_oldest(connection, 2, T0, 4) == (0, 0)


def test_erasing_leaves_only_the_ledger(connection: sqlite3.Connection) -> None:
    """Rows first, and once there are none the receipts."""
    assert [erase_oldest(connection, 1), erase_oldest(connection, 1)] == [10, 0]

    assert times(connection, "reading") == times(connection, "receipt") == times(connection, "older_receipt") == []
    assert connection.execute("SELECT accepted, erased FROM counter").fetchone() == (10, 10)


def test_an_erased_slice_takes_its_receipts(connection: sqlite3.Connection) -> None:
    """There may be one a reading: all at once would hold the writer up for long."""
    assert erase_oldest(connection, 1, 4) == 4

    assert times(connection, "reading") == [4, 5, 6, 7, 8, 9]
    assert times(connection, "receipt") == [3, 5, 6, 7, 8, 9]
