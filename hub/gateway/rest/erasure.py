"""Erasing a device: its readings and their sums, what was said, ordered and set of it.

Place: `hub.gateway.rest`. What remains is what proves that nothing was lost: positions and counts of its streams, names
of its channels, and the log of who did what; and for as long as the journal keeps frames, those of the device.
"""

import asyncio
from typing import Annotated

from pydantic import Field

from hub.errors import BadRequestError, ConflictError
from hub.gateway.access import Parts
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Question, wait_for_store
from hub.roles import Verb


class Erasure(Question):
    """The device's name once more: there is no way back."""

    confirm: Annotated[str, Field(description="The name of the device.")]


class Erased(Answer):
    """What was erased; ``readings``: rows, the sums of dropped ones went with them.

    ``journal_hours``: the journal forgets the device's frames within this time, or earlier when it is full.
    """

    device: str
    readings: int
    descriptions: int
    commands: int
    quarantined: int
    journal_hours: float


async def erase_device(call: Call, body: Erasure) -> JsonObject:
    """Erase a device that was removed: readings, sums, descriptions, states, commands, quarantined frames."""
    hub, namespace, name = call.hub, call.namespace, call.check_device(call.path["device"])
    if body.confirm != name:
        raise BadRequestError(f"confirm is {body.confirm[:40]!r}: say the device's name, {name!r}")
    await _check_gone(call, name)
    # What was acked before is in the store then, and goes with the rest.
    await wait_for_store(hub)
    commands = await hub.commands.erase(namespace, name)
    await asyncio.to_thread(hub.rollout.states.erase, namespace, name)
    descriptions = await asyncio.to_thread(hub.metadata.erase, namespace, name)
    hub.describe()
    quarantined = await asyncio.to_thread(_erase_quarantined, hub, namespace, name)
    numbers = [s.id for s in hub.registry.by_id.values() if (s.namespace, s.device) == (namespace, name)]
    readings = await asyncio.to_thread(hub.store.erase, numbers)
    for number in numbers:
        hub.registry.latest.pop(number, None)
    return {
        "device": name, "readings": readings, "descriptions": descriptions, "commands": commands,
        "quarantined": quarantined, "journal_hours": hub.config.journal_hours,
    }  # fmt: skip


async def _check_gone(call: Call, name: str) -> None:
    if name in await asyncio.to_thread(call.device_names, [name]):
        raise ConflictError(f"{name} may still send: end its tokens first, hub devices rm {name}")
    state = call.hub.registry.devices.get((call.namespace, name))
    if state is not None and state.connections:
        raise ConflictError(f"{name} is still connected; within a second of hub devices rm it is not: try again")


def _erase_quarantined(hub: Parts, namespace: str, name: str) -> int:
    entries = hub.journal.quarantine(namespace, name)
    for entry in entries:
        hub.journal.delete_quarantined(namespace, entry.offset)
    return len(entries)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/devices/{device}/erase", "Erase all of a device", Verb.MANAGE, Erasure, Erased, erase_device),
)  # fmt: skip
