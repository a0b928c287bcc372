"""kill -9 of hub and devices at random moments: nothing acked is lost, nothing doubled, the ledger balances."""

import random
from pathlib import Path

import pytest

from tests.chaos.kill import WAYS, run
from tests.support.chaos_world import Outcome
from tests.support.mosquitto import PROGRAM

KILLS, SEALING_KILLS, MQTT_KILLS, NIGHTLY_KILLS = 50, 25, 30, 1000


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS[1:])
def test_kill_of_hub_broker_and_devices_by_mqtt(tmp_path: Path, way: str) -> None:
    """The same by MQTT, at the hub's own port and through a broker: 30 kills each."""
    if way == "broker" and PROGRAM is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    check(run(MQTT_KILLS, 3, tmp_path, way=way), 3, MQTT_KILLS)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
def test_kill_a_thousand_times(tmp_path: Path, way: str) -> None:
    """1,000 kills within an hour, other moments each night."""
    seed = random.SystemRandom().randrange(2**32)
    check(run(NIGHTLY_KILLS, seed, tmp_path, way=way), seed, NIGHTLY_KILLS)
