"""A journal in memory for tests of what reads it: offsets, runs, trimming; one process, no threads of its own."""

from collections.abc import Iterable, Sequence

from hub.errors import ExpiredError, NotFoundError
from hub.journal.base import (
    RETAIN_BYTES,
    RETAIN_HOURS,
    GapEntry,
    JournalAccount,
    JournalStatistics,
    PostedPart,
    QuarantineEntry,
    RejectionEntry,
    ReplayEntry,
    Run,
)
from hub.model import Frame, Mark, Series, StreamKey


class MemoryJournal:
    """Keeps frames in a list; `restart` begins a new run on the same frames, `restore` forgets the newest."""

    def __init__(self, run_id: str = "00000001") -> None:
        self.head = 0
        self.reads = 0
        self._first = 1
        self._frames: list[Frame] = []
        self._series: dict[int, Series] = {}
        self._runs: list[Run] = []
        self._checkpoints: dict[str, int] = {}
        self.restart(run_id)

    def restart(self, run_id: str) -> None:
        """Begin a new run, as a hub does at each start."""
        self.run = Run(run_id, self.head + 1)
        self._runs.append(self.run)

    def restore(self, head: int, run_id: str) -> None:
        """Become the copy that was made at ``head`` during the first run, then begin another run."""
        self._frames = self._frames[: head - self._first + 1]
        self._runs = self._runs[:1]
        self.head = head
        self.restart(run_id)

    def append(self, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        """Number and keep the frames."""
        for frame in frames:
            self.head += 1
            frame.offset = self.head
            self._frames.append(frame)
        self._series.update((s.id, s) for s in series)

    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        """Return frames behind ``after``; at least one, about ``max_bytes`` of bodies."""
        self.reads += 1
        if after + 1 < self._first:
            raise ExpiredError(f"offset {after + 1} was trimmed; the oldest is {self._first}")
        found: list[Frame] = []
        size = 0
        for frame in self._frames[after + 1 - self._first :]:
            size += len(frame.body)
            if (upto is not None and frame.offset > upto) or (found and size > max_bytes):
                break
            found.append(frame)
        return found

    def find_marks(self, keys: Iterable[StreamKey]) -> dict[StreamKey, Mark]:
        """Return nothing: watchers have no marks."""
        return {}

    def begun(self, since_ns: int) -> list[tuple[StreamKey, int]]:
        """Return nothing: watchers begin no streams."""
        return []

    def series(self) -> list[Series]:
        """Return every series."""
        return list(self._series.values())

    def runs(self) -> list[Run]:
        """Return all runs, oldest first."""
        return list(self._runs)

    def checkpoint(self, consumer: str) -> int:
        """Return the consumer's checkpoint."""
        return self._checkpoints.get(consumer, 0)

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        """Keep it."""
        self._checkpoints[consumer] = offset

    def trim(self, before: int) -> int:
        """Forget frames before the offset, never the newest."""
        keep = min(before, self.head)
        if keep > self._first:
            self._frames = self._frames[keep - self._first :]
            self._first = keep
        return self._first

    def trim_expired(self, now_ns: int, retain_hours: float = RETAIN_HOURS, retain_bytes: int = RETAIN_BYTES) -> int:
        """Trim nothing: tests trim by offset."""
        return self._first

    def gaps(self, namespace: str, device: str | None = None) -> list[GapEntry]:
        """Return none."""
        return []

    def rejections(self, namespace: str, device: str | None = None) -> list[RejectionEntry]:
        """Return none."""
        return []

    def quarantine(self, namespace: str, device: str | None = None) -> list[QuarantineEntry]:
        """Return none."""
        return []

    def quarantined(self, namespace: str, offset: int) -> tuple[QuarantineEntry, bytes]:
        """There is none."""
        raise NotFoundError(f"no quarantined frame {offset}")

    def delete_quarantined(self, namespace: str, offset: int) -> None:
        """There is none."""
        raise NotFoundError(f"no quarantined frame {offset}")

    def replays(self, namespace: str, device: str | None = None) -> dict[StreamKey, ReplayEntry]:
        """Return none."""
        return {}

    def posted(self, key: bytes) -> dict[int, PostedPart]:
        """Return none."""
        return {}

    def account(self, namespace: str, device: str | None, after: int) -> JournalAccount:
        """Return an empty account."""
        return JournalAccount(self.head, [], [], [], {}, True, [], {}, {})

    def statistics(self) -> JournalStatistics:
        """Return the figures of now."""
        size = sum(len(f.body) for f in self._frames)
        return JournalStatistics(self._first, self.head, size, self.head, 0.0, 1)

    def close(self) -> None:
        """Nothing to close."""
