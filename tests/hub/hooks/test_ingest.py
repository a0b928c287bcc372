"""Hooks change and refuse readings; order, acks, dedupe and what a device keeps are as without them."""

import json
import random
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, decode_batch, encode_json
from device_sdk.reading import Channel, Value
from device_sdk.wire import CHAIN_START, next_chain
from hub.devices import Registry
from hub.hooks.answer import Columns, Context, Reject
from hub.hooks.ingest import RETRY_HOOK_MS, Ingest, IngestHook
from hub.journal.base import Run
from hub.model import Frame, Kind, StreamKey
from hub.session import DeviceSession
from hub.streams import Streams
from tests.support.hook_calls import HookCalls
from tests.support.marks import marks_of

T0 = 1_795_376_000_000_000_000
STREAM = "9f3a0000000000aa"


class Rig:
    """Sessions with hooks and without I/O: the test says when a hook answers and when the journal commits."""

    def __init__(self, *hooks: IngestHook, max_bytes: int = 2**24) -> None:
        self.streams = Streams([Run("7f3a0001", 1)], 0, marks_of({}))
        self.registry = Registry(())
        self.calls = HookCalls()
        self.ingest = Ingest(
            hooks, self.calls, self.streams, self.registry, lambda frames: self.submitted.extend(frames),
            max_bytes=max_bytes,
        )  # fmt: skip
        self.submitted: list[Frame] = []
        self.stored: list[Frame] = []

    def connect(self, device: str = "d", next_seq: int = 1, chain: bytes = CHAIN_START) -> DeviceSession:
        session = DeviceSession("default", device, self.streams, self.registry, has_hooks=True)
        hello = wire.Hello(device, STREAM, "boot", "run", next_seq - 1, next_seq, chain.hex())
        self.say(session, wire.encode(hello), wire.encode(wire.Schema((Channel("x"), Channel("y")))))
        return session

    def say(self, session: DeviceSession, *messages: bytes) -> list[dict[str, Any]]:
        """Do what the shell does with each message; return what the session says."""
        for data in messages:
            session.receive(data, data[:1] == b"{", T0, can_accept=not self.ingest.is_full)
            frames, session.frames = session.frames, []
            self.ingest.take(frames)
        return self.said(session)

    def said(self, session: DeviceSession) -> list[dict[str, Any]]:
        return [json.loads(message) for message in session.take_output()]

    def commit(self) -> None:
        """Do what writer and journal do with all that was submitted."""
        frames, self.submitted = self.submitted, []
        for number, frame in enumerate(frames, self.streams.head + 1):
            frame.offset = number
        self.stored += frames
        self.streams.committed(frames)

    def refuse(self) -> None:
        """Do what `Hub._refused` does when the disk is full."""
        frames, self.submitted = self.submitted, []
        self.ingest.refused(frames)
        self.streams.refused(frames)

    def values(self) -> list[list[Value]]:
        return [list(decode_batch(frame.body).columns[0].values) for frame in self.stored]


def batch(seq: int, *values: Value, channel: str = "x") -> bytes:
    column = Column(channel, list(range(len(values))), list(values))
    return encode_json(Batch(seq, len(values), T0 + seq, 1, (column,)))


def gap(seq: int) -> bytes:
    return wire.encode(wire.Gap(seq, 3, "spool_full", {}))


def chain_of(*bodies: bytes) -> bytes:
    chain = CHAIN_START
    for body in bodies:
        chain = next_chain(chain, body)
    return chain


def accept(context: Context, columns: Columns) -> None:
    """Leave all as it is."""


def double(context: Context, columns: Columns) -> object:
    return {name: [2 * value for value in column.values] for name, column in columns.items()}


def test_accepted_batch_is_stored_as_it_came() -> None:
    """None changes no byte; the ack follows the commit, not the hook."""
    rig = Rig(accept)
    session = rig.connect()

    assert rig.say(session, batch(1, 1.5)) == []
    rig.calls.run_all()
    assert rig.said(session) == []
    rig.commit()

    assert rig.stored[0].body == batch(1, 1.5)
    assert rig.said(session)[0]["chain"] == chain_of(batch(1, 1.5)).hex()


def test_changed_batch_is_stored_as_the_hook_left_it() -> None:
    """The journal's body has the new values; the chain is over the bytes as they came, as the device knows them."""
    rig = Rig(double)
    session = rig.connect()

    rig.say(session, batch(1, 1.5, 2.5))
    rig.calls.run_all()
    rig.commit()

    assert rig.values() == [[3.0, 5.0]]
    assert list(rig.stored[0].columns[0].column.values) == [3.0, 5.0]
    (ack,) = rig.said(session)
    assert (ack["stored"], ack["chain"]) == (1, chain_of(batch(1, 1.5, 2.5)).hex())


def test_hook_learns_whose_readings_and_when() -> None:
    """Context and times are those of the batch."""
    seen: list[object] = []

    def look(context: Context, columns: Columns) -> None:
        seen.extend((context, columns["x"].times_ns, columns["x"].values))

    rig = Rig(look)
    rig.say(rig.connect(), batch(1, 1.5, 2.5))
    rig.calls.run_all()

    assert seen == [Context("default", "d", "device", (), T0), [T0 + 1, T0 + 2], [1.5, 2.5]]


@pytest.mark.parametrize(
    ("answer", "kept", "rejected"),
    [
        pytest.param({"x": [1.0, Reject("spike"), 3.0]}, [1.0, 3.0], [(1, "hook: spike")], id="one"),
        pytest.param({"x": Reject("not here")}, [], [(i, "hook: not here") for i in range(3)], id="column"),
        pytest.param(Reject("quiet\n hours"), [], [(i, "hook: quiet hours") for i in range(3)], id="batch"),
        pytest.param(
            {"x": [Reject("spike"), float("nan"), 3.0]}, [3.0], [(0, "hook: spike"), (1, "not_finite")], id="both"
        ),
    ],
)
def test_rejected_readings_are_named_with_the_hooks_reason(
    answer: object, kept: list[Value], rejected: list[tuple[int, str]]
) -> None:
    """Place in the column as the device sent it, reason in the hook's words; counted, and the rest is stored."""
    rig = Rig(lambda context, columns: answer)
    session = rig.connect()

    rig.say(session, batch(1, 1.0, 2.0, 3.0))
    rig.calls.run_all()
    rig.commit()

    (ack,) = rig.said(session)
    assert [(r["index"], r["reason"]) for r in ack["rejected"]] == rejected
    assert ack["rejected_total"] == len(rejected) == rig.stored[0].rejected_count
    assert [v for c in rig.stored[0].columns for v in c.column.values] == kept
    assert rig.stored[0].readings == len(kept)


def test_what_a_hook_leaves_is_checked_once_and_decides_the_type() -> None:
    """Text that a hook makes a number makes the channel one of numbers; what it refuses settles no type."""
    rig = Rig(lambda context, columns: {"x": [Reject("no number"), 2.5]})
    session = rig.connect()

    rig.say(session, batch(1, "two", "2.5"))
    rig.calls.run_all()
    rig.commit()

    assert rig.stored[0].columns[0].series.type == "float"
    assert rig.values() == [[2.5]]


def test_each_hook_sees_what_the_one_before_left() -> None:
    """Hooks are a chain; what one refused stays refused."""

    rig = Rig(double, lambda context, columns: {"x": [Reject("first"), columns["x"].values[1]]}, double)
    session = rig.connect()

    rig.say(session, batch(1, 1.0, 2.0))
    rig.calls.run_all()
    rig.commit()

    assert rig.values() == [[8.0]]
    assert [(r["index"], r["reason"]) for r in rig.said(session)[0]["rejected"]] == [(0, "hook: first")]


def test_frames_wait_for_the_batch_before_them() -> None:
    """A declared loss and a malformed frame behind a batch keep their places; other streams do not wait."""
    rig = Rig(accept)
    one, other = rig.connect("one"), rig.connect("other")

    rig.say(one, batch(1, 1.5), gap(2), b'{"op":"batch","seq":3,"count":1}', batch(4, 4.5), gap(5))
    rig.say(other, gap(1), batch(2, 1.5))
    assert [(f.key.device, f.seq) for f in rig.submitted] == [("other", 1)]
    rig.calls.run(1)
    assert [(f.key.device, f.seq) for f in rig.submitted][1:] == [("other", 2)]
    rig.calls.run_all()

    assert [(f.seq, f.kind) for f in rig.submitted if f.key.device == "one"] == [
        (1, Kind.BATCH), (2, Kind.GAP), (3, Kind.QUARANTINE), (4, Kind.BATCH), (5, Kind.GAP),
    ]  # fmt: skip
    assert rig.ingest.statistics().bytes == rig.ingest.statistics().frames == 0


def raises(context: Context, columns: Columns) -> object:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param(raises, id="raises"),
        pytest.param(lambda context, columns: 5, id="means nothing"),
        pytest.param(lambda context, columns: {"x": [1.0, 2.0]}, id="too many"),
        pytest.param(lambda context, columns: {"new": [1.0]}, id="adds a channel"),
    ],
)
def test_failing_hook_leaves_the_readings_with_the_device(hook: IngestHook) -> None:
    """The device is told to wait; what was behind goes back too, and is taken in order when it comes again."""
    outcome: list[IngestHook] = [hook]
    rig = Rig(lambda context, columns: outcome[0](context, columns))
    session = rig.connect()

    rig.say(session, batch(1, 1.0), batch(2, 2.0), gap(3))
    rig.calls.run_all()
    assert rig.said(session) == [{"op": "slow", "why": "hook_failed", "retry_ms": RETRY_HOOK_MS}]
    assert rig.say(session, batch(4, 4.0)) == []

    outcome[0] = accept
    rig.say(session, batch(1, 1.0), batch(2, 2.0), gap(3), batch(4, 4.0))
    rig.calls.run_all()
    rig.commit()

    assert [frame.seq for frame in rig.stored] == [1, 2, 3, 4]
    assert rig.said(session)[-1]["chain"] == chain_of(batch(1, 1.0), batch(2, 2.0), gap(3), batch(4, 4.0)).hex()
    assert rig.ingest.statistics().failed == 1


def test_frame_before_the_failed_one_is_not_taken_twice() -> None:
    """It is on its way to the disk: sent again it is ignored, and acked after its commit."""
    rig = Rig(accept)
    session = rig.connect()
    rig.say(session, batch(1, 1.0), batch(2, 2.0))
    rig.calls.run()
    rig.calls.fail()

    assert rig.say(session, batch(1, 1.0), batch(2, 2.0))[0]["op"] == "slow"
    rig.calls.run_all()
    rig.commit()

    assert [frame.seq for frame in rig.stored] == [1, 2]
    assert rig.said(session)[-1]["stored"] == 2


def test_frames_that_the_disk_refused_take_those_behind_with_them() -> None:
    """An answer that comes later means nothing: the frame would be stored without the one before it."""
    rig = Rig(accept)
    session = rig.connect()
    rig.say(session, batch(1, 1.0), batch(2, 2.0))
    rig.calls.run()

    rig.refuse()
    rig.calls.run_all()
    assert rig.submitted == []
    assert rig.said(session)[0]["why"] == "disk_full"
    rig.say(session, batch(1, 1.0), batch(2, 2.0))
    rig.calls.run_all()
    rig.commit()

    assert [frame.seq for frame in rig.stored] == [1, 2]


def test_stored_frame_that_comes_again_is_known_and_no_hook_is_asked() -> None:
    """A hook that answers otherwise each time changes nothing of that: the chain is over the bytes as they came."""
    answers = iter(({"x": [7.0]}, {"x": [8.0]}))
    rig = Rig(lambda context, columns: next(answers))
    body = batch(1, 1.0)
    rig.say(rig.connect(), body)
    rig.calls.run_all()
    rig.commit()

    session = rig.connect(next_seq=2, chain=chain_of(body))
    again = rig.say(session, body)

    assert again[-1]["stored"] == 1
    assert not rig.calls.waiting
    assert rig.values() == [[7.0]]


def test_device_that_comes_back_while_a_hook_is_asked_is_heard_once() -> None:
    """A second connection sends the frame again; the first answer counts, nothing is asked twice."""
    rig = Rig(accept)
    rig.say(rig.connect(), batch(1, 1.0))

    session = rig.connect()
    rig.say(session, batch(1, 1.0))
    assert len(rig.calls.waiting) == 1
    rig.calls.run_all()
    rig.commit()

    assert [frame.seq for frame in rig.stored] == [1]
    assert rig.said(session)[-1]["stored"] == 1


def test_full_stage_tells_devices_to_wait() -> None:
    """What waits for hooks is bounded; it has room again when they have answered."""
    rig = Rig(accept, max_bytes=1000)
    session, other = rig.connect("d"), rig.connect("other")

    rig.say(session, batch(1, 1.0), batch(2, 2.0))
    assert rig.say(other, batch(1, 1.0))[0]["why"] == "store_behind"
    rig.calls.run_all()

    assert not rig.ingest.is_full
    assert rig.ingest.statistics().answered == 2


def test_stopping_forgets_what_was_not_acked() -> None:
    """An answer that comes after the stop is ignored."""
    rig = Rig(accept)
    rig.say(rig.connect(), batch(1, 1.0))

    rig.ingest.stop()
    rig.calls.run_all()

    assert rig.submitted == []


def test_hooks_that_fail_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The line says which hook, which device and why, not a line for each of a fleet's frames."""
    rig = Rig(raises)
    for number in range(3):
        rig.say(rig.connect(f"d{number}"), batch(1, 1.0))
    rig.calls.run_all()

    (line,) = [record.getMessage() for record in caplog.records if record.name == "hub.hooks"]
    assert "test_ingest:raises" in line
    assert "device=d0" in line
    assert "a bug" in line


class Storm:
    """Three devices that send on whatever happens, and hooks, a disk and a network that do as they like."""

    FRAMES = tuple(batch(seq, float(seq)) if seq % 4 else gap(seq) for seq in range(1, 13))

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.rig = Rig(double)
        self.sessions = {name: self.rig.connect(name) for name in "abc"}

    def step(self) -> None:
        name = self._random.choice("abc")
        happens = (self.send, self.run, self.fail, self.commit, self.refuse, self.reconnect)
        self._random.choices(happens, (8, 6, 2, 2, 1, 1))[0](name)

    def settle(self) -> None:
        for name in "abc":
            self.send(name, len(self.FRAMES))
        self.rig.calls.run_all()
        self.rig.commit()

    def send(self, name: str, most: int = 6) -> None:
        first = self._stored(name)
        self.rig.say(self.sessions[name], *self.FRAMES[first : first + most])

    def run(self, _: str) -> None:
        if waiting := len(self.rig.calls.waiting):
            self.rig.calls.run(self._random.randrange(waiting))

    def fail(self, _: str) -> None:
        if waiting := len(self.rig.calls.waiting):
            self.rig.calls.fail(self._random.randrange(waiting))

    def commit(self, _: str) -> None:
        self.rig.commit()

    def refuse(self, _: str) -> None:
        self.rig.refuse()

    def reconnect(self, name: str) -> None:
        stored = self._stored(name)
        self.sessions[name].closed()
        self.sessions[name] = self.rig.connect(name, stored + 1, chain_of(*self.FRAMES[:stored]))

    def _stored(self, name: str) -> int:
        return self.rig.streams.get(StreamKey("default", name, STREAM)).mark.stored


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_answers_failures_and_refusals_stores_each_frame_once(seed: int) -> None:
    """At the end each frame is stored once, in order, changed once, and the chain is that of the bytes as sent."""
    storm = Storm(seed)

    for _ in range(400):
        storm.step()
    for _ in range(12):
        storm.settle()

    for name in "abc":
        stored = [frame for frame in storm.rig.stored if frame.key.device == name]
        assert [frame.seq for frame in stored] == list(range(1, 13)), f"seed {seed}"
        assert [v for f in stored for c in f.columns for v in c.column.values] == [
            2.0 * n for n in range(1, 13) if n % 4
        ]
        assert stored[-1].chain == chain_of(*storm.FRAMES)
    assert storm.rig.ingest.statistics().bytes == 0
