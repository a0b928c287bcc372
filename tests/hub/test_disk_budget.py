"""`hub.disk_budget`: the oldest readings go when there is too much, and devices wait when nothing is left to go."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.disk_budget import LEAST_RAW_NS, DiskBudget
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_engine import MemoryEngine

S = 10**9
HOUR_NS = 3600 * S
BEGIN = T0 // HOUR_NS * HOUR_NS
HOURS = 10


class Rig:
    """A store with ten hours of two series, a reading a second, as if of now; ``share`` of what it takes is allowed."""

    def __init__(self, store: EmbeddedStore | ColumnStore, share: float) -> None:
        self.store = store
        self.maker = FrameMaker()
        for hour in range(HOURS):
            times = range(BEGIN + hour * HOUR_NS, BEGIN + (hour + 1) * HOUR_NS, S)
            frame = self.maker.batch("pump", [(c, t, (t // S * 7919 % 1000) / 8) for t in times for c in "tn"])
            store.write(numbered([frame], store.applied + 1))
        store.seal()
        self.limit_bytes = int(store.used_bytes() * share)
        self.journal_bytes = 0
        self.trimmed_bytes = 2**62
        self.now_ns = BEGIN + HOURS * HOUR_NS
        self.now_s = 0.0
        self.budget = DiskBudget(
            store, lambda: self.journal_bytes, self.maker.all_series, self.limit_bytes,
            trim=self.trim, now_ns=lambda: self.now_ns, clock=lambda: self.now_s,
        )  # fmt: skip

    def trim(self) -> None:
        """What a trim of the journal leaves."""
        self.journal_bytes = min(self.journal_bytes, self.trimmed_bytes)

    def look(self) -> int:
        """Look once; return from which hour on there are readings."""
        for _ in self.budget.slices():
            pass
        (first,) = self.store.read([1], 0, 2**62, 1)[:1]
        return (first.time_ns - BEGIN) // HOUR_NS


@pytest.fixture(params=[EmbeddedStore, ColumnStore])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedStore | ColumnStore]:
    """Each store that drops readings."""
    with closing(request.param(tmp_path / "readings.sqlite3")) as store:
        yield store


def test_within_the_budget_nothing_goes(store: EmbeddedStore | ColumnStore) -> None:
    """Whatever the readings' age."""
    assert Rig(store, 1.0).look() == 0


def test_the_oldest_hours_go_first(store: EmbeddedStore | ColumnStore) -> None:
    """As many as must, of all series, with their sums kept and counted; then it is within its budget."""
    rig = Rig(store, 0.75)

    first = rig.look()

    assert 2 <= first <= 8
    assert rig.budget.dropped_early == first * 3600 * 2
    assert store.used_bytes() <= rig.limit_bytes
    assert not rig.budget.is_full
    (everything,) = store.aggregate([1], 0, 2**62, 2**62 // HOUR_NS * HOUR_NS, ["count"])
    assert everything.values == (HOURS * 3600,)
    assert rig.look() == first


def test_the_journal_keeps_to_its_limit_before_readings_go(store: EmbeddedStore | ColumnStore) -> None:
    """Between two of its trims it is larger than it shall be: that costs no reading, and no device waits."""
    rig = Rig(store, 1.5)
    rig.journal_bytes, rig.trimmed_bytes = rig.limit_bytes, 1000

    assert rig.look() == 0

    assert (rig.journal_bytes, rig.budget.dropped_early, rig.budget.is_full) == (1000, 0, False)


def test_what_waits_is_sealed_before_readings_go(tmp_path: Path) -> None:
    """The log is larger than columns, and a series that was quiet since keeps all of it: no drop would make room."""
    with closing(ColumnStore(tmp_path / "readings.sqlite3")) as store:
        rig = Rig(store, 1.2)
        end = BEGIN + HOURS * HOUR_NS
        store.write(numbered([rig.maker.batch("quiet", [("t", end, 1.0)])], store.applied + 1))
        for hour in range(HOURS):
            times = range(end + hour * HOUR_NS, end + (hour + 1) * HOUR_NS, 4 * S)
            frame = rig.maker.batch("pump", [(c, t, (t // S * 7919 % 1000) / 8) for t in times for c in "tn"])
            store.write(numbered([frame], store.applied + 1))
        rig.now_ns = end + HOURS * HOUR_NS
        assert store.used_bytes() > rig.limit_bytes

        hours = rig.look()

        assert rig.budget.dropped_early == hours * 7200
        assert store.used_bytes() <= rig.limit_bytes
        assert not rig.budget.is_full
        assert store.statistics().rows > HOURS * 7200


def test_devices_wait_when_nothing_is_left_to_go(store: EmbeddedStore | ColumnStore) -> None:
    """The last hour stays; once there is room, or the readings are old enough to go, devices go on."""
    rig = Rig(store, 1.5)
    rig.journal_bytes = rig.limit_bytes

    assert rig.look() == HOURS - LEAST_RAW_NS // HOUR_NS
    assert rig.budget.is_full

    rig.journal_bytes = 0
    rig.look()
    assert not rig.budget.is_full


def test_readings_stay_whose_sums_are_larger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reading a minute in columns: some are dropped to see, then no more; devices wait."""
    with closing(ColumnStore(tmp_path / "readings.sqlite3")) as store:
        maker, source, days = FrameMaker(), random.Random(1), 15
        channels = [f"c{n}" for n in range(10)]
        for day in range(days):
            times = range(BEGIN + day * 24 * HOUR_NS, BEGIN + (day + 1) * 24 * HOUR_NS, 60 * S)
            frame = maker.batch("pump", [(c, t, round(source.gauss(20, 1), 1)) for t in times for c in channels])
            store.write(numbered([frame], store.applied + 1))
        store.seal()
        limit = int(store.used_bytes() * 0.9)
        now_ns = BEGIN + days * 24 * HOUR_NS
        budget = DiskBudget(store, lambda: 0, maker.all_series, limit, now_ns=lambda: now_ns)

        for _ in range(3):
            for _ in budget.slices():
                pass

        assert budget.dropped_early < 80_000 < 216_000 == days * 1440 * len(channels)
        assert budget.is_full
        assert [r.getMessage() for r in caplog.records if "less room than is taken" in r.getMessage()] != []


def test_devices_wait_when_more_comes_than_is_dropped(store: EmbeddedStore | ColumnStore) -> None:
    """A pass that would not end says so while it goes on; when it has ended, they go on."""
    rig, said = Rig(store, 0.75), []
    for dropped in rig.budget.slices():
        said.append(rig.budget.is_full)
        if dropped and len(said) < 4:
            rig.journal_bytes += rig.limit_bytes // 10
        elif said[-1]:
            rig.journal_bytes = 0

    assert (said[0], True in said, rig.budget.is_full) == (False, True, False)


def test_sizing_says_how_long_it_goes_well(store: EmbeddedStore | ColumnStore) -> None:
    """Bytes a reading, readings a day as since the start, days until the budget; nothing that is not known yet."""
    rig = Rig(store, 2.0)
    begun = rig.budget.sizing(0)
    rig.now_s = 864.0
    rig.journal_bytes = 1000
    frame = rig.maker.batch("pump", [("t", rig.now_ns + n * S, 1.0) for n in range(500)])
    store.write(numbered([frame], store.applied + 1))

    found = rig.budget.sizing(dropped=0)

    assert (begun.readings_per_day, begun.days_left) == (None, None)
    assert found.readings_per_day == 50_000
    assert found.bytes_per_reading == found.store_bytes / found.readings
    assert found.days_left is not None
    assert found.days_left > 0
    assert (found.budget_bytes, found.journal_bytes, found.readings) == (rig.limit_bytes, 1000, HOURS * 7200 + 500)


def test_devices_wait_when_a_server_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Readings on a server cannot be dropped here: the journal that waits for it may grow to the budget, not beyond."""
    journal_bytes = 999
    with closing(RemoteStore(MemoryEngine(), Sidecar(tmp_path / "readings.sqlite3"))) as store:
        budget = DiskBudget(store, lambda: journal_bytes, list, 1000)

        assert (list(budget.slices()), budget.is_full) == ([], False)
        journal_bytes = 1001
        assert (list(budget.slices()), budget.is_full) == ([], True)
        assert "the store's server is behind" in caplog.text
        journal_bytes = 999
        assert (list(budget.slices()), budget.is_full) == ([], False)
