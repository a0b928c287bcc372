"""Credentials as the hub knows them: who each speaks for, the hash of its secret, when it ends.

Owns: how a token and a claim code are made and recognised, and `Change`, one edit of the file with what it does to the
copy in RAM. Place: after `roles`, below all that edits identities. Must not: keep or log a secret.
"""

import base64
import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass, field

from hub.roles import Identity, Role, scopes_of

_TOKEN_BYTES = 32
# 128 bits: 26 characters that a person can type, lower case and digits 2 to 7.
_CODE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of one token; ``expires_ns`` None: until it is ended."""

    identity: Identity
    hash: bytes
    expires_ns: int | None = None


@dataclass(slots=True)
class Change:
    """One transaction on the file of identities, and what of it counts in RAM once it is durable.

    ``credentials``: those that are new or end at another time; ``ended``: ids that nobody may use any more.
    """

    database: sqlite3.Connection
    now_ns: int
    credentials: dict[str, Credential] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


def new_token(prefix: str) -> tuple[str, str]:
    """Return (id, token): ``<id>.<32 random bytes, base64url>``."""
    id_ = _new_id(prefix)
    return id_, f"{id_}.{base64.urlsafe_b64encode(secrets.token_bytes(_TOKEN_BYTES)).rstrip(b'=').decode()}"


def new_code() -> tuple[str, str]:
    """Return (id, claim code): ``<id>.<128 random bits, base32>``, all lower case."""
    id_ = _new_id("c")
    return id_, f"{id_}.{base64.b32encode(secrets.token_bytes(_CODE_BYTES)).rstrip(b'=').decode().lower()}"


def hash_secret(secret: str) -> bytes:
    """Return what is stored of a token or a code; any text has a hash, also one that is no UTF-8."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def is_secret_of(secret: str, hash: bytes) -> bool:
    """Say in constant time whether the hash is that of the secret."""
    return hmac.compare_digest(hash_secret(secret), hash)


def device_identity(id: str, namespace: str, name: str) -> Identity:
    """Return who a device's token speaks for: the device, and nothing but its channels."""
    return Identity(id, name, Role.DEVICE, namespace, scopes_of(Role.DEVICE, (f"{name}/**",)))


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(6)
