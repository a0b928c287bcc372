"""The journal in one SQLite file: group commits as rows, marks beside them, one fsync for all.

Owns: the file ``journal.sqlite3``: rows of records, runs, checkpoints, series,
and through `mark` and `ledger` the marks and the side tables. Place: after
`journal.base`. Must not: decide what is accepted, or know who reads.

Theory of operation. `append` is one transaction: rows of at most `ROW_BYTES`
with the frames' records, their streams' marks, what they declare lost or
refused, changed series, checkpoints. ``synchronous=FULL``: when COMMIT returns
the write-ahead log is fsynced. Memory (head, marks, series) changes only after
COMMIT, so a failed commit leaves nothing behind. Readers have connections of
their own and never wait for the writer, nor it for them.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from hub.database import (
    FULL,
    ReadPool,
    insert_rows,
    is_disk_failure,
    is_disk_full,
    open_database,
    roll_back,
    used_bytes,
)
from hub.errors import DiskFailedError, DiskFullError, ExpiredError, HubError, JournalError
from hub.journal import catalog, ledger, mark, record
from hub.journal.account import read_account
from hub.journal.base import RETAIN_BYTES, RETAIN_HOURS, JournalAccount, JournalStatistics, Run
from hub.journal.posted import trim_posted, write_posted
from hub.model import Frame, Kind, Mark, Series, SeriesKey, StreamKey
from hub.renewal import mark_suspect

SCHEMA_VERSION = 3
_SCHEMA = f"""
CREATE TABLE "commit"(
    first_offset INTEGER PRIMARY KEY, n INTEGER NOT NULL, received_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE run(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, first_offset INTEGER NOT NULL);
CREATE TABLE checkpoint(consumer TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
{catalog.SCHEMA};
{mark.SCHEMA};
{ledger.SCHEMA}
"""
# Schema 2 has tables for replays; its records may name late columns, those of schema 1 name none and stay as they are.
# Schema 3 has a table for requests that name themselves.
_UPGRADES = {1: ledger.UPGRADE_1, 2: ledger.UPGRADE_2}
# A reader takes a row whole: the bound of what a page of a few frames costs. A larger group becomes several rows.
ROW_BYTES = 1024 * 1024
# A trim holds the writer's lock for one slice: at most this much, then appends go first.
_TRIM_ROWS = 1000
_TRIM_BYTES = 16 * 1024 * 1024
_TRIM_PAUSE_S = 0.002
# Free pages are reused by later commits; only when they are this share of the file is space given back.
_FREE_SHARE = 0.25
_VACUUM_PAGES = 1024
_HOUR_NS = 3600 * 10**9
_PK_CONFLICTS = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)

# (last offset of a row, when it was received, bytes beyond the cap) → whether it may go.
_IsExpired = Callable[[int, int, int], bool]


class SqliteJournal(ledger.LedgerReads):
    """A `Journal` in one file.

    Series objects are shared, not copied: `series` gives those of the file, `append` takes the caller's, and `read`
    finds them by key, so a type or unit that the registry changes is seen by every reader. ``find_series`` may be
    set to the registry's own look-up.

    Args:
        path: the file; made when absent, its directory must exist.
        random_bytes: source of the run id.
        max_bytes: the file may not grow beyond (then `DiskFullError`); None = the disk decides.

    Raises:
        JournalError: the file cannot be opened, is damaged or of a newer hub.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        max_bytes: int | None = None,
        row_bytes: int = ROW_BYTES,
        quarantine_rows: int = ledger.QUARANTINE_ROWS,
        quarantine_bytes: int = ledger.QUARANTINE_BYTES,
    ) -> None:
        self._path = Path(path)
        self._row_bytes = row_bytes
        self._connection = open_database(
            self._path, _SCHEMA, SCHEMA_VERSION, synchronous=FULL, error=JournalError, max_bytes=max_bytes,
            upgrades=_UPGRADES,
        )  # fmt: skip
        self._readers = ReadPool(self._path)
        self._write_lock = threading.Lock()
        self._marks = mark.MarkTable(self._connection)
        self._ledger = ledger.Ledger(
            self._connection, quarantine_rows=quarantine_rows, quarantine_bytes=quarantine_bytes
        )
        self._streams = mark.StreamNames()
        self._series = {SeriesKey(s.namespace, s.device, s.channel): s for s in catalog.read_series(self._connection)}
        self.find_series: Callable[[SeriesKey], Series | None] = self._series.get
        self._checkpoints: dict[str, int] = dict(self._connection.execute("SELECT consumer, offset FROM checkpoint"))
        self._are_checkpoints_changed = False
        self._broken: str | None = None
        self._kind: type[JournalError] = JournalError
        self._commits = self._largest_group = 0
        self._commit_s = 0.0
        self.head, self._first = self._ends()
        self.run = self._start_run(random_bytes)

    def append(self, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        """Commit frames, marks, side tables and series in one transaction; see `Journal.append`.

        Raises:
            DiskFailedError: nothing is stored; the file must be renewed (`hub.renewal`) before it is opened again.
            JournalError: nothing is stored; the journal refuses further work until it is opened again.
            DiskFullError: nothing is stored; a later call may succeed.
            ValueError: a frame does not follow its stream's mark (a caller's bug); nothing is stored.
        """
        with self._write_lock:
            self._check_usable()
            began = time.perf_counter()
            try:
                staged = self._marks.stage(frames)
                self._connection.execute("BEGIN IMMEDIATE")
                self._write_rows(frames, staged)
                self._marks.write(staged)
                if any(f.kind is not Kind.BATCH or f.rejected_count or f.replayed for f in frames):
                    self._ledger.write(frames, self.head + 1)
                write_posted(self._connection, frames)
                catalog.write_series(self._connection, series)
                self._write_checkpoints()
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failure(error) from error
            except Exception:
                self._undo()
                raise
            self._keep(frames, staged, series)
            self._commit_s = time.perf_counter() - began

    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        """Return decoded frames behind ``after``; see `Journal.read`. Any thread."""
        last = self.head if upto is None else min(upto, self.head)
        if after >= last:
            return []
        frames: list[Frame] = []
        size = 0
        with self._readers.connection() as connection:
            # Begins at the row that holds after + 1, which proves that nothing between was trimmed.
            rows = connection.execute(
                """SELECT first_offset, body FROM "commit" WHERE first_offset <= ?2 AND first_offset >=
                (SELECT max(first_offset) FROM "commit" WHERE first_offset <= ?1) ORDER BY first_offset""",
                (after + 1, last),
            )
            for first_offset, body in rows:
                for offset, entry in enumerate(record.records(body), first_offset):
                    if offset <= after:
                        continue
                    if offset > last or (frames and size >= max_bytes):
                        return frames
                    key = self._streams.find(connection, entry.stream)
                    frames.append(record.decode(entry, body, offset, key, self.find_series))
                    size += entry.end - entry.body_at
        if not frames:
            raise ExpiredError(
                f"offset {after} is older than the journal keeps (from {self._first}): start from a time"
            )
        return frames

    def find_marks(self, keys: Iterable[StreamKey]) -> dict[StreamKey, Mark]:
        """Return the marks of those streams of which something is stored, in one transaction; see `Journal`."""
        try:
            with self._readers.connection() as connection:
                rows = [mark.read_mark(connection, key) for key in keys]
        except sqlite3.Error as error:
            raise self._unread(error) from error
        return {row.key: row.mark() for row in rows if row is not None}

    def begun(self, since_ns: int) -> list[tuple[StreamKey, int]]:
        """Return the devices' streams that began behind ``since_ns``, with when, oldest first."""
        with self._readers.connection() as connection:
            return mark.read_begun(connection, since_ns)

    def series(self) -> list[Series]:
        """Return every known series by id: the objects that `read` hands out."""
        return sorted(self._series.values(), key=lambda s: s.id)

    def runs(self) -> list[Run]:
        """Return all runs, oldest first; the last is this one."""
        with self._readers.connection() as connection:
            return [Run(*row) for row in connection.execute("SELECT id, first_offset FROM run ORDER BY number")]

    def checkpoint(self, consumer: str) -> int:
        """Return the consumer's checkpoint, 0 when it never set one."""
        return self._checkpoints.get(consumer, 0)

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        """Note how far a consumer has come; any thread, no I/O.

        Written with the next commit, trim or close: after a kill the older one holds, which keeps more, never less.
        """
        with self._write_lock:
            if self._checkpoints.get(consumer) != offset:
                self._checkpoints[consumer] = offset
                self._are_checkpoints_changed = True

    def trim(self, before: int) -> int:
        """Delete rows whose frames are all < ``before`` and below every checkpoint; return the first offset kept."""
        return self._trim(lambda last, received_ns, excess: last < before, None)

    def trim_expired(self, now_ns: int, retain_hours: float = RETAIN_HOURS, retain_bytes: int = RETAIN_BYTES) -> int:
        """Delete rows received before ``retain_hours`` ago, and the oldest beyond ``retain_bytes``; see `trim`."""
        oldest_ns = now_ns - int(retain_hours * _HOUR_NS)
        self._trim_posted(now_ns)
        return self._trim(lambda last, received_ns, excess: received_ns < oldest_ns or excess > 0, retain_bytes)

    @property
    def declared(self) -> int:
        """How often since the start a commit wrote something declared lost, refused or set aside."""
        return self._ledger.declared

    def take_refused(self) -> set[tuple[str, str]]:
        """Return and forget of which devices readings were refused since the last call."""
        with self._write_lock:
            return self._ledger.take_refused()

    def delete_quarantined(self, namespace: str, offset: int) -> None:
        """Delete one quarantined frame for good; see `Journal.delete_quarantined`."""
        with self._write_lock:
            self._check_usable()
            try:
                deleted = self._connection.execute(
                    "DELETE FROM quarantine WHERE namespace = ? AND offset = ?", (namespace, offset)
                ).rowcount
            except sqlite3.Error as error:
                raise self._failure(error) from error
            self._ledger.forget()
        if not deleted:
            raise ledger.no_quarantined(offset)

    def account(self, namespace: str, device: str | None, after: int) -> JournalAccount:
        """Return the account of a device, or of all, from one state of the file."""
        with self._readers.connection() as connection:
            return read_account(connection, namespace, device, after)

    def statistics(self) -> JournalStatistics:
        """Return the figures of now; ``bytes`` are the file's pages in use."""
        with self._readers.connection() as connection:
            size = used_bytes(connection)
        return JournalStatistics(self._first, self.head, size, self._commits, self._commit_s, self._largest_group)

    def received(self) -> tuple[int, int] | None:
        """Return when the oldest and the newest row were received, in ns; None when there is none."""
        with self._readers.connection() as connection:
            ends = [
                connection.execute(f'SELECT received_ns FROM "commit" ORDER BY first_offset {way} LIMIT 1').fetchone()  # noqa: S608
                for way in ("ASC", "DESC")
            ]
        return (ends[0][0], ends[1][0]) if ends[0] and ends[1] else None

    def close(self) -> None:
        """Write the checkpoints and close all handles; safe to call twice."""
        with self._write_lock:
            self._readers.close()
            try:
                if self._broken is None and self._are_checkpoints_changed:
                    self._write_checkpoints()
            except sqlite3.Error as error:
                # Older checkpoints keep more rows: nothing is lost.
                self._failure(error)
                self._broken = str(error)
            finally:
                self._broken = self._broken or "it is closed"
                self._connection.close()

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise self._kind(f"the journal {self._path} takes nothing more: {self._broken}; start the hub again")

    def _failure(self, error: sqlite3.Error) -> HubError:
        """Undo the transaction and return what the caller shall raise."""
        code = getattr(error, "sqlite_errorcode", None)
        self._undo()
        if is_disk_full(error):
            return DiskFullError(f"{self._path}: the disk is full; free space, devices keep their readings and retry")
        # After a failed fsync the kernel may drop the pages and report the next one as a success: stop for good.
        self._broken = str(error)
        if code in _PK_CONFLICTS:
            self._broken = "another process writes to it"
        elif is_disk_failure(error):
            self._kind = DiskFailedError
            mark_suspect(self._path)
        return self._kind(f"{self._path}: a commit failed and was undone: {self._broken}")

    def _unread(self, error: sqlite3.Error) -> JournalError:
        """Return what the caller of a read shall raise; whether the writer goes on, it finds out itself."""
        if is_disk_failure(error):
            mark_suspect(self._path)
            return DiskFailedError(f"{self._path}: the disk failed a read: {error}; start the hub again")
        return JournalError(f"cannot read {self._path}: {error}; check the directory, and how many files may be open")

    def _undo(self) -> None:
        self._ledger.forget()
        self._are_checkpoints_changed = bool(self._checkpoints)
        try:
            roll_back(self._connection)
        except sqlite3.Error as error:
            self._broken = f"a rollback failed: {error}"

    def _keep(self, frames: Sequence[Frame], staged: dict[StreamKey, mark.MarkRow], series: Sequence[Series]) -> None:
        """Take over in memory what COMMIT has made durable."""
        for offset, frame in enumerate(frames, self.head + 1):
            frame.offset = offset
        self._marks.keep(staged)
        self._ledger.keep()
        for known in series:
            self._series[SeriesKey(known.namespace, known.device, known.channel)] = known
        self.head += len(frames)
        self._commits += 1
        self._largest_group = max(self._largest_group, len(frames))

    def _write_rows(self, frames: Sequence[Frame], staged: dict[StreamKey, mark.MarkRow]) -> None:
        parts: list[bytes] = []
        size, first, received_ns = 0, self.head + 1, 0
        for frame in frames:
            part = record.encode(frame, staged[frame.key].id)
            if parts and size + len(part) > self._row_bytes:
                self._write_row(first, parts, received_ns)
                first += len(parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part)
            received_ns = frame.received_ns
        if parts:
            self._write_row(first, parts, received_ns)

    def _write_row(self, first: int, parts: list[bytes], received_ns: int) -> None:
        self._connection.execute(
            'INSERT INTO "commit" VALUES (?,?,?,?)', (first, len(parts), received_ns, b"".join(parts))
        )

    def _write_checkpoints(self) -> None:
        if self._are_checkpoints_changed:
            flat = [value for item in self._checkpoints.items() for value in item]
            insert_rows(self._connection, "REPLACE INTO checkpoint", 2, flat)
            self._are_checkpoints_changed = False

    def _ends(self) -> tuple[int, int]:
        """Return the newest and the oldest offset of the file; (0, 1) when it is empty."""
        newest = self._connection.execute(
            'SELECT first_offset + n - 1 FROM "commit" ORDER BY first_offset DESC LIMIT 1'
        ).fetchone()
        oldest = self._connection.execute('SELECT min(first_offset) FROM "commit"').fetchone()[0]
        return (newest[0] if newest else 0), oldest or 1

    def _start_run(self, random_bytes: Callable[[int], bytes]) -> Run:
        try:
            known = {row[0] for row in self._connection.execute("SELECT id FROM run")}
            run = Run(random_bytes(4).hex(), self.head + 1)
            while run.id in known:
                run = Run(random_bytes(4).hex(), self.head + 1)
            self._connection.execute("INSERT INTO run(id, first_offset) VALUES (?,?)", (run.id, run.first_offset))
        except sqlite3.Error as error:
            self._connection.close()
            if is_disk_failure(error):
                mark_suspect(self._path)
            raise JournalError(f"cannot write to {self._path}: {error}; check the disk and the owner") from error
        return run

    def _trim(self, is_expired: _IsExpired, retain_bytes: int | None) -> int:
        while self._trim_slice(is_expired, retain_bytes):
            # A lock is not fair: without a pause the next slice would take it again before a waiting append.
            time.sleep(_TRIM_PAUSE_S)
        while self._give_back_pages():
            time.sleep(_TRIM_PAUSE_S)
        return self._first

    def _trim_slice(self, is_expired: _IsExpired, retain_bytes: int | None) -> bool:
        """Delete the oldest expired rows in one transaction; return whether there may be more."""
        with self._write_lock:
            self._check_usable()
            floor = min(self._checkpoints.values(), default=self.head)
            excess = used_bytes(self._connection) - retain_bytes if retain_bytes is not None else 0
            rows = self._connection.execute(
                'SELECT first_offset, n, received_ns, length(body) FROM "commit" ORDER BY first_offset LIMIT ?',
                (_TRIM_ROWS + 1,),
            ).fetchall()
            freed, keep_from = 0, None
            # The last row read stays for this slice: it may be the newest, without which offsets would restart.
            for (first, n, received_ns, size), following in pairwise(rows):
                last = first + n - 1
                if last > floor or not is_expired(last, received_ns, excess - freed) or freed > _TRIM_BYTES:
                    break
                freed += size
                keep_from = following[0]
            if keep_from is None:
                return False
            self._delete_rows(keep_from)
            return True

    def _trim_posted(self, now_ns: int) -> None:
        """Forget old requests that named themselves; each slice is a transaction of its own."""
        is_more = True
        while is_more:
            with self._write_lock:
                self._check_usable()
                try:
                    is_more = trim_posted(self._connection, now_ns) > 0
                except sqlite3.Error as error:
                    raise self._failure(error) from error

    def _delete_rows(self, keep_from: int) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute('DELETE FROM "commit" WHERE first_offset < ?', (keep_from,))
            self._ledger.cap_gaps()
            self._write_checkpoints()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from error
        self._first = keep_from

    def _give_back_pages(self) -> bool:
        """Shrink the file by one slice when much of it is free; return whether there is more."""
        with self._write_lock:
            self._check_usable()
            free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
            if free < _VACUUM_PAGES or free < pages * _FREE_SHARE:
                return False
            try:
                # `execute` would free one page only: it steps once, and each step frees one.
                self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
            except sqlite3.Error as error:
                raise self._failure(error) from error
            return True
