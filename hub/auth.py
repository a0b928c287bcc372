"""Identities: who may connect, as what, and whether that ended meanwhile.

Owns: ``DATA/identities.sqlite3`` (mode 0600) and its copy in RAM. Place: above `device_tokens`, `claims` and
`enrolment`, whose rules work on its transactions; the gateway asks here before any session exists. Must not: keep or
log a token (only SHA-256 hashes are stored, a token is shown once), decide what a role may do on a route.

A token is ``<id>.<32 random bytes, base64url>``; it is looked up by the id
part and compared by hash in constant time. Another process may edit the file
(``hub devices add --data DIR``): `refresh`, called each half second by the
hub, notices that for the price of one pragma, and so does an unknown id.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hub import device_tokens
from hub.claims import EXPIRES_S, Claims
from hub.credential import Change, Credential, hash_secret, is_secret_of, new_token
from hub.database import transaction
from hub.device_names import check_names
from hub.device_tokens import KEEP_S, DeviceIdentity, check_enrolled_name
from hub.enrolment import Row, enrol_each
from hub.errors import BadRequestError, NotFoundError, UnavailableError
from hub.identity_file import open_identity_file, translated
from hub.roles import DEFAULT_NAMESPACE, EVERYTHING, VERBS, Identity, Role, Scopes, Verb, scopes_of

# An id of 14 characters, a dot and 43 of base64url; more is no token of ours and not worth hashing.
MAX_TOKEN_CHARS = 128
# How long an unknown id waits for the lock: `refresh` holds it for the milliseconds in which it reads the file.
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """One token of a watcher, an operator, an admin or a gateway, as listed; the secret part is not known any more."""

    id: str
    name: str
    role: Role
    scopes: Scopes
    created_ns: int
    namespace: str = DEFAULT_NAMESPACE


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
        self._is_held_up = False
        # How often anything was changed, here or by another process, as far as that was noticed.
        self.changes = 0
        self._database = open_identity_file(path)
        self._data_version = self._read_data_version()
        self._credentials = self._load()
        self.claims = Claims(self._changing, self._reading, clock)

    # --- asked on each connection and request ---------------------------------------------------

    def authenticate(self, token: str) -> Identity | None:
        """Return who the token speaks for, or None when it is unknown, wrong, ended or expired.

        Raises:
            UnavailableError: not known here, and it cannot be seen now whether another process has added it.
        """
        if len(token) > MAX_TOKEN_CHARS:
            return None
        id_ = token.partition(".")[0]
        # A device enrolled a moment ago by another process must not be told to come back in minutes.
        credential = self._credentials.get(id_) or self._find_added(id_)
        if credential is None or not is_secret_of(token, credential.hash):
            return None
        if credential.expires_ns is not None and self._clock() >= credential.expires_ns:
            return None
        return credential.identity

    def refresh(self) -> set[str]:
        """Take in what other processes changed; return ids that ended or changed since the last call.

        The caller closes what is connected with those ids.
        """
        with self._lock, translated(self._path):
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
            rotate: give devices that exist a new token instead of refusing; their old ones end at once.

        Raises:
            BadRequestError: a name is not valid; nothing was added.
            ConflictError: a device exists and ``rotate`` is false; nothing was added.
        """
        wanted = list(dict.fromkeys(check_enrolled_name(name) for name in names))
        tokens: dict[str, str] = {}
        with self._changing() as change:
            for name in wanted:
                if rotate and device_tokens.is_enrolled(change.database, namespace, name):
                    tokens[name] = device_tokens.rotate(change, namespace, name, keep_s=0)
                else:
                    tokens[name] = device_tokens.enrol(change, namespace, name)
        return tokens

    def enrol_each(
        self,
        names: Sequence[str],
        *,
        claim_s: float | None = None,
        is_allowed: Callable[[str], bool] = lambda _: True,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> list[Row]:
        """Enrol each name for itself, all in one transaction; see `hub.enrolment.enrol_each`."""
        with self._changing() as change:
            return enrol_each(change, namespace, names, claim_s=claim_s, is_allowed=is_allowed)

    def devices(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[DeviceIdentity]:
        """Return all enrolled devices by name."""
        with self._reading() as database:
            return device_tokens.enrolled(database, namespace, self._clock())

    def names(self, *, among: Collection[str] | None = None, namespace: str = DEFAULT_NAMESPACE) -> set[str]:
        """Return the names of enrolled devices; with ``among`` those of them, whatever the number of others."""
        with self._reading() as database:
            return device_tokens.names(database, namespace, among)

    def is_enrolled(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> bool:
        """Say whether there is a device of that name, also one that another process has just added.

        Raises:
            UnavailableError: it cannot be seen now.
        """
        with self._waiting_briefly() as database:
            return device_tokens.is_enrolled(database, namespace, name)

    def missing(self, devices: Set[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        """Return those of (namespace, name) that are no enrolled devices."""
        with self._reading() as database:
            return frozenset(devices).difference(database.execute("SELECT namespace, name FROM device"))

    def remove_device(self, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """End the device's tokens; its readings stay. `NotFoundError` when there is none."""
        with self._changing() as change:
            device_tokens.remove(change, namespace, name)

    def rotate_device(self, name: str, *, keep_s: float = KEEP_S, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Return a new token; the one before stays valid for ``keep_s`` (0: ends at once), older ones end.

        Raises:
            NotFoundError: no such device. BadRequestError: ``keep_s`` is out of range.
        """
        with self._changing() as change:
            return device_tokens.rotate(change, namespace, name, keep_s)

    def add_claim(
        self, device: str, *, expires_s: float = EXPIRES_S, namespace: str = DEFAULT_NAMESPACE
    ) -> tuple[str, str]:
        """Return (id, code) with which a new device fetches its token; see `hub.claims.Claims.add_single`."""
        return self.claims.add_single(device, expires_s, namespace=namespace)

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
        """Make a token of a watcher, an operator, an admin or a gateway; return (id, token).

        Args:
            match: what each verb of the role holds for; of a gateway, the names of the devices it may speak for.
            name: what it is for. Of a gateway, its name: all of its tokens have the same (`hub.children`).
            scopes: verbs that hold for other patterns than ``match``; no pattern takes the verb away.

        Raises:
            BadRequestError: the role is that of devices, has no such verb, or there is no pattern, or no name.
        """
        if role is Role.DEVICE:
            raise BadRequestError("a device token comes from adding a device: hub devices add NAME")
        held = scopes_of(role, match, scopes)
        if role is Role.GATEWAY:
            check_enrolled_name(name)
            for pattern in held.get(Verb.WRITE, ()):
                check_names(pattern, "prefix")
        return self._put_token("t", role, held, name, namespace, expires_ns=None)

    def tokens(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[TokenIdentity]:
        """Return all tokens but those of devices, oldest first; sessions of the page are not listed."""
        query = (
            "SELECT id, name, role, match, created_ns, namespace FROM token "
            "WHERE namespace = ? AND NOT is_session ORDER BY created_ns, id"
        )
        with self._lock, translated(self._path):
            return [
                TokenIdentity(id_, name, Role(role), _scopes(role, text), created_ns, space)
                for id_, name, role, text, created_ns, space in self._database.execute(query, (namespace,))
            ]

    def remove_token(self, id: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """End a token (or a session). `NotFoundError` when there is none with that id."""
        with self._changing() as change:
            query = "DELETE FROM token WHERE namespace = ? AND id = ?"
            if change.database.execute(query, (namespace, id)).rowcount == 0:
                raise NotFoundError("no token of this id; see them with: hub tokens ls")
            change.ended.add(id)

    def add_session(self, role: Role, ttl_s: float, *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Return a cookie value that is good for ``ttl_s`` seconds; it survives a restart of the hub."""
        expires_ns = self._clock() + round(ttl_s * 1e9)
        return self._put_token("s", role, scopes_of(role), "page", namespace, expires_ns=expires_ns)[1]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    # --- inside -------------------------------------------------------------------------------------

    def _put_token(
        self, prefix: str, role: Role, scopes: Scopes, name: str, namespace: str, *, expires_ns: int | None
    ) -> tuple[str, str]:
        id_, token = new_token(prefix)
        with self._changing() as change:
            row = (
                id_, hash_secret(token), role.value, name, namespace, json.dumps(scopes), change.now_ns, expires_ns,
                expires_ns is not None,
            )  # fmt: skip
            change.database.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            identity = Identity(id_, name, role, namespace, scopes, expires_ns)
            change.credentials[id_] = Credential(identity, row[1], expires_ns)
        return id_, token

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path):
            yield self._database

    @contextmanager
    def _changing(self) -> Iterator[Change]:
        """One durable transaction; afterwards the copy in RAM has what it changed.

        Only that: with 3,000 devices a copy made anew would cost more than the fsync.
        """
        with self._lock, translated(self._path):
            change = Change(self._database, self._clock())
            with transaction(self._database, self._path):
                yield change
            self.changes += 1
            self._credentials.update(change.credentials)
            for id_ in change.ended:
                self._credentials.pop(id_, None)
            self._ended |= change.ended

    def _find_added(self, id: str) -> Credential | None:
        with self._waiting_briefly():
            self._take_in_changes()
            return self._credentials.get(id)

    @contextmanager
    def _waiting_briefly(self) -> Iterator[sqlite3.Connection]:
        # On the event loop: an edit in a thread may hold the lock for seconds, while another process writes the file.
        # That is waited for once, not by each who asks.
        if not self._lock.acquire(timeout=0 if self._is_held_up else LOOK_S):
            self._is_held_up = True
            raise UnavailableError("identities are being changed: try again in a second")
        self._is_held_up = False
        try:
            with translated(self._path):
                yield self._database
        finally:
            self._lock.release()

    def _take_in_changes(self) -> None:
        version = self._read_data_version()
        if version != self._data_version:
            self._replace(self._load())
            self.changes += 1
            # Only now: a load that failed is tried again.
            self._data_version = version

    def _load(self) -> dict[str, Credential]:
        out = dict(device_tokens.load(self._database))
        query = "SELECT id, hash, role, name, namespace, match, expires_ns FROM token"
        for id_, hash_, role, name, namespace, scopes, expires_ns in self._database.execute(query):
            identity = Identity(id_, name, Role(role), namespace, _scopes(role, scopes), expires_ns)
            out[id_] = Credential(identity, hash_, expires_ns)
        return out

    def _replace(self, credentials: dict[str, Credential]) -> None:
        for id_, old in self._credentials.items():
            new = credentials.get(id_)
            # Another end is no end: `_end_expired` sees it when it comes.
            if new is None or (new.identity, new.hash) != (old.identity, old.hash):
                self._ended.add(id_)
        self._credentials = credentials

    def _end_expired(self) -> None:
        now_ns = self._clock()
        expired = [id_ for id_, c in self._credentials.items() if c.expires_ns is not None and now_ns >= c.expires_ns]
        if expired:
            # Refused and closed in any case; on a full or locked disk their rows go with a later call.
            self._ended.update(expired)
            with suppress(UnavailableError), self._changing() as change:
                change.ended.update(expired)
                for query in ("DELETE FROM token WHERE id = ?", "DELETE FROM device_token WHERE id = ?"):
                    change.database.executemany(query, [(id_,) for id_ in expired])

    def _read_data_version(self) -> int:
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(version)


def _scopes(role: str, text: str) -> Scopes:
    found = json.loads(text)
    # Once a token had patterns alone, for all that its role may do.
    if isinstance(found, list):
        return dict.fromkeys(VERBS[Role(role)], tuple(found))
    return {Verb(verb): tuple(patterns) for verb, patterns in found.items()}
