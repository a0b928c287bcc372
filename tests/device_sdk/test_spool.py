"""The interface: both implementations have it, as types too; behaviour: tests/contract."""

from pathlib import Path

from device_sdk import file_spool, outbox, spool
from device_sdk.memory_spool import MemorySpool
from device_sdk.spool import FileSpool, Spool


def test_both_spools_are_spools(tmp_path: Path) -> None:
    """Mypy checks the signatures here; the names are checked at run time."""
    spools: list[Spool] = [FileSpool(tmp_path, boot="b"), MemorySpool()]

    names = {name for name in vars(Spool) if not name.startswith("_")}
    for one in spools:
        assert names <= set(dir(one))
        one.close()


def test_spool_is_the_place_to_import_from() -> None:
    """Users need not know which module holds what; only the memory's spool is by itself, for those who use it."""
    assert spool.FileSpool is file_spool.FileSpool
    assert (spool.CutFrame, spool.SpoolStatistics) == (outbox.CutFrame, outbox.SpoolStatistics)
