"""Long looks at what the hub holds, in turns: between two of them devices are acked.

Owns: how much is looked at in one turn. Place: gateway, below what answers `GET /v1/watchers` and `GET /metrics`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from hub.devices import DeviceState
from hub.live.figures import SubscriptionFigures
from hub.live.rooms import Watcher

# Of each kind about 1 ms: a subscription's figures take some 7 µs, a look at a channel 0.3 µs.
SUBSCRIPTIONS_A_TURN = 100
CHANNELS_A_TURN = 3_000
# What a watcher or a device costs by itself, in those.
_ITSELF = 1


async def with_figures(watchers: Iterable[Watcher]) -> AsyncIterator[tuple[Watcher, list[SubscriptionFigures]]]:
    """Yield each watcher with how its subscriptions stand."""
    looked = 0
    for watcher in list(watchers):
        figures = watcher.figures()
        looked += len(figures) + _ITSELF
        yield watcher, figures
        if looked >= SUBSCRIPTIONS_A_TURN:
            looked = 0
            await asyncio.sleep(0)


async def in_turns(devices: Iterable[DeviceState]) -> AsyncIterator[DeviceState]:
    """Yield each device, of which all channels are then looked at."""
    looked = 0
    for state in list(devices):
        looked += len(state.channels) + _ITSELF
        yield state
        if looked >= CHANNELS_A_TURN:
            looked = 0
            await asyncio.sleep(0)
