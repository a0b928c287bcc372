"""A watcher's WebSocket: messages to the session, pages from disk to its subscriptions.

Owns: the pairing of one connection with one `WatchSession`, and the task that
exists only while something has to be caught up. Place: gateway; decides nothing.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from device_sdk.wire import Close
from hub.errors import ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import Consumer
from hub.gateway.frames import text_frame
from hub.gateway.watch_pages import PageReader
from hub.gateway.websocket import Connection
from hub.hooks.grant import Grants
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.rooms import Live
from hub.live.watch import Decided, WatchSession
from hub.query import parse_time
from hub.roles import Identity, Verb
from hub.store.base import Store

_log = logging.getLogger("hub.gateway")
_numbers = itertools.count(1)


def _refuse(_token: str) -> Identity:
    raise UnauthenticatedError("tokens are not taken on this connection: open one with the new token")


class WatchSocket:
    """Handler of one watcher's connection.

    Args:
        live, store, consumer: the hub's parts.
        identity: of the upgrade's credential: its namespace, and the patterns it may see.
        grants: what hooks leave of those, for each subscription; None: there are none.
        authenticate: token → who it speaks for, of `auth` on the connection; raises `UnauthenticatedError`.
    """

    kind = "ws"
    __slots__ = (
        "_authenticate", "_connection", "_deciding", "_grants", "_identity", "_is_woken", "_live", "_name", "_pages",
        "_session", "_task", "_unsent", "identity_id", "origin", "write",
    )  # fmt: skip

    def __init__(
        self,
        live: Live,
        store: Store,
        consumer: Consumer,
        identity: Identity,
        grants: Grants | None = None,
        authenticate: Callable[[str], Identity] = _refuse,
    ) -> None:
        self.identity_id = identity.id
        self._live = live
        self._unsent = live.unsent
        self._identity = identity
        self._grants = grants if grants is not None and grants.has_hooks else None
        self._deciding: asyncio.Task[None] | None = None
        self._authenticate = authenticate
        self._pages = PageReader(live.journal, store, consumer)
        self._name = f"c-{next(_numbers)}"
        self._task: asyncio.Task[None] | None = None
        self._is_woken = False
        # The connection's own method once it is open: one call less per delivery.
        self.write: Callable[[bytes], None] = _drop

    # --- what the connection calls -----------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Begin the conversation."""
        self._connection = connection
        self.write = connection.send_raw
        identity = self._identity
        self._session = WatchSession(
            self._live, identity.namespace, identity.patterns(Verb.READ), self, parse_time, self._name,
            decide=None if self._grants is None else self._decide, identity=identity,
        )  # fmt: skip
        self.origin = Origin(self._name, identity, "websocket", connection.peer, time.time_ns())
        self._live.enter(self)

    def message(self, data: bytes, is_text: bool) -> None:
        """Feed one message."""
        self._session.receive(data, is_text, asyncio.get_running_loop().time(), time.time_ns())

    def writable(self) -> None:
        """Go on with what is owed."""
        self.wake()

    def closed(self, code: int, reason: str) -> None:
        """Forget the watcher: all it had is a cursor, and the client has that."""
        self._live.leave(self)
        self._session.end()
        if self._deciding is not None:
            self._deciding.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # --- what the session needs (`hub.live.watch.Link`) ----------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the connection holds so much that pages must wait for `writable`."""
        return self.buffered_bytes > self._unsent.mark

    @property
    def buffered_bytes(self) -> int:
        """What the connection holds unsent."""
        return self._connection.buffered_bytes

    def frame(self, payload: bytes) -> bytes:
        """Return one WebSocket text frame."""
        return text_frame(payload)

    def close(self, code: int, reason: str) -> None:
        """Close for what the client did."""
        self._connection.close(code, reason)

    def identify(self, token: str) -> Identity:
        """Go on as who the token speaks for: from now on it is that credential whose end ends the connection."""
        identity = self._authenticate(token)
        if identity.namespace != self._identity.namespace:
            raise ForbiddenError("this token is of another namespace: open a connection with it")
        if not identity.patterns(Verb.READ):
            raise ForbiddenError("this credential may not read: use one from `hub tokens add --role watcher`")
        self._identity, self.identity_id = identity, identity.id
        self.origin = replace(self.origin, identity=identity)
        return identity

    def wake(self) -> None:
        """Run the catch-up task, or let the running one go round once more."""
        self._is_woken = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._catch_up(), name=f"watch {self._name}")

    # --- what the live core calls (`hub.live.rooms.Watcher`) -----------------------------------------------

    def tick(self) -> None:
        """Tell quiet subscriptions their position."""
        self._session.tick()

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its subscriptions stand."""
        return self._session.figures()

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Close from the hub's side, after a ``bye`` when the client should come back."""
        if retry_ms is not None:
            self._connection.send(orjson.dumps({"op": "bye", "retry_ms": retry_ms}))
        self._connection.close(code, reason)

    def _decide(self, asked: Sequence[str], decided: Decided) -> None:
        """Ask the hooks; the session asks for one subscription at a time."""
        assert self._grants is not None, "without hooks nobody asks"
        asking = ask_hooks(self._grants, self._identity, asked, decided)
        self._deciding = asyncio.get_running_loop().create_task(asking, name=f"watch {self._name} hooks")

    async def _catch_up(self) -> None:
        """Write pages, one per turn of the loop, until everything is live or the connection is full."""
        try:
            while self._is_woken:
                self._is_woken = False
                while (need := self._session.step()) is not False:
                    if need is True:
                        await asyncio.sleep(0)
                    else:
                        await self._pages.read(self._session.reader, need)
                # The transport may take what was written at the end of this turn without ever saying `writable`.
                was_full = self.is_full
                await asyncio.sleep(0)
                self._is_woken |= was_full and not self.is_full
            if self.is_full:
                # Its share may be smaller than what the transport waits for by itself.
                self._connection.expect_drain(self._unsent.mark)
        except Exception:
            _log.exception("watch failed conn=%s", self._name)
            self._connection.close(Close.INTERNAL, "the hub failed; its log says why")
        finally:
            self._task = None


async def ask_hooks(grants: Grants, identity: Identity, asked: Sequence[str], decided: Decided) -> None:
    """Tell a session what hooks leave of what an identity may read, or the error that they end with."""
    try:
        narrowed = await grants.narrow(identity, Verb.READ, asked)
    except HubError as error:
        decided(error)
    except Exception:
        # Messages wait for the answer: without one they would wait for ever.
        _log.exception("hooks not asked name=%s", identity.name)
        decided(HubError("the hub failed; its log says why"))
    else:
        decided(narrowed.patterns(Verb.READ))


def _drop(_frame: bytes) -> None:
    """Write nowhere: the connection is not open yet."""
