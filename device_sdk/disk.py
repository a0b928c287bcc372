"""The few things the spool asks of the operating system, on every platform.

Owns: fsync that reaches the medium, appending whole records, the lock file.
Place: before `reading_log` and `state_log`. Must not: know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from device_sdk.errors import SpoolError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def is_full(error: OSError) -> bool:
    """Say whether the disk, or what this user may use of it, is full."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def open_append(path: Path) -> int:
    """Open a file that only grows; only its owner may read it (readings can be private)."""
    return os.open(path, _APPEND, 0o600)


def open_existing(path: Path) -> int:
    """Open a file to fsync it; -1 when it is gone."""
    try:
        return os.open(path, _APPEND & ~os.O_CREAT)
    except FileNotFoundError:
        return -1


def append(fd: int, data: bytes) -> None:
    """Write all of ``data`` at the end, or nothing.

    Raises:
        OSError: the disk is full or fails; what was written in part is cut off again.
    """
    written = 0
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError:
        if written:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, os.fstat(fd).st_size - written)
        raise


def sync_file(fd: int) -> None:
    """Return when the file's bytes are on the medium; on macOS plain fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError:  # not every file system there knows it
            os.fsync(fd)
    elif sys.platform == "win32":
        os.fsync(fd)
    else:
        os.fdatasync(fd)


def sync_directory(path: Path) -> None:
    """Return when names made and removed in ``path`` are on the medium."""
    if sys.platform == "win32":
        return  # a directory cannot be opened there; NTFS journals names by itself
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path: Path) -> int:
    """Take the lock file for this process and return its descriptor; closing it, or the process's end, frees it.

    Raises:
        SpoolError: another spool, here or in another process, holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise SpoolError(
            f"spool {path.parent} is in use by another process; give each device its own directory, or stop that one"
        ) from error
    return fd
