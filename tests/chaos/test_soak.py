"""Hours of work and faults leave the hub as it was: memory and handles stand still, the ledger is exact."""

from pathlib import Path

import pytest

from tests.chaos.soak import DEVICES, LONG_S, run_soak


@pytest.mark.timeout(120)
def test_soak_in_short(tmp_path: Path) -> None:
    """Half a minute: the ledger balances after kills and cuts; memory within the caches' bounds."""
    soak = run_soak(tmp_path, DEVICES, 25.0, seed=1)
    print(soak)

    assert soak.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_soak(tmp_path: Path) -> None:
    """Half an hour: less than 1 MiB an hour in its second half."""
    soak = run_soak(tmp_path, DEVICES, LONG_S, seed=2)
    print(soak)

    assert soak.faults == []
