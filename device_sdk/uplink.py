"""One connection for the devices behind a gateway: each has a connection of its own on it, as far as it can see.

Owns: the shared connection, the number of each device on it, when to try again. Place: between `transport` and the
couriers of the devices; each courier gets one of `Uplink.connector`. Must not: know what a message means, but for
``bye``, which ends one device's connection and not all.

All of it lives on one loop. A device that connects waits for the shared connection; when that cannot be made, or is
lost, every device is told, and waits as long as it would alone. How often the network is tried is decided here: two
hundred devices that each try again would be a storm from one address.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from device_sdk.clock import Clock
from device_sdk.envelope import MAX_NUMBER, unwrap, wrap
from device_sdk.errors import ConnectionLostError, ProtocolError
from device_sdk.transport import LINK_ERRORS, Connection, Connector, LinkError, Receiver, RetryPolicy
from device_sdk.wire import Bye, decode_hub_message, encode

logger = logging.getLogger("device_sdk.gateway")

_BYE = b'{"op":"bye"'
_GOODBYE = encode(Bye())


class Uplink:
    """The gateway's connection to its hub.

    Args:
        connector: makes the real connections.
        clock: for intervals.
    """

    def __init__(self, connector: Connector, clock: Clock) -> None:
        self._connector = connector
        self._clock = clock
        self._retry = RetryPolicy(random.random)
        self._not_before = 0.0
        self._is_greeted = False
        self._opening: asyncio.Task[Connection] | None = None
        self._connection: Connection | None = None
        # Why the last one ended; a hub may close a connection before a device has begun to use it.
        self._lost: LinkError = _closed()
        self._is_closed = False
        self._lines: dict[int, ChildConnection] = {}
        self._last = 0
        self._interval_s = 0.0

    @property
    def is_writable(self) -> bool:
        """False while the network has not taken what was sent."""
        return self._connection is not None and self._connection.is_writable

    async def connect(self, receiver: Receiver) -> ChildConnection:
        """Return a device's connection; see `transport.Connector`, which this is for each device."""
        connection = self._connection
        if connection is None:
            if self._is_closed:
                raise _closed()
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open(), name="telemetry-gateway")
                self._opening.add_done_callback(_seen)
            # Shielded: it is opened for all, also when this one is cancelled.
            connection = await asyncio.shield(self._opening)
            if connection is not self._connection:
                raise self._lost
        number = self._free_number()
        line = self._lines[number] = ChildConnection(self, connection, number, receiver)
        return line

    async def close(self) -> None:
        """Close politely and for good; the devices are closed before."""
        opening, connection = self._opening, self._connection
        self._is_closed = True
        if opening is not None:
            opening.cancel()
            await asyncio.wait((opening,))
        # A device that outlives its gateway is told, or it would believe that it is heard.
        self.closed(_closed())
        if connection is not None:
            connection.close()
            await connection.wait_closed()

    # --- what a device's connection asks for ---------------------------------------------------

    def leave(self, line: ChildConnection) -> None:
        """Free the number of a device's connection that ended."""
        if self._lines.get(line.number) is line:
            del self._lines[line.number]

    def probe(self) -> None:
        """Probe the line as often as the device wants that wants it most."""
        wanted = [line.interval_s for line in self._lines.values() if line.interval_s]
        if self._connection is not None and wanted and min(wanted) != self._interval_s:
            self._interval_s = min(wanted)
            self._connection.keep_alive(self._interval_s)

    # --- Receiver of the real connection --------------------------------------------------------

    def message(self, data: bytes) -> None:
        """Hand a message to its device; what has no number is for all."""
        if not self._is_greeted:
            self._is_greeted = True
            self._retry.connected(self._clock.monotonic_s())
        if data.startswith(_BYE):
            for line in list(self._lines.values()):
                line.receiver.message(data)
            return
        try:
            number, message = unwrap(data)
        except ProtocolError as error:
            self._drop(f"the hub does not speak to gateways: {error}")
            return
        if number in self._lines:
            self._lines[number].take(message)

    def writable(self) -> None:
        """Let every device go on."""
        for line in list(self._lines.values()):
            line.receiver.writable()

    def closed(self, error: LinkError) -> None:
        """Tell every device that the connection is gone."""
        lines, self._lines = self._lines, {}
        self._connection, self._lost = None, error
        self._failed(error)
        for line in lines.values():
            line.end(error)

    # --- details ---------------------------------------------------------------------------------

    async def _open(self) -> Connection:
        try:
            pause_s = self._not_before - self._clock.monotonic_s()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            connection = await self._connector.connect(self)
        except LINK_ERRORS as error:
            self._failed(error)
            raise
        finally:
            self._opening = None
        self._is_greeted, self._interval_s = False, 0.0
        self._connection = connection
        return connection

    def _failed(self, error: LinkError) -> None:
        now = self._clock.monotonic_s()
        self._not_before = now + self._retry.pause_s(error, now)

    def _drop(self, why: str) -> None:
        connection = self._connection
        if connection is not None:
            connection.close()
            self.closed(ConnectionLostError(why))

    def _free_number(self) -> int:
        # Not used again soon: what the hub still says to the one before must not be heard by the next.
        while True:
            self._last = self._last % MAX_NUMBER + 1
            if self._last not in self._lines:
                return self._last


class ChildConnection:
    """One device's connection on its gateway's; used once: made by `Uplink.connect`."""

    def __init__(self, uplink: Uplink, shared: Connection, number: int, receiver: Receiver) -> None:
        self.number = number
        self.receiver = receiver
        self.interval_s = 0.0
        self._uplink = uplink
        self._shared = shared
        self._has_said_bye = False
        self._is_over = False

    @property
    def is_writable(self) -> bool:
        """False while the shared connection takes no more."""
        return not self._is_over and self._shared.is_writable

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in order, each in its envelope."""
        if not self._is_over:
            self._has_said_bye = bool(messages) and messages[-1] == _GOODBYE
            self._shared.send([wrap(self.number, message) for message in messages])

    def keep_alive(self, interval_s: float) -> None:
        """Have the shared line probed at least as often."""
        self.interval_s = interval_s
        self._uplink.probe()

    def close(self) -> None:
        """Say bye for this device alone; the receiver hears no more."""
        if not self._is_over:
            if not self._has_said_bye:
                self.send([_GOODBYE])
            self._is_over = True
            self._uplink.leave(self)

    async def wait_closed(self) -> None:
        """Return: what was said is on the shared connection, which goes on."""

    def take(self, message: bytes) -> None:
        """Take a message of the hub; ``bye`` ends this device's connection."""
        if not message.startswith(_BYE):
            self.receiver.message(message)
            return
        try:
            bye = decode_hub_message(message)
        except ProtocolError as error:
            self.end(ConnectionLostError(str(error)))
            return
        assert isinstance(bye, Bye), "that is how it begins"
        why = ": ".join(filter(None, ("the hub said bye", bye.reason, bye.message)))
        self.end(ConnectionLostError(why, code=bye.code, retry_ms=bye.retry_ms))

    def end(self, error: LinkError) -> None:
        """Tell the device, once."""
        if not self._is_over:
            self._is_over = True
            self._uplink.leave(self)
            self.receiver.closed(error)


def _closed() -> ConnectionLostError:
    return ConnectionLostError("the gateway is closed: close its devices before it, or open a new one")


def _seen(opening: asyncio.Task[Connection]) -> None:
    """Mark a failure as seen: whoever waited for it may have been cancelled."""
    if not opening.cancelled():
        opening.exception()
