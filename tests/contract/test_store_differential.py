"""The column store, the plain rows and the oracle are given the same life and asked the same questions.

Late, doubled and corrected readings of all types around a border of days, sealed or not, with restarts, erasures and a
journal that was set back in between.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import INT_MAX, INT_MIN, Value
from hub.errors import BadRequestError
from hub.model import Frame
from hub.store.base import AGGREGATES, PARTS, Bucket, RetainingStore, Row
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from hub.store.rollup import NEEDED
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

S = 10**9
DAY_NS, HOUR_NS, MINUTE_NS = 86_400 * S, 3600 * S, 60 * S
BORDER = T0 // DAY_NS * DAY_NS + DAY_NS
SERIES = list(range(1, 7))
FLOATS = st.floats(-1e9, 1e9)
MIXED = st.one_of(FLOATS, st.sampled_from([0, -1, 2**53 + 1, INT_MIN, INT_MAX]), st.booleans(), st.text(max_size=2))
# Few instants, so that they meet; near the border of days, and far from it.
TIMES = st.one_of(st.integers(-6, 6).map(lambda s: BORDER + s * S), st.sampled_from([0, -1, T0 - 3 * DAY_NS, 2**61]))
FRAMES = st.tuples(
    st.sampled_from("ab"),
    st.one_of(
        st.lists(st.tuples(st.sampled_from("tuv"), TIMES, FLOATS), min_size=1, max_size=12),
        st.lists(st.tuples(st.sampled_from("tuv"), TIMES, MIXED), min_size=1, max_size=12),
    ),
    st.integers(0, 30).map(lambda n: T0 + n * S // 3),
)
STEPS = st.one_of(
    st.tuples(st.just("write"), st.lists(FRAMES, min_size=1, max_size=4)),
    st.tuples(st.just("write"), st.lists(FRAMES, min_size=1, max_size=4)),
    st.tuples(st.just("write"), st.lists(FRAMES, min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["seal", "restart", "sync"]), st.none()),
    st.tuples(st.just("erase"), st.sampled_from(SERIES)),
    st.tuples(st.just("rewind"), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.sampled_from([BORDER, BORDER + 2 * HOUR_NS - 1, BORDER - DAY_NS, 2**61, 5])),
)


class Life:
    """Three stores that live through the same."""

    def __init__(self, folder: Path) -> None:
        self._open: list[Callable[[], RetainingStore]] = [
            lambda: ColumnStore(folder / "columns", chunk_readings=3, max_pending_bytes=1500),
            lambda: EmbeddedStore(folder / "rows"),
        ]
        self._maker = FrameMaker()
        # Ids are given here once, whichever channel comes first.
        for device in "ab":
            for channel in "tuv":
                self._maker.find(device, channel)
        self.oracle = MemoryStore()
        self.stores = [open_store() for open_store in self._open]
        self._written: list[Frame] = []

    def live(self, step: str, what: Any) -> None:
        """Do one thing to all of them."""
        match step:
            case "write":
                made = [self._maker.batch(device, found, received_ns=ns) for device, found, ns in what]
                self._written += numbered(made, self.oracle.applied + 1)
                # What was written before is skipped.
                for store in (self.oracle, *self.stores):
                    store.write([*self._written[-len(made) - 2 : -len(made)], *made])
            case "restart":
                self.close()
                self.stores = [open_store() for open_store in self._open]
            case "seal":
                columns = self.stores[0]
                assert isinstance(columns, ColumnStore)
                columns.seal()
            case "sync":
                assert {store.sync() for store in self.stores} == {self.oracle.applied}
            case "drop":
                assert len({drop(store, what) for store in (self.oracle, *self.stores)}) == 1
            case "erase":
                assert len({store.erase([what]) for store in (self.oracle, *self.stores)}) == 1
            case _:
                position = max(self.oracle.applied - what, 0)
                for store in (self.oracle, *self.stores):
                    store.rewind(position)
                self._written = [frame for frame in self._written if frame.offset <= position]

    def close(self) -> None:
        """Close the files."""
        for store in self.stores:
            store.close()


def drop(store: RetainingStore, before_ns: int) -> int:
    """Drop everything before a time; return how many readings."""
    dropped = 0
    while slice_of := store.drop_before(SERIES, before_ns):
        dropped += slice_of
    return dropped


def exact(rows: Sequence[Row]) -> list[tuple[int, int, str]]:
    """Return rows with the type and every digit of their values."""
    return [(row.series, row.time_ns, repr(row.value)) for row in rows]


def compare(store: RetainingStore, oracle: MemoryStore) -> None:
    """Ask both everything."""
    forever = (-(2**63), 2**63 - 1)
    assert store.applied == oracle.applied
    assert store.counters(SERIES) == oracle.counters(SERIES)
    assert exact(store.latest(SERIES)) == exact(oracle.latest(SERIES))
    assert store.statistics().rows == oracle.statistics().rows
    assert store.raw_from(SERIES) == oracle.raw_from(SERIES)
    assert store.oldest(SERIES) == oracle.oldest(SERIES)
    for start, end in (forever, (BORDER - 3 * S, BORDER + 2 * S), (BORDER + 1, BORDER + 1), (0, BORDER)):
        for descending in (False, True):
            for series in (SERIES, SERIES[:1]):
                for limit in (1, 4, 1000):
                    found = store.read(series, start, end, limit, descending=descending, received=True)
                    expected = oracle.read(series, start, end, limit, descending=descending, received=True)
                    assert exact(found) == exact(expected)
                    for row, known in zip(found, expected, strict=True):
                        assert row.received_ns is not None
                        assert known.received_ns is not None
                        assert 0 <= known.received_ns - row.received_ns < S
        dumped = [row for page in store.dump(SERIES, start, end) for row in page]
        assert exact(dumped) == exact(oracle.read(SERIES, start, end, 10**6))
        compare_buckets(store, oracle, start, end)


def buckets_of(store: RetainingStore, *question: Any, origin_ns: int) -> list[Bucket] | None:
    """Return an answer, None when it is refused."""
    try:
        return store.aggregate(SERIES, *question, origin_ns=origin_ns)
    except BadRequestError:
        return None


STEPS_AND_ORIGINS = (
    (S, 0), (S, 3), (5 * S, -S), (MINUTE_NS, 0), (HOUR_NS, 0), (2 * HOUR_NS, -HOUR_NS), (DAY_NS, 0),
    (DAY_NS, 20_700 * S), (2**62 // HOUR_NS * HOUR_NS, 0), (2**62, 0), (2**62, -5 * S),
)  # fmt: skip


def compare_buckets(store: RetainingStore, oracle: MemoryStore, start: int, end: int) -> None:
    """Sums of floats may differ in their last digits: by how large what was added up is."""
    rows = oracle.read(SERIES, start, end, 10**6)
    values = [row.value for row in rows] + [value for _, _, value in oracle.dropped]
    size = sum(abs(float(value)) for value in values if not isinstance(value, str))
    span_s = (rows[-1].time_ns - rows[0].time_ns) / S if rows else 0
    for step, origin in STEPS_AND_ORIGINS:
        for functions in (AGGREGATES, (*NEEDED, "avg"), ("max", "avg"), ("first_ns", "last_ns"), PARTS):
            found = buckets_of(store, start, end, step, functions, origin_ns=origin)
            expected = buckets_of(oracle, start, end, step, functions, origin_ns=origin)
            assert (found is None) == (expected is None)
            if found is None or expected is None:
                continue
            assert [bucket[:2] for bucket in found] == [bucket[:2] for bucket in expected]
            for bucket, known in zip(found, expected, strict=True):
                for name, value, right in zip(functions, bucket.values, known.values, strict=True):
                    error = 1e-12 * size * {"m2": size, "area": span_s}.get(name, 1)
                    assert value == pytest.approx(right, rel=1e-12, abs=error), name


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=10))
def test_stores_live_alike(steps: list[tuple[str, Any]]) -> None:
    """Same writes, same questions, same answers, at the end of any life."""
    with TemporaryDirectory() as folder:
        life = Life(Path(folder))
        try:
            for step, what in steps:
                life.live(step, what)
            for store in life.stores:
                compare(store, life.oracle)
        finally:
            life.close()


@pytest.mark.parametrize("is_sealed", [False, True])
def test_values_of_every_type_meet(tmp_path: Path, is_sealed: bool) -> None:
    """A series whose type changed in mid-life, corrected across the types, before and after sealing."""
    life = Life(tmp_path)
    values: list[Value] = [1, 2.5, True, "x", -0.0, INT_MAX, "", False, 0, 0.0]
    for shift in range(4):
        pairs = [("t", BORDER + i * S, values[(i + shift * 3) % len(values)]) for i in range(shift, len(values))]
        life.live("write", [("a", pairs, T0)])
        if is_sealed:
            life.live("seal", None)

    for store in life.stores:
        compare(store, life.oracle)
    life.close()
