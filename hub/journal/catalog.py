"""The series a journal knows: id, name, type, unit and what else devices declared.

Owns: the `series` table. Place: after `journal.base`, used by
`journal.sqlite`. New and changed series are written in the transaction of
the first frames that use them, so a frame without its series cannot exist.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from device_sdk.reading import ValueType
from hub.database import ReadPool, insert_rows
from hub.errors import JournalError
from hub.journal.ledger import text
from hub.model import Series

SCHEMA = """
CREATE TABLE series(
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, channel TEXT NOT NULL,
    type TEXT, unit TEXT, every_s REAL, low REAL, high REAL, label TEXT, UNIQUE(namespace, device, channel))
"""


def write_series(connection: sqlite3.Connection, series: Sequence[Series]) -> None:
    """Add or update series inside the open transaction."""
    flat = [
        value
        for s in series
        for value in (
            s.id, s.namespace, s.device, s.channel, s.type, _text(s.unit), s.every_s, s.low, s.high, _text(s.label),
        )
    ]  # fmt: skip
    insert_rows(
        connection, "INSERT INTO series", 10, flat,
        """ON CONFLICT(id) DO UPDATE SET type = excluded.type, unit = excluded.unit, every_s = excluded.every_s,
        low = excluded.low, high = excluded.high, label = excluded.label""",
    )  # fmt: skip


def read_series(connection: sqlite3.Connection) -> list[Series]:
    """Return every series of the file, by id."""
    rows = connection.execute(
        "SELECT id, namespace, device, channel, type, unit, every_s, low, high, label FROM series ORDER BY id"
    )
    return [
        Series(number, namespace, device, channel, ValueType(kind) if kind else None, *rest)
        for number, namespace, device, channel, kind, *rest in rows
    ]


def load_series(path: str | Path) -> list[Series]:
    """Return the series of a journal without opening it for writing: for commands beside a running hub.

    Raises:
        JournalError: the file is not there, or is no journal.
    """
    pool = ReadPool(Path(path))
    try:
        with pool.connection() as connection:
            return read_series(connection)
    except sqlite3.Error as error:
        raise JournalError(f"cannot read {path}: {error}; is this the data directory of a hub?") from error
    finally:
        pool.close()


def _text(found: str | None) -> str | None:
    return None if found is None else text(found)
