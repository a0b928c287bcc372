"""`Renewal`: when another token is asked for, and what becomes of the connection. The waits are the test's."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from device_sdk.renewal import Renewal, renew_after_s
from device_sdk.token_source import TokenSource


@pytest.mark.parametrize(
    ("ttl_s", "portion", "after_s"),
    [(100.0, 0.0, 70.0), (100.0, 0.999, 89.98), (0.5, 0.5, 1.0), (30 * 86400.0, 0.0, 86400.0)],
    ids=["earliest", "latest", "almost over", "a month"],
)
def test_time_to_renew(ttl_s: float, portion: float, after_s: float) -> None:
    """At random within the last third, at most a day from now, not without a pause."""
    assert renew_after_s(ttl_s, portion) == pytest.approx(after_s)


class Peer:
    """A connection whose waits end at once; what it sent, and how long was waited for."""

    def __init__(self, token: Callable[[], str]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.waits: list[float] = []
        self.renewal = Renewal(TokenSource(token), self._send, self._sleep)

    async def told(self, **message: Any) -> None:
        """Hand over a message of the hub and let the renewal come to its end."""
        self.renewal.told(message)
        while (task := self.renewal._task) is not None and not task.done():
            await asyncio.wait([task])

    async def _send(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.mark.asyncio
async def test_token_is_said_before_the_present_one_ends() -> None:
    """Once for each `ttl` that the hub tells; a credential without an end is never renewed."""
    tokens = iter("ab")
    peer = Peer(lambda: next(tokens))

    await peer.told(op="welcome", ttl=10.0)
    await peer.told(op="ok", ttl=1000.0, subs={}, ended=[])
    await peer.told(op="ok", ttl=None, subs={}, ended=[])

    assert [(m["op"], m["token"]) for m in peer.sent] == [("auth", "a"), ("auth", "b")]
    assert [6.9 < peer.waits[0] < 9.1, 690 < peer.waits[1] < 901] == [True, True]
    assert not peer.renewal.must_reconnect


@pytest.mark.asyncio
async def test_function_that_fails_is_asked_again() -> None:
    """Until the token is there; each wait is shorter than what is left."""
    answers: list[str | None] = [None, None, "a"]

    def token() -> str:
        answer = answers.pop(0)
        if answer is None:
            raise OSError("away")
        return answer

    peer = Peer(token)

    await peer.told(op="welcome", ttl=60.0)

    assert [m["token"] for m in peer.sent] == ["a"]
    assert len(peer.waits) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reason", "must_reconnect", "said"),
    [("bad_request", True, 1), ("forbidden", True, 1), ("unauthenticated", False, 2), ("unavailable", False, 2)],
)
async def test_refused_token(reason: str, must_reconnect: bool, said: int) -> None:
    """Where the connection cannot go on with it another is opened; a token that is not known is asked for again."""
    peer = Peer(lambda: "a")
    await peer.told(op="welcome", ttl=60.0)

    await peer.told(op="error", reason=reason)

    assert peer.renewal.must_reconnect is must_reconnect
    assert len(peer.sent) == said


@pytest.mark.asyncio
async def test_end_asks_no_more() -> None:
    """The connection is gone: its task is too."""
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        return "a"

    renewal = Renewal(TokenSource(token), lambda _: asyncio.sleep(0))
    renewal.told({"op": "welcome", "ttl": 60.0})
    task = renewal._task
    assert task is not None

    renewal.end()
    await asyncio.wait([task])

    assert task.cancelled()
    assert asked == []
