"""What a device may say: a pydantic model of each message, with the limits of its fields.

Place: before `validate`, which makes trusted messages of them. Pure. The hub's description of its protocols is made
from these too (`hub.gateway.asyncapi`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.types import AllowInfNan, Strict

from device_sdk.reading import INT_MAX, INT_MIN, ValueType
from device_sdk.wire import MAX_COMMAND_ARGUMENTS, MAX_COMMANDS, MAX_FRAME_READINGS

# Nanoseconds that a step of time may have.
TICKS = frozenset({1, 1000, 1_000_000, 1_000_000_000})
_HEX16 = r"^[0-9a-f]{16}$"
_Hex16 = Annotated[str, StringConstraints(pattern=_HEX16)]
_Chain = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
# A device may keep none (`micro.py`, which begins a stream at each start): then it says none.
_HelloChain = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32})?$")]
_Seq = Annotated[int, Strict(), Field(ge=1, le=INT_MAX)]
_Count = Annotated[int, Strict(), Field(ge=0, le=INT_MAX)]
_Nanoseconds = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,19}$")]
_Short = Annotated[str, StringConstraints(max_length=128)]
_Word = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class EarlierModel(_Model):
    """A stream that the device had before, and where it ended."""

    stream: _Hex16
    acked: _Count
    next: _Seq
    chain: _Chain


class HelloModel(_Model):
    """Who speaks, on which stream, and where it stands."""

    device: _Short
    stream: _Hex16
    boot: _Short
    run: _Short
    sdk: _Short = "unknown"
    proto: Literal[1]
    acked: _Count
    next: _Seq
    chain: _HelloChain = ""
    seen: _Short | None = None
    earlier: Annotated[list[EarlierModel], Field(max_length=16)] = []
    mono_ns: _Nanoseconds = "0"
    wall_ns: _Nanoseconds = "0"
    clock: _Short = "unknown"
    link: _Short = "normal"


class ChannelModel(_Model):
    """What a device says of one channel."""

    unit: Annotated[str, StringConstraints(max_length=32)] | None = None
    type: ValueType | None = None
    every_s: Annotated[float, AllowInfNan(False), Field(gt=0, le=31_536_000)] | None = None
    range: tuple[float, float] | None = None
    label: Annotated[str, StringConstraints(max_length=128)] | None = None


class ArgumentModel(_Model):
    """One argument of a command."""

    type: Literal["int", "float", "bool", "str", "dict", "list"]
    required: bool = False
    nullable: bool = False
    default: Any = None
    choices: Annotated[list[str | int | float | bool], Field(min_length=1, max_length=100)] | None = None


class CommandModel(_Model):
    """A command that the device takes."""

    args: Annotated[dict[_Word, ArgumentModel], Field(max_length=MAX_COMMAND_ARGUMENTS)] = {}
    doc: Annotated[str, StringConstraints(max_length=200)] = ""


class SchemaModel(_Model):
    """Channels and commands of the device."""

    channels: dict[str, ChannelModel] = {}
    commands: Annotated[dict[_Word, CommandModel], Field(max_length=MAX_COMMANDS)] | None = None


class GapModel(_Model):
    """Readings that the device lost, and why."""

    seq: _Seq
    count: _Count | None
    reason: _Short
    ranges: Annotated[dict[str, tuple[_Nanoseconds, _Nanoseconds]], Field(max_length=1000)] = {}


class ColumnModel(_Model):
    """Readings of one channel: values, and times as offsets or steps."""

    v: Annotated[list[Any], Field(min_length=1, max_length=MAX_FRAME_READINGS)]
    # Fails at the first wrong one: an error for each of 87,000 elements would hold the loop for a third of a second.
    dt: (
        Annotated[
            list[Annotated[int, Strict(), Field(ge=INT_MIN, le=INT_MAX)]],
            Field(max_length=MAX_FRAME_READINGS, fail_fast=True),
        ]
        | None
    ) = None
    step: Annotated[int, Strict(), Field(gt=0, le=2**53)] | None = None
    type: Literal["int"] | None = None


class BatchModel(_Model):
    """Readings of one frame."""

    seq: _Seq
    count: _Count
    t0: _Nanoseconds
    # Not a Literal: that takes 1000.0 and true as well, and times would become floats when the body is read again.
    tick: Annotated[int, Strict(), Field(json_schema_extra={"enum": [*sorted(TICKS)]})] = 1
    again: bool = False
    time_estimated: Annotated[bool, Strict()] = False
    c: Annotated[dict[str, ColumnModel], Field(min_length=1)]


class ReplyModel(_Model):
    """The answer to a command."""

    id: _Short
    ok: Annotated[bool, Strict()]
    value: Any = None
    error: Annotated[str, StringConstraints(max_length=1000)] = ""


class ReportedModel(_Model):
    """State that the device has."""

    version: _Count
    state: dict[str, Any]
    mark: _Short = ""


class ByeModel(_Model):
    """The device goes."""


# op → what is checked of such a message, for the hub's description of its protocols.
MODELS: Mapping[str, type[BaseModel]] = {
    "hello": HelloModel, "schema": SchemaModel, "batch": BatchModel, "gap": GapModel, "reply": ReplyModel,
    "reported": ReportedModel, "bye": ByeModel,
}  # fmt: skip
