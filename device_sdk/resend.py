"""Acked frames on their way to a hub that was restored from a backup, one stream at a time.

Owns: which frames go again, in what order, and whether they follow on what the
hub holds. Place: after `spool`, before `session`, which gives it the hub's answers and
sends what it returns. Pure.

As long as the frames behind the hub's ``stored`` are all kept here they go as they
were, on their own stream: the hub takes each once, whatever is interrupted. Where some
are gone the stream cannot go on. Its spool declares that (`Spool.forget`), and
what is still kept goes as a copy on streams of its own, marked ``again``.
"""

import logging
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

from device_sdk import wire
from device_sdk.frozen import Frozen
from device_sdk.outbox import CutFrame, again_body
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
        # Every frame ≤ this, as first numbered, is at the hub.
        self.after = behind.after if behind.is_copy else stored

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

    def acknowledge(self, stored: int, chain: str) -> bool:
        """Take an ack; False when it speaks of other frames than these."""
        while self._sent and self._sent[0].seq <= stored:
            gone = self._sent.popleft()
            if gone.seq == stored and gone.chain.hex() != chain:
                return False
            self.after = gone.source
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
        self._copies = 0

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
        # A stream of its own for each connection: what was acked is not sent again, so at most a window comes twice.
        self._copies += 1
        name = blake2b(f"{behind.stream} {self._run} {self._copies}".encode(), digest_size=8).hexdigest()
        return hello._replace(stream=name, acked=0, next=1, chain=wire.CHAIN_START.hex(), earlier=())

    def begin(self, welcome: wire.Welcome) -> None:
        """Go on behind what the hub says it holds."""
        behind = self._behind[0]
        after = behind.after if behind.is_copy else welcome.stored
        frames = self._spool.retained(behind.stream, after)
        self._resend = Resend(behind, frames, welcome.stored, bytes.fromhex(welcome.chain))

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
        logger.info("sent again device=%s stream=%s frames=…%d", self._device, done.stream, done.last)
        return "what the restored hub missed of a stream is stored again"

    def refuse(self) -> None:
        """Note that the hub took nothing of this stream; after `TRIES` times it is declared instead."""
        self._tries += 1
        if self._tries >= TRIES:
            self._cannot_go_on()

    def disconnected(self) -> None:
        """Forget what was in flight."""
        self._resend = None

    def _cannot_go_on(self) -> None:
        """Declare what is gone; what is still kept of the stream is copied to another one."""
        behind, spool = self._behind.popleft(), self._spool
        self._tries = 0
        if behind.is_copy:
            return  # it was declared when the copy began
        if next(spool.retained(behind.stream, behind.after), None) is not None:
            self._behind.appendleft(behind._replace(is_copy=True))
        logger.warning("gone device=%s stream=%s reason=hub restored", self._device, behind.stream)
        if behind.stream == spool.stream:
            spool.restart(None)
        spool.forget(behind.stream)
