"""Damaged and missing files of a spool: what can be read arrives once, the rest is declared."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.lane import CACHE_READINGS
from device_sdk.segment import Scan, seed_of
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_files import Syncs, flip, open_spool, record, values
from tests.support.spool_hub import drain


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """The files of a spool with an acked frame, a cut frame, and un-numbered readings, never closed."""
    spool = open_spool(tmp_path / "image")
    record(spool, 6)
    for _ in range(2):
        spool.cut(2)
    chain = spool.chain(1)
    assert chain is not None
    spool.acknowledge(1, chain, "run.1")
    files = {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()}
    spool.close()
    return files


def damages(images: dict[str, bytes], prefix: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of one file with each byte of its last two records flipped, then cut off there."""
    name = next(name for name in images if name.startswith(prefix))
    data = images[name]
    number = int("".join(c for c in name if c.isdigit()))
    ends = [end for _, end in Scan(data, seed_of(number), max_bytes=max_bytes)]
    for at in range(ends[-3], len(data)):
        yield name, data[:at] + bytes((data[at] ^ 0x41,)) + data[at + 1 :]
        yield name, data[:at]


def lay_out(directory: Path, images: dict[str, bytes], name: str, data: bytes) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for other, content in images.items():
        (directory / other).write_bytes(content)
    (directory / name).write_bytes(data)


def test_damaged_reading_costs_that_reading_only(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Each byte of the last two readings flipped or cut off: no exception, all others delivered, the loss declared."""
    tried = 0
    for name, data in damages(images, "readings-", 4096):
        lay_out(tmp_path / "b", images, name, data)
        spool = open_spool(tmp_path / "b", sync_file=Syncs())
        damaged = spool.statistics().damaged
        record(spool, 1, first=9)
        hub = drain(spool)
        spool.close()

        found = values(hub)
        assert found[:2] == [2.0, 3.0]
        assert found[-1] == 9.0
        assert set(found[2:-1]) <= {4.0, 5.0}
        is_cut_between_records = len(data) in _ends(images[name], name)[:-1]
        assert damaged == (0 if is_cut_between_records else 1)
        assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"] * damaged
        tried += 1
    assert tried > 100


@pytest.mark.slow
def test_damaged_state_loses_no_reading(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Each byte of the last two state records flipped or cut off: every reading not acked still arrives.

    Slow: 800 starts of a spool on a real disk, each with its directory fsyncs.
    """
    tried = 0
    for name, data in damages(images, "state-", 1 << 20):
        lay_out(tmp_path / "b", images, name, data)
        spool = open_spool(tmp_path / "b", sync_file=Syncs())
        hub = drain(spool)
        spool.close()

        # 0 and 1 may come again, when the ack is what was lost.
        assert {2.0, 3.0, 4.0, 5.0} <= set(values(hub)) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
        tried += 1
    assert tried > 100


def test_damage_is_declared_once(tmp_path: Path) -> None:
    """A place that was declared is not declared again at each start; a new one is."""
    spool = open_spool(tmp_path)
    record(spool, 6)
    spool.close()
    path = next(tmp_path.glob("readings-*"))
    flip(path, 60)

    again = [open_spool(tmp_path)]
    assert again[0].statistics().damaged == 1
    again[0].close()
    second = open_spool(tmp_path)
    assert second.statistics().damaged == 1
    second.close()
    flip(path, 180)
    third = open_spool(tmp_path)

    assert third.statistics().damaged == 2
    assert len(drain(third).readings) == 4
    third.close()


def test_lost_state_begins_a_new_stream_with_every_reading(tmp_path: Path, images: dict[str, bytes]) -> None:
    """Without its state a spool cannot know what was acked: it sends all it has, and says that it was damaged."""
    name = next(name for name in images if name.startswith("state-"))
    lay_out(tmp_path / "b", images, name, b"\x00" * 500)

    spool = open_spool(tmp_path / "b")

    hub = drain(spool)
    assert values(hub) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"]
    spool.close()


def test_missing_file_of_readings_is_declared(tmp_path: Path) -> None:
    """A file that somebody deleted is a loss like any damage."""
    spool = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES)
    record(spool, 1_000)
    spool.close()
    sorted(tmp_path.glob("readings-*"))[1].unlink()

    found = open_spool(tmp_path, max_bytes=MIN_LIMIT_BYTES)

    hub = drain(found)
    assert 0 < len(hub.readings) < 1_000
    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("spool_damaged", None)]
    found.close()


def test_file_cut_short_after_a_clean_close_is_declared(tmp_path: Path) -> None:
    """The close says where the readings ended, so even a cut between two records is seen."""
    spool = open_spool(tmp_path)
    record(spool, 2)
    spool.close()
    path = next(tmp_path.glob("readings-*"))
    os.truncate(path, _ends(path.read_bytes(), path.name)[-2])

    found = open_spool(tmp_path)

    hub = drain(found)
    assert values(hub) == [0.0]
    assert [gap["reason"] for gap in hub.gaps] == ["spool_damaged"]
    found.close()


def test_damage_found_while_reading_back_is_counted_exactly(tmp_path: Path) -> None:
    """Readings beyond the cache are read from disk when their turn comes; what is unreadable then is declared."""
    spool = open_spool(tmp_path)
    produced = CACHE_READINGS + 20_000
    record(spool, produced)
    flip(sorted(tmp_path.glob("readings-*"))[-2], 1_000)

    hub = drain(spool)

    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("spool_damaged", 1)]
    assert len(hub.readings) == produced - 1
    assert spool.statistics().damaged == 1
    spool.close()


def _ends(data: bytes, name: str) -> list[int]:
    number = int("".join(c for c in name if c.isdigit()))
    return [end for _, end in Scan(data, seed_of(number))]
