"""Least, greatest and newest of each series between two messages: mode ``latest`` with ``agg:"minmax"``.

Owns: what is kept of the readings between two messages, and the room that sends it. Place: after `room`, before
`rooms`. Pure.

Nothing is guessed: every reading is looked at when its frame is committed, and a listener that fell behind reads the
ring and the journal, one message a page. Three readings a series are kept, however many came.
"""

from collections.abc import Iterator, Mapping, Sequence

from device_sdk.reading import Value
from hub.live.encode import Extreme, Message, encode_extremes, scaled
from hub.live.room import Chunk, PagedRoom, RoomKey, Sources
from hub.model import Frame, Series, SeriesColumn

# (time_ns, value as it is stored)
_Reading = tuple[int, Value]
_NONE_LATE: dict[int, int] = {}


class Extremes:
    """The least, the greatest and the newest reading of each series, of all that were added. Late ones do not count."""

    def __init__(self) -> None:
        self.seen = 0
        self._kept: dict[int, tuple[_Reading, _Reading, _Reading]] = {}

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, frames: Sequence[Frame], members: Mapping[int, Series]) -> None:
        """Look at the readings of members."""
        for frame in frames:
            late = dict(frame.late) if frame.late else _NONE_LATE
            for at, column in enumerate(frame.columns):
                if column.series.id in members:
                    self._add(frame, column, late.get(at))

    def rows(self, members: Mapping[int, Series]) -> Iterator[Extreme]:
        """Yield up to three rows a series, by time, with values as they are shown; the newest is the last of them."""
        for number, (least, greatest, newest) in self._kept.items():
            series = members.get(number)
            if series is None:
                # It was a member when the reading came.
                continue
            if least[1] == greatest[1]:
                yield number, newest[0], scaled(series, (newest[1],))[0], False, False
                continue
            scaling = series.scaling
            if scaling is not None and scaling.scale < 0:
                least, greatest = greatest, least
            for reading in sorted({least, greatest, newest}, key=lambda r: (r[0], r == newest)):
                value = scaled(series, (reading[1],))[0]
                yield number, reading[0], value, reading == least, reading == greatest

    def clear(self) -> None:
        """Begin anew."""
        self._kept.clear()
        self.seen = 0

    def _add(self, frame: Frame, series_column: SeriesColumn, late_before_ns: int | None) -> None:
        t0, tick, number = frame.t0, frame.tick, series_column.series.id
        times: Sequence[int] = series_column.column.dt
        values: Sequence[Value] = series_column.column.values
        self.seen += len(values)
        if late_before_ns is not None:
            kept = [at for at, dt in enumerate(times) if t0 + dt * tick >= late_before_ns]
            if not kept:
                return
            times, values = [times[at] for at in kept], [values[at] for at in kept]
        if len(times) == 1:
            newest = least = greatest = (t0 + times[0] * tick, values[0])
        else:
            newest, least, greatest = _kept_of(t0, tick, times, values)
        known = self._kept.get(number)
        if known is not None:
            newest = newest if newest[0] >= known[2][0] else known[2]
            if isinstance(newest[1], str):
                least = greatest = newest
            else:
                # The values of a series are all texts or all numbers.
                least = least if least[1] < known[0][1] else known[0]  # type: ignore[operator]
                greatest = greatest if greatest[1] > known[1][1] else known[1]  # type: ignore[operator]
        self._kept[number] = (least, greatest, newest)


class ExtremesRoom(PagedRoom):
    """At most ``max_hz`` times a second: what `Extremes` keeps of the readings since the message before.

    ``head`` is behind the last message; what came since is looked at, kept, and due. One who enters meanwhile is told
    of that while as a whole, also of what came of it before.
    """

    def __init__(self, number: int, key: RoomKey, sources: Sources) -> None:
        super().__init__(number, key, sources)
        assert key.max_hz is not None, "this room has a rate"
        self._interval_s = 1 / key.max_hz
        self._next_at = 0.0
        self._scanned = self.head
        self._extremes = Extremes()

    def advance(self, now: float) -> None:
        """Look at what came; write it when the rate allows, else set ``due``."""
        self._announce_new()
        frames = self._sources.ring.after(self._scanned, 2**62, self._sources.ring.head)
        self._scanned = self._sources.ring.head
        if frames is None:
            # More arrived within one tick than the ring holds: they read it from the journal instead.
            self._drop_all()
        elif self.live:
            self._extremes.add(frames, self.members)
        self.due = None
        if not self.live or not self._extremes:
            self._extremes.clear()
            self.head = self._scanned
        elif now < self._next_at:
            self.due = self._next_at
        else:
            self._send(now)

    def _send(self, now: float) -> None:
        rows = list(self._extremes.rows(self.members))
        self.conflated += self._extremes.seen - len(rows)
        self._extremes.clear()
        messages = encode_extremes(rows, self._sources.runs.cursor(self._scanned))
        self._next_at = now + self._interval_s
        self._deliver(Chunk(self.head, self._scanned, messages))

    def _messages(self, frames: Sequence[Frame], upto: int) -> list[Message]:
        extremes = Extremes()
        extremes.add(frames, self.members)
        return encode_extremes(extremes.rows(self.members), self._sources.runs.cursor(upto))


def _kept_of(t0: int, tick: int, times: Sequence[int], values: Sequence[Value]) -> tuple[_Reading, _Reading, _Reading]:
    """Return the newest, the least and the greatest reading of a column."""
    last = len(times) - 1
    # Times ascend in nearly every frame. Of two at the same time the one that came last holds, as in the store.
    at = last if times[last] == max(times) else max(range(len(times)), key=lambda k: (times[k], k))
    newest = (t0 + times[at] * tick, values[at])
    if isinstance(values[0], str):
        return newest, newest, newest
    least, greatest = (values.index(of(values)) for of in (min, max))
    return newest, (t0 + times[least] * tick, values[least]), (t0 + times[greatest] * tick, values[greatest])
