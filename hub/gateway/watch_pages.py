"""Pages that a subscription needs from disk, read in a thread and handed back on the loop.

Owns: nothing; used by the WebSocket and the SSE shell. Place: gateway.
"""

import asyncio
from typing import assert_never

from hub.errors import ExpiredError
from hub.gateway.access import Consumer
from hub.journal.base import Journal
from hub.live.subscription import HistoryPage, JournalPage, Need, Subscription
from hub.store.base import Store

# The store is normally milliseconds behind the journal; after this the watcher is told how far, and waits on.
APPLIED_TIMEOUT_S = 5.0


class PageReader:
    """Reads what `Subscription.step` asked for. Cancelling `read` leaves the subscription as it was."""

    __slots__ = ("_consumer", "_journal", "_store")

    def __init__(self, journal: Journal, store: Store, consumer: Consumer) -> None:
        self._journal = journal
        self._store = store
        self._consumer = consumer

    async def read(self, subscription: Subscription, need: Need) -> None:
        """Read the page and supply it, or say that it has expired."""
        match need:
            case JournalPage(after, upto, max_bytes):
                try:
                    frames = await asyncio.to_thread(self._journal.read, after, max_bytes, upto)
                except ExpiredError:
                    subscription.expired()
                else:
                    subscription.supply_frames(frames)
            case HistoryPage(series, start_ns, end_ns, limit, applied):
                if not await self._consumer.applied(applied, APPLIED_TIMEOUT_S):
                    subscription.supply_rows(None)
                    return
                rows = await asyncio.to_thread(self._store.read, series, start_ns, end_ns, limit)
                subscription.supply_rows(rows)
            case _:
                assert_never(need)
