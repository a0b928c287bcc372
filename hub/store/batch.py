"""One write of the embedded store: frames → rows, counters and receipts, inside the caller's transaction.

Owns: what is new, what is older, what is late, and how it is written. Place:
after `store.base`, used by `store.embedded`, which owns tables and transactions.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from device_sdk.reading import Value
from hub.database import insert_rows
from hub.model import LATE_TOLERANCE_NS, Frame
from hub.store.rollup import Overdue
from hub.store.rollup_table import merge_overdue

# Receive times are kept to this: a series that comes faster writes one a second, which costs a write nothing to speak
# of; one in each row cost 13 % of a write's time and 10 of 29 bytes.
RECEIPT_NS = 10**9
# A bool in SQLite: one byte, so that it is no int.
FALSE, TRUE = b"\x00", b"\x01"
_NEWEST_RECEIPT = "ON CONFLICT DO UPDATE SET received_ns = excluded.received_ns"


class Batch:
    """The readings of one `write`, sorted into those that are certainly new and those to look up.

    A reading later than all of its series is new: it is inserted without a look-up. The others ("older") may
    supersede a stored one, or one of this batch that came before them; so they are written after the new ones,
    and among themselves the last wins. Only among those can a reading be late, so counting them costs the others
    nothing. Those of a time that was dropped go to the sums of that time.

    Args:
        raw_from: series → from when its readings are there, of those of which some were dropped.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        newest: dict[int, int],
        opened: dict[int, int],
        raw_from: Mapping[int, int] | None = None,
    ) -> None:
        self.newest: dict[int, int] = {}
        self.opened: dict[int, int] = {}
        self._connection = connection
        self._known_newest = newest
        self._known_opened = opened
        self._raw_from = raw_from or {}
        self._overdue: dict[int, Overdue] = {}
        self._new: dict[int, tuple[list[int], list[Any]]] = {}
        self._receipts: list[int] = []
        self._older: dict[tuple[int, int], tuple[Any, int]] = {}
        self._accepted: dict[int, int] = {}
        self._superseded: dict[int, int] = {}
        self._late: dict[int, int] = {}

    def add(self, frame: Frame) -> None:
        """Take the readings of the next frame."""
        t0, tick, received_ns = frame.t0, frame.tick, frame.received_ns
        for series_column in frame.columns:
            series, column = series_column.series.id, series_column.column
            times = [t0 + dt * tick for dt in column.dt]
            plain: Sequence[Value] = column.values
            raw_from_ns = self._raw_from.get(series)
            if raw_from_ns is not None and min(times) < raw_from_ns:
                times, plain = self._without_overdue(series, times, plain, raw_from_ns)
            values = _to_sql(plain)
            self._accepted[series] = self._accepted.get(series, 0) + len(times)
            if not times:
                continue
            newest = self._newest_of(series)
            if (newest is None or times[0] > newest) and _ascends(times):
                kept = self._new.setdefault(series, ([], []))
                kept[0].extend(times)
                kept[1].extend(values)
                self.newest[series] = times[-1]
                opened = self.opened.get(series) or self._known_opened.get(series, 0)
                if not 0 <= received_ns - opened < RECEIPT_NS:
                    self.opened[series] = received_ns
                    self._receipts += (series, times[0], received_ns)
            else:
                self._add_older(series, times, values, received_ns)

    def write(self) -> None:
        """Write everything inside the open transaction; by series, so that neighbours in the file come together."""
        flat: list[Any] = []
        for series in sorted(self._new):
            times, values = self._new[series]
            flat += chain.from_iterable(zip([series] * len(times), times, values, strict=True))
        insert_rows(self._connection, "INSERT INTO reading", 3, flat)
        insert_rows(self._connection, "INSERT INTO receipt", 3, self._receipts, _NEWEST_RECEIPT)
        if self._older:
            self._write_older()
        counts: list[int] = []
        for series, accepted in self._accepted.items():
            counts += (series, accepted, self._superseded.get(series, 0), self._late.get(series, 0))
        insert_rows(
            self._connection, "INSERT INTO counter(series, accepted, superseded, late)", 4, counts,
            """ON CONFLICT DO UPDATE SET accepted = accepted + excluded.accepted,
            superseded = superseded + excluded.superseded, late = late + excluded.late""",
        )  # fmt: skip
        # Behind the counters: there is a row for each of these series.
        merge_overdue(self._connection, self._overdue)

    def _without_overdue(
        self, series: int, times: list[int], values: Sequence[Value], raw_from_ns: int
    ) -> tuple[list[int], list[Value]]:
        """Set aside what comes when its time is dropped; return the rest."""
        overdue = self._overdue.setdefault(series, Overdue([]))
        newest = self._newest_of(series)
        assert newest is not None, "the newest reading of a series is never dropped"
        edge = newest - LATE_TOLERANCE_NS
        rest: tuple[list[int], list[Value]] = ([], [])
        for time_ns, value in zip(times, values, strict=True):
            if time_ns < raw_from_ns:
                overdue.readings.append((time_ns, value))
                overdue.late += time_ns < edge
            else:
                rest[0].append(time_ns)
                rest[1].append(value)
        return rest

    def _add_older(self, series: int, times: list[int], values: Sequence[Any], received_ns: int) -> None:
        for time_ns, value in zip(times, values, strict=True):
            key = (series, time_ns)
            if key in self._older:
                self._superseded[series] = self._superseded.get(series, 0) + 1
            self._older[key] = (value, received_ns)
        newest = self._newest_of(series)
        if newest is not None:
            edge = newest - LATE_TOLERANCE_NS
            self._late[series] = self._late.get(series, 0) + sum(time_ns < edge for time_ns in times)
        self.newest[series] = max(times) if newest is None else max(newest, max(times))

    def _write_older(self) -> None:
        keys = list(chain.from_iterable(sorted(self._older)))
        found = insert_rows(
            self._connection, "WITH k(series, time_ns) AS (", 2, keys,
            """) SELECT r.series, count(*) FROM k CROSS JOIN reading r ON r.series = k.series AND r.time_ns = k.time_ns
            GROUP BY r.series""",
        )  # fmt: skip
        for series, count in found:
            self._superseded[series] = self._superseded.get(series, 0) + count
        older = sorted(self._older.items())
        insert_rows(
            self._connection, "INSERT INTO reading", 3, [field for key, (value, _) in older for field in (*key, value)],
            "ON CONFLICT DO UPDATE SET value = excluded.value",
        )  # fmt: skip
        insert_rows(
            self._connection, "INSERT INTO older_receipt", 3, [field for key, (_, ns) in older for field in (*key, ns)],
            _NEWEST_RECEIPT,
        )  # fmt: skip

    def _newest_of(self, series: int) -> int | None:
        newest = self.newest.get(series)
        if newest is None:
            newest = self._known_newest.get(series)
        if newest is None:
            found: int | None = self._connection.execute(
                "SELECT max(time_ns) FROM reading WHERE series = ?", (series,)
            ).fetchone()[0]
            if found is not None:
                newest = self.newest[series] = found
        return newest


def _ascends(times: list[int]) -> bool:
    return all(map(int.__lt__, times, times[1:]))


def _to_sql(values: Sequence[Value]) -> Sequence[Any]:
    if bool not in set(map(type, values)):
        return values
    return [(TRUE if v else FALSE) if isinstance(v, bool) else v for v in values]


def plain_value(value: Any) -> Any:
    """Return a value that SQLite kept."""
    return value == TRUE if type(value) is bytes else value
