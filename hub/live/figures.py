"""Who watches now, and how each stands: the figures of the operators' view of watchers.

Owns: the records. Place: before `rooms`; made by subscriptions and by the shells of connections, read by
`hub.gateway.rest.watchers`. Pure.
"""

from dataclasses import dataclass

from hub.roles import Identity


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection of a watcher comes from; ``transport``: ``websocket``, ``sse`` …, ``since_ns``: wall time."""

    name: str
    identity: Identity
    transport: str
    peer: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class SubscriptionFigures:
    """How one subscription stands.

    ``behind``: offsets that are still owed, ``behind_s``: how much later the newest of them came than the oldest, at
    least; ``messages_per_s``: with data, over the last seconds; ``conflated``: readings that newer ones replaced, None
    where everything is sent.
    """

    name: str
    match: tuple[str, ...]
    exclude: tuple[str, ...]
    max_hz: float | None
    phase: str
    behind: int
    behind_s: float
    messages: int
    messages_per_s: float
    conflated: int | None


class Pace:
    """How often something happens a second, from a counter that is looked at now and then."""

    __slots__ = ("_at", "_count", "_rate")

    # A shorter time says more of the moment than of the rate.
    MIN_S = 1.0

    def __init__(self, now: float) -> None:
        self._at = now
        self._count = 0
        self._rate = 0.0

    def mark(self, count: int, now: float) -> None:
        """Begin a new interval; called each ping interval, so that a rate is of the last seconds."""
        self._rate = self.rate(count, now)
        self._at, self._count = now, count

    def rate(self, count: int, now: float) -> float:
        """Return the rate of this interval, or of the one before while this one is young."""
        passed = now - self._at
        return self._rate if passed < self.MIN_S else round((count - self._count) / passed, 3)
