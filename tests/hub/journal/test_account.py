"""The journal's account of a device: marks, losses, refusals and the tail, all of one position."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.database import ReadPool
from hub.journal.account import read_account
from hub.journal.base import JournalAccount, Losses
from hub.journal.sqlite import SqliteJournal
from hub.model import StreamKey
from tests.support.frames import STREAM, FrameMaker

PUMP, FAN = (StreamKey("default", device, STREAM) for device in ("pump", "fan"))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A journal with two devices: offsets 1 and 4 pump, 2 a gap, 3 fan, 5 a gap of unknown count."""
    path, maker = tmp_path / "journal.sqlite3", FrameMaker()
    journal = SqliteJournal(path, row_bytes=200)
    frames = [
        maker.one("pump", 1.0), maker.gap("pump", 2), maker.one("fan", 1.0), maker.one("pump", 2.0, 5),
        maker.gap("pump", None, "power_cut"),
    ]  # fmt: skip
    journal.append(frames, maker.all_series())
    journal.append([maker.gap("pump", 3), maker.quarantined("fan", b"{", 4)], [])
    yield path
    journal.close()


def account(path: Path, device: str | None = None, after: int = 0, **limits: int) -> JournalAccount:
    """Read it as a process beside the hub does."""
    pool = ReadPool(path)
    with pool.connection() as connection:
        found = read_account(connection, "default", device, after, **limits)
    pool.close()
    return found


def test_account_of_one_device_holds_nothing_of_others(path: Path) -> None:
    """Marks, series, gaps and refusals are those of the device; the head is the journal's."""
    found = account(path, "fan")

    assert found.head == 7
    assert [(m.key, m.accepted, m.rejected) for m in found.marks] == [(FAN, 1, 4)]
    assert [s.device for s in found.series] == ["fan"]
    assert (found.gaps, found.losses) == ([], {})
    assert [(r.device, r.reason, r.count) for r in found.rejections] == [("fan", "malformed", 4)]


def test_losses_are_summed_up_by_stream_and_reason(path: Path) -> None:
    """All of them count, also those beyond what is listed one by one; the newest are listed."""
    found = account(path, gaps_listed=1)

    assert found.losses == {PUMP: [Losses("spool_full", 5, 0), Losses("power_cut", 0, 1)]}
    assert [gap.seq for gap in found.gaps] == [5]
    assert found.are_gaps_whole


@pytest.mark.parametrize(
    ("after", "tail"),
    [(0, {PUMP: 2, FAN: 1}), (1, {PUMP: 1, FAN: 1}), (2, {PUMP: 1, FAN: 1}), (3, {PUMP: 1}), (4, {}), (7, {}), (9, {})],
)
def test_tail_counts_accepted_readings_behind_an_offset(path: Path, after: int, tail: dict[StreamKey, int]) -> None:
    """Any offset, also within a row and beyond the head; gaps and quarantine hold no accepted reading."""
    assert account(path, after=after).tail == tail


def test_tail_that_is_too_long_is_not_read(path: Path) -> None:
    """A store far behind costs an audit nothing."""
    assert account(path, after=4, max_tail_frames=3).tail == {}
    assert account(path, after=3, max_tail_frames=3).tail is None


def test_tail_with_trimmed_frames_is_not_known(tmp_path: Path) -> None:
    """What is no longer there cannot be counted."""
    journal, maker = SqliteJournal(tmp_path / "journal.sqlite3"), FrameMaker()
    for _ in range(3):
        journal.append([maker.one("pump", 1.0)], maker.all_series())
    journal.trim(3)

    assert journal.account("default", None, 1).tail is None
    assert journal.account("default", None, 2).tail == {PUMP: 1}
    journal.close()
