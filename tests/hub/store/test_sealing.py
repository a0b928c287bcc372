"""Sealing: one axis for channels that come together, every part owned, counters exact, damage set aside."""

import logging
import sqlite3
from collections.abc import Iterator
from itertools import pairwise

import pytest

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.store.chunk import ForeignChunkError
from hub.store.merge import DAY_NS
from hub.store.sealing import COLUMNS, SCHEMA, ChunkRow, Parts, Sealing, Unsealed, delete_oldest, from_sql, to_sql
from tests.support.columns import foreign, plain, readings

FULL = 4


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """The tables, empty."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    yield connection
    connection.close()


def seal(connection: sqlite3.Connection, *series: tuple[int, list[tuple[int, Value]]], sealed: int = 1) -> None:
    """Seal readings of some series at a time."""
    work = Sealing(connection, sealed, FULL)
    for number, pairs in series:
        work.add(number, Unsealed(readings(pairs), late=1))
    work.write()


def chunks(connection: sqlite3.Connection, series: int = 1) -> list[ChunkRow]:
    """Return a series' chunks in order."""
    found = connection.execute(f"SELECT {COLUMNS} FROM chunk WHERE series = ? ORDER BY t0", (series,))
    return [ChunkRow(*row) for row in found]


def everything(connection: sqlite3.Connection, series: int = 1) -> list[tuple[int, Value]]:
    """Return all readings of a series."""
    return [pair for row in chunks(connection, series) for pair in plain(Parts(connection).readings(row))]


def check_parts(connection: sqlite3.Connection) -> None:
    """Every part is referred to exactly as often as it says."""
    needed: dict[int, int] = {}
    for axis, body in connection.execute("SELECT axis, body FROM chunk"):
        for number in (axis, body):
            needed[number] = needed.get(number, 0) + 1
    assert dict(connection.execute("SELECT id, refs FROM part")) == needed


def test_channels_of_a_device_share_their_axis(connection: sqlite3.Connection) -> None:
    """Series with the same times and receive times have them once; one that differs has its own."""
    same: list[tuple[int, Value]] = [(n, float(n)) for n in range(3)]
    seal(connection, (1, same), (2, [(n, n) for n in range(3)]), (3, [*same, (9, 9.0)]))

    rows = [chunks(connection, number)[0] for number in (1, 2, 3)]
    assert rows[0].axis == rows[1].axis != rows[2].axis
    check_parts(connection)
    assert everything(connection, 2) == [(0, 0), (1, 1), (2, 2)]


def test_merging_takes_the_place_of_what_was_there(connection: sqlite3.Connection) -> None:
    """Late and doubled readings: chunks stay apart, counters say what was superseded, no part is left over."""
    seal(connection, (1, [(n * 10, n) for n in range(6)]), (2, [(n * 10, n) for n in range(6)]))
    seal(connection, (1, [(20, -2), (25, 25), (70, 7)]), sealed=2)
    seal(connection, (1, [(-5, 0), (80, 8), (25, -25), (80, 9)]), (2, [(60, 6)]), sealed=3)

    expected = {n * 10: n for n in range(6)} | {20: -2, 25: -25, 70: 7, -5: 0, 80: 9}
    assert everything(connection) == sorted(expected.items())
    rows = chunks(connection)
    assert all(before.t1 < after.t0 for before, after in pairwise(rows))
    check_parts(connection)
    columns = "series, accepted, superseded, erased, late, sealed"
    found = connection.execute(f"SELECT {columns} FROM counter ORDER BY series").fetchall()
    assert found == [(1, 13, 3, 0, 3, 3), (2, 7, 0, 0, 2, 3)]


def test_chunks_end_at_midnight(connection: sqlite3.Connection) -> None:
    """A day can be dropped whole, before 1970 too, and to the ends of time."""
    edges = [-(2**63), -1, 0, DAY_NS - 1, DAY_NS, 2**63 - 1]
    seal(connection, (1, [(time, 1.5) for time in edges]))
    seal(connection, (1, [(time, 2.5) for time in edges]))

    assert [(row.t0, row.t1) for row in chunks(connection)] == [
        (-(2**63), -(2**63)), (-1, -1), (0, DAY_NS - 1), (DAY_NS, DAY_NS), (2**63 - 1, 2**63 - 1)
    ]  # fmt: skip
    assert everything(connection) == [(time, 2.5) for time in edges]


def test_oldest_chunks_go_with_their_parts(connection: sqlite3.Connection) -> None:
    """A shared axis stays for whoever needs it."""
    for number in (1, 2):
        seal(connection, (1, [(number, 1)]), (2, [(number, 1)]))
    seal(connection, (1, [(n, 1) for n in range(10, 20)]))

    counts = []
    while count := delete_oldest(connection, 1, 1):
        counts.append(count)
        check_parts(connection)

    assert sum(counts) == 12
    assert len(everything(connection, 2)) == 2


def test_damaged_chunk_is_set_aside(connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture) -> None:
    """It is an error to read, holds up nothing that comes later, and is missing from what is counted."""
    seal(connection, (1, [(0, 0)]))
    (row,) = chunks(connection)
    connection.execute("UPDATE part SET body = x'00' WHERE id = ?", (row.body,))
    with pytest.raises(StoreError, match="damaged"):
        everything(connection)

    seal(connection, (1, [(2, 2)]))

    assert everything(connection) == [(2, 2)]
    assert connection.execute("SELECT series, t0, n, body FROM damaged").fetchall() == [(1, 0, 1, b"\0")]
    assert connection.execute("SELECT accepted, superseded FROM counter").fetchall() == [(2, 0)]
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    check_parts(connection)


def test_a_drop_says_from_when_readings_are_there(connection: sqlite3.Connection) -> None:
    """Also when it took a damaged chunk, of which nothing is left to count."""
    seal(connection, (1, [(n, n) for n in range(16)]))
    connection.execute("UPDATE part SET body = x'00' WHERE id = ?", (chunks(connection)[0].body,))

    found = []
    for _ in range(3):
        work = Sealing(connection, 1, FULL)
        dropped, from_ns = work.drop(1, 15, FULL + 1)
        work.write()
        found.append(([readings.times.tolist() for readings in dropped], from_ns))

    assert found == [([[], [4, 5, 6, 7]], 8), ([[8, 9, 10, 11], [12, 13, 14]], 15), ([], 15)]
    assert everything(connection) == [(15, 15)]
    check_parts(connection)


def test_erasing_takes_chunks_that_were_set_aside(connection: sqlite3.Connection) -> None:
    """Their bytes are readings of the series, too; those of others stay."""
    connection.execute("INSERT INTO damaged VALUES (1, 0, 2, x'01', x'02'), (2, 0, 2, x'01', x'02')")

    assert delete_oldest(connection, 1, 9) == 0

    assert connection.execute("SELECT series FROM damaged").fetchall() == [(2,)]


def test_chunk_of_a_newer_hub_is_not_set_aside(connection: sqlite3.Connection) -> None:
    """What is whole and only cannot be read here stays where it is: sealing waits."""
    seal(connection, (1, [(0, 0)]))
    (row,) = chunks(connection)
    (body,) = connection.execute("SELECT body FROM part WHERE id = ?", (row.body,)).fetchone()
    connection.execute("UPDATE part SET body = ? WHERE id = ?", (foreign(body), row.body))

    with pytest.raises(ForeignChunkError):
        seal(connection, (1, [(2, 2)]))

    assert chunks(connection) == [row]


@pytest.mark.parametrize("value", [True, False, 1, 0, 1.0, "x", ""])
def test_last_values_keep_their_type(value: Value) -> None:
    """Through SQLite and back."""
    (found,) = sqlite3.connect(":memory:").execute("SELECT ?", (to_sql(value),)).fetchone()

    assert repr(from_sql(found)) == repr(value)
