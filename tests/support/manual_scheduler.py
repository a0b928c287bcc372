"""An event loop's timers without an event loop: tests say what time it is."""

import heapq
import itertools
from collections.abc import Callable


class ManualHandle:
    """One scheduled call."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not make the call."""
        self.callback = None


class ManualScheduler:
    """``now`` moves only by `advance`, and by `spend` inside a callback that is to look slow."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._calls: list[tuple[float, int, ManualHandle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Return the time that `advance` set."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> ManualHandle:
        """Remember the call."""
        handle = ManualHandle(callback)
        heapq.heappush(self._calls, (when, next(self._order), handle))
        return handle

    def call_soon(self, callback: Callable[[], object], /) -> ManualHandle:
        """Remember the call for now."""
        return self.call_at(self.now, callback)

    def due(self) -> float | None:
        """Return when the next call is due."""
        times = [when for when, _, handle in self._calls if handle.callback is not None]
        return min(times) if times else None

    def spend(self, seconds: float) -> None:
        """Take time inside a callback."""
        self.now += seconds

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass and make every call that falls due, in order."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            when, _, handle = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if handle.callback is not None:
                handle.callback()
        self.now = max(self.now, end)
