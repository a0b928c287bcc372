"""Commands on disk: ``DATA/commands.sqlite3``: orders, what became of them at each device, what devices declared.

Owns: the file. Place: after `database` and `command`, inside `commands`. Must not: decide anything. Every call is one
transaction, durable when it returns, and blocks: call it in a thread. Safe from any thread.
"""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.command import OPEN, Order, Outcome, Result, State, Told
from hub.database import FULL, insert_rows, open_database, transaction, used_bytes, wipe
from hub.errors import UnavailableError

# Finished orders are kept for a week: long enough to ask on Monday what Friday's command did.
KEPT_NS = 7 * 86400 * 10**9
# Above this the oldest finished orders go sooner: replies of 32 KiB from 10,000 devices are 320 MB.
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_ORDERS = 100_000
# Orders that one trim takes: some milliseconds each when they went to thousands of devices.
_TRIM_ORDERS = 20
# Values in one answer: what one request may hold in RAM; 10,000 devices that say a kilobyte each fit.
MAX_VALUES_CHARS = 16 * 1024 * 1024
# Orders that are looked through for those of one device: some 10 ms, and hours of a busy hub.
LOOKED_THROUGH = 2000
# Names in one statement: SQLite takes 32,766.
_NAMES_AT_ONCE = 1000
LEFT_OUT = "its value is left out, this answer is too large: command fewer devices at a time"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command(
    number INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
    args TEXT NOT NULL, selector TEXT NOT NULL, who TEXT NOT NULL, made_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL, is_queued INTEGER NOT NULL, UNIQUE(namespace, id));
CREATE TABLE IF NOT EXISTS target(
    command INTEGER NOT NULL, place INTEGER NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, value TEXT,
    error TEXT NOT NULL, sent_ns INTEGER, ended_ns INTEGER, PRIMARY KEY(command, device)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON target(command) WHERE state IN ('queued', 'sent');
CREATE TABLE IF NOT EXISTS declared(
    namespace TEXT NOT NULL, device TEXT NOT NULL, commands TEXT NOT NULL,
    PRIMARY KEY(namespace, device)) WITHOUT ROWID
"""
_DECLARED = "SELECT namespace, device, commands FROM declared"
_ORDER = "number, namespace, id, name, args, selector, who, made_ns, expires_ns, is_queued"
# A final state stays, but for an answer that came late: it says more than a time-out, or a cancelling, could.
_RECORD = """
UPDATE target SET state = ?1, value = ?2, error = ?3, ended_ns = ?4
WHERE command = (SELECT number FROM command WHERE namespace = ?5 AND id = ?6) AND device = ?7
AND (state IN ('queued', 'sent') OR (state IN ('timed_out', 'cancelled') AND sent_ns IS NOT NULL AND ?8))
"""
_SENT = """
UPDATE target SET state = 'sent', sent_ns = ?1
WHERE command = (SELECT number FROM command WHERE namespace = ?2 AND id = ?3) AND device = ?4 AND state = 'queued'
"""


class CommandFileError(UnavailableError):
    """The file cannot be opened, read or written."""

    reason = "commands"


@dataclass(frozen=True, slots=True)
class Summary:
    """An order and how many devices are in which state; ``is_whole``: no device was left out."""

    order: Order
    number: int
    states: Mapping[State, int]
    is_whole: bool


class CommandFile:
    """The file; made when absent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database = open_database(path, _SCHEMA, SCHEMA_VERSION, synchronous=FULL, error=CommandFileError)

    def add(self, order: Order, results: Sequence[Result]) -> None:
        """Keep an order with what is known of each device."""
        with self._writing() as database:
            values = (
                order.namespace, order.id, order.name, json.dumps(order.args), order.selector, order.who,
                order.made_ns, order.expires_ns, order.is_queued,
            )  # fmt: skip
            columns = _ORDER.removeprefix("number, ")
            insert = f"INSERT INTO command({columns}) VALUES (?,?,?,?,?,?,?,?,?)"  # noqa: S608
            number = database.execute(insert, values).lastrowid
            flat: list[object] = []
            for place, r in enumerate(results):
                flat += (number, place, r.device, r.state, r.value, r.error, r.sent_ns, r.ended_ns)
            insert_rows(database, "INSERT INTO target", 8, flat)

    def record(self, outcomes: Sequence[Outcome], declared: Mapping[tuple[str, str], str]) -> None:
        """Keep what came, in order; an outcome of what is not there, or is final, changes nothing."""
        with self._writing() as database:
            for o in outcomes:
                if o.state is State.SENT:
                    database.execute(_SENT, (o.at_ns, *o.key, o.device))
                else:
                    is_answer = o.state in (State.DONE, State.FAILED, State.EXPIRED)
                    database.execute(_RECORD, (o.state, o.value, o.error, o.at_ns, *o.key, o.device, is_answer))
            database.executemany(
                "INSERT OR REPLACE INTO declared VALUES (?, ?, ?)",
                [(namespace, device, text) for (namespace, device), text in declared.items()],
            )

    def find(self, namespace: str, id: str) -> Told | None:
        """Return an order with its results."""
        with self._reading() as database:
            query = f"SELECT {_ORDER} FROM command WHERE namespace = ? AND id = ?"  # noqa: S608
            row = database.execute(query, (namespace, id)).fetchone()
            return None if row is None else self._told(row)

    def newest(self, namespace: str, limit: int, below: int | None, is_seen: Callable[[str], bool]) -> list[Summary]:
        """Return orders, newest first; ``below``: only those with a smaller number; counted: devices ``is_seen``."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {_ORDER} FROM command WHERE namespace = ? AND number < ? ORDER BY number DESC LIMIT ?",  # noqa: S608
                (namespace, 2**62 if below is None else below, limit),
            ).fetchall()
            return [_summary(row, self._database, is_seen) for row in rows]

    def of_device(
        self, namespace: str, device: str, limit: int, *, looked_through: int = LOOKED_THROUGH
    ) -> list[tuple[Order, Result]]:
        """Return the newest orders to one device, newest first, among the last ``looked_through`` of the namespace."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {_ORDER}, state, value, error, sent_ns, ended_ns FROM "  # noqa: S608
                f"(SELECT {_ORDER} FROM command WHERE namespace = ? ORDER BY number DESC LIMIT ?) "
                "JOIN target ON command = number AND device = ? ORDER BY number DESC LIMIT ?",
                (namespace, looked_through, device, limit),
            ).fetchall()
        at = len(_ORDER.split(","))
        return [(_order(row[:at]), Result(device, State(row[at]), *row[at + 1 :])) for row in rows]

    def waiting(self) -> list[Told]:
        """Return the orders that some devices have not answered, oldest first, with those devices only."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {_ORDER} FROM command WHERE number IN "  # noqa: S608
                "(SELECT command FROM target WHERE state IN ('queued', 'sent')) ORDER BY number"
            ).fetchall()
            told = [self._told(row) for row in rows]
        for one in told:
            one.results[:] = [result for result in one.results if result.state in OPEN]
        return told

    def declared(self) -> dict[tuple[str, str], str]:
        """Return what all devices declared, as JSON text, by namespace and device."""
        with self._reading() as database:
            return dict(_shared(database.execute(_DECLARED), {}))

    def declared_by(self, namespace: str, devices: Sequence[str]) -> dict[tuple[str, str], str]:
        """Return what these devices declared: a command to one of a large fleet looks at that one."""
        found: dict[tuple[str, str], str] = {}
        texts: dict[str, str] = {}
        with self._reading() as database:
            for at in range(0, len(devices), _NAMES_AT_ONCE):
                names = devices[at : at + _NAMES_AT_ONCE]
                which = f"namespace = ? AND device IN ({','.join('?' * len(names))})"
                rows = database.execute(f"{_DECLARED} WHERE {which}", (namespace, *names))
                found.update(_shared(rows, texts))
        return found

    def trim(self, now_ns: int) -> bool:
        """Forget some finished orders that are too old or too many; return whether more may follow."""
        with self._writing() as database:
            is_full = used_bytes(database) > MAX_FILE_BYTES
            (count,) = database.execute("SELECT count(*) FROM command").fetchone()
            before_ns = 2**62 if is_full or count > MAX_ORDERS else now_ns - KEPT_NS
            numbers = database.execute(
                "SELECT number FROM command WHERE expires_ns < ? AND number NOT IN "
                "(SELECT command FROM target WHERE state IN ('queued', 'sent')) ORDER BY number LIMIT ?",
                (before_ns, _TRIM_ORDERS),
            ).fetchall()
            database.executemany("DELETE FROM target WHERE command = ?", numbers)
            database.executemany("DELETE FROM command WHERE number = ?", numbers)
        return len(numbers) == _TRIM_ORDERS

    def erase(self, namespace: str, device: str) -> int:
        """Forget what was ordered of a device and what it answered and declared; return of how many orders.

        An order to others stays, without this device. What the file no longer holds is no longer in its bytes.
        """
        with self._writing() as database:
            numbers = database.execute(
                """SELECT t.command FROM target t JOIN command c ON c.number = t.command
                WHERE c.namespace = ? AND t.device = ?""",
                (namespace, device),
            ).fetchall()
            database.executemany("DELETE FROM target WHERE command = ? AND device = ?", [(*n, device) for n in numbers])
            database.executemany(
                "DELETE FROM command WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM target WHERE command = ?1)",
                numbers,
            )
            database.execute("DELETE FROM declared WHERE namespace = ? AND device = ?", (namespace, device))
        with self._reading() as database:
            wipe(database)
        return len(numbers)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    def _told(self, row: tuple[Any, ...]) -> Told:
        found = self._database.execute(
            "SELECT device, state, value, error, sent_ns, ended_ns FROM target WHERE command = ? ORDER BY place",
            (row[0],),
        )
        results, size = [], 0
        for device, state, value, error, sent_ns, ended_ns in found:
            size += len(value or "")
            if size > MAX_VALUES_CHARS:
                value, error = None, LEFT_OUT
            results.append(Result(device, State(state), value, error, sent_ns, ended_ns))
        return Told(_order(row), results, int(row[0]))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise CommandFileError(f"{self._path}: {error}; try again") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database, transaction(database, self._path):
            yield database


def _order(row: tuple[Any, ...]) -> Order:
    _, namespace, id_, name, args, selector, who, made_ns, expires_ns, is_queued = row
    size = len(args.encode())
    return Order(namespace, id_, name, json.loads(args), selector, who, made_ns, expires_ns, bool(is_queued), size)


def _summary(row: tuple[Any, ...], database: sqlite3.Connection, is_seen: Callable[[str], bool]) -> Summary:
    states: Counter[State] = Counter()
    is_whole = True
    for device, state in database.execute("SELECT device, state FROM target WHERE command = ?", (row[0],)):
        if is_seen(device):
            states[State(state)] += 1
        else:
            is_whole = False
    return Summary(_order(row), int(row[0]), states, is_whole)


def _shared(rows: Iterable[tuple[str, str, str]], texts: dict[str, str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield places with their declarations, equal ones as one object: a fleet's take the memory of a few kinds'."""
    for namespace, device, text in rows:
        yield (namespace, device), texts.setdefault(text, text)
