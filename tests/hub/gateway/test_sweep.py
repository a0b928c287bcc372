"""`hub.gateway.sweep`: one timer for all."""

import asyncio

import pytest

from hub.gateway.sweep import Sweep


class Member:
    """Counts sweeps; raises when told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.count = 0
        self.is_swept_twice = asyncio.Event()
        self._fails = fails

    def sweep(self) -> None:
        """Count."""
        self.count += 1
        if self.count == 2:
            self.is_swept_twice.set()
        if self._fails:
            raise ValueError("on purpose")


@pytest.mark.asyncio
async def test_members_are_swept_again_and_again_by_the_timer() -> None:
    """A member is swept each interval without further calls."""
    sweep, member = Sweep(0.005), Member()

    sweep.add(member)
    async with asyncio.timeout(5):
        await member.is_swept_twice.wait()

    sweep.discard(member)
    assert len(sweep) == 0


@pytest.mark.asyncio
async def test_member_that_raises_is_dropped_and_the_others_are_swept(caplog: pytest.LogCaptureFixture) -> None:
    """One connection's fault neither stops the timer nor harms the others."""
    sweep, bad, good = Sweep(60), Member(fails=True), Member()
    sweep.add(bad)
    sweep.add(good)

    sweep.run()
    sweep.run()

    assert (bad.count, good.count) == (1, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.asyncio
async def test_no_timer_is_left_without_members() -> None:
    """An idle hub is not woken each second."""
    sweep, member = Sweep(60), Member()
    sweep.add(member)
    sweep.discard(member)

    sweep.run()

    assert sweep._timer is None
