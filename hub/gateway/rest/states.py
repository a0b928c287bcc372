"""Desired and reported states: what devices should have, what they have, and where the two differ.

Place: `hub.gateway.rest`. The file is read and written in threads; what is connected is known on the event loop.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import orjson
from pydantic import Field

from hub.desired import Outcome, Twin
from hub.errors import NotFoundError
from hub.gateway.endpoint import (
    Answer,
    Call,
    Endpoint,
    JsonObject,
    Matching,
    Nothing,
    Question,
    check_name,
    visible_devices,
)  # fmt: skip
from hub.query import iso_time
from hub.roles import Verb
from hub.rollout import Drift
from hub.selector import MAX_SELECTOR_CHARS, devices_matching, exact_names

Patch = Annotated[dict[str, Any], Field(description="RFC 7396: objects are merged, null removes a key.")]
Version = Annotated[
    int | None, Field(ge=0, description="Refuse a device whose desired state has another version by now (409).")
]


class StatePatch(Question):
    """A change of one device's desired state."""

    patch: Patch
    expected_version: Version = None


class SelectedPatch(StatePatch):
    """A change of the desired state of many devices."""

    selector: Annotated[
        str, Field(max_length=MAX_SELECTOR_CHARS, description="`greenhouse-*`, `site:north tag:tomatoes`, `*`.")
    ]


class StatesQuery(Matching):
    """Which devices."""

    drift: Annotated[list[Drift], Field(max_length=len(Drift), description="Only devices that stand so.")] = []


class Desired(Answer):
    """What a device should have; version 0: nobody ever said."""

    version: int
    state: JsonObject
    who: str | None
    time_ns: str | None


class Reported(Answer):
    """What a device has; ``version`` of the desired state it has taken in. ``time_ns`` null: it never said."""

    version: int
    state: JsonObject
    time_ns: str | None


class StateChange(Answer):
    """One change of a desired state; ``patch`` null: only the version rose, above one from before a restore."""

    version: int
    who: str
    time_ns: str
    time: str
    patch: JsonObject | None


class DeviceState(Answer):
    """Both states of a device, the dotted keys in which they differ, the last changes."""

    device: str
    drift: Drift
    differing: list[str]
    desired: Desired
    reported: Reported
    changes: list[StateChange]


class StateRow(Answer):
    """How one device stands."""

    device: str
    drift: Drift
    differing: list[str]
    desired_version: int
    reported_version: int


class StateRows(Answer):
    """Devices in natural order."""

    devices: list[StateRow]


class StateOutcome(Answer):
    """What a change did to one device: the version that holds now, or why it was refused."""

    device: str
    version: int
    changed: bool
    error: str | None


class StateOutcomes(Answer):
    """An outcome for each device that the selector chose and that the credential may command."""

    devices: list[StateOutcome]


async def get_state(call: Call, _: Nothing) -> JsonObject:
    """Give both states of a device."""
    name = call.path["device"]
    check_name(name)
    known = await asyncio.to_thread(_known, call)
    if name not in visible_devices(call, [name], [name] if name in known else []):
        raise _no_device(name)
    twin = await asyncio.to_thread(call.hub.rollout.states.twin, call.namespace, name)
    changes = await asyncio.to_thread(call.hub.rollout.states.history, call.namespace, name)
    wanted, told = twin.desired, twin.reported
    return {
        "device": name,
        "drift": call.hub.rollout.drift(call.namespace, twin),
        "differing": twin.differing(),
        "desired": {
            "version": wanted.version, "state": orjson.loads(wanted.state), "who": wanted.who or None,
            "time_ns": _time(wanted.time_ns),
        },
        "reported": {"version": told.version, "state": orjson.loads(told.state), "time_ns": _time(told.time_ns)},
        "changes": [
            {"version": c.version, "who": c.who, "time_ns": str(c.time_ns), "time": iso_time(c.time_ns),
             "patch": c.patch}
            for c in changes
        ],
    }  # fmt: skip


async def list_states(call: Call, query: StatesQuery) -> JsonObject:
    """List how devices stand."""
    known = await asyncio.to_thread(_known, call)
    names = list(visible_devices(call, query.match, sorted(known)))
    twins = await asyncio.to_thread(call.hub.rollout.states.twins, call.namespace, names)
    # In a thread too: thousands of states are to be read; who is connected is only looked up.
    rows = await asyncio.to_thread(_rows, call, twins)
    return {"devices": [row for row in rows if not query.drift or row["drift"] in query.drift]}


async def set_desired(call: Call, body: StatePatch) -> JsonObject:
    """Change the desired state of a device."""
    name = call.check_device(call.path["device"])
    if not await asyncio.to_thread(_enrolled, call, [name]):
        raise _no_device(name)
    (outcome,) = await _change(call, [name], body)
    if outcome.error is not None:
        raise outcome.error
    return _outcome_object(outcome)


async def set_desired_of_many(call: Call, body: SelectedPatch) -> JsonObject:
    """Change the desired state of all devices that a selector chooses, in one transaction."""
    enrolled = await asyncio.to_thread(_enrolled, call, exact_names(body.selector))
    names = devices_matching(body.selector, call.namespace, call.hub.metadata, enrolled, call.granted)
    return {"devices": [_outcome_object(outcome) for outcome in await _change(call, names, body)]}


async def _change(call: Call, names: Sequence[str], body: StatePatch) -> list[Outcome]:
    rollout, who = call.hub.rollout, call.identity.name or call.identity.id

    def change() -> list[Outcome]:
        return rollout.states.change(call.namespace, names, body.patch, who, expected_version=body.expected_version)

    outcomes = await asyncio.to_thread(change)
    rollout.changed(call.namespace, [outcome.device for outcome in outcomes if outcome.is_changed])
    return outcomes


def _enrolled(call: Call, among: Collection[str] | None = None) -> set[str]:
    return call.device_names(among)


def _known(call: Call) -> set[str]:
    return _enrolled(call) | set(call.hub.rollout.states.devices(call.namespace))


def _rows(call: Call, twins: Sequence[Twin]) -> list[JsonObject]:
    return [
        {
            "device": twin.device, "drift": call.hub.rollout.drift(call.namespace, twin),
            "differing": twin.differing(), "desired_version": twin.desired.version,
            "reported_version": twin.reported.version,
        }
        for twin in twins
    ]  # fmt: skip


def _outcome_object(outcome: Outcome) -> JsonObject:
    error = None if outcome.error is None else str(outcome.error)
    return {"device": outcome.device, "version": outcome.version, "changed": outcome.is_changed, "error": error}


def _time(time_ns: int) -> str | None:
    return str(time_ns) if time_ns else None


def _no_device(name: str) -> NotFoundError:
    return NotFoundError(f"no device {name!r}; see them with: hub devices ls")


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/states", "How devices stand to their desired states", Verb.READ, StatesQuery, StateRows,
             list_states),
    Endpoint("POST", "/v1/desired", "Change the desired state of many devices", Verb.COMMAND, SelectedPatch,
             StateOutcomes, set_desired_of_many),
    Endpoint("GET", "/v1/devices/{device}/state", "Desired and reported state of a device", Verb.READ, Nothing,
             DeviceState, get_state),
    Endpoint("PATCH", "/v1/devices/{device}/desired", "Change the desired state of a device", Verb.COMMAND, StatePatch,
             StateOutcome, set_desired),
)  # fmt: skip
