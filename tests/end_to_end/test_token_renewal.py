"""Watching with tokens that end within seconds, of a real hub: no gap, and no connection but the first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk import AuthenticationError, Client, Device
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

pytestmark = [pytest.mark.asyncio, pytest.mark.end_to_end]
TTL_S = 2.0
LIMIT_S = 30.0


class Tokens:
    """Gives tokens that are good for `TTL_S`, as the server of a web application would."""

    def __init__(self, hub: HubProcess) -> None:
        self.given: list[str] = []
        self._identities = Identities(hub.data / "identities.sqlite3")

    def __call__(self) -> str:
        """Make a token; runs in whatever thread it is called in."""
        self.given.append(self._identities.add_session(Role.WATCHER, TTL_S))
        return self.given[-1]

    async def soon(self) -> str:
        """Make a token, for who waits."""
        return await asyncio.to_thread(self)

    def close(self) -> None:
        """Close the file."""
        self._identities.close()


class Counting(Client):
    """A client that counts its connections for watching."""

    opened = 0

    async def _open_watch(self) -> Any:
        self.opened += 1
        return await super()._open_watch()


@asynccontextmanager
async def recording(hub: HubProcess, folder: Path) -> AsyncIterator[Callable[[], int]]:
    """Record 1, 2, 3 … as d/n; gives how many there are by now."""
    count = 0
    with Device("d", hub.ws_url, token=enrol(hub, "d")["d"], spool=folder / "spool") as device:

        async def record() -> None:
            nonlocal count
            while True:
                count += 1
                device.record(n=count)
                await asyncio.sleep(0.005)

        task = asyncio.create_task(record())
        try:
            yield lambda: count
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def watch_until(client: Client, is_over: Callable[[], bool]) -> list[Any]:
    """Collect the values of d/n until the condition holds."""
    seen: list[Any] = []
    watch = client.watch("d/n", since="-1h")
    async with asyncio.timeout(LIMIT_S):
        while not is_over():
            seen += [reading.value for reading in await watch.batch()]
    await watch.close()
    return seen


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_token_is_renewed_on_the_connection(hub: HubProcess, tmp_path: Path, kind: str) -> None:
    """Three times over, each before the one before ends; every reading once, on one connection."""
    with closing(Tokens(hub)) as tokens:
        token: Callable[[], str | Awaitable[str]] = tokens if kind == "plain" else tokens.soon
        client = Counting(hub.url, token)
        async with recording(hub, tmp_path):
            seen = await watch_until(client, lambda: len(tokens.given) > 3)

    assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))
    assert client.opened == 1
    # What came while history was sent may have come twice, never later.
    assert seen[-500:] == sorted(set(seen))[-500:]


async def test_where_hooks_decide_it_reconnects_by_its_cursor(tmp_path: Path) -> None:
    """`auth` is refused there: each new token is a new connection, and still each reading comes once."""
    module = tmp_path / "all.py"
    module.write_text("def authorize(context, verb, patterns):\n    return True\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    with (
        HubProcess(tmp_path / "data", "--hook", "all:authorize", environment=environment) as hub,
        closing(Tokens(hub)) as tokens,
    ):
        client = Counting(hub.url, tokens)
        async with recording(hub, tmp_path):
            seen = await watch_until(client, lambda: client.opened > 3)

    assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))
    assert seen[-500:] == sorted(set(seen))[-500:]


async def test_token_that_ended_while_nobody_looked_is_replaced(hub: HubProcess, tmp_path: Path) -> None:
    """A loop that stood still for longer than its token goes on with another one, behind its last reading."""
    with closing(Tokens(hub)) as tokens:
        client = Counting(hub.url, tokens)
        seen: list[Any] = []
        async with recording(hub, tmp_path) as count, asyncio.timeout(LIMIT_S):
            watch = client.watch("d/n", since="-1h")
            seen += [reading.value for reading in await watch.batch()]
            assert watch._renewal is not None
            # As a plain `for` does, whose loop runs only while it waits.
            watch._renewal.end()
            await asyncio.sleep(TTL_S + 1)
            owed = count()
            while not seen or seen[-1] < owed:
                seen += [reading.value for reading in await watch.batch()]
            await watch.close()

    assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))
    assert client.opened == 2


async def test_same_token_that_ended_ends_the_watch(hub: HubProcess, tmp_path: Path) -> None:
    """A function that has no other one is asked once more, then the hub's word counts."""
    with closing(Tokens(hub)) as tokens:
        only = tokens()
        asked: list[int] = []

        def token() -> str:
            asked.append(1)
            return only

        client = Client(hub.url, token)
        async with recording(hub, tmp_path):
            with pytest.raises(AuthenticationError):
                await watch_until(client, lambda: False)

    assert len(asked) >= 3
