"""Whose turn it is after an outage: live readings, or the backlog behind them.

Owns: when a backlog begins, how much of it may be in flight, the alternation. Place:
after `spool`, before `session`, which says when a cut is due at all. Pure.
"""

from __future__ import annotations

from device_sdk.spool import Spool

# A backlog of more readings than this is overtaken by what is recorded from now on. Less than four full frames
# leave in one flight anyway, so there is nothing to gain.
BACKLOG_READINGS = 4_000


class Turns:
    """The turns of one session's cuts.

    One frame of the backlog is in flight at a time: a live reading waits behind 1,000 readings at most however
    slow the link, and 1,000 readings a round trip drain any backlog.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._seq = 0
        self._was_backlog = True

    def begin(self) -> None:
        """Start on a new connection, with live readings."""
        self._seq = 0
        self._was_backlog = True

    def prefer_live(self) -> None:
        """Let what is recorded from now on overtake a backlog, if there is one."""
        if self._spool.unnumbered - self._spool.backlog > BACKLOG_READINGS:
            self._spool.split()

    @property
    def may_cut_backlog(self) -> bool:
        """True when there is a backlog and none of it is in flight."""
        return self._spool.backlog > 0 and self._seq <= self._spool.acked

    @property
    def live(self) -> int | None:
        """Readings that wait besides the backlog; None when only backlog waits."""
        backlog = self._spool.backlog
        live = self._spool.unnumbered - backlog
        return None if backlog and not live else live

    @property
    def waits_for_live(self) -> bool:
        """True while only a backlog waits, for its own ack."""
        return self._spool.backlog > 0 and not self.may_cut_backlog and self.live is None

    def is_backlogs(self, is_live_due: bool) -> bool:
        """Say whether the next cut takes from the backlog: in turns, so that neither keeps the other waiting."""
        return self.may_cut_backlog and not (is_live_due and self._was_backlog)

    def took(self, seq: int, from_backlog: bool) -> None:
        """Note a cut."""
        self._was_backlog = from_backlog
        if from_backlog:
            self._seq = seq
