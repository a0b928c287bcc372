"""The series of a journal can be read beside the hub that writes it."""

from pathlib import Path

import pytest

from device_sdk.reading import ValueType
from hub.errors import JournalError
from hub.journal.catalog import load_series
from hub.journal.sqlite import SqliteJournal
from hub.model import Series

SERIES = Series(3, "acme", "pump", "t", ValueType.FLOAT, "Cel", 1.0, -10.0, 40.0, "Öl")


def test_load_beside_a_running_hub(tmp_path: Path) -> None:
    """Loading sees what was committed, makes no run and disturbs nothing."""
    journal = SqliteJournal(tmp_path / "journal.sqlite3")
    journal.append([], [SERIES])

    assert load_series(tmp_path / "journal.sqlite3") == [SERIES]

    assert len(journal.runs()) == 1
    journal.close()
    assert load_series(tmp_path / "journal.sqlite3") == [SERIES]


def test_load_of_nothing_is_a_clear_error(tmp_path: Path) -> None:
    """A path without a journal names it and what to look at, and creates no file."""
    with pytest.raises(JournalError, match="data directory of a hub"):
        load_series(tmp_path / "journal.sqlite3")

    assert list(tmp_path.iterdir()) == []
