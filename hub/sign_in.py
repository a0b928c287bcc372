"""Signing in: a name and a password against the users, without telling which of them was wrong.

Owns: the order of the checks, who must wait. Place: above `users`, `passwords` and `throttle`, below the gateway.

An unknown name and a wrong password take the same work and get the same answer. Attempts are slowed down by address,
and by name whatever the address; the latter only to ten seconds, because a stranger could keep a user out with it.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from hub.errors import TooManyRequestsError, UnauthenticatedError
from hub.passwords import Passwords, check_password
from hub.throttle import Throttle
from hub.users import Users

# From one address 4 tries an hour, when it goes on; of one name 8,640 a day, from all addresses together.
MOST_ADDRESS_S, MOST_NAME_S = 900.0, 10.0
_REFUSED = "no user has this name and password"


class SignIn:
    """The door of the page. One per hub; belongs to the event loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, users: Users, passwords: Passwords, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._passwords = passwords
        self._clock = clock
        self._throttle = Throttle()

    async def sign_in(self, name: str, password: str, address: str) -> str:
        """Return the cookie of a new session.

        Raises:
            UnauthenticatedError: no user has this name and this password.
            TooManyRequestsError: too many attempts failed from this address or with this name.
            UnavailableError: too many sign-ins are under way.
        """
        by_address, by_name = _address_key(address), _name_key(name)
        wait_s = self._throttle.begin({by_address: MOST_ADDRESS_S, by_name: MOST_NAME_S}, self._clock())
        if wait_s > 0:
            raise TooManyRequestsError(
                f"too many attempts failed, from here or with this name: try again in {wait_s:.0f} s", retry_s=wait_s
            )
        hash_ = await asyncio.to_thread(self._users.password_of, name)
        cookie = None
        if await self._passwords.verify(hash_, password) and hash_ is not None:
            cookie = await asyncio.to_thread(self._users.open_session, name, hash_)
        if cookie is None:
            raise UnauthenticatedError(_REFUSED)
        self._throttle.succeeded(by_address)
        self._throttle.succeeded(by_name, forget=True)
        return cookie

    async def hash(self, password: str, name: str) -> str:
        """Return the hash of a new password of ``name``; `BadRequestError` when it may be none."""
        return await self._passwords.hash(check_password(password, name))

    async def accept(self, code: str, password: str) -> tuple[str, str]:
        """Set the password that the invitation is for; return the name and the cookie of its first session.

        Raises:
            UnauthenticatedError: the invitation was used, or is too old or unknown.
            BadRequestError: this may be no password; the invitation stays good.
        """
        name = await asyncio.to_thread(self._users.invited, code)
        # Only who holds a code makes the hub hash.
        hash_ = await self.hash(password, name) if name is not None else ""
        name = await asyncio.to_thread(self._users.accept, code, hash_)
        cookie = await asyncio.to_thread(self._users.open_session, name, hash_)
        if cookie is None:
            raise UnauthenticatedError(_REFUSED)
        return name, cookie


def _name_key(name: str) -> str:
    # What was typed may be a password, and may be long.
    return "n" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _address_key(address: str) -> str:
    """One household or office: an IPv4 address, the first 64 bits of an IPv6 one."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "a" + address[:64]
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
        return f"a{int(ip) >> 64:x}"
    return f"a{ip}"
