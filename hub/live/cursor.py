"""Where a watcher stands, as text a client keeps, and whether that text still means anything.

Owns: the three forms of a cursor and the run table. Place: after `journal.base`,
before `rooms`. Pure. To clients a cursor is opaque.

``<run>.<offset>``    everything up to the offset was sent.
``<run>.<H>.<t>``     history up to time t (inclusive) was sent; after it, live from H + 1.
``<run>.<H>.last``    newest values are being sent; after them, live from H + 1.

A run is one start of the hub. A hub restored from a backup numbers other
frames with the same offsets, so an offset alone must never be resumed: the
run has to be known and the offset inside what that run wrote here.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from device_sdk.reading import INT_MAX, INT_MIN
from hub.journal.base import Run

_CURSOR = re.compile(r"([0-9a-f]{8})\.(\d{1,19})(?:\.(-?\d{1,19}|last))?")
LAST = "last"


class ResetReason(StrEnum):
    """Why a cursor could not be resumed."""

    RUN = "run"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A parsed cursor; at most one of ``time_ns`` and ``is_last`` is set."""

    run: str
    offset: int
    time_ns: int | None = None
    is_last: bool = False

    def __str__(self) -> str:
        if self.is_last:
            return f"{self.run}.{self.offset}.{LAST}"
        return f"{self.run}.{self.offset}" if self.time_ns is None else f"{self.run}.{self.offset}.{self.time_ns}"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins: live after ``offset``, before that history from ``time_ns`` or newest values.

    ``resumes``: it was a cursor; ``reset``: a cursor that cannot be resumed, so it begins at the head.
    """

    offset: int
    time_ns: int | None = None
    is_last: bool = False
    resumes: bool = False
    reset: ResetReason | None = None


class RunTable:
    """All runs of this journal, oldest first; the last one is still writing."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._ids = [run.id for run in runs]
        self._first = [run.first_offset for run in runs]

    def cursor(self, offset: int) -> str:
        """Return the cursor text of an offset: it names the run that wrote it, or the next one at its edge."""
        return f"{self._run_of(offset)}.{offset}"

    def history_cursor(self, offset: int, time_ns: int | None) -> str:
        """Return the cursor text inside the history phase (``time_ns`` None: inside newest values)."""
        return f"{self.cursor(offset)}.{LAST if time_ns is None else time_ns}"

    def knows(self, cursor: Cursor, head: int) -> bool:
        """Return whether the cursor's run wrote here and reaches from first_offset - 1 to its last offset."""
        if cursor.run not in self._ids:
            return False
        at = self._ids.index(cursor.run)
        last = head if at + 1 == len(self._ids) else self._first[at + 1] - 1
        return self._first[at] - 1 <= cursor.offset <= last

    def _run_of(self, offset: int) -> str:
        # An offset at the edge belongs to two runs; the newer is the one a client can keep longer.
        return self._ids[max(bisect_right(self._first, offset + 1) - 1, 0)]


def parse_cursor(text: str) -> Cursor | None:
    """Return the cursor, or None when the text is something else (a time, ``last``)."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        return None
    rest = match[3]
    if rest is None or rest == LAST:
        return Cursor(match[1], int(match[2]), is_last=rest == LAST)
    return Cursor(match[1], int(match[2]), int(rest))


def resolve_since(
    since: str | None, runs: RunTable, head: int, now_ns: int, parse_time: Callable[[str, int], int]
) -> Start:
    """Return where a subscription begins.

    Args:
        since: a cursor, ``last``, a time (whatever ``parse_time`` reads), or None for the head.
        parse_time: (text, now_ns) → epoch ns; its errors pass through.
    """
    if since is None:
        return Start(head)
    if since == LAST:
        return Start(head, is_last=True)
    cursor = parse_cursor(since)
    if cursor is None:
        return Start(head, parse_time(since, now_ns))
    if not runs.knows(cursor, head):
        return Start(head, reset=ResetReason.RUN)
    # Nineteen digits can name a time that no store takes.
    from_ns = None if cursor.time_ns is None else max(INT_MIN, min(cursor.time_ns + 1, INT_MAX))
    return Start(cursor.offset, from_ns, cursor.is_last, resumes=True)
