"""The newest frames in memory, so that live watchers and short outages never touch the disk.

Owns: a contiguous run of decoded frames up to the head, bounded in bytes.
Place: after `model`, before `rooms`. Pure. What is older is in the journal.
"""

from collections.abc import Sequence

from hub.model import Frame, Kind, StreamKey

# 0.2 M readings: seconds at full load, hours of a small site; more would only repeat what the page cache holds.
RING_BYTES = 16 * 1024 * 1024
# In the place of a frame that left, until the list is moved: what is not counted must not be held.
_LEFT = Frame(StreamKey("", "", ""), 0, Kind.GAP, 0, b"", b"")


class Ring:
    """Frames ``first`` … ``head`` without a hole; ``first`` is ``head + 1`` while empty."""

    def __init__(self, head: int, max_bytes: int = RING_BYTES) -> None:
        self.head = head
        self.bytes = 0
        self._max_bytes = max_bytes
        self._frames: list[Frame] = []
        self._start = 0

    @property
    def first(self) -> int:
        """The oldest offset held."""
        return self.head - len(self) + 1

    def __len__(self) -> int:
        return len(self._frames) - self._start

    def extend(self, frames: Sequence[Frame]) -> None:
        """Add committed frames (ascending); the oldest leave when the bound is passed.

        A hole in the offsets empties the ring: readers then go to the journal, and nothing is skipped.
        """
        if not frames:
            return
        if frames[0].offset != self.head + 1 or frames[-1].offset != self.head + len(frames):
            self._frames, self._start, self.bytes = [], 0, 0
            frames = frames[-1:]
        self._frames += frames
        self.bytes += sum(frame.memory_bytes for frame in frames)
        self.head = frames[-1].offset
        self._shrink()

    def after(self, offset: int, max_bytes: int, upto: int) -> list[Frame] | None:
        """Return frames offset + 1 … upto, as many as fit ``max_bytes`` of bodies and at least one.

        None: the oldest of them are not held any more. Empty: there are none yet.
        """
        if offset >= upto:
            return []
        if offset + 1 < self.first:
            return None
        begin = self._start + offset + 1 - self.first
        end = min(begin + upto - offset, len(self._frames))
        size = 0
        for at in range(begin, end):
            size += len(self._frames[at].body)
            if size > max_bytes:
                end = max(at, begin + 1)
                break
        return self._frames[begin:end]

    def received_ns(self, offset: int) -> int | None:
        """Return when the frame after ``offset`` (or the oldest held after it) was received, or None."""
        if offset >= self.head or not len(self):
            return None
        return self._frames[self._start + max(offset + 1 - self.first, 0)].received_ns

    def _shrink(self) -> None:
        while self.bytes > self._max_bytes and len(self) > 1:
            self.bytes -= self._frames[self._start].memory_bytes
            self._frames[self._start] = _LEFT
            self._start += 1
        # Moving the list once per eighth of its length keeps the cost of a frame constant.
        if self._start > 64 and self._start * 8 > len(self._frames):
            del self._frames[: self._start]
            self._start = 0
