"""`hub.passwords`: rules, hashes, and how many run at once."""

import asyncio

import pytest

from hub.errors import BadRequestError, UnavailableError
from hub.passwords import (
    AT_ONCE,
    LANES,
    MAX_WAITING,
    MEMORY_KIB,
    PASSES,
    Passwords,
    check_password,
    hash_password,
    is_password,
)


def test_hash_is_argon2id_with_its_parameters_and_a_salt() -> None:
    """The hash names its parameters; the same password hashes differently each time, and only it is the password."""
    first, second = hash_password("ten letters"), hash_password("ten letters")

    assert first.startswith(f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$")
    assert first != second
    assert [is_password(first, text) for text in ("ten letters", "ten letterS", "")] == [True, False, False]
    assert not is_password("no hash", "ten letters")


def test_same_letters_from_another_keyboard_are_the_same_password() -> None:
    """Composed and decomposed letters are one password."""
    assert is_password(hash_password("gr\u00fcnes Haus"), "gru\u0308nes Haus")


@pytest.mark.parametrize("password", ["short", "x" * 257, "Anna-Berta"], ids=["short", "long", "name"])
def test_what_is_no_password(password: str) -> None:
    """Too short, too long, or the name: refused with the rule, without the password."""
    with pytest.raises(BadRequestError) as caught:
        check_password(password, "anna-berta")

    assert password not in str(caught.value)


@pytest.mark.asyncio
async def test_flood_waits_in_a_short_queue() -> None:
    """Two hashes at once and 32 waiting; who comes then is sent away at once, and the loop goes on."""
    passwords = Passwords()
    try:
        attempts = [asyncio.create_task(passwords.hash("ten letters")) for _ in range(AT_ONCE + MAX_WAITING)]
        await asyncio.sleep(0)

        with pytest.raises(UnavailableError):
            await passwords.hash("ten letters")
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        assert await passwords.verify(None, "ten letters") is False
    finally:
        passwords.close()
