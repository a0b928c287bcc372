"""`hub.sign_in`: name and password, without telling which was wrong, and how tries are slowed down."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import BadRequestError, TooManyRequestsError, UnauthenticatedError
from hub.passwords import Passwords, hash_password
from hub.roles import Role
from hub.sign_in import SignIn
from hub.throttle import FREE_TRIES
from hub.users import USERS, Users

PASSWORD = "ten letters"
HASH = hash_password(PASSWORD)


class Door:
    """A sign-in with its parts."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.users = Users(folder / USERS)
        self.users.add("anna", Role.ADMIN, hash=HASH)
        self.passwords = Passwords()
        self.sign_in = SignIn(self.users, self.passwords, lambda: self.now)

    async def refused(self, name: str, password: str, address: str) -> str:
        """Return how a try was refused."""
        with pytest.raises((UnauthenticatedError, TooManyRequestsError)) as caught:
            await self.sign_in.sign_in(name, password, address)
        return f"{caught.value.reason}: {caught.value}"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A hub with one user."""
    door = Door(tmp_path)
    yield door
    door.passwords.close()
    door.users.close()


@pytest.mark.asyncio
async def test_right_password_opens_a_session(door: Door) -> None:
    """The cookie is the user's; each sign-in has another."""
    first = await door.sign_in.sign_in("anna", PASSWORD, "192.0.2.1")
    second = await door.sign_in.sign_in("anna", PASSWORD, "192.0.2.1")

    found = door.users.authenticate(first)
    assert found is not None
    assert (found.name, first == second) == ("anna", False)


@pytest.mark.asyncio
async def test_wrong_password_and_unknown_name_are_the_same_answer(door: Door) -> None:
    """Neither the words nor the work done tell whether the name exists, or has a password yet."""
    door.users.add("invited", Role.WATCHER)

    told = {await door.refused(name, "eleven letters", "192.0.2.1") for name in ("anna", "nobody", "invited")}

    assert told == {"unauthenticated: no user has this name and password"}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_tries_of_one_address_are_slowed_down_for_all_names(door: Door) -> None:
    """After five failures an address waits, also with the right password; another address does not."""
    for number in range(FREE_TRIES):
        await door.refused(f"guess-{number}", "eleven letters", "192.0.2.1")

    assert (await door.refused("anna", PASSWORD, "192.0.2.1")).startswith("too_many")
    assert await door.sign_in.sign_in("anna", PASSWORD, "192.0.2.2")
    door.now += 1
    assert await door.sign_in.sign_in("anna", PASSWORD, "192.0.2.1")


@pytest.mark.slow
@pytest.mark.asyncio
async def test_tries_with_one_name_are_slowed_down_from_all_addresses(door: Door) -> None:
    """A password cannot be guessed from a thousand addresses at once; the addresses of one IPv6 network are one."""
    for number in range(FREE_TRIES):
        await door.refused("anna", "eleven letters", f"192.0.2.{number}")
    assert (await door.refused("anna", PASSWORD, "192.0.2.200")).startswith("too_many")

    for number in range(FREE_TRIES):
        await door.refused(f"guess-{number}", "eleven letters", f"2001:db8::{number}")
    assert (await door.refused("other", PASSWORD, "2001:db8::ffff")).startswith("too_many")
    assert (await door.refused("another", PASSWORD, "2001:db8:0:1::1")).startswith("unauthenticated")


@pytest.mark.asyncio
async def test_invitation_sets_the_password_and_signs_in(door: Door) -> None:
    """A password that is none leaves the invitation good; then it is used up."""
    door.users.add("berta", Role.WATCHER)
    code = door.users.invite("berta")

    with pytest.raises(BadRequestError):
        await door.sign_in.accept(code, "short")
    name, cookie = await door.sign_in.accept(code, "another ten")

    assert name == "berta"
    assert door.users.authenticate(cookie)
    assert await door.sign_in.sign_in("berta", "another ten", "192.0.2.1")
    with pytest.raises(UnauthenticatedError):
        await door.sign_in.accept(code, "another ten")
