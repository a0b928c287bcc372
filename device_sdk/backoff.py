"""How long to wait before the next connection: full jitter.

Owns: the delay and its reset. Place: beside `wire`, used by `device`. Pure:
the random source and the time are passed in.
"""

from __future__ import annotations

from collections.abc import Callable

BASE_S = 0.5
CAP_S = 30.0
# A link that held this long was good: the next loss starts from the shortest delay again.
STABLE_S = 30.0


class Backoff:
    """Delays between attempts: ``random() * min(cap, base * 2**n)`` after the n-th failure in a row.

    Full jitter spreads 2,000 devices that lost one hub at one instant over the whole
    delay instead of letting them return in waves.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        random: returns a float in [0, 1), e.g. ``random.random``.
        base_s: upper bound of the first delay, seconds.
        cap_s: upper bound of every delay, seconds.
        stable_s: a connection that lasted this long resets the count.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        base_s: float = BASE_S,
        cap_s: float = CAP_S,
        stable_s: float = STABLE_S,
    ) -> None:
        self._random = random
        self._base_s = base_s
        self._cap_s = cap_s
        self._stable_s = stable_s
        self._failures = 0
        self._connected_at: float | None = None

    def connected(self, now: float) -> None:
        """Note that a connection stands since ``now`` (monotonic seconds)."""
        self._connected_at = now

    def failed(self, now: float, *, at_least_s: float = 0.0) -> float:
        """Return the seconds to wait after a connection was lost or not made.

        Args:
            now: monotonic seconds.
            at_least_s: a floor, e.g. the hub's ``retry_ms`` or 60 s after a 44xx close; the jitter comes on top.
        """
        if self._connected_at is not None and now - self._connected_at >= self._stable_s:
            self._failures = 0
        self._connected_at = None
        # 2**30 * base is far beyond any cap; without the bound a year offline overflows the float.
        bound_s = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return at_least_s + self._random() * bound_s
