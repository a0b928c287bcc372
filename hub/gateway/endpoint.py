"""What every REST endpoint is made of: its row in the table, one call of it, the words that questions share.

Owns: `Endpoint`, `Call`, what a credential's scopes let a call see, the base models. Place: above `query`, `roles` and
`devices`, below `rest`, whose modules hold the endpoints by subject.

Answers are built as plain dictionaries (a model per row would cost more than the query); tests check them against
the models. Times ``*_ns`` are decimal strings and so are integers beyond 2**53, because JavaScript loses them.
"""

import importlib.metadata
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from device_sdk.errors import MisuseError
from device_sdk.reading import Value, check_device_name
from hub.devices import natural_key
from hub.errors import BadRequestError, ForbiddenError, UnavailableError
from hub.gateway.access import Parts, Peer
from hub.gateway.body import Body
from hub.live.patterns import MAX_PATTERN_CHARS, MAX_PATTERNS, PatternSet
from hub.model import Series, SeriesKey
from hub.roles import EVERYTHING, Identity, Verb
from hub.unit import unit_shown

Pattern = Annotated[str, Field(max_length=MAX_PATTERN_CHARS)]
Patterns = Annotated[
    list[Pattern],
    Field(max_length=MAX_PATTERNS, description="`DEVICE/CHANNEL` with `*`; `P` alone means `P/**`. May be repeated."),
]
When = Annotated[
    str | None, Field(max_length=64, description="RFC 3339 with zone, epoch (s, ms, µs or ns), `now`, or `-15m`.")
]
Duration = Annotated[str | None, Field(max_length=32, description="A number with ms, s, m, h, d or w, e.g. `15m`.")]
# History must hold what was acked before the question; a store this far behind is better said than waited for.
STORE_WAIT_S = 10.0
_EXACT = 2**53

JsonObject = dict[str, Any]


class Question(BaseModel):
    """Base of everything a client sends: an unknown name is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Question):
    """No parameters."""


class Matching(Question):
    """Which series; none given = all that the credential may see."""

    match: Patterns = []


class Answer(BaseModel):
    """Base of what the hub says."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """Why a request failed."""

    reason: str
    message: str


class Error(Answer):
    """Every answer with a status of 400 or more."""

    error: Fault


@dataclass(frozen=True, slots=True)
class Call:
    """One request, after access and parameters were checked.

    ``granted``: patterns the endpoint's verb holds for; ``peer``: who is on the other end, for endpoints open to all.
    ``body``: of an endpoint that reads it itself.
    """

    hub: Parts
    identity: Identity
    path: Mapping[str, str]
    granted: tuple[str, ...] = ()
    peer: Peer = field(default_factory=Peer)
    body: Body | None = None

    @property
    def address(self) -> str:
        """Where it came from, for limits."""
        return self.peer.address

    @property
    def namespace(self) -> str:
        """The only namespace there is for the caller."""
        return self.identity.namespace

    def device_names(self, among: Collection[str] | None = None) -> set[str]:
        """Return the devices there are: enrolled, or accepted behind a gateway. Reads a file: call it in a thread.

        Args:
            among: only those of them, whatever the number of others.
        """
        enrolled = self.hub.identities.names(among=among, namespace=self.namespace)
        return enrolled.union(self.hub.children.names(self.namespace, among))

    def series(self, match: Sequence[str]) -> list[Series]:
        """Return the series that match and that the caller may see."""
        return self.hub.query.series(self.namespace, match, self.granted)

    def check_device(self, name: str) -> str:
        """Return the name of a device that the caller may touch as a whole.

        Raises:
            ForbiddenError: its scopes do not hold for all channels of it. BadRequestError: no name of a device.
        """
        check_name(name)
        if not PatternSet(self.granted).matches(name, "*"):
            raise ForbiddenError(
                f"device {name!r} is outside of what this credential may do: {', '.join(self.granted)}"
            )
        return name

    def check_channel(self, device: str, channel: str) -> SeriesKey:
        """Return the key of a channel that the caller may touch, whether it has readings or not.

        Raises:
            ForbiddenError: its scopes do not hold for it. BadRequestError: no name of a device.
        """
        check_name(device)
        if not PatternSet(self.granted).matches(device, channel):
            raise ForbiddenError(
                f"{device}/{channel[:40]} is outside of what this credential may do: {', '.join(self.granted)}"
            )
        return SeriesKey(self.namespace, device, channel)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the table.

    ``verb`` None = open to all. ``whole``: the caller's scope must hold for the whole namespace, because the answer
    is not of single devices. ``takes`` is read from the query, or for POST and PATCH from the JSON body. ``media``
    names an answer that is not JSON. ``is_part``: one of the many requests of a change that another one has named; the
    log of changes has it only when it fails. ``bodies``: the media types of a body that the endpoint reads itself;
    ``takes`` is then read from the query.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    summary: str
    verb: Verb | None
    takes: type[BaseModel]
    gives: type[BaseModel] | None
    answer: Callable[[Call, Any], Awaitable[JsonObject | Response | None]]
    status: int = 200
    whole: bool = False
    media: tuple[str, ...] = field(default=())
    is_part: bool = False
    bodies: tuple[str, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether the log of changes has it: what alters something, and a copy of everything."""
        return self.verb in (Verb.MANAGE, Verb.EDIT, Verb.COMMAND) and (self.method != "GET" or bool(self.media))


def version() -> str:
    """Return the hub's version, also when it runs from a checkout without being installed."""
    try:
        return importlib.metadata.version("telemetry-hub")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"


async def wait_for_store(hub: Parts) -> None:
    """Wait until history holds everything that was acked before now.

    Raises:
        UnavailableError: the store is too far behind.
    """
    head = hub.streams.head
    if hub.store.applied < head and not await hub.consumer.applied(head, STORE_WAIT_S):
        raise UnavailableError(
            f"the store has {hub.store.applied} of {head} frames and did not catch up in {STORE_WAIT_S:g} s; try again"
        )


def visible_devices(call: Call, match: Sequence[str], further: Sequence[str]) -> dict[str, list[Series]]:
    """Return device → its visible series, in natural order; ``further`` are devices that may have no series yet."""
    found: dict[str, list[Series]] = {}
    for series in call.series(match):
        found.setdefault(series.device, []).append(series)
    wanted, granted = PatternSet(tuple(match) or EVERYTHING), PatternSet(call.granted)
    for name in further:
        # A device without channels is shown to whom all of its channels would be.
        if name not in found and wanted.matches(name, "*") and granted.matches(name, "*"):
            found[name] = []
    return {name: found[name] for name in sorted(found, key=natural_key)}


def check_name(device: str) -> None:
    """Raise `BadRequestError` when this can be no name of a device."""
    try:
        check_device_name(device)
    except MisuseError as error:
        raise BadRequestError(str(error)) from error


def unit_object(series: Series) -> JsonObject:
    """Return the unit that holds: its code, and as people write it."""
    unit = series.effective().unit
    return {"unit": unit, "unit_shown": unit_shown(unit)}


def json_value(value: Value | None) -> Value | None:
    """Return a value as it stands in JSON: integers beyond 2**53 as text."""
    if isinstance(value, int) and not -_EXACT <= value <= _EXACT:
        return str(value)
    return value
