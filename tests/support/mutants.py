"""Hubs and SDKs with one fault each, which the chaos runs must catch: the harness is tested too.

The only place where our own code is patched: the patch *is* the fault, or of `SOUND` what makes one likelier. Each
mutant swaps one rule in a child process and then runs the real program: ``python -m tests.support.mutants NAME serve``
for the hub, `apply` in a device's.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from device_sdk.errors import Reason
from device_sdk.file_spool import FileSpool
from device_sdk.outbox import Outbox
from device_sdk.reading import Value
from device_sdk.session import Outgoing, Session

# What group commit of a store that batches costs; an ack that does not wait for it is that much too early.
BATCH_S = 0.05
# About 1,700 readings.
SMALL_RING_BYTES = 128 * 1024


def normal_synchronous() -> None:
    """A hub whose commits are not fsynced: only a power cut can tell."""
    import hub.database
    import hub.journal.sqlite

    hub.journal.sqlite.FULL = hub.database.NORMAL  # type: ignore[attr-defined]


def ack_before_commit() -> None:
    """A hub that acks what it has taken, and commits it soon after."""
    from hub.app import Hub
    from hub.journal.sqlite import SqliteJournal
    from hub.model import Frame, Series

    submit, append = Hub.submit, SqliteJournal.append

    def submit_and_ack(self: Hub, frames: list[Frame]) -> None:
        submit(self, frames)
        for session in self.streams.committed(frames):
            session.flush()

    def append_later(self: SqliteJournal, frames: Sequence[Frame], series: Sequence[Series]) -> None:
        time.sleep(BATCH_S)
        append(self, frames, series)

    def committed(self: Hub, frames: Sequence[Frame]) -> None:
        self.registry.apply(frames)
        self.live.publish(frames)
        self.consumer.wake(frames)

    Hub.submit, SqliteJournal.append = submit_and_ack, append_later  # type: ignore[method-assign]
    Hub._committed = committed  # type: ignore[method-assign]


def no_dedupe() -> None:
    """A hub that keeps no mark: it welcomes each device where that believes to be, and takes whatever comes."""
    from device_sdk import wire
    from hub.journal.mark import MarkRow
    from hub.model import Frame
    from hub.session import DeviceSession
    from hub.streams import StreamState

    advance = MarkRow.advance

    def verdict(self: DeviceSession, state: StreamState, hello: wire.Hello, now_ns: int) -> wire.Welcome:
        acked = hello.acked
        chain = state.mark.chain(acked) or wire.CHAIN_START
        return wire.Welcome(acked, chain.hex(), self._streams.position(), now_ns, self._window)

    def is_next(self: DeviceSession, seq: int, can_accept: bool) -> bool:
        state = self._running_stream()
        state.accepted = state.mark.stored = seq - 1
        state.accepted_chain = state.mark.chain(seq - 1) or state.accepted_chain
        return True

    def advance_anyhow(self: MarkRow, frame: Frame) -> None:
        if frame.seq == self.stored + 1:
            advance(self, frame)
        else:
            self.accepted += frame.readings

    DeviceSession._verdict, DeviceSession._is_next = verdict, is_next  # type: ignore[method-assign]
    MarkRow.advance = advance_anyhow  # type: ignore[method-assign]


def no_chain() -> None:
    """A hub that compares numbers only: it cannot tell two bodies under one number apart."""
    from device_sdk import wire
    from hub.session import DeviceSession
    from hub.streams import StreamState

    honest = DeviceSession._verdict

    def verdict(
        self: DeviceSession, state: StreamState, hello: wire.Hello, now_ns: int
    ) -> wire.Welcome | wire.NewStream:
        last, position = hello.next - 1, self._streams.position()
        # Without chains there is nothing that a device could compare either.
        if state.mark.stored > last:
            return wire.NewStream(last, hello.chain, Reason.SEQ_REUSE, position)
        if state.mark.stored == last:
            return wire.Welcome(last, hello.chain, position, now_ns, self._window)
        return honest(self, state, hello, now_ns)

    DeviceSession._verdict = verdict  # type: ignore[method-assign]


def delete_before_ack() -> None:
    """An SDK that forgets a frame when it has sent it."""
    send = Session.frames_to_send

    def send_and_forget(self: Session, now: float, max_bytes: int = 256 * 1024) -> list[Outgoing]:
        out = send(self, now, max_bytes)
        for item in out:
            if item.frame is not None:
                self._settle(item.frame.seq, item.frame.chain.hex(), self._spool.pos or "0.0")
        return out

    Session.frames_to_send = send_and_forget  # type: ignore[method-assign]
    # Forgotten is also what the state's file still names: else it would be found for a restored hub.
    FileSpool.retained = lambda *_: iter(())  # type: ignore[method-assign]


def number_at_record() -> None:
    """An SDK that numbers each reading when it is recorded; a full spool drops numbered frames and leaves holes."""
    record, send = FileSpool.record, Session.frames_to_send
    making = threading.Lock()

    def record_and_number(
        self: FileSpool, values: Sequence[tuple[str, Value]], time_ns: int | None, now_ns: int
    ) -> None:
        with making:
            record(self, values, time_ns, now_ns)
            self.cut()
            outbox = self._outbox
            with self._lock:
                while outbox.body_bytes > self._max_bytes // 4:
                    gone = outbox.frames.popleft()
                    outbox.body_bytes -= len(gone.frame.body)
                    outbox.readings_in_frames -= gone.frame.readings
                    outbox.lose(Reason.SPOOL_FULL, gone.frame.readings, {})

    def send_all(self: Session, now: float, max_bytes: int = 256 * 1024) -> list[Outgoing]:
        self._flight.begin(self._spool.frames(self._spool.acked))
        return send(self, now, max_bytes)

    FileSpool.record = record_and_number  # type: ignore[method-assign]
    Session.frames_to_send = send_all  # type: ignore[method-assign]
    Outbox.has_room = lambda self, limit_bytes: True  # type: ignore[method-assign]


def forget_orders() -> None:
    """A hub that knows no unanswered command of its process before."""
    from hub.command_file import CommandFile

    CommandFile.waiting = lambda self: []  # type: ignore[method-assign]


def forget_commands() -> None:
    """An SDK that does not look whether it has begun a command before."""
    from device_sdk.command_notes import CommandNotes

    CommandNotes.find = lambda self, id: None  # type: ignore[method-assign]


def seal_often() -> None:
    """No fault: a hub whose chunks are of four readings, sealed at nearly each write, so that every kill meets it."""
    from hub.store.columns import ColumnStore

    os.environ["HUB_STORE"] = "columns"
    defaults = ColumnStore.__init__.__kwdefaults__
    assert defaults is not None, "they are keywords with defaults"
    defaults.update(chunk_readings=4, max_pending_bytes=2000)


def small_ring() -> None:
    """No fault: a hub whose newest frames in memory are a few thousand readings, so that each outage is longer."""
    from hub.live.rooms import Live

    defaults = Live.__init__.__kwdefaults__
    assert defaults is not None, "they are keywords with defaults"
    defaults.update(ring_bytes=SMALL_RING_BYTES)


def any_cursor() -> None:
    """A hub that goes on at any offset, whatever run it is of."""
    from hub.live.cursor import RunTable

    RunTable.knows = lambda self, cursor, head: True  # type: ignore[method-assign]


def no_journal_pages() -> None:
    """A hub that goes on at the head when the ring does not hold what a watcher missed, without a word."""
    from hub.live.room import Chunk, LosslessRoom
    from hub.live.subscription import Subscription

    page = LosslessRoom.page
    LosslessRoom.page = lambda self, after: page(self, after) or Chunk(after, self.head, [])  # type: ignore[method-assign]
    Subscription._is_in_journal = lambda self: False  # type: ignore[method-assign]


def cursor_one_back() -> None:
    """A hub whose cursors are one frame too old."""
    from hub.live.cursor import RunTable

    cursor = RunTable.cursor
    RunTable.cursor = lambda self, offset: cursor(self, max(offset - 1, 0))  # type: ignore[method-assign]


HUB: dict[str, Callable[[], None]] = {
    "normal_synchronous": normal_synchronous,
    "ack_before_commit": ack_before_commit,
    "no_dedupe": no_dedupe,
    "no_chain": no_chain,
    "forget_orders": forget_orders,
}
LIVE: dict[str, Callable[[], None]] = {
    "any_cursor": any_cursor,
    "no_journal_pages": no_journal_pages,
    "cursor_one_back": cursor_one_back,
}
SDK: dict[str, Callable[[], None]] = {
    "delete_before_ack": delete_before_ack,
    "number_at_record": number_at_record,
    "forget_commands": forget_commands,
}
SOUND: dict[str, Callable[[], None]] = {"seal_often": seal_often, "small_ring": small_ring}


def apply(name: str) -> None:
    """Bring the fault into this process."""
    logging.getLogger("tests.support.mutants").warning("this program is not as it is shipped: %s", name)
    (HUB | LIVE | SOUND | SDK)[name]()


def main(arguments: list[str]) -> None:
    """Run the hub's command line with a fault, or several: ``NAME+NAME``."""
    for name in arguments[0].split("+"):
        apply(name)
    from hub.cli import main as run_hub

    sys.argv = ["hub", *arguments[1:]]
    run_hub()


if __name__ == "__main__":
    main(sys.argv[1:])
