"""The outbox of a device as `session` and `device` see it: one interface, two implementations.

Owns: the contract `Spool`. Place: after `file_spool` and `memory_spool`, which
keep it and pass the same tests, before `session`. Must not: hold behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from device_sdk.file_spool import FileSpool as FileSpool
from device_sdk.outbox import Copying as Copying
from device_sdk.outbox import CutFrame as CutFrame
from device_sdk.outbox import Entry
from device_sdk.outbox import SpoolStatistics as SpoolStatistics
from device_sdk.reading import Channel, Value
from device_sdk.wire import Earlier


class Spool(Protocol):
    """What `Session` and `Device` need of an outbox. Every method is safe from any thread.

    A stream may end while it is in use: `restart` always begins a new one, and
    `acknowledge` does when the last frame from before a power cut is acked.
    After either, compare ``stream`` with the stream you said hello with: when it
    differs, say hello again (a new connection) before sending anything.
    """

    @property
    def stream(self) -> str:
        """16 hex digits, 64 random bits."""
        ...

    @property
    def acked(self) -> int:
        """Every frame ≤ this is acked; 0 at the start of a stream."""
        ...

    @property
    def next(self) -> int:
        """The seq the next cut frame will carry; frames acked + 1 … next - 1 are cut and unacked."""
        ...

    @property
    def pos(self) -> str | None:
        """The hub's position as of the last ack; None before the first."""
        ...

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Declared channels in order of declaration; they survive restarts. A copy."""
        ...

    @property
    def pending(self) -> int:
        """Readings recorded and neither acked nor dropped."""
        ...

    @property
    def unnumbered(self) -> int:
        """Readings not yet in a frame (cheap; what `Session` looks at to decide on a cut)."""
        ...

    @property
    def has_uncut(self) -> bool:
        """True when `cut` has something to do besides the window: readings, or a gap to declare."""
        ...

    @property
    def backlog(self) -> int:
        """Of these, readings from before the last `split` that took place; 0 when all are in order."""
        ...

    def chain(self, seq: int) -> bytes | None:
        """Return chain(seq) for 0 and for acked - CHAINS_KEPT … next - 1, else None."""
        ...

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        """The newest streams before this one that had frames acked, oldest first."""
        ...

    def retained(self, stream: str, after: int) -> Iterator[CutFrame]:
        """Yield the acked frames > ``after`` of a stream that are still kept, ascending, perhaps with holes.

        Of the present stream it may go on with frames that are not acked. Reads as it is consumed.
        """
        ...

    def forget(self, stream: str, copying: Copying | None = None) -> None:
        """Declare, durably, what a restored hub misses of a stream and this spool no longer keeps; name it no more.

        ``copying``: what it still keeps of it, noted in the same step.
        """
        ...

    @property
    def copying(self) -> Copying | None:
        """What of a forgotten stream is still to be sent as a copy, also by a later process; None: nothing."""
        ...

    def copied(self, copying: Copying | None) -> None:
        """Note, durably, how far the copy is; None: it is over."""
        ...

    def declare(self, channel: Channel) -> None:
        """Remember a channel; the same name again replaces it."""
        ...

    def record(self, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int) -> None:
        """Take readings of one instant; on return a process kill cannot lose them.

        Args:
            values: (channel name, value), both already checked by `reading`.
            time_ns: UTC epoch ns; None takes ``now_ns`` and adds 1 ns where the
                channel's last instant is not before it.
            now_ns: wall clock, UTC epoch ns.

        Never raises for a full or failing disk: the readings wait in memory, then
        are dropped and declared by a gap frame.
        """
        ...

    def record_one(self, channel: str, value: Value, now_ns: int) -> None:
        """Do as `record` for one reading without a given time, without its lists and loops: what most sensors do."""
        ...

    def record_at_uptime(self, values: Sequence[tuple[str, Value]], time_ns: int | None, boot_ns: int) -> None:
        """Do as `record` while the wall clock is not set.

        Without ``time_ns`` the readings get their real time when they are cut, by
        what `learn_time` says; until then none of them is cut.

        Args:
            boot_ns: ns since the machine booted, also when the process is a later one.
        """
        ...

    def learn_time(self, wall_ns: int, boot_ns: int) -> None:
        """Take, durably with the next cut, that it was ``wall_ns`` at ``boot_ns``; a boot learns it once.

        Readings of earlier boots that never learnt the time then end where this boot
        began, and their frames say ``time_estimated``.
        """
        ...

    def uptime_at(self, boot_ns: int) -> int:
        """Return the real time of ``boot_ns`` of this boot; until it is learnt, an instant of `uptime`."""
        ...

    def skip_no_value(self, count: int) -> None:
        """Count values that were None or not finite."""
        ...

    def split(self) -> bool:
        """Let readings recorded from now on be cut before those that wait now, which become backlog.

        Returns False, and all stay in order, while readings with a given time wait (they stay in
        order among themselves: the same time again is a correction), when nothing waits, beyond
        `outbox.MAX_LANES`, or when the disk fails. A kill before the next `cut` forgets the split.
        """
        ...

    def cut(
        self, max_readings: int = 1000, max_bytes: int = 200 * 1024, *, from_backlog: bool = False
    ) -> CutFrame | None:
        """Number one frame, durably, and return it; its bytes never change again.

        Args:
            max_readings: at most so many readings.
            max_bytes: at most so many bytes, unless one reading alone exceeds it.
            from_backlog: take the oldest backlog before live readings; the other way round by default.

        Returns None when there is nothing un-numbered, the window (MAX_WINDOW) is
        full, frames from before a power cut are still unacked, or the disk fails
        (``statistics().disk_error``; call again later).
        """
        ...

    def frames(self, after: int) -> list[CutFrame]:
        """Return the cut and unacked frames with seq > ``after``, ascending."""
        ...

    def acknowledge(self, stored: int, chain: bytes, pos: str) -> None:
        """Delete frames ≤ ``stored`` in one durable step; an older ack changes nothing.

        May begin a new stream (see the class).

        Raises:
            ChainConflictError: ``chain`` is not chain(stored), or ``stored`` ≥ next; nothing changed.
        """
        ...

    def restart(self, stored: int | None, lost: Sequence[Entry] = ()) -> None:
        """Begin a new stream, durably.

        Frames ≤ ``stored`` count as acked (None: none). The readings of the others
        are un-numbered again, first in order; their frames later carry ``again``.
        Gap frames keep their meaning. ``lost``: readings of frames ≤ ``stored`` that the
        hub cannot read; a gap frame ``unreadable`` declares them.
        """
        ...

    def sync(self) -> None:
        """Make everything recorded so far survive a power cut; `Device` calls it every second. Never raises."""
        ...

    def statistics(self) -> SpoolStatistics:
        """Return a snapshot of what is held and what was lost."""
        ...

    def close(self) -> None:
        """Make all durable and mark the spool as closed; twice is allowed, other calls after it are not."""
        ...
