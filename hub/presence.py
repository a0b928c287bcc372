"""Who came and who went, as entries of ``$sys/presence``: each change of each device once, in bounded number.

Owns: what was told of each device, and which changes wait to be told. Place: above `event_log`; `hub.downlink` tells it
of devices. Lives on the event loop; the file is written in threads. Must not: hold up a device, or be asked on the way
of readings.

Theory of operation. A device is online while it has a connection on which it was welcomed. What was told last of the
devices that are online is a note beside the entry that said so, in one transaction: so **entries of a device are told
once, and the next start knows who was online when this one ended**. It says of each that it went offline: with the hub
went the connection, and nobody has seen more. ``since_ns`` says when: the moment of an orderly stop, or the last moment
at which the hub is known to have run.

What a device does often is told less often. A change is told `SETTLE_S` later, as the state is then: a connection that
takes over another is no going. After `BURST` entries a device has one each `TELL_EVERY_S`. An entry says how many
changes it stands for, so nothing is left out unseen. Entries of the whole hub go `PER_WRITE` at a time, and a herd
waits as what it is in memory anyway, one state a device.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hub.errors import HubError
from hub.event_log import Event, EventLog, Note
from hub.system_entry import as_value

_log = logging.getLogger("hub.presence")

PRESENCE = "presence"
CONNECTED, HUB_STOPPED, HUB_KILLED = "connected", "hub_stopped", "hub_killed"
# So long a takeover takes in which the older connection ends first; nobody notices that an entry is later.
SETTLE_S = 0.25
# A device in a bad place: half a dozen times in a row as it happens, then once a minute with a count.
BURST = 10
TELL_EVERY_S = 60.0
# After this a device that is away, and of which all is told, is as one that was never here.
FORGET_S = BURST * TELL_EVERY_S
# Changes that nobody has seen because the state was the same again each time: told when they are so many.
MANY_CHANGES = 10
# Of one transaction, one fsync: 10,000 devices that come back take 20 of them.
PER_WRITE = 500
RETRY_S = 5.0
# The note of an orderly stop; no device has no name.
_ENDED = ("", "")


class Change(NamedTuple):
    """What is to be told of a device: its state, since when and why, for how many changes it stands.

    ``is_news``: what was told before is the other state.
    """

    namespace: str
    device: str
    is_online: bool
    since_ns: int
    why: str
    changes: int
    is_news: bool = True

    @property
    def text(self) -> str:
        """The value of the reading."""
        return as_value({
            "device": self.device, "state": "online" if self.is_online else "offline", "why": self.why,
            "since_ns": str(self.since_ns), "changes": self.changes,
        })  # fmt: skip


@dataclass(slots=True)
class _Device:
    """A device as it is now (``is_online``, since when, why), and as it was told (``is_told``: as online)."""

    is_online: bool
    is_told: bool
    since_ns: int
    why: str
    filled_s: float
    tells: float = BURST
    changes: int = 0
    # When it is looked at next; what else the heap holds of it is stale.
    due_s: float | None = None


class PresenceTeller:
    """Tells of devices. All methods on the event loop, but for `begin`.

    Args:
        log: takes entries and notes.
        clock: wall time in ns: when a change was seen.
        ticks: monotonic seconds: how often a device is told of.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        clock: Callable[[], int] = time.time_ns,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._ticks = ticks
        self._devices: dict[tuple[str, str], _Device] = {}
        # When to look at a device, the soonest first: (ticks, order, key).
        self._due: list[tuple[float, int, tuple[str, str]]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._is_over = False
        self._begun_ns = 0

    def __len__(self) -> int:
        """Return how many devices are in memory."""
        return len(self._devices)

    def begin(self, seen_ns: int) -> None:
        """Tell that all went offline that were online when the hub ended; before `run`. May block.

        Args:
            seen_ns: when the hub is known to have run last, should it have been killed.

        Raises:
            UnavailableError: the file cannot be written; the next call goes on.
        """
        # Of the first call: who comes before one succeeds came after those of whom it tells have gone.
        self._begun_ns = self._begun_ns or self._clock()
        notes = self._log.notes(PRESENCE)
        ended_ns = notes.pop(_ENDED, None)
        why = HUB_KILLED if ended_ns is None else HUB_STOPPED
        left = [
            Change(namespace, device, False, max(since_ns, seen_ns) if ended_ns is None else ended_ns, why, 1)
            for (namespace, device), since_ns in notes.items()
        ]
        for first in range(0, len(left), PER_WRITE):
            self._write(left[first : first + PER_WRITE], now_ns=self._begun_ns + first)
        if ended_ns is not None:
            self._log.write(PRESENCE, (), [Note(*_ENDED, None)])

    def came(self, namespace: str, device: str) -> None:
        """A device was welcomed, and had no connection before."""
        self._change((namespace, device), CONNECTED, is_online=True)

    def went(self, namespace: str, device: str, why: str) -> None:
        """The last connection of a device ended."""
        self._change((namespace, device), why, is_online=False)

    async def run(self) -> None:
        """Tell what is due, for as long as the hub lives; on cancellation, what waits, and that this is the end."""
        try:
            while True:
                await self._sleep()
                try:
                    await self._tell(self.take())
                except Exception:  # the outer edge of this task: later changes must be told, whatever one brought
                    _log.exception("presence failed; going on in %g s", RETRY_S)
                    await asyncio.sleep(RETRY_S)
        finally:
            self._is_over = True
            await asyncio.to_thread(self._end, self.rest())

    def take(self) -> list[Change]:
        """Return what is to be told now, `PER_WRITE` at most; it counts as told from then on."""
        now_s, changes = self._ticks(), list[Change]()
        while self._due and self._due[0][0] <= now_s and len(changes) < PER_WRITE:
            due_s, _, key = heapq.heappop(self._due)
            seen = self._devices.get(key)
            if seen is None or seen.due_s != due_s:
                continue
            seen.due_s = None
            _refill(seen, now_s)
            is_away = not (seen.is_online or seen.is_told) and seen.tells >= BURST
            if seen.is_online != seen.is_told or (seen.changes and (is_away or seen.changes >= MANY_CHANGES)):
                changes.append(_change_of(key, seen))
                seen.is_told, seen.changes, seen.tells = seen.is_online, 0, max(seen.tells - 1, 0)
            elif is_away:
                del self._devices[key]
                continue
            if not seen.is_online:
                self._look(key, seen, now_s + FORGET_S)
        return changes

    def rest(self) -> list[Change]:
        """Return all that is not told, due or not."""
        return [_change_of(key, seen) for key, seen in self._devices.items() if seen.changes]

    def put_back(self, changes: Sequence[Change]) -> None:
        """Take back changes that could not be written; they are tried again in a while."""
        due_s = self._ticks() + RETRY_S
        for change in changes:
            seen = self._devices.get((change.namespace, change.device))
            if seen is not None:
                seen.is_told, seen.changes = change.is_online is not change.is_news, seen.changes + change.changes
                seen.tells = min(seen.tells + 1, BURST)
                self._look((change.namespace, change.device), seen, due_s)

    # --- inside -----------------------------------------------------------------------------------------

    def _change(self, key: tuple[str, str], why: str, *, is_online: bool) -> None:
        # Who leaves because the hub ends is told at the next start, as who was connected when it was killed.
        if self._is_over:
            return
        now_s, now_ns = self._ticks(), self._clock()
        seen = self._devices.get(key)
        if seen is None:
            seen = self._devices[key] = _Device(is_online, False, now_ns, why, now_s)
        seen.is_online, seen.since_ns, seen.why = is_online, now_ns, why
        seen.changes += 1
        _refill(seen, now_s)
        self._look(key, seen, now_s + max(SETTLE_S, (1 - seen.tells) * TELL_EVERY_S))

    def _look(self, key: tuple[str, str], seen: _Device, due_s: float) -> None:
        if seen.due_s is None or due_s < seen.due_s:
            seen.due_s = due_s
            heapq.heappush(self._due, (due_s, next(self._order), key))
            self._wake.set()

    async def _sleep(self) -> None:
        while not self._due or self._due[0][0] > self._ticks():
            self._wake.clear()
            wait_s = self._due[0][0] - self._ticks() if self._due else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _tell(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, changes))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # A thread cannot be called back: what it writes is written before the end is.
            (result,) = await asyncio.gather(writing, return_exceptions=True)
            if isinstance(result, BaseException):
                self.put_back(changes)
            raise
        except HubError as error:
            _log.error("presence not told devices=%d reason=%s; trying again", len(changes), error)
            self.put_back(changes)
        except Exception:
            self.put_back(changes)
            raise

    def _write(self, changes: Sequence[Change], *, now_ns: int | None = None, notes: Sequence[Note] = ()) -> None:
        """Write entries, and who is online now; ``now_ns``: their time, when it is not that of the change."""
        order = sorted(changes, key=lambda change: change.since_ns) if now_ns is None else changes
        events = [
            Event(change.namespace, change.since_ns if now_ns is None else now_ns + place, change.text)
            for place, change in enumerate(order)
        ]
        online = [Note(c.namespace, c.device, c.since_ns if c.is_online else None) for c in order]
        self._log.write(PRESENCE, events, [*online, *notes])

    def _end(self, changes: Sequence[Change]) -> None:
        try:
            self._write(changes, notes=[Note(*_ENDED, self._clock())])
        except HubError as error:
            _log.error("presence not told devices=%d reason=%s", len(changes), error)


def _change_of(key: tuple[str, str], seen: _Device) -> Change:
    is_news = seen.is_online is not seen.is_told
    return Change(*key, seen.is_online, seen.since_ns, seen.why, seen.changes, is_news)


def _refill(seen: _Device, now_s: float) -> None:
    seen.tells = min(seen.tells + (now_s - seen.filled_s) / TELL_EVERY_S, BURST)
    seen.filled_s = now_s
