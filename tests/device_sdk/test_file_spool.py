"""What only files can do: kills, power cuts, bounds, full disks. More of it, and the contract: tests/contract."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_sdk.errors import MisuseError, SpoolError
from device_sdk.file_spool import HELD_READINGS
from device_sdk.lane import CACHE_READINGS
from device_sdk.outbox import Durability
from device_sdk.reading import Channel
from device_sdk.segment import encode_record, seed_of
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_files import Syncs, T, full_disk, open_spool, record, values
from tests.support.spool_hub import SpoolHub, drain

ROOT = Path(__file__).parents[2]

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
