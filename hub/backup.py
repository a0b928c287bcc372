"""A copy of a hub's data that is right as a whole, made while the hub runs or stands still.

Owns: the order in which the files are seen, their copies, the check, and the form in which a copy travels. Place:
above the journal and the store, beside `query`. Must not: make the hub's writers wait, or leave half a copy.

Theory of operation. The store is seen first, the journal right after it, each in one read transaction that lasts until
its copy is whole: so the store's ``applied`` is never beyond the copied journal, and what the store has not seen is in
it. Had the journal forgotten frames between the two looks, both are looked at again. Identities, metadata and commands
come last; they may be newer. The log of changes and the events must be: `hub.system_feed` tells the copied journal what
that lacks, but could not take back what it has too much. In a write-ahead log readers and the writer do not wait for
each other; meanwhile the log grows by what is written.

A copy is made under another name, fsynced, checked, and takes its name when it is whole.
"""

import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

from hub.change_log import CHANGES
from hub.children import CHILDREN
from hub.errors import ConflictError, HubError, NotFoundError
from hub.event_log import EVENTS
from hub.revocations import CERTIFICATES
from hub.users import USERS

READINGS, JOURNAL, IDENTITIES = "readings.sqlite3", "journal.sqlite3", "identities.sqlite3"
METADATA, COMMANDS, STATES = "metadata.sqlite3", "commands.sqlite3", "states.sqlite3"
FILES = (READINGS, JOURNAL, IDENTITIES)
# Copied last, where they are: a folder of an earlier hub has none of them.
FURTHER = (METADATA, USERS, CHANGES, COMMANDS, STATES, CERTIFICATES, CHILDREN, EVENTS)
# Inside the data folder while a running hub makes a copy to send; what a kill leaves is removed at the next start.
SENDING = "backup.part"

# 1 MiB at a time, made durable each 16 MiB: what is not on the disk yet would be in the way of the journal's fsyncs.
_STEP_PAGES = 256
_SYNC_STEPS = 16
# Between two steps the disk and the processor are the hub's for as long as the step took, at most for this.
_MAX_PAUSE_S = 0.1
# A trim between the two looks needs minutes to come again; a store that lost its journal stays that way.
_LOOKS = 5
_CHUNK_BYTES = 256 * 1024


class BackupError(HubError):
    """A copy could not be made or is not whole: nothing took its name."""

    reason = "backup"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a copy holds: bytes of its files, the last offset of its journal, how far its store is."""

    bytes: int
    head: int
    applied: int


def back_up(data: Path, target: Path, *, sleep: Callable[[float], None] = time.sleep) -> Backup:
    """Copy the files of a data folder into ``target``, also beside a running hub.

    Args:
        target: must not exist, or be an empty folder.
        sleep: called with seconds between steps.

    Raises:
        NotFoundError: ``data`` is no folder of a hub.
        ConflictError: there is something at ``target``.
        BackupError: a file could not be read or written, or the copy is damaged; there is no copy.
    """
    with folder_when_whole(target) as folder:
        copy_files(data, folder, sleep=sleep)
        return check(folder)


@contextmanager
def folder_when_whole(target: Path) -> Iterator[Path]:
    """Give a folder beside ``target`` that takes its name when the block ends well, and else is removed."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"{target} is not empty: a backup goes to a new folder")
    part = target.with_name(target.name + ".part")
    try:
        _remove(part)
        part.mkdir(parents=True, mode=0o700)
        try:
            yield part
            for name in _present(part):
                _fsync(part / name)
            _fsync(part)
            part.replace(target)
            _fsync(target.parent)
        finally:
            _remove(part)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"no backup in {target}: {error}") from error


def copy_files(data: Path, folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Copy the files as they are at one moment; see the module's theory of operation."""
    for name in FILES:
        if not (data / name).is_file():
            raise NotFoundError(f"{data / name}: no such file; --data must be the folder of a hub")
    with _seen_together(data) as (readings, journal):
        _copy(readings, folder / READINGS, sleep)
        _copy(journal, folder / JOURNAL, sleep)
    for name in _present(data)[2:]:
        with _naming(name), closing(_open(data / name)) as source:
            _copy(source, folder / name, sleep)


def check(folder: Path) -> Backup:
    """Read every page of a copy and compare store and journal.

    Raises:
        BackupError: a file is missing or damaged, or the store is ahead of the journal.
    """
    size = 0
    for name in _present(folder):
        path = folder / name
        if not path.is_file():
            raise BackupError(f"{name} is missing: the copy is not whole")
        size += path.stat().st_size
        with _naming(name), closing(_open(path, is_still=True)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise BackupError(f"{name} is damaged: {found}")
    with (
        closing(_open(folder / READINGS, is_still=True)) as readings,
        closing(_open(folder / JOURNAL, is_still=True)) as journal,
    ):
        applied, (_, head) = _applied(readings), _ends(journal)
    if applied > head:
        raise BackupError(f"the store is at {applied}, the journal ends at {head}: start the hub once, then again")
    return Backup(size, head, applied)


def send(folder: Path) -> Iterator[bytes]:
    """Yield the copy in ``folder`` as a tar archive."""
    for name in _present(folder):
        with (folder / name).open("rb") as file:
            info = tarfile.TarInfo(name)
            info.size, info.mode = os.fstat(file.fileno()).st_size, 0o600
            yield info.tobuf()
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
            yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def receive(archive: BinaryIO, target: Path) -> Backup:
    """Write what `send` yields into ``target``; raises as `back_up`."""
    with folder_when_whole(target) as folder:
        try:
            with tarfile.open(fileobj=archive, mode="r|") as tar:
                for member in tar:
                    # Names of ours and nothing else: an archive cannot say where its files go.
                    if member.name not in (*FILES, *FURTHER) or not member.isfile():
                        raise BackupError(f"the answer holds {member.name[:80]!r}: this is no backup of a hub")
                    source = cast("BinaryIO", tar.extractfile(member))
                    with _create(folder / member.name) as file:
                        shutil.copyfileobj(source, file, _CHUNK_BYTES)
            # The end of the archive comes before the end of the answer: to hang up now would look like giving up.
            while archive.read(_CHUNK_BYTES):
                pass
        except tarfile.TarError as error:
            raise BackupError(f"the answer is not whole: {error}") from error
        return check(folder)


def make_sendable(data: Path, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Copy the files into a folder inside ``data`` for `send`; return it. `remove_unsent` afterwards.

    Raises:
        ConflictError: another copy is being sent.
        BackupError: there is no copy.
    """
    folder = data / SENDING
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise ConflictError("another backup is under way: wait until it is done") from error
    except OSError as error:
        raise BackupError(f"no backup: {error}") from error
    try:
        copy_files(data, folder, sleep=sleep)
        check(folder)
    except (OSError, sqlite3.Error) as error:
        _remove(folder)
        raise BackupError(f"no backup: {error}; it needs as much free space as the hub's data takes") from error
    except BaseException:
        _remove(folder)
        raise
    return folder


def remove_unsent(data: Path) -> None:
    """Remove the copy that was made to be sent, and what a kill left of one."""
    # Whatever else somebody put there must not keep a hub from starting; the next backup says that it is in the way.
    with suppress(OSError):
        _remove(data / SENDING)


def _present(folder: Path) -> list[str]:
    """Return the names of a copy's files: those it must have, and those of the others that it has."""
    return [*FILES, *(name for name in FURTHER if (folder / name).is_file())]


@contextmanager
def _seen_together(data: Path) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Give store and journal, each inside a read transaction, as they were at nearly the same moment."""
    for look in range(1, _LOOKS + 1):
        with ExitStack() as stack:
            with _naming(READINGS):
                readings = stack.enter_context(closing(_open(data / READINGS)))
                readings.execute("BEGIN")
                applied = _applied(readings)
            with _naming(JOURNAL):
                journal = stack.enter_context(closing(_open(data / JOURNAL)))
                journal.execute("BEGIN")
                first, _ = _ends(journal)
            if first <= applied + 1 or look == _LOOKS:
                yield readings, journal
                return


def _copy(source: sqlite3.Connection, path: Path, sleep: Callable[[float], None]) -> None:
    """Copy the database as the source's transaction sees it, in steps between which others work."""
    _create(path).close()
    descriptor = os.open(path, os.O_RDWR)
    steps, began = 0, time.monotonic()

    def rest(status: int, remaining: int, total: int) -> None:
        nonlocal steps, began
        steps += 1
        if steps % _SYNC_STEPS == 0:
            os.fsync(descriptor)
        sleep(min(time.monotonic() - began, _MAX_PAUSE_S))
        began = time.monotonic()

    try:
        # The fsyncs are ours: those of SQLite would come once, at the end, all at a time.
        with _naming(path.name), closing(sqlite3.connect(path, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous=OFF")
            source.backup(target, pages=_STEP_PAGES, progress=rest)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BackupError(f"no backup: {name}: {error}") from error


def _open(path: Path, *, is_still: bool = False) -> sqlite3.Connection:
    """Open read-only; ``is_still``: nobody writes, so no file is made beside it."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + ("&immutable=1" if is_still else "")
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _applied(readings: sqlite3.Connection) -> int:
    return int(readings.execute("SELECT applied FROM progress").fetchone()[0])


def _ends(journal: sqlite3.Connection) -> tuple[int, int]:
    """Return the first offset of the journal and its last; (1, 0) when it is empty."""
    first = journal.execute('SELECT min(first_offset) FROM "commit"').fetchone()[0]
    last = journal.execute('SELECT first_offset + n - 1 FROM "commit" ORDER BY first_offset DESC LIMIT 1').fetchone()
    return first or 1, last[0] if last else 0


def _create(path: Path) -> BinaryIO:
    """Make a file that only its owner reads: it holds what the hub's own files hold."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove a folder of ours; what else lies in it stays, and the folder with it, which is then an error."""
    if not folder.is_dir():
        return
    for name in (*FILES, *FURTHER):
        for suffix in ("", "-wal", "-shm", "-journal"):
            (folder / (name + suffix)).unlink(missing_ok=True)
    folder.rmdir()
