"""How much disk the hub may take: readings go before their time when journal and store are larger, and sizing.

Owns: the budget's task, whether devices must wait, the figures of ``hub status``. Place: beside `retention`; `hub.app`
runs it. Must not: touch sums of dropped readings, or what a consumer of the journal has not seen: the journal keeps
itself to its own limits.

What is counted are pages in use of the two files that grow with readings. Beside them: two write-ahead logs of at most
64 MiB, free pages that the next readings take, and the small files.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hub.model import Series
from hub.retention import repeat
from hub.store.base import RetainingStore, Store
from hub.store.rollup import HOUR_NS

_log = logging.getLogger("hub.disk_budget")

# At 100,000 readings a second of 25 bytes, 25 MB are written between two looks.
EVERY_S = 10.0
# When it is exceeded, so much of it is made free: else the next look would find it exceeded again.
_FREED_SHARE = 0.05
# Readings younger than this stay: a budget that cannot hold them is too small, and devices wait.
LEAST_RAW_NS = HOUR_NS
# After so many it is known whether dropping makes room: in columns the sums of a reading a minute are larger than it.
_TRIED_READINGS = 50_000
# Sooner the readings of a day cannot be told from those of a minute.
_LEAST_RUN_S = 60.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the hub's data takes, and how long that goes well.

    ``readings_per_day``: as since the start; None in the first minute. ``days_left``: until the budget is exceeded at
    this rate when nothing is dropped; None without a budget, or when nothing comes.
    """

    journal_bytes: int
    store_bytes: int
    budget_bytes: int | None
    readings: int
    bytes_per_reading: float | None
    readings_per_day: float | None
    days_left: float | None
    is_full: bool
    dropped_early: int


class DiskBudget:
    """Keeps journal and store within a budget, and says how large they are.

    ``is_full``: the budget is exceeded and there is nothing left to drop, or to drop makes no room, or more comes than
    can be dropped: devices wait with what they have.

    Args:
        store: if its readings are on a server nothing is dropped, and the journal, which waits for it, may grow so far.
        journal_bytes: what the journal's file has in use; called in a thread.
        series: all that there are; called in a thread.
        limit_bytes: the budget; None: there is none.
        trim: keeps the journal to its own limits, which readings shall not pay for; called in a thread.
        now_ns: wall clock, right or wrong: what goes is the oldest there is; ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        journal_bytes: Callable[[], int],
        series: Callable[[], Sequence[Series]],
        limit_bytes: int | None,
        *,
        trim: Callable[[], object] = lambda: None,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_full = False
        self.dropped_early = 0
        self._store = store
        self._journal_bytes = journal_bytes
        self._series = series
        self._limit_bytes = limit_bytes
        self._trim = trim
        self._now_ns = now_ns
        self._clock = clock
        self._started_s = clock()
        self._readings_at_start = store.statistics().rows
        self._tried = self._freed_bytes = 0
        # Until the next start, for each trial costs readings.
        self._is_in_vain = False

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        if self._limit_bytes is not None:
            await repeat(self.slices, EVERY_S, "disk budget not kept")

    def slices(self) -> Iterator[int]:
        """Look once, and drop what is too much, a slice at each step, in any thread; yield what each slice did."""
        if self._limit_bytes is None or not self._is_exceeded(self._limit_bytes):
            self._say(False)
            return
        if isinstance(self._store, RetainingStore):
            yield from self._drop(self._store, self._limit_bytes)
        self._say(self._used() > self._limit_bytes)

    def sizing(self, dropped: int) -> Sizing:
        """Return the figures of now; blocking.

        Args:
            dropped: readings that retention dropped since the start.
        """
        statistics, journal_bytes = self._store.statistics(), self._journal_bytes()
        run_s = self._clock() - self._started_s
        per_day = bytes_per_reading = days_left = None
        if run_s >= _LEAST_RUN_S:
            gained = statistics.rows - self._readings_at_start + self.dropped_early + dropped
            per_day = max(gained, 0) / run_s * _DAY_S
        if statistics.rows:
            bytes_per_reading = statistics.bytes / statistics.rows
        if self._limit_bytes is not None and per_day and bytes_per_reading:
            free = self._limit_bytes - journal_bytes - statistics.bytes
            days_left = max(free, 0) / (per_day * bytes_per_reading)
        return Sizing(
            journal_bytes, statistics.bytes, self._limit_bytes, statistics.rows, bytes_per_reading, per_day, days_left,
            self.is_full, self.dropped_early,
        )  # fmt: skip

    def _is_exceeded(self, limit_bytes: int) -> bool:
        """Tell whether there is too much, also when what costs no reading is done."""
        # Between two of its own trims the journal may be far beyond what it keeps. The store's log takes three times
        # what its readings take as columns, one quiet series keeps all of it, and no drop makes it smaller.
        seal = [self._store.seal] if isinstance(self._store, RetainingStore) else []
        for make_room in (self._trim, *seal):
            if self._used() <= limit_bytes:
                return False
            make_room()
        return self._used() > limit_bytes

    def _drop(self, store: RetainingStore, limit_bytes: int) -> Iterator[int]:
        numbers, before = [series.id for series in self._series()], self.dropped_early
        most = self._used() + limit_bytes * _FREED_SHARE
        while not self._is_in_vain and (used := self._used()) > limit_bytes * (1 - _FREED_SHARE):
            if used > most:
                # The pass would not end, and the files grow until the disk is full.
                self._say(True, "dropping makes less room than is taken meanwhile")
            oldest_ns = store.oldest(numbers)
            border_ns = self._now_ns() - LEAST_RAW_NS
            if oldest_ns is not None:
                border_ns = min(border_ns, (oldest_ns // HOUR_NS + 1) * HOUR_NS)
            dropped = 0 if oldest_ns is None else self._drop_some(store, numbers, border_ns)
            if not dropped:
                break
            self.dropped_early += dropped
            yield dropped
        while given_back := store.give_back(int(limit_bytes * _FREED_SHARE)):
            yield given_back
        if self.dropped_early > before:
            _log.warning(
                "disk budget reached: readings dropped before their time count=%d; their sums are kept",
                self.dropped_early - before,
            )

    def _drop_some(self, store: RetainingStore, numbers: Sequence[int], border_ns: int) -> int:
        """Drop a slice, and note what room it made, if no write came in between."""
        applied, used = store.applied, store.used_bytes()
        dropped = store.drop_before(numbers, border_ns)
        if store.applied == applied:
            self._tried += dropped
            self._freed_bytes += used - store.used_bytes()
        if self._tried >= _TRIED_READINGS:
            self._is_in_vain = self._freed_bytes <= 0
            self._tried = self._freed_bytes = 0
        return dropped

    def _used(self) -> int:
        store = self._store
        of_store = store.used_bytes() if isinstance(store, RetainingStore) else store.statistics().bytes
        return self._journal_bytes() + of_store

    def _why(self) -> str:
        if not isinstance(self._store, RetainingStore):
            return "the store's server is behind"
        return "dropping makes no room, for sums are larger" if self._is_in_vain else "nothing is left to drop"

    def _say(self, is_full: bool, why: str = "") -> None:
        if is_full and not self.is_full:
            why = why or self._why()
            _log.error("disk budget exceeded and %s: devices wait; raise --disk-budget", why)
        elif self.is_full and not is_full:
            _log.warning("disk budget kept again: devices go on")
        self.is_full = is_full
