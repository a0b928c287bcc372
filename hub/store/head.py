"""What is written and not sealed yet, in memory: quick to add to, and to look into while it is added to.

Owns: unsealed blocks in the order they came, and which series are sealed next. Place: after `store.block`. Pure.
The log in the store's file holds the same; `Heads` is filled from it at start.

Theory of operation. Blocks are joined as they come, eight to one, so there are few of them. When it is time all of them
become the generation that is sealed, series by series in ascending order, while further blocks come behind it: what
is sealed of a series came before all that is not. Blocks never change, so whoever looks takes references only.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from device_sdk.reading import Value
from hub.store.block import Block, Ints, as_one
from hub.store.chunk import Readings
from hub.store.merge import FULL, joined

# So many blocks of about one size become one; larger ones stay: to join them would hold up a write for milliseconds.
_TOGETHER = 8
_LARGE = 131_072
# Of so few series each block's part is looked up; of more, all are joined at once.
_FEW = 16
_MIN, _MAX = -(2**63), 2**63 - 1


class Heads:
    """Unsealed readings of all series.

    Args:
        full: a generation is due when its series have so many readings each, a chunk's worth.
    """

    def __init__(self, full: int = FULL) -> None:
        self._full = full
        self._generation: list[Block] = []
        self._blocks: list[tuple[int, Block]] = []
        # Of ``_blocks``: how many readings, about how many series, and since when the oldest waits.
        self._readings = self._series = 0
        self._since_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._generation or self._blocks)

    @property
    def is_sealing(self) -> bool:
        """Whether a generation is begun and not sealed to its end."""
        return bool(self._generation)

    def blocks(self) -> tuple[Block, ...]:
        """Return everything in the order it came."""
        return (*self._generation, *(block for _, block in self._blocks))

    def add(self, block: Block, now_s: float) -> None:
        """Take the readings of a write."""
        if not self._blocks:
            self._since_s = now_s
        self._readings += len(block)
        self._series = max(self._series, len(block.series))
        self._blocks.append((0, block))
        while self._is_crowded():
            level = self._blocks[-1][0]
            together = as_one([found for _, found in self._blocks[-_TOGETHER:]])
            self._blocks[-_TOGETHER:] = [(level + 1, together)]
            self._series = max(self._series, len(together.series))

    def is_due(self, since_s: float) -> bool:
        """Return whether a generation should begin: there is enough, or it waits since ``since_s``."""
        is_enough = self._readings >= self._full * (self._series + 4)
        return is_enough or (bool(self._blocks) and self._since_s <= since_s)

    def begin(self) -> None:
        """Let everything be the generation that is sealed; the one before must be sealed to its end."""
        assert not self._generation, "sealed in the order it came"
        self._generation = [block for _, block in self._blocks]
        self._blocks = []
        self._readings = self._series = 0

    def next(self, most_series: int, most_readings: int) -> Block:
        """Return all of the generation that some series have, the least ones: at most so many, at least one."""
        series = np.unique(np.concatenate([block.series[:most_series] for block in self._generation]))[:most_series]
        found = self._between(series)
        counts = np.cumsum(found.runs.counts)
        if len(counts) > 1 and counts[-1] > most_readings:
            found = self._between(series[: max(int(np.searchsorted(counts, most_readings, "right")), 1)])
        return found

    def ends_with(self, series: int) -> bool:
        """Return whether the generation has nothing behind a series."""
        return all(block.series[-1] <= series for block in self._generation)

    def sealed(self, up_to_series: int) -> None:
        """Forget of the generation what is sealed: the series up to this one."""
        rest = (block.between(up_to_series + 1, _MAX) for block in self._generation)
        self._generation = [block for block in rest if block is not None]

    def _between(self, series: Ints) -> Block:
        parts = (block.between(int(series[0]), int(series[-1]) + 1) for block in self._generation)
        return as_one([part for part in parts if part is not None])

    def _is_crowded(self) -> bool:
        last = self._blocks[-_TOGETHER:]
        return (
            len(last) == _TOGETHER
            and len({level for level, _ in last}) == 1
            and sum(len(block) for _, block in last) <= _LARGE
        )


class Waiting(NamedTuple):
    """What a series has unsealed, in the order it came, and how many of its readings are late."""

    readings: Readings
    late: int


def waiting(
    blocks: Iterable[Block], numbers: Collection[int] | None = None, start_ns: int = _MIN, end_ns: int = _MAX + 1
) -> dict[int, Waiting]:
    """Return what series have unsealed in [start_ns, end_ns), of those that have anything.

    Args:
        blocks: in the order they came.
        numbers: the series; None = all.
    """
    near = [block for block in blocks if block.is_near(start_ns, end_ns)]
    if not near or (numbers is not None and not numbers):
        return {}
    if numbers is not None and len(numbers) <= _FEW:
        parts = {number: [part for block in near if (part := block.find(number)) is not None] for number in numbers}
        found = {number: _together(runs) for number, runs in parts.items() if runs}
    else:
        if numbers is not None:
            wanted = np.unique(np.fromiter(numbers, np.int64, len(numbers)))
            near = [some for block in near if (some := block.select(block.holds(wanted))) is not None]
        found = {series: Waiting(*run) for series, run in as_one(near).by_series()} if near else {}
    inside = {number: _within(one, start_ns, end_ns) for number, one in found.items()}
    return {number: one for number, one in inside.items() if len(one.readings.times)}


def newest(blocks: Iterable[Block], numbers: Collection[int]) -> dict[int, tuple[int, Value]]:
    """Return series → time and value of its newest unsealed reading, of those that have one."""
    found: dict[int, tuple[int, Value]] = {}
    wanted = np.unique(np.fromiter(numbers, np.int64, len(numbers)))
    for block in blocks if len(wanted) else ():
        for series, time_ns, value in block.newest(np.flatnonzero(block.holds(wanted))):
            known = found.get(series)
            # Of one instant the later one counts.
            if known is None or time_ns >= known[0]:
                found[series] = (time_ns, value)
    return found


def spans(blocks: Iterable[Block], numbers: Collection[int]) -> dict[int, tuple[int, int]]:
    """Return series → the times of its oldest and its newest unsealed reading, of those that have one."""
    found: dict[int, tuple[int, int]] = {}
    wanted = np.unique(np.fromiter(numbers, np.int64, len(numbers)))
    for block in blocks if len(wanted) else ():
        mine = block.holds(wanted)
        least, greatest = block.least()[mine].tolist(), block.greatest[mine].tolist()
        for series, oldest_ns, newest_ns in zip(block.series[mine].tolist(), least, greatest, strict=True):
            known = found.get(series, (oldest_ns, newest_ns))
            found[series] = (min(known[0], oldest_ns), max(known[1], newest_ns))
    return found


def _together(runs: Sequence[tuple[Readings, int]]) -> Waiting:
    return Waiting(joined(*(readings for readings, _ in runs)), sum(late for _, late in runs))


def _within(found: Waiting, start_ns: int, end_ns: int) -> Waiting:
    if start_ns <= _MIN and end_ns > _MAX:
        return found
    times = found.readings.times
    is_inside = (times >= max(start_ns, _MIN)) & (times <= min(end_ns - 1, _MAX))
    return found if is_inside.all() else found._replace(readings=found.readings.part(is_inside))
