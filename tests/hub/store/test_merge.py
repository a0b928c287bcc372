"""Chunks stay ascending, apart, within their day and of the right size, whatever comes in what order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import INT_MAX, INT_MIN, Value
from hub.store.chunk import Readings
from hub.store.merge import DAY_NS, NOTHING, Extent, by_day, cut, land, merged, ordered, within
from tests.support.columns import plain, readings

FULL = 4
VALUES = st.one_of(st.floats(allow_nan=False), st.integers(INT_MIN, INT_MAX), st.booleans(), st.text(max_size=3))
# Few instants around two borders of days, so that they meet again.
TIMES = st.one_of(st.integers(-20, 20), st.integers(DAY_NS - 20, DAY_NS + 20))
PAIRS = st.lists(st.tuples(TIMES, VALUES), min_size=1, max_size=30)


def typed(pairs: dict[int, Value]) -> list[tuple[int, type, Value]]:
    """Return what must come back: ordered, with types."""
    return [(time, type(value), value) for time, value in sorted(pairs.items())]


@given(pairs=PAIRS)
def test_last_of_an_instant_stays(pairs: list[tuple[int, Value]]) -> None:
    """Readings are put in order, and of each instant the last that came counts."""
    assert typed(dict(plain(ordered(readings(pairs))))) == typed(dict(pairs))
    assert (ordered(readings(pairs)).times[1:] > ordered(readings(pairs)).times[:-1]).all()


@given(older=PAIRS, newer=PAIRS)
def test_newer_counts(older: list[tuple[int, Value]], newer: list[tuple[int, Value]]) -> None:
    """Of two columns, whatever their types, the newer one's value stays, with its receive time."""
    found = merged(ordered(readings(older, 1)), ordered(readings(newer, 2)))

    assert typed(dict(plain(found))) == typed(dict(older) | dict(newer))
    assert found.received.tolist() == [2 if time in dict(newer) else 1 for time in found.times.tolist()]
    assert plain(merged(NOTHING, found)) == plain(merged(found, NOTHING)) == plain(found)


@given(pairs=PAIRS, start=TIMES, length=st.integers(0, 2**64))
def test_range_is_half_open(pairs: list[tuple[int, Value]], start: int, length: int) -> None:
    """start <= time < end, also beyond 64 bits."""
    found = within(ordered(readings(pairs)), start, start + length)

    assert plain(found) == [pair for pair in plain(ordered(readings(pairs))) if start <= pair[0] < start + length]


class Chunks:
    """A series' chunks, kept by the rules of the module as sealing does."""

    def __init__(self) -> None:
        self.chunks: list[Readings] = []

    def add(self, pairs: list[tuple[int, Value]]) -> None:
        """Merge readings in."""
        for day in by_day(ordered(readings(pairs))):
            number = int(day.times[0]) // DAY_NS
            of_day = [chunk for chunk in self.chunks if chunk.times[0] // DAY_NS == number]
            extents = [Extent(int(c.times[0]), int(c.times[-1]), len(c.times)) for c in of_day]
            for landing in land(day, extents, FULL):
                result = landing.readings
                if landing.owner is not None:
                    result = merged(of_day[landing.owner], result)
                    self.chunks = [chunk for chunk in self.chunks if chunk is not of_day[landing.owner]]
                self.chunks += cut(result, FULL)
        self.chunks.sort(key=lambda chunk: int(chunk.times[0]))


@given(writes=st.lists(PAIRS, min_size=1, max_size=8))
def test_chunks_never_overlap(writes: list[list[tuple[int, Value]]]) -> None:
    """Each reading is in one chunk; chunks follow one another, stay within a day and below twice their size."""
    chunks, expected = Chunks(), dict[int, Value]()
    for pairs in writes:
        chunks.add(pairs)
        expected |= dict(pairs)

        found = [pair for chunk in chunks.chunks for pair in plain(chunk)]
        assert found == [(time, value) for time, value in sorted(expected.items())]
        assert all(len(chunk.times) < 2 * FULL for chunk in chunks.chunks)
        assert all(len(set((chunk.times // DAY_NS).tolist())) == 1 for chunk in chunks.chunks)


def test_half_full_chunk_is_left_alone_by_what_comes_behind_it() -> None:
    """In order, each chunk is written once when half a chunk's worth comes at a time."""
    extents = [Extent(0, 3, FULL // 2), Extent(10, 12, FULL // 2 - 1)]

    assert [(landing.owner, plain(landing.readings)) for landing in land(readings([(5, 1)]), extents, FULL)] == [
        (None, [(5, 1)])
    ]
    assert [landing.owner for landing in land(readings([(2, 1), (5, 1), (13, 1)]), extents, FULL)] == [0, 1]
    assert [landing.owner for landing in land(readings([(-5, 1)]), extents, FULL)] == [None]
    assert [landing.owner for landing in land(readings([(-5, 1), (1, 1)]), extents[1:], FULL)] == [0]


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (4, [4]), (7, [7]), (8, [4, 4]), (15, [5, 5, 5])])
def test_cut(n: int, sizes: list[int]) -> None:
    """Chunks are of even size."""
    assert [len(c.times) for c in cut(readings([(i, i) for i in range(n)]), FULL)] == sizes


def test_chunks_end_with_the_hour_where_readings_are_dense() -> None:
    """Hourly means then need no chunk decoded; few readings of an hour, or of each, cross hours."""
    hour, full = 3600 * 10**9, 64
    dense = readings([(n * hour // 100, n) for n in range(350)])
    few_before_the_hour = readings([(hour + n, n) for n in range(-7, 20)])
    seldom = readings([(n * hour // 7, n) for n in range(7 * 24)])

    assert [len(c.times) for c in cut(dense, full)] == [100, 100, 100, 50]
    assert all(c.times[0] // hour == c.times[-1] // hour for c in cut(dense, full))
    assert [len(c.times) for c in cut(few_before_the_hour, full)] == [27]
    assert [len(c.times) for c in cut(seldom, full)] == [84, 84]
