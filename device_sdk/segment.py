"""The file format of the spool: CRC'd records, and how to read on behind damaged bytes.

Owns: records ↔ bytes, readings ↔ records. Place: before `reading_log` and
`state_log`, which own the files. Pure: bytes in, bytes out.

    record  = mark a5 1e | u32 length | u32 crc | payload           (little-endian)
    crc     = CRC-32 of payload, begun with seed ^ length
    reading = u8 kind | i64 time_ns | value | channel name          kind 1 float, 2 int (8 bytes), 3 bool (1 byte)
            | u8 kind | i64 time_ns | u8 name length | name | text  kind 4 str
    kind + 4: the time was given and lies in the future
    kind + 8: the clock was not set; for the time stands the position on the line of `uptime`
    header  = u8 0 | u8 version | i64 last instant given to a reading before this file | u8 1 when times were given

The seed differs from file to file, so bytes of a deleted file that a damaged
disk shows again are no records of a new one. Every reading names its channel:
damage to one record costs that record and no other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from zlib import crc32

from device_sdk.outbox import Entry
from device_sdk.reading import MAX_CHANNEL_NAME, MAX_STRING_BYTES, Value
from device_sdk.uptime import UPTIME

FORMAT_VERSION = 1
MARK = b"\xa5\x1e"
# A reading is at most a name and a string; a longer length in a damaged file is not believed.
MAX_READING_BYTES = 16 + MAX_CHANNEL_NAME + MAX_STRING_BYTES
# A state record is a frame body (256 KiB) or a snapshot, which grows with the channels declared.
MAX_STATE_BYTES = 1 << 24

_RECORD = struct.Struct("<2sII")
RECORD_OVERHEAD = _RECORD.size
_FLOAT, _INT, _BOOL, _STR = 1, 2, 3, 4
_FUTURE = 4
_AT_UPTIME = 8
_LAST_KIND = _AT_UPTIME + _STR
_HEADER_KIND = 0
_pack_record = _RECORD.pack
_pack_float = struct.Struct("<Bqd").pack
_pack_int = struct.Struct("<Bqq").pack
_pack_bool = struct.Struct("<Bq?").pack
_pack_str = struct.Struct("<BqB").pack
_pack_header = struct.Struct("<BBq").pack
_unpack_header = struct.Struct("<BBq").unpack_from
_unpack_time = struct.Struct("<q").unpack_from
_unpack_float = struct.Struct("<d").unpack_from


def seed_of(number: int, level: int = 0) -> int:
    """Return the CRC seed of the file with this number; ``level``: how often its readings were thinned."""
    seed = crc32(number.to_bytes(8, "little"))
    return crc32(level.to_bytes(4, "little"), seed) if level else seed


def encode_record(seed: int, payload: bytes) -> bytes:
    """Return one record."""
    length = len(payload)
    return _pack_record(MARK, length, crc32(payload, seed ^ length)) + payload


def encode_reading(seed: int, name: bytes, time_ns: int, value: Value, is_future: bool = False) -> bytes:
    """Return one reading as a record; ``name`` is the channel in UTF-8, ``is_future`` also true of an uptime."""
    kind = type(value)
    if kind is float and not is_future:  # nearly all of them
        payload = _pack_float(_FLOAT, time_ns, value) + name
        length = len(payload)
        return _pack_record(MARK, length, crc32(payload, seed ^ length)) + payload
    extra = _FUTURE if is_future else 0
    if time_ns >= UPTIME:
        extra, time_ns = _AT_UPTIME, time_ns - UPTIME
    if kind is float:
        payload = _pack_float(_FLOAT + extra, time_ns, value) + name
    elif kind is bool:
        payload = _pack_bool(_BOOL + extra, time_ns, value) + name
    elif kind is int:
        payload = _pack_int(_INT + extra, time_ns, value) + name
    else:
        payload = _pack_str(_STR + extra, time_ns, len(name)) + name + str(value).encode()
    length = len(payload)
    return _pack_record(MARK, length, crc32(payload, seed ^ length)) + payload


def encode_header(seed: int, last_ns: int, is_explicit: bool = False) -> bytes:
    """Return the first record of a file of readings; ``is_explicit``: some of them may have a given time."""
    flag = b"\x01" if is_explicit else b""
    return encode_record(seed, _pack_header(_HEADER_KIND, FORMAT_VERSION, last_ns) + flag)


def is_header(payload: bytes) -> bool:
    """Say whether a record is a file's first one."""
    return payload[:1] == b"\x00"


class Scan:
    """Reads the records of one file, past damage.

    Iterating gives (payload, end offset). Afterwards ``damaged`` is the number of
    places that could not be read: each is a run of bytes between two good records,
    or before the first, or behind the last. ``is_torn``: the last of them is behind the
    last good record, as a write leaves that a power cut ended.
    """

    def __init__(self, data: bytes, seed: int, *, start: int = 0, max_bytes: int = MAX_READING_BYTES) -> None:
        self._data = data
        self._seed = seed
        self._start = start
        self._max_bytes = max_bytes
        self.damaged = 0
        self.is_torn = False

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        data, seed, size, limit = self._data, self._seed, len(self._data), self._max_bytes
        unpack, overhead = _RECORD.unpack_from, RECORD_OVERHEAD
        at, is_damaged = self._start, False
        while at < size:
            if at + overhead <= size:
                mark, length, crc = unpack(data, at)
                end = at + overhead + length
                if mark == MARK and length <= limit and end <= size:
                    payload = data[at + overhead : end]
                    if crc32(payload, seed ^ length) == crc:
                        is_damaged = False
                        yield payload, end
                        at = end
                        continue
            if not is_damaged:
                is_damaged = True
                self.damaged += 1
            at = data.find(MARK, at + 1)
            if at < 0:
                self.is_torn = True
                return


class ReadingDecoder:
    """Turns payloads of a file of readings into entries; knows each channel's name once."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        # The latest instant that was not in the future when it was recorded: the next one must lie behind it.
        self.last_ns = 0
        # The last position on the line of uptime.
        self.last_uptime = -1
        # True when the file may hold readings with a given time; those must stay in order among themselves.
        self.is_explicit = False

    def decode(self, payload: bytes) -> Entry | None:
        """Return the reading, or None for a header or a kind of a later version."""
        kind = payload[0] if payload else _HEADER_KIND
        if kind == _HEADER_KIND or kind > _LAST_KIND:
            self._header(payload)
            return None
        time_ns: int = _unpack_time(payload, 1)[0]
        if kind <= _FUTURE:
            if time_ns > self.last_ns:
                self.last_ns = time_ns
        elif kind <= _AT_UPTIME:
            kind -= _FUTURE
        else:
            kind -= _AT_UPTIME
            self.last_uptime = max(self.last_uptime, time_ns)
            time_ns += UPTIME
        name, value = _VALUES[kind](payload)
        channel = self._names.get(name)
        if channel is None:
            channel = self._names[name] = name.decode()
        return channel, time_ns, value

    def _header(self, payload: bytes) -> None:
        if len(payload) >= 10 and payload[0] == _HEADER_KIND:
            self.last_ns = max(self.last_ns, _unpack_header(payload)[2])
            self.is_explicit = self.is_explicit or payload[10:11] == b"\x01"


def _float(payload: bytes) -> tuple[bytes, Value]:
    return payload[17:], _unpack_float(payload, 9)[0]


def _int(payload: bytes) -> tuple[bytes, Value]:
    return payload[17:], _unpack_time(payload, 9)[0]


def _bool(payload: bytes) -> tuple[bytes, Value]:
    return payload[10:], payload[9] != 0


def _str(payload: bytes) -> tuple[bytes, Value]:
    text = 10 + payload[9]
    return payload[10:text], payload[text:].decode()


_VALUES: dict[int, Callable[[bytes], tuple[bytes, Value]]] = {_FLOAT: _float, _INT: _int, _BOOL: _bool, _STR: _str}
