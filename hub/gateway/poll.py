"""Watching by long poll: ``GET /v1/watch?match=…&since=…&wait=20s``, each answer a page and the cursor behind it.

Owns: the waiting, and noticing that the client left. Place: gateway; what is answered is decided by `hub.live.poll`.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Message

from device_sdk.wire import Close
from hub.errors import BadRequestError, UnauthenticatedError
from hub.gateway.access import Consumer
from hub.gateway.sse import watch_request
from hub.gateway.watch_pages import PageReader
from hub.live.cursor import resolve_since
from hub.live.figures import Origin
from hub.live.poll import MAX_WAIT_S, Poll
from hub.live.rooms import Live
from hub.live.watch import room_key
from hub.query import parse_duration, parse_time
from hub.roles import Identity, Verb
from hub.store.base import Store

# How long an answer is looked for behind the cursor, where a narrow pattern is owed little of much.
LOOK_S = 5.0
# As long as any duration of REST: Python reads no number of thousands of digits.
_MAX_WAIT_CHARS = 32
_HEADERS = {"Cache-Control": "no-store"}
_numbers = itertools.count(1)


async def watch_poll(
    live: Live,
    store: Store,
    consumer: Consumer,
    identity: Identity,
    query: QueryParams,
    headers: Headers,
    receive: Callable[[], Awaitable[Message]],
    peer: str,
) -> Response:
    """Return the response of ``GET /v1/watch?match=…&not=…&since=…&mode=…&max_hz=…&wait=…``.

    Raises:
        BadRequestError: a parameter is wrong. ForbiddenError: nothing of what was asked for is granted.
        UnauthenticatedError: the credential ended meanwhile.
    """
    wait_s = _wait_s(query["wait"])
    request = watch_request(query, headers)
    key, _, _ = room_key(request, identity.namespace, identity.patterns(Verb.READ))
    start = resolve_since(request.since, live.runs, live.head, time.time_ns(), parse_time)
    woken = asyncio.Event()
    origin = Origin(f"p-{next(_numbers)}", identity, "poll", peer, time.time_ns())
    poll = Poll(live, key, start, origin, woken.set)
    # With a rate, answers come no sooner than that after their questions: nobody has to remember the last one.
    pause_s = 0.0 if key.max_hz is None or not start.resumes else min(1 / key.max_hz, wait_s)
    leaving = asyncio.create_task(_notice(receive, poll, woken), name="poll")
    try:
        await _sleep(woken, lambda: poll.is_over, pause_s)
        await _gather(poll, PageReader(live.journal, store, consumer), woken, wait_s - pause_s)
        if poll.ended is not None and poll.ended[0] == Close.UNAUTHENTICATED:
            raise UnauthenticatedError(poll.ended[1])
        return Response(poll.answer(), headers=_HEADERS, media_type="application/json")
    finally:
        leaving.cancel()
        poll.leave()


async def _gather(poll: Poll, pages: PageReader, woken: asyncio.Event, wait_s: float) -> None:
    """Return when the answer is due or the wait is over."""
    loop = asyncio.get_running_loop()
    over_at = loop.time() + wait_s
    look_until = loop.time() + max(wait_s, LOOK_S)
    while not poll.is_over and loop.time() < look_until:
        need = poll.step()
        if need is True:
            await asyncio.sleep(0)
        elif need is not False:
            await pages.read(poll.reader, need)
        elif poll.is_due or loop.time() >= over_at:
            return
        else:
            await _sleep(woken, lambda: poll.is_due, over_at - loop.time())


async def _sleep(woken: asyncio.Event, is_met: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds, looked at whenever woken, or when the time is over."""
    try:
        async with asyncio.timeout(seconds):
            while not is_met():
                woken.clear()
                await woken.wait()
    except TimeoutError:
        pass


async def _notice(receive: Callable[[], Awaitable[Message]], poll: Poll, woken: asyncio.Event) -> None:
    """Forget a client that hangs up at once, not when its answer cannot be sent."""
    while (await receive())["type"] != "http.disconnect":
        pass
    poll.leave()
    woken.set()


def _wait_s(text: str) -> float:
    if len(text) > _MAX_WAIT_CHARS:
        raise BadRequestError(f"wait {text[:40]!r}…: {len(text)} characters; the limit is {_MAX_WAIT_CHARS}")
    wait_s = parse_duration(text) / 1e9
    if text.startswith("-") or wait_s > MAX_WAIT_S:
        raise BadRequestError(f"wait {text[:40]!r}: 0s to {MAX_WAIT_S:g}s; ask again with the cursor of the answer")
    return wait_s
