"""Requests that named themselves: remembered with their frame, for two days, no more than the file may hold."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from device_sdk.wire import Rejection
from hub.journal import posted
from hub.journal.base import PostedPart
from hub.model import Frame, Posted
from tests.support.frames import T0, FrameMaker

KEY, BODY = b"k" * 16, b"b" * 16


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database in memory with the table."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(posted.SCHEMA)
    yield connection
    connection.close()


def part(number: int, key: bytes = KEY, received_ns: int = T0) -> Frame:
    """Return the frame of a part: two readings, one of them refused."""
    frame = FrameMaker().batch("pump", [("t", T0, 1.0)], rejected=(Rejection(1, "t", 1, "type_conflict"),))
    return replace(frame, posted=Posted(key, number, BODY), received_ns=received_ns, rejected_count=1)


def keys(connection: sqlite3.Connection) -> list[bytes]:
    """Return what is remembered, oldest first."""
    return [key for (key,) in connection.execute("SELECT key FROM posted ORDER BY id")]


def test_parts_are_found_by_name(connection: sqlite3.Connection) -> None:
    """With what was stored and what refused; a frame without a name is in no table."""
    posted.write_posted(connection, [part(0), replace(part(1), posted=None), part(2), part(0, b"other")])

    told = PostedPart(BODY, 1, 1, (Rejection(0, "t", 1, "type_conflict"),))
    assert posted.read_posted(connection, KEY) == {0: told, 2: told}
    assert posted.read_posted(connection, b"nobody") == {}


def test_a_part_that_came_twice_ends_nothing(connection: sqlite3.Connection) -> None:
    """It cannot, and if it did the journal would go on."""
    posted.write_posted(connection, [part(0)])
    posted.write_posted(connection, [part(0), part(1)])

    assert sorted(posted.read_posted(connection, KEY)) == [0, 1]


def test_old_ones_are_forgotten(connection: sqlite3.Connection) -> None:
    """After two days; a row whose clock was ahead holds up those behind it until the number is reached."""
    ages = [3, 2, 1, 0]
    for at, age in enumerate(ages):
        posted.write_posted(connection, [part(0, bytes([at]), T0 - age * posted.KEPT_NS // 2)])

    assert posted.trim_posted(connection, T0 + 1) == 2
    assert keys(connection) == [b"\2", b"\3"]
    assert posted.trim_posted(connection, T0 + 1) == 0
    assert posted.trim_posted(connection, T0 + 1, rows=1) == 1
    assert posted.trim_posted(connection, T0 + 2 * posted.KEPT_NS) == 1
    assert posted.trim_posted(connection, T0) == 0


def test_trim_goes_in_slices(connection: sqlite3.Connection) -> None:
    """So that an append never waits for the whole of it."""
    for at in range(5):
        posted.write_posted(connection, [part(0, bytes([at]))])

    later_ns = T0 + 2 * posted.KEPT_NS
    assert [posted.trim_posted(connection, later_ns, slice_rows=2) for _ in range(4)] == [2, 2, 1, 0]
