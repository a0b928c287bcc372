"""Random histories of desired and reported states: when faults stop, both ends agree and the newest state holds.

The hub's real file and rollout, the device's real twin, between them a line that is cut with what is on it; kills of
either side, a hub put back to a backup, programs that fail. In virtual time.
"""

import asyncio
import json
import os
import random
import selectors
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_sdk.twin import FILE, Twin
from device_sdk.wire import Command, Desired, Reply, Reported
from hub.desired import States
from hub.downlink import Downlink
from hub.rollout import Drift, Rollout

STEPS = 60
LIMIT_S = 20.0
KEYS = ("interval_s", "fan", "mode")


class _JumpingSelector(selectors.DefaultSelector):
    """Jumps to the next timer instead of waiting for it; waits for threads as they are."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose timers cost no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now


class Line:
    """One connection: what was said and has not arrived is lost when it is cut."""

    def __init__(self, device: "WorldDevice") -> None:
        self.namespace, self.device = "default", device.name
        self.of = device
        self.down: list[Command | Desired] = []
        self.up: list[Reported] = []

    def tell(self, message: Command | Desired) -> None:
        """From the hub."""
        self.down.append(message)

    def flush(self) -> None:
        """All of it is on the line."""


class WorldDevice:
    """A device whose program does and reports what is wanted, when it does not fail."""

    def __init__(self, name: str, path: Path | None, rng: random.Random) -> None:
        self.name, self.path, self.rng = name, path, rng
        self.line: Line | None = None
        self.is_failing = False
        # The highest version it said, as far as it can still know: with a hub put back as well, nobody else does.
        self.seen = 0
        self.start()

    def start(self) -> None:
        """A new process: what is not on disk is gone."""
        self.twin = Twin(self.name, self.path)
        self.twin.load()
        self.twin.handle(self.apply)
        self.twin.begin(asyncio.get_running_loop(), self)

    async def apply(self, state: dict[str, Any]) -> None:
        """Be the program."""
        if self.is_failing:
            raise RuntimeError("the program fails")
        twin = self.twin
        await asyncio.sleep(self.rng.choice([0, 0.05, 0.3]))
        twin.report(state, replace=True)

    @property
    def is_online(self) -> bool:
        """Whether the device knows of a connection."""
        return self.line is not None

    def say(self, message: Reply | Reported) -> None:
        """To the hub."""
        assert isinstance(message, Reported)
        self.seen = max(self.seen, message.version)
        if self.line is not None:
            self.line.up.append(message)


class World:
    """A hub, devices, and every fault there is."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.file, self.copies = folder / "states.sqlite3", folder
        self.backups: list[Path] = []
        self.devices = [
            WorldDevice("fan-1", folder / FILE, self.rng), WorldDevice("fan-2", None, self.rng),
        ]  # fmt: skip
        self.open_hub()

    def open_hub(self) -> None:
        """Start the hub on its file."""
        self.states = States(self.file)
        self.downlink = Downlink()
        self.rollout = Rollout(self.states, self.downlink)
        self.downlink.listen(self.rollout)

    # --- what may happen ------------------------------------------------------------------------

    def change(self, device: WorldDevice) -> None:
        """Somebody wants something."""
        patch = {self.rng.choice(KEYS): self.rng.choice([None, 1, 2, {"speed": self.rng.randrange(3)}])}
        names = [device.name] if self.rng.random() < 0.5 else [d.name for d in self.devices]
        self.states.change("default", names, patch, "ann")
        self.rollout.changed("default", names)

    def connect(self, device: WorldDevice) -> None:
        """Hello and welcome; an older connection may still be in the hub's books."""
        device.line = Line(device)
        self.downlink.entered(device.line)
        device.twin.welcomed()

    def cut(self, device: WorldDevice) -> None:
        """The line breaks."""
        if device.line is not None:
            self.downlink.left(device.line)
            device.line = None

    def deliver(self, device: WorldDevice) -> None:
        """Some messages arrive."""
        line = device.line
        for _ in range(self.rng.randrange(4)):
            if line is not None and line.up:
                self.downlink.heard(line, line.up.pop(0))
            if line is not None and line.down:
                device.twin.take(line.down.pop(0))

    def turn(self, device: WorldDevice) -> None:
        """The hub's task has its turn."""
        self.rollout.finish(self.rollout.work(self.rollout.take()))

    def fail_a_write(self, device: WorldDevice) -> None:
        """The hub's disk refuses, and the notes go back."""
        self.rollout.give_back(self.rollout.take())

    def report(self, device: WorldDevice) -> None:
        """The program reports something of its own."""
        device.twin.report({"uptime": self.rng.randrange(100)}, replace=False)

    def kill_device(self, device: WorldDevice) -> None:
        """Its process ends at once, and another begins."""
        self.cut(device)
        if device.twin._task is not None:
            device.twin._task.cancel()
        # A process takes its threads along; here they are let write to nowhere.
        with device.twin._lock:
            device.twin._path = device.twin._loop = None
        if device.path is None:
            device.seen = 0
        device.start()

    def toggle_failing(self, device: WorldDevice) -> None:
        """The program begins to fail, or stops that."""
        device.is_failing = not device.is_failing

    def kill_hub(self, device: WorldDevice) -> None:
        """What it had noted is gone, what was durable is there."""
        for one in self.devices:
            self.cut(one)
        self.states.close()
        self.open_hub()

    def back_up(self, device: WorldDevice) -> None:
        """A copy of the file."""
        path = self.copies / f"copy-{len(self.backups)}"
        with closing(sqlite3.connect(path)) as target:
            self.states._database.backup(target)
        self.backups.append(path)

    def restore(self, device: WorldDevice) -> None:
        """The hub is put back to a copy."""
        if not self.backups:
            return
        for one in self.devices:
            self.cut(one)
        self.states.close()
        for suffix in ("-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        self.file.write_bytes(self.rng.choice(self.backups).read_bytes())
        self.open_hub()

    # --- in the end -----------------------------------------------------------------------------

    async def settle(self) -> None:
        """Faults stop; each device connects, and messages arrive until nothing is said any more."""
        for device in self.devices:
            device.is_failing = False
            self.cut(device)
            self.connect(device)
        # Real seconds: threads write files in those.
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends:
            for device in self.devices:
                line = device.line
                assert line is not None
                while line.up:
                    self.downlink.heard(line, line.up.pop(0))
                while line.down:
                    device.twin.take(line.down.pop(0))
            self.turn(self.devices[0])
            await asyncio.sleep(0.01)
            if all(self.is_settled(device) for device in self.devices):
                return
        raise AssertionError(f"not settled: {[self.states.twin('default', d.name) for d in self.devices]}")

    def is_settled(self, device: WorldDevice) -> bool:
        """Whether both ends say the same and nothing is on its way."""
        twin, line = self.states.twin("default", device.name), device.line
        return (
            self.rollout.drift("default", twin) is Drift.IN_SYNC
            and json.loads(twin.reported.state) == device.twin._reported
            and not device.twin._is_unsaid
            and (twin.desired.version == 0 or dict(device.twin.desired) == json.loads(twin.desired.state))
            and (twin.desired.version == 0 or twin.desired.version == device.twin.desired.version)
            and line is not None
            and not line.up
            and not line.down
        )


async def play(folder: Path, seed: int) -> None:
    """One history; the same seed gives the same one but for the threads that write files."""
    world = World(folder, seed)
    steps: Sequence[Callable[[WorldDevice], None]] = (
        *[world.change] * 3, *[world.connect] * 4, world.cut, *[world.deliver] * 6, *[world.turn] * 4,
        world.fail_a_write, world.report, world.kill_device, world.toggle_failing, world.kill_hub, world.back_up,
        world.restore,
    )  # fmt: skip
    try:
        for _ in range(STEPS):
            world.rng.choice(steps)(world.rng.choice(world.devices))
            await asyncio.sleep(world.rng.choice([0, 0, 0.05]))
        await world.settle()
        for device in world.devices:
            # Versions never go back, whatever the hub was put back to.
            assert world.states.twin("default", device.name).desired.version >= device.seen
            world.kill_device(device)
    finally:
        world.states.close()


@pytest.mark.parametrize("block", range(int(os.environ.get("STATES_BLOCKS", "2"))))
def test_both_ends_agree_when_faults_stop(tmp_path: Path, block: int, caplog: pytest.LogCaptureFixture) -> None:
    """Every device ends with the newest desired state, and the hub shows what it truly reports."""
    caplog.set_level("CRITICAL")
    for seed in range(block * 10, block * 10 + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            try:
                runner.run(play(folder, seed))
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
