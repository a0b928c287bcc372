"""A device that invents channels without end costs the hub nothing and its neighbours nothing."""

from pathlib import Path

import pytest

from tests.chaos.channels import CHANNELS, run_channels


@pytest.mark.timeout(120)
def test_invented_channels_are_rejected(tmp_path: Path) -> None:
    """Of 100,000 names 200 are kept; the rest is rejected by reason, in little memory, and others are acked."""
    invented = run_channels(tmp_path, CHANNELS)
    print(invented)

    assert invented.faults == []
