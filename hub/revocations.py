"""Certificates that nobody may use any more, by fingerprint.

Owns: ``DATA/certificates.sqlite3`` (mode 0600) and its copy in RAM. Place: above `certificate` and `database`; the
gateway asks here at each connection by certificate. Must not: know who is connected.

Another process may edit the file (``hub certificates revoke --data DIR``); `refresh` notices. A revocation belongs to a
namespace: an admin of one cannot shut out the devices of another.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub.certificate import check_fingerprint
from hub.database import FULL, open_database, transaction
from hub.errors import ConflictError, NotFoundError, UnavailableError
from hub.roles import DEFAULT_NAMESPACE

CERTIFICATES = "certificates.sqlite3"
# Of a namespace: three for each of 3,000 devices. In RAM about 150 bytes each.
MAX_REVOKED = 10_000
MAX_NOTE_CHARS = 200
BUSY_TIMEOUT_S = 5.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE revoked (
    namespace TEXT NOT NULL, fingerprint TEXT NOT NULL, note TEXT NOT NULL, revoked_ns INTEGER NOT NULL,
    PRIMARY KEY (namespace, fingerprint)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revoked certificate; ``note`` says to people which one it was, or why."""

    fingerprint: str
    note: str
    revoked_ns: int


class Revocations:
    """The file of revocations. Changes are durable when the call returns and count at once. Safe from any thread.

    Args:
        path: the SQLite file; made with mode 0600 when absent.
        clock: wall time in ns.

    Every method that reads or writes the file raises `UnavailableError` when it cannot.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = open_database(
            path, _SCHEMA, _VERSION, synchronous=FULL, error=UnavailableError, busy_timeout_s=BUSY_TIMEOUT_S
        )
        self._data_version = self._read_data_version()
        self._revoked = self._load()

    def is_revoked(self, namespace: str, fingerprint: str) -> bool:
        """Say whether a certificate is revoked, as far as known here; reads no row."""
        return (namespace, fingerprint) in self._revoked

    def refresh(self) -> None:
        """Take in what other processes changed."""
        with self._lock, self._translated():
            version = self._read_data_version()
            if version != self._data_version:
                self._revoked = self._load()
                # Only now: a load that failed is tried again.
                self._data_version = version

    def revoke(self, fingerprint: str, note: str = "", *, namespace: str = DEFAULT_NAMESPACE) -> str:
        """Revoke a certificate, known or not; again is no error. Return the fingerprint as it is kept.

        Raises:
            BadRequestError: no SHA-256. ConflictError: there are `MAX_REVOKED` in the namespace.
        """
        digits = check_fingerprint(fingerprint)
        with self._changing() as database:
            query = "SELECT count(*) FROM revoked WHERE namespace = ? AND fingerprint != ?"
            if database.execute(query, (namespace, digits)).fetchone()[0] >= MAX_REVOKED:
                raise ConflictError(
                    f"{MAX_REVOKED} certificates are revoked, the most a namespace may have: restore those that have "
                    "expired, or make a new authority and give it with --tls-client-ca"
                )
            database.execute(
                "INSERT OR IGNORE INTO revoked VALUES (?, ?, ?, ?)",
                (namespace, digits, note[:MAX_NOTE_CHARS], self._clock()),
            )
        return digits

    def restore(self, fingerprint: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Let a certificate be used again.

        Raises:
            BadRequestError: no SHA-256. NotFoundError: it is not revoked.
        """
        digits = check_fingerprint(fingerprint)
        with self._changing() as database:
            query = "DELETE FROM revoked WHERE namespace = ? AND fingerprint = ?"
            if not database.execute(query, (namespace, digits)).rowcount:
                raise NotFoundError(f"{digits} is not revoked; see what is with: hub certificates ls")

    def revoked(self, *, namespace: str = DEFAULT_NAMESPACE) -> list[Revoked]:
        """Return what is revoked, the latest first."""
        query = (
            "SELECT fingerprint, note, revoked_ns FROM revoked WHERE namespace = ? "
            "ORDER BY revoked_ns DESC, fingerprint"
        )
        with self._lock, self._translated():
            return [Revoked(*row) for row in self._database.execute(query, (namespace,))]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; afterwards the copy in RAM is the file's."""
        with self._lock, self._translated():
            with transaction(self._database, self._path):
                yield self._database
                held = self._load()  # before COMMIT: what cannot be read again is undone
            self._revoked = held

    def _load(self) -> frozenset[tuple[str, str]]:
        return frozenset(self._database.execute("SELECT namespace, fingerprint FROM revoked"))

    def _read_data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"revoked certificates in {self._path}: {error}; check the disk, owner and free space"
            ) from error
