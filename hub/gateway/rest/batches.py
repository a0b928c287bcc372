"""Readings by request: from devices that sleep, from `curl`, from whatever speaks a format that is known here.

Place: `hub.gateway.rest`, above `hub.posts`; formats are read in `hub.decode`, InfluxDB's own routes are
`hub.gateway.influx`.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.responses import JSONResponse, Response

from device_sdk.errors import Reason, explain
from hub.decode import record, senml
from hub.decode.base import DecodeError, Publication
from hub.decode.rows import Rows
from hub.errors import BadRequestError
from hub.gateway.blocks import MAX_LINES_BYTES, store_lines
from hub.gateway.body import UnsupportedMediaError
from hub.gateway.endpoint import Answer, Call, Endpoint, Question, check_name
from hub.numbered import StreamConflictError, Taken
from hub.post_outcome import Outcome
from hub.posts import CUT, Request, digest_of
from hub.roles import Identity, Role, Verb

JSON, TEXT, ND_JSON, FRAMES = (
    "application/json", "text/plain", "application/x-ndjson", "application/vnd.telemetry-hub.frames",
)  # fmt: skip
BODIES = (JSON, senml.JSON, senml.CBOR, TEXT, ND_JSON, FRAMES)
# Of a body that is in memory as a whole.
MAX_DOCUMENT_BYTES = 256 * 1024
# Frames weigh less when they are read, and are checked one by one.
MAX_FRAMES_BYTES = 1024 * 1024
IDEMPOTENCY_KEY = "idempotency-key"
_LENGTH = struct.Struct("<I")
_STREAM = r"^[0-9a-f]{16}$"
_CHAIN = r"^[0-9a-f]{32}$"


class PostQuery(Question):
    """Whose readings, and where numbered frames belong."""

    device: Annotated[
        str | None, Field(max_length=64, description="The device of readings that name none: for gateways.")
    ] = None
    precision: Annotated[
        Literal["ns", "us", "ms", "s"], Field(description="Of the times in line protocol.")
    ] = "ns"  # fmt: skip
    stream: Annotated[
        str | None, Field(pattern=_STREAM, description="The stream of numbered frames; they need one.")
    ] = None
    chain: Annotated[
        str | None, Field(pattern=_CHAIN, description="The device's chain before the first of the frames.")
    ] = None
    seen: Annotated[str | None, Field(max_length=64, description="`pos` of the last answer that the device kept.")] = (
        None
    )


class RefusedPart(Answer):
    """A reading that is not stored; ``at``: its line or record in the body, from 1; of numbered frames its seq.

    ``channel`` is empty where a line or record was refused as a whole, or all that a device said. ``index``: in a
    numbered frame, its place among the channel's readings.
    """

    at: int
    device: str
    channel: str
    reason: str
    why: str
    index: int | None = None


class PostAnswer(Answer):
    """What became of the request; it is durable.

    ``accepted``, ``rejected``: readings; ``refused`` names the first hundred. Of numbered frames they are of those that
    were new; ``stored``, ``chain``, ``pos`` and ``rejected_total`` are those of an ack.
    """

    accepted: int
    rejected: int
    refused: list[RefusedPart]
    stored: int | None = None
    chain: str | None = None
    pos: str | None = None
    rejected_total: int | None = None


async def post_batches(call: Call, query: PostQuery) -> Response:
    """Store readings of a device, or of the devices behind a gateway; answered when they are durable.

    JSON is an object of channels and values, with `time` if you like, or a list of such. SenML (RFC 8428), line
    protocol (`text/plain`) and numbered frames of the SDK (one a line, or each behind its length in 32 bits,
    little-endian) are known by their `Content-Type`; a body may be packed with gzip. With the header
    `Idempotency-Key` a request that is sent again within two days stores nothing twice and has the same answer; frames
    need none, for their numbers are one. 422: nothing of it can be stored; 403 with `Retry-After`: not yet.
    """
    assert call.body is not None, "an endpoint with bodies is given one"
    body, kind = call.body, call.body.content_type or JSON
    if query.device is not None:
        check_name(query.device)
    if kind in (ND_JSON, FRAMES):
        return await _store_frames(call, query, _split(await body.whole(MAX_FRAMES_BYTES), kind))
    if kind not in BODIES:
        raise UnsupportedMediaError(f"Content-Type {kind[:60]!r}: use one of {', '.join(BODIES)}")
    data = b"" if kind == TEXT else await body.whole(MAX_DOCUMENT_BYTES)
    if kind == JSON and (frame := _frame_of(data)) is not None:
        return await _store_frames(call, query, [frame])
    sender, fallback = call.identity, query.device or ""
    _check_fallback(sender, fallback)
    with call.hub.posts.request(sender, fallback, call.peer.headers.get(IDEMPOTENCY_KEY)) as request:
        if kind == TEXT:
            await store_lines(request, body.pieces(MAX_LINES_BYTES), query.precision, fallback)
        else:
            await _store_document(request, data, kind, fallback)
        return _answer(request.outcome)


def _check_fallback(sender: Identity, fallback: str) -> None:
    if sender.role is Role.DEVICE and fallback not in ("", sender.name):
        raise BadRequestError(f"device={fallback}: this credential is for {sender.name} alone")


async def _store_document(request: Request, data: bytes, kind: str, fallback: str) -> None:
    now_ns, found = request.now_ns(), Rows()
    try:
        async with request.turn:
            for _ in _READING[kind](request, data, now_ns, found):
                await asyncio.sleep(0)
    except DecodeError as error:
        raise UnreadableError(str(error)) from error
    digest = digest_of(CUT, kind.encode(), fallback.encode(), data).digest()
    await request.take(found, digest, Publication("", data, now_ns, content_type=kind))


class UnreadableError(BadRequestError):
    """The body is not what its type says, or not what this route takes."""

    status = 422
    reason = "undecodable"


def _read_json(request: Request, data: bytes, now_ns: int, found: Rows) -> Iterator[None]:
    try:
        document = orjson.loads(data)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    return record.reading(document, request.scope, found)


def _read_senml(request: Request, data: bytes, now_ns: int, found: Rows) -> Iterator[None]:
    return senml.reading(senml.load_pack(data, is_cbor=False), request.scope, now_ns, found)


def _read_senml_cbor(request: Request, data: bytes, now_ns: int, found: Rows) -> Iterator[None]:
    return senml.reading(senml.load_pack(data, is_cbor=True), request.scope, now_ns, found)


_READING: dict[str, Callable[[Request, bytes, int, Rows], Iterator[None]]] = {
    JSON: _read_json, senml.JSON: _read_senml, senml.CBOR: _read_senml_cbor,
}  # fmt: skip


def _answer(outcome: Outcome) -> Response:
    named = outcome.in_order()
    told = {
        "accepted": outcome.accepted, "rejected": outcome.rejected, "refused": [one._asdict() for one in named],
    }  # fmt: skip
    if outcome.accepted or not outcome.rejected:
        return JSONResponse(told)
    # A request that is known by its name may have been put aside as a whole, for a reason that is in quarantine.
    reason, why = (named[0].reason, f"{named[0].at}: {named[0].why}") if named else (Reason.MALFORMED, "in quarantine")
    fault = {"error": {"reason": reason, "message": f"nothing is stored; the first: {why}"}}
    if outcome.retry_s is None:
        return JSONResponse({**fault, **told}, 422)
    return JSONResponse({**fault, **told}, 403, {"Retry-After": str(int(outcome.retry_s))})


async def _store_frames(call: Call, query: PostQuery, frames: list[bytes]) -> Response:
    if query.stream is None:
        raise BadRequestError("numbered frames need ?stream=, 16 hex digits that the device chose when it began")
    sender = call.identity
    device = query.device or (sender.name if sender.role is Role.DEVICE else "")
    if not device:
        raise BadRequestError("of which device are these frames? add ?device=NAME")
    try:
        taken = await call.hub.posts.take_numbered(
            sender, device, query.stream, frames, before=query.chain, seen=query.seen
        )
    except StreamConflictError as error:
        call.hub.posts.figures.failed(error)
        fault = {"reason": error.reason, "message": str(error)}
        return JSONResponse({"error": fault, "stored": error.stored, "chain": error.chain.hex()}, error.status)
    return JSONResponse(_taken_object(taken, device))


def _taken_object(taken: Taken, device: str) -> dict[str, object]:
    return {
        "accepted": taken.accepted, "rejected": taken.rejected,
        "refused": [
            {"at": one.seq, "device": device, "channel": one.channel, "reason": str(one.reason),
             "why": explain(str(one.reason)), "index": one.index}
            for one in taken.named
        ],
        "stored": taken.stored, "chain": taken.chain.hex(), "pos": taken.position,
        "rejected_total": taken.rejected_total,
    }  # fmt: skip


def _frame_of(data: bytes) -> bytes | None:
    """Return the body when it is one numbered frame or a schema."""
    return data if data.lstrip()[:5] == b'{"op"' else None


def _split(data: bytes, kind: str) -> list[bytes]:
    if kind == ND_JSON:
        return [line for line in data.split(b"\n") if line.strip()]
    frames, at = [], 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise BadRequestError(f"the body ends inside the length at byte {at}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if not 0 < length <= len(data) - at:
            raise BadRequestError(f"a frame of {length} bytes at byte {at}; {len(data) - at} are left")
        frames.append(data[at : at + length])
        at += length
    return frames


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/batches", "Store readings of a device", Verb.WRITE, PostQuery, PostAnswer, post_batches,
             bodies=BODIES),
)  # fmt: skip
