"""Time before the clock is set: instants on one line of uptime, and where that line lies in real time.

Owns: `UptimeLine`, one a spool. Place: before `outbox`, which keeps it among its
state and places readings when it cuts them. Pure: who knows a clock hands in what it reads.

Theory of operation. While the wall clock is not set (a board without a battery
starts in 1970), a reading is stamped with the nanoseconds since boot. The boots of a
machine follow each other on one line; a boot that never learns the time ends where
the next begins, so one shift moves all of them into real time:

    boot 7, never learnt    boot 8, never learnt    boot 9 learns the time
    |···············|·······················|·········⟂······ + offset = real time
                  estimated                  |  exact

The shift that a boot learnt stays its own: readings of it that are still un-numbered in
the next boot are placed by it (`Past`). An instant of the line is written as an int
beyond 64 bits, `UPTIME` + position, which no real time is; so it travels, compares
and grows like any other, and the reading's place on disk alone knows the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from device_sdk.frozen import Frozen

# Real times fit 64 bits; from here on an int is an instant on the line.
UPTIME = 1 << 64
# Earlier boots whose own shift is kept; 10 KB of state. Beyond that the oldest readings count as estimated.
MAX_PAST = 256

_Value = TypeVar("_Value")


class Past(Frozen):
    """Positions before ``end``, behind those of an older `Past`: plus ``offset`` real time, exact from ``base`` on."""

    end: int
    base: int
    offset: int


class UptimeLine:
    """Where the boots of one machine lie on their line, and by how much it is shifted from real time (ns).

    ``base``: this boot's zero. ``offset``: real time minus position, None until it is
    learnt. ``is_used``: instants of the line may be waiting. ``floor``: no position given
    from now on lies before it, because an earlier process of this boot gave what does.
    """

    def __init__(self) -> None:
        self.base = 0
        self.offset: int | None = None
        self.past: list[Past] = []
        self.is_used = False
        self.floor = 0

    def at(self, boot_ns: int) -> int:
        """Return this moment of the present boot: real time when it is known, else an instant of the line."""
        if self.offset is not None:
            return self.base + boot_ns + self.offset
        self.is_used = True
        return UPTIME + max(self.base + boot_ns, self.floor)

    def offset_at(self, wall_ns: int, boot_ns: int) -> int:
        """Return the shift that makes ``boot_ns`` of this boot the real time ``wall_ns``."""
        return wall_ns - self.base - boot_ns

    def place(self, instant: int) -> tuple[int, bool] | None:
        """Return the real time of an instant and whether it is exact; None while the time is not known."""
        if instant < UPTIME:
            return instant, True
        position = instant - UPTIME
        for past in self.past:
            if position < past.end:
                return position + past.offset, position >= past.base
        if self.offset is None:
            return None
        return position + self.offset, position >= self.base

    def place_run(self, readings: Iterable[tuple[str, int, _Value]]) -> tuple[list[tuple[str, int, _Value]], bool]:
        """Return readings from the front in real time, as many as are alike, and whether their times are estimated."""
        run: list[tuple[str, int, _Value]] = []
        is_exact = True
        for reading in readings:
            channel, instant, value = reading
            placed = (instant, True) if instant < UPTIME else self.place(instant)
            if placed is None or (placed[1] is not is_exact and run):
                break
            is_exact = placed[1]
            run.append(reading if placed[0] == instant else (channel, placed[0], value))
        return run, not is_exact

    def place_ranges(self, ranges: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Return each channel's first and last time in real time where it is known, else as it is."""
        placed = {}
        for channel, ends in ranges.items():
            low, high = (end if (at := self.place(end)) is None else at[0] for end in ends)
            # A time given by hand may have stood for the first or the last of both kinds.
            placed[channel] = (min(low, high), max(low, high))
        return placed

    def resume(self, last: int) -> None:
        """Go on in the boot of an earlier process; ``last``: position of its newest reading, -1 for none."""
        self.floor = last + 1
        self.is_used = last >= 0

    def begin_boot(self, last: int, *, is_empty: bool) -> None:
        """Begin a new boot behind ``last``, the newest position used so far (-1 for none).

        Args:
            is_empty: no reading waits for its place.
        """
        end = max(self.base, last + 1)
        if is_empty:
            self.past.clear()
        elif self.offset is not None and last >= (self.past[-1].end if self.past else 0):
            self.past.append(Past(end, self.base, self.offset))
            del self.past[:-MAX_PAST]
        self.base, self.offset = end, None
        self.is_used = last >= 0

    def to_object(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {"base": self.base, "offset": self.offset, "past": self.past}

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> UptimeLine:
        """Return the line that `to_object` wrote."""
        line = cls()
        line.base, line.offset = obj["base"], obj["offset"]
        line.past = [Past(*past) for past in obj["past"]]
        return line
