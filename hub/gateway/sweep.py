"""One timer for all connections: quiet ones are pinged, silent ones closed, slow handshakes ended.

Owns: the one repeating timer of a gateway. Place: below `hub.gateway.websocket`
and `hub.gateway.handshake`, which say in ``sweep()`` what a second means to
them. Must not: read a clock; time is counted in sweeps.

A timer per connection costs a heap entry and two calls per frame to push it
back; here a frame costs one attribute store, and 10,000 connections one
millisecond per second.
"""

import asyncio
import logging
from typing import Protocol

_log = logging.getLogger("hub.gateway")

SWEEP_S = 1.0


class Swept(Protocol):
    """What a connection must offer."""

    def sweep(self) -> None:
        """A sweep has passed; may remove itself from the sweep."""


class Sweep:
    """The set of connections and their timer; the timer runs only while there are any."""

    def __init__(self, interval_s: float = SWEEP_S) -> None:
        self._interval_s = interval_s
        self._members: set[Swept] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Swept) -> None:
        """Sweep ``member`` from now on. Must run in the event loop."""
        self._members.add(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.run)

    def discard(self, member: Swept) -> None:
        """Forget ``member``; nothing when it is not known."""
        self._members.discard(member)

    def run(self) -> None:
        """Sweep every connection once; one that raises is logged and dropped, the others are served."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for member in tuple(self._members):
            try:
                member.sweep()
            except Exception:
                _log.exception("sweep failed member=%r", member)
                self._members.discard(member)
        if self._members:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.run)
