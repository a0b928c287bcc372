"""Users of the page: people with a name, a role and a password, and their sessions.

Owns: ``DATA/users.sqlite3`` (mode 0600), and of it in RAM what each request asks: the sessions. Place: above
`database`, below `sign_in` and the gateway. Must not: keep a password, a session's cookie or an invitation (hashes
only), hash passwords itself (they arrive hashed: `hub.passwords`).

A name belongs to one user of the whole hub: whoever signs in says a name, and the namespace follows from it. Another
process may edit the file (``hub users passwd --data DIR``); `refresh` notices.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub.database import FULL, open_database, transaction
from hub.errors import BadRequestError, ConflictError, NotFoundError, UnauthenticatedError, UnavailableError
from hub.roles import DEFAULT_NAMESPACE, EVERYTHING, SENDERS, Identity, Role, Scopes, Verb, scopes_of

USERS = "users.sqlite3"
# People, not programs; those use tokens.
MAX_USERS = 1000
# Of one user: each of his browsers; the oldest ends.
MAX_SESSIONS = 20
SESSION_S = 7 * 86400.0
# A link travels by mail or messenger and is opened on the next working day.
INVITE_S = 3 * 86400.0
BUSY_TIMEOUT_S = 5.0
# A cookie or a code of ours is 57 or 32 characters; more is not worth hashing.
MAX_SECRET_CHARS = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_VERSION = 1
_SCHEMA = """
CREATE TABLE user (
    name TEXT PRIMARY KEY, namespace TEXT NOT NULL, role TEXT NOT NULL, scopes TEXT NOT NULL, hash TEXT,
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE invite (name TEXT PRIMARY KEY, hash BLOB NOT NULL, expires_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE session (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, name TEXT NOT NULL, created_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class User:
    """One user as listed; without ``has_password`` an invitation is open, or ended unused."""

    name: str
    role: Role
    scopes: Scopes
    namespace: str
    has_password: bool
    created_ns: int


@dataclass(frozen=True, slots=True)
class _Session:
    identity: Identity
    hash: bytes
    expires_ns: int


class Users:
    """The file of users. Changes are durable when the call returns and count at once. Safe from any thread.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        clock: wall time in ns.

    Every method that reads or writes the file raises `UnavailableError` when it cannot.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._ended: set[str] = set()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = open_database(
            path, _SCHEMA, _VERSION, synchronous=FULL, error=UnavailableError, busy_timeout_s=BUSY_TIMEOUT_S
        )
        self._data_version = self._read_data_version()
        self._sessions = self._load()

    # --- asked on each request ----------------------------------------------------------------------

    def authenticate(self, cookie: str) -> Identity | None:
        """Return whose session the cookie is, or None when there is none, or it ended; reads no row."""
        session = self._sessions.get(cookie.partition(".")[0]) if len(cookie) <= MAX_SECRET_CHARS else None
        if session is None or not hmac.compare_digest(_hash(cookie), session.hash):
            return None
        return session.identity if self._clock() < session.expires_ns else None

    def refresh(self) -> set[str]:
        """Take in what other processes changed; return sessions that ended since the last call.

        The caller closes what is connected with those ids.
        """
        with self._lock, self._translated():
            version = self._read_data_version()
            if version != self._data_version:
                self._replace(self._load())
                self._data_version = version
            now_ns = self._clock()
            self._replace({id_: s for id_, s in self._sessions.items() if now_ns < s.expires_ns})
            ended, self._ended = self._ended, set()
            return ended

    # --- users --------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        role: Role,
        match: Sequence[str] = EVERYTHING,
        *,
        scopes: Mapping[Verb, Sequence[str]] | None = None,
        hash: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> None:
        """Add a user; without ``hash`` it cannot sign in before its invitation is used.

        Raises:
            BadRequestError: no name, no role of people, a verb that the role has not.
            ConflictError: the name is taken, or there are `MAX_USERS`.
        """
        if not _NAME.fullmatch(name):
            raise BadRequestError(
                "a user's name has 1 to 64 letters, digits and . _ - @, and begins with a letter or digit"
            )
        text = _scopes_text(role, match, scopes)
        with self._changing() as database:
            (count,) = database.execute("SELECT count(*) FROM user").fetchone()
            if count >= MAX_USERS:
                raise ConflictError(f"this hub has {MAX_USERS} users, the most it may; remove some: hub users rm NAME")
            if database.execute("SELECT 1 FROM user WHERE name = ?", (name,)).fetchone():
                # One sentence for every namespace: people sign in by name alone, so a name is taken on the whole hub.
                raise ConflictError(f"the user name {name!r} is taken on this hub: hub users ls, or choose another")
            row = (name, namespace, role.value, text, hash, self._clock())
            database.execute("INSERT INTO user VALUES (?, ?, ?, ?, ?, ?)", row)

    def users(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[User]:
        """Return the users of a namespace by name."""
        query = "SELECT name, role, scopes, namespace, hash, created_ns FROM user WHERE namespace = ? ORDER BY name"
        with self._lock, self._translated():
            return [
                User(name, Role(role), _read_scopes(text), space, hash_ is not None, created_ns)
                for name, role, text, space, hash_, created_ns in self._database.execute(query, (namespace,))
            ]

    def is_empty(self) -> bool:
        """Say whether nobody was added yet, in any namespace."""
        with self._lock, self._translated():
            return self._database.execute("SELECT 1 FROM user LIMIT 1").fetchone() is None

    def change(
        self,
        name: str,
        role: Role,
        match: Sequence[str] = EVERYTHING,
        *,
        scopes: Mapping[Verb, Sequence[str]] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> None:
        """Give a user another role or other scopes; its sessions end. Raises as `add`, `NotFoundError` for no user."""
        text = _scopes_text(role, match, scopes)
        with self._changing() as database:
            _update(database, "role = ?, scopes = ?", (role.value, text), name, namespace)

    def set_password(self, name: str, hash: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Replace the password; sessions and the open invitation end. `NotFoundError` for no user."""
        with self._changing() as database:
            _update(database, "hash = ?", (hash,), name, namespace)

    def remove(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Remove a user; its sessions end. `NotFoundError` for no user."""
        with self._changing() as database:
            if not database.execute("DELETE FROM user WHERE name = ? AND namespace = ?", (name, namespace)).rowcount:
                raise _no_user(name)
            _end(database, name)

    # --- invitations --------------------------------------------------------------------------------

    def invite(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Return a code that is good once, for `INVITE_S`, to set the user's password; an earlier one ends."""
        code = secrets.token_urlsafe(24)
        with self._changing() as database:
            query = "SELECT 1 FROM user WHERE name = ? AND namespace = ?"
            if database.execute(query, (name, namespace)).fetchone() is None:
                raise _no_user(name)
            row = (name, _hash(code), self._clock() + round(INVITE_S * 1e9))
            database.execute("INSERT OR REPLACE INTO invite VALUES (?, ?, ?)", row)
        return code

    def invited(self, code: str) -> str | None:
        """Return whose invitation the code is, or None when it is unknown, used or too old."""
        if len(code) > MAX_SECRET_CHARS:
            return None
        query = "SELECT name FROM invite WHERE hash = ? AND expires_ns > ?"
        with self._lock, self._translated():
            row = self._database.execute(query, (_hash(code), self._clock())).fetchone()
        return None if row is None else str(row[0])

    def accept(self, code: str, hash: str) -> str:
        """Use the invitation up: set the password, return the name. `UnauthenticatedError` when it is not good."""
        with self._changing() as database:
            name = self.invited(code)
            if name is None:
                raise UnauthenticatedError("this invitation was used already, or is too old: ask for a new one")
            database.execute("UPDATE user SET hash = ? WHERE name = ?", (hash, name))
            _end(database, name)
        return name

    # --- sessions -----------------------------------------------------------------------------------

    def password_of(self, name: str) -> str | None:
        """Return the hash of a user's password; None when there is no such user, or no password yet."""
        with self._lock, self._translated():
            row = self._database.execute("SELECT hash FROM user WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def open_session(self, name: str, hash: str) -> str | None:
        """Return the cookie of a new session, good for `SESSION_S`, also over a restart of the hub.

        Args:
            hash: what the password was compared with; None is returned when the user has another one meanwhile.
        """
        id_ = "u" + secrets.token_hex(6)
        cookie = f"{id_}.{base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b'=').decode()}"
        now_ns = self._clock()
        with self._changing() as database:
            if database.execute("SELECT 1 FROM user WHERE name = ? AND hash = ?", (name, hash)).fetchone() is None:
                return None
            database.execute("DELETE FROM session WHERE expires_ns <= ?", (now_ns,))
            row = (id_, _hash(cookie), name, now_ns, now_ns + round(SESSION_S * 1e9))
            database.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?)", row)
            database.execute(
                "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE name = ? "
                "ORDER BY created_ns DESC, id LIMIT -1 OFFSET ?)",
                (name, MAX_SESSIONS),
            )
        return cookie

    def end_session(self, id: str) -> None:
        """End a session by its id; none of that id is no error."""
        with self._changing() as database:
            database.execute("DELETE FROM session WHERE id = ?", (id,))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    # --- inside -------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; afterwards the sessions in RAM are the file's."""
        with self._lock, self._translated():
            with transaction(self._database, self._path):
                yield self._database
                held = self._load()  # before COMMIT: what cannot be read again is undone
            self._replace(held)

    def _load(self) -> dict[str, _Session]:
        query = (
            "SELECT s.id, s.hash, s.expires_ns, u.name, u.role, u.scopes, u.namespace "
            "FROM session s JOIN user u ON u.name = s.name"
        )
        return {
            id_: _Session(Identity(id_, name, Role(role), space, _read_scopes(text), expires_ns), hash_, expires_ns)
            for id_, hash_, expires_ns, name, role, text, space in self._database.execute(query)
        }

    def _replace(self, sessions: dict[str, _Session]) -> None:
        self._ended |= {id_ for id_, old in self._sessions.items() if sessions.get(id_) != old}
        self._sessions = sessions

    def _read_data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"users in {self._path}: {error}; check the disk, owner and free space") from error


def _scopes_text(role: Role, match: Sequence[str], scopes: Mapping[Verb, Sequence[str]] | None) -> str:
    if role in SENDERS:
        raise BadRequestError("a user is a watcher, an operator or an admin; devices and gateways have tokens")
    return json.dumps(scopes_of(role, match, scopes))


def _read_scopes(text: str) -> Scopes:
    return {Verb(verb): tuple(patterns) for verb, patterns in json.loads(text).items()}


def _update(database: sqlite3.Connection, what: str, values: tuple[str, ...], name: str, namespace: str) -> None:
    statement = f"UPDATE user SET {what} WHERE name = ? AND namespace = ?"  # noqa: S608 - columns named above
    if not database.execute(statement, (*values, name, namespace)).rowcount:
        raise _no_user(name)
    _end(database, name)


def _end(database: sqlite3.Connection, name: str) -> None:
    """End what opens a door in that name: sessions and the invitation."""
    database.execute("DELETE FROM session WHERE name = ?", (name,))
    database.execute("DELETE FROM invite WHERE name = ?", (name,))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _no_user(name: str) -> NotFoundError:
    return NotFoundError(f"no user {name[:64]!r}; see them with: hub users ls")
