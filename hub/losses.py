"""Declared losses as entries of ``$sys/gaps``: what devices lost and said so, what the hub refused and why.

Owns: up to where the journal's ledger was told. Place: above `event_log` and `journal`; runs in a thread of its own
looks. Must not: look at readings, or do anything when nothing is lost: what it reads are the ledger's tables, and only
after a commit that wrote into them.

Two tables, two positions, both notes beside the entries that move them, in one transaction: so each loss is told once,
wherever the hub is killed. A declared gap is a row with an offset: told are those up to one offset. Refused readings
are sums by device, channel and reason: told is how much of each sum, and an entry says by how much it grew. So those
may wait `REFUSED_EVERY_S` for more, and a device that sends nothing else is some entries then, not one a reading.

A journal that was restored from a backup is behind both: positions go back to it, and what it gets again is told again.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hub.errors import HubError
from hub.event_log import Event, EventLog, Note
from hub.journal.base import GapEntry, RejectionEntry
from hub.system_entry import as_value

_log = logging.getLogger("hub.losses")

GAPS = "gaps"
LOOK_EVERY_S = 0.5
REFUSED_EVERY_S = 10.0
# Rows of one look; more than `EACH` in it are told together by device, stream and reason.
PER_LOOK, EACH = 5000, 500
# Devices with refused readings of one transaction, and reasons of one device that are told channel by channel.
DEVICES_PER_WRITE, CHANNELS_EACH = 100, 20
_RETRY_S = 5.0
_OFFSET = Note("", "offset", 0)


class Ledger(Protocol):
    """What of a journal is asked (`SqliteJournal` is one); in any thread."""

    @property
    def head(self) -> int: ...
    @property
    def declared(self) -> int:
        """How often a commit wrote something declared lost or refused since the start."""

    def gaps_behind(self, offset: int, limit: int) -> list[tuple[int, GapEntry]]:
        """Return declared losses behind an offset with theirs, of all namespaces."""

    def refusing(self) -> set[tuple[str, str]]:
        """Return (namespace, device) of which readings are counted as refused."""

    def take_refused(self) -> set[tuple[str, str]]:
        """Return and forget of which devices readings were refused since the last call."""

    def rejections(self, namespace: str, device: str | None = None) -> list[RejectionEntry]:
        """Return sums of refused readings."""


class LossTeller:
    """Tells of losses. `run` belongs to the event loop; all else blocks, and belongs to one thread at a time.

    Args:
        log: takes entries and notes.
        journal: whose ledger it reads.
        ticks: monotonic seconds.
    """

    def __init__(self, log: EventLog, journal: Ledger, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._journal = journal
        self._ticks = ticks
        self._seen = -1
        self._offset = 0
        # Devices with sums to compare; at first all, since nobody knows what the last run did not come to tell.
        self._refused: set[tuple[str, str]] = set()
        self._compared_s = -REFUSED_EVERY_S

    def begin(self) -> None:
        """Read where the last run was, and go back with a journal that was restored; before any device comes."""
        told = self._log.notes(GAPS)
        offset = told.pop(_OFFSET[:2], 0)
        self._offset = min(offset, self._journal.head)
        ahead = [] if self._offset == offset else [_OFFSET._replace(value=self._offset)]
        held: dict[tuple[str, str], dict[str, int]] = {}
        for (namespace, name), count in told.items():
            held.setdefault((namespace, json.loads(name)[0]), {})[name] = count
        for (namespace, device), counts in held.items():
            sums = {_name(entry): entry.count for entry in self._journal.rejections(namespace, device)}
            ahead += [Note(namespace, name, sums.get(name)) for name, n in counts.items() if n > sums.get(name, 0)]
        if ahead:
            _log.warning("journal set back head=%d: what it gets again of losses is told again", self._journal.head)
            self._log.write(GAPS, (), ahead)
        self._refused = self._journal.refusing()

    async def run(self) -> None:
        """Tell what is declared, for as long as the hub lives."""
        level = logging.WARNING
        while True:
            pause_s = LOOK_EVERY_S
            try:
                if self.is_due():
                    await asyncio.to_thread(self.tell)
                level = logging.WARNING
            except HubError as error:
                _log.log(level, "losses not told reason=%s; trying again", error)
                level, pause_s = logging.DEBUG, _RETRY_S
            except Exception:  # the outer edge of this task: later losses must be told, whatever one brought
                _log.exception("losses failed; trying again")
                pause_s = _RETRY_S
            await asyncio.sleep(pause_s)

    def is_due(self) -> bool:
        """Say whether there may be something to tell; costs nothing."""
        is_compared = self._ticks() - self._compared_s < REFUSED_EVERY_S
        return self._journal.declared != self._seen or (bool(self._refused) and not is_compared)

    def tell(self) -> None:
        """Write entries of what was declared and refused since the last call; raises as `EventLog.write`."""
        # Before the tables: what comes meanwhile makes it due again.
        seen = self._journal.declared
        if self._tell_gaps():
            self._seen = seen
        self._refused |= self._journal.take_refused()
        if self._ticks() - self._compared_s >= REFUSED_EVERY_S:
            self._tell_refused()
            self._compared_s = self._ticks()

    def _tell_gaps(self) -> bool:
        """Tell one page of gaps; return whether that was all."""
        found = self._journal.gaps_behind(self._offset, PER_LOOK)
        if not found:
            return True
        gaps = [gap for _, gap in found]
        events = [_gap_event([gap]) for gap in gaps] if len(gaps) <= EACH else _merged(gaps)
        last = found[-1][0]
        self._log.write(GAPS, events, [_OFFSET._replace(value=last)])
        self._offset = last
        return len(found) < PER_LOOK

    def _tell_refused(self) -> None:
        """Tell by how much the sums of all devices that have some to compare grew."""
        while self._refused:
            devices = sorted(self._refused)[:DEVICES_PER_WRITE]
            events, notes = list[Event](), list[Note]()
            for namespace, device in devices:
                grown = []
                for entry in self._journal.rejections(namespace, device):
                    told = self._log.note(GAPS, namespace, _name(entry))
                    if entry.count > told:
                        notes.append(Note(namespace, _name(entry), entry.count))
                        grown.append((entry, entry.count - told))
                events += _refused_events(grown)
            if notes:
                self._log.write(GAPS, events, notes)
            self._refused.difference_update(devices)


def _name(entry: RejectionEntry) -> str:
    """Return what a sum is called among the notes; begins with the device."""
    return json.dumps([entry.device, entry.channel, entry.reason], ensure_ascii=False)


def _gap_event(gaps: Sequence[GapEntry]) -> Event:
    """Return the entry of gaps of one device, stream and reason."""
    channels = {channel for gap in gaps for channel in gap.ranges}
    times = [at for gap in gaps for ends in gap.ranges.values() for at in ends]
    counts = [gap.count for gap in gaps if gap.count is not None]
    key = gaps[-1].key
    text = as_value({
        "device": key.device, "stream": key.stream, "channel": channels.pop() if len(channels) == 1 else "",
        "count": sum(counts) if len(counts) == len(gaps) else None, "reason": gaps[-1].reason,
        "first_ns": str(min(times)) if times else None, "last_ns": str(max(times)) if times else None,
        "gaps": len(gaps),
    })  # fmt: skip
    return Event(key.namespace, gaps[-1].received_ns, text)


def _merged(gaps: Iterable[GapEntry]) -> list[Event]:
    """Return one entry for each device, stream, reason and whether the count is known, in the order of their last."""
    groups: dict[tuple[object, ...], list[GapEntry]] = {}
    for gap in gaps:
        groups.setdefault((gap.key, gap.reason, gap.count is None), []).append(gap)
    return sorted((_gap_event(group) for group in groups.values()), key=lambda event: event.time_ns)


def _refused_events(grown: Sequence[tuple[RejectionEntry, int]]) -> list[Event]:
    """Return the entries of one device: each channel for itself, or by reason where they are many."""
    if len(grown) > CHANNELS_EACH:
        sums, last_ns = Counter[str](), max(entry.last_ns for entry, _ in grown)
        for entry, count in grown:
            sums[entry.reason] += count
        if len(sums) > CHANNELS_EACH:
            sums = Counter({"many": sum(sums.values())})
        first = grown[0][0]
        rows = [(first.namespace, first.device, "", reason, count, last_ns) for reason, count in sums.items()]
    else:
        rows = [(e.namespace, e.device, e.channel, e.reason, count, e.last_ns) for e, count in grown]
    return [
        Event(namespace, last_ns, as_value({
            "device": device, "stream": "", "channel": channel, "count": count, "reason": reason, "first_ns": None,
            "last_ns": None, "gaps": 0,
        }))
        for namespace, device, channel, reason, count, last_ns in rows
    ]  # fmt: skip
