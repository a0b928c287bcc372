"""Watching by Socket.IO: namespace ``/watch``, events and acks as ``watch.v1`` has ops and answers (extra `socketio`).

Owns: the door at ``/socket.io``, who may come through it, and the bounds of what the library keeps. Place: gateway,
above `socket_io_link`; the only importer of ``socketio``, imported when ``--socketio`` is said. What is said and sent
is decided by `hub.live.watch`, as for a WebSocket: a client's event is its op, the ack its answer, the hub's ops are
events.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson
import socketio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from device_sdk.wire import PING_S
from hub.errors import BadRequestError, ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import Parts, Peer, identify
from hub.gateway.asgi_socket import AsgiSocket
from hub.gateway.origin import is_same_origin
from hub.gateway.recording import refused
from hub.gateway.socket_io_link import NAMESPACE, SocketIoLink
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import Accept, Refuse, Upgrade, UpgradeRequest
from hub.live.message import MAX_MESSAGE_BYTES
from hub.roles import Identity, Verb

_log = logging.getLogger("hub.gateway")
# The library logs what strangers send at level ERROR, each of it; what is ours to log is logged here.
_library_log = logging.getLogger("hub.gateway.library.socketio")
_library_log.setLevel(logging.CRITICAL)

PATH = "/socket.io"
# Engine.IO says who it is for only after it has begun: so many may be between the two, for so many sweeps (seconds).
MAX_STRANGERS = 256
STRANGER_S = 10
# A WebSocket that a session is to go on with says so at once; a proxy that passes handshakes and nothing else, never.
UPGRADE_S = 10
# A client that takes 6 KB/s has its ping behind at most 256 KiB of readings.
PONG_S = 45
# The library answers whatever comes by POST, also to who never polls: our packets, a ping and its answers, twice.
MAX_QUEUED = 32
# Such an answer holds the name of the namespace that was asked for.
MAX_NAMESPACE_CHARS = 64
MAX_PACKET_BYTES = 2 * MAX_MESSAGE_BYTES
# Beside the events: a ping, its answer, what an upgrade says.
_SHORT_BYTES = 16
# First characters of what a client says; 0 is the hub's.
_TYPES = frozenset(b"%d" % number for number in range(1, 7))
BODY_S = 10.0


class _Packet(socketio.packet.Packet):  # type: ignore[misc]  # no annotations
    """A packet of text: attachments would be collected without a bound before anything looked at them."""

    def decode(self, encoded_packet: Any) -> int:
        count: int = super().decode(encoded_packet)
        if self.packet_type in (socketio.packet.BINARY_EVENT, socketio.packet.BINARY_ACK):
            raise ValueError("binary packets are not taken")
        return count


class _Queue(asyncio.Queue[Any]):
    """Packets for one client. Too many, and it takes none any more: those it has are a beginning, without a gap."""

    is_stuffed = False

    async def put(self, item: Any) -> None:
        """Add a packet; None, the end, always fits."""
        if item is not None and (self.is_stuffed or self.qsize() >= MAX_QUEUED):
            self.is_stuffed = True
        else:
            await super().put(item)


class _Server(socketio.AsyncServer):  # type: ignore[misc]  # no annotations
    """The library's server without its handlers of events: those have neither the ack's number nor an order."""

    def __init__(self, hub: Parts) -> None:
        super().__init__(
            async_mode="asgi", serializer=_Packet, logger=_library_log, engineio_logger=_library_log,
            ping_interval=PING_S, ping_timeout=PONG_S, max_http_buffer_size=MAX_PACKET_BYTES,
            # Whether an origin may come is decided by the door; compression is a proxy's affair.
            cors_allowed_origins=[], http_compression=False,
        )  # fmt: skip
        self.links: dict[str, SocketIoLink] = {}
        self._hub = hub
        self.on("connect", self._connected, namespace=NAMESPACE)
        self.on("disconnect", self._disconnected, namespace=NAMESPACE)

    async def give(self, eio_sid: str, packets: Sequence[str]) -> None:
        """Return when the transport begins with them, so at most one batch is behind the one that is under way."""
        for packet in packets:
            await self.eio.send(eio_sid, packet)
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

    def _engineio_server_class(self) -> type:
        return type("_Engine", (super()._engineio_server_class(),), {"create_queue": lambda _: _Queue()})

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: object) -> None:
        # What has ended keeps the place that the library gives it before it looks; a long name comes back as often.
        if eio_sid in self.environ and len(namespace or "") <= MAX_NAMESPACE_CHARS:
            await super()._handle_connect(eio_sid, namespace, data)

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


@dataclass(slots=True)
class _Upgrade:
    """The WebSocket that a session which polls is to go on with; ``age`` in sweeps."""

    socket: AsgiSocket
    age: int = 0


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
        self._upgrades: dict[str, _Upgrade] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a client that polls, or begins to."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        refuse = self._refusal(_headers(scope), query)
        if refuse is not None:
            await _answer(refuse)(scope, receive, send)
            return
        # WebSockets come by `over`, whatever a head says; the library believes it.
        scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"upgrade"]}
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
        elif scope["method"] == "GET" and "sid" in query:
            await self._poll(query, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._body_s):
                await self._app(scope, receive, send)
        except TimeoutError:
            await Response(status_code=408, headers={"Connection": "close"})(scope, receive, send)
        except KeyError:
            # The library knows a session that has ended until it is asked for, and then this is how it says so.
            await _answer(_no_session("this session has ended"))(scope, receive, send)

    async def _poll(self, query: Mapping[str, list[str]], scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a poll, or end the session: what was given to an answer that is lost would be missing.

        That is so when the client hangs up before its answer, when it asks beside a question that is open, and when
        it asks the same again: browsers, HTTP libraries and proxies do so by themselves, and clients never notice.
        """
        client, asked = self._server.eio.sockets.get(query["sid"][0]), query.get("t")
        if client is None:
            await self._app(scope, receive, send)
            return
        session = client.session
        if session.get("is_open") or (asked is not None and asked == session.get("asked")):
            await self._server.close_client(client.sid, for_good=False)
            await _answer(_no_session("asked twice: an answer was lost, begin again"))(scope, receive, send)
            return
        session.update(asked=asked, is_open=True)
        request = await receive()

        async def again() -> Message:
            return request

        async def answer(message: Message) -> None:
            session["is_open"] = False
            await send(message)

        async def notice() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if session["is_open"]:
                await self._server.close_client(client.sid, for_good=False)

        leaving = asyncio.create_task(notice(), name="socket.io poll")
        try:
            await self._app(scope, again, answer)
        finally:
            leaving.cancel()
            session["is_open"] = False

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
            return Accept(AsgiSocket(self._app, request, takes=_is_packet))
        before = self._upgrades.get(sid)
        if sid not in self._server.eio.sockets or (before is not None and not before.socket.is_closed):
            return Refuse(400, BadRequestError.reason, "no such session, or one that has a WebSocket")
        # From its handshake on the library would hold back what is due, until the WebSocket has said what it is for.
        socket = AsgiSocket(self._app, request, takes=_is_packet, waits=True)
        self._upgrades[sid] = _Upgrade(socket)
        return Accept(socket)

    def sweep(self) -> None:
        """End who has not said in `STRANGER_S` sweeps that it comes to watch, who does not poll, and what hangs."""
        sockets = self._server.eio.sockets
        for sid, client in list(sockets.items()):
            if client.closed:
                del sockets[sid]
        strangers = self._strangers()
        self._ages = {sid: self._ages.get(sid, 0) + 1 for sid in strangers}
        for sid, upgrade in list(self._upgrades.items()):
            upgrade.age += 1
            client = sockets.get(sid)
            if upgrade.socket.is_closed:
                del self._upgrades[sid]
            elif client is None or (upgrade.age > UPGRADE_S and not client.upgraded):
                upgrade.socket.end()
        stuffed = [sid for sid, client in sockets.items() if client.queue.is_stuffed]
        for sid in {sid for sid, age in self._ages.items() if age > STRANGER_S}.union(stuffed):
            self._end(sid)
        if not sockets and not self._upgrades:
            self._sweep_timer.discard(self)

    def stop(self) -> None:
        """Begin with nobody any more, and end who has not come to watch: an open poll would hold the hub up."""
        self._is_stopping = True
        for sid in self._strangers():
            self._end(sid)

    def _end(self, sid: str) -> None:
        task = asyncio.get_running_loop().create_task(self._server.close_client(sid, for_good=False))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _refusal(self, headers: Mapping[str, str], query: Mapping[str, object]) -> Refuse | None:
        if not is_same_origin(headers.get("origin"), headers.get("host", ""), allowed=self._allowed_origins):
            return Refuse(403, ForbiddenError.reason, "this page is of another origin")
        if "j" in query:
            # A script of any page could read such an answer.
            return Refuse(400, BadRequestError.reason, "answers are no scripts: JSONP is not spoken")
        if "sid" in query:
            return None
        if self._is_stopping:
            return Refuse(503, "unavailable", "the hub stops; come back", {"Retry-After": "1"})
        if len(self._strangers()) >= MAX_STRANGERS:
            return Refuse(503, "unavailable", "too many clients are about to begin; come back", {"Retry-After": "10"})
        self._sweep_timer.add(self)
        return None

    def _strangers(self) -> list[str]:
        links = self._server.links
        return [sid for sid, client in self._server.eio.sockets.items() if sid not in links and not client.closed]


def _is_packet(data: bytes, is_text: bool) -> bool:
    """Whether the library can read it: else its task ends with a traceback, and the session stays behind."""
    if len(data) > MAX_PACKET_BYTES:
        return False
    if not is_text or (data[:1] == b"4" and data[1:2].isdigit()):
        return True
    # It tries whatever follows as JSON, and what is long can be nested deep.
    return len(data) <= _SHORT_BYTES and data[:1] in _TYPES


def _no_session(message: str) -> Refuse:
    return Refuse(400, BadRequestError.reason, message)


def _answer(refuse: Refuse) -> Response:
    body = orjson.dumps({"error": {"reason": refuse.reason, "message": refuse.message}})
    return Response(body, refuse.status, dict(refuse.headers), media_type="application/json")


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else str(client[0])
