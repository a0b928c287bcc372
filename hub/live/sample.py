"""Every n-th reading of each series: mode ``sample``.

Owns: which readings those are, and the room that sends them. Place: after `room`, before `rooms`. Pure.

A reading is chosen by what its frame carries for ever, never by a count that somebody keeps: so it is the same one for
every watcher, for one who comes back with a cursor, and after a restart. Its number is ``seq * k + i``: the i-th of the
k that its column has in frame ``seq`` of its stream. A device that sends each channel in each frame numbers its
readings one by one, and of these every n-th is chosen. A channel that is only in every second frame would be chosen
always or never; therefore which of n it is changes after each `RUN` chosen ones.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from device_sdk.columns import Column
from hub.live.encode import Message, encode_frames
from hub.live.room import LosslessRoom
from hub.model import Frame, SeriesColumn

# So many chosen readings of a steady series are evenly apart; a channel in every k-th frame is silent or whole for as
# many at most.
RUN = 16
_MASK = 2**64 - 1


class SampleRoom(LosslessRoom):
    """One of ``every`` readings of each series, in order, by the cursors of a lossless room."""

    def _messages(self, frames: Sequence[Frame], upto: int) -> list[Message]:
        chosen = [picked for frame in frames if (picked := sampled(frame, self.members, self.key.every)) is not None]
        return encode_frames(chosen, self.members, upto, self._sources.runs.cursor)


def sampled(frame: Frame, members: Collection[int], every: int) -> Frame | None:
    """Return the frame with the chosen readings of members alone; None when there are none."""
    columns: list[SeriesColumn] = []
    late: list[tuple[int, int]] = []
    for at, of in enumerate(frame.columns):
        if of.series.id not in members:
            continue
        picked = chosen(of.series.id, frame.seq, len(of.column.values), every)
        if not picked:
            continue
        late += [(len(columns), before_ns) for index, before_ns in frame.late if index == at]
        dt, values = of.column.dt, of.column.values
        column = Column(of.column.channel, [dt[k] for k in picked], [values[k] for k in picked])
        columns.append(SeriesColumn(of.series, column))
    return replace(frame, columns=tuple(columns), late=tuple(late)) if columns else None


def chosen(series: int, seq: int, count: int, every: int) -> Sequence[int]:
    """Return which of the ``count`` readings that frame ``seq`` has of a series are chosen, ascending."""
    first, span = seq * count, every * RUN
    run = first // span
    if first + count <= (run + 1) * span:
        # Nearly every frame lies within one run.
        return range((_place(series, run) - first) % every, count, every)
    out: list[int] = []
    at = 0
    while at < count:
        run = (first + at) // span
        end = min(count, (run + 1) * span - first)
        out += range(at + (_place(series, run) - first - at) % every, end, every)
        at = end
    return out


@lru_cache(maxsize=4096)
def _place(series: int, run: int) -> int:
    """Return a number that looks drawn (the finalizer of SplitMix64), equal in every process."""
    x = (series * 0x9E3779B97F4A7C15 + run * 0xD1B54A32D192ED03) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
