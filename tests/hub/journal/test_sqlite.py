"""What only the SQLite journal has: pragmas, versions, failures of the disk, kill -9, space given back."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hub.errors import DiskFailedError, DiskFullError, JournalError
from hub.journal.sqlite import SCHEMA_VERSION, SqliteJournal
from hub.model import Frame, Mark, StreamKey
from hub.renewal import renew_if_suspect
from hub.store.embedded import EmbeddedStore
from tests.support.failing_disk import failing_disk
from tests.support.frames import T0, FrameMaker
from tests.support.memory_store import MemoryStore

FILE = "journal.sqlite3"


def test_run_id_comes_from_the_source(tmp_path: Path) -> None:
    """Run ids are drawn from the source given, and drawn again when one is taken."""
    draws = iter([b"\x00\x00\x00\x01", b"\x00\x00\x00\x01", b"\xab\xcd\xef\x01"])
    for expected in ("00000001", "abcdef01"):
        journal = SqliteJournal(tmp_path / FILE, random_bytes=lambda count: next(draws))
        assert journal.run.id == expected
        journal.close()


def test_newer_file_is_refused(tmp_path: Path) -> None:
    """A journal of a newer hub is refused with a clear message, never opened halfway."""
    SqliteJournal(tmp_path / FILE).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(JournalError, match="newer hub"):
        SqliteJournal(tmp_path / FILE)


def test_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """On a full disk nothing of the call is stored; smaller work and, after space came back, the same work succeed."""
    journal, maker = SqliteJournal(tmp_path / FILE, max_bytes=256 * 1024), FrameMaker()
    journal.append([maker.one("pump", 1.0)], maker.all_series())
    large = [maker.quarantined("door", bytes(200_000))]

    with pytest.raises(DiskFullError, match="disk is full"):
        journal.append(large, maker.all_series())

    assert (
        journal.head,
        large[0].offset,
        len(journal.account("default", None, 0).marks),
        journal.quarantine("default"),
    ) == (1, 0, 1, [])
    journal.append([maker.one("pump", 2.0)], [])
    journal.close()
    journal = SqliteJournal(tmp_path / FILE)
    journal.append(large, maker.all_series())
    assert [f.key.device for f in journal.read(0, 10**6)] == ["pump", "pump", "door"]
    journal.close()


@pytest.mark.privileged
def test_full_file_system_refuses_and_recovers(tmp_path: Path) -> None:
    """The same on a real full file system: `DiskFullError`, and after space came back everything is stored."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        journal, maker = SqliteJournal(disk / FILE), FrameMaker()
        filler = disk / "filler"
        filler.write_bytes(bytes(600_000))
        frames = [maker.quarantined("pump", os.urandom(100_000)) for _ in range(3)]
        with pytest.raises(DiskFullError):
            journal.append(frames, [])
        filler.unlink()

        journal.append(frames[:1], [])

        assert journal.read(0, 10**6) == frames[:1]
        journal.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("work", ["append", "trim", "delete"])
def test_failed_write_ends_the_journal_until_its_file_is_renewed(tmp_path: Path, work: str) -> None:
    """Whatever write failed, nothing more is taken, also when the disk works again; a fresh copy has all of before."""
    journal, maker = SqliteJournal(tmp_path / FILE, row_bytes=1), FrameMaker()
    kept = [maker.one("pump", 1.0), maker.quarantined("pump", bytes(50_000))]
    journal.append(kept, maker.all_series())
    lost = maker.one("pump", 2.0)
    do: dict[str, Callable[[], object]] = {
        "append": lambda: journal.append([lost], []),
        "trim": lambda: journal.trim(2),
        "delete": lambda: journal.delete_quarantined("default", 2),
    }

    with failing_disk(tmp_path / f"{FILE}-wal"), pytest.raises(DiskFailedError, match="undone"):
        do[work]()
    with pytest.raises(DiskFailedError, match="takes nothing more"):
        journal.append([lost], [])
    journal.close()
    assert renew_if_suspect(tmp_path / FILE)

    journal = SqliteJournal(tmp_path / FILE)
    assert [f.seq for f in journal.read(0, 10**6)] == [1, 2]
    journal.append([lost], [])
    journal.close()


def test_failed_read_of_a_mark_makes_the_file_suspect(tmp_path: Path) -> None:
    """A disk that cannot read back what it was given is not written to again before there is a fresh copy."""
    journal, frame = SqliteJournal(tmp_path / FILE), FrameMaker().one("pump", 1.0)
    journal.append([frame], [])
    os.truncate(tmp_path / f"{FILE}-wal", 0)

    with pytest.raises(DiskFailedError, match="failed a read"):
        journal.find_marks([frame.key])
    journal.close()

    assert (tmp_path / f"{FILE}-suspect").exists()


def test_mark_that_cannot_be_read_now_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    """A file that cannot be opened, as when too many are, may be readable the next time."""
    (tmp_path / "data").mkdir()
    journal, frame = SqliteJournal(tmp_path / "data" / FILE), FrameMaker().one("pump", 1.0)
    journal.append([frame], [])
    (tmp_path / "data").rename(tmp_path / "away")

    with pytest.raises(JournalError, match="cannot read") as failed:
        journal.find_marks([frame.key])
    (tmp_path / "away").rename(tmp_path / "data")

    assert not isinstance(failed.value, DiskFailedError)
    assert journal.find_marks([frame.key])[frame.key].stored == 1
    journal.close()
    assert not renew_if_suspect(tmp_path / "data" / FILE)


def test_second_writer_is_found_out(tmp_path: Path) -> None:
    """Two processes on one journal: the one that comes second to an offset stops; nothing is stored twice."""
    first, second = SqliteJournal(tmp_path / FILE), SqliteJournal(tmp_path / FILE)
    maker = FrameMaker()
    frame = maker.one("pump", 1.0)
    first.append([frame], maker.all_series())

    with pytest.raises(JournalError, match="another process"):
        second.append([FrameMaker().one("door", 2.0)], [])
    with pytest.raises(JournalError, match="takes nothing more: another process"):
        second.append([], maker.all_series())

    assert first.read(0, 10**6) == [frame]
    second.close()
    first.close()


def test_closed_journal_refuses(tmp_path: Path) -> None:
    """After close an append says so instead of failing somewhere inside."""
    journal = SqliteJournal(tmp_path / FILE)
    journal.close()

    with pytest.raises(JournalError, match="it is closed"):
        journal.append([FrameMaker().one("pump", 1.0)], [])


def test_registry_may_find_series(tmp_path: Path) -> None:
    """``find_series`` decides which objects readers get."""
    journal, maker = SqliteJournal(tmp_path / FILE), FrameMaker()
    journal.append([maker.one("pump", 1.0)], maker.all_series())
    other = FrameMaker()
    other.find("pump", "t")

    journal.find_series = other.series.get

    assert journal.read(0, 10**6)[0].columns[0].series is other.find("pump", "t")
    journal.close()


def test_readers_and_writer_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Threads that read while frames are appended and trimmed see a gapless order, or are told it expired."""
    journal, maker = SqliteJournal(tmp_path / FILE, row_bytes=2000), FrameMaker()
    frames = maker.many(4, 30, 5)
    journal.append(frames[:10], maker.all_series())
    seen: list[list[int]] = [[], []]

    def follow(offsets: list[int]) -> None:
        while not offsets or offsets[-1] < 120:
            offsets += [f.offset for f in journal.read(offsets[-1] if offsets else 0, 2000)]

    threads = [threading.Thread(target=follow, args=(offsets,)) for offsets in seen]
    for thread in threads:
        thread.start()
    for at in range(10, 120, 10):
        journal.append(frames[at : at + 10], [])
        journal.trim(min((offsets[-1] for offsets in seen if offsets), default=0) if all(seen) else 0)
    for thread in threads:
        thread.join(30)

    assert seen == [list(range(1, 121))] * 2
    journal.close()


def test_trimmed_space_is_given_back(tmp_path: Path) -> None:
    """After trimming most of a large journal the file shrinks; what stayed is whole."""
    journal, maker = SqliteJournal(tmp_path / FILE), FrameMaker()
    for _ in range(40):
        journal.append([maker.quarantined("pump", os.urandom(250_000))], [])
    connection = sqlite3.connect(tmp_path / FILE)
    before = connection.execute("PRAGMA page_count").fetchone()[0]

    journal.trim(40)
    after = connection.execute("PRAGMA page_count").fetchone()[0]

    connection.close()
    # The quarantine keeps its own copies: about half of the pages.
    assert after < before * 0.65
    assert [f.offset for f in journal.read(39, 10**6)] == [40]
    journal.close()


WRITER = """
import sys
from pathlib import Path
from hub.journal.sqlite import SqliteJournal
from tests.support.failing_disk import failing_disk
from tests.support.frames import FrameMaker

journal, maker = SqliteJournal(Path(sys.argv[1])), FrameMaker()
frames, at = maker.many(3, 400, 2), journal.head
while at < len(frames):
    group = frames[at : at + 1 + at % 7]
    journal.append(group, maker.all_series())
    at += len(group)
    sys.stdout.write(f"{journal.head}\\n")
    sys.stdout.flush()
sys.stdin.read()
"""


def write_and_kill(path: Path, commits: int) -> int:
    """Let a process append until it reported ``commits`` commits, kill it at once; return the last offset reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = [process.stdout.readline() for _ in range(commits)]
    process.send_signal(signal.SIGKILL)
    # What it reported until the signal arrived counts too; a last line may be torn.
    rest, _ = process.communicate(timeout=30)
    lines = [line for line in "".join([*reported, rest]).splitlines(keepends=True) if line.endswith("\n")]
    return int(lines[-1])


def marks_of(frames: list[Frame]) -> dict[StreamKey, tuple[int, int, bytes]]:
    """Return stored, accepted and the newest chain of each stream, from its frames alone."""
    found: dict[StreamKey, tuple[int, int, bytes]] = {}
    for frame in frames:
        _, accepted, _ = found.get(frame.key, (0, 0, b""))
        found[frame.key] = (frame.seq, accepted + frame.readings, frame.chain)
    return found


def test_kill_loses_nothing_reported(tmp_path: Path) -> None:
    """kill -9 at random moments: every reported offset is there, marks equal frames, a replay gives the same rows."""
    source = random.Random(11)
    expected = FrameMaker().many(3, 400, 2)
    frames: list[Frame] = []
    for _ in range(4):
        reported = write_and_kill(tmp_path / FILE, source.randrange(1, 40))

        journal = SqliteJournal(tmp_path / FILE)
        frames = journal.read(0, 10**9)
        marks = journal.find_marks({f.key for f in frames})
        journal.close()

        assert journal.head >= reported
        assert [f.offset for f in frames] == list(range(1, journal.head + 1))
        assert [(f.key, f.seq, f.body, f.chain) for f in frames] == [
            (f.key, f.seq, f.body, f.chain) for f in expected[: journal.head]
        ]
        assert {m.key: (m.stored, m.accepted, m.last_chain) for m in marks.values()} == marks_of(frames)
    once, twice = EmbeddedStore(tmp_path / "once"), MemoryStore()
    once.write(frames)
    for at in range(0, len(frames), 10):
        twice.write(frames[max(0, at - 5) : at + 10])
    assert list(once.dump([1, 2, 3], 0, 2**62)) == list(twice.dump([1, 2, 3], 0, 2**62))
    assert once.counters([1, 2, 3]) == twice.counters([1, 2, 3])
    once.close()


def test_marks_equal_the_sessions_rule_after_many_commits(tmp_path: Path) -> None:
    """Marks read from the file equal `Mark.advance` over the frames, however they were grouped (seed 3)."""
    source, maker = random.Random(3), FrameMaker()
    make: list[Callable[[int], Frame]] = [
        lambda i: maker.one("pump", 1.0, T0 + i),
        lambda i: maker.gap("pump", i),
        lambda i: maker.one("door", True, T0 + i, "open", stream="00000000000000ff"),
    ]
    frames = [source.choice(make)(i) for i in range(300)]
    journal, at = SqliteJournal(tmp_path / FILE), 0
    expected = {frame.key: Mark(frame.key) for frame in frames}
    for frame in frames:
        expected[frame.key].advance(frame)

    while at < len(frames):
        size = source.randrange(1, 40)
        journal.append(frames[at : at + size], maker.all_series())
        at += size

    assert journal.find_marks(expected) == expected
    journal.close()
