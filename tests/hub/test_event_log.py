"""The outbox of events: numbered without a gap, notes in the same transaction, bounded."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import UnavailableError
from hub.event_log import EVENTS, KEEP_NS, Event, EventLog, EventSource, Note, open_events
from hub.system_entry import SystemEntry

T0 = 1_790_000_000_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """An empty file."""
    with closing(EventLog(tmp_path / EVENTS, clock=lambda: T0, max_entries=5)) as log:
        yield log


def test_entries_are_numbered_in_each_channel_and_namespace(log: EventLog) -> None:
    """From 1, without a gap, on a stream of their own; the feed finds what is behind a place."""
    log.write("presence", [Event("default", T0, "a"), Event("north", T0, "b"), Event("default", T0 + 9, "c")])
    log.write("gaps", [Event("default", T0, "d")])
    presence, gaps = EventSource(log, "presence"), EventSource(log, "gaps")
    newest, place = presence.newest(0)
    log.write("presence", [Event("default", T0 + 10, "e")])

    assert newest == {"default": 2, "north": 1}
    assert presence.newest(place)[0] == {"default": 3}
    assert presence.numbered("default", 1, 9) == [SystemEntry(2, T0 + 9, "c"), SystemEntry(3, T0 + 10, "e")]
    assert [entry.text for entry in presence.numbered("default", 0, 1)] == ["a"]
    assert [entry.number for entry in gaps.numbered("default", 0, 9)] == [1]
    assert len({presence.name, gaps.name}) == 2
    assert presence.name == EventSource(log, "presence").name
    old = presence.name
    presence.rename()
    assert presence.name == EventSource(log, "presence").name != old


def test_no_two_entries_have_the_same_time(log: EventLog) -> None:
    """As readings of one series they would be one: a thousand of one moment get a ns each."""
    log.write("gaps", [Event("default", T0, "x")])

    log.write("gaps", [Event("default", T0, "x")] * 1000)

    assert [entry.time_ns for entry in log.numbered("gaps", "default", 0, 2000)] == list(range(T0, T0 + 1001))


def test_notes_are_written_with_entries_or_not_at_all(log: EventLog, tmp_path: Path) -> None:
    """A write that fails leaves neither; a note without a value is one that is no more."""
    log.write("presence", [Event("default", T0, "a")], [Note("default", "pump", 5), Note("default", "tank", 6)])
    broken = Event("default", T0, None)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=EVENTS):
        log.write("presence", [Event("default", T0, "b"), broken], [Note("default", "pump", 7)])
    log.write("presence", [], [Note("default", "tank", None)])
    log.close()

    with closing(EventLog(tmp_path / EVENTS)) as again:
        assert again.notes("presence") == {("default", "pump"): 5}
        assert (again.note("presence", "default", "pump"), again.note("presence", "default", "x")) == (5, 0)
        assert again.note("gaps", "default", "pump") == 0
        assert [entry.text for entry in again.numbered("presence", "default", 0, 9)] == ["a"]


def test_listener_hears_of_durable_entries(log: EventLog) -> None:
    """Of its channel, when there are some."""
    heard: list[int] = []
    log.listen("gaps", lambda: heard.append(len(log.numbered("gaps", "default", 0, 9))))

    log.write("gaps", [Event("default", T0, "a")])
    log.write("gaps", [], [Note("", "offset", 1)])
    log.write("presence", [Event("default", T0, "a")])

    assert heard == [1]


def test_old_and_surplus_entries_are_cut_and_numbers_go_on(log: EventLog) -> None:
    """The newest of each channel and namespace stay, for 30 days; who asks for others finds a hole in the numbers."""
    log.write("gaps", [Event("default", T0 + n, str(n)) for n in range(1, 9)])
    log.write("presence", [Event("default", T0 - KEEP_NS - 1, "old")])
    log.write("presence", [Event("default", T0, "new")])
    log.cut()

    assert [entry.number for entry in log.numbered("gaps", "default", 0, 99)] == [4, 5, 6, 7, 8]
    assert log.numbered("presence", "default", 0, 99) == [SystemEntry(2, T0, "new")]


def test_newest_entry_stays_however_old_it_is(log: EventLog) -> None:
    """Alerts have the times of devices' clocks: were the newest cut, all before it would be told again as new."""
    log.write("alerts", [Event("default", T0, "now"), Event("default", T0 - 2 * KEEP_NS, "of a wrong clock")])
    log.write("alerts", [Event("north", T0 - 2 * KEEP_NS, "first"), Event("north", T0 - 2 * KEEP_NS, "last")])

    log.cut()

    assert log.newest("alerts", 0)[0] == {"default": 2, "north": 2}
    assert [entry.number for entry in log.numbered("alerts", "default", 0, 9)] == [1, 2], "no hole in between"
    assert [entry.text for entry in log.numbered("alerts", "north", 0, 9)] == ["last"]


def test_who_tells_a_quiet_channel_passes_over_the_others_once(log: EventLog) -> None:
    """Its place is behind what they said: a look each half second must not read all of it again."""
    log.write("presence", [Event("default", T0, "a"), Event("default", T0, "b")])

    newest, place = log.newest("alerts", 0)
    log.write("alerts", [Event("default", T0, "c")])

    assert (newest, place) == ({}, 2)
    assert log.newest("alerts", place) == ({"default": 1}, 3)


def test_entries_of_a_clock_that_stands_still_cost_as_others(log: EventLog) -> None:
    """Thousands have the same time: the next free ns is found without passing over each."""
    log.write("alerts", [Event("default", T0, "x")] * 5000)
    asked: list[str] = []
    log._database.set_trace_callback(asked.append)

    log.write("alerts", [Event("default", T0, "y")])
    log._database.set_trace_callback(None)

    assert len(asked) < 100
    assert log.numbered("alerts", "default", 5000, 9) == [SystemEntry(5001, T0 + 5000, "y")]


def test_file_is_private_and_says_what_is_wrong(tmp_path: Path) -> None:
    """Only its owner reads it; a file that cannot be used is named."""
    with closing(EventLog(tmp_path / EVENTS)) as log:
        assert (tmp_path / EVENTS).stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(tmp_path / EVENTS)) as other:
            other.execute("DROP TABLE note")
        with pytest.raises(UnavailableError, match="no such table"):
            log.notes("gaps")


def test_damaged_file_is_put_aside(tmp_path: Path) -> None:
    """The hub goes on with a new one; what is of a newer hub stays where it is, and is refused."""
    path = tmp_path / EVENTS
    path.write_bytes(b"no database " * 1000)
    with closing(open_events(path, time.time_ns)) as log:
        log.write("gaps", [Event("default", T0, "a")])
        log._database.execute("PRAGMA user_version=99")
    with pytest.raises(UnavailableError, match="newer hub"):
        open_events(path, time.time_ns)

    assert (tmp_path / f"{EVENTS}-damaged").read_bytes() == b"no database " * 1000
    assert path.exists()


def test_file_whose_notes_are_damaged_is_put_aside(tmp_path: Path) -> None:
    """It opens, and would then keep every start of the hub from what was told."""
    path = tmp_path / EVENTS
    with closing(EventLog(path)) as log:
        log.write("presence", [], [Note("default", f"device-{n}", n) for n in range(1000)])
        (root,) = log._database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'note'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with closing(open_events(path, time.time_ns)) as log:
        assert log.notes("presence") == {}

    assert (tmp_path / f"{EVENTS}-damaged").exists()
