"""One subscription: where it stands, what it sends next, what it needs for that.

Owns: the phases from history to live and the cursor. Place: after `room`,
before `watch` (WebSocket) and the SSE shell, which both drive it. Pure: what
must be read from disk is asked for as a `Need` and handed back by the shell.

Theory of operation. "Send what is behind my cursor" is the only rule; phases
say where that comes from. HISTORY reads pages of the store up to H, the head
when the subscription began (the store has applied H before the first page, so
nothing can lie between history and H + 1). NEWEST sends the registry's newest
values. BEHIND sends pages from the ring or the journal. LIVE is membership in
the room's live set: from then on the room writes. A full outlet leads from
LIVE to BEHIND; nothing is queued, the cursor says what is still owed.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from hub.live.cursor import ResetReason, Start
from hub.live.encode import encode_rows, encode_values, scaled_rows
from hub.live.figures import Pace, SubscriptionFigures
from hub.live.room import PAGE_BYTES, Chunk, Outlet, PagedRoom, Room, RoomKey
from hub.live.rooms import Live
from hub.model import Frame, Series
from hub.store.base import Row

_log = logging.getLogger("hub.live")

# A page of history aims at PAGE_BYTES by what the page before took; these bound it (a row is 15 B … 1 KiB).
MIN_HISTORY_ROWS = 64
FIRST_HISTORY_ROWS = 1000
MAX_HISTORY_ROWS = 4000
_END_OF_TIME_NS = 2**63 - 1


class Phase(StrEnum):
    """Where the next thing to send comes from."""

    HISTORY = "history"
    NEWEST = "newest"
    BEHIND = "behind"
    LIVE = "live"
    ENDED = "ended"


# phase → phases that may follow; anything else is a bug and changes nothing.
FOLLOWS: dict[Phase, frozenset[Phase]] = {
    Phase.HISTORY: frozenset({Phase.BEHIND, Phase.ENDED}),
    Phase.NEWEST: frozenset({Phase.BEHIND, Phase.ENDED}),
    Phase.BEHIND: frozenset({Phase.LIVE, Phase.ENDED}),
    Phase.LIVE: frozenset({Phase.BEHIND, Phase.ENDED}),
    Phase.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Wait until the store has applied ``applied``, then ``store.read``; None as the answer: it has not, in time."""

    series: list[int]
    start_ns: int
    end_ns: int
    limit: int
    applied: int


@dataclass(frozen=True, slots=True)
class JournalPage:
    """``journal.read``; an `ExpiredError` goes to `Subscription.expired`."""

    after: int
    upto: int
    max_bytes: int


Need = HistoryPage | JournalPage


class Subscription:
    """One listener of one room. Call `step` until it answers False; again when `wake` is called or the outlet drained.

    Args:
        live, key, start: which room, and where to begin.
        outlet: where the bytes go.
        wake: asks the shell to call `step` again; called from inside a flush, so it must only schedule.
        opened: called once, before anything is written, with whether a cursor was resumed.
        is_polled: the listener is one of many short ones: its outlet names the series, and its room waits for the next.
    """

    __slots__ = (
        "_catalog", "_conflated", "_generation", "_is_lagging", "_is_polled", "_live", "_messages", "_offset",
        "_opened", "_pace", "_page", "_page_drawn", "_replaced", "_reset_why", "_room", "_rows", "_rows_read", "_start",
        "_time_ns", "_told", "_wake", "_was_live", "outlet", "phase",
    )  # fmt: skip

    def __init__(
        self,
        live: Live,
        key: RoomKey,
        start: Start,
        outlet: Outlet,
        wake: Callable[[], None],
        opened: Callable[[bool], None],
        *,
        is_polled: bool = False,
    ) -> None:
        self.outlet = outlet
        self.phase = _first_phase(start)
        self._live = live
        self._room: Room = live.enter_room(key)
        self._start = start
        self._reset_why = start.reset
        self._wake = wake
        self._opened: Callable[[bool], None] | None = opened
        self._offset = start.offset
        self._time_ns = start.time_ns or 0
        self._rows = FIRST_HISTORY_ROWS
        self._is_polled = is_polled
        self._catalog = len(self._room.catalog) if is_polled else 0
        self._generation = self._room.generation
        self._page: Chunk | None = None
        self._page_drawn = 0
        self._rows_read: Sequence[Row] | None = None
        self._told = start.offset
        self._was_live = False
        self._is_lagging = False
        self._conflated = 0
        # Data messages it was sent in pages, and of the room's those before it joined (negative) or left.
        self._messages = 0
        self._replaced = self._room.conflated
        self._pace = Pace(live.now)

    @property
    def offset(self) -> int:
        """Everything up to here was written (in HISTORY and NEWEST: will have been, when the phase ends)."""
        return self._room.head if self.phase is Phase.LIVE else self._offset

    @property
    def is_open(self) -> bool:
        """Whether ``opened`` was called: only then is it known if a cursor could be resumed."""
        return self._opened is None

    @property
    def has_page(self) -> bool:
        """Whether it holds a page that was read for it and is not written yet."""
        return (self._rows_read is not None or self._page is not None) and self.phase is not Phase.ENDED

    @property
    def members(self) -> Mapping[int, Series]:
        """The series that belong, by id."""
        return self._room.members

    @property
    def messages(self) -> int:
        """How many messages with data were written."""
        return self._messages + (self._room.messages if self.phase is Phase.LIVE else 0)

    @property
    def key(self) -> RoomKey:
        """What is sent, and at which rate."""
        return self._room.key

    def here(self) -> Start:
        """Return where a subscription in the place of this one begins, so that nothing is left out or sent again."""
        if not self.is_open:
            return self._start
        if self.phase is Phase.HISTORY:
            return Start(self._offset, self._time_ns)
        return Start(self._offset, is_last=True) if self.phase is Phase.NEWEST else Start(self.offset)

    def cursor(self) -> str:
        """Return the cursor text of what was written so far."""
        if self.phase is Phase.HISTORY:
            return self._live.runs.history_cursor(self._offset, self._time_ns - 1)
        if self.phase is Phase.NEWEST:
            return self._live.runs.history_cursor(self._offset, None)
        return self._live.runs.cursor(self.offset)

    def step(self) -> Need | bool:
        """Write at most one page. True: call again soon; False: nothing to do now; a `Need`: read it and `supply`."""
        if self.phase in (Phase.LIVE, Phase.ENDED) or self.outlet.is_full:
            return False
        if self._opened is not None:
            if self._is_in_journal():
                return self._journal_page()
            self._open()
        if self._announce():
            return True
        if self._is_lagging:
            self._is_lagging = False
            if self._offset < self._room.head:
                self._write_lag()
        match self.phase:
            case Phase.HISTORY:
                return self._history_page()
            case Phase.NEWEST:
                self._send_newest()
                return True
            case _:
                return self._catch_up()

    def supply_rows(self, rows: Sequence[Row] | None) -> None:
        """Take the answer to a `HistoryPage`; it is written with the next `step`, behind what must be announced."""
        if self.phase is not Phase.HISTORY:
            return
        if rows is None:
            self._write_lag()
            return
        # Series that are new since come with frames behind H; but one of these rows' may have another scale by now.
        self._rows_read = rows

    def _write_rows(self, rows: Sequence[Row]) -> None:
        runs, offset = self._live.runs, self._offset
        written = 0
        members = self._room.members
        # While a page was read a series may have lost what it was selected by.
        shown = [Row(*row) for row in scaled_rows((row[:3] for row in rows if row.series in members), members)]
        for message in encode_rows(shown, lambda time_ns: runs.history_cursor(offset, time_ns)):
            self._write_data(self.outlet.wrap("data", message.tail, message.cursor), 1)
            written += len(message.tail)
        if len(rows) < self._rows:
            self._set(Phase.BEHIND)
            return
        self._time_ns = rows[-1].time_ns + 1
        self._rows = max(MIN_HISTORY_ROWS, min(MAX_HISTORY_ROWS, PAGE_BYTES * len(rows) // max(written, 1)))

    def supply_frames(self, frames: Sequence[Frame]) -> None:
        """Take the answer to a `JournalPage`; it is written with the next `step`, behind what must be announced."""
        if self.phase is not Phase.BEHIND:
            return
        assert isinstance(self._room, PagedRoom), "only these rooms read the journal"
        if not frames:
            self.expired()
            return
        self._open()
        self._page, self._page_drawn = self._room.encode_page(self._offset, frames), self._room.redrawn

    def expired(self) -> None:
        """Begin again at the head: the journal no longer holds what is behind the cursor. The client is told."""
        if self.phase is Phase.BEHIND:
            self._opened_with(False)
            self._reset(ResetReason.EXPIRED)

    def fell_behind(self, offset: int) -> None:
        """Leave the live set with everything up to ``offset`` written (called by the room)."""
        self._offset = offset
        self._set(Phase.BEHIND)
        self._messages += self._room.messages
        self._generation, self._catalog = self._room.generation, self._room.announced
        self._is_lagging = True
        self._conflated = self._room.conflated
        self._wake()

    def tick(self) -> None:
        """Tell a quiet subscription its position, and a stuck one how far it is behind; once per ping interval."""
        self._pace.mark(self.messages, self._live.now)
        if self.phase is Phase.LIVE:
            told = max(self._told, self._room.sent)
            if told < self._room.head:
                self._write_live()
        elif self._was_live and self.phase is Phase.BEHIND:
            # One short message per interval, even into a full buffer: silence would look like "nothing happens".
            self._write_lag()

    def figures(self) -> SubscriptionFigures:
        """Return how it stands, for the operators' view."""
        key, is_live = self._room.key, self.phase is Phase.LIVE
        return SubscriptionFigures(
            self.outlet.key.rpartition("/")[2], key.match, key.exclude, key.max_hz, self.phase.value,
            0 if is_live else self._live.head - self._offset, 0.0 if is_live else self._lag_s(),
            self.messages, self._pace.rate(self.messages, self._live.now),
            None if key.max_hz is None else self._room.conflated - self._replaced,
        )  # fmt: skip

    def end(self) -> None:
        """Leave the room; nothing is written any more. Harmless when called twice."""
        if self.phase is not Phase.ENDED:
            self._room.leave(self)
            self._set(Phase.ENDED)
            self._rows_read = self._page = None
            self._live.leave_room(self._room, keep=self._is_polled)

    # --- inside ------------------------------------------------------------------------------------------

    def _is_in_journal(self) -> bool:
        """Whether resuming depends on the journal, so that only its answer tells if the cursor is still good."""
        return (
            self.phase is Phase.BEHIND
            and isinstance(self._room, PagedRoom)
            and self._offset + 1 < self._live.ring.first
            # A room with a rate may not have sent so much yet: what is behind the cursor comes with its next message.
            and self._offset < self._room.head
        )

    def _journal_page(self) -> JournalPage:
        return JournalPage(self._offset, self._room.head, PAGE_BYTES)

    def _open(self) -> None:
        self._opened_with(self._start.resumes)
        if self._reset_why is not None:
            why, self._reset_why = self._reset_why, None
            self._reset(why)

    def _opened_with(self, recovered: bool) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened(recovered)

    def _announce(self) -> bool:
        """Write one message of the catalog that this listener was not told yet."""
        if self._generation != self._room.generation:
            self._generation, self._catalog = self._room.generation, 0
        tail, self._catalog = self._room.announcement(self._catalog)
        if tail is None:
            return False
        data = self.outlet.wrap("series", tail, None)
        self.outlet.write(data)
        # Thousands who come back at once are told more names than readings.
        self._live.unsent.wrote(len(data))
        return True

    def _history_page(self) -> Need | bool:
        if self._rows_read is not None:
            rows, self._rows_read = self._rows_read, None
            self._write_rows(rows)
            return True
        members = sorted(self._room.members)
        if not members:
            self._set(Phase.BEHIND)
            return True
        return HistoryPage(members, self._time_ns, _END_OF_TIME_NS, self._rows, self._offset)

    def _send_newest(self) -> None:
        # Values that came after H may be among them and are sent again from H + 1 on: until `live`, rows are upserts.
        cursor = self.cursor()
        for message in encode_values(self._room.newest_values(), cursor):
            self._write_data(self.outlet.wrap("data", message.tail, message.cursor), 1)
        self._set(Phase.BEHIND)

    def _catch_up(self) -> Need | bool:
        chunk, self._page = self._page, None
        if self._page_drawn != self._room.redrawn:
            chunk = None
        if chunk is None and self._offset < self._room.head:
            chunk = self._room.page(self._offset)
            if chunk is None:
                return self._journal_page()
        if chunk is not None:
            if chunk.messages:
                self._write_data(chunk.wrap(self.outlet), len(chunk.messages))
                self._told = chunk.upto
            self._offset = chunk.upto
        if self._offset < self._room.head:
            return True
        self._join()
        return False

    def _write_data(self, data: bytes, messages: int) -> None:
        self.outlet.write(data)
        self._messages += messages
        self._live.unsent.wrote(len(data))

    def _join(self) -> None:
        self._room.join(self)
        self._set(Phase.LIVE)
        self._messages -= self._room.messages
        if not self._was_live:
            self._was_live = True
            self._write_live()

    def _write_live(self) -> None:
        self._told = self.offset
        cursor = self._live.runs.cursor(self._told)
        self._write("live", {"o": cursor}, cursor)

    def _write_lag(self) -> None:
        lag: dict[str, object] = {"behind": self._live.head - self._offset, "secs": self._lag_s()}
        if self._room.key.max_hz is not None:
            lag["conflated"] = self._room.conflated - self._conflated
        self._write("lag", lag)

    def _lag_s(self) -> float:
        """How much later the newest frame was received than the first still owed (beyond the ring: at least)."""
        first, last = self._live.ring.received_ns(self._offset), self._live.ring.received_ns(self._live.head - 1)
        return 0.0 if first is None or last is None else round(max(last - first, 0) / 1e9, 3)

    def _reset(self, why: ResetReason) -> None:
        self._offset = self._told = self._room.head
        self._page = None
        _log.debug("reset reason=%s head=%d", why.value, self._offset)
        head = self._live.runs.cursor(self._offset)
        self._write("reset", {"why": why.value, "head": head}, head)

    def _write(self, op: str, fields: dict[str, object], cursor: str | None = None) -> None:
        self.outlet.write(self.outlet.wrap(op, orjson.dumps(fields)[1:], cursor))

    def _set(self, phase: Phase) -> None:
        if phase not in FOLLOWS[self.phase]:
            raise RuntimeError(f"a subscription in phase {self.phase.value} cannot become {phase.value}")
        self.phase = phase


def _first_phase(start: Start) -> Phase:
    if start.is_last:
        return Phase.NEWEST
    return Phase.BEHIND if start.time_ns is None else Phase.HISTORY
