"""When a frame is cut: at once after a pause, else when enough is gathered to be worth its cost.

Owns: how long readings are gathered. Place: before `session`. Pure.
"""

from __future__ import annotations

import math

# A reading after a pause goes at once; a busy device gathers this long, which a live page does not show, or until
# a frame is worth its cost. Measured at 50 readings/s: 20 ms make a frame of each and cost twice the CPU.
CUT_S = 0.050
CUT_READINGS = 500
# On a metered link each frame costs about 400 bytes of TCP, TLS and ack whatever is in it: five minutes of readings
# share that. At 4 channels a minute one frame a minute would cost four times as much (`tests/bench/data_budget`).
METERED_CUT_S = 300.0
# When the spool gives no frame although it holds readings, its disk fails: ask again, but not in a hot loop.
RETRY_S = 1.0


class Pace:
    """Says when to cut; `cut` and `failed` tell it what came of it. ``now`` is monotonic seconds."""

    def __init__(self, *, is_metered: bool) -> None:
        self._gather_s = METERED_CUT_S if is_metered else CUT_S
        self._last = -math.inf
        self._not_before = -math.inf
        # Somebody waits for what is recorded: cut it now, however little it is.
        self._is_hurried = False

    def again(self, now: float) -> None:
        """Forget that the spool gave nothing: on a new connection, or when an ack may have made room in it."""
        self._not_before = now

    def hurry(self) -> None:
        """Gather no more until everything recorded by now is cut. Safe from any thread."""
        self._is_hurried = True

    def is_held(self, now: float) -> bool:
        """Say whether the spool is not to be asked now, whatever waits."""
        return now < self._not_before

    def is_due(self, now: float, unnumbered: int) -> bool:
        """Say whether to cut now; ``unnumbered`` readings wait (0: only a gap does)."""
        if self.is_held(now):
            return False
        return self._is_hurried or unnumbered >= CUT_READINGS or now >= self._last + self._gather_s

    def deadline(self) -> float:
        """Return when `is_due` may become true."""
        return self._not_before if self._is_hurried else max(self._last + self._gather_s, self._not_before)

    def cut(self, now: float) -> None:
        """Note that the spool was asked for a frame."""
        self._last = now

    def failed(self, now: float) -> None:
        """Note that it gave none although it holds something."""
        self._not_before = now + RETRY_S

    def is_empty(self) -> None:
        """Note that nothing is left to cut."""
        self._is_hurried = False
