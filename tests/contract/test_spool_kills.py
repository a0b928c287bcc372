"""A spool in files, killed at every durable step while it thins, drops and keeps two lanes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.file_spool import FileSpool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_files import Syncs, flip, open_spool, record, values
from tests.support.spool_hub import drain


@pytest.mark.slow  # a copy of the spool opened at every drop
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


@pytest.mark.slow  # a copy of the spool opened at every step
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
    flip(sorted(tmp_path.glob("readings-*"))[1], 1_000)
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
