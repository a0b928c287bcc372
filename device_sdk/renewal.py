"""Another token for a live connection, before the one that it began with ends.

Owns: when to ask for it, and what becomes of it. Place: between `watch`, which hands over what the hub says of the
connection, and `client`, which owns it. The credential's end is known from ``ttl`` of `welcome`, and of the answer to
`auth` from then on.

A token that cannot be had, or that the hub does not know, is asked for again while the connection lasts. Where the hub
takes no tokens on a connection (hooks decide what each sees), `must_reconnect` says so: a new connection goes on by its
cursor.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from device_sdk.errors import Reason, TelemetryError
from device_sdk.token_source import TokenSource
from device_sdk.watch import CONNECTION_ID

_log = logging.getLogger("device_sdk.watch")

# Of a credential's life, when a new one is asked for: at random between, or all who began together would ask together.
_EARLIEST, _LATEST = 0.7, 0.9
LEAST_S = 1.0
# Nothing is gained by waiting longer with a token of a month, and clocks are set meanwhile.
MOST_S = 86400.0
# The hub has read the token and says that this connection will not do for it; anything else may pass.
_NEEDS_CONNECTION = (Reason.FORBIDDEN.value, "bad_request")


def renew_after_s(ttl_s: float, portion: float) -> float:
    """Return when to ask for another token.

    Args:
        ttl_s: how long the present one is good for.
        portion: in [0, 1), at random.
    """
    return min(max(ttl_s * (_EARLIEST + (_LATEST - _EARLIEST) * portion), LEAST_S), MOST_S)


class Renewal:
    """The renewals of one connection: `told` with what the hub says of it, `end` when it is gone."""

    def __init__(
        self,
        source: TokenSource,
        send: Callable[[str], Awaitable[None]],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.must_reconnect = False
        self._source = source
        self._send = send
        self._sleep = sleep
        self._ends_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def told(self, message: Mapping[str, Any]) -> None:
        """Take `welcome`, or an answer to `auth`."""
        if message["op"] != "error":
            ttl_s = message.get("ttl")
            self._ends_at = None if ttl_s is None else asyncio.get_running_loop().time() + float(ttl_s)
            self._plan()
        elif message.get("reason") in _NEEDS_CONNECTION:
            self.must_reconnect = True
        else:
            _log.warning("token refused reason=%s; asking again before the present one ends", message.get("reason"))
            self._plan()

    def end(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _plan(self) -> None:
        self.end()
        if self._ends_at is not None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._renew(self._ends_at), name="device_sdk renewal")

    async def _renew(self, ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        while (left_s := ends_at - loop.time()) > 0:
            await self._sleep(renew_after_s(left_s, random.random()))
            try:
                token = await self._source.ask()
            except TelemetryError as error:
                _log.warning("no new token reason=%s; asking again before the present one ends", error)
                continue
            # A connection that is gone is noticed by who reads it.
            with suppress(Exception):
                await self._send(json.dumps({"op": "auth", "id": CONNECTION_ID, "token": token}))
            return
