"""A watcher that never reads costs a bounded buffer; devices and other watchers do not notice it."""

from pathlib import Path

import pytest

from tests.chaos.stalled import WATCHERS, run_stalled


@pytest.mark.timeout(90)
def test_stalled_watchers_are_bounded(tmp_path: Path) -> None:
    """A hundred of them."""
    stalled = run_stalled(tmp_path, WATCHERS // 10)
    print(stalled)

    assert stalled.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(180)
def test_a_thousand_stalled_watchers_are_bounded(tmp_path: Path) -> None:
    """All of them."""
    stalled = run_stalled(tmp_path, WATCHERS)
    print(stalled)

    assert stalled.faults == []
