"""A hub that fits in a test: the device conversation over plain data, without sockets, disk or time.

Owns: streams with marks and chains, rows, gaps. Used by the session tests in
virtual time and, behind a real socket, by `fake_hub`. It keeps the same rules
as the real hub (``stored`` is what was committed, ``accepted`` what waits) and
can be told to misbehave: `refuse_next`, `say`.
"""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from device_sdk import wire
from device_sdk.columns import decode_batch
from device_sdk.reading import Reading

TIME_NS = 1_795_376_000_000_000_000


@dataclass
class ModelStream:
    """What the hub knows of one stream."""

    stored: int = 0
    chains: dict[int, bytes] = field(default_factory=lambda: {0: wire.CHAIN_START})
    waiting: list[bytes] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """The highest seq taken, durable or not."""
        return self.stored + len(self.waiting)


class HubModel:
    """Everything a hub has committed, and the streams it knows."""

    def __init__(self, *, window: int = wire.MAX_WINDOW, ping_s: int = wire.PING_S) -> None:
        self.window = window
        self.ping_s = ping_s
        self.streams: dict[str, ModelStream] = {}
        self.readings: list[Reading] = []
        self.gaps: list[dict[str, Any]] = []
        self.hellos: list[dict[str, Any]] = []
        self.channels: dict[str, dict[str, Any]] = {}
        self.alarms: list[str] = []
        self.refuse_next: deque[str] = deque()
        self.rejected: list[dict[str, Any]] = []
        self.rejected_total = 0
        self.offset = 0
        self.byes = 0
        self.reported: list[dict[str, Any]] = []

    def counts(self) -> Counter[Reading]:
        """Return how often each reading was stored."""
        return Counter(self.readings)

    def crash(self) -> None:
        """Lose what was not committed, as a kill does."""
        for stream in self.streams.values():
            stream.waiting.clear()

    def commit(self, name: str) -> None:
        """Make the waiting frames of one stream durable."""
        stream = self.streams[name]
        for body in stream.waiting:
            stream.stored += 1
            stream.chains[stream.stored] = wire.next_chain(stream.chains[stream.stored - 1], body)
            self.offset += 1
            if body[:1] == b"{" and json.loads(body)["op"] == "gap":
                self.gaps.append(json.loads(body))
            else:
                self.readings += decode_batch(body).readings()
        stream.waiting.clear()

    def ack(self, name: str) -> bytes:
        """Return the ack for what is durable."""
        stream = self.streams[name]
        obj = {
            "op": "ack", "stored": stream.stored, "chain": stream.chains[stream.stored].hex(),
            "pos": f"7f3a7f3a.{self.offset}",
        }  # fmt: skip
        if self.rejected:
            self.rejected_total += len(self.rejected)
            obj["rejected"], self.rejected = self.rejected, []
        if self.rejected_total:
            obj["rejected_total"] = self.rejected_total
        return json.dumps(obj).encode()


class HubConversation:
    """The hub's side of one connection. `receive` returns the answers; `commit` the ack."""

    def __init__(self, hub: HubModel) -> None:
        self.hub = hub
        self.stream = ""

    def receive(self, data: bytes) -> list[bytes]:
        """Take one message of the device."""
        data = wire.unpack(data)
        if data[:1] != b"{":
            return self._frame(data)
        obj = json.loads(data)
        match obj["op"]:
            case "hello":
                return [self._hello(obj)]
            case "schema":
                self.hub.channels.update(obj["channels"])
                return []
            case "bye":
                self.hub.byes += 1
                return []
            case "batch" | "gap":
                return self._frame(data)
            case "reported":
                self.hub.reported.append(obj)
                return []
        raise AssertionError(f"a device does not say {obj['op']}")

    def commit(self) -> list[bytes]:
        """Commit what waits; return the ack, or nothing when nothing waited."""
        if not self.stream or not self.hub.streams[self.stream].waiting:
            return []
        self.hub.commit(self.stream)
        return [self.hub.ack(self.stream)]

    def _hello(self, hello: dict[str, Any]) -> bytes:
        hub = self.hub
        hub.hellos.append(hello)
        self.stream = hello["stream"]
        stream = hub.streams.setdefault(self.stream, ModelStream())
        last, chain = hello["next"] - 1, hello["chain"]
        known = stream.chains.get(last)
        pos = f"7f3a7f3a.{hub.offset}"
        if last < stream.stored or (known is not None and known.hex() != chain):
            hub.alarms.append(self.stream)
            is_equal = known is not None and known.hex() == chain
            why = "seq_reuse" if is_equal else "chain_conflict"
            return wire.encode(wire.NewStream(last if is_equal else 0, chain if is_equal else "", why, pos))
        earlier = []
        for named in hello["earlier"]:
            known_stream = hub.streams.get(named["stream"], ModelStream())
            chain = known_stream.chains[known_stream.stored].hex()
            earlier.append(wire.Earlier(named["stream"], known_stream.stored, known_stream.stored + 1, chain))
        return wire.encode(
            wire.Welcome(
                stream.stored, stream.chains[stream.stored].hex(), pos, TIME_NS, hub.window, hub.ping_s,
                earlier=tuple(earlier),
            )
        )  # fmt: skip

    def _frame(self, body: bytes) -> list[bytes]:
        stream = self.hub.streams[self.stream]
        if self.hub.refuse_next:
            return [wire.encode(wire.Error(self.hub.refuse_next.popleft(), stream.stored))]
        seq = json.loads(body)["seq"] if body[:1] == b"{" else decode_batch(body).seq
        if seq <= stream.stored:
            return [self.hub.ack(self.stream)]
        if seq <= stream.accepted:
            return []
        if seq > stream.accepted + 1:
            return [wire.encode(wire.Error("out_of_order", stream.stored))]
        stream.waiting.append(body)
        return []
