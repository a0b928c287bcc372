"""Power cuts of the hub's disk and of a device's: what was acked, or recorded durably, is there afterwards."""

import random
from pathlib import Path

import pytest

from device_sdk.outbox import Durability
from tests.chaos.power_cut import run_device, run_hub
from tests.support.loop_disk import missing_programs

CUTS, SEALING_CUTS, NIGHTLY_CUTS = 10, 5, 50
# A device is killed as well, and records for a second or two in between.
DEVICE_CUTS = 5

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(bool(missing_programs()), reason=f"this machine lacks {missing_programs()}"),
]


@pytest.mark.timeout(300)
def test_power_cut_of_the_hub_loses_nothing_acked(tmp_path: Path) -> None:
    """10 cuts under load: every acked reading is stored, and SQLite finds its files in order."""
    outcome = run_hub(CUTS, 1, tmp_path)

    assert outcome.is_green, outcome
    assert outcome.faults == CUTS


@pytest.mark.timeout(300)
def test_power_cut_of_a_hub_that_seals_all_the_time(tmp_path: Path) -> None:
    """Readings on their way into chunks come back from the journal with the position that fell back with them."""
    outcome = run_hub(SEALING_CUTS, 2, tmp_path, hub_mutant="seal_often")

    assert outcome.is_green, outcome
    assert outcome.faults == SEALING_CUTS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("durability", ["fsync", "second"])
def test_power_cut_of_a_device(tmp_path: Path, durability: Durability) -> None:
    """With fsync every `record()` that returned is there; else at most the last second is not, declared as a gap."""
    outcome = run_device(DEVICE_CUTS, 1, tmp_path, durability)

    assert outcome.is_green, outcome
    assert outcome.faults == DEVICE_CUTS


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["hub", "fsync", "second"])
def test_power_cut_fifty_times(tmp_path: Path, what: str) -> None:
    """50 cuts of each, at other moments each night."""
    seed = random.SystemRandom().randrange(2**32)
    if what == "hub":
        outcome = run_hub(NIGHTLY_CUTS, seed, tmp_path)
    else:
        outcome = run_device(NIGHTLY_CUTS, seed, tmp_path, "fsync" if what == "fsync" else "second")

    print(f"power_cut {what} seed={seed} {outcome}")
    assert outcome.is_green, f"seed {seed}: {outcome}"
