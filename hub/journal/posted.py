"""Requests that named themselves, and what became of them: the journal's memory for who sends one again.

Owns: the table ``posted`` and its end. Place: after `journal.base`, used by `journal.sqlite`. A row is written in the
transaction of the frame that carries the part: a kill leaves both or neither, so whoever asks again with the same name
finds what is stored, and what is not.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from device_sdk.reading import INT_MAX
from device_sdk.wire import Rejection
from hub.database import insert_rows
from hub.journal.base import PostedPart
from hub.model import Frame

SCHEMA = """
CREATE TABLE posted(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, accepted INTEGER NOT NULL,
    rejected INTEGER NOT NULL, named TEXT NOT NULL, received_ns INTEGER NOT NULL, UNIQUE(key, part))
"""
# Two days: a device that was told nothing asks again within minutes, one whose battery was changed within days.
KEPT_NS = 48 * 3600 * 10**9
# About 130 bytes each with the index, so 130 MB: 2,000 devices that post every six minutes for two days.
POSTED_ROWS = 1_000_000
# Of one trim, which holds the writer's lock: some 20 ms.
_TRIM_ROWS = 5_000


def write_posted(connection: sqlite3.Connection, frames: Sequence[Frame]) -> None:
    """Write what became of the parts that these frames carry, inside their transaction."""
    flat: list[Any] = []
    for frame in frames:
        if (posted := frame.posted) is not None:
            named = json.dumps([(r.channel, r.index, str(r.reason)) for r in frame.rejected]) if frame.rejected else ""
            rejected = min(frame.rejected_count, INT_MAX)
            flat += (*posted, frame.readings, rejected, named, frame.received_ns)
    # Whoever gives frames sees to it that no part comes twice; a fault there must not end the journal.
    head = "INSERT OR IGNORE INTO posted(key, part, body, accepted, rejected, named, received_ns)"
    insert_rows(connection, head, 7, flat)


def read_posted(connection: sqlite3.Connection, key: bytes) -> dict[int, PostedPart]:
    """Return what became of each part of a request that is stored, by its number."""
    rows = connection.execute("SELECT part, body, accepted, rejected, named FROM posted WHERE key = ?", (key,))
    return {
        part: PostedPart(body, accepted, rejected, tuple(Rejection(0, *told) for told in json.loads(named or "[]")))
        for part, body, accepted, rejected, named in rows
    }


def trim_posted(
    connection: sqlite3.Connection, now_ns: int, rows: int = POSTED_ROWS, slice_rows: int = _TRIM_ROWS
) -> int:
    """Forget the oldest requests beyond age and number, ``slice_rows`` a call; return how many went.

    In the order in which they came: one from the time before a clock was set holds up no more than the number allows.
    """
    newest, oldest = connection.execute("SELECT max(id), min(id) FROM posted").fetchone()
    if newest is None:
        return 0
    young = connection.execute(
        "SELECT id FROM posted WHERE received_ns >= ? ORDER BY id LIMIT 1", (now_ns - KEPT_NS,)
    ).fetchone()
    before = max(newest + 1 if young is None else young[0], newest - rows + 1)
    return connection.execute("DELETE FROM posted WHERE id < ?", (min(before, oldest + slice_rows),)).rowcount
