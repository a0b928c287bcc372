"""Plain rows that go, dropped or erased, inside the caller's transaction: rows, receipts, counters.

Owns: what a slice takes. Place: after `store.batch` and `store.rollup_table`, used by `store.embedded`, which owns
tables and transactions.
"""

import json
import sqlite3
from collections.abc import Sequence

from hub.store.batch import plain_value
from hub.store.rollup import by_minute
from hub.store.rollup_table import add_minutes, cost_of, note_dropped

_ERASE_ROWS = 20_000


def droppable(connection: sqlite3.Connection, series: Sequence[int], border_ns: int) -> list[int]:
    """Return those of the series that have readings before a time; one that is alone is the newest, which stays."""
    rows = connection.execute(
        """SELECT s.value FROM json_each(?1) s
        WHERE (SELECT min(time_ns) FROM reading WHERE series = s.value) <
            min(?2, (SELECT max(time_ns) FROM reading WHERE series = s.value))""",
        (json.dumps(list(series)), border_ns),
    )
    return [number for (number,) in rows]


def oldest(connection: sqlite3.Connection, series: Sequence[int]) -> int | None:
    """Return the time of the oldest reading of the series that is not the newest of its own."""
    found: int | None = connection.execute(
        """SELECT min(first) FROM (SELECT (SELECT min(time_ns) FROM reading WHERE series = s.value) AS first,
            (SELECT max(time_ns) FROM reading WHERE series = s.value) AS last FROM json_each(?) s)
        WHERE first < last""",
        (json.dumps(list(series)),),
    ).fetchone()[0]
    return found


def drop_oldest(connection: sqlite3.Connection, series: int, border_ns: int, most: int) -> tuple[int, int]:
    """Drop at most ``most`` readings before a time, but not the newest, and add their sums.

    Returns: how many, and what it cost (`rollup_table.cost_of`).
    """
    (edge_ns,) = connection.execute(
        "SELECT min(max(time_ns), ?2) FROM reading WHERE series = ?1", (series, border_ns)
    ).fetchone()
    rows = connection.execute(
        "SELECT time_ns, value FROM reading WHERE series = ? AND time_ns < ? ORDER BY time_ns LIMIT ?",
        (series, edge_ns, most),
    ).fetchall()
    if not rows:
        return 0, 0
    sums = add_minutes(connection, series, by_minute((time_ns, plain_value(value)) for time_ns, value in rows))
    from_ns = edge_ns if len(rows) < most else rows[-1][0] + 1
    connection.execute("DELETE FROM reading WHERE series = ? AND time_ns < ?", (series, from_ns))
    connection.execute("DELETE FROM older_receipt WHERE series = ? AND time_ns < ?", (series, from_ns))
    _delete_receipts(connection, series, from_ns)
    note_dropped(connection, series, len(rows), from_ns)
    return len(rows), cost_of(len(rows), sums)


def erase_oldest(connection: sqlite3.Connection, series: int, most: int = _ERASE_ROWS) -> int:
    """Erase the oldest rows of a series, at most a slice, with their receipts; return how many."""
    last_ns: int | None = connection.execute(
        """SELECT max(time_ns) FROM (SELECT time_ns FROM reading WHERE series = ? ORDER BY time_ns LIMIT ?)""",
        (series, most),
    ).fetchone()[0]
    if last_ns is None:
        connection.execute("DELETE FROM receipt WHERE series = ?", (series,))
        return 0
    upto = (series, last_ns)
    connection.execute("DELETE FROM older_receipt WHERE series = ? AND time_ns <= ?", upto)
    deleted = connection.execute("DELETE FROM reading WHERE series = ? AND time_ns <= ?", upto).rowcount
    _delete_receipts(connection, series, last_ns)
    connection.execute("UPDATE counter SET erased = erased + ? WHERE series = ?", (deleted, series))
    return deleted


def _delete_receipts(connection: sqlite3.Connection, series: int, upto_ns: int) -> None:
    # The last one before a time is that of the readings that follow.
    connection.execute(
        """DELETE FROM receipt WHERE series = ?1 AND time_ns <
        (SELECT max(time_ns) FROM receipt WHERE series = ?1 AND time_ns <= ?2)""",
        (series, upto_ns),
    )
