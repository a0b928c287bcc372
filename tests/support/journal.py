"""A real journal whose disk can be held, filled or broken by a test.

Owns: `GatedJournal`. Everything else is `SqliteJournal`, so it keeps the
journal's contract by being one.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Series


class GatedJournal(SqliteJournal):
    """``hold`` makes appends wait (an fsync that takes long); ``errors`` are raised by the next appends instead."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.errors: list[Exception] = []
        self.groups: list[list[Frame]] = []
        self.entered = threading.Semaphore(0)
        self._gate = threading.Event()
        self._gate.set()

    def hold(self) -> None:
        """Let no append return until `release`."""
        self._gate.clear()

    def release(self) -> None:
        """Let appends through again."""
        self._gate.set()

    def append(self, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        """Wait at the gate, then fail as told or append."""
        self.groups.append(list(frames))
        self.entered.release()
        assert self._gate.wait(10), "a test held the journal and did not release it"
        if self.errors:
            raise self.errors.pop(0)
        super().append(frames, series)
