"""`device_sdk.command_notes`: durable before, answered after, whatever ends the process in between."""

from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import SpoolError
from device_sdk import command_notes as module
from device_sdk.command_notes import FILE, MARGIN_NS, CommandNotes, Note
from device_sdk.wire import Reply

DONE = Reply("k1", True, {"speed": 3})


def test_what_was_begun_is_known_after_a_kill(tmp_path: Path) -> None:
    """With its reply once it ended, without one before."""
    notes = CommandNotes(tmp_path)
    notes.begin("k1", 100)
    notes.begin("k2", 200)
    notes.end(DONE)

    with closing(CommandNotes(tmp_path)) as again:  # as after a kill: the first was not closed
        note = again.find("k1")
        assert note is not None
        assert (note.reply, note.expires_ns) == (DONE, 100)
        assert again.find("k2") == Note(200)
        assert again.find("k3") is None
    notes.close()


def test_a_torn_tail_costs_only_itself(tmp_path: Path) -> None:
    """Whatever byte a power cut ends the file at, what was whole before is read."""
    with closing(CommandNotes(tmp_path)) as notes:
        notes.begin("k1", 100)
        size = (tmp_path / FILE).stat().st_size
        notes.begin("k2", 200)
    data = (tmp_path / FILE).read_bytes()

    for end in range(size, len(data)):
        (tmp_path / FILE).write_bytes(data[:end])
        with closing(CommandNotes(tmp_path)) as again:
            assert again.find("k1") == Note(100)
            again.begin("k3", 300)
        with closing(CommandNotes(tmp_path)) as again:
            assert again.find("k3") == Note(300)


def test_notes_are_forgotten_a_while_after_the_expiry(tmp_path: Path) -> None:
    """Not sooner, and only when the time is known."""
    with closing(CommandNotes(tmp_path)) as notes:
        notes.begin("k1", 100)
        notes.begin("k2", 200)
        assert notes.has_room(100 + MARGIN_NS)
        assert notes.has_room(None)
        assert notes.find("k1")
        assert notes.has_room(101 + MARGIN_NS)
        assert notes.find("k1") is None
        assert notes.find("k2")


def test_notes_are_bounded() -> None:
    """By the bytes of their replies, too; there is room again when they are forgotten."""
    notes = CommandNotes(None)
    notes.begin("k1", 100)
    assert notes.has_room(100)

    notes.end(Reply("k1", True, "x" * module.MAX_REPLY_BYTES))

    assert [notes.has_room(ns) for ns in (None, 100 + MARGIN_NS, 101 + MARGIN_NS)] == [False, False, True]


def test_the_file_is_written_anew_when_it_has_grown(tmp_path: Path) -> None:
    """What was forgotten leaves the disk."""
    with closing(CommandNotes(tmp_path)) as notes:
        for n in range(40):
            now_ns = n * 2 * MARGIN_NS
            assert notes.has_room(now_ns)
            notes.begin(f"k{n}", now_ns)
            notes.end(Reply(f"k{n}", True, "x" * 32_000))
        assert (tmp_path / FILE).stat().st_size < module._REWRITE_BYTES
    with closing(CommandNotes(tmp_path)) as again:
        assert again.find("k39")


def test_nothing_is_begun_that_cannot_be_noted(tmp_path: Path) -> None:
    """Closed, or where no file can be."""
    notes = CommandNotes(tmp_path)
    notes.close()
    with pytest.raises(OSError, match="closed"):
        notes.begin("k1", 100)
    assert notes.find("k1") is None
    with pytest.raises(SpoolError):
        CommandNotes(tmp_path / "nowhere")
