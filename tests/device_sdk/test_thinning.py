"""Which readings stay, and whose turn it is."""

import pytest

from device_sdk.thinning import Stretch, pick, survivors


@pytest.mark.parametrize(
    ("channels", "kept"),
    [("", ""), ("a", "y"), ("aa", "ny"), ("aaaaa", "ynyny"), ("aab", "nyy"), ("abab", "nnyy"), ("abaabb", "yynyny")],
)
def test_every_second_reading_of_a_channel_goes_and_its_last_stays(channels: str, kept: str) -> None:
    """Counted from the end, for each channel alone."""
    assert "".join("ny"[stays] for stays in survivors(list(channels))) == kept


@pytest.mark.parametrize(
    ("levels", "chosen"),
    [
        ([], []),
        ([0, 0, 0], [0, 1]),
        ([1, 1, 0, 0, 0], [2, 3]),
        ([1, 1, 0], [2]),
        ([2, 1, 1, 1], [1, 2]),
        ([2, 1, 2], [1]),
    ],
)
def test_the_lowest_level_goes_first_and_the_oldest_of_it(levels: list[int], chosen: list[int]) -> None:
    """So that all of an outage is kept at about one density; two neighbours become one."""
    assert list(pick([Stretch(level, 100, is_joined=True) for level in levels], most=200)) == chosen


def test_small_neighbours_are_joined_up_to_the_size() -> None:
    """Otherwise each halving would leave more and smaller files."""
    small = [Stretch(1, 40, is_joined=True) for _ in range(9)]

    assert list(pick(small, most=200)) == [0, 1, 2, 3, 4]


def test_a_border_between_lanes_is_not_crossed() -> None:
    """What was joined could not be cut apart again."""
    stretches = [Stretch(0, 40, is_joined=False), Stretch(0, 40, is_joined=False), Stretch(0, 40, is_joined=True)]

    assert list(pick(stretches, most=200)) == [0]


def test_one_that_is_too_large_is_thinned_alone() -> None:
    """A file may exceed its size by one call of many values."""
    assert list(pick([Stretch(0, 500, is_joined=False)], most=200)) == [0]
