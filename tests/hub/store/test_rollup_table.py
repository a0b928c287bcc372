"""The table of rollups: what is added, read and deleted."""

import sqlite3
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from hub.errors import BadRequestError, StoreError
from hub.store.rollup import HOUR_NS, MINUTE_NS, SPANS, Overdue, by_minute
from hub.store.rollup_table import (
    COUNTER_COLUMNS,
    COUNTERS,
    SCHEMA,
    add_dropped,
    add_minutes,
    buckets_of,
    delete_blocks,
    delete_old_blocks,
    drop_border,
    merge_overdue,
    note_dropped,
    raw_from,
)

T0 = 1_767_225_600 * 10**9


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """The tables in memory, with the counters of one series."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ledger = "series INTEGER PRIMARY KEY, accepted, superseded, erased, late"
    connection.executescript(f"CREATE TABLE counter({ledger}, {COUNTER_COLUMNS}); {SCHEMA}")
    connection.execute("INSERT INTO counter(series, accepted, superseded, erased, late) VALUES (1, 9, 0, 0, 0)")
    yield connection
    connection.close()


def count(connection: sqlite3.Connection, start_ns: int, end_ns: int, step_ns: int, origin_ns: int = 0) -> list[int]:
    """Return how many readings each bucket has."""
    return [one.readings for one in buckets_of(connection, 1, start_ns, end_ns, step_ns, origin_ns)]


def test_hours_say_what_their_minutes_say(connection: sqlite3.Connection) -> None:
    """Whole hours are read from hours, the ends of a range from minutes: the same as from minutes alone."""
    for n in range(0, 6000, 7):
        add_minutes(connection, 1, by_minute([(T0 + n * MINUTE_NS, n)]))
    for first, last in ((0, 6000), (3, 130), (61, 119), (60, 120), (5, 10), (10, 10), (10, 5)):
        start_ns, end_ns = T0 + first * MINUTE_NS, T0 + last * MINUTE_NS
        expected = len([n for n in range(0, 6000, 7) if first <= n < last])

        assert sum(count(connection, start_ns, end_ns, HOUR_NS)) == expected
        assert sum(count(connection, start_ns, end_ns, HOUR_NS, 15 * MINUTE_NS)) == expected
        assert sum(count(connection, start_ns, end_ns, MINUTE_NS)) == expected


def test_overdue_readings_count_as_accepted_and_expired(connection: sqlite3.Connection) -> None:
    """The ledger balances: what goes to the sums at once never was a row."""
    note_dropped(connection, 1, 9, T0 + HOUR_NS)

    merge_overdue(connection, {1: Overdue([(T0, 1.0), (T0 + 1, "x")], late=2)})

    found = connection.execute(f"SELECT {COUNTERS} FROM counter").fetchall()
    assert found == [(1, 11, 0, 0, 2, 11, 1, T0 + HOUR_NS)]
    assert raw_from(connection) == raw_from(connection, [1, 2]) == {1: T0 + HOUR_NS}


def test_blocks_are_deleted_in_slices(connection: sqlite3.Connection) -> None:
    """Ten years of sums go in slices; with the last goes what the counter said of dropped readings."""
    note_dropped(connection, 1, 9, T0)
    add_minutes(connection, 1, by_minute([(T0 + n * SPANS[MINUTE_NS], 1) for n in range(300)]))

    assert delete_blocks(connection, 1) == 256
    assert raw_from(connection) == {1: T0}
    assert delete_blocks(connection, 1) == 300 + 11 - 256
    assert raw_from(connection) == {}


def test_too_many_buckets_are_an_error_before_they_are_in_memory(connection: sqlite3.Connection) -> None:
    """Years of minutes are gigabytes: they are counted as they are added up, not afterwards."""
    for day in range(20):
        add_minutes(connection, 1, by_minute([(T0 + (day * 1440 + n) * MINUTE_NS, n) for n in range(1440)]))
    note_dropped(connection, 1, 9, T0 + 20 * SPANS[MINUTE_NS])
    question = (T0, T0 + 20 * SPANS[MINUTE_NS], MINUTE_NS, 0, ("count",))

    tracemalloc.start()
    with pytest.raises(BadRequestError, match="more than 1000 buckets"):
        add_dropped(connection, [], [1], *question, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3_000_000
    assert len(add_dropped(connection, [], [1], *question, 28_800)) == 28_800


def test_old_blocks_are_found_without_looking_at_the_others(connection: sqlite3.Connection) -> None:
    """Thirty days go whole, minutes and hours together; nothing else is looked at, for the writer waits meanwhile."""
    days = [T0 // SPANS[HOUR_NS] * SPANS[HOUR_NS] + n * SPANS[MINUTE_NS] for n in range(400)]
    add_minutes(connection, 1, by_minute([(day, 1) for day in days]))
    steps = 0

    def count_steps() -> int:
        nonlocal steps
        steps += 1
        return 0

    assert delete_old_blocks(connection, [1, 2], days[60]) == 60 + 2
    connection.set_progress_handler(count_steps, 1)
    assert delete_old_blocks(connection, [1, 2], days[89]) == 0
    assert steps < 1000
    connection.set_progress_handler(None, 0)
    assert count(connection, -(2**62), 2**62, HOUR_NS) == count(connection, -(2**62), 2**62, MINUTE_NS) == [1] * 340


def test_damaged_sums_are_set_aside(connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture) -> None:
    """They hold up neither a late reading nor a drop, are said, and go with the series or with their time."""
    add_minutes(connection, 1, by_minute([(T0, 1), (T0 + MINUTE_NS, 2)]))
    connection.execute("UPDATE rollup SET body = x'00' WHERE step_ns = ?", (MINUTE_NS,))
    with pytest.raises(StoreError, match="damaged"):
        count(connection, T0, T0 + HOUR_NS, MINUTE_NS)

    for _ in range(2):
        add_minutes(connection, 1, by_minute([(T0 + 5, 3)]))

    assert count(connection, T0, T0 + HOUR_NS, MINUTE_NS) == [2]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    aside = "SELECT body FROM rollup WHERE step_ns < 0"
    assert connection.execute(aside).fetchall() == [(b"\0",)]
    assert delete_old_blocks(connection, [1], T0 + 2 * SPANS[HOUR_NS]) == 3
    assert connection.execute(aside).fetchall() == []


def test_sums_of_a_newer_hub_are_not_set_aside(connection: sqlite3.Connection) -> None:
    """What is whole and only cannot be read here stays where it is."""
    add_minutes(connection, 1, by_minute([(T0, 1)]))
    (body,) = connection.execute("SELECT body FROM rollup WHERE step_ns = ?", (MINUTE_NS,)).fetchone()
    head, rest = b"\x02" + body[1:5], body[9:]
    newer = head + zlib.crc32(rest, zlib.crc32(head)).to_bytes(4, "little") + rest
    connection.execute("UPDATE rollup SET body = ? WHERE step_ns = ?", (newer, MINUTE_NS))

    with pytest.raises(StoreError, match="newer hub"):
        add_minutes(connection, 1, by_minute([(T0, 1)]))

    assert connection.execute("SELECT body FROM rollup WHERE step_ns = ?", (MINUTE_NS,)).fetchall() == [(newer,)]


def test_the_border_is_a_whole_hour() -> None:
    """Readings of the hour that has begun stay; the first hour of all begins where 64 bits do."""
    assert drop_border(T0 + HOUR_NS - 1) == T0
    assert drop_border(-1) == -HOUR_NS
    assert drop_border(-(2**63)) == -(2**63)
