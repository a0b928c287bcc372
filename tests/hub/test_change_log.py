"""`hub.change_log`: what is written stays, is bounded, and holds no secret."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.change_log import CHANGES, KEEP_NS, MAX_REFUSALS, ChangeLog, Cut, Entry, Filter, as_text, redacted
from hub.errors import UnavailableError


class Clock:
    """Wall time of the test, in ns."""

    def __init__(self) -> None:
        self.ns = 10**18

    def __call__(self) -> int:
        """Return the time."""
        return self.ns


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[ChangeLog]:
    """An empty log."""
    log = ChangeLog(tmp_path / CHANGES, clock=clock)
    yield log
    log.close()


def test_entries_are_newest_first_of_one_namespace_and_filtered(log: ChangeLog, clock: Clock) -> None:
    """Paged by id, filtered by who, what, target and time; another namespace's are not there."""
    for number in range(4):
        clock.ns += 1
        log.record(Entry("POST /v1/devices", f"pump-{number}", who="anna", credential="u1"))
    log.record(Entry("DELETE /v1/devices/{device}", "pump-1", who="berta", namespace="north"))

    found = log.entries("default", 2)

    assert [e.target for e in found] == ["pump-3", "pump-2"]
    assert [e.target for e in log.entries("default", 9, Filter(before=found[-1].id))] == ["pump-1", "pump-0"]
    assert [e.target for e in log.entries("default", 9, Filter(after=found[-1].id))] == ["pump-3"]
    assert [e.target for e in log.entries("default", 9, Filter(who="u1", target="-1"))] == ["pump-1"]
    assert log.entries("default", 9, Filter(what="DELETE")) == []
    assert len(log.entries("default", 9, Filter(since_ns=clock.ns))) == 1


def test_rows_are_never_altered(log: ChangeLog, tmp_path: Path) -> None:
    """The file itself refuses to change a row; it is private."""
    log.record(Entry("POST /v1/users", "anna"))
    database = sqlite3.connect(tmp_path / CHANGES)

    with pytest.raises(sqlite3.IntegrityError, match="never altered"):
        database.execute("UPDATE entry SET who = 'somebody else'")

    database.close()
    assert (tmp_path / CHANGES).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_refusals_are_counted_and_bounded(log: ChangeLog) -> None:
    """Refusals alike are one row; of more than a thousand kinds the rest is one row too; no count is lost."""
    for number in range(MAX_REFUSALS + 50):
        log.refused(Entry("sign in", outcome="unauthenticated", peer=f"host-{number}"))
    log.refused(Entry("sign in", outcome="unauthenticated", peer="host-0"))
    assert log.entries("default", 9) == []

    log.flush()

    found = log.entries("default", 5000)
    assert sum(e.count for e in found) == MAX_REFUSALS + 51
    assert {e.peer: e.count for e in found}["host-0"] == 2
    assert len(found) == MAX_REFUSALS + 1


@pytest.mark.slow
def test_strangers_hide_no_alarm(log: ChangeLog) -> None:
    """However many kinds of refusals they make, what devices and people with a credential did is told in full."""
    for number in range(2 * MAX_REFUSALS):
        log.refused(Entry("connect /v1/device", outcome="unauthenticated", peer=f"host-{number}"))

    log.refused(Entry("alarm", "pump", "cloned_key", who="pump"))
    log.flush()

    assert [e.target for e in log.entries("default", 9, Filter(what="alarm"))] == ["pump"]
    assert sum(e.count for e in log.entries("default", 5000)) == 2 * MAX_REFUSALS + 1


def test_cut_is_named(log: ChangeLog, clock: Clock) -> None:
    """What is older than a year goes, and the log says how much and up to when, each namespace its own."""
    log.record(Entry("old"))
    log.record(Entry("old", namespace="north"))
    begun = clock.ns
    clock.ns += KEEP_NS + 1
    log.record(Entry("new"))

    log.flush()

    assert [e.what for e in log.entries("default", 9)] == ["new"]
    assert (log.cut("default"), log.cut("north"), log.cut("south")) == (Cut(1, begun), Cut(1, begun), None)


def test_size_is_bounded(tmp_path: Path) -> None:
    """More rows than the limit: the oldest go."""
    log = ChangeLog(tmp_path / "small.sqlite3", max_entries=3)
    for number in range(5):
        log.record(Entry(f"change {number}"))

    log.flush()

    assert [e.what for e in log.entries("default", 9)] == ["change 4", "change 3", "change 2"]
    log.close()


def test_listener_hears_what_is_written(log: ChangeLog) -> None:
    """Whoever listens gets each entry with its id, once it is durable."""
    heard: list[Entry] = []
    log.listen(heard.append)

    written = log.record(Entry("POST /v1/tokens"))

    assert heard == [written] == log.entries("default", 1)


def test_secret_of_a_token_is_left_out() -> None:
    """A token where a name belongs is written as its id; control characters and length are bounded."""
    token = "d0123456789ab." + "x" * 43

    assert redacted(f"device {token} moved") == "device d0123456789ab.… moved"
    assert redacted("a\x1b[31m\n") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"
    assert len(redacted("y" * 10_000)) == 200


def test_refusals_wait_for_no_disk(log: ChangeLog, tmp_path: Path) -> None:
    """They are counted on the event loop, also while a row waits for another process that holds the file."""
    other = sqlite3.connect(tmp_path / CHANGES, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=log.record, args=(Entry("POST /v1/users"),))
    writer.start()
    try:
        deadline = time.monotonic() + 5
        while log._lock.acquire(blocking=False):
            log._lock.release()
            assert time.monotonic() < deadline, "the row is not being written"
        began = time.monotonic()
        log.refused(Entry("sign in", outcome="401"))
        assert time.monotonic() - began < 1
    finally:
        other.execute("ROLLBACK")
        writer.join()
        other.close()
    log.flush()

    assert [(e.what, e.count) for e in log.entries("default", 9)] == [("sign in", 1), ("POST /v1/users", 1)]


def test_refusals_are_written_once_though_the_cut_fails(tmp_path: Path, clock: Clock) -> None:
    """What was written is not counted again; what was not, is."""
    log = ChangeLog(tmp_path / CHANGES, clock=clock, max_entries=1)
    log.record(Entry("POST /v1/users"))
    with sqlite3.connect(tmp_path / CHANGES) as other:
        other.execute("CREATE TRIGGER stop BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'full'); END")
    other.close()
    log.refused(Entry("sign in", outcome="401"))

    for _ in range(2):
        with pytest.raises(UnavailableError):
            log.flush()

    assert sum(e.count for e in log.entries("default", 9) if e.what == "sign in") == 1
    log.close()


def test_entries_are_numbered_without_a_gap_in_each_namespace(log: ChangeLog, clock: Clock) -> None:
    """From 1, in the order of writing, whatever the clock says; no two of a namespace have the same time."""
    for number in range(5):
        clock.ns -= number % 2
        log.record(Entry(f"change {number}"))
        log.record(Entry(f"change {number}", namespace="north"))

    newest, seen = log.newest(0)
    found = log.numbered("default", 0, 99)
    assert (newest, seen) == ({"default": 5, "north": 5}, 10)
    assert log.newest(seen) == ({}, 10)
    assert log.newest(9)[0] == {"north": 5}
    assert [(n, json.loads(text)["what"]) for n, _, text in found] == [(n + 1, f"change {n}") for n in range(5)]
    assert len({time_ns for _, time_ns, _ in found}) == 5
    assert log.numbered("default", 3, 1) == found[3:4]
    assert [e.time_ns for e in reversed(log.entries("default", 9))] == [time_ns for _, time_ns, _ in found]


def test_numbers_go_on_behind_a_cut(log: ChangeLog, clock: Clock) -> None:
    """Also when all of a namespace was cut: a number is given once."""
    for _ in range(3):
        log.record(Entry("old"))
    clock.ns += KEEP_NS + 10
    log.flush()

    log.record(Entry("new"))

    assert [entry.number for entry in log.numbered("default", 0, 9)] == [4]


def test_number_of_an_entry_from_before_the_clock_was_set_is_not_given_again(log: ChangeLog, clock: Clock) -> None:
    """A machine without a clock battery writes in 1970: by its time the newest entry is the first to be cut."""
    log.record(Entry("with the right time"))
    right, clock.ns = clock.ns, 10**9
    log.record(Entry("at boot"))
    clock.ns = right + 1
    log.flush()

    log.record(Entry("after"))
    log.flush()

    assert [entry.number for entry in log.numbered("default", 0, 9)] == [1, 3]
    assert log.cut("default") == Cut(1, 10**9)


@pytest.mark.slow
def test_look_costs_the_same_however_long_the_log_is(log: ChangeLog) -> None:
    """It comes twice a second: it reads no entry that it has seen."""
    steps = []
    for number in range(2):
        log._write([Entry(f"change {number}") for number in range(1 + 2000 * number)])
        _, seen = log.newest(0)
        done: list[None] = []
        log._database.set_progress_handler(lambda done=done: done.append(None), 1)  # type: ignore[misc]
        log.newest(seen)
        log._database.set_progress_handler(None, 1)
        steps.append(len(done))

    assert 0 < steps[1] < steps[0] + 10


def test_log_has_a_name_that_stays_until_it_is_renamed(tmp_path: Path) -> None:
    """A file that begins anew is another stream; so is one that was renamed."""
    path = tmp_path / "one.sqlite3"
    log = ChangeLog(path)
    name = log.name
    log.close()
    again, other = ChangeLog(path), ChangeLog(tmp_path / "other.sqlite3")

    assert len(bytes.fromhex(name)) == 8
    assert again.name == name != other.name
    again.rename()
    assert again.name != name
    again.close()
    other.close()


def test_log_of_an_earlier_hub_is_numbered(tmp_path: Path) -> None:
    """Its entries keep what they say, and count what was cut before them."""
    path = tmp_path / CHANGES
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, namespace TEXT NOT NULL, who TEXT NOT NULL,
            role TEXT NOT NULL, credential TEXT NOT NULL, peer TEXT NOT NULL, what TEXT NOT NULL, target TEXT NOT NULL,
            outcome TEXT NOT NULL, count INTEGER NOT NULL
        );
        CREATE INDEX entry_by_namespace ON entry (namespace, id);
        CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'rows are never altered'); END;
        CREATE TABLE cut (namespace TEXT PRIMARY KEY, count INTEGER NOT NULL, until_ns INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO cut VALUES ('north', 7, 1);
        INSERT INTO entry VALUES (9, 5, 'north', 'anna', 'admin', 't1', '::1', 'POST', 'pump', 'ok', 1);
        INSERT INTO entry VALUES (10, 5, 'south', 'berta', 'admin', 't1', '::1', 'POST', 'pump', 'ok', 1);
        INSERT INTO entry VALUES (12, 6, 'north', 'carla', 'admin', 't1', '::1', 'POST', 'pump', 'ok', 2);
        PRAGMA user_version=1;
        """
    )
    database.close()

    log = ChangeLog(path)

    log.record(Entry("new", namespace="north"))
    assert [entry.number for entry in log.numbered("north", 0, 9)] == [8, 9, 10]
    assert [entry.number for entry in log.numbered("south", 0, 9)] == [1]
    assert [(e.who, e.id, e.count) for e in log.entries("north", 9)][1:] == [("carla", 12, 2), ("anna", 9, 1)]
    with pytest.raises(sqlite3.IntegrityError, match="never altered"):
        log._database.execute("UPDATE entry SET who = 'somebody else'")
    log.close()


@pytest.mark.parametrize("character", ["a", '"', "\\", "ä", "\N{SNOWMAN}", "\U0001f331"])
def test_entry_fits_a_reading(character: str) -> None:
    """However its texts are written, it is JSON of at most 1 KiB; what is shortened says so."""
    long = character * 200
    entry = Entry("POST /v1/devices/enrol", long, "unauthenticated", long, "operator", "t1", long, count=10**9)

    told = json.loads(as_text(entry))

    assert len(as_text(entry).encode()) <= 1024
    assert list(told) == ["who", "role", "what", "target", "outcome", "peer", "count"]
    assert (told["what"], told["role"], told["count"]) == ("POST /v1/devices/enrol", "operator", 10**9)
    assert told["target"] == long or (told["target"].endswith("…") and long.startswith(told["target"][:-1]))
