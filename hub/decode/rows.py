"""Readings of a format, each with the place where it stands, so that what is refused can be named.

Owns: `Rows`, what readers of formats give, and which values and times may stand in it. Place: after `base`, before
`line`, `senml` and `record`. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from device_sdk.errors import MisuseError, Reason
from device_sdk.reading import INT_MAX, INT_MIN, MAX_STRING_BYTES, Channel, Value, check_value
from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS
from hub.decode.base import DecodeError, ForeignReading, Said

# Of one document, or of a block of one that is read as it arrives: each is some microseconds, and 300 bytes until it is
# stored. As many as a frame may hold.
MAX_ROWS = 10_000
# Records between which whoever reads a document may hear others: some milliseconds of SenML.
STEP = 250


class Row(NamedTuple):
    """One reading; ``at``: the line or record, from 1. ``device`` None: the sender itself."""

    at: int
    device: str | None
    channel: str
    value: Value
    time_ns: int | None = None


class Fault(NamedTuple):
    """What is no reading: where it stands, a word and words for it."""

    at: int
    reason: str
    why: str


@dataclass(slots=True)
class Rows:
    """What was read; ``channels``: what was learnt of the channels of a device."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    channels: dict[tuple[str | None, str], Channel] = field(default_factory=dict)

    def add(self, at: int, device: str | None, channel: str, value: object, time_ns: int | None) -> None:
        """Take a reading, or note why it is none; null and NaN are neither.

        Raises:
            DecodeError: there are too many.
        """
        try:
            checked = check_value(channel, value)
        except MisuseError as error:
            self.fault(at, _reason(value), str(error))
            return
        if checked is None:
            if isinstance(value, float) and value == value:  # an infinite one; a NaN differs from itself
                self.fault(at, Reason.NOT_FINITE, f"{channel}: an infinite value")
            return
        if time_ns is not None and not MIN_TIME_NS <= time_ns < MAX_TIME_NS:
            self.fault(at, Reason.TIME_OUT_OF_RANGE, f"{channel}: its time is not between the years 2000 and 2100")
            return
        self._check_number()
        self.rows.append(Row(at, device, channel, checked, time_ns))

    def fault(self, at: int, reason: str, why: str) -> None:
        """Note what is no reading."""
        self._check_number()
        self.faults.append(Fault(at, str(reason), why))

    @property
    def count(self) -> int:
        """Return how many there are, good ones and bad ones."""
        return len(self.rows) + len(self.faults)

    def _check_number(self) -> None:
        if self.count >= MAX_ROWS:
            raise DecodeError(f"more than {MAX_ROWS} readings at once: send them in several parts")


class Part(NamedTuple):
    """What one device says in it; ``at[i]`` is where ``said.readings[i]`` stands."""

    said: Said
    at: Sequence[int]


def parts_of(found: Rows, own: str) -> list[Part]:
    """Return what each device says, in the order in which they are named first; ``own``: who the sender is."""
    grouped: dict[str, tuple[list[ForeignReading], list[int]]] = {}
    for at, device, channel, value, time_ns in found.rows:
        name = device or own
        group = grouped.get(name)
        if group is None:
            group = grouped[name] = ([], [])
        group[0].append(ForeignReading(channel, value, time_ns))
        group[1].append(at)
    learnt: dict[str, list[Channel]] = {}
    for (device, _), told in found.channels.items():
        learnt.setdefault(device or own, []).append(told)
    return [
        Part(Said(name, tuple(readings), tuple(learnt.get(name, ()))), at) for name, (readings, at) in grouped.items()
    ]


def _reason(value: object) -> str:
    if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
        return Reason.OUT_OF_RANGE
    if isinstance(value, str) and len(value) > MAX_STRING_BYTES // 4:
        return Reason.TOO_LONG
    return Reason.MALFORMED
