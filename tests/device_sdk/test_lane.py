"""Lanes: which readings wait where, what is deleted, and what memory holds of them."""

from pathlib import Path

import pytest

from device_sdk.lane import CACHE_READINGS, Lane, Marks
from device_sdk.outbox import MAX_LANES, Entry
from device_sdk.reading_file import rewrite
from device_sdk.reading_log import ReadingLog

T = 1_795_376_000_000_000_000


def make(path: Path, segment_bytes: int = 400, marks: Marks | None = None) -> ReadingLog:
    return ReadingLog(path, segment_bytes, marks or Marks(0, []), last_ns=0)


def fill(log: ReadingLog, count: int, first: int = 0) -> list[Entry]:
    entries: list[Entry] = [("t", T + i, float(i)) for i in range(first, first + count)]
    for entry in entries:
        log.append([entry], T + first + count)
    return entries


def take(log: ReadingLog, count: int, lane: Lane) -> list[Entry]:
    """Take readings of one lane as a cut does."""
    while (piece := log.next_piece(lane)) is not None:
        assert log.install(piece, log.read(piece)) == 0
    entries = log.first(count, lane)
    marks = log.marks_after(len(entries), lane)
    log.consume(len(entries), lane)
    assert log.marks() == marks, "what the event said is what is"
    log.delete_numbered(marks)
    return entries


def test_split_gives_new_readings_a_lane_of_their_own(tmp_path: Path) -> None:
    """Its border lies between two files; the open lane is cut first, then the oldest."""
    log = make(tmp_path)
    old = fill(log, 30)
    assert log.split()
    new = fill(log, 5, first=30)

    assert (log.backlog, log.left) == (30, 35)
    assert take(log, 3, log.next_lane()) == new[:3]
    assert take(log, 10, log.next_lane(from_backlog=True)) == old[:10]
    assert take(log, 9, log.next_lane()) == new[3:]
    assert log.next_lane() is log.lanes[0]
    assert take(log, 99, log.next_lane()) == old[10:]
    assert (len(log.lanes), log.left, len(list(tmp_path.iterdir()))) == (1, 0, 1)
    log.close()


def test_files_of_a_lane_go_while_older_ones_stay(tmp_path: Path) -> None:
    """A live lane that runs for days beside a backlog does not keep its files."""
    log = make(tmp_path)
    fill(log, 20)
    log.split()
    before = len(list(tmp_path.iterdir()))
    for turn in range(20):
        fill(log, 20, first=20 + 20 * turn)
        take(log, 99, log.next_lane())

    assert len(list(tmp_path.iterdir())) <= before + 3
    assert log.backlog == 20
    log.close()


def test_a_restart_finds_the_lanes_as_the_marks_say(tmp_path: Path) -> None:
    """Files that are gone between two lanes are no loss."""
    log = make(tmp_path)
    old = fill(log, 30)
    log.split()
    fill(log, 40, first=30)
    take(log, 35, log.next_lane())
    take(log, 7, log.next_lane(from_backlog=True))
    marks = log.marks()
    log.close()

    found = make(tmp_path, marks=marks)

    assert (found.is_missing, found.found_damage, found.left, found.backlog) == (False, {}, 28, 23)
    assert found.oldest_ns() == T + 7
    assert [e[2] for e in take(found, 99, found.next_lane())] == [65.0, 66.0, 67.0, 68.0, 69.0]
    assert take(found, 99, found.next_lane()) == old[7:]
    found.close()


def test_a_missing_file_of_the_backlog_is_noticed(tmp_path: Path) -> None:
    """A hole inside a lane is a loss, as it is without lanes."""
    log = make(tmp_path)
    fill(log, 40)
    log.split()
    fill(log, 5, first=40)
    marks = log.marks()
    log.close()
    sorted(tmp_path.iterdir())[1].unlink()

    found = make(tmp_path, marks=marks)

    assert found.is_missing
    found.close()


def test_split_is_refused_without_readings_and_beyond_the_bound(tmp_path: Path) -> None:
    """Empty lanes are useless, and a link that flaps must not add files and state without end."""
    log = make(tmp_path)
    assert not log.split()

    splits = 0
    for first in range(20):
        fill(log, 1, first)
        splits += log.split()

    assert splits == MAX_LANES - 1
    assert len(log.lanes) == MAX_LANES
    log.close()


def test_given_times_hold_a_split_back_until_they_are_numbered(tmp_path: Path) -> None:
    """Exactly while this process runs; after a restart for as long as their file has readings left."""
    log = make(tmp_path, segment_bytes=10_000)
    fill(log, 2)
    log.append([("t", T + 2, 2.0)], T + 9, is_explicit=True)
    fill(log, 1, first=3)
    assert len(log.segments) == 2, "the header of its file says so"
    assert not log.split()
    marks = log.marks_after(3)
    log.consume(3)
    assert log.split()
    log.close()

    found = make(tmp_path, 10_000, marks)
    assert not found.split()
    found.close()


def test_memory_holds_two_caches_at_most(tmp_path: Path) -> None:
    """The oldest lane and the open one keep readings in memory; those between wait on disk."""
    log = make(tmp_path, segment_bytes=100_000)
    for lane in range(4):
        fill(log, 500, first=500 * lane)
        log.split()
    fill(log, 10, first=2_000)

    assert [len(lane.cache) for lane in log.lanes] == [500, 0, 0, 0, 10]
    assert CACHE_READINGS >= 500
    values = [e[2] for _ in range(5) for e in take(log, 500, log.next_lane())]
    assert values == [*(float(i) for i in range(2_000, 2_010)), *(float(i) for i in range(2_000))]
    log.close()


def test_a_replaced_file_counts_until_it_is_deleted(tmp_path: Path) -> None:
    """The limit is about the disk; memory lets go of what was thinned and reads it back."""
    log = make(tmp_path)
    entries = fill(log, 40)
    sources = log.to_thin()
    made = rewrite(tmp_path, sources, lambda fd: None)
    assert made is not None
    gone = len(made.dropped)

    log.replace(sources, made)

    assert log.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (log.left, log.first(1)) == (40 - gone, [])
    assert log.oldest_ns() == T + 1
    log.delete_replaced(log.replaced_count)
    assert log.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    values = [entry for _ in range(len(log.segments)) for entry in take(log, 99, log.next_lane())]
    assert values == [entry for entry in entries if entry not in made.dropped]
    log.close()


@pytest.mark.parametrize("taken", [1, 5])
def test_a_file_that_is_partly_numbered_is_not_thinned(tmp_path: Path, taken: int) -> None:
    """Positions in it are in the state log already."""
    log = make(tmp_path)
    fill(log, 40)
    first = log.segments[0]
    log.consume(taken)

    assert first not in log.to_thin()
    log.close()
