"""What a watcher may say, checked: pydantic models of ``watch.v1`` from client to hub.

Owns: the shape and the limits of each message. Place: the trust boundary of
the live side; before `watch`. SSE builds the same `Sub` from its query.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from device_sdk.errors import Reason
from hub.errors import BadRequestError
from hub.live.patterns import MAX_PATTERN_CHARS, MAX_PATTERNS

# 64 patterns of 200 characters and their commas; nothing a watcher says is longer.
MAX_MESSAGE_BYTES = 32 * 1024
# Screens show 60 pictures a second; above 50 there is nothing to see and a wake-up per watcher to pay.
MAX_HZ = 50.0
DEFAULT_HZ = 10.0
# One reading a day of a sensor that measures ten times a second.
MAX_EVERY = 1_000_000

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,32}$")]
PatternText = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_CHARS)]
Rate = Annotated[float, Field(ge=0.01, le=MAX_HZ, allow_inf_nan=False)]


class _Message(BaseModel):
    # Unknown fields are left alone: an older hub serves a newer page.
    model_config = ConfigDict(frozen=True, extra="ignore")
    id: int | Annotated[str, Field(max_length=64)] | None = None


class Hello(_Message):
    """Asks for the hub's limits and position; not required."""

    op: Literal["hello"]
    client: Annotated[str, Field(max_length=100)] = ""


class Sub(_Message):
    """Begins a subscription named ``sub``; ``since``: cursor, RFC 3339, ``-15m``, ``last``; absent = head.

    ``agg`` (mode ``latest``): the least and the greatest reading between two messages too, so that no spike is lost.
    ``every`` (mode ``sample``): one of so many readings of each series.
    ``selector``: of what matches, only the devices that it chooses by name, site and tag (``site:north tag:tomatoes``),
    as they are described at each moment.
    """

    op: Literal["sub"]
    sub: Name
    match: Annotated[list[PatternText], Field(min_length=1, max_length=MAX_PATTERNS)]
    exclude: Annotated[list[PatternText], Field(alias="not", max_length=MAX_PATTERNS)] = []
    selector: Annotated[str, Field(min_length=1)] | None = None
    since: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    mode: Literal["lossless", "latest", "sample"] = "lossless"
    max_hz: Rate = DEFAULT_HZ
    agg: Literal["minmax"] | None = None
    every: Annotated[int, Field(ge=1, le=MAX_EVERY)] | None = None

    @model_validator(mode="after")
    def _check_mode(self) -> "Sub":
        if self.agg is not None and self.mode != "latest":
            raise ValueError("agg belongs to mode latest")
        if (self.every is not None) != (self.mode == "sample"):
            raise ValueError("every belongs to mode sample, which needs it: every 10 is each tenth reading")
        return self


class Unsub(_Message):
    """Ends a subscription; its name may be used again."""

    op: Literal["unsub"]
    sub: Name


class Set(_Message):
    """Changes the rate of a ``latest`` subscription."""

    op: Literal["set"]
    sub: Name
    max_hz: Rate


class Auth(_Message):
    """Goes on with another credential of the same namespace, without reconnecting.

    Every subscription is decided again, and goes on where it is: series that are no longer granted end, those granted
    anew begin now. The `ok` names for each subscription what is granted and denied, and under ``ended`` those of which
    nothing is. A token that is refused changes nothing. ``ttl`` of the `ok`, and of `welcome` before it: after how many
    seconds the credential ends by itself, null: never. Where hooks decide it is refused: connect again.
    """

    op: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=128)]


ClientMessage = Hello | Sub | Unsub | Set | Auth
_ADAPTER: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="op")])


def check_message(message: object) -> ClientMessage:
    """Return a parsed JSON value as a message.

    Raises:
        BadRequestError: an unknown ``op``, a field that is missing or wrong; the message names it.
    """
    try:
        return _ADAPTER.validate_python(message)
    except ValidationError as error:
        raise BadRequestError(_say(error)) from error


def _say(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # The first part of the place is the op that chose the model.
    where = ".".join(str(part) for part in first["loc"][1:]) or "message"
    return f"{Reason.BAD_MESSAGE.value}: {where}: {first['msg'].removeprefix('Value error, ')}"[:300]
