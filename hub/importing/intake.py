"""The hub's side of an import: frames of a file are validated, numbered and journaled as those of devices are.

Owns: which frames of an import are taken, and who waits for their commit. Place: above `streams`, `validate` and the
journal's writer, below the gateway. Lives on the event loop. Must not: know files, or who may import for which device.

Theory of operation. Of each device that a file names, the import has a stream of its own, named after the file's
content. Its frames are numbered from 1 as a device numbers its own, and the mark of it, which commits with them, says
what is stored: a frame that comes again is answered and dropped, and whoever sends the file again finds out where to go
on. So nothing of an import has to be kept but a mark for each file and device, and that is in no memory for long.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from device_sdk.columns import Batch
from device_sdk.errors import Reason
from device_sdk.reading import Channel
from device_sdk.wire import MAX_CHANNELS, MAX_FRAME_BYTES, MAX_FRAME_READINGS, Rejection
from hub.devices import Registry
from hub.errors import BadRequestError, ConflictError, DiskFullError, UnavailableError
from hub.model import IMPORT_PREFIX, Frame, Kind, Mark, StreamKey
from hub.streams import FindMarks, Streams, StreamState
from hub.unit import unit_shown
from hub.validate import MalformedError, check_batch, parse_message

# Each may be refused and is named then: 370,000 in a request of 1 MiB held the loop for a second.
MAX_REQUEST_READINGS = 50_000


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame of a file: a batch as its device would have sent it, and what is known of its channels."""

    device: str
    body: bytes
    channels: Sequence[Channel] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was stored of a device's stream before a request."""

    stored: int
    chain: bytes
    accepted: int
    rejected: int


@dataclass(frozen=True, slots=True)
class UnitKept:
    """A channel that has a unit already, and the other one that the file says."""

    device: str
    channel: str
    unit: str
    told: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request: by device what was stored before it, every reading refused, every unit not taken."""

    found: dict[str, Found]
    refused: list[tuple[str, Rejection]]
    units: list[UnitKept]


class Imports:
    """Takes frames of imports.

    Args:
        find: the journal's `find_marks`, called in a thread: a request may name hundreds of streams.
        submit: hands frames to the journal's writer, never waits.
        can_accept: False while the writer's queue is full, or the disk budget exceeded.
        clock: wall time in ns.
    """

    def __init__(
        self,
        streams: Streams,
        registry: Registry,
        find: FindMarks,
        submit: Callable[[list[Frame]], None],
        can_accept: Callable[[], bool],
        clock: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._registry = registry
        self._find = find
        self._submit = submit
        self._can_accept = can_accept
        self._clock = clock
        self._waiting: dict[tuple[StreamKey, int], asyncio.Future[None]] = {}
        # One request of an import at a time: what was read of its streams stays true. Forgotten with the last of them.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def take(self, namespace: str, id_: str, frames: Sequence[Sent]) -> Taken:
        """Store what is new of these frames; return when that is durable.

        May be cancelled; what was taken by then is stored. Requests of one import are answered one after the other.

        Args:
            id_: of the import, 32 hex digits.

        Raises:
            BadRequestError: a body is no batch, or they hold too many readings; nothing of the request is stored.
            ConflictError: a frame is not its stream's next one; those before it are stored.
            UnavailableError, DiskFullError, JournalError: the rest is not stored; send all of it again.
        """
        keys = [StreamKey(namespace, sent.device, IMPORT_PREFIX + id_) for sent in frames]
        async with self._locks.setdefault((namespace, id_), asyncio.Lock()):
            unread = self._streams.unread(dict.fromkeys(keys))
            marks = await asyncio.to_thread(self._find, unread) if unread else {}
            read = {key: marks.get(key) or Mark(key) for key in unread}
            return await self._take_all(list(zip(keys, frames, strict=True)), read)

    async def _take_all(self, frames: Sequence[tuple[StreamKey, Sent]], read: dict[StreamKey, Mark]) -> Taken:
        batches = _batches(sent for _, sent in frames)
        taken = Taken({}, [], [])
        futures: list[asyncio.Future[None]] = []
        try:
            for (key, sent), batch in zip(frames, batches, strict=True):
                # True once: a stream that went from memory meanwhile has gone on.
                known = read.pop(key, None)
                state = self._streams.get(key, None if known is None else {key: known})
                future = self._take(state, sent, batch, taken)
                if future is not None:
                    futures.append(future)
                # Between two frames devices are heard: their acks wait for one frame at most, not for the request.
                await asyncio.sleep(0)
        finally:
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return taken

    def committed(self, frames: Sequence[Frame]) -> None:
        """Answer those whose frames are durable now."""
        if self._waiting:
            for future in self._taken(frames):
                future.set_result(None)

    def refused(self, frames: Sequence[Frame]) -> None:
        """Answer those whose frames the full disk refused."""
        for future in self._taken(frames):
            future.set_exception(DiskFullError("the hub's disk is full: free space; the import goes on by itself"))

    def failed(self, error: Exception) -> None:
        """Answer all: the journal takes nothing more."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    def _take(self, state: StreamState, sent: Sent, batch: Batch, taken: Taken) -> "asyncio.Future[None] | None":
        """Take one frame, or find that it was; return what tells when it is durable, None when it is."""
        key = state.mark.key
        if key.device not in taken.found:
            taken.found[key.device] = _found(state.mark)
        if batch.seq <= state.mark.stored:
            self._streams.release(state)
            return None
        if batch.seq <= state.accepted:
            waiting = self._waiting.get((key, batch.seq))
            # Of a request that was cancelled the frame is still on its way, and nobody waits.
            return self._wait(key, batch.seq) if waiting is None or waiting.cancelled() else waiting
        expected = state.accepted + 1
        if batch.seq != expected or not self._can_accept():
            self._streams.release(state)
            if batch.seq != expected:
                raise ConflictError(f"{key.device}: got frame {batch.seq} of {key.stream}, expected {expected}")
            raise UnavailableError(
                "more waits for the hub's disk than it takes, or its disk budget is exceeded: try again"
            )
        self._registry.declare(key.namespace, key.device, self._declared(key, sent.channels, taken))
        frame = self._accept(state, sent, batch)
        taken.refused.extend((key.device, rejection) for rejection in frame.rejected)
        future = self._wait(key, frame.seq)
        self._submit([frame])
        return future

    def _declared(self, key: StreamKey, channels: Sequence[Channel], taken: Taken) -> list[Channel]:
        """Return what a file may say of its channels: history gives no other unit to what a device sends now."""
        known = self._registry.device(key.namespace, key.device).channels
        declared = []
        for channel in channels:
            unit = known[channel.name].unit if channel.name in known else None
            if unit is not None and channel.unit is not None:
                if unit_shown(channel.unit) != unit_shown(unit):
                    taken.units.append(UnitKept(key.device, channel.name, unit, channel.unit))
                channel = channel._replace(unit=unit)
            declared.append(channel)
        return declared

    def _accept(self, state: StreamState, sent: Sent, batch: Batch) -> Frame:
        key = state.mark.key
        channels = self._registry.device(key.namespace, key.device).channels
        checked = check_batch(
            batch, sent.body, channels.get, has_all_channels=len(channels) >= MAX_CHANNELS,
            most_named=MAX_FRAME_READINGS,
        )  # fmt: skip
        for series in checked.retyped:
            self._registry.changed(series)
        return state.accept(
            batch.seq, sent.body, self._clock(), Kind.BATCH, body=checked.body, t0=batch.t0, tick=batch.tick,
            columns=checked.columns, readings=checked.readings, rejected=checked.rejected,
            rejected_count=checked.rejected_count, reason=checked.reason,
        )  # fmt: skip

    def _wait(self, key: StreamKey, seq: int) -> "asyncio.Future[None]":
        future = self._waiting[(key, seq)] = asyncio.get_running_loop().create_future()
        return future

    def _taken(self, frames: Sequence[Frame]) -> list["asyncio.Future[None]"]:
        found = [self._waiting.pop((f.key, f.seq), None) for f in frames if f.key.is_import]
        return [future for future in found if future is not None and not future.done()]


def _found(mark: Mark) -> Found:
    return Found(mark.stored, mark.last_chain, mark.accepted, mark.rejected)


def _batches(frames: Iterable[Sent]) -> list[Batch]:
    batches, readings = [], 0
    for sent in frames:
        batch = _batch(sent.body)
        batches.append(batch)
        readings += batch.count
        if readings > MAX_REQUEST_READINGS:
            raise BadRequestError(f"more than {MAX_REQUEST_READINGS} readings: send them in several requests")
    return batches


def _batch(body: bytes) -> Batch:
    if len(body) > MAX_FRAME_BYTES:
        raise BadRequestError(f"a frame of {len(body)} bytes: the limit is {MAX_FRAME_BYTES}")
    try:
        message = parse_message(body, body[:1] == b"{")
    except MalformedError as error:
        raise BadRequestError(f"{Reason.MALFORMED}: {error}") from error
    if not isinstance(message, Batch):
        raise BadRequestError(f"a {type(message).__name__.lower()} holds no readings: an import takes batches")
    return message
