"""Random histories of commands: at most one effect, exactly one when the device comes back in time, all of them end.

Connections that break with messages and replies on them, kills of the hub before it wrote what it heard, kills of a
device between effect and reply; then the faults stop. The hub's commands and the device's are the real ones.
"""

import asyncio
import queue
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_sdk import wire
from device_sdk.command_notes import FILE
from device_sdk.command_signature import declare
from device_sdk.commands import Commands as DeviceCommands
from device_sdk.commands import Link
from device_sdk.wire import Command, Desired, Reply
from hub.command import OPEN, Order, State
from hub.commands import Commands
from hub.downlink import Downlink

S = 10**9
NAMES = ("a", "b", "c")
LIMIT_S = 20.0


class ModelDevice:
    """A device with its card: what it did, and what its connection carries."""

    def __init__(self, name: str, home: Path) -> None:
        self.namespace, self.device = "default", name
        self.home = home / name
        self.home.mkdir()
        self.effects: Counter[str] = Counter()
        self.interrupted: set[str] = set()
        self.line: list[Command] = []
        self._replies: queue.Queue[Reply] = queue.Queue()
        self._at_effect = b""
        self._now: Reply | None = None
        self._boot()

    def fan(self, id: str) -> str:
        """Take effect, and remember what the card holds at this instant."""
        self.effects[id] += 1
        self._at_effect = (self.home / FILE).read_bytes()
        return id

    def tell(self, message: Command | Desired) -> None:
        """The hub says something."""
        assert isinstance(message, Command)
        self.line.append(message)

    def flush(self) -> None:
        """All is written at once."""

    def run(self, message: Command) -> Reply:
        """Have it done and return the reply."""
        self._commands.take(message)
        return self._replies.get(timeout=LIMIT_S)

    def kill_at_effect(self, message: Command) -> None:
        """Begin the command and be killed right after its effect, if it has one."""
        before = self.effects[message.id]
        self.run(message)
        self._commands.close(LIMIT_S)
        if self.effects[message.id] > before:
            (self.home / FILE).write_bytes(self._at_effect)
            self.interrupted.add(message.id)
        self._boot()

    def close(self) -> None:
        """End its worker."""
        self._commands.close(LIMIT_S)

    def _boot(self) -> None:
        self._commands = DeviceCommands(self.device)
        self._commands.add(self.fan, "fan")
        self._commands.open(self.home)
        # The time at the hub is not known here: the hub alone ends what is over, or the device would hide its faults.
        self._commands.attach(Link(self._replies.put, lambda _: None, lambda: None, lambda: 0, None))


class CommandModel(RuleBasedStateMachine):
    """Every rule is one event; the promise is checked when all faults have stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="command-model-"))
        self.runner = asyncio.Runner()
        self.now_ns = 1000 * S
        self.devices = {name: ModelDevice(name, self.home) for name in NAMES}
        self.connected: set[str] = set()
        self.given: list[Order] = []
        self._start_hub()
        for name in NAMES:
            self._declare(name)
        self._write()

    @rule(is_queued=st.booleans(), timeout_s=st.sampled_from([1, 10, 100]))
    def give(self, is_queued: bool, timeout_s: int) -> None:
        """A command to all."""
        id = f"k{len(self.given)}"
        end_ns = self.now_ns + timeout_s * S
        order = Order("default", id, "fan", {"id": id}, "*", "ann", self.now_ns, end_ns, is_queued, 10)
        assert self.runner.run(self.hub.give(order, NAMES))
        self.given.append(order)

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        """A new connection: what was on the one before is lost."""
        self.disconnect(name)
        self.connected.add(name)
        self.downlink.entered(self.devices[name])

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def declare(self, data: st.DataObject) -> None:
        """The program of a connected device has come so far."""
        self._declare(data.draw(st.sampled_from(sorted(self.connected)), label="device"))

    @rule(name=st.sampled_from(NAMES))
    def connect_and_declare(self, name: str) -> None:
        """Both in one breath, as most do."""
        self.connect(name)
        self._declare(name)

    @rule(name=st.sampled_from(NAMES))
    def disconnect(self, name: str) -> None:
        """With all that was on its way."""
        self.devices[name].line.clear()
        self.connected.discard(name)
        self.downlink.left(self.devices[name])

    @precondition(lambda self: any(d.line for d in self.devices.values()))
    @rule(fate=st.sampled_from(["answered", "answered", "reply lost", "killed"]), data=st.data())
    def deliver(self, fate: str, data: st.DataObject) -> None:
        """The next message of a device arrives."""
        device = data.draw(st.sampled_from([d for d in self.devices.values() if d.line]), label="device")
        message = device.line.pop(0)
        if fate == "killed":
            device.kill_at_effect(message)
            self.disconnect(device.device)
            return
        reply = device.run(message)
        if fate == "answered":
            self.downlink.heard(device, reply)
        else:
            self.disconnect(device.device)

    @rule()
    def write(self) -> None:
        """The hub's thread comes to write what is known, and what is over."""
        self._write()

    @rule()
    def kill_hub(self) -> None:
        """What it heard and did not write is gone, and so are all connections."""
        self.hub.close()
        for name in NAMES:
            self.disconnect(name)
        self._start_hub()

    @rule(seconds=st.sampled_from([1, 30]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now_ns += seconds * S

    @invariant()
    def at_most_one_effect(self) -> None:
        """Of each id at each device, always."""
        for device in self.devices.values():
            assert all(count == 1 for count in device.effects.values()), device.effects

    def teardown(self) -> None:
        """The faults stop: everything ends, and what is said of it is true."""
        try:
            for name in NAMES:
                self.connect_and_declare(name)
            self._write()
            for device in self.devices.values():
                while device.line:
                    self.downlink.heard(device, device.run(device.line.pop(0)))
            self._write()
            self._check(is_over=False)
            self.now_ns += 1000 * S
            self._write()
            self._check(is_over=True)
        finally:
            for device in self.devices.values():
                device.close()
            self.hub.close()
            self.runner.close()
            shutil.rmtree(self.home)

    def _check(self, *, is_over: bool) -> None:
        self.at_most_one_effect()
        for order in self.given:
            for result in self.runner.run(self.hub.find(*order.key)).results:
                effects = self.devices[result.device].effects[order.id]
                told = (order.id, result, effects)
                assert not (is_over and result.state in OPEN), told
                if result.state is State.DONE:
                    assert effects == 1, told
                elif result.state in (State.REFUSED, State.EXPIRED):
                    assert effects == 0, told
                elif result.state is State.FAILED:
                    assert order.id in self.devices[result.device].interrupted, told
                else:
                    # Its time was over before its device came back.
                    assert order.expires_ns <= self.now_ns, told

    def _declare(self, name: str) -> None:
        device = self.devices[name]
        self.downlink.heard(device, wire.Schema((), {"fan": declare("fan", device.fan)}))

    def _start_hub(self) -> None:
        self.downlink = Downlink()
        self.hub = Commands(
            self.home / "commands.sqlite3", self.downlink, clock=lambda: self.now_ns, monotonic=lambda: self.now_ns
        )

    def _write(self) -> None:
        self.hub._end_what_is_over()
        self.runner.run(self.hub._write())


TestCommandModel = pytest.mark.slow(CommandModel.TestCase)
TestCommandModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
