"""The wall time by which data is deleted: a leap forward is not believed before it has stood for a day.

Owns: when a wall clock is believed. Place: below everything; `hub.app` gives it what the journal
knows. Must not: say when something was received, which is what the wall clock says, right or wrong.

A time server that is wrong, or a receiver of satellites whose week number rolled over, says 2040 for a minute; by that
clock every reading is too old. To drop nothing for a day costs some disk, and what was dropped does not come back.
"""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("hub.steady_clock")

# A hub that was off overnight, or whose time zone was wrong, is believed at once.
LEAP_NS = 86_400 * 10**9
STANDS_S = 86_400.0


class SteadyClock:
    """Wall time in ns that goes on as the monotonic clock does while the wall clock is far ahead of that.

    Call it from any thread. A wall clock that is behind is taken as it is: then less is deleted.

    Args:
        known: first and last time in ns at which something is known to have been received, about; None: nothing was.
        now_ns: wall clock; ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        known: tuple[int, int] | None = None,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_ns = now_ns
        self._clock = clock
        self._lock = threading.Lock()
        wall_ns = now_ns()
        is_likely = known is None or known[0] <= wall_ns <= known[1] + LEAP_NS
        # What was believed last, and when.
        self._believed_ns, self._at_s = wall_ns if known is None or is_likely else known[1], clock()
        self._leapt_s: float | None = None

    def __call__(self) -> int:
        """Return the time."""
        with self._lock:
            wall_ns, at_s = self._now_ns(), self._clock()
            steady_ns = self._believed_ns + int((at_s - self._at_s) * 1e9)
            if wall_ns > steady_ns + LEAP_NS and not self._has_stood(wall_ns - steady_ns, at_s):
                return steady_ns
            self._leapt_s = None
            # Not back with a clock that goes back: it would leap when it is right again.
            if wall_ns >= steady_ns:
                self._believed_ns, self._at_s = wall_ns, at_s
            return wall_ns

    def _has_stood(self, leap_ns: int, at_s: float) -> bool:
        if self._leapt_s is None:
            self._leapt_s = at_s
            _log.warning(
                "clock is %.1f days ahead of what it should be: until it has been so for a day, nothing is deleted "
                "by it; if it is right, there is nothing to do",
                leap_ns / LEAP_NS,
            )
        if at_s - self._leapt_s < STANDS_S:
            return False
        _log.warning("clock has been ahead for a day: it is believed, and what is too old by it is deleted")
        return True


def known_span(received: tuple[int, int] | None, kept_hours: float) -> tuple[int, int] | None:
    """Return between which times the oldest and the newest of what is kept were received, by what a leap cannot change.

    Rows from before a leap are kept meanwhile. Received while the clock had leapt, the newest tells nothing.

    Args:
        received: what the oldest and the newest say.
        kept_hours: older ones are not kept, or hardly.
    """
    if received is None:
        return None
    first_ns, last_ns = received
    return first_ns, max(first_ns, min(last_ns, first_ns + int(kept_hours * 3600e9)))
