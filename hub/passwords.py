"""Passwords of people: what is one, how it is hashed, and how few are hashed at once.

Owns: the rules, the argon2id parameters, the threads that hash. Place: after `errors`, below `sign_in` and the command
line. Must not: keep, log or tell a password.

Hashing is made dear on purpose: 32 MiB and 64 ms of one core each time (docs/decisions/0014-users-and-log.md). So it
never runs on the event loop, and a flood of attempts waits in a short queue or is sent away.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hub.errors import BadRequestError, UnavailableError

# Measured on two cores at 2.1 GHz: 64 ms of one core a hash; about four times that on a Raspberry Pi 4.
MEMORY_KIB = 32 * 1024
PASSES = 3
LANES = 1
# 64 MiB of hashing at most; readings, not sign-ins, are what a hub's cores are for.
AT_ONCE = 2
# Two seconds of waiting here; who comes then is told to try again.
MAX_WAITING = 32
# NIST SP 800-63B: length is what counts, no rules of composition. The upper end only bounds the work.
MIN_CHARS, MAX_CHARS = 10, 256

_T = TypeVar("_T")
_HASHER = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)


def check_password(password: str, name: str) -> str:
    """Return the password when it may be one.

    Raises:
        BadRequestError: it is too short or too long, or it is the user's name.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise BadRequestError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters; a few words make a good one")
    if password.casefold() == name.casefold():
        raise BadRequestError("the password is the user's name: take another one")
    return password


def hash_password(password: str) -> str:
    """Return the argon2id hash with its parameters and salt; takes 64 ms and 32 MiB."""
    return _HASHER.hash(_normal(password))


def is_password(hash: str, password: str) -> bool:
    """Say whether the hash is of this password; takes as long as `hash_password`."""
    try:
        return _HASHER.verify(hash, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


class Passwords:
    """Hashes in threads, `AT_ONCE` at a time. One per hub."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hub passwords")
        self._pending = 0
        # What a password of a name that nobody has is compared with, so that the answer takes as long.
        self._nobody: Future[str] = self._threads.submit(hash_password, secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Hash beside the loop. Raises `UnavailableError` when too many wait."""
        return await self._run(hash_password, password)

    async def verify(self, hash: str | None, password: str) -> bool:
        """Say whether it is the password; ``hash`` None is nobody's: False, after the same time.

        Raises:
            UnavailableError: too many wait.
        """
        if hash is None:
            await self._run(is_password, await asyncio.wrap_future(self._nobody), password)
            return False
        return await self._run(is_password, hash, password)

    def close(self) -> None:
        """Let go of the threads; a hash under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., _T], *given: str) -> _T:
        if self._pending >= AT_ONCE + MAX_WAITING:
            raise UnavailableError(f"{self._pending} sign-ins are under way, the most there may be: try again")
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        finally:
            self._pending -= 1


def _normal(password: str) -> str:
    """The same letters typed on another keyboard are the same password."""
    return unicodedata.normalize("NFC", password)
