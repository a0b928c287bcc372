"""3,000 devices from a CSV to the last answer, a tenth of them offline, the hub killed in the middle: all once."""

from pathlib import Path

import pytest

from tests.chaos.fleet import DEVICES, run_fleet


@pytest.mark.timeout(120)
def test_fleet_in_short(tmp_path: Path) -> None:
    """200 devices: listed in time, each command once, each state taken in, each reading stored once."""
    fleet = run_fleet(tmp_path, 200, seed=1, kills=1)
    print(fleet)

    assert fleet.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_fleet(tmp_path: Path) -> None:
    """The whole fleet."""
    fleet = run_fleet(tmp_path, DEVICES, seed=1)
    print(fleet)

    assert fleet.faults == []
