"""The oracle store with faults: it can be told to fail, and counts what reaches it.

Owns: `FaultyStore`.
"""

import threading
from collections.abc import Sequence

from hub.model import Frame
from tests.support.memory_store import MemoryStore


class FaultyStore(MemoryStore):
    """``errors`` are raised by the next writes; ``hold`` makes writes wait; ``writes`` lists offsets by write."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.writes: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self._gate = threading.Event()
        self._gate.set()

    def hold(self) -> None:
        """Let no write return until `release`."""
        self._gate.clear()

    def release(self) -> None:
        """Let writes through again."""
        self._gate.set()

    def write(self, frames: Sequence[Frame]) -> None:
        """Wait at the gate, then fail as told or write."""
        self.entered.release()
        assert self._gate.wait(10), "a test held the store and did not release it"
        if self.errors:
            raise self.errors.pop(0)
        self.writes.append([frame.offset for frame in frames])
        super().write(frames)
