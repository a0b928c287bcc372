"""What the journal says of a device's deliveries at one position: marks, losses, refusals, and what came since.

Owns: reading all of it in one transaction, for `hub.audit`. Place: after
`mark`, `ledger`, `catalog` and `record`, used by `journal.sqlite` and by the
command line on the files of a hub.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from hub.journal import catalog, ledger, mark, record
from hub.journal.base import JournalAccount, Losses
from hub.model import Kind, StreamKey

# Declared losses listed one by one in an answer, about 500 B each; the newest. All of them are counted.
GAPS_LISTED = 1000
# Frames that the store may be behind for the two ledgers still to be compared: reading their heads takes 0.2 s.
MAX_TAIL_FRAMES = 200_000


def read_account(
    connection: sqlite3.Connection,
    namespace: str,
    device: str | None,
    after: int,
    *,
    gaps_listed: int = GAPS_LISTED,
    max_tail_frames: int = MAX_TAIL_FRAMES,
) -> JournalAccount:
    """Return the account of a device, or of all; ``connection`` must be inside a transaction."""
    rows = mark.read_mark_rows(connection, namespace, device)
    return JournalAccount(
        head=_head(connection),
        marks=[row.mark() for row in rows],
        series=[s for s in catalog.read_series(connection) if s.namespace == namespace and device in (None, s.device)],
        gaps=ledger.read_gaps(connection, namespace, device, gaps_listed),
        losses=_losses(connection, namespace, device),
        are_gaps_whole=connection.execute("SELECT count(*) FROM gap").fetchone()[0] < ledger.GAPS_KEPT,
        rejections=ledger.read_rejections(connection, namespace, device),
        replays=ledger.read_replays(connection, namespace, device),
        tail=_tail(connection, {row.id: row.key for row in rows}, after, max_tail_frames),
    )


def _head(connection: sqlite3.Connection) -> int:
    row = connection.execute('SELECT first_offset + n - 1 FROM "commit" ORDER BY first_offset DESC LIMIT 1').fetchone()
    return 0 if row is None else int(row[0])


def _losses(connection: sqlite3.Connection, namespace: str, device: str | None) -> dict[StreamKey, list[Losses]]:
    found: dict[tuple[StreamKey, str], Losses] = {}
    # Summed here: a peer chooses the counts, and sum() of SQL fails beyond 64 bits.
    for name, stream, reason, count in connection.execute(
        "SELECT device, stream, reason, count FROM gap WHERE namespace = ?1 AND (?2 IS NULL OR device = ?2)",
        (namespace, device),
    ):
        key = StreamKey(namespace, name, stream)
        known = found.get((key, reason), Losses(reason, 0, 0))
        found[(key, reason)] = Losses(reason, known.count + (count or 0), known.unknown + (count is None))
    losses: dict[StreamKey, list[Losses]] = {}
    for (key, _), loss in found.items():
        losses.setdefault(key, []).append(loss)
    return losses


def _tail(
    connection: sqlite3.Connection, streams: dict[int, StreamKey], after: int, max_frames: int
) -> dict[StreamKey, int] | None:
    """Return the accepted readings of frames behind ``after``, by stream; None when those are too many or trimmed."""
    head = _head(connection)
    if head - after > max_frames:
        return None
    rows = connection.execute(
        """SELECT first_offset, n, body FROM "commit" WHERE first_offset + n > ?1 AND first_offset >=
        coalesce((SELECT max(first_offset) FROM "commit" WHERE first_offset <= ?1), 0) ORDER BY first_offset""",
        (after + 1,),
    )
    counts: Counter[StreamKey] = Counter()
    expected = after + 1
    for first, n, body in rows:
        if first > expected:
            return None
        _count(counts, streams, islice(record.records(body), max(after + 1 - first, 0), None))
        expected = first + n
    return dict(counts)


def _count(counts: Counter[StreamKey], streams: dict[int, StreamKey], records: Iterable[record.Record]) -> None:
    for entry in records:
        key = streams.get(entry.stream)
        if key is not None and entry.kind == Kind.BATCH:
            counts[key] += entry.readings
