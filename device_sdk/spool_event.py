"""What the events of a state log mean: replays them into the `Outbox` they came from.

Owns: each event's name and fields, both ways. Place: after `outbox` and
`state_log`, before `recovery`. Pure, and never raises for damage: what is
missing makes the result incoherent, and the spool then begins a new stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device_sdk import wire
from device_sdk.errors import SpoolError
from device_sdk.lane import NOTHING_NUMBERED, Marks
from device_sdk.outbox import Copying, CutFrame, Loss, NextFrame, Outbox, copying_of
from device_sdk.reading import Channel
from device_sdk.reading_file import FileName
from device_sdk.state_log import COMPLETE, HELD, SNAPSHOT, Event

FORMAT = 1
FRAME, ACK, RESTART, LOSE, DECLARE, CLOSE, TIME = "frame", "ack", "restart", "lose", "declare", "close", "time"
FORGET, COPY = "forget", "copy"


class State:
    """Everything the state log of one spool says.

    ``marks``: which readings are un-numbered. ``thinned``: the thinned files that stand.
    ``end``: where the readings ended at a clean close. ``damage``: places of each
    reading file that are declared already. ``is_coherent``: every event fitted to the
    one before.
    """

    def __init__(
        self,
        outbox: Outbox,
        marks: Marks = NOTHING_NUMBERED,
        last_ns: int = 0,
        *,
        thinned: Iterable[FileName] = (),
        boot: str = "",
        durability: str = "second",
        damage: dict[int, int] | None = None,
        is_coherent: bool = True,
    ) -> None:
        self.outbox = outbox
        self.marks = marks
        self.thinned = set(thinned)
        self.last_ns = last_ns
        self.end = 0
        self.boot = boot
        self.durability = durability
        self.is_closed = False
        self.is_coherent = is_coherent
        self.damage = {} if damage is None else damage


def snapshot(state: State) -> Iterator[Event]:
    """Yield the events that begin a state file."""
    fields = {
        "format": FORMAT, **_marks_fields(state.marks), "last_ns": state.last_ns, "boot": state.boot,
        "durability": state.durability, "damage": {str(base): n for base, n in state.damage.items()},
        "thinned": sorted(state.thinned),
    }  # fmt: skip
    yield Event(SNAPSHOT, {**fields, **state.outbox.to_object()})
    for is_returned, queue in ((False, state.outbox.frames), (True, state.outbox.returned)):
        for made in queue:
            yield Event(HELD, {**_frame_fields(made), "returned": is_returned}, made.frame.body)
    yield Event(COMPLETE, {})


def frame_event(stream: str, made: NextFrame, marks: Marks) -> Event:
    """Return the event of a cut: the frame, and which readings are un-numbered after it."""
    return Event(FRAME, {"stream": stream, **_marks_fields(marks), **_frame_fields(made)}, made.frame.body)


def ack_event(stream: str, stored: int, pos: str, new_stream: str | None) -> Event:
    """Return the event of an ack, which also begins ``new_stream`` when this one waited for its end."""
    return Event(ACK, {"stream": stream, "stored": stored, "pos": pos, "new_stream": new_stream})


def restart_event(new_stream: str, stored: int | None, lost: Loss) -> Event:
    """Return the event of a new stream."""
    return Event(RESTART, {"new_stream": new_stream, "stored": stored, "lost": [lost.count, lost.ranges]})


def lose_event(
    reason: str,
    count: int | None,
    ranges: Mapping[str, tuple[int, int]],
    *,
    marks: Marks | None = None,
    file: FileName | None = None,
) -> Event:
    """Return the event of a loss.

    ``marks``: what is un-numbered when the lost readings are gone with it. ``file``: the thinned file that
    stands from now on, without them.
    """
    fields: dict[str, Any] = {"reason": reason, "count": count, "ranges": dict(ranges)}
    if marks is not None:
        fields.update(_marks_fields(marks))
    if file is not None:
        fields["file"] = file
    return Event(LOSE, fields)


def forget_event(stream: str, copying: Copying | None) -> Event:
    """Return the event of an earlier stream whose frames a restored hub misses and which are gone here too.

    ``copying``: those that are not gone.
    """
    return Event(FORGET, {"stream": stream, "copying": copying and list(copying)})


def copy_event(copying: Copying | None) -> Event:
    """Return the event of a copy that has come further, or is over."""
    return Event(COPY, {"copying": copying and list(copying)})


def declare_event(channel: Channel) -> Event:
    """Return the event of a declared channel."""
    return Event(DECLARE, {"name": channel.name, "channel": wire.channel_to_object(channel)})


def time_event(offset: int) -> Event:
    """Return the event of learning how far real time lies behind the positions of this boot's uptime."""
    return Event(TIME, {"offset": offset})


def close_event(end: int, no_value: int) -> Event:
    """Return the event of a clean close."""
    return Event(CLOSE, {"end": end, "no_value": no_value})


def frames_of(files: Iterable[Iterable[Event]], stream: str, after: int) -> Iterator[CutFrame]:
    """Yield the frames > ``after`` of one stream as they were cut, ascending; what is damaged is left out."""
    for events in files:
        now = ""
        for event in events:
            fields = event.fields
            try:
                now = fields["stream"] if event.kind == SNAPSHOT else now
                of = fields["stream"] if event.kind == FRAME else now if event.kind == HELD else ""
                if of != stream or fields.get("returned") or fields["seq"] <= after:
                    continue  # a snapshot repeats frames of the file before it
                frame = _frame(fields, event.body).frame
            except (KeyError, ValueError, TypeError):
                continue
            after = frame.seq
            yield frame


def replay(events: Iterable[Event]) -> State:
    """Return the state after all events; readings of frames that do not fit are kept in ``returned``.

    Raises:
        SpoolError: a newer SDK wrote it.
    """
    state = State(Outbox(""), is_coherent=False)
    for event in events:
        try:
            state = _apply(state, event)
        except (KeyError, ValueError, TypeError, AttributeError):
            state.is_coherent = False
    outbox = state.outbox
    seqs = [made.frame.seq for made in outbox.frames]
    if seqs != list(range(outbox.acked + 1, outbox.next)) or outbox.chain(outbox.next - 1) is None:
        state.is_coherent = False
    return state


def _apply(state: State, event: Event) -> State:
    fields, outbox = event.fields, state.outbox
    match event.kind:
        case "snapshot":
            return _from_snapshot(fields)
        case "held":
            outbox.hold(_frame(fields, event.body), is_returned=fields["returned"])
        case "close":
            state.end, state.is_closed, outbox.no_value = fields["end"], True, fields["no_value"]
        case "frame":
            _apply_frame(state, fields, event.body)
        case "ack" if fields["stream"] == outbox.stream:
            _apply_ack(outbox, fields)
        case "restart":
            count, ranges = fields["lost"]
            outbox.restart(fields["new_stream"], fields["stored"], Loss(count, _ranges(ranges)))
        case "lose" | "forget":
            _apply_loss(state, fields)
        case "declare" | "time" | "copy":
            _apply_knowledge(outbox, event)
        case "complete":
            pass
        case _:  # an event of another stream: the one that began it is lost
            state.is_coherent = False
    return state


def _from_snapshot(fields: dict[str, Any]) -> State:
    if fields["format"] > FORMAT:
        raise SpoolError("the spool was written by a newer device_sdk; update this one, or give it another directory")
    damage = {int(base): n for base, n in fields["damage"].items()}
    return State(
        Outbox.from_object(fields), _marks(NOTHING_NUMBERED, fields), fields["last_ns"],
        boot=fields["boot"], durability=fields["durability"], damage=damage,
        thinned=(FileName(*name) for name in fields.get("thinned", ())),
    )  # fmt: skip


def _apply_frame(state: State, fields: dict[str, Any], body: bytes) -> None:
    outbox, made = state.outbox, _frame(fields, body)
    if fields["stream"] == outbox.stream and made.frame.seq == outbox.next:
        outbox.add(made)
    else:
        state.is_coherent = False
        outbox.hold(made, is_returned=True)
    state.marks = _marks(state.marks, fields)


def _apply_ack(outbox: Outbox, fields: dict[str, Any]) -> None:
    outbox.acknowledge(fields["stored"], fields["pos"])
    if fields["new_stream"] is not None:
        outbox.restart(fields["new_stream"], fields["stored"])


def _apply_knowledge(outbox: Outbox, event: Event) -> None:
    fields = event.fields
    if event.kind == TIME:
        outbox.learn_time(fields["offset"])
    elif event.kind == COPY:
        outbox.copied(copying_of(fields["copying"]))
    else:
        outbox.declare(wire.channel_from_object(fields["name"], fields["channel"]))


def _apply_loss(state: State, fields: dict[str, Any]) -> None:
    if "stream" in fields:
        state.outbox.forget(fields["stream"], copying_of(fields.get("copying")))
        return
    state.outbox.lose(fields["reason"], fields["count"], _ranges(fields["ranges"]))
    state.marks = _marks(state.marks, fields)
    if "file" in fields:
        _stand(state, FileName(*fields["file"]))


def _stand(state: State, name: FileName) -> None:
    """Let a thinned file stand for those it was made of; their damage is not in it."""
    state.thinned = {other for other in state.thinned if not name.covers(other)} | {name}
    for base in [base for base in state.damage if name.covers(FileName(base))]:
        del state.damage[base]


def _marks_fields(marks: Marks) -> dict[str, Any]:
    return {"head": marks.head, "lanes": marks.lanes}


def _marks(before: Marks, fields: dict[str, Any]) -> Marks:
    """Return the marks an event names; an older SDK named no lanes, and 0 or nothing where a loss moved none."""
    lanes = [(head, end) for head, end in fields.get("lanes", before.lanes)]
    return Marks(max(before.head, fields.get("head", 0)), lanes)


def _ranges(fields: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {channel: (low, high) for channel, (low, high) in fields.items()}


def _frame_fields(made: NextFrame) -> dict[str, Any]:
    frame = made.frame
    return {
        "seq": frame.seq, "kind": frame.kind, "readings": frame.readings, "chain": frame.chain.hex(),
        "source": made.source, "first_ns": made.first_ns,
    }  # fmt: skip


def _frame(fields: dict[str, Any], body: bytes) -> NextFrame:
    frame = CutFrame(fields["seq"], body, bytes.fromhex(fields["chain"]), fields["kind"], fields["readings"])
    return NextFrame(frame, fields["source"], fields["first_ns"])
