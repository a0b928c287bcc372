"""The device session takes each frame once, in order, and acks only what the journal committed."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_json
from device_sdk.errors import Reason
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START, Close, next_chain
from hub.devices import Registry
from hub.downlink import Downlink
from hub.errors import JournalError
from hub.journal.base import Run
from hub.model import Frame, Kind, Mark, StreamKey
from hub.session import ALLOWED, WARN_EVERY_NS, DeviceSession, State
from hub.streams import MAX_NEW_STREAMS, FindMarks, Streams
from hub.validate import MalformedError
from tests.support.marks import marks_of

T0 = 1_795_376_000_000_000_000
STREAM = "9f3a0000000000aa"


class Rig:
    """A hub without I/O: sessions on one set of streams, and a commit that the test calls."""

    def __init__(self, find: FindMarks | None = None, *, head: int = 0) -> None:
        """``head``: what was committed before; of which only the count is known here."""
        self.streams = Streams([Run("7f3a0001", 1)], head, find or marks_of({}))
        self.registry = Registry(())
        self.uncommitted: list[Frame] = []
        self.downlink = Downlink()
        self.incidents: list[tuple[str, str, str]] = []

    @property
    def mark(self) -> Mark:
        """The mark of the stream that tests speak for."""
        return self.streams.get(StreamKey("default", "d", STREAM)).mark

    def session(self, device: str = "d") -> DeviceSession:
        return DeviceSession("default", device, self.streams, self.registry)

    def running(self, **hello: Any) -> "DeviceSession":
        session = self.session()
        self.say(session, greet(**hello))
        self.say(session, wire.encode(wire.Schema((Channel("x"),))))
        return session

    def watched(self, peer: str) -> DeviceSession:
        """A session as the hub makes them: one downlink, and what it reports is noted."""
        return DeviceSession(
            "default", "d", self.streams, self.registry, downlink=self.downlink, peer=peer,
            report=lambda incident: self.incidents.append((incident.what, incident.outcome, incident.peers)),
        )  # fmt: skip

    def say(self, session: DeviceSession, data: bytes, **options: Any) -> list[dict[str, Any]]:
        session.receive(data, data[:1] == b"{", T0, **options)
        self.uncommitted += session.frames
        session.frames = []
        return [json.loads(m) for m in session.take_output()]

    def commit(self) -> None:
        """Do what writer and journal do: offsets in order, then tell the streams."""
        frames, self.uncommitted = self.uncommitted, []
        for number, frame in enumerate(frames, self.streams.head + 1):
            frame.offset = number
        self.streams.committed(frames)


def greet(device: str = "d", next_seq: int = 1, chain: bytes = CHAIN_START, stream: str = STREAM, **more: Any) -> bytes:
    return wire.encode(wire.Hello(device, stream, "boot", "run", 0, next_seq, chain.hex(), **more))


def batch(seq: int, value: Any = 1.5, channel: str = "x") -> bytes:
    return encode_json(Batch(seq, 1, T0 + seq, 1, (Column(channel, [0], [value]),)))


def chain_of(*bodies: bytes) -> bytes:
    chain = CHAIN_START
    for body in bodies:
        chain = next_chain(chain, body)
    return chain


def test_hello_of_an_unknown_stream_is_welcomed_with_nothing_stored() -> None:
    """A new stream begins at 0 with the start of the chain and the hub's position."""
    rig = Rig()

    (welcome,) = rig.say(rig.session(), greet())

    assert (welcome["op"], welcome["stored"], welcome["chain"]) == ("welcome", 0, CHAIN_START.hex())
    assert (welcome["pos"], welcome["time_ns"], welcome["window"]) == ("7f3a0001.0", str(T0), 32)


@pytest.mark.parametrize(
    ("wall_ns", "skew_ns", "is_skewed"),
    [(T0 + 3_200_000_000, 3_200_000_000, True), (T0 - 1_900_000_000, -1_900_000_000, False), (0, None, False)],
    ids=["ahead", "a little behind", "not said"],
)
def test_hello_tells_how_wrong_the_clock_is(wall_ns: int, skew_ns: int | None, is_skewed: bool) -> None:
    """The difference is noted and flagged beyond 2 s, of the last hello; no time is changed by it."""
    rig = Rig()
    older, session = rig.session(), rig.session()
    for each, clock_ns in ((older, T0 + 10**12), (session, wall_ns)):
        rig.say(each, wire.encode(wire.Hello("d", STREAM, "boot", "run", 0, 1, CHAIN_START.hex(), wall_ns=clock_ns)))
    rig.say(session, wire.encode(wire.Schema((Channel("x"),))))
    rig.say(session, batch(1))

    device = rig.registry.device("default", "d")
    assert (device.skew_ns, device.is_skewed) == (skew_ns, is_skewed)
    assert [time_ns for _, time_ns, _ in rig.uncommitted[0].rows()] == [T0 + 1]


def test_ack_leaves_only_after_the_commit() -> None:
    """Between a frame's arrival and its commit the hub says nothing."""
    rig = Rig()
    session = rig.running()

    assert rig.say(session, batch(1)) == []
    rig.commit()

    (ack,) = [json.loads(m) for m in session.take_output()]
    assert ack == {"op": "ack", "stored": 1, "chain": chain_of(batch(1)).hex(), "pos": "7f3a0001.1"}


def test_ack_is_cumulative_over_one_commit() -> None:
    """Three frames in one commit are one ack."""
    rig = Rig()
    session = rig.running()
    for seq in (1, 2, 3):
        rig.say(session, batch(seq))
    rig.commit()

    assert [json.loads(m)["stored"] for m in session.take_output()] == [3]


def test_fast_ack_is_what_the_wire_would_encode() -> None:
    """The hand-made ack of the hot path reads back as the same message."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1))
    rig.commit()

    (data,) = session.take_output()
    assert data == wire.encode(wire.decode_hub_message(data))


def test_frame_sent_again_is_stored_once() -> None:
    """Before its commit a repeated frame is ignored, after it acked again; never taken twice."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1))
    assert rig.say(session, batch(1)) == []
    assert len(rig.uncommitted) == 1
    rig.commit()
    session.take_output()

    assert [m["stored"] for m in rig.say(session, batch(1))] == [1]
    assert rig.uncommitted == []


def test_frame_out_of_order_is_refused_once_per_stored() -> None:
    """A skipped seq is answered with where to start again; the flood behind it is not answered each."""
    rig = Rig()
    session = rig.running()

    first = rig.say(session, batch(2))
    assert [(m["op"], m["reason"], m["stored"]) for m in first] == [("error", "out_of_order", 0)]
    assert rig.say(session, batch(3)) == []
    rig.say(session, batch(1))
    rig.commit()
    session.take_output()
    assert [m["stored"] for m in rig.say(session, batch(4))] == [1]


def test_stream_survives_its_connection() -> None:
    """Frames accepted on a lost connection are stored; the next welcome tells how far."""
    rig = Rig()
    first = rig.running()
    rig.say(first, batch(1))
    first.closed()
    second = rig.session()

    (early,) = rig.say(second, greet(next_seq=2, chain=chain_of(batch(1))))
    rig.say(second, batch(1))
    rig.commit()

    assert early["stored"] == 0
    assert [json.loads(m)["stored"] for m in second.take_output()] == [1]
    assert rig.mark.accepted == 1


def test_newest_connection_takes_the_stream_over() -> None:
    """The older connection is closed with 4409 and its late frames are not taken."""
    rig = Rig()
    older, newer = rig.running(), rig.session()

    rig.say(newer, greet())

    assert older.closing is not None
    assert older.closing[0] == Close.TAKEN_OVER
    assert newer.displaced == [older]
    rig.say(older, batch(1))
    assert rig.uncommitted == []


class Probes:
    """The pings of one connection; `answer` is what only a living end does."""

    def __init__(self, session: DeviceSession) -> None:
        self.unanswered: list[Callable[[], None]] = []
        session.probe = self.unanswered.append

    def answer(self) -> None:
        """Answer all."""
        while self.unanswered:
            self.unanswered.pop()()


def test_takeover_is_reported_with_both_peers() -> None:
    """Each one, whoever of the two it was; hello again on one's own connection is none."""
    rig = Rig()
    for peer in ("192.0.2.7", "192.0.2.5", "192.0.2.7"):
        session = rig.watched(peer)
        rig.say(session, greet())
        rig.say(session, greet())

    assert rig.incidents == [("takeover", "ok", "192.0.2.5 and 192.0.2.7")] * 2


def test_two_live_streams_of_a_device_raise_an_alarm() -> None:
    """The older connection answers a ping that was sent after the newer one was welcomed: the key is in two places."""
    rig = Rig()
    older, newer = rig.watched("192.0.2.7"), rig.watched("192.0.2.5")
    pings = Probes(older)
    rig.say(older, greet())
    assert not pings.unanswered

    rig.say(newer, greet(stream="9f3a0000000000bb"))
    assert rig.incidents == []
    pings.answer()

    assert rig.incidents == [("alarm", "cloned_key", "192.0.2.5 and 192.0.2.7")]
    assert older.closing is newer.closing is None, "which of them is the thief, the hub cannot know"


def test_new_stream_behind_a_half_open_connection_raises_no_alarm() -> None:
    """A device that lost its power or process: frames may still come in on the old connection, an answer never does."""
    rig = Rig()
    older, newer = rig.watched("192.0.2.7"), rig.watched("192.0.2.7")
    pings = Probes(older)
    rig.say(older, greet())
    rig.say(older, wire.encode(wire.Schema((Channel("x"),))))
    rig.say(newer, greet(stream="9f3a0000000000bb"))

    rig.say(older, batch(1))
    rig.commit()
    older.closed()
    pings.answer()

    assert (rig.incidents, rig.mark.stored) == ([], 1)


def test_reconnects_raise_no_alarm() -> None:
    """Closed and back on the same stream, taken over on a broken line, a new stream on the same connection."""
    rig = Rig()
    sessions = [rig.watched("192.0.2.7") for _ in range(3)]
    pings = [Probes(session) for session in sessions]
    rig.say(sessions[0], greet())
    sessions[0].closed()
    rig.say(sessions[1], greet())
    rig.say(sessions[2], greet())
    rig.say(sessions[2], greet(stream="9f3a0000000000bb"))

    for each in pings:
        each.answer()

    assert [what for what, *_ in rig.incidents] == ["takeover"]


@pytest.mark.parametrize(
    ("next_seq", "chain", "outcome"),
    [(3, b"x" * 16, "chain_conflict"), (2, b"x" * 16, "chain_conflict"), (2, None, "seq_reuse")],
    ids=["another frame", "another past", "the same past"],
)
def test_two_spools_on_one_stream_raise_an_alarm(next_seq: int, chain: bytes | None, outcome: str) -> None:
    """With the addresses of both, also when the first has left; only the one that is known after a restart."""
    rig = Rig()
    first = rig.watched("192.0.2.7")
    rig.say(first, greet())
    rig.say(first, wire.encode(wire.Schema((Channel("x"),))))
    for seq in (1, 2):
        rig.say(first, batch(seq))
    rig.commit()
    first.closed()

    twin = greet(next_seq=next_seq, chain=chain or chain_of(batch(1)))
    rig.say(rig.watched("192.0.2.5"), twin)

    assert rig.incidents == [("alarm", outcome, "192.0.2.5 and 192.0.2.7")]


def test_rolled_back_spool_gets_a_new_stream() -> None:
    """stored ≥ next with an equal chain: the frames up to next − 1 count as acked."""
    rig = Rig()
    session = rig.running()
    for seq in (1, 2):
        rig.say(session, batch(seq))
    rig.commit()

    (answer,) = rig.say(rig.session(), greet(next_seq=2, chain=chain_of(batch(1))))

    assert (answer["op"], answer["why"], answer["stored"]) == ("new_stream", "seq_reuse", 1)
    assert answer["chain"] == chain_of(batch(1)).hex()


def test_forked_stream_gets_a_new_stream() -> None:
    """Equal numbers with different bytes are a clone: nothing counts as acked."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1))
    rig.commit()

    (answer,) = rig.say(rig.session(), greet(next_seq=2, chain=chain_of(batch(1, 99.0))))

    assert (answer["op"], answer["why"], answer["stored"]) == ("new_stream", "chain_conflict", 0)


def test_hello_for_another_device_is_forbidden() -> None:
    """The credential decides who speaks, never the message."""
    rig = Rig()
    session = rig.session("d")

    rig.say(session, greet(device="e"))

    assert session.closing is not None
    assert session.closing[0] == Close.FORBIDDEN


def test_rejections_are_counted_in_every_ack_and_named_once() -> None:
    """rejected_total is cumulative; the list tells what the last commit refused."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1, 1.5))
    rig.say(session, batch(2, "text"))
    rig.commit()
    first = json.loads(session.take_output()[-1])
    rig.say(session, batch(3))
    rig.commit()
    second = json.loads(session.take_output()[-1])

    assert first["rejected"] == [{"seq": 2, "channel": "x", "index": 0, "reason": "type_conflict"}]
    assert (second["rejected_total"], "rejected" in second) == (1, False)


def test_device_without_a_chain_is_told_how_much_was_refused_and_not_what() -> None:
    """A microcontroller has no memory for a list of a hundred."""
    rig = Rig()
    session = rig.running(chain=b"")
    rig.say(session, encode_json(Batch(1, 100, T0, 1, (Column("typo", list(range(100)), [1.5] * 100),))))
    rig.commit()
    ack = json.loads(session.take_output()[-1])

    assert (ack["stored"], ack["rejected_total"], "rejected" in ack) == (1, 100, False)


def test_what_was_refused_while_a_device_was_away_is_named_in_its_next_ack() -> None:
    """The first few, which show what is wrong; the total counts them all."""
    rig = Rig()
    session = rig.running()
    rig.say(session, encode_json(Batch(1, 100, T0, 1, (Column("typo", list(range(100)), [1.5] * 100),))))
    session.closed()
    rig.commit()

    back = rig.running()
    rig.say(back, batch(2))
    rig.commit()
    ack = json.loads(back.take_output()[-1])

    assert (ack["stored"], ack["rejected_total"]) == (2, 100)
    assert [r["index"] for r in ack["rejected"]] == [0, 1, 2, 3, 4]


def test_gap_is_an_ordinary_numbered_frame() -> None:
    """A declared loss takes its place in the order and counts as dropped."""
    rig = Rig()
    session = rig.running()
    rig.say(session, wire.encode(wire.Gap(1, 70, Reason.SPOOL_FULL, {"x": (T0, T0 + 9)})))
    rig.commit()

    mark = rig.mark
    assert (mark.stored, mark.dropped, mark.accepted) == (1, 70, 0)


def test_malformed_frame_with_seq_is_quarantined_in_its_place() -> None:
    """A broken body with a readable seq is kept whole, acked in order, and the next frame is stored."""
    rig = Rig()
    session = rig.running()
    broken = b'{"op":"batch","seq":1,"count":4,"t0":"zero","c":{}}'
    rig.say(session, broken)
    rig.say(session, batch(2))

    assert [f.kind for f in rig.uncommitted] == [Kind.QUARANTINE, Kind.BATCH]
    assert rig.uncommitted[0].body == broken
    assert rig.uncommitted[1].chain == chain_of(broken, batch(2))
    rig.commit()
    mark = rig.mark
    assert (mark.rejected, mark.accepted, mark.quarantined) == (4, 1, 1)


def test_what_a_device_sends_wrong_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once, the next after a minute with how many came between, over all connections of the device."""
    rig = Rig()
    broken = [b'{"op":"batch","seq":%d,"count":4,"t0":"zero","c":{}}' % seq for seq in range(1, 31)]
    for _ in range(3):
        session = rig.running()
        for frame in broken:
            rig.say(session, frame)
        rig.say(session, b'{"op":"fly"}')
        session.closed()
    assert [m.split(" reason=")[0] for m in caplog.messages] == ["quarantine device=d seq=1"]
    assert len(rig.uncommitted) == 30

    again = rig.running()
    again.receive(b'{"op":"fly"}', True, T0 + WARN_EVERY_NS)

    assert [m.split(" ")[0] for m in caplog.messages] == ["quarantine", "unreadable"]
    assert caplog.messages[1].endswith("left_out=32")


def test_unreadable_messages_end_the_connection_at_the_fourth() -> None:
    """Noise is answered three times with a reason, then the connection ends with 4400."""
    rig = Rig()
    session = rig.running()

    answers = [rig.say(session, b"\xff\x00noise")[0]["reason"] for _ in range(4)]

    assert answers == ["unreadable"] * 4
    assert session.closing is not None
    assert session.closing[0] == Close.BAD_MESSAGE


@pytest.mark.parametrize("op", sorted(op for op, states in ALLOWED.items() if State.AWAIT_HELLO not in states))
def test_nothing_is_taken_before_hello(op: str) -> None:
    """Every op that the table does not allow before hello closes with 4400 and changes nothing."""
    message = {
        "schema": wire.encode(wire.Schema(())),
        "batch": batch(1),
        "gap": wire.encode(wire.Gap(1, 1, "x", {})),
        "reply": wire.encode(wire.Reply("k", True)),
        "reported": wire.encode(wire.Reported(0, {})),
        "malformed": b"?",
    }[op]
    rig = Rig()
    session = rig.session()

    rig.say(session, message)

    assert session.closing is not None
    assert session.closing[0] == Close.BAD_MESSAGE
    assert rig.uncommitted == []


def test_full_journal_queue_says_slow_once_and_takes_the_frame_later() -> None:
    """While there is no room frames are dropped without noise, and once for each time they are sent; then taken."""
    rig = Rig()
    session = rig.running()

    for _ in range(3):
        answers = rig.say(session, batch(1), can_accept=False) + rig.say(session, batch(2), can_accept=False)
        assert [m["op"] for m in answers] == ["slow"]
    rig.say(session, batch(1))
    assert [f.seq for f in rig.uncommitted] == [1]


def test_refused_commit_rewinds_the_stream() -> None:
    """After a full disk nothing counts as accepted: the device is told slow and sends the same frames again."""
    rig = Rig()
    session = rig.running()
    for seq in (1, 2):
        rig.say(session, batch(seq))
    lost, rig.uncommitted = rig.uncommitted, []

    rig.streams.refused(lost)

    assert [json.loads(m)["why"] for m in session.take_output()] == ["disk_full"]
    for seq in (1, 2):
        rig.say(session, batch(seq))
    assert [f.chain for f in rig.uncommitted] == [f.chain for f in lost]


def test_a_malformed_frame_waits_like_any_other_while_the_queue_is_full() -> None:
    """A device that sends broken frames cannot grow the hub's queue beyond its limit."""
    rig = Rig()
    session = rig.running()

    said = rig.say(session, b'{"op":"batch","seq":1,"count":1,"c":5}', can_accept=False)

    assert [m["op"] for m in said] == ["slow"]
    assert rig.uncommitted == []


def test_streams_of_which_nothing_was_taken_are_forgotten() -> None:
    """Names said in hellos cost no memory once their connection has left them."""
    rig = Rig()
    session = rig.running()

    for number in range(100):
        rig.say(session, greet(stream=f"{number:016x}"))
    session.closed()

    assert len(rig.streams) == 0


def test_a_takeover_of_a_stream_with_nothing_taken_keeps_the_stream() -> None:
    """The newest connection's frames count from 1 on, also when the older one never sent any."""
    rig = Rig()
    rig.running()
    newer = rig.running()

    rig.say(newer, batch(1))
    rig.commit()

    assert [json.loads(m)["stored"] for m in newer.take_output()] == [1]
    assert len(rig.streams) == 1


def test_counters_of_declared_losses_stay_within_64_bits() -> None:
    """Losses are counted up to what the journal and REST can hold, whatever a device declares."""
    rig = Rig()
    session = rig.running()

    for seq in (1, 2):
        rig.say(session, wire.encode(wire.Gap(seq, 2**63 - 1, Reason.SPOOL_FULL, {})))
    rig.commit()

    assert rig.mark.dropped == 2**63 - 1


def test_welcome_says_what_is_held_of_earlier_streams() -> None:
    """A stream that this hub does not know is held up to 0: it was restored, or the frames never came."""
    rig = Rig()
    rig.say(rig.running(), batch(1))
    rig.commit()
    named = (wire.Earlier(STREAM, 1, 2, "00" * 16), wire.Earlier("00000000000000bb", 7, 8, "00" * 16))

    (welcome,) = rig.say(rig.session(), greet(stream="00000000000000cc", earlier=named))

    assert welcome["earlier"] == [
        {"stream": STREAM, "stored": 1, "chain": chain_of(batch(1)).hex()},
        {"stream": "00000000000000bb", "stored": 0, "chain": CHAIN_START.hex()},
    ]
    assert len(rig.streams) == 2, "asking makes no stream"


FORK, EARLIER = "00000000000000ff", "00000000000000bb"


@pytest.mark.parametrize(
    ("unread", "stream", "next_seq", "kept", "answer"),
    [
        (STREAM, STREAM, 1, 0, "welcome"),
        (EARLIER, STREAM, 1, 0, "welcome"),
        # Two spools write the stream, which is told on the hub's own; it is in the journal, so it stays at rest.
        (wire.HUB_STREAM, FORK, 2, 1, "new_stream"),
    ],
    ids=["its own stream", "an earlier one", "the hub's"],
)
def test_hello_that_the_journal_cannot_answer_leaves_nothing(
    unread: str, stream: str, next_seq: int, kept: int, answer: str
) -> None:
    """The device is told to come back; the stream is nobody's, and the next hello of it is answered."""
    is_failing = True
    forked = Mark(StreamKey("default", "d", FORK), 1, CHAIN_START + b"c" * 16)

    def find(keys: Sequence[StreamKey]) -> dict[StreamKey, Mark]:
        if is_failing and unread in [key.stream for key in keys]:
            raise JournalError("cannot read")
        return {forked.key: forked} if forked.key in keys else {}

    rig = Rig(find)
    hello = greet(next_seq=next_seq, stream=stream, earlier=(wire.Earlier(EARLIER, 7, 8, "00" * 16),))
    for _ in range(3):
        session = rig.session()

        assert rig.say(session, hello) == []
        assert session.closing == (
            Close.INTERNAL, "the hub could not read what it holds of this device's streams: try again"
        )  # fmt: skip
        session.closed()

    assert len(rig.streams) == kept
    is_failing = False
    assert [m["op"] for m in rig.say(rig.session(), hello)] == [answer]


def test_position_this_hub_never_gave_out_is_a_restored_hub() -> None:
    """It is recorded once as a gap of unknown count on the hub's own stream of that device, and logged."""
    rig = Rig()
    for _ in range(2):
        rig.say(rig.session(), greet(seen="7f3a0001.17"))

    (frame,) = rig.uncommitted
    assert (frame.key.stream, frame.kind, frame.reason) == (wire.HUB_STREAM, Kind.GAP, Reason.HUB_RESTORED)
    assert json.loads(frame.body)["count"] is None
    rig.commit()
    rig.say(rig.session(), greet(seen="7f3a0001.99"))
    assert rig.uncommitted == [], "another one within the minute is the same trouble"


def test_restored_hub_that_is_killed_before_it_stored_that_notices_again() -> None:
    """The device is told its own position until the gap is durable: a new one would be known from then on."""
    rig = Rig()
    (welcome,) = rig.say(rig.session(), greet(seen="7f3a0000.17"))

    restarted = Rig()
    restarted.say(restarted.session(), greet(seen=welcome["pos"]))

    (frame,) = restarted.uncommitted
    assert frame.reason == Reason.HUB_RESTORED


def test_restored_hub_with_a_full_disk_notices_again_after_a_restart() -> None:
    """Frames that are stored after its own gap was refused do not make the device forget what it has seen."""
    rig = Rig()
    session = rig.session()
    rig.say(session, greet(seen='7f3a0000.17"'))
    refused, rig.uncommitted = rig.uncommitted, []
    rig.streams.refused(refused)
    session.take_output()
    rig.say(session, wire.encode(wire.Schema((Channel("x"),))))
    rig.say(session, batch(1))
    rig.commit()
    (ack,) = [json.loads(m) for m in session.take_output()]

    restarted = Rig(head=1)
    restarted.say(restarted.session(), greet(seen=ack["pos"]))

    assert ack["stored"] == 1
    assert [f.reason for f in restarted.uncommitted] == [Reason.HUB_RESTORED]


def test_device_learns_the_restored_hubs_position_once_the_gap_is_stored() -> None:
    """From then on nothing is owed, so the acks name the hub's own position again."""
    rig = Rig()
    session = rig.running(seen="7f3a0000.17")
    rig.commit()
    rig.say(session, batch(1))
    rig.commit()
    (ack,) = [json.loads(m) for m in session.take_output()]

    (welcome,) = rig.say(rig.session(), greet(next_seq=2, chain=chain_of(batch(1)), seen="7f3a0000.17"))

    assert ack["pos"] == welcome["pos"] == "7f3a0001.2"
    assert rig.uncommitted == []


def test_position_this_hub_gave_out_records_nothing() -> None:
    """The common case leaves no trace."""
    rig = Rig()
    rig.say(rig.session(), greet(seen="7f3a0001.0"))

    assert rig.uncommitted == []


def test_two_spools_on_one_stream_are_recorded() -> None:
    """A copied card: the alarm is in the ledger, nothing is counted as lost by it."""
    rig = Rig()
    rig.say(rig.running(), batch(1))
    rig.commit()

    (answer,) = rig.say(rig.session(), greet(next_seq=2, chain=b"x" * 16))

    (frame,) = rig.uncommitted
    assert (answer["op"], answer["why"]) == ("new_stream", "chain_conflict")
    assert (frame.reason, json.loads(frame.body)["count"]) == (Reason.CHAIN_CONFLICT, 0)


def test_a_copied_or_written_back_card_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Also while chains are equal, as those of a copy that cut nothing always are: one alarm, nothing lost by it."""
    rig = Rig()
    session = rig.running()
    for seq in (1, 2):
        rig.say(session, batch(seq))
    rig.commit()

    twin = greet(next_seq=2, chain=chain_of(batch(1)))
    (answer,) = rig.say(rig.session(), twin)
    rig.say(rig.session(), twin)

    (frame,) = rig.uncommitted
    assert (answer["op"], answer["why"], answer["stored"]) == ("new_stream", "seq_reuse", 1)
    assert (frame.key.stream, frame.kind, frame.reason) == (wire.HUB_STREAM, Kind.GAP, Reason.SEQ_REUSE)
    assert (json.loads(frame.body)["count"], frame.dropped) == (0, 0)
    assert [m for m in caplog.messages if m.startswith("seq_reuse device=d")]


def test_too_many_new_streams_are_slowed_down() -> None:
    """After a hundred in a day the device is told to wait; streams that exist go on."""
    rig = Rig()
    for n in range(1, MAX_NEW_STREAMS + 1):
        rig.say(rig.running(stream=f"{n:016x}"), batch(1))
        rig.commit()

    (answer,) = rig.say(rig.session(), greet(stream="00000000000000ff"))
    (known,) = rig.say(rig.session(), greet(stream=f"{1:016x}", next_seq=2, chain=chain_of(batch(1))))

    assert (answer["op"], answer["why"]) == ("slow", "too_many_streams")
    assert known["op"] == "welcome"


def test_the_hubs_own_stream_is_no_devices() -> None:
    """A hello that names it is closed with a reason."""
    rig = Rig()
    session = rig.session()

    assert rig.say(session, greet(stream=wire.HUB_STREAM)) == []
    assert session.closing is not None
    assert session.closing[0] == Close.BAD_MESSAGE


def test_a_stored_frame_keeps_no_rejections() -> None:
    """The newest frames stay in memory, weighed without them: a device that sends only nonsense must not fill it."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1, 1.5))
    rig.commit()
    session.take_output()
    rig.say(session, batch(2, "text"))
    rig.say(session, batch(3, "text"))
    frames = list(rig.uncommitted)
    assert all(frame.rejected for frame in frames)
    queued = [frame.memory_bytes for frame in frames]

    rig.commit()
    (ack,) = [json.loads(message) for message in session.take_output()]

    assert len(ack["rejected"]) == 2
    assert [frame.rejected for frame in frames] == [(), ()]
    assert [before - frame.memory_bytes > 96 for before, frame in zip(queued, frames, strict=True)] == [True, True]


def test_a_device_with_all_its_channels_is_told_so() -> None:
    """A reading of a channel beyond the cap is refused for the cap."""
    rig = Rig()
    session = rig.running()
    rig.say(session, wire.encode(wire.Schema(tuple(Channel(f"c{n}") for n in range(wire.MAX_CHANNELS)))))
    rig.say(session, batch(1, channel="one-more"))
    rig.commit()

    (ack,) = [json.loads(message) for message in session.take_output()]

    assert [rejection["reason"] for rejection in ack["rejected"]] == [Reason.CHANNEL_LIMIT]


def test_malformed_frames_that_are_not_next_end_the_connection() -> None:
    """They cost the hub work and are never taken: after four the device has to come back later."""
    rig = Rig()
    session = rig.running()
    for seq in (99, 98, 97, 96):
        rig.say(session, b'{"op":"batch","seq":%d,"count":1,"t0":"1","c":{"x":{"v":[1],"dt":[[]]}}}' % seq)

    assert session.closing is not None
    assert session.closing[0] == Close.BAD_MESSAGE


def test_one_wrong_element_of_many_costs_one_error() -> None:
    """A frame of 87,000 wrong times is refused at the first."""
    body = b'{"op":"batch","seq":1,"count":1,"t0":"1","c":{"x":{"v":[1],"dt":[' + b"[]," * 9_000 + b"[]]}}}"
    took = []
    for _ in range(5):
        rig = Rig()
        session = rig.running()
        # Of this thread alone, and the best: what else the machine does is not the frame's cost.
        began = time.thread_time()
        rig.say(session, body)
        took.append(time.thread_time() - began)
        assert [f.kind for f in rig.uncommitted] == [Kind.QUARANTINE]

    assert min(took) < 0.02


def test_full_queue_makes_a_hello_tell_nothing_of_the_hubs_own() -> None:
    """Frames of the hub's own wait for room like any other, and come with the next hello."""
    rig = Rig()
    rig.say(rig.session(), greet(seen="7f3a0001.17"), can_accept=False)
    assert rig.uncommitted == []

    rig.say(rig.session(), greet(seen="7f3a0001.17"))
    assert [f.reason for f in rig.uncommitted] == [Reason.HUB_RESTORED]


def test_what_is_told_follows_the_welcome() -> None:
    """A command that is said as soon as the device entered comes after its welcome, never before."""
    rig = Rig()
    downlink = Downlink()
    session = DeviceSession("default", "d", rig.streams, rig.registry, downlink=downlink)
    assert not downlink.send("default", "d", wire.Command("k", "fan", {}, T0))

    welcome, *_ = rig.say(session, greet())
    assert downlink.send("default", "d", wire.Command("k", "fan", {"speed": 3}, T0))
    (told,) = [json.loads(m) for m in session.take_output()]

    assert welcome["op"] == "welcome"
    assert told == {"op": "command", "id": "k", "name": "fan", "args": {"speed": 3}, "expires_ns": str(T0)}
    session.closed()
    assert not downlink.can_reach("default", "d")


class Guest:
    """Notes who comes, who goes and why."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def came(self, namespace: str, device: str) -> None:
        """Note it."""
        self.seen.append("came")

    def went(self, namespace: str, device: str, why: str) -> None:
        """Note it."""
        self.seen.append(why)


def test_end_of_a_connection_says_why() -> None:
    """What the hub itself decided, else what the connection ended with; who was never welcomed never came."""
    rig, guest = Rig(), Guest()
    rig.downlink.follow(guest)
    rig.watched("1").closed("connection lost (1006)")
    lost = rig.watched("1")
    rig.say(lost, greet())
    lost.closed("connection lost (1006)")
    polite = rig.watched("1")
    rig.say(polite, greet())
    rig.say(polite, wire.encode(wire.Bye()))
    polite.closed("")

    assert guest.seen == ["came", "connection lost (1006)", "came", "bye"]


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "data",
    [
        b'{"op":"reply","id":"k"}',
        b'{"op":"reply","id":"k","ok":1}',
        b'{"op":"reported","version":-1,"state":{}}',
        b'{"op":"reported","version":1,"state":[]}',
        b'{"op":"reported","version":1,"state":{"a":"%s"}}' % (b"x" * wire.MAX_CONTROL_BYTES),
        b'{"op":"reported","version":1,"state":{"a":NaN}}',
        b'{"op":"reported","version":1,"state":{"a":%s}}' % _nested(wire.MAX_CONTROL_DEPTH),
        b'{"op":"reply","id":"k","ok":true,"value":%s}' % _nested(wire.MAX_CONTROL_DEPTH + 1),
    ],
    ids=["no-ok", "ok-is-a-number", "negative", "list", "too-large", "nan", "deep", "deep-reply"],
)
def test_broken_control_messages_are_refused_and_nothing_else(data: bytes) -> None:
    """A reply that cannot be read is counted, not answered (the device would blame a frame); the stream goes on."""
    rig = Rig()
    session = rig.running()

    assert rig.say(session, data) == []
    rig.say(session, batch(1))

    assert session.unreadable == 1
    assert [frame.seq for frame in rig.uncommitted] == [1]


def test_device_that_keeps_no_chain_goes_on_with_its_stream() -> None:
    """It says none, and is asked for none; a number behind what is stored shows a copied card all the same."""
    rig = Rig()
    session = rig.running()
    rig.say(session, batch(1))
    rig.commit()
    without = json.loads(greet(next_seq=2))
    del without["chain"]

    (welcome,) = rig.say(rig.session(), json.dumps(without).encode())
    (refused,) = rig.say(rig.session(), json.dumps({**without, "next": 1}).encode())

    assert (welcome["op"], welcome["stored"]) == ("welcome", 1)
    assert (refused["op"], refused["why"], refused["stored"]) == ("new_stream", "seq_reuse", 0)


def test_batch_in_another_form_is_stored_as_a_batch_and_chained_as_it_came() -> None:
    """Its reader may refuse it: then it is in quarantine with its number, in its own form."""
    rig = Rig()
    session = rig.running()

    def read(data: bytes) -> Batch:
        seq, value = data.split(b"=")
        if value == b"?":
            raise MalformedError("no value", int(seq), 1)
        return Batch(int(seq), 1, T0, 1, (Column("x", [0], [float(value)]),))

    for data in (b"1=1.5", b"1=1.5", b"2=?", b"3=2.5"):
        session.receive_rows(read, data, T0)
    first, second, third = session.frames

    assert [f.kind for f in session.frames] == [Kind.BATCH, Kind.QUARANTINE, Kind.BATCH]
    assert (first.body, second.body) == (encode_json(read(b"1=1.5")), b"2=?")
    assert (first.chain, third.chain) == (chain_of(b"1=1.5"), chain_of(b"1=1.5", b"2=?", b"3=2.5"))
    assert session.stream is not None
    assert (session.stream.accepted, session.stream.mark.stored) == (3, 0)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (Batch(1, 20, 10**19, 10**6, (Column("x", list(range(20)), [1.5] * 20),)), "time_out_of_range"),
        (Batch(1, 20, T0, 10**6, (Column("x", list(range(20)), [10**30] * 20),)), "out_of_range"),
        (Batch(1, 20, T0, 10**6, (Column("ü" * 128, list(range(20)), [1.5] * 20),)), "bad_name"),
    ],
    ids=["time", "value", "name"],
)
def test_batch_in_another_form_that_no_binary_frame_holds_is_refused_by_reading(batch: Batch, reason: str) -> None:
    """An exception here would end a bridge to a broker, which gives the message again for ever."""
    rig = Rig()
    session = rig.running()

    session.receive_rows(lambda _: batch, b"{}", T0)

    (frame,) = session.frames
    assert (frame.seq, frame.readings, frame.rejected_count, frame.reason) == (1, 0, 20, reason)


def test_batch_in_another_form_before_the_hello_ends_the_connection() -> None:
    """As every other message does."""
    rig = Rig()
    session = rig.session()

    session.receive_rows(lambda _: Batch(1, 0, T0, 1, ()), b"", T0)

    assert session.closing == (Close.BAD_MESSAGE, "rows are not allowed in state await_hello: say hello first")
    assert (session.frames, session.stream) == ([], None)
