"""Claims: codes for groups of devices, what is open, and the door at which a device redeems one.

Place: `hub.gateway.rest`, above `hub.claims`. `POST /v1/claim` is the one route that a stranger may use to change
something: it is limited per address and in total.
"""

import asyncio
import time
from typing import Annotated

from pydantic import Field

from hub.change_log import Entry
from hub.claims import EXPIRES_S, MAX_CODE_CHARS, MAX_QUOTA
from hub.errors import BadRequestError, ConflictError, ForbiddenError, TooManyRequestsError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question
from hub.gateway.recording import write
from hub.gateway.rest.enrolment import ClaimLife
from hub.roles import Verb

_MAX_RETRY_CHARS = 128


class NewGroupClaim(Question):
    """A code that up to ``quota`` devices may use whose names match."""

    match: Annotated[str, Field(max_length=64, description="Names of devices, with `*`.")]
    quota: Annotated[int, Field(ge=1, le=MAX_QUOTA)]
    expires_s: ClaimLife = EXPIRES_S


class ClaimMade(Answer):
    """A new claim code: shown this once."""

    id: str
    code: str


class ClaimListed(Answer):
    """A claim without its code: of one ``device``, or of a group that must ``match``."""

    id: str
    device: str | None
    match: str | None
    quota: int
    used: int
    created_ns: str
    expires_ns: str


class Claims(Answer):
    """Claims that have not expired, oldest first."""

    claims: list[ClaimListed]


class Redemption(Question):
    """A code, and who comes with it.

    The same code, device and ``retry`` may come again while the code lives: the answer may have got lost.
    """

    code: Annotated[str, Field(max_length=MAX_CODE_CHARS)]
    device: Annotated[
        str | None, Field(max_length=64, description="May be left out where the code is for one device.")
    ] = None
    retry: Annotated[
        str | None, Field(min_length=16, max_length=_MAX_RETRY_CHARS, description="A secret the device made up.")
    ] = None


class Claimed(Answer):
    """A device's own token, shown this once."""

    device: str
    token: str
    namespace: str


async def add_claim(call: Call, body: NewGroupClaim) -> JsonObject:
    """Make a claim code for a group of devices."""
    id_, code = await asyncio.to_thread(
        call.hub.identities.claims.add_group, body.match, body.quota, body.expires_s, namespace=call.namespace
    )
    return {"id": id_, "code": code}


async def list_claims(call: Call, _: Nothing) -> JsonObject:
    """List claims, without their codes."""
    found = await asyncio.to_thread(call.hub.identities.claims.listed, namespace=call.namespace)
    return {
        "claims": [
            {
                "id": c.id, "device": c.device, "match": c.match, "quota": c.quota, "used": c.used,
                "created_ns": str(c.created_ns), "expires_ns": str(c.expires_ns),
            }
            for c in found
        ]
    }  # fmt: skip


async def remove_claim(call: Call, _: Nothing) -> None:
    """End a claim; devices that used it keep their tokens."""
    await asyncio.to_thread(call.hub.identities.claims.remove, call.path["id"], namespace=call.namespace)


async def redeem(call: Call, body: Redemption) -> JsonObject:
    """Exchange a claim code for the device's own token."""
    attempts = call.hub.claim_attempts
    wait_s = attempts.begin(call.address, time.monotonic())
    if wait_s:
        raise TooManyRequestsError("too many claims, or too many that failed; try again later", retry_s=wait_s)
    try:
        claimed = await asyncio.to_thread(call.hub.identities.claims.redeem, body.code, body.device, body.retry)
    except (BadRequestError, ConflictError, ForbiddenError) as error:
        attempts.failed(call.address, time.monotonic())
        call.hub.change_log.refused(Entry("claim", outcome=error.reason, peer=call.address))
        raise
    if not claimed.is_again:
        attempts.succeeded()
    entry = Entry("claim", claimed.device, who=claimed.device, role="device", peer=call.address,
                  namespace=claimed.namespace)  # fmt: skip
    await write(call.hub.change_log, entry)
    return {"device": claimed.device, "token": claimed.token, "namespace": claimed.namespace}


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/claims", "Open claims", Verb.MANAGE, Nothing, Claims, list_claims, whole=True),
    Endpoint("POST", "/v1/claims", "Claim code for a group", Verb.MANAGE, NewGroupClaim, ClaimMade, add_claim, 201,
             whole=True),
    Endpoint("DELETE", "/v1/claims/{id}", "End a claim", Verb.MANAGE, Nothing, None, remove_claim, 204, whole=True),
    Endpoint("POST", "/v1/claim", "Exchange a claim code for a token", None, Redemption, Claimed, redeem),
)  # fmt: skip
