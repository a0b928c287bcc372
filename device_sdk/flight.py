"""Frames on their way: cut and not yet acked, how far they were sent, and one that the hub could not read.

Owns: what may be sent now, by window and acks, without asking the spool for bodies. Place:
after `outbox`, before `session`. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from device_sdk.outbox import CutFrame

# How often the hub may fail to read one frame before the frame, not the line, is to blame.
UNREADABLE_TRIES = 3


class Flight:
    """What is in flight on one stream.

    ``sent``: every frame ≤ this was sent on the present connection; ``sent_ever``: by this process.
    ``window``: how many the hub lets be in flight. ``suspect``: seq of a frame that the hub could not read, else 0:
    it is sent alone, so that the next verdict is surely about it.
    """

    def __init__(self) -> None:
        self.window = 1
        self.sent = 0
        self.sent_ever = 0
        self.suspect = 0
        self._suspect_of = ""
        self._suspect_tries = 0
        self._unacked: deque[tuple[int, int]] = deque()
        self._rewound: int | None = None

    def __bool__(self) -> bool:
        return bool(self._unacked)

    @property
    def is_full(self) -> bool:
        """True while nothing more may be cut."""
        return bool(self.suspect) or len(self._unacked) >= self.window

    @property
    def last(self) -> int:
        """The last seq in flight; 0 when there is none."""
        return self._unacked[-1][0] if self._unacked else 0

    def begin(self, frames: Iterable[CutFrame]) -> None:
        """Begin on a new connection with the spool's unacked frames, also those an earlier process cut."""
        self._unacked = deque((frame.seq, frame.readings) for frame in frames)
        self._rewound = None

    def clear(self) -> None:
        """Forget the frames: another stream begins."""
        self._unacked.clear()

    def add(self, frame: CutFrame) -> None:
        """Take a frame that was cut just now."""
        self._unacked.append((frame.seq, frame.readings))

    def limit(self, acked: int) -> int:
        """Return the last seq that may be sent."""
        return min(self.last, acked + (1 if self.suspect else self.window))

    def note_sent(self, seq: int) -> bool:
        """Note that a frame is sent; True when this process sends it the first time."""
        is_first = seq > self.sent_ever
        self.sent, self.sent_ever = seq, max(self.sent_ever, seq)
        return is_first

    def settle(self, stored: int) -> list[int]:
        """Take an ack (or what counts as one); return the readings of each frame it covers."""
        readings = []
        while self._unacked and self._unacked[0][0] <= stored:
            readings.append(self._unacked.popleft()[1])
        self.sent = max(self.sent, stored)
        if stored >= self.suspect:
            self.suspect = 0
        return readings

    def rewind(self, stored: int) -> bool:
        """Send again from ``stored`` + 1; False when that was done before and did not help."""
        if self.suspect == stored + 1:
            return True  # it is on its way alone already
        if self._rewound == stored:
            return False
        self._rewound = self.sent = stored
        return True

    def blame(self, stream: str, seq: int) -> bool:
        """Suspect a frame that the hub could not read; True when it has failed `UNREADABLE_TRIES` times."""
        is_same = (stream, seq) == (self._suspect_of, self.suspect)
        self._suspect_of, self.suspect = stream, seq
        self._suspect_tries = self._suspect_tries + 1 if is_same else 1
        self.sent = seq - 1
        return self._suspect_tries >= UNREADABLE_TRIES

    def keep_suspect_in(self, stream: str) -> None:
        """Suspect nothing of another stream."""
        if stream != self._suspect_of:
            self.suspect = 0
