"""The store's interface: history by series and time.

Owns: what every engine must answer alike (`tests/contract` holds the suite).
Place: after `journal`. A store consumes the journal from its own checkpoint;
an ack never waits for it. Readings are unique by (series, time): writing the
same instant again is a correction, the last one (by offset) wins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from device_sdk.reading import Value
from hub.model import Frame

AGGREGATES = ("avg", "min", "max", "count", "sum", "first", "last")
# Of what further aggregates are made, over any number of buckets; see `Store.aggregate`.
PARTS = ("first_ns", "last_ns", "m2", "rise", "area")

# accepted, superseded, erased, late, expired: as of `SeriesCounters`.
Revision = tuple[int, int, int, int, int]
# Of a series that never had a reading.
UNKNOWN_REVISION: Revision = (0, 0, 0, 0, 0)


class Row(NamedTuple):
    """One stored reading.

    ``received_ns``: when the hub received it (of a correction, when that came), exact or up to a second too early;
    None when it was not asked for, or not known because the hub did not keep it then.
    """

    series: int
    time_ns: int
    value: Value
    received_ns: int | None = None


class Bucket(NamedTuple):
    """Aggregates of one series over [start_ns, start_ns + step); numbers only, empty buckets are left out."""

    series: int
    start_ns: int
    values: tuple[float | int, ...]


@dataclass(frozen=True, slots=True)
class SeriesCounters:
    """The second ledger: accepted − superseded − erased − expired − refused = rows; rows are counted, not computed.

    ``late``: accepted readings that were older than the newest of the series when their frame came. ``expired``: those
    that were dropped, of which the rollups hold sums; ``merged``: of them, those that came when others of their time
    had been dropped already, and went to the sums at once. ``refused``: those that the server of a store does not take.
    """

    series: int
    accepted: int
    superseded: int
    rows: int
    erased: int = 0
    late: int = 0
    expired: int = 0
    merged: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A reading that the server of a store did not take, and what it said."""

    series: int
    time_ns: int
    value: Value
    reason: str


@dataclass(frozen=True, slots=True)
class StoreAccount:
    """Counters of series as of one position: every frame ≤ ``applied`` is in them, none above."""

    applied: int
    series: list[SeriesCounters]


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How far the store has come and what it holds."""

    applied: int
    rows: int
    bytes: int


class Store(Protocol):
    """Blocking; one writer thread, any reader threads. ``applied``: the offset of the last frame that is stored."""

    @property
    def applied(self) -> int: ...

    def write(self, frames: Sequence[Frame]) -> None:
        """Store the readings of frames (ascending offsets); those ≤ ``applied`` are skipped: repeating is harmless."""

    def sync(self) -> int:
        """Make what was written durable; return the offset up to which it is.

        The journal keeps every frame above it. Called seconds apart: a store need not be durable on each write,
        because after a power cut `applied` falls back together with the rows, and the journal is read again.
        """

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``: the journal was restored from an older copy and counts from there."""

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading *by event time* of each series that has one."""

    def read(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool = False,
        received: bool = False,
    ) -> list[Row]:
        """Return rows with start_ns <= time < end_ns, ordered by (time, series), at most about ``limit``.

        Descending is the exact reverse. Fewer than ``limit`` rows mean that there are no more. ``received``: say of
        each row when the hub received it.

        When there are more, the answer ends at a time border: every row of the last time given is in it, so
        the next page starts at that time + 1 (or ends there, descending). It may thus exceed ``limit`` by the rows
        of one instant.
        """

    def aggregate(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        step_ns: int,
        functions: Sequence[str],
        *,
        origin_ns: int = 0,
    ) -> list[Bucket]:
        """Return buckets that start at origin_ns + k * step_ns (any integer k), ordered by (start, series).

        A bool counts as 0 or 1; strings are left out.

        Args:
            functions: some of `AGGREGATES`, and of `PARTS`: ``first_ns``, ``last_ns``: the times of the first and the
                last reading; ``m2``: the sum of squared deviations from the bucket's mean; ``rise``: by how much a
                counter rose from reading to reading, where it falls it began again at 0; ``area``: the integral of the
                straight lines between its readings, in value * seconds. None looks beyond its bucket.

        Raises:
            BadRequestError: more buckets than may be held in memory for one answer.
        """

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series), in bounded memory; ``received`` as in `read`."""

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger's counters of each series that ever had a reading."""

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series asked for, in their order; zeros where unknown.

        Where none of the numbers changed, no answer about the series did, but that old sums may be gone. Cheap: no rows
        are counted.
        """

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters together with the position they are of, while writes go on."""

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading; 0 when there is none."""

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series, and sums; return how many rows. They count as ``erased``.

        An embedded store takes them out of the bytes of its files, too.

        Raises:
            StoreError: e.g. something reads the file for so long that its log still says them: erase again.
        """

    def statistics(self) -> StoreStatistics:
        """Return the figures of now."""

    def close(self) -> None:
        """Close all handles; safe to call twice."""


@runtime_checkable
class RefusingStore(Store, Protocol):
    """A store on a server, which may refuse a reading for good."""

    def refusals(self) -> list[Refused]:
        """Return the newest readings that the server refused, the last first; they are in no other answer."""


@runtime_checkable
class RetainingStore(Store, Protocol):
    """A store that drops readings when they are old and keeps their sums; engines of others do that themselves.

    `aggregate` answers from sums and readings together, as before the readings were dropped, where sums can: the
    functions ``avg``, ``count``, ``sum``, ``min``, ``max``, ``last``, ``last_ns``, in buckets and from an origin of
    whole minutes. A minute of dropped readings counts in the range in which it begins. Everything else that needs
    dropped readings is a `BadRequestError`. A reading that comes when those of its time are dropped goes to the sums;
    one that was there before cannot be told from it, so a correction counts as one more.
    """

    def drop_before(self, series: Sequence[int], before_ns: int) -> int:
        """Drop the oldest readings of the series, a slice in one transaction; return how many: 0 when none is left.

        Their sums are written in the same transaction. The newest reading of a series always stays.

        Args:
            before_ns: readings before the whole hour in which this is are dropped.
        """

    def drop_rollups_before(self, series: Sequence[int], before_ns: int) -> int:
        """Delete sums of thirty days that end before a time, some in one transaction; return 0 when none is left."""

    def give_back(self, keep_bytes: int) -> int:
        """Give free space back to the disk, a slice; return how many bytes: 0 when no more than ``keep_bytes`` is."""

    def seal(self) -> None:
        """Bring what waits in a log into its last form, which is smaller, in slices between which writes go on."""

    def oldest(self, series: Sequence[int]) -> int | None:
        """Return the time of the oldest reading of some series that may be dropped: not the newest of its series."""

    def used_bytes(self) -> int:
        """Return how much of its files is in use; cheap."""

    @property
    def keeps_all(self) -> bool:
        """Whether an older hub made the store, which kept everything: it goes on until somebody says otherwise."""

    def day_of_sums(self, series: Sequence[int], start_ns: int, end_ns: int, *, descending: bool = False) -> int | None:
        """Return when the first day (of UTC; descending: the last) begins that has sums of any of the series.

        Only of the days that a range touches: what a day has may yet lie outside of the range. Cheap.
        """

    def raw_from(self, series: Sequence[int]) -> dict[int, int]:
        """Return series → from when its readings are there, of those of which some were dropped."""
