"""Faults of a network connection as decisions that only compute: what happens, at which byte, in which order.

Owns: what a fault is (`Fault`), where it strikes (`Line`), who gets it (`Plan`), and
random ones drawn from a seed (`draw_strikes`). Place: before `proxy`, which carries
the bytes and does what a line says. Pure: no socket, task, clock or thread; the same
seed, plan and bytes give the same faults at the same bytes.

``up`` is from the device to the hub. An ack is the hub's text frame that begins with
`ACK_PREFIX`; where bytes are opaque (TLS, or no WebSocket), a fault that waits for an
ack strikes at its byte.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple

ACK_PREFIX = b'{"op":"ack"'
# A handshake's answer is a few hundred bytes; what has no end after this many is no handshake.
MAX_HEAD_BYTES = 16 * 1024
# Faults that wait on one connection: more would only strike after one another.
MAX_ARMED = 8
# Random faults strike within this many bytes: two or three frames of a small device, and as many of their acks.
STRIKE_BYTES_UP, STRIKE_BYTES_DOWN = 600, 300
# Random stalls and dead links: shorter is no outage, longer leaves a device out of most of a short run.
HOLD_S = (0.05, 1.0)

_HEAD_BEGIN, _HEAD_END = b"HTTP/1.1 101", b"\r\n\r\n"


class Way(StrEnum):
    """A direction, as the device sees it."""

    UP = "up"
    DOWN = "down"


class Effect(StrEnum):
    """What a fault does.

    ``cut``: both sides are closed, as when the process between ends. ``reset``: the same by RST, as a router does
    that forgot the connection. ``stall``: bytes of one way wait for ``hold_s`` and then go on. ``swallow``: bytes of
    one way vanish, and after ``hold_s`` the connection is reset. ``half_close``: one way ends (FIN).
    """

    CUT = "cut"
    RESET = "reset"
    STALL = "stall"
    SWALLOW = "swallow"
    HALF_CLOSE = "half_close"


class Moment(StrEnum):
    """When a fault strikes: at a byte, or right before or after the first ack from that byte on."""

    BYTE = "byte"
    BEFORE_ACK = "before_ack"
    AFTER_ACK = "after_ack"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong on one connection.

    ``after_bytes``: exactly so many pass before it (with ``reset`` at most so many arrive: RST discards what the
    kernel still holds). They are counted from when the fault was armed, on ``way``; for acks always downwards.
    ``hold_s`` 0 holds, or swallows, until the proxy is told to be calm.
    """

    effect: Effect
    way: Way = Way.UP
    after_bytes: int = 0
    moment: Moment = Moment.BYTE
    hold_s: float = 0.0

    def __post_init__(self) -> None:
        if self.after_bytes < 0 or self.hold_s < 0:
            raise ValueError(f"{self!r}: after_bytes and hold_s count from 0")

    @property
    def counted(self) -> Way:
        """Return the way whose bytes are counted."""
        return self.way if self.moment is Moment.BYTE else Way.DOWN

    def __str__(self) -> str:
        what = self.effect.replace("_", "-")
        if self.effect in (Effect.STALL, Effect.SWALLOW, Effect.HALF_CLOSE):
            what += f" {self.way}"
        if self.hold_s:
            what += f" for {self.hold_s:.2f} s"
        if self.moment is Moment.BYTE:
            return f"{what} after {self.after_bytes} bytes {self.way}"
        return f"{what} {self.moment.replace('_', ' ')}"


Step = bytes | Fault


class Line:
    """Where faults strike on one connection: bytes go in, bytes to pass on and faults to carry out come out, in order.

    Its owner feeds every byte of both ways to `take`, says `end` when a way ended, and carries out the steps in
    order. After ``cut`` or ``reset`` (`is_over`), and of a way that is swallowed or half-closed (`is_dead`), nothing
    comes out any more.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.taken = dict.fromkeys(Way, 0)
        self.is_over = False
        self._dead: set[Way] = set()
        self._armed: list[tuple[int, Fault]] = []
        self._acks = AckScanner()
        self._steps: list[Step] = []
        for fault in faults:
            self.arm(fault)

    @property
    def armed(self) -> tuple[Fault, ...]:
        """Return the faults that have not struck."""
        return tuple(fault for _, fault in self._armed)

    def is_dead(self, way: Way) -> bool:
        """Tell whether no byte of that way passes any more."""
        return self.is_over or way in self._dead

    def arm(self, fault: Fault) -> bool:
        """Let a fault strike ``after_bytes`` from now; False when `MAX_ARMED` wait already."""
        if self.is_over or len(self._armed) >= MAX_ARMED:
            return False
        self._armed.append((self.taken[fault.counted] + fault.after_bytes, fault))
        return True

    def disarm(self) -> bool:
        """Forget what has not struck; return True when bytes are missing already, so that only a cut helps."""
        self._armed.clear()
        return bool(self._dead)

    def take(self, way: Way, data: bytes) -> list[Step]:
        """Take bytes of one way; return what to do, in order."""
        for piece in self._acks.split(data) if way is Way.DOWN else (Piece(data),):
            if piece.begins_ack:
                self._strike_at_ack(Moment.BEFORE_ACK)
            self._count(way, piece.data)
            if piece.ends_ack:
                self._strike_at_ack(Moment.AFTER_ACK)
        return self._take_steps()

    def end(self, way: Way) -> list[Step]:
        """Return what is left to do of a way that ended; its owner passes the end on unless the way `is_dead`."""
        if way is Way.DOWN and (rest := self._acks.rest()):
            self._count(way, rest)
        return self._take_steps()

    def _count(self, way: Way, data: bytes) -> None:
        while not self.is_over and (found := self._first_due(way, len(data))) is not None:
            at = found[0] - self.taken[way]
            self._pass(way, data[:at])
            data = data[at:]
            self._strike(found)
        self._pass(way, data)

    def _first_due(self, way: Way, size: int) -> tuple[int, Fault] | None:
        due = [
            armed
            for armed in self._armed
            if armed[1].counted is way
            and (armed[1].moment is Moment.BYTE or self._acks.is_opaque)
            and armed[0] <= self.taken[way] + size
        ]
        return min(due, key=lambda armed: armed[0]) if due else None

    def _strike_at_ack(self, moment: Moment) -> None:
        for armed in [a for a in self._armed if a[1].moment is moment and a[0] <= self.taken[Way.DOWN]]:
            self._strike(armed)

    def _strike(self, armed: tuple[int, Fault]) -> None:
        if self.is_over:
            return
        self._armed.remove(armed)
        fault = armed[1]
        if fault.effect in (Effect.CUT, Effect.RESET):
            self.is_over = True
        elif fault.way in self._dead:
            return  # nothing passes there: one more fault changes nothing
        elif fault.effect is not Effect.STALL:
            self._dead.add(fault.way)
        self._steps.append(fault)

    def _pass(self, way: Way, data: bytes) -> None:
        self.taken[way] += len(data)
        if not data or self.is_dead(way):
            return
        last = self._steps[-1] if self._steps else None
        if isinstance(last, bytes):
            self._steps[-1] = last + data
        else:
            self._steps.append(data)

    def _take_steps(self) -> list[Step]:
        steps, self._steps = self._steps, []
        return steps


class Piece(NamedTuple):
    """A stretch of bytes, and whether an ack begins or ends with it."""

    data: bytes
    begins_ack: bool = False
    ends_ack: bool = False


class AckScanner:
    """Finds acks in what a hub sends on a plain WebSocket; holds back at most a head or a frame's first bytes."""

    def __init__(self) -> None:
        self.is_opaque = False
        self._has_head = False
        self._held = b""
        self._left = 0  # bytes of the present frame still to come
        self._is_ack = False

    def split(self, data: bytes) -> list[Piece]:
        """Return the bytes in pieces, in order, without those held back until the next call."""
        self._held += data
        pieces = []
        while self._held and (piece := self._next()) is not None:
            pieces.append(piece)
        return pieces

    def rest(self) -> bytes:
        """Return what is held back, when nothing will follow."""
        rest, self._held = self._held, b""
        return rest

    def _next(self) -> Piece | None:
        if self.is_opaque:
            return Piece(self.rest())
        if not self._has_head:
            return self._head()
        begins = not self._left
        if begins and not self._begin_frame():
            return None
        data, self._held = self._held[: self._left], self._held[self._left :]
        self._left -= len(data)
        return Piece(data, begins and self._is_ack, self._is_ack and not self._left)

    def _head(self) -> Piece | None:
        end = self._held.find(_HEAD_END)
        if not _HEAD_BEGIN.startswith(self._held[: len(_HEAD_BEGIN)]) or (end < 0 and len(self._held) > MAX_HEAD_BYTES):
            self.is_opaque = True
            return Piece(self.rest())
        if end < 0:
            return None
        end += len(_HEAD_END)
        head, self._held, self._has_head = self._held[:end], self._held[end:], True
        return Piece(head)

    def _begin_frame(self) -> bool:
        """Read a frame's header and first bytes (RFC 6455, 5.2); False until they are all here."""
        held = self._held
        if len(held) < 2:
            return False
        short = held[1] & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        header = 2 + extra + (4 if held[1] & 0x80 else 0)
        if len(held) < header:
            return False
        length = int.from_bytes(held[2 : 2 + extra], "big") if extra else short
        if len(held) < header + min(length, len(ACK_PREFIX)):
            return False
        # 0x81: a whole, uncompressed text frame.
        self._is_ack = held[0] == 0x81 and held.startswith(ACK_PREFIX, header)
        self._left = header + length
        return True


class Plan:
    """Gives each new connection the next fault; one that did not strike goes to a later connection."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting = deque(faults)

    @property
    def waiting(self) -> int:
        """How many faults no connection has."""
        return len(self._waiting)

    def begin(self) -> Line:
        """Return the line of a new connection."""
        return Line([self._waiting.popleft()] if self._waiting else ())

    def end(self, left: Sequence[Fault]) -> None:
        """Take back what did not strike on a connection that `begin` gave it to."""
        self._waiting.extend(left)

    def clear(self) -> None:
        """Give out no more."""
        self._waiting.clear()


class Strike(NamedTuple):
    """A random fault, how long after the one before (1 = the mean), and which connection gets it (a part of all)."""

    wait: float
    pick: float
    fault: Fault


def draw_strikes(seed: int) -> Iterator[Strike]:
    """Give random faults without end, at random times, the same for the same seed."""
    random = Random(seed)
    while True:
        yield Strike(random.expovariate(1.0), random.random(), _draw_fault(random))


def _draw_fault(random: Random) -> Fault:
    effect = random.choice(tuple(Effect))
    way = random.choice(tuple(Way))
    moment = random.choice(tuple(Moment)) if effect in (Effect.CUT, Effect.RESET) else Moment.BYTE
    after = random.randrange(STRIKE_BYTES_UP if way is Way.UP else STRIKE_BYTES_DOWN)
    hold_s = random.uniform(*HOLD_S) if effect in (Effect.STALL, Effect.SWALLOW) else 0.0
    return Fault(effect, way, after if moment is Moment.BYTE else 0, moment, hold_s)
