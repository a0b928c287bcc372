"""kill -9 of a database server, and an outage of it: nothing is lost, nothing doubled, and who is behind shows."""

from pathlib import Path

import pytest

from tests.chaos.remote_store import run
from tests.support.influxdb import PROGRAM

if PROGRAM is None:
    pytest.skip("influxd is not installed: apt-get install influxdb", allow_module_level=True)


@pytest.mark.timeout(300)
def test_server_that_is_killed_and_away_loses_nothing(tmp_path: Path) -> None:
    """Killed three times, once with the hub and once with devices, then away for five seconds, under load."""
    outcome = run(3, 5.0, 1, tmp_path)

    print(outcome)
    assert outcome.is_green, outcome
    assert outcome.produced > 100


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_server_that_is_away_for_minutes(tmp_path: Path) -> None:
    """Five minutes under load."""
    outcome = run(3, 300.0, 2, tmp_path)

    assert outcome.is_green, outcome
