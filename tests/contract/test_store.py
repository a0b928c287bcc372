"""What every `Store` must answer alike. One suite over all engines and the oracle."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.model import Frame
from hub.store.base import AGGREGATES, PARTS, Bucket, Row, SeriesCounters, Store
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

FOREVER = (-(2**62), 2**62)


class SealedAtOnce(ColumnStore):
    """Nothing waits: every question is answered from chunks."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Write and seal."""
        super().write(frames)
        self.seal()


ENGINES: dict[str, Callable[[Path], Store]] = {
    "columns": lambda path: ColumnStore(path / "readings.sqlite3"),
    "columns, each write sealed": lambda path: SealedAtOnce(path / "readings.sqlite3"),
    "embedded": lambda path: EmbeddedStore(path / "readings.sqlite3"),
    "memory": lambda path: MemoryStore(),
}


# What only a store of our own keeps is when a reading was received, and the ends of 64 bits: tests of that ask for
# `own_store`.
REMOTE = [pytest.param("influx_store", id="influxdb", marks=pytest.mark.end_to_end)]
if "INFLUXDB_V2_URL" in os.environ:
    REMOTE.append(pytest.param("influx2_store", id="influxdb2", marks=pytest.mark.end_to_end))


@pytest.fixture(params=[*ENGINES, *REMOTE])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each engine."""
    name = request.param
    store: Store = ENGINES[name](tmp_path) if name in ENGINES else request.getfixturevalue(name)
    yield store
    store.close()


@pytest.fixture(params=list(ENGINES))
def own_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each engine that is in this process."""
    store = ENGINES[request.param](tmp_path)
    yield store
    store.close()


def fill(store: Store, *readings: tuple[int, Value], channel: str = "t", maker: FrameMaker | None = None) -> FrameMaker:
    """Write (time - T0, value) of one channel of ``pump`` as one frame behind what is applied."""
    maker = maker or FrameMaker()
    frame = maker.batch("pump", [(channel, T0 + at, value) for at, value in readings])
    store.write(numbered([frame], store.applied + 1))
    return maker


def all_rows(store: Store, series: list[int]) -> list[Row]:
    """Return everything in the series."""
    return [row for page in store.dump(series, *FOREVER) for row in page]


def test_empty_store(store: Store) -> None:
    """An empty store has applied nothing and answers every question with nothing."""
    assert store.applied == 0
    assert store.latest([1, 2]) == []
    assert store.read([1], *FOREVER, 10) == []
    assert store.read([], *FOREVER, 10) == []
    assert store.aggregate([1], *FOREVER, 10, ["avg"]) == []
    assert list(store.dump([1], *FOREVER)) == []
    assert store.counters([1]) == []
    assert store.erase([1]) == 0
    assert store.sync() == 0
    assert store.statistics().rows == 0


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([21.5, 0.1 + 0.2, 1e300, 5e-324, -0.0, 1.0, float(2**60)], id="float"),
        pytest.param([0, 1, -(2**63), 2**63 - 1, 2**53 + 1], id="int"),
        pytest.param([True, False], id="bool"),
        pytest.param(["", "läuft", "a\x00b", "1", "x" * 1024], id="str"),
        pytest.param([1, 2, 2.5], id="int that widened"),
    ],
)
def test_values_come_back_exactly(store: Store, values: list[Value]) -> None:
    """Each value comes back with its type and every bit: 1.0 is no int, True is no 1, -0.0 keeps its sign."""
    fill(store, *enumerate(values))

    found = store.read([1], *FOREVER, 100)

    assert [(row.time_ns, repr(row.value)) for row in found] == [(T0 + i, repr(v)) for i, v in enumerate(values)]


def test_write_skips_what_is_applied(store: Store) -> None:
    """Frames at or below applied are skipped, so repeating a write changes nothing, the counters included."""
    maker = FrameMaker()
    frames = numbered(maker.many(2, 3, 4))
    store.write(frames[:4])
    store.write(frames)
    store.write(frames)

    assert store.applied == 6
    assert len(all_rows(store, [1, 2])) == 24
    assert store.counters([1, 2]) == [SeriesCounters(1, 12, 0, 12), SeriesCounters(2, 12, 0, 12)]


def test_write_accepts_gaps_in_offsets(store: Store) -> None:
    """Offsets may skip (trimmed frames): applied is the last one written; frames without readings count too."""
    maker = FrameMaker()
    (one,) = numbered([maker.one("pump", 1.0)], 7)
    (gap,) = numbered([maker.gap("pump", 3)], 12)

    store.write([one, gap])

    assert store.applied == 12
    assert len(all_rows(store, [1])) == 1


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([[(0, 1.0), (1, 2.0)], [(1, 9.0)]], id="newest again"),
        pytest.param([[(0, 1.0), (2, 3.0)], [(0, 9.0)]], id="older again"),
        pytest.param([[(0, 1.0), (0, 9.0)]], id="twice in a frame"),
        pytest.param([[(5, 1.0)], [(3, 2.0), (3, 7.0), (5, 9.0)]], id="late, twice"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_last_write_wins(store: Store, frames: list[list[tuple[int, float]]], at_once: bool) -> None:
    """The same instant again is a correction: the last by offset stays, each is counted as superseded."""
    maker = FrameMaker()
    made = numbered([maker.batch("pump", [("t", T0 + at, v) for at, v in frame]) for frame in frames])
    for group in [made] if at_once else [[frame] for frame in made]:
        store.write(group)

    expected = {T0 + at: value for frame in frames for at, value in frame}
    accepted = sum(map(len, frames))
    assert all_rows(store, [1]) == [Row(1, at, value) for at, value in sorted(expected.items())]
    assert store.counters([1]) == [SeriesCounters(1, accepted, accepted - len(expected), len(expected))]


def test_latest_is_by_event_time(store: Store) -> None:
    """The newest is the one with the latest event time, whenever it came; series without readings are left out."""
    maker = fill(store, (10, 1.0), (20, 2.0))
    fill(store, (15, 3.0), maker=maker)
    fill(store, (0, True), channel="open", maker=maker)

    assert sorted(store.latest([1, 2, 99])) == [Row(1, T0 + 20, 2.0), Row(2, T0, True)]


def test_read_is_half_open_and_ordered(store: Store) -> None:
    """start <= time < end, by (time, series); descending is the exact reverse."""
    maker = fill(store, *[(i, float(i)) for i in range(6)])
    fill(store, *[(i, i) for i in range(6)], channel="n", maker=maker)

    found = store.read([2, 1], T0 + 1, T0 + 3, 100)

    assert found == [Row(1, T0 + 1, 1.0), Row(2, T0 + 1, 1), Row(1, T0 + 2, 2.0), Row(2, T0 + 2, 2)]
    assert store.read([2, 1], T0 + 1, T0 + 3, 100, descending=True) == found[::-1]
    assert store.read([2, 2], T0, T0 + 2, 100) == [Row(2, T0, 0), Row(2, T0 + 1, 1)]


def test_read_ends_at_a_time_border(store: Store) -> None:
    """A limited page holds every row of its last time, and more than ``limit`` only by that."""
    maker = fill(store, *[(i, float(i)) for i in range(4)])
    fill(store, *[(i, i) for i in range(4)], channel="n", maker=maker)

    page = store.read([1, 2], *FOREVER, 3)

    assert [(row.time_ns - T0, row.series) for row in page] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    back = store.read([1, 2], *FOREVER, 1, descending=True)
    assert [(row.time_ns - T0, row.series) for row in back] == [(3, 2), (3, 1)]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_give_each_row_once(store: Store, limit: int, descending: bool) -> None:
    """Paging by the last time gives each row once, though series differ wildly in density (seed 5)."""
    source, maker = random.Random(5), FrameMaker()
    for channel, count in (("dense", 300), ("sparse", 5), ("late", 40)):
        times = sorted(source.sample(range(500), count))
        fill(store, *[(at, float(at)) for at in times], channel=channel, maker=maker)

    found: list[Row] = []
    start, end = FOREVER
    while page := store.read([1, 2, 3], start, end, limit, descending=descending):
        found += page
        start, end = (start, page[-1].time_ns) if descending else (page[-1].time_ns + 1, end)

    expected = sorted(all_rows(store, [1, 2, 3]), key=lambda r: (r.time_ns, r.series), reverse=descending)
    assert found == expected
    assert len(found) == 345


def test_fewer_than_limit_means_no_more(store: Store) -> None:
    """A page shorter than its limit is the last one: callers stop there."""
    maker = fill(store, *[(i, float(i)) for i in range(200)])
    fill(store, (0, 1), channel="n", maker=maker)

    for limit in (1, 2, 16, 17, 100, 200):
        assert len(store.read([1, 2], *FOREVER, limit)) >= limit


@pytest.mark.parametrize("edge", [-(2**63), 0, 2**63 - 1])
def test_an_empty_range_is_empty_at_the_ends_of_time_too(store: Store, edge: int) -> None:
    """A page that begins where time ends has nothing, either way."""
    fill(store, (0, 1.0))

    assert store.read([1], edge, edge, 5) == []
    assert store.read([1], edge, edge, 5, descending=True) == []
    assert store.aggregate([1], edge, edge, 10, ["count"]) == []


def test_aggregate_all_functions(store: Store) -> None:
    """Each function over each bucket; buckets are aligned to the epoch, ordered by (start, series)."""
    start = T0 // 10 * 10
    assert start == T0
    maker = fill(store, (0, 1.0), (3, 4.0), (9, 1.0), (10, 7.5))
    fill(store, (12, 5), (13, -2), channel="n", maker=maker)

    found = store.aggregate([2, 1], *FOREVER, 10, AGGREGATES)

    assert found == [
        Bucket(1, T0, (2.0, 1.0, 4.0, 3, 6.0, 1.0, 1.0)),
        Bucket(1, T0 + 10, (7.5, 7.5, 7.5, 1, 7.5, 7.5, 7.5)),
        Bucket(2, T0 + 10, (1.5, -2, 5, 2, 3.0, 5, -2)),
    ]


def test_aggregate_bool_and_str(store: Store) -> None:
    """A bool counts as 0 or 1; strings are left out, their buckets too."""
    maker = fill(store, (0, True), (1, False), (2, True), (3, True), channel="open")
    fill(store, (0, "on"), channel="state", maker=maker)

    found = store.aggregate([1, 2], *FOREVER, 10, AGGREGATES)

    assert found == [Bucket(1, T0, (0.75, 0, 1, 4, 3.0, 1, 1))]


def test_aggregate_range_and_before_1970(store: Store) -> None:
    """Only readings of [start, end) count; buckets before 1970 begin at the floor, too."""
    maker = FrameMaker()
    frame = maker.batch("pump", [("t", at, float(at)) for at in (-11, -10, -1, 0, 9, 10)])
    store.write(numbered([frame]))

    found = store.aggregate([1], -11, 10, 10, ["count", "first"])

    assert found == [Bucket(1, -20, (1, -11.0)), Bucket(1, -10, (2, -10.0)), Bucket(1, 0, (2, 0.0))]


@pytest.mark.parametrize("origin", [3, -7, 10**19 + 3])
def test_aggregate_from_an_origin(own_store: Store, origin: int) -> None:
    """Buckets begin at origin + k * step, before 1970 and at the ends of 64 bits too."""
    maker = FrameMaker()
    old, new = [(-(2**63), 1.0), (-8, 1.0), (-7, 1.0), (-1, 1.0)], [(2, 1.0), (3, 1.0), (2**63 - 2, 1.0)]
    own_store.write(numbered([maker.batch("pump", [("t", *reading) for reading in half]) for half in (old, new)]))

    found = own_store.aggregate([1], -(2**63), 2**63 - 1, 10, ["count", "last_ns"], origin_ns=origin)

    assert found == [
        Bucket(1, -(2**63) - 9, (1, -(2**63))),
        Bucket(1, -17, (1, -8)),
        Bucket(1, -7, (3, 2)),
        Bucket(1, 3, (1, 3)),
        Bucket(1, 2**63 - 5, (1, 2**63 - 2)),
    ]


def test_aggregate_parts(store: Store) -> None:
    """Times of first and last, squared deviations, rise through a reset to 2, area of the lines; each within."""
    s = 10**9
    fill(store, (0, 1), (2 * s, 5), (3 * s, 2), (10 * s, 3), (14 * s, "x"), (15 * s, 3.5), channel="n")

    found = store.aggregate([1], *FOREVER, 10 * s, PARTS, origin_ns=T0)

    # Mean 8/3; 1 to 5 in 2 s, 5 to 2 in 1 s; 3 to 3.5 in 5 s.
    assert [bucket.start_ns - T0 for bucket in found] == [0, 10 * s]
    assert found[0].values == pytest.approx((T0, T0 + 3 * s, 26 / 3, 6.0, 9.5), rel=1e-12)
    assert found[1].values == pytest.approx((T0 + 10 * s, T0 + 15 * s, 0.125, 0.5, 16.25), rel=1e-12)


def test_aggregate_rise_of_huge_counters(store: Store) -> None:
    """What a counter of whole numbers rose by is exact where a float would have lost it, and never negative."""
    fill(store, (0, 2**62), (1, 2**62 + 3), (2, -(2**63)), (3, 2**63 - 1), channel="n")

    found = store.aggregate([1], *FOREVER, 2, ["rise"])

    assert [bucket.values for bucket in found] == [(3.0,), (2.0**64,)]


def test_aggregate_of_huge_ints(store: Store) -> None:
    """Sums beyond 64 bits are floats, not failures; smallest and largest stay exact."""
    fill(store, (0, 2**63 - 1), (1, 2**63 - 1), channel="n")

    (bucket,) = store.aggregate([1], *FOREVER, 10**20 // 100, ["sum", "max", "avg"])

    assert bucket.values == (2.0**64, 2**63 - 1, 2.0**63)


@pytest.mark.parametrize(
    ("step", "functions"),
    [pytest.param(10, [], id="none"), pytest.param(10, ["p99"], id="unknown"), pytest.param(0, ["avg"], id="step")],
)
def test_aggregate_refuses_nonsense(store: Store, step: int, functions: list[str]) -> None:
    """No function, an unknown one, or no step is the caller's mistake."""
    with pytest.raises(BadRequestError):
        store.aggregate([1], *FOREVER, step, functions)


def test_dump_is_everything_in_order(store: Store) -> None:
    """A dump of many series holds each row of the range once, by (time, series)."""
    maker = FrameMaker()
    store.write(numbered(maker.many(5, 4, 50)))

    rows = all_rows(store, [1, 2, 3, 4, 5])

    assert len(rows) == 1000
    assert rows == sorted(rows, key=lambda r: (r.time_ns, r.series))
    assert all_rows(store, [2]) == [row for row in rows if row.series == 2]
    some = [row for page in store.dump([1, 2], T0, T0 + 2_000_000) for row in page]
    assert [row.time_ns - T0 for row in some] == [0, 0, 1_000_000, 1_000_000]


def test_erase_keeps_the_ledger(store: Store) -> None:
    """Erasing deletes all rows of a series and counts them; later readings of it are stored as usual."""
    maker = fill(store, (0, 1.0), (1, 2.0), (1, 3.0))
    fill(store, (0, 1), channel="n", maker=maker)

    erased = store.erase([1])
    fill(store, (1, 5.0), maker=maker)

    assert erased == 2
    assert store.counters([1, 2]) == [SeriesCounters(1, 4, 1, 1, 2), SeriesCounters(2, 1, 0, 1, 0)]
    assert all_rows(store, [1, 2]) == [Row(2, T0, 1), Row(1, T0 + 1, 5.0)]
    assert store.statistics().rows == 2


def test_revisions_are_the_counters_in_the_order_asked_for(store: Store) -> None:
    """Each series has its counters, an unknown one zeros; a correction, a late reading, an erasure change them."""
    maker = fill(store, (0, 1.0), (10**9, 2.0))
    fill(store, (0, 1), channel="n", maker=maker)
    assert store.revisions([7, 2, 1]) == [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (2, 0, 0, 0, 0)]

    fill(store, (10**9, 3.0), maker=maker)
    assert store.revisions([1]) == [(3, 1, 0, 0, 0)]
    fill(store, (1, 4.0), maker=maker)
    assert store.revisions([1]) == [(4, 1, 0, 1, 0)]
    store.erase([1])

    assert store.revisions([1, 2]) == [(4, 1, 3, 1, 0), (1, 0, 0, 0, 0)]
    assert store.revisions([]) == []


def test_largest_series_is_known_also_after_erasing(store: Store) -> None:
    """An id that ever had a reading is never free again."""
    assert store.largest_series() == 0
    fill(store, (0, 1.0))
    store.erase([1])

    assert store.largest_series() == 1


def test_rewind_takes_frames_again(store: Store) -> None:
    """After a rewind the same offsets are taken again; the same readings count as superseded, none is doubled."""
    maker = FrameMaker()
    frames = numbered(maker.many(1, 4, 5))
    store.write(frames)

    store.rewind(2)
    store.write(frames)

    assert store.applied == 4
    assert store.counters([1]) == [SeriesCounters(1, 30, 10, 20)]


def test_sync_and_closing(store: Store) -> None:
    """`sync` returns what is durable now; closing twice is harmless."""
    fill(store, (0, 1.0))

    assert store.sync() == 1
    store.close()
    store.close()


def test_late_readings_are_stored_and_counted(store: Store) -> None:
    """What is older than the newest of its series in earlier frames is late; within a frame, or by 10 ms, it is not."""
    ms = 10**6
    maker = fill(store, (100 * ms, 1.0), (0, 2.0))
    fill(store, (90 * ms, 3.0), (89 * ms, 4.0), (100 * ms, 5.0), maker=maker)
    fill(store, (200 * ms, 6.0), (50 * ms, 7.0), maker=maker)

    (counters,) = store.counters([1])

    assert (counters.accepted, counters.superseded, counters.rows, counters.late) == (7, 1, 6, 2)
    assert store.latest([1]) == [Row(1, T0 + 200 * ms, 6.0)]


def test_late_readings_never_become_the_newest(store: Store) -> None:
    """A backlog that arrives newest first leaves the newest by event time where it was, and all of it is late."""
    s = 10**9
    maker = fill(store, (90 * s, 90.0))
    for first in (60, 30, 0):
        fill(store, *((n * s, float(n)) for n in range(first, first + 30)), maker=maker)

    assert store.latest([1]) == [Row(1, T0 + 90 * s, 90.0)]
    assert store.counters([1])[0].late == 90


def test_receive_time_is_kept_beside_event_time(own_store: Store) -> None:
    """Each row says when it was received, to a second: also a late one, and a correction when that came."""
    s, maker = 10**9, FrameMaker()
    received: dict[int, int] = {}
    for at, times in enumerate([[0, 1, 2], [3], [4, 5], [1], [6], [2, 7], [9, 8]]):
        sent: list[tuple[str, int, Value]] = [("t", T0 + n * s, float(n)) for n in times]
        own_store.write(numbered([maker.batch("pump", sent, received_ns=T0 + at * 7 * s // 10)], own_store.applied + 1))
        received |= {T0 + n * s: T0 + at * 7 * s // 10 for n in times}

    rows = own_store.read([1], *FOREVER, 100, received=True)

    assert [row.time_ns for row in rows] == sorted(received)
    assert all(row.received_ns is not None and 0 <= received[row.time_ns] - row.received_ns < s for row in rows)
    assert [row for page in own_store.dump([1], *FOREVER, received=True) for row in page] == rows
    assert own_store.read([1], *FOREVER, 100, descending=True, received=True) == rows[::-1]
    assert own_store.read([1], *FOREVER, 1)[0].received_ns is None


def test_receive_times_end_with_what_was_erased(own_store: Store) -> None:
    """A reading written after an erase has its own receive time, whatever was there before."""
    maker = fill(own_store, (0, 1.0), (5, 2.0))
    fill(own_store, (3, 2.5), maker=maker)
    own_store.erase([1])

    frame = maker.batch("pump", [("t", T0 + n, float(n)) for n in range(5)], received_ns=T0 + 10**12)
    own_store.write(numbered([frame], own_store.applied + 1))

    assert {row.received_ns for row in own_store.read([1], *FOREVER, 9, received=True)} == {T0 + 10**12}


def test_account_names_the_position_of_its_counters(store: Store) -> None:
    """Counters come with the offset they are of."""
    fill(store, (0, 1.0), (1, 2.0))

    account = store.account([1])

    assert (account.applied, account.series) == (1, [SeriesCounters(1, 2, 0, 2)])


@pytest.mark.parametrize("seed", range(5))
def test_receive_times_of_the_oracle(own_store: Store, seed: int) -> None:
    """Of random frames each row says when it was received, exactly or less than a second too early."""
    source, maker, oracle = random.Random(seed), FrameMaker(), MemoryStore()
    frames = numbered(
        [
            maker.batch(
                "pump", [("t", T0 + source.randrange(60) + i, 1.0) for _ in range(5)], received_ns=T0 + i * 3 * 10**8
            )
            for i in range(60)
        ]
    )
    for store in (own_store, oracle):
        store.write(frames)

    pairs = zip(*(store.read([1], *FOREVER, 999, received=True) for store in (own_store, oracle)), strict=True)

    for row, exact in pairs:
        assert row[:3] == exact[:3]
        assert row.received_ns is not None
        assert exact.received_ns is not None
        assert 0 <= exact.received_ns - row.received_ns < 10**9


@pytest.mark.parametrize("seed", range(5))
def test_engines_agree_with_the_oracle(store: Store, seed: int) -> None:
    """Random frames (late, doubled, several series, any grouping) give the oracle's rows, counters and buckets."""
    source, maker, oracle = random.Random(seed), FrameMaker(), MemoryStore()
    frames = numbered(
        [
            maker.batch(
                f"device-{source.randrange(3)}",
                [
                    (source.choice("abc"), T0 + source.randrange(60) + i * source.randrange(2), source.uniform(-9, 9))
                    for _ in range(source.randrange(1, 12))
                ],
                received_ns=T0 + i * 3 * 10**8,
            )
            for i in range(120)
        ]
    )
    oracle.write(frames)
    at = 0
    while at < len(frames):
        size = source.randrange(1, 30)
        store.write(frames[at : at + size])
        at += size

    ids = [series.id for series in maker.all_series()]
    assert all_rows(store, ids) == all_rows(oracle, ids)
    assert store.counters(ids) == oracle.counters(ids)
    assert store.read(ids, *FOREVER, 9999) == oracle.read(ids, *FOREVER, 9999)
    assert sorted(store.latest(ids)) == sorted(oracle.latest(ids))
    for found, expected in zip(
        store.aggregate(ids, *FOREVER, 7, AGGREGATES, origin_ns=3),
        oracle.aggregate(ids, *FOREVER, 7, AGGREGATES, origin_ns=3),
        strict=True,
    ):
        assert found[:2] == expected[:2]
        assert found.values == pytest.approx(expected.values, rel=1e-12)
