"""Blocks: nothing changes on the way into one, into another, into the log and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import INT_MAX, INT_MIN, Value
from hub.errors import StoreError
from hub.store.block import Block, as_one, decode, encode
from tests.support.columns import block, plain

VALUES = st.one_of(st.floats(allow_nan=False), st.integers(INT_MIN, INT_MAX), st.booleans(), st.text(max_size=3))
TIMES = st.integers(-50, 50)
RUNS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.one_of(
            st.lists(st.tuples(TIMES, st.floats(allow_nan=False)), min_size=1, max_size=8),
            st.lists(st.tuples(TIMES, st.integers(INT_MIN, INT_MAX)), min_size=1, max_size=8),
            st.lists(st.tuples(TIMES, VALUES), min_size=1, max_size=8),
        ),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)
Run = tuple[int, list[tuple[int, Value]], int]
Found = dict[int, tuple[list[tuple[int, str]], int]]


def told(made: Block) -> Found:
    """Return what a block says of each series: times and values as text, and how many are late."""
    return {
        series: ([(time_ns, repr(value)) for time_ns, value in plain(readings)], late)
        for series, (readings, late) in made.by_series()
    }


def expected(runs: list[Run]) -> Found:
    """Return the same of the runs themselves."""
    found: Found = {}
    for series, pairs, late in runs:
        before = found.get(series, ([], 0))
        found[series] = (before[0] + [(time_ns, repr(value)) for time_ns, value in pairs], before[1] + late)
    return dict(sorted(found.items()))


@given(writes=st.lists(RUNS, min_size=1, max_size=4))
def test_nothing_changes_on_the_way(writes: list[list[Run]]) -> None:
    """Order, times, types and late counts of each series, in a block, in several as one, and in the log."""
    blocks = [block(*runs) for runs in writes]
    for made, runs in zip(blocks, writes, strict=True):
        assert told(made) == told(decode(encode(made))) == expected(runs)
    all_runs = [run for runs in writes for run in runs]
    together = as_one(blocks)
    assert told(together) == told(decode(encode(together))) == expected(all_runs)
    assert list(expected(all_runs)) == together.series.tolist()
    assert len(together) == sum(len(pairs) for _, pairs, _ in all_runs)


@given(runs=RUNS, first=st.integers(0, 7), length=st.integers(0, 7))
def test_a_part_holds_its_series(runs: list[Run], first: int, length: int) -> None:
    """Cut by a range of series, chosen by a mask, or looked up one by one."""
    made, all_of_it, behind = block(*runs), expected(runs), first + length
    inside = {series: found for series, found in all_of_it.items() if first <= series < behind}
    part, wanted = made.between(first, behind), np.arange(first, first + length + 1)
    chosen = made.select(made.holds(wanted))

    assert (told(part) if part else {}) == inside
    assert set(told(chosen) if chosen else {}) == set(all_of_it) & set(wanted.tolist())
    for series in range(8):
        found = made.find(series)
        assert (found is not None) == (series in all_of_it)
        if found is not None:
            assert [(t, repr(v)) for t, v in plain(found[0])] == all_of_it[series][0]
    if part:
        again = as_one([part, made])
        assert told(again) == expected([(s, pairs, late) for s, pairs, late in runs if s in inside] + runs)


@given(runs=RUNS)
def test_edges_are_those_of_the_readings(runs: list[Run]) -> None:
    """Least and greatest time of each series and of all; the newest value is the last that came for its instant."""
    made, all_of_it = block(*runs), expected(runs)
    times = {series: [time_ns for time_ns, _ in pairs] for series, (pairs, _) in all_of_it.items()}

    assert made.least().tolist() == [min(of_one) for of_one in times.values()]
    assert made.greatest.tolist() == [max(of_one) for of_one in times.values()]
    oldest, newest = min(map(min, times.values())), max(map(max, times.values()))
    near = [
        made.is_near(*where) for where in ((newest, newest + 1), (newest + 1, 99), (-99, oldest), (-99, oldest + 1))
    ]
    assert near == [True, False, False, True]
    found = made.newest(np.arange(len(times)))
    assert [(series, time_ns, repr(value)) for series, time_ns, value in found] == [
        (series, max(times[series]), [value for time_ns, value in pairs if time_ns == max(times[series])][-1])
        for series, (pairs, _) in all_of_it.items()
    ]


def test_damaged_row_is_told() -> None:
    """A changed byte anywhere, or a missing end, is an error."""
    row = encode(block((1, [(0, 1.0)], 0), (2, [(0, "x")], 0)))
    for place in range(len(row)):
        changed = bytearray(row)
        changed[place] ^= 1
        for bad in (bytes(changed), row[:place]):
            with pytest.raises(StoreError, match="damaged"):
                decode(bad)
