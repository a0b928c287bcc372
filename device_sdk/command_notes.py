"""Which commands this device has begun, durable before each takes effect: so that none takes effect twice.

Owns: the file ``commands.log`` beside the spool (or memory alone, beside a spool in memory). Place: after `disk` and
`wire`, inside `commands`. Must not: run anything. `find` never waits for the disk; all else does: call it in a thread.

Theory of operation. A hub sends an unanswered command again, with the same id, until its expiry. `begin` is on the
medium before the command runs; `end` adds the reply. A command that is known when it comes again is answered from
here. Begun and not ended, in a process before this one: it may or may not have taken effect, and that is the answer.
Notes are forgotten a while after the expiry, when no hub sends the command any more.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_sdk import disk
from device_sdk.errors import SpoolError
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json, to_json
from device_sdk.wire import Reply

logger = logging.getLogger("device_sdk.commands")

FILE = "commands.log"
INTERRUPTED = "interrupted: the device stopped while the command ran; it may or may not have taken effect"
# Beyond the expiry: a hub whose clock is set back sends for longer.
MARGIN_NS = 3600 * 10**9
# Two or three a second for an hour; about 2 MB in RAM. A device that gets more refuses them.
MAX_NOTES = 10_000
MAX_REPLY_BYTES = 4 * 1024 * 1024
# The file is written anew when it is this much larger than what it must hold.
_REWRITE_BYTES = 1024 * 1024


class Note(Frozen):
    """A command that was begun; ``reply`` None: it has not ended, or ended with the process."""

    expires_ns: int
    reply: Reply | None = None
    size: int = 0


class CommandNotes:
    """The notes of one device; the directory exists and is locked by its spool.

    Args:
        directory: where the file is; None keeps notes for the process only.

    Raises:
        SpoolError: the file cannot be read or written.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE
        self._notes: dict[str, Note] = {}
        self._bytes = 0
        self._fd = -1
        self._file_bytes = self._needed_bytes = 0
        self._writing = threading.Lock()
        self._is_closed = False
        if self._path is not None:
            try:
                self._load(self._path)
                self._rewrite(self._path)
            except OSError as error:
                raise SpoolError(f"the notes of commands in {self._path} cannot be used: {error}") from error

    def find(self, id: str) -> Note | None:
        """Return the note of a command; from any thread, at once."""
        return self._notes.get(id)

    def has_room(self, now_ns: int | None) -> bool:
        """Forget what is long over at ``now_ns`` (the hub's time, if known), and say whether one more may be begun.

        Raises:
            OSError: the file could not be written anew.
        """
        with self._writing:
            if now_ns is not None:
                self._forget(now_ns)
            return len(self._notes) < MAX_NOTES and self._bytes < MAX_REPLY_BYTES

    def begin(self, id: str, expires_ns: int) -> None:
        """Note that a command begins: on the medium when this returns. Ask `has_room` before.

        Raises:
            OSError: it could not be noted; it must not run.
        """
        with self._writing:
            if self._is_closed:
                raise OSError("the device was closed")
            self._append(["begin", id, str(expires_ns)])
            if self._fd >= 0:
                disk.sync_file(self._fd)
            self._notes[id] = Note(expires_ns)

    def end(self, reply: Reply) -> None:
        """Note the reply. A kill does not take it; a power cut may, and then says so (`INTERRUPTED`)."""
        with self._writing:
            note = self._notes.get(reply.id)
            if note is None:
                return
            size = len(to_json([reply.value, reply.error]))
            self._notes[reply.id] = Note(note.expires_ns, reply, size)
            self._bytes += size
            try:
                self._append(["end", *reply])
            except OSError as error:
                logger.error("a command's reply was not noted id=%s reason=%s", reply.id, error)

    def close(self) -> None:
        """Close the file; what ends later is known to this process only. Twice is allowed."""
        with self._writing:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd, self._path, self._is_closed = -1, None, True

    # --- the file ------------------------------------------------------------------------------

    def _forget(self, now_ns: int) -> None:
        old = [id for id, note in self._notes.items() if note.expires_ns + MARGIN_NS < now_ns]
        for id in old:
            self._bytes -= self._notes.pop(id).size
        if self._path is not None and self._file_bytes > self._needed_bytes + _REWRITE_BYTES:
            self._rewrite(self._path)

    def _append(self, event: list[Any]) -> None:
        if self._fd >= 0:
            line = _line(event)
            disk.append(self._fd, line)
            self._file_bytes += len(line)

    def _load(self, path: Path) -> None:
        for event in _read(path):
            match event:
                case ["begin", str(id), str(expires_ns)]:
                    self._notes[id] = Note(int(expires_ns))
                case ["end", str(id), bool(ok), value, str(error)] if id in self._notes:
                    size = len(to_json([value, error]))
                    self._notes[id] = Note(self._notes[id].expires_ns, Reply(id, ok, value, error), size)
                    self._bytes += size

    def _rewrite(self, path: Path) -> None:
        """Write what is known to a new file that takes the place of the old one when it is whole."""
        lines = []
        for id, note in self._notes.items():
            lines.append(_line(["begin", id, str(note.expires_ns)]))
            if note.reply is not None:
                lines.append(_line(["end", *note.reply]))
        data = b"".join(lines)
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = disk.open_append(new)
        try:
            disk.append(fd, data)
            disk.sync_file(fd)
            if self._fd >= 0:
                os.close(self._fd)  # before the name changes: Windows replaces no open file
                self._fd = -1
            os.close(fd)
            fd = -1
            new.replace(path)
            self._fd = disk.open_append(path)
            disk.sync_directory(path.parent)
        finally:
            if fd >= 0:
                os.close(fd)
        self._file_bytes = self._needed_bytes = len(data)


def _line(event: list[Any]) -> bytes:
    body = to_json(event)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read(path: Path) -> Iterator[list[Any]]:
    """Yield the events of whole lines; what a power cut tore is left out."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        crc, _, body = line.partition(b" ")
        if crc == b"%08x" % zlib.crc32(body):
            event: list[Any] = from_json(body)
            yield event
