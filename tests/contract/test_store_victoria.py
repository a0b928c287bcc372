"""The suite of the stores over VictoriaMetrics, a real one and one in memory.

`EXCEPTIONS` lists all that is not so there, and why.
The suite counts in nanoseconds and the server in milliseconds: a nanosecond of the suite is a millisecond of the
store here, except in tests that count in milliseconds or more themselves.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.model import Frame
from hub.store.base import AGGREGATES, Bucket, Row, SeriesCounters, StoreAccount
from hub.store.victoria import VictoriaStore
from hub.store.victoria_client import Server, VictoriaClient
from tests.contract import test_store as suite
from tests.contract.test_store import FOREVER, all_rows, fill
from tests.support.fake_victoria import FakeVictoria
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore
from tests.support.victoria_metrics import PROGRAM, VictoriaMetrics

MS = 10**6
# Test of the suite → what is otherwise with this store; below is what holds instead.
EXCEPTIONS = {
    "test_values_come_back_exactly": "floats keep 11 digits and no sign of 0; ints that widened come back as floats",
    "test_engines_agree_with_the_oracle": "its floats have 17 digits",
    "test_aggregate_from_an_origin": "it has times that are no 64 bits of milliseconds",
    "test_aggregate_range_and_before_1970": "it has several readings in one millisecond",
    "test_receive_time_is_kept_beside_event_time": "receive times are not known",
    "test_receive_times_of_the_oracle": "receive times are not known",
    "test_receive_times_end_with_what_was_erased": "receive times are not known",
}
# They count in milliseconds or seconds.
_COARSE = {
    "test_late_readings_are_stored_and_counted",
    "test_late_readings_never_become_the_newest",
    "test_aggregate_parts",
}
globals().update(
    {name: test for name, test in vars(suite).items() if name.startswith("test_") and name not in EXCEPTIONS}
)


class InMilliseconds(VictoriaStore):
    """Whoever uses it counts in nanoseconds around `T0`, the store in milliseconds."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Write, stretched."""
        super().write([replace(frame, t0=_stretch(frame.t0), tick=frame.tick * MS) for frame in frames])

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Answer, shrunk."""
        return _shrink(super().latest(series))

    def read(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool = False,
        received: bool = False,
    ) -> list[Row]:
        """Answer, shrunk."""
        return _shrink(super().read(series, _stretch(start_ns), _stretch(end_ns), limit, descending=descending))

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Answer without what is late: that is told in milliseconds."""
        found = super().account(series)
        return replace(found, series=[replace(one, late=0) for one in found.series])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """A server for all tests: each store has readings of its own there."""
    if PROGRAM is None:
        pytest.skip("victoria-metrics is not installed: apt-get install victoria-metrics")
    with VictoriaMetrics(tmp_path_factory.mktemp("victoria-metrics")) as running:
        yield running


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.end_to_end)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VictoriaStore]:
    """An empty store on a server that exists, and on one in memory."""
    server: Server
    server = FakeVictoria() if request.param == "fake" else VictoriaClient(request.getfixturevalue("running").address)
    name = request.node.originalname
    made = VictoriaStore if name in _COARSE or name not in vars(suite) else InMilliseconds
    store = made(tmp_path / "victoria.sqlite3", server, hold_s=0)
    yield store
    store.close()


def test_exceptions_are_of_the_suite() -> None:
    """Each exception names a test that is there."""
    assert {*EXCEPTIONS, *_COARSE} <= vars(suite).keys()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([21.5, 0.1 + 0.2, 1e300, 1.0], [21.5, 0.3, 1e300, 1.0], id="float"),
        pytest.param([-0.0, 5e-324], [0.0, 0.0], id="near zero"),
        pytest.param([0, 1, -(2**63), 2**63 - 1, 2**53 + 1], [0, 1, -(2**63), 2**63 - 1, 2**53 + 1], id="int"),
        pytest.param([True, False], [True, False], id="bool"),
        pytest.param(["", "läuft", "a\x00b", "1", "x" * 1024], ["", "läuft", "a\x00b", "1", "x" * 1024], id="str"),
        pytest.param([1, 2, 2.5], [1.0, 2.0, 2.5], id="int that widened"),
    ],
)
def test_values(store: VictoriaStore, values: list[Value], expected: list[Value]) -> None:
    """Ints, bools and text come back exactly, floats to 11 digits, a widened series as floats."""
    fill(store, *((i * MS, value) for i, value in enumerate(values)))

    found = [row.value for row in store.read([1], *FOREVER, 100)]

    assert list(map(repr, found)) == list(map(repr, expected))


def test_readings_of_one_millisecond_are_one(store: VictoriaStore) -> None:
    """A time is rounded down to its millisecond; a second reading there supersedes the first and is counted so."""
    maker = fill(store, (0, 1.0), (999_999, 2.0), (MS, 3.0))
    fill(store, (MS + 1, 4.0), maker=maker)

    assert all_rows(store, [1]) == [Row(1, T0, 2.0), Row(1, T0 + MS, 4.0)]
    assert store.counters([1]) == [SeriesCounters(1, 4, 2, 2)]


def test_times_the_server_ignores_are_kept(store: VictoriaStore) -> None:
    """Readings before 1970, at its first instant, and years ahead are there, in order, and counted."""
    maker, year = FrameMaker(), 365 * 86_400 * 10**9
    times = [-11 * MS, -10 * MS, 0, 1, T0, T0 + 50 * year]
    store.write(numbered([maker.batch("pump", [("t", at, float(i)) for i, at in enumerate(times)])]))

    assert [(row.time_ns, row.value) for row in all_rows(store, [1])] == [
        (-11 * MS, 0.0), (-10 * MS, 1.0), (0, 3.0), (T0, 4.0), (T0 + 50 * year, 5.0),
    ]  # fmt: skip
    assert store.counters([1]) == [SeriesCounters(1, 6, 1, 5, late=0)]
    assert store.aggregate([1], -11 * MS, MS, 10 * MS, ["count", "first"]) == [
        Bucket(1, -20 * MS, (1, 0.0)), Bucket(1, -10 * MS, (1, 1.0)), Bucket(1, 0, (1, 3.0)),
    ]  # fmt: skip


def test_receive_times_are_not_known(store: VictoriaStore) -> None:
    """Asked when a reading was received, the store says that it does not know."""
    fill(store, (0, 1.0))

    assert store.read([1], *FOREVER, 9, received=True) == [Row(1, T0, 1.0, None)]


def test_buckets_from_an_origin(store: VictoriaStore) -> None:
    """Buckets begin at origin + k * step, and a beginning between two milliseconds counts from the second."""
    fill(store, *((i * MS, float(i)) for i in range(6)))

    found = store.aggregate([1], T0 + 1, T0 + 5 * MS, 2 * MS, ["count", "last_ns"], origin_ns=T0 + MS)

    assert found == [
        Bucket(1, T0 + MS, (2, T0 + 2 * MS)), Bucket(1, T0 + 3 * MS, (2, T0 + 4 * MS)),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_oracle(store: VictoriaStore, seed: int) -> None:
    """Random frames (late, doubled, several series, any grouping) give the oracle's rows, counters and buckets."""
    source, maker, oracle = random.Random(seed), FrameMaker(), MemoryStore()
    frames = numbered(
        [
            maker.batch(
                f"device-{source.randrange(3)}",
                [
                    (
                        source.choice("abc"),
                        T0 + (source.randrange(60) + i * source.randrange(2)) * MS,
                        round(source.uniform(-9, 9), 3),
                    )
                    for _ in range(source.randrange(1, 12))
                ],
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

    series = [s.id for s in maker.all_series()]
    assert all_rows(store, series) == all_rows(oracle, series)
    assert store.counters(series) == oracle.counters(series)
    assert sorted(store.latest(series)) == sorted(oracle.latest(series))
    exact = [name for name in AGGREGATES if name not in ("avg", "sum")]
    arguments = (series, T0 + 5 * MS, T0 + 50 * MS, 7 * MS, exact)
    assert store.aggregate(*arguments) == oracle.aggregate(*arguments)
    descending = store.read(series, T0, T0 + 10**9, 10**6, descending=True)
    assert descending == oracle.read(series, T0, T0 + 10**9, 10**6, descending=True)


def test_corrections_amid_many_readings(store: VictoriaStore) -> None:
    """A few corrections in a dense minute find what they correct, whatever lies between."""
    fill(store, *((i * MS, float(i)) for i in range(25_000)))
    maker = FrameMaker()
    maker.find("pump", "t")
    fill(store, (3 * MS, -1.0), (12_000 * MS, -2.0), (24_998 * MS, -3.0), maker=maker)

    assert store.counters([1]) == [SeriesCounters(1, 25_003, 3, 25_000, late=2)]
    found = store.read([1], T0, T0 + 10**12, 60_000)
    assert [row.value for row in found if isinstance(row.value, float) and row.value < 0] == [-1.0, -2.0, -3.0]


@pytest.mark.parametrize("kind", [float, int, bool])
def test_buckets_of_the_server_are_those_of_rows(store: VictoriaStore, kind: type) -> None:
    """Whole buckets, cut ones at both ends, gaps, an origin, each function: what the readings say, with their type."""
    source, maker, oracle = random.Random(4), FrameMaker(), MemoryStore()
    times = [*sorted(source.sample(range(60_000), 900)), 100_007, 200_000]
    made = [maker.batch("pump", [(c, T0 + at * MS, kind(source.randrange(2, 90))) for at in times]) for c in "ab"]
    numbered(made)
    for each in (store, oracle):
        each.write(made)

    for start, end, step, origin in (
        (*FOREVER, 1_000, 0),
        (T0 + 1, T0 + 59_000 * MS, 1_000, 0),
        (T0 + 1_500 * MS, T0 + 150_000 * MS, 7_000, T0 + 13 * MS),
        (T0, T0 + 900 * MS, 1_000, 0),
        (T0 + 100_007 * MS, T0 + 100_008 * MS, 1, 0),
    ):
        found = store.aggregate([1, 2], start, end, step * MS, AGGREGATES, origin_ns=origin)
        expected = oracle.aggregate([1, 2], start, end, step * MS, AGGREGATES, origin_ns=origin)
        assert [bucket[:2] for bucket in found] == [bucket[:2] for bucket in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.values == pytest.approx(other.values, rel=1e-12)
            assert list(map(type, one.values)) == list(map(type, other.values))


def test_buckets_hold_what_is_kept_beside(store: VictoriaStore) -> None:
    """A correction and a large int count, though the server does not have them."""
    maker = fill(store, *((i * MS, i) for i in range(20)))
    fill(store, (3 * MS, 100), (25 * MS, 2**60), maker=maker)

    found = store.aggregate([1], *FOREVER, 10 * MS, ["max", "count"])

    assert found == [
        Bucket(1, T0, (100, 10)), Bucket(1, T0 + 10 * MS, (19, 10)), Bucket(1, T0 + 20 * MS, (2**60, 1)),
    ]  # fmt: skip


def _stretch(time_ns: int) -> int:
    return T0 + (time_ns - T0) * MS


def _shrink(rows: list[Row]) -> list[Row]:
    return [row._replace(time_ns=T0 + (row.time_ns - T0) // MS) for row in rows]
