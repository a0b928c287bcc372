"""`simulators.obedience`: what a simulated device is told, it does."""

import asyncio

import pytest

from simulators.obedience import Obedience


def test_an_interval_leaves_samples_out_until_it_is_taken_back() -> None:
    """At least so many seconds lie between two samples; 0 takes all of the schedule."""
    told = Obedience()
    assert [told.is_due(at) for at in (0.0, 0.1)] == [True, True]

    assert asyncio.run(told.set_interval(1.0)) == {"seconds": 1.0}
    assert [told.is_due(at) for at in (0.2, 0.3, 1.1, 1.3, 2.0, 2.4)] == [True, False, False, True, False, True]
    asyncio.run(told.set_interval(0))
    assert told.is_due(2.5)
    with pytest.raises(ValueError, match="use 0 to 86400"):
        asyncio.run(told.set_interval(-1))


def test_blinks_are_counted() -> None:
    """So that an effect can be told from none, and from two."""
    told = Obedience()

    assert asyncio.run(told.blink()) == {"blinks": 1}
    assert asyncio.run(told.blink(3)) == {"blinks": 4}
