"""Whose turn it is: live readings and a backlog (in a conversation: test_session)."""

from device_sdk.memory_spool import MemorySpool
from device_sdk.turn import BACKLOG_READINGS, Turns

T = 1_795_376_000_000_000_000


def record(spool: MemorySpool, count: int) -> None:
    for _ in range(count):
        spool.record([("t", 1.0)], None, T)


def test_a_backlog_begins_beyond_the_threshold() -> None:
    """What is recorded later counts as live; a small remainder adds no lane."""
    spool = MemorySpool()
    turns = Turns(spool)
    record(spool, BACKLOG_READINGS)
    turns.prefer_live()
    assert (spool.backlog, turns.live, turns.may_cut_backlog) == (0, BACKLOG_READINGS, False)

    record(spool, 1)
    turns.prefer_live()
    record(spool, 3)
    turns.prefer_live()

    assert (spool.backlog, turns.live, turns.may_cut_backlog) == (BACKLOG_READINGS + 1, 3, True)


def test_live_and_backlog_take_turns_and_the_backlog_waits_for_its_ack() -> None:
    """Live first when it is due; one frame of the backlog in flight."""
    spool = MemorySpool()
    turns = Turns(spool)
    record(spool, BACKLOG_READINGS + 1)
    turns.prefer_live()
    record(spool, 1)
    assert not turns.is_backlogs(is_live_due=True)
    assert turns.is_backlogs(is_live_due=False)

    spool.cut()
    turns.took(1, from_backlog=False)
    assert turns.is_backlogs(is_live_due=True)
    frame = spool.cut(from_backlog=True)
    turns.took(2, from_backlog=True)

    assert frame is not None
    assert (turns.may_cut_backlog, turns.waits_for_live, turns.live) == (False, True, None)
    spool.acknowledge(2, frame.chain, "run.1")
    assert (turns.may_cut_backlog, turns.waits_for_live) == (True, False)
