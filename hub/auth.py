"""Identities: who may connect, as what, and whether that ended meanwhile.

Owns: ``DATA/identities.sqlite3`` (mode 0600) and its copy in RAM. Place: after
`errors`; the gateway asks here before any session exists. Must not: keep or
log a token (only SHA-256 hashes are stored, a token is shown once), decide
what a role may do on a route.

A token is ``<id>.<32 random bytes, base64url>``; it is looked up by the id
part and compared by hash in constant time. Another process may edit the file
(``hub devices add --data DIR``): `refresh`, called each half second by the
hub, notices that for the price of one pragma, and so does an unknown id.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from device_sdk.errors import MisuseError
from device_sdk.reading import check_device_name
from hub.errors import BadRequestError, ConflictError, HubError, NotFoundError, UnavailableError
from hub.roles import DEFAULT_NAMESPACE, EVERYTHING, Identity, Role, Scopes, Verb, scopes_of

# An id of 14 characters, a dot and 43 of base64url; more is no token of ours and not worth hashing.
MAX_TOKEN_CHARS = 128
# How long an edit waits for another process's edit; each takes one fsync.
BUSY_TIMEOUT_MS = 5000
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    namespace TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL UNIQUE, hash BLOB NOT NULL,
    created_ns INTEGER NOT NULL, rotated_ns INTEGER, PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS token (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, namespace TEXT NOT NULL,
    match TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER, is_session INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """One enrolled device; ``rotated_ns`` is None until its first rotation."""

    name: str
    id: str
    created_ns: int
    rotated_ns: int | None = None
    namespace: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """One token of a watcher, an operator or an admin, as listed; the secret part is not known any more."""

    id: str
    name: str
    role: Role
    scopes: Scopes
    created_ns: int
    namespace: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class _Credential:
    identity: Identity
    hash: bytes
    expires_ns: int | None


class Identities:
    """The file of identities and its copy in RAM.

    `authenticate` reads no row (about 2 µs). Changes made here are durable
    when the call returns and count at once. What another process added counts
    at once too; what it ended counts after the next `refresh`. Safe from any
    thread.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        clock: wall time in ns, for sessions that end and for ``created_ns``.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._ended: set[str] = set()
        self._database = _open(path)
        self._data_version = self._read_data_version()
        self._credentials = self._load()

    # --- asked on each connection and request ---------------------------------------------------

    def authenticate(self, token: str) -> Identity | None:
        """Return who the token speaks for, or None when it is unknown, wrong, ended or expired."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        id_ = token.partition(".")[0]
        # A device enrolled a moment ago by another process must not be told to come back in minutes.
        credential = self._credentials.get(id_) or self._find_added(id_)
        if credential is None or not hmac.compare_digest(_hash(token), credential.hash):
            return None
        if credential.expires_ns is not None and self._clock() >= credential.expires_ns:
            return None
        return credential.identity

    def refresh(self) -> set[str]:
        """Take in what other processes changed; return ids that ended or changed since the last call.

        The caller closes what is connected with those ids.
        """
        with self._lock, _translated(self._path):
            self._take_in_changes()
            self._end_expired()
            ended, self._ended = self._ended, set()
            return ended

    # --- devices ----------------------------------------------------------------------------------

    def add_device(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Enrol a device and return its token, which is not shown again.

        Raises:
            BadRequestError: the name is not valid.
            ConflictError: a device of that name exists.
        """
        return self.add_devices([name], namespace=namespace)[name]

    def add_devices(
        self, names: Iterable[str], *, rotate: bool = False, namespace: str = DEFAULT_NAMESPACE
    ) -> dict[str, str]:
        """Enrol all devices in one transaction and return name → token.

        Args:
            rotate: give devices that exist a new token instead of refusing.

        Raises:
            BadRequestError: a name is not valid; nothing was added.
            ConflictError: a device exists and ``rotate`` is false; nothing was added.
        """
        wanted = list(dict.fromkeys(_checked_device(name) for name in names))
        tokens: dict[str, str] = {}
        with self._changing() as database:
            for name in wanted:
                tokens[name] = self._put_device(database, namespace, name, rotate)
        return tokens

    def devices(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[DeviceIdentity]:
        """Return all enrolled devices by name."""
        query = "SELECT name, id, created_ns, rotated_ns, namespace FROM device WHERE namespace = ? ORDER BY name"
        with self._lock, _translated(self._path):
            return [DeviceIdentity(*row) for row in self._database.execute(query, (namespace,))]

    def remove_device(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """End the device's credential; its readings stay. `NotFoundError` when there is none."""
        with self._changing() as database:
            if database.execute("DELETE FROM device WHERE namespace = ? AND name = ?", (namespace, name)).rowcount == 0:
                raise _no_device(name)

    def rotate_device(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Return a new token; the old one ends at once. `NotFoundError` when there is no such device."""
        with self._changing() as database:
            if not _device_exists(database, namespace, name):
                raise _no_device(name)
            return self._put_device(database, namespace, name, rotate=True)

    # --- watchers, admins, sessions of the page -----------------------------------------------------

    def add_token(
        self,
        role: Role,
        match: Sequence[str] = EVERYTHING,
        name: str = "",
        *,
        scopes: Mapping[Verb, Sequence[str]] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> tuple[str, str]:
        """Make a token of a watcher, an operator or an admin; return (id, token).

        Args:
            match: what each verb of the role holds for.
            scopes: verbs that hold for other patterns than ``match``; no pattern takes the verb away.

        Raises:
            BadRequestError: the role is that of devices, has no such verb, or there is no pattern.
        """
        if role is Role.DEVICE:
            raise BadRequestError("a device token comes from adding a device: hub devices add NAME")
        return self._put_token("t", role, scopes_of(role, match, scopes), name, namespace, expires_ns=None)

    def tokens(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[TokenIdentity]:
        """Return all tokens but those of devices, oldest first; sessions of the page are not listed."""
        query = (
            "SELECT id, name, role, match, created_ns, namespace FROM token "
            "WHERE namespace = ? AND NOT is_session ORDER BY created_ns, id"
        )
        with self._lock, _translated(self._path):
            return [
                TokenIdentity(id_, name, Role(role), _scopes(role, text), created_ns, space)
                for id_, name, role, text, created_ns, space in self._database.execute(query, (namespace,))
            ]

    def remove_token(self, id: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """End a token (or a session). `NotFoundError` when there is none with that id."""
        with self._changing() as database:
            if database.execute("DELETE FROM token WHERE namespace = ? AND id = ?", (namespace, id)).rowcount == 0:
                raise NotFoundError(f"no token {id[:40]!r}; see them with: hub tokens ls")

    def add_session(self, role: Role, ttl_s: float, *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Return a cookie value that is good for ``ttl_s`` seconds; it survives a restart of the hub."""
        expires_ns = self._clock() + round(ttl_s * 1e9)
        return self._put_token("s", role, scopes_of(role), "page", namespace, expires_ns=expires_ns)[1]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    # --- inside -------------------------------------------------------------------------------------

    def _put_device(self, database: sqlite3.Connection, namespace: str, name: str, rotate: bool) -> str:
        id_, token = _new_token("d")
        now_ns = self._clock()
        if _device_exists(database, namespace, name):
            if not rotate:
                raise ConflictError(f"device {name!r} exists; for a new token: hub devices rotate {name}")
            database.execute(
                "UPDATE device SET id = ?, hash = ?, rotated_ns = ? WHERE namespace = ? AND name = ?",
                (id_, _hash(token), now_ns, namespace, name),
            )
        else:
            database.execute(
                "INSERT INTO device (namespace, name, id, hash, created_ns) VALUES (?, ?, ?, ?, ?)",
                (namespace, name, id_, _hash(token), now_ns),
            )
        return token

    def _put_token(
        self, prefix: str, role: Role, scopes: Scopes, name: str, namespace: str, *, expires_ns: int | None
    ) -> tuple[str, str]:
        id_, token = _new_token(prefix)
        row = (
            id_, _hash(token), role.value, name, namespace, json.dumps(scopes), self._clock(), expires_ns,
            expires_ns is not None,
        )  # fmt: skip
        with self._changing() as database:
            database.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return id_, token

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; afterwards the copy in RAM is the file's content."""
        with self._lock, _translated(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            self._replace(self._load())

    def _find_added(self, id: str) -> _Credential | None:
        with self._lock, _translated(self._path):
            self._take_in_changes()
            return self._credentials.get(id)

    def _take_in_changes(self) -> None:
        version = self._read_data_version()
        if version != self._data_version:
            self._replace(self._load())
            # Only now: a load that failed is tried again.
            self._data_version = version

    def _load(self) -> dict[str, _Credential]:
        out: dict[str, _Credential] = {}
        for namespace, name, id_, hash_ in self._database.execute("SELECT namespace, name, id, hash FROM device"):
            identity = Identity(id_, name, Role.DEVICE, namespace, scopes_of(Role.DEVICE, (f"{name}/**",)))
            out[id_] = _Credential(identity, hash_, None)
        query = "SELECT id, hash, role, name, namespace, match, expires_ns FROM token"
        for id_, hash_, role, name, namespace, scopes, expires_ns in self._database.execute(query):
            identity = Identity(id_, name, Role(role), namespace, _scopes(role, scopes))
            out[id_] = _Credential(identity, hash_, expires_ns)
        return out

    def _replace(self, credentials: dict[str, _Credential]) -> None:
        self._ended |= {id_ for id_, old in self._credentials.items() if credentials.get(id_) != old}
        self._credentials = credentials

    def _end_expired(self) -> None:
        now_ns = self._clock()
        expired = [id_ for id_, c in self._credentials.items() if c.expires_ns is not None and now_ns >= c.expires_ns]
        if expired:
            # Refused and closed in any case; on a full or locked disk their rows go with a later call.
            self._ended.update(expired)
            with suppress(UnavailableError), self._changing() as database:
                database.executemany("DELETE FROM token WHERE id = ?", [(id_,) for id_ in expired])

    def _read_data_version(self) -> int:
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(version)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _translated(path):
        # SQLite gives its -wal and -shm files the mode of the main file, so this one call covers all three.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise UnavailableError(f"{path}: SQLite cannot use a write-ahead log here; keep the data on a local disk")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise UnavailableError(f"{path} was written by a newer hub (schema {version}); upgrade this one")
        if version < SCHEMA_VERSION:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    return database


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(f"identities in {path}: {error}; check the disk, the owner and free space") from error


def _scopes(role: str, text: str) -> Scopes:
    found = json.loads(text)
    # Once a token had patterns alone, for all that its role may do.
    if isinstance(found, list):
        return scopes_of(Role(role), found)
    return {Verb(verb): tuple(patterns) for verb, patterns in found.items()}


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _new_token(prefix: str) -> tuple[str, str]:
    id_ = prefix + secrets.token_hex(6)
    return id_, f"{id_}.{base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b'=').decode()}"


def _checked_device(name: str) -> str:
    try:
        return check_device_name(name)
    except MisuseError as error:
        raise BadRequestError(str(error)) from error


def _device_exists(database: sqlite3.Connection, namespace: str, name: str) -> bool:
    query = "SELECT 1 FROM device WHERE namespace = ? AND name = ?"
    return database.execute(query, (namespace, name)).fetchone() is not None


def _no_device(name: str) -> HubError:
    return NotFoundError(f"no device {name[:80]!r}; see them with: hub devices ls")
