"""`hub.rollout`: states reach devices once they are durable, and what devices report is kept."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from device_sdk.wire import Command, Desired, Reply, Reported
from hub.desired import States
from hub.downlink import Downlink
from hub.rollout import BATCH, Drift, Rollout


class Line:
    """A session that notes what it is told."""

    def __init__(self, device: str = "fan-1") -> None:
        self.namespace, self.device = "default", device
        self.told: list[Command | Desired] = []

    def tell(self, message: Command | Desired) -> None:
        """Note it."""
        self.told.append(message)

    def flush(self) -> None:
        """Nothing is held back."""


class Rig:
    """A rollout whose turns are taken by hand."""

    def __init__(self, folder: Path) -> None:
        self.states = States(folder / "states.sqlite3")
        self.downlink = Downlink()
        self.rollout = Rollout(self.states, self.downlink)
        self.downlink.listen(self.rollout)

    def connect(self, device: str = "fan-1") -> Line:
        """A device connects."""
        line = Line(device)
        self.downlink.entered(line)
        return line

    def set(self, *devices: str, **patch: object) -> None:
        """Change desired states."""
        self.states.change("default", devices, patch, "ann")
        self.rollout.changed("default", devices)

    def turn(self) -> None:
        """One turn of the task."""
        self.rollout.finish(self.rollout.work(self.rollout.take()))

    def drift(self, device: str = "fan-1") -> Drift:
        """How the device stands."""
        return self.rollout.drift("default", self.states.twin("default", device))

    def close(self) -> None:
        """Close the file."""
        self.states.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rollout."""
    with closing(Rig(tmp_path)) as rig:
        yield rig


def test_state_goes_out_at_connection_and_at_change_once(rig: Rig) -> None:
    """Each version goes once to each connection, until the device has said that it has it."""
    rig.set("fan-1", speed=3)
    line = rig.connect()
    rig.turn()
    rig.rollout.changed("default", ["fan-1"])
    rig.turn()
    rig.set("fan-1", speed=4)
    rig.turn()

    assert [(m.version, m.state) for m in line.told if isinstance(m, Desired)] == [(1, {"speed": 3}), (2, {"speed": 4})]
    newest = line.told[-1]
    assert isinstance(newest, Desired)
    rig.downlink.heard(line, Reported(2, {}, newest.mark))
    rig.turn()
    again = rig.connect()
    rig.turn()
    assert again.told == []


def test_device_that_knows_nothing_is_told_again(rig: Rig) -> None:
    """Version 0 asks for the state, also when it went to this connection before anybody at the device listened."""
    rig.set("fan-1", speed=3)
    line = rig.connect()
    rig.turn()
    rig.downlink.heard(line, Reported(0, {}))
    rig.turn()

    assert len(line.told) == 2


def test_late_report_of_an_older_version_brings_no_repetition(rig: Rig) -> None:
    """A device that reports while it is at work on the newest state is not told that again."""
    rig.set("fan-1", speed=3)
    line = rig.connect()
    rig.turn()
    first = line.told[0]
    assert isinstance(first, Desired)
    rig.downlink.heard(line, Reported(1, {"speed": 3}, first.mark))
    rig.set("fan-1", speed=4)
    rig.turn()
    rig.downlink.heard(line, Reported(1, {"speed": 3, "t": 1}, first.mark))
    rig.turn()

    assert len(line.told) == 2


def test_drift_says_how_a_device_stands(rig: Rig) -> None:
    """offline, pending, drifted, in sync; who has taken all of it is in sync, also when it left."""
    rig.set("fan-1", speed=3)
    stands = [rig.drift()]
    line = rig.connect()
    rig.turn()
    stands.append(rig.drift())
    sent = line.told[0]
    assert isinstance(sent, Desired)
    for state in ({"speed": 2}, {"speed": 3}):
        rig.downlink.heard(line, Reported(1, state, sent.mark))
        rig.downlink.heard(line, Reply("k", True))
        rig.turn()
        stands.append(rig.drift())
    rig.downlink.left(line)

    assert stands == [Drift.OFFLINE, Drift.PENDING, Drift.DRIFTED, Drift.IN_SYNC]
    assert rig.drift() is Drift.IN_SYNC
    assert rig.drift("nobody") is Drift.IN_SYNC


def test_herd_is_taken_in_batches(rig: Rig) -> None:
    """However many connect at once, a trip to the disk is bounded, and everyone is told."""
    names = [f"fan-{n}" for n in range(BATCH + 1)]
    rig.set(*names, speed=3)
    lines = [rig.connect(name) for name in names]

    batch = rig.rollout.take()
    assert len(batch.due) == BATCH
    rig.rollout.give_back(batch)
    rig.turn()
    rig.turn()

    assert [len(line.told) for line in lines] == [1] * len(lines)


def test_newest_report_counts_also_when_one_was_given_back(rig: Rig) -> None:
    """A write that failed is tried again; what was heard meanwhile is not undone by it."""
    line = rig.connect()
    rig.downlink.heard(line, Reported(0, {"n": 1}))
    batch = rig.rollout.take()
    rig.downlink.heard(line, Reported(0, {"n": 2}))

    rig.rollout.give_back(batch)
    rig.turn()

    assert rig.states.twin("default", "fan-1").reported.state == b'{"n":2}'


@pytest.mark.asyncio
async def test_task_carries_both_ways(tmp_path: Path) -> None:
    """Run as the hub does, a state goes out and a report is on disk without anybody taking turns."""
    rig = Rig(tmp_path)
    with closing(rig):
        rig.set("fan-1", speed=3)
        task = asyncio.create_task(rig.rollout.run())
        line = rig.connect()
        async with asyncio.timeout(20):
            while not line.told:  # noqa: ASYNC110 (a turn of the loop is all there is to wait for)
                await asyncio.sleep(0)
            rig.downlink.heard(line, Reported(1, {"speed": 3}))
            while rig.drift() is not Drift.IN_SYNC:  # noqa: ASYNC110
                await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
