"""A client's token: a text, or a function that is asked for one each time.

Owns: how that function is called, from a coroutine and from elsewhere. Place: before `client`. Must not: keep a token
that a function gave (it knows how long it is good for), or log one.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from device_sdk.errors import ConnectionLostError, MisuseError, TelemetryError
from device_sdk.loop_thread import loop_runner

Token = str | Callable[[], str | Awaitable[str]]


class TokenSource:
    """Gives the token of a request or of a connection.

    Args:
        token: None: none is needed. A function, plain or ``async``: asked for each.
    """

    def __init__(self, token: Token | None) -> None:
        self._token = token.strip() if isinstance(token, str) else token

    @property
    def is_function(self) -> bool:
        """Whether another token may be had."""
        return callable(self._token)

    def headers(self) -> dict[str, str]:
        """Return what a request carries; an ``async`` function is waited for in a loop of its own.

        Raises:
            ConnectionLostError: the function failed; as all that may be mended by itself.
            MisuseError: it returned no text.
        """
        if not callable(self._token):
            return _headers(self._token)
        with loop_runner() as runner:
            return runner.run(self.headers_soon())

    async def headers_soon(self) -> dict[str, str]:
        """Return what an upgrade carries. Raises as `headers`."""
        return _headers(await self.ask() if callable(self._token) else self._token)

    async def ask(self) -> str:
        """Return a new token of the function, which may block when it is a plain one. Raises as `headers`."""
        assert callable(self._token), "a text is the only token there is"
        try:
            if inspect.iscoroutinefunction(self._token):
                found = await self._token()
            else:
                # In a thread: a function that asks some server would hold up the whole loop.
                found = await _in_thread(cast("Callable[[], object]", self._token))
                if inspect.isawaitable(found):
                    found = await found
        except TelemetryError:
            raise
        except Exception as error:
            raise ConnectionLostError(f"no token could be had: {error!r}") from error
        if not isinstance(found, str) or not found.strip():
            raise MisuseError(f"the function for tokens returned {type(found).__name__}: return the token as text")
        # Files and answers end with a line break, which no header may have.
        return found.strip()


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


async def _in_thread(function: Callable[[], object]) -> object:
    """Return what it returns. Nobody waits for a call that hangs: not who is cancelled, nor the end of the loop.

    `asyncio.to_thread` would: a loop over a watch could not be left until the function returns, and functions that hang
    would take the threads that the program's own loop has for other things.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[object] = loop.create_future()
    context = contextvars.copy_context()

    def tell(found: object, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    def call() -> None:
        found, failed = None, None
        try:
            found = context.run(function)
        except BaseException as error:
            failed = error
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, found, failed)

    threading.Thread(target=call, name="device_sdk-token", daemon=True).start()
    return await answer
