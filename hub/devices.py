"""The registry: which devices and channels exist, their newest values, their presence.

Owns: the in-memory truth of series (ids, types, units), latest values by
event time, and presence. Place: after `model`. Lives on the event loop; what
must survive is committed by the journal together with the next frames.
Pure: the time is passed in.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from device_sdk.columns import Column
from device_sdk.reading import INT_MAX, Channel, Value, ValueType, is_channel_name
from device_sdk.wire import MAX_CHANNELS
from hub.description import NO_CHANNEL_DESCRIPTION, ChannelDescription
from hub.model import LATE_TOLERANCE_NS, Frame, Series, SeriesKey

# Before a device declared or showed its interval, this is assumed.
DEFAULT_INTERVAL_S = 10.0
# Readings may be this many intervals late before the device counts as stale.
STALE_INTERVALS = 3
MIN_STALE_S = 5.0
# A device that is not connected, nor its gateway, and silent for this long (and 10 intervals) is offline.
OFFLINE_S = 60.0
# One whose gateway is connected after this: sensors that only tell changes are heard at least daily (25 hours are what
# Zigbee2MQTT waits for a device with a battery before it calls it offline).
CARRIED_OFFLINE_S = 25 * 3600.0
_RATE_WINDOW_S = 10.0
# A device's clock that differs more from the hub's is flagged; less may be the way of its hello through a slow network.
SKEW_FLAG_S = 2.0


class Presence(StrEnum):
    """What the page says of a device."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


@dataclass(slots=True)
class Latest:
    """The newest reading of a series by event time, and the offset of the frame that brought it."""

    time_ns: int
    value: Value
    offset: int


@dataclass(slots=True, weakref_slot=True)
class Carrier:
    """A gateway, by which devices speak that have no connection themselves; ``connections``: of the gateway, now."""

    connections: int = 0


@dataclass(slots=True)
class DeviceState:
    """One device as the hub sees it now.

    ``carrier``: the gateway by which it has spoken last in messages of others' making, unless that said it has gone.
    ``late`` readings are counted since the hub started. ``skew_ns``: its wall clock minus the hub's at its last hello
    (None: it did not say); times are never corrected by it.
    """

    namespace: str
    name: str
    channels: dict[str, Series] = field(default_factory=dict)
    connections: int = 0
    carrier: Carrier | None = None
    last_received_ns: int = 0
    last_time_ns: int = 0
    interval_s: float | None = None
    rate_hz: float = 0.0
    late: int = 0
    skew_ns: int | None = None
    # When the log last named something that it sent wrong, and how often it was left out since.
    warned_ns: int = 0
    unwarned: int = 0

    @property
    def is_skewed(self) -> bool:
        """Whether its clock is so wrong that its times should not be trusted."""
        return self.skew_ns is not None and abs(self.skew_ns) > SKEW_FLAG_S * 1e9

    def expected_interval_s(self) -> float:
        """Return the shortest interval that a person set or the device declared, else the learnt one, the default."""
        told = [every_s for s in self.channels.values() if (every_s := s.interval_s) is not None]
        return min(told) if told else self.interval_s or DEFAULT_INTERVAL_S

    def arrived(self) -> None:
        """Note a connection of its own; whoever carried it before does so no more."""
        self.connections += 1
        self.carrier = None

    def presence(self, now_ns: int) -> Presence:
        """Return the state at ``now_ns``; an hourly device is not stale after ten seconds."""
        is_carried = self.carrier is not None and self.carrier.connections > 0
        if self.last_received_ns == 0:
            return Presence.STALE if self.connections or is_carried else Presence.OFFLINE
        silent_s = (now_ns - self.last_received_ns) / 1e9
        interval_s = self.expected_interval_s()
        if silent_s <= max(STALE_INTERVALS * interval_s, MIN_STALE_S):
            return Presence.ONLINE
        if self.connections or silent_s <= max(10 * interval_s, CARRIED_OFFLINE_S if is_carried else OFFLINE_S):
            return Presence.STALE
        return Presence.OFFLINE

    def heard(self, received_ns: int, readings: int, newest_ns: int) -> None:
        """Count one frame: learn the interval and the rate from receive times."""
        if self.last_received_ns:
            gap_s = max((received_ns - self.last_received_ns) / 1e9, 0.0)
            keep = 0.5 ** (gap_s / _RATE_WINDOW_S)
            self.rate_hz = self.rate_hz * keep + readings * (1 - keep) / max(gap_s, 1e-3)
            self.interval_s = gap_s if self.interval_s is None else self.interval_s * 0.9 + gap_s * 0.1
        self.last_received_ns = max(self.last_received_ns, received_ns)
        self.last_time_ns = max(self.last_time_ns, newest_ns)


class Registry:
    """All series, devices and latest values of one hub.

    Args:
        series: those known so far.
        ids_from: the least id of a new one.
        described: what a person set of a series, asked for when it enters and when `describe` names it.
    """

    def __init__(
        self,
        series: Iterable[Series],
        *,
        ids_from: int = 1,
        described: Callable[[SeriesKey], ChannelDescription] = lambda _: NO_CHANNEL_DESCRIPTION,
    ) -> None:
        self._described = described
        self.by_key: dict[SeriesKey, Series] = {}
        self.by_id: dict[int, Series] = {}
        self.devices: dict[tuple[str, str], DeviceState] = {}
        self.latest: dict[int, Latest] = {}
        # Newest time of each series on its way to the journal: what a reading is late against.
        self._arriving: dict[int, int] = {}
        # Above every id the store has rows of, or a journal restored from an older copy would give them out again.
        self._next_id = ids_from
        self._changed: dict[int, Series] = {}
        for known in series:
            self._enter(known)

    def device(self, namespace: str, name: str) -> DeviceState:
        """Return the device's state, made on first use."""
        state = self.devices.get((namespace, name))
        if state is None:
            state = self.devices[(namespace, name)] = DeviceState(namespace, name)
        return state

    def declare(self, namespace: str, device: str, channels: Sequence[Channel]) -> list[str]:
        """Add or update channels; return the names refused (bad name, or over the limit of 200)."""
        state, refused = self.device(namespace, device), []
        for channel in channels:
            known = state.channels.get(channel.name)
            if known is None:
                if len(state.channels) >= MAX_CHANNELS or not is_channel_name(channel.name):
                    refused.append(channel.name)
                    continue
                known = Series(self._next_id, namespace, device, channel.name, channel.type)
                self._enter(known)
                self._changed[known.id] = known
            if _update(known, channel):
                self._changed[known.id] = known
        return refused

    def changed(self, series: Series) -> None:
        """Note that a series must be written again with the next commit."""
        self._changed[series.id] = series

    def describe(self, keys: Iterable[SeriesKey]) -> list[Series]:
        """Take what a person now says of these series; return those that there are."""
        found = [series for key in keys if (series := self.by_key.get(key)) is not None]
        for series in found:
            series.described = self._described(SeriesKey(series.namespace, series.device, series.channel))
        return found

    def series_of(self, subjects: Iterable[SeriesKey]) -> list[Series]:
        """Return all series of those subjects that are devices: keys without a channel."""
        devices = (self.devices.get((key.namespace, key.device)) for key in subjects if not key.channel)
        return [series for state in devices if state is not None for series in state.channels.values()]

    def has(self, namespace: str, device: str, channel: str = "") -> bool:
        """Say whether there is a channel of a device, or any; asking makes none."""
        state = self.devices.get((namespace, device))
        return state is not None and (channel in state.channels if channel else bool(state.channels))

    def take_changes(self) -> list[Series]:
        """Return and forget the series that the next commit must carry."""
        changes = list(self._changed.values())
        self._changed.clear()
        return changes

    def load_latest(self, series_id: int, time_ns: int, value: Value) -> None:
        """Set a latest value read from the store at start."""
        series = self.by_id.get(series_id)
        if series is not None:
            self.latest[series_id] = Latest(time_ns, value, 0)
            state = self.device(series.namespace, series.device)
            state.last_time_ns = max(state.last_time_ns, time_ns)

    def mark_late(self, frames: Sequence[Frame]) -> None:
        """Mark the late readings of frames on their way to the journal; call in the order of their offsets.

        All of an import are: it is history, whatever was known of the series before.
        """
        for frame in frames:
            late = []
            for at, series_column in enumerate(frame.columns):
                series, times = series_column.series.id, series_column.column.dt
                newest = self._newest_arriving(series)
                last_ns = frame.t0 + max(times) * frame.tick
                if frame.key.is_import:
                    late.append((at, INT_MAX))
                elif newest is not None:
                    before_ns = newest - LATE_TOLERANCE_NS
                    if frame.t0 + min(times) * frame.tick < before_ns:
                        late.append((at, before_ns))
                if newest is None or last_ns > newest:
                    self._arriving[series] = last_ns
            if late:
                frame.late = tuple(late)

    def forget_arriving(self) -> None:
        """Take `mark_late` back for frames that were not stored: none on their way was; they come again."""
        self._arriving.clear()

    def apply(self, frames: Sequence[Frame]) -> None:
        """Take committed frames: newest values by event time, presence, rates."""
        for frame in frames:
            newest = 0
            for series_column in frame.columns:
                newest = max(newest, self._newest(frame, series_column.series.id, series_column.column))
            if frame.columns:
                state = self.device(frame.key.namespace, frame.key.device)
                if frame.key.is_import:
                    # Nothing was heard of the device itself: neither its presence nor its clock.
                    state.last_time_ns = max(state.last_time_ns, newest)
                    continue
                state.heard(frame.received_ns, frame.readings, newest)
                state.late += late_count(frame) if frame.late else 0

    def is_alert(self, series: Series) -> bool:
        """Return whether the newest value, as it is shown, lies outside the range that holds."""
        latest = self.latest.get(series.id)
        if latest is None or isinstance(latest.value, str):
            return False
        scaling, (low, high) = series.scaling, series.range_shown
        value = latest.value if scaling is None else scaling.value(latest.value)
        return (low is not None and value < low) or (high is not None and value > high)

    def _newest_arriving(self, series_id: int) -> int | None:
        newest = self._arriving.get(series_id)
        if newest is None:
            known = self.latest.get(series_id)
            newest = None if known is None else known.time_ns
        return newest

    def _newest(self, frame: Frame, series_id: int, column: Column) -> int:
        times = column.dt
        last = len(times) - 1
        # Times ascend in nearly every frame; only then is the last the newest.
        top = times[last]
        at = last if last == 0 or max(times) == top else max(range(len(times)), key=times.__getitem__)
        time_ns = frame.t0 + times[at] * frame.tick
        known = self.latest.get(series_id)
        if known is None:
            self.latest[series_id] = Latest(time_ns, column.values[at], frame.offset)
        elif time_ns >= known.time_ns:
            known.time_ns, known.value, known.offset = time_ns, column.values[at], frame.offset
        return time_ns

    def _enter(self, series: Series) -> None:
        key = SeriesKey(series.namespace, series.device, series.channel)
        series.described = self._described(key)
        self.by_key[key] = series
        self.by_id[series.id] = series
        self._next_id = max(self._next_id, series.id + 1)
        self.device(series.namespace, series.device).channels[series.channel] = series


def _update(series: Series, channel: Channel) -> bool:
    """Take what the device now says; a type may only widen from int to float."""
    before = (series.type, series.unit, series.every_s, series.low, series.high, series.label)
    if series.type is None or (channel.type is ValueType.FLOAT and series.type is ValueType.INT):
        series.type = channel.type
    series.unit = channel.unit if channel.unit is not None else series.unit
    series.every_s = channel.every_s if channel.every_s is not None else series.every_s
    if channel.low is not None and channel.high is not None:
        series.low, series.high = channel.low, channel.high
    series.label = channel.label if channel.label is not None else series.label
    return before != (series.type, series.unit, series.every_s, series.low, series.high, series.label)


def late_count(frame: Frame) -> int:
    """Return how many readings of a frame are late."""
    t0, tick = frame.t0, frame.tick
    return sum(t0 + dt * tick < before_ns for at, before_ns in frame.late for dt in frame.columns[at].column.dt)


_NUMBERS = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``pump-2`` before ``pump-10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in _NUMBERS.split(name) if part]
