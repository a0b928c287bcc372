"""The column store's file and memory: what is written, what is sealed, and one state of both for whoever asks.

Owns: the tables, their transactions, the log of what is not sealed yet (``pending``), `Heads`. Place: after
`store.sealing`, used by `store.columns`, which answers the questions. Must not: know the journal, or wait for one.

Theory of operation. A write is one row of the log and the same readings in memory. When series have a chunk's worth, or
one has waited ten minutes, or the log is two thirds full, all that is there is sealed, some series at a time, between
writes: chunks, counters and the series' ``sealed`` position are one transaction; with the last of them the log rows
go. So at any instant each reading is in exactly one place, and after a kill the memory is filled again from the log.

Whoever asks sees one state: ``version`` changes with every transaction, in the file and then in memory. A reader takes
its snapshot of the file, and looks at the heads when they are of the same version. It waits while a commit is in the
file and not yet in memory. When a commit has overtaken it, it tries once more, between two commits. Then it decodes and
merges without a lock. Beside another process that writes, it reads the log instead.

Durability. ``synchronous=NORMAL``: a commit survives a kill at once and a power cut after the next `sync` or
checkpoint. That is enough, because ``applied`` is in the transaction of the readings: after a power cut both fall back
together, and the journal is read again from there.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hub.database import NORMAL, ReadPool, give_back, is_disk_failure, open_database, roll_back, wipe_beside
from hub.errors import DiskFailedError, StoreError
from hub.model import Frame
from hub.renewal import mark_suspect
from hub.store import sealing
from hub.store.arrivals import gather
from hub.store.block import Block, decode, encode
from hub.store.buckets import minutes_of
from hub.store.chunk import refuse_foreign
from hub.store.head import Heads, waiting
from hub.store.head import spans as unsealed_spans
from hub.store.merge import FULL
from hub.store.rollup_table import (
    DROPPED_AT_ONCE,
    KEEPS_ALL,
    UPGRADE,
    add_minutes,
    cost_of,
    delete_blocks,
    delete_old_blocks,
    merge_overdue,
    note_dropped,
    raw_from,
)
from hub.store.sealing import Sealing, Unsealed, delete_oldest

# A file of plain rows, which has the same name, says 1 to 3.
SCHEMA_VERSION = 101
_UPGRADES = {100: UPGRADE}
SCHEMA = f"""
{sealing.SCHEMA};
CREATE TABLE pending(id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL, version INTEGER NOT NULL,
    {KEEPS_ALL});
INSERT INTO progress(id, applied, version) VALUES (1, 0, 0)
"""  # noqa: S608
# Readings wait no longer for their chunk: so erasure is complete, and a start quick.
MAX_AGE_S = 600.0
# Of the log, and so of what is in memory: 2.4 million readings, which a start reads in a tenth of a second.
MAX_PENDING_BYTES = 48 * 1024 * 1024
# What a row of it costs beside its body when it is read back.
_ROW_BYTES = 200
# Sealed in one transaction, which takes some ms. So many follow a write at most while the log is not full: the fuller,
# the more, so that its last third is not full before all is sealed.
SEALED_AT_ONCE, _SEALED_READINGS = 16, 65_536
_SEALS_A_WRITE = 16
# The write-ahead log is brought into the file when about so much was written, behind a COMMIT and not inside it: what
# was written is seen before. A commit writes three pages beside what it carries.
_CHECKPOINT_BYTES = 4 * 1024 * 1024
_COMMIT_BYTES = 3 * 4096
# By itself SQLite does so when the estimate was far too low.
_BACKSTOP_PAGES = 16_000
_ERASED_AT_ONCE = 64


class ColumnFile:
    """One writer thread, any reader threads.

    Args: as of `store.columns.ColumnStore`.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        max_bytes: int | None = None,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        chunk_readings: int = FULL,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self._path = path
        self._max_pending_bytes = max_pending_bytes
        self._chunk_readings = chunk_readings
        self._clock = clock
        self._connection = open_database(
            path, SCHEMA, SCHEMA_VERSION, synchronous=NORMAL, error=StoreError, max_bytes=max_bytes, upgrades=_UPGRADES
        )
        self._connection.execute(f"PRAGMA wal_autocheckpoint={_BACKSTOP_PAGES}")
        self._unchecked_bytes = 0
        self._connection.set_trace_callback(trace)
        self._readers = ReadPool(path)
        self._write_lock = threading.Lock()
        self._view = threading.Condition()
        # Held for each COMMIT and what it shows.
        self._commit_lock = threading.Lock()
        # The version that a COMMIT under way will bring.
        self._committing: int | None = None
        self._failed: DiskFailedError | None = None
        # Newest time of each series written since start, or not sealed then.
        self._newest: dict[int, int] = {}
        # From when readings of a series are there, of which some were dropped.
        self._raw_from: dict[int, int] = {}
        # The last log row of the generation that is sealed.
        self._generation = 0
        self.applied: int
        try:
            self.applied, self._version = self._connection.execute("SELECT applied, version FROM progress").fetchone()
            self._raw_from = raw_from(self._connection)
            # The newest part tells who wrote last: before anything is taken that could not be sealed.
            for (body,) in self._connection.execute("SELECT body FROM part ORDER BY id DESC LIMIT 1"):
                refuse_foreign(body)
            self._heads = self._load(self._connection)
            self._newest = _newest_of(self._heads.blocks())
            sizes = self._connection.execute("SELECT id, length(body) FROM pending ORDER BY id")
            # Log row → what it costs, oldest first.
            self._pending = {row: size + _ROW_BYTES for row, size in sizes}
            self._pending_bytes = sum(self._pending.values())
        except (sqlite3.Error, StoreError) as error:
            self._connection.close()
            raise StoreError(f"cannot use {path}: {error}; restore a backup or use another data directory") from error

    def write(self, frames: Sequence[Frame]) -> None:
        """Log the readings of frames behind ``applied`` in one transaction; then seal what is due.

        Raises:
            DiskFailedError: nothing more is taken; the file must be renewed (`hub.renewal`).
            StoreError: try again later; what was logged is skipped then.
        """
        with self._write_lock:
            fresh = [frame for frame in frames if frame.offset > self.applied]
            if fresh:
                self._log_frames(fresh)
            seals = 0
            while self._is_due(seals):
                self._seal_some()
                seals += 1

    def seal(self) -> None:
        """Seal all that is written, in slices between which writes go on; what a write does when it is time."""
        # What is begun ends first, then comes what was written behind it.
        while self._seal_if(self._generation):
            pass
        written = self._version
        while self._seal_if(written):
            pass

    def sync(self) -> int:
        """Make all that was written durable with one fsync; return ``applied``."""
        with self._write_lock:
            # One commit with FULL fsyncs the whole write-ahead log, earlier commits included.
            self._check_usable()
            try:
                self._connection.execute("PRAGMA synchronous=FULL")
                with self._transaction("cannot make it durable"):
                    pass
            finally:
                self._connection.execute("PRAGMA synchronous=NORMAL")
            return self.applied

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``."""
        with self._write_lock, self._transaction("cannot rewind", applied=offset):
            pass

    def erase(self, series: int) -> int:
        """Seal a series and delete its chunks, in slices between which writes go on; return how many readings."""
        erased = 0
        if self._has_unsealed([series]):
            self.seal()
        while (slice_of := self._erase_slice(series)) is not None:
            erased += slice_of
        return erased

    def wipe(self) -> None:
        """Take out of the file what was erased: all that waits is sealed, for a row of the log has many series'."""
        self.seal()
        while self.give_back(0):
            pass
        try:
            is_done = wipe_beside(self._connection, self._write_lock)
        except sqlite3.Error as error:
            raise self._failure("cannot take out what was erased", error) from error
        if not is_done:
            raise StoreError(f"{self._path}: something reads the log, which still says what was erased: erase it again")

    def drop(self, series: Sequence[int], border_ns: int) -> int:
        """Drop readings before a time, a slice in one transaction with their sums; return how many, 0 when none is."""
        due = [number for number, (first, last) in self.spans(series).items() if first < min(border_ns, last)]
        if not due:
            return 0
        while self._has_unsealed(due, border_ns):
            self.seal()
        with self._write_lock:
            dropped, left = 0, DROPPED_AT_ONCE
            with self._transaction("cannot drop readings"):
                work = Sealing(self._connection, self._version, self._chunk_readings)
                for number in due:
                    count, cost = self._drop_oldest(work, number, border_ns, left)
                    dropped, left = dropped + count, left - cost
                    if left <= 0:
                        break
                work.write()
                found = raw_from(self._connection, due)
            self._raw_from.update(found)
            self._written(work.bytes)
        return dropped

    def drop_rollups(self, series: Sequence[int], before_ns: int) -> int:
        """Delete some of the sums that end before a time; return how many blocks."""
        with self._write_lock, self._transaction("cannot drop sums"):
            return delete_old_blocks(self._connection, series, before_ns)

    def give_back(self, keep_bytes: int) -> int:
        """Give some free pages back to the disk; return how many bytes."""
        with self._write_lock:
            self._check_usable()
            try:
                return give_back(self._connection, keep_bytes)
            except sqlite3.Error as error:
                raise self._failure("cannot give back space", error) from error

    @contextmanager
    def snapshot(self) -> Iterator[tuple[sqlite3.Connection, Sequence[Block]]]:
        """Give a connection inside a read transaction, and what is not sealed in the same state, as it came."""
        with self._readers.connection() as connection:
            blocks = self._look(connection)
            if blocks is None:
                connection.execute("ROLLBACK")
                connection.execute("BEGIN")
                with self._commit_lock:
                    blocks = self._look(connection)
            # Another process writes: the log of this state says what was not sealed.
            yield connection, self._load(connection).blocks() if blocks is None else blocks

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        with self._write_lock:
            self._readers.close()
            self._connection.close()

    def _look(self, connection: sqlite3.Connection) -> Sequence[Block] | None:
        """Begin the connection's snapshot; return what is not sealed, None when that is of another version."""
        (version,) = connection.execute("SELECT version FROM progress").fetchone()
        with self._view:
            self._view.wait_for(lambda: self._committing != version)
            return self._heads.blocks() if version == self._version else None

    def _log_frames(self, frames: Sequence[Frame]) -> None:
        self._check_usable()
        try:
            arrivals = gather(frames, self._all_newest, self._raw_from)
        except sqlite3.Error as error:
            raise self._failure("cannot look up what there is", error) from error
        block = arrivals.block
        row = self._version + 1
        body = encode(block) if block else b""

        def show() -> None:
            if block:
                self._heads.add(block, self._clock())

        with self._transaction("a write failed and was undone", applied=frames[-1].offset, show=show):
            if body:
                self._connection.execute("INSERT INTO pending VALUES (?, ?)", (row, body))
            merge_overdue(self._connection, arrivals.overdue)
        if body:
            self._pending[row] = len(body) + _ROW_BYTES
            self._pending_bytes += len(body) + _ROW_BYTES
            self._written(len(body))
        self._newest.update(arrivals.newest)

    def _is_due(self, seals: int) -> bool:
        """Return whether a write that was followed by so many seals shall be by another one."""
        if not self._heads:
            return False
        third = self._max_pending_bytes // 3
        excess = self._pending_bytes - 2 * third
        if excess > third:
            return True
        if self._heads.is_sealing or excess > 0 or self._heads.is_due(self._clock() - MAX_AGE_S):
            return bool(seals * third <= _SEALS_A_WRITE * max(excess, 0))
        return False

    def _seal_if(self, written: int) -> bool:
        """Seal some of what the log has up to a row; return whether there was anything."""
        with self._write_lock:
            self._check_usable()
            row = next(iter(self._pending), None)
            if not self._heads or row is None or row > written:
                return False
            self._seal_some()
            return True

    def _seal_some(self) -> None:
        """Move some series of the generation into chunks, or of a new one; drop the log rows of one that is done."""
        if not self._heads.is_sealing:
            self._heads.begin()
            self._generation = self._version
        block = self._heads.next(SEALED_AT_ONCE, _SEALED_READINGS)
        last = int(block.series[-1])
        is_last = self._heads.ends_with(last)

        with self._transaction("sealing failed and was undone", show=lambda: self._heads.sealed(last)):
            work = Sealing(self._connection, self._generation, self._chunk_readings)
            for series, (readings, late) in block.by_series():
                work.add(series, Unsealed(readings, late))
            work.write()
            if is_last:
                self._connection.execute("DELETE FROM pending WHERE id <= ?", (self._generation,))
        while is_last and self._pending and (row := next(iter(self._pending))) <= self._generation:
            self._pending_bytes -= self._pending.pop(row)
        self._written(work.bytes)

    def spans(self, series: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return series → the times of its oldest and its newest reading, of those that have one."""

        with self.snapshot() as (connection, blocks):
            spans = unsealed_spans(blocks, series)
            for number, t0, t1 in connection.execute(
                """SELECT s.value, (SELECT min(t0) FROM chunk WHERE series = s.value),
                (SELECT t1 FROM chunk WHERE series = s.value ORDER BY t0 DESC LIMIT 1) FROM json_each(?) s""",
                (json.dumps(list(series)),),
            ).fetchall():
                if t0 is not None:
                    known = spans.get(number, (t0, t1))
                    spans[number] = (min(t0, known[0]), max(t1, known[1]))
        return spans

    def _has_unsealed(self, series: Sequence[int], before_ns: int = 2**63) -> bool:
        return bool(waiting(self._heads.blocks(), series, end_ns=before_ns))

    def _drop_oldest(self, work: Sealing, series: int, border_ns: int, most: int) -> tuple[int, int]:
        """Drop chunks of about ``most`` readings before a time, but not the newest reading.

        Returns: how many readings, and what it cost (`rollup_table.cost_of`).
        """
        newest_ns = self._known_newest(series)
        if newest_ns is None or self._has_unsealed([series], border_ns):
            return 0, 0
        dropped, from_ns = work.drop(series, min(border_ns, newest_ns), most)
        count = sums = 0
        for readings in dropped:
            sums += add_minutes(self._connection, series, minutes_of(readings))
            count += len(readings.times)
        if count:
            note_dropped(self._connection, series, count, from_ns)
        return count, cost_of(count, sums)

    def _erase_slice(self, series: int) -> int | None:
        """Erase some sums or some chunks; return how many readings, None when there was neither."""
        with self._write_lock:
            with self._transaction("cannot erase"):
                # Chunks go only where no sums are: a drop between two slices makes new ones.
                blocks = delete_blocks(self._connection, series)
                deleted = 0 if blocks else delete_oldest(self._connection, series, _ERASED_AT_ONCE)
                self._connection.execute("UPDATE counter SET erased = erased + ? WHERE series = ?", (deleted, series))
            if not blocks:
                self._raw_from.pop(series, None)
                self._newest.pop(series, None)
            return deleted if deleted or blocks else None

    @contextmanager
    def _transaction(
        self, what: str, *, applied: int | None = None, show: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Run a block in one transaction, and ``show`` what it did at the moment in which readers can see it."""
        self._check_usable()
        position = self.applied if applied is None else applied
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("UPDATE progress SET applied = ?, version = version + 1", (position,))
            self._commit(position, show)
        except sqlite3.Error as error:
            self._roll_back()
            raise self._failure(what, error) from error
        except Exception:
            self._roll_back()
            raise
        self._written(_COMMIT_BYTES)

    def _commit(self, position: int, show: Callable[[], None]) -> None:
        with self._commit_lock:
            with self._view:
                self._committing = self._version + 1
            try:
                self._connection.execute("COMMIT")
                with self._view:
                    self._version += 1
                    self.applied = position
                    show()
            finally:
                with self._view:
                    self._committing = None
                    self._view.notify_all()

    def _written(self, size: int) -> None:
        """Bring the write-ahead log into the file when enough was written."""
        self._unchecked_bytes += size
        if self._unchecked_bytes < _CHECKPOINT_BYTES:
            return
        self._unchecked_bytes = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise self._failure("a checkpoint failed", error) from error

    def _load(self, connection: sqlite3.Connection) -> Heads:
        """Return the heads that the log of the connection's state says."""
        heads, now_s = Heads(self._chunk_readings), self._clock()
        sealed = dict(connection.execute("SELECT series, sealed FROM counter").fetchall())
        for row, body in connection.execute("SELECT id, body FROM pending ORDER BY id"):
            block = decode(body)
            waits = [row > sealed.get(series, 0) for series in block.series.tolist()]
            rest = block.select(np.array(waits))
            if rest is not None:
                heads.add(rest, now_s)
        return heads

    def _all_newest(self, series: Collection[int]) -> dict[int, int | None]:
        known: dict[int, int | None] = {number: self._newest.get(number) for number in series}
        return known | {number: self._known_newest(number) for number, found in known.items() if found is None}

    def _known_newest(self, series: int) -> int | None:
        newest = self._newest.get(series)
        if newest is not None:
            return newest
        row = self._connection.execute(
            "SELECT t1 FROM chunk WHERE series = ? ORDER BY t0 DESC LIMIT 1", (series,)
        ).fetchone()
        found = [] if row is None else [int(row[0])]
        unsealed = unsealed_spans(self._heads.blocks(), [series])
        return max([*found, *(last for _, last in unsealed.values())], default=None)

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _failure(self, what: str, error: sqlite3.Error) -> StoreError:
        """Return what the caller shall raise; after a failed fsync another one may lie, so nothing more is written."""
        if not is_disk_failure(error):
            return StoreError(f"{self._path}: {what}: {error}")
        mark_suspect(self._path)
        self._failed = DiskFailedError(f"{self._path}: {what}: {error}; start the hub again")
        return self._failed

    def _roll_back(self) -> None:
        try:
            roll_back(self._connection)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: a rollback failed: {error}") from error


def _newest_of(blocks: Sequence[Block]) -> dict[int, int]:
    newest: dict[int, int] = {}
    for block in blocks:
        for series, time_ns in zip(block.series.tolist(), block.greatest.tolist(), strict=True):
            newest[series] = max(time_ns, newest.get(series, time_ns))
    return newest
