"""Aggregates from rows, page by page, are those of the definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.store import accumulator
from hub.store.accumulator import aggregate_rows
from hub.store.base import AGGREGATES, PARTS, Bucket
from tests.support.frames import FrameMaker, numbered
from tests.support.memory_store import MemoryStore

S = 10**9
VALUES = st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.booleans(), st.just("text"))
READINGS = st.lists(st.tuples(st.sampled_from("tu"), st.integers(-20, 20), VALUES), min_size=1, max_size=30)


def store_of(readings: list[tuple[str, int, Value]]) -> MemoryStore:
    """Return a store with (channel, time in s, value) of one device."""
    store = MemoryStore()
    frame = FrameMaker().batch("pump", [(channel, at * S, value) for channel, at, value in readings])
    store.write(numbered([frame]))
    return store


@given(READINGS, st.integers(1, 50), st.integers(-60, 60))
def test_rows_give_what_the_oracle_defines(readings: list[tuple[str, int, Value]], step: int, origin: int) -> None:
    """Every aggregate and part, of numbers, bools and text, over any buckets."""
    store = store_of(readings)
    question = ([1, 2], -15 * S, 18 * S, step * S, (*AGGREGATES, *PARTS))

    found = aggregate_rows(store, *question, origin_ns=origin * S)
    one_by_one = aggregate_rows(store, *question, origin_ns=origin * S, is_one_by_one=True)
    expected = store.aggregate(*question, origin_ns=origin * S)

    assert one_by_one == found
    assert [bucket[:2] for bucket in found] == [bucket[:2] for bucket in expected]
    for bucket, known in zip(found, expected, strict=True):
        assert bucket.values == pytest.approx(known.values, rel=1e-9, abs=1e-6)


def test_a_bucket_goes_on_over_pages() -> None:
    """What lies between the last row of a page and the first of the next counts like any other."""
    readings: list[tuple[str, int, Value]] = [("t", at, float(at % 7)) for at in range(accumulator._PAGE_ROWS + 5)]

    found = aggregate_rows(store_of(readings), [1], 0, 10**15, 10**15, ("count", "rise", "area"))

    # Up by 6 and down to 0 each 7 s.
    assert found == [Bucket(1, 0, (10_005, 8575.0, 30009.5))]


def test_more_buckets_than_an_answer_may_hold_are_refused() -> None:
    """Counted while they are made, so that memory stays bounded."""
    store = store_of([("t", at, 1.0) for at in range(3)])
    assert len(aggregate_rows(store, [1], 0, 2 * S, S, ["avg"], max_buckets=2)) == 2

    with pytest.raises(BadRequestError, match="more than 2 buckets"):
        aggregate_rows(store, [1], 0, 3 * S, S, ["avg"], max_buckets=2)
    with pytest.raises(BadRequestError, match="m2"):
        aggregate_rows(store, [1], 0, 3 * S, S, ["p99"])
