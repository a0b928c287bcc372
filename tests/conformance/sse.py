"""The hub's server-sent events as an adapter: ``GET /v1/watch?match=…``, resumed by ``Last-Event-ID``.

Owns: the text format. As a browser does, an event counts only with the empty line behind it, and its id is what the
next connection sends.
"""

import json
from urllib.parse import urlencode

from tests.conformance.adapter import NOTHING, Connection, Got, LostError, Place, RefusedError, Wish
from tests.conformance.http_stream import HttpStream
from tests.conformance.watch_v1 import Decoder
from tests.conformance.websocket import FORBIDDEN, UNAUTHENTICATED


class SseAdapter:
    """Asks by GET. A cursor goes as ``Last-Event-ID``, a time as ``since``."""

    name = "sse"
    cut_within = 128 * 1024
    answer_bytes: int | None = None

    async def connect(self, place: Place, wish: Wish) -> Connection:
        """See `Adapter`."""
        asked = [("match", pattern) for pattern in wish.match]
        if wish.max_hz is not None:
            asked += [("mode", "latest"), ("max_hz", str(wish.max_hz))]
        headers = {"Accept": "text/event-stream"}
        if wish.since is not None:
            headers["Last-Event-ID"] = wish.since
        return EventConnection(await HttpStream.get(place, f"/v1/watch?{urlencode(asked)}", headers))


class EventConnection:
    """One event stream."""

    def __init__(self, stream: HttpStream) -> None:
        self._stream = stream
        self._decoder = Decoder()
        self._text = b""

    async def receive(self) -> Got:
        """See `Connection`."""
        while b"\n\n" not in self._text:
            data = await self._stream.some()
            if not data:
                raise LostError("the stream ended")
            self._text += data
        event, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if ": " in line)
        if "data" not in fields:
            return NOTHING
        message = json.loads(fields["data"])
        if fields["event"] == "bye":
            if message["code"] in (UNAUTHENTICATED, FORBIDDEN):
                raise RefusedError(message["reason"])
            raise LostError(message["reason"])
        got = self._decoder.take({"op": fields["event"], **message})
        named = fields.get("id")
        assert got.cursor == named, f"the event's id is {named}, its message says {got.cursor}"
        return got

    def abort(self) -> None:
        """See `Connection`."""
        self._stream.abort()
