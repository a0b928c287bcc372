"""What is kept beside a server survives the process, and is bounded."""

from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.store import sidecar
from hub.store.base import Refused
from hub.store.line_protocol import SeriesName
from hub.store.sidecar import Entry, Sidecar

NAME = SeriesName("default", "pump", "t")


@pytest.mark.parametrize("newest", [1.0, 1, True, False, "x", -0.0])
def test_entries_come_back(tmp_path: Path, newest: Value) -> None:
    """Position, names, ledger, newest value with its type."""
    entry = Entry(7, NAME, kinds=2, accepted=5, superseded=1, refused=1, erased=2, late=3, newest_ns=-4, newest=newest)
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as first:
        first.apply(9, {7: entry}, [])
        assert first.sync() == 9

    with closing(Sidecar(tmp_path / "remote.sqlite3")) as again:
        assert again.applied == 9
        assert repr(again.entries) == repr({7: entry})


def test_notes_live_as_long_as_the_write_they_are_for(tmp_path: Path) -> None:
    """What was there before a write is known until that write is applied, also by the next process."""
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as first:
        first.note(4, [(7, 10, True), (7, 11, False)])
        first.note(4, [(7, 10, False)])
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as again:
        assert again.known(7, [10, 11, 12]) == {10: True, 11: False}
        again.apply(3, {}, [])
        assert again.known(7, [10]) == {10: True}
        again.apply(4, {}, [])
        assert again.known(7, [10]) == {}


def test_refused_readings_are_kept_and_bounded(tmp_path: Path) -> None:
    """The newest ones, with what the server said, cut to what a person reads."""
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as kept:
        kept.apply(1, {}, [Refused(7, n, True, "why " * 200) for n in range(sidecar.MAX_REFUSED + 5)])
        found = kept.refusals()

    assert len(found) == sidecar.MAX_REFUSED
    assert (found[0].time_ns, found[0].value, len(found[0].reason)) == (sidecar.MAX_REFUSED + 4, True, 300)


def test_sync_and_notes_write_a_commit_each_time(tmp_path: Path) -> None:
    """Only a commit that writes a page is fsynced: `sync` makes one also when nothing has moved."""
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as kept:
        log = tmp_path / "remote.sqlite3-wal"
        sizes = [log.stat().st_size]
        for _ in range(2):
            assert kept.sync() == 0
            sizes.append(log.stat().st_size)

    assert sizes[0] < sizes[1] < sizes[2]


def test_erasure_lives_until_it_is_ended(tmp_path: Path) -> None:
    """Also in the next process; then its rows are counted, and the series has no newest reading."""
    entry = Entry(7, NAME, kinds=2, accepted=5, erased=1, newest_ns=4, newest=1)
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as first:
        first.apply(9, {7: entry})
        first.begin_erasure(7, 4)
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as again:
        assert again.erasures == {7: 4}
        again.end_erasure(7)
    with closing(Sidecar(tmp_path / "remote.sqlite3")) as last:
        assert (last.erasures, last.entries[7].erased, last.entries[7].newest_ns) == ({}, 5, None)
