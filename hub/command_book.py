"""Which commands wait for which devices: sent again at each connection, until answered, expired or cancelled.

Owns: the unanswered commands, by device and by deadline. Place: after `command`, inside `commands`, which makes every
outcome durable and does the sending. Pure: the time is passed in: wall time for what is
told, that of a clock nobody sets for deadlines.

Theory of operation. A command is here from its commit until its outcome at each device is known. Whatever connects is
given all that waits for it, with the same ids; the device knows the ids it has seen, so each takes effect once. A
queued one is marked as sent, durably, before it leaves: what may have taken effect is never called expired.

A connection is given what was declared on it, not what the device could do yesterday: a program that has just been
started connects before it has declared its last command, and would not know what had waited for it for days.
"""

import heapq
from collections.abc import Iterable

import orjson

from device_sdk.wire import EXPIRED_ERROR, Reply
from hub.command import (
    MAX_WAITING,
    MAX_WAITING_BYTES_EACH,
    MAX_WAITING_EACH,
    Key,
    Order,
    Outcome,
    State,
)


class CommandBook:
    """The unanswered commands. One caller at a time."""

    def __init__(self) -> None:
        self._orders: dict[Key, Order] = {}
        # order → its devices that have not answered; device → its orders, oldest first.
        self._open: dict[Key, dict[str, State]] = {}
        self._by_device: dict[Key, dict[Key, None]] = {}
        self._deadlines: list[tuple[int, Key]] = []
        self._count = 0
        # Device → what it has declared on its present connection.
        self._taken: dict[Key, frozenset[str]] = {}

    def __len__(self) -> int:
        return self._count

    def refusal(self, namespace: str, device: str, size: int) -> str:
        """Return why one more command of ``size`` bytes may not wait for the device; empty: it may."""
        waiting = self._by_device.get((namespace, device), {})
        if len(waiting) >= MAX_WAITING_EACH:
            return f"{len(waiting)} commands wait for it; the limit is {MAX_WAITING_EACH}: cancel some, or let them end"
        if sum(self._orders[key].size for key in waiting) + size > MAX_WAITING_BYTES_EACH:
            return f"commands of {MAX_WAITING_BYTES_EACH} bytes wait for it, which is the limit: let them end first"
        if self._count >= MAX_WAITING:
            return f"{self._count} commands wait in this hub; the limit is {MAX_WAITING}: cancel some, or let them end"
        return ""

    def add(self, order: Order, devices: Iterable[tuple[str, State]], ends_at: int) -> None:
        """Take a durable order until ``ends_at``, with those devices where it is queued or about to be sent."""
        states = dict(devices)
        if not states:
            return
        self._orders[order.key] = order
        self._open[order.key] = states
        self._count += len(states)
        for device in states:
            self._by_device.setdefault((order.namespace, device), {})[order.key] = None
        heapq.heappush(self._deadlines, (ends_at, order.key))

    def waiting_for(self, namespace: str, device: str) -> list[Key]:
        """Return the orders that a device has not answered, oldest first."""
        return list(self._by_device.get((namespace, device), ()))

    def is_open(self, key: Key) -> bool:
        """Say whether a device has not answered yet."""
        return key in self._open

    def find(self, key: Key, device: str) -> Order | None:
        """Return the order while it waits for the device's answer."""
        return self._orders[key] if device in self._open.get(key, ()) else None

    def entered(self, namespace: str, device: str) -> None:
        """A device connected: nothing is declared on this connection yet."""
        self._taken.pop((namespace, device), None)

    def takes(self, namespace: str, device: str, name: str) -> bool:
        """Say whether the device has declared the command on its present connection, or its last."""
        return name in self._taken.get((namespace, device), ())

    def declared(
        self, namespace: str, device: str, names: Iterable[str], now_ns: int
    ) -> tuple[list[Order], list[Outcome]]:
        """A device declared its commands: return what to send at once, and what once it is durable that it was sent.

        Of those names that are new on this connection: a program may declare one after the other. `tick` before, so
        that nothing is sent that is over.
        """
        place = (namespace, device)
        before, self._taken[place] = self._taken.get(place, frozenset()), frozenset(names)
        again: list[Order] = []
        first: list[Outcome] = []
        for key in self._by_device.get(place, {}):
            order = self._orders[key]
            if order.name in before or not self.takes(*place, order.name):
                continue
            if self._open[key][device] is State.SENT:
                again.append(order)
            else:
                first += self.send(key, device, now_ns)
        return again, first

    def send(self, key: Key, device: str, now_ns: int) -> list[Outcome]:
        """Mark what is queued as sent; return that, to be sent once it is durable."""
        if self._open.get(key, {}).get(device) is not State.QUEUED:
            return []
        self._open[key][device] = State.SENT
        return [Outcome(key, device, State.SENT, now_ns)]

    def heard(self, namespace: str, device: str, reply: Reply, now_ns: int) -> tuple[Outcome, bool]:
        """A device answered: return the outcome, and whether it was waited for (else it is late, or nobody asked)."""
        key = (namespace, reply.id)
        was_open = device in self._open.get(key, ())
        if was_open:
            self._close(key, device)
        if reply.ok:
            outcome = Outcome(key, device, State.DONE, now_ns, orjson.dumps(reply.value).decode())
        else:
            state = State.EXPIRED if reply.error == EXPIRED_ERROR else State.FAILED
            outcome = Outcome(key, device, state, now_ns, None, reply.error or "no reason was given")
        return outcome, was_open

    def cancel(self, key: Key, devices: Iterable[str], now_ns: int) -> list[Outcome]:
        """End an order at those devices that have not answered."""
        outcomes = []
        for device in devices:
            state = self._open.get(key, {}).get(device)
            if state is not None:
                error = "it was sent before: it may take effect" if state is State.SENT else ""
                outcomes.append(Outcome(key, device, State.CANCELLED, now_ns, None, error))
                self._close(key, device)
        return outcomes

    def tick(self, at: int, now_ns: int) -> list[Outcome]:
        """Return what ended because its time is over ``at`` the clock of deadlines."""
        outcomes = []
        while self._deadlines and self._deadlines[0][0] <= at:
            _, key = heapq.heappop(self._deadlines)
            for device, state in list(self._open.get(key, {}).items()):
                if state is State.SENT:
                    error = "no answer in time: it may or may not have taken effect"
                    outcomes.append(Outcome(key, device, State.TIMED_OUT, now_ns, None, error))
                else:
                    error = "the device did not connect in time, or did not declare the command again"
                    outcomes.append(Outcome(key, device, State.EXPIRED, now_ns, None, error))
                self._close(key, device)
        return outcomes

    def next_deadline(self) -> int | None:
        """Return when `tick` has something to say, on the clock of deadlines; None: never."""
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _close(self, key: Key, device: str) -> None:
        states = self._open[key]
        del states[device]
        self._count -= 1
        place = (key[0], device)
        del self._by_device[place][key]
        if not self._by_device[place]:
            del self._by_device[place]
        if not states:
            del self._open[key], self._orders[key]
