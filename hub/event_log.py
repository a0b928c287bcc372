"""What the hub notices of its devices, until the journal has it: ``DATA/events.sqlite3``, an outbox of a few channels.

Owns: the file (mode 0600): entries, numbered from 1 in each channel and namespace; and notes, what who writes a channel
must know of what it wrote. Place: above `database`; `hub.presence` and `hub.losses` write, `hub.system_feed` reads.
Must not: know what the texts mean, or be written by two processes.

Entries and notes of one `write` are one transaction. So who writes a state, or a sum, or a place up to which it has
looked, as a note beside the entries that say so, says each thing once, wherever it is killed.

Entries stay after the journal has them, for a journal that is restored from a backup; what is cut before the journal
had it is declared by the feed as a gap with its count.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hub.database import FULL, open_database, transaction
from hub.errors import UnavailableError
from hub.system_entry import SystemEntry

_log = logging.getLogger("hub.event_log")

EVENTS = "events.sqlite3"
# As old as a backup may be whose journal gets again all that it lacks.
KEEP_NS = 30 * 86400 * 10**9
# Of a channel and namespace, about 30 MB: ten days of a fleet of 10,000 whose devices come and go once a day.
MAX_ENTRIES = 200_000
_SCHEMA = """
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, namespace TEXT NOT NULL, number INTEGER NOT NULL,
    time_ns INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE UNIQUE INDEX entry_by_number ON entry (channel, namespace, number);
CREATE INDEX entry_by_time ON entry (channel, namespace, time_ns);
CREATE TABLE last (
    channel TEXT NOT NULL, namespace TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (channel, namespace)
) WITHOUT ROWID;
CREATE TABLE name (channel TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE note (
    channel TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (channel, namespace, name)
) WITHOUT ROWID;
"""
_VERSION = 1
_DAMAGED = "-damaged"


class Event(NamedTuple):
    """Something to tell: of which namespace, when it was, and what it says (`as_value`)."""

    namespace: str
    time_ns: int
    text: str


class Note(NamedTuple):
    """What who writes a channel must know later; no value: not any more."""

    namespace: str
    name: str
    value: int | None


class EventLog:
    """The file. What is written is durable when `write` returns. Safe from any thread.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        clock: time in ns by which data is deleted (`hub.steady_clock`); says what is too old.
        max_entries: of each channel and namespace.

    Methods raise `UnavailableError` when the file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns, max_entries: int = MAX_ENTRIES) -> None:
        self._path = path
        self._clock = clock
        self._max_entries = max_entries
        self._lock = threading.RLock()
        self._listeners: dict[str, Callable[[], object]] = {}
        self._database = open_database(path, _SCHEMA, _VERSION, synchronous=FULL, error=UnavailableError)

    def listen(self, channel: str, listener: Callable[[], object]) -> None:
        """Call it when entries of the channel are durable, in the thread that wrote them."""
        self._listeners[channel] = listener

    def write(self, channel: str, events: Sequence[Event], notes: Sequence[Note] = ()) -> None:
        """Write entries and notes of a channel in one transaction.

        No two entries of a channel and namespace have the same time, as readings they would be one: the next free ns.
        """
        with self._changing() as database:
            self._write_events(database, channel, events)
            for namespace, name, value in notes:
                if value is None:
                    query = "DELETE FROM note WHERE channel = ? AND namespace = ? AND name = ?"
                    database.execute(query, (channel, namespace, name))
                else:
                    database.execute("REPLACE INTO note VALUES (?, ?, ?, ?)", (channel, namespace, name, value))
        listener = self._listeners.get(channel)
        if events and listener is not None:
            listener()

    def notes(self, channel: str) -> dict[tuple[str, str], int]:
        """Return (namespace, name) → value of all notes of a channel."""
        query = "SELECT namespace, name, value FROM note WHERE channel = ?"
        with self._lock, self._translated():
            return {(row[0], row[1]): row[2] for row in self._database.execute(query, (channel,))}

    def note(self, channel: str, namespace: str, name: str) -> int:
        """Return the value of a note, 0 when there is none."""
        query = "SELECT value FROM note WHERE channel = ? AND namespace = ? AND name = ?"
        with self._lock, self._translated():
            row = self._database.execute(query, (channel, namespace, name)).fetchone()
        return 0 if row is None else int(row[0])

    def cut(self) -> None:
        """Delete entries that are too old, or too many: the first of each channel and namespace, never its newest.

        The newest says where the numbers are. Without it the feed, which has told more, takes the file for one that was
        put back, and tells all of it again.
        """
        oldest_ns = self._clock() - KEEP_NS
        with self._changing() as database:
            for channel, namespace, last in database.execute("SELECT * FROM last").fetchall():
                # Up to the first that is young enough: times are those of devices too, and no reason for holes. With
                # the `+` they are looked at in the order of numbers, where that is nearly always the first one.
                young = (
                    "SELECT number FROM entry WHERE channel = ? AND namespace = ? AND +time_ns >= ? "
                    "ORDER BY number LIMIT 1"
                )
                (first,) = database.execute(young, (channel, namespace, oldest_ns)).fetchone() or (last,)
                query = "DELETE FROM entry WHERE channel = ? AND namespace = ? AND number <= ?"
                database.execute(query, (channel, namespace, max(last - self._max_entries, first - 1)))

    def check(self) -> None:
        """Read what who writes here begins with; entries that are damaged keep nobody but their feed."""
        with self._lock, self._translated():
            for table in ("note", "last", "name"):
                self._database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - named above

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    # --- as an outbox; see `EventSource` ----------------------------------------------------------------

    def name(self, channel: str) -> str:
        """Return the name of the stream on which the channel's entries go, 16 hex digits."""
        with self._changing() as database:
            database.execute("INSERT OR IGNORE INTO name VALUES (?, lower(hex(randomblob(8))))", (channel,))
            return str(database.execute("SELECT name FROM name WHERE channel = ?", (channel,)).fetchone()[0])

    def rename(self, channel: str) -> None:
        """Begin a new stream."""
        with self._changing() as database:
            database.execute("REPLACE INTO name VALUES (?, lower(hex(randomblob(8))))", (channel,))

    def newest(self, channel: str, after: int) -> tuple[dict[str, int], int]:
        """Return namespace → the number of its newest entry, of those with entries behind the id; and the last id.

        Of all channels: who tells one of which little is said must not look at all others' entries each time.
        """
        query = "SELECT namespace, max(number) FROM entry NOT INDEXED WHERE id > ? AND channel = ? GROUP BY namespace"
        with self._lock, self._translated():
            (last,) = self._database.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()
            return dict(self._database.execute(query, (after, channel))), max(last, after)

    def numbered(self, channel: str, namespace: str, after: int, limit: int) -> list[SystemEntry]:
        """Return the next entries behind a number, in order."""
        query = (
            "SELECT number, time_ns, text FROM entry WHERE channel = ? AND namespace = ? AND number > ? "
            "ORDER BY number LIMIT ?"
        )
        with self._lock, self._translated():
            return [SystemEntry(*row) for row in self._database.execute(query, (channel, namespace, after, limit))]

    # --- inside -----------------------------------------------------------------------------------------

    def _write_events(self, database: sqlite3.Connection, channel: str, events: Sequence[Event]) -> None:
        numbers: dict[str, int] = {}
        # Where the last look for a free ns ended: thousands of the same time must not each begin at its beginning.
        given: dict[tuple[str, int], int] = {}
        for namespace, time_ns, text in events:
            if namespace not in numbers:
                query = "SELECT number FROM last WHERE channel = ? AND namespace = ?"
                row = database.execute(query, (channel, namespace)).fetchone()
                numbers[namespace] = 0 if row is None else row[0]
            numbers[namespace] += 1
            free_ns = _free_time(database, channel, namespace, given.get((namespace, time_ns), time_ns - 1) + 1)
            given[(namespace, time_ns)] = free_ns
            database.execute(
                "INSERT INTO entry VALUES (NULL, ?, ?, ?, ?, ?)",
                (channel, namespace, numbers[namespace], free_ns, text),
            )
        for namespace, number in numbers.items():
            database.execute("REPLACE INTO last VALUES (?, ?, ?)", (channel, namespace, number))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated(), transaction(self._database, self._path):
            yield self._database

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"events in {self._path}: {error}; check the disk, owner and free space") from error


def open_events(path: Path, clock: Callable[[], int]) -> EventLog:
    """Open the file. One that is damaged is put aside under another name: it is no reason to take no readings.

    Raises:
        UnavailableError: it cannot be opened for another reason.
    """
    try:
        return _readable(path, clock)
    except UnavailableError as error:
        code = getattr(error.__cause__, "sqlite_errorcode", None) or 0
        if code & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        _log.error("events put aside as %s%s, which begins anew reason=%s", path, _DAMAGED, error)
    # The log first: it must not be taken for one of the new file.
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(path.with_name(path.name + _DAMAGED + suffix))
    return EventLog(path, clock=clock)


def _readable(path: Path, clock: Callable[[], int]) -> EventLog:
    log = EventLog(path, clock=clock)
    try:
        log.check()
    except UnavailableError:
        log.close()
        raise
    return log


class EventSource:
    """One channel of the file, as `hub.system_feed` takes it."""

    def __init__(self, log: EventLog, channel: str) -> None:
        self._log = log
        self._channel = channel
        self._name: str | None = None

    @property
    def name(self) -> str:
        """16 hex digits, of this channel of this file alone."""
        # Kept: the feed asks each time, and the first look at a new file writes.
        if self._name is None:
            self._name = self._log.name(self._channel)
        return self._name

    def rename(self) -> None:
        """Take another name, at random."""
        self._log.rename(self._channel)
        self._name = None

    def newest(self, after: int) -> tuple[dict[str, int], int]:
        """Return the newest number of each namespace with entries behind a position; and the position now."""
        return self._log.newest(self._channel, after)

    def numbered(self, namespace: str, after: int, limit: int) -> list[SystemEntry]:
        """Return the entries behind a number, in order."""
        return self._log.numbered(self._channel, namespace, after, limit)


def _free_time(database: sqlite3.Connection, channel: str, namespace: str, time_ns: int) -> int:
    """Return the first ns from ``time_ns`` on at which there is no entry."""
    query = "SELECT count(*) FROM entry WHERE channel = ? AND namespace = ? AND time_ns BETWEEN ? AND ?"
    # In growing steps: a device whose clock stands still would make each entry pass over all before it.
    step = 1
    while step:
        (taken,) = database.execute(query, (channel, namespace, time_ns, time_ns + step - 1)).fetchone()
        if taken >= step:
            time_ns, step = time_ns + step, step * 2
        else:
            step //= 2
    return time_ns
