"""Unsealed readings → chunks, inside the caller's transaction: the tables of chunks and how they change.

Owns: `SCHEMA`, merging with what is sealed, time axes shared by series, the ledger's counters of what is sealed. Place:
after `store.merge`, used by `store.columns`, which owns the transaction.

Theory of operation. A ``part`` is the body of a time axis or of a column of values. Channels of a device come in the
same frames, so their chunks often have the same axis: within one transaction it is written once, and counts how many
chunks refer to it. Chunks are never changed: to merge is to remove one and to write what takes its place.

A chunk that is damaged must not hold up all that comes after it. When it would be merged it is set aside, with its
bytes, and said; its readings are missing from ``rows`` then, so that the ledger does not balance, as it should not.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from device_sdk.reading import Value
from hub.database import insert_rows
from hub.errors import StoreError
from hub.store.chunk import (
    ForeignChunkError,
    Readings,
    Received,
    Times,
    decode_axis,
    decode_values,
    encode_axis,
    encode_values,
    summarise,
)
from hub.store.merge import DAY_NS, FULL, NOTHING, Extent, by_day, cut, land, merged, ordered, within
from hub.store.rollup_table import COUNTER_COLUMNS
from hub.store.rollup_table import SCHEMA as ROLLUPS

_log = logging.getLogger("hub.store.sealing")

# A bool in SQLite: one byte, so that it is no int.
FALSE, TRUE = b"\x00", b"\x01"
SCHEMA = f"""
CREATE TABLE part(id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunk(series INTEGER NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, n INTEGER NOT NULL,
    kind INTEGER NOT NULL, vmin, vmax, vsum, vlast, axis INTEGER NOT NULL, body INTEGER NOT NULL,
    PRIMARY KEY(series, t0)) WITHOUT ROWID;
CREATE TABLE counter(series INTEGER PRIMARY KEY, accepted INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0, erased INTEGER NOT NULL DEFAULT 0, late INTEGER NOT NULL DEFAULT 0,
    sealed INTEGER NOT NULL DEFAULT 0, {COUNTER_COLUMNS});
CREATE TABLE damaged(series INTEGER NOT NULL, t0 INTEGER NOT NULL, n INTEGER NOT NULL, axis BLOB, body BLOB);
{ROLLUPS}
"""
COLUMNS = "series, t0, t1, n, kind, vmin, vmax, vsum, vlast, axis, body"
_CHUNK_FIELDS = 11
_EXTENTS = f"""SELECT {COLUMNS} FROM chunk WHERE series = ?1 AND t0 >= max(?2, coalesce(
        (SELECT max(t0) FROM chunk WHERE series = ?1 AND t0 <= ?3), ?2))
    AND t0 <= coalesce((SELECT min(t0) FROM chunk WHERE series = ?1 AND t0 > ?4), ?4) AND t0 <= ?5 ORDER BY t0"""  # noqa: S608


class ChunkRow(NamedTuple):
    """A row of ``chunk``; ``vlast`` as it is in SQLite (None: a NaN), ``axis`` and ``body``: ids of parts."""

    series: int
    t0: int
    t1: int
    n: int
    kind: int
    vmin: float | int | None
    vmax: float | int | None
    vsum: float | None
    vlast: Any
    axis: int
    body: int


@dataclass(slots=True)
class Unsealed:
    """What goes into chunks: readings of one series in the order they came, and how many of them were late."""

    readings: Readings
    late: int = 0


class Parts:
    """Reads parts of one state of the file; an axis that several chunks share is decoded once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._axes: dict[int, tuple[Times, Received]] = {}
        self._offered: dict[int, bytes] = {}

    def offer(self, row: ChunkRow, axis: bytes | None, body: bytes | None) -> None:
        """Take the bodies of a chunk that were read with its row: `readings` need not ask for them."""
        if len(self._offered) > _OFFERED_KEPT:
            self._offered.clear()
        for number, found in ((row.axis, axis), (row.body, body)):
            if found is not None:
                self._offered[number] = found

    def axis(self, row: ChunkRow) -> tuple[Times, Received]:
        """Return times and receive times of a chunk."""
        found = self._axes.get(row.axis)
        if found is None:
            # The last ones only: whoever walks over many series meets the same axis again soon, or never.
            if len(self._axes) >= _AXES_KEPT:
                self._axes.clear()
            found = self._axes[row.axis] = decode_axis(self._body(row.axis))
        return found

    def readings(self, row: ChunkRow) -> Readings:
        """Return the readings of a chunk."""
        times, received = self.axis(row)
        values = decode_values(self._body(row.body))
        if not len(times) == len(values) == row.n:
            raise StoreError(f"a chunk is damaged: {len(times)} times, {len(values)} values, {row.n} readings")
        return Readings(times, received, values)

    def _body(self, number: int) -> bytes:
        offered = self._offered.pop(number, None)
        if offered is not None:
            return offered
        row = self._connection.execute("SELECT body FROM part WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise StoreError(f"part {number} of a chunk is missing: the file is damaged")
        body: bytes = row[0]
        return body


# Of 4,096 readings at most: 50 KB each.
_AXES_KEPT = 64
# Bodies of 2 to 20 KB that are read and not decoded yet.
_OFFERED_KEPT = 256


@dataclass(slots=True)
class _Changes:
    removed: list[tuple[int, int]] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    bodies: list[tuple[int, bytes]] = field(default_factory=list)
    # Part → how many more chunks refer to it.
    refs: "Counter[int]" = field(default_factory=Counter)
    counters: list[int] = field(default_factory=list)


class Sealing:
    """Seals some series in one transaction: `add` each, then `write`.

    Args:
        sealed: the log row up to which everything of these series is in chunks then.
        full: readings of a chunk, up to twice as many.
    """

    def __init__(self, connection: sqlite3.Connection, sealed: int, full: int = FULL) -> None:
        self._connection = connection
        self._sealed = sealed
        self._full = full
        self._parts = Parts(connection)
        self._changes = _Changes()
        # Of what `write` will write.
        self.bytes = 0
        self._axes: dict[tuple[bytes, bytes], int] = {}
        self._next_part: int = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM part").fetchone()[0]

    def add(self, series: int, unsealed: Unsealed) -> None:
        """Merge the readings with the chunks they fall into, and count."""
        accepted = len(unsealed.readings.times)
        gained = 0
        for day in by_day(ordered(unsealed.readings)):
            gained += self._add_day(series, day)
        self._changes.counters += (series, accepted, accepted - gained, unsealed.late, self._sealed)

    def write(self) -> None:
        """Write everything."""
        changes = self._changes
        released = sorted(number for number, refs in changes.refs.items() if refs < 0)
        for key in changes.removed:
            self._connection.execute("DELETE FROM chunk WHERE series = ? AND t0 = ?", key)
        flat = [value for number, body in changes.bodies for value in (number, changes.refs.pop(number), body)]
        insert_rows(self._connection, "INSERT INTO part", 3, flat)
        insert_rows(self._connection, "INSERT INTO chunk", _CHUNK_FIELDS, changes.chunks)
        release(self._connection, {number: -changes.refs[number] for number in released})
        insert_rows(
            self._connection, "INSERT INTO counter(series, accepted, superseded, late, sealed)", 5, changes.counters,
            """ON CONFLICT DO UPDATE SET accepted = accepted + excluded.accepted, late = late + excluded.late,
            superseded = superseded + excluded.superseded, sealed = excluded.sealed""",
        )  # fmt: skip

    def drop(self, series: int, edge_ns: int, most: int) -> tuple[list[Readings], int]:
        """Take the oldest chunks before a time out, and of the last one what is before it.

        Returns: what they held, and from when there are readings.

        Args:
            most: chunks are taken until they have so many readings.
        """
        dropped: list[Readings] = []
        left, from_ns = most, edge_ns
        for found in self._connection.execute(
            f"SELECT {COLUMNS} FROM chunk WHERE series = ? AND t0 < ? ORDER BY t0",  # noqa: S608
            (series, edge_ns),
        ):
            row = ChunkRow(*found)
            readings = self._take_out(row)
            rest = within(readings, edge_ns, 2**63)
            if len(rest.times):
                self._add_chunk(series, rest)
                readings = within(readings, -(2**63), edge_ns)
            dropped.append(readings)
            left -= row.n
            if left <= 0:
                # Not where the readings end: a damaged chunk has none.
                from_ns = min(row.t1 + 1, edge_ns)
                break
        return dropped, from_ns

    def _add_day(self, series: int, readings: Readings) -> int:
        """Return how many readings there are more than before."""
        times = readings.times
        first, last = int(times[0]), int(times[-1])
        day_ns = first // DAY_NS * DAY_NS
        bounds = (series, max(day_ns, -(2**63)), first, last, min(day_ns + DAY_NS - 1, 2**63 - 1))
        rows = [ChunkRow(*row) for row in self._connection.execute(_EXTENTS, bounds)]
        gained = 0
        for landing in land(readings, [Extent(row.t0, row.t1, row.n) for row in rows], self._full):
            result = landing.readings
            if landing.owner is not None:
                owner = rows[landing.owner]
                sealed = self._take_out(owner)
                result = merged(sealed, result)
                gained -= len(sealed.times)
            gained += len(result.times)
            for chunk in cut(result, self._full):
                self._add_chunk(series, chunk)
        return gained

    def _take_out(self, row: ChunkRow) -> Readings:
        """Remove a chunk and return its readings: none when it is damaged; `ForeignChunkError` passes."""
        self._changes.removed.append((row.series, row.t0))
        self._changes.refs.subtract((row.axis, row.body))
        try:
            return self._parts.readings(row)
        except ForeignChunkError:
            # Its readings are there for whoever can read them: sealing waits for that.
            raise
        except StoreError as error:
            _log.error("chunk set aside series=%d from=%d readings=%d reason=%s", row.series, row.t0, row.n, error)
            self._connection.execute(
                """INSERT INTO damaged VALUES (?1, ?2, ?3, (SELECT body FROM part WHERE id = ?4),
                (SELECT body FROM part WHERE id = ?5))""",
                (row.series, row.t0, row.n, row.axis, row.body),
            )
            return NOTHING

    def _add_chunk(self, series: int, readings: Readings) -> None:
        key = (readings.times.tobytes(), readings.received.tobytes())
        axis = self._axes.get(key)
        if axis is None:
            axis = self._axes[key] = self._add_part(encode_axis(readings.times, readings.received))
        else:
            self._changes.refs[axis] += 1
        body = self._add_part(encode_values(readings.values))
        *summary, vlast = summarise(readings)
        self._changes.chunks += (series, *summary, to_sql(vlast), axis, body)

    def _add_part(self, body: bytes) -> int:
        number, self._next_part = self._next_part, self._next_part + 1
        self._changes.bodies.append((number, body))
        self.bytes += len(body)
        self._changes.refs[number] = 1
        return number


def release(connection: sqlite3.Connection, refs: dict[int, int]) -> None:
    """Take references from parts, and delete those that have none left."""
    for number, count in refs.items():
        connection.execute("UPDATE part SET refs = refs - ? WHERE id = ?", (count, number))
        connection.execute("DELETE FROM part WHERE id = ? AND refs <= 0", (number,))


def to_sql(value: Value) -> Any:
    """Return a value as SQLite keeps it."""
    return (TRUE if value else FALSE) if isinstance(value, bool) else value


def from_sql(value: Any) -> Value:
    """Return a value that SQLite kept."""
    found: Value = value == TRUE if type(value) is bytes else value
    return found


def delete_oldest(connection: sqlite3.Connection, series: int, most: int) -> int:
    """Delete the ``most`` oldest chunks of a series, and those set aside; return how many readings the first held."""
    connection.execute("DELETE FROM damaged WHERE series = ?", (series,))
    rows: Sequence[ChunkRow] = [
        ChunkRow(*row)
        for row in connection.execute(
            f"SELECT {COLUMNS} FROM chunk WHERE series = ? ORDER BY t0 LIMIT ?",  # noqa: S608
            (series, most),
        )
    ]
    if not rows:
        return 0
    connection.execute("DELETE FROM chunk WHERE series = ? AND t0 <= ?", (series, rows[-1].t0))
    release(connection, dict(Counter(number for row in rows for number in (row.axis, row.body))))
    return sum(row.n for row in rows)
