"""A file whose disk failed is replaced by a fresh copy, whole at any instant, before anything is opened on it."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import DiskFailedError, JournalError
from hub.journal.sqlite import SqliteJournal
from hub.renewal import mark_suspect, renew_if_suspect
from tests.support.frames import T0, FrameMaker

FILE = "journal.sqlite3"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of five frames whose hub was killed: the last ones are in its log only."""
    maker = FrameMaker()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with closing(SqliteJournal(tmp_path / "a" / FILE)) as journal:
        for n in range(5):
            journal.append([maker.one("pump", float(n), T0 + n)], maker.all_series())
        for name in (FILE, FILE + "-wal"):
            shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
    shutil.rmtree(tmp_path / "a")
    return tmp_path / "b" / FILE


def values(path: Path) -> list[float]:
    """Return what the journal on the file holds."""
    with closing(SqliteJournal(path)) as journal:
        return [value for frame in journal.read(0, 10**6) for _, _, value in frame.rows()]  # type: ignore[misc]


def test_file_without_a_mark_is_left_alone(path: Path) -> None:
    """No copy is made of a file whose disk never failed."""
    before = path.stat().st_ino

    assert not renew_if_suspect(path)
    assert path.stat().st_ino == before


def test_marked_file_is_replaced_by_a_copy_of_all_it_held(path: Path) -> None:
    """New blocks, everything of file and log in it, the mode kept, nothing left beside it, and only once."""
    path.chmod(0o600)
    before = path.stat().st_ino
    mark_suspect(path)

    assert renew_if_suspect(path)

    assert path.stat().st_ino != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [FILE]
    assert not renew_if_suspect(path)
    assert values(path) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_kill_at_any_instant_loses_nothing(path: Path, tmp_path: Path) -> None:
    """Whatever of the renewal's steps had happened, the next start ends with the same content."""
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(tmp_path / "copy")) as target:
        source.backup(target)
    for step in ("half a copy", "copy has its name", "log is gone", "file is replaced"):
        folder = tmp_path / step
        shutil.copytree(path.parent, folder)
        file = folder / FILE
        mark_suspect(file)
        match step:
            case "half a copy":
                (folder / (FILE + "-fresh")).write_bytes((tmp_path / "copy").read_bytes()[:5000])
            case "copy has its name":
                shutil.copy(tmp_path / "copy", folder / (FILE + "-renewed"))
            case "log is gone":
                shutil.copy(tmp_path / "copy", folder / (FILE + "-renewed"))
                (folder / (FILE + "-wal")).unlink()
            case "file is replaced":
                shutil.copy(tmp_path / "copy", file)
                (folder / (FILE + "-wal")).unlink()

        assert renew_if_suspect(file), step
        assert os.listdir(folder) == [FILE], step
        assert values(file) == [0.0, 1.0, 2.0, 3.0, 4.0], step


def test_damaged_file_is_not_replaced(path: Path) -> None:
    """A copy that does not pass the check takes nobody's place: the file, its log and the mark stay."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096)
        file.write(b"\xff" * 4096)
    (path.parent / (FILE + "-wal")).unlink()
    mark_suspect(path)
    before = path.read_bytes()

    with pytest.raises((JournalError, DiskFailedError)):
        renew_if_suspect(path)

    assert path.read_bytes() == before
    assert (path.parent / (FILE + "-suspect")).exists()


def test_mark_without_a_file_is_taken_away(tmp_path: Path) -> None:
    """A disk that failed before there was anything: the next start begins anew."""
    mark_suspect(tmp_path / FILE)

    assert renew_if_suspect(tmp_path / FILE)
    assert os.listdir(tmp_path) == []


def test_mark_on_a_disk_that_takes_none_is_kept_by_the_process(path: Path) -> None:
    """The hub stops anyway, and a second error must not hide the first; the next start makes the copy all the same."""
    mark = path.with_name(FILE + "-suspect")
    mark.symlink_to(path.parent / "gone" / "nowhere")
    before = path.stat().st_ino

    mark_suspect(path)

    assert not mark.exists()
    assert renew_if_suspect(path)
    assert path.stat().st_ino != before
    assert not renew_if_suspect(path)
