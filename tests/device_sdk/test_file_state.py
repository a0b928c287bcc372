"""The limit on disk that state leaves for readings, and fsyncs: when there is one, and when one fails."""

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_sdk.file_spool import FileSpool
from device_sdk.outbox import Copying, Durability, WhenFull
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_files import Syncs, T, open_spool, record, values
from tests.support.spool_hub import drain


class Medium:
    """What is on the medium: the bytes of each file as far as its last fsync covered them. Fsyncs can fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_failing = False

    def sync(self, fd: int) -> None:
        if self.is_failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        self.files[path.name.replace(".copy", ".log")] = path.read_bytes()

    def readings(self) -> bytes:
        return b"".join(data for name, data in sorted(self.files.items()) if name.startswith("readings-"))

    def lay_out(self, spool: Path, directory: Path) -> Path:
        """Leave what a power cut leaves of a spool."""
        directory.mkdir()
        for path in spool.iterdir():
            if path.name in self.files:
                (directory / path.name).write_bytes(self.files[path.name])
        return directory


@contextmanager
def no_descriptor_is_free() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


# --- fsyncs that fail -------------------------------------------------------------------------


def test_readings_whose_fsync_failed_are_written_anew(tmp_path: Path) -> None:
    """The kernel may take their lost pages for clean: another fsync of the same file would say nothing."""
    medium = Medium()
    spool = FileSpool(tmp_path, boot="b", max_bytes=MIN_LIMIT_BYTES, sync_file=medium.sync)
    for i in range(400):  # several files, all but the last closed
        spool.record_one("t", float(i), T + i)
    names = {path.name for path in tmp_path.glob("readings-*")}
    old = {path.name: path.stat().st_ino for path in tmp_path.glob("readings-*")}
    medium.is_failing = True
    spool.sync()
    spool.record_one("t", 400.0, T + 400)
    spool.sync()
    spool.record_one("t", 401.0, T + 401)
    assert spool.statistics().disk_error is not None
    failed = min(names)

    medium.is_failing = False
    spool.sync()

    assert spool.statistics().disk_error is None
    assert (tmp_path / failed).stat().st_ino != old[failed]
    assert medium.files.keys() >= names
    assert medium.readings() == b"".join(path.read_bytes() for path in sorted(tmp_path.glob("readings-*.log")))
    assert not list(tmp_path.glob("*.copy"))
    spool.close()


def test_files_that_a_killed_process_left_are_fsynced(tmp_path: Path) -> None:
    """It may have been killed before it could; they are the kernel's until then."""
    spool = FileSpool(tmp_path / "a", boot="b", max_bytes=MIN_LIMIT_BYTES)
    for i in range(700):
        spool.record_one("t", float(i), T + i)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    spool.close()
    medium = Medium()

    again = FileSpool(tmp_path / "b", boot="b", max_bytes=MIN_LIMIT_BYTES, sync_file=medium.sync)
    again.sync()

    files = {path.name for path in (tmp_path / "b").glob("readings-*")}
    assert len(files) > 2
    assert files <= medium.files.keys()
    again.close()


def test_notes_of_a_copy_do_not_fill_the_spool(tmp_path: Path) -> None:
    """Each ack of it is one, and nothing else is cut meanwhile."""
    spool = FileSpool(tmp_path, boot="b", max_bytes=MIN_LIMIT_BYTES, sync_file=lambda fd: None)
    before = spool.statistics().bytes

    for n in range(2_000):
        spool.copied(Copying("a" * 16, 0, n, 100_000, "b" * 16, n, "c" * 32))

    assert spool.statistics().bytes < before + 20_000
    spool.close()


def test_fsyncs_that_fail_for_long_leave_no_pile_of_files(tmp_path: Path) -> None:
    """While one file waits to be written anew the others grow as ever."""
    medium = Medium()
    spool = FileSpool(tmp_path, boot="b", sync_file=medium.sync)
    medium.is_failing = True

    for i in range(100):
        spool.record_one("t", float(i), T + i)
        spool.sync()

    assert len(list(tmp_path.glob("readings-*"))) == 2
    medium.is_failing = False
    spool.close()
    assert medium.readings() == b"".join(path.read_bytes() for path in sorted(tmp_path.glob("readings-*.log")))


def test_record_does_not_raise_when_no_descriptor_is_free(tmp_path: Path) -> None:
    """Not with an fsync each either; the spool says what is wrong, and what was owed is made good."""
    medium = Medium()
    spool = FileSpool(tmp_path, boot="b", durability="fsync", max_bytes=MIN_LIMIT_BYTES, sync_file=medium.sync)
    spool.record_one("t", 0.0, T)

    with no_descriptor_is_free():
        for i in range(1, 400):
            spool.record_one("t", float(i), T + i)
        error = spool.statistics().disk_error
    spool.record_one("t", 400.0, T + 400)

    assert error is not None
    assert "Too many open files" in error
    assert spool.statistics().disk_error is None
    assert medium.readings() == b"".join(path.read_bytes() for path in sorted(tmp_path.glob("readings-*.log")))
    assert spool.pending == 401
    spool.close()


def test_numbered_readings_stand_until_a_start_has_fsynced_their_frame(tmp_path: Path) -> None:
    """Killed between the frame and its fsync, then a power cut in the next start: one of the two is on the medium."""
    images: list[dict[str, bytes]] = []

    def kill(fd: int) -> None:
        images.append({path.name: path.read_bytes() for path in (tmp_path / "spool").iterdir()})

    spool = FileSpool(tmp_path / "spool", boot="b", max_bytes=MIN_LIMIT_BYTES, sync_file=kill)
    for i in range(400):
        spool.record_one("t", float(i), T + i)
    files = {path.name for path in (tmp_path / "spool").glob("readings-*")}
    while spool.unnumbered:
        images.clear()
        spool.cut()
    spool.close()
    killed = tmp_path / "killed"
    killed.mkdir()
    for name, data in images[0].items():
        (killed / name).write_bytes(data)
    at_first: list[set[str]] = []

    def watch(fd: int) -> None:
        at_first.append({path.name for path in killed.glob("readings-*")})

    FileSpool(killed, boot="b", max_bytes=MIN_LIMIT_BYTES, sync_file=watch).close()

    assert at_first[0] == files
    assert at_first[-1] < files


def test_frame_is_not_handed_out_before_its_fsync(tmp_path: Path) -> None:
    """A frame whose fsync fails is kept back; after the disk recovers it is handed out once, unchanged."""
    sync = Syncs()
    spool = open_spool(tmp_path, sync_file=sync)
    record(spool, 2)
    before = sync.count
    assert spool.cut(1) is not None
    assert sync.count == before + 1
    sync.is_failing = True

    assert spool.cut(1) is None
    assert [frame.seq for frame in spool.frames(0)] == [1]
    assert spool.has_uncut
    assert spool.statistics().disk_error is not None
    assert spool.cut(1) is None
    sync.is_failing = False
    frame = spool.cut(1)

    assert frame is not None
    assert frame.seq == 2
    assert [f.seq for f in spool.frames(0)] == [1, 2]
    assert values(drain(spool)) == [0.0, 1.0]
    assert spool.statistics().disk_error is None
    spool.close()


def test_failed_fsync_is_repeated_on_a_new_file(tmp_path: Path) -> None:
    """The kernel may take lost pages for clean after a failed fsync: the state is written again elsewhere."""
    sync = Syncs()
    spool = open_spool(tmp_path, sync_file=sync)
    record(spool, 1)
    before = {path.name for path in tmp_path.glob("state-*")}
    sync.is_failing = True
    spool.cut()
    sync.is_failing = False

    assert spool.cut() is not None

    assert {path.name for path in tmp_path.glob("state-*")}.isdisjoint(before)
    spool.close()


def test_sync_failure_does_not_raise(tmp_path: Path) -> None:
    """`sync` runs in the background: it notes the error and tries again next time."""
    sync = Syncs()
    spool = open_spool(tmp_path, sync_file=sync)
    record(spool, 1)
    sync.is_failing = True

    spool.sync()

    assert spool.statistics().disk_error is not None
    sync.is_failing = False
    spool.sync()
    assert spool.statistics().disk_error is None
    spool.close()


# --- durability -------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "syncs"), [("second", 0), ("fsync", 3)])
def test_record_syncs_only_when_asked_to(tmp_path: Path, durability: Durability, syncs: int) -> None:
    """By default `record` leaves the fsync to `sync`; ``durability="fsync"`` takes one each time."""
    sync = Syncs()
    spool = open_spool(tmp_path, durability=durability, sync_file=sync)
    before = sync.count

    record(spool, 3)

    assert sync.count - before == syncs
    spool.close()


def test_sync_does_nothing_when_nothing_changed(tmp_path: Path) -> None:
    """A quiet device does not wear its SD card out."""
    sync = Syncs()
    spool = open_spool(tmp_path, sync_file=sync)
    record(spool, 1)
    spool.sync()
    before = sync.count

    spool.sync()
    spool.sync()

    assert sync.count == before
    spool.close()


def test_empty_file_that_a_power_cut_left_takes_no_new_one_with_it(tmp_path: Path) -> None:
    """Its name was on the medium before its bytes; the file that begins there next has the same name."""
    medium = Medium()
    spool = FileSpool(tmp_path / "a", boot="b1", sync_file=medium.sync)
    spool.record_one("t", 0.0, T)
    spool.sync()
    assert spool.split()
    left = medium.lay_out(tmp_path / "a", tmp_path / "b")
    last = max((tmp_path / "a").glob("readings-*"))
    (left / last.name).touch()
    spool.close()

    again = FileSpool(left, boot="b2", sync_file=medium.sync)
    assert again.split()
    again.record_one("t", 1.0, T + 1)
    assert again.cut() is not None
    again.sync()

    assert (left / last.name).stat().st_size > 0
    assert medium.files[last.name] == (left / last.name).read_bytes()
    again.close()


def test_file_that_somebody_deleted_is_noticed(tmp_path: Path) -> None:
    """Its bytes would go with the process; what follows is written to another file."""
    medium = Medium()
    spool = FileSpool(tmp_path, boot="b", sync_file=medium.sync)
    spool.record_one("t", 0.0, T)
    next(tmp_path.glob("readings-*")).unlink()

    spool.sync()
    error = spool.statistics().disk_error
    spool.record_one("t", 1.0, T + 1)
    spool.sync()

    assert error is not None
    assert "is gone" in error
    assert spool.statistics().disk_error is None
    assert len(list(tmp_path.glob("readings-*"))) == 1
    spool.close()
