"""Hubs and SDKs with one fault each, which the chaos runs must catch: the harness is tested too.

The only place where our own code is patched: the patch *is* the fault, or of `SOUND` what makes one likelier. Each
mutant swaps one rule in a child process and then runs the real program: ``python -m tests.support.mutants NAME serve``
for the hub, `apply` in a device's.
"""

import itertools
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from device_sdk.errors import Reason
from device_sdk.file_spool import FileSpool
from device_sdk.outbox import Outbox
from device_sdk.reading import Value
from device_sdk.session import Outgoing, Session

# What group commit of a store that batches costs; an ack that does not wait for it is that much too early.
BATCH_S = 0.05
# About 1,700 readings.
SMALL_RING_BYTES = 128 * 1024
# More than a watcher who reads is behind for longer than a moment.
SLOW_BYTES = 64 * 1024


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


def _change_rows(change: "Callable[[list[Any]], list[Any]]") -> None:
    """Let one of three messages of accepted readings be another."""
    from hub.live import encode

    rows, turns = encode._rows, itertools.count()
    encode._rows = lambda *of: change(rows(*of)) if next(turns) % 3 == 2 else rows(*of)


def lose_readings() -> None:
    """A hub that leaves the last reading of a message out now and then."""
    _change_rows(lambda rows: rows[:-1])


def send_twice() -> None:
    """A hub that sends the last reading of a message again now and then."""
    _change_rows(lambda rows: [*rows, rows[-1]])


def swap_readings() -> None:
    """A hub that swaps the first two readings of a message now and then."""
    _change_rows(lambda rows: [rows[1], rows[0], *rows[2:]] if rows[1:] and rows[0][0] == rows[1][0] else rows)


def mix_values() -> None:
    """A hub that sends a reading with another's value now and then."""
    _change_rows(lambda rows: [(*rows[0][:2], rows[0][2] + 1), *rows[1:]] if type(rows[0][2]) is int else rows)


def resume_late() -> None:
    """A hub that goes on one frame behind the one that is owed."""
    from dataclasses import replace

    from hub.live import cursor

    parse = cursor.parse_cursor

    def parse_late(text: str) -> "cursor.Cursor | None":
        found = parse(text)
        return None if found is None else replace(found, offset=found.offset + 1)

    cursor.parse_cursor = parse_late
    cursor.RunTable.knows = lambda self, at, head: at.run in self._ids and at.offset <= head + 1  # type: ignore[method-assign,assignment]


def forget_old_cursors() -> None:
    """A hub that resumes nobody who was away for more than a few frames, though its journal has what is owed."""
    from hub.live.cursor import RunTable

    knows = RunTable.knows
    RunTable.knows = lambda self, at, head: knows(self, at, head) and at.offset > head - 5  # type: ignore[method-assign,assignment]


def forget_runs() -> None:
    """A hub that knows no cursor from before its start."""
    from hub.live.cursor import RunTable

    begin = RunTable.__init__
    RunTable.__init__ = lambda self, runs: begin(self, runs[-1:])  # type: ignore[method-assign]


def claim_recovery() -> None:
    """A hub that always says that it goes on behind the cursor."""
    from hub.live.subscription import Subscription

    opened = Subscription._opened_with
    Subscription._opened_with = lambda self, _: opened(self, True)  # type: ignore[method-assign,assignment]


def deny_recovery() -> None:
    """A hub that goes on behind the cursor, and says that it does not."""
    from hub.live.subscription import Subscription

    opened = Subscription._opened_with
    Subscription._opened_with = lambda self, _: opened(self, False)  # type: ignore[method-assign,assignment]


def forget_live() -> None:
    """A hub that never tells who comes back that nothing more is behind."""
    import orjson

    from hub.live.poll import Poll
    from hub.live.subscription import Subscription

    write, answer = Subscription._write_live, Poll.answer

    def write_first(self: Subscription) -> None:
        if not self._start.resumes:
            write(self)

    def answer_without(self: Poll) -> bytes:
        told = orjson.loads(answer(self))
        if self._has_position:
            told["messages"] = [message for message in told["messages"] if message["op"] != "live"]
        return orjson.dumps(told)

    Subscription._write_live, Poll.answer = write_first, answer_without  # type: ignore[method-assign]


def endless_credentials() -> None:
    """A hub whose credentials never end."""
    from hub.credential import Credential

    begin = Credential.__init__
    Credential.__init__ = lambda self, identity, hash, _=None: begin(self, identity, hash)  # type: ignore[method-assign,assignment]


def wait_for_all() -> None:
    """A hub that tells nobody anything while one does not read."""
    from hub.live.rooms import Live
    from hub.model import Frame

    publish = Live.publish
    held: list[Frame] = []

    def publish_when_all_read(self: Live, frames: Sequence[Frame]) -> None:
        held.extend(frames)
        if all(watcher.buffered_bytes < SLOW_BYTES for watcher in self.watchers):
            publish(self, [*held])
            held.clear()

    Live.publish = publish_when_all_read  # type: ignore[method-assign]


def _change_newest(change: "Callable[[list[Any]], list[Any]]") -> None:
    """Let messages of newest values be others."""
    from hub.live import room

    encode = room.encode_values  # type: ignore[attr-defined]
    room.encode_values = lambda values, cursor: encode(change([*values]), cursor)  # type: ignore[attr-defined]


def lose_the_last() -> None:
    """A hub that conflates and forgets a series where several have something new."""
    _change_newest(lambda rows: rows[:-1] if rows[1:] else rows)


def tell_old_values() -> None:
    """A hub that conflates and tells an older value behind a newer one now and then."""
    old: list[Any] = []
    # Not each n-th: whose turn it is would go with who asks, and some never see one.
    chance = random.Random(1)

    def with_old(rows: list[Any]) -> list[Any]:
        if chance.random() < 0.4 and old and any(row[0] == old[0][0] and row[1] > old[0][1] for row in rows):
            return [*rows, old[0]]
        old[:] = rows[:1] or old
        return rows

    _change_newest(with_old)


def ignore_the_rate() -> None:
    """A hub that sends each change, however few were asked for."""
    from hub.live import watch

    key = watch.room_key

    def fast_key(*of: Any) -> Any:
        found, *more = key(*of)
        return found._replace(max_hz=found.max_hz and 1000.0), *more

    watch.room_key = fast_key  # type: ignore[assignment]


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
    "lose_readings": lose_readings,
    "send_twice": send_twice,
    "swap_readings": swap_readings,
    "mix_values": mix_values,
    "resume_late": resume_late,
    "forget_old_cursors": forget_old_cursors,
    "forget_runs": forget_runs,
    "claim_recovery": claim_recovery,
    "deny_recovery": deny_recovery,
    "forget_live": forget_live,
    "endless_credentials": endless_credentials,
    "wait_for_all": wait_for_all,
    "lose_the_last": lose_the_last,
    "tell_old_values": tell_old_values,
    "ignore_the_rate": ignore_the_rate,
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
