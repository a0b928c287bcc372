"""The limit on disk that state leaves for readings (durable steps and faults: test_file_spool)."""

from pathlib import Path

import pytest

from device_sdk.file_spool import FileSpool
from device_sdk.outbox import WhenFull
from device_sdk.spool_base import MIN_LIMIT_BYTES

T = 1_795_376_000_000_000_000


@pytest.mark.parametrize("when_full", ["oldest", "newest", "thin"])
def test_state_and_readings_stay_within_the_limit_together(tmp_path: Path, when_full: WhenFull) -> None:
    """Also the files that thinning keeps beside each other for a moment, and two state files at once."""
    sizes: list[int] = []

    def used() -> int:
        return sum(path.stat().st_size for path in tmp_path.iterdir())

    def watch(fd: int) -> None:
        sizes.append(used())

    spool = FileSpool(tmp_path, boot="b", max_bytes=MIN_LIMIT_BYTES, when_full=when_full, sync_file=watch)
    for i in range(9_000):
        spool.record([("t", float(i))], None, T + i)
        if i % 300 == 0:
            spool.cut(20)
    spool.close()

    assert max(sizes) <= MIN_LIMIT_BYTES
    assert used() <= MIN_LIMIT_BYTES
