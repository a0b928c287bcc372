"""What only files can do: kills, power cuts, damage, full and failing disks. The contract itself: tests/contract."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_sdk.errors import MisuseError, SpoolError
from device_sdk.file_spool import HELD_READINGS, FileSpool
from device_sdk.lane import CACHE_READINGS
from device_sdk.outbox import Durability
from device_sdk.reading import Channel
from device_sdk.segment import Scan, encode_record, seed_of
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_hub import SpoolHub, drain

T = 1_795_376_000_000_000_000
ROOT = Path(__file__).parents[2]


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


# --- one process ------------------------------------------------------------------------------


def test_second_spool_on_a_directory_is_refused(tmp_path: Path) -> None:
    """Two processes would write two histories; the second is told what to do, the first is not disturbed."""
    spool = open_spool(tmp_path)

    with pytest.raises(SpoolError, match="in use by another process"):
        open_spool(tmp_path)

    record(spool, 1)
    spool.close()
    open_spool(tmp_path).close()


def test_directory_that_cannot_be_made_is_a_spool_error(tmp_path: Path) -> None:
    """The message names the path and the cause."""
    (tmp_path / "file").write_text("")

    with pytest.raises(SpoolError, match="cannot be used: Not a directory"):
        open_spool(tmp_path / "file" / "spool")


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Readings can be private."""
    spool = open_spool(tmp_path / "spool")
    record(spool, 1)

    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").rglob("*")}

    assert modes == {0}
    spool.close()


def test_spool_of_a_newer_sdk_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """An old SDK does not guess at a format it does not know."""
    record_of = encode_record(seed_of(1), (b"\x22\x00\x00\x00" + b'{"event":"snapshot","format":9999}'))
    (tmp_path / "state-0000000001.log").write_bytes(record_of)

    with pytest.raises(SpoolError, match="newer device_sdk"):
        open_spool(tmp_path)

    assert (tmp_path / "state-0000000001.log").read_bytes() == record_of


# --- kills and power cuts ---------------------------------------------------------------------


def test_all_state_survives_a_kill(tmp_path: Path) -> None:
    """What another process finds in the files is the spool as it was: stream, marks, frames, channels, readings."""
    spool = open_spool(tmp_path / "a")
    spool.declare(Channel("t", "Cel", low=1.0, high=2.0))
    record(spool, 4)
    first, second = spool.cut(2), spool.cut(1)
    assert first is not None
    assert second is not None
    spool.acknowledge(1, first.chain, "run.7")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    found = open_spool(tmp_path / "b")

    assert (found.stream, found.acked, found.next, found.pos) == (spool.stream, 1, 3, "run.7")
    assert found.frames(0) == [second]
    assert found.channels == {"t": Channel("t", "Cel", low=1.0, high=2.0)}
    assert [found.chain(seq) for seq in range(4)] == [spool.chain(seq) for seq in range(4)]
    assert (found.unnumbered, found.pending, found.statistics().damaged) == (1, 2, 0)
    assert values(drain(found)) == [2.0, 3.0]
    spool.close()
    found.close()


def test_record_that_returned_survives_a_sigkill(tmp_path: Path) -> None:
    """A process killed at a random instant loses no reading whose `record` returned."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT
    )
    assert child.stdout is not None
    returned = [int(child.stdout.readline()) for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    returned += [int(line) for line in child.stdout.read().split(b"\n")[:-1]]
    child.stdout.close()
    child.wait(10)

    spool = open_spool(tmp_path)

    assert spool.statistics().damaged == 0
    found = values(drain(spool))
    assert found[: len(returned)] == [float(i) for i in returned]
    assert len(found) <= len(returned) + 1
    spool.close()


_CHILD = """
import os, pathlib, sys
from device_sdk.file_spool import FileSpool
spool = FileSpool(pathlib.Path(sys.argv[1]), boot="boot-1")
i = 0
while True:
    spool.record([("t", float(i))], None, 1795376000000000000 + i)
    os.write(1, b"%d\\n" % i)
    i += 1
    if i % 50 == 0:
        spool.cut(20)
"""


def test_other_boot_without_close_is_a_power_cut(tmp_path: Path) -> None:
    """Cut frames go first on the old stream; then a new one begins with a gap of unknown count."""
    spool = open_spool(tmp_path / "a")
    record(spool, 3)
    frame = spool.cut(2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    found = open_spool(tmp_path / "b", boot="boot-2")

    assert frame is not None
    assert (found.stream, found.frames(0), found.has_uncut, found.cut()) == (spool.stream, [frame], False, None)
    found.acknowledge(1, frame.chain, "run.1")
    assert found.stream != spool.stream
    hub = drain(found)
    assert [(g["seq"], g["count"], g["reason"], g["ranges"]) for g in hub.gaps] == [(1, None, "power_cut", {})]
    assert values(hub) == [2.0]
    spool.close()
    found.close()


def test_power_cut_with_nothing_in_flight_begins_the_new_stream_at_once(tmp_path: Path) -> None:
    """No frame has to be waited for."""
    spool = open_spool(tmp_path / "a")
    record(spool, 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    found = open_spool(tmp_path / "b", boot="boot-2")

    assert found.stream != spool.stream
    first = found.cut()
    assert first is not None
    assert first.kind == "gap"
    spool.close()
    found.close()


def test_second_power_cut_before_the_old_frames_are_acked_is_one_gap(tmp_path: Path) -> None:
    """The stream that waits for its end goes on waiting; the loss is declared once."""
    spool = open_spool(tmp_path / "a")
    record(spool, 1)
    frame = spool.cut()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = open_spool(tmp_path / "b", boot="boot-2")
    shutil.copytree(tmp_path / "b", tmp_path / "c")

    third = open_spool(tmp_path / "c", boot="boot-3")

    assert third.frames(0) == [frame]
    assert [gap["reason"] for gap in drain(third).gaps] == ["power_cut"]
    for opened in (spool, second, third):
        opened.close()


@pytest.mark.parametrize(("durability", "is_closed"), [("second", True), ("fsync", False)], ids=["closed", "fsync"])
def test_stream_goes_on_after_a_reboot_that_took_nothing(
    tmp_path: Path, durability: Durability, is_closed: bool
) -> None:
    """A clean close, or readings that were each fsynced, leave nothing to declare."""
    spool = open_spool(tmp_path / "a", durability=durability)
    record(spool, 2)
    if is_closed:
        spool.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    found = open_spool(tmp_path / "b", boot="boot-2")

    assert found.stream == spool.stream
    assert (values(hub := drain(found)), hub.gaps) == ([0.0, 1.0], [])
    spool.close()
    found.close()


def test_power_cut_that_took_unsynced_readings_is_no_damage(tmp_path: Path) -> None:
    """Readings in a frame that was fsynced are there although their own file lost its end; numbering goes on."""
    spool = open_spool(tmp_path / "a")
    record(spool, 5)
    frame = spool.cut()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    readings = next((tmp_path / "b").glob("readings-*"))
    os.truncate(readings, 30)

    found = open_spool(tmp_path / "b", boot="boot-2")
    record(found, 3, first=100)
    hub = SpoolHub()
    hub.take(found)
    hub.acknowledge(found)

    assert found.frames(0) == []
    assert values(drain(found, hub)) == [0.0, 1.0, 2.0, 3.0, 4.0, 100.0, 101.0, 102.0]
    assert frame is not None
    assert [gap["reason"] for gap in hub.gaps] == ["power_cut"]
    spool.close()
    found.close()


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """The files of a spool with an acked frame, a cut frame, and un-numbered readings, never closed."""
    spool = open_spool(tmp_path / "image")
    record(spool, 6)
    for _ in range(2):
        spool.cut(2)
    chain = spool.chain(1)
    assert chain is not None
    spool.acknowledge(1, chain, "run.1")
    files = {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()}
    spool.close()
    return files


def damages(images: dict[str, bytes], prefix: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of one file with each byte of its last two records flipped, then cut off there."""
    name = next(name for name in images if name.startswith(prefix))
    data = images[name]
    number = int("".join(c for c in name if c.isdigit()))
    ends = [end for _, end in Scan(data, seed_of(number), max_bytes=max_bytes)]
    for at in range(ends[-3], len(data)):
        yield name, data[:at] + bytes((data[at] ^ 0x41,)) + data[at + 1 :]
        yield name, data[:at]


def lay_out(directory: Path, images: dict[str, bytes], name: str, data: bytes) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for other, content in images.items():
        (directory / other).write_bytes(content)
    (directory / name).write_bytes(data)


def test_damaged_reading_costs_that_reading_only(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Each byte of the last two readings flipped or cut off: no exception, all others delivered, the loss declared."""
    tried = 0
    for name, data in damages(images, "readings-", 4096):
        lay_out(tmp_path / "b", images, name, data)
        spool = open_spool(tmp_path / "b", sync_file=Syncs())
        damaged = spool.statistics().damaged
        record(spool, 1, first=9)
        hub = drain(spool)
        spool.close()

        found = values(hub)
        assert found[:2] == [2.0, 3.0]
        assert found[-1] == 9.0
        assert set(found[2:-1]) <= {4.0, 5.0}
        is_cut_between_records = len(data) in _ends(images[name], name)[:-1]
        assert damaged == (0 if is_cut_between_records else 1)
        assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"] * damaged
        tried += 1
    assert tried > 100


@pytest.mark.slow
def test_damaged_state_loses_no_reading(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Each byte of the last two state records flipped or cut off: every reading not acked still arrives.

    Slow: 800 starts of a spool on a real disk, each with its directory fsyncs.
    """
    tried = 0
    for name, data in damages(images, "state-", 1 << 20):
        lay_out(tmp_path / "b", images, name, data)
        spool = open_spool(tmp_path / "b", sync_file=Syncs())
        hub = drain(spool)
        spool.close()

        # 0 and 1 may come again, when the ack is what was lost.
        assert {2.0, 3.0, 4.0, 5.0} <= set(values(hub)) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
        tried += 1
    assert tried > 100


def test_damage_is_declared_once(tmp_path: Path) -> None:
    """A place that was declared is not declared again at each start; a new one is."""
    spool = open_spool(tmp_path)
    record(spool, 6)
    spool.close()
    path = next(tmp_path.glob("readings-*"))
    _flip(path, 60)

    again = [open_spool(tmp_path)]
    assert again[0].statistics().damaged == 1
    again[0].close()
    second = open_spool(tmp_path)
    assert second.statistics().damaged == 1
    second.close()
    _flip(path, 180)
    third = open_spool(tmp_path)

    assert third.statistics().damaged == 2
    assert len(drain(third).readings) == 4
    third.close()


def test_lost_state_begins_a_new_stream_with_every_reading(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Without its state a spool cannot know what was acked: it sends all it has, and says that it was damaged."""
    name = next(name for name in images if name.startswith("state-"))
    lay_out(tmp_path / "b", images, name, b"\x00" * 500)

    spool = open_spool(tmp_path / "b")

    hub = drain(spool)
    assert values(hub) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"]
    spool.close()


def test_missing_file_of_readings_is_declared(tmp_path: Path) -> None:
    """A file that somebody deleted is a loss like any damage."""
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES)
    record(spool, 1_000)
    spool.close()
    sorted(tmp_path.glob("readings-*"))[1].unlink()

    found = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES)

    hub = drain(found)
    assert 0 < len(hub.readings) < 1_000
    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("spool_damaged", None)]
    found.close()


def test_file_cut_short_after_a_clean_close_is_declared(tmp_path: Path) -> None:
    """The close says where the readings ended, so even a cut between two records is seen."""
    spool = open_spool(tmp_path)
    record(spool, 2)
    spool.close()
    path = next(tmp_path.glob("readings-*"))
    os.truncate(path, _ends(path.read_bytes(), path.name)[-2])

    found = open_spool(tmp_path)

    hub = drain(found)
    assert values(hub) == [0.0]
    assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"]
    found.close()


def test_damage_found_while_reading_back_is_counted_exactly(tmp_path: Path) -> None:
    """Readings beyond the cache are read from disk when their turn comes; what is unreadable then is declared."""
    spool = open_spool(tmp_path)
    produced = CACHE_READINGS + 20_000
    record(spool, produced)
    _flip(sorted(tmp_path.glob("readings-*"))[-2], 1_000)

    hub = drain(spool)

    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("spool_damaged", 1)]
    assert len(hub.readings) == produced - 1
    assert spool.statistics().damaged == 1
    spool.close()


# --- bounds -----------------------------------------------------------------------------------


def test_readings_beyond_the_cache_come_back_in_order(tmp_path: Path) -> None:
    """Memory holds 20,000 readings; the others wait on disk, through a restart too."""
    spool = open_spool(tmp_path)
    produced = CACHE_READINGS + 15_000
    record(spool, produced)
    spool.close()
    spool = open_spool(tmp_path)
    record(spool, 5, first=produced)

    assert values(drain(spool)) == [float(i) for i in range(produced + 5)]
    spool.close()


def test_files_are_deleted_when_their_readings_are_numbered(tmp_path: Path) -> None:
    """A drained spool holds one small file of readings and one of state, whatever went through it."""
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES)
    hub = SpoolHub()
    for _ in range(10):
        record(spool, 2_000)
        drain(spool, hub)

    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(sizes) == 3, "a lock, one file of readings, one of state"
    assert sum(sizes.values()) == spool.statistics().bytes < 40_000
    spool.close()


def test_program_that_restarts_all_the_time_does_not_leave_files(tmp_path: Path) -> None:
    """A crash loop without a network appends to the last file again."""
    for i in range(20):
        spool = open_spool(tmp_path, sync_file=Syncs())
        record(spool, 1, first=i)
        spool.close()

    assert len(list(tmp_path.glob("readings-*"))) == 1
    spool = open_spool(tmp_path)
    assert values(drain(spool)) == [float(i) for i in range(20)]
    spool.close()


def test_instants_of_the_last_run_are_not_given_again(tmp_path: Path) -> None:
    """A clock that went back between two runs does not make two readings share an instant."""
    spool = open_spool(tmp_path)
    spool.record([("t", 1.0)], None, T)
    hub = drain(spool)
    spool.close()

    spool = open_spool(tmp_path)
    spool.record([("t", 2.0)], None, T)

    assert [r.time_ns for r in drain(spool, hub).readings] == [T, T + 1]
    spool.close()


# --- a disk that fails ------------------------------------------------------------------------


def test_full_disk_never_makes_record_raise(tmp_path: Path) -> None:
    """Readings wait in memory up to a cap, the rest is dropped and declared, order is kept; space heals it."""
    spool = open_spool(tmp_path)
    record(spool, 10)
    produced = 10 + HELD_READINGS + 500
    with full_disk():
        record(spool, HELD_READINGS + 500, first=10)
        assert spool.cut() is None
        statistics = spool.statistics()
    record(spool, 10, first=produced)

    assert statistics.disk_error is not None
    assert "File too large" in statistics.disk_error
    assert (statistics.dropped, statistics.pending) == (500, 10 + HELD_READINGS)
    hub = drain(spool)
    assert values(hub) == [float(i) for i in (*range(10 + HELD_READINGS), *range(produced, produced + 10))]
    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("disk_full", 500)]
    assert spool.statistics().disk_error is None
    spool.close()


def test_spool_starts_on_a_full_disk(tmp_path: Path) -> None:
    """A device that boots with a full disk still runs; what it recorded before is not touched."""
    spool = open_spool(tmp_path)
    record(spool, 3)
    stream = spool.stream
    spool.close()
    with full_disk():
        spool = open_spool(tmp_path)
        record(spool, 2, first=3)
        assert spool.cut() is None
        assert spool.statistics().disk_error is not None

    assert spool.stream == stream
    assert values(drain(spool)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    spool.close()


def test_close_on_a_full_disk_does_not_raise(tmp_path: Path) -> None:
    """What only memory held is gone then; the files stay readable."""
    spool = open_spool(tmp_path)
    record(spool, 3)
    with full_disk():
        record(spool, 2, first=3)
        spool.close()

    spool = open_spool(tmp_path)
    assert values(drain(spool)) == [0.0, 1.0, 2.0]
    spool.close()


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


def test_closed_spool_refuses_steps_and_forgives_sync(tmp_path: Path) -> None:
    """A late background `sync` is harmless; a cut after close is a mistake."""
    spool = open_spool(tmp_path)
    spool.close()

    spool.sync()

    steps: list[Callable[[], object]] = [
        spool.cut,
        lambda: spool.restart(None),
        lambda: spool.declare(Channel("t")),
        lambda: spool.acknowledge(0, bytes(16), "p"),
    ]
    for step in steps:
        with pytest.raises(MisuseError):
            step()


def _ends(data: bytes, name: str) -> list[int]:
    number = int("".join(c for c in name if c.isdigit()))
    return [end for _, end in Scan(data, seed_of(number))]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_new_state_file_never_tells_a_loss_without_its_drop(tmp_path: Path) -> None:
    """Killed after any drop, also one that began the state anew, a full spool finds no damage and counts exactly."""
    spool = open_spool(tmp_path / "spool", max_bytes=MIN_LIMIT_BYTES)
    dropped = produced = copies = 0
    while dropped < 25_000:
        record(spool, 64, produced)
        produced += 64
        if spool.statistics().dropped != dropped:
            dropped, copies = spool.statistics().dropped, copies + 1
            shutil.copytree(tmp_path / "spool", tmp_path / f"copy-{copies}")
            again = open_spool(tmp_path / f"copy-{copies}", max_bytes=MIN_LIMIT_BYTES)
            found = again.statistics()
            again.close()
            assert (found.damaged, found.dropped, found.dropped + found.unnumbered) == (0, dropped, produced)
            shutil.rmtree(tmp_path / f"copy-{copies}")
    spool.close()


# --- thinning and lanes, killed at every durable step -----------------------------------------


class Witness:
    """Stands in for fsync: before each, copies the directory as a kill would leave it, and as a power cut would."""

    def __init__(self, path: Path, copies: Path) -> None:
        self.path = path
        self.copies = copies
        self.produced = self.safe = self.count = 0
        self.is_watching = False
        self._synced: dict[str, int] = {}

    def __call__(self, fd: int) -> None:
        if self.is_watching:
            self.count += 1
            for kind in ("kill", "cut"):
                shutil.copytree(self.path, self.copies / f"{kind}-{self.count:03d}-{self.produced}-{self.safe}")
            for file in (self.copies / f"cut-{self.count:03d}-{self.produced}-{self.safe}").glob("*.log"):
                os.truncate(file, min(file.stat().st_size, self._synced.get(file.name, 0)))
        same = next((p for p in self.path.iterdir() if os.path.samestat(p.stat(), os.fstat(fd))), None)
        if same is not None:
            self._synced[same.name] = same.stat().st_size


def watched(path: Path, *, max_bytes: int = 64_000_000) -> tuple[FileSpool, Witness]:
    (path / "copies").mkdir()
    witness = Witness(path / "spool", path / "copies")
    return open_spool(path / "spool", sync_file=witness, max_bytes=max_bytes, when_full="thin"), witness


def after_kills(witness: Witness, *, max_bytes: int = 64_000_000) -> Iterator[tuple[int, FileSpool]]:
    """Open each copy a kill left; yield how many readings were recorded by then, and the spool."""
    for copy in sorted(witness.copies.glob("kill-*")):
        spool = open_spool(copy, max_bytes=max_bytes, when_full="thin")
        yield int(copy.name.split("-")[2]), spool
        spool.close()
        shutil.rmtree(copy)


def test_kill_while_thinning_neither_doubles_nor_loses(tmp_path: Path) -> None:
    """Before the copy is durable, before the event is, before the old files go: one of the two stands, exactly."""
    spool, witness = watched(tmp_path, max_bytes=MIN_LIMIT_BYTES)
    record(spool, 5_200)
    spool.sync()
    witness.is_watching = True
    for first in range(5_200, 6_400, 100):
        record(spool, 100, first)
        witness.produced = first + 100
        spool.sync()
    spool.close()

    assert witness.count > 15
    thinned = 0
    for produced, found in after_kills(witness, max_bytes=MIN_LIMIT_BYTES):
        hub = drain(found)
        statistics = found.statistics()
        # Between two steps of the test some of the next 100 readings are there already.
        assert len(set(values(hub))) == len(hub.readings)
        assert produced <= len(hub.readings) + statistics.dropped <= produced + 100
        assert (statistics.damaged, set(statistics.dropped_by) - {"thinned"}) == (0, set())
        assert sum(gap["count"] for gap in hub.gaps) == statistics.dropped
        thinned = max(thinned, statistics.dropped)
    assert thinned > 200


@pytest.mark.slow
def test_power_cut_while_thinning_takes_only_the_last_second(tmp_path: Path) -> None:
    """What was not fsynced is gone, files that were deleted too: every older reading is there or was left out."""
    spool, witness = watched(tmp_path, max_bytes=MIN_LIMIT_BYTES)
    for first in range(0, 4_500, 500):
        record(spool, 500, first)
        spool.sync()
    witness.safe = 4_500
    witness.is_watching = True
    for first in range(4_500, 6_500, 200):
        record(spool, 200, first)
        spool.sync()
        witness.safe = first + 200
    spool.close()

    for copy in sorted(tmp_path.glob("copies/cut-*")):
        found = open_spool(copy, boot="boot-2", max_bytes=MIN_LIMIT_BYTES, when_full="thin")
        hub = drain(found)
        found.close()
        there, safe = values(hub), int(copy.name.split("-")[3])
        declared = sum(gap["count"] for gap in hub.gaps if gap["reason"] == "thinned")
        assert len(set(there)) == len(there)
        assert safe - sum(value < safe for value in there) <= declared
        assert {gap["reason"] for gap in hub.gaps} <= {"power_cut", "thinned"}


def test_thinned_file_that_cannot_be_written_falls_back_to_dropping(tmp_path: Path) -> None:
    """A disk that fails while thinning costs declared readings, never an exception, and nothing stays behind."""
    sync = Syncs()
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES, when_full="thin", sync_file=sync)
    record(spool, 3_000)
    sync.is_failing = True
    record(spool, 5_000, first=3_000)
    sync.is_failing = False

    hub = drain(spool)

    statistics = spool.statistics()
    assert statistics.dropped_by["spool_full"] == statistics.dropped
    assert len(hub.readings) + statistics.dropped == 8_000
    assert list(tmp_path.glob("readings-*-*")) == []
    spool.close()


def test_damage_found_while_thinning_is_declared(tmp_path: Path) -> None:
    """A reading that cannot be read back is neither thinned nor silently gone."""
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES, when_full="thin")
    record(spool, 2_000)
    _flip(sorted(tmp_path.glob("readings-*"))[1], 1_000)
    record(spool, 6_000, first=2_000)

    hub = drain(spool)

    statistics = spool.statistics()
    assert len(hub.readings) + statistics.dropped + 1 == 8_000
    assert {gap["reason"]: gap["count"] for gap in hub.gaps} == {"thinned": statistics.dropped, "spool_damaged": 1}
    spool.close()


def test_lost_state_keeps_thinned_readings(tmp_path: Path) -> None:
    """Without its state a spool reads thinned files by their names."""
    spool = open_spool(tmp_path / "a", max_bytes=MIN_LIMIT_BYTES, when_full="thin")
    record(spool, 8_000)
    left = spool.statistics().unnumbered
    spool.close()
    for state in (tmp_path / "a").glob("state-*"):
        state.write_bytes(b"\x00" * 500)

    found = open_spool(tmp_path / "a", max_bytes=MIN_LIMIT_BYTES)

    assert len(list((tmp_path / "a").glob("readings-*-*"))) > 3
    assert len(drain(found).readings) == left
    found.close()


def test_kill_at_any_step_of_two_lanes_loses_nothing(tmp_path: Path) -> None:
    """Whatever was cut from which lane, another process finds each other reading once, and the lanes as they were."""
    spool, witness = watched(tmp_path)
    record(spool, 300)
    witness.is_watching = True
    for turn in range(8):
        first = 300 + 10 * turn
        if turn in (0, 4):
            assert spool.split()
        record(spool, 10, first)
        witness.produced = first + 10
        spool.cut(20, from_backlog=turn % 2 == 1)
        frames = spool.frames(0)
        if turn == 5:
            spool.acknowledge(3, frames[2].chain, "run.1")
    backlog = spool.backlog
    spool.close()

    lanes = []
    for produced, found in after_kills(witness):
        lanes.append(found.backlog)
        there = values(drain(found))
        gone = 300 + 10 * 8 if produced == 380 else produced
        assert len(set(there)) == len(there) >= produced - 60
        assert max(there) == gone - 1
        assert found.statistics().damaged == 0
    assert max(lanes) > 0
    assert lanes[-1] == backlog > 0


@pytest.mark.slow
def test_readings_of_a_long_outage_stay_bounded_in_files(tmp_path: Path) -> None:
    """Thinned neighbours are joined: the number of files does not grow with the length of the outage."""
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES, when_full="thin", sync_file=Syncs())
    record(spool, 150_000)

    assert len(list(tmp_path.glob("readings-*"))) < 80
    assert spool.statistics().dropped_by.keys() == {"thinned"}
    spool.close()
