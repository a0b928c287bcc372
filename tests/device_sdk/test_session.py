"""Tests of `device_sdk.session`: the conversation in virtual time, against a hub of plain data."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk import wire
from device_sdk.beside import MAX_SAID
from device_sdk.conversation import Acknowledged, Closing, SessionEvent, State, Welcomed
from device_sdk.errors import ProtocolError, Reason
from device_sdk.file_spool import FileSpool
from device_sdk.memory_spool import MemorySpool
from device_sdk.pace import CUT_READINGS, CUT_S, METERED_CUT_S
from device_sdk.reading import Channel, Reading
from device_sdk.resend import TRIES
from device_sdk.session import (
    ACK_TIMEOUT_S,
    MAX_RETRY_S,
    WELCOME_TIMEOUT_S,
    Outgoing,
    Session,
)
from device_sdk.spool import Copying, Spool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from device_sdk.turn import BACKLOG_READINGS
from tests.support.hub_model import TIME_NS, HubConversation, HubModel
from tests.support.spool_files import Syncs

T0_NS = 1_795_376_000_000_000_000


class Play:
    """One device, one hub and the time between them; every message may be lost."""

    def __init__(self, hub: HubModel | None = None, spool: Spool | None = None, link: str = "normal") -> None:
        self.link = link
        self.hub = hub or HubModel()
        self.spool = spool or MemorySpool()
        self.now = 100.0
        self.events: list[SessionEvent] = []
        self.sent: list[Outgoing] = []
        self.produced: list[Reading] = []
        self.conversation: HubConversation | None = None
        self.messages = 0
        self.cut_after: int | None = None
        self.start_process()

    def start_process(self) -> None:
        """Begin with a new session over the same spool."""
        self.session = Session(self.spool, device="d1", boot="b", run="r", sdk="test", link=self.link)

    def record(self, value: float, channel: str = "t") -> None:
        """Record one value, 1 s after the one before."""
        time_ns = T0_NS + len(self.produced) * 1_000_000_000
        self.spool.record([(channel, value)], time_ns, time_ns)
        self.produced.append(Reading(channel, time_ns, value))

    def connect(self) -> None:
        """Open a connection and exchange hello and its answer."""
        self.conversation = HubConversation(self.hub)
        self._to_hub(self.session.connected(self.now))

    def step(self, after_s: float = 0.0) -> None:
        """Let time pass and exchange what is due."""
        self.now += after_s
        self.session.tick(self.now)
        while self.session.cut_is_due(self.now) and self.session.cut(self.now):
            pass
        for item in self.session.frames_to_send(self.now):
            self.sent.append(item)
            self._to_hub(item.data)
        if self.conversation is not None:
            for answer in self.conversation.commit():
                self._to_device(answer)
        self._collect()

    def cut(self) -> None:
        """Lose the connection."""
        self.conversation = None
        self.session.disconnected()

    def drain(self, limit: int = 200) -> None:
        """Go on without faults until everything is acked."""
        self.cut_after = None
        for _ in range(limit):
            if self.spool.pending == 0 and not self.session.has_unacked and not self.spool.has_uncut:
                return
            if self.session.state in (State.OFFLINE, State.ENDING):
                self.cut()
                self.connect()
            self.step(0.1)
        raise AssertionError(f"not drained: {self.spool.statistics()}, state {self.session.state}")

    def say(self, message: wire.HubMessage) -> None:
        """Let the hub say something of its own accord."""
        self.session.receive(wire.encode(message), self.now)
        self._collect()

    def closings(self) -> list[Closing]:
        """Return why connections were ended."""
        return [e for e in self.events if isinstance(e, Closing)]

    def _to_hub(self, data: bytes) -> None:
        if self._is_lost() or self.conversation is None:
            return
        for answer in self.conversation.receive(data):
            self._to_device(answer)

    def _to_device(self, data: bytes) -> None:
        if not self._is_lost() and self.conversation is not None:
            self.session.receive(data, self.now)
            self._collect()

    def _is_lost(self) -> bool:
        self.messages += 1
        if self.cut_after is not None and self.messages > self.cut_after and self.conversation is not None:
            self.cut()
        return self.conversation is None

    def _collect(self) -> None:
        self.events += self.session.events()


def running(**hub: Any) -> Play:
    """Return a play that has said hello and was welcomed."""
    play = Play(HubModel(**hub))
    play.connect()
    play.step()
    return play


def stored_once(play: Play) -> None:
    """Assert that the hub has every produced reading exactly once."""
    assert sorted(play.hub.readings) == sorted(play.produced)


# --- greeting -----------------------------------------------------------------------------------


def test_hello_says_where_the_stream_stands() -> None:
    """Hello carries stream, acked, next, chain(next - 1) and the last position of the hub."""
    play = running()
    play.record(1.0)
    play.step(1)
    play.cut()

    hello = json.loads(play.session.connected(play.now, wall_ns=5, boot_ns=7, clock="synced"))

    chain = play.spool.chain(1)
    assert chain is not None
    assert hello["device"] == "d1"
    assert hello["stream"] == play.spool.stream
    assert (hello["acked"], hello["next"], hello["chain"]) == (1, 2, chain.hex())
    assert hello["seen"] == "7f3a7f3a.1"
    assert (hello["wall_ns"], hello["mono_ns"], hello["clock"]) == ("5", "7", "synced")


def test_ack_makes_room_for_the_next_cut_at_once() -> None:
    """A small spool holds few bytes in flight: a backlog leaves as fast as acks come, not a window a second."""
    play = Play(spool=MemorySpool(max_bytes=MIN_LIMIT_BYTES))
    for n in range(1_500):
        play.record(float(n))
    play.connect()
    began = play.now

    while play.spool.pending:
        play.step(0.1)

    assert play.now - began <= 2.0


def test_welcome_tells_the_hubs_time() -> None:
    """Whoever has no clock of its own takes the time from there before the first cut."""
    play = Play()
    assert play.session.hub_time_ns is None

    play.connect()

    assert play.session.hub_time_ns == TIME_NS


def test_a_hub_that_misses_frames_tells_its_time_too() -> None:
    """A device whose clock is not set may wait for it, however long it sends again."""
    play = Play(spool=MemorySpool(retain_bytes=10**6))
    play.connect()
    play.step()
    play.record(1.0)
    play.step(1.0)
    play.cut()
    play.hub.streams.clear()
    play.start_process()

    play.connect()

    assert "restored" in play.closings()[-1].why
    assert play.session.hub_time_ns == TIME_NS


def test_nothing_is_sent_before_the_welcome() -> None:
    """Between hello and welcome nothing is cut and nothing is sent."""
    play = Play()
    play.record(1.0)
    play.session.connected(play.now)

    assert not play.session.cut_is_due(play.now)
    assert play.session.frames_to_send(play.now) == []
    assert play.session.state is State.GREETING


def test_welcome_is_reported_with_the_hubs_clock_and_ping() -> None:
    """The shell learns time and ping interval from the welcome."""
    play = running(ping_s=7)

    assert play.events == [Welcomed(T0_NS, 7.0)]


def test_a_hub_that_does_not_welcome_is_left() -> None:
    """Without a welcome the connection ends at the deadline, not before."""
    play = Play()
    play.session.connected(play.now)

    assert play.session.next_deadline() == play.now + WELCOME_TIMEOUT_S
    play.session.tick(play.now + WELCOME_TIMEOUT_S - 0.1)
    assert play.session.state is State.GREETING
    play.session.tick(play.now + WELCOME_TIMEOUT_S)
    assert play.session.events() == [Closing("no welcome within 10 s")]


def test_schema_goes_before_the_first_frame_and_again_after_each_welcome() -> None:
    """Channels are declared before a frame that uses them, in full on every connection."""
    play = Play()
    play.spool.declare(Channel("t", unit="Cel"))
    play.record(1.0)
    for _ in range(2):
        play.connect()
        play.step(1)
        play.cut()

    schemas = [json.loads(o.data) for o in play.sent if o.frame is None]
    assert schemas == [{"op": "schema", "channels": {"t": {"unit": "Cel"}}}] * 2
    assert play.sent[0].frame is None
    assert play.sent[1].frame is not None


def test_only_new_channels_are_declared_later() -> None:
    """A channel declared while running is sent alone, once."""
    play = Play()
    play.spool.declare(Channel("t", unit="Cel"))
    play.connect()
    play.step()
    play.spool.declare(Channel("door"))
    play.session.schema_changed()
    play.step()
    play.step()

    assert [json.loads(o.data)["channels"] for o in play.sent] == [{"t": {"unit": "Cel"}}, {"door": {}}]


# --- cutting ------------------------------------------------------------------------------------


def test_a_reading_after_a_pause_goes_at_once() -> None:
    """A reading is cut at once, but not within 50 ms of the last cut; readings at 20/s or fewer never wait."""
    play = running()
    play.record(1.0)
    play.step()
    play.record(2.0)
    play.step(CUT_S / 2)
    assert play.hub.readings == play.produced[:1]
    assert play.session.next_deadline() == pytest.approx(play.now + CUT_S / 2)

    play.step(CUT_S / 2 + 1e-6)

    stored_once(play)


def test_a_busy_device_gathers_for_50_ms_or_500_readings() -> None:
    """With a frame in flight the next is cut after 50 ms, or as soon as it holds 500 readings."""
    play = running()
    play.record(0.0)
    assert play.session.cut(play.now)
    play.record(1.0)
    assert not play.session.cut_is_due(play.now + CUT_S - 0.001)
    assert play.session.cut_is_due(play.now + CUT_S + 1e-6)

    for n in range(CUT_READINGS):
        play.record(float(n))

    assert play.session.cut_is_due(play.now)


def test_the_hubs_window_bounds_what_is_in_flight() -> None:
    """No more frames are cut and unacked than the welcome allows; each ack lets one more go."""
    play = Play(HubModel(window=2))
    play.connect()
    play.step()
    play.conversation = None
    for n in range(5):
        play.record(float(n))
        play.step(1)

    assert [o.frame.seq for o in play.sent if o.frame] == [1, 2]
    assert not play.session.cut_is_due(play.now + 9)


def test_a_spool_that_gives_no_frame_is_asked_again_a_second_later() -> None:
    """A failing disk is not asked in a hot loop."""
    play = running()

    assert not play.session.cut(play.now)
    play.record(1.0)

    assert not play.session.cut_is_due(play.now + 0.9)
    assert play.session.next_deadline() == play.now + 1.0
    assert play.session.cut_is_due(play.now + 1.0)


def test_an_ack_lets_a_spool_that_gave_no_frame_be_asked_at_once() -> None:
    """A small spool gives none while its frames in flight take their share: it drains as fast as acks come."""
    play = running()
    play.record(1.0)
    assert play.session.cut(play.now)
    assert not play.session.cut(play.now)
    play.record(2.0)

    play.step(2 * CUT_S)

    assert play.hub.readings == play.produced[:1]
    assert play.session.cut_is_due(play.now)


def test_frames_to_send_ends_after_its_bytes() -> None:
    """A slow network gets a bounded burst, and the rest when it has room."""
    play = running()
    for _ in range(3):
        play.record(1.0)
        assert play.session.cut(play.now)

    first = play.session.frames_to_send(play.now, max_bytes=1)
    assert [o.frame.seq for o in first if o.frame] == [1]
    assert play.session.has_more_to_send
    rest = play.session.frames_to_send(play.now)
    assert [o.frame.seq for o in rest if o.frame] == [2, 3]
    assert not play.session.has_more_to_send


# --- acks ---------------------------------------------------------------------------------------


def test_acks_are_cumulative_and_doubles_change_nothing() -> None:
    """The last ack settles all before it; an older or repeated one is ignored."""
    play = running()
    conversation, play.conversation = play.conversation, None
    assert conversation is not None
    acks = []
    for n in range(3):
        play.record(float(n))
        play.step(1)
        frame = play.sent[-1]
        conversation.receive(frame.data)
        acks += conversation.commit()

    for ack in (acks[2], acks[0], acks[2]):
        play.session.receive(ack, play.now)

    assert play.spool.acked == 3
    assert play.session.settled == 3
    assert not play.session.has_unacked
    assert play.session.events() == [Acknowledged(3, play.spool.stream)]


def test_an_ack_for_frames_of_the_connection_before_counts() -> None:
    """The hub may commit after the reconnect what it took before it; that ack settles unsent frames too."""
    play = running()
    play.record(1.0)
    play.record(2.0)
    old = play.conversation
    assert old is not None
    play.session.cut(play.now)
    (frame,) = [o for o in play.session.frames_to_send(play.now) if o.frame]
    old.receive(frame.data)
    play.cut()
    play.connect()

    (ack,) = old.commit()
    play.session.receive(ack, play.now)

    assert play.spool.acked == 1
    assert play.session.settled == 2


def test_a_silent_hub_is_left_after_a_minute() -> None:
    """A frame without an ack for 60 s ends the connection; the next one may reach a healthy hub."""
    play = running()
    play.record(1.0)
    play.session.cut(play.now)
    play.conversation = None

    assert play.session.next_deadline() == play.now + ACK_TIMEOUT_S
    play.step(ACK_TIMEOUT_S)

    assert play.closings() == [Closing("no ack within 60 s")]
    play.drain()
    stored_once(play)


def test_rejections_are_counted_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each (channel, reason) is one WARNING, then DEBUG; the counter is the hub's."""
    play = running()
    with caplog.at_level(logging.DEBUG, "device_sdk.session"):
        for n in range(3):
            play.hub.rejected = [{"seq": n + 1, "channel": "t", "index": 0, "reason": "type_conflict"}]
            play.record(float(n))
            play.step(1)

    assert play.session.rejected == 3
    assert [r.levelname for r in caplog.records if "rejected" in r.getMessage()] == ["WARNING", "DEBUG", "DEBUG"]


# --- faults -------------------------------------------------------------------------------------


def _scenario(play: Play) -> None:
    play.connect()
    for n in range(4):
        play.record(float(n))
        play.step(0.1)


def test_small_spool_drains_as_fast_as_it_is_acked() -> None:
    """When a spool holds all the unacked frames it may, the next one is cut with the next ack, not a second later."""
    play = Play(spool=MemorySpool(max_bytes=MIN_LIMIT_BYTES))
    for n in range(1_500):
        play.record(n / 7)
    begun = play.now

    play.drain()

    assert play.now - begun < 1.0
    stored_once(play)


@pytest.mark.parametrize("crash", [False, True], ids=["hub lives", "hub loses what it had not committed"])
def test_a_cut_after_any_message_loses_and_doubles_nothing(crash: bool) -> None:
    """Whichever message is the last to arrive: after a reconnect each reading is stored exactly once."""
    whole = Play()
    _scenario(whole)
    assert whole.messages > 8

    for cut_after in range(whole.messages + 1):
        play = Play()
        play.cut_after = cut_after
        _scenario(play)
        if crash:
            play.hub.crash()
        play.drain()
        stored_once(play)


def test_a_killed_process_sends_the_same_frames_again() -> None:
    """A new process over the same spool resends unacked frames byte for byte, as first of its own."""
    play = running()
    play.conversation = None
    play.record(1.0)
    play.step(1)
    play.start_process()
    play.drain()

    frames = [o for o in play.sent if o.frame]
    assert len(frames) == 2
    assert frames[0].data == frames[1].data
    assert frames[1].is_first
    assert play.session.settled == 1
    stored_once(play)


def test_first_transmission_is_marked_once() -> None:
    """A frame that is sent again on the next connection is no first transmission."""
    play = running()
    play.conversation = None
    play.record(1.0)
    play.step(1)
    play.cut()
    play.drain()

    assert [o.is_first for o in play.sent if o.frame] == [True, False]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["record", "step", "cut", "connect", "crash", "restart", "slow", "order"]), max_size=40)
)
def test_any_order_of_faults_converges(acts: list[str]) -> None:
    """Random cuts, crashes, restarts and refusals: when they stop, each reading is stored exactly once."""
    play = Play()
    done: dict[str, Callable[[], None]] = {
        "record": lambda: play.record(float(len(play.produced))),
        "step": lambda: play.step(0.1),
        "cut": play.cut,
        "crash": play.hub.crash,
        "order": lambda: play.hub.refuse_next.append("out_of_order"),
    }
    for act in acts:
        if act == "connect":
            play.cut()
            play.connect()
        elif act == "restart":
            play.cut()
            play.start_process()
        elif act == "slow" and play.session.is_online:
            play.say(wire.Slow("disk_full", 300))
        elif act in done:
            done[act]()
    play.hub.refuse_next.clear()

    play.drain()

    stored_once(play)


# --- streams ------------------------------------------------------------------------------------


def test_a_foreign_chain_in_the_welcome_starts_a_new_stream_before_anything_is_deleted() -> None:
    """The hub knows another frame 1: nothing is deleted, all unacked readings move to a new stream."""
    play = Play()
    play.record(1.0)
    play.spool.cut()
    stream = play.spool.stream
    play.session.connected(play.now)

    play.say(wire.Welcome(1, "00" * 16, "x.1", T0_NS))

    assert play.session.state is State.ENDING
    assert play.spool.stream != stream
    assert play.spool.pending == 1
    play.drain()
    stored_once(play)


def test_a_foreign_chain_in_an_ack_starts_a_new_stream() -> None:
    """A twin's frame was stored under our number: the reading goes again on a stream of our own."""
    play = running()
    play.conversation = None
    play.record(1.0)
    play.step(1)

    play.say(wire.Ack(1, "11" * 16, "x.1"))

    assert "twin" in play.closings()[0].why
    assert play.spool.pending == 1
    play.drain()
    stored_once(play)


def test_a_hub_that_lost_acked_frames_gets_a_new_stream() -> None:
    """The hub was restored from before our last ack: the stream cannot go on, the unacked readings can."""
    play = running()
    play.record(1.0)
    play.step(1)
    play.cut()
    play.hub.streams.clear()
    play.record(2.0)

    play.drain()

    assert len(play.hub.streams) == 2
    stored_once(play)


def test_new_stream_with_our_chain_counts_frames_as_acked() -> None:
    """Frames the hub has, by an equal chain, are not sent again after new_stream."""
    play = Play()
    play.record(1.0)
    frame = play.spool.cut()
    assert frame is not None
    play.session.connected(play.now)

    play.say(wire.NewStream(1, frame.chain.hex(), "seq_reuse", "x.1"))

    assert play.spool.pending == 0
    assert play.session.settled == 1
    assert play.spool.acked == 0


def test_new_stream_with_a_foreign_chain_moves_every_unacked_reading() -> None:
    """A conflict seen by the hub: all unacked frames are numbered again."""
    play = Play()
    play.record(1.0)
    play.spool.cut()
    play.session.connected(play.now)

    play.say(wire.NewStream(1, "22" * 16, "chain_conflict", "x.1"))

    assert play.spool.pending == 1
    play.drain()
    stored_once(play)


def test_messages_after_the_end_are_ignored() -> None:
    """What the hub still says about the old stream must not touch the new one."""
    play = running()
    play.conversation = None
    play.record(1.0)
    play.step(1)
    play.say(wire.Ack(1, "11" * 16, "x.1"))
    stream = play.spool.stream

    play.say(wire.Ack(1, "11" * 16, "x.1"))
    play.say(wire.Slow("disk_full", 1))
    play.say(wire.Bye(5))

    assert play.spool.stream == stream
    assert len(play.closings()) == 1


# --- errors of the hub --------------------------------------------------------------------------


def test_out_of_order_sends_again_from_behind_stored() -> None:
    """After the error the device repeats everything from stored + 1."""
    play = running()
    play.hub.refuse_next.append("out_of_order")
    play.record(1.0)
    play.step(1)
    assert play.hub.readings == []

    play.step(0.1)

    assert [o.frame.seq for o in play.sent if o.frame] == [1, 1]
    stored_once(play)


def test_out_of_order_without_progress_ends_the_connection() -> None:
    """The same complaint twice is a fault, not a reason to send in circles."""
    play = running()
    play.hub.refuse_next.extend(["out_of_order"] * 2)
    play.record(1.0)
    play.step(1)
    play.step(0.1)

    assert play.closings() == [Closing("the hub repeats out_of_order after 0")]


def test_an_error_about_frames_that_are_gone_ends_the_connection() -> None:
    """The hub asks for a frame that was acked: only a new hello can tell why."""
    play = running()
    play.record(1.0)
    play.step(1)

    play.say(wire.Error("out_of_order", 0))

    assert "cannot resend" in play.closings()[0].why


def test_an_error_of_another_kind_ends_the_connection() -> None:
    """An unknown refusal is shown and retried on a new connection."""
    play = running()

    play.say(wire.Error("malformed", 0, "what is this"))

    assert play.closings() == [Closing("the hub refused a frame: malformed what is this")]


def test_a_frame_unreadable_once_is_sent_again_alone() -> None:
    """The suspect goes alone, so that the verdict is surely about it; when it passes, all goes on."""
    play = running()
    conversation, play.conversation = play.conversation, None
    for n in range(3):
        play.record(float(n))
        play.step(1)
    play.conversation = conversation

    play.say(wire.Error("unreadable", 0))

    assert [o.frame.seq for o in play.session.frames_to_send(play.now) if o.frame] == [1]
    assert not play.session.cut_is_due(play.now + 9)
    play.cut()
    play.drain()
    stored_once(play)


def test_a_frame_unreadable_three_times_is_set_aside_and_declared() -> None:
    """The third time the frame is given up, with a gap that names its readings; all others arrive."""
    play = running()
    play.record(0.0)
    play.step(1)
    play.hub.refuse_next.extend(["unreadable"] * 3)
    for n in range(3):
        play.record(float(n + 1))
        play.step(1)
    play.drain()

    assert sorted(play.hub.readings) == sorted(r for r in play.produced if r.value != 1.0)
    (gap,) = play.hub.gaps
    assert (gap["count"], gap["reason"]) == (1, "unreadable")
    assert gap["ranges"] == {"t": [str(T0_NS + 1_000_000_000)] * 2}


def test_slow_pauses_and_then_repeats_what_was_in_flight() -> None:
    """While the hub is slow nothing is cut or sent; after retry_ms everything unacked goes again."""
    play = running()
    conversation, play.conversation = play.conversation, None
    play.record(1.0)
    play.step(1)
    play.conversation = conversation

    play.say(wire.Slow("disk_full", 5000))
    play.record(2.0)
    play.step(4.9)
    assert play.session.state is State.PAUSED
    assert play.session.next_deadline() == pytest.approx(play.now + 0.1)
    assert play.hub.readings == []
    play.step(0.2)

    play.drain()
    stored_once(play)


def test_slow_instead_of_a_welcome_means_come_back_later() -> None:
    """A hub that cannot take the stream now names the time of the next attempt."""
    play = Play()
    play.session.connected(play.now)

    play.say(wire.Slow("store_behind", 3000))

    assert play.closings() == [Closing("the hub is slow: store_behind", 3.0)]


@pytest.mark.parametrize(("retry_ms", "retry_s"), [(8412, 8.412), (None, None), (10**12, MAX_RETRY_S), (-5, 0.0)])
def test_bye_names_the_time_of_the_next_attempt(retry_ms: int | None, retry_s: float | None) -> None:
    """The hub's wish is kept within bounds; without one the backoff decides."""
    play = running()

    play.say(wire.Bye(retry_ms))

    assert play.closings() == [Closing("the hub said bye", retry_s)]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"op":"nonsense"}', b'{"op":"ack"}', b"\xff\xfe"])
def test_an_unreadable_message_changes_nothing(data: bytes) -> None:
    """A message that is none raises; state and spool stay as they were."""
    play = running()

    with pytest.raises(ProtocolError):
        play.session.receive(data, play.now)

    assert play.session.state is State.RUNNING


def test_farewell_says_bye_and_ends() -> None:
    """After the farewell nothing more is sent on this connection."""
    play = running()
    play.record(1.0)

    assert play.session.farewell() == b'{"op":"bye"}'
    assert play.session.frames_to_send(play.now) == []
    assert not play.session.cut_is_due(play.now + 9)


def test_metered_link_gathers_for_minutes_and_packs() -> None:
    """Readings of five minutes are one frame, deflated on the wire; the chain covers the body as cut."""
    play = Play(link="metered")
    play.connect()
    play.record(0.0)
    play.step()
    for n in range(40):
        play.record(21.5 + n / 10)
        play.step(5)
    assert len(play.sent) == 1, "the first reading went at once, the others wait"
    play.step(METERED_CUT_S)

    sent = play.sent[-1]
    assert sent.frame is not None
    assert sent.data[:1] == wire.DEFLATED
    assert wire.unpack(sent.data) == sent.frame.body
    assert len(sent.data) < len(sent.frame.body)
    play.drain()
    assert sorted(play.hub.readings) == sorted(play.produced)


def test_hurry_cuts_at_once_on_a_metered_link() -> None:
    """Whoever waits for the acks does not wait five minutes; afterwards readings are gathered again."""
    play = Play(link="metered")
    play.connect()
    for n in range(3):
        play.record(float(n))
        play.step(1)
    play.session.hurry()
    play.step(0.1)
    play.step(0.1)
    assert play.spool.pending == 0

    play.record(9.0)
    play.step(1)
    assert play.spool.pending == 1


# --- live readings before a backlog -------------------------------------------------------------


def after_outage(readings: int, **hub: Any) -> Play:
    """Return a play whose device has recorded so many readings without a connection, and now is welcomed."""
    play = Play(HubModel(**hub))
    for n in range(readings):
        record_now(play, float(n))
    play.connect()
    return play


def record_now(play: Play, value: float) -> None:
    """Record one value without a given time, a millisecond after the one before."""
    time_ns = T0_NS + len(play.produced) * 1_000_000
    play.spool.record([("t", value)], None, time_ns)
    play.produced.append(Reading("t", time_ns, value))


def test_a_new_reading_overtakes_the_backlog() -> None:
    """With 100,000 waiting, a reading is in the next frame and acked long before the backlog is through."""
    play = after_outage(100_000)
    play.step()
    for n in range(20):
        record_now(play, 1e6 + n)
        play.step(CUT_S + 0.001)
        assert 1e6 + n in [r.value for r in play.hub.readings[-1_001:]], "in the last frame of either lane"
        assert play.spool.backlog > 70_000

    play.drain()

    stored_once(play)
    assert play.spool.backlog == 0
    assert [r.value for r in play.hub.readings if float(r.value) < 1e6] == [float(n) for n in range(100_000)]


def test_at_most_one_frame_of_the_backlog_is_in_flight() -> None:
    """On a slow link a live reading waits behind one frame of the backlog, not behind a window of them."""
    play = after_outage(20_000)
    cuts = 0
    while play.session.cut_is_due(play.now) and play.session.cut(play.now):
        cuts += 1
    assert cuts == 1
    is_waiting = play.session.waits_for_live
    assert is_waiting
    assert play.session.next_deadline() == play.now + ACK_TIMEOUT_S

    record_now(play, -1.0)
    is_waiting = play.session.waits_for_live
    assert not is_waiting
    play.now += CUT_S + 0.001
    assert play.session.cut_is_due(play.now)
    assert play.session.cut(play.now)

    assert not play.session.cut_is_due(play.now + 10)
    sent = [item.frame.readings for item in play.session.frames_to_send(play.now) if item.frame is not None]
    assert sent == [1_000, 1]


def test_a_device_that_never_pauses_still_drains_its_backlog() -> None:
    """Lanes take turns: 500 new readings at every look do not keep the backlog from being heard."""
    play = after_outage(20_000)
    looks = 0
    while play.spool.backlog:
        for n in range(CUT_READINGS):
            record_now(play, float(n))
        play.step()
        looks += 1
        assert looks < 25

    play.drain()
    stored_once(play)


def test_a_short_backlog_keeps_its_order() -> None:
    """What fits in one flight anyway is not overtaken."""
    play = after_outage(BACKLOG_READINGS)
    record_now(play, -1.0)

    assert play.spool.backlog == 0
    play.drain()
    assert play.hub.readings == play.produced


def test_given_times_keep_the_order_of_a_backlog() -> None:
    """A device that records ``time=`` is drained in order: a correction never arrives before what it corrects."""
    play = Play()
    for n in range(BACKLOG_READINGS + 500):
        play.record(float(n))
    play.connect()
    play.record(-1.0)

    assert play.spool.backlog == 0
    play.drain()
    assert play.hub.readings == play.produced


def test_an_outage_within_the_backlog_adds_to_it() -> None:
    """Lost connections in between: every reading once, and the newest still first."""
    play = after_outage(10_000)
    for outage in range(3):
        for _ in range(2):
            play.step(0.1)
        play.cut()
        for n in range(6_000):
            record_now(play, float(n))
        play.connect()
        record_now(play, 1e6 + outage)
        play.step(0.1)
        assert 1e6 + outage in [r.value for r in play.hub.readings[-1_001:]]

    play.drain()
    stored_once(play)


def test_a_hub_that_was_slow_leaves_a_backlog_too() -> None:
    """After ``slow`` the live lane opens as after a reconnect."""
    play = running()
    play.say(wire.Slow("disk_full", 5_000))
    for n in range(BACKLOG_READINGS + 1):
        record_now(play, float(n))
    play.step(6)

    record_now(play, -1.0)
    play.step(CUT_S + 0.001)

    assert -1.0 in [r.value for r in play.hub.readings]
    assert play.spool.backlog > 0
    play.drain()
    stored_once(play)


def test_frame_that_became_durable_by_another_step_is_sent(tmp_path: Path) -> None:
    """Its fsync failed when it was cut; a later one covered it, and no cut gives it any more."""
    sync = Syncs()
    spool = FileSpool(tmp_path, boot="b", sync_file=sync)
    play = Play(spool=spool)
    play.connect()
    play.step()
    play.record(1.0)
    sync.is_failing = True
    play.step(1.0)
    sync.is_failing = False
    spool.sync()
    play.step(0.1)

    assert play.spool.acked == play.spool.next - 1 == 1
    spool.close()


def test_frame_that_became_durable_late_counts_when_it_is_acked(tmp_path: Path) -> None:
    """Also when the next one is cut before anything could be sent: a line that takes nothing."""
    sync = Syncs()
    spool = FileSpool(tmp_path, boot="b", sync_file=sync)
    play = Play(spool=spool)
    play.connect()
    play.step()
    play.record(1.0)
    sync.is_failing = True
    assert not play.session.cut(play.now)
    sync.is_failing = False
    spool.sync()
    play.record(2.0)

    assert play.session.cut(play.now)
    play.step(0.1)

    assert play.spool.acked == 2
    assert play.session.settled == 2
    stored_once(play)
    spool.close()


def test_hub_that_gives_a_copy_up_gets_nothing_of_the_present_stream_on_that_line() -> None:
    """The third welcome that does not fit ends the copy, and its connection with it."""
    spool = MemorySpool()
    spool.forget("0123456789abcdef", Copying("0123456789abcdef", 0, 2, 9, "fedcba9876543210", 2, "07" * 16))
    play = Play(spool=spool)
    play.record(1.0)

    for _ in range(TRIES):
        play.session.connected(play.now)
        play.say(wire.Welcome(1, "08" * 16, "x.1", T0_NS))
        assert play.session.state is State.ENDING
        assert play.session.frames_to_send(play.now) == []
        play.cut()
    play.drain()

    assert spool.copying is None
    stored_once(play)


def test_nothing_is_left_to_send_while_acks_make_the_room() -> None:
    """Frames go again to a restored hub: the shell waits for the ack, and does not spin."""
    play = Play(spool=MemorySpool(retain_bytes=10**6))
    play.connect()
    play.step()
    play.record(1.0)
    play.step(1.0)
    play.record(2.0)
    assert play.session.cut(play.now)
    play.cut()
    play.hub.streams.clear()
    play.connect()
    play.cut()
    play.connect()

    assert play.session.state is State.RUNNING
    assert len(play.session.frames_to_send(play.now)) == 1
    assert not play.session.has_more_to_send


def test_what_is_said_beside_the_frames_goes_once_and_only_on_its_connection() -> None:
    """A reply waits for the welcome, is sent once, and is forgotten with the connection it was said on."""
    play = Play()
    play.session.connected(play.now)
    play.session.say(wire.Reply("k1", True))
    assert play.session.frames_to_send(play.now) == []
    play.session.disconnected()

    play.connect()
    play.session.say(wire.Reply("k2", False, error="no such command"))
    sent = [json.loads(item.data) for item in play.session.frames_to_send(play.now)]

    assert sent == [{"op": "reply", "id": "k2", "ok": False, "error": "no such command"}]
    assert play.session.frames_to_send(play.now) == []


@pytest.mark.parametrize(
    "message", [wire.Command("k", "fan", {"speed": 3}, T0_NS), wire.Desired(4, {"a": [1]})], ids=str
)
def test_control_messages_are_handed_on_as_they_are(message: wire.Command | wire.Desired) -> None:
    """Commands and desired state are events; what they mean is not the conversation's."""
    play = Play()
    play.connect()
    play.session.events()

    play.session.receive(wire.encode(message), play.now)

    assert play.session.events() == [message]


def test_what_is_said_is_bounded() -> None:
    """Without a connection nothing gathers; in a pause that the hub asked for, the newest few stay."""
    play = Play()
    for n in range(3):
        play.session.say(wire.Reported(n, {}))
    play.connect()
    assert play.session.frames_to_send(play.now) == []

    play.session.receive(wire.encode(wire.Slow(Reason.STORE_BEHIND, 1000)), play.now)
    for n in range(MAX_SAID + 1):
        play.session.say(wire.Reported(n, {}))
    play.now += 2
    play.session.tick(play.now)
    sent = [json.loads(item.data)["version"] for item in play.session.frames_to_send(play.now)]

    assert sent == list(range(1, MAX_SAID + 1))


@pytest.mark.parametrize("said", [{"a": "\ud800"}, {"a": object()}], ids=["half", "object"])
def test_what_no_json_can_carry_costs_its_own_message_only(said: dict[str, object]) -> None:
    """A reply becomes an error, a state is left out; the connection and what else is said on it stay."""
    play = Play()
    play.connect()
    play.session.say(wire.Reply("k1", True, said))
    play.session.say(wire.Reported(1, said))
    play.session.say(wire.Reply("k2", True, 3))
    sent = [json.loads(item.data) for item in play.session.frames_to_send(play.now)]

    assert [(one["op"], one["id"], one["ok"]) for one in sent] == [("reply", "k1", False), ("reply", "k2", True)]
