"""Acked frames on their way to a hub that was restored from a backup, one stream at a time.

Owns: which frames go again, in what order, and whether they follow on what the
hub holds. Place: after `spool`, before `session`, which gives it the hub's answers and
sends what it returns. Pure.

As long as the frames behind the hub's ``stored`` are all kept here they go as they
were, on their own stream: the hub takes each once, whatever is interrupted. Where some
are gone the stream cannot go on. Its spool declares that (`Spool.forget`), and
what is still kept goes as a copy on a stream of its own, its readings marked ``again``.

A copy of a frame has the same bytes each time it is made, so the copy's stream goes on like any other, on another
connection and in another process: the spool notes what of it is acked (`Spool.copied`), and a hello names a window
beyond that, which is all that the hub may hold by then. A gap that is copied counts once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

from device_sdk import wire
from device_sdk.frozen import Frozen
from device_sdk.outbox import Copying, CutFrame, again_body
from device_sdk.spool import Spool

logger = logging.getLogger("device_sdk.resend")

# How often the hub may refuse a stream that is sent again, without taking any of it, before it is given up.
TRIES = 3


class Behind(Frozen):
    """A stream of which a hub misses acked frames: ``after`` + 1 … ``last``; ``chain`` is chain(last) in hex."""

    stream: str
    after: int
    last: int
    chain: str
    is_copy: bool = False


class _Sent(Frozen):
    """A frame in flight: its number and chain on the wire, and its number where it was first cut."""

    seq: int
    chain: bytes
    source: int


class Resend:
    """What goes again over one connection.

    Args:
        behind: what the hub misses.
        frames: `Spool.retained` of it, from ``stored`` + 1 on.
        stored, chain: as the hub said in its welcome (of a copy: 0 and the start).
    """

    def __init__(self, behind: Behind, frames: Iterator[CutFrame], stored: int, chain: bytes) -> None:
        self._is_copy = behind.is_copy
        self._last = behind.last
        self._frames = frames
        self._seq = stored
        self._chain = chain
        self._sent: deque[_Sent] = deque()
        self._is_exhausted = False
        # The stream cannot go on as it was: a frame is gone, or the hub holds other frames under these numbers.
        self.is_broken = False
        # The last frame of those that are at the hub.
        self.acked = _Sent(stored, chain, behind.after if behind.is_copy else stored)

    @property
    def after(self) -> int:
        """Every frame ≤ this, as first numbered, is at the hub."""
        return self.acked.source

    @property
    def is_done(self) -> bool:
        """True when there is nothing to send and nothing in flight."""
        return self._is_exhausted and not self._sent

    def take(self, window: int, max_bytes: int) -> list[bytes]:
        """Return the frames that may be sent now: ``window`` of them in flight, about ``max_bytes`` at once."""
        out: list[bytes] = []
        size = 0
        while len(self._sent) < window and size < max_bytes and not self._is_exhausted:
            body = self._next()
            if body is not None:
                out.append(body)
                size += len(body)
        return out

    def number(self, window: int) -> _Sent:
        """Number the frames of one window as if they were sent; return the last of them."""
        while len(self._sent) < window and self._next() is not None:
            pass
        return self._sent[-1] if self._sent else self.acked

    def find(self, stored: int, chain: str) -> _Sent | None:
        """Return the frame of this number, acked last or numbered since; None when it has another chain."""
        return next((s for s in (self.acked, *self._sent) if s.seq == stored and s.chain.hex() == chain), None)

    def acknowledge(self, stored: int, chain: str) -> bool:
        """Take an ack; False when it speaks of other frames than these."""
        while self._sent and self._sent[0].seq <= stored:
            gone = self._sent.popleft()
            if gone.seq == stored and gone.chain.hex() != chain:
                return False
            self.acked = gone
        return True

    def _next(self) -> bytes | None:
        frame = None if self._seq >= self._last and not self._is_copy else next(self._frames, None)
        if frame is None or frame.seq > self._last:
            self._is_exhausted = True
            self.is_broken = not self._is_copy and self._seq < self._last
            return None
        seq = self._seq + 1
        body = again_body(frame, seq) if self._is_copy else frame.body
        chain = wire.next_chain(self._chain, body)
        if not self._is_copy and (frame.seq, frame.chain) != (seq, chain):
            self._is_exhausted = self.is_broken = True
            return None
        self._seq, self._chain = seq, chain
        self._sent.append(_Sent(seq, chain, frame.seq))
        return body


class Restoring:
    """All that a restored hub misses, oldest stream first: one connection at a time, one stream each.

    Verbs in the order `Session` uses them: `is_needed` for each welcome of the present stream; then, while
    `is_active`, `hello` → `begin` → `take` and `acknowledge` until `over` says that the connection may end.
    """

    def __init__(self, spool: Spool, device: str, run: str) -> None:
        self._spool = spool
        self._device = device
        self._run = run
        self._behind: deque[Behind] = deque()
        self._resend: Resend | None = None
        self._tries = 0
        if spool.copying is not None:
            # An earlier process declared what is in front of it as lost; the rest is here.
            self._behind.append(_behind_of(spool.copying))

    @property
    def is_active(self) -> bool:
        """True until the hub has everything again, or it is declared."""
        return bool(self._behind)

    def is_needed(self, welcome: wire.Welcome) -> bool:
        """Look for streams of which the hub holds less than it has acked; True when there is one."""
        spool = self._spool
        held = {e.stream: e.acked for e in welcome.earlier}
        known = spool.earlier
        if welcome.stored < spool.acked:
            chain = spool.chain(spool.acked)
            assert chain is not None, "a spool knows the chain of its last acked frame"
            held[spool.stream] = welcome.stored
            known = (*known, wire.Earlier(spool.stream, spool.acked, spool.acked + 1, chain.hex()))
        for e in known:
            stored = held.get(e.stream, e.acked)
            if stored < e.acked:
                logger.warning("hub restored device=%s stream=%s: %d, was %d", self._device, e.stream, stored, e.acked)
                self._behind.append(Behind(e.stream, stored, e.acked, e.chain))
        return self.is_active

    def hello(self, hello: wire.Hello) -> wire.Hello:
        """Return the hello to say instead of the present stream's."""
        if not self._behind:
            return hello
        behind = self._behind[0]
        if not behind.is_copy:
            return hello._replace(
                stream=behind.stream, acked=behind.last, next=behind.last + 1, chain=behind.chain, earlier=()
            )
        copying = self._copying()
        self._resend = self._copy(copying.after, copying.seq, bytes.fromhex(copying.chain))
        last = self._resend.number(wire.MAX_WINDOW)
        return hello._replace(
            stream=copying.name, acked=copying.seq, next=last.seq + 1, chain=last.chain.hex(), earlier=()
        )

    def begin(self, welcome: wire.Welcome) -> str | None:
        """Go on behind what the hub says it holds; say why the connection must end when that cannot be."""
        behind = self._behind[0]
        if behind.is_copy:
            return self._begin_copy(welcome)
        frames = self._spool.retained(behind.stream, welcome.stored)
        self._resend = Resend(behind, frames, welcome.stored, bytes.fromhex(welcome.chain))
        return None

    def take(self, window: int, max_bytes: int) -> list[bytes]:
        """Return the frames to send now; each ack makes room for more."""
        return [] if self._resend is None else self._resend.take(window, max_bytes)

    def acknowledge(self, stored: int, chain: str) -> bool:
        """Take an ack; False when it speaks of other frames."""
        if self._resend is None or not self._resend.acknowledge(stored, chain):
            return False
        if self._resend.after > self._behind[0].after:
            self._tries = 0
            self._behind[0] = self._behind[0]._replace(after=self._resend.after)
            if self._behind[0].is_copy:
                self._note_copied(self._resend.acked)
        return True

    def over(self) -> str | None:
        """Say why the connection may end, once nothing is in flight and nothing can follow; else None."""
        resend = self._resend
        if resend is None or not resend.is_done:
            return None
        self._resend = None
        if resend.is_broken:
            self._cannot_go_on()
            return "frames that the restored hub misses are gone here too"
        done = self._behind.popleft()
        self._tries = 0
        if done.is_copy:
            self._spool.copied(None)
        logger.info("sent again device=%s stream=%s frames=…%d", self._device, done.stream, done.last)
        return "what the restored hub missed of a stream is stored again"

    def refuse(self) -> None:
        """Note that the hub took nothing of this stream; after `TRIES` times it is declared instead.

        A copy goes on behind what is acked of it, on another stream.
        """
        self._tries += 1
        if self._tries >= TRIES:
            self._cannot_go_on()
        elif self._behind[0].is_copy:
            self._copy_anew(self._copying().after)

    def disconnected(self) -> None:
        """Forget what was in flight."""
        self._resend = None

    # --- a copy ------------------------------------------------------------------------------

    def _copying(self) -> Copying:
        copying = self._spool.copying
        assert copying is not None, "what goes as a copy is noted in the spool"
        return copying

    def _copy(self, after: int, seq: int, chain: bytes) -> Resend:
        behind = self._behind[0]._replace(after=after)
        return Resend(behind, self._spool.retained(behind.stream, after), seq, chain)

    def _begin_copy(self, welcome: wire.Welcome) -> str | None:
        assert self._resend is not None, "hello numbered what the hub may hold"
        held, self._resend = self._resend.find(welcome.stored, welcome.chain), None
        if held is not None:
            self._note_copied(held)
            self._resend = self._copy(held.source, held.seq, held.chain)
            return None
        copying = self._copying()
        if welcome.stored < copying.seq:
            # It was restored once more, and has lost of the copy what it had acked.
            self._copy_anew(copying.start)
        self.refuse()
        return "the hub does not hold what was copied to it"

    def _note_copied(self, held: _Sent) -> None:
        copying = self._copying()
        if held.seq > copying.seq:
            self._spool.copied(copying._replace(after=held.source, seq=held.seq, chain=held.chain.hex()))

    def _copy_anew(self, after: int) -> None:
        """Copy what is kept > ``after`` to another stream than before."""
        old = self._copying()
        copying = Copying(old.stream, old.start, after, old.last, _name_after(old.name))
        self._spool.copied(copying)
        self._behind[0] = _behind_of(copying)

    def _cannot_go_on(self) -> None:
        """Declare what is gone; what is still kept of the stream is copied to another one."""
        behind, spool = self._behind.popleft(), self._spool
        self._tries = 0
        if behind.is_copy:
            spool.copied(None)
            return  # it was declared when the copy began
        copying = None
        if next(spool.retained(behind.stream, behind.after), None) is not None:
            # The run is in the name: a clone of this device copies to a stream of its own.
            name = _name_after(f"{behind.stream} {self._run}")
            copying = Copying(behind.stream, behind.after, behind.after, behind.last, name)
            self._behind.appendleft(_behind_of(copying))
        logger.warning("gone device=%s stream=%s reason=hub restored", self._device, behind.stream)
        if behind.stream == spool.stream:
            spool.restart(None)
        spool.forget(behind.stream, copying)


def _behind_of(copying: Copying) -> Behind:
    """Return what a restored hub misses and gets as a copy."""
    return Behind(copying.stream, copying.after, copying.last, "", is_copy=True)


def _name_after(text: str) -> str:
    """Return the name of a stream that is the same each time."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
