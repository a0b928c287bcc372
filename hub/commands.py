"""Commands to devices: durable before they are sent, sent again at each connection, answered or ended.

Owns: the order of the steps around the file and the book. Place: after `downlink`, which says who is connected and what
devices answer; REST asks here. Lives on the event loop; the file is written in a thread, one transaction per request
and one per batch of answers.

Order of steps: plan → commit → send. Outcomes: book → commit → tell who waits. A queued command is sent once it is
durable that it was sent, on a connection that has declared it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from device_sdk.wire import MAX_CONTROL_BYTES, Reply, Reported, Schema
from hub.command import MAX_DEVICES, Key, Order, Outcome, Result, State, Told
from hub.command_arguments import refusal
from hub.command_book import CommandBook
from hub.command_file import CommandFile, CommandFileError, Summary
from hub.downlink import Downlink
from hub.errors import BadRequestError, ConflictError, HubError, NotFoundError

_log = logging.getLogger("hub.commands")

# Between two tries to write outcomes: a disk that is full may have room again.
RETRY_S = 1.0
# What one transaction takes: some 100 ms, while more gathers.
MAX_BATCH = 5000
# Answers that nobody waits for, in one batch: late ones of a whole fleet; a flood beyond is dropped.
MAX_LATE = 10_000
# Of their values and errors: as much as 500 of the largest; one of each device of a fleet says far less.
MAX_LATE_BYTES = 16 * 1024 * 1024
# Devices that declared commands; some 200 bytes each in RAM.
MAX_DECLARED = 50_000
# Messages between two turns of the loop: 200 take some 10 ms.
_BURST = 200
_TRIM_S = 60.0


class Commands:
    """All commands of a hub. `run` must run as a task; everything else on its loop.

    Args:
        path: the file.
        clock: wall time in ns.
        monotonic: ns that no one sets. A step of the wall clock ends nothing at once, and keeps nothing for ever: what
            is left of an order's time is read off the wall clock when it is given, or when the hub starts, and then
            runs down here.
    """

    def __init__(
        self,
        path: Path,
        downlink: Downlink,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._downlink = downlink
        self._clock, self._monotonic = clock, monotonic
        self._file = CommandFile(path)
        self._book = CommandBook()
        for told in self._file.waiting():
            self._book.add(told.order, [(r.device, r.state) for r in told.results], self._ends_at(told.order))
        self._declared = {place: hash(text) for place, text in self._file.declared().items()}
        self._outcomes: list[Outcome] = []
        self._declarations: dict[Key, str] = {}
        # Late answers among the outcomes that are not written yet, and their size.
        self._late = self._late_bytes = 0
        self._waiters: dict[Key, asyncio.Event] = {}
        self._planning = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._is_ended = False
        downlink.listen(self)

    # --- asking -------------------------------------------------------------------------------------------

    async def give(self, order: Order, devices: Sequence[str]) -> bool:
        """Take an order and send it; False when it was given before, with the same id.

        Raises:
            BadRequestError: too many devices, too large.
            ConflictError: another order has this id.
            CommandFileError: it cannot be made durable; nothing was sent. After a disk failure nobody can know
                whether it is on the disk all the same, to be taken up when the hub starts anew: the error says the
                id with which to give it again.
        """
        if len(devices) > MAX_DEVICES:
            raise BadRequestError(f"{len(devices)} devices; the limit is {MAX_DEVICES}: choose fewer at a time")
        if order.size > MAX_CONTROL_BYTES:
            raise BadRequestError(f"the arguments take {order.size} bytes as JSON; the limit is {MAX_CONTROL_BYTES}")
        async with self._planning:
            ends_at = self._ends_at(order)
            held = await asyncio.to_thread(self._file.find, order.namespace, order.id)
            if held is not None:
                _check_same(held.order, order)
                return False
            declared = await self.declared_by(order.namespace, devices)
            results = [self._plan(order, device, declared) for device in devices]
            try:
                await asyncio.to_thread(self._file.add, order, results)
            except CommandFileError as error:
                raise CommandFileError(
                    f"{error}, with the id {order.id!r}: if it was taken all the same, that sends it once"
                ) from error
            waiting = [(r.device, r.state) for r in results if r.state in (State.QUEUED, State.SENT)]
            self._book.add(order, waiting, ends_at)
        self._wake.set()
        for at, (device, state) in enumerate(waiting, 1):
            if state is State.QUEUED:
                # It may have connected, and declared it, during the commit.
                if self._is_taken(order, device):
                    self._took(self._book.send(order.key, device, self._clock()))
            else:
                self._send(order, device)
            if at % _BURST == 0:
                await asyncio.sleep(0)
        return True

    async def ended(self, key: Key, timeout_s: float) -> None:
        """Wait until an order has ended at every device, or the time is over. May be cancelled."""
        end = asyncio.get_running_loop().time() + timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while self._book.is_open(key) and not self._is_ended:
                    await self._waiters.setdefault(key, asyncio.Event()).wait()
        await self._write()

    async def find(self, namespace: str, id: str) -> Told:
        """Return an order with its results; raise `NotFoundError`."""
        told = await asyncio.to_thread(self._file.find, namespace, id)
        if told is None:
            raise NotFoundError(f"no command {id[:64]!r}; it may be older than a week: hub commands ls")
        return told

    async def newest(
        self, namespace: str, limit: int, below: int | None, is_seen: Callable[[str], bool]
    ) -> list[Summary]:
        """Return orders, newest first; see `CommandFile.newest`."""
        return await asyncio.to_thread(self._file.newest, namespace, limit, below, is_seen)

    async def of_device(self, namespace: str, device: str, limit: int) -> list[tuple[Order, Result]]:
        """Return the newest orders to a device, and what became of them there."""
        return await asyncio.to_thread(self._file.of_device, namespace, device, limit)

    async def declared_by(self, namespace: str, devices: Sequence[str]) -> Mapping[Key, str]:
        """Return what these devices declared up to now, as JSON text; a device that declared nothing is not in it."""
        await self._write()
        return await asyncio.to_thread(self._file.declared_by, namespace, devices)

    async def cancel(self, key: Key, devices: Sequence[str]) -> None:
        """End an order at those devices that have not answered; durable when this returns."""
        self._took(self._book.cancel(key, devices, self._clock()))
        await self._write()

    async def erase(self, namespace: str, device: str) -> int:
        """Cancel what waits for a device and forget all that was ordered of it; return how many orders."""
        for key in self._book.waiting_for(namespace, device):
            self._took(self._book.cancel(key, [device], self._clock()))
        self._declarations.pop((namespace, device), None)
        self._declared.pop((namespace, device), None)
        await self._write()
        return await asyncio.to_thread(self._file.erase, namespace, device)

    # --- devices ------------------------------------------------------------------------------------------

    def entered(self, namespace: str, device: str) -> None:
        """A device connected; what waits for it is sent when it has declared it (`heard`)."""
        self._book.entered(namespace, device)

    def heard(self, namespace: str, device: str, message: Reply | Reported | Schema) -> None:
        """Take a device's answers and what it declares."""
        if isinstance(message, Reply):
            outcome, was_open = self._book.heard(namespace, device, message, self._clock())
            if was_open or self._has_room_for(outcome):
                self._took([outcome])
        elif isinstance(message, Schema) and message.commands is not None:
            self._declare((namespace, device), orjson.dumps(message.commands).decode())
            self._end_what_is_over()
            again, first = self._book.declared(namespace, device, message.commands, self._clock())
            for order in again:
                self._send(order, device)
            self._took(first)

    # --- the task -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write outcomes, end what is over, forget what is old; until cancelled."""
        trimmed = 0.0
        while True:
            self._wake.clear()
            try:
                self._end_what_is_over()
                await self._write()
                if time.monotonic() - trimmed > _TRIM_S:
                    is_more = await asyncio.to_thread(self._file.trim, self._clock())
                    trimmed = trimmed if is_more else time.monotonic()
            except HubError as error:
                _log.error("command outcomes not written reason=%s; trying again", error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()

    async def stop(self) -> None:
        """Let who waits go, and write what is known."""
        self._is_ended = True
        for event in self._waiters.values():
            event.set()
        with suppress(HubError):
            await self._write()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- inside -------------------------------------------------------------------------------------------

    def _plan(self, order: Order, device: str, declared: Mapping[Key, str]) -> Result:
        place = (order.namespace, device)
        why = refusal(declared.get(place, ""), order.name, order.args)
        why = why or self._book.refusal(order.namespace, device, order.size)
        is_reached = self._downlink.can_reach(order.namespace, device)
        if not why and not is_reached and not order.is_queued:
            why = "offline; queue the command to have it sent when the device connects"
        if why:
            return Result(device, State.REFUSED, None, why, None, order.made_ns)
        # Connected and not declared on this connection yet: it waits for that, as for a device that is away.
        is_taken = self._is_taken(order, device)
        return Result(device, State.SENT, sent_ns=order.made_ns) if is_taken else Result(device, State.QUEUED)

    def _is_taken(self, order: Order, device: str) -> bool:
        is_reached = self._downlink.can_reach(order.namespace, device)
        return is_reached and self._book.takes(order.namespace, device, order.name)

    def _send(self, order: Order, device: str) -> None:
        if self._book.find(order.key, device) is not None:
            self._downlink.send(order.namespace, device, order.message())

    def _declare(self, place: Key, text: str) -> None:
        if self._declared.get(place) == hash(text):
            return
        if place not in self._declared and len(self._declared) >= MAX_DECLARED:
            _log.error("commands of device=%s not kept: %d devices declared some already", place[1], MAX_DECLARED)
            return
        self._declared[place] = hash(text)
        self._declarations[place] = text
        self._wake.set()

    def _ends_at(self, order: Order) -> int:
        return self._monotonic() + order.expires_ns - self._clock()

    def _end_what_is_over(self) -> None:
        self._took(self._book.tick(self._monotonic(), self._clock()))

    def _has_room_for(self, late: Outcome) -> bool:
        """Count an answer that nobody waits for, if there is room until the next writing."""
        size = len(late.value or "") + len(late.error)
        if self._late >= MAX_LATE or self._late_bytes + size > MAX_LATE_BYTES:
            return False
        self._late += 1
        self._late_bytes += size
        return True

    def _took(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._outcomes += outcomes
            self._wake.set()

    async def _write(self) -> None:
        """Make what is known now durable, then act on it."""
        async with self._writing:
            # Not what comes meanwhile: on a slow disk a device that never stops would hold up all who wait here.
            left, is_declared = len(self._outcomes), bool(self._declarations)
            while left or is_declared:
                batch, declared = self._outcomes[: min(left, MAX_BATCH)], self._declarations
                self._declarations, is_declared = {}, False
                try:
                    await asyncio.to_thread(self._file.record, batch, declared)
                except BaseException:
                    # Again with the next try; what came meanwhile is newer.
                    self._declarations = {**declared, **self._declarations}
                    raise
                del self._outcomes[: len(batch)]
                left -= len(batch)
                if not self._outcomes:
                    self._late = self._late_bytes = 0
                self._act(batch)

    def _act(self, batch: Sequence[Outcome]) -> None:
        for outcome in batch:
            if outcome.state is State.SENT:
                order = self._book.find(outcome.key, outcome.device)
                if order is not None:
                    self._downlink.send(order.namespace, outcome.device, order.message())
        for key in {outcome.key for outcome in batch}:
            if key in self._waiters and not self._book.is_open(key):
                self._waiters.pop(key).set()

    def _pause_s(self) -> float:
        deadline = self._book.next_deadline()
        if deadline is None:
            return _TRIM_S
        return min(_TRIM_S, max(0.0, (deadline - self._monotonic()) / 1e9))


def _check_same(held: Order, order: Order) -> None:
    if (held.name, held.args, held.selector) != (order.name, order.args, order.selector):
        raise ConflictError(f"the id {order.id!r} is that of another command; leave the id out, or choose a new one")
