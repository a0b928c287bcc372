"""Rejections are counted over all streams and told once a kind."""

import logging

import pytest

from device_sdk.rejection import Rejections
from device_sdk.wire import Ack, Rejection


def ack(total: int, *rejected: Rejection) -> Ack:
    return Ack(1, "00", "r.1", total, rejected)


def test_total_is_cumulative_and_survives_a_new_stream() -> None:
    """An ack says the sum of its stream; an older ack that comes late takes nothing back."""
    rejections = Rejections("d")
    rejections.add(ack(3))
    rejections.add(ack(2))
    rejections.new_stream()
    rejections.add(ack(4))

    assert rejections.total == 7


def test_first_of_a_kind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The second reading refused for the same reason in the same channel is DEBUG."""
    caplog.set_level(logging.DEBUG, "device_sdk.session")
    rejections = Rejections("d")
    for n in range(2):
        rejections.add(ack(n + 1, Rejection(1, "door", n, "type_conflict")))

    assert [r.levelno for r in caplog.records] == [logging.WARNING, logging.DEBUG]


def test_kinds_that_a_peer_invents_do_not_fill_the_memory() -> None:
    """Past the cap nothing more is remembered."""
    rejections = Rejections("d")
    for n in range(2_000):
        rejections.add(ack(n, Rejection(1, f"c{n}", 0, "bad_name")))

    assert len(rejections._told) == 400
