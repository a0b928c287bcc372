"""Marks as the journal keeps them: one row a stream, written in the transaction of its frames.

Owns: the `mark` table and the compact form of a mark in memory. Place: after
`journal.base`, used by `journal.sqlite`. A mark is copied before it advances,
so a failed commit leaves the old one untouched.
"""

import sqlite3
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any

from device_sdk.reading import INT_MAX
from device_sdk.wire import CHAIN_BYTES, CHAIN_START, CHAINS_KEPT
from hub.database import insert_rows
from hub.errors import JournalError
from hub.model import Frame, Kind, Mark, StreamKey

SCHEMA = """
CREATE TABLE mark(
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    stored INTEGER NOT NULL, chains BLOB NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL,
    dropped INTEGER NOT NULL, quarantined INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    UNIQUE(namespace, device, stream))
"""
_COLUMNS = "id, namespace, device, stream, stored, chains, accepted, rejected, dropped, quarantined, first_ns, last_ns"
_UPSERT = """ON CONFLICT(id) DO UPDATE SET stored = excluded.stored, chains = excluded.chains,
    accepted = excluded.accepted, rejected = excluded.rejected, dropped = excluded.dropped,
    quarantined = excluded.quarantined, first_ns = excluded.first_ns, last_ns = excluded.last_ns"""
# A mark in memory is about 1.5 KiB; beyond this many the cache starts again from the table.
_MARKS_CACHED = 20_000
_CHAINS_BYTES = CHAINS_KEPT * CHAIN_BYTES


@dataclass(slots=True)
class MarkRow:
    """One row of the table; ``chains`` are those of … ``stored`` - 1, ``stored``, joined."""

    id: int
    key: StreamKey
    stored: int = 0
    chains: bytes = CHAIN_START
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    quarantined: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def advance(self, frame: Frame) -> None:
        """Take the stream's next frame.

        Raises:
            ValueError: it is not the next; a caller's bug, for the session decides what is next.
        """
        if frame.seq != self.stored + 1:
            raise ValueError(f"frame {frame.seq} of {self.key} does not follow {self.stored}, which is stored")
        self.stored = frame.seq
        self.chains = (self.chains + frame.chain)[-_CHAINS_BYTES:]
        self.accepted += frame.readings
        # A gap's count is chosen by a peer: two of 2**62 must not overflow a column and stop the hub.
        self.rejected = min(self.rejected + frame.rejected_count, INT_MAX)
        self.dropped = min(self.dropped + frame.dropped, INT_MAX)
        self.quarantined += frame.kind is Kind.QUARANTINE
        self.first_ns = self.first_ns or frame.received_ns
        self.last_ns = frame.received_ns

    def values(self) -> tuple[Any, ...]:
        """Return the row in the order of the columns."""
        return (
            self.id, *self.key, self.stored, self.chains, self.accepted, self.rejected, self.dropped,
            self.quarantined, self.first_ns, self.last_ns,
        )  # fmt: skip

    def mark(self) -> Mark:
        """Return the mark that leaves the journal."""
        count = len(self.chains) // CHAIN_BYTES
        first = self.stored - count + 1
        chains = {first + i: self.chains[i * CHAIN_BYTES : (i + 1) * CHAIN_BYTES] for i in range(count)}
        return Mark(
            self.key, self.stored, chains, self.accepted, self.rejected, self.dropped, self.quarantined,
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
                    row = MarkRow(self._next_id + new, frame.key)
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
            found = self._connection.execute(
                f"SELECT {_COLUMNS} FROM mark WHERE namespace = ? AND device = ? AND stream = ?",  # noqa: S608
                key,
            ).fetchone()
            if found is not None:
                row = self._cache[key] = _from_values(found)
        return row


def read_marks(connection: sqlite3.Connection) -> dict[StreamKey, Mark]:
    """Return every mark of the file."""
    rows = (_from_values(values) for values in connection.execute(f"SELECT {_COLUMNS} FROM mark"))  # noqa: S608
    return {row.key: row.mark() for row in rows}


def read_mark_rows(connection: sqlite3.Connection, namespace: str, device: str | None) -> list[MarkRow]:
    """Return the marks of one device, or of the whole namespace."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM mark WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2)",  # noqa: S608
        (namespace, device),
    )
    return [_from_values(values) for values in rows]


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
    number, namespace, device, stream, *rest = values
    return MarkRow(number, StreamKey(namespace, device, stream), *rest)
