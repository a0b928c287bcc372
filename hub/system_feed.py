"""What the hub tells of itself, as readings of the reserved device ``$sys``: each entry of a source exactly once.

Owns: the streams of ``$sys`` and what of each source is on its way to the journal. Place: above `streams`, below `app`,
which runs it. Lives on the event loop; sources are read in threads. Must not: hold up who writes to a source, or
devices: it waits while the journal's queue is full, and has one frame on its way at a time.

Theory of operation. A source is a log on disk whose entries are numbered from 1 in each namespace: an outbox. They go
in that order on one stream of ``$sys`` that is called as the source is, so the stream's mark says how far the journal
is: **the next number is ``accepted + dropped + 1``**, and it is committed with the frame. A kill between the two files
loses nothing and doubles nothing, on a full disk entries wait in their source, and a journal that was restored gets
again what it lacks. What the source cut before the journal had it is declared as a gap with its count.

A source that begins anew has another name, so another stream. One that ends before its stream does was put back to an
older state: it is renamed, and what it holds is told again; to the store, which keeps one reading a series and time,
that adds nothing twice.

Sources: the log of changes, channel ``audit``, and what `hub.event_log` holds (`hub.system_readings` names all).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from device_sdk import wire
from device_sdk.columns import encode_json, to_columns
from device_sdk.reading import Channel, ValueType
from hub.devices import Registry
from hub.errors import DiskFullError, HubError
from hub.model import Frame, Kind, Mark, SeriesColumn, SeriesKey, StreamKey
from hub.roles import SYSTEM_DEVICE
from hub.streams import RETRY_DISK_FULL_MS, Streams, StreamState
from hub.system_entry import SystemEntry

_log = logging.getLogger("hub.system_feed")

# Entries of other processes are seen within 1 s; those of this one at once.
LOOK_EVERY_S = 0.5
# Of one frame: at most 64 KiB of text, with all of its quotes escaped still half of what a frame may be.
ENTRIES_PER_FRAME = 64
# Why entries are missing: the source was cut before the journal had them.
CUT = "log_cut"

# What the log of changes is told as.
AUDIT = Channel("audit", type=ValueType.STR, label="log of changes")


class Source(Protocol):
    """A numbered log on disk (`hub.change_log.ChangeLog` is one); methods may be called in any thread."""

    @property
    def name(self) -> str:
        """16 hex digits, of this log alone."""

    def rename(self) -> None:
        """Take another name, at random."""

    def newest(self, after: int) -> tuple[dict[str, int], int]:
        """Return the newest number of each namespace with entries behind a position; and the position now (0: none)."""

    def numbered(self, namespace: str, after: int, limit: int) -> Sequence[SystemEntry]:
        """Return the entries behind a number, in order."""


class SystemFeed:
    """Brings one source to one channel of ``$sys``. Speaks for its streams as a session does (`hub.streams.Owner`).

    Args:
        source: where the entries are.
        channel: its name and label.
        submit: hands frames to the journal's writer, never waits.
        can_submit: whether the writer's queue has room.
        clock: wall time in ns.
    """

    def __init__(
        self,
        source: Source,
        channel: Channel,
        streams: Streams,
        registry: Registry,
        submit: Callable[[list[Frame]], None],
        can_submit: Callable[[], bool],
        clock: Callable[[], int],
    ) -> None:
        self.flush: Callable[[], None] = _nothing
        self._source = source
        self._channel = channel
        self._streams = streams
        self._registry = registry
        self._submit = submit
        self._can_submit = can_submit
        self._clock = clock
        self._wake = asyncio.Event()
        self._seen = 0
        self._due: dict[str, int] = {}
        self._answer: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Tell what there is, for as long as the hub lives; on cancellation, what is on its way is still stored."""
        level = logging.WARNING
        while True:
            self._wake.clear()
            try:
                await self.tell()
                level = logging.WARNING
            except DiskFullError as error:
                self._wait(level, error)
                level = logging.DEBUG
                # As devices: a commit that is refused takes theirs along.
                await asyncio.sleep(RETRY_DISK_FULL_MS / 1000)
            except HubError as error:
                self._wait(level, error)
                level = logging.DEBUG
            except Exception:  # the outer edge of this task: later entries must be told, whatever one brought
                _log.exception("system feed failed channel=%s; trying again", self._channel.name)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()

    def wake(self) -> None:
        """Look at the source at once; on the loop."""
        self._wake.set()

    async def tell(self) -> None:
        """Bring all entries that the source holds now to the journal, or as many as its queue has room for.

        Raises:
            DiskFullError: the journal has no room; the entries stay where they are.
            HubError: source or journal could not be read or written; a later call goes on.
        """
        newest, self._seen = await asyncio.to_thread(self._source.newest, self._seen)
        self._due |= newest
        for namespace, last in list(self._due.items()):
            name = await asyncio.to_thread(lambda: self._source.name)
            state = self._streams.get(StreamKey(namespace, SYSTEM_DEVICE, name))
            if told(state.mark) > last:
                self._streams.release(state)
                await self._begin_anew(namespace, last)
                return
            if not await self._tell_namespace(state, last):
                return
            del self._due[namespace]

    # --- as the owner of its streams --------------------------------------------------------------------------

    def ack(self, state: StreamState) -> None:
        """Go on: what was on its way is stored."""
        if self._answer is not None and not self._answer.done() and state.accepted == state.mark.stored:
            self._answer.set_result(None)

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Wait: what was on its way is not stored."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(DiskFullError(f"the journal takes nothing now: {why}"))

    def end(self, code: int, reason: str) -> None:
        """Nobody else speaks for these streams: a device cannot be called ``$sys``."""

    # --- inside -----------------------------------------------------------------------------------------------

    def _wait(self, level: int, error: HubError) -> None:
        _log.log(level, "entries wait channel=%s reason=%s; trying again", self._channel.name, error)

    async def _begin_anew(self, namespace: str, last: int) -> None:
        _log.warning(
            "source set back channel=%s namespace=%s: it ends at %d, before what was told of it; it is told again",
            self._channel.name, namespace, last,
        )  # fmt: skip
        await asyncio.to_thread(self._source.rename)
        self._seen = 0
        self._due.clear()
        self.wake()

    async def _tell_namespace(self, state: StreamState, last: int) -> bool:
        """Bring the entries of one namespace up to ``last`` to the journal; False: its queue is full."""
        namespace = state.mark.key.namespace
        state.owner = self
        try:
            # Up to there and not to the end: where entries come all the time, other namespaces have their turn.
            while (number := told(state.mark)) < last:
                entries = await asyncio.to_thread(self._source.numbered, namespace, number, ENTRIES_PER_FRAME)
                if not entries:
                    break
                if not self._can_submit():
                    return False
                frames = make_frames(state, entries, self._channel, self._registry, self._clock())
                self._answer = asyncio.get_running_loop().create_future()
                self._submit(frames)
                await self._answer
            return True
        finally:
            self._answer = None
            self._streams.release(state)


def told(mark: Mark) -> int:
    """Return how many entries of a source the stream's frames hold or declare as cut: the number of the last one."""
    return mark.accepted + mark.dropped


def make_frames(
    state: StreamState, entries: Sequence[SystemEntry], channel: Channel, registry: Registry, now_ns: int
) -> list[Frame]:
    """Return the next frames of the stream, which count as accepted from now on: a gap where entries are missing.

    Takes the entries up to the next hole, where the caller goes on when these are stored: a gap may be stored without
    what comes behind it, so it stands for nothing that does.
    """
    namespace = state.mark.key.namespace
    registry.declare(namespace, SYSTEM_DEVICE, [channel])
    series = registry.by_key[SeriesKey(namespace, SYSTEM_DEVICE, channel.name)]
    frames = []
    missing = entries[0].number - told(state.mark) - 1
    if missing:
        seq = state.accepted + 1
        body = wire.encode(wire.Gap(seq, missing, CUT, {}))
        frames.append(state.accept(seq, body, now_ns, Kind.GAP, body=body, dropped=missing, reason=CUT))
    run = [entry for place, entry in enumerate(entries, entries[0].number) if entry.number == place]
    batch = to_columns(state.accepted + 1, [(channel.name, entry.time_ns, entry.text) for entry in run])
    body = encode_json(batch)
    frames.append(
        state.accept(
            batch.seq, body, now_ns, Kind.BATCH, body=body, t0=batch.t0, tick=batch.tick,
            columns=tuple(SeriesColumn(series, column) for column in batch.columns), readings=batch.count,
        )
    )  # fmt: skip
    return frames


def _nothing() -> None:
    """Nothing is written to anybody."""
