"""Certificates that devices may not use any more: list, revoke, restore.

Place: `hub.gateway.rest`, above `hub.revocations`.
"""

import asyncio
from typing import Annotated

from pydantic import Field

from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question
from hub.revocations import MAX_NOTE_CHARS
from hub.roles import Verb


class Revocation(Question):
    """A certificate to revoke, known to the hub or not."""

    fingerprint: Annotated[str, Field(max_length=128, description="SHA-256, 64 hex digits; colons allowed.")]
    note: Annotated[str, Field(max_length=MAX_NOTE_CHARS, description="Which one, or why.")] = ""


class RevokedListed(Answer):
    """A revoked certificate; ``fingerprint`` in lower case without colons."""

    fingerprint: str
    note: str
    revoked_ns: str


class RevokedList(Answer):
    """The revoked certificates of the caller's namespace, the latest first."""

    revoked: list[RevokedListed]


class RevocationMade(Answer):
    """The fingerprint as it is kept."""

    fingerprint: str


async def list_revoked(call: Call, _: Nothing) -> JsonObject:
    """List revoked certificates."""
    found = await asyncio.to_thread(call.hub.revocations.revoked, namespace=call.namespace)
    return {"revoked": [{"fingerprint": r.fingerprint, "note": r.note, "revoked_ns": str(r.revoked_ns)} for r in found]}


async def revoke(call: Call, body: Revocation) -> JsonObject:
    """Revoke a certificate; a device that is connected with it is cut off within a second."""
    digits = await asyncio.to_thread(call.hub.revocations.revoke, body.fingerprint, body.note, namespace=call.namespace)
    return {"fingerprint": digits}


async def restore(call: Call, _: Nothing) -> None:
    """Let a revoked certificate be used again."""
    await asyncio.to_thread(call.hub.revocations.restore, call.path["fingerprint"], namespace=call.namespace)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/certificates/revoked", "Revoked certificates", Verb.MANAGE, Nothing, RevokedList,
             list_revoked, whole=True),
    Endpoint("POST", "/v1/certificates/revoked", "Revoke a certificate", Verb.MANAGE, Revocation, RevocationMade,
             revoke, 201, whole=True),
    Endpoint("DELETE", "/v1/certificates/revoked/{fingerprint}", "Restore a certificate", Verb.MANAGE, Nothing, None,
             restore, 204, whole=True),
)  # fmt: skip
