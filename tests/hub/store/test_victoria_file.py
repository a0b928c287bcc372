"""What is kept beside a VictoriaMetrics outlives the hub, in whole transactions."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.store.base import Row
from hub.store.victoria_file import Beside, Ledger, VictoriaFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "victoria.sqlite3"


@pytest.fixture
def file(path: Path) -> Iterator[VictoriaFile]:
    """A new file."""
    file = VictoriaFile(path)
    yield file
    file.close()


def test_everything_outlives_a_restart(path: Path, file: VictoriaFile) -> None:
    """Position, name, ledgers with a value of each type, and readings beside are the same afterwards."""
    values: list[Value] = [1, 1.0, True, "on"]
    ledgers = [Ledger(number, 2, 5, 1, 0, 1, 3, 0, 7, 9_000_000, value) for number, value in enumerate(values, 1)]
    file.commit(12, ledgers, [Beside(1, 7, 2**60, False), Beside(1, 8, "x", True)])
    file.keep(9)
    file.close()

    again = VictoriaFile(path)

    assert (again.hub, again.sent, again.kept) == (file.hub, 12, 9)
    assert again.ledgers([4, 3, 2, 1, 9]) == {one.series: one for one in ledgers}
    assert [type(row.value) for row in again.latest([1, 2, 3, 4])] == [int, float, bool, str]
    assert list(again.beside([1], 7, 8)) == [Beside(1, 7, 2**60, False), Beside(1, 8, "x", True)]
    assert (again.count_alone([1]), again.count_beside([1], 8, 9), again.largest_series()) == ({1: 1}, 1, 4)
    again.close()


def test_backup_finds_its_position(path: Path, file: VictoriaFile) -> None:
    """`hub.backup` reads of each store's file how far it is: here, what the server has for certain."""
    file.commit(12, [], [])
    file.keep(9)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT applied FROM progress").fetchone() == (9,)


def test_two_files_have_two_names(file: VictoriaFile, tmp_path: Path) -> None:
    """Hubs that share a server do not see each other's readings, whose numbers are the same."""
    other = VictoriaFile(tmp_path / "other.sqlite3")

    assert other.hub != file.hub
    other.close()


def test_erase(file: VictoriaFile) -> None:
    """What is erased has no newest reading and nothing beside, and stays to be forgotten by the server."""
    file.commit(3, [Ledger(1, accepted=4, oldest_ms=1, newest_ns=MS, newest_value=1.0)], [Beside(1, 1, "x", True)])

    file.erase({1: 4})

    assert file.ledgers([1]) == {1: Ledger(1, accepted=4, erased=4, erased_at=3)}
    assert (file.latest([1]), file.count_alone([1]), file.erasing()) == ([], {}, [1])
    file.erased([1])
    assert file.erasing() == []


def test_rewind(file: VictoriaFile) -> None:
    """A rewind takes the position back, and with it what was kept and erased beyond."""
    file.commit(9, [Ledger(1, accepted=1, erased_at=8)], [])
    file.keep(7)

    file.rewind(5)

    assert (file.sent, file.kept, file.ledgers([1])[1].erased_at) == (5, 5, 5)


def test_latest_is_in_whole_milliseconds(file: VictoriaFile) -> None:
    """The newest reading has the time at which history shows it."""
    file.commit(1, [Ledger(1, accepted=1, newest_ns=MS + 1, newest_value=2.5)], [])

    assert file.latest([1]) == [Row(1, MS, 2.5)]
    assert file.totals()[0] == 1


def test_another_file_is_refused(tmp_path: Path) -> None:
    """What is no database is named, not overwritten."""
    other = tmp_path / "other"
    other.write_bytes(b"something else" * 100)

    with pytest.raises(StoreError, match="other"):
        VictoriaFile(other)


MS = 10**6
