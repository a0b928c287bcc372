"""Readings as the column store has them, made from plain lists and read back.

Owns: `readings`, `block`, `plain`, `foreign`.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from device_sdk.reading import Value
from hub.store.block import Block, RunKind, Runs, to_block
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


def block(*runs: tuple[int, Sequence[tuple[int, Value]], int]) -> Block:
    """Return a block of runs of (series, (time, value) of each reading, how many are late), in their order."""
    pairs = [pair for _, of_one, _ in runs for pair in of_one]
    kinds, bits, others = [], [], []
    for _, of_one, _ in runs:
        types = {type(value) for _, value in of_one}
        kinds.append(RunKind.FLOAT if types == {float} else RunKind.INT if types == {int} else RunKind.OTHER)
        for _, value in of_one:
            if kinds[-1] is RunKind.OTHER:
                others.append(value)
            bits.append(
                int(np.array([value], np.float64).view(np.int64)[0])
                if kinds[-1] is RunKind.FLOAT
                else int(value)
                if kinds[-1] is RunKind.INT
                else len(others) - 1
            )
    return to_block(
        Runs(
            np.array([series for series, _, _ in runs]), np.array([len(of_one) for _, of_one, _ in runs]),
            np.array([late for _, _, late in runs]), np.array(kinds, np.uint8),
            np.array([time for time, _ in pairs], np.int64), np.full(len(pairs), 7, np.uint32),
            np.array(bits, np.int64), others,
        )
    )  # fmt: skip
