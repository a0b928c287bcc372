"""A spool left by a killed process, with every byte of the last two records of both its logs damaged in turn.

Three damages a byte: the file ends there, all bits of the byte flipped, one bit flipped. Then a new process opens
the spool and speaks with the hub of plain data (`tests.support.hub_model`), which may know frames from before.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from device_sdk.conversation import State
from device_sdk.errors import Reason
from device_sdk.file_spool import FileSpool
from device_sdk.pace import CUT_S
from device_sdk.reading import Reading
from device_sdk.segment import MAX_STATE_BYTES, Scan, seed_of
from device_sdk.session import Session
from tests.support.hub_model import HubConversation, HubModel, ModelStream
from tests.support.hub_process import ROOT

T = 1_795_376_000_000_000_000
SAMPLES = 8
BOOT = "boot-1"
# Ends with 12 of 16 readings in three frames and 4 un-numbered ones; prints what a hub may have seen.
_PROGRAM = f"""
import json, os, signal, sys
from pathlib import Path
from device_sdk.file_spool import FileSpool
spool = FileSpool(Path(sys.argv[1]), boot={BOOT!r})
for n in range({SAMPLES}):
    spool.record([("t", n / 4), ("s", "text %d" % n)], None, {T} + n)
bodies = [spool.cut(max_readings=4).body.decode() for _ in range(3)]
print(json.dumps([spool.stream, bodies]), flush=True)
if sys.argv[2] == "ack":
    spool.acknowledge(1, spool.chain(1), "7f3a7f3a.1")
elif sys.argv[2] == "restart":
    spool.restart(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
RECORDED = [
    reading for n in range(SAMPLES) for reading in (Reading("t", T + n, n / 4), Reading("s", T + n, f"text {n}"))
]
SECOND_FRAME = set(RECORDED[4:8])
# Messages until everything is delivered: a few frames, and a few hellos for a new stream.
_MAX_TURNS = 100

Damage = Callable[[bytes, int], bytes]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda data, at: data[:at],
    "byte": lambda data, at: data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
    "bit": lambda data, at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],
}


class Left(NamedTuple):
    """What a killed process left: its spool, its stream, the bodies of its three frames."""

    path: Path
    stream: str
    bodies: list[bytes]

    def hub(self, frames: int) -> HubModel:
        """Return a hub that has stored that many of them."""
        hub = HubModel()
        hub.streams[self.stream] = ModelStream(waiting=self.bodies[:frames])
        hub.commit(self.stream)
        return hub


class Case(NamedTuple):
    """One damage: its name, which of the last two records it touches, whether it is seen, the spool and its hub."""

    name: str
    records: frozenset[int]
    is_visible: bool
    spool: FileSpool
    hub: HubModel


@pytest.fixture
def folder() -> Iterator[Path]:
    """Thousands of spools are opened: in memory where the machine offers it, for their directories are fsynced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def leave(folder: Path, last: str) -> Left:
    """Let a process work on a spool and be killed."""
    path = folder / "left"
    command = [sys.executable, "-c", _PROGRAM, str(path), last]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    stream, bodies = json.loads(done.stdout)
    return Left(path, stream, [body.encode() for body in bodies])


def cases(left: Left, work: Path, log: str, frames: int) -> Iterator[Case]:
    """Yield the opened spool for every byte of the last two records and every damage to it."""
    file = next(left.path.glob(f"{log}-*.log"))
    data = file.read_bytes()
    number = int(file.stem.partition("-")[2])
    ends = [end for _, end in Scan(data, seed_of(number), max_bytes=MAX_STATE_BYTES)]
    begin, middle = ends[-3], ends[-2]
    assert ends[-1] == len(data)
    for at in range(begin, len(data)):
        for name, damage in DAMAGES.items():
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(left.path, work)
            (work / file.name).write_bytes(damage(data, at))
            is_cut = name == "truncated"
            spool = FileSpool(work, boot=BOOT, sync_file=lambda fd: None)
            yield Case(
                f"{name} at byte {at - begin} of {len(data) - begin}",
                frozenset({-2, -1} if is_cut and at < middle else {-2} if at < middle else {-1}),
                # A log that ends exactly between two records looks like one that never had more.
                not (is_cut and at in (begin, middle)),
                spool,
                left.hub(frames),
            )
            spool.close()


def deliver(spool: FileSpool, hub: HubModel) -> None:
    """Let a session bring everything to the hub, over as many connections as it wants."""
    session = Session(spool, device="d1", boot=BOOT, run="r", sdk="test")
    conversation, now = HubConversation(hub), 0.0

    def tell(messages: list[bytes]) -> None:
        for message in messages:
            if session.state is not State.ENDING:
                session.receive(message, now)

    for _ in range(_MAX_TURNS):
        if session.state in (State.OFFLINE, State.ENDING):
            if not spool.pending and not spool.has_uncut:
                return
            session.disconnected()
            conversation = HubConversation(hub)
            tell(conversation.receive(session.connected(now)))
        elif not spool.pending and not spool.has_uncut and not session.has_unacked:
            return
        now += 2 * CUT_S
        while session.cut_is_due(now) and session.cut(now):
            pass
        for item in session.frames_to_send(now):
            tell(conversation.receive(item.data))
        tell(conversation.commit())
    raise AssertionError(f"not delivered: {spool.statistics()}, {session.state}")


def declared(gaps: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    """Return reason and count of each gap."""
    return [(gap["reason"], gap["count"]) for gap in gaps]


@pytest.mark.slow
def test_damaged_readings_cost_the_damaged_records_only(folder: Path) -> None:
    """Each lost reading is in a damaged record, each damage is declared, all else arrives exactly once."""
    left = leave(folder, "cut")

    for case in cases(left, folder / "work", "readings", frames=2):
        deliver(case.spool, case.hub)

        got = case.hub.counts()
        assert got <= Counter(RECORDED), case.name
        assert set(RECORDED) - set(got) <= {RECORDED[record] for record in case.records}, case.name
        expected = [(Reason.SPOOL_DAMAGED, None)] if case.is_visible else []
        assert (declared(case.hub.gaps), case.spool.statistics().damaged) == (expected, len(expected)), case.name


@pytest.mark.slow
@pytest.mark.parametrize(("last", "frames"), [("cut", 0), ("cut", 2), ("ack", 2), ("restart", 1)])
def test_damaged_state_costs_the_damaged_frame_only(folder: Path, last: str, frames: int) -> None:
    """Lost is at most a frame that no hub had and that another was numbered behind; each damage is declared.

    Nothing arrives twice but what the hub had of frames that this spool did not know to be acked: such a reading has
    the same instant, and the store keeps one row of it.
    """
    left = leave(folder, last)
    stored_before = left.hub(frames).counts()

    for case in cases(left, folder / "work", "state", frames=frames):
        deliver(case.spool, case.hub)

        got = case.hub.counts()
        is_frame_lost = last == "cut" and case.records == {-2}
        assert set(RECORDED) - set(got) <= (SECOND_FRAME if is_frame_lost else set()), case.name
        assert got <= Counter(RECORDED) + stored_before, case.name
        expected = [(Reason.SPOOL_DAMAGED, None)] if case.is_visible else []
        assert (declared(case.hub.gaps), case.spool.statistics().damaged) == (expected, len(expected)), case.name
