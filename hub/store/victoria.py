"""History in a VictoriaMetrics, and beside it in a small file what such a server cannot hold.

Owns: what goes where, what is counted, when a frame counts as kept. Place: `store.victoria_wire` says it,
`store.victoria_client` carries it, `store.victoria_file` remembers. Must not: know the journal.

Theory of operation. A write first counts its frames in the file, then sends them: what the server does not get, or
loses, is sent again from the journal and not counted twice. The server acknowledges what it holds in memory only, and
loses the last 10 s of it when it is killed; so a frame counts as kept when it was acknowledged `HOLD_S` ago and the
server has not started anew since. Time in which it may have stood still, with all of its machine, does not count.
After a restart ``applied`` falls back to the last frame that is kept, and the consumer reads the journal again from
there; a reading that is sent twice is one reading. What the server says is believed only if it is still the same
afterwards: one that started anew answers well, and without what it lost.

The server keeps any of two values of one instant. So the first goes to it, a correction to the file, where it stands
for its instant; so do text and whatever `store.victoria_wire.is_kept` refuses.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import LATE_TOLERANCE_NS, Frame, Series
from hub.store.accumulator import MAX_ANSWER_BUCKETS, aggregate_rows, check_aggregate
from hub.store.base import Bucket, Revision, Row, SeriesCounters, StoreAccount, StoreStatistics
from hub.store.victoria_client import Server
from hub.store.victoria_file import Beside, Ledger, VictoriaFile
from hub.store.victoria_reader import VictoriaReader
from hub.store.victoria_wire import (
    AHEAD_MS,
    FIRST_MS,
    MS,
    ServerFigures,
    check_flags,
    is_kept,
    is_rounded,
    line,
    line_prefix,
    parse_metrics,
    retention_ms,
    selectors,
)

_log = logging.getLogger("hub.store.victoria")

# What was acknowledged up to 9.5 s before was lost when the server was killed. By its source a line waits up to 2 s to
# be in a block, that must be 5 s old at a look each 5 s, and is then written: twice all that, and a slow disk.
HOLD_S = 30.0
# The consumer looks at the server each 5 s. If the next look is later, the server may have stood still for the rest.
_LONGEST_STEP_S = 6.0
# Rows of a page of `dump`: about 2 MB in memory.
_DUMP_ROWS = 10_000
# Lines of one request: 500 kB.
_LINES_PER_REQUEST = 5_000

_SENT_AGAIN = (
    "readings are being sent to VictoriaMetrics again, after a write that was cut off or because it started anew: "
    "ask again"
)

_Key = tuple[int, int]


class VictoriaStore:
    """A `Store` on a server: one writer thread, any reader threads.

    Times are whole milliseconds, rounded down; numbers keep 11 digits; receive times are not known.

    Args:
        path: the file beside it; made when absent, its directory must exist.
        server: it need not run yet; closed with the store.
        hold_s: how long after its acknowledgement the server, running, may still lose a frame.
        clock: monotonic seconds. wall_ns: time of day, beyond which the server takes nothing.

    Raises:
        StoreError: the file cannot be opened, is damaged or of a newer hub.
    """

    def __init__(
        self,
        path: Path,
        server: Server,
        *,
        hold_s: float = HOLD_S,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._server = server
        self._file = VictoriaFile(path)
        self._reader = VictoriaReader(self._server, self._file)
        self._hold_s, self._clock, self._wall_ns = hold_s, clock, wall_ns
        # Held through a write or an erase, requests included.
        self._lock = threading.Lock()
        self._figures: ServerFigures | None = None
        self._retention_ms = 0
        # For how long the server was seen to run, and when that was last.
        self._served_s, self._met_at_s = 0.0, clock()
        # Whole second of an acknowledgement → last frame in it, and when it was, in the server's running time.
        self._waiting: dict[int, tuple[int, float]] = {}
        self._erased_at_s = 0.0
        # Something that is counted, or an erasure, is not on the server.
        self._is_torn = False
        # Frames up to here may have been lost, those above ``applied`` still are.
        self._lost_upto = 0
        self._prefixes: dict[int, str] = {}
        self.applied: int = self._file.kept

    def write(self, frames: Sequence[Frame]) -> None:
        """Count and send the readings of frames behind ``applied``; see `Store.write`.

        Raises:
            StoreError: the server cannot be reached, or the file not be written; call it again with the same frames.
        """
        with self._lock:
            fresh = [frame for frame in frames if frame.offset > self.applied]
            if not fresh:
                return
            if self._figures is None:
                before = self.applied
                self._meet()
                if self.applied < before:
                    raise StoreError("what the server may have lost comes first: write from what is applied")
            again = [frame for frame in fresh if frame.offset <= self._file.sent]
            if again:
                self._send(self._again(again))
            if len(again) < len(fresh):
                self._send(self._count(fresh[len(again) :]))
            now_s = self._running_s(self._clock())
            self._waiting[int(now_s)] = (fresh[-1].offset, now_s)
            self.applied = fresh[-1].offset
            self._is_torn = self.applied < self._file.sent

    def sync(self) -> int:
        """Return the last frame that the server has on its disk for certain; ``applied`` falls if it started anew.

        Raises:
            StoreError: the server cannot be reached.
        """
        with self._lock:
            now = self._clock()
            is_same = not self._meet()
            self._served_s, self._met_at_s = self._running_s(now), now
            if is_same:
                self._keep()
            return self._file.kept

    def rewind(self, offset: int) -> None:
        """Set ``applied`` back to ``offset``, or to what is kept of it."""
        with self._lock:
            self._file.rewind(offset)
            self._waiting.clear()
            self.applied = self._file.kept
            self._lost_upto, self._is_torn = 0, False

    def latest(self, series: Sequence[int]) -> list[Row]:
        """Return the newest reading by event time of each series that has one; asks nothing of the server."""
        return self._file.latest(series)

    def read(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        limit: int,
        *,
        descending: bool = False,
        received: bool = False,
    ) -> list[Row]:
        """Return rows of [start_ns, end_ns) up to a time border; see `Store.read`. Receive times are not known."""
        with self._whole():
            return self._reader.read(series, start_ns, end_ns, limit, descending=descending)

    def aggregate(
        self,
        series: Sequence[int],
        start_ns: int,
        end_ns: int,
        step_ns: int,
        functions: Sequence[str],
        *,
        origin_ns: int = 0,
    ) -> list[Bucket]:
        """Return buckets by (start, series): by the server where it can, else from rows; see `Store.aggregate`."""
        check_aggregate(functions, step_ns)
        with self._whole():
            found = self._reader.buckets(
                series, start_ns, end_ns, step_ns, functions, origin_ns=origin_ns, max_buckets=MAX_ANSWER_BUCKETS
            )
        if found is not None:
            return found
        return aggregate_rows(
            self, series, start_ns, end_ns, step_ns, functions, origin_ns=origin_ns, max_buckets=MAX_ANSWER_BUCKETS
        )

    def dump(self, series: Sequence[int], start_ns: int, end_ns: int, *, received: bool = False) -> Iterator[list[Row]]:
        """Yield pages of rows ordered by (time, series); readings written meanwhile may or may not be in it."""
        while page := self.read(series, start_ns, end_ns, max(_DUMP_ROWS, 4 * len(series))):
            yield page
            start_ns = page[-1].time_ns + 1

    def counters(self, series: Sequence[int]) -> list[SeriesCounters]:
        """Return the ledger of each series that ever had a reading; ``rows`` are counted by the server."""
        return self.account(series).series

    def account(self, series: Sequence[int]) -> StoreAccount:
        """Return counters and the position they are of; writes wait meanwhile.

        Raises:
            StoreError: the server does not answer, or lacks what must be sent again first.
        """
        with self._lock:
            self._check_sent()
            sent, ledgers = self._file.account(series)
            with self._whole():
                rows = self._reader.count(ledgers)
        found = [
            SeriesCounters(one.series, one.accepted, one.superseded, rows.get(one.series, 0), one.erased, one.late)
            for one in ledgers.values()
        ]
        return StoreAccount(sent, found)

    def revisions(self, series: Sequence[int]) -> list[Revision]:
        """Return the revision of each series; see `Store.revisions`."""
        known = self._file.ledgers(series)
        found = [known.get(number, Ledger(number)) for number in series]
        return [(one.accepted, one.superseded, one.erased, one.late, 0) for one in found]

    def rounded(self, series: Sequence[int]) -> dict[int, int]:
        """Return series → readings with more digits than the server keeps for certain."""
        return {number: ledger.rounded for number, ledger in self._file.ledgers(series).items()}

    def largest_series(self) -> int:
        """Return the largest series id that ever had a reading."""
        return self._file.largest_series()

    def erase(self, series: Sequence[int]) -> int:
        """Delete all rows of the series; return how many.

        Raises:
            StoreError: the server cannot be reached, or lacks what must be sent again first: nothing, or all but what
                it holds is erased; call it again.
        """
        with self._lock:
            self._meet()
            # Else fewer would be counted as erased than are in the ledger.
            self._check_sent()
            with self._whole():
                rows = self._reader.count(self._file.ledgers(series))
            self._file.erase(rows)
            try:
                self._forget(list(rows))
            except StoreError:
                # The next to meet the server tells it again, before anything is sent.
                self._figures, self._is_torn = None, True
                raise
            self._erased_at_s = self._running_s(self._clock())
            return sum(rows.values())

    def statistics(self) -> StoreStatistics:
        """Return the figures of now: what is counted, and the bytes of the file, for the server's disk is its own."""
        rows, size = self._file.totals()
        return StoreStatistics(self._file.sent, rows, size)

    def close(self) -> None:
        """Close all handles; safe to call twice."""
        self._server.close()
        self._file.close()

    def _meet(self) -> bool:
        """Ask the server who it is; return whether it is another than before, and then start over from what is kept."""
        found = parse_metrics(self._server.get("/metrics"))
        known, is_same = self._figures, True
        if known is None or found.is_another(known):
            flags = self._server.get("/flags")
            check_flags(flags)
            self._retention_ms = retention_ms(flags)
            is_same = False
            if known is not None:
                _log.warning("server started anew kept=%d applied=%d: sending again", self._file.kept, self.applied)
                self._lost_upto = self._file.sent
            self._waiting.clear()
            self.applied = min(self.applied, self._file.kept)
            # What it forgot it may remember again; what came later comes again, too.
            self._forget(self._file.erasing())
            self._erased_at_s = self._running_s(self._clock())
            self._is_torn = self.applied < self._file.sent
        elif found.refused > known.refused or found.ignored > known.ignored:
            _log.error(
                "server left lines out refused=%d ignored=%d: is another writing to it, or its retention too short?",
                found.refused - known.refused, found.ignored - known.ignored,
            )  # fmt: skip
        self._figures = found
        return not is_same

    def _check_sent(self) -> None:
        if self._is_torn:
            raise StoreError(_SENT_AGAIN)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Raise when the server lacks some of what it is asked for, or started anew meanwhile."""
        known, is_safe = self._figures, self._file.kept == self._file.sent
        if self.applied < self._lost_upto:
            raise StoreError(_SENT_AGAIN)
        yield
        # Half a millisecond, and only while there is something to lose.
        if known is not None and not is_safe and parse_metrics(self._server.get("/metrics")).is_another(known):
            raise StoreError(_SENT_AGAIN)

    def _running_s(self, now: float) -> float:
        """Return for how long the server ran until ``now`` at least."""
        return self._served_s + min(now - self._met_at_s, _LONGEST_STEP_S)

    def _keep(self) -> None:
        """Note what was acknowledged long enough ago."""
        # Erasures first: one that was still noted would be said again, and take with it what came later and is kept.
        if self._erased_at_s + self._hold_s <= self._served_s and (erased := self._file.erasing()):
            self._file.erased(erased)
        done = [second for second, (_, at) in self._waiting.items() if at + self._hold_s <= self._served_s]
        if done:
            kept = max(self._waiting.pop(second)[0] for second in done)
            self._file.keep(max(kept, self._file.kept))

    def _again(self, frames: Sequence[Frame]) -> dict[_Key, tuple[Series, Value]]:
        """Return what to send of frames that are counted already."""
        ids = {c.series.id for frame in frames for c in frame.columns}
        ledgers = self._file.ledgers(list(ids))
        found: dict[_Key, tuple[Series, Value]] = {}
        for frame in frames:
            for series, time_ns, value in frame.rows():
                ledger = ledgers.get(series.id)
                if (ledger is None or frame.offset > ledger.erased_at) and is_kept(time_ns // MS, value, time_ns // MS):
                    found[series.id, time_ns // MS] = (series, value)
        beside = {(one.series, one.time_ms): one for one in self._beside_of(found)}
        for key, one in beside.items():
            # The server never had it: with it there would be two where one is counted.
            if one.is_alone:
                del found[key]
        self._set_aside(found, beside)
        return found

    def _set_aside(self, found: dict[_Key, tuple[Series, Value]], beside: dict[_Key, Beside]) -> None:
        """Keep here what the server would leave out now and lost: the clock was set since it was sent first."""
        now_ms = self._wall_ns() // MS
        first_ms = self._first_ms(now_ms)
        outside = {key for key, (_, value) in found.items() if not is_kept(key[1], value, now_ms, first_ms)}
        if not outside:
            return
        missing = outside - self._reader.numbers(outside).keys()
        values = {key: beside[key].value if key in beside else found[key][1] for key in missing}
        self._file.commit(self._file.sent, [], [Beside(*key, value, True) for key, value in values.items()])
        for key in outside:
            del found[key]

    def _first_ms(self, now_ms: int) -> int:
        """Return the first time that the server keeps for a while; its clock and ours may differ."""
        return max(FIRST_MS, now_ms - self._retention_ms + AHEAD_MS)

    def _count(self, frames: Sequence[Frame]) -> dict[_Key, tuple[Series, Value]]:
        """Count new frames in the file; return what to send."""
        ids = {c.series.id for frame in frames for c in frame.columns}
        count = _Count(self._file.ledgers(list(ids)))
        for frame in frames:
            count.add(frame)
        present = {(one.series, one.time_ms): one for one in self._beside_of(count.older)}
        stored = self._reader.numbers(count.older)
        if count.older and self._meet():
            raise StoreError("what the server may have lost comes first: write from what is applied")
        now_ms = self._wall_ns() // MS
        send, beside = count.sort(stored, present, now_ms, self._first_ms(now_ms))
        self._is_torn = True
        self._file.commit(frames[-1].offset, list(count.ledgers.values()), beside)
        return send

    def _beside_of(self, keys: "dict[_Key, tuple[Series, Value]] | set[_Key]") -> Iterator[Beside]:
        if keys:
            times = [time_ms for _, time_ms in keys]
            found = self._file.beside(list({number for number, _ in keys}), min(times), max(times))
            yield from (one for one in found if (one.series, one.time_ms) in keys)

    def _send(self, readings: dict[_Key, tuple[Series, Value]]) -> None:
        lines = (line(self._prefix(series), ms, value) for (_, ms), (series, value) in readings.items())
        while body := "".join(islice(lines, _LINES_PER_REQUEST)):
            self._server.post("/api/v2/write?precision=ms", body.encode())
            self._reader.is_flushed = False

    def _prefix(self, series: Series) -> str:
        found = self._prefixes.get(series.id)
        if found is None:
            found = self._prefixes[series.id] = line_prefix(self._file.hub, series)
        return found

    def _forget(self, series: Sequence[int]) -> None:
        for selector in selectors(self._file.hub, series):
            self._server.ask("/api/v1/admin/tsdb/delete_series", {"match[]": selector})


class _Count:
    """Adds the readings of new frames to their ledgers; one write."""

    def __init__(self, ledgers: dict[int, Ledger]) -> None:
        self.ledgers = ledgers
        # Readings that are not later than all of their series: there may be one already.
        self.older: set[_Key] = set()
        self._last: dict[_Key, tuple[Series, Value]] = {}
        self._doubled: set[_Key] = set()
        self._before = {number: ledger.newest_ms for number, ledger in ledgers.items()}

    def add(self, frame: Frame) -> None:
        """Take the readings of the next frame."""
        edges = {
            number: ledger.newest_ns - LATE_TOLERANCE_NS
            for number in {c.series.id for c in frame.columns}
            if (ledger := self.ledgers.get(number)) is not None and ledger.newest_ns is not None
        }
        for series, time_ns, value in frame.rows():
            ledger = self.ledgers.get(series.id)
            if ledger is None:
                ledger = self.ledgers[series.id] = Ledger(series.id)
            ledger.late += time_ns < edges.get(series.id, time_ns)
            self._add(ledger, series, time_ns, value)

    def _add(self, ledger: Ledger, series: Series, time_ns: int, value: Value) -> None:
        key = (ledger.series, time_ns // MS)
        ledger.accepted += 1
        ledger.rounded += is_rounded(value)
        if not isinstance(value, str):
            ledger.kind = max(ledger.kind, 0 if isinstance(value, bool) else 1 if isinstance(value, int) else 2)
        if key in self._last:
            ledger.superseded += 1
            self._doubled.add(key)
        self._last[key] = (series, value)
        before = self._before.get(ledger.series)
        if before is not None and key[1] <= before:
            self.older.add(key)
        if ledger.newest_ms is None or key[1] >= ledger.newest_ms:
            ledger.newest_ns = max(time_ns, ledger.newest_ns or time_ns)
            ledger.newest_value = value
        ledger.oldest_ms = key[1] if ledger.oldest_ms is None else min(ledger.oldest_ms, key[1])

    def sort(
        self, stored: dict[_Key, float], present: dict[_Key, Beside], now_ms: int, first_ms: int
    ) -> tuple[dict[_Key, tuple[Series, Value]], list[Beside]]:
        """Return what to send, and what to keep beside; count what takes another's place.

        Args:
            stored: of ``older``, what the server has. present: what is kept beside.
        """
        send: dict[_Key, tuple[Series, Value]] = {}
        beside: list[Beside] = []
        for key, (series, value) in self._last.items():
            known = present.get(key)
            if known is not None or key in stored:
                self.ledgers[key[0]].superseded += 1
                if known is not None or stored[key] != value or key in self._doubled:
                    beside.append(Beside(*key, value, known is not None and known.is_alone))
            elif not is_kept(key[1], value, now_ms, first_ms):
                beside.append(Beside(*key, value, True))
            else:
                send[key] = (series, value)
                if key in self._doubled:
                    # Sent again, the one before it might stay.
                    beside.append(Beside(*key, value, False))
        return send, beside
