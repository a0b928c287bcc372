"""Trusted records that travel inside the hub: series, frames, marks, gaps.

Owns: the shape of what `validate` lets in and `journal`, `live` and `store`
hand on. Place: after `errors`. Pure values, no behaviour beyond views.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from device_sdk.columns import Column
from device_sdk.reading import Value, ValueType
from device_sdk.wire import Rejection

# A reading is late when it is older by more than this than the newest of its series that came in earlier frames.
# Not zero: threads of a device may swap two readings, and a clock that is being set steps back by milliseconds.
LATE_TOLERANCE_NS = 10_000_000
# What a decoded frame takes in memory beside its body, by tracemalloc, within a tenth for frames of 1 to 100 readings:
# the object and its numbers; a column's objects and lists; a reading's value, time and two list slots.
_FRAME_BYTES, _COLUMN_BYTES, _READING_BYTES = 550, 200, 72


class Kind(IntEnum):
    """What a journal record is."""

    BATCH = 1
    GAP = 2
    QUARANTINE = 3


class SeriesKey(NamedTuple):
    """The name of a series: one channel of one device of one namespace."""

    namespace: str
    device: str
    channel: str


@dataclass(slots=True)
class Series:
    """One time series and what is known of it. ``id`` is hub-wide and never reused."""

    id: int
    namespace: str
    device: str
    channel: str
    type: ValueType | None = None
    unit: str | None = None
    every_s: float | None = None
    low: float | None = None
    high: float | None = None
    label: str | None = None


class StreamKey(NamedTuple):
    """The identity of a stream; ``stream`` is 16 hex digits."""

    namespace: str
    device: str
    stream: str


@dataclass(frozen=True, slots=True)
class SeriesColumn:
    """A validated column of a known series: ``values[i]`` at ``t0 + dt[i] * tick`` of its frame."""

    series: Series
    column: Column


class Replayed(NamedTuple):
    """The quarantined frame whose readings a frame of the hub's own stream carries.

    ``offset`` of it, the device's ``stream`` it came on, the ``readings`` it was refused with, and when
    it was replayed (wall time).
    """

    offset: int
    stream: str
    readings: int
    time_ns: int


@dataclass(slots=True)
class Frame:
    """One accepted, numbered frame on its way through the hub.

    ``offset`` is 0 until the journal has committed it. ``body`` is the trusted
    body: the bytes as received when every reading was accepted, else the
    accepted readings encoded again; for a gap the gap's JSON; for a quarantined
    frame the raw bytes. ``chain`` is chain(seq) over the bytes *as received*.
    ``readings`` counts the accepted readings; ``dropped`` what a gap declares
    (0 when unknown). ``replayed`` is set until the commit, on the hub's own
    stream only. ``late``: (index of a column, instant before which its
    readings are late); columns without late readings are left out.
    """

    key: StreamKey
    seq: int
    kind: Kind
    received_ns: int
    body: bytes
    chain: bytes
    t0: int = 0
    tick: int = 1
    columns: tuple[SeriesColumn, ...] = ()
    readings: int = 0
    rejected: tuple[Rejection, ...] = ()
    rejected_count: int = 0
    dropped: int = 0
    reason: str = ""
    offset: int = 0
    replayed: Replayed | None = None
    late: tuple[tuple[int, int], ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Return about how much memory the decoded frame takes: what queues and rings are bounded by."""
        return _FRAME_BYTES + len(self.body) + _COLUMN_BYTES * len(self.columns) + _READING_BYTES * self.readings

    def rows(self) -> Iterator[tuple[Series, int, Value]]:
        """Yield (series, time_ns, value) of each accepted reading, column by column."""
        t0, tick = self.t0, self.tick
        for series_column in self.columns:
            series, column = series_column.series, series_column.column
            for dt, value in zip(column.dt, column.values, strict=True):
                yield series, t0 + dt * tick, value


@dataclass(slots=True)
class Mark:
    """The durable state of a stream: what is stored, its last chains, its counters.

    ``chains`` maps seq → chain for the last `CHAINS_KEPT` frames (and 0 while it is among them).
    ``produced = accepted + rejected + dropped`` for frames up to ``stored``.
    """

    key: StreamKey
    stored: int = 0
    chains: dict[int, bytes] = field(default_factory=dict)
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    quarantined: int = 0
    first_ns: int = 0
    last_ns: int = 0
