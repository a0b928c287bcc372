"""What was declared lost, refused or set aside: the journal's side tables, for `hub audit`.

Owns: the tables gap, rejection, quarantine, replay; their caps; with `journal.posted`. Place: after
`journal.base`, used by `journal.sqlite`. Rows are written in the transaction
of the frames that cause them. Every text here may come from a peer.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from device_sdk.errors import Reason
from device_sdk.reading import INT_MAX
from hub.database import ReadPool, insert_rows
from hub.errors import NotFoundError
from hub.journal import posted
from hub.journal.base import GapEntry, PostedPart, QuarantineEntry, RejectionEntry, ReplayEntry
from hub.model import FOREIGN_STREAM, Frame, Kind, Replayed, StreamKey

SCHEMA = f"""
CREATE TABLE gap(
    offset INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    seq INTEGER NOT NULL, count INTEGER, reason TEXT NOT NULL, ranges TEXT NOT NULL, received_ns INTEGER NOT NULL);
CREATE INDEX gap_device ON gap(namespace, device);
CREATE TABLE rejection(
    namespace TEXT NOT NULL, device TEXT NOT NULL, channel TEXT NOT NULL, reason TEXT NOT NULL,
    count INTEGER NOT NULL, last_ns INTEGER NOT NULL, PRIMARY KEY(namespace, device, channel, reason)) WITHOUT ROWID;
CREATE TABLE quarantine(
    offset INTEGER PRIMARY KEY, namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    seq INTEGER NOT NULL, reason TEXT NOT NULL, received_ns INTEGER NOT NULL, body BLOB NOT NULL,
    count INTEGER NOT NULL DEFAULT 0, replayed_ns INTEGER);
CREATE TABLE replay(
    namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    frames INTEGER NOT NULL, readings INTEGER NOT NULL, PRIMARY KEY(namespace, device, stream)) WITHOUT ROWID;
{posted.SCHEMA}
"""
# From a journal's schema 1; how many readings its raw frames were refused with is not known any more.
UPGRADE_1 = """
ALTER TABLE quarantine ADD COLUMN count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN replayed_ns INTEGER;
CREATE TABLE replay(
    namespace TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
    frames INTEGER NOT NULL, readings INTEGER NOT NULL, PRIMARY KEY(namespace, device, stream)) WITHOUT ROWID
"""
UPGRADE_2 = posted.SCHEMA
_ENTRY = "offset, namespace, device, stream, seq, reason, received_ns, count, length(body), replayed_ns"
# Raw frames are kept to be replayed after a fix; a device that sends nothing else must not fill the disk.
QUARANTINE_ROWS = 10_000
QUARANTINE_BYTES = 64 * 1024 * 1024
# A device has at most 200 channels; one that invents names shares the entry OTHER beyond this.
REJECTIONS_PER_DEVICE = 500
OTHER = "…"
# Declared losses of the whole hub that are itemised; older ones stay in the marks' counters.
GAPS_KEPT = 100_000
_DEVICES_CACHED = 1000
_MAX_TEXT = 300


class Ledger:
    """Writes the side tables on the writer's connection, inside its transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        quarantine_rows: int = QUARANTINE_ROWS,
        quarantine_bytes: int = QUARANTINE_BYTES,
        gaps_kept: int = GAPS_KEPT,
    ) -> None:
        self._connection = connection
        self._gaps_kept = gaps_kept
        self._quarantine_rows = quarantine_rows
        self._quarantine_bytes = quarantine_bytes
        self._reasons: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self._quarantined: tuple[int, int] | None = None
        # Devices of which readings were refused: in this transaction, and since somebody took note. How often a commit
        # wrote into the tables.
        self._refusing: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._has_written = False
        self.declared = 0

    def forget(self) -> None:
        """Drop what is remembered of the tables: call after a rollback."""
        self._reasons.clear()
        self._quarantined = None
        self._refusing.clear()
        self._has_written = False

    def keep(self) -> None:
        """Take over what was written: call after the commit."""
        if self._has_written:
            self._refused |= self._refusing
            self._refusing.clear()
            self._has_written = False
            self.declared += 1

    def take_refused(self) -> set[tuple[str, str]]:
        """Return and forget of which devices readings were refused; not while `keep` runs."""
        refused, self._refused = self._refused, set()
        return refused

    def write(self, frames: Sequence[Frame], first_offset: int) -> None:
        """Write what these frames declare; ``frames[i]`` gets offset ``first_offset + i``."""
        self._has_written = True
        rejections: list[Frame] = []
        for offset, frame in enumerate(frames, first_offset):
            if frame.kind is Kind.GAP:
                self._write_gap(frame, offset)
            elif frame.kind is Kind.QUARANTINE:
                self._write_quarantine(frame, offset)
            if frame.replayed is not None:
                self._write_replay(frame, frame.replayed)
            if frame.rejected_count:
                rejections.append(frame)
        if rejections:
            self._write_rejections(rejections)

    def cap_gaps(self) -> None:
        """Delete the oldest declared losses beyond the cap: called by trimming, not by each commit."""
        self._connection.execute(
            "DELETE FROM gap WHERE offset <= (SELECT offset FROM gap ORDER BY offset DESC LIMIT 1 OFFSET ?)",
            (self._gaps_kept,),
        )

    def _write_gap(self, frame: Frame, offset: int) -> None:
        count, ranges = _gap_details(frame.body)
        self._connection.execute(
            "INSERT INTO gap VALUES (?,?,?,?,?,?,?,?,?)",
            (offset, *frame.key, frame.seq, count, text(frame.reason), json.dumps(ranges), frame.received_ns),
        )

    def _write_rejections(self, frames: Sequence[Frame]) -> None:
        counts: Counter[tuple[str, str, str, str]] = Counter()
        for frame in frames:
            namespace, device, _ = frame.key
            self._refusing.add((namespace, device))
            for rejection in frame.rejected:
                counts[(namespace, device, *self._entry(namespace, device, rejection.channel, rejection.reason))] += 1
            rest = frame.rejected_count - len(frame.rejected)
            if rest > 0:
                # Whole frames, and readings beyond those an ack names one by one.
                reason = frame.reason or "not_itemised"
                if frame.kind is Kind.QUARANTINE:
                    # What is wrong with a foreign message is words of its decoder, with numbers and names in them.
                    is_foreign = frame.key.stream == FOREIGN_STREAM
                    reason = Reason.MALFORMED if is_foreign else reason.partition(":")[0]
                counts[(namespace, device, *self._entry(namespace, device, "", reason))] += rest
        last_ns = frames[-1].received_ns
        flat: list[Any] = []
        for key, count in counts.items():
            flat += (*key, min(count, INT_MAX), last_ns)
        insert_rows(
            self._connection, "INSERT INTO rejection", 6, flat,
            # min() of a sum that overflows would be a float: count what still fits.
            f"""ON CONFLICT DO UPDATE SET last_ns = excluded.last_ns,
            count = count + min(excluded.count, {INT_MAX} - count)""",
        )  # fmt: skip

    def _entry(self, namespace: str, device: str, channel: str, reason: str) -> tuple[str, str]:
        """Return (channel, reason) to count under: the caller's, or OTHER when the device has too many."""
        known = self._reasons.get((namespace, device))
        if known is None:
            if len(self._reasons) > _DEVICES_CACHED:
                self._reasons.clear()
            rows = self._connection.execute(
                "SELECT channel, reason FROM rejection WHERE namespace = ? AND device = ?", (namespace, device)
            )
            known = self._reasons[(namespace, device)] = set(rows)
        entry = (text(channel), text(reason))
        if entry in known:
            return entry
        if len(known) >= REJECTIONS_PER_DEVICE:
            return (OTHER, entry[1])
        known.add(entry)
        return entry

    def _write_replay(self, frame: Frame, replayed: Replayed) -> None:
        """Count the quarantined frame as replayed, in the transaction of the frame that carries its readings."""
        namespace, device, _ = frame.key
        # Nothing to mark when newer quarantined frames pushed it out meanwhile.
        self._connection.execute(
            "UPDATE quarantine SET replayed_ns = ? WHERE offset = ?", (replayed.time_ns, replayed.offset)
        )
        self._connection.execute(
            """INSERT INTO replay VALUES (?1,?2,?3,1,?4) ON CONFLICT DO UPDATE SET frames = frames + 1,
            readings = readings + min(excluded.readings, ?5 - readings)""",
            (namespace, replayed.device or device, replayed.stream, replayed.readings, INT_MAX),
        )

    def _write_quarantine(self, frame: Frame, offset: int) -> None:
        """Add a raw frame, then delete the oldest until rows and bytes are within their caps."""
        if self._quarantined is None:
            self._quarantined = self._connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM quarantine"
            ).fetchone()
        rows, size = self._quarantined
        rows, size = rows + 1, size + len(frame.body)
        self._connection.execute(
            "INSERT INTO quarantine VALUES (?,?,?,?,?,?,?,?,?,NULL)",
            (
                offset, *frame.key, frame.seq, text(frame.reason), frame.received_ns, frame.body,
                min(frame.rejected_count, INT_MAX),
            ),
        )  # fmt: skip
        while rows > 1 and (rows > self._quarantine_rows or size > self._quarantine_bytes):
            oldest, body_bytes = self._connection.execute(
                "SELECT offset, length(body) FROM quarantine ORDER BY offset LIMIT 1"
            ).fetchone()
            self._connection.execute("DELETE FROM quarantine WHERE offset = ?", (oldest,))
            rows, size = rows - 1, size - body_bytes
        self._quarantined = (rows, size)


class LedgerReads:
    """What a journal answers of the side tables, from connections of readers; any thread."""

    _readers: ReadPool

    def gaps(self, namespace: str, device: str | None = None) -> list[GapEntry]:
        """Return declared losses, oldest first."""
        with self._readers.connection() as connection:
            return read_gaps(connection, namespace, device)

    def gaps_behind(self, offset: int, limit: int) -> list[tuple[int, GapEntry]]:
        """Return declared losses behind an offset with theirs, in order, of all namespaces."""
        with self._readers.connection() as connection:
            return read_gaps_behind(connection, offset, limit)

    def refusing(self) -> set[tuple[str, str]]:
        """Return (namespace, device) of which readings are counted as refused."""
        with self._readers.connection() as connection:
            return read_refusing(connection)

    def rejections(self, namespace: str, device: str | None = None) -> list[RejectionEntry]:
        """Return the summary of refused readings."""
        with self._readers.connection() as connection:
            return read_rejections(connection, namespace, device)

    def quarantine(self, namespace: str, device: str | None = None) -> list[QuarantineEntry]:
        """Return the quarantined frames that are still kept, oldest first."""
        with self._readers.connection() as connection:
            return read_quarantine(connection, namespace, device)

    def quarantined(self, namespace: str, offset: int) -> tuple[QuarantineEntry, bytes]:
        """Return one quarantined frame and its bytes; see `Journal.quarantined`."""
        with self._readers.connection() as connection:
            return read_quarantined(connection, namespace, offset)

    def replays(self, namespace: str, device: str | None = None) -> dict[StreamKey, ReplayEntry]:
        """Return how much of each stream's quarantine was replayed."""
        with self._readers.connection() as connection:
            return read_replays(connection, namespace, device)

    def posted(self, key: bytes) -> dict[int, PostedPart]:
        """Return what is stored of a request that named itself; see `Journal.posted`."""
        with self._readers.connection() as connection:
            return posted.read_posted(connection, key)


def read_gaps(
    connection: sqlite3.Connection, namespace: str, device: str | None, limit: int = GAPS_KEPT
) -> list[GapEntry]:
    """Return declared losses, oldest first; the newest ``limit`` of them."""
    rows = connection.execute(
        """SELECT namespace, device, stream, seq, count, reason, ranges, received_ns FROM (SELECT * FROM gap
        WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2) ORDER BY offset DESC LIMIT ?3) ORDER BY offset""",
        (namespace, device, limit),
    )
    return [_gap(row) for row in rows]


def read_gaps_behind(connection: sqlite3.Connection, offset: int, limit: int) -> list[tuple[int, GapEntry]]:
    """Return (offset, declared loss) behind an offset, in order, of all namespaces."""
    rows = connection.execute(
        """SELECT namespace, device, stream, seq, count, reason, ranges, received_ns, offset FROM gap
        WHERE offset > ? ORDER BY offset LIMIT ?""",
        (offset, limit),
    )
    return [(row[-1], _gap(row)) for row in rows]


def read_refusing(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return (namespace, device) of which readings are counted as refused."""
    return set(connection.execute("SELECT DISTINCT namespace, device FROM rejection"))


def read_rejections(connection: sqlite3.Connection, namespace: str, device: str | None) -> list[RejectionEntry]:
    """Return the summary, by device, channel and reason."""
    rows = connection.execute(
        "SELECT * FROM rejection WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2) ORDER BY 1, 2, 3, 4",
        (namespace, device),
    )
    return [RejectionEntry(*row) for row in rows]


def read_quarantine(connection: sqlite3.Connection, namespace: str, device: str | None) -> list[QuarantineEntry]:
    """Return the raw frames still kept, oldest first."""
    rows = connection.execute(
        f"""SELECT {_ENTRY} FROM quarantine
        WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2) ORDER BY offset""",  # noqa: S608
        (namespace, device),
    )
    return [_entry(row) for row in rows]


def read_quarantined(connection: sqlite3.Connection, namespace: str, offset: int) -> tuple[QuarantineEntry, bytes]:
    """Return one raw frame with its bytes.

    Raises:
        NotFoundError: there is none at that offset in the namespace.
    """
    row = connection.execute(
        f"SELECT {_ENTRY}, body FROM quarantine WHERE namespace = ? AND offset = ?",  # noqa: S608
        (namespace, offset),
    ).fetchone()
    if row is None:
        raise no_quarantined(offset)
    return _entry(row[:-1]), row[-1]


def read_replays(connection: sqlite3.Connection, namespace: str, device: str | None) -> dict[StreamKey, ReplayEntry]:
    """Return how much of each stream's quarantine was replayed."""
    rows = connection.execute(
        """SELECT namespace, device, stream, frames, readings FROM replay
        WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2)""",
        (namespace, device),
    )
    return {StreamKey(*row[:3]): ReplayEntry(*row[3:]) for row in rows}


def no_quarantined(offset: int) -> NotFoundError:
    """Return the error for an offset at which no raw frame is kept."""
    return NotFoundError(f"no quarantined frame {offset}; see them with: hub quarantine ls")


def _gap(row: tuple[Any, ...]) -> GapEntry:
    ranges = {channel: (first, last) for channel, (first, last) in json.loads(row[6]).items()}
    return GapEntry(StreamKey(*row[:3]), row[3], row[4], row[5], ranges, row[7])


def _entry(row: tuple[Any, ...]) -> QuarantineEntry:
    return QuarantineEntry(row[0], StreamKey(*row[1:4]), *row[4:])


def _gap_details(body: bytes) -> tuple[int | None, dict[str, tuple[int, int]]]:
    """Return count and ranges of a gap's JSON; (None, {}) of anything else, because a loss is never refused."""
    try:
        obj = json.loads(body)
        count = obj.get("count")
        ranges = {str(c): (int(first), int(last)) for c, (first, last) in obj.get("ranges", {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None, {}
    return (min(count, INT_MAX) if isinstance(count, int) else None), ranges


def text(found: str) -> str:
    """Return text that SQLite can hold: a peer may send a lone surrogate, or a book."""
    return str(found)[:_MAX_TEXT].encode("utf-8", "replace").decode()
