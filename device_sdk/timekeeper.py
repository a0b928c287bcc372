"""What time a reading gets: the wall clock's once that is known to be set, until then the uptime.

Owns: whether this machine's wall clock is believed, and when the spool learns the
time. Place: after `clock` and `spool`, used by `courier` (before it cuts) and `device`
(when it records). Must not: rewrite a time that a known clock has given.

A wall clock that shows less than the SDK's release was never set. The time is then
learnt from whatever comes first: the wall clock itself, when somebody sets it, or the
hub's ``welcome.time_ns``. A clock that falls back behind the release later is not
believed again: the spool continues from the uptime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from device_sdk.clock import RELEASED_NS, Clock, is_set
from device_sdk.reading import INT_MAX, Value
from device_sdk.spool import Spool
from device_sdk.wire import MIN_TIME_NS


class Timekeeper:
    """The clocks of one open device. Every method is safe from any thread.

    Attributes:
        known_from_ns: a wall time from here on may go to `Spool.record` as it is; anything
            less goes to `record`. Beyond every time until the spool has learnt the time.
    """

    __slots__ = ("_clock", "_spool", "known_from_ns")

    def __init__(self, clock: Clock, spool: Spool) -> None:
        self._clock = clock
        self._spool = spool
        self.known_from_ns = INT_MAX
        self.learn()

    @property
    def clock(self) -> Literal["synced", "unknown"]:
        """What hello says: whether the wall clock shows a time that can be."""
        return "synced" if is_set(self._clock.wall_ns()) else "unknown"

    def reading(self) -> tuple[int, int]:
        """Return (wall, uptime) of now in ns, as the machine says them."""
        return self._clock.wall_ns(), self._clock.boot_ns()

    def learn(self, hub_ns: int | None = None) -> None:
        """Tell the spool the time when it is known and was not before; cheap to call again and again.

        Args:
            hub_ns: the hub's wall clock, just received; only used while ours is not set.
        """
        if self.known_from_ns != INT_MAX:
            return
        wall_ns, boot_ns = self.reading()
        if not is_set(wall_ns):
            if hub_ns is None or hub_ns < MIN_TIME_NS:
                return
            wall_ns = hub_ns
        self._spool.learn_time(wall_ns, boot_ns)
        self.known_from_ns = RELEASED_NS

    def record(self, values: Sequence[tuple[str, Value]], time_ns: int | None, wall_ns: int) -> None:
        """Record with a wall time below `known_from_ns`."""
        if is_set(wall_ns):
            self.learn()
            self._spool.record(values, time_ns, wall_ns)
        else:
            self._spool.record_at_uptime(values, time_ns, self._clock.boot_ns())

    def age_s(self, time_ns: int) -> float | None:
        """Return how long ago ``time_ns`` (of `SpoolStatistics`) was; None when one is a real time and now is not."""
        wall_ns, boot_ns = self.reading()
        now_ns = wall_ns if wall_ns >= self.known_from_ns else self._spool.uptime_at(boot_ns)
        if (now_ns > INT_MAX) is not (time_ns > INT_MAX):
            return None
        return max(0.0, (now_ns - time_ns) / 1e9)
