"""What all watchers together may hold unsent: with their number the share of each falls, and beyond it the largest go.

Owns: `UnsentBudget.mark`, above which a connection waits as a cursor, and who is closed. Place: after `figures`,
before `room` and `rooms`. Pure: unsent bytes are asked of the connections.

Theory of operation. A connection that is not read holds what was written until it waits: 256 KiB for each of 10,000
would be 2.5 GiB. So all are looked at whenever a quarter of the budget was written since the last look, in a turn of
its own: by then the kernel has taken what it takes, and what is left is owed to peers that read slowly or not at all.
While they hold little together, each may hold the most; from then on what half of the budget has left is shared evenly
among those that hold something, so that those who come later find some. Half, because one that is not full yet is
written a chunk more, which is no larger than a share. Until that look all count as holders. Only what was held before
the share fell, or more holders than the least share serves, can go beyond the budget itself: then the largest are
closed until a quarter of it is free. Who reads holds little and is never among them; who is closed has its cursor and
loses nothing.
"""

import logging
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

_log = logging.getLogger("hub.live")

# As much as frames that wait for the journal may take: a hub of 512 MiB has room for both.
BUDGET_BYTES = 64 * 1024 * 1024
# One connection alone: some pages ahead of a reader across an ocean (64 KiB in flight each 100 ms are 5 Mbit/s).
MOST_BYTES = 256 * 1024
# Below this a single message would stop a connection, and waking it again costs more than its memory.
LEAST_BYTES = 8 * 1024


class Holder(Protocol):
    """A connection, as the budget sees it."""

    @property
    def buffered_bytes(self) -> int:
        """What was written and the other end has not taken."""


H = TypeVar("H", bound=Holder)


class UnsentBudget:
    """The share of each connection, and the count of what is written between two looks.

    Args:
        schedule: calls back in a later turn of the loop.
        holders: all connections, as they are now.
        evict: closes one; it may stay among the holders for a while.
    """

    def __init__(
        self,
        schedule: Callable[[Callable[[], object]], object],
        holders: Callable[[], Collection[H]],
        evict: Callable[[H], None],
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self.mark = MOST_BYTES
        self.unsent_bytes = 0
        self.evicted = 0
        self._schedule = schedule
        self._count: Callable[[], int] = lambda: len(holders())
        self._look: Callable[[], None] = lambda: self._look_at(holders(), evict)
        self._budget = budget_bytes
        self._every = budget_bytes // 4
        self._written = 0
        self._is_due = False
        self._leaving: set[Holder] = set()

    def wrote(self, size: int) -> None:
        """Count bytes written to any of the connections; a look follows soon when they are many."""
        self._written += size
        if self._written >= self._every and not self._is_due:
            self._is_due = True
            # Nobody can be asked now: what was written in this turn has not been offered to the kernel yet.
            self.mark = min(self.mark, self._share(self._count()))
            self._schedule(self.look)

    def chunk_bytes(self) -> int:
        """Return how much may be written to one before it is asked again: all of them may be written to in one turn."""
        return min(self.mark, max(LEAST_BYTES, self._every // max(self._count(), 1)))

    def look(self) -> None:
        """Ask all connections what they hold, share anew, and close the largest if it is too much."""
        self._is_due = False
        self._written = 0
        self._look()

    def left(self, holder: Holder) -> None:
        """Forget a connection that has ended."""
        self._leaving.discard(holder)

    def _look_at(self, holders: Collection[H], evict: Callable[[H], None]) -> None:
        # What is being closed gets no more and is gone in seconds: nobody else has to go for it.
        held = [(size, h) for h in holders if (size := h.buffered_bytes) > 0 and h not in self._leaving]
        self.unsent_bytes = sum(size for size, _ in held)
        if self.unsent_bytes > self._budget:
            held = self._close_largest(held, evict)
        if self.unsent_bytes <= self._budget // 16:
            self.mark = MOST_BYTES
        else:
            self.mark = self._share(len(held))

    def _share(self, holders: int) -> int:
        return max(LEAST_BYTES, min(MOST_BYTES, (self._budget // 2 - self.unsent_bytes) // max(holders, 1)))

    def _close_largest(self, held: list[tuple[int, H]], evict: Callable[[H], None]) -> list[tuple[int, H]]:
        held.sort(key=lambda known: known[0])
        before, count = self.unsent_bytes, len(held)
        while self.unsent_bytes > self._budget - self._budget // 4:
            size, holder = held.pop()
            self.unsent_bytes -= size
            self._leaving.add(holder)
            evict(holder)
        self.evicted += count - len(held)
        _log.warning("watchers closed reason=evicted count=%d of=%d unsent=%d limit=%d", count - len(held), count,
                     before, self._budget)  # fmt: skip
        return held
