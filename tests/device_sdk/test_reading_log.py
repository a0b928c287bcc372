"""Un-numbered readings in segments: positions, the cache, reading back, dropping."""

from pathlib import Path

import pytest

from device_sdk.lane import CACHE_READINGS, Marks, Piece
from device_sdk.outbox import Entry
from device_sdk.reading_log import ReadingLog

T = 1_795_376_000_000_000_000


def make(path: Path, segment_bytes: int = 400, head: int = 0) -> ReadingLog:
    return ReadingLog(path, segment_bytes, Marks(head, []), last_ns=0)


def fill(log: ReadingLog, count: int, first: int = 0) -> list[Entry]:
    entries: list[Entry] = [("t", T + i, float(i)) for i in range(first, first + count)]
    for entry in entries:
        log.append([entry], T + first + count)
    return entries


def test_append_begins_a_new_file_beyond_the_size(tmp_path: Path) -> None:
    """Files are named by the position of their first byte, without a hole."""
    log = make(tmp_path)
    fill(log, 40)

    names = sorted(path.name for path in tmp_path.iterdir())

    assert len(names) == len(log.segments) > 2
    assert names == [f"readings-{segment.base:020d}.log" for segment in log.segments]
    bases = [segment.base for segment in log.segments]
    assert bases[1:] == [segment.end for segment in log.segments][:-1]
    assert log.bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) == log.end
    log.close()


def test_consume_moves_the_head_and_deletes_nothing_yet(tmp_path: Path) -> None:
    """A file goes only when the position behind it is durable elsewhere."""
    log = make(tmp_path)
    entries = fill(log, 40)
    files = len(log.segments)

    log.consume(35)

    assert (log.left, len(log.segments)) == (5, files)
    assert log.first(10) == entries[35:]
    assert log.oldest_ns() == T + 35
    log.delete_numbered(log.marks())
    assert len(log.segments) < files
    assert len(list(tmp_path.iterdir())) == len(log.segments)
    log.close()


def test_current_file_is_never_deleted(tmp_path: Path) -> None:
    """What is appended next must have a place."""
    log = make(tmp_path)
    fill(log, 3)
    log.consume(3)
    log.delete_numbered(log.marks())

    entries = fill(log, 1, first=3)

    assert log.first(9) == entries
    log.close()


def test_load_continues_at_the_head_in_the_last_file(tmp_path: Path) -> None:
    """Readings before the head are numbered already; the last file is appended to."""
    log = make(tmp_path)
    entries = fill(log, 20)
    head = log.marks_after(12).head
    log.close()

    found = make(tmp_path, head=head)
    files = len(found.segments)
    more = fill(found, 1, first=20)

    assert found.first(99) == entries[12:] + more
    assert (found.left, found.found_damage, found.is_missing) == (9, {}, False)
    assert len(found.segments) == files
    assert found.last_ns == T + 20
    found.close()


def test_load_does_not_append_behind_damage(tmp_path: Path) -> None:
    """A torn end stays as it is; the next reading goes into a new file."""
    log = make(tmp_path)
    entries = fill(log, 5)
    log.close()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-3])

    found = make(tmp_path)
    more = fill(found, 1, first=5)

    assert found.first(9) == entries[:4] + more
    assert found.found_damage == {0: 1}
    assert len(found.segments) == 2
    found.close()


def test_load_begins_behind_a_head_that_lies_past_the_end(tmp_path: Path) -> None:
    """A power cut took readings that a frame already holds: positions go on behind the head."""
    log = make(tmp_path)
    fill(log, 3)
    end = log.end
    log.close()

    found = make(tmp_path, head=end + 500)
    fill(found, 1)
    found.delete_numbered(found.marks())

    assert (found.left, found.segments[0].base, found.is_missing) == (1, end + 500, False)
    found.close()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """Only names that this log gives are read or deleted."""
    for name in ("readings-x.log", "notes.txt", "readings-²³.log"):
        (tmp_path / name).write_text("mine")

    log = make(tmp_path)
    fill(log, 1)
    log.close()

    assert {path.name for path in tmp_path.iterdir()} >= {"readings-x.log", "notes.txt", "readings-²³.log"}


def test_readings_beyond_the_cache_are_read_back_piece_by_piece(tmp_path: Path) -> None:
    """The cache is bounded; `next_piece` says what to read when it is empty."""
    log = make(tmp_path, segment_bytes=100_000)
    entries = [("t", T + i, float(i)) for i in range(CACHE_READINGS + 500)]
    for at in range(0, len(entries), 500):
        log.append(entries[at : at + 500], T + len(entries))

    assert log.next_piece() is None
    assert len(log.first(10**6)) == CACHE_READINGS
    log.consume(CACHE_READINGS)
    assert log.first(1) == []
    while (piece := log.next_piece()) is not None:
        assert log.install(piece, log.read(piece)) == 0

    assert log.first(10**6) == entries[CACHE_READINGS:]
    log.close()


def test_install_ignores_a_piece_that_was_dropped_meanwhile(tmp_path: Path) -> None:
    """Reading back happens without the lock; what `record` dropped in between stays dropped."""
    log = make(tmp_path, segment_bytes=100_000)
    entries = [("t", T + i, float(i)) for i in range(CACHE_READINGS + 10_000)]
    for at in range(0, len(entries), 500):
        log.append(entries[at : at + 500], T + len(entries))
    log.consume(CACHE_READINGS)
    log.delete_numbered(log.marks())
    piece = log.next_piece()
    assert isinstance(piece, Piece)
    found = log.read(piece)

    log.drop(log.to_drop())

    left = log.left
    assert log.install(piece, found) == 0
    assert (log.left, log.first(1)) == (left, [])
    log.close()


def test_drop_takes_the_oldest_file(tmp_path: Path) -> None:
    """All un-numbered readings of one file go together; the rest stays in order."""
    log = make(tmp_path)
    entries = fill(log, 40)
    log.consume(2)

    piece = log.to_drop()
    found = log.read(piece)
    log.drop(piece)

    assert found.entries == entries[2 : 2 + piece.expected]
    assert log.first(99) == entries[2 + piece.expected :]
    assert log.left == 38 - piece.expected
    assert not piece.segment.path.exists()
    log.close()


def test_drop_of_the_only_file_begins_a_new_one(tmp_path: Path) -> None:
    """Even a spool with room for one file can drop."""
    log = make(tmp_path, segment_bytes=10_000)
    fill(log, 5)

    log.drop(log.to_drop())

    assert (log.left, log.first(1), len(log.segments)) == (0, [], 1)
    assert log.first(9) == [] != fill(log, 2)
    assert log.left == len(log.first(9)) == 2
    log.close()


def test_start_deletes_nothing(tmp_path: Path) -> None:
    """What numbers the readings may not be on the medium yet: whoever fsyncs it deletes their files."""
    log = make(tmp_path)
    fill(log, 3)
    log.close()

    found = make(tmp_path, head=log.end)

    assert [path.name for path in tmp_path.iterdir()] == [found.segments[0].path.name]
    found.close()


def test_files_owe_an_fsync_until_it_is_done_or_they_are_gone(tmp_path: Path) -> None:
    """The one that is appended to always; a closed one until `synced`, and not when its readings were dropped."""
    log = make(tmp_path, segment_bytes=50)
    fill(log, 8)
    closed, current = log.owed()
    assert [*closed, current] == list(log.segments)

    log.synced(closed[1])
    log.drop(log.to_drop())
    fill(log, 2, first=8)

    assert log.owed() == ([*closed[2:], current], log.segments[-1])
    log.close()


def test_suspect_file_is_closed_and_stands_until_its_copy_is_there(tmp_path: Path) -> None:
    """Nothing is added to it, and what it holds is read as before."""
    log = make(tmp_path)
    entries = fill(log, 2)
    suspect = log.segments[0]

    log.distrust(suspect)
    fill(log, 1, first=2)

    assert log.suspect() is suspect
    assert log.owed() == ([], log.segments[1])
    copy = tmp_path / "readings-x.copy"
    copy.write_bytes(suspect.path.read_bytes())
    log.renewed(suspect, copy)
    assert log.suspect() is None
    assert log.read(Piece(log.lanes[0], suspect, 0, suspect.end, 2)).entries == entries
    assert not copy.exists()
    log.close()


def test_copy_of_a_file_that_was_dropped_meanwhile_goes_too(tmp_path: Path) -> None:
    """It must not bring its readings back."""
    log = make(tmp_path)
    fill(log, 1)
    suspect = log.segments[0]
    log.distrust(suspect)
    copy = tmp_path / "readings-x.copy"
    copy.write_bytes(suspect.path.read_bytes())

    log.drop(log.to_drop())
    log.renewed(suspect, copy)

    assert list(tmp_path.iterdir()) == []
    log.close()


def test_copy_that_a_kill_left_is_deleted_by_the_next_start(tmp_path: Path) -> None:
    """It stands for nothing that is not there; a copy of something else is left alone."""
    (tmp_path / "readings-00000000000000000000.copy").write_bytes(b"half")
    (tmp_path / "notes.copy").write_bytes(b"mine")

    make(tmp_path).close()

    assert [path.name for path in tmp_path.iterdir()] == ["notes.copy"]


@pytest.mark.parametrize("time_ns", [T + 10**18], ids=["in 30 years"])
def test_future_time_does_not_move_the_last_instant(tmp_path: Path, time_ns: int) -> None:
    """Neither now nor after a restart."""
    log = make(tmp_path)
    log.append([("t", T, 1.0)], T)
    log.append([("t", time_ns, 1.0)], T)
    assert log.last_ns == T
    log.close()

    found = make(tmp_path)

    assert found.last_ns == T
    found.close()
