"""The log of changes: who did what, when, from where, and how it ended.

Owns: ``DATA/changes.sqlite3`` (mode 0600), rows that are added and never altered, and what is cut at its end. Place:
above `database`, below the gateway, which records each request that changes something; the command line records what
it does to a data folder. Must not: hold a secret (`redacted`), decide who may read. Not to be mistaken for the
ledgers of delivery (`hub.audit`).

Refusals are written by strangers, as many as they like, and takeovers by devices that fight: they are counted by who,
what and from where, and written each `FLUSH_EVERY_S` as one row with a count.

The log is also an outbox: `hub.system_feed` brings each entry to the journal as a reading. So entries of a namespace
are numbered without a gap, no two of them have the same time, and the file has a name, the stream they go on: a log
that begins anew is another stream.
"""

import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hub.database import FULL, open_database, transaction
from hub.errors import UnavailableError
from hub.roles import DEFAULT_NAMESPACE
from hub.system_entry import SystemEntry, as_value

CHANGES = "changes.sqlite3"
# A year answers "who did that last winter"; 200,000 rows of a namespace are about 40 MB.
KEEP_NS = 365 * 86400 * 10**9
MAX_ENTRIES = 200_000
FLUSH_EVERY_S = 10.0
# Different refusals in one interval, of strangers and of who has shown a credential each; what comes beyond is counted
# together. Else a stranger with many addresses could hide an alarm.
MAX_REFUSALS = 1000
# Of each text of a row.
MAX_TEXT = 200
BUSY_TIMEOUT_S = 5.0
_SECRET = re.compile(r"(\b[a-z]{1,2}[0-9a-f]{12})\.[A-Za-z0-9_-]{8,}")
_VERSION = 2
_STAYS = """
CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'rows of the log are never altered'); END;
"""
_OUTBOX = """
CREATE UNIQUE INDEX entry_by_number ON entry (namespace, number);
CREATE INDEX entry_by_time ON entry (namespace, time_ns);
CREATE TABLE name (name TEXT NOT NULL);
INSERT INTO name VALUES (lower(hex(randomblob(8))));
"""
_SCHEMA = f"""
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, namespace TEXT NOT NULL, who TEXT NOT NULL,
    role TEXT NOT NULL, credential TEXT NOT NULL, peer TEXT NOT NULL, what TEXT NOT NULL, target TEXT NOT NULL,
    outcome TEXT NOT NULL, count INTEGER NOT NULL, number INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX entry_by_namespace ON entry (namespace, id);
{_STAYS}
CREATE TABLE cut (namespace TEXT PRIMARY KEY, count INTEGER NOT NULL, until_ns INTEGER NOT NULL) WITHOUT ROWID;
{_OUTBOX}
"""
# Schema 2 has what an outbox needs; entries of schema 1 are numbered in the order in which they were written.
_UPGRADE_1 = f"""
DROP TRIGGER entry_stays;
ALTER TABLE entry ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE entry SET number = place.number FROM (
    SELECT id, row_number() OVER (PARTITION BY namespace ORDER BY id)
        + coalesce((SELECT count FROM cut WHERE cut.namespace = entry.namespace), 0) AS number FROM entry
) AS place WHERE place.id = entry.id;
{_STAYS}
{_OUTBOX}
"""  # noqa: S608 - nothing of it comes from outside
_COLUMNS = "what, target, outcome, who, role, credential, peer, namespace, count, time_ns, id"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row; ``id`` is 0 before it is written.

    ``who`` is a user's or a token's name, ``credential`` the id of the token or session, ``peer`` an address,
    ``target`` what it was done to, ``outcome`` is ``ok`` or the reason word of the error.
    """

    what: str
    target: str = ""
    outcome: str = "ok"
    who: str = ""
    role: str = ""
    credential: str = ""
    peer: str = ""
    namespace: str = DEFAULT_NAMESPACE
    count: int = 1
    time_ns: int = 0
    id: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """What is not in the log any more: how many rows, the last of them of when."""

    count: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: each of these texts that is given must be contained; ids lie between the two, both outside."""

    who: str = ""
    what: str = ""
    target: str = ""
    since_ns: int = 0
    before: int = 0
    after: int = 0


def redacted(text: str) -> str:
    """Return text as it may stand in a log: `MAX_TEXT` characters, no control ones, secrets of tokens left out."""
    safe = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: 4 * MAX_TEXT])
    return _SECRET.sub(r"\1.…", safe)[:MAX_TEXT]


class ChangeLog:
    """The file. A row is durable when `record` returns. Safe from any thread, and beside other processes.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        clock: wall time in ns.
        max_entries: of each namespace.

    Methods raise `UnavailableError` when the file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns, max_entries: int = MAX_ENTRIES) -> None:
        self._path = path
        self._clock = clock
        self._max_entries = max_entries
        self._lock = threading.RLock()
        self._refusals: Counter[Entry] = Counter()
        # Of `_refusals`, how many say who, and how many do not.
        self._kinds: Counter[bool] = Counter()
        # Never held over the disk: refusals are counted on the event loop, for whoever sends nonsense.
        self._counting = threading.Lock()
        self._listeners: list[Callable[[Entry], None]] = []
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = open_database(
            path, _SCHEMA, _VERSION, synchronous=FULL, error=UnavailableError, busy_timeout_s=BUSY_TIMEOUT_S,
            upgrades={1: _UPGRADE_1},
        )  # fmt: skip

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Call it with each entry that this process writes, once it is durable, in the thread that wrote it."""
        self._listeners.append(listener)

    def record(self, entry: Entry) -> Entry:
        """Write one row; return it with time and id."""
        return self._write([entry])[0]

    def refused(self, entry: Entry) -> None:
        """Count a refusal, or what else a peer does as often as it likes; `flush` writes it. Costs no disk."""
        self._count(_clean(entry), 1)

    def flush(self) -> None:
        """Write the refusals counted since the last call, and cut what is too old or too much."""
        with self._counting:
            refusals, self._refusals, self._kinds = self._refusals, Counter(), Counter()
        with self._lock:
            try:
                if refusals:
                    self._write([replace(entry, count=count) for entry, count in refusals.items()])
            except UnavailableError:
                for entry, count in refusals.items():
                    self._count(entry, count)
                raise
            self._cut()

    def entries(self, namespace: str, limit: int, wanted: Filter | None = None) -> list[Entry]:
        """Return entries of a namespace, newest first."""
        wanted = wanted or Filter()
        query = (
            f"SELECT {_COLUMNS} FROM entry "  # noqa: S608 - columns named above
            "WHERE namespace = ? AND id > ? AND (? = 0 OR id < ?) AND time_ns >= ? "
            "AND (instr(who, ?) OR instr(credential, ?)) AND instr(what, ?) AND instr(target, ?) "
            "ORDER BY id DESC LIMIT ?"
        )
        given = (
            namespace, wanted.after, wanted.before, wanted.before, wanted.since_ns, wanted.who, wanted.who, wanted.what,
            wanted.target, limit,
        )  # fmt: skip
        with self._lock, self._translated():
            return [Entry(*row) for row in self._database.execute(query, given)]

    def cut(self, namespace: str) -> Cut | None:
        """Return what was cut from a namespace's log, None when it is whole."""
        query = "SELECT count, until_ns FROM cut WHERE namespace = ?"
        with self._lock, self._translated():
            row = self._database.execute(query, (namespace,)).fetchone()
        return None if row is None else Cut(*row)

    # --- as an outbox -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of this log, 16 hex digits: that of the stream on which its entries go."""
        with self._lock, self._translated():
            return str(self._database.execute("SELECT name FROM name").fetchone()[0])

    def rename(self) -> None:
        """Begin a new stream: what is at its end is not what this file holds."""
        with self._changing() as database:
            database.execute("UPDATE name SET name = lower(hex(randomblob(8)))")

    def newest(self, after: int) -> tuple[dict[str, int], int]:
        """Return namespace → the number of its newest entry, of those with entries behind the id; and the last id."""
        # By id: asked twice a second, while the index by number would be read from end to end.
        query = "SELECT namespace, max(number), max(id) FROM entry NOT INDEXED WHERE id > ? GROUP BY namespace"
        with self._lock, self._translated():
            rows = self._database.execute(query, (after,)).fetchall()
        return {namespace: number for namespace, number, _ in rows}, max((row[2] for row in rows), default=after)

    def numbered(self, namespace: str, after: int, limit: int) -> list[SystemEntry]:
        """Return the next entries of a namespace behind a number, as readings, oldest first."""
        query = f"SELECT number, {_COLUMNS} FROM entry WHERE namespace = ? AND number > ? ORDER BY number LIMIT ?"  # noqa: S608
        with self._lock, self._translated():
            rows = self._database.execute(query, (namespace, after, limit)).fetchall()
        entries = [(number, Entry(*row)) for number, *row in rows]
        return [SystemEntry(number, entry.time_ns, as_text(entry)) for number, entry in entries]

    def close(self) -> None:
        """Write what is counted and close the file; safe to call twice."""
        with self._lock:
            try:
                if self._refusals:
                    self.flush()
            finally:
                self._database.close()

    def _count(self, entry: Entry, count: int) -> None:
        with self._counting:
            if entry not in self._refusals:
                is_known = bool(entry.who)
                if self._kinds[is_known] < MAX_REFUSALS:
                    self._kinds[is_known] += 1
                else:
                    entry = Entry("refusals of many kinds", outcome=entry.outcome, namespace=entry.namespace)
            self._refusals[entry] += count

    def _write(self, entries: list[Entry]) -> list[Entry]:
        written = []
        with self._changing() as database:
            for entry in entries:
                entry = replace(_clean(entry), time_ns=_free_time(database, entry.namespace, self._clock()))
                row = (
                    entry.time_ns, entry.namespace, entry.who, entry.role, entry.credential, entry.peer, entry.what,
                    entry.target, entry.outcome, entry.count, _next_number(database, entry.namespace),
                )  # fmt: skip
                query = "INSERT INTO entry VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                id_ = database.execute(query, row).lastrowid
                written.append(replace(entry, id=id_ or 0))
        for entry in written:
            for listener in self._listeners:
                listener(entry)
        return written

    def _cut(self) -> None:
        oldest_ns = self._clock() - KEEP_NS
        with self._lock, self._translated():
            spaces = [row[0] for row in self._database.execute("SELECT DISTINCT namespace FROM entry")]
            for namespace in spaces:
                surplus = "SELECT id FROM entry WHERE namespace = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
                row = self._database.execute(surplus, (namespace, self._max_entries)).fetchone()
                last = 0 if row is None else row[0]
                newest = "SELECT max(id), max(time_ns) FROM entry WHERE namespace = ?"
                newest_id, latest_ns = self._database.execute(newest, (namespace,)).fetchone()
                # The newest says which number is the next. Written before the clock was set, it is the oldest by its
                # time; it goes with a later cut, or when all are too old.
                until = newest_id if latest_ns >= oldest_ns else newest_id + 1
                where = "FROM entry WHERE namespace = ? AND (id <= ? OR (time_ns < ? AND id < ?))"
                query = f"SELECT count(*), max(time_ns) {where}"
                count, until_ns = self._database.execute(query, (namespace, last, oldest_ns, until)).fetchone()
                if not count:
                    continue
                with self._changing() as database:
                    database.execute(f"DELETE {where}", (namespace, last, oldest_ns, until))
                    database.execute(
                        "INSERT INTO cut VALUES (?, ?, ?) ON CONFLICT (namespace) DO UPDATE SET "
                        "count = count + excluded.count, until_ns = excluded.until_ns",
                        (namespace, count, until_ns),
                    )

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated(), transaction(self._database, self._path):
            yield self._database

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"log in {self._path}: {error}; check the disk, owner and free space") from error


def _clean(entry: Entry) -> Entry:
    return replace(
        entry, what=redacted(entry.what), target=redacted(entry.target), who=redacted(entry.who),
        peer=redacted(entry.peer), credential=redacted(entry.credential),
    )  # fmt: skip


def _free_time(database: sqlite3.Connection, namespace: str, time_ns: int) -> int:
    """Return the time, or the next ns at which the namespace has no entry: as readings they would be one."""
    query = "SELECT 1 FROM entry WHERE namespace = ? AND time_ns = ?"
    while database.execute(query, (namespace, time_ns)).fetchone():
        time_ns += 1
    return time_ns


def _next_number(database: sqlite3.Connection, namespace: str) -> int:
    # Of a log that was cut to nothing, only the count of what was cut says how many there were.
    query = (
        "SELECT 1 + coalesce((SELECT max(number) FROM entry WHERE namespace = ?1), "
        "(SELECT count FROM cut WHERE namespace = ?1), 0)"
    )
    return int(database.execute(query, (namespace,)).fetchone()[0])


def as_text(entry: Entry) -> str:
    """Return an entry as the value of a reading: compact JSON within `MAX_STRING_BYTES`; long texts end with "…"."""
    told = {name: getattr(entry, name) for name in ("who", "role", "what", "target", "outcome", "peer", "count")}
    return as_value(told)
