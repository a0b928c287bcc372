"""Watching by Socket.IO: namespace ``/watch``, events and acks as ``watch.v1`` has ops and answers (extra `socketio`).

Owns: the door at ``/socket.io``, who may come through it, and each client's unsent packets. Place: gateway; the only
importer of ``socketio``, imported when ``--socketio`` is said. What is said and sent is decided by `hub.live.watch`,
as for a WebSocket: a client's event is its op, the ack its answer, the hub's ops are events.

The library queues whatever it is given, for each client, without a bound. So it is given one batch at a time, and the
next when the client took that; the rest is a cursor. A close with a code 44xx disconnects the namespace, after which
clients stay away; all others end the transport, after which they come back by themselves.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import orjson
import socketio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from device_sdk.wire import PING_S, Close
from hub.errors import BadRequestError, ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import Parts, Peer, identify
from hub.gateway.asgi_socket import AsgiSocket
from hub.gateway.origin import is_same_origin
from hub.gateway.recording import refused
from hub.gateway.sweep import Sweep
from hub.gateway.watch_pages import PageReader
from hub.gateway.watch_socket import ask_hooks
from hub.gateway.websocket import Accept, Refuse, Upgrade, UpgradeRequest
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.message import MAX_MESSAGE_BYTES
from hub.live.watch import Decided, WatchSession
from hub.query import parse_time
from hub.roles import Identity, Verb

_log = logging.getLogger("hub.gateway")
# The library logs what strangers send at level ERROR, each of it; what is ours to log is logged here.
_library_log = logging.getLogger("hub.gateway.library.socketio")
_library_log.setLevel(logging.CRITICAL)

PATH = "/socket.io"
NAMESPACE = "/watch"
# Engine.IO says who it is for only after it has begun: so many may be between the two, for so many sweeps (seconds).
MAX_STRANGERS = 256
STRANGER_S = 10
# A client that takes 6 KB/s has its ping behind at most 256 KiB of readings.
PONG_S = 45
# Unsent beyond it, pages wait; the library and the connection hold as much again each.
HIGH_WATER_BYTES = 64 * 1024
# By long poll, Python's client takes 16 packets at once: these, a ping and what the library says by itself.
BATCH_PACKETS = 8
# Time to take the last word before the end.
CLOSE_S = 2.0
BODY_S = 10.0
# Between packets that are written at once; JSON holds no such byte.
_END = b"\x1e"
# The largest number that JavaScript counts acks with.
_MAX_ACK = 2**53


class _Packet(socketio.packet.Packet):  # type: ignore[misc]  # no annotations
    """A packet of text: attachments would be collected without a bound before anything looked at them."""

    def decode(self, encoded_packet: Any) -> int:
        count: int = super().decode(encoded_packet)
        if self.packet_type in (socketio.packet.BINARY_EVENT, socketio.packet.BINARY_ACK):
            raise ValueError("binary packets are not taken")
        return count


class SocketIoLink:
    """One client of the namespace: a `Link` of its conversation and a `Watcher` of the live core."""

    kind = "socket.io"

    def __init__(self, server: "_Server", eio_sid: str, hub: Parts, identity: Identity, peer: str) -> None:
        self.identity_id = identity.id
        self.origin = Origin(f"io-{eio_sid}", identity, "socket.io", peer, time.time_ns())
        self._identity = identity
        self._grants = hub.grants
        self._deciding: asyncio.Task[None] | None = None
        self._server = server
        self._eio_sid = eio_sid
        self._live = hub.live
        self._pages = PageReader(hub.live.journal, hub.store, hub.consumer)
        self._parts: deque[bytes] = deque()
        self._buffered = 0
        self._woken = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        granted = identity.patterns(Verb.READ)
        self._session = WatchSession(
            hub.live, identity.namespace, granted, self, parse_time, self.origin.name,
            decide=self._decide if hub.grants.has_hooks else None,
        )  # fmt: skip
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"socket.io {eio_sid}")
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
        return self._buffered > HIGH_WATER_BYTES

    @property
    def buffered_bytes(self) -> int:
        """What was not given to the library yet."""
        return self._buffered

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
            ending = self._end(code, [bye])
            self._ending = asyncio.get_running_loop().create_task(ending, name=f"socket.io end {self._eio_sid}")

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
            _log.exception("watch failed conn=io-%s", self._eio_sid)
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
        """Return when the transport begins with them, so at most one batch is behind the one that is under way."""
        for packet in packets:
            await self._server.eio.send(self._eio_sid, packet.removesuffix(_END).decode())
        await self._server.taken(self._eio_sid)

    async def _end(self, code: int, last: list[bytes]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._give(last)
        await self._server.close_client(self._eio_sid, for_good=Close.BAD_MESSAGE <= code)


class _Server(socketio.AsyncServer):  # type: ignore[misc]  # no annotations
    """The library's server without its handlers of events: those have neither the ack's number nor an order."""

    def __init__(self, hub: Parts) -> None:
        super().__init__(
            async_mode="asgi", serializer=_Packet, logger=_library_log, engineio_logger=_library_log,
            ping_interval=PING_S, ping_timeout=PONG_S, max_http_buffer_size=2 * MAX_MESSAGE_BYTES,
            # Whether an origin may come is decided by the door; compression is a proxy's affair.
            cors_allowed_origins=[], http_compression=False,
        )  # fmt: skip
        self.links: dict[str, SocketIoLink] = {}
        self._hub = hub
        self.on("connect", self._connected, namespace=NAMESPACE)
        self.on("disconnect", self._disconnected, namespace=NAMESPACE)

    async def taken(self, eio_sid: str) -> None:
        """Wait until the transport took everything that was given to it; at once when there is none."""
        client = self.eio.sockets.get(eio_sid)
        if client is not None:
            await client.queue.join()

    async def close_client(self, eio_sid: str, *, for_good: bool) -> None:
        """End a client; ``for_good``: so that it does not come back by itself."""
        client = self.eio.sockets.get(eio_sid)
        sid = self.manager.sid_from_eio_sid(eio_sid, NAMESPACE)
        if client is None:
            return
        if for_good and sid is not None:
            await self.disconnect(sid, NAMESPACE)
        else:
            await client.close(wait=False, abort=True)
            self.eio.sockets.pop(eio_sid, None)
        # Behind what is queued: the end of the transport.
        await client.queue.put(None)

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: object) -> None:
        link = self.links.get(eio_sid)
        if link is not None and namespace == NAMESPACE:
            event, *arguments = data if isinstance(data, list) and data else [None]
            link.receive(event, id, arguments)

    def _connected(self, sid: str, environ: Mapping[str, Any], auth: object) -> None:
        try:
            identity = self._identify(environ["asgi.scope"], auth)
        except HubError as error:
            raise socketio.exceptions.ConnectionRefusedError(str(error), {"reason": error.reason}) from error
        eio_sid = self.manager.eio_sid_from_sid(sid, NAMESPACE)
        self.links[eio_sid] = SocketIoLink(self, eio_sid, self._hub, identity, _address(environ["asgi.scope"]))

    def _disconnected(self, sid: str, reason: str) -> None:
        eio_sid = self.manager.eio_sid_from_sid(sid, NAMESPACE)
        link, client = self.links.pop(eio_sid, None), self.eio.sockets.get(eio_sid)
        if link is not None:
            link.closed()
        if client is not None:
            # There is nothing else here. The library would leave a client that polls waiting until the next ping.
            client.queue.put_nowait(None)

    def _identify(self, scope: Scope, auth: object) -> Identity:
        headers = _headers(scope)
        token = auth.get("token") if isinstance(auth, dict) else None
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        peer = Peer(_address(scope), headers)
        identity = identify(self._hub, headers, peer)
        if identity is None:
            if peer.has_credential:
                self._hub.change_log.refused(refused(f"connect {PATH}", peer.address))
            raise UnauthenticatedError("send auth: {token} of a watcher, or Authorization: Bearer with it")
        if not identity.patterns(Verb.READ):
            raise ForbiddenError("this credential may not read: use one from `hub tokens add --role watcher`")
        return identity


class SocketIo:
    """The door: an ASGI application for requests, `upgrade` for WebSockets.

    Args:
        hub: its parts.
        sweep: the timer that ends strangers; tests pass one that they drive.
        body_s: how long the body of a request may take.
    """

    def __init__(self, hub: Parts, sweep: Sweep | None = None, body_s: float = BODY_S) -> None:
        self._server = _Server(hub)
        self._allowed_origins = hub.config.allow_origin
        self._app = socketio.ASGIApp(self._server, socketio_path=PATH)
        self._sweep_timer = Sweep() if sweep is None else sweep
        self._body_s = body_s
        self._ages: dict[str, int] = {}
        # Of sessions that began by polling: the library waits without a limit for what such a WebSocket says first.
        self._upgrades: dict[str, AsgiSocket] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a client that polls, or begins to."""
        refuse = self._refusal(_headers(scope), parse_qs(scope["query_string"].decode("latin-1")))
        if refuse is not None:
            body = orjson.dumps({"error": {"reason": refuse.reason, "message": refuse.message}})
            headers = dict(refuse.headers)
            await Response(body, refuse.status, headers, media_type="application/json")(scope, receive, send)
        elif scope["method"] == "POST":
            try:
                async with asyncio.timeout(self._body_s):
                    await self._app(scope, receive, send)
            except TimeoutError:
                await Response(status_code=408, headers={"Connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def over(self, upgrade: Upgrade) -> Upgrade:
        """Return what decides WebSocket upgrades: here those of this path, ``upgrade`` all others."""

        def decide(request: UpgradeRequest) -> Accept | Refuse:
            if request.path.rstrip("/") != PATH:
                return upgrade(request)
            refuse = self._refusal(request.headers, request.query)
            return self._accept(request) if refuse is None else refuse

        return decide

    def _accept(self, request: UpgradeRequest) -> Accept | Refuse:
        sid = request.query.get("sid")
        if sid is None:
            return Accept(AsgiSocket(self._app, request))
        before = self._upgrades.get(sid)
        if sid not in self._server.eio.sockets or (before is not None and not before.is_closed):
            return Refuse(400, BadRequestError.reason, "no such session, or one that has a WebSocket")
        socket = self._upgrades[sid] = AsgiSocket(self._app, request)
        return Accept(socket)

    def sweep(self) -> None:
        """End who has not said in `STRANGER_S` sweeps that it comes to watch."""
        strangers = self._strangers()
        self._ages = {sid: self._ages.get(sid, 0) + 1 for sid in strangers}
        for sid, socket in list(self._upgrades.items()):
            if socket.is_closed:
                del self._upgrades[sid]
            elif sid not in self._server.eio.sockets:
                socket.end()
        for sid, age in self._ages.items():
            if age > STRANGER_S:
                task = asyncio.get_running_loop().create_task(self._server.close_client(sid, for_good=False))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        if not self._server.eio.sockets and not self._upgrades:
            self._sweep_timer.discard(self)

    def _refusal(self, headers: Mapping[str, str], query: Mapping[str, object]) -> Refuse | None:
        if not is_same_origin(headers.get("origin"), headers.get("host", ""), allowed=self._allowed_origins):
            return Refuse(403, ForbiddenError.reason, "this page is of another origin")
        if "sid" in query:
            return None
        if len(self._strangers()) >= MAX_STRANGERS:
            return Refuse(503, "unavailable", "too many clients are about to begin; come back", {"Retry-After": "10"})
        self._sweep_timer.add(self)
        return None

    def _strangers(self) -> list[str]:
        return [sid for sid in self._server.eio.sockets if sid not in self._server.links]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else str(client[0])
