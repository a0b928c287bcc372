"""What one watcher saw, against what was produced: gaps, duplicates, order. Pure.

Owns: the counting. Each series carries the numbers 0, 1, 2, …; a watcher must see each once, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Witness:
    """Counts what a watcher is given.

    Attributes:
        seen: different readings so far.
        duplicates: readings that came again, though none may.
        disordered: readings that came behind a later one of their series.
        went_back: the same, of those too that came before: where only the newest counts, each is older than what was.
    """

    seen: int = 0
    duplicates: int = 0
    disordered: int = 0
    went_back: int = 0
    _counts: dict[str, bytearray] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)

    def take(self, series: str, number: int, *, is_exact: bool = True) -> None:
        """Count one reading; ``is_exact`` False: history, which may be sent again and mixed with what is new."""
        self.went_back += is_exact and number < self._last.get(series, -1)
        counts = self._counts.setdefault(series, bytearray())
        if number >= len(counts):
            counts.extend(bytes(number + 1 - len(counts)))
        if counts[number]:
            self.duplicates += is_exact
        else:
            counts[number] = 1
            self.seen += 1
            self.disordered += is_exact and number < self._last.get(series, -1)
        self._last[series] = max(number, self._last.get(series, -1))

    def start_over(self) -> None:
        """Forget what was seen: the server said that it cannot go on. Faults are kept."""
        self.seen = 0
        self._counts.clear()
        self._last.clear()

    def last(self, series: str) -> int | None:
        """Return the newest number of a series, None when there was none."""
        return self._last.get(series)

    def gaps(self, series: Sequence[str], count: int, first: int = 0) -> int:
        """Return how many of the numbers first … count - 1 of each series were never seen."""
        return sum(count - first - sum(self._counts.get(name, b"")[first:count]) for name in series)
