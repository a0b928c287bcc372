"""History from files: an import is named, then its frames are stored, a bounded block a request.

Place: `hub.gateway.rest`, above `hub.importing.intake`.
"""

import base64
import binascii
from typing import Annotated

from pydantic import Field, StringConstraints

from device_sdk.reading import Channel, ValueType
from device_sdk.wire import MAX_CHANNELS
from hub.errors import BadRequestError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Question, wait_for_store
from hub.importing.intake import Sent
from hub.model import IMPORT_PREFIX
from hub.roles import Verb

_ID = r"^[0-9a-f]{32}$"
# Beside what a request may weigh: each frame is a look at its stream, in the file when it is not in memory.
MAX_FRAMES = 500
_ID_CHARS = 32


class ImportedFile(Question):
    """A file: what people call it, and the digest of its content and of how it is read, 32 hex digits."""

    name: Annotated[str, Field(max_length=255)]
    id: Annotated[str, StringConstraints(pattern=_ID)]


class ImportStream(Answer):
    """The name of the stream that each device of the file has."""

    stream: str


class ImportedChannel(Question):
    """What the file says of a channel."""

    unit: Annotated[str | None, Field(max_length=32)] = None
    type: ValueType | None = None


class ImportedFrame(Question):
    """A batch of one device: ``body`` is base64 of the bytes that the device would have sent.

    ``channels`` must name each channel in a frame that comes before its first reading or with it.
    """

    device: Annotated[str, Field(max_length=128)]
    body: str
    channels: Annotated[dict[str, ImportedChannel], Field(max_length=MAX_CHANNELS)] = {}


class ImportedFrames(Question):
    """Frames of a file, of 50,000 readings at most; of each device numbered from 1, in the order of the numbers."""

    frames: Annotated[list[ImportedFrame], Field(max_length=MAX_FRAMES)]


class StoredBefore(Answer):
    """What was stored of a device's stream before this request: of frames 1 … ``stored``, by their chain."""

    device: str
    stored: int
    chain: str
    accepted: int
    rejected: int


class RefusedReading(Answer):
    """A reading that is not stored; ``index`` counts the channel's readings in the frame from 0."""

    device: str
    seq: int
    channel: str
    index: int
    reason: str


class KeptUnit(Answer):
    """A channel that has a ``unit`` already, which stays; ``told`` is what the file says."""

    device: str
    channel: str
    unit: str
    told: str


class ImportAnswer(Answer):
    """Everything else of the request is stored durably, now or before."""

    before: list[StoredBefore]
    refused: list[RefusedReading]
    units: list[KeptUnit]


async def begin_import(call: Call, question: ImportedFile) -> JsonObject:
    """Say that a file is imported: the log of changes has it once. Nothing is stored."""
    return {"stream": IMPORT_PREFIX + question.id}


async def store_frames(call: Call, question: ImportedFrames) -> JsonObject:
    """Store frames of a file, each once, however often they are sent; wait until history has what came before."""
    for name in dict.fromkeys(frame.device for frame in question.frames):
        call.check_device(name)
    id_ = call.path["id"]
    if len(id_) != _ID_CHARS or set(id_) - set("0123456789abcdef"):
        raise BadRequestError(f"import {id_[:40]!r}: an id is {_ID_CHARS} hex digits, see POST /v1/imports")
    frames = [_sent(frame) for frame in question.frames]
    # No faster than the store: so the journal holds no more than a block that history lacks, and queries stay fresh.
    await wait_for_store(call.hub)
    taken = await call.hub.imports.take(call.namespace, id_, frames)
    return {
        "before": [
            {"device": device, "stored": found.stored, "chain": found.chain.hex(), "accepted": found.accepted,
             "rejected": found.rejected}
            for device, found in taken.found.items()
        ],
        "refused": [
            {"device": device, "seq": r.seq, "channel": r.channel, "index": r.index, "reason": r.reason}
            for device, r in taken.refused
        ],
        "units": [
            {"device": kept.device, "channel": kept.channel, "unit": kept.unit, "told": kept.told}
            for kept in taken.units
        ],
    }  # fmt: skip


def _sent(frame: ImportedFrame) -> Sent:
    try:
        body = base64.b64decode(frame.body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"{frame.device}: body is not base64: {error}") from error
    channels = [Channel(name, told.unit, told.type) for name, told in frame.channels.items()]
    return Sent(frame.device, body, channels)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/imports", "Begin to import a file", Verb.MANAGE, ImportedFile, ImportStream, begin_import),
    Endpoint("POST", "/v1/imports/{id}/frames", "Store readings of it", Verb.MANAGE, ImportedFrames, ImportAnswer,
             store_frames, is_part=True),
)  # fmt: skip
