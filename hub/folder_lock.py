"""One hub at a time on a data folder: two would each number, ack and store what the other does not know of.

Owns: the lock file. Place: before `hub.app`, which holds it from before the first file is opened until the last is
closed. The kernel lets go of it when the process ends, however it ends, so a lock is never left over.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.errors import JournalError

if sys.platform != "win32":
    import fcntl

LOCK = "hub.lock"
_log = logging.getLogger("hub.folder_lock")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block.

    Raises:
        JournalError: another hub holds it, or the file cannot be made.
    """
    if sys.platform == "win32":
        # It has other locks; nothing keeps a second hub away.
        yield
        return
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"cannot make {path}: {error.strerror}; give the hub a folder that it may write") from error
    try:
        _lock(handle, folder)
        os.truncate(handle, 0)
        os.write(handle, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    assert sys.platform != "win32", "asked before"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(handle, 32).decode(errors="replace").strip() or "not known"
        raise JournalError(
            f"another hub (process {owner}) runs on {folder}: stop it, or give this one another folder (--data)"
        ) from error
    except OSError as error:
        # Some network file systems know no locks.
        _log.warning("cannot lock %s: %s; run one hub on it only", folder, error.strerror)
