"""The state a hub wants a device to have, and the state the device says it has.

Owns: both states, what was handled of the desired one, their file beside the spool, when they are said again. Place:
after `courier`, which calls it; imported by those who use it (`stateful`). Must not: know connections.

Everything but `report` and `desired` happens on the courier's loop. A desired state that arrives is kept, handled, and
only then reported as taken in: whatever is cut before that, the hub sends it again. Of states that arrive or are
reported in a burst the latest counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Protocol

from device_sdk.disk import sync_directory, sync_file
from device_sdk.errors import MisuseError, SpoolError
from device_sdk.json_bytes import from_json, to_json
from device_sdk.merge_patch import merged
from device_sdk.wire import MAX_CONTROL_BYTES, Command, Desired, Reply, Reported

logger = logging.getLogger("device_sdk.twin")

FILE = "twin.json"
# Reports in a burst: the first goes at once, then at most so many seconds pass until the latest does.
REPORT_EVERY_S = 0.1

Handler = Callable[[dict[str, Any]], Awaitable[object] | object]


class DesiredState(Mapping[str, Any]):
    """The desired state as it was last known: a read-only mapping; ``version`` 0 when the hub never told one."""

    def __init__(self, version: int, state: Mapping[str, Any]) -> None:
        self.version = version
        self._state = state

    def __getitem__(self, name: str) -> Any:
        return self._state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        return f"<DesiredState: version {self.version}, {self._state!r}>"


class Voice(Protocol):
    """What is needed of the courier."""

    @property
    def is_online(self) -> bool: ...

    def say(self, message: Reply | Reported) -> None:
        """Say it if there is a connection."""


class Twin:
    """Both states of one device. `desired` and `report` are for any thread.

    Args:
        device: for log lines.
        path: its file; None: kept in memory.
    """

    def __init__(self, device: str, path: Path | None) -> None:
        self._device = device
        self._path = path
        self._lock = threading.Lock()
        self._desired = Desired(0, {})
        self._taken: tuple[int, str] = (0, "")
        self._handled: str | None = None
        self._reported: dict[str, Any] = {}
        self._incoming: Desired | None = None
        self._handler: Handler | None = None
        self._voice: Voice | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_unsaid = False

    # --- for the program, from any thread ------------------------------------------------------

    @property
    def desired(self) -> DesiredState:
        """The last known desired state; a copy, which the program may do with as it likes."""
        desired = self._desired
        return DesiredState(desired.version, _copy(desired.state))

    def handle(self, handler: Handler) -> None:
        """Call it with each new state from now on, and with the known one if that was never handled."""
        self._handler = handler
        self._wake()

    def report(self, values: Mapping[str, Any], *, replace: bool) -> None:
        """Merge into what is reported, or replace it; on disk when this returns, said when the network allows.

        Raises:
            MisuseError: no JSON, nested too deep, or too large; nothing was changed.
            SpoolError: the disk failed; it is said all the same, and forgotten when the process ends.
        """
        with self._lock:
            before = {} if replace else self._reported
            self._reported = _checked(merged(before, values))
            self._is_unsaid = True
            try:
                self._write()
            finally:
                if self._loop is not None:
                    with suppress(RuntimeError):  # the loop was closed meanwhile
                        self._loop.call_soon_threadsafe(self._say_soon)

    # --- beginning and end -----------------------------------------------------------------------

    def load(self) -> None:
        """Read the file, if there is one. What is damaged is forgotten: the hub tells its part again."""
        if self._path is None:
            return
        try:
            held = from_json(self._path.read_bytes())
            desired = Desired(int(held["version"]), dict(held["desired"]), str(held["mark"]))
            taken, mark = held["taken"]
            reported, handled = dict(held["reported"]), held["handled"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("states forgotten device=%s file=%s reason=%r", self._device, self._path, error)
            return
        self._desired, self._taken, self._reported = desired, (int(taken), str(mark)), reported
        self._handled = None if handled is None else str(handled)

    def begin(self, loop: asyncio.AbstractEventLoop, voice: Voice) -> None:
        """Go to work on the loop, which may not run yet; from any thread."""
        self._loop, self._voice = loop, voice
        loop.call_soon_threadsafe(self._begin)

    def end(self) -> None:
        """Say what is unsaid, and stop; from any thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end)

    # --- on the courier's loop -------------------------------------------------------------------

    def welcomed(self) -> None:
        """Say again what the hub may not have, and try again what failed."""
        self._say()
        self._wake_here()

    def take(self, message: Command | Desired) -> None:
        """Take a desired state; the newest counts."""
        if isinstance(message, Desired):
            self._incoming = message
            self._wake_here()

    def _begin(self) -> None:
        if self._loop is None or self._voice is None:
            return
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._task = self._loop.create_task(self._serve(), name=f"telemetry-{self._device}-twin")
        if self._voice.is_online:
            # What the hub said after its welcome nobody has heard: version 0 asks for it again.
            self._voice.say(Reported(0, self._reported))

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_unsaid:
            self._say()
        if self._task is not None:
            self._task.cancel()
        with self._lock:
            # A thread that still saves must not write over what the next `Device` on this spool has.
            self._path = None

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake_here)

    def _wake_here(self) -> None:
        if self._wanted is not None:
            self._wanted.set()

    async def _serve(self) -> None:
        assert self._wanted is not None, "made before the task"
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            incoming, self._incoming = self._incoming, None
            if incoming is not None and self._is_past(incoming):
                # The hub was put back to an older copy: what it hears now makes it go on above this version.
                self._say()
                incoming = None
            elif incoming is not None:
                self._desired = incoming
                await self._save()
            desired = self._desired
            if await self._is_handled(desired):
                is_new = self._taken != (desired.version, desired.mark)
                if is_new:
                    self._taken = (desired.version, desired.mark)
                    await self._save()
                if is_new or incoming is not None:
                    # Also what was taken in before this process: a hub that sends it has not heard so.
                    self._say()

    def _is_past(self, incoming: Desired) -> bool:
        version, mark = self._taken
        return incoming.version < version or (incoming.version == version and incoming.mark != mark)

    async def _is_handled(self, desired: Desired) -> bool:
        """Let the program take the state in; False when it failed: tried again at the next connection or change."""
        handler, fingerprint = self._handler, _fingerprint(desired.state)
        if handler is None or desired.version == 0 or fingerprint == self._handled:
            return True
        try:
            if iscoroutinefunction(handler):
                await handler(_copy(desired.state))
            else:
                await asyncio.to_thread(handler, _copy(desired.state))
        except Exception:
            logger.exception("on_desired failed device=%s version=%d; tried again later", self._device, desired.version)
            return False
        self._handled = fingerprint
        return True

    def _say_soon(self) -> None:
        if self._timer is None and self._loop is not None:
            self._say()
            self._timer = self._loop.call_later(REPORT_EVERY_S, self._say_rest)

    def _say_rest(self) -> None:
        self._timer = None
        if self._is_unsaid:
            self._say_soon()

    def _say(self) -> None:
        assert self._voice is not None, "begun"
        # First, so that a report that comes meanwhile is said again.
        self._is_unsaid = False
        version, mark = self._taken
        self._voice.say(Reported(version, self._reported, mark))

    # --- the file --------------------------------------------------------------------------------

    async def _save(self) -> None:
        """Write in a thread. A failure is said: after a restart the hub tells its part again."""
        if self._path is None:
            return

        def save() -> None:
            with self._lock:
                self._write()

        try:
            await asyncio.to_thread(save)
        except SpoolError as error:
            logger.error("%s", error)

    def _write(self) -> None:
        """Write all of it to a file that then takes the name: a power cut leaves the old one or the new one."""
        if self._path is None:
            return
        desired = self._desired
        data = to_json({
            "version": desired.version, "mark": desired.mark, "desired": desired.state, "taken": self._taken,
            "handled": self._handled, "reported": self._reported,
        })  # fmt: skip
        part = self._path.with_suffix(".part")
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
            with os.fdopen(fd, "wb", buffering=0) as file:
                file.write(data)
                sync_file(file.fileno())
            part.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise SpoolError(f"states not written device={self._device} file={self._path}: {error}") from error


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state as JSON has it (a tuple is a list, a key text)."""
    try:
        text = json.dumps(state, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"what is reported must be JSON: {error}") from error
    if size > MAX_CONTROL_BYTES:
        raise MisuseError(
            f"the reported state would take {size} bytes as JSON; the limit is {MAX_CONTROL_BYTES}: report settings, "
            "and record readings"
        )
    found: dict[str, Any] = json.loads(text)
    return found


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = from_json(to_json(state))
    return found


def _fingerprint(state: dict[str, Any]) -> str:
    """Return what is equal for equal states, whatever the order of their keys."""
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()
