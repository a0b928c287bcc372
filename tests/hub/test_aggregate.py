"""Aggregates are made of a store's parts, and shown in the channel's unit.

What each says of readings, in `tests/hub/test_bucket_page.py`, is compared with the definitions.
"""

import pytest

from hub.aggregate import FUNCTIONS, Point, Surroundings, check_functions, finish, needs
from hub.description import scaling_of
from hub.errors import BadRequestError
from hub.store.base import AGGREGATES, PARTS

S = 10**9
# 2 at 2 s and 6 at 6 s, in a bucket of ten seconds.
PARTS_OF = {
    "avg": 4.0, "min": 2, "max": 6, "count": 2, "sum": 8.0, "first": 2, "last": 6, "first_ns": 2 * S, "last_ns": 6 * S,
    "m2": 8.0, "rise": 4.0, "area": 16.0,
}  # fmt: skip
AROUND = Surroundings(0, 10 * S, Point(-2 * S, 0), Point(12 * S, 9), is_counter=True)


def values(around: Surroundings, *functions: str) -> list[object]:
    """Return the aggregates of the bucket above."""
    (bucket,) = finish([0, 10 * S], {0: PARTS_OF}, functions, around)
    return list(bucket.values)


def test_a_negative_scale_turns_a_bucket_around() -> None:
    """Shown is 100 - 2 * stored: least and greatest change places, differences their sign."""
    shown = Surroundings(0, 10 * S, AROUND.before, AROUND.after, is_counter=True, scaling=scaling_of(-2.0, 100.0))

    assert values(shown, "min", "max", "mean", "avg", "first", "last") == [88.0, 96.0, 92.0, 92.0, 96.0, 88.0]
    assert values(shown, "count", "sum", "std") == [2, 184.0, pytest.approx(2 * 8**0.5)]
    assert values(shown, "increase", "rate") == [-12.0, -1.5]
    # Stored: 1 to 2 in 2 s, 16 within, 6 to 8 in 4 s: 47 over the 10 s of the bucket.
    assert values(AROUND, "integral", "twa") == pytest.approx([47.0, 4.7])
    assert values(shown, "integral", "integral_h", "twa") == pytest.approx([906.0, 906 / 3600, 90.6])


def test_a_gauge_changes_and_a_counter_rises() -> None:
    """The kind that the channel is described with decides what a rate is of."""
    fell = {0: {"first": 1, "last": 3, "first_ns": 2 * S, "last_ns": 6 * S, "rise": 2.0}}
    counter = Surroundings(0, 10 * S, Point(-4 * S, 11), is_counter=True)
    gauge = Surroundings(0, 10 * S, Point(-4 * S, 11))

    rates = [next(iter(finish([0, 10 * S], fell, ("rate",), of))).values[0] for of in (counter, gauge)]

    assert rates == [0.3, -0.8]


def test_a_lonely_reading_has_no_rate_spread_or_integral() -> None:
    """Nothing is made up: its mean is itself."""
    alone = {0: {**PARTS_OF, "count": 1, "last_ns": 2 * S, "last": 2, "rise": 0.0, "area": 0.0, "m2": 0.0, "avg": 2.0}}
    (bucket,) = finish(
        [0, 10 * S], alone, ("std", "rate", "integral", "integral_h", "twa", "increase"), Surroundings(0, 1)
    )

    assert bucket.values == (None, None, None, None, 2.0, 0.0)


def test_a_store_is_asked_only_for_what_is_needed() -> None:
    """Each once; nothing that stores do not have."""
    assert needs(("mean", "avg", "count")) == ("avg", "count")
    assert set(needs(FUNCTIONS)) == {*AGGREGATES, *PARTS}


def test_unknown_aggregates_are_refused_by_name() -> None:
    """The message lists what there is."""
    check_functions(FUNCTIONS)
    for functions, word in ((["mean", "median"], "'median': use min, max"), ([], "use min, max")):
        with pytest.raises(BadRequestError, match=word):
            check_functions(functions)
