"""The side tables are bounded, whatever devices send."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from device_sdk.reading import INT_MAX
from device_sdk.wire import Rejection
from hub.journal import ledger
from hub.journal.base import ReplayEntry
from hub.model import Replayed, StreamKey
from tests.support.frames import STREAM, T0, FrameMaker


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database in memory with the tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(ledger.SCHEMA)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("rows", "size", "kept"),
    [
        pytest.param(3, 10**6, [7, 8, 9], id="rows"),
        pytest.param(100, 25, [8, 9], id="bytes"),
        pytest.param(100, 1, [9], id="one is always kept"),
    ],
)
def test_quarantine_drops_the_oldest(connection: sqlite3.Connection, rows: int, size: int, kept: list[int]) -> None:
    """Beyond rows or bytes the oldest raw frames go, also after a restart forgot the counts."""
    maker = FrameMaker()
    for start in (0, 5):
        table = ledger.Ledger(connection, quarantine_rows=rows, quarantine_bytes=size)
        for i in range(start, start + 5):
            table.write([maker.quarantined("pump", b"%010d" % i)], i + 1)

    found = [entry.offset - 1 for entry in ledger.read_quarantine(connection, "default", None)]

    assert found == kept
    assert [int(ledger.read_quarantined(connection, "default", i + 1)[1]) for i in kept] == kept


def test_quarantine_counts_again_after_a_rollback(connection: sqlite3.Connection) -> None:
    """A rolled-back frame does not count against the cap."""
    table, maker = ledger.Ledger(connection, quarantine_rows=2), FrameMaker()
    table.write([maker.quarantined("pump", b"0")], 1)
    connection.execute("BEGIN")
    table.write([maker.quarantined("pump", b"1")], 2)
    connection.execute("ROLLBACK")
    table.forget()

    table.write([maker.quarantined("pump", b"2")], 2)

    found = [entry.offset for entry in ledger.read_quarantine(connection, "default", "pump")]
    assert [ledger.read_quarantined(connection, "default", offset)[1] for offset in found] == [b"0", b"2"]


def test_replay_is_counted_when_its_entry_was_pushed_out(connection: sqlite3.Connection) -> None:
    """The stream's sum is right although newer raw frames took the place of the replayed one; it saturates."""
    table, maker = ledger.Ledger(connection), FrameMaker()
    for count in (5, INT_MAX):
        frame = maker.one("pump", 1.0)
        frame.replayed = Replayed(77, STREAM, count, T0)
        table.write([frame], 78)

    assert ledger.read_replays(connection, "default", None) == {
        StreamKey("default", "pump", STREAM): ReplayEntry(2, INT_MAX)
    }


def test_invented_channels_share_one_entry(connection: sqlite3.Connection) -> None:
    """A device that invents channel names fills at most 500 entries; the rest is counted under one."""
    table, maker = ledger.Ledger(connection), FrameMaker()
    for i in range(10):
        refused = tuple(Rejection(1, f"x{i}-{j}", 0, "channel_limit") for j in range(100))
        table.write([maker.batch("pump", [("t", T0 + i, 1.0)], rejected=refused)], i + 1)

    found = ledger.read_rejections(connection, "default", "pump")

    assert len(found) == ledger.REJECTIONS_PER_DEVICE + 1
    assert {entry.channel: entry.count for entry in found}[ledger.OTHER] == 500
    assert sum(entry.count for entry in found) == 1000


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"ranges": 5}', b'{"ranges": {"t": [1]}}', b"[" * 100_000])
def test_gap_with_broken_details_is_kept(connection: sqlite3.Connection, body: bytes) -> None:
    """A declared loss whose details cannot be read stays listed, count unknown."""
    table, frame = ledger.Ledger(connection), FrameMaker().gap("pump", 5)
    frame.body = body

    table.write([frame], 1)

    (entry,) = ledger.read_gaps(connection, "default", None)
    assert (entry.count, entry.ranges, entry.reason) == (None, {}, "spool_full")


def test_oldest_gaps_are_capped(connection: sqlite3.Connection) -> None:
    """Itemised losses are bounded; the cap keeps the newest and does nothing below it."""
    table, maker = ledger.Ledger(connection, gaps_kept=3), FrameMaker()
    kept = []
    for offset in range(1, 7):
        table.write([maker.gap("pump", offset)], offset)
        table.cap_gaps()
        kept.append([gap.count for gap in ledger.read_gaps(connection, "default", None)])

    assert kept == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]]


def test_gaps_behind_an_offset_are_of_all_namespaces(connection: sqlite3.Connection) -> None:
    """In order, at most so many, each with its offset."""
    table, makers = ledger.Ledger(connection), [FrameMaker(), FrameMaker("north")]
    for offset in range(1, 7):
        table.write([makers[offset % 2].gap("pump", offset)], offset)

    found = ledger.read_gaps_behind(connection, 2, 3)

    assert [(offset, gap.count, gap.key.namespace) for offset, gap in found] == [
        (3, 3, "north"), (4, 4, "default"), (5, 5, "north"),
    ]  # fmt: skip


def test_refusing_devices_are_known_once_they_are_committed(connection: sqlite3.Connection) -> None:
    """Not before the commit, not when it was undone; each since the last time that somebody asked."""
    table, maker = ledger.Ledger(connection), FrameMaker()
    rejected = (Rejection(1, "t", 0, "type_conflict"),)
    table.write([maker.batch("pump", [("t", T0, 1.0)], rejected=rejected)], 1)
    early = table.take_refused()
    table.keep()
    table.keep()
    table.write([maker.batch("tank", [("t", T0, 1.0)], rejected=rejected)], 2)
    table.forget()
    table.keep()

    assert (early, table.declared) == (set(), 1)
    assert table.take_refused() == {("default", "pump")}
    assert table.take_refused() == set()
    assert ledger.read_refusing(connection) == {("default", "pump"), ("default", "tank")}


def test_upgraded_tables_are_those_of_a_new_file(connection: sqlite3.Connection) -> None:
    """A journal of schema 1 gets the columns and the tables it lacks, and keeps what was in quarantine."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        old.execute(
            """CREATE TABLE quarantine(
            offset INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
            seq INTEGER NOT NULL, reason TEXT NOT NULL, received_ns INTEGER NOT NULL, body BLOB NOT NULL)"""
        )
        old.execute("INSERT INTO quarantine VALUES (7, 'default', 'pump', ?, 3, 'malformed', 5, x'00')", (STREAM,))

        old.executescript(ledger.UPGRADE_1)
        old.executescript(ledger.UPGRADE_2)

        for table in ("quarantine", "replay", "posted"):
            columns = f"PRAGMA table_info({table})"
            assert old.execute(columns).fetchall() == connection.execute(columns).fetchall()
        (entry,) = ledger.read_quarantine(old, "default", "pump")
        assert (entry.offset, entry.count, entry.size, entry.replayed_ns) == (7, 0, 1, None)
