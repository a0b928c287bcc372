"""One file of un-numbered readings: its name, its place among the positions, and a thinned copy of it.

Owns: `Segment`, file names, `rewrite`, `renew`. Place: after `segment` and `thinning`, before
`reading_log`, which says which files stand. Must not: decide what is thinned when.

    readings-<base>.log                 as recorded: it covers base … base + its size
    readings-<base>.copy                to take its place, written anew because its fsync failed; of no use to a start
    readings-<base>-<end>-<level>.log   thinned ``level`` times: it stands for base … end with fewer bytes
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from device_sdk import disk
from device_sdk.frozen import Frozen
from device_sdk.outbox import Entry
from device_sdk.segment import ReadingDecoder, Scan, encode_header, encode_record, is_header, seed_of

PREFIX, _SUFFIX = "readings-", ".log"
COPY_SUFFIX = ".copy"


class FileName(Frozen):
    """What the name of a file says; ``end`` is None for one as recorded."""

    base: int
    end: int | None = None
    level: int = 0

    def path_in(self, directory: Path) -> Path:
        """Return the file's path."""
        thinned = "" if self.end is None else f"-{self.end:020d}-{self.level}"
        return directory / f"{PREFIX}{self.base:020d}{thinned}{_SUFFIX}"

    def covers(self, other: FileName) -> bool:
        """Say whether this thinned file stands for the other one's readings."""
        return self.end is not None and self.base <= other.base < self.end and self.level > other.level


class Segment:
    """One file: its first position, the one behind its last, and how many of its readings are un-numbered.

    ``saved``: bytes that thinning took; positions do not close up. ``given_to``: readings with a
    given time lie before this position, 0 when there are none. ``first_ns``: time of its first
    reading where that is known.
    """

    __slots__ = ("base", "end", "first_ns", "given_to", "left", "level", "path", "saved")

    def __init__(self, path: Path, base: int, end: int, left: int = 0, *, level: int = 0, saved: int = 0) -> None:
        self.path = path
        self.base = base
        self.end = end
        self.left = left
        self.level = level
        self.saved = saved
        self.given_to = 0
        self.first_ns: int | None = None

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.base - self.saved

    @property
    def seed(self) -> int:
        """The CRC seed of its records."""
        return seed_of(self.base, self.level)

    @property
    def name(self) -> FileName:
        """What its name says."""
        return FileName(self.base, self.end, self.level) if self.level else FileName(self.base)


class Thinned(Frozen):
    """What `rewrite` made. ``dropped``: left out; ``missing``: could not be read, ``damage`` in so many places."""

    segment: Segment
    dropped: list[Entry]
    missing: int


def list_files(directory: Path) -> list[tuple[Path, FileName]]:
    """Return the files of readings in order of their positions; foreign names are left alone."""
    found = []
    for path in directory.glob(f"{PREFIX}*{_SUFFIX}"):
        parts = path.name[len(PREFIX) : -len(_SUFFIX)].split("-")
        if all(part.isascii() and part.isdigit() for part in parts) and len(parts) in (1, 3):
            found.append((path, FileName(*map(int, parts))))
    return sorted(found, key=lambda one: (one[1].base, -one[1].level))


def choose_standing(names: Collection[FileName], known: Collection[FileName]) -> set[FileName]:
    """Return which of the files that are there count; the others are to be deleted.

    A thinned file counts when the state knows it, and then what it stands for does not. One that the
    state does not know was left by a kill before its turn, so it goes, unless nothing it stands for is there:
    then the state is what was lost.
    """
    sure = {name for name in names if name.level and name in known}
    rest = {name for name in names if name not in sure and not any(one.covers(name) for one in sure)}
    return sure | {name for name in rest if not any(name.covers(other) for other in names)}


def rewrite(directory: Path, sources: Sequence[Segment], sync_file: Callable[[int], None]) -> Thinned | None:
    """Write one durable file with every second reading of each channel; None when there is nothing to leave out.

    The sources stay. Takes about 20 ms for two full files, plus two fsyncs; needs no lock.

    Raises:
        OSError: a source cannot be read, or the copy not written; nothing is left behind.
    """
    # Most devices never thin: they need not pay for its import.
    from device_sdk.thinning import survivors

    decoder = ReadingDecoder()
    payloads: list[bytes] = []
    entries: list[Entry | None] = []
    for source in sources:
        for payload, _ in Scan(source.path.read_bytes(), source.seed):
            entry = decoder.decode(payload)
            if not is_header(payload):
                payloads.append(payload)
                entries.append(entry)  # None: a kind of a later version, which is kept as it is
    readings = [entry for entry in entries if entry is not None]
    choice = iter(survivors([channel for channel, _, _ in readings]))
    stays = [entry is None or next(choice) for entry in entries]
    if all(stays):
        return None
    first, last = sources[0], sources[-1]
    name = FileName(first.base, last.end, max(source.level for source in sources) + 1)
    is_explicit = any(source.given_to for source in sources)
    seed = seed_of(name.base, name.level)
    data = encode_header(seed, decoder.last_ns, is_explicit) + b"".join(
        encode_record(seed, payload) for payload, stay in zip(payloads, stays, strict=True) if stay
    )
    _write_durably(name.path_in(directory), data, sync_file)
    kept = [entry for entry, stay in zip(entries, stays, strict=True) if stay and entry is not None]
    saved = last.end - first.base - len(data)
    segment = Segment(name.path_in(directory), first.base, last.end, len(kept), level=name.level, saved=saved)
    segment.given_to, segment.first_ns = segment.end if is_explicit else 0, kept[0][1]
    dropped = [entry for entry, stay in zip(entries, stays, strict=True) if entry is not None and not stay]
    return Thinned(segment, dropped, sum(source.left for source in sources) - len(readings))


def renew(segment: Segment, sync_file: Callable[[int], None]) -> Path | None:
    """Write a durable copy of a closed file beside it, to take its place; None when the file cannot be read.

    Raises:
        OSError: the copy cannot be written; nothing is left behind.
    """
    try:
        data = segment.path.read_bytes()
    except OSError:
        return None
    copy = segment.path.with_suffix(COPY_SUFFIX)
    _write_durably(copy, data, sync_file)
    return copy


def _write_durably(path: Path, data: bytes, sync_file: Callable[[int], None]) -> None:
    path.unlink(missing_ok=True)  # what a kill left of an earlier attempt
    fd = disk.open_append(path)
    try:
        disk.append(fd, data)
        sync_file(fd)
        disk.sync_directory(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
