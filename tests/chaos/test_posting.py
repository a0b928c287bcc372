"""kill -9 of the hub under devices that post: what was answered for is stored once, whatever was sent again."""

import random
from pathlib import Path

import pytest

from tests.chaos.posting import Outcome, run

KILLS, NIGHTLY_KILLS = 12, 200


def check(outcome: Outcome, seed: int, kills: int) -> None:
    """Nothing was lost or doubled, and kills met requests that were under way."""
    print(f"posting seed={seed} {outcome}")
    assert outcome.is_green, f"seed {seed}: {outcome}"
    assert outcome.kills == kills
    assert outcome.again >= kills


@pytest.mark.timeout(180)
def test_kill_under_posts_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """12 kills, the same moments each time (about a quarter of a minute)."""
    check(run(KILLS, 1, tmp_path), 1, KILLS)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_kill_under_posts_two_hundred_times(tmp_path: Path) -> None:
    """Other moments each night."""
    seed = random.SystemRandom().randrange(2**32)
    check(run(NIGHTLY_KILLS, seed, tmp_path), seed, NIGHTLY_KILLS)
