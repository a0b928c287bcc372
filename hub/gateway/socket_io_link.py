"""One client of Socket.IO's namespace ``/watch``: its conversation, its unsent packets, its end.

Owns: events and acks as ops and answers of ``watch.v1``, what a client is given next. Place: gateway, below
`socket_io`, whose library is behind `Server`.

The library queues whatever it is given, for each client, without a bound. So it is given one batch at a time, and the
next when the client took that; the rest is a cursor. A close with a code 44xx disconnects the namespace, after which
clients stay away; all others end the transport, after which they come back by themselves.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import orjson

from device_sdk.wire import Close
from hub.errors import BadRequestError
from hub.gateway.access import Parts
from hub.gateway.watch_pages import PageReader
from hub.gateway.watch_socket import ask_hooks
from hub.gateway.websocket import MAX_BUFFER_BYTES
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.watch import Decided, WatchSession
from hub.query import parse_time
from hub.roles import Identity, Verb

_log = logging.getLogger("hub.gateway")

NAMESPACE = "/watch"
# Unsent beyond it, pages wait; the library and the connection hold as much again each.
HIGH_WATER_BYTES = 64 * 1024
# By long poll, Python's client takes 16 packets at once: these, a ping and what the library says by itself.
BATCH_PACKETS = 8
# Time to take the last word before the end.
CLOSE_S = 2.0
# Between packets that are written at once; JSON holds no such byte.
_END = b"\x1e"
# The largest number that JavaScript counts acks with.
_MAX_ACK = 2**53
_numbers = itertools.count(1)


class Server(Protocol):
    """The library, as a client's link needs it."""

    async def give(self, eio_sid: str, packets: Sequence[str]) -> None:
        """Return when the transport begins with them, so at most one batch is behind the one that is under way."""

    async def close_client(self, eio_sid: str, *, for_good: bool) -> None:
        """End a client; ``for_good``: so that it does not come back by itself."""


class SocketIoLink:
    """One client of the namespace: a `Link` of its conversation and a `Watcher` of the live core."""

    kind = "socket.io"

    def __init__(self, server: Server, eio_sid: str, hub: Parts, identity: Identity, peer: str) -> None:
        self.identity_id = identity.id
        # A number: who knows the library's id of a session may go on with it.
        self.origin = Origin(f"io-{next(_numbers)}", identity, "socket.io", peer, time.time_ns())
        self._identity = identity
        self._grants = hub.grants
        self._deciding: asyncio.Task[None] | None = None
        self._server = server
        self._eio_sid = eio_sid
        self._live = hub.live
        self._pages = PageReader(hub.live.journal, hub.store, hub.consumer)
        self._parts: deque[bytes] = deque()
        self._buffered = self._given = 0
        self._woken = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        granted = identity.patterns(Verb.READ)
        self._session = WatchSession(
            hub.live, identity.namespace, granted, self, parse_time, self.origin.name,
            decide=self._decide if hub.grants.has_hooks else None, identity=identity,
        )  # fmt: skip
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"socket.io {self.origin.name}")
        self._live.enter(self)

    # --- what the server calls -----------------------------------------------------------------------------

    def receive(self, event: object, ack: int | None, arguments: list[object]) -> None:
        """Feed one event; its answer carries the ack's number as its id."""
        fields = arguments[0] if len(arguments) == 1 else {} if not arguments else None
        if not isinstance(event, str) or not isinstance(fields, dict) or (ack is not None and ack > _MAX_ACK):
            self.close(Close.BAD_MESSAGE, "an event has one object and at most an ack")
            return
        try:
            data = orjson.dumps({**fields, "op": event, "id": "" if ack is None else str(ack)})
        except TypeError as error:
            self.close(Close.BAD_MESSAGE, f"not JSON: {error}")
            return
        self._session.receive(data, True, asyncio.get_running_loop().time(), time.time_ns())

    def closed(self) -> None:
        """Forget the client: all it had is a cursor, and the client has that."""
        self._live.leave(self)
        self._session.end()
        self._task.cancel()
        if self._deciding is not None:
            self._deciding.cancel()

    # --- what the session needs (`hub.live.watch.Link`) ----------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the client that pages must wait too."""
        return self._buffered > min(HIGH_WATER_BYTES, self._live.unsent.mark)

    @property
    def buffered_bytes(self) -> int:
        """What the transport has not begun with."""
        return self._buffered + self._given

    def frame(self, payload: bytes) -> bytes:
        """Return an event named after the op; of an answer the ack, or without one an event too."""
        if payload.startswith(b'{"id":"'):
            ack, _, rest = payload[7:].partition(b'",')
            if ack:
                return b"3%s,%s[{%s]%s" % (NAMESPACE.encode(), ack, rest, _END)
            payload = b"{" + rest
        op = payload.partition(b'"op":"')[2].partition(b'"')[0]
        return b'2%s,["%s",%s]%s' % (NAMESPACE.encode(), op, payload, _END)

    def write(self, frame: bytes) -> None:
        """Add packets to what the client gets next."""
        if self._ending is None:
            # Mostly one packet: then these are the very bytes that others have too.
            is_one = frame.find(_END) == len(frame) - 1
            self._parts.extend((frame,) if is_one else frame.split(_END)[:-1])
            self._buffered += len(frame)
            self._woken.set()
            if self._buffered > MAX_BUFFER_BYTES:
                # Pages wait, answers do not: of one who asks by POST and never polls.
                self.end(Close.TOO_SLOW, "too slow")

    def identify(self, token: str) -> Identity:
        """Refuse: whose token it is was said when the client connected."""
        raise BadRequestError("connect again with the new token in auth")

    def close(self, code: int, reason: str) -> None:
        """Close for what the client did."""
        self.end(code, reason)

    def wake(self) -> None:
        """Go round once more."""
        self._woken.set()

    # --- what the live core calls (`hub.live.rooms.Watcher`) -----------------------------------------------

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its subscriptions stand."""
        return self._session.figures()

    def tick(self) -> None:
        """Tell quiet subscriptions their position."""
        self._session.tick()

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Say ``bye`` in the place of what is unsent (the cursor says what is owed), and close as the code says."""
        if self._ending is None:
            bye = self.frame(orjson.dumps({"op": "bye", "code": code, "reason": reason, "retry_ms": retry_ms}))
            self._task.cancel()
            self._parts.clear()
            self._buffered = 0
            ending = self._end(code, [bye])
            self._ending = asyncio.get_running_loop().create_task(ending, name=f"socket.io end {self.origin.name}")

    # --- inside ----------------------------------------------------------------------------------------

    def _decide(self, asked: Sequence[str], decided: Decided) -> None:
        """Ask the hooks; the session asks for one subscription at a time."""
        asking = ask_hooks(self._grants, self._identity, asked, decided)
        self._deciding = asyncio.get_running_loop().create_task(asking, name=f"{self.origin.name} hooks")

    async def _run(self) -> None:
        """Write what is owed, a page at a time, each after the client took what was written before."""
        try:
            while True:
                need = self._session.step()
                if need is not True and need is not False:
                    await self._pages.read(self._session.reader, need)
                if self._parts:
                    await self._give(self._take_batch())
                elif need is True:
                    await asyncio.sleep(0)
                elif need is False:
                    await self._woken.wait()
                self._woken.clear()
        except Exception:
            _log.exception("watch failed conn=%s", self.origin.name)
            self.end(Close.INTERNAL, "the hub failed; its log says why")

    def _take_batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._parts and len(batch) < BATCH_PACKETS and size < HIGH_WATER_BYTES:
            batch.append(self._parts.popleft())
            size += len(batch[-1])
        self._buffered = self._buffered - size if self._parts else 0
        return batch

    async def _give(self, packets: list[bytes]) -> None:
        self._given = sum(map(len, packets))
        await self._server.give(self._eio_sid, [packet.removesuffix(_END).decode() for packet in packets])
        self._given = 0

    async def _end(self, code: int, last: list[bytes]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._give(last)
        await self._server.close_client(self._eio_sid, for_good=Close.BAD_MESSAGE <= code)
