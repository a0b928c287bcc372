"""Quarantined frames once more: what today's validation takes of them is stored after all.

Owns: the frames of the hub's own stream that carry replayed readings, and who waits for their commit. Place: above
`session` and `journal`, below the gateway. Lives on the event loop. Must not: change what the device was told; its
counters stay, the journal counts beside them what was replayed.

Theory of operation. The frame that carries an entry's readings and the entry's mark *replayed* are one commit, so a
kill leaves both or neither. A request that comes while the same entry is on its way waits for the same answer; one
that comes later finds the mark. So an entry adds its readings once, however often it is asked for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from device_sdk.columns import Batch, encode_batch, to_columns
from device_sdk.reading import Channel
from device_sdk.wire import HUB_STREAM, Gap, next_chain
from hub.decode.base import Said
from hub.devices import Registry
from hub.errors import DiskFullError
from hub.foreign_replay import ForeignMessages
from hub.journal.base import Journal, QuarantineEntry
from hub.model import FOREIGN_STREAM, Frame, Kind, Replayed, StreamKey
from hub.streams import Streams
from hub.validate import MalformedError, check_batch, parse_message

_SPACE = b" \t\r\n"


class Outcome(StrEnum):
    """What became of a replay."""

    REPLAYED = "replayed"
    ALREADY = "already"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer: readings stored and refused now; ``why`` it stays in quarantine, else empty."""

    outcome: Outcome
    accepted: int = 0
    rejected: int = 0
    why: str = ""


class Replays:
    """Replays entries of the journal's quarantine, each once.

    Args:
        submit: hands frames to the journal's writer, never waits.
        clock: wall time in ns.
        foreign: reads messages of devices that speak no protocol of ours.
    """

    def __init__(
        self,
        streams: Streams,
        registry: Registry,
        journal: Journal,
        submit: Callable[[list[Frame]], None],
        clock: Callable[[], int],
        foreign: ForeignMessages,
    ) -> None:
        self._foreign = foreign
        self._streams = streams
        self._registry = registry
        self._journal = journal
        self._submit = submit
        self._clock = clock
        self._tasks: dict[tuple[str, int], asyncio.Task[Replay]] = {}
        self._waiting: dict[tuple[StreamKey, int], asyncio.Future[None]] = {}

    async def replay(self, namespace: str, offset: int) -> Replay:
        """Store what is now valid of the quarantined frame at ``offset``; return when that is durable.

        May be cancelled; what was begun is finished.

        Raises:
            NotFoundError: no such entry in the namespace.
            DiskFullError, JournalError: nothing was stored; the entry is as it was.
        """
        task = self._tasks.get((namespace, offset))
        if task is None:
            task = asyncio.create_task(self._replay(namespace, offset), name=f"hub replay {offset}")
            self._tasks[(namespace, offset)] = task
            task.add_done_callback(lambda done: self._ended(namespace, offset, done))
        return await asyncio.shield(task)

    def committed(self, frames: Sequence[Frame]) -> None:
        """Answer those whose frames are durable now."""
        if self._waiting:
            for future in self._taken(frames):
                future.set_result(None)

    def refused(self, frames: Sequence[Frame]) -> None:
        """Answer those whose frames the full disk refused."""
        for future in self._taken(frames):
            future.set_exception(DiskFullError("the hub's disk is full: free space and replay again"))

    def failed(self, error: Exception) -> None:
        """Answer all: the journal takes nothing more."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(error)

    async def _replay(self, namespace: str, offset: int) -> Replay:
        entry, body = await asyncio.to_thread(self._journal.quarantined, namespace, offset)
        if entry.replayed_ns is not None:
            return Replay(Outcome.ALREADY)
        try:
            said = None
            if entry.key.stream == FOREIGN_STREAM:
                said = await asyncio.to_thread(self._foreign.read, entry, body)
            # From here to `submit` without a pause: the frame's number is the stream's next one.
            frame = make_frame(entry, body, self._streams, self._registry, self._clock(), said)
        except MalformedError as error:
            return Replay(Outcome.MALFORMED, why=str(error))
        future = asyncio.get_running_loop().create_future()
        self._waiting[(frame.key, frame.seq)] = future
        self._submit([frame])
        await future
        return Replay(Outcome.REPLAYED, frame.readings, frame.rejected_count)

    def _taken(self, frames: Sequence[Frame]) -> list["asyncio.Future[None]"]:
        found = [self._waiting.pop((f.key, f.seq), None) for f in frames if f.replayed is not None]
        return [future for future in found if future is not None and not future.done()]

    def _ended(self, namespace: str, offset: int, task: "asyncio.Task[Replay]") -> None:
        self._tasks.pop((namespace, offset), None)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone


def make_frame(
    entry: QuarantineEntry, body: bytes, streams: Streams, registry: Registry, now_ns: int, said: Said | None = None
) -> Frame:
    """Return the entry as the next frame of the hub's own stream, which counts as accepted from now on.

    Its receive time is the entry's: the readings came then.

    Args:
        said: what a foreign message says now; None: it is a frame of a device.

    Raises:
        MalformedError: it still cannot be taken, or every reading of it would be refused; nothing changed.
    """
    namespace, device, stream = entry.key
    key = StreamKey(namespace, device if said is None else said.device, HUB_STREAM)
    if said is not None:
        body = _body_of(said, entry.seq)
        _declare(registry, key, said)
    message = parse_message(body, body.lstrip(_SPACE)[:1] == b"{")
    replayed = Replayed(entry.offset, stream, entry.count, now_ns, device)
    frame = Frame(key, 0, Kind.BATCH, entry.received_ns, body, b"", replayed=replayed)
    match message:
        case Batch():
            _fill(frame, message, registry)
        case Gap():
            frame.kind, frame.dropped, frame.reason = Kind.GAP, message.count or 0, message.reason
        case _:
            raise MalformedError(f"a {type(message).__name__.lower()} holds no readings")
    state = streams.get(key)
    frame.seq, frame.chain = state.accepted + 1, next_chain(state.accepted_chain, body)
    state.accepted, state.accepted_chain = frame.seq, frame.chain
    return frame


def _body_of(said: Said, seq: int) -> bytes:
    try:
        return encode_batch(to_columns(seq, [(r.channel, r.time_ns or 0, r.value) for r in said.readings]))
    except Exception as error:  # a decoder may be anybody's: what it gave can be of any type
        raise MalformedError(f"no frame can be made of it: {error!r}") from error


def _declare(registry: Registry, key: StreamKey, said: Said) -> None:
    """Declare the channels that there are not yet; of the others the device says better what they are."""
    known = registry.device(key.namespace, key.device).channels
    told = {channel.name: channel for channel in said.channels}
    names = dict.fromkeys(reading.channel for reading in said.readings if reading.channel not in known)
    registry.declare(key.namespace, key.device, [told.get(name, Channel(name)) for name in names])


def _fill(frame: Frame, batch: Batch, registry: Registry) -> None:
    checked = check_batch(batch, frame.body, registry.device(frame.key.namespace, frame.key.device).channels.get)
    for series in checked.retyped:
        registry.changed(series)
    if not checked.readings:
        # An entry is replayed once: nothing of it is better kept for later than used up.
        reasons = sorted({rejection.reason for rejection in checked.rejected})
        raise MalformedError(f"each of its {batch.count} readings would be refused: {', '.join(reasons)}")
    frame.body, frame.columns, frame.readings = checked.body, checked.columns, checked.readings
    frame.rejected, frame.rejected_count = checked.rejected, checked.rejected_count
    frame.t0, frame.tick = batch.t0, batch.tick
