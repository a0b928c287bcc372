"""How long readings are kept: the task that drops those whose time is over, series by series.

Owns: which policy holds for which series, when the store is asked to drop. Place: after `store` and `live.patterns`;
`hub.app` runs it. Must not: work on the event loop, or be in the way of writes: it takes one bounded slice after
another, and the writer its turn in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hub.config import FOR_EVER, Config, age_ns
from hub.errors import ConfigError, HubError
from hub.live.patterns import PatternSet
from hub.model import Series
from hub.store.base import RetainingStore

_log = logging.getLogger("hub.retention")

# Whole hours are dropped: more often would find nothing.
EVERY_S = 600.0
# Between two slices of some 50 ms, so that writes that wait come first.
PAUSE_S = 0.01
# Series that the store is asked about at a time: two look-ups each.
_SERIES_AT_ONCE = 500
DEFAULT_RAW = "30d"
# Free space of the file that stays for what is written next: a day of a small fleet. Less would be given back and taken
# again each hour.
KEPT_FREE_BYTES = 16 * 1024 * 1024


class Ages(NamedTuple):
    """How long readings and their sums are kept, in ns; None: for ever."""

    raw_ns: int | None
    rollups_ns: int | None


@dataclass(slots=True)
class RetentionStatistics:
    """What was done since the start: readings and blocks of sums dropped, bytes given back, passes."""

    dropped: int = 0
    rollups_dropped: int = 0
    given_back_bytes: int = 0
    passes: int = 0


class Policies:
    """Which ages hold for a series: those of the first pattern that matches, else the hub's own.

    Args:
        keeps_all: the store is one of an older hub: nothing is dropped there that no setting names.

    Raises:
        ConfigError: a pattern cannot be read.
    """

    def __init__(self, config: Config, *, keeps_all: bool = False) -> None:
        raw = config.keep_raw or (FOR_EVER if keeps_all else DEFAULT_RAW)
        self.default = Ages(age_ns(raw), age_ns(config.keep_rollups))
        self._policies: list[tuple[PatternSet, Ages]] = []
        for policy in config.retention:
            try:
                patterns = PatternSet((policy.match,))
            except ValueError as error:
                raise ConfigError(f"retention of {policy.match!r}: {error}") from error
            self._policies.append((patterns, Ages(age_ns(policy.raw), age_ns(policy.rollups))))

    def ages(self, series: Series) -> Ages:
        """Return what holds for a series, of whichever namespace."""
        for patterns, ages in self._policies:
            if patterns.matches(series.device, series.channel):
                return ages
        return self.default


class Retention:
    """Drops what is too old.

    Args:
        series: all that there are; called in a thread.
        now_ns: `hub.steady_clock`.
    """

    def __init__(
        self,
        store: RetainingStore,
        policies: Policies,
        series: Callable[[], Sequence[Series]],
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.policies = policies
        self.figures = RetentionStatistics()
        self._store = store
        self._series = series
        self._now_ns = now_ns

    async def run(self) -> None:
        """Drop what is due, again and again, until cancelled."""
        await repeat(self.slices, EVERY_S, "readings not dropped")

    def slices(self) -> Iterator[int]:
        """Do one pass, a slice at each step, in any thread, one at a time; yield what each slice did."""
        now_ns, before = self._now_ns(), self.figures.dropped
        for ages, numbers in self._groups():
            if ages.raw_ns is not None:
                while dropped := self._store.drop_before(numbers, now_ns - ages.raw_ns):
                    self.figures.dropped += dropped
                    yield dropped
            if ages.rollups_ns is not None:
                while dropped := self._store.drop_rollups_before(numbers, now_ns - ages.rollups_ns):
                    self.figures.rollups_dropped += dropped
                    yield dropped
            # The writer's turn also where there was nothing to drop: many series are asked about.
            yield 0
        while given_back := self._store.give_back(KEPT_FREE_BYTES):
            self.figures.given_back_bytes += given_back
            yield given_back
        self.figures.passes += 1
        if self.figures.dropped > before:
            _log.info("readings dropped count=%d; their sums are kept", self.figures.dropped - before)

    def _groups(self) -> Iterator[tuple[Ages, list[int]]]:
        by_ages: dict[Ages, list[int]] = {}
        for series in self._series():
            by_ages.setdefault(self.policies.ages(series), []).append(series.id)
        for ages, numbers in by_ages.items():
            if ages.raw_ns is not None or ages.rollups_ns is not None:
                for at in range(0, len(numbers), _SERIES_AT_ONCE):
                    yield ages, numbers[at : at + _SERIES_AT_ONCE]


async def repeat(begin: Callable[[], Iterator[int]], every_s: float, failed: str) -> None:
    """Do a pass of slices each ``every_s``, until cancelled; a slice that has begun is then finished in its thread.

    The first time not at once: a start has other things to do, and whoever sees a wrong setting can stop.

    Args:
        begin: a pass; each step of it is done in a thread.
        failed: what to say when one could not be done; the next one tries again.
    """
    told = ""
    while True:
        await asyncio.sleep(every_s)
        try:
            slices, is_over = begin(), False
            while not is_over:
                is_over = await asyncio.to_thread(next, slices, None) is None
                await asyncio.sleep(PAUSE_S)
            told = ""
        except HubError as error:
            # The first of a series in full; the following ones are the same trouble going on.
            _log.log(logging.DEBUG if told == str(error) else logging.ERROR, "%s reason=%s", failed, error)
            told = str(error)
        except Exception:  # the outer edge of a task: it must go on, whatever one pass met
            _log.exception(failed)
