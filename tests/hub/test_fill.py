"""Buckets that hold no reading show what is asked for, and never what is known otherwise."""

import pytest

from hub.aggregate import Finished
from hub.errors import BadRequestError
from hub.fill import Fill, filled, parse_fill

EDGES = (0, 10, 20, 30)
# A line goes through the middle one: its integral is known there, its mean is not.
DONE = [Finished(0, True, (1.0, 2, 5.0)), Finished(10, False, (None, 0, 7.0))]
Values = tuple[float | None, ...]
FUNCTIONS = ("mean", "count", "integral")


@pytest.mark.parametrize(
    ("fill", "middle", "last"),
    [
        pytest.param("null", (None, 0, 7.0), (None, 0, None), id="null"),
        pytest.param("previous", (1.0, 0, 7.0), (1.0, 0, 5.0), id="previous"),
        pytest.param("linear", (2.0, 0, 7.0), (3.0, 0, 5.0), id="linear"),
        pytest.param(9.0, (9.0, 0, 7.0), (9.0, 0, 9.0), id="number"),
    ],
)
def test_only_what_is_not_known_is_filled(fill: Fill, middle: Values, last: Values) -> None:
    """A count of nothing is 0, an integral of a line is its own, and neighbours outside hold at the ends."""
    found = list(filled(DONE, EDGES, FUNCTIONS, fill, following=Finished(40, True, (5.0, 1, 5.0))))

    assert found == [DONE[0], Finished(10, False, middle), Finished(20, False, last)]


def test_without_neighbours_there_is_nothing_to_say() -> None:
    """Before the first reading nothing is previous, and behind the last one no line ends."""
    held = [Finished(10, True, (1.0, 2, None))]

    previous = [bucket.values[0] for bucket in filled(held, EDGES, FUNCTIONS, "previous")]
    linear = [bucket.values[0] for bucket in filled(held, EDGES, FUNCTIONS, "linear")]

    assert (previous, linear) == ([None, 1.0, 1.0], [None, 1.0, None])


def test_a_value_that_is_missing_in_a_neighbour_stays_null() -> None:
    """A bucket of one reading has no deviation; what is filled from it has none either."""
    held = [Finished(0, True, (None,)), Finished(20, True, (2.0,))]

    assert [bucket.values for bucket in filled(held, EDGES, ("std",), "linear")] == [(None,), (None,), (2.0,)]


def test_a_range_between_two_readings_of_one_bucket_has_the_first() -> None:
    """Both neighbours begin where the bucket does; a line between them has no length, and begins with the first."""
    before, after = Finished(0, True, (1.0,)), Finished(0, True, (5.0,))

    found = list(filled([], (0, 10), ("mean",), "linear", previous=before, following=after))

    assert found == [Finished(0, False, (1.0,))]


def test_words_and_numbers_are_read() -> None:
    """None means that empty buckets are left out; anything else that is no word is a number."""
    assert [parse_fill(text) for text in ("none", "null", "previous", "linear", "0", "-1.5")] == [
        None, "null", "previous", "linear", 0.0, -1.5,
    ]  # fmt: skip
    assert [parse_fill(str(number)) for number in (0.1 + 0.2, -1e-7, 1e300)] == [0.1 + 0.2, -1e-7, 1e300]
    for text in ("last", "nan", "inf", "1e999", "0x1", ""):
        with pytest.raises(BadRequestError, match="previous, linear or a number"):
            parse_fill(text)
