"""Watching by server-sent events: ``GET /v1/watch?match=…`` with the cursor as the event's id.

Owns: the text format and the generator that Starlette sends. Place: gateway;
what is sent is decided by `hub.live.subscription`, as for a WebSocket. One
stream is one subscription; a browser's ``Last-Event-ID`` resumes all of it.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from device_sdk.wire import Close
from hub.errors import BadRequestError
from hub.gateway.access import Consumer
from hub.gateway.handshake import ABORT
from hub.gateway.watch_pages import PageReader
from hub.gateway.websocket import CLOSE_S
from hub.live.cursor import resolve_since
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.message import Sub, check_message
from hub.live.rooms import Live
from hub.live.subscription import Phase, Subscription
from hub.live.watch import room_key
from hub.query import parse_time
from hub.roles import Identity, Verb
from hub.store.base import Store

# Browsers wait this long before they reconnect, half of it more or less, and add no jitter of their own: all that were
# cut off at one instant would come back at one. Their default differs from 3 to 5 s.
RETRY_MS = 2000
_numbers = itertools.count(1)
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream:
    """One watcher by SSE: an `Outlet` that is emptied by the response, and a `Watcher` for the sweep."""

    # No name of a subscription by WebSocket leads to this key: who has an equal one gets the same bytes.
    key = "sse/"

    def __init__(self, live: Live, pages: PageReader, identity: Identity, request: Sub, peer: str) -> None:
        self.identity_id = identity.id
        self.origin = Origin(f"e-{next(_numbers)}", identity, "sse", peer, time.time_ns())
        self._live = live
        self._pages = pages
        self._parts: list[bytes] = [b"retry: %d\n\n" % random.randint(RETRY_MS // 2, RETRY_MS * 3 // 2)]
        self._buffered = 0
        self._sending = 0
        self._was_quiet = False
        self._has_ended = False
        self._abort: Callable[[], None] | None = None
        self._cut_off: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()
        key, _, _ = room_key(request, identity.namespace, identity.patterns(Verb.READ))
        start = resolve_since(request.since, live.runs, live.head, time.time_ns(), parse_time)
        self._subscription = Subscription(live, key, start, self, self._woken.set, lambda _: None)
        live.enter(self)

    # --- outlet ----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the response has so much to send that pages must wait."""
        return self._buffered > self._live.unsent.mark

    def wrap(self, op: str, tail: bytes, cursor: str | None) -> bytes:
        """Return one event; JSON holds no line breaks, so one ``data:`` line is enough."""
        position = b"" if cursor is None else b"id: %s\n" % cursor.encode()
        return b"%sevent: %s\ndata: {%s\n\n" % (position, op.encode(), tail)

    def write(self, data: bytes) -> None:
        """Add bytes to what the response sends next."""
        self._parts.append(data)
        self._buffered += len(data)
        self._was_quiet = False
        self._woken.set()

    # --- watcher ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Tell the position, or send a comment: proxies cut connections that say nothing."""
        if self.is_full:
            return
        self._subscription.tick()
        if self._was_quiet:
            self.write(b": ping\n\n")
        self._was_quiet = True

    @property
    def buffered_bytes(self) -> int:
        """What waits here, and what the client has not taken of the last part."""
        return self._buffered + self._sending

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its one subscription stands."""
        return [self._subscription.figures()]

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """End the response after what was written and a ``bye``."""
        self._subscription.end()
        if code == Close.EVICTED:
            # Its cursor is behind what was taken: nothing of this is lost, and memory is short now.
            self._parts, self._buffered = [], 0
        body = {"code": code, "reason": reason, "retry_ms": retry_ms}
        # A browser's own EventSource obeys this line alone; a hub that starts again is back in about a second.
        wait = b"" if retry_ms is None else b"retry: %d\n" % (RETRY_MS + retry_ms)
        self.write(wait + self.wrap("bye", orjson.dumps(body)[1:], None))
        self._has_ended = True
        if self._abort is not None and self._cut_off is None:
            # Who does not read never takes the end either, and would hold for ever what was written.
            self._cut_off = asyncio.get_running_loop().call_later(CLOSE_S, self._abort)

    # --- response ----------------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[bytes]:
        """Yield what is written; each ``yield`` waits until the client took it, and only then is the next page made."""
        while True:
            need = self._subscription.step()
            if need is not True and need is not False:
                await self._pages.read(self._subscription, need)
            if self._parts:
                data = b"".join(self._parts)
                self._parts.clear()
                self._buffered, self._sending = 0, len(data)
                yield data
                self._sending = 0
            elif self._has_ended:
                return
            elif need is True:
                await asyncio.sleep(0)
            elif need is False:
                await self._woken.wait()
            self._woken.clear()

    def cut_off_by(self, abort: Callable[[], None] | None) -> None:
        """Take what cuts the connection off when the client does not take the end of the stream."""
        self._abort = abort

    def close(self) -> None:
        """Leave the room and the sweep. Harmless when called twice."""
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._subscription.end()
        self._live.leave(self)

    @property
    def phase(self) -> Phase:
        """Where the subscription is."""
        return self._subscription.phase


class EventStreamResponse(StreamingResponse):
    """A response that gives its place back however it ends."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(stream.events(), headers=_HEADERS, media_type="text/event-stream")
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or the hub ends it; the head alone where only that is asked for."""
        self.stream.cut_off_by(scope.get("extensions", {}).get(ABORT, {}).get("abort"))
        if scope["method"] == "HEAD":
            self.stream.close()
            self.body_iterator = _nothing()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stream.close()


async def _nothing() -> AsyncIterator[bytes]:
    events: tuple[bytes, ...] = ()
    for event in events:
        yield event


def watch_events(
    live: Live,
    store: Store,
    consumer: Consumer,
    identity: Identity,
    query: QueryParams,
    headers: Headers,
    peer: str = "",
) -> EventStreamResponse:
    """Return the response of ``GET /v1/watch?match=…&not=…&selector=…&since=…&mode=…&max_hz=…&agg=…&every=…``.

    ``match`` may be repeated; absent = everything granted. ``Last-Event-ID`` goes before ``since``.

    Raises:
        BadRequestError: a parameter is wrong.
        ForbiddenError: nothing of what was asked for is granted.
    """
    request = watch_request(query, headers)
    return EventStreamResponse(EventStream(live, PageReader(live.journal, store, consumer), identity, request, peer))


def watch_request(query: QueryParams, headers: Headers) -> Sub:
    """Return what the query of ``GET /v1/watch`` asks for: the same fields as in the message of a WebSocket.

    Raises:
        BadRequestError: a parameter is wrong.
    """
    for name in query:
        if name not in ("match", "not") and len(query.getlist(name)) > 1:
            # One of them would be obeyed and the other not.
            raise BadRequestError(f"parameter {name[:40]!r} is given twice")
    asked: dict[str, object] = {
        name: query[name] for name in ("mode", "max_hz", "agg", "every", "selector", "since") if name in query
    }
    asked |= {"op": "sub", "sub": "http", "match": query.getlist("match") or ["**"], "not": query.getlist("not")}
    if headers.get("last-event-id"):
        asked["since"] = headers["last-event-id"]
    request = check_message(asked)
    assert isinstance(request, Sub), "op says sub"
    return request
