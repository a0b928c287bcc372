"""`hub.metadata`: changes are durable, checked, remembered, and seen across processes."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.reading import ValueType
from hub import metadata as module
from hub.description import ChannelDescription, DeviceDescription
from hub.errors import BadRequestError
from hub.metadata import Edit, Metadata, MetadataError, read_channels
from hub.model import SeriesKey

DEVICE = SeriesKey("default", "pump-1", "")
CHANNEL = SeriesKey("default", "pump-1", "power")
FILE = "metadata.sqlite3"


class Clock:
    """Wall time that moves when told."""

    def __init__(self) -> None:
        self.now_ns = 1000

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    """A clock at 1000 ns."""
    return Clock()


@pytest.fixture
def metadata(tmp_path: Path, clock: Clock) -> Iterator[Metadata]:
    """An empty file."""
    with closing(Metadata(tmp_path / FILE, clock=clock)) as metadata:
        yield metadata


def test_change_is_durable_and_merges(metadata: Metadata, tmp_path: Path) -> None:
    """Fields not named stay, null unsets, and a file opened anew has the same; every commit is fsynced."""
    metadata.change(Edit(DEVICE, {"label": "North", "site": "north", "tags": ["b", "a"]}), "ann")
    metadata.change(Edit(DEVICE, {"site": None, "lat": 1, "lon": 2}), "ann")
    metadata.change(Edit(CHANNEL, {"unit": "W", "scale": 0.1}), "ann")

    with closing(Metadata(tmp_path / FILE)) as again:
        for one in (metadata, again):
            assert one.device("default", "pump-1") == DeviceDescription("North", None, ("a", "b"), 1.0, 2.0)
            assert one.channel(CHANNEL) == ChannelDescription(unit="W", scale=0.1)
            assert one.fields(CHANNEL) == {"unit": "W", "scale": 0.1}
            assert set(one.subjects("default")) == {DEVICE, CHANNEL}
            assert one.subjects("other") == []
    assert metadata._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_tags_are_added_and_taken_beside_those_held(metadata: Metadata) -> None:
    """Two who add a tag at the same time both keep theirs; the last one taken unsets the field."""
    metadata.change(Edit(DEVICE, {}, add_tags=["a"]), "ann")
    metadata.change(Edit(DEVICE, {}, add_tags=["b"], remove_tags=["c"]), "bob")
    assert metadata.device("default", "pump-1").tags == ("a", "b")

    metadata.change(Edit(DEVICE, {}, remove_tags=["a", "b"]), "bob")

    assert metadata.subjects("default") == []


def test_history_says_who_when_and_what(metadata: Metadata, clock: Clock) -> None:
    """Each field's change is one entry, newest first; what changes nothing is none."""
    metadata.change(Edit(CHANNEL, {"unit": "W"}), "ann")
    clock.now_ns = 2000
    assert metadata.change(Edit(CHANNEL, {"unit": "W"}), "bob") == []
    metadata.change(Edit(CHANNEL, {"unit": "kW", "decimals": 1}), "bob")
    clock.now_ns = 3000
    metadata.change(Edit(CHANNEL, {"unit": None}), "cy")

    history = metadata.history(CHANNEL)

    assert [(c.time_ns, c.who, c.field, c.old, c.new) for c in history.changes] == [
        (3000, "cy", "unit", "kW", None), (2000, "bob", "decimals", None, 1), (2000, "bob", "unit", "W", "kW"),
        (1000, "ann", "unit", None, "W"),
    ]  # fmt: skip
    assert history.since_ns is None
    assert [metadata.held_at(CHANNEL, t) for t in (999, 1000, 2500, 3000)] == [
        {}, {"unit": "W"}, {"unit": "kW", "decimals": 1}, {"decimals": 1},
    ]  # fmt: skip
    assert len(metadata.history(CHANNEL, limit=1).changes) == 1


def test_history_is_bounded_and_says_so(metadata: Metadata, clock: Clock) -> None:
    """Beyond the cap the oldest changes of a subject go, and the answer says since when it is whole."""
    for n in range(module.MAX_CHANGES_EACH + 5):
        clock.now_ns = n
        metadata.change(Edit(CHANNEL, {"decimals": n % 2}), "script")

    history = metadata.history(CHANNEL)

    assert len(history.changes) == module.MAX_CHANGES_EACH
    assert history.since_ns == 5
    assert metadata.held_at(CHANNEL, 500) == {"decimals": 0}


def test_wrong_edit_loses_nothing_else(metadata: Metadata) -> None:
    """Of many edits the wrong ones are named and the others made, in one transaction; a trial makes none."""
    edits = [
        Edit(DEVICE, {"label": "Pump"}), Edit(DEVICE, {"colour": "red"}), Edit(DEVICE, {"colour": None}),
        Edit(SeriesKey("default", "no name", ""), {"label": "x"}),
        Edit(SeriesKey("default", "d", "a/b"), {"unit": "W"}),
        Edit(CHANNEL, {"scale": 2.0}, type=ValueType.BOOL), Edit(CHANNEL, {"offset": 1}, type=ValueType.STR),
        Edit(CHANNEL, {"scale": 2.0}, type=ValueType.INT), Edit(DEVICE, {}, add_tags=["two words"]),
    ]  # fmt: skip

    trial = metadata.change_all(edits, "ann", is_trial=True)
    assert metadata.subjects("default") == []
    made = metadata.change_all(edits, "ann")

    refused = [isinstance(outcome, BadRequestError) for outcome in made]
    assert refused == [isinstance(outcome, BadRequestError) for outcome in trial]
    assert refused == [False, True, True, True, True, True, True, False, True]
    assert metadata.channel(CHANNEL).scale == 2.0
    with pytest.raises(BadRequestError, match="colour"):
        metadata.change(edits[1], "ann")
    with pytest.raises(BadRequestError, match="limit"):
        metadata.change_all(edits[:1] * (module.MAX_EDITS + 1), "ann")


def test_another_process_is_seen_and_named_once(metadata: Metadata, tmp_path: Path) -> None:
    """What another process changed counts after `refresh`; `take_changes` names what changed here or there, once."""
    metadata.change(Edit(DEVICE, {"label": "Pump"}), "ann")
    assert metadata.take_changes() == {DEVICE}

    with closing(Metadata(tmp_path / FILE)) as other:
        other.change(Edit(CHANNEL, {"unit": "W"}), "bob")
        other.change(Edit(DEVICE, {"label": None}), "bob")
        metadata.change(Edit(SeriesKey("default", "x", ""), {"label": "X"}), "ann")
        metadata.refresh()

    assert metadata.take_changes() == {DEVICE, CHANNEL, SeriesKey("default", "x", "")}
    assert (metadata.fields(DEVICE), metadata.channel(CHANNEL).unit) == ({}, "W")
    metadata.refresh()
    assert metadata.take_changes() == set()


def test_what_holds_is_told_while_another_process_has_the_lock(metadata: Metadata, tmp_path: Path) -> None:
    """The event loop never waits for a change that another thread is trying to make."""
    metadata.change(Edit(DEVICE, {"label": "Pump"}), "ann")
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(metadata.change, Edit(CHANNEL, {"unit": "W"}), "bob")

        told = metadata.subjects("default"), metadata.fields(DEVICE), metadata.take_changes()

        assert not waiting.done()
        other.execute("ROLLBACK")
        waiting.result(10)
    assert told == ([DEVICE], {"label": "Pump"}, {DEVICE})
    assert metadata.take_changes() == {CHANNEL}


def test_reading_beside_a_hub_needs_no_file(metadata: Metadata, tmp_path: Path) -> None:
    """Commands on files see what channels have; without a file nothing is set; another file is an error."""
    metadata.change(Edit(CHANNEL, {"unit": "W"}), "ann")
    metadata.change(Edit(DEVICE, {"label": "Pump"}), "ann")

    assert read_channels(tmp_path / FILE) == {CHANNEL: ChannelDescription(unit="W")}
    assert read_channels(tmp_path / "none.sqlite3") == {}
    (tmp_path / "other.sqlite3").write_bytes(b"no database, but long enough to be one" * 100)
    with pytest.raises(MetadataError):
        read_channels(tmp_path / "other.sqlite3")


def test_file_that_cannot_be_written_changes_nothing(metadata: Metadata, tmp_path: Path) -> None:
    """An error of the file is told, and what was held still is."""
    metadata.change(Edit(DEVICE, {"label": "Pump"}), "ann")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("DROP TABLE change")

    with pytest.raises(MetadataError):
        metadata.change(Edit(DEVICE, {"label": "Other"}), "ann")

    assert metadata.device("default", "pump-1").label == "Pump"


def test_rows_are_counted_once_a_transaction(metadata: Metadata) -> None:
    """A thousand new descriptions do not count a full file a thousand times, with its lock held."""
    statements: list[str] = []
    metadata._database.set_trace_callback(statements.append)

    metadata.change_all([Edit(SeriesKey("default", f"d-{n}", ""), {"label": "x"}) for n in range(20)], "ann")

    assert sum("count(*)" in statement for statement in statements) == 1


def test_what_cannot_be_read_again_is_undone(metadata: Metadata, tmp_path: Path) -> None:
    """An edit that ended in an error is neither in RAM nor in the file."""
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TRIGGER broken AFTER INSERT ON held BEGIN UPDATE held SET fields = 'broken'; END")

    with pytest.raises(ValueError, match="Expecting"):
        metadata.change(Edit(DEVICE, {"label": "North"}), "ann")

    assert metadata.fields(DEVICE) == {}
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM held").fetchone() == (0,)


def test_erasing_forgets_a_device_to_the_last_byte(metadata: Metadata, tmp_path: Path) -> None:
    """Device and channels, and who changed them; it is told as a change, and other devices keep theirs."""
    for label in ("my-secret", "my-secret-too"):
        metadata.change(Edit(SeriesKey("default", "fan-1", ""), {"label": label}), "ann")
        metadata.change(Edit(SeriesKey("default", "fan-1", "t"), {"label": label}), "ann")
    metadata.change(Edit(SeriesKey("default", "fan-2", ""), {"label": "others"}), "ann")
    metadata.take_changes()

    assert metadata.erase("default", "fan-1") == 2

    assert metadata.subjects("default") == [SeriesKey("default", "fan-2", "")]
    assert metadata.take_changes() == {SeriesKey("default", "fan-1", ""), SeriesKey("default", "fan-1", "t")}
    assert metadata.history(SeriesKey("default", "fan-1", "")).changes == []
    assert not any(b"my-secret" in path.read_bytes() for path in tmp_path.iterdir())
