"""How long who guessed wrong must wait before the next try. Pure.

Owns: the count of failures per key and the delay that grows from it. Place: after `errors`, below `sign_in`. Must not:
read a clock, know what is tried.

An attempt counts as failed from its beginning: a thousand at once are not a thousand free tries. A success takes its
own count back.
"""

from collections import OrderedDict
from collections.abc import Mapping

# Typing mistakes are free; then 1, 2, 4 … seconds.
FREE_TRIES = 5
# Whoever stays away this long begins again.
FORGET_S = 3600.0
# About 2 MB; the key that was quiet longest goes first, so that a flood of new ones stays in bounds.
MAX_KEYS = 10_000


class Throttle:
    """Failures by key, each with the longest delay it may grow to."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def begin(self, keys: Mapping[str, float], now: float) -> float:
        """Count an attempt and return 0.0, or return the seconds to wait and count nothing.

        Args:
            keys: each key with its longest delay in seconds.
            now: monotonic seconds.
        """
        wait_s = max(self._wait(key, longest_s, now) for key, longest_s in keys.items())
        if wait_s > 0:
            return wait_s
        for key in keys:
            count, _ = self._failures.pop(key, (0, now))
            self._failures[key] = (count + 1, now)
            if len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)
        return 0.0

    def succeeded(self, key: str, *, forget: bool = False) -> None:
        """Take back what `begin` counted for the key; ``forget``: all that was counted before, too."""
        count, since = self._failures.pop(key, (0, 0.0))
        if count > 1 and not forget:
            self._failures[key] = (count - 1, since)

    def _wait(self, key: str, longest_s: float, now: float) -> float:
        count, since = self._failures.get(key, (0, now))
        if now - since >= FORGET_S:
            self._failures.pop(key, None)
            return 0.0
        if count < FREE_TRIES:
            return 0.0
        # The exponent is bounded: a float of 2**1024 would overflow.
        return since + min(2.0 ** min(count - FREE_TRIES, 30), longest_s) - now
