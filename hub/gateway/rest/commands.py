"""Commands to devices: give, look at, cancel.

Place: `hub.gateway.rest`. What a credential may not command it does not see either: not the devices, and a command that
went only to those is as if it were not there.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Collection
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field, StringConstraints

from device_sdk.wire import MAX_CONTROL_DEPTH, is_deeper
from hub.command import (
    DEFAULT_TIMEOUT_S,
    MAX_EXPIRY_S,
    MAX_ID_CHARS,
    MAX_TIMEOUT_S,
    Order,
    Result,
    Told,
)
from hub.errors import BadRequestError, NotFoundError
from hub.gateway.endpoint import Answer, Call, Duration, Endpoint, JsonObject, Nothing, Question
from hub.live.patterns import PatternSet
from hub.query import iso_time, parse_duration
from hub.roles import Verb
from hub.selector import MAX_SELECTOR_CHARS, devices_matching, exact_names

# Counting what became of orders of 10,000 devices takes some 10 ms each.
MAX_LISTED = 50
# Commands of one device in an answer; each may have a value of 32 KiB.
MAX_LISTED_EACH = 20
# Kinds of command in one answer: a form is chosen among them; with 32 KiB each, 3 MB.
MAX_KINDS = 100
# The hub ends a command at its time; a moment more, so that the answer says so.
_GRACE_S = 1.0


def _not_too_deep(args: dict[str, Any]) -> dict[str, Any]:
    if is_deeper(args, MAX_CONTROL_DEPTH):
        raise ValueError(f"nested deeper than {MAX_CONTROL_DEPTH} levels: make them flatter")
    return args


class CommandRequest(Question):
    """One command to the devices that a selector chooses."""

    match: Annotated[
        str, Field(max_length=MAX_SELECTOR_CHARS, description="`greenhouse-* site:north tag:tomatoes`; `*`: all.")
    ]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    args: Annotated[dict[str, Any], AfterValidator(_not_too_deep)] = {}
    timeout: Annotated[Duration, Field(description="How long an answer may take: 10s, at most 1h.")] = None
    queue: Annotated[bool, Field(description="Keep it for devices that are not connected.")] = False
    expires: Annotated[Duration, Field(description="With `queue`: how long it is kept; the timeout, at most 30d.")] = (
        None
    )
    wait: Annotated[bool, Field(description="Answer when all devices have, or the timeout is over.")] = False
    id: Annotated[
        str | None,
        StringConstraints(pattern=rf"^[A-Za-z0-9_.-]{{1,{MAX_ID_CHARS}}}$"),
        Field(description="Chosen by you: a request that comes again is the same command."),
    ] = None


class DeclaredQuery(Question):
    """Whose declarations."""

    match: Annotated[str, Field(max_length=MAX_SELECTOR_CHARS, description="As for `POST /v1/commands`.")] = "*"


class DeviceCommandsQuery(Question):
    """How many."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED_EACH)] = 10


class CommandsQuery(Question):
    """Which part of the list; ``page`` from the answer before."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 20
    page: Annotated[int | None, Field(ge=1, le=2**53)] = None


class DeviceResult(Answer):
    """What became of a command at one device; ``state``: queued, sent, done, failed, timed_out, expired, refused,
    cancelled.
    """

    device: str
    state: str
    value: Any
    error: str
    sent_ns: str | None
    ended_ns: str | None


class CommandSummary(Answer):
    """A command; ``states``: how many devices are in each. ``match`` is null when it chose devices outside yours."""

    id: str
    name: str
    args: JsonObject
    match: str | None
    who: str
    made: str
    made_ns: str
    expires_ns: str
    queue: bool
    states: dict[str, int]


class CommandAnswer(CommandSummary):
    """A command and its results, in natural order of devices."""

    results: list[DeviceResult]


class CommandList(Answer):
    """Commands, newest first; ``next``: the page after, null at the end."""

    commands: list[CommandSummary]
    next: int | None


class CommandKind(Answer):
    """A command as devices declare it. ``args``: name → type, required, nullable, default, choices."""

    name: str
    doc: str
    args: dict[str, JsonObject]
    devices: int


class CommandKinds(Answer):
    """What the chosen devices can be told to do, most devices first; ``more``: kinds that are left out."""

    devices: int
    kinds: list[CommandKind]
    more: int


class DeviceCommand(DeviceResult):
    """A command to one device, and what became of it there."""

    id: str
    name: str
    args: JsonObject
    who: str
    made_ns: str
    expires_ns: str


class DeviceCommands(Answer):
    """The newest commands to a device, newest first."""

    commands: list[DeviceCommand]


async def give_command(call: Call, body: CommandRequest) -> JsonObject:
    """Give a command to devices."""
    timeout_s = _seconds("timeout", body.timeout, DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S)
    if body.expires is not None and not body.queue:
        raise BadRequestError("expires goes with queue: without it, a command is over after its timeout")
    expires_s = _seconds("expires", body.expires, timeout_s, MAX_EXPIRY_S)
    devices = await _devices(call, body.match)
    if not devices:
        raise NotFoundError(f"no device that you may command fits {body.match[:100]!r}; see them with: hub devices ls")
    now_ns = time.time_ns()
    order = Order(
        call.namespace, body.id or secrets.token_hex(8), body.name, body.args, body.match,
        call.identity.name or call.identity.id, now_ns, now_ns + int(expires_s * 1e9), body.queue,
        len(orjson.dumps(body.args)),
    )  # fmt: skip
    await call.hub.commands.give(order, devices)
    if body.wait:
        await call.hub.commands.ended(order.key, timeout_s + _GRACE_S)
    return _answer(call, await _found(call, order.id))


async def get_command(call: Call, _: Nothing) -> JsonObject:
    """Give a command and its results."""
    return _answer(call, await _found(call, call.path["id"]))


async def list_commands(call: Call, query: CommandsQuery) -> JsonObject:
    """List commands, newest first."""
    granted = PatternSet(call.granted)
    found = await call.hub.commands.newest(
        call.namespace, query.limit, query.page, lambda device: granted.matches(device, "*")
    )
    shown = [_summary(one.order, dict(one.states), is_whole=one.is_whole) for one in found if one.states]
    return {"commands": shown, "next": found[-1].number if len(found) == query.limit else None}


async def list_kinds(call: Call, query: DeclaredQuery) -> JsonObject:
    """Say what the devices that a selector chooses can be told to do."""
    devices = await _devices(call, query.match)
    declared = await call.hub.commands.declared_by(call.namespace, devices)
    return await asyncio.to_thread(_kinds, len(devices), Counter(declared.values()))


async def list_device_commands(call: Call, query: DeviceCommandsQuery) -> JsonObject:
    """List the newest commands to a device."""
    name = call.path["device"]
    if not await _devices(call, "*", among={name}):
        raise NotFoundError(f"no device {name[:64]!r} that you may command; see them with: hub devices ls")
    found = await call.hub.commands.of_device(call.namespace, name, query.limit)
    return {
        "commands": [
            {
                **_result(result), "id": order.id, "name": order.name, "args": dict(order.args), "who": order.who,
                "made_ns": str(order.made_ns), "expires_ns": str(order.expires_ns),
            }
            for order, result in found
        ]
    }  # fmt: skip


async def cancel_command(call: Call, _: Nothing) -> JsonObject:
    """End a command at those devices that have not answered."""
    told = await _found(call, call.path["id"])
    await call.hub.commands.cancel(told.order.key, [result.device for result in told.results])
    return _answer(call, await _found(call, call.path["id"]))


async def _devices(call: Call, selector: str, among: Collection[str] | None = None) -> list[str]:
    """Return the devices that a selector chooses and that the caller may command."""
    names = await asyncio.to_thread(call.device_names, exact_names(selector) if among is None else among)
    return devices_matching(selector, call.namespace, call.hub.metadata, names, call.granted)


def _kinds(devices: int, declared: Counter[str]) -> JsonObject:
    """Join equal declarations: a fleet has few kinds."""
    counts: Counter[tuple[str, bytes]] = Counter()
    for text, count in declared.items():
        for name, spec in orjson.loads(text).items():
            counts[name, orjson.dumps(spec)] += count
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = []
    for (name, key), count in found[:MAX_KINDS]:
        spec = orjson.loads(key)
        kinds.append({"name": name, "doc": spec.get("doc", ""), "args": spec.get("args", {}), "devices": count})
    return {"devices": devices, "kinds": kinds, "more": max(0, len(found) - MAX_KINDS)}


async def _found(call: Call, id: str) -> Told:
    """Return the command with the results that the caller may see; with none of them it is not there."""
    told = await call.hub.commands.find(call.namespace, id)
    granted = PatternSet(call.granted)
    seen = [result for result in told.results if granted.matches(result.device, "*")]
    if not seen:
        raise NotFoundError(f"no command {id[:MAX_ID_CHARS]!r}; it may be older than a week: hub commands ls")
    is_whole = len(seen) == len(told.results)
    return Told(told.order, seen, told.number if is_whole else -1)


def _answer(call: Call, told: Told) -> JsonObject:
    states = Counter(result.state for result in told.results)
    return {
        **_summary(told.order, dict(states), is_whole=told.number >= 0),
        "results": [_result(result) for result in told.results],
    }


def _summary(order: Order, states: dict[Any, int], *, is_whole: bool) -> JsonObject:
    return {
        "id": order.id, "name": order.name, "args": dict(order.args), "match": order.selector if is_whole else None,
        "who": order.who, "made": iso_time(order.made_ns), "made_ns": str(order.made_ns),
        "expires_ns": str(order.expires_ns), "queue": order.is_queued,
        "states": {str(state): count for state, count in sorted(states.items())},
    }  # fmt: skip


def _result(result: Result) -> JsonObject:
    return {
        "device": result.device, "state": str(result.state),
        "value": None if result.value is None else orjson.loads(result.value), "error": result.error,
        "sent_ns": None if result.sent_ns is None else str(result.sent_ns),
        "ended_ns": None if result.ended_ns is None else str(result.ended_ns),
    }  # fmt: skip


def _seconds(name: str, text: str | None, default_s: float, limit_s: float) -> float:
    if text is None:
        return min(default_s, limit_s)
    seconds = parse_duration(text) / 1e9
    if not 0 < seconds <= limit_s:
        raise BadRequestError(f"{name} {text!r}: the limit is {limit_s:.0f} s")
    return seconds


_ONE = "/v1/commands/{id}"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/commands", "Commands, newest first", Verb.COMMAND, CommandsQuery, CommandList, list_commands),
    Endpoint("POST", "/v1/commands", "Give a command to devices", Verb.COMMAND, CommandRequest, CommandAnswer,
             give_command),
    Endpoint("GET", _ONE, "A command and its results", Verb.COMMAND, Nothing, CommandAnswer, get_command),
    Endpoint("POST", f"{_ONE}/cancel", "End a command at devices that have not answered", Verb.COMMAND, Nothing,
             CommandAnswer, cancel_command),
    Endpoint("GET", "/v1/declared", "What devices can be told to do", Verb.COMMAND, DeclaredQuery, CommandKinds,
             list_kinds),
    Endpoint("GET", "/v1/devices/{device}/commands", "The newest commands to a device", Verb.COMMAND,
             DeviceCommandsQuery, DeviceCommands, list_device_commands),
)  # fmt: skip
