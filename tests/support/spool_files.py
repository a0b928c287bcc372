"""Spools in files as tests make them: an fsync that can fail, a disk that is full, numbered readings."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_sdk.file_spool import FileSpool
from device_sdk.outbox import Durability
from tests.support.spool_hub import SpoolHub

T = 1_795_376_000_000_000_000


class Syncs:
    """Stands in for fsync: counts, and fails while told to."""

    def __init__(self) -> None:
        self.count = 0
        self.is_failing = False

    def __call__(self, fd: int) -> None:
        if self.is_failing:
            raise OSError(errno.EIO, "Input/output error")
        self.count += 1


def open_spool(path: Path, boot: str = "boot-1", durability: Durability = "second", **more: object) -> FileSpool:
    return FileSpool(path, boot=boot, durability=durability, **more)  # type: ignore[arg-type]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow: every write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def record(spool: FileSpool, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        spool.record_one("t", float(i), T + i)


def values(hub: SpoolHub) -> list[float]:
    return [float(r.value) for r in hub.readings]


def flip(path: Path, at: int) -> None:
    """Damage one byte of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
