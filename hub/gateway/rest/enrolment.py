"""Enrolling devices: one, many, by claim code; their tokens and their end.

Place: `hub.gateway.rest`, above `hub.auth`. Edits of identities run in a thread: each waits for an fsync.
"""

import asyncio
from typing import Annotated

from pydantic import Field

from hub.claims import EXPIRES_S, MAX_EXPIRES_S, MIN_EXPIRES_S
from hub.device_tokens import KEEP_S, MAX_KEEP_S
from hub.enrolment import Result
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question
from hub.live.patterns import PatternSet
from hub.roles import Verb

# A fleet is enrolled in one request; more come in several.
MAX_BULK = 10_000
# Of a name that is too long, as much as shows that it is; `each` answers it by its place.
_MAX_NAME_CHARS = 256
ClaimLife = Annotated[
    float, Field(ge=MIN_EXPIRES_S, le=MAX_EXPIRES_S, description="Seconds until an unused code is worth nothing.")
]


class NewDevice(Question):
    """The device to enrol."""

    device: Annotated[str, Field(max_length=64)]


class NewDevices(Question):
    """Devices to enrol in one transaction: all or none, or with ``each`` every one for itself."""

    devices: Annotated[
        list[Annotated[str, Field(max_length=_MAX_NAME_CHARS)]], Field(min_length=1, max_length=MAX_BULK)
    ]
    rotate: Annotated[bool, Field(description="Give devices that exist a new token; the old ones end at once.")] = False
    each: Annotated[bool, Field(description="Enrol each for itself and answer with `rows`.")] = False
    claims: Annotated[bool, Field(description="With `each`: make claim codes instead of tokens.")] = False
    expires_s: ClaimLife = EXPIRES_S


class Rotation(Question):
    """What becomes of the old token."""

    keep_s: Annotated[
        float, Field(ge=0, le=MAX_KEEP_S, description="Seconds that the old token stays valid; 0 ends it at once.")
    ] = KEEP_S


class NewClaim(Question):
    """How long the code lives."""

    expires_s: ClaimLife = EXPIRES_S


class DeviceToken(Answer):
    """A device's token: shown this once."""

    device: str
    token: str


class EnrolledRow(Answer):
    """What became of one name of the list: a token or a claim code, both shown this once, or why not."""

    device: str
    result: Result
    token: str | None
    code: str | None
    why: str | None


class DeviceTokens(Answer):
    """Tokens of several devices; with ``each`` one row for each name, in the order of the request."""

    devices: list[DeviceToken] = []
    rows: list[EnrolledRow] = []


class DeviceClaim(Answer):
    """A claim code for one device: shown this once."""

    device: str
    id: str
    code: str


async def add_device(call: Call, body: NewDevice) -> JsonObject:
    """Enrol a device."""
    name = call.check_device(body.device)
    token = await asyncio.to_thread(call.hub.identities.add_device, name, namespace=call.namespace)
    return {"device": name, "token": token}


async def add_devices(call: Call, body: NewDevices) -> JsonObject:
    """Enrol many devices in one transaction."""
    identities = call.hub.identities
    if body.each:
        granted = PatternSet(call.granted)
        rows = await asyncio.to_thread(
            identities.enrol_each, body.devices, claim_s=body.expires_s if body.claims else None,
            is_allowed=lambda name: granted.matches(name, "*"), namespace=call.namespace,
        )  # fmt: skip
        return {
            "rows": [
                {"device": r.device, "result": r.result, "token": r.token, "code": r.code, "why": r.why} for r in rows
            ]
        }
    names = [call.check_device(name) for name in body.devices]
    tokens = await asyncio.to_thread(identities.add_devices, names, rotate=body.rotate, namespace=call.namespace)
    return {"devices": [{"device": name, "token": token} for name, token in tokens.items()]}


async def rotate_device(call: Call, body: Rotation) -> JsonObject:
    """Give a device a new token; the one before stays valid for a while, older ones end at once."""
    name = call.check_device(call.path["device"])
    token = await asyncio.to_thread(
        call.hub.identities.rotate_device, name, keep_s=body.keep_s, namespace=call.namespace
    )
    return {"device": name, "token": token}


async def claim_device(call: Call, body: NewClaim) -> JsonObject:
    """Make a code with which a new device fetches its token, once; an older unused one for it ends."""
    name = call.check_device(call.path["device"])
    id_, code = await asyncio.to_thread(
        call.hub.identities.add_claim, name, expires_s=body.expires_s, namespace=call.namespace
    )
    return {"device": name, "id": id_, "code": code}


async def remove_device(call: Call, _: Nothing) -> None:
    """End a device's tokens; its readings stay."""
    name = call.check_device(call.path["device"])
    await asyncio.to_thread(call.hub.identities.remove_device, name, namespace=call.namespace)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/devices", "Enrol a device", Verb.MANAGE, NewDevice, DeviceToken, add_device, 201),
    Endpoint("POST", "/v1/devices/bulk", "Enrol many devices", Verb.MANAGE, NewDevices, DeviceTokens, add_devices, 201),
    Endpoint("POST", "/v1/devices/{device}/rotate", "New token for a device", Verb.MANAGE, Rotation, DeviceToken,
             rotate_device),
    Endpoint("POST", "/v1/devices/{device}/claim", "Claim code for a new device", Verb.MANAGE, NewClaim, DeviceClaim,
             claim_device, 201),
    Endpoint("DELETE", "/v1/devices/{device}", "End a device's tokens", Verb.MANAGE, Nothing, None, remove_device, 204),
)  # fmt: skip
