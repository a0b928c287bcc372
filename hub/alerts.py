"""Values beyond the limits that people set, as entries of ``$sys/alerts``: raised once, cleared once, over kills.

Owns: which series have limits, which of them are beyond now, up to which offset of the journal that was decided. Place:
above `event_log` and `store.consumer`, whose thread brings the frames here as to a store. Must not: be on the way of
readings (where nobody set a limit nothing runs), or make the journal keep frames for it.

Theory of operation. An alert is raised by the first reading beyond ``low`` or ``high`` and cleared by the first that is
back inside by ``hysteresis``. Decided over the journal in its order, so what is decided depends on nothing else; the
entries, which series are beyond, and the offset are one transaction. Frames behind that offset are decided again after
a kill, from the same states, and nothing was told of them. Late readings say how it was, not how it is: they decide
nothing.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from device_sdk.reading import INT_MAX, Value
from hub.description import Scaling
from hub.errors import UnavailableError
from hub.event_log import Event, EventLog, Note
from hub.journal.base import Journal, JournalStatistics
from hub.model import Frame, Series, SeriesColumn
from hub.store.base import StoreStatistics
from hub.store.consumer import StoreConsumer
from hub.system_entry import as_value

_log = logging.getLogger("hub.alerts")

ALERTS = "alerts"
# Of a series in one write: what a spike in a backlog needs. Beyond it the last one says how many there were.
PER_WRITE = 10
# Frames that wait here: they are in the ring as well, and beyond it they are read from the journal.
_QUEUE_BYTES = 16 * 1024 * 1024
_OFFSET = Note("", "offset", 0)

Key = tuple[str, str, str]


class Limits(NamedTuple):
    """Limits of what is shown of a series, and its name."""

    key: Key
    low: float | None
    high: float | None
    hysteresis: float
    scaling: Scaling | None

    def beyond(self, value: float) -> tuple[str, float] | None:
        """Return on which side a value is beyond which limit, None when it is inside."""
        if self.high is not None and value > self.high:
            return "above", self.high
        if self.low is not None and value < self.low:
            return "below", self.low
        return None

    def is_back(self, value: float) -> bool:
        """Return whether a value is inside by the hysteresis."""
        within = self.hysteresis
        return (self.low is None or value >= self.low + within) and (self.high is None or value <= self.high - within)


class Change(NamedTuple):
    """An alert that was raised or cleared by a reading; ``changes``: how often, where those between are not told."""

    limits: Limits
    is_raised: bool
    time_ns: int
    value: float
    changes: int = 1


def limits_of(series: Series) -> Limits | None:
    """Return the limits that a person set of a series of numbers."""
    low, high = series.described.low, series.described.high
    if low is None and high is None:
        return None
    # Else a range that is narrower would never be inside again.
    most = (high - low) / 4 if low is not None and high is not None else float("inf")
    within = min(series.described.hysteresis or 0.0, most)
    return Limits((series.namespace, series.device, series.channel), low, high, within, series.scaling)


class AlertTeller:
    """Tells of alerts. A store, as far as a `StoreConsumer` knows: its thread calls `write` and `sync`.

    Args:
        log: takes entries and notes.
        journal: what is decided over.
    """

    def __init__(self, log: EventLog, journal: Journal) -> None:
        self._log = log
        self._journal = _Unheld(journal)
        self._limits: dict[int, Limits] = {}
        self._raised: dict[Key, int] = {}
        self._applied = self._durable = 0
        # Their limits are no more: what of them is raised ends with the next frame of anybody.
        self._ended: set[Key] = set()
        self._consumer: StoreConsumer | None = None
        self._is_over = False

    def begin(self, series: Iterable[Series]) -> None:
        """Go on where the last run was, if there is anything to decide; before any frame comes."""
        notes = self._log.notes(ALERTS)
        offset = notes.pop(_OFFSET[:2], None)
        self._raised = {(namespace, *json.loads(name)): since_ns for (namespace, name), since_ns in notes.items()}
        self._limits = {s.id: limits for s in series if (limits := limits_of(s)) is not None}
        self._ended = self._raised.keys() - {limits.key for limits in self._limits.values()}
        self._applied = self._journal.head if offset is None else min(offset, self._journal.head)
        if self._limits or self._raised:
            self._start(offset)
        elif offset is not None:
            # Who sets limits next means what comes then. A file that takes nothing is asked at the next start again.
            with suppress(UnavailableError):
                self._log.write(ALERTS, (), [_OFFSET._replace(value=None)])

    def describe(self, series: Iterable[Series]) -> None:
        """Take what people now say of these series; on the loop."""
        for known in series:
            limits = limits_of(known)
            if limits is not None:
                self._limits[known.id] = limits
                self._ended.discard(limits.key)
            elif (old := self._limits.pop(known.id, None)) is not None:
                self._ended.add(old.key)
        if self._limits and self._consumer is None and not self._is_over:
            self._applied = self._journal.head
            self._start(None)

    def committed(self, frames: Sequence[Frame]) -> None:
        """Take committed frames, where somebody set limits; on the loop."""
        if self._consumer is not None:
            self._consumer.wake(frames)

    def stop(self) -> None:
        """Decide no more, whatever limits are set now; the journal keeps the rest. Blocks; safe to call twice."""
        self._is_over = True
        if self._consumer is not None:
            self._consumer.stop()

    # --- as a store -------------------------------------------------------------------------------------

    @property
    def applied(self) -> int:
        """The offset of the last frame that was decided."""
        return self._applied

    def write(self, frames: Sequence[Frame]) -> None:
        """Decide over frames; raises as `EventLog.write`, and then nothing was decided."""
        raised, changes = dict(self._raised), dict[Key, list[Change]]()
        for frame in frames:
            if frame.offset > self._applied:
                for limits, column, before_ns in self._watched(frame):
                    if limits.key not in raised and _are_inside(limits, column.column.values):
                        continue
                    _decide(limits, _readings(frame, column, before_ns), raised, changes)
        ended = list(self._ended)
        events = [_event(change) for of in changes.values() for change in _merged(of)]
        events += [_end_event(key, raised.pop(key), frames[-1].received_ns) for key in ended if key in raised]
        last = frames[-1].offset
        if events:
            moved = {*changes, *ended}
            notes = [Note(key[0], json.dumps(key[1:], ensure_ascii=False), raised.get(key)) for key in moved]
            events.sort(key=lambda event: event.time_ns)
            self._log.write(ALERTS, events, [*notes, _OFFSET._replace(value=last)])
            self._durable = last
        self._raised, self._applied = raised, last
        self._ended.difference_update(ended)

    def sync(self) -> int:
        """Note how far it is, so that the next start has little to decide again."""
        if self._durable != self._applied:
            self._log.write(ALERTS, (), [_OFFSET._replace(value=self._applied)])
            self._durable = self._applied
        return self._durable

    def rewind(self, offset: int) -> None:
        """Go on from there: the journal was restored from an older copy."""
        self._applied, self._durable = offset, -1

    def statistics(self) -> StoreStatistics:
        """Return how far it is."""
        return StoreStatistics(self._applied, 0, 0)

    # --- inside -----------------------------------------------------------------------------------------

    def _start(self, noted: int | None) -> None:
        self._durable = -1 if noted is None else noted
        try:
            # Before anything is decided: a kill must not make the next start begin at its own head.
            self.sync()
        except UnavailableError as error:
            _log.error("alerts have no place to go on from after a kill, for some seconds: %s", error)
        self._consume()

    def _consume(self) -> None:
        self._consumer = StoreConsumer(self, self._journal, name=ALERTS, max_queue_bytes=_QUEUE_BYTES)
        self._consumer.start()

    def _watched(self, frame: Frame) -> Iterator[tuple[Limits, SeriesColumn, int]]:
        """Yield the columns of a frame whose series have limits, and the instant before which they are late."""
        late = dict(frame.late)
        for at, column in enumerate(frame.columns):
            limits = self._limits.get(column.series.id)
            if limits is not None and late.get(at, 0) != INT_MAX:
                yield limits, column, late.get(at, 0)


class _Unheld:
    """A journal that keeps nothing for who reads it: alerts must not fill a disk. Checkpoints end here."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._checkpoint = 0

    @property
    def head(self) -> int:
        return self._journal.head

    def read(self, after: int, max_bytes: int, upto: int | None = None) -> list[Frame]:
        return self._journal.read(after, max_bytes, upto)

    def statistics(self) -> JournalStatistics:
        return self._journal.statistics()

    def checkpoint(self, consumer: str) -> int:
        return self._checkpoint

    def set_checkpoint(self, consumer: str, offset: int) -> None:
        self._checkpoint = offset


def _readings(frame: Frame, series_column: SeriesColumn, before_ns: int) -> Iterator[tuple[int, Value]]:
    t0, tick, column = frame.t0, frame.tick, series_column.column
    for dt, value in zip(column.dt, column.values, strict=True):
        time_ns = t0 + dt * tick
        if time_ns >= before_ns:
            yield time_ns, value


def _are_inside(limits: Limits, values: Sequence[Value]) -> bool:
    """Return whether no value is beyond: nearly always, at a fifth of the cost. Values of a column have one type."""
    if isinstance(values[0], str | bool):
        return True
    ends = min(values), max(values)
    shown = ends if limits.scaling is None else limits.scaling.values(ends)
    return all(limits.beyond(value) is None for value in shown)  # type: ignore[arg-type]


def _decide(
    limits: Limits, readings: Iterable[tuple[int, Value]], raised: dict[Key, int], changes: dict[Key, list[Change]]
) -> None:
    """Take readings of a series in order: what is raised is changed in place, and each change noted."""
    key, scaling = limits.key, limits.scaling
    is_raised = key in raised
    for time_ns, stored in readings:
        if isinstance(stored, str | bool):
            continue
        value = stored if scaling is None else scaling.value(stored)
        if is_raised == (not limits.is_back(value) if is_raised else limits.beyond(value) is not None):
            continue
        is_raised = not is_raised
        if is_raised:
            raised[key] = time_ns
        else:
            del raised[key]
        changes.setdefault(key, []).append(Change(limits, is_raised, time_ns, value))


def _merged(changes: Sequence[Change]) -> Sequence[Change]:
    """Return the first changes, and the last for those that are too many."""
    if len(changes) <= PER_WRITE:
        return changes
    return [*changes[: PER_WRITE - 1], changes[-1]._replace(changes=len(changes) - PER_WRITE + 1)]


def _event(change: Change) -> Event:
    side, limit = change.limits.beyond(change.value) or ("", None)
    return _told(
        change.limits.key, "raised" if change.is_raised else "cleared", change.time_ns,
        value=change.value, side=side, limit=limit, changes=change.changes,
    )  # fmt: skip


def _end_event(key: Key, since_ns: int, now_ns: int) -> Event:
    """Return the entry of an alert whose limits are no more."""
    return _told(key, "unset", max(now_ns, since_ns), value=None, side="", limit=None, changes=1)


def _told(key: Key, state: str, time_ns: int, **more: object) -> Event:
    namespace, device, channel = key
    return Event(namespace, time_ns, as_value({"device": device, "channel": channel, "state": state, **more}))
