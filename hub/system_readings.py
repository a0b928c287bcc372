"""The channels of ``$sys``: which there are, who writes each, and the feeds that bring them to the journal.

Owns: the tellers and the feeds, and their life. Place: above `system_feed`, `presence`, `losses` and `alerts`, below
`app`. Must not: be on the way of readings.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

from device_sdk.reading import Channel, ValueType
from hub.alerts import ALERTS, AlertTeller
from hub.change_log import ChangeLog, Entry
from hub.downlink import Downlink
from hub.errors import HubError, UnavailableError
from hub.event_log import EventLog, EventSource
from hub.journal.sqlite import SqliteJournal
from hub.losses import GAPS, LossTeller
from hub.model import Series
from hub.presence import PRESENCE, PresenceTeller
from hub.system_feed import AUDIT, Source, SystemFeed

_log = logging.getLogger("hub.system_readings")

# What the hub notices of devices, beside the log of changes.
CHANNELS = (
    Channel(PRESENCE, type=ValueType.STR, label="devices that came and went"),
    Channel(GAPS, type=ValueType.STR, label="declared losses"),
    Channel(ALERTS, type=ValueType.STR, label="values beyond their limits"),
)
CUT_EVERY_S = 600.0
BEGIN_AGAIN_S = 5.0


class SystemReadings:
    """All of ``$sys``. Use on the event loop; blocks while it begins. From then on there may be a thread: `close` it.

    Args:
        feed: makes the feed of a source to a channel.
        change_log: source of the channel ``audit``.
        events: source of the others.
        journal: whose ledger is told, and over whose frames alerts are decided.
        downlink: tells who comes and goes, from now on.
        series: those known so far.
        again_s: after what time presence begins again, where the file took nothing.
    """

    def __init__(
        self,
        feed: Callable[[Source, Channel], SystemFeed],
        change_log: ChangeLog,
        events: EventLog,
        journal: SqliteJournal,
        downlink: Downlink,
        series: Iterable[Series],
        *,
        again_s: float = BEGIN_AGAIN_S,
    ) -> None:
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        audit = feed(change_log, AUDIT)

        def entry_written(_: Entry) -> None:
            call_soon(audit.wake)

        change_log.listen(entry_written)
        self._feeds = [audit]
        for channel in CHANNELS:
            told = feed(EventSource(events, channel.name), channel)
            events.listen(channel.name, partial(call_soon, told.wake))
            self._feeds.append(told)
        self._events = events
        self._again_s = again_s
        self._presence = PresenceTeller(events)
        self._losses = LossTeller(events, journal)
        self._alerts = AlertTeller(events, journal)
        # Where commits and changes of series are told to; costs nothing while nobody set a limit.
        self.committed, self.describe = self._alerts.committed, self._alerts.describe
        received = journal.received()
        seen_ns = 0 if received is None else min(received[1], time.time_ns())
        self._left = _left_of(partial(self._presence.begin, seen_ns))
        self._losses.begin()
        self._alerts.begin(series)
        downlink.follow(self._presence)

    async def run(self) -> None:
        """Tell what there is, for as long as the hub lives."""
        try:
            async with asyncio.TaskGroup() as group:
                for feed in self._feeds:
                    group.create_task(feed.run(), name="hub system feed")
                group.create_task(self._tell_presence(), name="hub presence")
                group.create_task(self._losses.run(), name="hub losses")
                group.create_task(self._cut(), name="hub events")
        finally:
            await asyncio.to_thread(self._alerts.stop)

    def close(self) -> None:
        """End the thread of alerts, also when `run` was never called; blocks, safe to call twice."""
        self._alerts.stop()

    async def _tell_presence(self) -> None:
        while self._left is not None:
            await asyncio.sleep(self._again_s)
            self._left = await asyncio.to_thread(_left_of, self._left)
        await self._presence.run()

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(CUT_EVERY_S)
            try:
                await asyncio.to_thread(self._events.cut)
            except HubError as error:
                _log.error("events not cut reason=%s; trying again", error)


def _left_of(begin: Callable[[], None]) -> Callable[[], None] | None:
    """Begin; return what is to be called again where the file takes nothing: it must not keep a hub from starting."""
    try:
        begin()
    except UnavailableError as error:
        _log.error("presence waits reason=%s; trying again", error)
        return begin
    return None
