"""A spool that was written back from an older copy, and one that a long outage filled."""

from pathlib import Path

import pytest

from tests.chaos.spool_fault import run_card, run_full


@pytest.mark.timeout(120)
def test_kill_and_an_older_copy_of_the_spool_lose_nothing(tmp_path: Path) -> None:
    """Two histories under the same numbers: the hub stores both, the second on a new stream."""
    outcome = run_card(1, tmp_path)

    assert outcome.is_green, outcome


@pytest.mark.timeout(120)
def test_kill_until_the_spool_is_full_drops_exactly_what_is_declared(tmp_path: Path) -> None:
    """The oldest readings go; the gaps name as many as are missing, and all others are delivered."""
    outcome = run_full(1, tmp_path)

    assert outcome.is_green, outcome
    assert outcome.declared == outcome.produced - outcome.stored > 0
