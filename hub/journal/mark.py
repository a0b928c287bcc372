"""Marks as the journal keeps them: one row a stream, written in the transaction of its frames.

Owns: the `mark` table and which marks the writer has in memory. Place: after
`journal.base`, used by `journal.sqlite`. A mark is copied before it advances,
so a failed commit leaves the old one untouched.
"""

import sqlite3
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from device_sdk.wire import HUB_STREAM
from hub.database import insert_rows
from hub.errors import JournalError
from hub.model import FOREIGN_STREAM, IMPORT_PREFIX, Frame, Mark, StreamKey

SCHEMA = """
CREATE TABLE mark(
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    stored INTEGER NOT NULL, chains BLOB NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL,
    dropped INTEGER NOT NULL, quarantined INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    UNIQUE(namespace, device, stream))
"""
_COLUMNS = "namespace, device, stream, stored, chains, accepted, rejected, dropped, quarantined, first_ns, last_ns, id"
_UPSERT = """ON CONFLICT(id) DO UPDATE SET stored = excluded.stored, chains = excluded.chains,
    accepted = excluded.accepted, rejected = excluded.rejected, dropped = excluded.dropped,
    quarantined = excluded.quarantined, first_ns = excluded.first_ns, last_ns = excluded.last_ns"""
# What is asked for many at a time has no use for chains, which are most of a mark.
_COLUMNS_WITHOUT_CHAINS = _COLUMNS.replace("chains", "x''")
# A mark in memory is about 1.5 KiB. Beyond this many the cache starts again from the table: streams that ended are in
# it too, and reading one that did not is one lookup.
_MARKS_CACHED = 5000
# Marks older than what is asked for that `read_begun` looks behind: so many streams may have begun while the clock of
# a hub without a battery was wrong. About 1 MB of the file, read once at the start.
_OLDER_READ = 1000


@dataclass(slots=True)
class MarkRow(Mark):
    """One row of the table."""

    id: int = 0

    def advance(self, frame: Frame) -> None:
        """Take the stream's next frame.

        Raises:
            ValueError: it is not the next; a caller's bug, for the session decides what is next.
        """
        if frame.seq != self.stored + 1:
            raise ValueError(f"frame {frame.seq} of {self.key} does not follow {self.stored}, which is stored")
        Mark.advance(self, frame)

    def values(self) -> tuple[Any, ...]:
        """Return the row in the order of the columns."""
        return (
            *self.key, self.stored, self.chains, self.accepted, self.rejected, self.dropped, self.quarantined,
            self.first_ns, self.last_ns, self.id,
        )  # fmt: skip

    def mark(self) -> Mark:
        """Return the mark that leaves the journal."""
        return Mark(
            self.key, self.stored, self.chains, self.accepted, self.rejected, self.dropped, self.quarantined,
            self.first_ns, self.last_ns,
        )  # fmt: skip


class MarkTable:
    """Reads and advances marks on the writer's connection; `stage`, then `write`, then `keep` after the commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[StreamKey, MarkRow] = {}
        self._next_id: int = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM mark").fetchone()[0]

    def stage(self, frames: Iterable[Frame]) -> dict[StreamKey, MarkRow]:
        """Return copies of the frames' marks, advanced over them; nothing is changed yet.

        Raises:
            ValueError: a frame does not follow its stream's mark.
        """
        staged: dict[StreamKey, MarkRow] = {}
        new = 0
        for frame in frames:
            row = staged.get(frame.key)
            if row is None:
                known = self._find(frame.key)
                if known is None:
                    row = MarkRow(frame.key, id=self._next_id + new)
                    new += 1
                else:
                    row = copy(known)
                staged[frame.key] = row
            row.advance(frame)
        return staged

    def write(self, staged: dict[StreamKey, MarkRow]) -> None:
        """Write the staged marks inside the open transaction."""
        flat = [value for row in staged.values() for value in row.values()]
        insert_rows(self._connection, f"INSERT INTO mark({_COLUMNS})", 12, flat, _UPSERT)

    def keep(self, staged: dict[StreamKey, MarkRow]) -> None:
        """Take the staged marks as the stored ones: call after the commit returned."""
        if len(self._cache) > _MARKS_CACHED:
            self._cache.clear()
        self._cache.update(staged)
        self._next_id = max(self._next_id, max((row.id for row in staged.values()), default=0) + 1)

    def _find(self, key: StreamKey) -> MarkRow | None:
        row = self._cache.get(key)
        if row is None:
            row = read_mark(self._connection, key)
            if row is not None:
                self._cache[key] = row
        return row


def read_mark(connection: sqlite3.Connection, key: StreamKey) -> MarkRow | None:
    """Return the mark of one stream, None when nothing of it is stored."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM mark WHERE namespace = ? AND device = ? AND stream = ?",  # noqa: S608
        key,
    ).fetchone()
    return None if found is None else _from_values(found)


def read_mark_rows(connection: sqlite3.Connection, namespace: str, device: str | None) -> list[MarkRow]:
    """Return the marks of one device, or of the whole namespace, without their chains."""
    rows = connection.execute(
        f"SELECT {_COLUMNS_WITHOUT_CHAINS} FROM mark WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2)",  # noqa: S608
        (namespace, device),
    )
    return [_from_values(values) for values in rows]


def read_begun(connection: sqlite3.Connection, since_ns: int) -> list[tuple[StreamKey, int]]:
    """Return the devices' streams that began behind ``since_ns``, with when, oldest first.

    Row ids ascend with the order of beginning, and times mostly do: not where a clock was set. So the search goes on
    behind rows that are older, and ends after `_OLDER_READ` of them, however many streams there ever were. The hub's
    own streams do not count: what they begin with may be a replay, which is as old as what is replayed. Nor do those of
    imports and of foreign devices, which no device began.
    """
    found: list[tuple[StreamKey, int]] = []
    older = 0
    for *key, first_ns in connection.execute(
        "SELECT namespace, device, stream, first_ns FROM mark WHERE stream NOT IN (?, ?) AND stream NOT GLOB ?"
        " ORDER BY id DESC",
        (HUB_STREAM, FOREIGN_STREAM, f"{IMPORT_PREFIX}*"),
    ):
        if first_ns > since_ns:
            found.append((StreamKey(*key), first_ns))
            continue
        older += 1
        if older == _OLDER_READ:
            break
    return sorted(found, key=itemgetter(1))


class StreamNames:
    """Row id of a mark → stream key, for reading records; safe from any thread."""

    def __init__(self) -> None:
        self._known: dict[int, StreamKey] = {}

    def find(self, connection: sqlite3.Connection, stream: int) -> StreamKey:
        """Return the key; raise `JournalError` when the file holds a record without its mark."""
        key = self._known.get(stream)
        if key is None:
            found = connection.execute("SELECT namespace, device, stream FROM mark WHERE id = ?", (stream,)).fetchone()
            if found is None:
                raise JournalError(f"the journal is damaged: a record of stream {stream}, which has no mark")
            if len(self._known) > _MARKS_CACHED:
                self._known.clear()
            key = self._known[stream] = StreamKey(*found)
        return key


def _from_values(values: tuple[Any, ...]) -> MarkRow:
    namespace, device, stream, *rest = values
    return MarkRow(StreamKey(namespace, device, stream), *rest)
