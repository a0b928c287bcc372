"""A look at very much lets others have their turn, however the much is spread."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from device_sdk.reading import Channel
from hub.devices import Registry
from hub.gateway.turns import CHANNELS_A_TURN, SUBSCRIPTIONS_A_TURN, in_turns, with_figures
from hub.live.figures import SubscriptionFigures
from hub.live.rooms import Watcher

pytestmark = pytest.mark.asyncio


class Watching:
    """A watcher of which only the figures are asked for."""

    def __init__(self, subscriptions: int) -> None:
        one = SubscriptionFigures("s", ("**",), (), None, "live", 0, 0.0, 0, 0.0, None)
        self._figures = [one] * subscriptions

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its subscriptions stand."""
        return self._figures


async def longest_turn(looking: AsyncIterator[object], weight: int) -> tuple[int, int]:
    """Return how much was looked at in all, and at most between two turns of somebody else."""
    seen = longest = since = 0

    async def others() -> None:
        nonlocal longest, since
        while True:
            longest, since = max(longest, since), 0
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    async for _ in looking:
        seen += weight
        since += weight
    task.cancel()
    return seen, max(longest, since)


@pytest.mark.parametrize("subscriptions", [1, 64])
async def test_subscriptions_count_not_connections(subscriptions: int) -> None:
    """64 subscriptions on each of 50 connections are as much as one on each of 3,200."""
    watchers = cast("list[Watcher]", [Watching(subscriptions) for _ in range(3200 // subscriptions)])

    seen, longest = await longest_turn(with_figures(watchers), subscriptions)
    assert seen == 3200
    assert longest <= SUBSCRIPTIONS_A_TURN + subscriptions


@pytest.mark.parametrize("channels", [1, 200])
async def test_channels_count_not_devices(channels: int) -> None:
    """A hundred devices with 200 channels each are as much as 20,000 with one."""
    registry = Registry([])
    for n in range(20_000 // channels):
        registry.declare("default", f"d{n}", [Channel(f"c{k}") for k in range(channels)])

    seen, longest = await longest_turn(in_turns(registry.devices.values()), channels)
    assert seen == 20_000
    assert longest <= CHANNELS_A_TURN + channels
