"""`Device`: what a program on a device sees.

Owns: the checks at the door, opening and closing, the background thread, the
status. Place: rightmost; puts spool, session and courier together. Must not:
wait for the network in ``record()``, or raise in it for anything but misuse.

The sync form (``with``) runs the courier on a loop in one daemon thread; the
async form (``async with``) runs it as a task of the running loop, so thousands
of devices fit in one process. Both use the same spool, session and courier.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from device_sdk import __version__
from device_sdk.background import open_devices, run_loop, stop
from device_sdk.clock import Clock, read_boot_id
from device_sdk.courier import AckHook, Courier, FrameHook
from device_sdk.errors import MisuseError, SpoolError
from device_sdk.outbox import Durability, WhenFull
from device_sdk.reading import (
    Channel,
    Value,
    ValueType,
    check_channel_name,
    check_device_name,
    check_value,
    to_time_ns,
)
from device_sdk.recorder import ChannelRecorder
from device_sdk.session import Session
from device_sdk.setting import check_choice, default_spool, from_environment, parse_size
from device_sdk.spool import FileSpool, Spool
from device_sdk.stateful import Stateful
from device_sdk.status import DeviceStatistics, Status, count, flush_timeout
from device_sdk.timekeeper import Timekeeper
from device_sdk.transport import RetryPolicy, make_connector
from device_sdk.wire import MAX_CHANNELS

if TYPE_CHECKING:
    from device_sdk.commands import Commands
    from device_sdk.discovery import FoundHub

logger = logging.getLogger("device_sdk.device")

Link = Literal["normal", "metered"]
_Function = TypeVar("_Function", bound=Callable[..., object])
MEMORY = ":memory:"
# At most a day is kept (`state_log.RETAIN_S`): 64 MB are a day of 700 bytes a second.
RETAIN_ACKED = "64MB"
MEMORY_RETAIN_BYTES = 256 * 1024
# Long enough for a hub in the same house to ack the last batch, short enough for Ctrl-C and `systemctl stop`.
CLOSE_TIMEOUT_S = 2.0
# Beyond the drain: bye, the closing handshake, a disk that is slow to sync. Then the thread is left to die.
_JOIN_EXTRA_S = 5.0


class Device(Stateful):
    """A device that records readings and brings them to a hub.

    Args:
        name: ``[A-Za-z0-9][A-Za-z0-9_.-]{0,63}``, as enrolled at the hub.
        url: ``wss://host:port``; ``mqtts://host:port`` with the extra ``[mqtt]`` installed.
        token: the device's token.
        spool: directory of the outbox, or ``":memory:"`` (lost with the process). None:
            ``$XDG_STATE_HOME/telemetry/<name>``, else ``~/.local/state/telemetry/<name>``.
        max_spool: bytes as an int, or ``"64MB"``; 64 MB hold about a month of four channels a minute.
        when_full: which readings go when the spool is full: ``oldest``, ``newest``, or ``thin``: every second one of
            each channel, of the oldest stretch first, so that a coarser picture of all of it stays. The hub is told.
        retain_acked: bytes of acked frames kept besides, at most a day of them: they are sent again to a hub
            that was restored from a backup. 0 keeps none.
        durability: ``second``: a power cut takes at most the last second; ``fsync``: nothing, for milliseconds each.
        ca: PEM file of the CA to trust instead of the system's (see ``hub tls init``).
        fingerprint: SHA-256 of the hub's certificate; it alone is trusted.
        certificate, key: PEM files of the device's own certificate, instead of a token (see ``hub tls device``).
        link: ``normal``, or ``metered``: bytes cost money. Readings are gathered for five minutes, compressed, and the
            line is probed each quarter of an hour; `flush` still sends at once.
        connect_to: (host, port) where TCP is opened, as of a tunnel; the certificate is checked against the URL's host.
        close_timeout_s: how long leaving the ``with`` block may wait for the last acks.
        on_frame: called with (seq, body, stream) before a frame is sent the first time by this process.
        on_ack: called with (stored, stream) when frames became durable at the hub.
        clock, boot_id: all clocks, and the machine's boot id, for tests.

    Raises `MisuseError` when an argument is not valid. `record` may be called from any thread. Nothing survives a fork:
    open the device in the child.

    Example:
        >>> with Device("greenhouse-7", "wss://hub.local:8000", token=token) as device:
        ...     device.record(temperature=21.5, humidity=47.1)
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        token: str | None = None,
        spool: Path | str | None = None,
        max_spool: int | str = "64MB",
        when_full: WhenFull = "oldest",
        durability: Durability = "second",
        retain_acked: int | str = RETAIN_ACKED,
        ca: Path | str | None = None,
        fingerprint: str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        link: Link = "normal",
        connect_to: tuple[str, int] | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        on_frame: FrameHook | None = None,
        on_ack: AckHook | None = None,
        clock: Clock | None = None,
        boot_id: str | None = None,
    ) -> None:
        self.name = check_device_name(name)
        self._clock = clock or Clock()
        self._connector = make_connector(
            url, token=token, ca=ca, fingerprint=fingerprint, certificate=certificate, key=key, connect_to=connect_to,
            clock=self._clock, device=self.name, boot=self._boot, is_metered=link == "metered",
        )  # fmt: skip
        self._place = spool
        self._max_bytes = parse_size("max_spool", max_spool)
        self._when_full: WhenFull = check_choice("when_full", when_full, ("oldest", "newest", "thin"))
        self._retain_bytes = parse_size("retain_acked", retain_acked)
        self._durability: Durability = check_choice("durability", durability, ("second", "fsync"))
        self._link: Link = check_choice("link", link, ("normal", "metered"))
        self._close_timeout_s = close_timeout_s
        self._on_frame, self._on_ack = on_frame, on_ack
        self._boot_id = boot_id
        self._closed_because = "is not open: use it in a `with` block, or call open()"
        self._channels: dict[str, Channel] = {}
        self._commands: Commands | None = None
        # Present while the device is open, all of them.
        self._spool: Spool | None = None
        self._session: Session | None = None
        self._courier: Courier | None = None
        self._timekeeper: Timekeeper | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._inherited: object = None

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """Return a device as HUB_URL, DEVICE_NAME, HUB_TOKEN and the others of `setting.from_environment` say.

        ``settings`` are further arguments of `Device`; they win. Raises `MisuseError` when HUB_URL or DEVICE_NAME is
        missing, or something is not valid.
        """
        return cls(**from_environment(settings))

    @staticmethod
    def discover(timeout_s: float = 3.0) -> list[FoundHub]:
        """Return the hubs that announce themselves in this network; see `discovery.discover`."""
        from device_sdk.discovery import discover

        return discover(timeout_s)

    # --- recording -----------------------------------------------------------------------------

    def channel(
        self,
        name: str,
        unit: str | None = None,
        type: ValueType | str | None = None,
        every_s: float | None = None,
        range: tuple[float, float] | None = None,
        label: str | None = None,
    ) -> ChannelRecorder:
        """Declare a channel (see `reading.Channel`) and return its recorder.

        Without further arguments an earlier declaration stays as it was.

        Raises:
            MisuseError: an argument is not valid, or there are `MAX_CHANNELS` channels already.
        """
        kind = None if type is None else ValueType(check_choice("type", str(type), tuple(ValueType)))
        if every_s is not None and not 0 < every_s < float("inf"):
            raise MisuseError(f"channel {name!r}: every_s {every_s} must be a positive number of seconds")
        low, high = range if range is not None else (None, None)
        if low is not None and high is not None and not low < high:
            raise MisuseError(f"channel {name!r}: the range ({low}, {high}) must rise")
        channel = Channel(name, unit, kind, every_s, low, high, label)
        if name not in self._channels or channel != Channel(name):
            self._declare(channel)
        return ChannelRecorder(self, name)

    def record(
        self, values: Mapping[str, object] | None = None, /, *, time: datetime | int | None = None, **named: object
    ) -> None:
        """Record values of one instant: in the spool when this returns, at the hub when the network allows.

        Args:
            values: channel name → value, for names that are no Python names.
            time: aware datetime or epoch ns; None: now, and never the same instant twice in a channel.
                The same channel and time again is a correction.
            named: channel name = value. Values: float, int, bool, str (≤ 1 KiB); None and NaN are
                skipped and counted.

        Raises:
            MisuseError: a name, value or time is not valid, or the device is not open; nothing was recorded.

        Takes microseconds, from any thread; never waits for the network and never raises for it.
        """
        spool, courier, timekeeper = self._spool, self._courier, self._timekeeper
        if spool is None or courier is None or timekeeper is None:
            raise MisuseError(f"device {self.name} {self._closed_because}")
        if values is not None:
            named = {**values, **named}
        checked: list[tuple[str, Value]] = []
        for name, raw in named.items():
            value = check_value(name, raw)
            if name not in self._channels:
                self._declare(Channel(name))
            if value is not None:
                checked.append((name, value))
        time_ns = None if time is None else to_time_ns(time)
        if len(checked) < len(named):
            spool.skip_no_value(len(named) - len(checked))
        if checked:
            now_ns = self._clock.wall_ns()
            if now_ns >= timekeeper.known_from_ns:
                spool.record(checked, time_ns, now_ns)
            else:
                timekeeper.record(checked, time_ns, now_ns)
            courier.wake()

    @overload
    def command(self, function: _Function, /) -> _Function: ...
    @overload
    def command(self, function: None = None, /, *, name: str | None = None) -> Callable[[_Function], _Function]: ...
    def command(
        self, function: _Function | None = None, /, *, name: str | None = None
    ) -> _Function | Callable[[_Function], _Function]:
        """Let the hub call this function, before or after the device is opened: ``@device.command``.

        Its annotated arguments (int, float, bool, str, dict, list, Literal, ``| None``, defaults) are declared to the
        hub, which refuses others; what it returns, as JSON, is the reply, an exception is the failure. Each command
        takes effect once; one that a kill interrupts is answered as ``interrupted`` and not run again. Sync functions
        run in one thread of their own, async ones as tasks under ``async with``.

        Raises:
            MisuseError: a name or annotation that cannot be. SpoolError: notes of commands cannot be kept.
        """
        if function is None:
            return lambda decorated: _add_command(self, decorated, name)
        return _add_command(self, function, name)

    # --- waiting and looking -------------------------------------------------------------------

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything recorded so far is durable at the hub.

        Raises:
            FlushTimeoutError: it took longer; the readings stay in the spool and are delivered later.
            MisuseError: not open, or opened by ``async with`` (use `flush_async`).
        """
        courier, loop = self._opened()
        if self._thread is None:
            raise MisuseError(f"device {self.name} was opened by `async with`: await flush_async() instead")
        if not asyncio.run_coroutine_threadsafe(courier.drain(timeout_s), loop).result():
            raise flush_timeout(self.name, self.status, timeout_s)

    async def flush_async(self, timeout_s: float = 10.0) -> None:
        """Do as `flush` without blocking the loop. May be cancelled without loss."""
        courier, _ = self._opened()
        if self._thread is not None:
            raise MisuseError(f"device {self.name} was opened by `with`: call flush() instead")
        if not await courier.drain(timeout_s):
            raise flush_timeout(self.name, self.status, timeout_s)

    @property
    def status(self) -> Status:
        """What goes on now; cheap enough for each second."""
        spool, session, courier, timekeeper = self._spool, self._session, self._courier, self._timekeeper
        if spool is None or session is None or courier is None or timekeeper is None:
            return Status(False, 0, None, 0, 0, 0, 0, self._max_bytes, f"device {self.name} {self._closed_because}")
        counts = spool.statistics()
        oldest = counts.oldest_time_ns
        age_s = None if oldest is None else timekeeper.age_s(oldest)
        return Status(
            courier.is_online, counts.pending, age_s, counts.dropped, counts.no_value, session.rejected,
            counts.bytes, counts.limit_bytes, counts.disk_error or courier.last_error,
        )  # fmt: skip

    def statistics(self) -> DeviceStatistics:
        """Return everything that spool and conversation count; from any thread, some 10 µs.

        Raises `MisuseError` when the device is not open; `status` answers then, too.
        """
        spool, session, courier = self._spool, self._session, self._courier
        if spool is None or session is None or courier is None:
            raise MisuseError(f"device {self.name} {self._closed_because}")
        return count(spool.statistics(), session, courier)

    # --- opening and closing -------------------------------------------------------------------

    def open(self) -> None:
        """Open the spool and begin to connect, in the background; `with` does it.

        Raises:
            SpoolError: the spool cannot be used, or another process holds it.
            MisuseError: it is open, or was closed.
        """
        courier = self._assemble(self._open_spool(), is_in_users_loop=False)
        loop = self._loop = asyncio.new_event_loop()
        task = self._task = loop.create_task(courier.run(), name=f"telemetry-{self.name}")
        self._thread = threading.Thread(target=run_loop, args=(loop, task), name=f"telemetry-{self.name}", daemon=True)
        self._begin_twin()
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Wait a little for the last acks, then stop; the rest stays in the spool. Twice is allowed."""
        thread, loop, courier, task = self._thread, self._loop, self._courier, self._task
        if thread is None or loop is None or courier is None or task is None:
            return
        if self._commands is not None:
            self._commands.close(self._close_timeout_s)
        self._end_twin()
        spool = self._disassemble()
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(stop(courier, task, self._close_timeout_s), loop)
        thread.join(self._close_timeout_s + _JOIN_EXTRA_S)
        if thread.is_alive():
            logger.error("not stopped device=%s reason=disk or network hangs; its spool was left open", self.name)
        else:
            spool.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        spool = await loop.run_in_executor(None, self._open_spool) if self._is_on_disk else self._open_spool()
        self._loop = loop
        courier = self._assemble(spool, is_in_users_loop=True)
        self._task = loop.create_task(courier.run(), name=f"telemetry-{self.name}")
        self._begin_twin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        courier, task = self._courier, self._task
        if courier is None or task is None:
            return
        self._end_twin()
        spool, commands = self._disassemble(), self._commands
        try:
            if commands is not None:
                await commands.close_async(self._close_timeout_s)
            await stop(courier, task, self._close_timeout_s)
        finally:
            if self._is_on_disk:
                await asyncio.get_running_loop().run_in_executor(None, spool.close)
            else:
                spool.close()

    # --- details -------------------------------------------------------------------------------

    @property
    def _is_on_disk(self) -> bool:
        return self._place != MEMORY

    @property
    def _path(self) -> Path:
        return Path(self._place) if self._place is not None else default_spool(self.name)

    def _twin_file(self) -> Path | None:
        return self._path / "twin.json" if self._is_on_disk else None

    def _open_spool(self) -> Spool:
        spool = self._make_spool()
        if self._commands is not None:
            try:
                self._commands.open(self._path if self._is_on_disk else None)
            except SpoolError:
                spool.close()
                raise
        return spool

    def _make_spool(self) -> Spool:
        if self._spool is not None or self._inherited is not None:
            raise MisuseError(f"device {self.name} was opened before; make a new Device")
        if not self._is_on_disk:
            # Imported by those who use it: 2 % of what `import` costs the others.
            from device_sdk.memory_spool import MemorySpool

            # Memory is dearer than disk, and lost with the process anyway: as little as one window of frames.
            retain_bytes = min(self._retain_bytes, MEMORY_RETAIN_BYTES)
            return MemorySpool(max_bytes=self._max_bytes, when_full=self._when_full, retain_bytes=retain_bytes)
        return FileSpool(
            self._path, boot=self._boot(), max_bytes=self._max_bytes, when_full=self._when_full,
            durability=self._durability, retain_bytes=self._retain_bytes,
        )  # fmt: skip

    def _boot(self) -> str:
        self._boot_id = self._boot_id or read_boot_id()
        return self._boot_id

    def _assemble(self, spool: Spool, *, is_in_users_loop: bool) -> Courier:
        for channel in self._channels.values():
            spool.declare(channel)
        self._channels = {**spool.channels, **self._channels}
        session = Session(
            spool, device=self.name, boot=self._boot(), run=secrets.token_hex(8), sdk=f"python/{__version__}",
            link=self._link,
        )  # fmt: skip
        timekeeper = Timekeeper(self._clock, spool)
        courier = Courier(
            session, spool, self._connector, RetryPolicy(random.random),
            device=self.name, clock=self._clock, timekeeper=timekeeper, is_on_disk=self._is_on_disk,
            offload=is_in_users_loop and self._is_on_disk, on_frame=self._on_frame, on_ack=self._on_ack,
        )  # fmt: skip
        self._session, self._courier, self._timekeeper, self._spool = session, courier, timekeeper, spool
        open_devices.add(self)
        if self._commands is not None:
            _attach_commands(self, self._commands)
        return courier

    def _disassemble(self, because: str = "was closed") -> Spool:
        spool = self._spool
        assert spool is not None, "an open device has a spool"
        self._closed_because = because
        self._inherited = (spool, self._session, self._courier, self._loop, self._task, self._thread)
        self._spool = self._session = self._courier = self._timekeeper = None
        self._loop = self._task = self._thread = None
        open_devices.discard(self)
        return spool

    def forget_after_fork(self) -> None:
        """In the child: let go without closing; spool, lock and socket belong to the parent."""
        if self._spool is not None:
            self._disassemble("was opened before a fork, and stays with the parent: open a Device in the child")
            atexit.unregister(self.close)

    def _declare(self, channel: Channel) -> None:
        check_channel_name(channel.name)
        if channel.name not in self._channels and len(self._channels) >= MAX_CHANNELS:
            raise MisuseError(f"channel {channel.name!r}: a device has at most {MAX_CHANNELS} channels")
        if self._spool is not None:
            self._spool.declare(channel)
        self._channels[channel.name] = channel
        if self._courier is not None:
            self._courier.declared()

    def _opened(self) -> tuple[Courier, asyncio.AbstractEventLoop]:
        if self._courier is None or self._loop is None:
            raise MisuseError(f"device {self.name} {self._closed_because}")
        return self._courier, self._loop


def _add_command(device: Device, function: _Function, name: str | None) -> _Function:
    # Imported by those who use it, as the spool in memory is.
    from device_sdk.commands import Commands

    is_new = device._commands is None
    commands = device._commands or Commands(device.name)
    commands.add(function, name)
    device._commands = commands
    if is_new and device._spool is not None:
        commands.open(device._path if device._is_on_disk else None)
        _attach_commands(device, commands)
    return function


def _attach_commands(device: Device, commands: Commands) -> None:
    from device_sdk.commands import Link as CommandLink

    courier, session = device._courier, device._session
    assert courier is not None, "an open device has one"
    assert session is not None, "an open device has one"
    loop = None if device._thread is not None else device._loop
    commands.attach(CommandLink(
        courier.say, courier.declare_commands, lambda: session.hub_time_ns, device._clock.boot_ns, loop
    ))  # fmt: skip
    courier.controls.append(commands)
