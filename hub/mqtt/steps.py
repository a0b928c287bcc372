"""Large messages, read in steps: between two of them everybody else is heard.

Owns: how long a step is, whose messages are being read, and that of all large ones one is worked on at a time, in the
order in which they came: of many, each would add its step to what the others wait. Place: before `clients`. Pure. Must
not: know what is read.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator

_log = logging.getLogger("hub.mqtt")

# Of the loop's time; what comes between two pauses of a message may be longer.
STEP_NS = 2_000_000


class Steps:
    """What is done in steps; ``step_ns`` is how long each is, ``under_way`` who has how much there: nobody with none.

    Args:
        later: calls a function after so many seconds.
        clock: time in ns; where it is set back, a step is longer for once.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object], clock: Callable[[], int]) -> None:
        self.step_ns = STEP_NS
        self.under_way: Counter[Hashable] = Counter()
        self._later = later
        self._clock = clock
        self._waiting: deque[tuple[Hashable, Iterator[None]]] = deque()

    def add(self, whose: Hashable, work: Iterator[None]) -> None:
        """Do some work from the next turn on, behind what was added before; it may pause wherever it yields."""
        self.under_way[whose] += 1
        self._waiting.append((whose, work))
        if len(self._waiting) == 1:
            self._later(0, self._step)

    def _step(self) -> None:
        end = self._clock() + self.step_ns
        while self._waiting:
            whose, work = self._waiting[0]
            try:
                for _ in work:
                    if self._clock() >= end:
                        self._later(0, self._step)
                        return
            except Exception:
                _log.exception("a large message was not read to its end")
            self._waiting.popleft()
            self.under_way[whose] -= 1
            if not self.under_way[whose]:
                del self.under_way[whose]
            # Of many that do not pause each is one step at least.
            if self._waiting and self._clock() >= end:
                self._later(0, self._step)
                return
