"""What is particular to memory; the contract itself: tests/contract."""

from device_sdk.memory_spool import MemorySpool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_hub import drain

T = 1_795_376_000_000_000_000


def test_strings_count_with_their_length() -> None:
    """The limit is about memory, not about the number of readings."""
    spool = MemorySpool(max_bytes=MIN_LIMIT_BYTES)

    for i in range(1_000):
        spool.record([("text", "x" * 1_000)], None, T + i)

    statistics = spool.statistics()
    assert 180 < statistics.pending < 260
    assert statistics.dropped == 1_000 - statistics.pending
    assert statistics.peak_bytes <= MIN_LIMIT_BYTES


def test_random_bytes_name_the_streams() -> None:
    """The source of identities is passed in."""
    names = iter([b"\x01" * 8, b"\x02" * 8])
    spool = MemorySpool(random_bytes=lambda count: next(names))

    assert spool.stream == "01" * 8
    spool.restart(None)
    assert spool.stream == "02" * 8


def test_sync_and_close_keep_what_is_pending_countable() -> None:
    """`sync` has nothing to do; statistics answer after close."""
    spool = MemorySpool()
    spool.record([("t", 1.0)], None, T)
    spool.sync()
    spool.close()

    assert spool.statistics().pending == 1


def test_drained_spool_uses_no_memory() -> None:
    """Bytes are given back as readings and frames leave."""
    spool = MemorySpool()
    for i in range(100):
        spool.record([("t", "state")], None, T + i)
    drain(spool)

    assert spool.statistics().bytes == 0
