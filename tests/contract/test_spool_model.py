"""Random histories of a spool against a model: nothing is lost, doubled or re-numbered, whatever happens in between."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from device_sdk.memory_spool import MemorySpool
from device_sdk.outbox import WhenFull
from device_sdk.reading import Channel, Value
from device_sdk.spool import FileSpool, Spool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_hub import SpoolHub, drain

T = 1_795_376_000_000_000_000
CHANNELS = ["t", "humidity", "door"]


class SpoolModel(RuleBasedStateMachine):
    """What any spool does under records, cuts, acks and new streams.

    Every reading carries its own number, so the hub's readings say which arrived.
    """

    channels = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.spool: Spool
        self.hub = SpoolHub()
        self.now_ns = T
        self.produced = 0
        self.declared: dict[str, Channel] = {}

    @initialize(when_full=st.sampled_from(["oldest", "newest", "thin"]))
    def begin(self, when_full: WhenFull) -> None:
        self.when_full = when_full
        self.spool = self.make()

    def make(self) -> Spool:
        return MemorySpool(max_bytes=MIN_LIMIT_BYTES, when_full=self.when_full)

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(1, 20), step_ns=st.sampled_from([0, 1, 10**6, -5]))
    def record(self, channel: str, count: int, step_ns: int) -> None:
        for _ in range(count):
            self.spool.record_one(channel, self.number(), self.now_ns)
            self.now_ns += step_ns

    @rule(kind=st.sampled_from(["float", "str"]))
    def record_several_at_once(self, kind: str) -> None:
        values: list[tuple[str, Value]] = []
        for channel in CHANNELS:
            number = self.number()
            values.append((channel, float(number) if kind == "float" else f"#{number}"))
        self.spool.record(values, None, self.now_ns)

    @rule(count=st.integers(1_000, 4_000))
    def record_a_burst(self, count: int) -> None:
        for _ in range(count):
            self.spool.record_one("burst", self.number(), self.now_ns)
        self.now_ns += 10**6

    @rule(
        max_readings=st.integers(1, 700), max_bytes=st.sampled_from([200, 4_000, 200_000]), from_backlog=st.booleans()
    )
    def cut(self, max_readings: int, max_bytes: int, from_backlog: bool) -> None:
        self.spool.cut(max_readings, max_bytes, from_backlog=from_backlog)

    @rule()
    def split(self) -> None:
        self.spool.split()

    @rule(count=st.integers(1, 5), back_ns=st.integers(0, 10**6))
    def record_given_times(self, count: int, back_ns: int) -> None:
        for _ in range(count):
            # The number keeps the instants apart: the same one again would be a correction.
            number = self.number()
            self.spool.record([("given", number)], self.now_ns - back_ns * 10**6 + number, self.now_ns)

    @rule()
    def transmit(self) -> None:
        self.hub.take(self.spool)

    @rule(back=st.integers(0, 3))
    def acknowledge(self, back: int) -> None:
        stored = self.hub.stored(self.spool.stream) - back
        if stored > 0:
            self.hub.acknowledge(self.spool, stored)

    @rule()
    def restart_with_what_the_hub_has(self) -> None:
        self.spool.restart(self.hub.stored(self.spool.stream))

    @rule(target=channels, name=st.sampled_from(CHANNELS), unit=st.sampled_from(["Cel", None]))
    def declare(self, name: str, unit: str | None) -> str:
        self.declared[name] = Channel(name, unit)
        self.spool.declare(self.declared[name])
        return name

    @rule(name=consumes(channels))
    def channels_are_remembered(self, name: str) -> None:
        assert self.spool.channels[name] == self.declared[name]

    @rule()
    def sync(self) -> None:
        self.spool.sync()

    @invariant()
    def ledger_balances(self) -> None:
        """Produced = at the hub or pending or dropped; readings at the hub and not acked are still pending."""
        statistics = self.spool.statistics()
        unacked = sum(f.readings for f in self.spool.frames(self.hub.stored(self.spool.stream)))
        waiting = statistics.unnumbered + unacked
        assert len(self.hub.readings) + waiting + statistics.dropped == self.produced
        assert statistics.bytes <= statistics.limit_bytes
        assert statistics.peak_bytes <= statistics.limit_bytes
        assert statistics.damaged == 0
        assert statistics.disk_error is None

    def teardown(self) -> None:
        drain(self.spool, self.hub)
        statistics = self.spool.statistics()
        self.spool.close()
        numbers = [_number(r.value) for r in self.hub.readings]
        declared = [gap["count"] for gap in self.hub.gaps if gap["reason"] in ("spool_full", "thinned")]
        assert len(set(numbers)) == len(numbers)
        assert sum(declared) == statistics.dropped
        assert len(numbers) + statistics.dropped == self.produced
        keys = {(r.channel, r.time_ns) for r in self.hub.readings}
        assert len(keys) == len(numbers), "two readings share an instant"
        given = [_number(r.value) for r in self.hub.readings if r.channel == "given"]
        assert given == sorted(given), "readings with given times changed places"

    def number(self) -> int:
        self.produced += 1
        return self.produced


class FileSpoolModel(SpoolModel):
    """The same, and the process is closed, killed, or loses power in between."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.lives = 0
        self.boot = 1
        self.power_cuts = 0
        self.abandoned: list[Spool] = []

    def make(self) -> Spool:
        return FileSpool(
            self.home / str(self.lives), boot=f"boot-{self.boot}", max_bytes=MIN_LIMIT_BYTES, when_full=self.when_full
        )

    @rule()
    def close_and_reopen(self) -> None:
        before = (self.spool.stream, self.spool.next, self.spool.acked, self.spool.pos)
        self.spool.close()
        self.boot += 1
        self.spool = self.make()
        assert (self.spool.stream, self.spool.next, self.spool.acked, self.spool.pos) == before

    @rule()
    def kill(self) -> None:
        """The files as they are now are what the next process finds; the stream goes on."""
        stream = self.spool.stream
        self._copy()
        self.spool = self.make()
        assert self.spool.stream == stream

    @precondition(lambda self: self.power_cuts < 3)
    @rule()
    def cut_power(self) -> None:
        """Cut frames go first on the old stream; then a new one begins with a gap of unknown count."""
        stream, frames = self.spool.stream, self.spool.frames(self.spool.acked)
        self._copy()
        self.boot += 1
        self.power_cuts += 1
        self.spool = self.make()
        if frames:
            assert self.spool.stream == stream
            assert self.spool.frames(self.spool.acked) == frames
            assert self.spool.cut() is None
            self.hub.take(self.spool)
            self.hub.acknowledge(self.spool)
        assert self.spool.stream != stream
        gap = self.spool.cut()
        assert gap is not None
        assert (gap.seq, gap.kind) == (1, "gap")
        assert b'"count":null,"reason":"power_cut"' in gap.body

    def _copy(self) -> None:
        self.abandoned.append(self.spool)
        self.lives += 1
        shutil.copytree(self.home / str(self.lives - 1), self.home / str(self.lives))

    def teardown(self) -> None:
        try:
            super().teardown()
            assert sum(gap["reason"] == "power_cut" for gap in self.hub.gaps) == self.power_cuts
        finally:
            for spool in self.abandoned:
                spool.close()
            shutil.rmtree(self.home)


TestMemorySpoolModel = SpoolModel.TestCase
TestMemorySpoolModel.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestFileSpoolModel = pytest.mark.slow(FileSpoolModel.TestCase)
TestFileSpoolModel.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


def _number(value: Value) -> int:
    return int(value[1:]) if isinstance(value, str) else int(value)
