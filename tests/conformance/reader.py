"""A watcher that keeps a cursor, is cut off, and comes back: what every scenario drives.

Owns: the client's half of the contract (apply, then keep the cursor; after a reset begin again by time) and its
`Witness`. Place: after `adapter`; knows no transport.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from tests.conformance.adapter import Adapter, Connection, Got, LostError, Place, RefusedError, Wish
from tests.conformance.witness import Witness

# Between two tries: enough for a hub that is down, little beside the time it takes to start.
_RETRY_S = 0.05


async def _at_once() -> None:
    """No outage: come back now."""


class Reader:
    """One watcher.

    Args:
        adapter, place, wish: how, where and what; ``wish.since`` is a time, if anything.
        cursor: to begin behind it.
        first: the first number of each series that it must see.
        restart_since: what is asked for after a reset: all history, by time. None: from the server's head.

    Attributes:
        cursor: what a client would have kept.
        lost: connections that ended.
        resumed: connections that went on behind the cursor they gave.
        resets: answers that the server could not.
        pace_s: pause after each message.
        is_given_up: something that was due did not come in time; for the scenario to remember.
        refused: why the credential was refused, None while it was not.
        untruths: what the server said of a cursor and did not keep, each once.
        messages: those with readings.
    """

    def __init__(
        self,
        adapter: Adapter,
        place: Place,
        wish: Wish,
        *,
        cursor: str | None = None,
        first: int = 0,
        restart_since: str | None = None,
    ) -> None:
        self.adapter, self.place, self._wish = adapter, place, wish
        self.witness = Witness()
        self.cursor = cursor
        self.lost = self.resumed = self.resets = self.messages = 0
        self.untruths: set[str] = set()
        self.refused: str | None = None
        self.outage: Callable[[], Awaitable[None]] = _at_once
        self.first = first
        self.pace_s = 0.0
        self.is_given_up = False
        self.is_live = False
        self._restart_since = restart_since
        self._is_exact = wish.since is None
        self._is_resuming = self._gave_cursor = False
        # What the answer of this connection was; None: nothing was said of it.
        self._recovered: bool | None = None
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._task: asyncio.Task[None] | None = None

    async def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Wait until the condition holds, looked at after each message; False: it did not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not condition():
                    self._fail_with_task()
                    self._changed.clear()
                    await self._changed.wait()
        return condition()

    def pause(self) -> None:
        """Read nothing more; the connection stays."""
        self._may_read.clear()

    def go_on(self) -> None:
        """Read again."""
        self._may_read.set()

    def abort(self) -> None:
        """Drop the connection now; the reader comes back by itself."""
        if self._connection is not None:
            self._connection.abort()

    async def __aenter__(self) -> "Reader":
        self._task = asyncio.create_task(self._run(), name=f"reader {self.adapter.name}")
        self._task.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        assert self._task is not None, "it was entered"
        self._task.cancel()
        result = (await asyncio.gather(self._task, return_exceptions=True))[0]
        self.abort()
        if kind is None and isinstance(result, Exception):
            raise result

    def _fail_with_task(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                raise error

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except LostError:
                self.lost += 1
                self._drop()
                await self.outage()
                await asyncio.sleep(_RETRY_S)
            except RefusedError as error:
                self._drop()
                self.refused = str(error)
                self._changed.set()
                return

    async def _read(self) -> None:
        wish = self._wish if self.cursor is None else replace(self._wish, since=self.cursor)
        self._is_resuming = self._gave_cursor = self.cursor is not None and self.cursor != self._restart_since
        self._recovered = None
        self._connection = await self.adapter.connect(self.place, wish)
        while True:
            await self._may_read.wait()
            self._apply(await self._connection.receive())
            self._changed.set()
            if self.pace_s:
                await asyncio.sleep(self.pace_s)

    def _apply(self, got: Got) -> None:
        if got.reset is not None:
            if self._recovered:
                self.untruths.add("recovered, and then a reset")
            self._reset(got)
            return
        if got.recovered is not None:
            self._recovered = got.recovered
            if got.recovered and not self._gave_cursor:
                self.untruths.add("recovered, where no cursor was given")
        elif self._recovered is False and self._is_resuming:
            self.untruths.add("not recovered, and no reset")
        self.messages += bool(got.values)
        for series, number in got.values:
            self.witness.take(series, number, is_exact=self._is_exact)
        if self._is_resuming and got.recovered is not False and (got.recovered or got.values or got.is_live):
            self._is_resuming = False
            self.resumed += 1
        if got.is_live:
            self._is_exact = self.is_live = True
        if got.cursor is not None:
            self.cursor = got.cursor

    def _reset(self, got: Got) -> None:
        self.resets += 1
        self._is_resuming = False
        if self._restart_since is None:
            self.cursor = got.cursor
            self.is_live |= got.is_live
            return
        # As a client does that keeps history: all of it once more, by time; until it is live that is an upsert.
        self.witness.start_over()
        self.first = 0
        self.cursor, self._is_exact = self._restart_since, False
        raise LostError("reset: begin again by time")

    def _drop(self) -> None:
        self.is_live = False
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
