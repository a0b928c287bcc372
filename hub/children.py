"""The devices behind gateways: which a gateway may speak for, which wait for a person, which are shut out.

Owns: ``DATA/children.sqlite3`` (mode 0600), and when what is in RAM (`child_book`) gets there. Place: above `auth` and
`database`; every way in asks here (`hub.child_sessions` for WebSocket). Must not: know a connection.

Children come on the event loop, as often as they like, so `admit` reads and notes in RAM alone; `keep` writes the notes
each half second. They may be lost in a crash: a child that was noted comes again. What a person decides is durable when
the call returns. Another process may edit the file (``hub children accept --data DIR``): `keep` notices.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hub.child_book import MAX_QUOTA, QUOTA, Asked, Child, ChildBook, ChildState, Gateway, Refusal, Rules
from hub.database import FULL, open_database, transaction
from hub.device_names import check_names
from hub.device_tokens import check_enrolled_name
from hub.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from hub.roles import DEFAULT_NAMESPACE

CHILDREN = "children.sqlite3"
# Of one gateway. Ignoring is a person's act; whoever has so many to ignore should give a narrower prefix.
MAX_IGNORED = 1000
# Of one namespace, 0.5 KiB each without children.
MAX_GATEWAYS = 1000
# Patterns of names that are accepted by themselves; each child that is not decided over is compared with all.
MAX_AUTO_ACCEPT = 20
BUSY_TIMEOUT_S = 5.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE gateway (
    namespace TEXT NOT NULL, name TEXT NOT NULL, quota INTEGER NOT NULL, auto_accept TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE child (
    namespace TEXT NOT NULL, gateway TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, PRIMARY KEY (namespace, gateway, device)
) WITHOUT ROWID;
CREATE UNIQUE INDEX child_has_one_gateway ON child (namespace, device) WHERE state = 'accepted';
"""
_OF_CHILD = "namespace = ? AND gateway = ? AND device = ?"


class Enrolled(Protocol):
    """Who knows the devices with a credential of their own (`hub.auth.Identities`)."""

    def is_enrolled(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> bool:
        """Say whether there is a device of that name; raise `UnavailableError` when it cannot be seen now."""


class Children:
    """The file and its copy in RAM. Safe from any thread.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        enrolled: knows the devices that no gateway speaks for.
        clock: wall time in ns.

    Methods that read or write the file raise `UnavailableError` when it cannot be used.
    """

    def __init__(self, path: Path, enrolled: Enrolled, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._enrolled = enrolled
        self._clock = clock
        # The file's lock is held over the disk; the book's never, because `admit` is on the event loop.
        self._lock = threading.RLock()
        self._book_lock = threading.Lock()
        self._book = ChildBook()
        self._listeners: list[Callable[[], None]] = []
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            os.chmod(path, 0o600)
        self._database = open_database(
            path, _SCHEMA, _VERSION, synchronous=FULL, error=UnavailableError, busy_timeout_s=BUSY_TIMEOUT_S
        )
        self._data_version = -1
        self._load()

    # --- asked on the event loop ------------------------------------------------------------------------------

    def admit(self, asked: Asked) -> Refusal | None:
        """Decide over a child that says hello, and note that it came; None: it may speak.

        Raises:
            UnavailableError: it cannot be seen now whether the device has a credential of its own.
        """
        if (outside := asked.outside()) is not None:
            return outside
        is_enrolled = self._enrolled.is_enrolled(asked.device, namespace=asked.namespace)
        with self._book_lock:
            return self._book.admit(asked, self._clock(), is_enrolled=is_enrolled)

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Say whether a child may go on speaking, as far as known here; reads no row."""
        return self._book.is_accepted(namespace, gateway, device)

    def names(self, namespace: str, among: Collection[str] | None = None) -> list[str]:
        """Return the devices of a namespace accepted behind a gateway, with ``among`` those of them; reads no row."""
        with self._book_lock:
            if among is not None:
                return [device for device in among if (namespace, device) in self._book.owners]
            return [device for space, device in self._book.owners if space == namespace]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call it when children may have been shut out, in the thread that noticed."""
        self._listeners.append(listener)

    # --- what people decide -------------------------------------------------------------------------------------

    def listed(
        self, *, namespace: str = DEFAULT_NAMESPACE, gateway: str | None = None, state: ChildState | None = None
    ) -> list[Child]:
        """Return children, the newest first, also those that were noted and not written yet."""
        with self._book_lock:
            found = [
                child
                for (space, name), known in self._book.gateways.items()
                if space == namespace and gateway in (None, name)
                for child in known.children.values()
                if state in (None, child.state)
            ]
        return sorted(found, key=lambda child: (-child.first_ns, child.key))

    def gateways(self, *, namespace: str = DEFAULT_NAMESPACE) -> dict[str, Rules]:
        """Return the gateways of a namespace by name."""
        with self._book_lock:
            known = sorted(self._book.gateways.items())
        return {name: gateway.rules for (space, name), gateway in known if space == namespace}

    def set_rules(
        self,
        gateway: str,
        *,
        quota: int | None = None,
        auto_accept: Sequence[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> Rules:
        """Make a gateway known, or change what holds for its children; None leaves it as it is. Return what holds.

        A lower quota shuts nobody out: it counts when the next one is to be accepted.

        Raises:
            BadRequestError: no name, a quota or patterns out of range. ConflictError: there are `MAX_GATEWAYS`.
        """
        check_enrolled_name(gateway)
        _check_rules(quota, auto_accept)
        with self._changing() as database:
            known = self._book.gateways.get((namespace, gateway))
            count = sum(space == namespace for space, _ in self._book.gateways)
            if known is None and count >= MAX_GATEWAYS:
                raise ConflictError(f"{count} gateways are known, the most a namespace may have: remove some")
            before = Rules() if known is None else known.rules
            rules = Rules(
                before.quota if quota is None else quota,
                before.auto_accept if auto_accept is None else tuple(auto_accept),
            )
            row = (namespace, gateway, rules.quota, json.dumps(rules.auto_accept))
            database.execute("INSERT OR REPLACE INTO gateway VALUES (?, ?, ?, ?)", row)
        return rules

    def accept(self, gateway: str, device: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Let a child speak, whether it came already or not; again is no error.

        Raises:
            NotFoundError: no such gateway. BadRequestError: no name of a device.
            ConflictError: the quota is used up, or the device is enrolled or behind another gateway.
        """
        with self._deciding(gateway, device, namespace) as known:
            if self._enrolled.is_enrolled(device, namespace=namespace):
                raise ConflictError(f"{device} has a token of its own: hub devices rm {device} first")
            owner = self._book.owners.get((namespace, device))
            if owner == gateway:
                return
            if owner is not None:
                raise ConflictError(f"{device} is behind gateway {owner}: hub children forget {owner} {device} first")
            if known.accepted >= known.rules.quota:
                raise ConflictError(
                    f"gateway {gateway} has {known.accepted} children, its quota is {known.rules.quota}: "
                    f"hub children quota {gateway}, or forget some"
                )
            self._decide(namespace, gateway, device, ChildState.ACCEPTED)

    def ignore(self, gateway: str, device: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Shut a child out, also one that speaks now; again is no error.

        Raises:
            NotFoundError: no such gateway. BadRequestError: no name of a device. ConflictError: too many.
        """
        with self._deciding(gateway, device, namespace) as known:
            ignored = [name for name, child in known.children.items() if child.state is ChildState.IGNORED]
            if device not in ignored and len(ignored) >= MAX_IGNORED:
                raise ConflictError(
                    f"{len(ignored)} children of {gateway} are ignored, the most: give it a narrower prefix"
                )
            self._decide(namespace, gateway, device, ChildState.IGNORED)

    def forget(self, gateway: str, device: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Undo what was decided over a child; its readings stay. If it comes again, it is new.

        Raises:
            NotFoundError: no such gateway, or no such child of it.
        """
        with self._deciding(gateway, device, namespace) as known:
            if device not in known.children:
                raise NotFoundError(f"no child {device[:80]!r} of gateway {gateway}; see them with: hub children list")
            self._database.execute(f"DELETE FROM child WHERE {_OF_CHILD}", (namespace, gateway, device))  # noqa: S608

    def remove_gateway(self, gateway: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Forget a gateway and all its children; its tokens are ended by themselves. `NotFoundError`: there is none."""
        with self._changing() as database:
            if (namespace, gateway) not in self._book.gateways:
                raise _no_gateway(gateway)
            database.execute("DELETE FROM gateway WHERE namespace = ? AND name = ?", (namespace, gateway))
            database.execute("DELETE FROM child WHERE namespace = ? AND gateway = ?", (namespace, gateway))

    def keep(self) -> list[Child]:
        """Write what was noted, take in what other processes changed; return who was accepted by pattern since."""
        with self._lock, self._translated():
            if self._book.noted or self._book.forgotten:
                with self._changing():
                    pass
            elif self._read_data_version() != self._data_version:
                self._load()
                self._tell()
        with self._book_lock:
            welcomed, self._book.welcomed = self._book.welcomed, []
        return welcomed

    def close(self) -> None:
        """Write what was noted and close the file; safe to call twice."""
        with self._lock:
            try:
                if self._book.noted:
                    self.keep()
            finally:
                self._database.close()

    # --- inside -------------------------------------------------------------------------------------------------

    @contextmanager
    def _deciding(self, gateway: str, device: str, namespace: str) -> Iterator[Gateway]:
        check_enrolled_name(device)
        with self._changing():
            known = self._book.gateways.get((namespace, gateway))
            if known is None:
                raise _no_gateway(gateway)
            yield known

    def _decide(self, namespace: str, gateway: str, device: str, state: ChildState) -> None:
        now_ns = self._clock()
        query = (
            "INSERT INTO child VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (namespace, gateway, device) DO UPDATE SET state = excluded.state"
        )
        self._database.execute(query, (namespace, gateway, device, state.value, now_ns, now_ns))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction: what is noted first, then the caller's; afterwards the book is as the file."""
        with self._lock, self._translated():
            noted: dict[tuple[str, str, str], Child] = {}
            forgotten: set[tuple[str, str, str]] = set()
            is_done = False
            try:
                with transaction(self._database, self._path):
                    with self._book_lock:
                        self._book.is_held = True
                        noted, forgotten = self._book.writing()
                    self._write(noted, forgotten)
                    self._load()
                    yield self._database
                is_done = True
            finally:
                with self._book_lock:
                    self._book.is_held = False
                    if is_done:
                        self._book.written(noted, forgotten)
                self._load()
        self._tell()

    def _write(self, noted: dict[tuple[str, str, str], Child], forgotten: set[tuple[str, str, str]]) -> None:
        database = self._database
        query = f"DELETE FROM child WHERE {_OF_CHILD} AND state = 'pending'"  # noqa: S608 - words of ours
        database.executemany(query, list(forgotten))
        for namespace, gateway in {(child.namespace, child.gateway) for child in noted.values()}:
            database.execute("INSERT OR IGNORE INTO gateway VALUES (?, ?, ?, '[]')", (namespace, gateway, QUOTA))
        for child in noted.values():
            # What another process has decided meanwhile holds; so does the one gateway that a child has.
            found = database.execute(f"SELECT state FROM child WHERE {_OF_CHILD}", child.key).fetchone()  # noqa: S608
            query = "SELECT gateway FROM child WHERE namespace = ? AND device = ? AND state = 'accepted'"
            owner = database.execute(query, (child.namespace, child.device)).fetchone()
            state = child.state if found is None or found[0] == ChildState.PENDING else ChildState(found[0])
            if state is ChildState.ACCEPTED and owner not in (None, (child.gateway,)):
                state = ChildState.PENDING
            row = (*child.key, state.value, child.first_ns, child.last_ns)
            database.execute("INSERT OR REPLACE INTO child VALUES (?, ?, ?, ?, ?, ?)", row)

    def _load(self) -> None:
        """Take the file into RAM."""
        version = self._read_data_version()
        rules = [
            (namespace, name, Rules(quota, tuple(json.loads(patterns))))
            for namespace, name, quota, patterns in self._database.execute("SELECT * FROM gateway")
        ]
        query = "SELECT gateway, device, state, first_ns, last_ns, namespace FROM child ORDER BY last_ns"
        rows = self._database.execute(query).fetchall()
        children = [Child(g, d, ChildState(s), first_ns, last_ns, n) for g, d, s, first_ns, last_ns, n in rows]
        with self._book_lock:
            self._book.replace(rules, children)
        # Only now: a load that failed is tried again.
        self._data_version = version

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _read_data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"children of gateways in {self._path}: {error}; check the disk, owner and free space"
            ) from error


def _check_rules(quota: int | None, auto_accept: Sequence[str] | None) -> None:
    if quota is not None and not 1 <= quota <= MAX_QUOTA:
        raise BadRequestError(f"quota {quota}: use 1 to {MAX_QUOTA} children; more need another gateway")
    if auto_accept is not None and len(auto_accept) > MAX_AUTO_ACCEPT:
        raise BadRequestError(f"{len(auto_accept)} patterns to accept; the limit is {MAX_AUTO_ACCEPT}")
    for pattern in auto_accept or ():
        check_names(pattern, "auto-accept")


def _no_gateway(gateway: str) -> NotFoundError:
    return NotFoundError(f"no gateway {gateway[:80]!r}; see them with: hub children gateways")
