"""A hub as a spool sees it: takes frames in order, remembers bodies, acknowledges with its own chain."""

import json
from typing import Any

from device_sdk import wire
from device_sdk.columns import decode_batch
from device_sdk.reading import Reading
from device_sdk.spool import Spool


class SpoolHub:
    """Keeps what it was given per stream; a frame sent twice must be the same bytes."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {}
        self.readings: list[Reading] = []
        self.gaps: list[dict[str, Any]] = []

    def stored(self, stream: str) -> int:
        """Return the last seq of a stream."""
        return len(self.bodies.get(stream, ()))

    def take(self, spool: Spool) -> None:
        """Take every cut and unacked frame of the spool, as after a reconnect."""
        bodies = self.bodies.setdefault(spool.stream, [b"not seen"] * spool.acked)
        for frame in spool.frames(spool.acked):
            assert frame.seq <= len(bodies) + 1, "a hole in the stream"
            if frame.seq <= len(bodies):
                assert bodies[frame.seq - 1] == frame.body, "a frame was cut twice"
                continue
            bodies.append(frame.body)
            self._read(frame.body)

    def chain(self, stream: str, seq: int) -> bytes:
        """Return chain(seq) computed from the bodies this hub holds."""
        chain = wire.CHAIN_START
        for body in self.bodies[stream][:seq]:
            chain = wire.next_chain(chain, body)
        return chain

    def acknowledge(self, spool: Spool, stored: int | None = None) -> None:
        """Ack all frames of the spool's stream that this hub has, or those ≤ ``stored``."""
        stream = spool.stream
        seq = self.stored(stream) if stored is None else stored
        if seq > spool.acked:
            spool.acknowledge(seq, self._chain_of(spool, seq), f"run.{seq}")

    def _chain_of(self, spool: Spool, seq: int) -> bytes:
        # From the spool's own last acked chain on, or a long stream would cost the square of its length.
        chain = spool.chain(spool.acked)
        assert chain is not None
        for body in self.bodies[spool.stream][spool.acked : seq]:
            chain = wire.next_chain(chain, body)
        return chain

    def _read(self, body: bytes) -> None:
        if body[:1] == b"{":
            message = json.loads(body)
            if message["op"] == "gap":
                self.gaps.append(message)
                return
        self.readings += decode_batch(body).readings()


def drain(spool: Spool, hub: SpoolHub | None = None) -> SpoolHub:
    """Deliver and acknowledge until the spool is empty; return the hub with everything in it."""
    hub = SpoolHub() if hub is None else hub
    for _ in range(100_000):
        cut = spool.cut()
        hub.take(spool)
        before = spool.stream
        hub.acknowledge(spool)
        if cut is None and spool.stream == before and not spool.has_uncut:
            break
    else:
        raise AssertionError("the spool does not become empty")
    assert spool.pending == 0
    return hub
