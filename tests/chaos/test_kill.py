"""kill -9 of hub and devices at random moments: nothing acked is lost, nothing doubled, the ledger balances."""

import random
from pathlib import Path

import pytest

from tests.chaos.kill import run
from tests.support.chaos_world import Outcome

KILLS, SEALING_KILLS, NIGHTLY_KILLS = 50, 25, 1000


def check(outcome: Outcome, seed: int, kills: int) -> None:
    """The promise was kept, and the run was not idle: a kill among frames under way is what tests it."""
    print(f"kill seed={seed} {outcome}")
    assert outcome.is_green, f"seed {seed}: {outcome}"
    assert outcome.faults == kills
    assert outcome.produced > kills * 20


@pytest.mark.timeout(300)
def test_kill_of_hub_and_devices_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """50 kills in turns, the same moments each time (about half a minute)."""
    check(run(KILLS, 1, tmp_path), 1, KILLS)


@pytest.mark.timeout(300)
def test_kill_of_a_hub_that_seals_all_the_time(tmp_path: Path) -> None:
    """Readings on their way into chunks are neither lost nor doubled: 25 kills, sealing at nearly each write."""
    check(run(SEALING_KILLS, 2, tmp_path, hub_mutant="seal_often"), 2, SEALING_KILLS)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_kill_a_thousand_times(tmp_path: Path) -> None:
    """1,000 kills within an hour, other moments each night."""
    seed = random.SystemRandom().randrange(2**32)
    check(run(NIGHTLY_KILLS, seed, tmp_path), seed, NIGHTLY_KILLS)
