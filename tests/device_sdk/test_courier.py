"""Tests of `device_sdk.courier`: its loop against a hub of plain data, with connections that need no socket."""

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.clock import Clock
from device_sdk.courier import MAX_INPUT_BYTES, SYNC_S, Courier
from device_sdk.errors import AuthenticationError, ConnectionLostError
from device_sdk.file_spool import FileSpool
from device_sdk.memory_spool import MemorySpool
from device_sdk.outbox import CutFrame
from device_sdk.session import Session
from device_sdk.spool import Spool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from device_sdk.timekeeper import Timekeeper
from device_sdk.transport import Connection, LinkError, Receiver, RetryPolicy
from tests.support.hub_model import HubConversation, HubModel

pytestmark = pytest.mark.asyncio
LIMIT_S = 5.0
T0_NS = 1_795_376_000_000_000_000


class Wire:
    """A connection to a `HubModel` in the same loop."""

    def __init__(self, receiver: Receiver, hub: HubModel) -> None:
        self.receiver = receiver
        self.conversation = HubConversation(hub)
        self.is_writable = True
        self.is_open = True
        self.is_answering = True
        self.sent: list[bytes] = []
        self.ping_s: float | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand messages to the hub; its answers come in a later turn of the loop."""
        self.sent += messages
        for message in messages if self.is_open else ():
            for answer in self.conversation.receive(message) + self.conversation.commit():
                if self.is_answering:
                    asyncio.get_running_loop().call_soon(self.receiver.message, answer)

    def keep_alive(self, interval_s: float) -> None:
        """Keep the interval."""
        self.ping_s = interval_s

    def close(self) -> None:
        """Close."""
        self.is_open = False

    async def wait_closed(self) -> None:
        """Return at once."""


class Network:
    """A connector whose hub can be away."""

    def __init__(self, hub: HubModel | None = None) -> None:
        self.hub = hub or HubModel()
        self.wires: list[Wire] = []
        self.attempts = 0
        self.refusal: LinkError | None = None
        self.changed = asyncio.Event()

    async def connect(self, receiver: Receiver) -> Connection:
        """Connect, or fail as told."""
        self.attempts += 1
        self.changed.set()
        if self.refusal is not None:
            raise self.refusal
        self.wires.append(Wire(receiver, self.hub))
        return self.wires[-1]

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds, looked at whenever the loop turns."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await _turn()


async def _turn() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)


class Rig:
    """A courier with what it carries."""

    def __init__(
        self, network: Network, *, offload: bool = False, random: float = 0.0, spool: Spool | None = None,
        clock: Clock | None = None, **hooks: Any,
    ) -> None:  # fmt: skip
        self.spool = spool or MemorySpool()
        clock = clock or Clock()
        self.network = network
        self.session = Session(self.spool, device="d1", boot="b", run="r", sdk="test")
        self.courier = Courier(
            self.session, self.spool, network, RetryPolicy(lambda: random),
            device="d1", clock=clock, timekeeper=Timekeeper(clock, self.spool),
            is_on_disk=offload or spool is not None, offload=offload, **hooks,
        )  # fmt: skip
        self.count = 0

    def record(self, readings: int = 1) -> None:
        """Record and wake, as `Device.record` does."""
        for _ in range(readings):
            self.spool.record([("t", float(self.count))], T0_NS + self.count, T0_NS)
            self.count += 1
        self.courier.wake()

    def all_stored(self) -> bool:
        """Say whether the hub has each reading exactly once."""
        return [r.value for r in sorted(self.network.hub.readings, key=lambda r: r.time_ns)] == [
            float(n) for n in range(self.count)
        ]


@asynccontextmanager
async def _running(rig: Rig) -> AsyncIterator[Rig]:
    task = asyncio.create_task(rig.courier.run())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=LIMIT_S)
        assert task.cancelled()


@pytest.mark.parametrize("offload", [False, True], ids=["here", "in a worker"])
async def test_what_is_recorded_arrives_once(offload: bool) -> None:
    """Readings recorded before and while connected reach the hub, each once."""
    rig = Rig(Network(), offload=offload)
    rig.record(3)
    async with _running(rig):
        assert await rig.courier.drain(LIMIT_S)
        rig.record(2)
        assert await rig.courier.drain(LIMIT_S)

    assert rig.all_stored()
    assert rig.network.hub.byes == 1


@pytest.mark.parametrize("offload", [False, True], ids=["here", "in a worker"])
async def test_a_lost_connection_is_replaced(offload: bool) -> None:
    """After a loss the courier connects again and sends what was not acked."""
    rig = Rig(Network(), offload=offload)
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        rig.network.wires[0].is_answering = False
        rig.record(5)
        await rig.network.wait_for(lambda: bool(rig.network.hub.readings))
        rig.network.wires[0].receiver.closed(ConnectionLostError("gone"))

        assert await rig.courier.drain(LIMIT_S)

    assert rig.all_stored()
    assert len(rig.network.wires) == 2


async def test_a_record_from_another_thread_wakes_an_idle_courier() -> None:
    """Nothing polls: a record in any thread is what starts the next frame."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        thread = threading.Thread(target=rig.record)
        thread.start()
        await rig.network.wait_for(rig.all_stored)
        thread.join()


async def test_while_the_hub_is_away_attempts_go_on_and_one_warning_is_given(caplog: pytest.LogCaptureFixture) -> None:
    """Each failed attempt is followed by another; the first is a WARNING, the rest DEBUG."""
    network = Network()
    network.refusal = ConnectionLostError("no route")
    rig = Rig(network)
    with caplog.at_level(logging.DEBUG, "device_sdk.courier"):
        async with _running(rig):
            await network.wait_for(lambda: network.attempts >= 4)
            errors = [rig.courier.last_error]
            network.refusal = None
            rig.record()
            await network.wait_for(rig.all_stored)
            errors.append(rig.courier.last_error)
    assert errors == ["no route", None]

    levels = [r.levelname for r in caplog.records if r.getMessage().startswith("offline")]
    assert levels[0] == "WARNING"
    assert set(levels[1:]) == {"DEBUG"}


async def test_a_refused_token_is_not_tried_again_soon_not_even_by_drain() -> None:
    """Where a person must act one attempt a minute is enough, and closing does not wait for it."""
    network = Network()
    network.refusal = AuthenticationError("unknown token")
    rig = Rig(network)
    rig.record()
    async with _running(rig):
        await network.wait_for(lambda: rig.courier.last_error is not None)

        assert not await rig.courier.drain(LIMIT_S, give_up_offline=True)

    assert network.attempts == 1


async def test_drain_tries_at_once_and_gives_up_when_told() -> None:
    """Closing while the hub is away costs one attempt, not the whole timeout."""
    network = Network()
    network.refusal = ConnectionLostError("no route")
    rig = Rig(network, random=1.0)
    rig.record()
    async with _running(rig):
        await network.wait_for(lambda: rig.courier.last_error is not None)
        started = asyncio.get_running_loop().time()

        assert not await rig.courier.drain(LIMIT_S, give_up_offline=True)

        assert asyncio.get_running_loop().time() - started < 0.4
    assert network.attempts == 2


async def test_drain_reports_a_timeout() -> None:
    """Without an ack drain ends at its limit and says so."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        rig.network.wires[0].is_answering = False
        rig.record()

        assert not await rig.courier.drain(0.05)


async def test_drain_waits_only_for_what_was_recorded_before() -> None:
    """A device that records all the time can still be flushed."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        stop = asyncio.Event()

        async def record_on() -> None:
            while not stop.is_set():
                rig.record()
                await _turn()

        sensor = asyncio.create_task(record_on())
        assert await rig.courier.drain(LIMIT_S)
        stop.set()
        await sensor


async def test_drain_does_not_take_new_readings_that_were_dropped_for_old_ones_that_arrived() -> None:
    """A full spool that drops the newest does so while one waits for what it holds."""
    rig = Rig(Network(), spool=MemorySpool(max_bytes=MIN_LIMIT_BYTES, when_full="newest"))
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        rig.network.wires[0].is_answering = False
        while not rig.spool.statistics().dropped:
            rig.record()
        draining = asyncio.create_task(rig.courier.drain(LIMIT_S))
        await _turn()

        rig.record(2 * rig.spool.pending)
        for _ in range(10):
            rig.courier.kick()
            await _turn()

        assert rig.spool.statistics().refused > rig.spool.pending
        assert not draining.done()
        draining.cancel()


async def test_the_hubs_bye_is_kept() -> None:
    """After a bye with retry_ms the next attempt comes when the hub said."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        started = asyncio.get_running_loop().time()
        rig.network.wires[0].receiver.message(wire.encode(wire.Bye(50)))
        await rig.network.wait_for(lambda: rig.network.attempts == 2)

        assert asyncio.get_running_loop().time() - started >= 0.045
        assert not rig.network.wires[0].is_open


@pytest.mark.parametrize("message", [b"not json", b'{"op":"welcome"}'], ids=["unreadable", "incomplete"])
async def test_a_hub_that_breaks_the_protocol_costs_a_reconnect(message: bytes) -> None:
    """A message that is none ends the connection; the readings arrive over the next."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        rig.network.wires[0].receiver.message(message)
        rig.record()
        await rig.network.wait_for(rig.all_stored)

    assert len(rig.network.wires) == 2


async def test_the_ping_of_the_welcome_is_used() -> None:
    """The connection probes as often as the hub asks."""
    rig = Rig(Network(HubModel(ping_s=7)))
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)

        assert rig.network.wires[0].ping_s == 7.0


async def test_a_full_network_holds_frames_back_until_it_is_writable() -> None:
    """Nothing is sent while the connection has no room; everything follows when it has."""
    rig = Rig(Network())
    async with _running(rig):
        await rig.network.wait_for(lambda: rig.courier.is_online)
        line = rig.network.wires[0]
        line.is_writable = False
        rig.record(2)
        await rig.network.wait_for(lambda: rig.session.has_unacked)
        assert len(line.sent) == 1
        line.is_writable = True
        line.receiver.writable()

        assert await rig.courier.drain(LIMIT_S)
    assert rig.all_stored()


async def test_hooks_see_frames_before_they_are_sent_and_acks_after() -> None:
    """A witness hears of each frame once, before the hub can have it, and of each ack; its faults stay its own."""
    heard: list[tuple[str, int]] = []
    rig: Rig

    def on_frame(seq: int, body: bytes, stream: str) -> None:
        assert body not in rig.network.wires[0].sent
        assert stream == rig.spool.stream
        heard.append(("frame", seq))
        raise ValueError("a faulty witness")

    rig = Rig(Network(), on_frame=on_frame, on_ack=lambda stored, _: heard.append(("ack", stored)))
    async with _running(rig):
        rig.record()
        assert await rig.courier.drain(LIMIT_S)

    assert heard == [("frame", 1), ("ack", 1)]


async def test_the_end_waits_for_the_step_in_the_worker() -> None:
    """When run has returned nothing touches the spool any more, so it can be closed."""
    rig = Rig(Network(), offload=True)
    for _ in range(20):
        async with _running(rig):
            rig.record()
            await asyncio.sleep(0)
    rig.spool.close()


async def test_readings_behind_a_stream_that_must_end_are_synced_too(tmp_path: Path) -> None:
    """After a power cut nothing is numbered until the old frames are acked; the next takes a second all the same."""
    before = FileSpool(tmp_path / "a", boot="b1")
    before.record_one("t", 0.0, T0_NS)
    assert before.cut() is not None
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before.close()
    synced: list[str] = []

    def sync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    spool = FileSpool(tmp_path / "b", boot="b2", sync_file=sync)
    network, now_s = Network(), 100.0
    network.refusal = ConnectionLostError("away")
    rig = Rig(network, spool=spool, clock=Clock(monotonic_s=lambda: now_s))
    async with _running(rig):
        await network.wait_for(lambda: network.attempts > 0)
        spool.record_one("t", 1.0, T0_NS + 1)
        rig.courier.kick()
        synced.clear()

        now_s += SYNC_S
        rig.courier.kick()

        assert any(name.startswith("readings-") for name in synced)
    spool.close()


class ForgetfulOnce(MemorySpool):
    """A spool that fails once when its frames are asked for, as reading kept files can."""

    has_failed = False

    def frames(self, after: int) -> list[CutFrame]:
        frames = super().frames(after)
        if frames and not self.has_failed:
            self.has_failed = True
            raise MemoryError
        return frames


@pytest.mark.parametrize("offload", [False, True], ids=["here", "in a worker"])
async def test_a_fault_while_frames_are_gathered_costs_a_reconnect(
    offload: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The courier does not stand still until something else happens."""
    rig = Rig(Network(), offload=offload, spool=ForgetfulOnce())
    async with _running(rig):
        rig.record(3)
        assert await rig.courier.drain(LIMIT_S)

    assert rig.all_stored()
    assert len(rig.network.wires) == 2
    assert "step failed" in caplog.text


class Hanging(MemorySpool):
    """A spool whose disk hangs at a cut until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hanging, self.goes_on = threading.Event(), threading.Event()

    def cut(
        self, max_readings: int = 1000, max_bytes: int = 200 * 1024, *, from_backlog: bool = False
    ) -> CutFrame | None:
        self.is_hanging.set()
        self.goes_on.wait(LIMIT_S)
        return super().cut(max_readings, max_bytes, from_backlog=from_backlog)


async def test_a_hub_that_talks_on_while_the_disk_hangs_is_left() -> None:
    """What it says waits for the step in the worker: in bounded memory."""
    spool = Hanging()
    rig = Rig(Network(), offload=True, spool=spool)
    async with _running(rig):
        rig.record(1)
        await rig.network.wait_for(spool.is_hanging.is_set)
        ended = rig.network.wires[0]

        message = wire.encode(wire.Slow("store_behind", 1))
        for _ in range(MAX_INPUT_BYTES // len(message) + 1):
            ended.receiver.message(message)
        spool.goes_on.set()
        await rig.network.wait_for(lambda: len(rig.network.wires) == 2)
        assert await rig.courier.drain(LIMIT_S)

    assert not ended.is_open
    assert rig.all_stored()
