"""Devices and their tokens: at most two live ones, so that a device can be given a new one without a pause.

Owns: the rows of devices and of their tokens, and what enrolling, rotating and removing do to them. Place: above
`credential`, below `claims`; `auth` gives the transaction. Must not: open or commit anything.

The newest token of a device has no end. Rotation gives the one before a time of grace, in which the device is moved
to the new one; whatever is older than these two ends at once.
"""

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from device_sdk.errors import MisuseError
from device_sdk.reading import check_device_name
from hub.credential import Change, Credential, device_identity, hash_secret, new_token
from hub.errors import BadRequestError, ConflictError, HubError, NotFoundError
from hub.roles import DEFAULT_NAMESPACE

# A day: long enough to reach a device that wakes once in it, or a person on the next morning.
KEEP_S = 86400.0
# An old token that lives for months is a leak nobody remembers.
MAX_KEEP_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """One enrolled device; ``rotated_ns`` is None until its first rotation.

    ``id`` is that of its newest token. ``tokens``: how many are live; with two, the old one ends at ``old_ends_ns``.
    """

    name: str
    id: str
    created_ns: int
    rotated_ns: int | None = None
    namespace: str = DEFAULT_NAMESPACE
    tokens: int = 1
    old_ends_ns: int | None = None


def check_enrolled_name(name: str) -> str:
    """Return the name; raise `BadRequestError` with the grammar when no device can have it."""
    try:
        return check_device_name(name)
    except MisuseError as error:
        raise BadRequestError(str(error)) from error


def is_enrolled(database: sqlite3.Connection, namespace: str, name: str) -> bool:
    """Say whether there is a device of that name."""
    query = "SELECT 1 FROM device WHERE namespace = ? AND name = ?"
    return database.execute(query, (namespace, name)).fetchone() is not None


def enrol(change: Change, namespace: str, name: str) -> str:
    """Add a device and return its token.

    Raises:
        BadRequestError: the name is not valid. ConflictError: a device of that name exists.
    """
    check_enrolled_name(name)
    if is_enrolled(change.database, namespace, name):
        raise ConflictError(f"device {name!r} exists; for a new token: hub devices rotate {name}")
    change.database.execute("INSERT INTO device VALUES (?, ?, ?, NULL)", (namespace, name, change.now_ns))
    return _put_token(change, namespace, name)


def rotate(change: Change, namespace: str, name: str, keep_s: float = KEEP_S) -> str:
    """Return a new token; the newest one before stays valid for ``keep_s``, all others end.

    Raises:
        NotFoundError: no such device. BadRequestError: ``keep_s`` is out of range.
    """
    if not 0 <= keep_s <= MAX_KEEP_S:
        raise BadRequestError(
            f"an old token may be kept for 0 s to {MAX_KEEP_S / 86400:g} d, not {keep_s:g} s; 0 ends it at once"
        )
    if not is_enrolled(change.database, namespace, name):
        raise no_device(name)
    kept = _newest(change.database, namespace, name) if keep_s else None
    _end_tokens(change, namespace, name, but=None if kept is None else kept[0])
    if kept is not None:
        id_, credential = kept
        expires_ns = change.now_ns + round(keep_s * 1e9)
        change.database.execute("UPDATE device_token SET expires_ns = ? WHERE id = ?", (expires_ns, id_))
        change.credentials[id_] = replace(credential, expires_ns=expires_ns)
    change.database.execute(
        "UPDATE device SET rotated_ns = ? WHERE namespace = ? AND name = ?", (change.now_ns, namespace, name)
    )
    return _put_token(change, namespace, name)


def remove(change: Change, namespace: str, name: str) -> None:
    """End all tokens of the device and forget it. `NotFoundError` when there is none."""
    found = change.database.execute("DELETE FROM device WHERE namespace = ? AND name = ?", (namespace, name)).rowcount
    if found == 0:
        raise no_device(name)
    _end_tokens(change, namespace, name)


def newest_id(database: sqlite3.Connection, namespace: str, name: str) -> str | None:
    """Return the id of the device's newest token, None when there is no such device."""
    newest = _newest(database, namespace, name)
    return None if newest is None else newest[0]


def enrolled(database: sqlite3.Connection, namespace: str, now_ns: int) -> list[DeviceIdentity]:
    """Return all devices of the namespace by name."""
    query = (
        "SELECT d.name, t.id, d.created_ns, d.rotated_ns, t.expires_ns FROM device d "
        "JOIN device_token t USING (namespace, name) WHERE d.namespace = ? ORDER BY d.name, t.expires_ns IS NOT NULL"
    )
    found: dict[str, DeviceIdentity] = {}
    for name, id_, created_ns, rotated_ns, expires_ns in database.execute(query, (namespace,)):
        if expires_ns is None:
            found[name] = DeviceIdentity(name, id_, created_ns, rotated_ns, namespace)
        elif expires_ns > now_ns:
            found[name] = replace(found[name], tokens=2, old_ends_ns=expires_ns)
    return list(found.values())


def names(database: sqlite3.Connection, namespace: str, among: Collection[str] | None) -> set[str]:
    """Return the names of the namespace's devices; with ``among`` only those, each looked up for itself."""
    if among is not None:
        return {name for name in among if is_enrolled(database, namespace, name)}
    return {name for (name,) in database.execute("SELECT name FROM device WHERE namespace = ?", (namespace,))}


def load(database: sqlite3.Connection) -> Iterator[tuple[str, Credential]]:
    """Yield every device's tokens by id."""
    query = "SELECT id, namespace, name, hash, expires_ns FROM device_token"
    for id_, namespace, name, hash_, expires_ns in database.execute(query):
        yield id_, Credential(device_identity(id_, namespace, name), hash_, expires_ns)


def no_device(name: str) -> HubError:
    """Return the error that says there is no such device."""
    return NotFoundError(f"no device {name[:80]!r}; see them with: hub devices ls")


def _put_token(change: Change, namespace: str, name: str) -> str:
    id_, token = new_token("d")
    credential = Credential(device_identity(id_, namespace, name), hash_secret(token))
    row = (id_, namespace, name, credential.hash, change.now_ns)
    change.database.execute("INSERT INTO device_token VALUES (?, ?, ?, ?, ?, NULL)", row)
    change.credentials[id_] = credential
    return token


def _newest(database: sqlite3.Connection, namespace: str, name: str) -> tuple[str, Credential] | None:
    query = "SELECT id, hash FROM device_token WHERE namespace = ? AND name = ? AND expires_ns IS NULL"
    row = database.execute(query, (namespace, name)).fetchone()
    return None if row is None else (row[0], Credential(device_identity(row[0], namespace, name), row[1]))


def _end_tokens(change: Change, namespace: str, name: str, *, but: str | None = None) -> None:
    query = "DELETE FROM device_token WHERE namespace = ? AND name = ? AND id IS NOT ? RETURNING id"
    change.ended.update(id_ for (id_,) in change.database.execute(query, (namespace, name, but)).fetchall())
