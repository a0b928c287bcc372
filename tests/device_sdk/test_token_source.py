"""`TokenSource`: texts and functions of every kind, from coroutines and from elsewhere."""

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError
from device_sdk.token_source import Token, TokenSource


async def later() -> str:
    """Give a token after another turn of the loop."""
    await asyncio.sleep(0)
    return "t"


def awaitable() -> Awaitable[str]:
    """Give what has to be waited for, as a plain function may."""
    return later()


TOKENS = [pytest.param("t", id="text"), pytest.param(lambda: "t", id="plain"), pytest.param(later, id="async"),
          pytest.param(awaitable, id="plain that gives a coroutine"), pytest.param("t\n", id="text of a file"),
          pytest.param(lambda: "t\r\n", id="plain that reads a file")]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_each_kind_gives_the_header(token: Token) -> None:
    """The same whether a loop runs already or not."""
    source = TokenSource(token)

    async def within() -> list[dict[str, str]]:
        return [source.headers(), await source.headers_soon()]

    assert [source.headers(), *asyncio.run(within())] == [{"Authorization": "Bearer t"}] * 3
    assert source.is_function is callable(token)


def test_no_token_is_no_header() -> None:
    """Where the hub asks for none."""
    assert TokenSource(None).headers() == {}


@pytest.mark.asyncio
async def test_plain_function_does_not_hold_up_the_loop() -> None:
    """It may ask some server: the loop goes on meanwhile."""
    goes_on = threading.Event()

    def wait() -> str:
        assert goes_on.wait(10)
        return "t"

    asyncio.get_running_loop().call_soon(goes_on.set)

    assert await TokenSource(wait).ask() == "t"


def test_function_that_hangs_is_left_behind() -> None:
    """Who waits no longer may go: neither a cancelled wait nor the end of the loop waits for it."""
    goes_on, has_ended = threading.Event(), threading.Event()

    def hang() -> str:
        goes_on.wait(10)
        has_ended.set()
        return "t"

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await TokenSource(hang).ask()

    asyncio.run(ask())
    was_left = not has_ended.is_set()
    goes_on.set()

    assert was_left
    assert has_ended.wait(10)


def test_what_the_function_raises_is_tried_again_later() -> None:
    """A server for tokens may be away as a hub may; what the SDK's own errors say stays."""

    def fail() -> str:
        raise OSError("away")

    def end() -> str:
        return next(iter(()))

    def refuse() -> str:
        raise AuthenticationError("signed out")

    with pytest.raises(ConnectionLostError, match="no token could be had: OSError"):
        TokenSource(fail).headers()
    with pytest.raises(ConnectionLostError, match="StopIteration"):
        TokenSource(end).headers()
    with pytest.raises(AuthenticationError, match="signed out"):
        TokenSource(refuse).headers()


@pytest.mark.parametrize("token", [None, b"t", "", "\n"])
def test_what_is_no_token_is_said(token: object) -> None:
    """Before anything is sent."""
    with pytest.raises(MisuseError, match="return the token as text"):
        TokenSource(lambda: token).headers()  # type: ignore[arg-type]
