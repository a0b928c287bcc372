"""Readings as the column store has them, made from plain lists and read back.

Owns: `readings`, `plain`, `foreign`.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from device_sdk.reading import Value
from hub.store.chunk import Readings, to_values


def readings(pairs: Sequence[tuple[int, Value]], received: int = 7) -> Readings:
    """Return readings of (time, value), all received in one second."""
    times = np.array([time for time, _ in pairs], np.int64)
    return Readings(times, np.full(len(pairs), received, np.uint32), to_values([value for _, value in pairs]))


def plain(found: Readings) -> list[tuple[int, Value]]:
    """Return (time, value) of each reading."""
    return list(zip(found.times.tolist(), found.values.tolist(), strict=True))


def foreign(body: bytes) -> bytes:
    """Return a part as a newer hub would write it, with a codec that is not known here."""
    head = body[:1] + b"\x09" + body[2:6]
    return head + struct.pack("<I", zlib.crc32(body[10:], zlib.crc32(head))) + body[10:]
