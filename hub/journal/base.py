"""The journal's interface: one ordered, durable log of accepted frames.

Owns: what an implementation must keep (`tests/contract` holds the suite).
Place: after `model`. An offset is the only notion of "where" in the hub:
frames are numbered 1, 2, 3 … in commit order, across all streams.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from device_sdk.wire import Rejection
from hub.model import Frame, Mark, Series, StreamKey

# How far back a watcher can resume by cursor; what is older is asked for by time (hub.config can change both).
RETAIN_HOURS = 24.0
RETAIN_BYTES = 1024**3


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


@dataclass(frozen=True, slots=True)
class GapEntry:
    """A declared loss: ``count`` None = unknown; ``ranges``: channel → (first, last) in epoch ns."""

    key: StreamKey
    seq: int
    count: int | None
    reason: str
    ranges: dict[str, tuple[int, int]]
    received_ns: int


@dataclass(frozen=True, slots=True)
class RejectionEntry:
    """How often readings of a channel were refused for one reason; channel "" = not itemised."""

    namespace: str
    device: str
    channel: str
    reason: str
    count: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """A frame that could not be taken apart, without its bytes; ``offset`` is its id, ``count`` its readings.

    ``replayed_ns``: when its readings were stored after all, None while they are not.
    """

    offset: int
    key: StreamKey
    seq: int
    reason: str
    received_ns: int
    count: int
    size: int
    replayed_ns: int | None


class PostedPart(NamedTuple):
    """What became of a part of a request that named itself; ``body`` is the digest it came with.

    ``named``: the readings refused of it, as far as they were named; without their frame's number.
    """

    body: bytes
    accepted: int
    rejected: int
    named: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class ReplayEntry:
    """What of a stream's quarantine was replayed: ``frames``, and the ``readings`` they were refused with."""

    frames: int
    readings: int


class Losses(NamedTuple):
    """Declared losses of a stream for one reason: readings known to be lost, and gaps of unknown count."""

    reason: str
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs of a record
    unknown: int


@dataclass(frozen=True, slots=True)
class JournalAccount:
    """What the journal says at one position; ``marks`` are without their chains.

    ``gaps``: the newest, oldest first; ``losses`` sums up all that are kept, and ``are_gaps_whole`` says whether that
    is every one there ever was. ``replays``: what of a stream's quarantine was replayed. ``tail``: stream → accepted
    readings behind the offset that was asked for; None when those frames are too many to look through, or trimmed.
    """

    head: int
    marks: list[Mark]
    series: list[Series]
    gaps: list[GapEntry]
    losses: dict[StreamKey, list[Losses]]
    are_gaps_whole: bool
    rejections: list[RejectionEntry]
    replays: dict[StreamKey, ReplayEntry]
    tail: dict[StreamKey, int] | None


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

        Equal to the frames appended, but for ``rejected`` (details of refused readings are summed up in
        `rejections`, ``rejected_count`` is kept) and ``replayed`` (summed up in `replays`).

        Raises:
            ExpiredError: frames behind ``after`` have been trimmed.
        """

    def find_marks(self, keys: Iterable[StreamKey]) -> dict[StreamKey, Mark]:
        """Return the marks of those streams of which something is stored; quick enough for the event loop.

        Raises:
            DiskFailedError: the disk failed: nothing more may be written to it.
            JournalError: they could not be read; a later call may succeed.
        """

    def begun(self, since_ns: int) -> list[tuple[StreamKey, int]]:
        """Return the devices' streams whose first frame came behind ``since_ns``, with when, oldest first."""

    def series(self) -> list[Series]:
        """Return every known series (called once at start)."""

    def runs(self) -> list[Run]:
        """Return all runs, oldest first; the last is this one."""

    def checkpoint(self, consumer: str) -> int:
        """Return the consumer's checkpoint (0 when it never set one)."""

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        """Store how far a consumer has come; frames above the lowest checkpoint are never trimmed."""

    def trim(self, before: int) -> int:
        """Delete frames with offset < ``before``, below every checkpoint, never the newest; return the first offset.

        May keep more: implementations delete whole groups. Offsets never restart.
        """

    def trim_expired(self, now_ns: int, retain_hours: float = RETAIN_HOURS, retain_bytes: int = RETAIN_BYTES) -> int:
        """Trim what is older than ``retain_hours``, and the oldest while more than ``retain_bytes`` are held."""

    def gaps(self, namespace: str, device: str | None = None) -> list[GapEntry]:
        """Return declared losses, oldest first."""

    def rejections(self, namespace: str, device: str | None = None) -> list[RejectionEntry]:
        """Return the summary of refused readings by (device, channel, reason)."""

    def quarantine(self, namespace: str, device: str | None = None) -> list[QuarantineEntry]:
        """Return quarantined frames that are still kept, oldest first, without their bytes."""

    def quarantined(self, namespace: str, offset: int) -> tuple[QuarantineEntry, bytes]:
        """Return one quarantined frame and its bytes as they came.

        Raises:
            NotFoundError: there is none at that offset in the namespace.
        """

    def delete_quarantined(self, namespace: str, offset: int) -> None:
        """Delete one quarantined frame for good; any thread. Counters stay. Raises as `quarantined` and `append`."""

    def replays(self, namespace: str, device: str | None = None) -> dict[StreamKey, ReplayEntry]:
        """Return how much of each stream's quarantine was replayed: its readings are counted on the hub's stream."""

    def posted(self, key: bytes) -> dict[int, PostedPart]:
        """Return what is stored of a request that named itself, by part; nothing of one older than two days."""

    def account(self, namespace: str, device: str | None, after: int) -> JournalAccount:
        """Return marks, losses, refusals and what was accepted behind ``after``, all of one position."""

    def statistics(self) -> JournalStatistics:
        """Return the figures of now."""

    def close(self) -> None:
        """Close all handles; safe to call twice."""
