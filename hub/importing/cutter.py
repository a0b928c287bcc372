"""Readings of a file → frames of its devices, the same ones each time the file is read.

Owns: where frames are cut, their numbers and chains. Place: after the readers, before `upload`. Pure.

What is stored of an import is known by number alone. So the cut depends on nothing but the readings and their order;
whoever changes it, or what a reader makes of a file, changes `VERSION`, and with it the name of every import.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Value, ValueType, type_of
from device_sdk.wire import CHAIN_START, MAX_CHANNELS, next_chain
from hub.importing.row import Row, RowError

VERSION = 2
# Readings in memory before they are cut, over all devices: 20 MB as Python holds numbers, and as much of texts. A file
# of 20,000 devices, a row of each in turn, has frames of five readings then; a frame costs a hub as much as a hundred.
BLOCK_READINGS = 100_000
BLOCK_BYTES = 32_000_000
# Channels of all devices, which a hub keeps in memory for good: a file with more has a column of names that are none.
MAX_SERIES = 200_000
# A device's ack waits for one frame of an import at most: 2,000 readings are checked in a millisecond.
FRAME_READINGS = 2000
# A frame may weigh 256 KiB; what one weighs is known only when it is encoded.
_FRAME_BYTES = 200_000
# At most, in JSON: a time and a number with their commas; a character of a text as an escape; a column's frame.
_READING_BYTES, _CHAR_BYTES, _COLUMN_BYTES = 48, 6, 64


@dataclass(frozen=True, slots=True)
class Piece:
    """One frame; ``lines``: by channel, where each of its readings stands in the file."""

    device: str
    seq: int
    body: bytes
    chain: bytes
    readings: int
    channels: dict[str, tuple[str | None, ValueType]]
    lines: dict[str, list[int]]


@dataclass(slots=True)
class _Device:
    """How far a device's stream is cut, and the frame that fills."""

    seq: int = 0
    chain: bytes = CHAIN_START
    # What was said of each channel: once is enough for a hub.
    told: dict[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Filling:
    readings: list[tuple[str, int, Value]] = field(default_factory=list)
    lines: dict[str, list[int]] = field(default_factory=dict)
    channels: dict[str, tuple[str | None, ValueType]] = field(default_factory=dict)
    size: int = 0


class Cutter:
    """Takes readings, of ``most_series`` channels; gives frames when a block of them is together."""

    def __init__(self, most_series: int = MAX_SERIES) -> None:
        self._most_series = most_series
        self._devices: dict[str, _Device] = {}
        self._filling: OrderedDict[str, _Filling] = OrderedDict()
        self._pieces: list[Piece] = []
        self._readings = self._size = self._series = 0

    def add(self, row: Row) -> None:
        """Take a reading.

        Raises:
            RowError: it is of one channel more than a file may have; nothing is taken of it.
        """
        self._count_series(row)
        filling = self._filling.get(row.device)
        if filling is None:
            filling = self._filling[row.device] = _Filling()
        lines = filling.lines.get(row.channel)
        if lines is None:
            lines = filling.lines[row.channel] = []
            filling.size += _COLUMN_BYTES + len(row.channel)
        self._tell(row, filling)
        lines.append(row.line)
        filling.readings.append((row.channel, row.time_ns, row.value))
        size = _READING_BYTES + (_CHAR_BYTES * len(row.value) if isinstance(row.value, str) else 0)
        filling.size += size
        self._size += size
        self._readings += 1
        if len(filling.readings) == FRAME_READINGS or filling.size > _FRAME_BYTES:
            self._cut(row.device, self._filling.pop(row.device))

    @property
    def is_full(self) -> bool:
        """Whether a block is together: `take` it."""
        return self._readings >= BLOCK_READINGS or self._size >= BLOCK_BYTES

    def take(self) -> list[Piece]:
        """Return everything taken so far as frames, those of a device in the order of their numbers."""
        while self._filling:
            self._cut(*self._filling.popitem(last=False))
        pieces, self._pieces = self._pieces, []
        self._readings = self._size = 0
        return pieces

    def _count_series(self, row: Row) -> None:
        device = self._devices.get(row.device)
        if device is not None and (row.channel in device.told or len(device.told) == MAX_CHANNELS):
            return
        if self._series == self._most_series:
            raise RowError(f"more than {self._most_series} channels in a file: is the device in the right column?")
        self._series += 1

    def _tell(self, row: Row, filling: _Filling) -> None:
        device = self._devices.get(row.device)
        if device is None:
            device = self._devices[row.device] = _Device()
        is_new = row.channel not in device.told
        if is_new and len(device.told) == MAX_CHANNELS:
            return  # the hub refuses its readings, each with its line
        if is_new or (row.unit is not None and device.told[row.channel] != row.unit):
            device.told[row.channel] = row.unit
            filling.channels[row.channel] = (row.unit, type_of(row.value))

    def _cut(self, name: str, filling: _Filling) -> None:
        device = self._devices[name]
        device.seq += 1
        body = encode_batch(to_columns(device.seq, filling.readings))
        device.chain = next_chain(device.chain, body)
        self._pieces.append(
            Piece(name, device.seq, body, device.chain, len(filling.readings), filling.channels, filling.lines)
        )
