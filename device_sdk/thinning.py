"""Which readings go when a spool keeps a coarser picture (``when_full="thin"``), for both spools.

Owns: the choice of the stretch and of the readings in it. Place: leftmost, imports
nothing; `memory_spool`, `reading_file` and `reading_log` apply it. Pure.

A stretch is a run of readings that are thinned together. Each time, every second
reading of each channel goes and the stretch's level rises by one. The lowest level
goes first, the oldest among equals: so after any outage all of it is there at about
the same density. Neighbours are joined, or halving would leave ever more, ever smaller files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from device_sdk.frozen import Frozen


class Stretch(Frozen):
    """A candidate: how often it was thinned, its size, and whether it goes on where the one before it ends."""

    level: int
    size: int
    is_joined: bool


def survivors(channels: Sequence[str]) -> list[bool]:
    """Say of each reading, given by its channel, whether it stays: every second of a channel, always its last."""
    kept: set[str] = set()
    stays = [False] * len(channels)
    for at in range(len(channels) - 1, -1, -1):
        channel = channels[at]
        if channel in kept:
            kept.remove(channel)
        else:
            kept.add(channel)
            stays[at] = True
    return stays


def pick(stretches: Iterable[Stretch], most: int) -> range:
    """Return the places of the stretches to thin as one; empty when there are none.

    Args:
        stretches: from the oldest on.
        most: joins neighbours up to this size; a single one may exceed it.
    """
    candidates = list(stretches)
    if not candidates:
        return range(0)
    level = min(candidate.level for candidate in candidates)
    first = next(at for at, candidate in enumerate(candidates) if candidate.level == level)
    size, stop = candidates[first].size, first + 1
    while stop < len(candidates):
        following = candidates[stop]
        size += following.size
        if not following.is_joined or following.level != level or size > most:
            break
        stop += 1
    return range(first, stop)
