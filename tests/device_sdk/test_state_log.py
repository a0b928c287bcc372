"""State files: each begins with a snapshot, older ones stay until the new one is on the medium."""

import os
from pathlib import Path

import pytest

from device_sdk.state_log import COMPLETE, HELD, RETAIN_S, SNAPSHOT, Event, StateLog

SNAP = [Event(SNAPSHOT, {"a": 1}), Event(HELD, {"seq": 1}, b"\x00body"), Event(COMPLETE, {})]


def numbers(path: Path) -> list[int]:
    return sorted(int(file.name[6:-4]) for file in path.glob("state-*.log"))


def sync(log: StateLog) -> None:
    unsynced = log.take_unsynced()
    os.close(unsynced.fd)
    log.synced(unsynced)


def test_empty_directory_holds_nothing(tmp_path: Path) -> None:
    """None, not an empty state: the spool is new."""
    assert StateLog(tmp_path).load() is None


def test_events_come_back_in_order(tmp_path: Path) -> None:
    """Snapshot, then what happened, bodies as they were."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    log.append(Event("frame", {"seq": 2, "name": "°C"}, b"\xff" * 9))
    log.close()

    loaded = StateLog(tmp_path).load()

    assert loaded is not None
    assert loaded.events == [*SNAP, Event("frame", {"seq": 2, "name": "°C"}, b"\xff" * 9)]
    assert (loaded.damaged, loaded.is_intact) == (0, True)


def test_append_before_begin_is_an_os_error(tmp_path: Path) -> None:
    """A state that could not be written at the start takes no events."""
    with pytest.raises(OSError, match="could not be written"):
        StateLog(tmp_path).append(Event("ack", {}))


def test_older_file_goes_when_the_new_one_is_synced(tmp_path: Path) -> None:
    """Until then a power cut may take the new one."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    sync(log)
    log.begin(SNAP)
    assert numbers(tmp_path) == [1, 2]
    assert log.bytes == 2 * log.snapshot_bytes

    assert log.take_unsynced().has_new_name
    sync(log)

    assert numbers(tmp_path) == [2]
    assert not log.take_unsynced().has_new_name
    log.close()


def test_file_that_was_never_synced_is_replaced_at_once(tmp_path: Path) -> None:
    """Files are bounded although nobody syncs: the synced one and the newest."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    sync(log)
    for _ in range(5):
        log.begin(SNAP)

    assert numbers(tmp_path) == [1, 6]
    log.close()


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_new_file_cut_short_falls_back_to_the_older_one(tmp_path: Path, keep: int) -> None:
    """Its snapshot is not whole, so it was never synced; this is no damage."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    sync(log)
    log.append(Event("ack", {"stored": 1}))
    log.begin([Event(SNAPSHOT, {"a": 2}), Event(COMPLETE, {})])
    log.close()
    os.truncate(tmp_path / "state-0000000002.log", keep)

    loaded = StateLog(tmp_path).load()

    assert loaded is not None
    assert loaded.events == [*SNAP, Event("ack", {"stored": 1})]
    assert (loaded.damaged, loaded.is_intact) == (0, True)


def test_damaged_only_file_gives_what_can_be_read(tmp_path: Path) -> None:
    """Without a whole snapshot the rest is still worth having."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    log.append(Event("ack", {"stored": 1}))
    log.close()
    path = tmp_path / "state-0000000001.log"
    path.write_bytes(b"\x00" * 20 + path.read_bytes()[20:])

    loaded = StateLog(tmp_path).load()

    assert loaded is not None
    assert loaded.events == [*SNAP[1:], Event("ack", {"stored": 1})]
    assert (loaded.damaged, loaded.is_intact) == (1, False)


def test_is_long_compares_with_the_snapshot(tmp_path: Path) -> None:
    """A new file is worth it when most of this one is history."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    assert not log.is_long(0)
    while not log.is_long(1_000):
        log.append(Event("ack", {"stored": 1}))

    assert log.bytes > 2 * log.snapshot_bytes + 1_000
    log.close()


def test_no_new_file_is_worth_it_while_this_one_is_fsynced(tmp_path: Path) -> None:
    """`begin` removes a file that was never fsynced: it must not be one whose fsync may be done already."""
    log = StateLog(tmp_path)
    log.begin(SNAP)
    for _ in range(10):
        log.append(Event("ack", {"stored": 1}))
    assert log.is_long(0)

    first = log.take_unsynced()
    assert not log.is_long(0)
    log.sync_failed()
    assert log.is_long(0)
    second = log.take_unsynced()
    assert not log.is_long(0)
    log.synced(second)
    assert log.is_long(0)

    for unsynced in (first, second):
        os.close(unsynced.fd)
    log.close()


def test_number_goes_on_behind_every_file_that_exists(tmp_path: Path) -> None:
    """An old file never hides behind a lower number."""
    (tmp_path / "state-0000000041.log").write_bytes(b"garbage")
    log = StateLog(tmp_path)

    log.begin(SNAP)

    assert numbers(tmp_path) == [41, 42]
    log.close()


def kept(path: Path) -> list[int]:
    return sorted(int(file.name[6:-4]) for file in path.glob("acked-*.log"))


def begin_files(log: StateLog, count: int) -> None:
    for _ in range(count):
        log.begin(SNAP)
        sync(log)


def test_file_that_goes_is_kept_for_its_acked_frames(tmp_path: Path) -> None:
    """Renamed, not written again; it is no state any more, and its events can be read beside those of the state."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    log.begin(SNAP)
    log.append(Event("frame", {"seq": 2}, b"body"))
    begin_files(log, 1)
    log.close()

    again = StateLog(tmp_path, retain_bytes=10**6)
    loaded = again.load()
    assert (numbers(tmp_path), kept(tmp_path)) == ([2], [1])
    assert loaded is not None
    assert loaded.events == SNAP
    assert [len(events) for events in again.kept_events()] == [4, 3]
    assert again.retained_bytes == (tmp_path / "acked-0000000001.log").stat().st_size


def test_oldest_kept_files_leave_beyond_the_limit(tmp_path: Path) -> None:
    """What is kept never passes ``retain_bytes``; numbers are not given twice."""
    log = StateLog(tmp_path, retain_bytes=500)
    begin_files(log, 12)

    assert log.retained_bytes <= 500
    assert kept(tmp_path) == list(range(12 - len(kept(tmp_path)), 12))
    assert numbers(tmp_path) == [12]
    log.close()
    reopened = StateLog(tmp_path, retain_bytes=500)
    reopened.begin(SNAP)
    assert numbers(tmp_path) == [12, 13]


def test_kept_files_a_day_older_than_the_newest_leave(tmp_path: Path) -> None:
    """A backup is made each night; what is older than a day before the newest is not wanted any more."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    begin_files(log, 3)
    old = (tmp_path / "acked-0000000001.log").stat().st_mtime - RETAIN_S - 60
    os.utime(tmp_path / "acked-0000000001.log", (old, old))

    again = StateLog(tmp_path, retain_bytes=10**6)
    again.load()
    begin_files(again, 2)

    assert kept(tmp_path) == [2, 3, 4]


def test_full_disk_takes_kept_files_first(tmp_path: Path) -> None:
    """They are acked: readings that are not come before them."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    begin_files(log, 3)

    assert log.free_space()
    assert kept(tmp_path) == [2]
    assert log.free_space()
    assert not log.free_space()
    assert log.retained_bytes == 0


def test_nothing_is_kept_any_more_when_nothing_may_be(tmp_path: Path) -> None:
    """Files that an earlier program kept leave with the next one that goes."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    begin_files(log, 3)
    log.close()

    again = StateLog(tmp_path, retain_bytes=0)
    again.load()
    begin_files(again, 1)

    assert kept(tmp_path) == []


def test_clock_that_was_never_set_gives_up_no_kept_file(tmp_path: Path) -> None:
    """Files from before the network came would be 50 years older than those after it."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    begin_files(log, 3)
    os.utime(tmp_path / "acked-0000000001.log", (60, 60))

    again = StateLog(tmp_path, retain_bytes=10**6)
    again.load()
    begin_files(again, 2)

    assert kept(tmp_path) == [1, 2, 3, 4]


def test_file_that_is_kept_while_the_others_are_read_is_read_too(tmp_path: Path) -> None:
    """A hub asks for acked frames while a new state file begins."""
    log = StateLog(tmp_path, retain_bytes=10**6)
    begin_files(log, 2)
    found = log.kept_events()

    first = next(found)
    begin_files(log, 1)

    assert [first, *found] == [SNAP, SNAP]
