"""uvicorn's HTTP protocol with a limit on how long a request's head may take.

Owns: the one thing uvicorn has no setting for: a client that opens a
connection and sends its head slowly, or nothing, holds a descriptor for ever.
Place: uvicorn's ``http=`` class; upgrades pass through it to ``ws=``.
Must not: look at requests.
"""

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.gateway.sweep import Sweep

# Sweeps (seconds) from the connection, or from the first byte of a further request, to the end of the head.
HEAD_S = 10
# The ASGI extension under which a response finds how to cut its connection off, with what was not taken of it.
ABORT = "hub.abort"


def make_http_protocol(sweep: Sweep | None = None) -> "type[GuardedHttp]":
    """Return the class for uvicorn's ``http=``; all connections share ``sweep``."""
    members = {"_sweep": Sweep() if sweep is None else sweep}
    return cast("type[GuardedHttp]", type("HubHttp", (GuardedHttp,), members))


class GuardedHttp(HttpToolsProtocol):
    """One HTTP connection; between requests uvicorn's own keep-alive limit holds."""

    _sweep: ClassVar[Sweep]
    _waited = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Expect a head from now on."""
        super().connection_made(transport)
        self._sweep.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._sweep.discard(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of the head: its first byte has come."""
        super().on_message_begin()
        self._waited = 0
        self._sweep.add(self)

    def on_headers_complete(self) -> None:
        """Expect no head: a request runs, or an upgrade follows."""
        self._sweep.discard(self)
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}
        super().on_headers_complete()

    def sweep(self) -> None:
        """Close after `HEAD_S` sweeps without a complete head."""
        self._waited += 1
        if self._waited > HEAD_S:
            self._sweep.discard(self)
            self.transport.close()
