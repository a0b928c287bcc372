"""Counts over all streams and connections of a process."""

import logging

import pytest

from device_sdk import wire
from device_sdk.tally import Tally


def ack(rejected_total: int, *rejected: wire.Rejection) -> wire.Ack:
    return wire.Ack(1, "00", "r.1", rejected_total, rejected)


def test_rejections_are_summed_over_streams() -> None:
    """The hub's total begins at 0 with each stream and never falls within one."""
    tally = Tally("d1")
    tally.add(ack(3))
    tally.add(ack(2))
    tally.new_stream()
    tally.add(ack(1))

    assert tally.rejected == 4


def test_acks_and_welcomes_are_counted() -> None:
    """The first welcome is no reconnect; a gap frame settles no reading."""
    tally = Tally("d1")
    assert tally.reconnects == 0
    tally.welcomes += 3
    tally.acked(5)
    tally.acked(0)

    assert (tally.reconnects, tally.acked_frames, tally.settled) == (2, 2, 5)


def test_a_rejection_warns_once_a_channel_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A broken sensor does not fill the log."""
    caplog.set_level(logging.DEBUG, "device_sdk.session")
    tally = Tally("d1")
    for seq in range(3):
        tally.add(ack(seq + 1, wire.Rejection(seq, "t", 0, "type_conflict")))

    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
