"""The table of rollups, inside the caller's transaction: what of a series was dropped, and what is kept of it.

Owns: the table ``rollup``, the columns of ``counter`` that say what was dropped. Place: after `store.rollup`, used by
both embedded stores, which own the transactions: sums are written in that which deletes the readings, so at any instant
there are either the readings or their sums. Must not: look at raw readings.

Damaged sums must not hold up what comes after them. When something would be added to them they are set aside, with
their bytes, as of a step below zero, and said; what is added begins anew. Until then a question about them is an error.
"""

import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from hub.store.accumulator import check_buckets
from hub.store.base import Bucket
from hub.store.rollup import (
    HOUR_NS,
    MINUTE_NS,
    SPANS,
    DamagedSumsError,
    Overdue,
    Sums,
    added,
    block_of,
    by_minute,
    check_answerable,
    coarser,
    combined,
    decode,
    encode,
)

_log = logging.getLogger("hub.store.rollup_table")

# ``raw_from_ns``: readings from this time on are there, those before it were dropped; null: none was. ``merged``: of
# ``expired``, those that came when others of their time were dropped already.
COUNTER_COLUMNS = """expired INTEGER NOT NULL DEFAULT 0, merged INTEGER NOT NULL DEFAULT 0, raw_from_ns INTEGER"""
# Of ``progress``. A file that an older hub made says 1: that hub promised to keep everything.
KEEPS_ALL = "keeps_all INTEGER NOT NULL DEFAULT 0"
# Of the ledger, in the files of both stores.
COUNTERS = "series, accepted, superseded, erased, late, expired, merged, raw_from_ns"
SCHEMA = """
CREATE TABLE rollup(series INTEGER NOT NULL, step_ns INTEGER NOT NULL, block INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(series, step_ns, block))
"""
UPGRADE = f"""
ALTER TABLE counter ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counter ADD COLUMN merged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counter ADD COLUMN raw_from_ns INTEGER;
ALTER TABLE progress ADD COLUMN keeps_all INTEGER NOT NULL DEFAULT 1;
{SCHEMA}
"""
# Readings that one transaction drops at most, about: 50 to 150 ms, in which no write is taken.
DROPPED_AT_ONCE = 5000
# What takes as long as to drop a reading: a sum written anew with its block. And what each series takes beside them.
_SUMS_A_READING = 5
_READINGS_A_SERIES = 20
# Blocks that one transaction deletes: about 2 MB.
_BLOCKS_AT_ONCE = 256


def drop_border(before_ns: int) -> int:
    """Return up to where readings may be dropped: a whole hour, so that nobody reads a rest of one for long."""
    return max(before_ns // HOUR_NS * HOUR_NS, -(2**63))


def raw_from(connection: sqlite3.Connection, series: Sequence[int] | None = None) -> dict[int, int]:
    """Return series → from when its readings are there, of those of which some were dropped."""
    chosen = "" if series is None else "AND series IN (SELECT value FROM json_each(?))"
    values = () if series is None else (json.dumps(list(series)),)
    return dict(
        connection.execute(
            f"SELECT series, raw_from_ns FROM counter WHERE raw_from_ns IS NOT NULL {chosen}",  # noqa: S608
            values,
        ).fetchall()
    )


def note_dropped(connection: sqlite3.Connection, series: int, readings: int, from_ns: int) -> None:
    """Count what was dropped, and say from when readings are there."""
    connection.execute(
        "UPDATE counter SET expired = expired + ?, raw_from_ns = ? WHERE series = ?", (readings, from_ns, series)
    )


def merge_overdue(connection: sqlite3.Connection, overdue: Mapping[int, Overdue]) -> None:
    """Add late readings to the sums of their time, and count them."""
    for series, found in overdue.items():
        minutes = by_minute(found.readings)
        add_minutes(connection, series, minutes)
        connection.execute(
            """UPDATE counter SET accepted = accepted + ?1, expired = expired + ?1, late = late + ?2,
            merged = merged + ?3 WHERE series = ?4""",
            (len(found.readings), found.late, sum(minute.readings for minute in minutes), series),
        )


def add_minutes(connection: sqlite3.Connection, series: int, minutes: Sequence[Sums]) -> int:
    """Add to the sums of a series, by the minute and by the hour; return how many were written. Minutes ascend."""
    written = 0
    for step_ns, sums in ((MINUTE_NS, minutes), (HOUR_NS, coarser(minutes, HOUR_NS))):
        blocks: dict[int, list[Sums]] = defaultdict(list)
        for one in sums:
            blocks[block_of(one.start_ns, step_ns)].append(one)
        for block, fresh in blocks.items():
            known = {one.start_ns: one for one in _to_add_to(connection, series, step_ns, block)}
            for one in fresh:
                before = known.get(one.start_ns)
                known[one.start_ns] = one if before is None else added(before, one)
            written += len(known)
            connection.execute(
                "INSERT OR REPLACE INTO rollup VALUES (?, ?, ?, ?)",
                (series, step_ns, block, encode([known[start_ns] for start_ns in sorted(known)], step_ns)),
            )
    return written


def cost_of(readings: int, sums: int) -> int:
    """Return what dropping readings of one series costs, of `DROPPED_AT_ONCE`: a few of each series cost more."""
    return readings + sums // _SUMS_A_READING + _READINGS_A_SERIES


def buckets_of(
    connection: sqlite3.Connection,
    series: int,
    start_ns: int,
    end_ns: int,
    step_ns: int,
    origin_ns: int,
    most: int | None = None,
) -> list[Sums]:
    """Return the sums of dropped readings by bucket; a minute counts where it begins.

    Args:
        step_ns, origin_ns: multiples of a minute; of an hour, and whole hours need not be added from their minutes.
        most: buckets; more are an error before they are in memory.
    """
    if step_ns % HOUR_NS or origin_ns % HOUR_NS:
        return coarser(_sums(connection, series, MINUTE_NS, start_ns, end_ns), step_ns, origin_ns, most=most)
    first, last = -(-start_ns // HOUR_NS) * HOUR_NS, end_ns // HOUR_NS * HOUR_NS
    if first >= last:
        return coarser(_sums(connection, series, MINUTE_NS, start_ns, end_ns), step_ns, origin_ns, most=most)

    def parts() -> Iterator[Sums]:
        yield from _sums(connection, series, MINUTE_NS, start_ns, first)
        yield from _sums(connection, series, HOUR_NS, first, last)
        yield from _sums(connection, series, MINUTE_NS, last, end_ns)

    return coarser(parts(), step_ns, origin_ns, most=most)


def add_dropped(
    connection: sqlite3.Connection,
    raw: Iterable[Bucket],
    dropped: Collection[int],
    start_ns: int,
    end_ns: int,
    step_ns: int,
    origin_ns: int,
    functions: Sequence[str],
    max_buckets: int,
) -> list[Bucket]:
    """Return raw buckets that say `rollup.NEEDED` with what was dropped of some series, as they were asked for."""
    by_series: dict[int, list[Bucket]] = defaultdict(list)
    for bucket in raw:
        by_series[bucket.series].append(bucket)
    answer: list[Bucket] = []
    for number in by_series.keys() | set(dropped):
        sums: list[Sums] = []
        if number in dropped:
            sums = buckets_of(connection, number, start_ns, end_ns, step_ns, origin_ns, max_buckets)
        answer += combined(number, sums, by_series.get(number, ()), functions)
        check_buckets(len(answer), max_buckets)
    answer.sort(key=lambda bucket: (bucket.start_ns, bucket.series))
    return answer


def dropped_in(
    connection: sqlite3.Connection,
    series: Sequence[int],
    start_ns: int,
    step_ns: int,
    origin_ns: int,
    functions: Sequence[str],
) -> list[int]:
    """Return those of the series of which readings behind a time were dropped.

    Raises:
        BadRequestError: there are such, and no sum says what is asked for.
    """
    found = {number: since for number, since in raw_from(connection, series).items() if start_ns < since}
    if found:
        check_answerable(max(found.values()), step_ns, origin_ns, functions)
    return sorted(found)


def day_of_sums(
    connection: sqlite3.Connection, series: Sequence[int], start_ns: int, end_ns: int, descending: bool
) -> int | None:
    """Return the start of a day, as `RetainingStore.day_of_sums` says; no block is unpacked for it."""
    span_ns, found = SPANS[MINUTE_NS], "max" if descending else "min"
    if start_ns >= end_ns:
        return None
    (block,) = connection.execute(
        f"""SELECT {found}(block) FROM (SELECT (SELECT {found}(block) FROM rollup
        WHERE series = s.value AND step_ns = ?2 AND block BETWEEN ?3 AND ?4) AS block FROM json_each(?1) s)""",  # noqa: S608
        (json.dumps(list(series)), MINUTE_NS, start_ns // span_ns, (end_ns - 1) // span_ns),
    ).fetchone()
    return None if block is None else int(block) * span_ns


def delete_blocks(connection: sqlite3.Connection, series: int) -> int:
    """Delete some blocks of a series, and what its counter says of dropped readings with the last; return how many."""
    deleted = connection.execute(
        "DELETE FROM rollup WHERE rowid IN (SELECT rowid FROM rollup WHERE series = ? LIMIT ?)",
        (series, _BLOCKS_AT_ONCE),
    ).rowcount
    if deleted < _BLOCKS_AT_ONCE:
        connection.execute("UPDATE counter SET raw_from_ns = NULL WHERE series = ?", (series,))
    return deleted


def delete_old_blocks(connection: sqlite3.Connection, series: Sequence[int], before_ns: int) -> int:
    """Delete some blocks of series that end before a time; return how many.

    Hours and minutes go together, thirty days at once: a question for hours asks minutes at its ends.
    """
    border_ns = before_ns // SPANS[HOUR_NS] * SPANS[HOUR_NS]
    # Step by step: an OR of them would look at every block of the series.
    upto = [[sign * step_ns, border_ns // span_ns] for step_ns, span_ns in SPANS.items() for sign in (1, -1)]
    return connection.execute(
        """DELETE FROM rollup WHERE rowid IN (SELECT r.rowid FROM json_each(?) s CROSS JOIN json_each(?) k
        CROSS JOIN rollup r ON r.series = s.value AND r.step_ns = json_extract(k.value, '$[0]')
        AND r.block < json_extract(k.value, '$[1]') LIMIT ?)""",
        (json.dumps(list(series)), json.dumps(upto), _BLOCKS_AT_ONCE),
    ).rowcount


def keeps_all(connection: sqlite3.Connection) -> bool:
    """Tell whether an older hub made the file, which dropped nothing."""
    return bool(connection.execute("SELECT keeps_all FROM progress").fetchone()[0])


def _to_add_to(connection: sqlite3.Connection, series: int, step_ns: int, block: int) -> list[Sums]:
    """Return the sums of a block, none when there are none, or only damaged ones, which are set aside."""
    place = (series, step_ns, block)
    row = connection.execute("SELECT body FROM rollup WHERE series = ? AND step_ns = ? AND block = ?", place).fetchone()
    try:
        return [] if row is None else decode(row[0], block, step_ns)
    except DamagedSumsError as error:
        _log.error("sums set aside series=%d step=%d block=%d reason=%s", series, step_ns, block, error)
        connection.execute("INSERT OR REPLACE INTO rollup VALUES (?, ?, ?, ?)", (series, -step_ns, block, row[0]))
        return []


def _sums(connection: sqlite3.Connection, series: int, step_ns: int, start_ns: int, end_ns: int) -> Iterator[Sums]:
    """Yield the sums that begin in [start_ns, end_ns), in order."""
    if start_ns >= end_ns:
        return
    rows = connection.execute(
        "SELECT block, body FROM rollup WHERE series = ? AND step_ns = ? AND block BETWEEN ? AND ? ORDER BY block",
        (series, step_ns, start_ns // SPANS[step_ns], (end_ns - 1) // SPANS[step_ns]),
    )
    for block, body in rows:
        for one in decode(body, block, step_ns):
            if start_ns <= one.start_ns < end_ns:
                yield one
