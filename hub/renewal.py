"""A database file whose disk failed an fsync, made trustworthy again: a fresh copy takes its place.

Owns: the mark that a copy is due, the copy, the change from one to the other. Place: beside `database`. Must not: run
while anything has the file open.

Why. After a failed fsync the kernel may call the lost pages clean: the next fsync succeeds, reads are answered from
memory, and only a power cut shows what is missing; what a write-ahead log holds behind lost pages is lost with them.
What was fsynced before is on the disk. Reading everything and writing it to new blocks, with an fsync of its own,
makes all of it durable again.

A kill at any instant is harmless: until ``-renewed`` exists the old file and its log count, from then on the copy.
"""

import logging
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from hub.errors import DiskFailedError, JournalError

_log = logging.getLogger("hub.renewal")

_SUSPECT, _FRESH, _RENEWED = "-suspect", "-fresh", "-renewed"
_LOGS = ("-wal", "-shm")
# A disk that fails may not take the mark either; then this process, which starts the hub again, still knows.
_marked: set[Path] = set()


def mark_suspect(path: Path) -> None:
    """Note beside the file that its disk failed, as well as such a disk can; until a copy is made, here too."""
    _marked.add(path.absolute())
    with suppress(OSError):
        _beside(path, _SUSPECT).touch()
        _fsync(path.parent)


def renew_if_suspect(path: Path) -> bool:
    """Put a fresh copy in the place of a file that was marked, and take the mark away; return whether it was.

    Raises:
        DiskFailedError: the copy could not be made, e.g. for want of room; the file is as it was, try again.
        JournalError: the copy is damaged; the file is as it was.
    """
    try:
        if not _beside(path, _RENEWED).exists():
            if path.absolute() not in _marked and not _beside(path, _SUSPECT).exists():
                return False
            if path.exists():
                _log.warning("copying %s: its disk failed", path)
                _make_copy(path)
        _take_over(path)
    except (OSError, sqlite3.Error) as error:
        raise DiskFailedError(
            f"cannot make a fresh copy of {path}, whose disk failed: {error}; it needs a disk that works and as much "
            "free space as the file takes"
        ) from error
    _marked.discard(path.absolute())
    _log.warning("renewed %s", path)
    return True


def _make_copy(path: Path) -> None:
    fresh = _beside(path, _FRESH)
    for suffix in ("", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    # Of its owner alone from the first byte: it may hold what signs in.
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    # Read-only: to close such a connection writes nothing to the old file.
    source = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    with closing(source), closing(sqlite3.connect(fresh, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous=OFF")
        source.backup(target)
    _fsync(fresh)
    copy = sqlite3.connect(f"file:{quote(str(fresh.absolute()))}?mode=ro&immutable=1", uri=True)
    with closing(copy):
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalError(f"{path} is damaged: {found}; restore a backup")
    os.chmod(fresh, path.stat().st_mode & 0o777)
    fresh.replace(_beside(path, _RENEWED))
    _fsync(path.parent)


def take_place(path: Path, fresh: Path) -> None:
    """Let a finished file, which was fsynced, take the place of another and of its log; nothing may have them open.

    From the first step on the finished one counts: after a kill `renew_if_suspect` does the rest.
    """
    fresh.replace(_beside(path, _RENEWED))
    _fsync(path.parent)
    _take_over(path)


def is_replaced(path: Path) -> bool:
    """Tell whether a finished file waits to take the name: what is written to the one that has it will be lost."""
    return _beside(path, _RENEWED).exists()


def _take_over(path: Path) -> None:
    # The old log must be gone for good before the copy has the file's name, or it would be applied to the copy.
    for suffix in _LOGS:
        _beside(path, suffix).unlink(missing_ok=True)
    _fsync(path.parent)
    if _beside(path, _RENEWED).exists():
        _beside(path, _RENEWED).replace(path)
    _beside(path, _SUSPECT).unlink(missing_ok=True)
    _fsync(path.parent)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
