"""`Gateway`: a program that speaks for many devices on one connection.

Owns: the devices behind it, the loop they share under ``with``. Place: above `device` and `uplink`. Imported by those
who use it. Must not: differ from `Device` in anything a program sees of a device.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from device_sdk.background import open_devices, run_loop, stop
from device_sdk.clock import Clock
from device_sdk.device import CLOSE_TIMEOUT_S, MEMORY, Device
from device_sdk.errors import MisuseError
from device_sdk.reading import check_device_name
from device_sdk.transport import make_connector
from device_sdk.uplink import Uplink

logger = logging.getLogger("device_sdk.gateway")

# Beyond the drain: a disk that is slow to sync. Then the thread is left to die.
_JOIN_EXTRA_S = 5.0


class Gateway:
    """One connection to a hub, for as many devices as its token may speak for.

    Args:
        url: ``wss://host:port``.
        token: the gateway's token (``hub tokens add --role gateway``).
        spool: directory in which each device has a folder of its own, or ``":memory:"``. None: where a `Device` of that
            name would have it.
        ca, fingerprint, connect_to: as of `Device`.
        close_timeout_s: how long leaving the ``with`` block may wait for the last acks, of all devices together.
        clock: all clocks, for tests.

    Raises `MisuseError` when an argument is not valid. A device that is new waits until somebody at the hub accepts it,
    and asks again by itself: what it records meanwhile is in its spool, and ``status.last_error`` says so.

    Example:
        >>> with Gateway("wss://hub.local:8000", token=token, spool="/var/lib/barn") as gateway:
        ...     gateway.device("barn-7").record(temperature=21.5)

    Under ``async with`` a device is opened by itself: ``async with gateway.device("barn-7") as device``.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str,
        spool: Path | str | None = None,
        ca: Path | str | None = None,
        fingerprint: str | None = None,
        connect_to: tuple[str, int] | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        self._url = url
        self._clock = clock or Clock()
        connector = make_connector(
            url, token=token, ca=ca, fingerprint=fingerprint, connect_to=connect_to, clock=self._clock
        )
        self._uplink = Uplink(connector, self._clock)
        self._place = spool
        self._close_timeout_s = close_timeout_s
        self._devices: dict[str, GatewayDevice] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._over: asyncio.Event | None = None
        self._was_opened = False

    def device(self, name: str, **settings: Any) -> GatewayDevice:
        """Return a device behind this gateway: under ``with`` it is open, and the same for the same name.

        Args:
            name: as of `Device`, under the prefix of the gateway's token.
            settings: further arguments of `Device`, as ``link`` or ``max_spool``; taken when it is made.

        Raises:
            MisuseError: the gateway is not open, or an argument is not valid.
            SpoolError: the device's spool cannot be used.
        """
        check_device_name(name)
        with self._lock:
            if self._loop is None:
                raise MisuseError("the gateway is not open: use it in a `with` block, or call open()")
            known = self._devices.get(name)
            if known is not None and known.is_open:
                return known
            place = self._place if self._place in (None, MEMORY) else Path(str(self._place)) / name
            settings = {"close_timeout_s": self._close_timeout_s, "clock": self._clock, "spool": place, **settings}
            device = GatewayDevice(name, self._url, **settings)
            device.join(self._uplink, self._loop, self._thread)
            if self._thread is not None:
                device.open()
                self._devices[name] = device
        return device

    def open(self) -> None:
        """Begin, in a background thread; `with` does it. `MisuseError` when it was open before."""
        self._check_new()
        loop = self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        task = loop.create_task(self._wait(self._over), name="telemetry-gateway")
        self._thread = threading.Thread(target=run_loop, args=(loop, task), name="telemetry-gateway", daemon=True)
        self._thread.start()
        open_devices.add(self)
        atexit.register(self.close)

    def close(self) -> None:
        """Wait a little for the last acks, then stop; the rest stays in the spools. Twice is allowed."""
        with self._lock:
            thread, loop, over = self._thread, self._loop, self._over
            devices, self._devices = list(self._devices.values()), {}
            self._thread = self._loop = None
        if thread is None or loop is None or over is None:
            return
        atexit.unregister(self.close)
        open_devices.discard(self)
        # All at a time: two hundred that each wait for a hub that is away would take minutes.
        endings = [ending for device in devices if (ending := device.begin_close()) is not None]
        for ending in endings:
            ending()
        loop.call_soon_threadsafe(over.set)
        thread.join(self._close_timeout_s + _JOIN_EXTRA_S)
        if thread.is_alive():
            logger.error("not stopped gateway reason=disk or network hangs")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._check_new()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop = None
        await self._uplink.close()

    def forget_after_fork(self) -> None:
        """In the child: let go without closing; the socket belongs to the parent."""
        self._thread = self._loop = None
        self._devices = {}
        atexit.unregister(self.close)

    def _check_new(self) -> None:
        if self._was_opened:
            raise MisuseError("the gateway was opened before; make a new Gateway")
        self._was_opened = True

    async def _wait(self, over: asyncio.Event) -> None:
        await over.wait()
        await self._uplink.close()


class GatewayDevice(Device):
    """A `Device` whose connection is its gateway's: made by `Gateway.device`."""

    def join(self, uplink: Uplink, loop: asyncio.AbstractEventLoop, thread: threading.Thread | None) -> None:
        """Connect through the gateway; on its loop, in its thread where it has one."""
        self._connector = uplink
        self._shared = (loop, thread)

    def open(self) -> None:
        """Open the spool and begin; `Gateway.device` did it under ``with``."""
        loop, thread = self._shared
        if thread is None:
            raise MisuseError(f"device {self.name}: its gateway was opened by `async with`, so use that here too")
        courier = self._assemble(self._open_spool(), is_in_users_loop=False)
        self._loop, self._thread = loop, thread

        async def begin() -> asyncio.Task[None]:
            return loop.create_task(courier.run(), name=f"telemetry-{self.name}")

        self._task = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        self._begin_twin()

    @property
    def is_open(self) -> bool:
        """Whether it records."""
        return self._spool is not None

    def close(self) -> None:
        """Wait a little for the last acks, then stop this device alone; the rest stays in the spool."""
        if (ending := self.begin_close()) is not None:
            ending()

    def begin_close(self) -> Any:
        """Begin to close; return what waits for the end, None when it is not open."""
        loop, courier, task = self._loop, self._courier, self._task
        if self._thread is None or loop is None or courier is None or task is None:
            return None
        if self._commands is not None:
            self._commands.close(self._close_timeout_s)
        self._end_twin()
        spool = self._disassemble()
        stopping = asyncio.run_coroutine_threadsafe(stop(courier, task, self._close_timeout_s), loop)

        def ending() -> None:
            try:
                stopping.result(self._close_timeout_s + _JOIN_EXTRA_S)
            except TimeoutError:
                logger.error("not stopped device=%s reason=disk or network hangs; its spool was left open", self.name)
            else:
                spool.close()

        return ending
