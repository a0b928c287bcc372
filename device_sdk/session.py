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
"""

import logging
import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple, assert_never

from device_sdk import wire
from device_sdk.columns import decode_batch
from device_sdk.conversation import Conversation, State, Trigger
from device_sdk.errors import Reason
from device_sdk.reading import Channel, Reading
from device_sdk.spool import CutFrame, Spool

logger = logging.getLogger("device_sdk.session")

# A reading after a pause goes at once; a busy device gathers this long, which a live page does not show, or until
# a frame is worth its cost. Measured at 50 readings/s: 20 ms make a frame of each and cost twice the CPU.
CUT_S = 0.050
CUT_READINGS = 500
# When the spool gives no frame although it holds readings, its disk fails, or its unacked frames are all it may hold:
# ask again with the next ack, or after this time, not in a hot loop.
CUT_RETRY_S = 1.0
# A hub answers hello in milliseconds; ten seconds also cover a hub that is replaying its journal.
WELCOME_TIMEOUT_S = 10.0
# Acks follow an fsync, ≤ 1 s even on a bad disk. Past this the hub is stuck; the next connection may be healthy.
ACK_TIMEOUT_S = 60.0
# Longest pause a hub may ask for; a wrong number must not silence a device for good.
MAX_RETRY_S = 900.0
# How often the hub may fail to read one frame before the frame, not the line, is to blame.
UNREADABLE_TRIES = 3


_TRIGGERS: dict[type[wire.HubMessage], Trigger] = {
    wire.Welcome: Trigger.WELCOME,
    wire.NewStream: Trigger.NEW_STREAM,
    wire.Ack: Trigger.ACK,
    wire.Error: Trigger.ERROR,
    wire.Slow: Trigger.SLOW,
    wire.Bye: Trigger.BYE,
}


class Welcomed(NamedTuple):
    """The hub took the hello; frames flow. ``time_ns`` is the hub's wall clock."""

    time_ns: int
    ping_s: float


class Acknowledged(NamedTuple):
    """Every frame ≤ ``stored`` of ``stream`` is durable at the hub."""

    stored: int
    stream: str


class Closing(NamedTuple):
    """This connection must end; come back after ``retry_s`` (None: as the backoff says)."""

    why: str
    retry_s: float | None = None


SessionEvent = Welcomed | Acknowledged | Closing


class Outgoing(NamedTuple):
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
        self._window = 1
        self._sent = 0
        # The highest seq of this stream that this process has sent.
        self._sent_ever = 0
        # Cut and unacked frames as (seq, readings): what is in flight without asking the spool for bodies.
        self._unacked: deque[tuple[int, int]] = deque()
        self._declared: dict[str, Channel] = {}
        self._is_schema_due = True
        self._last_cut = -math.inf
        self._no_cut_before = -math.inf
        self._since = 0.0
        self._paused_until = 0.0
        self._rewound: int | None = None
        self._suspect: tuple[str, int] | None = None
        self._suspect_tries = 0
        self._rejected_before = 0
        self._rejected_total = 0
        self._warned: Counter[tuple[str, str]] = Counter()
        self._settled = 0

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
        """True while a cut frame waits for its ack (as far as this session has seen the spool)."""
        return bool(self._unacked)

    @property
    def rejected(self) -> int:
        """Readings the hub refused for good, over all streams of this session."""
        return self._rejected_before + self._rejected_total

    @property
    def settled(self) -> int:
        """Readings that no longer need delivery, since this process began: durable at the hub, or declared lost."""
        return self._settled

    def connected(self, now: float, wall_ns: int = 0) -> bytes:
        """Begin on a new connection; return the hello to send first.

        Raises:
            ProtocolError: a connection is already in use.
        """
        self._conversation.apply(Trigger.CONNECTED)
        spool = self._spool
        if spool.stream != self._stream:
            self._stream = spool.stream
            self._sent_ever = 0
            self._rejected_before += self._rejected_total
            self._rejected_total = 0
        self._since = now
        self._declared = {}
        self._is_schema_due = True
        self._rewound = None
        self._no_cut_before = now
        # Also the frames that an earlier process cut.
        self._unacked = deque((frame.seq, frame.readings) for frame in spool.frames(spool.acked))
        chain = spool.chain(spool.next - 1)
        assert chain is not None, "a spool knows the chain of its last cut frame"
        hello = wire.Hello(
            self._device, self._stream, self._boot, self._run, spool.acked, spool.next, chain.hex(),
            sdk=self._sdk, seen=spool.pos, mono_ns=int(now * 1e9), wall_ns=wall_ns, link=self._link,
        )  # fmt: skip
        return wire.encode(hello)

    def schema_changed(self) -> None:
        """Note that a channel was declared; the next `frames_to_send` begins with it. Safe from any thread."""
        self._is_schema_due = True

    def disconnected(self) -> None:
        """Forget the connection; everything unacked is sent again on the next one."""
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
            case wire.Bye(retry_ms):
                self._events.append(Closing("the hub said bye", None if retry_ms is None else _retry_s(retry_ms)))
            case _:
                assert_never(message)

    def tick(self, now: float) -> None:
        """Act on time that has passed: resume after ``slow``, give up on a silent hub."""
        if self._conversation.state is State.PAUSED and now >= self._paused_until:
            self._conversation.apply(Trigger.RESUME)
            self._since = now
        elif self._conversation.state is State.GREETING and now >= self._since + WELCOME_TIMEOUT_S:
            self.end(f"no welcome within {WELCOME_TIMEOUT_S:g} s")
        elif self._conversation.state is State.RUNNING and self._unacked and now >= self._since + ACK_TIMEOUT_S:
            self.end(f"no ack within {ACK_TIMEOUT_S:g} s")

    def next_deadline(self) -> float | None:
        """Return when `tick` or a cut has something to do, or None when only messages and readings count."""
        match self._conversation.state:
            case State.GREETING:
                return self._since + WELCOME_TIMEOUT_S
            case State.PAUSED:
                return self._paused_until
            case State.RUNNING:
                if self._may_cut() and self._spool.has_uncut:
                    return max(self._last_cut + CUT_S, self._no_cut_before)
                return self._since + ACK_TIMEOUT_S if self._unacked else None
            case State.OFFLINE | State.ENDING:
                return None

    def cut_is_due(self, now: float) -> bool:
        """Say whether a frame should be cut now: at once after a pause, else gathered to be worth its cost."""
        if now < self._no_cut_before or not self._may_cut() or not self._spool.has_uncut:
            return False
        return now - self._last_cut >= CUT_S or self._spool.unnumbered >= CUT_READINGS

    def cut(self, now: float) -> bool:
        """Cut one frame of the spool (durable: this is the step that may fsync); False when it gave none."""
        self._last_cut = now
        frame = self._spool.cut()
        if frame is None:
            self._no_cut_before = now + CUT_RETRY_S
            return False
        if not self._unacked:
            self._since = now
        self._unacked.append((frame.seq, frame.readings))
        return True

    @property
    def has_more_to_send(self) -> bool:
        """True when `frames_to_send` stopped at its byte limit."""
        return self._conversation.state is State.RUNNING and self._sent < self._send_limit()

    def frames_to_send(self, now: float, max_bytes: int = wire.MAX_FRAME_BYTES) -> list[Outgoing]:
        """Return what may be sent now, in order: a schema when channels were declared, then frames of the window.

        Ends after ``max_bytes``; call again when the connection takes more.
        """
        if self._conversation.state is not State.RUNNING:
            return []
        out: list[Outgoing] = []
        if self._is_schema_due:
            self._add_schema(out)
        limit = self._send_limit()
        if self._sent >= limit:
            return out
        size = 0
        for frame in self._spool.frames(self._sent):
            if frame.seq > limit or size > max_bytes:
                break
            size += len(frame.body)
            is_first = frame.seq > self._sent_ever
            out.append(Outgoing(frame.body, frame, is_first))
            self._sent = frame.seq
            self._sent_ever = max(self._sent_ever, frame.seq)
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
        if not self._matches(welcome.stored, welcome.chain):
            self._start_new_stream(None, f"the hub's chain({welcome.stored}) is not ours: rolled back, or a twin")
            return
        self._sent = welcome.stored
        self._window = welcome.window
        self._since = now
        self._settle(welcome.stored, welcome.chain, welcome.pos)
        self._events.append(Welcomed(welcome.time_ns, float(welcome.ping_s)))
        if self._suspect is not None and self._suspect[0] != self._stream:
            self._suspect = None

    def _on_new_stream(self, message: wire.NewStream) -> None:
        own = self._spool.chain(message.stored)
        is_equal = own is not None and own.hex() == message.chain
        self._start_new_stream(message.stored if is_equal else None, f"the hub asks for a new stream: {message.why}")

    def _on_ack(self, ack: wire.Ack, now: float) -> None:
        self._rejected_total = max(self._rejected_total, ack.rejected_total)
        for rejection in ack.rejected:
            self._report_rejection(rejection)
        if ack.stored <= self._spool.acked:
            return
        if not self._matches(ack.stored, ack.chain):
            self._start_new_stream(None, f"an ack with another chain({ack.stored}): a twin writes this stream")
            return
        self._since = now
        self._sent = max(self._sent, ack.stored)
        if self._suspect is not None and ack.stored >= self._suspect[1]:
            self._suspect = None
        self._settle(ack.stored, ack.chain, ack.pos)
        self._no_cut_before = now

    def _on_error(self, error: wire.Error, now: float) -> None:
        if not self._spool.acked <= error.stored < self._spool.next:
            self.end(f"the hub refuses frames after {error.stored}, which this stream cannot resend")
            return
        match error.reason:
            case Reason.OUT_OF_ORDER:
                self._rewind(error.stored)
            case Reason.UNREADABLE:
                self._on_unreadable(error.stored)
            case _:
                self.end(f"the hub refused a frame: {error.reason} {error.message}".rstrip())
        self._since = now

    def _on_slow(self, slow: wire.Slow, now: float) -> None:
        retry_s = _retry_s(slow.retry_ms)
        if self._conversation.state is State.ENDING:
            self._events.append(Closing(f"the hub is slow: {slow.why}", retry_s))
            return
        logger.info("slow device=%s reason=%s retry_s=%.1f", self._device, slow.why, retry_s)
        self._paused_until = now + retry_s
        # What was in flight may not have been taken: it goes again after the pause, and doubles are dropped.
        self._sent = self._spool.acked

    # --- details -------------------------------------------------------------------------------

    def _matches(self, stored: int, chain: str) -> bool:
        """Say whether the hub's chain(stored) is ours. False also for a hub that knows less than it has acked."""
        own = self._spool.chain(stored)
        return own is not None and self._spool.acked <= stored and own.hex() == chain

    def _start_new_stream(self, stored: int | None, why: str, lost: Sequence[Reading] = ()) -> None:
        logger.warning("new stream device=%s stream=%s reason=%s", self._device, self._stream, why)
        self._count_settled(stored or 0)
        self._unacked.clear()
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
            self._unacked.clear()
            self.end("the stream from before the power cut is complete; a new one begins", 0.0)

    def _count_settled(self, stored: int) -> None:
        while self._unacked and self._unacked[0][0] <= stored:
            self._settled += self._unacked.popleft()[1]

    def _rewind(self, stored: int) -> None:
        if self._suspect is not None and self._suspect[1] == stored + 1:
            return  # the suspect is on its way alone already
        if self._rewound == stored:
            self.end(f"the hub repeats out_of_order after {stored}")
            return
        self._rewound = stored
        self._sent = stored

    def _on_unreadable(self, stored: int) -> None:
        """Send the frame alone, so that the next verdict is surely about it; the third time set it aside."""
        suspect = (self._stream, stored + 1)
        self._suspect_tries = self._suspect_tries + 1 if self._suspect == suspect else 1
        self._suspect = suspect
        self._sent = stored
        if self._suspect_tries >= UNREADABLE_TRIES:
            self._dead_letter(stored + 1)

    def _dead_letter(self, seq: int) -> None:
        self._suspect = None
        frame = self._spool.frames(seq - 1)[0]
        lost = decode_batch(frame.body).readings() if frame.kind == "batch" else []
        self._start_new_stream(seq, f"frame {seq} was unreadable for the hub {UNREADABLE_TRIES} times", lost)

    def _report_rejection(self, rejection: wire.Rejection) -> None:
        key = (rejection.channel, rejection.reason)
        # Peers choose channel and reason: past this many kinds everything is DEBUG, and memory stays bounded.
        is_first = key not in self._warned and len(self._warned) < 2 * wire.MAX_CHANNELS
        if is_first:
            self._warned[key] = 1
        logger.log(
            logging.WARNING if is_first else logging.DEBUG,
            "rejected device=%s channel=%s reason=%s seq=%d index=%d",
            self._device, rejection.channel, rejection.reason, rejection.seq, rejection.index,
        )  # fmt: skip

    def _add_schema(self, out: list[Outgoing]) -> None:
        # First the flag, then the look: a channel declared meanwhile sets it again.
        self._is_schema_due = False
        channels = self._spool.channels
        changed = tuple(c for c in channels.values() if self._declared.get(c.name) != c)
        if changed:
            self._declared = dict(channels)
            out.append(Outgoing(wire.encode(wire.Schema(changed))))

    def _send_limit(self) -> int:
        last = self._unacked[-1][0] if self._unacked else 0
        return min(last, self._spool.acked + (self._window if self._suspect is None else 1))

    def _may_cut(self) -> bool:
        return self._conversation.state is State.RUNNING and self._suspect is None and len(self._unacked) < self._window


def _retry_s(retry_ms: int) -> float:
    return max(0.0, min(retry_ms / 1000, MAX_RETRY_S))
