"""2,000 devices lose their hub at one instant: all acked again within a minute, without a storm, nothing lost."""

from pathlib import Path

import pytest

from tests.chaos.herd import DEVICES, run_herd


@pytest.mark.timeout(120)
def test_herd_comes_back(tmp_path: Path) -> None:
    """A quarter of the herd: all acked again in time, each reading stored once, returns spread over time."""
    herd = run_herd(tmp_path, DEVICES // 4)
    print(herd.histogram(), herd, sep="\n")

    assert herd.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_whole_herd_comes_back(tmp_path: Path) -> None:
    """The whole herd."""
    herd = run_herd(tmp_path, DEVICES)
    print(herd.histogram(), herd, sep="\n")

    assert herd.faults == []
