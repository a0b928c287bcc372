"""The journal's interface: one ordered, durable log of accepted frames.

Owns: what an implementation must keep (`tests/contract` holds the suite).
Place: after `model`. An offset is the only notion of "where" in the hub:
frames are numbered 1, 2, 3 … in commit order, across all streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hub.model import Frame, Mark, Series, StreamKey


@dataclass(frozen=True, slots=True)
class Run:
    """One start of the hub: its random id and the first offset it could write."""

    id: str
    first_offset: int


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What the journal holds and how it does: offsets, bytes, commits, the last commit's seconds."""

    first_offset: int
    head: int
    bytes: int
    commits: int
    commit_s: float
    largest_group: int


class Journal(Protocol):
    """Blocking; called from one writer thread (`append`) and any reader threads (the rest)."""

    run: Run
    head: int

    def append(self, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        """Commit frames, their streams' marks and counters, and new or changed series in one transaction.

        On return everything is durable (fsynced) and each ``frame.offset`` is set.

        Raises:
            JournalError: nothing of this call is stored; the journal must not be used again.
            DiskFullError: nothing of this call is stored; a later call may succeed.
        """

    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        """Return decoded frames with offset > ``after`` in order, at least one if any, about ``max_bytes`` of bodies.

        Raises:
            ExpiredError: frames behind ``after`` have been trimmed.
        """

    def marks(self) -> dict[StreamKey, Mark]:
        """Return every stream's mark (called once at start)."""

    def series(self) -> list[Series]:
        """Return every known series (called once at start)."""

    def runs(self) -> list[Run]:
        """Return all runs, oldest first; the last is this one."""

    def checkpoint(self, consumer: str) -> int:
        """Return the consumer's checkpoint (0 when it never set one)."""

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        """Store how far a consumer has come; frames above the lowest checkpoint are never trimmed."""

    def trim(self, before: int) -> int:
        """Delete frames with offset < ``before`` (never the newest row); return the new first offset."""

    def statistics(self) -> JournalStatistics:
        """Return the figures of now."""

    def close(self) -> None:
        """Close all handles; safe to call twice."""
