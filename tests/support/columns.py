"""Readings as the column store has them, made from plain lists and read back.

Owns: `readings`, `plain`.
"""

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
