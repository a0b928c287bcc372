"""The hub's long poll as an adapter: ``GET /v1/watch?match=…&since=…&wait=…``, asked again with the answer's cursor.

Owns: one question at a time. A server without it answers with an event stream: `MissingError`.
"""

import json
from collections.abc import Mapping
from urllib.parse import urlencode

from tests.conformance.adapter import CONNECT_S, Connection, Got, LostError, MissingError, Place, Wish
from tests.conformance.http_stream import HttpStream
from tests.conformance.watch_v1 import Decoder

WAIT_S = 5


class PollAdapter:
    """Each answer is a connection of its own, so that each may be cut at any byte."""

    name = "poll"
    # One chunk of readings of one device, 1.3 kB: an answer that waited may hold no more.
    cut_within = 1280
    # A head and one message.
    answer_bytes: int | None = 250

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """See `Adapter`; nothing is sent yet."""
        return PollConnection(place, wish)


class PollConnection:
    """Polls one after the other; ends when one is lost."""

    def __init__(self, place: Place, wish: Wish) -> None:
        self._place, self._wish = place, wish
        self._since = wish.since
        self._stream: HttpStream | None = None
        self._is_over = False

    async def receive(self) -> Got:
        """See `Connection`: one whole answer."""
        asked = [("match", pattern) for pattern in self._wish.match]
        if self._wish.max_hz is not None:
            asked += [("mode", "latest"), ("max_hz", str(self._wish.max_hz))]
        if self._since is not None:
            asked.append(("since", self._since))
        asked.append(("wait", f"{WAIT_S}s"))
        self._stream = await HttpStream.ask(self._place, f"/v1/watch?{urlencode(asked)}", {})
        try:
            if self._is_over:
                raise LostError("aborted")
            await self._stream.head(CONNECT_S + WAIT_S)
            if "json" not in self._stream.headers.get("content-type", ""):
                raise MissingError("this server has no long poll")
            got = whole(json.loads(await self._stream.body()))
        finally:
            self._stream.abort()
        self._since = got.cursor
        return got

    def abort(self) -> None:
        """See `Connection`."""
        self._is_over = True
        if self._stream is not None:
            self._stream.abort()


def whole(answer: Mapping[str, object]) -> Got:
    """Return an answer's messages as one: they are applied together, and its cursor stands behind them."""
    messages, decoder = answer["messages"], Decoder()
    assert isinstance(messages, list), "a list of messages"
    parts = [decoder.take(message) for message in messages if message["op"] != "bye"]
    return Got(
        [value for part in parts for value in part.values],
        str(answer["o"]),
        any(part.is_live for part in parts),
        reset=next((part.reset for part in parts if part.reset is not None), None),
    )
