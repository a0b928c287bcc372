"""Plain rows into column chunks: a second file beside the rows, compared, that takes their name.

Owns: the migration of a store's file. Place: above `store.columns` and `store.embedded`; `store.opening` imports it for
a hub that is told to keep columns. Must not: touch the rows before the new file is whole.

Theory of operation. A migration writes a second file beside the rows, group by group, checks that it holds as many
readings of each series, and lets it take the rows' name as a renewed file does. Until then the rows count and nothing
of them is changed: after a kill it begins anew. A reading is in the new file with its value, time and receive time;
counters and position are those of the rows.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from hub.database import FULL as SYNC_FULL
from hub.database import open_database
from hub.errors import StoreError
from hub.renewal import take_place
from hub.store import column_file
from hub.store.arrivals import to_second
from hub.store.base import Row
from hub.store.chunk import Readings, to_values
from hub.store.embedded import EmbeddedStore
from hub.store.rollup_table import COUNTERS
from hub.store.sealing import Sealing, Unsealed

_log = logging.getLogger("hub.store.migration")

# Of these series at a time a page each is in memory: 40 MB. Channels of a device are neighbours and share their times.
_GROUP = 8
_PAGE_ROWS = 16_384
_NEVER = 2**63 - 1


def migrate(path: Path, *, on_page: Callable[[], None] = lambda: None) -> None:
    """Turn a file of rows, which nothing may have open, into one of columns.

    Args:
        on_page: called between two transactions.

    Raises:
        StoreError, OSError, sqlite3.Error: it could not be done; the rows are as they were, and count unless
            `hub.renewal.is_replaced`.
    """
    fresh = path.with_name(path.name + "-columns")
    _remove(fresh)
    try:
        with closing(EmbeddedStore(path)) as rows:
            _log.info("readings become column chunks rows=%d", rows.statistics().rows)
            with closing(_create(fresh)) as target:
                _copy(rows, target, on_page)
                _empty_log(target)
        _finish(fresh, path)
    except BaseException:
        _remove(fresh)
        raise
    take_place(path, fresh)
    _log.info("readings are column chunks bytes=%d", path.stat().st_size)


def _create(path: Path) -> sqlite3.Connection:
    return open_database(path, column_file.SCHEMA, column_file.SCHEMA_VERSION, synchronous=SYNC_FULL, error=StoreError)


def _copy(rows: EmbeddedStore, target: sqlite3.Connection, on_page: Callable[[], None]) -> None:
    numbers = list(range(1, rows.largest_series() + 1))
    account = rows.account(numbers)
    total, done = sum(c.rows for c in account.series), 0
    for at in range(0, len(account.series), _GROUP):
        group = account.series[at : at + _GROUP]
        _copy_group(rows, target, [c.series for c in group], on_page)
        before, done = done, done + sum(c.rows for c in group)
        if done * 10 // max(total, 1) > before * 10 // max(total, 1):
            _log.info("readings become column chunks percent=%d", done * 100 // total)
    copied = dict(target.execute("SELECT series, sum(n) FROM chunk GROUP BY series").fetchall())
    # The sums, and what the counters say of them, as they are: the same tables.
    target.execute("ATTACH ? AS rows", (str(rows.path),))
    target.execute("BEGIN IMMEDIATE")
    target.execute("DELETE FROM counter")
    for c in account.series:
        if copied.get(c.series, 0) != c.rows:
            raise StoreError(f"series {c.series}: {copied.get(c.series, 0)} of {c.rows} readings were copied")
    target.execute(f"INSERT INTO counter({COUNTERS}) SELECT {COUNTERS} FROM rows.counter")  # noqa: S608
    target.execute("INSERT INTO rollup SELECT * FROM rows.rollup")
    keeps_all = "(SELECT keeps_all FROM rows.progress)"
    target.execute(f"UPDATE progress SET applied = ?, keeps_all = {keeps_all}", (account.applied,))  # noqa: S608
    target.execute("COMMIT")
    target.execute("DETACH rows")


def _copy_group(
    rows: EmbeddedStore, target: sqlite3.Connection, series: Sequence[int], on_page: Callable[[], None]
) -> None:
    begins = dict.fromkeys(series, -_NEVER - 1)
    while begins:
        target.execute("BEGIN IMMEDIATE")
        work = Sealing(target, 0)
        for number, begin in list(begins.items()):
            page = rows.read([number], begin, _NEVER, _PAGE_ROWS, received=True)
            if page:
                work.add(number, Unsealed(_readings(page)))
            if len(page) < _PAGE_ROWS:
                del begins[number]
            else:
                begins[number] = page[-1].time_ns + 1
        work.write()
        target.execute("COMMIT")
        on_page()


def _readings(page: Sequence[Row]) -> Readings:
    seconds = [0 if row.received_ns is None else to_second(row.received_ns) for row in page]
    times = np.array([row.time_ns for row in page], np.int64)
    return Readings(times, np.array(seconds, np.uint32), to_values([row.value for row in page]))


def _empty_log(target: sqlite3.Connection) -> None:
    # Only the file takes the name, not its log; closing would not say that there was no room, or a reader in the way.
    _, logged, moved = target.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if moved != logged:
        raise StoreError(f"{moved} of {logged} pages of the new file's log are in it: something else has it open")


def _finish(fresh: Path, path: Path) -> None:
    os.chmod(fresh, path.stat().st_mode & 0o777)
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
