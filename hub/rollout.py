"""Bringing desired states to devices, and taking in what they report.

Owns: which devices are to be told, what they said and is not on disk yet, the task that does both. Place: after
`desired` and `downlink`; `hub.app` runs it.

Theory of operation. Who entered, whose desired state changed, and what devices reported is noted on the event loop,
the newest of each device. One task takes a batch of notes to a thread: there reports are written in one transaction,
and read is what the devices of the batch have not taken in; back on the loop that is sent. So a state is durable
before it is sent, a herd costs a few transactions, and nobody waits for the disk. A state goes to a connection
once; a device that reports version 0 asks for it again.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from device_sdk.wire import Desired, Reply, Reported, Schema
from hub.desired import Key, States, StatesError, Twin
from hub.downlink import Downlink

_log = logging.getLogger("hub.rollout")

# Devices of one trip to the disk: at the largest states 16 MiB, with usual ones some milliseconds.
BATCH = 500
RETRY_S = 1.0


class Drift(StrEnum):
    """How a device stands to its desired state."""

    IN_SYNC = "in_sync"  # taken in, and reported as wanted
    PENDING = "pending"  # on its way: connected, and not taken in yet
    DRIFTED = "drifted"  # taken in, and reported otherwise
    OFFLINE = "offline"  # not connected, and not in sync: it gets the state when it comes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one trip to the disk is about."""

    due: dict[Key, None]
    reports: dict[Key, Reported]


class Rollout:
    """What is to be told and what was heard. Belongs to the event loop; a `Listener` of the downlink."""

    def __init__(self, states: States, downlink: Downlink) -> None:
        self.states = states
        self._downlink = downlink
        # Devices that are, or were, connected: one entry each.
        self._due: dict[Key, None] = {}
        self._reports: dict[Key, Reported] = {}
        # The mark of what went to the device's present connection.
        self._sent: dict[Key, str] = {}
        self._is_wanted = asyncio.Event()

    def entered(self, namespace: str, device: str) -> None:
        """Tell the device what it has not taken in."""
        self._sent.pop((namespace, device), None)
        self._note(namespace, device)

    def heard(self, namespace: str, device: str, message: Reply | Reported | Schema) -> None:
        """Take in what a device reports."""
        if isinstance(message, Reported):
            if not message.version:
                self._sent.pop((namespace, device), None)
            self._reports[namespace, device] = message
            self._is_wanted.set()

    def changed(self, namespace: str, devices: Iterable[str]) -> None:
        """Tell the devices whose desired state was changed, as far as they are connected."""
        for device in devices:
            if self._downlink.can_reach(namespace, device):
                self._note(namespace, device)

    def drift(self, namespace: str, twin: Twin) -> Drift:
        """Say how a device stands to its desired state."""
        if not twin.is_taken:
            return Drift.PENDING if self._downlink.can_reach(namespace, twin.device) else Drift.OFFLINE
        if not twin.differing():
            return Drift.IN_SYNC
        return Drift.DRIFTED if self._downlink.can_reach(namespace, twin.device) else Drift.OFFLINE

    async def run(self) -> None:
        """Carry notes to the disk and states to devices, until cancelled; what is noted then is lost, and said again
        by devices when they connect."""
        level = logging.WARNING
        while True:
            await self._is_wanted.wait()
            batch = self.take()
            try:
                found = await asyncio.to_thread(self.work, batch)
            except StatesError as error:
                _log.log(level, "states not written reason=%s; trying again", error)
                level = logging.DEBUG
                self.give_back(batch)
                await asyncio.sleep(RETRY_S)
                continue
            level = logging.WARNING
            self.finish(found)

    # --- one turn, in three steps -------------------------------------------------------------------------

    def take(self) -> Batch:
        """On the loop: take the oldest notes out."""
        due = {key: self._due.pop(key) for key in list(self._due)[:BATCH]}
        reports = {key: self._reports.pop(key) for key in list(self._reports)[:BATCH]}
        if not self._due and not self._reports:
            self._is_wanted.clear()
        return Batch(due, reports)

    def work(self, batch: Batch) -> dict[Key, Desired]:
        """In a thread: write the reports, return what the devices have not taken in. Raises `StatesError`."""
        if batch.reports:
            self.states.take_reports(batch.reports)
        return self.states.not_taken(batch.due | dict.fromkeys(batch.reports))

    def finish(self, found: dict[Key, Desired]) -> None:
        """On the loop: send."""
        for key, desired in found.items():
            if self._sent.get(key) != desired.mark:
                if self._downlink.send(*key, desired):
                    self._sent[key] = desired.mark
                else:
                    self._sent.pop(key, None)

    def give_back(self, batch: Batch) -> None:
        """On the loop: note again what could not be written; what was heard meanwhile is newer."""
        self._due = batch.due | self._due
        self._reports = batch.reports | self._reports
        self._is_wanted.set()

    def _note(self, namespace: str, device: str) -> None:
        self._due[namespace, device] = None
        self._is_wanted.set()
