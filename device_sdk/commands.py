"""Commands of the hub to this device: `Device.command` puts them here, each takes effect once.

Owns: the handlers, who runs them, the replies. Place: above `command_notes`; `device` imports it when the first command
is declared. Must not: block the courier: its loop only looks an id up; notes, fsyncs and handlers have threads.

Sync handlers run one after the other in one worker thread; async ones as tasks of the loop of ``async with``, under
``with`` in the worker thread too. A command that waits there is not noted: it is sent again by the hub after a restart.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import queue
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from device_sdk.command_notes import INTERRUPTED, CommandNotes
from device_sdk.command_signature import declare
from device_sdk.errors import MisuseError
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json
from device_sdk.wire import (
    EXPIRED_ERROR,
    MAX_COMMANDS,
    MAX_CONTROL_BYTES,
    MAX_CONTROL_DEPTH,
    Command,
    Desired,
    Reply,
    is_deeper,
)

logger = logging.getLogger("device_sdk.commands")

# Commands that wait for a handler; the hub has at most 32 open for one device.
MAX_RUNNING = 64
MAX_ERROR_CHARS = 300
# What a cancelled task gets for its `finally`, also when the time of closing is over; longer would be no close.
CANCEL_S = 1.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_Handler = Callable[..., Any]


class Link(Frozen):
    """What an open device lends: how to speak, where notes go, what time it is at the hub.

    ``say``: from any thread. ``tell``: takes the declaration of all commands. ``hub_time_ns``: as the last welcome said
    it. ``loop``: the user's, None under ``with``.
    """

    say: Callable[[Reply], None]
    tell: Callable[[dict[str, Any]], None]
    hub_time_ns: Callable[[], int | None]
    boot_ns: Callable[[], int]
    loop: asyncio.AbstractEventLoop | None


class Commands:
    """The commands of one device. `welcomed` and `take` are for the courier's loop, all else for the user's threads."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._handlers: dict[str, _Handler] = {}
        self._declared: dict[str, Any] = {}
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: queue.Queue[Command | None] = queue.Queue(MAX_RUNNING)
        self._worker: threading.Thread | None = None
        self._link: Link | None = None
        self._is_closing = False
        self._notes = CommandNotes(None)
        # (the hub's time, our time since boot) at the last welcome: its clock decides what is over, not ours.
        self._welcome: tuple[int, int] | None = None

    def add(self, function: _Handler, name: str | None = None) -> None:
        """Declare a command; a further one of the same name replaces the first.

        Raises:
            MisuseError: a name or annotation that cannot be, or too many commands.
        """
        name = name or str(getattr(function, "__name__", ""))
        if not _NAME.fullmatch(name):
            raise MisuseError(f"command {name[:70]!r}: use letters, digits, '_', '.', '-' (at most 64)")
        if name not in self._handlers and len(self._handlers) >= MAX_COMMANDS:
            raise MisuseError(f"command {name!r}: a device has at most {MAX_COMMANDS} commands")
        declared = {**self._declared, name: declare(name, function)}
        try:
            size = len(json.dumps(declared, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
        except ValueError as error:  # NaN, or a lone surrogate: the hub could not read any of them
            raise MisuseError(f"command {name!r}: a default, choice or description is no JSON: {error}") from error
        if size > MAX_CONTROL_BYTES:
            raise MisuseError(f"command {name!r}: the declarations of all take more than {MAX_CONTROL_BYTES} bytes")
        if is_deeper(declared, MAX_CONTROL_DEPTH):
            raise MisuseError(f"command {name!r}: its defaults are nested too deep; the limit is {MAX_CONTROL_DEPTH}")
        self._declared = declared
        self._handlers[name] = function
        if self._link is not None:
            self._link.tell(declared)

    def open(self, directory: Path | None) -> None:
        """Open the notes beside a spool; None: of a spool in memory. Raises `SpoolError` when they cannot be kept."""
        self._notes = CommandNotes(directory)

    def attach(self, link: Link) -> None:
        """The device is open, and so are the notes."""
        self._link, self._is_closing = link, False
        link.tell(self._declared)

    def close(self, timeout_s: float) -> None:
        """Take no more, let what runs in the worker end for ``timeout_s``, close the notes. Blocks."""
        self._is_closing = True
        self._link, link = None, self._link
        if self._worker is not None:
            while True:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    break
            self._queue.put_nowait(None)
            self._link = link
            self._worker.join(timeout_s)
            self._link = None
        self._notes.close()

    async def close_async(self, timeout_s: float) -> None:
        """Do as `close` without blocking the loop; tasks that take longer are cancelled, and noted as interrupted.

        One that does not end within `CANCEL_S` after that is left alone.
        """
        self._is_closing = True
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=max(CANCEL_S, end - loop.time()))
        await loop.run_in_executor(None, self.close, max(0.0, end - loop.time()))

    # --- the courier's loop --------------------------------------------------------------------

    def welcomed(self) -> None:
        """Note the hub's time; what was not answered is sent again by the hub."""
        link = self._link
        hub_ns = None if link is None else link.hub_time_ns()
        if link is not None and hub_ns is not None:
            self._welcome = (hub_ns, link.boot_ns())

    def take(self, message: Command | Desired) -> None:
        """Answer, or have it run; never waits."""
        if not isinstance(message, Command) or self._link is None or self._is_closing or message.id in self._running:
            return
        reply = self._answer_at_once(message)
        if reply is None:
            self._running.add(message.id)
            reply = self._start(message)
        if reply is not None:
            self._running.discard(message.id)
            self._say(reply)

    def _answer_at_once(self, message: Command) -> Reply | None:
        note = self._notes.find(message.id)
        if note is not None:
            return note.reply or Reply(message.id, False, error=INTERRUPTED)
        if message.name not in self._handlers:
            return Reply(message.id, False, error=f"unknown command {message.name[:64]!r}")
        if self._is_over(message):
            return Reply(message.id, False, error=EXPIRED_ERROR)
        if len(self._running) >= MAX_RUNNING:
            return Reply(message.id, False, error="busy: too many commands wait for the device; try later")
        return None

    def _start(self, message: Command) -> Reply | None:
        link = self._link
        assert link is not None, "take looked"
        if link.loop is not None and inspect.iscoroutinefunction(self._handlers[message.name]):
            task = link.loop.create_task(self._run_async(message), name=f"telemetry-{self._device}-{message.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return None
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=f"telemetry-{self._device}-commands", daemon=True)
            self._worker.start()
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            return Reply(message.id, False, error="busy: too many commands wait for the device; try later")
        return None

    # --- running -------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            message = self._queue.get()
            if message is None:
                return
            reply = self._begin(message)
            if reply is None:
                reply = self._result(message, partial(self._call, message))
                self._notes.end(reply)
            self._finish(reply)

    async def _run_async(self, message: Command) -> None:
        loop = asyncio.get_running_loop()
        try:
            reply = await loop.run_in_executor(None, self._begin, message)
            if reply is None:
                try:
                    value = await self._handlers[message.name](**self._arguments(message))
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
                    reply = self._failed(message, error)  # of something that it waited for, not of the command
                except (Exception, SystemExit) as error:
                    reply = self._failed(message, error)
                else:
                    reply = self._result(message, lambda: value)
                await loop.run_in_executor(None, self._notes.end, reply)
        except asyncio.CancelledError:
            self._running.discard(message.id)  # from now on the note answers: interrupted
            raise
        self._finish(reply)

    def _begin(self, message: Command) -> Reply | None:
        """Note that it begins; a reply when it must not."""
        if self._is_over(message):
            return Reply(message.id, False, error=EXPIRED_ERROR)
        try:
            if not self._notes.has_room(self._now_ns()):
                why = "busy: the device remembers as many commands as it can; try later"
                return Reply(message.id, False, error=why)
            self._notes.begin(message.id, message.expires_ns)
        except OSError as error:
            logger.error("command not run device=%s name=%s reason=%s", self._device, message.name, error)
            return Reply(message.id, False, error=_short(f"not run: the device cannot note it: {error}"))
        return None

    def _call(self, message: Command) -> object:
        value = self._handlers[message.name](**self._arguments(message))
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _arguments(self, message: Command) -> dict[str, Any]:
        """Return the arguments as the handler wants them: JSON has one kind of number."""
        types = self._declared[message.name]["args"]
        return {
            name: float(value) if type(value) is int and types.get(name, {}).get("type") == "float" else value
            for name, value in message.args.items()
        }

    def _result(self, message: Command, call: Callable[[], object]) -> Reply:
        try:
            value = call()
        except BaseException as error:  # a handler's outer edge: also `sys.exit` must not end the worker
            return self._failed(message, error)
        try:
            data = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return Reply(message.id, False, error=_short(f"it ran, but its value is no JSON: {error}"))
        if len(data) > MAX_CONTROL_BYTES:
            why = f"it ran, but its value takes {len(data)} bytes as JSON; the limit is {MAX_CONTROL_BYTES}"
            return Reply(message.id, False, error=why)
        if is_deeper(value, MAX_CONTROL_DEPTH):
            why = f"it ran, but its value is nested deeper than {MAX_CONTROL_DEPTH} levels: make it flatter"
            return Reply(message.id, False, error=why)
        # As it is now: the program may go on with its list, and the answer is the same each time it is asked for.
        return Reply(message.id, True, from_json(data))

    def _failed(self, message: Command, error: BaseException) -> Reply:
        logger.error("command failed device=%s name=%s", self._device, message.name, exc_info=error)
        return Reply(message.id, False, error=_short(f"{type(error).__name__}: {error}"))

    def _finish(self, reply: Reply) -> None:
        self._running.discard(reply.id)
        self._say(reply)

    def _say(self, reply: Reply) -> None:
        link = self._link
        if link is not None:
            link.say(reply)

    def _now_ns(self) -> int | None:
        """Return the time at the hub; None before the first welcome."""
        link, welcome = self._link, self._welcome
        return None if link is None or welcome is None else welcome[0] + link.boot_ns() - welcome[1]

    def _is_over(self, message: Command) -> bool:
        now_ns = self._now_ns()
        return now_ns is not None and now_ns >= message.expires_ns


def _short(text: str) -> str:
    """Return text that fits a reply, and that JSON can carry whatever it is made of."""
    return text[:MAX_ERROR_CHARS].encode("utf-8", "replace").decode()
