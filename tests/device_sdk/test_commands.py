"""`device_sdk.commands`: each command takes effect once, and its answer says what is known."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk import MisuseError
from device_sdk.command_notes import INTERRUPTED, MARGIN_NS, MAX_REPLY_BYTES, CommandNotes
from device_sdk.commands import Commands, Link, _short
from device_sdk.wire import EXPIRED_ERROR, MAX_COMMANDS, MAX_CONTROL_BYTES, MAX_CONTROL_DEPTH, Command, Reply

LIMIT_S = 10.0
NOW = 1_795_376_000_000_000_000
LATER = NOW + 10**10


class World:
    """An open device's commands, and the hub at the other end."""

    def __init__(self, directory: Path | None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.commands = Commands("d")
        self.replies: queue.Queue[Reply] = queue.Queue()
        self.told: list[dict[str, Any]] = []
        self.effects: list[int] = []
        self.boot_ns = 0
        self.commands.add(self.fan, "fan")
        self.commands.open(directory)
        self.commands.attach(Link(self.replies.put, self.told.append, lambda: NOW, lambda: self.boot_ns, loop))
        self.commands.welcomed()

    def fan(self, speed: int) -> int:
        """Turn the fan."""
        self.effects.append(speed)
        return speed

    def ask(self, id: str = "k1", name: str = "fan", expires_ns: int = LATER, **args: object) -> Reply:
        """Send a command and wait for its reply."""
        self.commands.take(Command(id, name, args or ({"speed": 3} if name == "fan" else {}), expires_ns))
        return self.replies.get(timeout=LIMIT_S)


@pytest.fixture(params=["memory", "disk"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Commands beside either spool."""
    world = World(tmp_path if request.param == "disk" else None)
    yield world
    world.commands.close(LIMIT_S)


def test_the_same_id_again_is_answered_from_the_note(world: World) -> None:
    """One effect, the same answer."""
    assert world.ask() == world.ask() == Reply("k1", True, 3)
    assert world.ask("k2", speed=4) == Reply("k2", True, 4)
    assert world.effects == [3, 4]


def test_after_a_restart_it_is_answered_too(tmp_path: Path) -> None:
    """What ended, with its reply; what a kill interrupted, honestly; neither runs again."""
    first = World(tmp_path)
    assert first.ask("k1") == Reply("k1", True, 3)
    first.commands.close(LIMIT_S)
    notes = CommandNotes(tmp_path)
    notes.begin("k2", LATER)
    notes.close()

    second = World(tmp_path)

    assert second.ask("k1") == Reply("k1", True, 3)
    assert second.ask("k2") == Reply("k2", False, error=INTERRUPTED)
    assert second.effects == []
    second.commands.close(LIMIT_S)


def test_the_hubs_clock_decides_what_is_over(world: World) -> None:
    """Its time at the welcome and ours since then; an expired command does not run."""
    world.boot_ns = LATER - NOW
    assert world.ask() == Reply("k1", False, error=EXPIRED_ERROR)
    world.boot_ns -= 1
    assert world.ask("k2") == Reply("k2", True, 3)
    assert world.effects == [3]


def test_a_device_that_remembers_too_much_is_busy_until_it_may_forget(world: World) -> None:
    """Large replies fill its notes within minutes; an hour after they expired it takes commands again."""
    world.commands.add(lambda: "x" * 32_000, "dump")
    replies = [world.ask(f"k{n}", "dump") for n in range(MAX_REPLY_BYTES // 32_000 + 1)]
    assert sum(reply.ok for reply in replies) >= MAX_REPLY_BYTES // 32_768

    assert world.ask("more").error.startswith("busy: the device remembers")
    world.boot_ns = LATER - NOW + MARGIN_NS
    assert world.ask("still", expires_ns=2 * NOW).error.startswith("busy")
    world.boot_ns += 1
    assert world.ask("again", expires_ns=2 * NOW) == Reply("again", True, 3)
    assert world.effects == [3]


def test_a_failure_is_the_reply_and_the_worker_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Short for the hub, in full in the log; `sys.exit` and what is no JSON are failures too."""

    def stuck() -> None:
        raise ValueError("stuck " + "x" * 1000)

    def leave() -> None:
        raise SystemExit(1)

    world.commands.add(stuck)
    world.commands.add(leave)
    world.commands.add(lambda: float("nan"), "nan")
    world.commands.add(lambda: object(), "thing")
    world.commands.add(lambda: "x" * MAX_CONTROL_BYTES, "large")

    world.commands.add(lambda: "\ud800", "half")
    world.commands.add(lambda: nested(MAX_CONTROL_DEPTH + 1), "deep")
    world.commands.add(lambda: nested(MAX_CONTROL_DEPTH), "flat")

    reply = world.ask("a", "stuck")
    assert not reply.ok
    assert reply.error.startswith("ValueError: stuck x")
    assert len(reply.error) == 300
    assert "Traceback" in caplog.text
    assert world.ask("b", "leave").error == "SystemExit: 1"
    assert [world.ask(n, n).error[:14] for n in ("nan", "thing", "large", "half", "deep")] == ["it ran, but it"] * 5
    assert world.ask("flat", "flat").ok
    assert world.ask("c", "fly").error == "unknown command 'fly'"
    assert world.ask("d", sped=3).error.startswith("TypeError")
    assert world.ask("e").ok


def nested(levels: int) -> list[Any]:
    """Return so many lists in each other."""
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def defaulting(value: str | float) -> Callable[..., None]:
    """Return a command with a default."""

    def command(a: Any = value) -> None:
        """Do nothing."""

    command.__annotations__["a"] = type(value)
    return command


DEEP = nested(MAX_CONTROL_DEPTH)


def deep(values: list[Any] = DEEP) -> None:
    """Take a default that is too deep beside its name."""


def test_an_error_can_be_said_whatever_it_is_made_of() -> None:
    """What JSON in UTF-8 cannot carry is replaced: it must not cost the connection."""
    assert _short("no such file: \udcff") == "no such file: ?"


def test_the_same_answer_whatever_becomes_of_the_value(world: World) -> None:
    """A handler may return a list that it goes on to fill, even with what no JSON can carry."""
    seen: list[Any] = [1]
    world.commands.add(lambda: seen, "seen")
    first = world.ask("a", "seen")
    seen.append("\ud800")

    assert first == world.ask("a", "seen") == Reply("a", True, [1])


def test_a_float_argument_is_a_float(world: World) -> None:
    """JSON has one kind of number."""
    world.commands.add(typed, "typed")

    assert world.ask("k1", "typed", level=2).value == "float"


def typed(level: float) -> str:
    """Say the type."""
    return type(level).__name__


def test_while_it_runs_it_is_not_run_again_and_the_loop_is_not_blocked(world: World) -> None:
    """`take` returns at once; the one reply comes at the end."""
    may_end = threading.Event()
    world.commands.add(lambda: may_end.wait(LIMIT_S), "slow")

    for _ in range(3):
        world.commands.take(Command("k1", "slow", {}, LATER))
    assert world.replies.empty()
    may_end.set()

    assert world.replies.get(timeout=LIMIT_S) == Reply("k1", True, True)
    assert world.ask("k2").ok
    assert world.replies.empty()


def test_too_many_are_refused_not_kept(world: World) -> None:
    """The queue is bounded; those that wait run later."""
    may_end = threading.Event()
    world.commands.add(lambda: may_end.wait(LIMIT_S), "slow")
    for n in range(100):
        world.commands.take(Command(f"k{n}", "slow", {}, LATER))

    busy = [world.replies.get(timeout=LIMIT_S) for _ in range(36)]
    may_end.set()

    assert {reply.error[:4] for reply in busy} == {"busy"}
    assert {world.replies.get(timeout=LIMIT_S).ok for _ in range(64)} == {True}


def test_an_async_command_under_with_runs_in_the_worker(world: World) -> None:
    """It needs no loop of the user."""

    async def blink() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    world.commands.add(blink)

    assert world.ask("k1", "blink").value == "telemetry-d-commands"


def test_async_commands_are_tasks_of_the_users_loop(tmp_path: Path) -> None:
    """They run beside each other; what is cancelled at the end is answered as interrupted by the next process."""

    async def run() -> tuple[list[Reply], int]:
        world = World(tmp_path, asyncio.get_running_loop())
        both = asyncio.Event()
        running: list[int] = []

        async def meet() -> int:
            running.append(1)
            if len(running) == 2:
                both.set()
            await both.wait()
            return threading.get_ident()

        async def hang() -> None:
            await asyncio.Event().wait()

        world.commands.add(meet)
        world.commands.add(hang)
        for id, name in (("a", "meet"), ("b", "meet"), ("c", "hang")):
            world.commands.take(Command(id, name, {}, LATER))
        async with asyncio.timeout(LIMIT_S):
            while world.replies.qsize() < 2 or world.commands._notes.find("c") is None:  # noqa: ASYNC110 - of threads
                await asyncio.sleep(0)
        await world.commands.close_async(0.01)
        return list(world.replies.queue), threading.get_ident()

    replies, thread = asyncio.run(run())
    assert {(reply.id, reply.value) for reply in replies} == {("a", thread), ("b", thread)}
    second = World(tmp_path)
    assert second.ask("c", "hang") == Reply("c", False, error=INTERRUPTED)
    second.commands.close(LIMIT_S)


def test_an_async_command_that_cancels_or_exits_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it waited for was cancelled, or it called `sys.exit`: a reply, and neither the loop nor the program ends."""

    async def run() -> list[Reply]:
        world = World(tmp_path, asyncio.get_running_loop())

        async def cancelled() -> None:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task

        async def leave() -> None:
            raise SystemExit(1)

        for function in (cancelled, leave):
            world.commands.add(function)
            world.commands.take(Command(function.__name__, function.__name__, {}, LATER))
        async with asyncio.timeout(LIMIT_S):
            while world.replies.qsize() < 2:  # noqa: ASYNC110 - of threads
                await asyncio.sleep(0)
        await world.commands.close_async(LIMIT_S)
        return list(world.replies.queue)

    assert {reply.id: reply.error for reply in asyncio.run(run())} == {
        "cancelled": "CancelledError: ", "leave": "SystemExit: 1",
    }  # fmt: skip


@pytest.mark.slow
def test_closing_takes_no_more_and_waits_for_no_task_that_will_not_end(tmp_path: Path) -> None:
    """What comes meanwhile is not begun; who ignores that it is cancelled holds up nobody."""

    async def run() -> None:
        world = World(tmp_path, asyncio.get_running_loop())
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            begun.set()
            while not may_end.is_set():
                with suppress(asyncio.CancelledError):
                    await may_end.wait()

        world.commands.add(stubborn)
        world.commands.take(Command("a", "stubborn", {}, LATER))
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
            closing = asyncio.create_task(world.commands.close_async(0.01))
            await asyncio.sleep(0)
            world.commands.take(Command("b", "fan", {"speed": 3}, LATER))
            world.commands.take(Command("c", "stubborn", {}, LATER))
            await closing
        may_end.set()
        assert world.effects == []
        assert len(world.commands._tasks) == 1

    asyncio.run(run())


def test_declarations_are_told_and_checked(world: World) -> None:
    """All of them each time one is added; names and their number are bounded."""
    world.commands.add(lambda: None, "blink")
    assert [sorted(told) for told in world.told] == [["fan"], ["blink", "fan"]]
    with pytest.raises(MisuseError, match="use letters"):
        world.commands.add(lambda: None, "two words")
    with pytest.raises(MisuseError, match="use letters"):
        world.commands.add(lambda: None)
    for default in ("\ud800", float("nan")):
        with pytest.raises(MisuseError, match="no JSON"):
            world.commands.add(defaulting(default), "broken")
    with pytest.raises(MisuseError, match="nested too deep"):
        world.commands.add(deep, "deep")
    for n in range(MAX_COMMANDS - 2):
        world.commands.add(lambda: None, f"c{n}")
    with pytest.raises(MisuseError, match="at most"):
        world.commands.add(lambda: None, "more")
