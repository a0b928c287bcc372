"""What state people want each device to have, and what each says it has: ``DATA/states.sqlite3``.

Owns: the file, versions, who changed what when, how far apart the two states are. Place: after `database`; `rollout`
brings states to devices and reports here. Must not: know who is connected.

A change is durable when the call returns, and only then may it be sent. The version of a desired state rises by one
with each effective change and never goes back: when a device shows one that this file never gave out (it is an older
copy), the next is above that. The ``mark``, drawn for each change, tells two versions of one number apart.
"""

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from device_sdk.errors import MisuseError
from device_sdk.merge_patch import merged
from device_sdk.wire import MAX_CONTROL_BYTES, Desired, Reported
from hub.database import FULL, ReadPool, insert_rows, open_database, transaction, wipe
from hub.errors import BadRequestError, ConflictError, HubError, UnavailableError

State = dict[str, Any]
Key = tuple[str, str]
"""Namespace and device."""

# Devices with a state in one file: more than a fleet of 3,000 ever had, 3 GiB when every state is at its largest.
MAX_DEVICES = 50_000
# Devices of one change: with small states half a second in its thread, and 320 MiB of the log with the largest.
MAX_ROLLOUT = 10_000
# Of one device: months of hands; a script that turns a setting each minute keeps its last hour.
MAX_CHANGES_EACH = 64
MAX_WHO_CHARS = 100
# JavaScript and many a JSON reader are exact up to here; nobody changes a state this often.
MAX_VERSION = 2**53 - 1
# Keys that an answer names of a device that drifted: a page, not the whole state.
MAX_DIFFERING = 50
SCHEMA_VERSION = 1
# Names in one statement: SQLite takes 32,766 values.
_NAMES = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS desired(
    namespace TEXT NOT NULL, device TEXT NOT NULL, version INTEGER NOT NULL, mark TEXT NOT NULL, state BLOB NOT NULL,
    who TEXT NOT NULL, time_ns INTEGER NOT NULL, PRIMARY KEY(namespace, device)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reported(
    namespace TEXT NOT NULL, device TEXT NOT NULL, version INTEGER NOT NULL, mark TEXT NOT NULL, state BLOB NOT NULL,
    time_ns INTEGER NOT NULL, PRIMARY KEY(namespace, device)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change(
    namespace TEXT NOT NULL, device TEXT NOT NULL, slot INTEGER NOT NULL, version INTEGER NOT NULL, who TEXT NOT NULL,
    time_ns INTEGER NOT NULL, patch BLOB, PRIMARY KEY(namespace, device, slot)) WITHOUT ROWID
"""


class StatesError(UnavailableError):
    """The file cannot be opened, read or written."""

    reason = "states"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did to one device: the version that holds now, or ``error`` when it was refused."""

    device: str
    version: int
    is_changed: bool = False
    error: HubError | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a desired state; ``patch`` None: only the version rose, above one of a restored hub's past."""

    version: int
    who: str
    time_ns: int
    patch: State | None


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What a device should have; version 0 when nobody ever said so."""

    version: int = 0
    state: bytes = b"{}"
    mark: str = ""
    who: str = ""
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class ReportedState:
    """What a device has, as it last said; ``time_ns`` 0 when it never did."""

    version: int = 0
    state: bytes = b"{}"
    mark: str = ""
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Twin:
    """Both states of a device, as JSON objects in bytes."""

    device: str
    desired: DesiredState
    reported: ReportedState

    @property
    def is_taken(self) -> bool:
        """Whether the device has taken in the newest desired state. One without a mark is believed its number."""
        wanted, told = self.desired, self.reported
        return wanted.version == 0 or (wanted.version == told.version and told.mark in ("", wanted.mark))

    def differing(self) -> list[str]:
        """Return the keys of the desired state, dotted, that the device reports otherwise or not at all."""
        if self.desired.state == self.reported.state:
            return []
        return list(_differing(orjson.loads(self.desired.state), orjson.loads(self.reported.state), ""))[:MAX_DIFFERING]


NO_DESIRED, NO_REPORTED = DesiredState(), ReportedState()


class States:
    """The file. Safe from any thread; every call reads or writes the disk.

    Args:
        path: the SQLite file; made when absent.
        clock: wall time in ns, for the history.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._database = open_database(path, _SCHEMA, SCHEMA_VERSION, synchronous=FULL, error=StatesError)
        self._readers = ReadPool(path)

    # --- desired ------------------------------------------------------------------------------------------

    def change(
        self, namespace: str, devices: Sequence[str], patch: State, who: str, *, expected_version: int | None = None
    ) -> list[Outcome]:
        """Merge a patch into the desired state of each device, all in one durable transaction.

        Args:
            patch: RFC 7396: objects are merged, None removes a key.
            expected_version: refuse a device (`ConflictError`) whose version is another.

        Returns:
            An outcome for each device, in order; one that is refused keeps no other from being changed.

        Raises:
            BadRequestError: more than `MAX_ROLLOUT` devices. StatesError: the disk; nothing was changed.
        """
        if len(devices) > MAX_ROLLOUT:
            raise BadRequestError(
                f"{len(devices)} devices; the limit is {MAX_ROLLOUT}: change them in several requests"
            )
        outcomes: list[Outcome] = []
        rows: list[Any] = []
        changes: list[Any] = []
        now_ns, mark, stored_patch = self._clock(), secrets.token_hex(4), _checked(patch, "the patch")
        with self._writing() as database:
            held = dict(_read_desired(database, namespace, devices))
            room = MAX_DEVICES - int(database.execute("SELECT count(*) FROM desired").fetchone()[0])
            for device in devices:
                found = held.get(device)
                if found is None:
                    room -= 1
                outcome, state = _changed(
                    device, found or NO_DESIRED, patch, expected_version, is_room=found is not None or room >= 0
                )
                outcomes.append(outcome)
                if outcome.is_changed:
                    rows += (namespace, device, outcome.version, mark, state, who[:MAX_WHO_CHARS], now_ns)
                    slot = outcome.version % MAX_CHANGES_EACH
                    changes += (namespace, device, slot, outcome.version, who[:MAX_WHO_CHARS], now_ns, stored_patch)
            _write_desired(database, rows, changes)
        return outcomes

    def history(self, namespace: str, device: str) -> list[Change]:
        """Return the last changes of a desired state, newest first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT version, who, time_ns, patch FROM change WHERE namespace = ? AND device = ? "
                "ORDER BY version DESC", (namespace, device),
            ).fetchall()  # fmt: skip
        return [
            Change(version, who, time_ns, None if patch is None else orjson.loads(patch))
            for version, who, time_ns, patch in rows
        ]

    # --- reported -----------------------------------------------------------------------------------------

    def take_reports(self, reports: Mapping[Key, Reported]) -> None:
        """Keep what devices say they have, in one durable transaction.

        A version that this file did not give out comes from before the hub was restored: the desired state then
        gets the next version above it, so that the device takes it in and versions never go back.
        """
        now_ns, mark = self._clock(), secrets.token_hex(4)
        rows: list[Any] = []
        raised: list[Any] = []
        changes: list[Any] = []
        with self._writing() as database:
            for namespace, names in _by_namespace(reports):
                held = dict(_read_desired(database, namespace, names))
                for device in names:
                    told, wanted = reports[namespace, device], held.get(device, NO_DESIRED)
                    rows += (namespace, device, told.version, told.mark, orjson.dumps(told.state), now_ns)
                    if _is_foreign(told, wanted):
                        version, slot = told.version + 1, (told.version + 1) % MAX_CHANGES_EACH
                        raised += (namespace, device, version, mark, wanted.state, wanted.who, now_ns)
                        changes += (namespace, device, slot, version, "the hub", now_ns, None)
            insert_rows(database, "INSERT OR REPLACE INTO reported", 6, rows)
            _write_desired(database, raised, changes)

    # --- both ---------------------------------------------------------------------------------------------

    def twin(self, namespace: str, device: str) -> Twin:
        """Return both states of a device; of one that is not known the empty ones."""
        return next(iter(self.twins(namespace, [device])))

    def twins(self, namespace: str, devices: Sequence[str]) -> list[Twin]:
        """Return both states of each device, in order."""
        with self._reading() as database:
            wanted = dict(_read_desired(database, namespace, devices))
            told = dict(_read_reported(database, namespace, devices))
        return [Twin(name, wanted.get(name, NO_DESIRED), told.get(name, NO_REPORTED)) for name in devices]

    def devices(self, namespace: str) -> list[str]:
        """Return the devices that have a state, in no order."""
        with self._reading() as database:
            found = database.execute(
                "SELECT device FROM desired WHERE namespace = ?1 "
                "UNION SELECT device FROM reported WHERE namespace = ?1",
                (namespace,),
            ).fetchall()
        return [device for (device,) in found]

    def not_taken(self, keys: Iterable[Key]) -> dict[Key, Desired]:
        """Return the desired state of each device that has not taken it in, as it is sent."""
        found: dict[Key, Desired] = {}
        for namespace, names in _by_namespace(keys):
            for twin in self.twins(namespace, names):
                if not twin.is_taken:
                    wanted = twin.desired
                    found[namespace, twin.device] = Desired(wanted.version, orjson.loads(wanted.state), wanted.mark)
        return found

    def erase(self, namespace: str, device: str) -> None:
        """Forget a device's states and who changed them; what the file no longer holds is no longer in its bytes."""
        with self._writing() as database:
            for table in ("desired", "reported", "change"):
                database.execute(f"DELETE FROM {table} WHERE namespace = ? AND device = ?", (namespace, device))  # noqa: S608
        with self._lock, self._translated():
            wipe(self._database)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._readers.close()
            self._database.close()

    # --- inside -------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated(), transaction(self._database, self._path):
            yield self._database

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._readers.connection() as database:
            yield database

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StatesError(f"{self._path}: {error}; try again") from error


def _changed(
    device: str, held: DesiredState, patch: State, expected_version: int | None, *, is_room: bool
) -> tuple[Outcome, bytes]:
    """Return what the patch makes of one device's state, or why not."""
    try:
        if expected_version not in (None, held.version):
            raise ConflictError(
                f"device {device!r} has version {held.version}, not {expected_version}: look at it again"
            )
        after = _checked(merged(orjson.loads(held.state), patch), f"the state of device {device!r}")
        if after == held.state:
            return Outcome(device, held.version), held.state
        if not is_room:
            raise BadRequestError(f"device {device!r} would be one too many: {MAX_DEVICES} devices may have a state")
        return Outcome(device, held.version + 1, is_changed=True), after
    except MisuseError as error:
        return Outcome(device, held.version, error=BadRequestError(str(error))), held.state
    except (BadRequestError, ConflictError) as error:
        return Outcome(device, held.version, error=error), held.state


def _checked(state: State, what: str) -> bytes:
    try:
        data = orjson.dumps(state)
    except TypeError as error:  # what was read as JSON and cannot be written: nested too deep
        raise BadRequestError(f"{what}: {error}") from error
    if len(data) > MAX_CONTROL_BYTES:
        raise BadRequestError(f"{what} takes {len(data)} bytes as JSON; the limit is {MAX_CONTROL_BYTES}")
    return data


def _is_foreign(told: Reported, wanted: DesiredState) -> bool:
    """Say whether a device has a version that this file did not give out."""
    if told.version == wanted.version:
        return told.version > 0 and told.mark not in ("", wanted.mark)
    return wanted.version < told.version < MAX_VERSION


def _differing(wanted: State, told: object, prefix: str) -> Iterator[str]:
    for name, value in wanted.items():
        other = told.get(name) if isinstance(told, dict) else None
        if isinstance(value, dict) and value:
            yield from _differing(value, other, f"{prefix}{name}.")
        elif not isinstance(told, dict) or name not in told or not _is_same(value, other):
            yield prefix + name


def _is_same(one: object, other: object) -> bool:
    # For Python true is 1; for a device it is not.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _by_namespace(keys: Iterable[Key]) -> Iterator[tuple[str, list[str]]]:
    names: dict[str, list[str]] = {}
    for namespace, device in keys:
        names.setdefault(namespace, []).append(device)
    yield from names.items()


def _read_desired(
    database: sqlite3.Connection, namespace: str, devices: Sequence[str]
) -> Iterator[tuple[str, DesiredState]]:
    for device, version, mark, state, who, time_ns in _rows(
        database, "device, version, mark, state, who, time_ns FROM desired", namespace, devices
    ):
        yield device, DesiredState(version, state, mark, who, time_ns)


def _read_reported(
    database: sqlite3.Connection, namespace: str, devices: Sequence[str]
) -> Iterator[tuple[str, ReportedState]]:
    for device, version, mark, state, time_ns in _rows(
        database, "device, version, mark, state, time_ns FROM reported", namespace, devices
    ):
        yield device, ReportedState(version, state, mark, time_ns)


def _rows(database: sqlite3.Connection, what: str, namespace: str, devices: Sequence[str]) -> Iterator[Any]:
    for begin in range(0, len(devices), _NAMES):
        names = devices[begin : begin + _NAMES]
        marks = ",".join("?" * len(names))
        statement = f"SELECT {what} WHERE namespace = ? AND device IN ({marks})"
        yield from database.execute(statement, (namespace, *names)).fetchall()


def _write_desired(database: sqlite3.Connection, rows: Sequence[Any], changes: Sequence[Any]) -> None:
    insert_rows(database, "INSERT OR REPLACE INTO desired", 7, rows)
    insert_rows(database, "INSERT OR REPLACE INTO change", 7, changes)
