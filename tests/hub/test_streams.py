"""Streams: what is stored of each, which positions this hub gave out, and what it tells of a device itself."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from copy import copy

from device_sdk import wire
from device_sdk.errors import Reason
from device_sdk.wire import CHAIN_START, CHAINS_KEPT, Rejection
from hub.journal.base import Run
from hub.model import Frame, Kind, Mark, StreamKey
from hub.streams import IDLE_KEPT, MAX_NEW_STREAMS, NEW_STREAMS_NS, Streams, StreamState
from tests.support.marks import marks_of

T = 1_795_376_000_000_000_000


def key(stream: int = 1, device: str = "d") -> StreamKey:
    return StreamKey("default", device, f"{stream:016x}")


def streams(head: int = 0) -> Streams:
    return Streams([Run("7f3a0001", 1)], head, marks_of({}))


def store(into: Streams, of: StreamKey, seq: int, now_ns: int = T) -> None:
    """Take and commit one frame."""
    if seq == 1:
        into.begin(of, now_ns)
    frame = into.get(of).accept(seq, b"{}", now_ns, Kind.BATCH, body=b"{}")
    frame.offset = into.head + 1
    into.committed([frame])


class Hub:
    """Streams over a journal that is a dictionary; connections come and go."""

    def __init__(self) -> None:
        self.journal: dict[StreamKey, Mark] = {}
        self.streams = Streams([Run("7f3a0001", 1)], 0, marks_of(self.journal))

    def visit(self, of: StreamKey, frames: int = 1) -> None:
        """Take the stream's next frames, commit each, and let go of it."""
        state = self.streams.get(of)
        for _ in range(frames):
            frame = state.accept(state.accepted + 1, b"{}", T, Kind.BATCH, body=b"{}")
            self.streams.committed([frame])
        self.journal[of] = copy(state.mark)
        self.streams.release(state)


def test_position_is_known_inside_the_run_that_gave_it_out() -> None:
    """Each run reaches from one before its first offset to the next run's; the present one to the head."""
    of = Streams([Run("aaaa0001", 1), Run("aaaa0002", 101), Run("aaaa0003", 101)], 140, marks_of({}))

    known = ["aaaa0001.0", "aaaa0001.100", "aaaa0002.100", "aaaa0003.140"]
    unknown = ["aaaa0001.101", "aaaa0003.141", "bbbb0001.5", "aaaa0003", "aaaa0003.x", "", "aaaa0003.²"]
    assert [p for p in known if not of.knows(p)] == []
    assert [p for p in unknown if of.knows(p)] == []


def test_own_position_is_always_known() -> None:
    """What `position` gives out is known, also before the first frame."""
    of = streams()
    assert of.knows(of.position())
    store(of, key(), 1)
    assert of.knows(of.position())


def test_stored_of_an_unknown_stream_makes_none() -> None:
    """Asking costs nothing: a hello may name any stream."""
    of = streams()
    assert of.stored([key()]) == [(0, CHAIN_START)]
    assert len(of) == 0

    store(of, key(), 1)
    assert of.stored([key()]) == [(1, wire.next_chain(CHAIN_START, b"{}"))]


def test_all_that_is_asked_for_at_once_is_one_look_into_the_journal() -> None:
    """A hello may name sixteen streams, and each look is a transaction on the event loop; none for what is known."""
    asked: list[list[StreamKey]] = []
    journal = {key(n): Mark(key(n), n, b"c" * 16) for n in (2, 3)}

    def find(keys: Sequence[StreamKey]) -> dict[StreamKey, Mark]:
        asked.append(list(keys))
        return {k: journal[k] for k in keys if k in journal}

    of = Streams([Run("7f3a0001", 1)], 0, find)
    of.get(key(2))
    del asked[:]

    assert [seq for seq, _ in of.stored([key(n) for n in range(1, 5)])] == [0, 2, 3, 0]
    assert [seq for seq, _ in of.stored([key(2)])] == [2]
    assert asked == [[key(1), key(3), key(4)]]


def test_hub_tells_of_a_device_on_a_stream_of_its_own() -> None:
    """Its gaps are numbered and chained like any other frame, so the journal and the ledgers treat them alike."""
    of = streams()
    of.owe("default", "d", T, None, Reason.HUB_RESTORED)
    of.owe("default", "d", T, 0, Reason.CHAIN_CONFLICT)
    first, second = of.own_frames("default", "d", T)

    assert [(f.key.stream, f.seq, f.kind) for f in (first, second)] == [
        ("0" * 16, 1, Kind.GAP),
        ("0" * 16, 2, Kind.GAP),
    ]
    assert json.loads(first.body) == {"op": "gap", "seq": 1, "count": None, "reason": "hub_restored", "ranges": {}}
    assert second.chain == wire.next_chain(first.chain, second.body)


def test_a_device_may_begin_so_many_streams_a_day() -> None:
    """The next one has to wait until the oldest is a day old; known streams, other devices and the hub's own do not."""
    of = streams()
    of.committed([_own(of)])
    for n in range(1, MAX_NEW_STREAMS + 1):
        assert of.may_begin(key(n), T)
        store(of, key(n), 1, T + n)

    assert not of.may_begin(key(999), T + 10**9)
    assert of.may_begin(key(5), T + 10**9)
    assert of.may_begin(key(999, "other"), T + 10**9)
    assert of.may_begin(key(999), T + NEW_STREAMS_NS + 1)


def test_beginnings_are_forgotten_after_a_day() -> None:
    """Devices come and go for years: those that begin none any more cost nothing, nor those whose first was refused."""
    of, count = streams(), 300
    tracemalloc.start()
    for n in range(1, count + 1):
        for stream in range(MAX_NEW_STREAMS):
            of.begin(key(stream, f"gone-{n}"), T)
    for n in range(1, count + 1):
        of.begin(key(1, f"refused-{n}"), T)
        of.refused([of.get(key(1, f"refused-{n}")).accept(1, b"{}", T, Kind.BATCH, body=b"{}")])
    of.begin(key(1), T + NEW_STREAMS_NS)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 200 * count


def test_new_streams_are_counted_over_a_restart() -> None:
    """The journal says when each began, and still knows those that may go on."""
    marks = {key(n): Mark(key(n), 1, b"c" * 16) for n in range(1, MAX_NEW_STREAMS + 1)}

    of = Streams([Run("7f3a0001", 1)], 0, marks_of(marks), [(k, T) for k in marks])

    assert not of.may_begin(key(999), T + 1)
    assert of.may_begin(key(5), T + 1)


def _own(of: Streams) -> Frame:
    of.owe("default", "d", T, None, Reason.HUB_RESTORED)
    (frame,) = of.own_frames("default", "d", T)
    frame.offset = of.head + 1
    return frame


def test_what_the_full_disk_refused_of_the_hubs_own_words_is_told_again() -> None:
    """Nobody sends those frames again: the device's next hello brings them, with their count."""
    of = streams()
    of.owe("default", "d", T, None, Reason.HUB_RESTORED)
    of.owe("default", "d", T, 0, Reason.CHAIN_CONFLICT)
    refused = of.own_frames("default", "d", T)
    assert of.own_frames("default", "d", T) == []
    of.refused(refused)

    again = of.own_frames("default", "d", T + 1)
    assert [(f.seq, f.body) for f in again] == [(f.seq, f.body) for f in refused]


def test_hub_has_to_tell_until_its_own_words_are_stored() -> None:
    """Owed, on the way to the journal, refused by it: all of that a kill would take."""
    of = streams()
    assert not of.has_to_tell("default", "d")
    of.owe("default", "d", T, None, Reason.HUB_RESTORED)
    assert of.has_to_tell("default", "d")
    refused = of.own_frames("default", "d", T)
    assert of.has_to_tell("default", "d")
    of.refused(refused)
    assert of.has_to_tell("default", "d")

    of.committed(of.own_frames("default", "d", T))

    assert not of.has_to_tell("default", "d")


def test_one_thing_is_told_of_a_device_once_a_minute() -> None:
    """A hello costs a peer nothing, and may invent positions."""
    of = streams()
    told = 0
    for n in range(1000):
        if of.was_restored("default", "d", f"ffffffff.{n}"):
            of.owe("default", "d", T + n * 10**8, None, Reason.HUB_RESTORED)
        told += len(of.own_frames("default", "d", T))

    assert told == 2


def test_refused_stream_leaves_nothing_behind() -> None:
    """Neither a state nor a place among the new streams of the day."""
    of = streams()
    for n in range(1, 3 * MAX_NEW_STREAMS):
        assert of.may_begin(key(n), T)
        of.begin(key(n), T)
        frame = of.get(key(n)).accept(1, b"{}", T, Kind.BATCH, body=b"{}")
        of.refused([frame])

    assert len(of) == 0


def test_streams_at_rest_leave_memory() -> None:
    """However many ended, only the latest are kept; the others go on from the journal where they were."""
    hub = Hub()
    for n in range(1, IDLE_KEPT + 500):
        hub.visit(key(n, f"d-{n % 50}"))

    assert len(hub.streams) == IDLE_KEPT
    assert hub.streams.stored([key(1, "d-1")]) == [(1, wire.next_chain(CHAIN_START, b"{}"))]
    hub.visit(key(1, "d-1"))
    assert (hub.journal[key(1, "d-1")].stored, hub.journal[key(1, "d-1")].accepted) == (2, 0)
    assert len(hub.streams) == IDLE_KEPT


def test_stream_in_use_stays_in_memory() -> None:
    """Neither one with an owner nor one with frames on their way is let go: what was accepted is known only here."""
    hub = Hub()
    owned, waiting = hub.streams.get(key(1, "owned")), hub.streams.get(key(1, "waiting"))
    owned.owner = Silent()
    frame = waiting.accept(1, b"{}", T, Kind.BATCH, body=b"{}")
    hub.streams.release(waiting)
    for n in range(1, IDLE_KEPT + 2):
        hub.visit(key(n))

    assert hub.streams.get(key(1, "owned")) is owned
    assert hub.streams.get(key(1, "waiting")) is waiting
    hub.streams.committed([frame])
    assert len(hub.streams) == IDLE_KEPT + 1


def test_stream_in_memory_is_small() -> None:
    """A stream with all its chains takes less than 2.5 KiB: a hub has one for each device."""
    hub, count = Hub(), 200
    keys = [key(n) for n in range(1, count + 1)]
    tracemalloc.start()
    for of in keys:
        hub.visit(of, 2 * CHAINS_KEPT)
    hub.journal.clear()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(hub.streams) == count
    assert taken / count < 2560


def test_stream_at_rest_is_small_whatever_was_refused_of_it() -> None:
    """A thousand of them stay in memory, and a peer chooses the names of its channels."""
    hub, count = Hub(), 200

    def visit(n: int) -> None:
        refused = tuple(Rejection(1, f"{n}-{i}-" + "c" * 120, i, "unknown_channel") for i in range(100))
        state = hub.streams.get(key(n))
        hub.streams.committed([state.accept(1, b"{}", T, Kind.BATCH, body=b"{}", rejected=refused, rejected_count=100)])

    tracemalloc.start()
    for n in range(1, count + 1):
        visit(n)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(hub.streams) == count
    assert taken / count < 2560 + 5 * 350


def test_hubs_own_stream_keeps_no_rejections() -> None:
    """What a replay refuses nobody asks for: there is no ack on that stream."""
    of = streams()
    own = of.get(StreamKey("default", "d", wire.HUB_STREAM))
    refused = (Rejection(1, "x", 0, "type_conflict"),)

    of.committed([own.accept(1, b"{}", T, Kind.BATCH, body=b"{}", rejected=refused, rejected_count=1)])

    assert (own.mark.rejected, own.rejected) == (1, [])


class Silent:
    """An owner that says nothing."""

    def __init__(self) -> None:
        self.flush: Callable[[], None] = lambda: None

    def ack(self, state: StreamState) -> None:
        """Write nothing."""

    def say_slow(self, why: str, retry_ms: int) -> None:
        """Write nothing."""

    def end(self, code: int, reason: str) -> None:
        """Close nothing."""
