"""How a spool in files decides, at its start, whether its stream may go on (effects: test_file_spool, contract)."""

from pathlib import Path

import pytest

from device_sdk import spool_event
from device_sdk.errors import Reason
from device_sdk.lane import NOTHING_NUMBERED
from device_sdk.outbox import Entry, Outbox
from device_sdk.reading_log import ReadingLog
from device_sdk.recovery import Recovered, recover
from device_sdk.spool_event import State
from device_sdk.state_log import Event, StateLog

ENTRIES: list[Entry] = [("t", 5, 1.0)]


def leave(
    path: Path, *, frames: int = 0, boot: str = "b1", durability: str = "second", then: tuple[Event, ...] = ()
) -> None:
    """Leave the files of a run that began with ``frames`` in flight."""
    outbox = Outbox("old")
    for _ in range(frames):
        made = outbox.next_frame(ENTRIES, 1_000)
        assert made is not None
        outbox.add(made)
    log = StateLog(path)
    log.begin(spool_event.snapshot(State(outbox, boot=boot, durability=durability)))
    for event in then:
        log.append(event)
    log.close()


def start(path: Path, boot: str = "b1") -> Recovered:
    found = recover(path, boot=boot, segment_bytes=4096, retain_bytes=0, new_stream=lambda: "new")
    found.readings.close()
    return found


CLOSE = spool_event.close_event(0, 0)


@pytest.mark.parametrize(
    ("frames", "durability", "then", "boot", "stream", "is_ending", "losses"),
    [
        (1, "second", (), "b1", "old", False, []),
        (1, "second", (CLOSE,), "b2", "old", False, []),
        (0, "second", (), "b2", "new", False, ["power_cut"]),
        (1, "second", (), "b2", "old", True, []),
        (1, "fsync", (), "b2", "old", False, []),
        (1, "second", (Event("later", {}),), "b1", "new", False, []),
        (1, "second", (Event("later", {}),), "b2", "new", False, ["power_cut"]),
    ],
    ids=["killed", "closed", "power cut, idle", "power cut, in flight", "power cut, fsync", "incoherent", "both"],
)
def test_stream_after_a_start(
    tmp_path: Path,
    frames: int,
    durability: str,
    then: tuple[Event, ...],
    boot: str,
    stream: str,
    is_ending: bool,
    losses: list[str],
) -> None:
    """The table in the module's docstring, row by row; readings in flight are never lost."""
    leave(tmp_path, frames=frames, durability=durability, then=then)

    outbox = start(tmp_path, boot).outbox

    assert (outbox.stream, outbox.is_ending, list(outbox.losses)) == (stream, is_ending, losses)
    assert outbox.readings_in_frames == frames
    assert len(outbox.returned) == (frames if stream == "new" else 0)


def test_new_directory_is_a_new_stream_without_loss(tmp_path: Path) -> None:
    """A first start declares nothing."""
    outbox = start(tmp_path).outbox

    assert (outbox.stream, outbox.losses, outbox.damaged) == ("new", {}, 0)


def test_damaged_state_is_a_new_stream_and_a_declared_loss(tmp_path: Path) -> None:
    """Even when the damage is at the end: it may have been a frame that was sent."""
    leave(tmp_path, frames=1, then=(CLOSE,))
    path = next(tmp_path.glob("state-*"))
    path.write_bytes(path.read_bytes()[:-1])

    outbox = start(tmp_path).outbox

    assert (outbox.stream, list(outbox.losses), outbox.damaged) == ("new", [Reason.SPOOL_DAMAGED], 1)
    assert len(outbox.returned) == 1


@pytest.mark.parametrize("log", ["state", "readings"])
def test_torn_end_after_a_power_cut_is_no_loss_where_each_record_is_synced(tmp_path: Path, log: str) -> None:
    """What was being written had neither been sent nor returned for: the stream goes on, nothing is declared."""
    leave(tmp_path, frames=2, durability="fsync", then=(spool_event.ack_event("old", 1, "p", None),))
    readings = ReadingLog(tmp_path, 4096, NOTHING_NUMBERED, 0)
    readings.append(ENTRIES, 5)
    readings.append(ENTRIES, 5)
    readings.close()
    path = next(tmp_path.glob(f"{log}-*"))
    path.write_bytes(path.read_bytes()[:-1])

    found = start(tmp_path, "b2")

    outbox = found.outbox
    assert (outbox.stream, outbox.is_ending, outbox.losses, outbox.damaged) == ("old", False, {}, 0)
    assert (len(outbox.frames), found.readings.left) == ((2, 2) if log == "state" else (1, 1))


def test_damage_before_the_end_is_declared_where_each_record_is_synced(tmp_path: Path) -> None:
    """A record that was synced and cannot be read is a loss, power cut or not."""
    leave(tmp_path, durability="fsync")
    readings = ReadingLog(tmp_path, 4096, NOTHING_NUMBERED, 0)
    readings.append(ENTRIES, 5)
    readings.append(ENTRIES, 5)
    readings.close()
    path = next(tmp_path.glob("readings-*"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :])

    outbox = start(tmp_path, "b2").outbox

    assert (list(outbox.losses), outbox.damaged) == ([Reason.SPOOL_DAMAGED], 1)


def test_torn_state_after_a_power_cut_keeps_the_old_stream(tmp_path: Path) -> None:
    """What was not fsynced was not sent: the frames that are there go first, as they are."""
    leave(tmp_path, frames=2, then=(spool_event.ack_event("old", 1, "p", None),))
    path = next(tmp_path.glob("state-*"))
    path.write_bytes(path.read_bytes()[:-1])

    outbox = start(tmp_path, "b2").outbox

    assert (outbox.stream, outbox.is_ending, len(outbox.frames)) == ("old", True, 2)
    assert outbox.losses == {}


def test_torn_end_is_forgiven_once(tmp_path: Path) -> None:
    """A second start finds the same torn file again; that makes up for no other damage."""
    readings = ReadingLog(tmp_path, 4096, NOTHING_NUMBERED, 0)
    readings.append(ENTRIES, 5)
    readings.append(ENTRIES, 5)
    readings.close()
    path = next(tmp_path.glob("readings-*"))
    path.write_bytes(path.read_bytes()[:-1])
    log = StateLog(tmp_path)
    log.begin(spool_event.snapshot(State(Outbox("old"), boot="b1", durability="fsync", damage={0: 1})))
    log.close()

    outbox = start(tmp_path, "b2").outbox

    assert (outbox.stream, outbox.losses, outbox.damaged) == ("old", {}, 0)
