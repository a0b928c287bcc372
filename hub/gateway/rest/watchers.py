"""Who watches now, from where, and how far behind each is: the operators' view of the live side.

Place: `hub.gateway.rest`.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Question
from hub.gateway.turns import with_figures
from hub.live.figures import SubscriptionFigures
from hub.live.rooms import Watcher
from hub.roles import DEFAULT_NAMESPACE, Role, Verb

MAX_WATCHERS = 10_000


class WatchersQuestion(Question):
    """How many."""

    limit: Annotated[int, Field(ge=0, le=MAX_WATCHERS, description="Connections told, those behind first.")] = 100


class SubscriptionState(Answer):
    """One subscription.

    ``max_hz`` and ``conflated`` (readings that newer ones replaced) are null where everything is sent. ``phase``:
    where the next thing to send comes from. ``behind``: offsets still owed, of all series; ``behind_s``: how much later
    the newest of them came than the oldest, at least. ``messages_per_s``: with data, over the last 15 s at most.
    """

    name: str
    match: list[str]
    exclude: list[str]
    max_hz: float | None
    phase: str
    behind: int
    behind_s: float
    messages: int
    messages_per_s: float
    conflated: int | None


class WatcherState(Answer):
    """One connection. ``unsent_bytes``: written, and not taken by the other end's TCP."""

    name: str
    identity_id: str
    identity: str
    role: Role
    transport: str
    peer: str
    since_ns: str
    unsent_bytes: int
    subscriptions: list[SubscriptionState]


class LiveState(Answer):
    """The live side of the whole hub, in all namespaces.

    ``listeners``: subscriptions; ``behind``: those that read pages. ``flushes``, ``deliveries`` and ``evicted``
    (closed because all together held too much): since the start. ``unsent_mark``: above it a connection waits.
    """

    head: int
    watchers: int
    rooms: int
    listeners: int
    behind: int
    ring_frames: int
    ring_bytes: int
    cache_bytes: int
    flushes: int
    deliveries: int
    unsent_bytes: int
    unsent_mark: int
    evicted: int


class WatcherList(Answer):
    """Who watches in this namespace; ``count``, ``behind`` and ``unsent_bytes`` are of all, also those not listed.

    ``behind``: connections with a subscription that is owed something. ``live`` is null outside of the namespace
    ``default``: its figures are of all namespaces.
    """

    count: int
    behind: int
    unsent_bytes: int
    live: LiveState | None
    watchers: list[WatcherState]


async def list_watchers(call: Call, question: WatchersQuestion) -> JsonObject:
    """List who watches now, the furthest behind first, then those with the most unsent."""
    live = call.hub.live
    found: list[tuple[Watcher, int, list[SubscriptionFigures]]] = []
    async for watcher, figures in with_figures(
        w for w in live.watchers if w.origin.identity.namespace == call.namespace
    ):
        found.append((watcher, watcher.buffered_bytes, figures))
    found.sort(key=lambda known: (-_behind(known[2]), -known[1]))
    is_default = call.namespace == DEFAULT_NAMESPACE
    return {
        "count": len(found),
        "behind": sum(1 for _, _, figures in found if _behind(figures)),
        "unsent_bytes": sum(unsent for _, unsent, _ in found),
        "live": _fields(live.statistics()) if is_default else None,
        "watchers": [_watcher(*known) for known in found[: question.limit]],
    }


def _behind(figures: Iterable[SubscriptionFigures]) -> int:
    return max((one.behind for one in figures), default=0)


def _watcher(watcher: Watcher, unsent: int, figures: Iterable[SubscriptionFigures]) -> JsonObject:
    origin = watcher.origin
    return {
        "name": origin.name, "identity_id": origin.identity.id, "identity": origin.identity.name,
        "role": origin.identity.role, "transport": origin.transport, "peer": origin.peer,
        "since_ns": str(origin.since_ns), "unsent_bytes": unsent,
        "subscriptions": [_fields(one) for one in figures],
    }  # fmt: skip


def _fields(record: object) -> JsonObject:
    return {name: getattr(record, name) for name in record.__slots__}  # type: ignore[attr-defined]


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/watchers", "Who watches, and how far behind", Verb.COMMAND, WatchersQuestion, WatcherList,
             list_watchers, whole=True),
)  # fmt: skip
