"""Events rebuild the outbox they came from; a hole is noticed, never an exception."""

import random

import pytest

from device_sdk import spool_event
from device_sdk.errors import Reason, SpoolError
from device_sdk.lane import Marks
from device_sdk.outbox import Copying, Entry, NextFrame, Outbox, loss_of
from device_sdk.reading import Channel, ValueType
from device_sdk.reading_file import FileName
from device_sdk.spool_event import State
from device_sdk.state_log import Event
from device_sdk.uptime import UPTIME

ENTRIES: list[Entry] = [("t", 5, 1.0), ("t", 6, 2.0)]


def snapshot_of(outbox: Outbox) -> list[Event]:
    return list(
        spool_event.snapshot(State(outbox, Marks(7, []), last_ns=6, boot="b", durability="fsync", damage={3: 1}))
    )


def cut(outbox: Outbox) -> NextFrame:
    made = outbox.next_frame(ENTRIES, 10_000)
    assert made is not None
    return made


def history(outbox: Outbox) -> list[Event]:
    """Live through every kind of event, write-ahead, and return what was written."""
    events = snapshot_of(outbox)

    def number() -> None:
        made = cut(outbox)
        events.append(spool_event.frame_event(outbox.stream, made, Marks(len(events), [(1, 2)])))
        outbox.add(made)

    channel = Channel("t", "Cel", ValueType.FLOAT, 1.0, 0.0, 9.0, "Temperature")
    events.append(spool_event.declare_event(channel))
    outbox.declare(channel)
    for _ in range(3):
        number()
    events.append(spool_event.ack_event(outbox.stream, 1, "run.1", None))
    outbox.acknowledge(1, "run.1")
    events.append(spool_event.lose_event(Reason.SPOOL_FULL, 2, {"t": (1, 2)}, marks=Marks(900, [(3, 4)])))
    outbox.lose(Reason.SPOOL_FULL, 2, {"t": (1, 2)})
    events.append(spool_event.lose_event(Reason.DISK_FULL, 2, {"t": (UPTIME + 1, UPTIME + 2)}))
    outbox.lose(Reason.DISK_FULL, 2, {"t": (UPTIME + 1, UPTIME + 2)})
    events.append(spool_event.time_event(1_000))
    outbox.learn_time(1_000)
    events.append(spool_event.restart_event("s2", 2, loss_of(ENTRIES)))
    outbox.restart("s2", 2, loss_of(ENTRIES))
    for _ in range(4):
        number()
    events.append(spool_event.ack_event("s2", 4, "run.2", "s3"))
    outbox.acknowledge(4, "run.2")
    outbox.restart("s3", 4)
    copying = Copying("s2", 1, 1, 4, "s2 again")
    events.append(spool_event.forget_event("s2", copying))
    outbox.forget("s2", copying)
    events.append(spool_event.copy_event(copying._replace(after=2, seq=1, chain="07" * 16)))
    outbox.copied(copying._replace(after=2, seq=1, chain="07" * 16))
    number()
    return events


def test_replay_rebuilds_the_outbox() -> None:
    """After any number of its events, the state is what it was when the last was written."""
    live = Outbox("s1")
    events = history(live)

    state = spool_event.replay(events)

    assert state.is_coherent
    assert state.outbox.to_object() == live.to_object()
    assert (state.outbox.frames, state.outbox.returned) == (live.frames, live.returned)
    assert (state.marks, state.last_ns, state.boot, state.durability) == (Marks(900, [(1, 2)]), 6, "b", "fsync")
    assert (state.damage, state.is_closed) == ({3: 1}, False)


def test_snapshot_of_a_replay_replays_to_the_same() -> None:
    """Starting writes a snapshot: nothing may change by that."""
    live = Outbox("s1")
    history(live)

    again = spool_event.replay(snapshot_of(live))

    assert again.is_coherent
    assert snapshot_of(again.outbox) == snapshot_of(live)


def test_close_is_remembered_with_its_end() -> None:
    """The next start knows that nothing was in flight, and where the readings ended."""
    state = spool_event.replay([*snapshot_of(Outbox("s1")), spool_event.close_event(55, 9)])

    assert (state.is_closed, state.end, state.outbox.no_value) == (True, 55, 9)


def test_lost_events_never_raise_and_keep_what_came_after() -> None:
    """Whichever events are missing, the last frame is held: it is cut again when its stream cannot go on."""
    rng = random.Random(7)
    *events, last = history(Outbox("s1"))
    for _ in range(300):
        kept = [event for event in events if rng.random() > 0.2]

        outbox = spool_event.replay([*kept, last]).outbox

        assert last.body in [made.frame.body for made in (*outbox.frames, *outbox.returned)]


@pytest.mark.parametrize("missing", ["frame", "restart"])
def test_missing_event_makes_the_state_incoherent(missing: str) -> None:
    """A number that was used may not be known: the stream must not go on."""
    events = history(Outbox("s1"))
    at = next(i for i, event in enumerate(events) if event.kind == missing)

    state = spool_event.replay(events[:at] + events[at + 1 :])

    assert not state.is_coherent


@pytest.mark.parametrize(
    "event",
    [Event("frame", {}), Event("ack", {"stream": "s1"}), Event("later", {}), Event("lose", {"reason": 1, "ranges": 5})],
    ids=["no fields", "half an ack", "unknown", "wrong types"],
)
def test_event_that_makes_no_sense_is_incoherent(event: Event) -> None:
    """CRCs make it nearly impossible; it still must not stop a device."""
    assert not spool_event.replay([*snapshot_of(Outbox("s1")), event]).is_coherent


def test_no_snapshot_is_incoherent() -> None:
    """Nothing to begin from."""
    assert not spool_event.replay([]).is_coherent


def test_newer_format_is_refused() -> None:
    """The only case that stops a start: guessing could lose what a newer SDK wrote."""
    first, *rest = snapshot_of(Outbox("s1"))

    with pytest.raises(SpoolError, match="newer"):
        spool_event.replay([Event(first.kind, {**first.fields, "format": 2}), *rest])


def test_log_of_an_older_sdk_is_read() -> None:
    """It knows no lanes, no thinned files, no copies, no drops by reason; a loss that moved nothing said position 0."""
    first, *rest = snapshot_of(Outbox("s1"))
    unknown = ("lanes", "thinned", "dropped_by", "copying")
    fields = {name: value for name, value in first.fields.items() if name not in unknown}
    loss = Event("lose", {"reason": "disk_full", "count": 3, "ranges": {}, "head": 0})
    drop = Event("lose", {"reason": "spool_full", "count": 2, "ranges": {}, "head": 50})

    forget = Event("forget", {"stream": "s0"})
    state = spool_event.replay([Event(first.kind, fields), *rest, loss, drop, forget])

    assert state.is_coherent
    assert state.outbox.copying is None
    assert (state.marks, state.thinned) == (Marks(50, []), set())
    assert (state.outbox.dropped, state.outbox.dropped_by) == (5, {"disk_full": 3, "spool_full": 2})


def test_thinned_file_stands_for_those_before_it() -> None:
    """Also through a snapshot; damage in what it replaces is not looked for any more."""
    once, other, twice = FileName(0, 200, 1), FileName(300, 400, 1), FileName(0, 250, 2)
    events = snapshot_of(Outbox("s1"))
    for file in (once, other, twice):
        events.append(spool_event.lose_event(Reason.THINNED, 7, {"t": (1, 2)}, file=file))

    state = spool_event.replay(events)
    again = spool_event.replay(spool_event.snapshot(state))

    assert state.thinned == again.thinned == {other, twice}
    assert state.damage == {}
    assert state.marks == Marks(7, []), "nothing was numbered by that"
    assert (state.outbox.dropped, again.outbox.dropped_by) == (21, {"thinned": 21})
    assert state.outbox.losses[Reason.THINNED].count == 21
