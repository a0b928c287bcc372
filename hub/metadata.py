"""What people said of devices and channels, with the history of it: ``DATA/metadata.sqlite3``.

Owns: the file, its copy in RAM, who changed which field when. Place: after `database` and `description`; the registry
asks it for what holds of a series. Must not: know what devices declared (`Series.effective` puts both together).

A change is durable when the call returns. Another process may edit the file (``hub metadata set --data DIR``):
`refresh`, called each half second by the hub, notices that for the price of one pragma. A subject is a `SeriesKey`;
with an empty channel it is the device itself.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sdk.errors import MisuseError
from device_sdk.reading import ValueType, check_device_name, is_channel_name
from hub.database import FULL, ReadPool, open_database, transaction, wipe
from hub.description import (
    CHANNEL_FIELDS,
    DEVICE_FIELDS,
    NO_CHANNEL_DESCRIPTION,
    NO_DEVICE_DESCRIPTION,
    ChannelDescription,
    DeviceDescription,
    Held,
    check_channel,
    check_device,
    check_field,
    check_tags,
    checked,
)
from hub.errors import BadRequestError, HubError, UnavailableError
from hub.model import SeriesKey

# Devices and channels with a description in one file: about 1 KiB each in RAM, and more than a fleet of 3,000 has.
MAX_DESCRIBED = 50_000
# Of one device or channel: years of hands, or a day of a script that should not do it this way.
MAX_CHANGES_EACH = 1000
# Of all together: about 50 MB of file; beyond, the oldest go.
MAX_CHANGES = 500_000
# What one transaction may take: a few tens of milliseconds, so that other writers of the file need not wait.
MAX_EDITS = 1000
MAX_WHO_CHARS = 100
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS held(
    namespace TEXT NOT NULL, device TEXT NOT NULL, channel TEXT NOT NULL, fields TEXT NOT NULL,
    PRIMARY KEY(namespace, device, channel)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change(
    id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, who TEXT NOT NULL, namespace TEXT NOT NULL,
    device TEXT NOT NULL, channel TEXT NOT NULL, field TEXT NOT NULL, old TEXT, new TEXT);
CREATE INDEX IF NOT EXISTS change_of ON change(namespace, device, channel, id)
"""
_FORGET = f"""
DELETE FROM change WHERE namespace = ?1 AND device = ?2 AND channel = ?3 AND id <= (
    SELECT id FROM change WHERE namespace = ?1 AND device = ?2 AND channel = ?3
    ORDER BY id DESC LIMIT 1 OFFSET {MAX_CHANGES_EACH})
"""  # noqa: S608

Fields = dict[str, Held]


class MetadataError(UnavailableError):
    """The file cannot be opened, read or written."""

    reason = "metadata"


@dataclass(frozen=True, slots=True)
class Edit:
    """Fields to set (None: unset; those not named stay), and tags to add to or take from those held.

    ``type`` of the channel's readings as far as known: switches and texts have no scale.
    """

    subject: SeriesKey
    fields: Mapping[str, object]
    add_tags: Sequence[str] = ()
    remove_tags: Sequence[str] = ()
    type: ValueType | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One field, changed once; None: it was, or is, not set."""

    time_ns: int
    who: str
    field: str
    old: Held | None
    new: Held | None


@dataclass(frozen=True, slots=True)
class History:
    """Changes, newest first. ``since_ns``: older ones are not kept any more (None: these are all there were)."""

    changes: list[Change]
    since_ns: int | None


class Metadata:
    """The file and its copy in RAM. Safe from any thread; what holds is looked up without waiting for a writer.

    Args:
        path: the SQLite file; made when absent.
        clock: wall time in ns, for the history.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        # Apart: the event loop asks what changed, and must not wait for another thread's fsync or another process.
        self._news = threading.Lock()
        self._changed: set[SeriesKey] = set()
        self._database = open_database(path, _SCHEMA, SCHEMA_VERSION, synchronous=FULL, error=MetadataError)
        self._data_version = self._read_data_version()
        # Rows of `held` within the transaction that runs.
        self._count = 0
        self._held: dict[SeriesKey, DeviceDescription | ChannelDescription] = {}
        self._load()

    # --- what holds ---------------------------------------------------------------------------------------

    def device(self, namespace: str, device: str) -> DeviceDescription:
        """Return what people said of a device."""
        found = self._held.get(SeriesKey(namespace, device, ""))
        return found if isinstance(found, DeviceDescription) else NO_DEVICE_DESCRIPTION

    def channel(self, key: SeriesKey) -> ChannelDescription:
        """Return what people said of a channel."""
        found = self._held.get(key)
        return found if isinstance(found, ChannelDescription) else NO_CHANNEL_DESCRIPTION

    def subjects(self, namespace: str) -> list[SeriesKey]:
        """Return what is described in a namespace: devices (with an empty channel) and channels, in no order."""
        return [key for key in tuple(self._held) if key.namespace == namespace]

    def fields(self, subject: SeriesKey) -> Fields:
        """Return the fields that people set, by name."""
        return _fields_of(self._held.get(subject))

    # --- changing it --------------------------------------------------------------------------------------

    def change(self, edit: Edit, who: str) -> list[Change]:
        """Make one edit; return what it changed (nothing when all was so already). Raises the edit's error."""
        (outcome,) = self.change_all([edit], who)
        if isinstance(outcome, HubError):
            raise outcome
        return outcome

    def change_all(
        self, edits: Sequence[Edit], who: str, *, is_trial: bool = False
    ) -> list[list[Change] | BadRequestError]:
        """Make edits in one durable transaction; one that is wrong keeps no other from being made.

        Args:
            who: makes them; kept in the history.
            is_trial: say what would change, and change nothing.

        Returns:
            For each edit what it changed, or why it was refused.

        Raises:
            BadRequestError: more than `MAX_EDITS`; nothing was changed.
            MetadataError: the file cannot be written; nothing was changed.
        """
        if len(edits) > MAX_EDITS:
            raise BadRequestError(f"{len(edits)} edits; the limit is {MAX_EDITS}: make them in several requests")
        who, now_ns = who[:MAX_WHO_CHARS], self._clock()
        outcomes: list[list[Change] | BadRequestError] = []
        touched: set[SeriesKey] = set()
        with self._lock, self._translated():
            with transaction(self._database, self._path, is_trial=is_trial):
                # Once, not for each: a full file takes 30 ms to count, and others wait for its lock.
                (self._count,) = self._database.execute("SELECT count(*) FROM held").fetchone()
                for edit in edits:
                    outcomes.append(self._made(edit, who, now_ns, touched))
                if touched:
                    self._forget_oldest(touched)
                # Before COMMIT: what cannot be read again is undone.
                held = {subject: _read(self._database, subject) for subject in touched}
            if not is_trial:
                for subject, fields in held.items():
                    self._take_in(subject, fields)
        return outcomes

    def _made(self, edit: Edit, who: str, now_ns: int, touched: set[SeriesKey]) -> list[Change] | BadRequestError:
        try:
            _check_subject(edit.subject)
            held = _read(self._database, edit.subject)
            wanted = _merged(edit, held)
            changes = [
                Change(now_ns, who, name, held.get(name), wanted.get(name))
                for name in dict.fromkeys([*held, *wanted])
                if held.get(name) != wanted.get(name)
            ]
            if changes and not held:
                self._check_room()
        except BadRequestError as error:
            return error
        if changes:
            self._write(edit.subject, wanted, changes)
            self._count += bool(wanted) - bool(held)
            touched.add(edit.subject)
        return changes

    def _check_room(self) -> None:
        if self._count >= MAX_DESCRIBED:
            raise BadRequestError(
                f"{self._count} devices and channels are described; the limit is {MAX_DESCRIBED}: "
                "unset those that are gone"
            )

    def _write(self, subject: SeriesKey, wanted: Fields, changes: Sequence[Change]) -> None:
        if wanted:
            self._database.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", (*subject, json.dumps(wanted)))
        else:
            self._database.execute("DELETE FROM held WHERE namespace = ? AND device = ? AND channel = ?", subject)
        self._database.executemany(
            "INSERT INTO change(time_ns, who, namespace, device, channel, field, old, new) VALUES (?,?,?,?,?,?,?,?)",
            [(c.time_ns, c.who, *subject, c.field, _to_json(c.old), _to_json(c.new)) for c in changes],
        )

    def _forget_oldest(self, touched: Iterable[SeriesKey]) -> None:
        self._database.executemany(_FORGET, list(touched))
        self._database.execute("DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?", (MAX_CHANGES,))

    def erase(self, namespace: str, device: str) -> int:
        """Forget all that people said of a device and its channels, and who said what when; return how many of them.

        What the file no longer holds is no longer in its bytes.
        """
        of_device = "namespace = ? AND device = ?"
        with self._lock, self._translated():
            with transaction(self._database, self._path):
                self._database.execute(f"DELETE FROM held WHERE {of_device}", (namespace, device))  # noqa: S608
                self._database.execute(f"DELETE FROM change WHERE {of_device}", (namespace, device))  # noqa: S608
            wipe(self._database)
            gone = [key for key in self._held if key[:2] == (namespace, device)]
            for key in gone:
                self._take_in(key, {})
        return len(gone)

    # --- what held ----------------------------------------------------------------------------------------

    def history(self, subject: SeriesKey, limit: int = MAX_CHANGES_EACH) -> History:
        """Return the changes of a device or channel, newest first."""
        with self._lock, self._translated():
            rows = self._database.execute(
                "SELECT time_ns, who, field, old, new FROM change "
                "WHERE namespace = ? AND device = ? AND channel = ? ORDER BY id DESC",
                subject,
            ).fetchall()
            first_id, first_ns = self._database.execute("SELECT min(id), time_ns FROM change").fetchone()
        since_ns = None
        if rows and len(rows) >= MAX_CHANGES_EACH:
            since_ns = rows[-1][0]
        elif first_id is not None and first_id > 1:
            # Something was forgotten, perhaps of this subject: before this nothing is certain.
            since_ns = first_ns
        changes = [Change(at, who, name, _of_json(old), _of_json(new)) for at, who, name, old, new in rows[:limit]]
        return History(changes, since_ns)

    def held_at(self, subject: SeriesKey, time_ns: int) -> Fields:
        """Return the fields that were set at an instant, as far back as the history goes: from now, changes undone."""
        with self._lock, self._translated():
            held = _read(self._database, subject)
            rows = self._database.execute(
                "SELECT field, old FROM change WHERE namespace = ? AND device = ? AND channel = ? AND time_ns > ? "
                "ORDER BY id DESC",
                (*subject, time_ns),
            ).fetchall()
        for name, old in rows:
            before = _of_json(old)
            if before is None:
                held.pop(name, None)
            else:
                held[name] = before
        return held

    # --- other processes ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what other processes changed; `take_changes` then names it."""
        with self._lock, self._translated():
            version = self._read_data_version()
            if version != self._data_version:
                self._load()
                # Only now: a load that failed is tried again.
                self._data_version = version

    def take_changes(self) -> set[SeriesKey]:
        """Return and forget what changed since the last call, here or elsewhere."""
        with self._news:
            changed, self._changed = self._changed, set()
            return changed

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    # --- inside -------------------------------------------------------------------------------------------

    def _load(self) -> None:
        found = dict(_read_all(self._database))
        for subject in self._held.keys() | found.keys():
            self._take_in(subject, found.get(subject, {}))

    def _take_in(self, subject: SeriesKey, fields: Fields) -> None:
        before = self._held.get(subject)
        if fields:
            self._held[subject] = _description(subject, fields)
        else:
            self._held.pop(subject, None)
        if self._held.get(subject) != before:
            with self._news:
                self._changed.add(subject)

    def _read_data_version(self) -> int:
        with self._translated():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MetadataError(f"{self._path}: {error}; try again") from error


def read_channels(path: Path) -> Mapping[SeriesKey, ChannelDescription]:
    """Return what a file says of channels without opening it for writing; nothing when there is no file.

    Raises:
        MetadataError: the file cannot be read.
    """
    if not path.is_file():
        return {}
    pool = ReadPool(path)
    try:
        with pool.connection() as connection:
            return {key: check_channel(fields) for key, fields in _read_all(connection) if key.channel}
    except sqlite3.Error as error:
        raise MetadataError(f"cannot read {path}: {error}") from error
    finally:
        pool.close()


def _merged(edit: Edit, held: Fields) -> Fields:
    """Return the fields with the edit made, checked one by one and together."""
    table = CHANNEL_FIELDS if edit.subject.channel else DEVICE_FIELDS
    wanted = dict(held)
    for name, value in edit.fields.items():
        if value is None:
            check_field(table, name)
            wanted.pop(name, None)
        else:
            wanted[name] = checked(table, name, value)
    if edit.add_tags or edit.remove_tags:
        tags = {*_tags(wanted), *_checked_tags(edit.add_tags)} - set(edit.remove_tags)
        wanted.pop("tags", None)
        if tags:
            wanted["tags"] = _checked_tags(list(tags))
    description = _description(edit.subject, wanted)
    if isinstance(description, ChannelDescription) and description.scaling and edit.type in (
        ValueType.BOOL, ValueType.STR,
    ):  # fmt: skip
        raise BadRequestError(f"scale and offset are for numbers; this channel's readings are of type {edit.type}")
    return wanted


def _tags(fields: Fields) -> tuple[str, ...]:
    tags = fields.get("tags", ())
    assert isinstance(tags, tuple), "checked as tags"
    return tags


def _checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    try:
        return check_tags(list(tags)) if tags else ()
    except ValueError as error:
        raise BadRequestError(f"tags: {error}") from error


def _check_subject(subject: SeriesKey) -> None:
    try:
        check_device_name(subject.device)
    except MisuseError as error:
        raise BadRequestError(str(error)) from error
    if subject.channel and not is_channel_name(subject.channel):
        raise BadRequestError(f"channel {subject.channel[:40]!r}: use letters, digits, '_', '.', '-' (at most 128)")


def _description(subject: SeriesKey, fields: Mapping[str, Any]) -> DeviceDescription | ChannelDescription:
    return check_channel(fields) if subject.channel else check_device(fields)


def _fields_of(description: DeviceDescription | ChannelDescription | None) -> Fields:
    if description is None:
        return {}
    table = CHANNEL_FIELDS if isinstance(description, ChannelDescription) else DEVICE_FIELDS
    found = {name: getattr(description, name) for name in table}
    return {name: value for name, value in found.items() if value is not None and value != ()}


def _read(database: sqlite3.Connection, subject: SeriesKey) -> Fields:
    row = database.execute(
        "SELECT fields FROM held WHERE namespace = ? AND device = ? AND channel = ?", subject
    ).fetchone()
    return {} if row is None else _parsed(row[0])


def _read_all(database: sqlite3.Connection) -> Iterator[tuple[SeriesKey, Fields]]:
    for namespace, device, channel, fields in database.execute("SELECT namespace, device, channel, fields FROM held"):
        yield SeriesKey(namespace, device, channel), _parsed(fields)


def _parsed(text: str) -> Fields:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}


def _to_json(value: Held | None) -> str | None:
    return None if value is None else json.dumps(value)


def _of_json(text: str | None) -> Held | None:
    if text is None:
        return None
    value: Held | list[str] = json.loads(text)
    return tuple(value) if isinstance(value, list) else value
