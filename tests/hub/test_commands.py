"""`hub.commands`: durable before sent, sent again, answered once, over a restart of the hub too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from device_sdk import wire
from device_sdk.wire import Command, Desired, Reply
from hub.command import Order, State
from hub.command_file import CommandFileError
from hub.commands import MAX_LATE, MAX_LATE_BYTES, Commands
from hub.downlink import Downlink
from hub.errors import BadRequestError, ConflictError, NotFoundError
from tests.support.failing_disk import failing_disk

pytestmark = pytest.mark.asyncio
DECLARED = {"fan": {"args": {"speed": {"type": "int"}}}}
S = 10**9


class Line:
    """A device's connection that keeps what it is told; with ``commands`` it asks the file at each message."""

    def __init__(self, device: str, commands: Commands | None = None) -> None:
        self.namespace, self.device = "default", device
        self.told: list[Command | Desired] = []
        self._commands = commands

    def tell(self, message: Command | Desired) -> None:
        """Keep it."""
        if self._commands is not None:
            assert isinstance(message, Command)
            told = self._commands._file.find("default", message.id)
            assert told is not None, "sent before it was durable"
            assert [r.state for r in told.results if r.device == self.device] == [State.SENT]
        self.told.append(message)

    def flush(self) -> None:
        """Nothing to write."""


class World:
    """A hub's commands with its downlink and a clock."""

    def __init__(self, folder: Path, step_ns: int = 993 * S) -> None:
        self.monotonic_ns = 7 * S
        self.step_ns = step_ns
        self.downlink = Downlink()
        self.commands = Commands(
            folder / "commands.sqlite3", self.downlink, clock=lambda: self.now_ns, monotonic=lambda: self.monotonic_ns
        )

    @property
    def now_ns(self) -> int:
        """Wall time."""
        return self.monotonic_ns + self.step_ns

    def enter(self, device: str) -> Line:
        """Connect a device that declares its fan."""
        line = Line(device, self.commands)
        self.downlink.entered(line)
        self.downlink.heard(line, wire.Schema((), DECLARED))
        return line

    def order(self, id: str = "k1", *, is_queued: bool = False, speed: object = 3, timeout_s: int = 10) -> Order:
        """Return an order made now."""
        return Order(
            "default", id, "fan", {"speed": speed}, "*", "ann", self.now_ns, self.now_ns + timeout_s * S, is_queued, 11
        )

    async def states(self, id: str = "k1") -> dict[str, State]:
        """Return what is durable of an order."""
        await self.commands._write()
        return {r.device: r.state for r in (await self.commands.find("default", id)).results}


@asynccontextmanager
async def world_in(folder: Path, step_ns: int = 993 * S) -> AsyncIterator[World]:
    """Give a world whose task runs."""
    world = World(folder, step_ns)
    task = asyncio.create_task(world.commands.run(), name="commands")
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        world.commands.close()


async def test_an_order_is_durable_before_it_is_sent_and_each_device_answers(tmp_path: Path) -> None:
    """Connected devices get it at once, others are refused for being offline; the answer is each device's own."""
    async with world_in(tmp_path) as world:
        a, b = world.enter("a"), world.enter("b")
        world.downlink.heard(Line("away"), wire.Schema((), DECLARED))

        assert await world.commands.give(world.order(), ["a", "b", "away"])
        assert a.told == b.told == [world.order().message()]
        world.downlink.heard(a, Reply("k1", True, 3))
        waiting = asyncio.create_task(world.commands.ended(("default", "k1"), 10))
        await asyncio.sleep(0)
        world.downlink.heard(b, Reply("k1", False, error="stuck"))
        await waiting

        assert await world.states() == {"a": State.DONE, "b": State.FAILED, "away": State.REFUSED}
        told = await world.commands.find("default", "k1")
        assert [r.error[:7] for r in told.results] == ["", "stuck", "offline"]


async def test_a_queued_order_waits_for_its_device_also_over_a_restart(tmp_path: Path) -> None:
    """It is sent at each connection with the same id until the device answered, and then no more."""
    async with world_in(tmp_path) as world:
        world.downlink.heard(Line("a"), wire.Schema((), DECLARED))
        await world.commands.give(world.order(is_queued=True), ["a"])
        assert await world.states() == {"a": State.QUEUED}

    async with world_in(tmp_path) as world:
        first = world.enter("a")
        assert first.told == []
        assert await world.states() == {"a": State.SENT}
        assert first.told == [world.order().message()]

    async with world_in(tmp_path) as world:
        second = world.enter("a")
        assert second.told == [world.order().message()]
        world.downlink.heard(second, Reply("k1", True, 3))
        assert world.enter("a").told == []
        assert await world.states() == {"a": State.DONE}

    async with world_in(tmp_path) as world:
        assert world.enter("a").told == []


async def test_time_ends_what_is_not_answered(tmp_path: Path) -> None:
    """Without an answer a sent one is timed out and a queued one expired; who waits is told."""
    async with world_in(tmp_path) as world:
        world.enter("a")
        world.downlink.heard(Line("away"), wire.Schema((), DECLARED))
        await world.commands.give(world.order(is_queued=True), ["a", "away"])
        world.monotonic_ns += 10 * S
        world.commands._wake.set()

        await world.commands.ended(("default", "k1"), 10)

        assert await world.states() == {"a": State.TIMED_OUT, "away": State.EXPIRED}


async def test_a_program_that_is_starting_gets_a_command_once_it_has_declared_it(tmp_path: Path) -> None:
    """Known from its last life, connected, not there yet: it waits for that, also a command that may not wait long."""
    async with world_in(tmp_path) as world:
        line = Line("a", world.commands)
        world.downlink.heard(line, wire.Schema((), DECLARED))
        await world.commands.give(world.order("k1", is_queued=True), ["a"])
        world.downlink.entered(line)
        await world.commands.give(world.order("k2"), ["a"])
        assert (await world.states("k1"), await world.states("k2")) == ({"a": State.QUEUED}, {"a": State.QUEUED})

        world.downlink.heard(line, wire.Schema((), {"lamp": {"args": {}}}))
        assert await world.states("k1") == {"a": State.QUEUED}
        world.downlink.heard(line, wire.Schema((), {"lamp": {"args": {}}, **DECLARED}))

        assert (await world.states("k1"), await world.states("k2")) == ({"a": State.SENT}, {"a": State.SENT})
        assert line.told == [world.order("k1").message(), world.order("k2").message()]


async def test_wrong_arguments_and_unknown_commands_are_never_sent(tmp_path: Path) -> None:
    """They are refused for each device by what that device declared."""
    async with world_in(tmp_path) as world:
        line, silent = world.enter("a"), Line("silent")
        world.downlink.entered(silent)

        await world.commands.give(world.order(speed="fast"), ["a", "silent"])

        told = await world.commands.find("default", "k1")
        assert [r.error.partition(";")[0] for r in told.results] == [
            "fan: speed: Input should be a valid integer", "unknown command 'fan'",
        ]  # fmt: skip
        assert line.told == silent.told == []


async def test_a_request_that_comes_again_is_the_same_order(tmp_path: Path) -> None:
    """By its id: nothing is sent twice; with other arguments it is a conflict."""
    async with world_in(tmp_path) as world:
        line = world.enter("a")

        assert await world.commands.give(world.order(), ["a"])
        assert not await world.commands.give(world.order(), ["a"])
        with pytest.raises(ConflictError, match="that of another"):
            await world.commands.give(world.order(speed=4), ["a"])

        assert line.told == [world.order().message()]


async def test_a_cancelled_order_is_not_sent_any_more(tmp_path: Path) -> None:
    """And its state is durable when `cancel` returns."""
    async with world_in(tmp_path) as world:
        world.downlink.heard(Line("a"), wire.Schema((), DECLARED))
        await world.commands.give(world.order(is_queued=True), ["a"])

        await world.commands.cancel(("default", "k1"), ["a"])

        assert world.enter("a").told == []
        assert await world.states() == {"a": State.CANCELLED}


async def test_bounds_are_said(tmp_path: Path) -> None:
    """Too many devices, too large arguments, an id that is not there."""
    async with world_in(tmp_path) as world:
        with pytest.raises(BadRequestError, match="limit is 10000"):
            await world.commands.give(world.order(), [f"d{n}" for n in range(10_001)])
        large = Order("default", "k", "fan", {}, "*", "ann", 0, 1, is_queued=False, size=32769)
        with pytest.raises(BadRequestError, match="limit is 32768"):
            await world.commands.give(large, ["a"])
        with pytest.raises(NotFoundError):
            await world.commands.find("default", "none")


async def test_a_device_that_never_stops_holds_up_nobody(tmp_path: Path) -> None:
    """Whoever writes takes what is known then: what comes during each commit is the next writer's."""
    world = World(tmp_path)
    line = world.enter("d1")
    is_over = False

    async def flood() -> None:
        while not is_over:
            world.downlink.heard(line, Reply("nobody-asked", True))
            world.downlink.heard(line, wire.Schema((), {f"f{asyncio.get_running_loop().time()}": {"args": {}}}))
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood(), name="flood")
    try:
        async with asyncio.timeout(20):
            await asyncio.sleep(0)
            await world.commands.cancel(("default", "k0"), [])
    finally:
        is_over = True
        await flooding
        world.commands.close()


async def test_command_that_the_disk_refused_is_given_again_with_its_id(tmp_path: Path) -> None:
    """Nothing is sent; the answer says the id, for it may be on the disk all the same; the id sends it once."""
    async with world_in(tmp_path) as w:
        line = w.enter("fan-1")
        await w.commands.give(w.order("k1"), ["fan-1"])

        with (
            failing_disk(tmp_path / "commands.sqlite3-wal"),
            pytest.raises(CommandFileError, match="try again, with the id 'k2'"),
        ):
            await w.commands.give(w.order("k2"), ["fan-1"])
        assert [message.id for message in line.told if isinstance(message, Command)] == ["k1"]

        assert await w.commands.give(w.order("k2"), ["fan-1"])
        assert not await w.commands.give(w.order("k2"), ["fan-1"])
        assert [message.id for message in line.told if isinstance(message, Command)] == ["k1", "k2"]


async def test_late_answers_are_bounded_by_number_and_size(tmp_path: Path) -> None:
    """Large ones that nobody waits for take no more RAM than their bound until they are written; then more may come."""
    async with world_in(tmp_path) as world:
        line = world.enter("a")
        for size, most in ((30_000, MAX_LATE_BYTES // 30_000), (1, MAX_LATE)):
            for n in range(most + 100):
                world.downlink.heard(line, Reply(f"late{n}", True, "x" * size))
            assert 0.9 * most < len(world.commands._outcomes) <= most
            await world.commands._write()
            assert world.commands._outcomes == []


@pytest.mark.parametrize("step_s", [3600, -3600])
async def test_a_step_of_the_wall_clock_ends_nothing_and_keeps_nothing(tmp_path: Path, step_s: int) -> None:
    """An order has the time it was given, before a step and after it; a hub that starts again reads the wall clock."""
    async with world_in(tmp_path) as world:
        line = world.enter("a")
        await world.commands.give(world.order("k1"), ["a"])
        world.step_ns += step_s * S
        world.commands._wake.set()
        await world.commands.give(world.order("k2"), ["a"])
        world.monotonic_ns += 10 * S - 1
        world.commands._wake.set()
        await asyncio.sleep(0)
        assert [await world.states(id) for id in ("k1", "k2")] == [{"a": State.SENT}] * 2

        world.monotonic_ns += 1
        world.enter("a")

        assert [await world.states(id) for id in ("k1", "k2")] == [{"a": State.TIMED_OUT}] * 2
        assert len(line.told) == 2
        await world.commands.give(world.order("k3"), ["a"])

    async with world_in(tmp_path, step_ns=(1003 + step_s + 10) * S) as world:
        assert world.enter("a").told == []
        assert await world.states("k3") == {"a": State.TIMED_OUT}
