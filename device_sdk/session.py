"""SDK side of the device conversation: hello, window, acks, resume, new streams.

Owns: what each message means, the order of messages, when a frame is cut, what is deleted
from the spool. Place: after `conversation` and `spool`, before `courier`, which gives
it bytes and the time and sends what it returns. Pure: no clock, task, socket.

How it works. A `Session` outlives connections. On each one it says hello and
compares the chain in the answer with its own before it deletes or sends
anything: a different chain means that spool or hub was rolled back, or that a
twin writes the same stream, and the spool starts a new stream. After that it
keeps at most ``window`` frames in flight; acks are cumulative, so a lost or
doubled ack costs nothing. Whatever cannot be continued ends the *connection*
(`Closing`), never the session: a new hello settles every doubt.

A hub restored from a backup holds less than it acked, perhaps also of streams that
ended since. A welcome shows it; then the next connections say hello with those streams,
oldest first, and send again what the spool has kept (`resend`). Nothing new is cut meanwhile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, assert_never

from device_sdk import wire
from device_sdk.beside import Beside
from device_sdk.columns import decode_batch
from device_sdk.conversation import Acknowledged, Closing, Conversation, SessionEvent, State, Trigger, Welcomed
from device_sdk.errors import Reason
from device_sdk.flight import UNREADABLE_TRIES, Flight
from device_sdk.frozen import Frozen
from device_sdk.pace import Pace
from device_sdk.reading import Reading
from device_sdk.resend import Restoring
from device_sdk.spool import CutFrame, Spool
from device_sdk.tally import Tally
from device_sdk.turn import Turns

logger = logging.getLogger("device_sdk.session")

METERED = "metered"

# A hub answers hello in milliseconds; ten seconds also cover a hub that is replaying its journal.
WELCOME_TIMEOUT_S = 10.0
# Acks follow an fsync, ≤ 1 s even on a bad disk. Past this the hub is stuck; the next connection may be healthy.
ACK_TIMEOUT_S = 60.0
# Longest pause a hub may ask for; a wrong number must not silence a device for good.
MAX_RETRY_S = 900.0


_TRIGGERS: dict[type[wire.HubMessage], Trigger] = {
    wire.Welcome: Trigger.WELCOME,
    wire.NewStream: Trigger.NEW_STREAM,
    wire.Ack: Trigger.ACK,
    wire.Error: Trigger.ERROR,
    wire.Slow: Trigger.SLOW,
    wire.Bye: Trigger.BYE,
    wire.Command: Trigger.CONTROL,
    wire.Desired: Trigger.CONTROL,
}


class Outgoing(Frozen):
    """One message to send. ``frame`` is set, and ``is_first``, when it is the frame's first transmission."""

    data: bytes
    frame: CutFrame | None = None
    is_first: bool = False


class Session:
    """The conversation of one device over any number of connections.

    Verbs, in the order a shell uses them: `connected` → send the returned hello;
    `receive` for each message; then `tick`, cut while `cut_is_due`, send
    `frames_to_send`, act on `events`, come back at `next_deadline`; `disconnected`
    when the connection is gone. ``now`` is monotonic seconds everywhere.

    One caller at a time (the spool, not the session, is safe from any thread).
    """

    def __init__(self, spool: Spool, *, device: str, boot: str, run: str, sdk: str, link: str = "normal") -> None:
        self._spool = spool
        self._device = device
        self._boot, self._run, self._sdk, self._link = boot, run, sdk, link
        self._conversation = Conversation(device)
        self._events: list[SessionEvent] = []
        self._stream = ""
        self._flight = Flight()
        self._beside = Beside()
        self._pace = Pace(is_metered=link == METERED)
        self._turns = Turns(spool)
        self._since = 0.0
        self._paused_until = 0.0
        self._tally = Tally(device)
        # While a restored hub misses frames it had acked, only these are sent.
        self._restoring = Restoring(spool, device, run)
        self._hub_time_ns: int | None = None

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._conversation.state

    @property
    def is_online(self) -> bool:
        """True between a welcome and the end of its connection."""
        return self._conversation.state in (State.RUNNING, State.PAUSED)

    @property
    def has_unacked(self) -> bool:
        """True while a frame waits for its ack (as far as this session knows of it)."""
        return bool(self._flight) or self._restoring.is_active

    @property
    def rejected(self) -> int:
        """Readings the hub refused for good, over all streams of this session."""
        return self._tally.rejected

    @property
    def settled(self) -> int:
        """Readings that no longer need delivery, since this process began: durable at the hub, or declared lost."""
        return self._tally.settled

    @property
    def tally(self) -> Tally:
        """What was acked, refused and welcomed since this process began."""
        return self._tally

    @property
    def hub_time_ns(self) -> int | None:
        """The hub's wall clock as its last welcome said it; None before the first."""
        return self._hub_time_ns

    def connected(self, now: float, wall_ns: int = 0, boot_ns: int = 0, clock: str = "unknown") -> bytes:
        """Begin on a new connection; return the hello to send first.

        Args:
            now: monotonic seconds.
            wall_ns: the device's wall clock, as it is.
            boot_ns: ns since boot.
            clock: ``synced``, or ``unknown`` when ``wall_ns`` was never set.

        Raises:
            ProtocolError: a connection is already in use.
        """
        self._conversation.apply(Trigger.CONNECTED)
        spool = self._spool
        if spool.stream != self._stream:
            self._stream = spool.stream
            self._flight.sent_ever = 0
            self._tally.new_stream()
        self._since = now
        self._beside.begin()
        self._turns.begin()
        self._pace.again(now)
        self._flight.begin(spool.frames(spool.acked))
        chain = spool.chain(spool.next - 1)
        assert chain is not None, "a spool knows the chain of its last cut frame"
        hello = wire.Hello(
            self._device, self._stream, self._boot, self._run, spool.acked, spool.next, chain.hex(),
            sdk=self._sdk, seen=spool.pos, earlier=spool.earlier, mono_ns=boot_ns, wall_ns=wall_ns, clock=clock,
            link=self._link,
        )  # fmt: skip
        return wire.encode(self._restoring.hello(hello))

    def schema_changed(self) -> None:
        """Note that a channel was declared; the next `frames_to_send` begins with it. Safe from any thread."""
        self._beside.is_schema_due = True

    def declare_commands(self, commands: dict[str, Any]) -> None:
        """Declare all commands of the device, also on each later connection; see `wire.Schema`. From any thread."""
        self._beside.commands = commands
        self.schema_changed()

    def say(self, message: wire.Reply | wire.Reported) -> None:
        """Send a message beside the frames. Only on this connection: whoever says it says it again once `Welcomed`.

        Without a connection it is forgotten at once: it must not gather for the days that a hub is away.
        """
        if self.is_online:
            self._beside.say(message, self._device)

    def disconnected(self) -> None:
        """Forget the connection; everything unacked is sent again on the next one."""
        self._restoring.disconnected()
        if self._conversation.state is not State.OFFLINE:
            self._conversation.apply(Trigger.DISCONNECTED)

    def receive(self, data: bytes | str, now: float) -> None:
        """Take one message of the hub; then collect `events` and `frames_to_send`.

        Raises:
            ProtocolError: the message cannot be read or does not belong here. Nothing
                changed; end the connection (`end`).
        """
        message = wire.decode_hub_message(data)
        is_over = self._conversation.state is State.ENDING
        self._conversation.apply(_TRIGGERS[type(message)])
        if is_over:
            return
        match message:
            case wire.Welcome():
                self._on_welcome(message, now)
            case wire.NewStream():
                self._on_new_stream(message)
            case wire.Ack():
                self._on_ack(message, now)
            case wire.Error():
                self._on_error(message, now)
            case wire.Slow():
                self._on_slow(message, now)
            case wire.Bye(retry_ms=retry_ms):
                self._events.append(Closing("the hub said bye", None if retry_ms is None else _retry_s(retry_ms)))
            case wire.Command() | wire.Desired():
                self._events.append(message)
            case _:
                assert_never(message)

    def tick(self, now: float) -> None:
        """Act on time that has passed: resume after ``slow``, give up on a silent hub."""
        if self._conversation.state is State.PAUSED and now >= self._paused_until:
            self._conversation.apply(Trigger.RESUME)
            self._since = now
            self._turns.prefer_live()
        elif self._conversation.state is State.GREETING and now >= self._since + WELCOME_TIMEOUT_S:
            self.end(f"no welcome within {WELCOME_TIMEOUT_S:g} s")
        elif self._conversation.state is State.RUNNING and self.has_unacked and now >= self._since + ACK_TIMEOUT_S:
            self.end(f"no ack within {ACK_TIMEOUT_S:g} s")

    def next_deadline(self) -> float | None:
        """Return when `tick` or a cut has something to do, or None when only messages and readings count."""
        match self._conversation.state:
            case State.GREETING:
                return self._since + WELCOME_TIMEOUT_S
            case State.PAUSED:
                return self._paused_until
            case State.RUNNING:
                ack_at = self._since + ACK_TIMEOUT_S if self.has_unacked else math.inf
                may_cut = self._may_cut() and self._spool.has_uncut and not self.waits_for_live
                at = min(ack_at, self._pace.deadline() if may_cut else math.inf)
                return None if at == math.inf else at
            case State.OFFLINE | State.ENDING:
                return None

    def hurry(self) -> None:
        """Cut what is recorded by now without gathering more: somebody waits for it."""
        self._pace.hurry()

    def cut_is_due(self, now: float) -> bool:
        """Say whether a frame should be cut now: at once after a pause, else gathered to be worth its cost."""
        if not self._may_cut() or not self._spool.has_uncut or self._pace.is_held(now):
            return False
        return self._turns.may_cut_backlog or self._is_live_due(now)

    @property
    def waits_for_live(self) -> bool:
        """True while all that waits is a backlog whose last frame is not acked: the next reading is to be cut at once.

        Its `record` must wake the shell: there is no deadline for it.
        """
        return self._turns.waits_for_live

    def cut(self, now: float) -> bool:
        """Cut one frame of the spool (durable: this is the step that may fsync); False when it gave none."""
        self._adopt()
        from_backlog = self._turns.is_backlogs(self._is_live_due(now))
        self._pace.cut(now)
        frame = self._spool.cut(from_backlog=from_backlog)
        if frame is None:
            self._pace.failed(now)
            return False
        if not self._spool.has_uncut:
            self._pace.is_empty()
        if not self._flight:
            self._since = now
        self._flight.add(frame)
        self._turns.took(frame.seq, from_backlog)
        return True

    @property
    def has_more_to_send(self) -> bool:
        """True when `frames_to_send` stopped at its byte limit."""
        if self._restoring.is_active:
            return False  # each ack makes room, and asks again
        return self._conversation.state is State.RUNNING and self._flight.sent < self._flight.limit(self._spool.acked)

    def frames_to_send(self, now: float, max_bytes: int = wire.MAX_FRAME_BYTES) -> list[Outgoing]:
        """Return what may be sent now, in order: a schema when channels were declared, then frames of the window.

        Ends after ``max_bytes``; call again when the connection takes more.
        """
        if self._conversation.state is not State.RUNNING:
            return []
        out = [Outgoing(data) for data in self._beside.take(self._spool.channels)]
        if self._restoring.is_active:
            return out + self._send_again(max_bytes)
        self._adopt()
        flight, limit = self._flight, self._flight.limit(self._spool.acked)
        if flight.sent >= limit:
            return out
        size = 0
        for frame in self._spool.frames(flight.sent):
            if frame.seq > limit or size > max_bytes:
                break
            size += len(frame.body)
            out.append(Outgoing(self._packed(frame.body), frame, flight.note_sent(frame.seq)))
        return out

    def farewell(self) -> bytes:
        """Return the bye to send before closing, and end this connection."""
        self._conversation.apply(Trigger.END)
        return wire.encode(wire.Bye())

    def end(self, why: str, retry_s: float | None = None) -> None:
        """End this connection for a reason that is shown to the user."""
        self._conversation.apply(Trigger.END)
        self._events.append(Closing(why, retry_s))

    def events(self) -> list[SessionEvent]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # --- one handler per message ---------------------------------------------------------------

    def _on_welcome(self, welcome: wire.Welcome, now: float) -> None:
        self._flight.window = welcome.window
        self._since = now
        self._hub_time_ns = welcome.time_ns
        if self._restoring.is_active:
            why = self._restoring.begin(welcome)
            if why is not None:
                self.end(why)
                return
            self._events.append(Welcomed(welcome.time_ns, float(welcome.ping_s)))
            return
        if self._restoring.is_needed(welcome):
            self.end("the hub was restored and misses frames it had acked: they are sent again", 0.0)
            return
        if not self._matches(welcome.stored, welcome.chain):
            self._start_new_stream(None, f"the hub's chain({welcome.stored}) is not ours: rolled back, or a twin")
            return
        self._flight.sent = welcome.stored
        self._settle(welcome.stored, welcome.chain, welcome.pos)
        self._tally.welcomes += 1
        self._events.append(Welcomed(welcome.time_ns, float(welcome.ping_s)))
        self._turns.prefer_live()
        self._flight.keep_suspect_in(self._stream)

    def _on_new_stream(self, message: wire.NewStream) -> None:
        if self._restoring.is_active:
            self._restoring.refuse()
            self.end(f"the hub does not continue a stream that is sent again: {message.why}")
            return
        own = self._spool.chain(message.stored)
        is_equal = own is not None and own.hex() == message.chain
        self._start_new_stream(message.stored if is_equal else None, f"the hub asks for a new stream: {message.why}")

    def _on_ack(self, ack: wire.Ack, now: float) -> None:
        if self._restoring.is_active:
            self._ack_again(ack, now)
            return
        self._tally.add(ack)
        if ack.stored <= self._spool.acked:
            return
        if not self._matches(ack.stored, ack.chain):
            self._start_new_stream(None, f"an ack with another chain({ack.stored}): a twin writes this stream")
            return
        self._since = now
        self._settle(ack.stored, ack.chain, ack.pos)
        # A small spool cuts nothing while the frames in flight fill their share of it: now there is room.
        self._pace.again(now)

    def _on_error(self, error: wire.Error, now: float) -> None:
        if self._restoring.is_active:
            self._restoring.refuse()
            self.end(f"the hub refuses a frame that is sent again: {error.reason} {error.message}".rstrip())
            return
        if not self._spool.acked <= error.stored < self._spool.next:
            self.end(f"the hub refuses frames after {error.stored}, which this stream cannot resend")
            return
        match error.reason:
            case Reason.OUT_OF_ORDER:
                if not self._flight.rewind(error.stored):
                    self.end(f"the hub repeats out_of_order after {error.stored}")
            case Reason.UNREADABLE:
                if self._flight.blame(self._stream, error.stored + 1):
                    self._dead_letter(error.stored + 1)
            case _:
                self.end(f"the hub refused a frame: {error.reason} {error.message}".rstrip())
        self._since = now

    def _on_slow(self, slow: wire.Slow, now: float) -> None:
        retry_s = _retry_s(slow.retry_ms)
        if self._restoring.is_active:
            self._conversation.apply(Trigger.END)
        if self._conversation.state is State.ENDING:
            self._events.append(Closing(f"the hub is slow: {slow.why}", retry_s))
            return
        logger.info("slow device=%s reason=%s retry_s=%.1f", self._device, slow.why, retry_s)
        self._paused_until = now + retry_s
        # What was in flight may not have been taken: it goes again after the pause, and doubles are dropped.
        self._flight.sent = self._spool.acked

    # --- a hub that was restored ---------------------------------------------------------------

    def _ack_again(self, ack: wire.Ack, now: float) -> None:
        self._since = now
        if not self._restoring.acknowledge(ack.stored, ack.chain):
            self.end(f"an ack with another chain({ack.stored}) while frames are sent again")

    def _send_again(self, max_bytes: int) -> list[Outgoing]:
        out = [Outgoing(self._packed(body)) for body in self._restoring.take(self._flight.window, max_bytes)]
        over = self._restoring.over()
        if over is not None:
            self.end(over, 0.0)
        return out

    # --- details -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take frames that were numbered when their fsync failed, and became durable with a later step."""
        last = max(self._flight.last, self._spool.acked)
        if self._spool.next - 1 > last:
            for frame in self._spool.frames(last):
                self._flight.add(frame)

    def _packed(self, body: bytes) -> bytes:
        return wire.pack(body) if self._link == METERED else body

    def _matches(self, stored: int, chain: str) -> bool:
        """Say whether the hub's chain(stored) is ours. False also for a hub that knows less than it has acked."""
        own = self._spool.chain(stored)
        return own is not None and self._spool.acked <= stored and own.hex() == chain

    def _start_new_stream(self, stored: int | None, why: str, lost: Sequence[Reading] = ()) -> None:
        logger.warning("new stream device=%s stream=%s reason=%s", self._device, self._stream, why)
        self._count_settled(stored or 0)
        self._flight.clear()
        self._spool.restart(stored, lost)
        self.end(why)

    def _settle(self, stored: int, chain: str, pos: str) -> None:
        """Delete what is durable at the hub; a stream that ends with it needs a new hello."""
        is_news = stored > self._spool.acked
        self._spool.acknowledge(stored, bytes.fromhex(chain), pos)
        self._count_settled(stored)
        if is_news:
            self._events.append(Acknowledged(stored, self._stream))
        if self._spool.stream != self._stream:
            self._flight.clear()
            self.end("the stream from before the power cut is complete; a new one begins", 0.0)

    def _count_settled(self, stored: int) -> None:
        for readings in self._flight.settle(stored):
            self._tally.acked(readings)

    def _dead_letter(self, seq: int) -> None:
        frame = self._spool.frames(seq - 1)[0]
        lost = decode_batch(frame.body).readings() if frame.kind == "batch" else []
        self._start_new_stream(seq, f"frame {seq} was unreadable for the hub {UNREADABLE_TRIES} times", lost)

    def _is_live_due(self, now: float) -> bool:
        live = self._turns.live
        return live is not None and self._pace.is_due(now, live)

    def _may_cut(self) -> bool:
        is_free = not self._flight.is_full and not self._restoring.is_active
        return self._conversation.state is State.RUNNING and is_free


def _retry_s(retry_ms: int) -> float:
    return max(0.0, min(retry_ms / 1000, MAX_RETRY_S))
