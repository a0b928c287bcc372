"""Claim codes: what lets a device fetch its own token, once, from an open door.

Owns: the rows of claims and of who used them, and the rules of redeeming. Place: above `device_tokens`; `auth` owns the
file and gives the transactions. Must not: store or log a code (only its hash is kept, a code is shown once).

A claim is for one device by name, or for a group: a pattern of names and a quota. A code that is unknown, used up or
expired gets one and the same answer, so a guesser learns nothing. A device whose answer got lost may claim again while
the code lives, if it sends the same ``retry`` secret (docs/decisions/0010-claiming.md).
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hub import device_tokens
from hub.credential import Change, hash_secret, is_secret_of, new_code
from hub.device_names import check_names, is_among
from hub.errors import BadRequestError, ConflictError, ForbiddenError, HubError, NotFoundError

# Long enough to walk to the device with it, short enough to be worthless on a photo.
EXPIRES_S = 15 * 60.0
MIN_EXPIRES_S = 1.0
# A code on a sticker in a box that is opened next season.
MAX_EXPIRES_S = 90 * 86400.0
# A group is a fleet of one kind; the same as one request of bulk enrolment.
MAX_QUOTA = 10_000
# All open claims of a hub: two fleets of codes printed in one go, about 4 MB of file.
MAX_CLAIMS = 20_000
# An id of 13 characters, a dot, 26 of base32; with blanks from a copied line.
MAX_CODE_CHARS = 64
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as listed: for ``device``, or for up to ``quota`` devices whose names ``match``."""

    id: str
    device: str | None
    match: str | None
    quota: int
    used: int
    created_ns: int
    expires_ns: int
    namespace: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a redeemed code gave: the token is not shown again. ``is_again``: in place of one that got lost."""

    device: str
    token: str
    namespace: str
    is_again: bool


class Claims:
    """The claims in the file of identities; made by `hub.auth.Identities`. Safe from any thread.

    Args:
        changing: gives one durable transaction. reading: gives the file for a look. clock: wall time in ns.
    """

    def __init__(
        self,
        changing: Callable[[], AbstractContextManager[Change]],
        reading: Callable[[], AbstractContextManager[sqlite3.Connection]],
        clock: Callable[[], int],
    ) -> None:
        self._changing = changing
        self._reading = reading
        self._clock = clock

    def add_group(self, match: str, quota: int, expires_s: float, *, namespace: str) -> tuple[str, str]:
        """Return (id, code) of a claim for up to ``quota`` devices whose names match.

        Raises:
            BadRequestError: pattern, quota or time is out of range. ConflictError: there are `MAX_CLAIMS`.
        """
        check_names(match)
        if not 1 <= quota <= MAX_QUOTA:
            raise BadRequestError(f"quota {quota}: use 1 to {MAX_QUOTA} devices; make several claims for more")
        with self._changing() as change:
            return _put(change, namespace, None, match, quota, expires_s)

    def add_single(self, device: str, expires_s: float = EXPIRES_S, *, namespace: str) -> tuple[str, str]:
        """Return (id, code) of a claim for one new device; an older unused one for it ends.

        Raises:
            BadRequestError: the name is not valid, or the time out of range. ConflictError: the device exists, or there
                are `MAX_CLAIMS` claims.
        """
        with self._changing() as change:
            return put_single(change, namespace, device, expires_s)

    def listed(self, *, namespace: str) -> list[Claim]:
        """Return the claims that have not expired, oldest first; a used up one stays listed until it expires."""
        query = (
            "SELECT id, device, match, quota, used, created_ns, expires_ns, namespace FROM claim "
            "WHERE namespace = ? AND expires_ns > ? ORDER BY created_ns, id"
        )
        with self._reading() as database:
            return [Claim(*row) for row in database.execute(query, (namespace, self._clock()))]

    def remove(self, id: str, *, namespace: str) -> None:
        """End a claim; devices that used it keep their tokens. `NotFoundError` when there is none with that id."""
        with self._changing() as change:
            query = "DELETE FROM claim WHERE namespace = ? AND id = ? AND expires_ns > ?"
            if change.database.execute(query, (namespace, id, change.now_ns)).rowcount == 0:
                raise NotFoundError("no claim of this id; see them with: hub claims ls")
            change.database.execute("DELETE FROM claimed WHERE claim = ?", (id,))

    def redeem(self, code: str, device: str | None = None, retry: str | None = None) -> Claimed:
        """Enrol the device that the code is for and return its token, durable in the file.

        Args:
            device: its name; may be left out where the claim names it.
            retry: a secret that the device made up; the same code, device and retry give a new token in place of one
                whose answer was lost, while the code lives and the device was given no other token since.

        Raises:
            ForbiddenError: the code is unknown, used up or expired, or is not for a device of that name.
            BadRequestError: the claim is for a group and there is no name, or no valid one.
            ConflictError: a device of that name exists.
        """
        code = code.strip().lower()
        with self._reading() as database:
            # Before the transaction: a guess must not hold the file's write lock.
            _find(database, code, self._clock())
        with self._changing() as change:
            claim = _find(change.database, code, change.now_ns)
            is_again = _is_again(change.database, claim, device or claim.device or "", retry)
            if claim.used >= claim.quota and not is_again:
                raise _refused()
            name = _name_for(claim, device)
            token = _claim(change, claim, name, retry, is_again=is_again)
            return Claimed(name, token, claim.namespace, is_again)


def put_single(change: Change, namespace: str, device: str, expires_s: float) -> tuple[str, str]:
    """Do as `Claims.add_single` inside a transaction."""
    device_tokens.check_enrolled_name(device)
    if device_tokens.is_enrolled(change.database, namespace, device):
        raise ConflictError(f"device {device!r} exists; for a new token: hub devices rotate {device}")
    change.database.execute("DELETE FROM claim WHERE namespace = ? AND device = ? AND used = 0", (namespace, device))
    return _put(change, namespace, device, None, 1, expires_s)


def _put(
    change: Change, namespace: str, device: str | None, match: str | None, quota: int, expires_s: float
) -> tuple[str, str]:
    if not MIN_EXPIRES_S <= expires_s <= MAX_EXPIRES_S:
        raise BadRequestError(
            f"a claim lives {MIN_EXPIRES_S:g} s to {MAX_EXPIRES_S / 86400:g} d, not {expires_s:g} s; e.g. --expires 15m"
        )
    database = change.database
    if _is_full(database):
        database.execute("DELETE FROM claim WHERE expires_ns <= ?", (change.now_ns,))
        database.execute("DELETE FROM claimed WHERE claim NOT IN (SELECT id FROM claim)")
        if _is_full(database):
            raise ConflictError(f"there are {MAX_CLAIMS} open claims; end some with hub claims rm, or wait for them")
    id_, code = new_code()
    expires_ns = change.now_ns + round(expires_s * 1e9)
    row = (id_, hash_secret(code), namespace, device, match, quota, 0, change.now_ns, expires_ns)
    database.execute("INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return id_, code


def _is_full(database: sqlite3.Connection) -> bool:
    (count,) = database.execute("SELECT count(*) FROM claim").fetchone()
    return bool(count >= MAX_CLAIMS)


def _find(database: sqlite3.Connection, code: str, now_ns: int) -> Claim:
    """Return the claim whose code this is; raise the one error of every code that opens nothing."""
    id_ = code.partition(".")[0] if len(code) <= MAX_CODE_CHARS and code.isascii() else ""
    query = (
        "SELECT hash, id, device, match, quota, used, created_ns, expires_ns, namespace FROM claim "
        "WHERE id = ? AND expires_ns > ?"
    )
    row = database.execute(query, (id_, now_ns)).fetchone()
    # Compared also where there is nothing to compare with: both refusals take the same time.
    if not is_secret_of(code[: MAX_CODE_CHARS + 1], _NO_HASH if row is None else row[0]) or row is None:
        raise _refused()
    return Claim(*row[1:])


def _name_for(claim: Claim, device: str | None) -> str:
    if claim.device is not None:
        if device not in (None, claim.device):
            raise ForbiddenError("this code is for another device; leave the name out, it comes with the code")
        return claim.device
    if device is None:
        raise BadRequestError("this code is for several devices: say the name of this one")
    device_tokens.check_enrolled_name(device)
    if not is_among(device, [claim.match or ""]):
        raise ForbiddenError(f"this code is not for a device of that name; names must match {claim.match}")
    return device


def _claim(change: Change, claim: Claim, name: str, retry: str | None, *, is_again: bool) -> str:
    """Return the token; use the claim up by one, unless this is the same device again."""
    database, namespace = change.database, claim.namespace
    if is_again:
        token = device_tokens.rotate(change, namespace, name, keep_s=0)
        _remember(change, claim, name, token, retry)
        return token
    if claim.device is not None and device_tokens.is_enrolled(database, namespace, name):
        raise _refused()
    token = device_tokens.enrol(change, namespace, name)
    database.execute("UPDATE claim SET used = used + 1 WHERE id = ?", (claim.id,))
    _remember(change, claim, name, token, retry)
    return token


def _is_again(database: sqlite3.Connection, claim: Claim, name: str, retry: str | None) -> bool:
    """Say whether this very device asks again for the very token that was made for it, and got lost on the way."""
    if not name.isascii():
        return False
    query = "SELECT token, retry FROM claimed WHERE claim = ? AND device = ? AND retry IS NOT NULL"
    row = database.execute(query, (claim.id, name)).fetchone()
    if row is None or retry is None or not is_secret_of(retry, row[1]):
        return False
    # Whoever rotated or removed the device meanwhile meant it.
    return bool(device_tokens.newest_id(database, claim.namespace, name) == row[0])


def _remember(change: Change, claim: Claim, name: str, token: str, retry: str | None) -> None:
    row = (claim.id, name, token.partition(".")[0], None if retry is None else hash_secret(retry))
    change.database.execute("INSERT OR REPLACE INTO claimed VALUES (?, ?, ?, ?)", row)


def _refused() -> HubError:
    return ForbiddenError(
        "this claim code opens nothing: it is unknown, used or expired; get a new one: hub devices add NAME --claim"
    )
