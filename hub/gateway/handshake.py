"""uvicorn's HTTP protocol with limits on what a peer may send and how long it may take, and an end for what it leaves.

Owns: what uvicorn has no setting for. A client that sends its head slowly, or nothing, would hold a descriptor for
ever; a head without an end would be kept whole; one that does not read its answer would hold that answer; and one that
sends a further request behind an event stream and goes would leave the stream behind. Place: uvicorn's ``http=``
class; upgrades pass through it to ``ws=``. Must not: look at requests.
"""

import asyncio
import sys
from typing import Any, ClassVar, cast

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hub.gateway.sweep import Sweep

# Sweeps (seconds) from the connection, or from the first byte of a further request, to the end of the head.
HEAD_S = 10
# The ASGI extension under which a response finds how to cut its connection off, with what was not taken of it.
ABORT = "hub.abort"
# 64 patterns in a query are 13 KB. Checked behind each read, so one read more (256 KiB) may be kept. Without it a
# stranger that sent 60 MB of short headers made the hub grow by 1.1 GB within 6 s.
MAX_HEAD_BYTES = 64 * 1024
# Sweeps in which not a byte of an answer was taken; nginx's `send_timeout` is as long. A program that is busy with what
# it has may pause, and whoever sleeps for longer resumes by its cursor.
STALL_S = 60
# Requests that may wait behind the one being answered; browsers send none. Without it 20 connections, with 128 KB each,
# made 132,000 of them: 340 MB, and the loop was held for seconds.
MAX_WAITING = 16
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    b'{"error":{"reason":"too_large","message":"the head of a request is over %d bytes"}}' % MAX_HEAD_BYTES
)


def make_http_protocol(sweep: Sweep | None = None) -> "type[GuardedHttp]":
    """Return the class for uvicorn's ``http=``; all connections share ``sweep``."""
    members = {"_sweep": Sweep() if sweep is None else sweep}
    return cast("type[GuardedHttp]", type("HubHttp", (GuardedHttp,), members))


class GuardedHttp(HttpToolsProtocol):
    """One HTTP connection; between requests uvicorn's own keep-alive limit holds."""

    _sweep: ClassVar[Sweep]
    _expects_head = True
    # Bytes since a request ended or brought some of its body: a head, trailers, or nothing at all.
    _unused = 0
    _waited = 0
    _stalled = 0
    _unsent = 0
    _is_handed_over = False
    # The request being answered. uvicorn's `cycle` is the last that came, which may wait behind this one.
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Expect a head from now on."""
        super().connection_made(transport)
        self._sweep.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more; tell the request being answered, whichever came last."""
        self._sweep.discard(self)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse a head, or what follows a body, that is too large."""
        self._unused += len(data)
        super().data_received(data)
        if self._is_handed_over or self.transport.is_closing():
            return
        if self._unused > MAX_HEAD_BYTES:
            if self._is_idle:
                self.transport.write(_TOO_LARGE)
            self._end()
        elif self._is_idle and not self._expects_head:
            # Empty lines, or a body behind its answer: their first byte has ended uvicorn's limit between requests.
            self._expect_head()

    def on_message_begin(self) -> None:
        """Expect the rest of the head: its first byte has come."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Expect no head: a request runs, or an upgrade follows. Too many that wait end the connection."""
        if len(self.pipeline) >= MAX_WAITING:
            # Ends the parsing of what was read, as what cannot be parsed does.
            raise ValueError(f"more than {MAX_WAITING} requests wait for an answer")
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}
        self._expects_head = False
        super().on_headers_complete()
        self._sweep_or_not()

    def on_body(self, body: bytes) -> None:
        """Pass it on; limits of its size are those of who reads it."""
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect nothing more of this request."""
        self._unused = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; amid an answer only end, for it would stand among its bytes."""
        if self._is_idle:
            super().send_400_response(msg)
        self._end()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over and end at once: parser and protocol hold each other, with all of the request.

        Not while an answer is still being sent on it: frames would come in its middle, and what the transport says of
        its buffer would come to the wrong one of the two.
        """
        if not self._is_idle or self.flow.write_paused:
            self._end()
            return
        super().handle_websocket_upgrade()
        self._is_handed_over = True
        self._sweep.discard(self)
        self.parser = None  # type: ignore[assignment]  # nothing is fed to it any more

    def on_response_complete(self) -> None:
        """Expect that the rest of it is taken, also where the connection ends with it."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._stalled = 0
            self._sweep.add(self)

    def pause_writing(self) -> None:
        """Expect that some of what was sent is taken."""
        super().pause_writing()
        self._stalled = 0
        self._sweep.add(self)

    def resume_writing(self) -> None:
        """Enough was taken."""
        super().resume_writing()
        self._sweep_or_not()

    def sweep(self) -> None:
        """Close after `HEAD_S` sweeps without a complete head; cut off after `STALL_S` in which nothing was taken."""
        unsent = self.transport.get_write_buffer_size()
        self._stalled = 0 if unsent < self._unsent or not unsent else self._stalled + 1
        self._unsent = unsent
        if self._stalled > STALL_S:
            # Not `close`, which would wait until all was taken.
            self.transport.abort()
        elif self._expects_head:
            self._waited += 1
            if self._waited > HEAD_S:
                self.transport.close()
        elif not unsent:
            self._sweep.discard(self)

    @property
    def _is_idle(self) -> bool:
        return self._running is None or self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, _unchunked(cycle, app) if cycle.scope["http_version"] == "1.0" else app)

    def _expect_head(self) -> None:
        self._waited = 0
        self._expects_head = True
        self._sweep.add(self)

    def _end(self) -> None:
        """Close when all was taken; the sweep cuts off who takes nothing."""
        self.transport.close()
        self._sweep.add(self)

    def _sweep_or_not(self) -> None:
        is_last = self._is_idle or self.transport.is_closing()
        if not (self._expects_head or self.flow.write_paused or (is_last and self.transport.get_write_buffer_size())):
            self._sweep.discard(self)


def _unchunked(cycle: RequestResponseCycle, app: Any) -> Any:
    """Return the application for a client of HTTP/1.0, which knows no chunks: an answer ends with its connection.

    Source: RFC 9112, 6.1: no Transfer-Encoding in an answer to a request that is not of HTTP/1.1.
    """

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        is_open = False

        async def plain(message: Message) -> None:
            nonlocal is_open
            if message["type"] == "http.response.start":
                is_open = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if is_open:
                    # As if a length had been said that is never reached.
                    cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
            elif is_open and not message.get("more_body", False):
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, plain)

    return run
