"""Trusted records that travel inside the hub: series, frames, marks, gaps.

Owns: the shape of what `validate` lets in and `journal`, `live` and `store`
hand on. Place: after `errors`. Pure values, no behaviour beyond views and a mark's `advance`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from sys import getsizeof
from typing import NamedTuple

from device_sdk.columns import Batch, Column
from device_sdk.reading import INT_MAX, Value, ValueType
from device_sdk.wire import CHAIN_BYTES, CHAIN_START, CHAINS_KEPT, Rejection
from hub.description import NO_CHANNEL_DESCRIPTION, ChannelDescription, Scaling

# A reading is late when it is older by more than this than the newest of its series that came in earlier frames.
# Not zero: threads of a device may swap two readings, and a clock that is being set steps back by milliseconds.
LATE_TOLERANCE_NS = 10_000_000
# How the name of an import's stream begins. Devices name theirs with 16 hex digits alone, so none can be taken for one.
IMPORT_PREFIX = "import-"
# The stream of each device on which the hub itself numbers what came without a number (`hub.foreign`).
FOREIGN_STREAM = "foreign"
# What a decoded frame takes in memory beside its body, by tracemalloc (`tests/hub/live/test_ring.py`):
# the object and its numbers; a column's objects and lists; a reading's value, time and two list slots.
_FRAME_BYTES, _COLUMN_BYTES, _READING_BYTES = 590, 200, 72
# A refused reading that is named, beside the name of its channel.
_REJECTION_BYTES = 96
# Looked up once: through the enum it takes 80 ns (CPython 3.11), as long as the rest of measuring a small frame.
_STR = ValueType.STR
# A switch or a text has no scale.
_UNSCALED = (ValueType.BOOL, ValueType.STR)
_CHAINS_BYTES = CHAINS_KEPT * CHAIN_BYTES


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


class Effective(NamedTuple):
    """What holds of a channel; fields as those of `ChannelDescription`."""

    label: str | None
    unit: str | None
    decimals: int | None
    low: float | None
    high: float | None
    kind: str | None
    scale: float | None
    offset: float | None
    every_s: float | None


@dataclass(slots=True)
class Series:
    """One time series and what its device declared of it. ``id`` is hub-wide and never reused.

    ``described``: what a person set, which wins; `hub.metadata` owns it, the registry puts it here.
    """

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
    described: ChannelDescription = NO_CHANNEL_DESCRIPTION

    @property
    def scaling(self) -> Scaling | None:
        """Return what readings go through before they are shown; None: as they are stored."""
        scaling = self.described.scaling
        return None if scaling is None or self.type in _UNSCALED else scaling

    @property
    def interval_s(self) -> float | None:
        """Return the seconds between readings that a person set, else those that the device declared."""
        return self.every_s if self.described.every_s is None else self.described.every_s

    @property
    def shown_type(self) -> ValueType | None:
        """Return the type of the values shown: scaled integers are floats."""
        return self.type if self.scaling is None else ValueType.FLOAT

    @property
    def range_shown(self) -> tuple[float | None, float | None]:
        """Return the normal range of what is shown; a declared one is of stored values and is scaled with them."""
        of, low, high = self.described, self.low, self.high
        if of is NO_CHANNEL_DESCRIPTION:
            return low, high
        scaling = self.scaling
        if scaling is not None and low is not None and high is not None:
            low, high = sorted((scaling.value(low), scaling.value(high)))
        return low if of.low is None else of.low, high if of.high is None else of.high

    def effective(self) -> Effective:
        """Return what holds: what a person set, else what the device declared."""
        of = self.described
        if of is NO_CHANNEL_DESCRIPTION:
            # Nearly all of a large fleet: a listing of 3,000 devices takes a third less time on the event loop.
            return Effective(self.label, self.unit, None, self.low, self.high, None, None, None, self.every_s)
        is_scaled = self.scaling is not None
        low, high = self.range_shown
        return Effective(
            self.label if of.label is None else of.label,
            self.unit if of.unit is None else of.unit,
            of.decimals,
            low,
            high,
            of.kind,
            of.scale if is_scaled else None,
            of.offset if is_scaled else None,
            self.interval_s,
        )


class StreamKey(NamedTuple):
    """The identity of a stream; ``stream``: 16 hex digits, of an import `IMPORT_PREFIX` and 32, or `FOREIGN_STREAM`."""

    namespace: str
    device: str
    stream: str

    @property
    def is_import(self) -> bool:
        """Whether it carries history from a file, which no device sends now."""
        return self.stream.startswith(IMPORT_PREFIX)


@dataclass(frozen=True, slots=True)
class SeriesColumn:
    """A validated column of a known series: ``values[i]`` at ``t0 + dt[i] * tick`` of its frame."""

    series: Series
    column: Column


class Draft(NamedTuple):
    """What of a frame waits for a hook: the batch as the device sent it, and the chain before it."""

    batch: Batch
    before: bytes


class Replayed(NamedTuple):
    """The quarantined frame whose readings a frame of the hub's own stream carries.

    ``offset`` of it, the ``stream`` it came on, the ``readings`` it was refused with, and when
    it was replayed (wall time). ``device``: that of the stream, where it is another one than that of the readings.
    """

    offset: int
    stream: str
    readings: int
    time_ns: int
    device: str = ""


class Posted(NamedTuple):
    """Part of a request that names itself, so that it is stored once however often it is sent (`hub.journal.posted`).

    ``key``: who sends it and its name for it, as a digest; ``part``: from 0; ``body``: a digest of the request as far
    as this part goes.
    """

    key: bytes
    part: int
    body: bytes


@dataclass(slots=True)
class Frame:
    """One accepted, numbered frame on its way through the hub.

    ``offset`` is 0 until the journal has committed it. ``body`` is the trusted
    body: the bytes as received when every reading was accepted, else the
    accepted readings encoded again; for a gap the gap's JSON; for a quarantined
    frame the raw bytes. ``chain`` is chain(seq) over the bytes *as received*.
    ``readings`` counts the accepted readings; ``dropped`` what a gap declares
    (0 when unknown). ``replayed`` is set until the commit, on the hub's own
    stream only, and so is ``posted``, on foreign ones. ``draft`` is set until the hooks have answered; body and
    columns are not what is stored before. ``late``: (index of a column, instant before which its
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
    posted: Posted | None = None
    late: tuple[tuple[int, int], ...] = ()
    draft: Draft | None = None
    _memory_bytes: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def memory_bytes(self) -> int:
        """Return about how much memory the decoded frame takes: what queues and rings are bounded by.

        Measured when it is first asked for, and the same until `forget_rejected`: a queue takes off what it added.
        """
        if not self._memory_bytes:
            self._memory_bytes = self._measure()
        return self._memory_bytes

    def forget_rejected(self) -> None:
        """Let go of the names of what was refused; the frame is lighter from then on, and must be in no queue."""
        self.rejected, self._memory_bytes = (), 0

    def _measure(self) -> int:
        size = _FRAME_BYTES + len(self.body) + _COLUMN_BYTES * len(self.columns) + _READING_BYTES * self.readings
        for column in self.columns:
            if column.series.type is _STR:
                size += sum(map(getsizeof, column.column.values))
        if self.rejected:
            names = {rejection.channel for rejection in self.rejected}
            size += _REJECTION_BYTES * len(self.rejected) + sum(map(getsizeof, names))
        return size

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

    ``chains``: those of …, ``stored`` - 1, ``stored``, joined; `CHAINS_KEPT` at most, chain(0) while it is among them.
    One string, because a dictionary of them takes 10 KiB a stream. ``produced = accepted + rejected + dropped`` for
    frames up to ``stored``.
    """

    key: StreamKey
    stored: int = 0
    chains: bytes = CHAIN_START
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    quarantined: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def last_chain(self) -> bytes:
        """Return chain(``stored``)."""
        return self.chains[-CHAIN_BYTES:]

    def chain(self, seq: int) -> bytes | None:
        """Return chain(seq), None when it is not among those kept."""
        begin = len(self.chains) - (self.stored - seq + 1) * CHAIN_BYTES
        return self.chains[begin : begin + CHAIN_BYTES] if seq <= self.stored and begin >= 0 else None

    def advance(self, frame: Frame) -> None:
        """Take the stream's next frame, which is stored: the rule that journal and memory share."""
        self.stored = frame.seq
        self.chains = (self.chains + frame.chain)[-_CHAINS_BYTES:]
        self.accepted += frame.readings
        # A gap's count is chosen by a peer: two of 2**62 must not outgrow a column, nor what REST can say.
        self.rejected = min(self.rejected + frame.rejected_count, INT_MAX)
        self.dropped = min(self.dropped + frame.dropped, INT_MAX)
        self.quarantined += frame.kind is Kind.QUARANTINE
        self.first_ns = self.first_ns or frame.received_ns
        self.last_ns = frame.received_ns
