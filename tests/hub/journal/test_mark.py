"""Marks advance on copies, are written as rows, and come back whole."""

import sqlite3
from collections.abc import Iterator

import pytest

from device_sdk.wire import CHAIN_START, HUB_STREAM
from hub.errors import JournalError
from hub.journal import mark
from hub.model import StreamKey
from tests.support.frames import STREAM, T0, FrameMaker

KEY = StreamKey("default", "pump", STREAM)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database in memory with the table."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(mark.SCHEMA)
    yield connection
    connection.close()


def test_stage_changes_nothing(connection: sqlite3.Connection) -> None:
    """What was staged and not kept is forgotten: the next stage begins at the stored mark, with the same row id."""
    table, maker = mark.MarkTable(connection), FrameMaker()
    frame = maker.one("pump", 1.0)

    first = table.stage([frame])
    second = table.stage([frame])

    assert first == second
    assert first[KEY].stored == 1
    assert mark.read_mark(connection, KEY) is None


def test_marks_are_found_again_in_the_table(connection: sqlite3.Connection) -> None:
    """A stream that is not in memory continues from its row; a new stream gets an id of its own."""
    maker = FrameMaker()
    table = mark.MarkTable(connection)
    staged = table.stage([maker.one("pump", 1.0)])
    table.write(staged)
    table.keep(staged)

    again = mark.MarkTable(connection)
    staged = again.stage([maker.one("pump", 2.0), maker.one("door", True)])

    assert [(row.id, row.stored) for row in staged.values()] == [(1, 2), (2, 1)]


def test_read_mark_gives_chains_by_seq(connection: sqlite3.Connection) -> None:
    """Chains come back under the seq they belong to, the start as seq 0."""
    table, maker = mark.MarkTable(connection), FrameMaker()
    frames = [maker.one("pump", 1.0), maker.one("pump", 2.0)]
    table.write(table.stage(frames))

    found = mark.read_mark(connection, KEY)

    assert found is not None
    assert [found.chain(seq) for seq in range(-1, 4)] == [None, CHAIN_START, frames[0].chain, frames[1].chain, None]


def test_names_are_found_by_row_id(connection: sqlite3.Connection) -> None:
    """A record's stream id leads to its key; one without a mark is damage."""
    table = mark.MarkTable(connection)
    table.write(table.stage([FrameMaker().one("pump", 1.0)]))
    names = mark.StreamNames()

    assert [names.find(connection, 1) for _ in range(2)] == [KEY, KEY]
    with pytest.raises(JournalError, match="stream 2, which has no mark"):
        names.find(connection, 2)


def test_new_streams_are_listed_from_a_time_on(connection: sqlite3.Connection) -> None:
    """Those that began behind it, oldest first, without the hub's own: one may begin with an old replay."""
    table, maker = mark.MarkTable(connection), FrameMaker()
    names = [f"{n:016x}" for n in range(1, 5)]
    frames = [maker.batch("pump", [("t", T0, 1.0)], stream=name, received_ns=T0 + n) for n, name in enumerate(names)]
    frames.insert(3, maker.batch("pump", [("t", T0, 1.0)], stream=HUB_STREAM, received_ns=T0 - 5))
    table.write(table.stage(frames))

    assert mark.read_begun(connection, T0 + 1) == [
        (StreamKey("default", "pump", names[2]), T0 + 2),
        (StreamKey("default", "pump", names[3]), T0 + 3),
    ]
    assert len(mark.read_begun(connection, 0)) == 4


def test_new_streams_are_found_behind_those_of_a_wrong_clock(connection: sqlite3.Connection) -> None:
    """A hub without a battery took some in 1970: the streams before and behind them count, in the order of time."""
    table, maker = mark.MarkTable(connection), FrameMaker()
    times = [T0 + 1, T0 + 3, *(n * 10**9 for n in range(900)), T0 + 2]
    frames = [
        maker.batch("pump", [("t", T0, 1.0)], stream=f"{n:016x}", received_ns=received_ns)
        for n, received_ns in enumerate(times, 1)
    ]
    table.write(table.stage(frames))

    assert [first_ns for _, first_ns in mark.read_begun(connection, T0)] == [T0 + 1, T0 + 2, T0 + 3]


def test_search_for_new_streams_ends(connection: sqlite3.Connection) -> None:
    """Years of streams are not read at the start."""
    table, maker = mark.MarkTable(connection), FrameMaker()
    count = 5000
    frames = [
        maker.batch("pump", [("t", T0, 1.0)], stream=f"{n:016x}", received_ns=T0 + n) for n in range(1, count + 1)
    ]
    table.write(table.stage(frames))
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(step, 100)
    assert mark.read_begun(connection, T0 + count) == []

    # About ten instructions of SQLite's machine a row.
    assert steps * 100 < count * 5
