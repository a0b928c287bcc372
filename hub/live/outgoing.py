"""What the hub says to watchers: the messages of ``watch.v1`` from hub to client, as types.

Owns: the shape of each. Place: beside `message`, which holds what clients say. Nothing is checked by them while the hub
runs: mypy compares what `watch` builds with them, tests what every op really sends, and the hub's description of its
protocols (`hub.gateway.asyncapi`) is made of them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

# pydantic reads these on Python 3.11 too, other than those of `typing`.
from typing_extensions import TypedDict

from hub.live.cursor import ResetReason

Nanoseconds = Annotated[str, Field(pattern=r"^-?[0-9]{1,19}$", description="UTC epoch nanoseconds, exact.")]
Cursor = Annotated[str, Field(description="Opaque: kept after what came with it was applied, given back as `since`.")]
# Integers beyond 2**53 are decimal strings, because JavaScript would round them.
Exact = int | Annotated[str, Field(pattern=r"^-?[0-9]{1,20}$")]
Id = Annotated[int | str | None, Field(description="Of the message that is answered.")]
# [begin, end) among the rows.
Run = tuple[int, int]
Row = Annotated[
    tuple[int, Exact, int | float | bool | str],
    Field(description="Series, time in ticks after `t0`, value; an integer beyond 2**53 is a decimal string."),
]


class Limits(TypedDict):
    """What a connection may have and say."""

    subs: int
    patterns: int
    max_hz: float
    message_bytes: int


class Welcome(TypedDict):
    """Answers ``hello``: the hub's position and limits.

    ``credential``: its id, null where none was asked for; ``ttl``: seconds until it ends, null: no end.
    """

    id: Id
    op: Literal["welcome"]
    conn: str
    namespace: str
    credential: str | None
    head: Cursor
    ttl: float | None
    ping: int
    limits: Limits


_SubOk = TypedDict("_SubOk", {"from": Cursor})


class SubOk(_SubOk):
    """Answers ``sub``: which of its patterns are granted, and where it begins; ``recovered``: a cursor goes on."""

    id: Id
    op: Literal["ok"]
    sub: str
    granted: list[str]
    denied: list[str]
    head: Cursor
    recovered: bool


class Ok(TypedDict):
    """Answers ``unsub`` and ``set``."""

    id: Id
    op: Literal["ok"]
    sub: str


class Grant(TypedDict):
    """What another credential holds of one subscription's patterns."""

    granted: list[str]
    denied: list[str]


class AuthOk(TypedDict):
    """Answers ``auth``: what is granted and denied of each subscription, and those that ended."""

    id: Id
    op: Literal["ok"]
    ttl: float | None
    subs: dict[str, Grant]
    ended: list[str]


class Error(TypedDict):
    """The message was not done, and nothing has changed; ``id`` and ``sub`` are echoed where they could be read."""

    id: NotRequired[Id]
    sub: NotRequired[int | str]
    op: Literal["error"]
    reason: str
    message: str


class NamedSeries(TypedDict):
    """One series as it is shown; ``scale`` and ``offset`` are applied already (absent: 1 and 0)."""

    device: str
    channel: str
    unit: str | None
    type: Literal["float", "int", "bool", "str"] | None
    label: str | None
    unit_shown: NotRequired[str]
    decimals: NotRequired[int]
    kind: NotRequired[str]
    scale: NotRequired[float]
    offset: NotRequired[float]


class Series(TypedDict):
    """Names series before their first data, and again when they changed; of those ``gone`` no more will come."""

    op: Literal["series"]
    sub: str
    s: dict[str, NamedSeries]
    gone: NotRequired[list[int]]


class Data(TypedDict):
    """Readings, each offset once and in order; the time of a row is ``t0`` + its ticks × ``tick`` ns.

    ``late``: rows older than what the hub had of their series when they came. ``least``, ``greatest``: of ``agg``
    ``minmax``, rows that are an extreme.
    """

    op: Literal["data"]
    sub: str
    o: Cursor
    t0: Nanoseconds
    tick: Literal[1, 1_000, 1_000_000, 1_000_000_000]
    late: NotRequired[list[Run]]
    least: NotRequired[list[Run]]
    greatest: NotRequired[list[Run]]
    u: list[Row]


class Live(TypedDict):
    """Everything up to the cursor was sent: history is over, or a quiet subscription learns its position."""

    op: Literal["live"]
    sub: str
    o: Cursor


class Lag(TypedDict):
    """The subscription waits: offsets owed, their span in seconds; ``conflated``: readings replaced by newer ones."""

    op: Literal["lag"]
    sub: str
    behind: int
    secs: float
    conflated: NotRequired[int]


class Reset(TypedDict):
    """The cursor means nothing here any more (a restored hub, an expired journal): it goes on from ``head``."""

    op: Literal["reset"]
    sub: str
    why: ResetReason
    head: Cursor


class Bye(TypedDict):
    """The hub stops: come back after so many ms."""

    op: Literal["bye"]
    retry_ms: int


class Ended(TypedDict):
    """Last of an event stream or in the answer of a poll: why it ends (a close code), and when to come back."""

    op: Literal["bye"]
    code: int
    reason: str
    retry_ms: int | None


# op of a client → what answers it, where `Error` does not.
ANSWERS: Mapping[str, Any] = {"hello": Welcome, "sub": SubOk, "unsub": Ok, "set": Ok, "auth": AuthOk}
# What comes unasked on every transport; by WebSocket a `Bye` too, by event stream and long poll an `Ended`.
TOLD: tuple[Any, ...] = (Series, Data, Live, Lag, Reset)
