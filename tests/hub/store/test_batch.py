"""A write of the embedded store: what needs a look-up, what does not, and what receive times cost."""

import sqlite3
from collections.abc import Iterator

import pytest

from hub.store.batch import RECEIPT_NS, Batch
from hub.store.embedded import EmbeddedStore
from tests.support.frames import T0, FrameMaker

STATEMENTS = """CREATE TABLE reading(series, time_ns, value, PRIMARY KEY(series, time_ns));
CREATE TABLE counter(series INTEGER PRIMARY KEY, accepted, superseded, erased DEFAULT 0, late,
    expired DEFAULT 0, merged DEFAULT 0, raw_from_ns);
CREATE TABLE receipt(series, time_ns, received_ns, PRIMARY KEY(series, time_ns));
CREATE TABLE older_receipt(series, time_ns, received_ns, PRIMARY KEY(series, time_ns));"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Empty tables in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(STATEMENTS)
    yield connection
    connection.close()


def receipts(connection: sqlite3.Connection, table: str = "receipt") -> list[tuple[int, int]]:
    """Return (time - T0, received - T0) of a table."""
    return [(t - T0, r - T0) for t, r in connection.execute(f"SELECT time_ns, received_ns FROM {table} ORDER BY 1")]


def test_a_series_writes_one_receipt_a_second(connection: sqlite3.Connection) -> None:
    """However many frames of a series arrive within a second, they share the receipt of the first."""
    maker, opened = FrameMaker(), dict[int, int]()
    for at in range(25):
        batch = Batch(connection, {}, opened)
        batch.add(maker.batch("pump", [("t", T0 + at, 1.0)], received_ns=T0 + at * RECEIPT_NS // 10))
        batch.write()
        opened |= batch.opened

    assert receipts(connection) == [(0, 0), (10, RECEIPT_NS), (20, 2 * RECEIPT_NS)]


def test_a_clock_that_steps_back_begins_a_receipt(connection: sqlite3.Connection) -> None:
    """The hub's clock may be set; a receive time is never said to be later than it was."""
    maker, batch = FrameMaker(), Batch(connection, {}, {})
    batch.add(maker.batch("pump", [("t", T0, 1.0)], received_ns=T0 + 100))
    batch.add(maker.batch("pump", [("t", T0 + 1, 1.0)], received_ns=T0 + 50))
    batch.write()

    assert receipts(connection) == [(0, 100), (1, 50)]


def test_only_older_readings_are_looked_up(connection: sqlite3.Connection) -> None:
    """A reading behind all of its series is inserted as it is; one before or at the newest is looked up first."""
    maker, newest = FrameMaker(), {1: T0}
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    for times, look_ups in (([1, 2], 0), ([2], 1), ([4, 3], 1)):
        batch = Batch(connection, newest, {})
        batch.add(maker.batch("pump", [("t", T0 + n, 1.0) for n in times]))
        batch.write()
        newest |= batch.newest

        assert sum("CROSS JOIN" in statement for statement in seen) == look_ups
        seen.clear()
    assert [t for t, _ in receipts(connection, "older_receipt")] == [2, 3, 4]


def test_tables_are_those_of_the_store(
    connection: sqlite3.Connection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The tables that these tests use have the columns of the real ones."""
    path = tmp_path_factory.mktemp("store") / "readings.sqlite3"
    EmbeddedStore(path).close()
    real = sqlite3.connect(path)
    for table in ("reading", "counter", "receipt", "older_receipt"):
        columns = [
            [row[1] for row in c.execute(f"SELECT * FROM pragma_table_info('{table}')")] for c in (real, connection)
        ]
        assert columns[0] == columns[1]
    real.close()
