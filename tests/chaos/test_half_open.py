"""A network that swallows everything is noticed at both ends, and costs nothing but time."""

import pytest

from tests.chaos.half_open import run_half_open, why_not


@pytest.mark.privileged
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
@pytest.mark.timeout(120)
def test_half_open_connection_is_noticed() -> None:
    """Device and hub give the connection up within 45 s; after that all drains, nothing lost, nothing doubled."""
    half_open = run_half_open()
    print(half_open)

    assert half_open.faults == []
