"""The ledgers of delivery as an answer.

Place: `hub.gateway.rest`, above `hub.audit`.
"""

import asyncio
from typing import Annotated

from pydantic import Field

from hub.audit import audit_object, take_books
from hub.devices import natural_key
from hub.gateway.endpoint import STORE_WAIT_S, Answer, Call, Endpoint, JsonObject, Question, check_name, visible_devices
from hub.journal.ledger import OTHER
from hub.live.patterns import PatternSet
from hub.roles import SYSTEM_DEVICE, Verb


class OfDevice(Question):
    """Of one device, or of all."""

    device: Annotated[str | None, Field(max_length=64)] = None


class DeviceAudit(Answer):
    """A device's two ledgers in sum.

    ``produced = accepted + rejected - replayed + dropped`` as far as the device has said; ``in_flight``: accepted
    readings that the store has not taken yet. ``balanced`` false: ``findings`` say what does not add up; null: not
    known now.
    """

    device: str
    balanced: bool | None
    summary: str
    findings: list[str]
    streams: int
    produced: int
    accepted: int
    rejected: int
    dropped: int
    unknown_gaps: int
    quarantined: int
    replayed: int
    in_flight: int | None
    superseded: int
    erased: int
    expired: int
    refused: int
    late: int
    rows: int


class StreamAudit(Answer):
    """One stream's ledger; ``complete``: frames 1…stored hold every reading the device ever sent on it.

    ``replayed``: of ``rejected``, what was replayed from quarantine and is counted on the hub's own stream
    (sixteen zeros) instead.
    ``unknown_gaps``: declared losses whose count nobody knows; they are in no sum.
    """

    device: str
    stream: str
    stored: int
    produced: int
    accepted: int
    rejected: int
    dropped: int
    unknown_gaps: int
    quarantined: int
    replayed: int
    complete: bool
    balanced: bool
    first_ns: str | None
    last_ns: str | None


class GapAudit(Answer):
    """A declared loss; ``count`` null = unknown; ``ranges``: channel → event times of the first and last lost."""

    device: str
    stream: str
    seq: int
    count: int | None
    reason: str
    explanation: str
    received_ns: str
    ranges: dict[str, tuple[str, str]]


class RejectionAudit(Answer):
    """Refused readings, summed up."""

    device: str
    channel: str
    reason: str
    explanation: str
    count: int
    last_ns: str


class SeriesAudit(Answer):
    """The second ledger: accepted − superseded − erased − expired − refused = rows; ``late``: came behind a newer one.

    ``expired``: dropped when they were old, their sums are kept; ``merged``: of them, those that came only then.
    ``refused``: the server of the store does not take them.
    """

    device: str
    channel: str
    accepted: int
    superseded: int
    erased: int
    expired: int
    refused: int
    merged: int
    late: int
    rows: int
    balanced: bool


class Audit(Answer):
    """What arrived, what did not, and why, as of one position while readings come in.

    ``behind``: frames that are durable in the journal and not yet in the store; what they hold is ``in_flight``.
    """

    balanced: bool | None
    behind: int
    devices: list[DeviceAudit]
    streams: list[StreamAudit]
    gaps: list[GapAudit]
    rejections: list[RejectionAudit]
    series: list[SeriesAudit]


async def audit(call: Call, query: OfDevice) -> JsonObject:
    """Say what arrived, what was lost, and why, and whether the ledgers balance."""
    hub, namespace, device = call.hub, call.namespace, query.device
    if device not in (None, SYSTEM_DEVICE):
        check_name(device)
    # A store further behind than it can catch up is said, not waited for.
    await hub.consumer.applied(hub.streams.head, STORE_WAIT_S)
    known = [s.id for s in hub.registry.by_id.values() if s.namespace == namespace and device in (None, s.device)]
    books = await asyncio.to_thread(
        take_books, lambda after: hub.journal.account(namespace, device, after), hub.store.account, known
    )
    names = [*(m.key.device for m in books.journal.marks), *(r.device for r in books.journal.rejections)]
    visible = visible_devices(call, () if device is None else (device,), names)
    granted = PatternSet(call.granted)

    def sees(name: str, channel: str) -> bool:
        # Counts without a channel's name belong to the device.
        return name in visible and (channel in ("", OTHER) or granted.matches(name, channel))

    return await asyncio.to_thread(audit_object, books, sees, natural_key)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/audit", "What arrived, what did not, and why", Verb.READ, OfDevice, Audit, audit),
)
